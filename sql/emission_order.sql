-- Rule: whoever watches a result table sees each key's windows come in the order of their ends, every row's revisions
-- from 0 on without a hole, is_final set once and for ever, and emitted_at the time of the commit, never moving back.
-- A final row is deleted only when a session takes it in, in the transaction that writes the whole unless that is open
-- again, or when a correction lets HAVING refuse it.  All that over commits, restarts and windows that come in parts.
SET timezone = 'UTC';
SET client_min_messages = warning;
CREATE SCHEMA emission;
SET search_path = emission, public;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until
CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea, PRIMARY KEY (partition, "offset"));
CREATE SERVER emission_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'emission.log', partitions '2');
SELECT stream_engine.create_stream('s', 'emission_server', 't', 'at timestamptz EPOCH ''s'', k int, v int', event_time => 'at',
	watermark_delay => '20 s', idle_timeout => '1 hour', staging_retention => '0');
-- windows come in parts of so many rows, or ten times as many where a reader has one query
ALTER SYSTEM SET stream_engine.max_emit_rows = 2;
SELECT pg_reload_conf();

CREATE TABLE shape (name text PRIMARY KEY, win text, tail text, options text);
INSERT INTO shape VALUES
	('tumbling', $$tumble(at, '10 s')$$, '', ''), ('hopping', $$hop(at, '30 s', every => '10 s')$$, '', ''), ('uneven', $$hop(at, '25 s', every => '10 s')$$, '', ''),
	('growing', $$cumulate(at, '60 s', step => '20 s')$$, '', ''), ('sessions', $$session(at, gap => '4 s')$$, '', ''),
	('corrected', $$tumble(at, '10 s')$$, '', $$, allowed_lateness => '60 s'$$), ('corrected_hops', $$hop(at, '30 s', every => '10 s')$$, 'HAVING count(*) BETWEEN 2 AND 6', $$, allowed_lateness => '60 s'$$),
	('corrected_sessions', $$session(at, gap => '4 s')$$, '', $$, allowed_lateness => '60 s'$$),
	('changing', $$tumble(at, '20 s')$$, '', $$, emit => 'changes', emit_interval => '0'$$),
	('changing_sessions', $$session(at, gap => '4 s')$$, '', $$, emit => 'changes', emit_interval => '0', allowed_lateness => '60 s'$$);
-- one of a kind is written without a trigger, as most tables are: there the order of the rows on disk tells
CREATE TABLE seen (id bigserial, name text, operation text, transaction xid8 DEFAULT pg_current_xact_id(), k int, starts timestamptz, ends timestamptz, n bigint,
	was_final boolean, is_final boolean, was int, revision int, was_at timestamptz, emitted_at timestamptz);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	r record := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
BEGIN
	INSERT INTO emission.seen (name, operation, k, starts, ends, n, was_final, is_final, was, revision, was_at, emitted_at)
	VALUES (TG_TABLE_NAME, TG_OP, r.k, r.window_start, r.window_end, r.n, CASE WHEN TG_OP <> 'INSERT' THEN OLD.is_final END, r.is_final,
		CASE WHEN TG_OP <> 'INSERT' THEN OLD.revision END, r.revision, CASE WHEN TG_OP <> 'INSERT' THEN OLD.emitted_at END, r.emitted_at);
	RETURN NULL;
END $$;
\set ECHO errors
SELECT format('SELECT stream_engine.create_query(%L, %L%s, paused => true)', name, format('SELECT k, count(*) AS n, sum(v) AS total FROM s GROUP BY %s, k %s', win, tail), options) FROM shape ORDER BY name \gexec
SELECT format('SELECT stream_engine.create_query(%L, %L)', 'plain_' || name, format('SELECT k, count(*) AS n FROM s GROUP BY %s, k', win)) FROM shape WHERE options = '' ORDER BY name \gexec
SELECT format('CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION see()', name) FROM shape \gexec
SELECT format('SELECT stream_engine.resume(%L)', name) FROM shape ORDER BY name \gexec
\set ECHO all

-- 3000 records of 40 keys in two partitions: most in order, a tenth up to 90 s behind
CREATE FUNCTION random_of(i int, salt text, below int) RETURNS int LANGUAGE sql IMMUTABLE AS
	$$ SELECT abs(('x' || substr(md5(i || salt), 1, 7))::bit(28)::int % below) $$;
CREATE TABLE sent AS
	SELECT i, i % 2 AS partition, i / 2 AS "offset", random_of(i, 'k', 40) AS k, i % 9 AS v,
		i / 12 - CASE WHEN i % 10 = 7 THEN random_of(i, 'late', 90) ELSE random_of(i, 'at', 15) END AS at
	FROM generate_series(0, 2999) AS i;
CREATE PROCEDURE send(first int, past int, at_a_time int) LANGUAGE plpgsql AS $$
BEGIN
	WHILE first < past LOOP
		INSERT INTO emission.log SELECT partition, "offset", now(), NULL, convert_to(json_build_object('at', at, 'k', NULLIF(k, 39), 'v', v)::text, 'UTF8')
			FROM emission.sent WHERE i >= first AND i < least(first + at_a_time, past);
		COMMIT;
		CALL stream_engine.wait('emission.s', '1 minute');
		first := first + at_a_time;
	END LOOP;
END $$;
CALL send(0, 1000, 150);
CALL send(1000, 1100, 25);
SELECT count(pg_terminate_backend(pid)) > 0 AS stopped FROM stream_engine.stat_workers WHERE kind = 'reader' AND database = current_database();
CALL send(1100, 2000, 300);
SELECT stream_engine.pause('s');
SELECT stream_engine.resume('s');
CALL send(2000, 3000, 90);
SELECT stream_engine.advance_watermark('s', to_timestamp(1000));
CALL until($$ min(watermark) >= to_timestamp(1000) FROM stream_engine.stat_queries WHERE stream = 's'::regclass $$);
CALL stream_engine.wait('s', '1 minute');
SELECT name, state, error FROM stream_engine.queries WHERE state <> 'running';
-- there is something to see
SELECT name, count(*) FILTER (WHERE operation = 'INSERT') > 100 AS many, count(DISTINCT transaction) > 20 AS commits, count(*) FILTER (WHERE operation = 'UPDATE') > 0 AS updates, count(*) FILTER (WHERE operation = 'DELETE') > 0 AS deletes
FROM seen GROUP BY name ORDER BY name;

-- each key's windows become final in the order of their ends
CREATE VIEW final AS
	SELECT *, lag(ends) OVER (PARTITION BY name, k ORDER BY id) AS before FROM seen
	WHERE is_final AND operation <> 'DELETE' AND was_final IS NOT TRUE AND name IN ('tumbling', 'hopping', 'uneven', 'growing', 'sessions', 'changing');
SELECT name, count(*) FROM final WHERE ends < before GROUP BY 1;
CREATE FUNCTION out_of_order(name text, OUT rows bigint) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT count(*) FROM (SELECT window_end, lag(window_end) OVER w AS before, emitted_at, lag(emitted_at) OVER w AS before_at FROM emission.%I
		WINDOW w AS (PARTITION BY k ORDER BY ctid)) AS o WHERE window_end < before OR emitted_at < before_at', name) INTO rows;
END $$;
SELECT name, out_of_order('plain_' || name) FROM shape WHERE options = '' ORDER BY 1;
-- revisions: from 0, one at a time, also of a row that has gone and comes again
SELECT name, operation, count(*) FROM seen WHERE operation = 'INSERT' AND revision <> 0 AND name NOT LIKE '%sessions' AND name <> 'corrected_hops' GROUP BY 1, 2;
SELECT name, count(*) FROM seen WHERE operation = 'UPDATE' AND revision <> was + 1 GROUP BY 1;
-- final is final
SELECT name, count(*) FROM seen WHERE operation = 'UPDATE' AND was_final AND NOT is_final GROUP BY 1;
SELECT name, operation, count(*) FROM seen WHERE name NOT LIKE 'c%' AND (operation <> 'INSERT' OR NOT is_final OR revision <> 0) GROUP BY 1, 2;
-- the time of the commit, which does not move back
SELECT name, count(*) FROM seen WHERE operation <> 'DELETE' AND NOT EXISTS (SELECT FROM stream_engine.query_ledger l WHERE l.query = name::regclass AND l.committed_at = emitted_at) GROUP BY 1;
SELECT name, count(*) FROM (SELECT name, transaction FROM seen WHERE operation <> 'DELETE' GROUP BY name, transaction HAVING count(DISTINCT emitted_at) > 1) AS t GROUP BY 1;
SELECT name, count(*) FROM seen WHERE operation = 'UPDATE' AND emitted_at <= was_at GROUP BY 1;
SELECT name, count(*) FROM (SELECT name, emitted_at, lag(emitted_at) OVER (PARTITION BY name ORDER BY id) AS before FROM seen WHERE operation <> 'DELETE') AS t WHERE emitted_at < before GROUP BY 1;
-- a session's row goes with the one that takes it in, which comes later if it is open again
SELECT name, count(*) FROM seen d WHERE operation = 'DELETE' AND name LIKE '%sessions' AND NOT EXISTS (
	SELECT FROM seen i WHERE i.name = d.name AND i.operation <> 'DELETE' AND i.k IS NOT DISTINCT FROM d.k AND i.starts <= d.starts AND i.ends >= d.ends AND i.n > d.n
	AND (i.transaction = d.transaction OR (i.id > d.id AND i.ends > d.ends))) GROUP BY 1;
-- with the next revision
SELECT name, count(*) > 20 AS many, count(*) FILTER (WHERE revision <> taken + 1) AS wrong FROM (
	SELECT i.name, i.id, i.revision, max(d.revision) AS taken FROM seen i JOIN seen d ON d.name = i.name AND d.transaction = i.transaction
		AND d.k IS NOT DISTINCT FROM i.k AND d.starts >= i.starts AND d.ends <= i.ends
	WHERE i.name LIKE '%sessions' AND i.operation = 'INSERT' AND d.operation = 'DELETE' GROUP BY 1, 2, 3) AS t GROUP BY 1 ORDER BY 1;
SELECT DISTINCT name FROM seen WHERE operation = 'DELETE' ORDER BY 1;
-- of windows that come in parts each part is a transaction
SELECT max(parts) > 1 AS in_parts FROM (SELECT count(DISTINCT transaction) AS parts FROM seen WHERE name = 'tumbling' GROUP BY starts) AS t;
SELECT name, problem, count(*) FROM shape, stream_engine.verify(name::regclass) WHERE win !~ 'session' GROUP BY 1, 2;

ALTER SYSTEM RESET stream_engine.max_emit_rows;
SELECT pg_reload_conf();
SET client_min_messages = error;
DROP SERVER emission_server CASCADE;
DROP SCHEMA emission CASCADE;
