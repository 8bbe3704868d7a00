-- Rule: with a column as time_zone each row's windows are those of its own zone; rows of zones
-- whose windows have the same bounds share a group; an unknown zone fails the record, no more.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA zones;
SET search_path = zones, public;

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER zones_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'zones.log', partitions '1');
SELECT stream_engine.create_stream('sales', server => 'zones_server', topic => 'sales',
	columns => 'amount int, zone text, t timestamptz', event_time => 't', watermark_delay => '0',
	staging_retention => '0');
-- both nights of the year in four zones, and a row without a zone
INSERT INTO log SELECT 0, row_number() OVER (ORDER BY t, zone) - 1, NULL, NULL,
	convert_to(json_build_object('t', t, 'zone', zone, 'amount', 1)::text, 'UTF8')
FROM (SELECT generate_series(d, d + interval '3 days', '30 minutes') AS t
	FROM unnest('{2025-03-08,2025-03-29,2025-10-25,2025-11-01}'::timestamptz[]) AS d) AS times,
	unnest('{Europe/Berlin,America/New_York,Asia/Kolkata,Pacific/Auckland,NULL}'::text[]) AS zone;
-- constant, and a column only where it can be
SELECT column_name, role FROM stream_engine.validate_query('SELECT sum(amount) FROM sales GROUP BY tumble(t, ''1 day'', time_zone => zone)');
SELECT stream_engine.validate_query('SELECT sum(amount) FROM sales GROUP BY tumble(t, ''1 day'', time_zone => upper(zone))');
SELECT stream_engine.validate_query('SELECT sum(amount) FROM sales GROUP BY session(t, gap => ''1 day'', time_zone => zone)');

SELECT stream_engine.create_query('local_days', $$
	SELECT zone, count(*) AS n, sum(amount) AS total FROM sales GROUP BY tumble(t, '1 day', time_zone => zone), zone $$);
SELECT stream_engine.create_query('all_days', $$
	SELECT count(*) AS n FROM sales GROUP BY tumble(t, '1 day', time_zone => zone) $$);
-- an hour of the clock is part of other days in other zones; all_* mix them
SELECT stream_engine.create_query('local_hops', $$
	SELECT zone, count(*) AS n, sum(amount) AS total FROM sales
	GROUP BY hop(t, '2 days', every => '12 hours', time_zone => zone), zone $$, late => 'store');
SELECT stream_engine.create_query('all_hops', $$
	SELECT count(*) AS n FROM sales GROUP BY hop(t, '1 day 1 hour', every => '6 hours', time_zone => zone) $$,
	emit => 'changes', emit_interval => '0');
SELECT stream_engine.create_query('local_parts', $$
	SELECT zone, count(*) AS n FROM sales
	GROUP BY cumulate(t, '1 day', step => '6 hours', time_zone => zone), zone $$, allowed_lateness => '1 day');
SELECT stream_engine.create_query('all_parts', $$
	SELECT count(*) AS n FROM sales GROUP BY cumulate(t, '1 month', step => '1 month', time_zone => zone) $$);
CALL stream_engine.wait('sales', '1 minute');
SELECT zone, window_start AT TIME ZONE COALESCE(zone, 'UTC') AS local_day, window_end - window_start AS length, n
FROM local_days WHERE window_end - window_start <> '24:00' ORDER BY 1, 2;
SELECT count(*) AS windows, sum(n) AS n FROM local_days;
-- the same as the batch, window by window, for what has closed and for what is open
SELECT count(*) AS differences FROM ((SELECT window_start, window_end, zone, n, total FROM local_days_live)
	EXCEPT (TABLE local_days_batch)) AS d;
SELECT count(*) AS differences FROM ((TABLE all_days_batch)
	EXCEPT (SELECT window_start, window_end, n FROM all_days_live)) AS d;
SELECT zone, window_start AT TIME ZONE COALESCE(zone, 'UTC') AS starts, window_end - window_start AS length, n
FROM local_hops WHERE window_start AT TIME ZONE COALESCE(zone, 'UTC') >= '2025-10-25'
	AND window_end AT TIME ZONE COALESCE(zone, 'UTC') <= '2025-10-28' AND zone IS NOT NULL ORDER BY 1, 2;
SELECT zone, window_start AT TIME ZONE COALESCE(zone, 'UTC') AS starts, window_end - window_start AS length, n
FROM local_parts WHERE (window_start AT TIME ZONE COALESCE(zone, 'UTC'))::date = '2025-03-30' ORDER BY 1, 2, 3;
SELECT 'local_hops' AS query, count(*) AS differences FROM ((SELECT window_start, window_end, zone, n, total FROM local_hops_live)
	EXCEPT (TABLE local_hops_batch)) AS d
UNION ALL SELECT 'all_hops', count(*) FROM ((TABLE all_hops_batch)
	EXCEPT (SELECT window_start, window_end, n FROM all_hops_live)) AS d
UNION ALL SELECT 'local_parts', count(*) FROM ((TABLE local_parts_batch)
	EXCEPT (SELECT window_start, window_end, zone, n FROM local_parts_live)) AS d
UNION ALL SELECT 'all_parts', count(*) FROM ((TABLE all_parts_batch)
	EXCEPT (SELECT window_start, window_end, n FROM all_parts_live)) AS d;
SELECT * FROM stream_engine.verify('local_days');
SELECT * FROM stream_engine.verify('local_hops');
SELECT * FROM stream_engine.verify('all_hops');
SELECT * FROM stream_engine.verify('local_parts');
SELECT * FROM stream_engine.verify('all_parts');
SELECT * FROM stream_engine.verify('all_days');
-- a record that is late for some windows of its zone, and one that is late for all
INSERT INTO log SELECT 0, (SELECT max("offset") FROM log) + n, NULL, NULL,
	convert_to(json_build_object('t', t, 'zone', zone, 'amount', 100)::text, 'UTF8')
FROM (VALUES (1, '2025-11-03 23:00Z', 'Asia/Kolkata'), (2, '2025-11-02 23:00Z', 'Europe/Berlin'),
	(3, '2025-11-01 05:00Z', 'Pacific/Auckland')) AS late (n, t, zone);
CALL stream_engine.wait('sales', '1 minute');
SELECT query, event_time, windows FROM stream_engine.late_events WHERE query = 'local_hops'::regclass ORDER BY 2;
SELECT query, event_time, windows FROM stream_engine.late_assignments WHERE query = 'local_hops'::regclass ORDER BY 2;
SELECT query, counted, late, late_assignments FROM stream_engine.stat_queries WHERE query IN ('local_hops'::regclass, 'local_parts'::regclass) ORDER BY 1;
SELECT window_start, window_end, zone, n, revision FROM local_parts WHERE revision > 0 ORDER BY 1, 2, 3;
SELECT * FROM stream_engine.verify('local_hops');
SELECT * FROM stream_engine.verify('local_parts');
INSERT INTO log SELECT 0, max("offset") + 1, NULL, NULL,
	convert_to('{"t": "2025-11-04 12:00Z", "zone": "Mars/Olympus", "amount": 1}', 'UTF8') FROM log;
CALL stream_engine.wait('sales', '1 minute');
SELECT query, message, record FROM stream_engine.failed_records ORDER BY 1;
SELECT query, failed FROM stream_engine.stat_queries ORDER BY 1;
SELECT stream_engine.drop_stream('sales', cascade => true);
DROP SCHEMA zones CASCADE;
DROP SERVER zones_server;
