-- Rule: a session ends when the stream's watermark, the least of the partitions that are
-- not idle, has passed its last row by the gap; without a watermark none does.  A
-- record of a partition that was idle is judged by its own partition's watermark, and
-- a session that has ended by then is emitted before the record is.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA session_partitions;
SET search_path = session_partitions, public;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE FUNCTION put(part int, kind text, t timestamptz) RETURNS void LANGUAGE sql AS $$
	INSERT INTO session_partitions.log SELECT part, count(*), t, NULL,
		pg_catalog.convert_to(pg_catalog.json_build_object('kind', kind, 't', t)::text, 'UTF8')
	FROM session_partitions.log WHERE partition = part $$;
CREATE SERVER session_partitions_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'session_partitions.log', partitions '2');
SELECT stream_engine.create_stream('clicks', server => 'session_partitions_server', topic => 'clicks',
	columns => 'kind text, t timestamptz', event_time => 't', watermark_delay => '0',
	idle_timeout => '1 second', staging_retention => '0');
SELECT stream_engine.create_query('visits', $$
	SELECT kind, count(*) AS n FROM clicks GROUP BY session(t, '10 seconds'), kind $$);

-- partition 1 has had no record: there is no watermark, and nothing ends
SELECT put(0, 'a', '2026-01-01 00:00:00'), put(0, 'a', '2026-01-01 00:00:03');
CALL stream_engine.wait('visits', '1 minute');
SELECT window_start, window_end, kind, n, is_final FROM visits_live;

-- partition 0 runs ahead, partition 1 holds the watermark; then both become idle
SELECT put(0, 'b', '2026-01-01 00:01:40'), put(1, 'c', '2026-01-01 00:00:05');
CALL stream_engine.wait('visits', '1 minute');
CALL until($$ count(*) = 2 FROM stream_engine.stat_partitions WHERE idle AND query = 'visits'::regclass $$);
SELECT watermark FROM stream_engine.stat_queries WHERE query = 'visits'::regclass;
SELECT window_start, window_end, kind, n, is_final FROM visits_live ORDER BY 1, 3;

-- partition 0 comes back with a row that the ended session of "a" would have taken: late
SELECT put(0, 'a', '2026-01-01 00:00:08');
CALL stream_engine.wait('visits', '1 minute');
SELECT window_start, window_end, kind, n, is_final FROM visits_live ORDER BY 1, 3;
SELECT partition, "offset", event_time, watermark FROM stream_engine.late_events WHERE query = 'visits'::regclass;

SELECT stream_engine.drop_stream('clicks', cascade => true);
DROP SCHEMA session_partitions CASCADE;
