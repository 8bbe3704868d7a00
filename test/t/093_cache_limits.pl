
# Rule: stream_engine.state_memory bounds nothing but memory.  State that is larger
# than it, that was there before the worker, or whose worker has failed in the middle of a
# commit, is read from the state log, with the same result; and no page is lost.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

# Keys of the large query, and its state's bound; the worker's own memory must stay
# far below what the groups would take.
my ($keys, $memory, $own) = long_run() ? (5_000_000, '64MB', 400) : (300_000, '4MB', 150);
my $node = new_node('main', conf => qq(
stream_engine.commit_interval = 100ms
stream_engine.retry_interval = 20ms
stream_engine.max_failures = 20
stream_engine.state_memory = $memory
));

$node->safe_psql('postgres', q(
	CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
		PRIMARY KEY (partition, "offset"));
	CREATE SERVER limits FOREIGN DATA WRAPPER stream_engine_table
		OPTIONS (table 'public.log', partitions '1');
	SELECT stream_engine.create_stream('orders', server => 'limits', topic => 'orders',
		columns => 'key bigint, v bigint, t timestamptz', event_time => 't', watermark_delay => '2 seconds',
		idle_timeout => '1 hour', staging_retention => '0');
	SELECT stream_engine.create_query('large', $$
		SELECT key, count(*) AS n, sum(v) AS s, min(v) AS low, max(v) AS high FROM orders
		GROUP BY tumble(t, '1 hour'), key $$);
	SELECT stream_engine.create_query('small', $$
		SELECT key % 100 AS key, count(*) AS n, sum(v) AS s FROM orders
		GROUP BY tumble(t, '1 hour'), key % 100 $$);
	-- records first .. first + n - 1, each of another key, as long as there are any
	CREATE PROCEDURE feed(n bigint, keys bigint, at timestamptz DEFAULT '2026-01-01 00:10+00') LANGUAGE sql AS $$
		INSERT INTO log SELECT 0, f.first + i, now(), NULL,
			convert_to(format('{"key": %s, "v": %s, "t": "%s"}', (f.first + i) * 7919 % keys, i % 1000,
				at + i % 1000 * interval '1 s'), 'UTF8')
		FROM generate_series(0, n - 1) i, (SELECT COALESCE(max("offset") + 1, 0) AS first FROM log) f $$;
	CREATE FUNCTION live(query regclass, cache bool) RETURNS text LANGUAGE plpgsql STABLE AS $$
	DECLARE
		result text;
	BEGIN
		PERFORM set_config('stream_engine.state_cache', cache::text, true);
		EXECUTE format('SELECT concat_ws(%L, count(*), sum(n), sum(s), sum(hashint8(key)::bigint * n)) FROM %s_live', ' ', query)
			INTO result;
		RETURN result;
	END $$;
));

sub waited
{
	$node->safe_psql('postgres', "CALL stream_engine.wait('$_')") foreach qw(large small);
	return;
}

sub state_of
{
	return $node->safe_psql('postgres',
		"SELECT $_[1] FROM stream_engine.stat_state WHERE query = '$_[0]'::regclass");
}

# The open windows of both queries hold what was fed, from wherever they are read.
sub check
{
	my ($name) = @_;
	foreach my $query (qw(large small))
	{
		my $modulus  = $query eq 'small' ? 100 : 1_000_000_000;
		my $expected = $node->safe_psql('postgres', qq{
			SELECT concat_ws(' ', count(DISTINCT k), count(*), sum(v), sum(hashint8(k)::bigint)) FROM
				(SELECT (o->>'key')::bigint % $modulus AS k, (o->>'v')::bigint AS v
				FROM log, LATERAL (SELECT convert_from(value, 'UTF8')::jsonb AS o) j) r});
		is($node->safe_psql('postgres', "SELECT live('$query', true)"), $expected, "$name: $query");
		is($node->safe_psql('postgres', "SELECT live('$query', false)"), $expected, "$name: $query, from the log");
	}
	return;
}

# ---------------------------------------------------------------------------
# Larger than memory
# ---------------------------------------------------------------------------

$node->safe_psql('postgres', "CALL feed($keys, $keys)");
waited();
check('larger than memory');
is(state_of('large', 'cached_slices'), 0, 'the large slice is left to the log');
cmp_ok(state_of('large', 'refusals'), '>', 0, 'and that is counted');
is(state_of('small', 'cached_slices'), 1, 'the small one is in memory');
cmp_ok(state_of('small', 'hits'), '>', 0, 'and read there');

# Pages of the large slice that did not fit are free for others.
cmp_ok($node->safe_psql('postgres', 'SELECT free::float8 / total FROM stream_engine.state_memory()'),
	'>', 0.9, 'nothing holds memory that it does not use');

sub worker_memory
{
	my $most = 0;
	foreach my $pid (split /\n/, $node->safe_psql('postgres',
			"SELECT pid FROM stream_engine.stat_workers WHERE kind = 'reader'"))
	{
		my ($kb) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m;
		$most = $kb / 1024 if $kb / 1024 > $most;
	}
	return $most;
}

SKIP:
{
	skip 'no /proc', 1 if !-e '/proc/self/status';
	my $mb = worker_memory();
	note("$mb MB");
	cmp_ok($mb, '<', $own, 'no worker holds the groups in memory of its own');
}

# ---------------------------------------------------------------------------
# Workers that fail
# ---------------------------------------------------------------------------

SKIP:
{
	skip 'built without failpoints', 1 if $node->psql('postgres', 'SHOW stream_engine.failpoints') != 0;
	foreach my $failure (qw(commit.after_chunks=error@2 commit.before_commit=error@2 commit.before_commit=exit@2
		commit.after_commit=error@2 commit.before_commit=oom@2))
	{
		my $position = log_position($node);
		$node->append_conf('postgresql.conf', "stream_engine.failpoints = '$failure'");
		$node->reload;
		wait_until($node, sub {
				$node->safe_psql('postgres', 'CALL feed(500, 1000000)');
				log_since($node, $position) =~ /failpoint .* reached|exited with exit code 1|out of memory/;
			}, "a worker has failed at $failure");
		$node->append_conf('postgresql.conf', "stream_engine.failpoints = ''");
		$node->reload;
		waited();
	}
	check('after failures');
}

# ---------------------------------------------------------------------------
# State of before
# ---------------------------------------------------------------------------

my $failpoints = $node->psql('postgres', 'SHOW stream_engine.failpoints') == 0;
$node->append_conf('postgresql.conf', "stream_engine.failpoints = 'cache.filled=sleep:3000'") if $failpoints;
my $position = log_position($node);
$node->restart;
$node->safe_psql('postgres', 'CALL feed(500, 1000000)');
waited();
is(state_of('small', 'cached_slices'), 0, 'memory is empty when the worker begins');
check('after a restart');
cmp_ok(state_of('small', 'misses'), '>', 0, 'the log was read');
$node->safe_psql('postgres', 'CALL feed(500, 1000000)');
if ($failpoints)
{
	# A slice that is missed while it is filled is filled once.  A commit that found
	# nothing new may have begun to fill it already.
	wait_for_log($node, qr/failpoint "cache.filled" sleeps/, $position);
	$node->safe_psql('postgres', "SELECT live('small', true)");
	$node->append_conf('postgresql.conf', "stream_engine.failpoints = ''");
	$node->reload;
}
waited();
is(state_of('small', 'cached_slices'), 1, 'what was asked for comes back');
check('back in memory');
cmp_ok(state_of('small', 'hits'), '>', 0, 'and is read there');

# ---------------------------------------------------------------------------
# The end
# ---------------------------------------------------------------------------

$node->safe_psql('postgres', "CALL feed(1, 1000000, '2026-01-01 02:10+00')");
waited();
foreach my $query (qw(large small))
{
	is($node->safe_psql('postgres', "SELECT count(*) FROM stream_engine.verify('$query')"),
		0, "$query is what its batch gives");
}
$node->safe_psql('postgres', "SELECT stream_engine.drop_query('small')");
wait_for($node, 'SELECT count(*) = 1 FROM stream_engine.run_cache()');
$node->safe_psql('postgres', "SELECT stream_engine.drop_stream('orders', cascade => true)");
wait_for($node, 'SELECT total = free FROM stream_engine.state_memory()');
is($node->safe_psql('postgres', 'SELECT count(*) FROM stream_engine.run_cache()'), 0, 'nothing is left');

$node->append_conf('postgresql.conf', 'stream_engine.state_memory = 0');
$node->restart;
is($node->safe_psql('postgres', 'SELECT total, free FROM stream_engine.state_memory()'), '0|0', 'it can be turned off');

$node->stop;
done_testing();
