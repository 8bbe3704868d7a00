-- Rule: a record counts in each hop and cumulate window that holds it and is open
-- (its end is after the watermark that judges the record); the windows that have
-- closed miss it, however the records are cut into commits.  HAVING is judged on
-- the closed window.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA hop_cumulate;
SET search_path = hop_cumulate, public;

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER hop_cumulate_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'hop_cumulate.log', partitions '1');
SELECT stream_engine.create_stream('orders', server => 'hop_cumulate_server', topic => 'orders',
	columns => 'kind text, amount int, t timestamptz', event_time => 't', watermark_delay => '2 minutes',
	staging_retention => '0');

-- 600 records of ten hours: most in order, one of seven up to 20 minutes, one of 41
-- up to three hours behind; the last one closes everything
CREATE TABLE sent AS
	SELECT i AS "offset", chr(97 + i % 3) AS kind, i % 10 AS amount,
		timestamptz '2026-01-05 00:00+00' + i * interval '1 minute'
		- CASE WHEN i % 41 = 40 THEN (i * 7919 % 10800) * interval '1 second'
			WHEN i % 7 = 3 THEN (i * 104729 % 1200) * interval '1 second' ELSE '0' END AS t
	FROM generate_series(0, 599) i
	UNION ALL SELECT 600, 'z', 0, '2026-01-06 00:00+00';
INSERT INTO log SELECT 0, "offset", t, NULL,
	pg_catalog.convert_to(pg_catalog.json_build_object('kind', kind, 'amount', amount, 't', t)::text, 'UTF8')
	FROM sent WHERE "offset" < 300;

SELECT stream_engine.create_query('hopping', $$
	SELECT kind, count(*) AS n, sum(amount) AS total FROM orders
	GROUP BY hop(t, '1 hour', every => '15 minutes'), kind $$);
-- slices of two widths: 20 minutes do not divide 50
SELECT stream_engine.create_query('uneven', $$
	SELECT kind, count(*) AS n, sum(amount) AS total FROM orders
	GROUP BY hop(t, '50 minutes', every => '20 minutes'), kind $$);
SELECT stream_engine.create_query('growing', $$
	SELECT kind, count(*) AS n, sum(amount) AS total FROM orders
	GROUP BY cumulate(t, size => '2 hours', step => '20 minutes'), kind $$);
SELECT stream_engine.create_query('busy', $$
	SELECT kind, count(*) AS n FROM orders
	GROUP BY hop(t, '1 hour', every => '30 minutes'), kind HAVING count(*) > 18 AND sum(amount) > 80 $$);
CALL stream_engine.wait('hopping', '1 minute');
INSERT INTO log SELECT 0, "offset", t, NULL,
	pg_catalog.convert_to(pg_catalog.json_build_object('kind', kind, 'amount', amount, 't', t)::text, 'UTF8')
	FROM sent WHERE "offset" >= 300;
CALL stream_engine.wait('orders', '1 minute');

-- what the rule says: with one partition the watermark of a record is that of the
-- records up to it
CREATE VIEW judged AS
	SELECT "offset", kind, amount, t, max(t) OVER (ORDER BY "offset") - interval '2 minutes' AS watermark FROM sent;
CREATE FUNCTION taken(windows text, OUT w tstzrange, OUT kind text, OUT n bigint, OUT total bigint, OUT missed bigint, OUT partly bigint)
	RETURNS SETOF record LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format('
		SELECT w, j.kind, count(*) FILTER (WHERE upper(w) > watermark), sum(amount) FILTER (WHERE upper(w) > watermark),
			count(*) FILTER (WHERE upper(w) <= watermark),
			count(*) FILTER (WHERE upper(w) <= watermark AND EXISTS (SELECT FROM %1$s AS later WHERE upper(later) > watermark))
		FROM judged j, %1$s AS w GROUP BY w, j.kind', windows);
END $$;
CREATE FUNCTION compare(query regclass, windows text, having_clause text DEFAULT 'true', with_total boolean DEFAULT true,
	OUT missing bigint, OUT unexpected bigint, OUT rows bigint) LANGUAGE plpgsql AS $$
DECLARE
	expected text := format('SELECT lower(w), upper(w), kind, n%s FROM taken(%L) WHERE n > 0 AND upper(w) <= ''2026-01-05 23:58+00'' AND (%s)',
		CASE WHEN with_total THEN ', total' ELSE '' END, windows, having_clause);
	found text := format('SELECT window_start, window_end, kind, n%s FROM %s', CASE WHEN with_total THEN ', total' ELSE '' END, query);
BEGIN
	EXECUTE format('SELECT (SELECT count(*) FROM (%1$s EXCEPT ALL %2$s) d), (SELECT count(*) FROM (%2$s EXCEPT ALL %1$s) d), (SELECT count(*) FROM (%2$s) d)',
		expected, found) INTO missing, unexpected, rows;
END $$;
SELECT * FROM compare('hopping', 'hop(t, ''1 hour'', every => ''15 minutes'')');
SELECT * FROM compare('uneven', 'hop(t, ''50 minutes'', every => ''20 minutes'')');
SELECT * FROM compare('growing', 'cumulate(t, size => ''2 hours'', step => ''20 minutes'')');
SELECT * FROM compare('busy', 'hop(t, ''1 hour'', every => ''30 minutes'')', 'n > 18 AND total > 80', false);

-- late records (no window took them) and late assignments (record and closed window)
SELECT query, decoded, counted, late, late_assignments, decoded = counted + filtered + late + before_start + failed AS adds_up
	FROM stream_engine.stat_queries WHERE stream = 'orders'::regclass ORDER BY query::text;
SELECT 'hopping' AS query, sum(missed) AS late_assignments, sum(partly) AS of_records_taken FROM taken('hop(t, ''1 hour'', every => ''15 minutes'')')
	UNION ALL SELECT 'growing', sum(missed), sum(partly) FROM taken('cumulate(t, size => ''2 hours'', step => ''20 minutes'')') ORDER BY 1;
SELECT query, count(*), sum(cardinality(windows)) FROM stream_engine.late_events
	WHERE query IN ('hopping'::regclass, 'growing'::regclass) GROUP BY query ORDER BY query::text;
SELECT query, count(*), sum(cardinality(windows)) FROM stream_engine.late_assignments
	WHERE query IN ('hopping'::regclass, 'growing'::regclass) GROUP BY query ORDER BY query::text;

-- the batch says the same, but for windows that missed a record which others took
SET client_min_messages = 'notice';
SELECT * FROM stream_engine.verify('hopping');
SELECT * FROM stream_engine.verify('uneven');
SELECT * FROM stream_engine.verify('growing');
SELECT * FROM stream_engine.verify('busy');
SET client_min_messages = 'warning';

-- the window that is open is seen in the live view once
SELECT window_start, window_end, kind, n, is_final FROM hopping_live WHERE NOT is_final ORDER BY 1;
SELECT count(*), count(DISTINCT (window_start, window_end, kind)) FROM growing_live WHERE is_final;

-- a difference is found
UPDATE hopping SET n = n + 1 WHERE window_start = '2026-01-05 00:00+00' AND kind = 'a';
SELECT window_start, problem, expected, found FROM stream_engine.verify('hopping');

-- windows of thousands of slices, each of which is in thousands of windows: the first one that is open
CREATE TABLE ticks_log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
INSERT INTO ticks_log SELECT 0, i, NULL, NULL, pg_catalog.convert_to(format('{"t": %s}', i), 'UTF8') FROM generate_series(0, 5999) AS i;
CREATE SERVER ticks_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'hop_cumulate.ticks_log', partitions '1');
SELECT stream_engine.create_stream('ticks', server => 'ticks_server', topic => 'ticks',
	columns => 't timestamptz EPOCH ''s''', event_time => 't', watermark_delay => '0', staging_retention => '0');
SELECT stream_engine.create_query('long_hop', $$
	SELECT count(*) AS n FROM ticks GROUP BY hop(t, '6000 seconds', every => '1 second') $$);
CALL stream_engine.wait('ticks', '10 minutes');
SELECT stream_engine.next_window_end('long_hop');
SELECT count(*), sum(n), max(window_end) FROM long_hop;

SELECT stream_engine.drop_stream('orders', cascade => true);
SELECT stream_engine.drop_stream('ticks', cascade => true);
DROP SCHEMA hop_cumulate CASCADE;
DROP SERVER hop_cumulate_server;
DROP SERVER ticks_server;
