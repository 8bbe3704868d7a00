-- Rule: a function that is replaced, or a domain that is altered, holds for the records that come
-- from then on, also where it had been inlined; of a definition that does not hold any more
-- why() tells, and what has such a one can be paused and dropped.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA altered_objects;
SET search_path = altered_objects, public;

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER altered_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'altered_objects.log', partitions '1');
CREATE FUNCTION times(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION tell(bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'first ' || $1 $$;
CREATE FUNCTION allowed(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 < 100';
CREATE DOMAIN amount AS int;
CREATE DOMAIN price AS amount;
SELECT stream_engine.create_stream('orders', server => 'altered_server', topic => 'orders',
	columns => 'v int CHECK (allowed(v)), p price, t timestamptz', event_time => 't', watermark_delay => '0',
	staging_retention => '0');
SELECT stream_engine.create_query('sums', $$
	SELECT sum(times(v)) AS s, tell(count(*)) AS told FROM orders GROUP BY tumble(t, '10 minutes') $$);
CREATE PROCEDURE send(at text, v int, p int) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log SELECT 0, count(*), NULL, NULL, convert_to(json_build_object('v', v, 'p', p,
			't', '2026-01-05 ' || at || '+00')::text, 'UTF8') FROM log;
	COMMIT;
	CALL stream_engine.wait('altered_objects.orders', '1 minute');
END $$;

CALL send('00:01', 1, 1);
SELECT s, told FROM sums_live;
CREATE OR REPLACE FUNCTION times(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 10';
CALL send('00:02', 1, 1);
SELECT s, told FROM sums_live;
CREATE OR REPLACE FUNCTION tell(bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'second ' || $1 $$;
CALL send('00:11', 1, 1);
SELECT s, told, is_final FROM sums_live ORDER BY window_start;

-- of a CHECK, and of a domain under a column's own
CREATE OR REPLACE FUNCTION allowed(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 1';
CALL send('00:12', 1, 1);
ALTER DOMAIN amount ADD CHECK (VALUE < 1000) NOT VALID;
CALL send('00:13', 2, 1000);
SELECT "offset", sqlstate, column_name FROM stream_engine.dead_letters WHERE stream = 'orders'::regclass ORDER BY 1;

-- more slices than the workers' own setting allows
SET stream_engine.max_slices = 20000;
SELECT stream_engine.create_query('sliced', 'SELECT count(*) AS n FROM orders GROUP BY hop(t, ''12000 seconds'', ''1 second'')');
RESET stream_engine.max_slices;
CALL stream_engine.wait('sliced', '1 minute');
SELECT state FROM stream_engine.queries WHERE name = 'sliced'::regclass;
SELECT stream_engine.drop_query('sliced');

-- a view that goes with another query's
SELECT stream_engine.create_query('gone', 'SELECT count(*) AS n FROM orders GROUP BY tumble(t, ''1 hour'')');
DROP VIEW gone_batch, sums_live;
SELECT result, live_view FROM stream_engine.query WHERE stream = (SELECT id FROM stream_engine.stream WHERE relation = 'orders'::regclass);

-- the event time has another name
ALTER FOREIGN TABLE orders RENAME COLUMN t TO at;
SELECT finding, detail FROM stream_engine.why('sums') WHERE finding ~ 'open windows';
SELECT stream_engine.pause('sums');
SELECT stream_engine.pause('orders');
SELECT stream_engine.drop_query('sums');
ALTER FOREIGN TABLE orders DROP COLUMN at;
SELECT stream_engine.drop_stream('orders');

DROP SCHEMA altered_objects CASCADE;
DROP SERVER altered_server;
