
# Rule: what a prepared transaction has created or resumed runs as soon as it is committed, not
# only when the engine looks by itself, once a minute.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use StreamEngine::Test;

my $node = new_node('main');
$node->safe_psql('postgres', q(
	CREATE TABLE log (partition int, "offset" bigint GENERATED ALWAYS AS IDENTITY (MINVALUE 0 START 0), timestamp timestamptz,
		key bytea, value bytea, PRIMARY KEY (partition, "offset"));
	CREATE SERVER tables FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.log', partitions '1');
	INSERT INTO log (partition, timestamp, value) SELECT 0, now(), convert_to(format('{"ts": "2025-01-01 00:0%s:00Z"}', i), 'UTF8')
		FROM generate_series(0, 9) AS i));

sub soon
{
	my ($name, $sql, $between) = @_;
	$node->safe_psql('postgres', "BEGIN; $sql; PREPARE TRANSACTION 'ddl'");
	$between->() if $between;
	my $began = time;
	$node->safe_psql('postgres', "COMMIT PREPARED 'ddl'");
	# wait() would wake them
	wait_for($node, "SELECT counted = (SELECT count(*) FROM log) FROM stream_engine.stat_queries WHERE query = '$name'::regclass");
	cmp_ok(time - $began, '<', 20, "$sql: soon after COMMIT PREPARED");
	is($node->safe_psql('postgres', "SELECT count(*) FROM stream_engine.verify('$name')"), '0', "$name is right");
	return;
}

my $query = q('SELECT count(*) AS n FROM s GROUP BY tumble(ts, ''1 minute'')');
soon('first', "SELECT stream_engine.create_stream('s', server => 'tables', topic => 'log', event_time => 'ts', columns => 'ts timestamptz', watermark_delay => '0');
	SELECT stream_engine.create_query('first', $query)");
soon('second', "SELECT stream_engine.create_query('second', $query)");
$node->safe_psql('postgres', q(SELECT stream_engine.pause('second');
	INSERT INTO log (partition, timestamp, value) VALUES (0, now(), '{"ts": "2025-01-01 00:10:00Z"}')));
soon('second', "SELECT stream_engine.resume('second')");
soon('third', "SELECT stream_engine.create_query('third', $query)", sub { $node->restart });

$node->stop;
done_testing();
