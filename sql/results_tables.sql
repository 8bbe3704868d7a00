-- Rule: a result table may have triggers, generated columns, constraints and columns of the
-- user's own; what is written there, fresh rows and rows that change, is what an INSERT
-- or an upsert of each would have left, also of many rows in one commit.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA tables;
SET search_path = tables, public;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER tables_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'tables.log', partitions '1');
SELECT stream_engine.create_stream('orders', server => 'tables_server', topic => 'orders',
	columns => 'k int, v int, t timestamptz', event_time => 't', watermark_delay => '0',
	staging_retention => '0');
-- rows with the keys 0 .. n - 1 at a time, and one without a key
CREATE PROCEDURE send(at text, n int) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log SELECT 0, f.first + i, NULL, NULL, convert_to(json_build_object('k', NULLIF(i, n), 'v', i,
			't', '2026-01-05 ' || at || '+00')::text, 'UTF8')
		FROM generate_series(0, n) i, (SELECT COALESCE(max("offset") + 1, 0) AS first FROM log) f;
	COMMIT;
	CALL stream_engine.wait('tables.orders', '1 minute');
END $$;

SELECT stream_engine.create_query('plain', $$
	SELECT k, count(*) AS n, ARRAY[min(v), max(v)] AS ends FROM orders GROUP BY tumble(t, '10 minutes'), k $$,
	emit => 'changes', emit_interval => '0');
SELECT stream_engine.create_query('final', $$
	SELECT k, count(*) AS n, ARRAY[min(v), max(v)] AS ends FROM orders GROUP BY tumble(t, '10 minutes'), k $$);
SELECT stream_engine.create_query('changing', $$
	SELECT k, count(*) AS n, ARRAY[min(v), max(v)] AS ends FROM orders GROUP BY tumble(t, '10 minutes'), k $$,
	emit => 'changes', emit_interval => '0');

CREATE TABLE seen (result text, operation text, n bigint);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO tables.seen VALUES (TG_TABLE_NAME, TG_OP, NEW.n);
	RETURN NULL;
END $$;
CREATE FUNCTION set_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.note := 'note ' || NEW.n;
	RETURN NEW;
END $$;
ALTER TABLE final ADD COLUMN twice bigint GENERATED ALWAYS AS (n * 2) STORED, ADD COLUMN note text, ADD COLUMN mine int DEFAULT 7;
ALTER TABLE changing ADD COLUMN twice bigint GENERATED ALWAYS AS (n * 2) STORED, ADD COLUMN note text, ADD COLUMN mine int DEFAULT 7;
CREATE TRIGGER a AFTER INSERT OR UPDATE ON final FOR EACH ROW EXECUTE FUNCTION see();
CREATE TRIGGER a AFTER INSERT OR UPDATE ON changing FOR EACH ROW EXECUTE FUNCTION see();
CREATE TRIGGER b BEFORE INSERT OR UPDATE ON final FOR EACH ROW EXECUTE FUNCTION set_note();
CREATE TRIGGER b BEFORE INSERT OR UPDATE ON changing FOR EACH ROW EXECUTE FUNCTION set_note();

CREATE FUNCTION summary(query regclass) RETURNS TABLE (w text, is_final bool, revision int, rows bigint, n numeric,
	ends text, keyless bigint) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format('SELECT to_char(window_start, ''HH24:MI''), is_final, revision, count(*), sum(n),
		min(ends)::text || max(ends)::text, count(*) FILTER (WHERE k IS NULL) FROM %s GROUP BY 1, 2, 3 ORDER BY 1, 2, 3', query);
END $$;

-- more rows than are written at a time
CALL send('00:01', 2500);
SELECT * FROM summary('plain');
SELECT * FROM summary('changing');
-- some change
CALL send('00:02', 1200);
SELECT * FROM summary('plain');
SELECT * FROM summary('changing');
-- and are final
CALL send('00:11', 10);
SELECT * FROM summary('plain');
SELECT * FROM summary('changing');
SELECT * FROM summary('final');
SELECT result, operation, n, count(*) FROM seen GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
SELECT count(*), count(*) FILTER (WHERE twice = n * 2 AND note = 'note ' || n AND mine = 7) AS right FROM final;
SELECT count(*), count(*) FILTER (WHERE twice = n * 2 AND note = 'note ' || n AND mine = 7) AS right FROM changing;
SELECT count(*) FROM stream_engine.verify('final');

-- a column that has been altered has the precision that it was given, fresh rows too
SELECT stream_engine.create_query('altered', $$
	SELECT k, sum(v) / 8.0 AS part FROM orders GROUP BY tumble(t, '10 minutes'), k $$);
DROP VIEW altered_live;
ALTER TABLE altered ALTER COLUMN part TYPE numeric(10, 1);
CALL send('00:21', 3);
CALL send('00:31', 0);
SELECT to_char(window_start, 'HH24:MI') AS w, k, part FROM altered ORDER BY window_start DESC, k LIMIT 4;

SELECT stream_engine.drop_stream('orders', cascade => true);

-- a trigger may stop its stream; its query alone it may not, which would be given positions that
-- the state is ahead of
DELETE FROM log;
SELECT stream_engine.create_stream('alarms', server => 'tables_server', topic => 'alarms',
	columns => 'v int, t timestamptz', event_time => 't', watermark_delay => '0');
SELECT stream_engine.create_query('alarm', 'SELECT count(*) AS n FROM alarms GROUP BY tumble(t, ''10 minutes'')');
CREATE TABLE stopped (name regclass);
CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM stream_engine.pause(s.name) FROM tables.stopped s;
	RETURN NULL;
END $$;
CREATE TRIGGER a AFTER INSERT ON alarm FOR EACH ROW EXECUTE FUNCTION stop();
INSERT INTO stopped VALUES ('alarms');
INSERT INTO log SELECT 0, i, NULL, NULL, convert_to(json_build_object('t', timestamptz '2026-01-05 00:01+00' + i * interval '4 minutes')::text, 'UTF8')
	FROM generate_series(0, 4) AS i;
CALL until($$ state = 'paused' FROM stream_engine.streams WHERE name = 'alarms'::regclass $$);
UPDATE stopped SET name = 'alarm';
SELECT stream_engine.resume('alarms');
INSERT INTO log SELECT 0, i, NULL, NULL, convert_to(json_build_object('t', timestamptz '2026-01-05 00:01+00' + i * interval '4 minutes')::text, 'UTF8')
	FROM generate_series(5, 9) AS i;
CALL until($$ state <> 'running' FROM stream_engine.queries WHERE name = 'alarm'::regclass $$);
SELECT state, error FROM stream_engine.queries WHERE name = 'alarm'::regclass;
DROP TRIGGER a ON alarm;
SELECT stream_engine.resume('alarm');
CALL stream_engine.wait('alarm', '1 minute');
SELECT to_char(window_start, 'HH24:MI') AS w, n, is_final FROM alarm_live ORDER BY 1;
SELECT count(*) FROM stream_engine.verify('alarm');
SELECT stream_engine.drop_stream('alarms', cascade => true);

DROP SCHEMA tables CASCADE;
DROP SERVER tables_server;
