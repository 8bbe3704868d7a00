-- Rule: with allowed_lateness L a session that has ended is kept until W reaches its end + L.
-- Until then a row within the gap of it is merged into it: its row is written anew with
-- revision + 1; or, if it reaches beyond W then, it is open again, and its row goes until it
-- ends.  Rows of sessions that have become one go with the commit that emits that.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA session_late;
SET search_path = session_late, public;

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER session_late_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'session_late.log', partitions '1');
SELECT stream_engine.create_stream('clicks', server => 'session_late_server', topic => 'clicks',
	columns => 'who text, t timestamptz', event_time => 't', watermark_delay => '0',
	staging_retention => '0');
-- each record is "SECONDS WHO"; one commit
CREATE PROCEDURE send(VARIADIC records text[]) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log SELECT 0, COALESCE((SELECT max("offset") + 1 FROM log), 0) + o - 1, NULL, NULL,
		convert_to(json_build_object('t', timestamptz '2026-01-05 00:00:00+00' + split_part(r, ' ', 1)::numeric * interval '1 second',
			'who', NULLIF(split_part(r, ' ', 2), 'null'))::text, 'UTF8')
	FROM unnest(records) WITH ORDINALITY AS u (r, o);
	COMMIT;
	CALL stream_engine.wait('session_late.clicks', '1 minute');
END $$;
CREATE FUNCTION secs(timestamptz) RETURNS numeric LANGUAGE sql AS
	$$ SELECT extract(epoch FROM $1 - '2026-01-05 00:00:00+00'::timestamptz)::numeric(10, 1) $$;
CREATE PROCEDURE restart() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_terminate_backend(pid, 60000) FROM stream_engine.stat_workers WHERE kind = 'reader';
END $$;

SELECT stream_engine.create_query('visits', $$
	SELECT who, count(*) AS n, min(t) AS first, max(t) AS last FROM clicks GROUP BY session(t, '5 seconds'), who $$,
	allowed_lateness => '20 seconds');
SELECT stream_engine.create_query('few', $$
	SELECT who, count(*) AS n FROM clicks GROUP BY session(t, '5 seconds'), who HAVING count(*) < 3 $$,
	allowed_lateness => '20 seconds');
CREATE FUNCTION shown(of_who text) RETURNS TABLE (from_s numeric, to_s numeric, n bigint, first numeric, last numeric, is_final bool, revision int) LANGUAGE sql AS $$
	SELECT session_late.secs(window_start), session_late.secs(window_end), n, session_late.secs(first), session_late.secs(last), is_final, revision
	FROM session_late.visits_live WHERE who IS NOT DISTINCT FROM of_who ORDER BY 1, 2 $$;
CREATE FUNCTION shown_few(of_who text) RETURNS TABLE (from_s numeric, to_s numeric, n bigint, is_final bool, revision int) LANGUAGE sql AS $$
	SELECT session_late.secs(window_start), session_late.secs(window_end), n, is_final, revision
	FROM session_late.few_live WHERE who IS NOT DISTINCT FROM of_who ORDER BY 1, 2 $$;

-- W = 10: [0, 7) is closed; 3 is merged into it and makes it [0, 8)
CALL send('0 a', '2 a', '10 tick');
SELECT * FROM shown('a');
CALL send('3 a');
SELECT * FROM shown('a');
-- HAVING refuses the corrected session, whose row goes
SELECT * FROM shown_few('a');
-- 8 is on time, and 5 behind 3: [0, 13) is open again; its row comes back when it closes
CALL send('8 a');
SELECT * FROM shown('a');
SELECT count(*) FROM visits WHERE who = 'a';
CALL send('14 tick');
SELECT * FROM shown('a');

-- W = 14: nothing is near: sessions of their own that are closed at once; then 4 bridges them
CALL send('0 c', '8 c', '5 null');
SELECT * FROM shown('c');
SELECT * FROM shown(NULL);
CALL send('4 c', '5.5 null');
SELECT * FROM shown('c');
SELECT * FROM shown(NULL);
-- both in one commit: the row of the bridge comes first
CALL send('6 d', '2 d', '10 d');
SELECT * FROM shown('d');

-- W = 40: what ended by 20 has expired: 12 is late; 16 is not, and 15 is out of its reach
CALL send('15 e', '40 tick');
SELECT * FROM shown('e');
CALL send('12 a', '16 e');
SELECT * FROM shown('e');
SELECT convert_from(payload, 'UTF8')::json ->> 'who' AS who, secs(event_time) AS t, secs(watermark) AS watermark, windows
FROM stream_engine.late_events WHERE query = 'session_late.visits'::regclass;
-- a row before its expired neighbour joins the session behind: the neighbour's row stays
CALL send('14 e');
SELECT * FROM shown('e');

-- corrected after a restart; opened again, restarted, closed with the next revision
CALL restart();
CALL send('18 e');
SELECT * FROM shown('e');
CALL send('38 f', '45 tick');
SELECT * FROM shown('f');
CALL send('43 f');
SELECT * FROM shown('f');
CALL restart();
CALL send('47 f');
SELECT * FROM shown('f');
CALL send('60 tick');
SELECT * FROM shown('f');

-- a long session of many buckets, and two sessions of h, of which the first expires
CALL send('62 g', '66 g', '70 g', '62 h', '74 g', '73 h', '78 g', '83 g', '78 h', '95 tick');
SELECT * FROM shown('g');
SELECT * FROM shown('h');
CALL send('67.5 h', '75 g');
SELECT * FROM shown('g');
SELECT * FROM shown('h');
CALL send('72 h');
SELECT * FROM shown('h');
SELECT * FROM shown_few('h');
SELECT counted, late, late_assignments, windows_closed, open_slices > 0 AS keeps
FROM stream_engine.stat_queries WHERE query = 'session_late.visits'::regclass;
-- all of it expires
CALL send('200 tick', '201 end');
SELECT open_slices FROM stream_engine.stat_queries WHERE query = 'session_late.visits'::regclass;

-- the same rows in one commit give the same sessions
SELECT stream_engine.create_query('again', $$
	SELECT who, count(*) AS n, min(t) AS first, max(t) AS last FROM clicks GROUP BY session(t, '5 seconds'), who $$,
	allowed_lateness => '20 seconds');
CALL stream_engine.wait('again', '1 minute');
SELECT count(*) AS differences FROM (
	(SELECT window_start, window_end, who, n FROM visits EXCEPT ALL SELECT window_start, window_end, who, n FROM again) UNION ALL
	(SELECT window_start, window_end, who, n FROM again EXCEPT ALL SELECT window_start, window_end, who, n FROM visits)) AS d;
SELECT count(*) = (SELECT windows_closed FROM stream_engine.stat_queries WHERE query = 'session_late.visits'::regclass) AS all_counted FROM visits;
SELECT stream_engine.drop_stream('clicks', cascade => true);
DROP SCHEMA session_late CASCADE;
DROP SERVER session_late_server;
