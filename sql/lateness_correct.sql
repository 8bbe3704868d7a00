-- Rule: with allowed_lateness a record is late when each of its windows has end + lateness
-- at or before the watermark that judges it; before that it corrects the rows of
-- its closed windows: same row, revision + 1.  No other row is touched.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA lateness;
SET search_path = lateness, public;

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER lateness_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'lateness.log', partitions '1');
SELECT stream_engine.create_stream('orders', server => 'lateness_server', topic => 'orders',
	columns => 'kind text, amount int, t timestamptz', event_time => 't', watermark_delay => '0',
	staging_retention => '0');
CREATE PROCEDURE send(VARIADIC records text[]) LANGUAGE plpgsql AS $$
DECLARE
	record text;
BEGIN
	FOREACH record IN ARRAY records LOOP
		INSERT INTO log SELECT 0, COALESCE((SELECT max("offset") + 1 FROM log), 0), NULL, NULL,
			convert_to(json_build_object('t', '2026-01-05 ' || split_part(record, ' ', 1) || '+00',
				'kind', NULLIF(split_part(record, ' ', 2), 'null'), 'amount', split_part(record, ' ', 3))::text, 'UTF8');
	END LOOP;
	COMMIT;
	CALL stream_engine.wait('lateness.orders', '1 minute');
END $$;

-- arguments
SELECT stream_engine.create_query('wrong', 'SELECT count(*) FROM orders GROUP BY tumble(t, ''1 hour'')', allowed_lateness => '1 month');
SELECT stream_engine.create_query('wrong', 'SELECT count(*) FROM orders GROUP BY tumble(t, ''1 hour'')', allowed_lateness => '-1 second');
SELECT stream_engine.create_query('wrong', 'SELECT count(*) FROM orders GROUP BY tumble(t, ''1 hour'')', emit => 'sometimes');
SELECT stream_engine.create_query('wrong', 'SELECT count(*) FROM orders GROUP BY tumble(t, ''1 hour'')', emit_interval => '1 second');
SELECT stream_engine.create_query('wrong', 'SELECT count(*) FROM orders', trigger_count => 1, allowed_lateness => '1 second');

SELECT stream_engine.create_query('tumbling', $$
	SELECT kind, count(*) AS n, sum(amount) AS total FROM orders GROUP BY tumble(t, '10 minutes'), kind $$,
	allowed_lateness => '15 minutes');
SELECT stream_engine.create_query('hopping', $$
	SELECT kind, count(*) AS n, sum(amount) AS total FROM orders GROUP BY hop(t, '20 minutes', every => '10 minutes'), kind $$,
	allowed_lateness => '5 minutes');
SELECT stream_engine.create_query('busy', $$
	SELECT kind, count(*) AS n, sum(amount) AS total FROM orders GROUP BY tumble(t, '10 minutes'), kind
	HAVING count(*) BETWEEN 2 AND 3 $$,
	allowed_lateness => '15 minutes', late => 'drop');
SELECT stream_engine.create_query('strict', $$
	SELECT kind, count(*) AS n, sum(amount) AS total FROM orders GROUP BY tumble(t, '10 minutes'), kind $$);

-- [0, 10) closes with a, b and NULL
CALL send('00:01 a 1', '00:02 b 2', '00:03 null 3', '00:12 a 4', '00:04 a 5');
SELECT to_char(window_start, 'HH24:MI') AS w, kind, n, total, is_final, revision FROM tumbling ORDER BY 1, 2;
SELECT to_char(window_start, 'HH24:MI') AS w, kind, n, total, is_final, revision FROM busy ORDER BY 1, 2;
SELECT to_char(window_start, 'HH24:MI') AS w, kind, n, total, is_final, revision FROM strict ORDER BY 1, 2;
-- a row, NULL's row and a new one; the others stay
CREATE TABLE before AS SELECT * FROM tumbling;
CALL send('00:05 null 10', '00:06 c 20', '00:13 a 1');
SELECT to_char(window_start, 'HH24:MI') AS w, kind, n, total, is_final, revision FROM tumbling ORDER BY 1, 2;
SELECT count(*) AS untouched FROM before NATURAL JOIN tumbling;
SELECT count(*) AS touched_later FROM before b JOIN tumbling t USING (window_start, window_end)
	WHERE b.kind IS NOT DISTINCT FROM t.kind AND t.emitted_at > b.emitted_at;
-- HAVING: NULL comes in, a goes out
CALL send('00:07 a 1', '00:08 a 1');
SELECT to_char(window_start, 'HH24:MI') AS w, kind, n, total, is_final, revision FROM busy ORDER BY 1, 2;
CALL send('00:07 null 1');
SELECT to_char(window_start, 'HH24:MI') AS w, kind, n, total, is_final, revision FROM busy ORDER BY 1, 2;
CALL send('00:08 null 1');
SELECT to_char(window_start, 'HH24:MI') AS w, kind, n, total, is_final, revision FROM busy ORDER BY 1, 2;
-- 00:24:59 is within the lateness of [0, 10), 00:25 is not
CALL send('00:24:59 z 1', '00:00 a 100', '00:25 z 1', '00:00 a 1000');
SELECT to_char(window_start, 'HH24:MI') AS w, kind, n, total, is_final, revision FROM tumbling ORDER BY 1, 2;
SELECT to_char(window_start, 'HH24:MI') AS w, kind, n, total, is_final, revision FROM hopping ORDER BY 1, 2;
-- state is dropped behind the lateness; what is open and what is kept
CALL send('01:00 z 1', '00:00 a 1');
SELECT query, counted, late, late_assignments, windows_closed, rows_out, open_slices,
	decoded = counted + filtered + late + before_start + failed AS adds_up
	FROM stream_engine.stat_queries ORDER BY query::text;
SELECT query, event_time, watermark, windows FROM stream_engine.late_events WHERE query <> 'strict'::regclass ORDER BY query::text, "offset";
SELECT query, event_time, watermark, windows FROM stream_engine.late_assignments ORDER BY query::text, "offset";
SELECT * FROM stream_engine.verify('tumbling');
SELECT * FROM stream_engine.verify('hopping');
SELECT * FROM stream_engine.verify('strict');
SELECT * FROM stream_engine.verify('busy');
SELECT to_char(window_start, 'HH24:MI') AS w, kind, n, is_final, revision FROM tumbling_live WHERE kind = 'z' ORDER BY 1, 2;

-- a random workload, in batches of several sizes: the rows are those of the rule
CREATE TABLE sent AS
	SELECT i AS "offset", chr(97 + i % 5) AS kind, i % 10 AS amount,
		timestamptz '2026-02-01 00:00+00' + i * interval '20 seconds'
		- CASE WHEN i % 3 = 0 THEN (i * 7919 % 3600) * interval '1 second' ELSE '0' END AS t
	FROM generate_series(0, 2999) i
	UNION ALL SELECT 3000, 'z', 0, '2026-02-03 00:00+00';
CREATE FOREIGN TABLE random_orders (kind text, amount int, t timestamptz) SERVER lateness_server
	OPTIONS (topic 'random', event_time 't', watermark_delay '0', staging_retention '0');
DELETE FROM log;
SELECT stream_engine.drop_stream('orders', cascade => true);
SELECT stream_engine.create_query('random_tumbling', $$
	SELECT kind, count(*) AS n, sum(amount) AS total FROM random_orders GROUP BY tumble(t, '7 minutes'), kind $$,
	allowed_lateness => '15 minutes');
SELECT stream_engine.create_query('random_hopping', $$
	SELECT kind, count(*) AS n, sum(amount) AS total FROM random_orders GROUP BY hop(t, '21 minutes', every => '5 minutes'), kind $$,
	allowed_lateness => '11 minutes');
SELECT stream_engine.create_query('random_growing', $$
	SELECT kind, count(*) AS n, sum(amount) AS total FROM random_orders GROUP BY cumulate(t, '1 hour', step => '5 minutes'), kind $$,
	allowed_lateness => '9 minutes');
CREATE PROCEDURE send_sent() LANGUAGE plpgsql AS $$
DECLARE
	upto bigint := 0;
	next bigint;
BEGIN
	WHILE upto <= 3000 LOOP
		next := upto + 1 + upto * 31 % 97;
		INSERT INTO log SELECT 0, "offset", NULL, NULL, convert_to(json_build_object('kind', kind, 'amount', amount, 't', t)::text, 'UTF8')
			FROM sent WHERE "offset" >= upto AND "offset" < next;
		COMMIT;
		CALL stream_engine.wait('lateness.random_tumbling', '1 minute');
		upto := next;
	END LOOP;
	CALL stream_engine.wait('lateness.random_orders', '1 minute');
END $$;
CALL send_sent();
CREATE VIEW judged AS
	SELECT kind, amount, t, max(t) OVER (ORDER BY "offset") AS watermark FROM sent;
CREATE FUNCTION compare(query regclass, windows text, lateness interval, OUT missing bigint, OUT unexpected bigint, OUT rows bigint, OUT corrected boolean)
	LANGUAGE plpgsql AS $$
DECLARE
	expected text := format('SELECT lower(w), upper(w), kind, count(*), sum(amount) FROM judged, %s AS w
		WHERE upper(w) + %L > watermark AND upper(w) < ''2026-02-03'' GROUP BY w, kind', windows, lateness);
	found text := format('SELECT window_start, window_end, kind, n, total FROM %s WHERE is_final', query);
BEGIN
	EXECUTE format('SELECT (SELECT count(*) FROM (%1$s EXCEPT ALL %2$s) d), (SELECT count(*) FROM (%2$s EXCEPT ALL %1$s) d), (SELECT count(*) FROM (%2$s) d),
		(SELECT max(revision) > 0 FROM %3$s)', expected, found, query) INTO missing, unexpected, rows, corrected;
END $$;
SELECT * FROM compare('random_tumbling', 'tumble(t, ''7 minutes'')', '15 minutes');
SELECT * FROM compare('random_hopping', 'hop(t, ''21 minutes'', every => ''5 minutes'')', '11 minutes');
SELECT * FROM compare('random_growing', 'cumulate(t, ''1 hour'', step => ''5 minutes'')', '9 minutes');
SELECT query, counted, late, late_assignments, open_slices FROM stream_engine.stat_queries ORDER BY query::text;
SELECT * FROM stream_engine.verify('random_tumbling');
SELECT * FROM stream_engine.verify('random_hopping');
SELECT * FROM stream_engine.verify('random_growing');

SELECT stream_engine.drop_stream('random_orders', cascade => true);
DROP SCHEMA lateness CASCADE;
DROP SERVER lateness_server;
