-- Rules: on the nights when clocks change, in every zone, what a query writes for tumble, hop
-- and cumulate is what GROUP BY over the same rows gives; each record is in exactly the windows
-- whose bounds hold it; windows of a zone cover time without a hole and without overlap.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
CREATE SCHEMA time_zones;
SET search_path = time_zones, public;

-- Half hours of summer time (Lord Howe), clocks that change at midnight (Havana, Beirut), a skipped
-- day (Apia), a zone that moved by 15 minutes for good (Kathmandu), one that was behind by odd
-- seconds (Monrovia), and one that never changes.
CREATE TABLE night (id int PRIMARY KEY, zone text, what text, change timestamptz);
INSERT INTO night VALUES
	(1, 'Europe/Berlin', 'forward', '2024-03-31 01:00+00'), (2, 'Europe/Berlin', 'back', '2024-10-27 01:00+00'),
	(3, 'America/New_York', 'forward', '2024-03-10 07:00+00'), (4, 'America/New_York', 'back', '2024-11-03 06:00+00'),
	(5, 'Australia/Lord_Howe', 'back', '2024-04-06 15:00+00'), (6, 'Australia/Lord_Howe', 'forward', '2024-10-05 15:30+00'),
	(7, 'America/Havana', 'forward', '2024-03-10 05:00+00'), (8, 'America/Havana', 'back', '2024-11-03 05:00+00'),
	(9, 'Asia/Beirut', 'forward', '2024-03-30 22:00+00'), (10, 'Asia/Beirut', 'back', '2024-10-26 21:00+00'),
	(11, 'Pacific/Apia', 'skipped day', '2011-12-30 10:00+00'), (12, 'Asia/Kathmandu', 'forward for good', '1985-12-31 18:30+00'),
	(13, 'Africa/Monrovia', 'odd seconds', '1972-01-07 00:44:30+00'), (14, 'UTC', 'nothing', '1970-01-01 00:00+00');
-- A record every ten minutes for four days, and one a microsecond before, at and after the change.
CREATE TABLE sent AS
	SELECT id, zone, t FROM night, LATERAL (
		SELECT generate_series(date_trunc('day', change) - interval '2 days', change + interval '2 days', '10 minutes')
		UNION ALL SELECT unnest(ARRAY[change - interval '1 us', change, change + interval '1 us'])) AS s (t);
CREATE TABLE log (topic text, partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (topic, partition, "offset"));
INSERT INTO log SELECT 't' || id, 0, row_number() OVER (PARTITION BY id ORDER BY t) - 1, NULL, NULL,
	convert_to(json_build_object('ts', t)::text, 'UTF8') FROM sent;
CREATE SERVER zones FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'time_zones.log', partitions '1');

-- The long ones for some nights only.
CREATE TABLE shape (number int, win text);
INSERT INTO shape VALUES
	(1, $$tumble(ts, '1 hour', time_zone => %L)$$), (2, $$tumble(ts, '1 day', time_zone => %L)$$),
	(3, $$hop(ts, '3 hours', every => '1 hour', time_zone => %L)$$), (4, $$hop(ts, '2 days', every => '1 day', time_zone => %L)$$),
	-- neither divides the other, and no day is a multiple of either
	(5, $$hop(ts, '7 hours', every => '5 hours', time_zone => %L)$$),
	(6, $$cumulate(ts, '1 day', step => '6 hours', time_zone => %L)$$), (7, $$cumulate(ts, '1 week', step => '1 day', time_zone => %L)$$),
	(8, $$tumble(ts, '1 month', time_zone => %L, origin => '2000-01-31 00:00+00')$$),
	(9, $$hop(ts, '1 year', every => '1 month', time_zone => %L)$$),
	(10, $$cumulate(ts, '1 year', step => '3 months', time_zone => %L)$$);

DO $$ BEGIN PERFORM stream_engine.create_stream('s' || id, server => 'zones', topic => 't' || id, columns => 'ts timestamptz',
	event_time => 'ts', watermark_delay => '0', staging_retention => '0') FROM night; END $$;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until
-- One zone after the other: a query for each shape, and what they wrote.
CREATE TABLE written (id int, number int, window_start timestamptz, window_end timestamptz, n bigint, seconds numeric);
CREATE TABLE batch (LIKE written);
CREATE TABLE plain (LIKE written);
CREATE PROCEDURE run() LANGUAGE plpgsql AS $$
DECLARE
	z night;
	s shape;
	query text;
BEGIN
	FOR z IN SELECT * FROM night ORDER BY id LOOP
		FOR s IN SELECT * FROM shape WHERE number <= 6 OR z.id IN (2, 5, 11) ORDER BY number LOOP
			query := format('SELECT count(*) AS n, sum(extract(epoch FROM ts)) AS seconds FROM s%s GROUP BY ' || s.win, z.id, z.zone);
			PERFORM stream_engine.create_query('q' || s.number, query);
		END LOOP;
		COMMIT;
		CALL stream_engine.wait('time_zones.s' || z.id, '1 minute');
		PERFORM stream_engine.advance_watermark('s' || z.id, z.change + interval '2 years');
		COMMIT;
		CALL until(format('min(watermark) >= %L FROM stream_engine.stat_queries WHERE stream = %L::regclass', z.change + interval '2 years', 's' || z.id));
		FOR s IN SELECT * FROM shape WHERE number <= 6 OR z.id IN (2, 5, 11) ORDER BY number LOOP
			EXECUTE format('INSERT INTO written SELECT %s, %s, window_start, window_end, n, seconds FROM q%2$s WHERE is_final', z.id, s.number);
			EXECUTE format('INSERT INTO batch SELECT %s, %s, * FROM q%2$s_batch', z.id, s.number);
			EXECUTE format('INSERT INTO plain SELECT %s, %s, lower(w), upper(w), count(*), sum(extract(epoch FROM ts)) FROM (SELECT t AS ts, %s AS w FROM sent WHERE id = %1$s) x (ts, w) GROUP BY w',
				z.id, s.number, replace(format(s.win, z.zone), '(ts', '(t'));
		END LOOP;
		PERFORM stream_engine.drop_query('q' || number) FROM shape WHERE to_regclass('q' || number) IS NOT NULL;
	END LOOP;
END $$;
CALL run();
CREATE INDEX ON written (id, number, window_start);
CREATE INDEX ON sent (id, t);
ANALYZE written, sent;

-- what the queries wrote is what their batches and a GROUP BY on the table give
SELECT count(*) AS windows, sum(n) AS counted FROM written;
SELECT count(*) AS not_written FROM (TABLE batch EXCEPT ALL TABLE written) d;
SELECT count(*) AS not_in_batch FROM (TABLE written EXCEPT ALL TABLE batch) d;
SELECT count(*) AS not_written FROM (TABLE plain EXCEPT ALL TABLE written) d;
SELECT count(*) AS not_in_group_by FROM (TABLE written EXCEPT ALL TABLE plain) d;
-- by their bounds alone, with no window function: each record is in the windows that hold it
SELECT count(*) AS wrong FROM written v
	WHERE (n, seconds) IS DISTINCT FROM (SELECT ROW(count(*), sum(extract(epoch FROM t)))
		FROM sent s WHERE s.id = v.id AND t >= window_start AND t < window_end);
-- and how many windows hold a record: one tumbling window, as many hops as their size says, also
-- when the clock changes, the steps that are left
SELECT number, min(windows), max(windows), count(*) FILTER (WHERE windows = 0) AS lost FROM (
	SELECT number, (SELECT count(*) FROM written v WHERE v.id = s.id AND v.number = shape.number AND t >= window_start AND t < window_end) AS windows
	FROM sent s, shape WHERE number <= 6 OR s.id IN (2, 5, 11)) d GROUP BY number ORDER BY number;
-- tumbling windows have no hole between them and no overlap
SELECT number, count(*) FILTER (WHERE follows < window_end) AS overlaps, count(*) FILTER (WHERE follows > window_end) AS holes
FROM (SELECT number, window_end, lead(window_start) OVER (PARTITION BY id, number ORDER BY window_start) AS follows
	FROM written WHERE number IN (1, 2, 8)) d GROUP BY number ORDER BY number;
-- days and hours that are longer or shorter, as the zone's clock shows them
SELECT zone, what, CASE number WHEN 1 THEN 'hour' ELSE 'day' END AS unit, window_start AT TIME ZONE zone AS starts,
	window_end AT TIME ZONE zone AS ends, window_end - window_start AS length, n
FROM written JOIN night USING (id) WHERE number IN (1, 2) AND window_end - window_start <> CASE number WHEN 1 THEN interval '1 hour' ELSE interval '24 hours' END
ORDER BY id, number DESC, window_start;
-- the hours that the clock shows twice are windows of their own
SELECT zone, window_start AT TIME ZONE zone AS shown, count(*) FROM written JOIN night USING (id)
WHERE number = 1 GROUP BY 1, 2 HAVING count(*) > 1 ORDER BY 1, 2;
-- growing windows on the longest and the shortest day: steps of the clock, not of 6 hours
SELECT zone, window_start AT TIME ZONE zone AS starts, window_end AT TIME ZONE zone AS ends, window_end - window_start AS length, n
FROM written JOIN night USING (id)
WHERE number = 6 AND what IN ('forward', 'back', 'skipped day') AND change >= window_start AND change < window_start + interval '26 hours'
	AND zone IN ('Europe/Berlin', 'Australia/Lord_Howe', 'Pacific/Apia') ORDER BY id, window_start, window_end;

-- Flink's slices on the nights of Los Angeles (HoppingSliceAssignerTest, CumulativeSliceAssignerTest:
-- testDstSaving): steps are the same in spring; Flink's hops are 4 hours of the clock, in spring 3
-- hours long, ours are always 4 steps; in autumn Flink takes both passes of 01:00 for one hour,
-- here each pass is a step.
SELECT t AT TIME ZONE zone AS clock, lower(h) AT TIME ZONE zone AS first_hop_starts, upper(h) AT TIME ZONE zone AS first_hop_ends, upper(h) - lower(h) AS length,
	lower(c) AT TIME ZONE zone AS cumulate_starts, upper(c) AT TIME ZONE zone AS first_step_ends
FROM (VALUES ('America/Los_Angeles')) AS z (zone),
	unnest('{1615708800, 1615712400, 1615716000, 1615719600, 1636268400, 1636272000, 1636275600, 1636279200, 1636282800, 1636286400}'::bigint[]) AS e,
	LATERAL (SELECT to_timestamp(e) AS t) AS i,
	LATERAL (SELECT h FROM hop(t, '4 hours', every => '1 hour', time_zone => zone) AS h ORDER BY 1 LIMIT 1) AS hops,
	LATERAL (SELECT c FROM cumulate(t, '4 hours', step => '1 hour', time_zone => zone) AS c ORDER BY upper(c) LIMIT 1) AS steps
ORDER BY t;

DROP SERVER zones CASCADE;
DROP SCHEMA time_zones CASCADE;
