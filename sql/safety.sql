-- Rule: the engine's own statements run with the server's operators, whatever the
-- caller's search_path puts before them; wrong input is an error with a reason and
-- changes nothing; a definition that does not fit the state is refused.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA safety;
SET search_path = safety, public;

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER safety_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'safety.log', partitions '1');
SELECT stream_engine.create_stream('orders', server => 'safety_server', topic => 'orders',
	columns => 'kind text, t timestamptz', event_time => 't', watermark_delay => '0', staging_retention => '0');
SELECT stream_engine.create_stream('others', server => 'safety_server', topic => 'orders',
	columns => 'a int, b int, c int, kind text, t timestamptz', event_time => 't', staging_retention => '0');

-- operators of the caller's are not used for the engine's statements
CREATE SCHEMA trap;
CREATE FUNCTION trap.same(regclass, oid) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN RAISE EXCEPTION 'caught, as %', current_user; END $$;
CREATE FUNCTION trap.same(text, text) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN RAISE EXCEPTION 'caught, as %', current_user; END $$;
CREATE OPERATOR trap.= (LEFTARG = regclass, RIGHTARG = oid, FUNCTION = trap.same);
CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.same);
SET search_path = trap, pg_catalog, safety, public;
SELECT stream_engine.pause('orders');
SELECT stream_engine.resume('orders');
SELECT stream_engine.create_query('safety.counts', $$
	SELECT kind, count(*) AS n FROM orders GROUP BY tumble(t, '10 seconds'), kind $$);
SELECT stream_engine.skip('orders', 0, 7);
CALL stream_engine.wait('counts', '1 minute');
SELECT count(*) FROM counts_live;
SET search_path = safety, public;

-- null, twice, temporary, of another kind
SELECT * FROM stream_engine.validate_query(NULL);
SELECT stream_engine.resume(NULL);
SELECT stream_engine.create_query(NULL, 'SELECT 1');
SELECT stream_engine.create_query('counts', 'SELECT kind, count(*) AS n FROM orders GROUP BY tumble(t, ''10 s''), kind');
SELECT stream_engine.create_query('pg_temp.counts', 'SELECT kind, count(*) AS n FROM orders GROUP BY tumble(t, ''10 s''), kind');
SELECT stream_engine.create_stream('pg_temp.fleeting', server => 'safety_server', topic => 'orders',
	columns => 't timestamptz', event_time => 't');
SELECT stream_engine.skip('orders', 9, 0);
SELECT stream_engine.drop_query('orders');
SELECT stream_engine.pause('log');

-- all or nothing
BEGIN;
SELECT stream_engine.create_query('gone', 'SELECT count(*) AS n FROM orders GROUP BY tumble(t, ''10 s'')');
SELECT stream_engine.drop_query('counts');
ROLLBACK;
SELECT name, state FROM stream_engine.queries WHERE stream = 'orders'::regclass;

-- a batch view that reads another stream, or cuts other windows, sets the query aside
INSERT INTO log VALUES (0, 0, now(), NULL, '{"kind": "a", "t": "2026-01-01T00:00:01Z"}');
CALL stream_engine.wait('counts', '1 minute');
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until
CREATE OR REPLACE VIEW counts_batch AS
	SELECT lower(tumble(t, '10 seconds')) AS window_start, upper(tumble(t, '10 seconds')) AS window_end,
		kind, count(*) AS n FROM others GROUP BY tumble(t, '10 seconds'), kind;
CALL until($$ state = 'error' FROM stream_engine.queries WHERE name = 'counts'::regclass $$);
SELECT state, error, hint FROM stream_engine.queries WHERE name = 'counts'::regclass;
CREATE OR REPLACE VIEW counts_batch AS
	SELECT lower(tumble(t, '20 seconds')) AS window_start, upper(tumble(t, '20 seconds')) AS window_end,
		kind, count(*) AS n FROM orders GROUP BY tumble(t, '20 seconds'), kind;
SELECT stream_engine.resume('counts');
CALL until($$ state = 'error' FROM stream_engine.queries WHERE name = 'counts'::regclass $$);
SELECT state, error, hint FROM stream_engine.queries WHERE name = 'counts'::regclass;
CREATE OR REPLACE VIEW counts_batch AS
	SELECT lower(tumble(t, '10 seconds')) AS window_start, upper(tumble(t, '10 seconds')) AS window_end,
		kind, count(*) AS n FROM orders GROUP BY tumble(t, '10 seconds'), kind;
SELECT stream_engine.resume('counts');
INSERT INTO log VALUES (0, 1, now(), NULL, '{"kind": "a", "t": "2026-01-01T00:00:11Z"}');
CALL stream_engine.wait('counts', '1 minute');
SELECT window_start, kind, n, is_final FROM counts_live ORDER BY 1;

SELECT stream_engine.drop_stream('orders', cascade => true), stream_engine.drop_stream('others');
DROP SCHEMA safety CASCADE;
DROP SCHEMA trap CASCADE;
