
# Rule: while nothing comes, a stream writes nothing; but when a session reads its open windows
# and that is slow, because their state is in many runs or not in shared memory, the worker
# mends it by one commit, with the same result.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $node = new_node('main', conf => q(
stream_engine.commit_interval = 20ms
stream_engine.retry_interval = 20ms
));

$node->safe_psql('postgres', q(
	CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
		PRIMARY KEY (partition, "offset"));
	CREATE SERVER quiet FOREIGN DATA WRAPPER stream_engine_table
		OPTIONS (table 'public.log', partitions '1');
	SELECT stream_engine.create_stream('orders', server => 'quiet', topic => 'orders',
		columns => 'key bigint, v bigint, t timestamptz', event_time => 't',
		idle_timeout => '1 hour', staging_retention => '0');
	SELECT stream_engine.create_query('windows', $$
		SELECT key, count(*) AS n, sum(v) AS s FROM orders GROUP BY tumble(t, '1 hour'), key $$);
	SELECT stream_engine.create_query('sessions', $$
		SELECT key, count(*) AS n, sum(v) AS s FROM orders GROUP BY session(t, '1 hour'), key $$);
	SELECT stream_engine.create_query('totals', $$
		SELECT key, count(*) AS n, sum(v) AS s FROM orders GROUP BY key $$, trigger_interval => '1 day');
	CREATE PROCEDURE feed(n int) LANGUAGE sql AS $$
		INSERT INTO log SELECT 0, f.first + i, now(), NULL,
			convert_to(format('{"key": %s, "v": %s, "t": "2026-01-01 00:10+00"}', i, i % 10), 'UTF8')
		FROM generate_series(0, n - 1) i, (SELECT COALESCE(max("offset") + 1, 0) AS first FROM log) f $$;
	CREATE VIEW runs AS SELECT q.result AS query, count(DISTINCT l.seq) AS n
		FROM stream_engine.query q JOIN stream_engine.state_log l ON l.query = q.id GROUP BY 1;
));

my @queries  = qw(windows sessions totals);
my $rounds   = 9;
# so few that no commit folds them for their number
my $expected = join ' ', 100, 100 * $rounds, 450 * $rounds;

foreach my $round (1 .. $rounds)
{
	$node->safe_psql('postgres', 'CALL feed(100)');
	$node->safe_psql('postgres', "CALL stream_engine.wait('$_')") foreach @queries;
}

sub live
{
	my ($query) = @_;
	return $node->safe_psql('postgres',
		"SELECT concat_ws(' ', count(*), sum(n), sum(s)) FROM ${query}_live");
}

is($node->safe_psql('postgres', 'SELECT count(*) FROM runs WHERE n >= 4'), 3, 'there are many runs');
foreach my $query (@queries)
{
	is(live($query), $expected, "$query is right");
	wait_for($node, "SELECT n = 1 FROM runs WHERE query = '$query'::regclass");
	is(live($query), $expected, "$query is right when it has one");
}

$node->restart;
wait_for($node, 'SELECT count(*) = 3 FROM stream_engine.stat_state');
# the interval trigger reads the totals itself when the worker begins
foreach my $query (qw(windows sessions))
{
	my $cached = "SELECT cached_slices FROM stream_engine.stat_state WHERE query = '$query'::regclass";

	is($node->safe_psql('postgres', $cached), 0, "nothing of $query is in memory");
	is(live($query), $expected, "$query is right");
	wait_for($node, $cached, expected => '1');
	is(live($query), $expected, "$query is right from memory");
}

$node->stop;
done_testing();
