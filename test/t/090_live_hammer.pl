
# Rule: one SELECT of <query>_live has each window of each key exactly once, closed or
# open, and together they hold just the records that the same snapshot says were
# counted; in READ COMMITTED for each statement, in REPEATABLE READ the same for a
# whole transaction, while windows close all the time.

use strict;
use warnings FATAL => 'all';

use IPC::Run qw(start);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $batches = long_run() ? 5000 : 400;
my $node    = new_node('main', conf => q(
stream_engine.commit_interval = 10ms
));

$node->safe_psql('postgres', q(
	CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
		PRIMARY KEY (partition, "offset"));
	CREATE SERVER hammer FOREIGN DATA WRAPPER stream_engine_table
		OPTIONS (table 'public.log', partitions '2');
	SELECT stream_engine.create_stream('orders', server => 'hammer', topic => 'orders',
		columns => 'key int, t timestamptz', event_time => 't', watermark_delay => '2 seconds',
		idle_timeout => '1 hour', staging_retention => '0');
	SELECT stream_engine.create_query('tumbling', $$
		SELECT key, count(*) AS n FROM orders GROUP BY tumble(t, '1 second'), key $$);
	SELECT stream_engine.create_query('hopping', $$
		SELECT key, count(*) AS n FROM orders GROUP BY hop(t, '3 seconds', every => '1 second'), key $$);
	SELECT stream_engine.create_query('sessions', $$
		SELECT key, count(*) AS n FROM orders GROUP BY session(t, '60 milliseconds'), key $$);
	SELECT stream_engine.create_query('changing', $$
		SELECT key, count(*) AS n FROM orders GROUP BY tumble(t, '1 second'), key $$,
		emit => 'changes', emit_interval => '0');

	-- 100 records of half a second, up to a second out of order, 6 keys; no
	-- batch before all queries have the one ten before it
	CREATE PROCEDURE feed(batches int) LANGUAGE plpgsql AS $$
	BEGIN
		FOR batch IN 0 .. batches - 1 LOOP
			INSERT INTO log SELECT i % 2, batch * 50 + i / 2, now(), NULL,
				convert_to(format('{"key": %s, "t": "%s"}', (batch * 100 + i) / 40 % 6,
					timestamptz '2026-01-01 00:00+00' + (batch * 100 + i) * interval '5 ms'
					- (i * 31 % 10) * interval '100 ms'), 'UTF8')
			FROM generate_series(0, 99) i;
			COMMIT;
			WHILE (SELECT COALESCE(min(counted), 0) < batch * 100 - 1000 FROM stream_engine.stat_queries) LOOP
				PERFORM pg_sleep(0.005);
				COMMIT;
			END LOOP;
		END LOOP;
	END $$;

	-- what the snapshot of one statement shows: windows shown more than once,
	-- queries whose windows do not hold what was counted; and a fingerprint
	CREATE TYPE look AS (wrong text, shown bigint, fingerprint text);
	CREATE FUNCTION look() RETURNS look LANGUAGE plpgsql AS $$
	DECLARE
		result look;
	BEGIN
		WITH live AS MATERIALIZED (
			SELECT 'tumbling' AS query, 1 AS times, window_start, window_end, key, n FROM tumbling_live
			UNION ALL SELECT 'hopping', 3, window_start, window_end, key, n FROM hopping_live
			UNION ALL SELECT 'sessions', 1, window_start, window_end, key, n FROM sessions_live
			UNION ALL SELECT 'changing', 1, window_start, window_end, key, n FROM changing_live),
		repeated AS (
			SELECT format('%s %s %s: %s times', query, window_start, key, count(*)) AS wrong
			FROM live GROUP BY query, window_start, window_end, key HAVING count(*) > 1),
		unequal AS (
			SELECT format('%s holds %s of %s', s.query, COALESCE(l.n, 0), s.counted) AS wrong
			FROM stream_engine.stat_queries s
			LEFT JOIN (SELECT query, sum(n) / min(times) AS n FROM live GROUP BY query) l ON l.query = s.query::text
			WHERE COALESCE(l.n, 0) <> COALESCE(s.counted, 0))
		SELECT (SELECT string_agg(wrong, '; ') FROM (TABLE repeated UNION ALL TABLE unequal) w),
			count(*), md5(string_agg(l::text, ' ' ORDER BY l)) FROM live l INTO result;
		RETURN result;
	END $$;

	-- look until all has been counted; returns how often it looked
	CREATE PROCEDURE hammer(records bigint, INOUT looks int) LANGUAGE plpgsql AS $$
	DECLARE
		isolation text := current_setting('transaction_isolation');
		one look;
		two look;
	BEGIN
		LOOP
			COMMIT;
			one := look();
			IF one.wrong IS NOT NULL THEN
				RAISE EXCEPTION '%: %', isolation, one.wrong;
			END IF;
			looks := looks + 1;
			IF isolation = 'repeatable read' THEN
				two := look();
				IF one IS DISTINCT FROM two THEN
					RAISE EXCEPTION 'it has changed: % %', one, two;
				END IF;
			END IF;
			EXIT WHEN (SELECT min(counted) = records FROM stream_engine.stat_queries);
		END LOOP;
	END $$;
));

my @clients = map {
	my ($out, $err) = ('', '');
	local $ENV{PGOPTIONS} = "-c default_transaction_isolation=$_->[0]";
	my $run = start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-c', $_->[1] ],
		'<', \undef, '>', \$out, '2>', \$err,
		IPC::Run::timeout(10 * $PostgreSQL::Test::Utils::timeout_default));
	{ name => "$_->[1], $_->[0],", run => $run, out => \$out, err => \$err }
} (
	[ 'read\\ committed', "CALL feed($batches)" ],
	[ 'read\\ committed', "CALL hammer($batches * 100, 0)" ],
	[ 'repeatable\\ read', "CALL hammer($batches * 100, 0)" ]);
foreach my $client (@clients)
{
	$client->{run}->finish;
	is(${ $client->{err} }, '', "$client->{name} has found nothing wrong");
	chomp ${ $client->{out} };
	note("looked ${ $client->{out} } times") if ${ $client->{out} };
}

is($node->safe_psql('postgres',
		'SELECT DISTINCT counted, late, failed, late_assignments FROM stream_engine.stat_queries'),
	$batches * 100 . '|0|0|0', 'every record was counted');
is($node->safe_psql('postgres', q(
	SELECT count(*) FROM (SELECT window_start, key, n FROM tumbling EXCEPT SELECT window_start, key, n FROM changing WHERE is_final) d)),
	0, 'both ways to emit give the same windows');
cmp_ok($node->safe_psql('postgres', 'SELECT least((SELECT count(*) FROM tumbling), (SELECT count(*) FROM hopping),
	(SELECT count(*) FROM sessions), (SELECT count(*) FROM changing WHERE is_final))'),
	'>', 100, 'many windows have closed');
foreach my $query (qw(tumbling hopping))
{
	is($node->safe_psql('postgres', "SELECT count(*) FROM stream_engine.verify('$query')"),
		0, "$query is what its batch gives");
}

$node->stop;
done_testing();
