-- Rule: what the decoder reads by itself is what the types' input functions make of the same
-- characters, value or error; and what it finds at a path is what jsonb has there, in documents
-- that are alike for a while, that vary, or that are broken by one character.
SET timezone = 'UTC';
SET datestyle = 'ISO, MDY';
SET client_min_messages = error;
CREATE SCHEMA decode_random;
SET search_path = decode_random, public;
CREATE TABLE log (topic text, partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (topic, "offset"));
CREATE SERVER decode_randoms FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'decode_random.log', partitions '1');
CREATE FUNCTION pick(a text[]) RETURNS text LANGUAGE sql AS $$ SELECT a[1 + floor(random() * cardinality(a))::int] $$;
CREATE FUNCTION digits(n int) RETURNS text LANGUAGE sql AS
	$$ SELECT COALESCE(string_agg(floor(random() * 10)::int::text, ''), '') FROM generate_series(1, n) $$;
CREATE FUNCTION number() RETURNS text LANGUAGE sql AS $$
	SELECT pick('{"",-}') || CASE WHEN random() < 0.15 THEN '0' ELSE pick('{1,2,9}') || digits(floor(random() * 21)::int) END
		|| CASE WHEN random() < 0.5 THEN '.' || digits(1 + floor(random() * 21)::int) || pick('{"",000}') ELSE '' END
		|| CASE WHEN random() < 0.3 THEN pick('{e,E}') || pick('{"",+,-}') || digits(1 + floor(random() * 3)::int) ELSE '' END $$;
CREATE FUNCTION some_time() RETURNS text LANGUAGE sql AS $$
	SELECT pick('{2026,1999,0001,9999,2000,2024,12026,1900}') || pick('{-,-,-,-,-,/,""}') || pick('{01,02,12,13,00,2,Feb}') || pick('{-,-,-,-,-,/,""}') || pick('{01,28,29,30,31,32,5}')
		|| CASE WHEN random() < 0.9 THEN pick('{T," ",T,"  ",t}') || pick('{00,23,24,12,7}') || ':' || pick('{00,59,60,30,5}')
			|| CASE WHEN random() < 0.7 THEN ':' || pick('{00,59,60,61,30,5}') || CASE WHEN random() < 0.6 THEN pick('{.,.,","}') || digits(floor(random() * 18)::int) ELSE '' END ELSE '' END
			ELSE '' END
		|| pick('{"",Z,z," Z",+00,+05:30,-08,-0800,+15:59,+16,-00:30,+5," +01:00",UTC," Europe/Berlin"," BC","+05:30 BC",-12:59:59,+05:60}') $$;
SELECT setseed(0.5);

-- numbers as such and as strings, times as strings
CREATE TABLE type AS SELECT name, row_number() OVER () AS no FROM
	unnest('{numeric,"numeric(10,3)","numeric(18,18)","numeric(5,-2)",real,"double precision",bigint,integer,smallint,timestamptz,timestamp,timestamptz(0),timestamp(2),date}'::text[]) AS name;
CREATE TABLE sent AS SELECT name AS type, row_number() OVER () AS id, value, quoted FROM (
	SELECT name, number() AS value, false AS quoted FROM type, generate_series(1, 400) WHERE name !~ '^(time|date)'
	UNION ALL SELECT name, pick('{""," ",-}') || number() || pick('{""," ",x}'), true FROM type, generate_series(1, 200) WHERE name !~ '^(time|date)'
	UNION ALL SELECT name, some_time(), true FROM type, generate_series(1, 800) WHERE name ~ '^(time|date)') AS v;
INSERT INTO log SELECT 'type_' || no, 0, id, NULL, NULL, convert_to('{"a": ' || CASE WHEN quoted THEN to_json(value)::text ELSE value END || '}', 'UTF8') FROM sent JOIN type ON type = name;
CREATE TABLE got (id bigint, value text);
\set ECHO errors
SELECT format('CREATE FOREIGN TABLE type_%s (a %s, _offset bigint) SERVER decode_randoms OPTIONS (topic %L)', no, name, 'type_' || no) FROM type \gexec
SELECT format('INSERT INTO got SELECT _offset, a::text FROM type_%s', no) FROM type \gexec
\set ECHO all
CREATE FUNCTION input(value text, type text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	EXECUTE format('SELECT (%L::%s)::text', value, type) INTO result;
	RETURN result;
EXCEPTION WHEN data_exception THEN
	RETURN 'error';
END $$;
-- of the numbers that are spelled with an exponent or a fraction some are integers
SELECT type, count(*) > 100 AS tried, count(g.id) > 10 AS some_good, count(*) FILTER (WHERE COALESCE(g.value, 'error') <> input(s.value, type)) AS differences
FROM sent s LEFT JOIN got g USING (id) WHERE type !~ 'int' OR quoted OR s.value !~ '[.eE]' GROUP BY type ORDER BY type COLLATE "C";
SELECT type, count(*) FILTER (WHERE COALESCE(g.value, 'error') <> CASE WHEN n = trunc(n) THEN input(trunc(n)::text, type) ELSE 'error' END) AS differences
FROM sent s LEFT JOIN got g USING (id), LATERAL (SELECT s.value::numeric AS n) AS v WHERE type ~ 'int' AND NOT quoted GROUP BY type ORDER BY type COLLATE "C";

-- documents: runs of one form, others in between
CREATE FUNCTION space() RETURNS text LANGUAGE sql AS $$ SELECT CASE WHEN random() < 0.9 THEN '' ELSE pick(ARRAY[' ', E'\n', E'\t ']) END $$;
CREATE FUNCTION node(depth int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	kind float := random();
	parts text[] := '{}';
BEGIN
	IF depth <= 0 OR kind < 0.45 THEN
		RETURN pick(ARRAY['null', 'true', 'false', '7', '-1.50', '1e3', '"x"', '""', '"\u00e9\"}{,:"', '"a longer text"']);
	END IF;
	FOR i IN 1 .. floor(random() * 5)::int LOOP
		parts := parts || (space() || CASE WHEN kind < 0.8 THEN pick('{a,b,c,"\\u0061",aa,a_name_longer_than_16,""}') ELSE '' END || space());
		parts[i] := CASE WHEN kind < 0.8 THEN '"' || trim(E' \n\t' FROM parts[i]) || '"' || space() || ':' || space() ELSE space() END || node(depth - 1) || space();
	END LOOP;
	RETURN CASE WHEN kind < 0.8 THEN '{' || array_to_string(parts, ',') || '}' ELSE '[' || array_to_string(parts, ',') || ']' END;
END $$;
CREATE TABLE form AS SELECT no, '{"a": ' || node(3) || ', "b": ' || node(3) || ', "a_name_longer_than_16": ' || node(2) || '}' AS form FROM generate_series(1, 20) AS no;
CREATE TABLE document AS
	SELECT i, CASE WHEN random() < 0.7 THEN form WHEN random() < 0.5 THEN replace(form, '"x"', node(1)) ELSE '{"a": ' || node(3) || ', "": ' || node(3) || '}' END AS text
	FROM generate_series(1, 2000) AS i JOIN form ON no = 1 + i / 100 % 20;
UPDATE document SET text = overlay(text PLACING pick(ARRAY['"', ',', ':', '{', '}', '[', ']', '\', 'e', '1', ' ', '0', E'\f']) FROM 1 + floor(random() * length(text))::int FOR 1) WHERE random() < 0.1;
INSERT INTO log SELECT 'document', 0, row_number() OVER (ORDER BY i), NULL, NULL, convert_to(text, 'UTF8') FROM document;
CREATE FOREIGN TABLE document_stream (a jsonb, b json, whole jsonb OPTIONS (path '$'), ab jsonb OPTIONS (path '$.a.b'), a1 jsonb OPTIONS (path '$.a[1]'),
	long jsonb OPTIONS (path '$.a_name_longer_than_16.a'), deep jsonb OPTIONS (path '$[""].b[0].c'), _offset bigint) SERVER decode_randoms OPTIONS (topic 'document');
CREATE FOREIGN TABLE document_parts (ab jsonb OPTIONS (path '$.a.b'), bc jsonb OPTIONS (path '$.b.c'), long jsonb OPTIONS (path '$.a_name_longer_than_16'), _offset bigint)
	SERVER decode_randoms OPTIONS (topic 'document');
CREATE FUNCTION whole(text text) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN CASE jsonb_typeof(text::jsonb) WHEN 'object' THEN text::jsonb END;
EXCEPTION WHEN data_exception THEN
	RETURN NULL;
END $$;
CREATE FUNCTION at(document jsonb, VARIADIC path text[]) RETURNS jsonb LANGUAGE sql AS $$ SELECT NULLIF(document #> path, 'null') $$;
CREATE TABLE expected AS SELECT "offset" AS id, whole(convert_from(value, 'UTF8')) AS d FROM log WHERE topic = 'document';
SELECT count(*), count(*) FILTER (WHERE (s._offset IS NULL) <> (d IS NULL)) AS verdicts, count(*) FILTER (WHERE whole <> d) AS whole, count(*) FILTER (WHERE a IS DISTINCT FROM at(d, 'a')) AS a,
	count(*) FILTER (WHERE b::jsonb IS DISTINCT FROM at(d, 'b')) AS b, count(*) FILTER (WHERE ab IS DISTINCT FROM CASE jsonb_typeof(d -> 'a') WHEN 'object' THEN at(d, 'a', 'b') END) AS ab,
	count(*) FILTER (WHERE a1 IS DISTINCT FROM NULLIF(d -> 'a' -> 1, 'null')) AS a1, count(*) FILTER (WHERE long IS DISTINCT FROM NULLIF(d -> 'a_name_longer_than_16' -> 'a', 'null')) AS long,
	count(*) FILTER (WHERE deep IS DISTINCT FROM NULLIF(d -> '' -> 'b' -> 0 -> 'c', 'null')) AS deep
FROM expected LEFT JOIN document_stream s ON id = _offset;
SELECT count(*), count(*) FILTER (WHERE (s._offset IS NULL) <> (d IS NULL)) AS verdicts, count(*) FILTER (WHERE ab IS DISTINCT FROM NULLIF(d -> 'a' -> 'b', 'null')) AS ab,
	count(*) FILTER (WHERE bc IS DISTINCT FROM NULLIF(d -> 'b' -> 'c', 'null')) AS bc, count(*) FILTER (WHERE long IS DISTINCT FROM at(d, 'a_name_longer_than_16')) AS long
FROM expected LEFT JOIN document_parts s ON id = _offset;

DROP SERVER decode_randoms CASCADE;
DROP SCHEMA decode_random CASCADE;
