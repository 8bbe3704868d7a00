-- Rule: SELECT on a stream is a bounded read, narrowed by conditions on the metadata
-- columns, without the records that are bad or tombstones.
SET timezone = 'UTC';
SET datestyle = 'ISO';

CREATE TABLE fdw_log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	headers jsonb, topic text, PRIMARY KEY (partition, "offset"));
INSERT INTO fdw_log
	SELECT i % 3, 10 + i / 3, timestamptz '2026-01-01 00:00+00' + i * interval '1 minute', ('k' || i)::bytea,
		CASE WHEN i = 100 THEN '{"id": "x"}'
			WHEN i = 101 THEN '{"id": 101, "amount": -1}'
			WHEN i = 102 THEN '{"id": '
			WHEN i % 50 = 3 THEN NULL
			ELSE format('{"id": %s, "amount": %s.50, "who": {"name": "n%s"}}', i, i % 7, i % 4) END::bytea,
		jsonb_build_object('n', i::text), 'a'
	FROM generate_series(0, 299) i;
INSERT INTO fdw_log VALUES (0, 500, now(), NULL, '{"id": 1000}', NULL, 'b');

CREATE SERVER fdw_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.fdw_log');
CREATE FOREIGN TABLE fdw_orders (
	id bigint NOT NULL,
	amount numeric CHECK (amount >= 0),
	who text OPTIONS (path '$.who.name'),
	note text DEFAULT 'none',
	_partition int, _offset bigint, _timestamp timestamptz, _key bytea, _headers jsonb, _topic text
) SERVER fdw_server OPTIONS (topic 'a');

-- everything but three bad records and six tombstones; of topic a only
SELECT count(*), min(id), max(id), sum(amount) FROM fdw_orders;
SELECT * FROM fdw_orders ORDER BY id LIMIT 2;
SELECT _partition, min(_offset), max(_offset), count(*) FROM fdw_orders GROUP BY 1 ORDER BY 1;

-- every declared column is judged, whichever is wanted
SELECT count(*) FROM fdw_orders WHERE _partition = 2 AND _offset = 43;

-- LIMIT stops early: the bad records are not reached
SELECT id FROM fdw_orders WHERE _partition = 1 LIMIT 2;

-- conditions narrow what is read
EXPLAIN (COSTS OFF) SELECT id FROM fdw_orders;
EXPLAIN (COSTS OFF)
	SELECT id FROM fdw_orders WHERE _partition IN (0, 2) AND _offset >= 100 AND _timestamp > '2026-01-01 04:00+00';
CREATE FUNCTION fdw_explain(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) ' || query LOOP
		CONTINUE WHEN line !~ 'Partitions|Records';
		RETURN NEXT trim(line);
	END LOOP;
END $$;
SELECT fdw_explain('SELECT FROM fdw_orders WHERE _partition = 1 AND _offset BETWEEN 20 AND 24');
SELECT fdw_explain('SELECT FROM fdw_orders WHERE 1::smallint >= _partition AND 20::numeric > _offset');
SELECT fdw_explain('SELECT FROM fdw_orders WHERE _partition = ANY (ARRAY[0, 2, 9, NULL]) AND _offset IN (30, 32)');
SELECT fdw_explain('SELECT FROM fdw_orders WHERE _offset > 105 AND _offset <= 9223372036854775807');
SELECT fdw_explain('SELECT FROM fdw_orders WHERE _offset > 9223372036854775807');
SELECT fdw_explain('SELECT FROM fdw_orders WHERE _offset < -9223372036854775808');
SELECT fdw_explain('SELECT FROM fdw_orders WHERE _partition = 7');
SELECT fdw_explain('SELECT FROM fdw_orders WHERE _timestamp >= ''2026-01-01 04:50+00'' AND _partition <> 1');
SELECT fdw_explain('SELECT FROM fdw_orders WHERE _offset > (SELECT 107) AND _partition = 0');
SELECT fdw_explain('SELECT FROM fdw_orders WHERE _offset > (SELECT NULL::bigint)');
SELECT fdw_explain('SELECT FROM fdw_orders WHERE _partition = 0 OR _offset = 20');
-- narrowed or not, the rows are the same
SELECT count(*) FROM fdw_orders WHERE _timestamp >= '2026-01-01 04:00+00' AND _partition + 0 = 1;
SELECT count(*) FROM fdw_orders WHERE _timestamp + '0' >= '2026-01-01 04:00+00' AND _partition = 1;
PREPARE fdw_prepared(int, bigint) AS SELECT count(*), min(id) FROM fdw_orders WHERE _partition = $1 AND _offset < $2;
SET plan_cache_mode = force_generic_plan;
EXECUTE fdw_prepared(0, 20);
EXECUTE fdw_prepared(1, 12);
EXECUTE fdw_prepared(NULL, 12);
RESET plan_cache_mode;

-- a field of the records with a metadata column's name is none
CREATE FOREIGN TABLE fdw_field (_offset bigint OPTIONS (path '$.id')) SERVER fdw_server OPTIONS (topic 'a');
SELECT count(*) FROM fdw_field WHERE _offset < 5;
DROP FOREIGN TABLE fdw_field;

-- a scan is repeated with other values, and joined with itself
SELECT p, (SELECT count(*) FROM fdw_orders WHERE _partition = p AND _offset < 10 + p) FROM generate_series(0, 3) p;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_material = off;
SELECT count(*) FROM generate_series(1, 3) g JOIN fdw_orders o ON o.id = g;
RESET enable_hashjoin;
RESET enable_mergejoin;
RESET enable_material;
SELECT count(*) FROM fdw_orders a JOIN fdw_orders b USING (id) WHERE a._partition = 0 AND b._partition < 1;

-- cursors: forward, and again from the start
BEGIN;
DECLARE fdw_cursor SCROLL CURSOR FOR SELECT id FROM fdw_orders WHERE _partition = 0;
FETCH 2 FROM fdw_cursor;
MOVE ABSOLUTE 0 FROM fdw_cursor;
FETCH 1 FROM fdw_cursor;
ROLLBACK;

-- rows are of this statement's snapshot, and what is written is refused
INSERT INTO fdw_orders (id) VALUES (1);
DELETE FROM fdw_orders;
ANALYZE fdw_orders;
SELECT tableoid::regclass, fdw_orders FROM fdw_orders WHERE _partition = 0 AND _offset = 10;

-- DEFAULT and CHECK run as the owner of the stream, and cannot become another
CREATE ROLE regress_fdw_owner;
CREATE ROLE regress_fdw_reader;
CREATE FUNCTION fdw_who() RETURNS text LANGUAGE sql AS 'SELECT current_user::text';
CREATE FUNCTION fdw_become() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	SET ROLE postgres;
	RETURN current_user;
END $$;
GRANT USAGE ON FOREIGN SERVER fdw_server TO regress_fdw_owner;
GRANT CREATE ON SCHEMA public TO regress_fdw_owner;
GRANT SELECT ON fdw_log TO regress_fdw_reader;
SET ROLE regress_fdw_owner;
CREATE FOREIGN TABLE fdw_owned (id int, w text DEFAULT public.fdw_who(), _offset bigint) SERVER fdw_server;
GRANT SELECT ON fdw_owned TO regress_fdw_reader;
-- the records are read with the rights of who asks: the owner may not read the table
SELECT * FROM fdw_owned WHERE _offset < 11;
SET ROLE regress_fdw_reader;
SELECT id, w, current_user FROM fdw_owned WHERE _offset < 11;
RESET ROLE;
ALTER FOREIGN TABLE fdw_owned ALTER w SET DEFAULT public.fdw_become();
SELECT * FROM fdw_owned WHERE _offset < 11;
SELECT current_user;
DROP FOREIGN TABLE fdw_owned;

-- columns come and go
ALTER FOREIGN TABLE fdw_orders DROP COLUMN who, ADD COLUMN user_name text OPTIONS (path '$.who.name');
SELECT id, user_name, note FROM fdw_orders WHERE _offset = 12 ORDER BY id;
SELECT o FROM fdw_orders o WHERE _offset = 12 AND _partition = 0;
-- an event time must be a column; NULL makes the record bad
ALTER FOREIGN TABLE fdw_orders OPTIONS (ADD event_time 'nothing');
SELECT count(*) FROM fdw_orders;
ALTER FOREIGN TABLE fdw_orders OPTIONS (SET event_time '_timestamp');
SELECT count(*) FROM fdw_orders WHERE _offset < 12;
UPDATE fdw_log SET timestamp = NULL WHERE partition = 1 AND "offset" = 11;
SELECT count(*) FROM fdw_orders WHERE _offset < 12;
-- an empty topic, a table without rows
ALTER FOREIGN TABLE fdw_orders OPTIONS (SET topic 'empty');
SELECT count(*) FROM fdw_orders;

DROP FUNCTION fdw_explain, fdw_who, fdw_become;
DROP SERVER fdw_server CASCADE;
DROP TABLE fdw_log;
REVOKE CREATE ON SCHEMA public FROM regress_fdw_owner;
DROP ROLE regress_fdw_owner, regress_fdw_reader;
