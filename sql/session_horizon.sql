-- Rule: with correction_horizon H a session that has expired is kept until W reaches its end + H,
-- for retry_late alone.  A retried record, whose own window [t, t + gap) must not be further back
-- than that, joins all sessions of its key within the gap, expired, closed or open, and what is
-- within the gap of these: they become one, whose row has the next revision, and the others' rows
-- go.  Rows that come by themselves never touch an expired session.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA session_horizon;
SET search_path = session_horizon, public;

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER session_horizon_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'session_horizon.log', partitions '1');
SELECT stream_engine.create_stream('clicks', server => 'session_horizon_server', topic => 'clicks',
	columns => 'who text, t timestamptz', event_time => 't', watermark_delay => '0',
	staging_retention => '0');
-- each record is "SECONDS WHO"; one commit
CREATE PROCEDURE send(VARIADIC records text[]) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log SELECT 0, COALESCE((SELECT max("offset") + 1 FROM log), 0) + o - 1, NULL, NULL,
		convert_to(json_build_object('t', timestamptz '2026-01-05 00:00:00+00' + split_part(r, ' ', 1)::numeric * interval '1 second',
			'who', NULLIF(split_part(r, ' ', 2), 'null'))::text, 'UTF8')
	FROM unnest(records) WITH ORDINALITY AS u (r, o);
	COMMIT;
	CALL stream_engine.wait('session_horizon.clicks', '1 minute');
END $$;
CREATE FUNCTION secs(timestamptz) RETURNS numeric LANGUAGE sql AS
	$$ SELECT extract(epoch FROM $1 - '2026-01-05 00:00:00+00'::timestamptz)::numeric(10, 1) $$;
CREATE PROCEDURE restart() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_terminate_backend(pid, 60000) FROM stream_engine.stat_workers WHERE kind = 'reader';
END $$;

SELECT stream_engine.create_query('visits', $$
	SELECT who, count(*) AS n, min(t) AS first, max(t) AS last FROM clicks GROUP BY session(t, '5 seconds'), who $$,
	correction_horizon => '1 minute');
SELECT stream_engine.create_query('few', $$
	SELECT who, count(*) AS n FROM clicks GROUP BY session(t, '5 seconds'), who HAVING count(*) < 3 $$,
	correction_horizon => '1 minute');
SELECT stream_engine.create_query('all_of_them', $$
	SELECT count(*) AS n, min(who) AS who, max(who) AS others FROM clicks WHERE who <> 'tick' GROUP BY session(t, '5 seconds') $$,
	allowed_lateness => '10 seconds', correction_horizon => '1 minute');
CREATE FUNCTION shown(of_who text) RETURNS TABLE (from_s numeric, to_s numeric, n bigint, first numeric, last numeric, is_final bool, revision int) LANGUAGE sql AS $$
	SELECT session_horizon.secs(window_start), session_horizon.secs(window_end), n, session_horizon.secs(first), session_horizon.secs(last), is_final, revision
	FROM session_horizon.visits_live WHERE who IS NOT DISTINCT FROM of_who ORDER BY 1, 2 $$;
CREATE FUNCTION shown_few(of_who text) RETURNS TABLE (from_s numeric, to_s numeric, n bigint, is_final bool, revision int) LANGUAGE sql AS $$
	SELECT session_horizon.secs(window_start), session_horizon.secs(window_end), n, is_final, revision
	FROM session_horizon.few_live WHERE who IS NOT DISTINCT FROM of_who ORDER BY 1, 2 $$;
CREATE FUNCTION shown_all() RETURNS TABLE (from_s numeric, to_s numeric, n bigint, who text, others text, is_final bool, revision int) LANGUAGE sql AS $$
	SELECT session_horizon.secs(window_start), session_horizon.secs(window_end), n, who, others, is_final, revision
	FROM session_horizon.all_of_them_live ORDER BY 1, 2 $$;
CREATE PROCEDURE retry(query regclass, INOUT taken bigint DEFAULT NULL) LANGUAGE plpgsql AS $$
BEGIN
	taken := stream_engine.retry_late(query);
	COMMIT;
	CALL stream_engine.wait(query, '1 minute');
END $$;

-- two sessions of a have expired; 6, which is late, makes them one; HAVING refuses that
CALL send('0 a', '2 a', '10 a', '30 tick', '6 a');
SELECT * FROM shown('a');
SELECT * FROM shown_few('a');
CALL retry('visits');
CALL retry('few');
SELECT * FROM shown('a');
SELECT * FROM shown_few('a');
CALL retry('visits');
-- once more, after a restart; 20 and 22 are a session of their own
CALL send('12 a', '20 b');
CALL restart();
CALL retry('visits');
SELECT * FROM shown('a');
SELECT * FROM shown('b');
CALL send('22 b', '18 null', '15.5 null');
CALL retry('visits');
SELECT * FROM shown('b');
SELECT * FROM shown(NULL);
SELECT count(*) FROM stream_engine.late_events WHERE query = 'visits'::regclass;

-- 25 is late; 29 is not, and open: together they stay open
CALL send('25 c', '29 c');
SELECT * FROM shown('c');
CALL retry('visits');
SELECT * FROM shown('c');
SELECT count(*) FROM visits WHERE who = 'c';
CALL send('33 d', '40 tick');
SELECT * FROM shown('c');
-- 36.5 is on time, and leaves the expired session alone; 30 joins that, and so all of it is open
CALL send('36.5 d', '30 d');
SELECT * FROM shown('d');
CALL retry('visits');
SELECT * FROM shown('d');
CALL restart();
CALL send('42 tick');
SELECT * FROM shown('d');

-- three expired sessions of e in one bucket, and what is between two others
CALL send('50 e', '55 tick');
CALL send('52 e', '57 tick');
CALL send('53 e', '58 tick');
SELECT * FROM shown('e');
CALL restart();
CALL send('47 e', '43 f', '51 f');
CALL retry('visits');
SELECT * FROM shown('e');
SELECT * FROM shown('f');
CALL send('47 f');
CALL retry('visits');
SELECT * FROM shown('f');

-- an expired session and an open one of many buckets
CALL send('90 g', '96 tick', '100 g', '104 g', '108 g', '112 g', '116 g', '94.9 g');
CALL retry('visits');
SELECT * FROM shown('g');
CALL send('96 g');
SELECT * FROM shown('g');
CALL send('87 g');
CALL retry('visits');
SELECT * FROM shown('g');
CALL restart();
CALL send('125 tick', '84 g');
SELECT * FROM shown('g');
CALL retry('visits');
SELECT * FROM shown('g');
-- both of a batch, the second of which is near the first alone
CALL send('70 h', '74 h', '65.5 h');
CALL retry('visits');
SELECT * FROM shown('h');

-- W = 125: what ended by 65 is out of reach
CALL send('60 a', '61 a');
CALL retry('visits');
SELECT * FROM shown('a') WHERE from_s > 50;
SELECT secs(event_time) AS t FROM stream_engine.late_events WHERE query = 'visits'::regclass;

-- with allowed_lateness as well: until 135 rows come in by themselves, later by retry_late
SELECT * FROM shown_all();
CALL retry('all_of_them');
SELECT * FROM shown_all();
CALL send('126 y', '140 tick', '123 x', '119.5 w');
SELECT * FROM shown_all() WHERE from_s > 80;
CALL send('142 tick', '112 z');
CALL retry('all_of_them');
SELECT * FROM shown_all() WHERE from_s > 80;

-- every record has its place; no state is left behind the horizon; a query over all but the late ones finds the same
SELECT query, counted, filtered, late, late_assignments, failed, decoded = counted + filtered + late + before_start + failed AS adds_up,
	windows_closed = (SELECT count(*) FROM visits) AS all_counted
FROM stream_engine.stat_queries WHERE query = 'visits'::regclass;
CALL send('300 tick', '400 tick', '401 end');
SELECT open_slices FROM stream_engine.stat_queries WHERE query = 'visits'::regclass;
SELECT open_slices FROM stream_engine.stat_queries WHERE query = 'all_of_them'::regclass;
CALL retry('visits');
WITH record AS (
	SELECT (j ->> 't')::timestamptz AS t, j ->> 'who' AS who FROM log, LATERAL (SELECT convert_from(value, 'UTF8')::json AS j) AS j
	WHERE NOT EXISTS (SELECT FROM stream_engine.late_events l WHERE l.query = 'visits'::regclass AND l."offset" = log."offset")),
begun AS (SELECT *, (t - lag(t) OVER w <= '5 seconds') IS NOT TRUE AS begins FROM record WINDOW w AS (PARTITION BY who ORDER BY t)),
numbered AS (SELECT *, count(*) FILTER (WHERE begins) OVER (PARTITION BY who ORDER BY t) AS session FROM begun),
batch AS (SELECT min(t) AS window_start, max(t) + interval '5 seconds' AS window_end, who, count(*) AS n FROM numbered GROUP BY who, session),
live AS (SELECT window_start, window_end, who, n FROM visits_live)
SELECT count(*) AS sessions, (SELECT count(*) FROM ((TABLE batch EXCEPT ALL TABLE live) UNION ALL (TABLE live EXCEPT ALL TABLE batch)) AS d) AS differences
FROM batch;

SELECT stream_engine.create_query('changing', $$
	SELECT who, count(*) FROM clicks GROUP BY session(t, '5 seconds'), who $$, emit => 'changes', correction_horizon => '1 hour');
SELECT stream_engine.drop_stream('clicks', cascade => true);
DROP SCHEMA session_horizon CASCADE;
DROP SERVER session_horizon_server;
