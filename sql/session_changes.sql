-- Rule: with emit => 'changes' the result table shows open sessions too, is_final false.  The
-- row of a session that has grown, or absorbed another one, takes the place of theirs in the
-- same transaction, with a larger revision; when the session ends it becomes final.  A restart
-- shows nothing twice and misses nothing.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA session_changes;
SET search_path = session_changes, public;

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER session_changes_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'session_changes.log', partitions '1');
SELECT stream_engine.create_stream('clicks', server => 'session_changes_server', topic => 'clicks',
	columns => 'who text, t timestamptz', event_time => 't', watermark_delay => '10 seconds',
	staging_retention => '0');
-- each record is "SECONDS WHO"; one commit
CREATE PROCEDURE send(VARIADIC records text[]) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log SELECT 0, COALESCE((SELECT max("offset") + 1 FROM log), 0) + o - 1, NULL, NULL,
		convert_to(json_build_object('t', timestamptz '2026-01-05 00:00:00+00' + split_part(r, ' ', 1)::numeric * interval '1 second',
			'who', NULLIF(split_part(r, ' ', 2), 'null'))::text, 'UTF8')
	FROM unnest(records) WITH ORDINALITY AS u (r, o);
	COMMIT;
	CALL stream_engine.wait('session_changes.clicks', '1 minute');
END $$;
CREATE FUNCTION secs(timestamptz) RETURNS numeric LANGUAGE sql AS
	$$ SELECT extract(epoch FROM $1 - '2026-01-05 00:00:00+00'::timestamptz)::numeric(10, 1) $$;

SELECT stream_engine.create_query('visits', $$
	SELECT who, count(*) AS n FROM clicks GROUP BY session(t, '5 seconds'), who $$,
	emit => 'changes', emit_interval => '0');
SELECT stream_engine.create_query('corrected', $$
	SELECT who, count(*) AS n FROM clicks GROUP BY session(t, '5 seconds'), who $$,
	emit => 'changes', emit_interval => '0', allowed_lateness => '20 seconds');
SELECT stream_engine.create_query('few', $$
	SELECT who, count(*) AS n FROM clicks GROUP BY session(t, '5 seconds'), who HAVING count(*) <> 2 $$,
	emit => 'changes', emit_interval => '0');
-- the first commit shows what it has, and the next would an hour later
SELECT stream_engine.create_query('seldom', $$
	SELECT who, count(*) AS n FROM clicks GROUP BY session(t, '5 seconds'), who $$,
	emit => 'changes', emit_interval => '1 hour');
CREATE FUNCTION shown(query regclass, of_who text) RETURNS TABLE (from_s numeric, to_s numeric, n bigint, is_final bool, revision int) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format('SELECT secs(window_start), secs(window_end), n, is_final, revision FROM %s WHERE who IS NOT DISTINCT FROM %L ORDER BY 1, 2', query, of_who);
END $$;

-- open sessions are shown; one that grows to both sides is one row
CALL send('10 a', '10 b', '12 null');
SELECT * FROM shown('visits', 'a');
CALL send('13 a', '12.5 null');
CALL send('8 a');
SELECT * FROM shown('visits', 'a');
SELECT * FROM shown('visits', NULL);
SELECT * FROM shown('visits', 'b');
-- HAVING refuses the second count, and lets the third pass
SELECT * FROM shown('few', 'a');
SELECT * FROM shown('few', NULL);
-- a row inside changes the count and not the bounds
CALL send('9 a');
SELECT * FROM shown('visits', 'a');
-- two shown sessions become one
CALL send('13 c', '20 c', '27 d');
SELECT * FROM shown('visits', 'c');
CALL send('17 c');
SELECT * FROM shown('visits', 'c');
SELECT * FROM shown('visits_live', 'c');
SELECT * FROM shown('seldom', 'c');
SELECT * FROM shown('seldom_live', 'c');
-- W = 17: b has ended as it was shown; a and null have not
SELECT * FROM shown('visits', 'b');
SELECT * FROM shown('visits', NULL);
SELECT * FROM shown('visits', 'a');
-- W = 20; a ends
CALL send('30 d');
SELECT * FROM shown('visits', 'a');
SELECT * FROM shown('seldom', 'a');
SELECT * FROM shown('visits_live', 'd');

-- a restart: nothing is shown twice, and what was not shown is
CREATE TABLE before AS SELECT * FROM visits;
SELECT stream_engine.pause('visits');
SELECT stream_engine.pause('few');
CALL send('29 e', '31 d');
SELECT stream_engine.resume('visits');
SELECT stream_engine.resume('few');
CALL send('29 f');
SELECT who, secs(window_start) AS from_s, secs(window_end) AS to_s, n, is_final, revision FROM (SELECT * FROM visits EXCEPT SELECT * FROM before) AS d ORDER BY 1, 2;

-- many commits in a long session; some buckets are carried
CALL send('34 d', '29 g'); CALL send('38 d', '31 g'); CALL send('42 d'); CALL send('45 d'); CALL send('50 d');
SELECT * FROM shown('visits', 'd');
SELECT * FROM shown('visits', 'g');
-- two sessions that have been shown, and that grow together when the first is long carried
CALL send('44 h', '52 h', '58 i'); CALL send('48 h'); CALL send('58 h', '57 h');
SELECT * FROM shown('visits', 'h');

-- with lateness: a final row is corrected; taken back and shown again when it is opened
CALL send('50 k', '66 tick');
SELECT * FROM shown('corrected', 'k');
CALL send('49 k');
SELECT * FROM shown('corrected', 'k');
CALL send('54 k');
SELECT * FROM shown('corrected', 'k');
SELECT * FROM shown('corrected_live', 'k');
CALL send('75 tick');
SELECT * FROM shown('corrected', 'k');
SELECT * FROM shown('visits', 'k');
-- at the end each query has the same sessions, final, and no row is left over
CALL send('400 tick', '401 end');
CALL send('402 end');
SELECT array_agg(who ORDER BY who) FILTER (WHERE NOT is_final) AS open, count(*) FILTER (WHERE is_final) = (SELECT windows_closed FROM stream_engine.stat_queries WHERE query = 'session_changes.visits'::regclass) AS counted FROM visits;
SELECT who, secs(window_start) AS from_s, secs(window_end) AS to_s, n FROM (SELECT window_start, window_end, who, n FROM visits WHERE is_final EXCEPT SELECT window_start, window_end, who, n FROM seldom WHERE is_final) AS d ORDER BY 1, 2;
SELECT who, secs(window_start) AS from_s, secs(window_end) AS to_s, n FROM (SELECT window_start, window_end, who, n FROM visits WHERE is_final EXCEPT SELECT window_start, window_end, who, n FROM corrected WHERE is_final) AS d ORDER BY 1, 2;
SELECT stream_engine.drop_stream('clicks', cascade => true);
DROP SCHEMA session_changes CASCADE;
DROP SERVER session_changes_server;
