-- Rule: on the nights when clocks change, with the zone in a column, a record's windows are those of its own zone: what a
-- query writes for the rows of a zone is what the window functions give with that zone as a constant; a window holds just
-- the records between its bounds; days begin at the first moment that the zone's clock shows of them.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
CREATE SCHEMA zone_nights;
SET search_path = zone_nights, public;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until

-- both nights in zones whose clocks change by an hour at night, at midnight, by half an hour, and in the south; one
-- whose clock never changes, and no zone, which is UTC
CREATE TABLE night (zone text, change timestamptz);
INSERT INTO night VALUES ('Europe/Berlin', '2024-03-31 01:00+00'), ('Europe/Berlin', '2024-10-27 01:00+00'),
	('America/New_York', '2024-03-10 07:00+00'), ('America/New_York', '2024-11-03 06:00+00'),
	('America/Havana', '2024-03-10 05:00+00'), ('America/Havana', '2024-11-03 05:00+00'),
	('Australia/Lord_Howe', '2024-04-06 15:00+00'), ('Australia/Lord_Howe', '2024-10-05 15:30+00'),
	('Pacific/Auckland', '2024-04-06 14:00+00'), ('Pacific/Auckland', '2024-09-28 14:00+00'),
	('Asia/Kolkata', '2024-03-31 01:00+00'), (NULL, '2024-03-31 01:00+00');
-- a record each ten minutes for two days and a half, and one a microsecond before, at and after the change
CREATE TABLE sent AS
	SELECT DISTINCT zone, t FROM night, LATERAL (
		SELECT generate_series(date_trunc('hour', change) - interval '30 hours', change + interval '30 hours', '10 minutes')
		UNION ALL SELECT unnest(ARRAY[change - interval '1 us', change, change + interval '1 us'])) AS s (t);
CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea, PRIMARY KEY (partition, "offset"));
INSERT INTO log SELECT 0, row_number() OVER (ORDER BY t, zone) - 1, NULL, NULL, convert_to(json_build_object('ts', t, 'zone', zone)::text, 'UTF8') FROM sent;
CREATE SERVER nights FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'zone_nights.log', partitions '1');
SELECT stream_engine.create_stream('s', server => 'nights', topic => 't', columns => 'ts timestamptz, zone text', event_time => 'ts', watermark_delay => '0', staging_retention => '0');

CREATE TABLE shape (number int, win text);
INSERT INTO shape VALUES (1, $$tumble(ts, '1 hour', time_zone => %s)$$), (2, $$tumble(ts, '1 day', time_zone => %s)$$), (3, $$tumble(ts, '1 week', time_zone => %s)$$),
	(4, $$hop(ts, '3 hours', every => '1 hour', time_zone => %s)$$), (5, $$hop(ts, '2 days', every => '12 hours', time_zone => %s)$$), (6, $$hop(ts, '7 hours', every => '5 hours', time_zone => %s)$$),
	(7, $$cumulate(ts, '1 day', step => '6 hours', time_zone => %s)$$), (8, $$cumulate(ts, '3 hours', step => '1 hour', time_zone => %s)$$), (9, $$tumble(ts, '1 month', time_zone => %s)$$);
\set ECHO errors
SELECT format('SELECT stream_engine.create_query(%L, %L)', 'q' || number, format('SELECT zone, count(*) AS n, sum(extract(epoch FROM ts)) AS seconds FROM s GROUP BY ' || win || ', zone', 'zone')) FROM shape ORDER BY number \gexec
\set ECHO all
CALL stream_engine.wait('s', '1 minute');
SELECT stream_engine.advance_watermark('s', '2025-01-01');
CALL until($$ min(watermark) >= '2025-01-01' FROM stream_engine.stat_queries WHERE stream = 's'::regclass $$);
CREATE TABLE written (number int, zone text, window_start timestamptz, window_end timestamptz, n bigint, seconds numeric);
CREATE TABLE plain (LIKE written);
\set ECHO errors
SELECT format('INSERT INTO written SELECT %s, zone, window_start, window_end, n, seconds FROM q%1$s WHERE is_final', number) FROM shape \gexec
SELECT format('INSERT INTO plain SELECT %s, z, lower(w), upper(w), count(*), sum(extract(epoch FROM ts)) FROM (SELECT zone, t, %s FROM sent WHERE zone IS NOT DISTINCT FROM %L) AS x (z, ts, w) GROUP BY z, w',
	number, replace(format(win, quote_literal(COALESCE(zone, 'UTC'))), '(ts', '(t'), zone) FROM shape, (SELECT DISTINCT zone FROM night) AS z \gexec
\set ECHO all
CREATE INDEX ON written (number, window_start);
ANALYZE written, sent;
SELECT number, count(*) AS windows, sum(n) AS counted FROM written GROUP BY 1 ORDER BY 1;
SELECT failed, late, decoded = counted AS all_counted FROM stream_engine.stat_queries WHERE stream = 's'::regclass GROUP BY 1, 2, 3;
-- what the functions give with the zone as a constant
SELECT number, count(*) FROM (TABLE written EXCEPT ALL TABLE plain) AS d GROUP BY 1;
SELECT number, count(*) FROM (TABLE plain EXCEPT ALL TABLE written) AS d GROUP BY 1;
-- by their bounds alone
SELECT number, count(*) AS wrong FROM written v
	WHERE (n, seconds) IS DISTINCT FROM (SELECT ROW(count(*), sum(extract(epoch FROM t))) FROM sent s
		WHERE s.zone IS NOT DISTINCT FROM v.zone AND t >= window_start AND t < window_end) GROUP BY 1;
SELECT number, min(windows), max(windows) FROM (
	SELECT number, (SELECT count(*) FROM written v WHERE v.number = shape.number AND v.zone IS NOT DISTINCT FROM s.zone AND t >= window_start AND t < window_end) AS windows
	FROM sent s, shape) AS d GROUP BY 1 ORDER BY 1;
-- days begin where the clock shows midnight, or the first moment after it
SELECT zone, window_start AT TIME ZONE zone AS day, window_end - window_start AS length, n FROM written
WHERE number = 2 AND zone IS NOT NULL AND (window_end - window_start <> '24 hours' OR (window_start AT TIME ZONE zone)::time <> '00:00') ORDER BY 1, 2;
-- hours that are not 60 minutes long, and those that the clock shows twice
SELECT zone, window_start AT TIME ZONE zone AS hour, window_end - window_start AS length, n FROM written v
WHERE number = 1 AND zone IS NOT NULL AND (window_end - window_start <> '1 hour'
	OR EXISTS (SELECT FROM written o WHERE o.number = 1 AND o.zone = v.zone AND o.window_start <> v.window_start AND o.window_start AT TIME ZONE o.zone = v.window_start AT TIME ZONE v.zone))
ORDER BY 1, window_start;
-- the steps of the days of change
SELECT zone, window_start AT TIME ZONE zone AS starts, window_end AT TIME ZONE zone AS ends, window_end - window_start AS length, n FROM written v JOIN night USING (zone)
WHERE number = 7 AND change >= window_start AND change < window_start + interval '23 hours' AND zone IN ('America/Havana', 'Australia/Lord_Howe') ORDER BY 1, window_start, window_end;
SELECT number, v.* FROM shape, stream_engine.verify(('q' || number)::regclass) AS v;

SET client_min_messages = error;
DROP SERVER nights CASCADE;
DROP SCHEMA zone_nights CASCADE;
