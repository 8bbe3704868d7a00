
# At log_min_messages = debug1, set for the database, each commit tells where its time went;
# otherwise none does.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $node = new_node('main');

$node->safe_psql('postgres', q(
	CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
		PRIMARY KEY (partition, "offset"));
	CREATE SERVER records FOREIGN DATA WRAPPER stream_engine_table
		OPTIONS (table 'public.log', partitions '1');
	CREATE PROCEDURE feed(n int, t text) LANGUAGE sql AS $$
		INSERT INTO log SELECT 0, f.first + i, now(), NULL, convert_to(format('{"t": "%s"}', t), 'UTF8')
		FROM generate_series(0, n - 1) i, (SELECT COALESCE(max("offset") + 1, 0) AS first FROM log) f $$;
));

sub create
{
	my ($name) = @_;

	$node->safe_psql('postgres', qq(
		SELECT stream_engine.create_stream('$name', server => 'records', topic => '$name',
			columns => 't timestamptz', event_time => 't', watermark_delay => '0', staging_retention => '0');
		SELECT stream_engine.create_query('${name}_counts',
			'SELECT count(*) AS n FROM $name GROUP BY tumble(t, ''1 minute'')')));
	$node->safe_psql('postgres', "CALL stream_engine.wait('${name}_counts')");
}

$node->safe_psql('postgres', q(CALL feed(3, '2026-01-01 00:00:10+00')));
my $position = log_position($node);
create('usual');
unlike(log_since($node, $position), qr/commit of \d+ records/, 'commits are not logged');

$node->safe_psql('postgres', 'ALTER DATABASE postgres SET log_min_messages = debug1');
create('told');
my $steps = join ', ', map { "$_ [\\d.]+" } 'locks', 'late and bad records', 'windows', 'state', 'progress', 'commit';
my $times = "took [\\d.]+ ms \\($steps\\); before it [\\d.]+ ms; in both [\\d.]+ ms of processor time";
wait_for_log($node, qr/stream public\.told: commit of 3 records $times/, $position);
pass('a commit is logged, with its steps');

$node->safe_psql('postgres', q(CALL feed(1, '2026-01-01 00:01:10+00')));
wait_for_log($node, qr/stream public\.told: commit of 1 records $times/, $position);
is($node->safe_psql('postgres', 'SELECT n FROM told_counts'), '3', 'and the window that it closed is there');
unlike(log_since($node, $position), qr/stream public\.usual: commit of \d+ records/, 'the worker that was there before tells nothing');

$node->stop;
done_testing();
