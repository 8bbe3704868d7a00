-- Rule: rows of a key at a distance of at most the gap are one session, whatever
-- their order and however they are cut into batches and commits; a session ends
-- gap behind its last row and is emitted when the watermark reaches that.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA sessions;
SET search_path = sessions, public;

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER sessions_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'sessions.log', partitions '1');
SELECT stream_engine.create_stream('clicks', server => 'sessions_server', topic => 'clicks',
	columns => 'who text, t timestamptz', event_time => 't', watermark_delay => '10 seconds',
	staging_retention => '0');
-- each record is "SECONDS WHO"
CREATE PROCEDURE send(VARIADIC records text[]) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log SELECT 0, COALESCE((SELECT max("offset") + 1 FROM log), 0) + o - 1, NULL, NULL,
		convert_to(json_build_object('t', timestamptz '2026-01-05 00:00:00+00' + split_part(r, ' ', 1)::numeric * interval '1 second',
			'who', NULLIF(split_part(r, ' ', 2), 'null'))::text, 'UTF8')
	FROM unnest(records) WITH ORDINALITY AS u (r, o);
	COMMIT;
	CALL stream_engine.wait('sessions.clicks', '1 minute');
END $$;
CREATE FUNCTION secs(timestamptz) RETURNS numeric LANGUAGE sql AS
	$$ SELECT extract(epoch FROM $1 - '2026-01-05 00:00:00+00'::timestamptz)::numeric(10, 1) $$;

SELECT stream_engine.create_query('s5', $$
	SELECT who, count(*) AS n, min(t) AS first, max(t) AS last FROM clicks GROUP BY session(t, '5 seconds'), who $$);
CREATE VIEW closed AS SELECT who, secs(window_start) AS from_s, secs(window_end) AS to_s, n, secs(first) AS first, secs(last) AS last FROM s5;
CREATE VIEW open AS SELECT who, secs(window_start) AS from_s, secs(window_end) AS to_s, n FROM s5_live WHERE NOT is_final;

-- exactly the gap apart: one session; a tick more: two
CALL send('0 equal', '5 equal', '0 more', '5.000001 more');
SELECT * FROM open ORDER BY 1, 2;
-- 4 bridges 0 and 9; the windows of three commits are one session
CALL send('0 bridge', '9 bridge');
SELECT * FROM open WHERE who = 'bridge' ORDER BY 1, 2;
CALL send('4.5 bridge');
SELECT * FROM open WHERE who = 'bridge' ORDER BY 1, 2;
-- NULL is a key; a session longer than many gaps; rows at bucket borders
CALL send('0 null', '3 long', '7.5 long', '10 long', '15 long', '12 null', '19.9 long');
SELECT * FROM open WHERE who IS NULL OR who = 'long' ORDER BY 1, 2;
-- the watermark is 9.9: what ended by then is closed, not a tick earlier
SELECT * FROM closed ORDER BY 1, 2;
CALL send('20 tick');
SELECT * FROM closed ORDER BY 1, 2;
-- on time but within the gap of a closed session: a new one
CALL send('9.5 equal');
SELECT * FROM open WHERE who = 'equal' ORDER BY 1, 2;
-- late: nothing open within the gap; not late: the session of null at 12 is open
CALL send('4 late', '8 null', '30 tick');
SELECT who, from_s, to_s, n FROM closed WHERE who IS DISTINCT FROM 'long' ORDER BY 1, 2;
SELECT convert_from(payload, 'UTF8')::json ->> 'who' AS who, secs(event_time) AS t, secs(watermark) AS watermark, windows
FROM stream_engine.late_events WHERE query = 'sessions.s5'::regclass;
-- sessions carried through buckets survive a restart of the worker
SELECT pg_catalog.count(pg_terminate_backend(pid)) > 0 AS stopped FROM stream_engine.stat_workers WHERE kind = 'reader' AND reader IN
	(SELECT reader FROM stream_engine.stat_partitions WHERE query = 'sessions.s5'::regclass);
CALL send('24 long', '28 long', '33 long');
SELECT * FROM open WHERE who = 'long' ORDER BY 1, 2;
CALL send('100 tick');
SELECT * FROM closed ORDER BY 1, 2;
SELECT * FROM open ORDER BY 1, 2;
SELECT counted, late, late_assignments, windows_closed, rows_out, open_slices FROM stream_engine.stat_queries WHERE query = 'sessions.s5'::regclass;
-- what a batch cannot do
SELECT * FROM stream_engine.verify('s5');
SELECT * FROM s5_batch;

-- the same rows, each in a commit of its own and in another order, give the same sessions
SELECT stream_engine.create_query('again', $$
	SELECT who, count(*) AS n, min(t) AS first, max(t) AS last FROM clicks GROUP BY session(t, '5 seconds'), who $$);
CALL stream_engine.wait('again', '1 minute');
SELECT count(*) AS differences FROM (
	SELECT window_start, window_end, who, n FROM s5 EXCEPT ALL SELECT window_start, window_end, who, n FROM again) AS d;
-- without a delay a record that is exactly the gap behind still belongs to the session
SELECT stream_engine.create_stream('strict', server => 'sessions_server', topic => 'clicks',
	columns => 'who text, t timestamptz', event_time => 't', watermark_delay => '0', staging_retention => '0');
SELECT stream_engine.create_query('s0', 'SELECT who, count(*) AS n FROM strict GROUP BY session(t, ''5 seconds''), who');
CALL stream_engine.wait('s0', '1 minute');
SELECT who, secs(window_start) AS from_s, secs(window_end) AS to_s, n FROM s0_live ORDER BY 1, 2;
SELECT stream_engine.drop_stream('strict', cascade => true);
DROP VIEW closed, open;
SELECT stream_engine.drop_stream('clicks', cascade => true);
DROP SCHEMA sessions CASCADE;
DROP SERVER sessions_server;
