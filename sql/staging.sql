-- Rule: the staged rows of a stream are those that a scan of the stream returns, value
-- for value, for every type and however its values are stored.
SET timezone = 'UTC';

CREATE TABLE staging_log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	headers jsonb, topic text, PRIMARY KEY (partition, "offset"));
CREATE SERVER staging_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.staging_log');
CREATE DOMAIN staging_positive AS numeric CHECK (VALUE > 0);
CREATE TYPE staging_pair AS (a int, b text);
CREATE FUNCTION staging_array() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE a text[] := '{}'; BEGIN a := a || repeat('y', 300); a[3] := 'z'; RETURN a; END $$;
CREATE FOREIGN TABLE staging_stream (id bigint, b boolean, i2 smallint, i4 int, f4 real, f8 float8, n numeric, n82 numeric(8,2),
	t text, vc varchar(5), bc char(7), d date, ts timestamp, t1 time, tz timetz, u uuid, j json, jb jsonb, iv interval, by bytea,
	ip inet, nm name, "char" "char", ai int[], at text[], dom staging_positive, pair staging_pair, range int4range,
	lazy text[] DEFAULT staging_array(), at_time timestamptz, _partition int, _offset bigint, _key bytea, _headers jsonb, _topic text)
	SERVER staging_server OPTIONS (event_time 'at_time', staging_retention '10 min');

-- nothing but NULLs, nothing that is NULL, extremes, values of all lengths around those of
-- the length words, values that are compressed and moved out of line
INSERT INTO staging_log SELECT n % 3, n, now(), ('k' || n)::bytea, convert_to(jsonb_build_object('at_time', to_char(timestamptz '2026-01-01 00:00+00' + n * interval '1 second', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))::text, 'UTF8'),
	NULL, 't' FROM generate_series(1, 3) n;
INSERT INTO staging_log SELECT n % 3, n, now(), ('k' || n)::bytea, convert_to((jsonb_build_object('id', n, 'b', n % 2 = 0, 'i2', n - 200, 'i4', n * -1000003, 'f4', n / 7.0, 'f8', -n / 3.0,
		'n', (CASE WHEN n < 150 THEN '-' ELSE '' END || CASE WHEN n % 5 = 0 THEN repeat('7', n % 60 + 1) ELSE '' END || abs(n - 150) || '.' || repeat('0', n % 20) || n)::numeric,
		'n82', n * 1.25 - 100, 't', repeat('x', n), 'vc', left('abcde', n % 6), 'bc', left('1234567', n % 8), 'd', date '2026-01-01' + n,
		'ts', timestamp '2026-01-01' + n * interval '1.5 s', 't1', '12:30:00.5', 'tz', '12:30:00+05:30', 'u', md5(n::text)::uuid)
		|| jsonb_build_object('j', jsonb_build_object('k', repeat('j', n)), 'jb', jsonb_build_array(n, NULL, 'x'), 'iv', n || ' days', 'by', '\x' || repeat('0a', n),
		'ip', '10.0.0.' || n % 256, 'nm', 'name' || n, 'char', 'c', 'ai', CASE WHEN n % 3 = 0 THEN '[]' ELSE jsonb_build_array(n, NULL, 3) END, 'at', jsonb_build_array('', repeat('a', n)), 'dom', n,
		'pair', '(' || n || ',x)', 'range', '[1,' || n + 2 || ')', 'at_time', to_char(timestamptz '2026-01-01 00:00+00' + n * interval '1 second', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')))::text, 'UTF8'),
	'{"h": "1"}', 't' FROM generate_series(4, 300) n;
INSERT INTO staging_log SELECT 0, n, now(), NULL, convert_to(jsonb_build_object('id', n, 't', repeat('long ', n * 10), 'n', '-0.000000000000000001', 'n82', 999999.99, 'lazy', NULL,
		'by', '\x' || (SELECT string_agg(md5((n * i)::text), '') FROM generate_series(1, n * 2) i), 'at', jsonb_build_array(repeat('wide', n * 100)),
		'at_time', '2026-01-01 00:10:00')::text, 'UTF8'), NULL, 't' FROM generate_series(1000, 1005) n;
INSERT INTO staging_log VALUES (1, 2000, now(), NULL, '{"id": "no number", "at_time": "2026-01-01"}', NULL, 't');

SELECT stream_engine.create_query('staging_query', 'SELECT count(*) FROM staging_stream GROUP BY tumble(at_time, ''1 day'')');
CALL stream_engine.wait('staging_stream', '60 s');
SELECT count(*), count(*) FILTER (WHERE pg_column_size(t) < length(t)) AS compressed FROM staging_stream_recent;
SET client_min_messages = error;
SELECT count(*) AS differing FROM ((SELECT s::text, to_jsonb(s)::text FROM staging_stream s EXCEPT SELECT r::text, to_jsonb(r)::text FROM staging_stream_recent r)
	UNION ALL (SELECT r::text, to_jsonb(r)::text FROM staging_stream_recent r EXCEPT SELECT s::text, to_jsonb(s)::text FROM staging_stream s)) d;
-- what the server would store of the numerics has the same bytes
SELECT count(*) AS differing FROM staging_stream_recent r WHERE numeric_send(n) <> numeric_send(n::text::numeric) OR pg_column_size(n) <> (
	SELECT pg_column_size(v) FROM (VALUES (r.n::text::numeric)) x(v)) - CASE WHEN pg_column_size(r.n) < 127 THEN 3 ELSE 0 END;

SELECT stream_engine.drop_query('staging_query', keep_results => false);
DROP SERVER staging_server CASCADE;
DROP TABLE staging_log;
DROP FUNCTION staging_array;
DROP TYPE staging_pair;
DROP DOMAIN staging_positive;
