
# Job.pm
#	A job of five queries over a topic in a table, for tests of what happens to
#	the server around it.
#
#	create_job($node);                    # in database postgres
#	feed_job($node, seconds => 20);
#	is_exact($node, 'after a crash');
#
# NOTES
#	Every query of the job is another kind: tumbling, hopping, changes with
#	lateness, sessions, running totals.  Each feeding brings late records, bad
#	ones, and such that correct windows.  The judges are plain SQL over the topic,
#	verify() and the accounting identities.

package StreamEngine::Job;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use StreamEngine::Orders;
use StreamEngine::Test;
use Test::More;

our @EXPORT = qw(create_job feed_job is_exact);

my @queries = qw(tumbling hopping changing by_session ever);

# create_job(NODE, OPTIONS)
#	log     => TEXT   more of the CREATE TABLE of the topic
#	stream  => TEXT   more arguments of create_stream
sub create_job
{
	my ($node, %options) = @_;
	my $log = $options{log} // '';
	my $stream = $options{stream} ? ", $options{stream}" : '';

	$node->safe_psql('postgres', qq(
		CREATE TABLE log (partition int, "offset" bigint GENERATED ALWAYS AS IDENTITY (MINVALUE 0 START 0),
			timestamp timestamptz, key bytea, value bytea,
			PRIMARY KEY (partition, "offset") USING INDEX TABLESPACE pg_default) $log;
		CREATE SERVER tables FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.log', partitions '1');
		CREATE SEQUENCE clock MINVALUE 0;
	) . q(
		-- so many seconds of event time; behind them one late record, one bad, one for a window that has closed
		CREATE PROCEDURE feed(seconds int, per_second int, keys int, pad int) LANGUAGE plpgsql AS $$
		DECLARE
			start timestamptz := timestamptz '2025-01-01 00:00Z' + nextval('clock') * interval '1 second';
		BEGIN
			PERFORM setval('clock', lastval() + seconds - 1);
			INSERT INTO log (partition, timestamp, value)
			SELECT 0, now(), convert_to(format('{"k": %s, "v": %s, "ts": "%s", "pad": "%s"}', i * 7919 % keys, i,
				start + i / per_second * interval '1 second', repeat('x', pad)), 'UTF8')
			FROM generate_series(0, seconds * per_second - 1) AS i;
			INSERT INTO log (partition, timestamp, value) SELECT 0, now(), convert_to(r, 'UTF8') FROM unnest(ARRAY[
				format('{"k": 1, "v": 1, "ts": "%s"}', start - interval '1 hour'), '{"k": "x"}',
				format('{"k": 2, "v": 2, "ts": "%s"}', start + (seconds - 20) * interval '1 second')]) AS r;
		END $$;
	) . qq(
		BEGIN;
		SELECT stream_engine.create_stream('s', server => 'tables', topic => 'log', event_time => 'ts',
			columns => 'k int, v int, pad text, ts timestamptz', watermark_delay => '1 second',
			idle_timeout => '1 hour', include => '{}'$stream);
	) . q(
		SELECT stream_engine.create_query('tumbling', $$
			SELECT k, sum(v) AS total, count(*) AS n FROM s GROUP BY tumble(ts, '10 seconds'), k $$);
		SELECT stream_engine.create_query('hopping', $$
			SELECT k % 10 AS k, max(v) AS high, count(*) AS n FROM s
			GROUP BY hop(ts, '20 seconds', every => '10 seconds'), k % 10 $$);
		SELECT stream_engine.create_query('changing', $$
			SELECT k % 10 AS k, sum(v) AS total, count(*) AS n FROM s GROUP BY tumble(ts, '10 seconds'), k % 10 $$,
			emit => 'changes', emit_interval => '100 ms', allowed_lateness => '1 minute');
		SELECT stream_engine.create_query('by_session', $$
			SELECT k, sum(v) AS total, count(*) AS n FROM s GROUP BY session(ts, '1.5 seconds'), k $$);
		SELECT stream_engine.create_query('ever', $$
			SELECT k % 10 AS k, sum(v) AS total, count(*) AS n FROM s GROUP BY k % 10 $$, trigger_interval => '10 seconds');
		COMMIT;
	));
	return;
}

# feed_job(NODE, OPTIONS): false when the server refuses.
#	seconds => 10, per_second => 100, keys => 50, pad => 0
sub feed_job
{
	my ($node, %options) = @_;
	my @arguments = map { $options{ $_->[0] } // $_->[1] }
	  [ seconds => 10 ], [ per_second => 100 ], [ keys => 50 ], [ pad => 0 ];

	return try_sql($node, 'CALL feed(' . join(', ', @arguments) . ')') == 0;
}

# is_exact(NODE, WHEN): all has been read, and every query is what plain SQL gives.
sub is_exact
{
	my ($node, $when) = @_;

	foreach my $query (@queries)
	{
		wait_for_all($node, $query);
	}
	is($node->safe_psql('postgres', "SELECT name, error FROM stream_engine.queries WHERE state <> 'running'"), '', "$when: all run");
	foreach my $query (qw(tumbling hopping changing))
	{
		is($node->safe_psql('postgres', "SELECT * FROM stream_engine.verify('$query') LIMIT 5"), '', "$when: $query is verified");
	}
	is_accounted($node, $_) foreach @queries;

	# What was open at the end of the topic counts, too.
	my $good = q(SELECT s.*, l."offset" FROM log l, LATERAL (SELECT convert_from(l.value, 'UTF8')::json AS j) v,
		LATERAL (SELECT (j->>'k')::int AS k, (j->>'v')::int AS v, (j->>'ts')::timestamptz AS ts) s WHERE l.value <> '{"k": "x"}');
	my $late = q(SELECT FROM stream_engine.late_events e WHERE e.query = '%s'::regclass AND e."offset" = g."offset");
	is($node->safe_psql('postgres', sprintf(qq(
			SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
			SELECT (SELECT sum(n) FROM tumbling_live) - (SELECT count(*) FROM ($good) g WHERE NOT EXISTS ($late))), 'tumbling')),
		'0', "$when: each record counts once");
	is($node->safe_psql('postgres', qq(
			SELECT * FROM (SELECT k, total, n FROM ever_live
				EXCEPT ALL SELECT k % 10, sum(v), count(*) FROM ($good) g GROUP BY 1) d LIMIT 5)),
		'', "$when: totals are those of plain SQL");
	is($node->safe_psql('postgres', sprintf(qq(
			WITH good AS MATERIALIZED (SELECT k, v, ts FROM ($good) g WHERE NOT EXISTS ($late)),
			begun AS (SELECT *, COALESCE(ts - lag(ts) OVER (PARTITION BY k ORDER BY ts) >= '1.5 seconds', true) AS first FROM good),
			numbered AS (SELECT *, count(*) FILTER (WHERE first) OVER (PARTITION BY k ORDER BY ts) AS number FROM begun),
			expected AS (SELECT min(ts), max(ts) + interval '1.5 seconds', k, sum(v), count(*) FROM numbered GROUP BY k, number),
			got AS (SELECT window_start, window_end, k, total, n FROM by_session_live)
			(SELECT 'missing', * FROM (TABLE expected EXCEPT ALL TABLE got) m LIMIT 5)
			UNION ALL (SELECT 'unexpected', * FROM (TABLE got EXCEPT ALL TABLE expected) u LIMIT 5)), 'by_session')),
		'', "$when: sessions are those of plain SQL");
	return;
}

1;
