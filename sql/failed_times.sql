-- Rule: a record whose time is so near the ends of the calendar that no window of a query can
-- hold it is failed for that query alone: it is counted, shown, and left out by verify().
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA failed_times;
SET search_path = failed_times, public;
CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER failed_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'failed_times.log', partitions '1');
SELECT stream_engine.create_stream('s', server => 'failed_server', topic => 's',
	columns => 'at timestamptz, zone text', event_time => 'at', watermark_delay => '0', staging_retention => '0');
SELECT stream_engine.create_query('years', 'SELECT count(*) AS n FROM s GROUP BY tumble(at, ''1 year'')');
SELECT stream_engine.create_query('days', 'SELECT count(*) AS n FROM s GROUP BY hop(at, ''2 days'', every => ''1 day'')');
SELECT stream_engine.create_query('local_days', 'SELECT count(*) AS n FROM s GROUP BY hop(at, ''2 days'', every => ''1 day'', time_zone => zone)');
SELECT stream_engine.create_query('visits', 'SELECT count(*) AS n FROM s GROUP BY session(at, ''1 day'')');
SELECT stream_engine.create_query('total', 'SELECT count(*) AS n FROM s', trigger_count => 1);
INSERT INTO log SELECT 0, i - 1, NULL, NULL, convert_to(json_build_object('at', at, 'zone', 'Asia/Tokyo')::text, 'UTF8')
	FROM unnest(ARRAY['4714-11-24 00:00+00 BC', '4714-11-28 00:00+00 BC', '4713-08-01 00:00+00 BC', '4000-08-01 00:00+00 BC', '2026-01-05 00:00+00',
		'2026-01-09 00:00+00', '294276-12-31 00:00+00']) WITH ORDINALITY u(at, i);
CALL stream_engine.wait('s', '1 minute');
SELECT query, counted, failed, late, decoded - counted - failed - late AS others FROM stream_engine.stat_queries WHERE stream = 's'::regclass ORDER BY query::text;
SELECT query, "offset", message FROM stream_engine.failed_records WHERE query::text = ANY ('{years,days,local_days,visits,total}') ORDER BY query::text, "offset";
SELECT window_start, n FROM years ORDER BY 1;
SELECT query, v.* FROM unnest('{years,days,local_days}'::regclass[]) AS query, stream_engine.verify(query) AS v;

SET client_min_messages = error;
DROP SERVER failed_server CASCADE;
DROP SCHEMA failed_times CASCADE;
