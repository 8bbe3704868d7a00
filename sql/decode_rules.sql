-- Rule: a good record obeys the stream's definition: DEFAULT for a missing field only,
-- NOT NULL, CHECK, domains; every declared column is judged, whichever is wanted.
SET timezone = 'UTC';
SET datestyle = 'ISO';

CREATE TABLE rules_log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	headers jsonb, topic text, PRIMARY KEY (partition, "offset"));
CREATE SERVER rules_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.rules_log');
CREATE PROCEDURE rules_add(VARIADIC records text[]) LANGUAGE sql AS $$
	TRUNCATE rules_log;
	INSERT INTO rules_log SELECT 3, n, timestamptz '2026-01-01 00:00+00', ('k' || n)::bytea, convert_to(record, 'UTF8'), '{"h": "1"}', 't'
		FROM unnest(records) WITH ORDINALITY u(record, n) $$;
\set QUIET on
\pset format unaligned
\pset null '<null>'

-- DEFAULT: constant, computed for each record, and of a domain; null is not missing
CREATE DOMAIN rules_positive AS int DEFAULT 7 CHECK (VALUE > 0);
CREATE DOMAIN rules_strict AS rules_positive NOT NULL;
CREATE SEQUENCE rules_sequence;
CREATE FOREIGN TABLE rules_default (id int, a text DEFAULT 'none', b bigint DEFAULT nextval('rules_sequence'), c rules_positive,
	d rules_strict DEFAULT 1, e numeric(6,2) DEFAULT 1.005) SERVER rules_server;
CALL rules_add('{"id": 1}', '{"id": 2, "a": null, "b": null, "c": null, "e": null}', '{"id": 3, "a": "x", "b": 50, "c": 5, "d": 2, "e": 2}', '{"id": 4}',
	'{"id": 5, "d": null}', '{"id": 6, "c": 0}', '{"id": 7, "d": -1}');
SELECT * FROM rules_default;

-- NOT NULL and CHECK, of columns and of the table; what is not wanted is judged, too
CREATE FOREIGN TABLE rules_check (id int NOT NULL, a int CHECK (10 / a > 1), b int, CONSTRAINT sum CHECK (a + b < 10)) SERVER rules_server;
CALL rules_add('{"id": 1}', '{"id": 2, "a": 1, "b": 1}', '{"a": 1}', '{"id": null}', '{"id": 5, "a": 0}', '{"id": 6, "a": 9}',
	'{"id": 7, "a": 4, "b": 6}', '{"id": 8, "b": "x"}', '{"id": 9, "b": 100}');
SELECT * FROM rules_check;
SELECT count(*) FROM rules_check;

-- comparisons with constants, which are judged in another way than other CHECKs: NULL
-- passes, the first CHECK that is violated is named, limits are exact
CREATE FOREIGN TABLE rules_compare (id int, a smallint CHECK (a > 0), b bigint CHECK (5 <= b AND b <> 7 AND b < 9000000000::numeric::bigint),
	n numeric CHECK (n >= 0.50 AND n < 1e18), d date CHECK (d >= '2026-01-01'), t timestamptz CHECK (t < '2026-06-01 00:00+00'), z numeric CHECK (z <> 0))
	SERVER rules_server;
CALL rules_add('{"id": 1}', '{"id": 2, "a": 1, "b": 5, "n": 0.5, "d": "2026-01-01", "t": "2026-05-31T23:59:59.999999Z", "z": 1}', '{"id": 3, "a": 0, "b": 7}', '{"id": 4, "b": 7}',
	'{"id": 5, "b": 4}', '{"id": 6, "b": 9000000000}', '{"id": 7, "n": 0.49999999999999999}', '{"id": 8, "n": 0.500000000000000000000001}', '{"id": 9, "n": 1000000000000000000}',
	'{"id": 10, "n": 999999999999999999.99}', '{"id": 11, "n": "NaN"}', '{"id": 12, "d": "2025-12-31"}', '{"id": 13, "t": "2026-06-01"}', '{"id": 14, "z": -0.000}', '{"id": 15, "z": 1e-30}',
	'{"id": 16, "n": "-Infinity"}', '{"id": 17, "d": "infinity"}', '{"id": 18, "a": null, "b": null, "n": null}');
SELECT id FROM rules_compare;
CREATE FOREIGN TABLE rules_compare_otherwise (id int CHECK (id + 0 = id), a smallint CHECK (a > 0), b bigint CHECK (5 <= b AND b <> 7 AND b < 9000000000::numeric::bigint),
	n numeric CHECK (n >= 0.50 AND n < 1e18), d date CHECK (d >= '2026-01-01'), t timestamptz CHECK (t < '2026-06-01 00:00+00'), z numeric CHECK (z <> 0))
	SERVER rules_server;
SELECT id FROM rules_compare_otherwise;
DROP FOREIGN TABLE rules_compare_otherwise;
DROP FOREIGN TABLE rules_compare;

-- a function of the user's that raises makes the record bad; one that is broken stops the scan
CREATE FUNCTION rules_no_twos(int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF $1 = 2 THEN
		RAISE 'no twos';
	END IF;
	RETURN true;
END $$;
CREATE FUNCTION rules_broken() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN no_such_function(); END $$;
CREATE FOREIGN TABLE rules_function (id int CHECK (rules_no_twos(id))) SERVER rules_server;
CREATE FOREIGN TABLE rules_broken (id int, a int DEFAULT rules_broken()) SERVER rules_server;
CALL rules_add('{"id": 1}', '{"id": 2}', '{"id": 3}');
SELECT * FROM rules_function;
\set VERBOSITY terse
SELECT * FROM rules_broken;
\set VERBOSITY default

-- so does one that raises a code of its own
CREATE FUNCTION rules_no_threes(int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF $1 = 3 THEN
		RAISE 'no threes' USING ERRCODE = 'U0003';
	END IF;
	RETURN true;
END $$;
CREATE FOREIGN TABLE rules_code (id int CHECK (rules_no_threes(id))) SERVER rules_server;
SELECT * FROM rules_code;

-- and the input function of a type that is not the server's own, which may raise anything
SET client_min_messages = warning;
CREATE TYPE rules_type;
CREATE FUNCTION rules_type_in(cstring, oid, int) RETURNS rules_type LANGUAGE internal STABLE STRICT AS 'range_in';
CREATE FUNCTION rules_type_out(rules_type) RETURNS cstring LANGUAGE internal STABLE STRICT AS 'range_out';
CREATE TYPE rules_type (INPUT = rules_type_in, OUTPUT = rules_type_out);
RESET client_min_messages;
\set VERBOSITY sqlstate
SELECT 'x'::rules_type;
\set VERBOSITY default
CREATE FOREIGN TABLE rules_typed (id int, a rules_type) SERVER rules_server;
CALL rules_add('{"id": 1}', '{"id": 2, "a": "x"}', '{"id": 3}');
SELECT * FROM rules_typed;

-- metadata columns; a path makes a field of such a name an ordinary one
CREATE FOREIGN TABLE rules_metadata (_partition int, _offset bigint, _timestamp timestamptz, _key text, _headers jsonb, _topic text CHECK (_topic = 't'))
	SERVER rules_server OPTIONS (topic 't');
CREATE FOREIGN TABLE rules_path (_offset int OPTIONS (path '$._offset')) SERVER rules_server;
CALL rules_add('{"_offset": -5}', '{}');
UPDATE rules_log SET key = '\xff', headers = NULL, timestamp = NULL WHERE "offset" = 2;
SELECT * FROM rules_metadata;
UPDATE rules_log SET key = NULL WHERE "offset" = 2;
SELECT * FROM rules_metadata;
SELECT * FROM rules_path;

-- dropped and added columns
CREATE FOREIGN TABLE rules_altered (a int, b int, c int) SERVER rules_server;
ALTER FOREIGN TABLE rules_altered DROP COLUMN b;
ALTER FOREIGN TABLE rules_altered ADD COLUMN d text DEFAULT 'new';
CALL rules_add('{"a": 1, "b": "x", "c": 3}', '{"a": 1, "c": 3, "d": "old"}');
SELECT * FROM rules_altered;

-- definitions that cannot be
CREATE FOREIGN TABLE rules_wrong_1 (_offset int) SERVER rules_server;
SELECT * FROM rules_wrong_1;
CREATE FOREIGN TABLE rules_wrong_2 (a int OPTIONS (path '$.a..b')) SERVER rules_server;
SELECT * FROM rules_wrong_2;
CREATE FOREIGN TABLE rules_wrong_3 (a int OPTIONS (epoch 's')) SERVER rules_server;
SELECT * FROM rules_wrong_3;
CREATE FOREIGN TABLE rules_wrong_4 (a int, b int GENERATED ALWAYS AS (a + 1) STORED) SERVER rules_server;
SELECT * FROM rules_wrong_4;

\set VERBOSITY terse
SET client_min_messages = warning;
DROP SERVER rules_server CASCADE;
DROP TABLE rules_log;
DROP DOMAIN rules_strict, rules_positive;
DROP SEQUENCE rules_sequence;
DROP TYPE rules_type CASCADE;
DROP FUNCTION rules_no_twos, rules_no_threes, rules_broken;
DROP PROCEDURE rules_add;
