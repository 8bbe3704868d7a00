-- Rule: a query that fails again and again with an error that might pass does not hold up those
-- that it shares a reader with: it goes on trying by itself.  And what waits for a query goes with
-- it from one reader to the other, with all that there is of it.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA blame;
SET search_path = blame, public;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea, headers jsonb,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER blame_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'blame.log', partitions '1');
CREATE TABLE mood (code text);
INSERT INTO mood VALUES (NULL);
CREATE FUNCTION moody(k text) RETURNS text STABLE LANGUAGE plpgsql AS $$
DECLARE
	code text := (SELECT m.code FROM blame.mood m);
BEGIN
	IF k = 'poison' AND code IS NOT NULL THEN
		RAISE EXCEPTION 'in a mood' USING ERRCODE = code;
	END IF;
	RETURN k;
END $$;
SELECT stream_engine.create_stream('s', server => 'blame_server', topic => 't', event_time => 't',
	include => '{headers}', watermark_delay => '0', columns => 'k text, v int, t timestamptz');
SELECT stream_engine.create_query('good', 'SELECT k, count(*) AS n FROM s GROUP BY tumble(t, ''10 s''), k');
SELECT stream_engine.create_query('bad', 'SELECT moody(k) AS k, count(*) AS n FROM s GROUP BY tumble(t, ''10 s''), 1');
CALL stream_engine.wait('s', '1 minute');
SELECT count(DISTINCT reader) FROM stream_engine.stat_partitions WHERE stream = 's'::regclass;

-- one that is never the query's fault
UPDATE mood SET code = '08006';
INSERT INTO log VALUES (0, 0, NULL, NULL, '{"k": "poison", "v": 1, "t": "2026-01-05T00:00:01Z"}'),
	(0, 1, NULL, NULL, '{"k": "a", "v": 1, "t": "2026-01-05T00:00:11Z"}');
CALL stream_engine.wait('good', '1 minute');
SELECT window_start, k, n FROM good;
SELECT name, state FROM stream_engine.queries ORDER BY name::text;
UPDATE mood SET code = NULL;
CALL stream_engine.wait('bad', '2 minutes');
SELECT window_start, k, n FROM bad;
-- it comes back
CALL until($$ count(DISTINCT reader) = 1 FROM stream_engine.stat_partitions WHERE stream = 's'::regclass $$);
SELECT count(*) AS differences FROM stream_engine.verify('bad');

-- one that may be the server's own
UPDATE mood SET code = 'XX000';
INSERT INTO log VALUES (0, 2, NULL, NULL, '{"k": "poison", "v": 1, "t": "2026-01-05T00:00:21Z"}'),
	(0, 3, NULL, NULL, '{"k": "a", "v": 1, "t": "2026-01-05T00:00:31Z"}');
CALL stream_engine.wait('good', '1 minute');
SELECT window_start, k, n FROM good ORDER BY 1;
CALL until($$ state = 'error' FROM stream_engine.queries WHERE name = 'bad'::regclass $$);
SELECT name, state, error FROM stream_engine.queries ORDER BY name::text;
SELECT name, state FROM stream_engine.streams WHERE name = 's'::regclass;
UPDATE mood SET code = NULL;
SELECT stream_engine.resume('bad');
CALL stream_engine.wait('bad', '1 minute');
SELECT count(*) AS differences FROM stream_engine.verify('bad');
SELECT stream_engine.drop_query('bad');

-- one whose result table is locked for long
SELECT stream_engine.create_query('locked', 'SELECT k, count(*) AS n FROM s GROUP BY tumble(t, ''10 s''), k');
CALL stream_engine.wait('locked', '1 minute');
CALL until($$ count(DISTINCT reader) = 1 FROM stream_engine.stat_partitions WHERE stream = 's'::regclass $$);
BEGIN;
LOCK TABLE locked IN SHARE MODE;
PREPARE TRANSACTION 'blame';
INSERT INTO log VALUES (0, 4, NULL, NULL, '{"k": "c", "v": 1, "t": "2026-01-05T00:00:32Z"}'),
	(0, 5, NULL, NULL, '{"k": "a", "v": 1, "t": "2026-01-05T00:00:41Z"}');
CALL stream_engine.wait('good', '1 minute');
SELECT window_start, k, n FROM good WHERE window_start >= '2026-01-05 00:00:30+00' ORDER BY 1, 2;
SELECT name, state FROM stream_engine.queries ORDER BY name::text;
ROLLBACK PREPARED 'blame';
CALL stream_engine.wait('locked', '1 minute');
SELECT count(*) AS differences FROM stream_engine.verify('locked');
CALL until($$ count(DISTINCT reader) = 1 FROM stream_engine.stat_partitions WHERE stream = 's'::regclass $$);
SELECT stream_engine.drop_query('locked');

-- a bad record that waits to be tried again, when its query leaves the reader
SELECT stream_engine.create_query('headed', 'SELECT _headers ->> ''h'' AS h, count(*) AS n FROM s GROUP BY tumble(t, ''10 s''), 1');
CALL until($$ count(DISTINCT reader) = 1 FROM stream_engine.stat_partitions WHERE stream = 's'::regclass $$);
INSERT INTO log VALUES (0, 6, NULL, NULL, '{"k": "b", "v": "x", "t": "2026-01-05T00:00:45Z"}', '{"h": "kept"}');
CALL stream_engine.wait('s', '1 minute');
SELECT "offset", headers FROM stream_engine.dead_letters WHERE stream = 's'::regclass;
ALTER FOREIGN TABLE s ALTER COLUMN v TYPE text;
BEGIN;
SELECT stream_engine.retry_dead_letters('s');
SELECT stream_engine.pause('headed');
COMMIT;
SELECT stream_engine.resume('headed');
INSERT INTO log VALUES (0, 7, NULL, NULL, '{"k": "a", "v": 1, "t": "2026-01-05T00:00:51Z"}', '{"h": "last"}');
CALL stream_engine.wait('headed', '1 minute');
SELECT window_start, h, n FROM headed ORDER BY 1, 2;
SELECT count(*) AS differences FROM stream_engine.verify('headed');

SELECT stream_engine.drop_stream('s', cascade => true);
DROP SCHEMA blame CASCADE;
DROP SERVER blame_server;
