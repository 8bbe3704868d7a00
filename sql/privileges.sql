-- Rule: what an owner may do to the relations of a query gives nobody a right, harms no server,
-- and brings no code of others into them; what is dropped leaves nothing behind, in any session.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA privileges;
SET search_path = privileges, public;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER privileges_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'privileges.log', partitions '1');
SELECT stream_engine.create_stream('s', server => 'privileges_server', topic => 't', event_time => 't',
	include => '{}', watermark_delay => '0', columns => 'k text, secret int, t timestamptz');
CREATE ROLE regress_se_reader;
CREATE SCHEMA readers AUTHORIZATION regress_se_reader;
GRANT USAGE ON SCHEMA privileges TO regress_se_reader;
GRANT SELECT (k, t) ON s TO regress_se_reader;

-- a view that asks for the rights of whoever reads it has those of the query's owner
SET ROLE regress_se_reader;
SELECT stream_engine.create_query('readers.q', 'SELECT k, sum(secret) AS n FROM s GROUP BY tumble(t, ''10 s''), k');
SELECT stream_engine.create_query('readers.q', 'SELECT k, count(*) AS n FROM s GROUP BY tumble(t, ''10 s''), k');
CREATE OR REPLACE VIEW readers.q_batch WITH (security_invoker) AS
	SELECT lower(tumble(t, '10 s')) AS window_start, upper(tumble(t, '10 s')) AS window_end, k, sum(secret) AS n
	FROM privileges.s GROUP BY tumble(t, '10 s'), k;
RESET ROLE;
INSERT INTO log SELECT 0, i, NULL, NULL, convert_to(json_build_object('k', 'a', 'secret', 4711,
		't', timestamptz '2026-01-05 00:00Z' + i * interval '3 seconds')::text, 'UTF8') FROM generate_series(0, 9) i;
CALL until($$ state = 'error' FROM stream_engine.queries WHERE name = 'readers.q'::regclass $$);
SELECT error, error_sqlstate FROM stream_engine.queries WHERE name = 'readers.q'::regclass;
SELECT count(*) FROM readers.q WHERE n >= 4711;
SELECT stream_engine.drop_query('readers.q');

-- nor do its late records tell more than the columns that he may read
SET ROLE regress_se_reader;
SELECT stream_engine.create_query('readers.q', 'SELECT k, count(*) AS n FROM s GROUP BY tumble(t, ''10 s''), k');
RESET ROLE;
INSERT INTO log VALUES (0, 10, NULL, 'key', '{"k": "late", "secret": 4711, "t": "2026-01-05T00:00:01Z"}');
CALL stream_engine.wait('readers.q', '1 minute');
SET ROLE regress_se_reader;
SELECT "offset", event_time, key, record, payload, headers FROM stream_engine.late_events;
RESET ROLE;
SELECT query, "offset", key, record FROM stream_engine.late_events WHERE query = 'readers.q'::regclass;
GRANT SELECT ON s TO regress_se_reader;
SET ROLE regress_se_reader;
SELECT "offset", event_time, key, record FROM stream_engine.late_events;
RESET ROLE;
REVOKE SELECT ON s FROM regress_se_reader;
GRANT SELECT (k, t) ON s TO regress_se_reader;
SELECT stream_engine.drop_query('readers.q');

-- what a role has put into the columns of a table runs as that role when the table becomes a stream
GRANT SELECT ON log TO regress_se_reader;
GRANT USAGE ON FOREIGN SERVER privileges_server TO regress_se_reader;
SET ROLE regress_se_reader;
CREATE FUNCTION readers.who(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	IF current_user <> 'regress_se_reader' THEN
		RAISE EXCEPTION 'as %', current_user;
	END IF;
	RETURN true;
END $$;
CREATE FOREIGN TABLE readers.own (k text CHECK (readers.who(1)), t timestamptz)
	SERVER privileges_server OPTIONS (topic 't', event_time 't', staging_retention '0');
RESET ROLE;
SELECT stream_engine.create_query('by_other', 'SELECT k, count(*) AS n FROM readers.own GROUP BY tumble(t, ''10 s''), k');
SELECT stream_engine.drop_stream('readers.own', cascade => true);

-- types of the open windows' table that are not the query's
SET ROLE regress_se_reader;
SELECT stream_engine.create_query('readers.q', 'SELECT k, count(*) AS n FROM s GROUP BY tumble(t, ''10 s''), k');
CALL stream_engine.wait('readers.q', '1 minute');
SELECT k, n, is_final FROM readers.q_open;
DROP VIEW readers.q_live;
SELECT name, live_view FROM stream_engine.queries WHERE name = 'readers.q'::regclass;
ALTER FOREIGN TABLE readers.q_open ALTER COLUMN n TYPE text;
SELECT * FROM readers.q_open;
ALTER FOREIGN TABLE readers.q_open ALTER COLUMN n TYPE bigint;
ALTER FOREIGN TABLE readers.q_open ALTER COLUMN is_final TYPE text;
SELECT * FROM readers.q_open;
ALTER FOREIGN TABLE readers.q_open DROP COLUMN is_final, ADD COLUMN more text, ALTER COLUMN window_end TYPE text;
SELECT * FROM readers.q_open;
ALTER FOREIGN TABLE readers.q_open ALTER COLUMN window_end TYPE timestamptz;
SELECT * FROM readers.q_open;
ALTER FOREIGN TABLE readers.q_open ALTER COLUMN window_start TYPE text, ALTER COLUMN n TYPE text;
ALTER FOREIGN TABLE readers.q_open DROP COLUMN window_start, DROP COLUMN n;
SELECT * FROM readers.q_open;
RESET ROLE;
SELECT stream_engine.drop_query('readers.q');

-- functions and operators of others that fit better than the server's
CREATE SCHEMA traps;
CREATE FUNCTION traps.lower(tstzrange) RETURNS timestamptz IMMUTABLE LANGUAGE plpgsql AS $$
	BEGIN RAISE EXCEPTION 'caught, as %', current_user; END $$;
CREATE FUNCTION traps.same(regclass, regclass) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN RAISE EXCEPTION 'caught, as %', current_user; END $$;
CREATE FUNCTION traps.same(numeric, integer) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN RAISE EXCEPTION 'caught, as %', current_user; END $$;
CREATE FUNCTION traps.join(text, bigint) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN RAISE EXCEPTION 'caught, as %', current_user; END $$;
CREATE OPERATOR traps.= (LEFTARG = regclass, RIGHTARG = regclass, FUNCTION = traps.same);
CREATE OPERATOR traps.= (LEFTARG = numeric, RIGHTARG = integer, FUNCTION = traps.same);
CREATE OPERATOR traps.> (LEFTARG = numeric, RIGHTARG = integer, FUNCTION = traps.same);
CREATE OPERATOR traps.>= (LEFTARG = numeric, RIGHTARG = integer, FUNCTION = traps.same);
CREATE OPERATOR traps.|| (LEFTARG = text, RIGHTARG = bigint, FUNCTION = traps.join);
SET search_path = privileges, traps, public;
SELECT stream_engine.create_query('q', 'SELECT k, count(*) AS n FROM s GROUP BY tumble(t, ''10 s''), k');
SELECT stream_engine.create_query('totals', 'SELECT k, count(*) AS n FROM s GROUP BY k', trigger_count => 1000);
CALL stream_engine.wait('q', '1 minute');
CALL stream_engine.wait('totals', '1 minute');
SELECT k, n FROM q_batch ORDER BY window_start;
SELECT count(*) AS differences FROM stream_engine.verify('q');
SELECT finding FROM stream_engine.why('q');
SELECT finding, detail FROM stream_engine.why('totals');
SET search_path = privileges, public;
DROP SCHEMA traps CASCADE;

-- a session that replays another server's changes fires no ordinary triggers
SET session_replication_role = replica;
DROP TABLE totals;
RESET session_replication_role;
SELECT count(*) FROM stream_engine.query WHERE stream = (SELECT id FROM stream_engine.stream WHERE relation = 's'::regclass);
SELECT count(*) FROM stream_engine.query_progress p WHERE NOT EXISTS (SELECT FROM stream_engine.query q WHERE q.id = p.query);
SELECT count(*) FROM pg_class WHERE relnamespace = 'privileges'::regnamespace AND relname LIKE 'totals%';
INSERT INTO log VALUES (0, 11, NULL, NULL, '{"k": "b", "secret": 1, "t": "2026-01-05T00:01:00Z"}');
CALL stream_engine.wait('q', '1 minute');
SELECT sum(n) FROM q;

-- types of the table behind a stream that are not what they were
ALTER TABLE log ALTER COLUMN key TYPE bigint USING 5;
INSERT INTO log VALUES (0, 12, NULL, 7, '{"k": "c", "secret": 1, "t": "2026-01-05T00:02:00Z"}');
CALL until($$ EXISTS (SELECT FROM stream_engine.stat_workers WHERE message LIKE '%of type bytea%') $$);
ALTER TABLE log ALTER COLUMN key TYPE bytea USING NULL;
CALL stream_engine.wait('q', '1 minute');
SELECT sum(n) FROM q;

SELECT stream_engine.drop_stream('s', cascade => true);
DROP SCHEMA readers CASCADE;
DROP SCHEMA privileges CASCADE;
DROP SERVER privileges_server;
DROP ROLE regress_se_reader;
