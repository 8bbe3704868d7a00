-- Rule: aggregates with DISTINCT are what they are in a batch, for every kind of window, with state
-- that is merged from several commits, read back from the state log, and larger than a page.
SET timezone = 'UTC';
SET client_min_messages = warning;
CREATE SCHEMA aggregates_distinct;
SET search_path = aggregates_distinct, public;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until
CREATE TABLE log (topic text, partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea, PRIMARY KEY (topic, partition, "offset"));
CREATE SERVER distincts FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'aggregates_distinct.log', partitions '1');
SELECT stream_engine.create_stream('s', server => 'distincts', topic => 's', event_time => 'at', watermark_delay => '2 minutes', staging_retention => '0',
	columns => 'at timestamptz, k text, word text, i int, n numeric, f float8, flag boolean, days date');

-- 2000 records in a little disorder over ten hours, 20 a window of ten minutes and key
CREATE TABLE sent AS
	SELECT i AS no, timestamptz '2026-01-05 00:00+00' + i * interval '18 s' - (i * 7919 % 100) * interval '1 s' AS at, (ARRAY['a', 'b', NULL])[1 + i % 3] AS k,
		CASE WHEN i % 11 > 0 THEN 'word ' || i * 31 % 7 END AS word, i * 17 % 5 AS i, (i * 13 % 6) / 2.0 AS n, CASE WHEN i % 4 > 0 THEN i % 9 / 8.0 END AS f,
		i % 5 = 0 AS flag, date '2026-01-01' + i % 4 AS days
	FROM generate_series(0, 1999) AS i;
CREATE FUNCTION send(first int, past int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO log SELECT 's', 0, no, NULL, NULL, convert_to(to_json(s)::text, 'UTF8') FROM sent s WHERE no >= first AND no < past $$;

SELECT * FROM stream_engine.validate_query('SELECT count(DISTINCT i) AS c, count(i) AS n FROM s GROUP BY tumble(at, ''10 minutes'')') WHERE role = 'aggregate';
\set aggregates 'count(DISTINCT word) AS words, count(DISTINCT word) FILTER (WHERE flag) AS some, sum(DISTINCT i) AS i, avg(DISTINCT n) AS n, max(DISTINCT f) AS f, count(DISTINCT days) AS days, array_agg(DISTINCT f ORDER BY f DESC) AS all_f, string_agg(DISTINCT word, $$, $$) AS list, count(DISTINCT (word, n)) AS pairs, count(*) AS rows'
SELECT format('SELECT stream_engine.create_query(%L, %L%s)', name, format('SELECT k, %s FROM s GROUP BY %s, k', :'aggregates', win), more)
FROM (VALUES ('tumbling', $$tumble(at, '10 minutes')$$, ''), ('hopping', $$hop(at, '30 minutes', every => '7 minutes')$$, ''),
	('growing', $$cumulate(at, '1 hour', step => '15 minutes')$$, ''), ('kept', $$tumble(at, '1 hour')$$, $$, allowed_lateness => '3 hours'$$),
	('changing', $$tumble(at, '1 hour')$$, $$, emit => 'changes', emit_interval => '1 ms'$$)) AS v (name, win, more) \gexec
SELECT stream_engine.create_query('visits', 'SELECT k, flag, count(DISTINCT word) AS words, array_agg(DISTINCT i) AS i FROM s GROUP BY session(at, gap => ''2 minutes''), k, flag');
SELECT stream_engine.create_query('total', 'SELECT k, count(DISTINCT word) AS words, count(DISTINCT at) AS times, sum(DISTINCT i) AS i, count(DISTINCT (word, i)) AS pairs FROM s GROUP BY k', trigger_interval => '10 ms');

-- in four pieces; before the third all readers begin anew, with their state from the log
SELECT send(0, 600);
CALL stream_engine.wait('s', '1 minute');
SELECT send(600, 1000);
CALL stream_engine.wait('s', '1 minute');
SELECT stream_engine.pause('s');
SELECT stream_engine.resume('s');
SELECT send(1000, 1700);
CALL stream_engine.wait('s', '1 minute');
-- open windows, from memory and from the log
CREATE TEMP VIEW live_difference AS
	SELECT 'live', l.k, l.words FROM (SELECT window_start, window_end, k, words, i, list, pairs FROM hopping_live EXCEPT ALL SELECT window_start, window_end, k, words, i, list, pairs FROM hopping_batch) AS l
	UNION ALL
	SELECT 'batch', b.k, b.words FROM (SELECT window_start, window_end, k, words, i, list, pairs FROM hopping_batch EXCEPT ALL SELECT window_start, window_end, k, words, i, list, pairs FROM hopping_live) AS b;
SELECT * FROM live_difference;
SET stream_engine.state_cache = off;
SELECT * FROM live_difference;
RESET stream_engine.state_cache;
SELECT send(1700, 2000);
CALL stream_engine.wait('s', '1 minute');
-- late for none but "kept" takes it: a word that its window has not seen, and one that it has
INSERT INTO log SELECT 's', 0, 2000 + i, NULL, NULL, convert_to(json_build_object('at', timestamptz '2026-01-05 07:30+00', 'k', 'a', 'word', w, 'i', 1, 'n', 1, 'days', '2026-01-01')::text, 'UTF8')
FROM unnest('{a new one,word 1}'::text[]) WITH ORDINALITY AS u (w, i);
CALL stream_engine.wait('s', '1 minute');
SELECT words, list, revision FROM kept WHERE window_start = '2026-01-05 07:00+00' AND k = 'a';
SELECT stream_engine.advance_watermark('s', '2026-01-06');
CALL until($$ min(watermark) >= '2026-01-06' FROM stream_engine.stat_queries WHERE stream = 's'::regclass $$);
CALL stream_engine.wait('s', '1 minute');

-- the server computes the same, apart from the late records
SELECT query, problem, count(*) FROM unnest('{tumbling,hopping,growing,kept,changing}'::regclass[]) AS query, stream_engine.verify(query) GROUP BY 1, 2;
SELECT query, late FROM stream_engine.stat_queries WHERE stream = 's'::regclass ORDER BY query::text;
SELECT count(*), sum(words), sum(rows), min(list) FROM tumbling;
SELECT count(*), sum(words), sum(rows), max(list) FROM hopping;
SELECT count(*), sum(words), sum(rows), min(all_f) FROM growing;
-- sessions by gaps and islands
CREATE TEMP VIEW islands AS
	SELECT min(at) AS window_start, max(at) + interval '2 minutes' AS window_end, k, flag, count(DISTINCT word) AS words, array_agg(DISTINCT i) AS i
	FROM (SELECT *, count(*) FILTER (WHERE at - before > interval '2 minutes') OVER (PARTITION BY k, flag ORDER BY at, no) AS island
		FROM (SELECT *, lag(at) OVER (PARTITION BY k, flag ORDER BY at, no) AS before FROM sent) AS b) AS x
	GROUP BY k, flag, island;
SELECT count(*), sum(words) FROM visits;
SELECT window_start, window_end, k, flag, words, i FROM visits EXCEPT ALL SELECT * FROM islands;
SELECT * FROM islands EXCEPT ALL SELECT window_start, window_end, k, flag, words, i FROM visits;
SELECT t.k, t.words, t.times, t.i, t.pairs, t.times = e.times AS as_expected
FROM total_live t, (SELECT count(DISTINCT at) AS times, k FROM (SELECT at, k FROM sent UNION ALL SELECT '2026-01-05 07:30+00', 'a') s GROUP BY k) AS e
WHERE t.k IS NOT DISTINCT FROM e.k ORDER BY 1;

-- a set of 34,650 values, in three pieces of many pages, beside one that takes none
SELECT stream_engine.create_stream('large', server => 'distincts', topic => 'large', event_time => 'at', staging_retention => '0', columns => 'at timestamptz, v text');
SELECT stream_engine.create_query('large_q', 'SELECT length(v) AS l, count(DISTINCT v) AS n, count(*) AS rows, md5(string_agg(DISTINCT v, $$$$)) AS all FROM large GROUP BY tumble(at, ''1 hour''), length(v)');
CREATE PROCEDURE send_large(piece int) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log SELECT 'large', 0, piece * 20000 + i - 1, NULL, NULL, convert_to(json_build_object('at', '2026-01-05 00:00+00', 'v', CASE WHEN i % 100 = 0 THEN 'x' ELSE md5((i % 15000 + piece * 10000)::text) END)::text, 'UTF8')
	FROM generate_series(1, 20000) AS i;
	COMMIT;
	CALL stream_engine.wait('aggregates_distinct.large', '1 minute');
END $$;
CALL send_large(0);
CALL send_large(1);
CALL send_large(2);
SELECT stream_engine.pause('large_q');
SELECT stream_engine.resume('large_q');
SELECT l, n, rows, l.all = b.all AS same FROM large_q_live l JOIN large_q_batch b USING (l, n, rows) ORDER BY l;
SELECT stream_engine.advance_watermark('large', '2026-01-05 01:00+00');
CALL until('EXISTS (SELECT FROM large_q)');
SELECT l, n, rows, is_final FROM large_q ORDER BY l;
SELECT count(*) FROM stream_engine.verify('large_q');

-- refused
SELECT stream_engine.validate_query('SELECT corr(DISTINCT f, i) FROM s GROUP BY tumble(at, ''1 hour'')');
SELECT stream_engine.validate_query('SELECT string_agg(DISTINCT word, k) FROM s GROUP BY tumble(at, ''1 hour'')');
SELECT stream_engine.validate_query('SELECT count(DISTINCT word::xid) FROM s GROUP BY tumble(at, ''1 hour'')');
SELECT stream_engine.validate_query('SELECT count(DISTINCT to_json(word)) FROM s GROUP BY tumble(at, ''1 hour'')');
-- what is in an array or row must be hashed and sorted, too; and rows whose columns are known to one process only
SELECT stream_engine.validate_query('SELECT count(DISTINCT ARRAY[word::tsvector]) FROM s GROUP BY tumble(at, ''1 hour'')');
SELECT stream_engine.validate_query('SELECT count(DISTINCT (word, k::tsvector)) FROM s GROUP BY tumble(at, ''1 hour'')');
SELECT stream_engine.validate_query('SELECT count(DISTINCT (word, (k, i))) FROM s GROUP BY tumble(at, ''1 hour'')');
SELECT stream_engine.validate_query('SELECT count(DISTINCT CASE WHEN flag THEN (k, i) END) FROM s GROUP BY tumble(at, ''1 hour'')');
SELECT stream_engine.validate_query('SELECT max(ARRAY[(k, i)])::text FROM s GROUP BY tumble(at, ''1 hour'')');
SELECT stream_engine.validate_query('SELECT ARRAY[(k, i)]::text, count(*) FROM s GROUP BY tumble(at, ''1 hour''), ARRAY[(k, i)]');
SELECT stream_engine.validate_query('SELECT ARRAY[k::tsvector] AS a, count(*) FROM s GROUP BY tumble(at, ''1 hour''), 1');

SET client_min_messages = error;
DROP SERVER distincts CASCADE;
DROP SCHEMA aggregates_distinct CASCADE;
