-- Rule: what has been emitted stays complete.  When a partition that was silent begins, and the
-- first complete window becomes a later one, windows and sessions that have been emitted
-- before are corrected as all others are, and a session that takes one in is complete, too.
SET timezone = 'UTC';
SET client_min_messages = warning;
CREATE SCHEMA first_emitted;
SET search_path = first_emitted, public;
CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea, PRIMARY KEY (partition, "offset"));
CREATE FUNCTION put(part int, k text, VARIADIC times int[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO first_emitted.log SELECT part, i - 1 + (SELECT count(*) FROM first_emitted.log WHERE partition = part), now(), NULL,
		convert_to(format('{"at": %s, "k": "%s"}', t, k), 'UTF8')
	FROM unnest(times) WITH ORDINALITY AS u (t, i) $$;
CREATE SERVER emitted_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'first_emitted.log', partitions '2');
SELECT stream_engine.create_stream('s', 'emitted_server', 't', 'at timestamptz EPOCH ''s'', k text', event_time => 'at',
	watermark_delay => '0', idle_timeout => '20 ms', staging_retention => '0');
CREATE FUNCTION make(name text, win text, options text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT stream_engine.create_query(%L, %L, start => ''latest'', %s)', name, 'SELECT k, count(*) AS n FROM s GROUP BY ' || win || ', k', options);
END $$;
CREATE TABLE shape (name text, win text, options text);
INSERT INTO shape VALUES ('tumbling', 'tumble(at, ''10 s'')', 'allowed_lateness => ''1 hour'''),
	('hopping', 'hop(at, ''20 s'', every => ''10 s'')', 'allowed_lateness => ''1 hour'''),
	('changing', 'tumble(at, ''10 s'')', 'allowed_lateness => ''1 hour'', emit => ''changes'', emit_interval => ''1 ms'''),
	('retried', 'tumble(at, ''10 s'')', 'correction_horizon => ''1 hour'''),
	('sessions', 'session(at, gap => ''10 s'')', 'allowed_lateness => ''1 hour'''),
	('sessions_changing', 'session(at, gap => ''10 s'')', 'allowed_lateness => ''1 hour'', emit => ''changes'', emit_interval => ''1 ms'''),
	('sessions_retried', 'session(at, gap => ''10 s'')', 'correction_horizon => ''1 hour''');
DO $$ BEGIN PERFORM make(name, win, options) FROM shape; END $$;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until
CALL until('count(DISTINCT query) = 7 AND bool_and(idle) FROM stream_engine.stat_partitions WHERE stream = ''s''::regclass AND query IS NOT NULL');

-- partition 1 is silent: the windows of partition 0, which begins at 0, are emitted
SELECT put(0, 'a', 0, 5, 12, 50, 100);
CALL until('min(watermark) = to_timestamp(100) FROM stream_engine.stat_queries WHERE stream = ''s''::regclass');
SELECT extract(epoch FROM window_start) AS start, extract(epoch FROM window_end) AS upto, k, n, revision FROM tumbling ORDER BY 1, 2, 3;
SELECT extract(epoch FROM window_start) AS start, extract(epoch FROM window_end) AS upto, k, n, revision FROM sessions ORDER BY 1, 2, 3;

-- partition 1 begins at 45; the rows behind it belong to windows that have been emitted, and
-- bridge two sessions, of which one begins before 45
SELECT put(1, 'z', 45), put(1, 'a', 7, 21, 31, 41);
CALL stream_engine.wait('s', '1 minute');
SELECT DISTINCT extract(epoch FROM complete_from) AS complete_from, before_start FROM stream_engine.stat_queries WHERE stream = 's'::regclass;
SELECT extract(epoch FROM window_start) AS start, extract(epoch FROM window_end) AS upto, k, n, revision FROM tumbling ORDER BY 1, 2, 3;
SELECT extract(epoch FROM window_start) AS start, extract(epoch FROM window_end) AS upto, k, n, revision FROM hopping ORDER BY 1, 2, 3;
SELECT extract(epoch FROM window_start) AS start, extract(epoch FROM window_end) AS upto, k, n FROM changing WHERE is_final ORDER BY 1, 2, 3;
SELECT extract(epoch FROM window_start) AS start, extract(epoch FROM window_end) AS upto, k, n, revision FROM sessions ORDER BY 1, 2, 3;
SELECT extract(epoch FROM window_start) AS start, extract(epoch FROM window_end) AS upto, k, n FROM sessions_changing WHERE is_final ORDER BY 1, 2, 3;

-- without lateness they are late, and counted when they are retried
SELECT query, count(*) FROM stream_engine.late_events WHERE query IN ('retried'::regclass, 'sessions_retried'::regclass) GROUP BY 1 ORDER BY 1;
SELECT stream_engine.retry_late('retried'), stream_engine.retry_late('sessions_retried');
CALL until('NOT EXISTS (SELECT FROM stream_engine.late_event WHERE retry)');
SELECT query, count(*) FROM stream_engine.late_events GROUP BY 1 ORDER BY 1;
SELECT extract(epoch FROM window_start) AS start, extract(epoch FROM window_end) AS upto, k, n, revision FROM retried ORDER BY 1, 2, 3;
SELECT extract(epoch FROM window_start) AS start, extract(epoch FROM window_end) AS upto, k, n, revision FROM sessions_retried ORDER BY 1, 2, 3;

-- a restart changes nothing of that: the rows that come next are corrections, too
SELECT count(pg_terminate_backend(pid)) > 0 AS restarted FROM stream_engine.stat_workers WHERE kind = 'reader' AND database = current_database() AND pid IS NOT NULL;
SELECT put(0, 'a', 8, 14), put(1, 'z', 130), put(0, 'a', 130);
CALL until('min(watermark) = to_timestamp(130) FROM stream_engine.stat_queries WHERE stream = ''s''::regclass');
SELECT extract(epoch FROM window_start) AS start, extract(epoch FROM window_end) AS upto, k, n, revision FROM tumbling ORDER BY 1, 2, 3;
SELECT extract(epoch FROM window_start) AS start, extract(epoch FROM window_end) AS upto, k, n, revision FROM sessions ORDER BY 1, 2, 3;
SELECT name, v.* FROM shape, LATERAL stream_engine.verify(name::regclass) v WHERE win NOT LIKE 'session%' ORDER BY 1;
SELECT sum(before_start) AS before_start, bool_and(decoded = counted + filtered + late + before_start + failed) AS balanced FROM stream_engine.stat_queries WHERE stream = 's'::regclass;

SET client_min_messages = error;
DROP SERVER emitted_server CASCADE;
DROP SCHEMA first_emitted CASCADE;
