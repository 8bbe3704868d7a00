-- Rules: W is the minimum over the partitions that are not (quiet for idle_timeout and
-- caught up); a new partition holds W until its first row or idleness; one that
-- returns with an older watermark does not move W back; when all are idle nothing
-- closes by itself, but idle_close closes every open window.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;

\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until

CREATE TABLE idle_log (partition int, "offset" bigint, timestamp timestamptz DEFAULT now(), key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
-- the next record of a partition, at a time of 2026-01-01
CREATE FUNCTION idle_put(p int, t text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO idle_log (partition, "offset", value)
		SELECT p, (SELECT count(*) FROM idle_log WHERE partition = p),
			format('{"t": "2026-01-01 %s+00", "p": %s}', t, p)::bytea
$$;
CREATE SERVER idle_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.idle_log');

SELECT idle_put(0, '10:00');
SELECT idle_put(1, '10:30');
SELECT stream_engine.create_stream('idle_rows', 'idle_server', NULL, 't timestamptz, p int',
	event_time => 't', watermark_delay => '0', idle_timeout => '1 hour', staging_retention => '0');
SELECT stream_engine.create_query('idle_counts',
	'SELECT p, count(*) AS n FROM idle_rows GROUP BY tumble(t, ''1 minute''), p');
CREATE VIEW idle_state AS
	SELECT q.watermark, (SELECT string_agg(p.partition || CASE WHEN p.idle THEN ' idle' WHEN p.holds_watermark THEN ' holds' ELSE '' END, ', '
		ORDER BY p.partition) FROM stream_engine.stat_partitions p WHERE p.query = q.query) AS partitions
	FROM stream_engine.stat_queries q WHERE q.query = 'idle_counts'::regclass;

-- the slowest partition holds W
CALL stream_engine.wait('idle_counts');
SELECT * FROM idle_state;
SELECT idle_put(0, '10:20');
CALL stream_engine.wait('idle_counts');
SELECT * FROM idle_state;
SELECT window_start, p, n FROM idle_counts ORDER BY 1, 2;

-- a partition that is added while the reader runs is read from its beginning, and holds W
SELECT idle_put(2, '10:25');
CALL stream_engine.wait('idle_counts');
SELECT idle_put(0, '10:40');
SELECT idle_put(1, '10:40');
CALL stream_engine.wait('idle_counts');
SELECT * FROM idle_state;
SELECT idle_put(2, '10:50');
CALL stream_engine.wait('idle_counts');
SELECT * FROM idle_state;
SELECT window_start, p, n FROM idle_counts ORDER BY 1, 2;
SELECT * FROM stream_engine.verify('idle_counts');

-- one that is added with nothing in front of its last record holds W, too, and W does not move back
SELECT idle_put(3, '09:00');
CALL stream_engine.wait('idle_counts');
SELECT idle_put(0, '11:00');
SELECT idle_put(1, '11:00');
SELECT idle_put(2, '11:00');
CALL stream_engine.wait('idle_counts');
SELECT * FROM idle_state;
SELECT partition, "offset", event_time, watermark FROM stream_engine.late_events WHERE query = 'idle_counts'::regclass;
SELECT partition, max_event_time, watermark FROM stream_engine.stat_partitions WHERE query = 'idle_counts'::regclass ORDER BY 1;

-- idle partitions are left out; a stream whose partitions are all idle closes nothing
ALTER FOREIGN TABLE idle_rows OPTIONS (SET idle_timeout '200 ms');
CALL until($$ (SELECT partitions = '0 idle, 1 idle, 2 idle, 3 idle' FROM idle_state) $$);
SELECT watermark >= '2026-01-01 10:40+00' AND watermark <= '2026-01-01 11:00+00' AS stands FROM idle_state;
SELECT count(*) FROM idle_counts WHERE window_start >= '2026-01-01 11:00+00';

-- idleness outlives a restart of the reader: the one record that comes decides alone
ALTER FOREIGN TABLE idle_rows OPTIONS (SET idle_timeout '1 hour');
SELECT idle_put(1, '11:10');
CALL until($$ (SELECT watermark = '2026-01-01 11:10+00' FROM idle_state) $$);
SELECT * FROM idle_state;
SELECT window_start, p, n FROM idle_counts WHERE window_start >= '2026-01-01 11:00+00' ORDER BY 1, 2;

-- one returns with an older watermark: W stays, and its record is late
SELECT idle_put(3, '11:05');
CALL stream_engine.wait('idle_counts');
SELECT * FROM idle_state;
SELECT partition, "offset", event_time, watermark FROM stream_engine.late_events WHERE query = 'idle_counts'::regclass ORDER BY 1, 2;
SELECT idle_put(1, '11:30');
CALL stream_engine.wait('idle_counts');
SELECT * FROM idle_state;
SELECT idle_put(3, '11:20');
CALL stream_engine.wait('idle_counts');
SELECT * FROM idle_state;
SELECT * FROM stream_engine.verify('idle_counts');

-- a stream that has never had a record: partitions become idle, W is none
CREATE TABLE idle_empty (LIKE idle_log INCLUDING ALL);
CREATE SERVER idle_none FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.idle_empty', partitions '2');
SELECT stream_engine.create_stream('idle_nothing', 'idle_none', NULL, 't timestamptz', event_time => 't',
	watermark_delay => '0', idle_timeout => '100 ms', idle_close => '1 hour', staging_retention => '0');
SELECT stream_engine.create_query('idle_nothing_counts', 'SELECT count(*) AS n FROM idle_nothing GROUP BY tumble(t, ''1 minute'')');
CALL until($$ (SELECT bool_and(idle) FROM stream_engine.stat_partitions WHERE query = 'idle_nothing_counts'::regclass) $$);
SELECT watermark FROM stream_engine.stat_queries WHERE query = 'idle_nothing_counts'::regclass;
-- and the other partition does not hold it when records come
INSERT INTO idle_empty VALUES (1, 0, now(), NULL, '{"t": "2026-01-01 10:00:30+00"}'), (1, 1, now(), NULL, '{"t": "2026-01-01 10:01+00"}');
CALL until('(SELECT count(*) = 1 FROM idle_nothing_counts)');
SELECT window_start, n FROM idle_nothing_counts;

-- idle_close: the last window closes after that time without a record
ALTER FOREIGN TABLE idle_nothing OPTIONS (SET idle_close '200 ms');
CALL until('(SELECT count(*) = 2 FROM idle_nothing_counts)');
SELECT window_start, n FROM idle_nothing_counts ORDER BY 1;
SELECT watermark FROM stream_engine.stat_queries WHERE query = 'idle_nothing_counts'::regclass;
-- a later row of that window is late, one of the next window is not
INSERT INTO idle_empty VALUES (1, 2, now(), NULL, '{"t": "2026-01-01 10:01:30+00"}'), (0, 0, now(), NULL, '{"t": "2026-01-01 10:02+00"}');
CALL stream_engine.wait('idle_nothing_counts');
SELECT partition, "offset", event_time, watermark FROM stream_engine.late_events WHERE query = 'idle_nothing_counts'::regclass;
CALL until('(SELECT count(*) = 3 FROM idle_nothing_counts)');
SELECT window_start, n FROM idle_nothing_counts ORDER BY 1;
SELECT decoded, counted, late, windows_closed FROM stream_engine.stat_queries WHERE query = 'idle_nothing_counts'::regclass;
SELECT * FROM stream_engine.verify('idle_nothing_counts');
-- an idle stream commits nothing
SELECT commits AS idle_commits FROM stream_engine.stat_queries WHERE query = 'idle_nothing_counts'::regclass \gset
SELECT idle_put(1, '12:00');
CALL stream_engine.wait('idle_counts');
SELECT commits - :idle_commits AS commits FROM stream_engine.stat_queries WHERE query = 'idle_nothing_counts'::regclass;

-- all windows of hop and sessions, too
SELECT stream_engine.create_query('idle_hops', 'SELECT count(*) AS n FROM idle_nothing GROUP BY hop(t, size => ''2 minutes'', every => ''1 minute'')');
SELECT stream_engine.create_query('idle_sessions', 'SELECT count(*) AS n FROM idle_nothing GROUP BY session(t, gap => ''40 seconds'')');
CALL until('(SELECT max(window_end) = ''2026-01-01 10:04+00'' FROM idle_hops)');
SELECT window_start, window_end, n FROM idle_hops ORDER BY 1;
CALL until('(SELECT max(window_end) = ''2026-01-01 10:02:40+00'' FROM idle_sessions)');
SELECT window_start, window_end, n FROM idle_sessions ORDER BY 1;
-- queries that share a reader share its watermark, which is at the end of the last of their windows
SELECT query::text, watermark <= '2026-01-01 10:04+00' AND watermark >= '2026-01-01 10:02:40+00' AS closed
	FROM stream_engine.stat_queries WHERE stream = 'idle_nothing'::regclass ORDER BY 1;

DROP VIEW idle_state;
SELECT stream_engine.drop_stream('idle_rows', true);
SELECT stream_engine.drop_stream('idle_nothing', true);
DROP SERVER idle_server;
DROP SERVER idle_none;
DROP TABLE idle_log, idle_empty;
DROP FUNCTION idle_put;
DROP PROCEDURE until;
