-- Rule: when a window closes, and which records are late, to the tick: a window is
-- closed when W >= its end, and a record is late iff all its windows are closed.
-- Times are seconds since 1970; tumbling windows of 10 s and a watermark delay of
-- 5 s if nothing else is said.
SET timezone = 'UTC';
SET client_min_messages = warning;
CREATE SCHEMA time_vectors;
SET search_path = time_vectors, public;

CREATE TABLE log (topic text, partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (topic, partition, "offset"));
CREATE SERVER vectors FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'time_vectors.log', partitions '1');
CREATE SERVER vectors_two FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'time_vectors.log', partitions '2');

CREATE FUNCTION seconds(t timestamptz) RETURNS numeric LANGUAGE sql AS
	$$ SELECT CASE WHEN isfinite(t) THEN trim_scale(extract(epoch FROM t)) END $$;
CREATE FUNCTION produce(topic text, partition int, VARIADIC seconds numeric[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO log
	SELECT topic, partition, i - 1 + (SELECT count(*) FROM log l WHERE l.topic = produce.topic AND l.partition = produce.partition),
		now(), NULL, convert_to(format('{"ts": %s}', round(s * 1000000)), 'UTF8')
	FROM unnest(seconds) WITH ORDINALITY AS u (s, i) $$;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until

-- Each vector is read twice: in one piece, and a record at a time.
CREATE TABLE vector (number int, win text, delay interval, input numeric[]);
INSERT INTO vector VALUES
	(1, 'tumble(ts, ''10 s'')', '5 s', '{1, 14.999}'),
	(2, 'tumble(ts, ''10 s'')', '5 s', '{1, 15}'),
	(3, 'tumble(ts, ''10 s'')', '5 s', '{1, 14, 9.5}'),
	(4, 'tumble(ts, ''10 s'')', '5 s', '{1, 14.9, 9.5}'),
	(5, 'tumble(ts, ''10 s'')', '5 s', '{1, 15, 9.999}'),
	(6, 'tumble(ts, ''10 s'')', '5 s', '{1, 15, 10}'),
	(7, 'tumble(ts, ''10 s'')', '0', '{1, 15, 15, 15}'),
	(8, 'tumble(ts, ''10 s'')', '5 s', '{-0.001}'),
	(9, 'hop(ts, size => ''10 s'', every => ''5 s'')', '0', '{15, 6}'),
	(10, 'hop(ts, size => ''10 s'', every => ''5 s'')', '0', '{12, 6}'),
	(11, 'session(ts, gap => ''5 s'')', '0', '{0, 5}'),
	(12, 'session(ts, gap => ''5 s'')', '10 s', '{0, 9, 4}'),
	-- the tick before the end, and no delay
	(20, 'tumble(ts, ''10 s'')', '5 s', '{1, 14.999999}'),
	(21, 'tumble(ts, ''10 s'')', '0', '{9.999999, 10, 9.999999}'),
	(22, 'cumulate(ts, size => ''10 s'', step => ''5 s'')', '0', '{1, 5, 4, 10, 9}'),
	-- a tick more than the gap; late by a tick; on time, but only near a session that has ended;
	-- late for itself, but within an open session that began long ago
	(23, 'session(ts, gap => ''5 s'')', '10 s', '{0, 5.000001}'),
	(24, 'session(ts, gap => ''5 s'')', '0', '{0, 20, 14.999999, 15}'),
	(25, 'session(ts, gap => ''5 s'')', '0', '{0, 6, 3}'),
	(26, 'session(ts, gap => ''5 s'')', '0', '{0, 4, 8, 12, 16, 1, 20.999999, 2}');
CREATE VIEW piece AS
	SELECT format('v%s%s', number, suffix) AS name, suffix, number, win, delay, input
	FROM vector, unnest('{"", _slow}'::text[]) AS suffix;

\set ECHO errors
SELECT format($$
	DO $do$ BEGIN PERFORM stream_engine.create_stream('%1$s_stream', server => 'vectors', topic => '%1$s',
		columns => 'ts timestamptz EPOCH ''us''', event_time => 'ts', watermark_delay => '%2$s', staging_retention => '0');
	PERFORM stream_engine.create_query('%1$s', 'SELECT count(*) AS rows, min(ts) AS first, max(ts) AS last FROM %1$s_stream GROUP BY %3$s');
	END $do$ $$, name, delay, replace(win, '''', ''''''))
FROM piece ORDER BY number, suffix \gexec

DO $$ BEGIN PERFORM produce(name, 0, VARIADIC input) FROM piece WHERE suffix = ''; END $$;
SELECT s FROM generate_series(1, 8) AS step, piece,
	LATERAL (VALUES (1, format('DO $do$ BEGIN PERFORM produce(%L, 0, %s); END $do$', name, input[step])),
		(2, format('CALL stream_engine.wait(%L, ''60 s'')', name))) AS v (n, s)
WHERE suffix <> '' AND step <= cardinality(input)
ORDER BY step, n, number \gexec
SELECT format('CALL stream_engine.wait(%L, ''60 s'')', name) FROM piece WHERE suffix = '' \gexec
\set ECHO all

SELECT string_agg(format('SELECT %s AS vector, %L AS name, * FROM %s_live', number, name, name), ' UNION ALL ') AS live FROM piece \gset
CREATE TEMP VIEW live AS :live;
SELECT l.vector, v.input, seconds(window_start) AS starts, seconds(window_end) AS ends, rows, seconds(first) AS first, seconds(last) AS last, is_final
FROM live l JOIN vector v ON v.number = l.vector WHERE name NOT LIKE '%\_slow' ORDER BY 1, 3, 4;
SELECT number AS vector, seconds(event_time) AS late, seconds(watermark) AS watermark,
	(SELECT string_agg(format('[%s, %s)', seconds(lower(w)), seconds(upper(w))), ' ') FROM unnest(windows) AS w) AS windows
FROM stream_engine.late_events e JOIN piece ON piece.name::regclass = e.query WHERE suffix = '' ORDER BY 1, "offset";
SELECT number AS vector, seconds(watermark) AS watermark, counted, late, late_assignments
FROM stream_engine.stat_queries s JOIN piece ON piece.name::regclass = s.query WHERE suffix = '' ORDER BY 1;

-- a record at a time gives the same: no rows
SELECT vector, window_start, window_end, rows, first, last, is_final FROM live WHERE name LIKE '%\_slow'
EXCEPT ALL
SELECT vector, window_start, window_end, rows, first, last, is_final FROM live WHERE name NOT LIKE '%\_slow';
SELECT number, "offset", e.watermark, windows FROM stream_engine.late_events e JOIN piece ON piece.name::regclass = e.query WHERE suffix <> ''
EXCEPT ALL
SELECT number, "offset", e.watermark, windows FROM stream_engine.late_events e JOIN piece ON piece.name::regclass = e.query WHERE suffix = '';
SELECT number, watermark, counted, late, late_assignments FROM stream_engine.stat_queries s JOIN piece ON piece.name::regclass = s.query WHERE suffix <> ''
EXCEPT ALL
SELECT number, watermark, counted, late, late_assignments FROM stream_engine.stat_queries s JOIN piece ON piece.name::regclass = s.query WHERE suffix = '';

-- 13: a partition without records holds the watermark ...
CREATE FUNCTION create_two(name text, idle_timeout interval) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM stream_engine.create_stream(name || '_stream', server => 'vectors_two', topic => name, columns => 'ts timestamptz EPOCH ''us''',
		event_time => 'ts', watermark_delay => '5 s', staging_retention => '0', idle_timeout => idle_timeout);
	PERFORM stream_engine.create_query(name, format('SELECT count(*) AS rows FROM %s_stream GROUP BY tumble(ts, ''10 s'')', name));
END $$;
DO $$ BEGIN PERFORM create_two('v13_wait', '1 hour'), create_two('v13_idle', '100 ms'); END $$;
DO $$ BEGIN PERFORM produce('v13_wait', 0, 1, 100); END $$;
CALL stream_engine.wait('v13_wait', '60 s');
SELECT seconds(window_start) AS starts, rows, is_final FROM v13_wait_live ORDER BY 1;
SELECT partition, seconds(watermark) AS watermark, idle, holds_watermark FROM stream_engine.stat_partitions
	WHERE stream = 'v13_wait_stream'::regclass ORDER BY 1;
-- ... until it has been quiet for idle_timeout
CALL until($$ idle FROM stream_engine.stat_partitions WHERE stream = 'v13_idle_stream'::regclass AND partition = 1 $$);
DO $$ BEGIN PERFORM produce('v13_idle', 0, 1, 100); END $$;
CALL stream_engine.wait('v13_idle', '60 s');
SELECT seconds(window_start) AS starts, rows, is_final FROM v13_idle_live ORDER BY 1;
-- a partition that returns does not move the watermark back, and its old records are late
DO $$ BEGIN PERFORM produce('v13_idle', 1, 50, 97, 90, 89.999999); END $$;
CALL stream_engine.wait('v13_idle', '60 s');
SELECT seconds(window_start) AS starts, rows, is_final FROM v13_idle_live ORDER BY 1;
SELECT seconds(event_time) AS late, seconds(watermark) AS watermark FROM stream_engine.late_events WHERE query = 'v13_idle'::regclass ORDER BY "offset";
SELECT seconds(watermark) AS watermark, counted, late FROM stream_engine.stat_queries WHERE query = 'v13_idle'::regclass;

-- 14: a record of the future closes nothing and is kept apart
DO $$
BEGIN
	PERFORM stream_engine.create_stream('v14_stream', server => 'vectors', topic => 'v14', columns => 'ts timestamptz EPOCH ''us''',
		event_time => 'ts', watermark_delay => '5 s', staging_retention => '0');
	PERFORM stream_engine.create_query('v14', 'SELECT count(*) AS rows FROM v14_stream GROUP BY tumble(ts, ''10 s'')');
	PERFORM produce('v14', 0, 1, extract(epoch FROM now() + interval '2 hours'), 2);
END $$;
CALL stream_engine.wait('v14', '60 s');
SELECT seconds(window_start) AS starts, rows, is_final FROM v14_live ORDER BY 1;
SELECT seconds(watermark) AS watermark, counted, late FROM stream_engine.stat_queries WHERE query = 'v14'::regclass;
SELECT "offset", reason FROM stream_engine.dead_letters WHERE stream = 'v14_stream'::regclass;
SELECT records, decoded, future FROM stream_engine.stat_partitions WHERE stream = 'v14_stream'::regclass;

SET client_min_messages = error;
DROP SERVER vectors CASCADE;
DROP SERVER vectors_two CASCADE;
DROP SCHEMA time_vectors CASCADE;
SELECT count(*) FROM stream_engine.query;
