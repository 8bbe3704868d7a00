
# Rule: the groups of sessions that a worker keeps in its own memory are bounded, however
# many keys have open sessions; beyond the bound results are what plain SQL finds in the
# records, rows that are out of order or late included, also over a crash.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

# Keys, rows of each, the run cache, and what a worker may have of its own, in MB.
my ($keys, $rounds, $memory, $own) = long_run() ? (3_000_000, 3, '64MB', 420) : (20_000, 4, '256kB', 80);
$PostgreSQL::Test::Utils::timeout_default = 3600 if long_run();
my $node = new_node('main', conf => qq(
stream_engine.commit_interval = 200ms
stream_engine.retry_interval = 20ms
stream_engine.state_memory = $memory
work_mem = 256MB
));

$node->safe_psql('postgres', q(
	CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
		PRIMARY KEY (partition, "offset"));
	CREATE SERVER memory FOREIGN DATA WRAPPER stream_engine_table
		OPTIONS (table 'public.log', partitions '1');
	SELECT stream_engine.create_stream('visits', server => 'memory', topic => 'visits',
		columns => 'key bigint, v bigint, t timestamptz', event_time => 't', watermark_delay => '25 seconds',
		idle_timeout => '1 hour', staging_retention => '0');
	SELECT stream_engine.create_query('final', $$
		SELECT key, count(*) AS n, sum(v) AS s, min(v) AS low, max(v) AS high FROM visits
		GROUP BY session(t, '1 minute'), key $$);
	SELECT stream_engine.create_query('corrected', $$
		SELECT key, count(*) AS n, sum(v) AS s FROM visits
		GROUP BY session(t, '1 minute'), key $$, allowed_lateness => '1 day');

	-- The n-th row of a key comes about a minute behind the one before, so that half of
	-- them go on its session; those of each tenth key always do.
	CREATE FUNCTION time_of(k bigint, n int) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
		SELECT timestamptz '2026-01-01 00:00:30+00' + n * interval '60 s' +
			CASE WHEN k % 10 = 0 THEN 0 ELSE abs(hashint8(k * 31 + n)::bigint) % 20 END * interval '1 s' $$;
	-- One row of each key; for some one more, with the time of that of two rounds before.
	CREATE PROCEDURE feed(n int, keys bigint) LANGUAGE sql AS $$
		INSERT INTO log SELECT 0, f.first + row_number() OVER (ORDER BY r.i, r.again) - 1, now(), NULL,
			convert_to(format('{"key": %s, "v": %s, "t": "%s"}', r.k, r.i % 1000,
				time_of(r.k, CASE WHEN r.again THEN n - 2 ELSE n END)), 'UTF8')
		FROM (SELECT i, i * 7919 % keys AS k, again FROM generate_series(0, keys - 1) i,
				(VALUES (false), (true)) a (again)
			WHERE NOT again OR (n >= 2 AND i % 199 = 0)) r,
			(SELECT COALESCE(max("offset") + 1, 0) AS first FROM log) f $$;
	CREATE VIEW record AS
		SELECT "offset", (o->>'key')::bigint AS key, (o->>'v')::bigint AS v, (o->>'t')::timestamptz AS t
		FROM log, LATERAL (SELECT convert_from(value, 'UTF8')::jsonb AS o) j;
	-- gaps and islands
	CREATE FUNCTION sessions(without regclass) RETURNS TABLE (key bigint, window_start timestamptz,
		window_end timestamptz, n bigint, s numeric) LANGUAGE sql AS $$
		WITH begun AS (
			SELECT r.key, r.t, r.v, r.t - lag(r.t) OVER w > interval '1 minute' IS NOT FALSE AS begins
			FROM record r
			WHERE r."offset" NOT IN (SELECT l."offset" FROM stream_engine.late_events l WHERE l.query = without)
			WINDOW w AS (PARTITION BY r.key ORDER BY r.t)),
		numbered AS (
			SELECT *, count(*) FILTER (WHERE begins) OVER (PARTITION BY b.key ORDER BY b.t, b.begins DESC) AS island
			FROM begun b)
		SELECT i.key, min(i.t), max(i.t) + interval '1 minute', count(*), sum(i.v)
		FROM numbered i GROUP BY i.key, i.island $$;
));

# The largest private memory of a worker so far.
my $most = 0;

sub look
{
	foreach my $pid (split /\n/, $node->safe_psql('postgres',
			"SELECT pid FROM stream_engine.stat_workers WHERE kind = 'reader'"))
	{
		# it may have ended since
		my $status = -e "/proc/$pid/status" ? eval { slurp_file("/proc/$pid/status") } : '';
		my ($kb) = ($status // '') =~ /^RssAnon:\s+(\d+) kB/m;
		$most = $kb / 1024 if defined $kb && $kb / 1024 > $most;
	}
	return;
}

# Wait until all that has been fed is committed for both queries.
sub waited
{
	wait_until($node, sub {
			look();
			$node->safe_psql('postgres', q(
				SELECT COALESCE(min(next_offset), 0) > (SELECT max("offset") FROM log)
				FROM stream_engine.reader_partition p
				WHERE EXISTS (SELECT FROM stream_engine.query_progress q WHERE q.reader = p.reader))) eq 't';
		}, 'everything is read');
	return;
}

foreach my $round (0 .. $rounds - 1)
{
	$node->safe_psql('postgres', "CALL feed($round, $keys)");
	if ($round == 1)
	{
		# in the midst of it
		wait_until($node, sub {
				$node->safe_psql('postgres', q(SELECT max(next_offset) FROM stream_engine.reader_partition)) >
				  $keys * 1.3;
			}, 'the second round has begun');
		$node->stop('immediate');
		$node->start;
	}
	waited();
}
note($node->safe_psql('postgres', q(SELECT query, slices, cached_slices, hits, misses, evictions, refusals
	FROM stream_engine.stat_state)));
$node->safe_psql('postgres', q(INSERT INTO log SELECT 0, max("offset") + 1, now(), NULL,
	convert_to('{"key": -1, "v": 0, "t": "2026-01-03 00:00+00"}', 'UTF8') FROM log));
waited();
look();

cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM stream_engine.late_events WHERE query = 'final'::regclass"),
	'>', 0, 'some records were late');
foreach my $query (qw(final corrected))
{
	is($node->safe_psql('postgres', qq(
		WITH expected AS (SELECT * FROM sessions('$query') WHERE key >= 0),
			actual AS (SELECT key, window_start, window_end, n, s FROM $query)
		SELECT count(*) FROM ((TABLE expected EXCEPT ALL TABLE actual) UNION ALL
			(TABLE actual EXCEPT ALL TABLE expected)) d)), 0, "$query is what plain SQL finds");
}

SKIP:
{
	skip 'no /proc', 1 if !-e '/proc/self/status';
	note("$most MB");
	cmp_ok($most, '<', $own, 'no worker has kept the groups of all keys');
}

$node->stop;
done_testing();
