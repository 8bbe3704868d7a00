-- Rule: a query that starts in the middle emits a window iff it starts at or after the first event
-- time of every partition + watermark_delay; what began before is incomplete, counted, and not
-- emitted, unless emit_partial.  One that starts at the earliest record has complete windows only.
SET timezone = 'UTC';
SET client_min_messages = warning;
CREATE SCHEMA first_windows;
SET search_path = first_windows, public;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until
CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea, PRIMARY KEY (partition, "offset"));
CREATE SERVER first_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'first_windows.log', partitions '2');
SELECT stream_engine.create_stream('s', 'first_server', 't', 'at timestamptz EPOCH ''s'', k text', event_time => 'at',
	watermark_delay => '5 s', idle_timeout => '1 hour', staging_retention => '0');
-- partition 0 has a record each 3 s, partition 1 each 4 s, of two keys, up to 200 s
INSERT INTO log SELECT p, i, to_timestamp(i * (3 + p)), NULL, convert_to(format('{"at": %s, "k": "%s"}', i * (3 + p), chr(97 + i % 2)), 'UTF8')
	FROM generate_series(0, 1) AS p, generate_series(0, 200 / (3 + p)) AS i;

-- from offsets 10 and 10: the first event times are 30 and 40, windows are complete from 45 on
\set at '\'{"0": 10, "1": 10}\''
CREATE TABLE shape (name text, win text);
INSERT INTO shape VALUES ('tumbling', $$tumble(at, '10 s')$$), ('odd', $$tumble(at, '15 s')$$), ('hopping', $$hop(at, '20 s', every => '10 s')$$), ('uneven', $$hop(at, '25 s', every => '10 s')$$),
	('growing', $$cumulate(at, '30 s', step => '10 s')$$), ('sessions', $$session(at, gap => '3 s')$$);
SET client_min_messages = notice;
\set ECHO errors
SELECT format('SELECT stream_engine.create_query(%L, %L, start => %L)', name, 'SELECT k, count(*) AS n FROM s GROUP BY ' || win || ', k', :at),
	format('SELECT stream_engine.create_query(%L, %L, start => %L, emit_partial => true)', name || '_partial', 'SELECT k, count(*) AS n FROM s GROUP BY ' || win || ', k', :at),
	format('SELECT stream_engine.create_query(%L, %L)', name || '_all', 'SELECT k, count(*) AS n FROM s GROUP BY ' || win || ', k')
FROM shape ORDER BY name \gexec
\set ECHO all
SET client_min_messages = warning;
CALL stream_engine.wait('s', '1 minute');
SELECT stream_engine.advance_watermark('s', to_timestamp(400));
CALL until($$ min(watermark) >= to_timestamp(400) FROM stream_engine.stat_queries WHERE stream = 's'::regclass $$);
CREATE FUNCTION compare(name text, OUT complete_from numeric, OUT first numeric, OUT rows bigint, OUT missing bigint, OUT unexpected bigint, OUT incomplete boolean, OUT partial bigint, OUT balanced boolean) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT extract(epoch FROM q.complete_from), (SELECT min(extract(epoch FROM window_start)) FROM %1$I), (SELECT count(*) FROM %1$I),
		(SELECT count(*) FROM (SELECT window_start, window_end, k, n FROM %1$I_all WHERE window_start >= to_timestamp(45) EXCEPT ALL SELECT window_start, window_end, k, n FROM %1$I) d),
		(SELECT count(*) FROM (SELECT window_start, window_end, k, n FROM %1$I EXCEPT ALL SELECT window_start, window_end, k, n FROM %1$I_all) d),
		windows_incomplete > 0 OR before_start > 0, (SELECT count(*) FROM %1$I_partial WHERE window_start < to_timestamp(45)), decoded = counted + filtered + late + before_start + failed
		FROM stream_engine.stat_queries q WHERE query = %1$L::regclass', name)
	INTO complete_from, first, rows, missing, unexpected, incomplete, partial, balanced;
END $$;
SELECT name, c.* FROM shape, compare(name) AS c ORDER BY 1;
-- emit_partial has them all, and says nothing is incomplete; so has one from the earliest record
SELECT s.name, (SELECT windows_incomplete FROM stream_engine.stat_queries WHERE query = (s.name || '_partial')::regclass) AS partial,
	(SELECT windows_incomplete + before_start FROM stream_engine.stat_queries WHERE query = (s.name || '_all')::regclass) AS all_of_them FROM shape s ORDER BY 1;
SELECT finding FROM stream_engine.why('tumbling');
SELECT * FROM stream_engine.verify('tumbling');
SELECT * FROM stream_engine.verify('hopping');
SELECT * FROM stream_engine.verify('growing');

-- a stream may begin in the middle, too, and its queries with it
SELECT stream_engine.create_stream('middle', 'first_server', 't', 'at timestamptz EPOCH ''s'', k text', event_time => 'at',
	watermark_delay => '5 s', idle_timeout => '1 hour', staging_retention => '0', start => :at);
SELECT option_value FROM pg_foreign_table, pg_options_to_table(ftoptions) WHERE ftrelid = 'middle'::regclass AND option_name = 'start';
SELECT stream_engine.create_query('from_the_middle', 'SELECT k, count(*) AS n FROM middle GROUP BY tumble(at, ''10 s''), k');
CALL stream_engine.wait('from_the_middle', '1 minute');
SELECT partition, start_offset, records FROM stream_engine.stat_partitions WHERE query = 'from_the_middle'::regclass ORDER BY 1;
SELECT stream_engine.advance_watermark('middle', to_timestamp(400));
CALL until($$ watermark >= to_timestamp(400) FROM stream_engine.stat_queries WHERE query = 'from_the_middle'::regclass $$);
SELECT count(*) FROM (SELECT window_start, window_end, k, n FROM from_the_middle EXCEPT ALL SELECT window_start, window_end, k, n FROM tumbling) AS d;
SELECT count(*) = (SELECT count(*) FROM tumbling) AS all_of_them FROM from_the_middle;
-- a scan of it begins at the beginning
SELECT min(_offset) FROM middle;
SELECT stream_engine.drop_stream('middle', cascade => true);

-- from the latest on, in an empty place: the first record of each partition decides
SELECT stream_engine.create_query('late_start', 'SELECT count(*) AS n FROM s GROUP BY tumble(at, ''10 s'')', start => 'latest');
CALL stream_engine.wait('late_start', '1 minute');
INSERT INTO log SELECT p, (SELECT max("offset") + 1 FROM log WHERE partition = p) + i, now(), NULL, convert_to(format('{"at": %s, "k": "z"}', 500 + i * 5 + p * 7), 'UTF8')
	FROM generate_series(0, 1) AS p, generate_series(0, 12) AS i;
CALL stream_engine.wait('late_start', '1 minute');
SELECT extract(epoch FROM complete_from) AS complete_from, windows_incomplete > 0 OR before_start > 0 AS incomplete FROM stream_engine.stat_queries WHERE query = 'late_start'::regclass;
SELECT extract(epoch FROM min(window_start)) AS first FROM late_start;

-- A session that has ended is emitted before a record that came too late for it is taken; a
-- partition whose first record stands behind that one has not begun then.  Which of the two
-- partitions is read first is left to each reader, and its ledger tells.
CREATE TABLE quiet (LIKE log INCLUDING ALL);
CREATE SERVER quiet_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'first_windows.quiet', partitions '2');
SELECT stream_engine.create_stream('q', 'quiet_server', 't', 'at timestamptz EPOCH ''s'', k text', event_time => 'at',
	watermark_delay => '0', idle_timeout => '20 ms', staging_retention => '0');
\set ECHO errors
SELECT count(stream_engine.create_query('ends_' || i, 'SELECT k, count(*) AS n FROM q GROUP BY session(at, gap => ''10 s''), k', start => 'latest'))
FROM generate_series(1, 12) AS i;
\set ECHO all
CALL until($$ count(*) = 24 FROM stream_engine.stat_partitions WHERE stream = 'q'::regclass AND idle $$);
INSERT INTO quiet SELECT partition, "offset", now(), NULL, convert_to(format('{"at": %s, "k": "a"}', at), 'UTF8')
	FROM (VALUES (0, 0, 0), (0, 1, 100), (0, 2, 5), (1, 0, 50)) AS r (partition, "offset", at);
CALL stream_engine.wait('q', '1 minute');
CREATE FUNCTION first_of(name text, OUT emitted boolean, OUT expected boolean) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE window_start = to_timestamp(0))', name) INTO emitted;
	SELECT EXISTS (SELECT FROM stream_engine.ledger l JOIN stream_engine.query_progress p USING (reader)
		JOIN stream_engine.query q ON q.id = p.query
		WHERE q.result = name::regclass AND l.watermark >= to_timestamp(10) AND l.next_offsets[2] = 0) INTO expected;
END $$;
SELECT name FROM (SELECT 'ends_' || i AS name FROM generate_series(1, 12) AS i) n, first_of(name) AS f WHERE emitted <> expected;
SELECT DISTINCT complete_from FROM stream_engine.stat_queries WHERE stream = 'q'::regclass;

SET client_min_messages = error;
DROP SERVER quiet_server CASCADE;
DROP SERVER first_server CASCADE;
DROP SCHEMA first_windows CASCADE;
