-- Rule: JSON fields become values of the declared types, by the value's digits or text;
-- a record that does not fit any declared column is bad, and is left out of a SELECT.
SET timezone = 'America/New_York';
SET datestyle = 'ISO, MDY';

CREATE TABLE decode_log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	headers jsonb, topic text, PRIMARY KEY (topic, "offset"));
CREATE SERVER decode_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.decode_log');
CREATE PROCEDURE decode_add(topic text, VARIADIC records text[]) LANGUAGE sql AS $$
	INSERT INTO decode_log
		SELECT 0, n - 1, timestamptz '2026-01-01 00:00+00', ('k' || n)::bytea, convert_to(record, 'UTF8'), NULL, topic
		FROM unnest(records) WITH ORDINALITY u(record, n) $$;
CREATE PROCEDURE decode_create(topic text, columns text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE FOREIGN TABLE %I (%s, _offset bigint) SERVER decode_server OPTIONS (topic %L)',
		'decode_' || topic, columns, topic);
END $$;
-- the records of a topic that are bad
CREATE FUNCTION decode_bad(topic text) RETURNS SETOF text LANGUAGE plpgsql SET client_min_messages = error AS $$
BEGIN
	RETURN QUERY EXECUTE format(
		'SELECT convert_from(value, ''UTF8'') FROM decode_log WHERE topic = %L
			AND "offset" NOT IN (SELECT _offset FROM %I) ORDER BY "offset"', topic, 'decode_' || topic);
END $$;
\set QUIET on
\pset format unaligned
\pset null '<null>'

-- integers by value, without a fraction, within the type's range
CALL decode_create('integers', 'a smallint, b integer, c bigint');
CALL decode_add('integers',
	'{"a": 1, "b": 2, "c": 3}',
	'{"a": -32768, "b": -2147483648, "c": -9223372036854775808}',
	'{"a": 1e3, "b": 15.0, "c": 9.223372036854775807e18}',
	'{"a": "7", "b": " 8 ", "c": "-9"}',
	'{"a": null, "b": -0}',
	'{"a": 32768}', '{"b": 2147483648}', '{"c": 9223372036854775808}', '{"c": 1e400}',
	'{"a": 1.5}', '{"c": 9007199254740992.5}', '{"a": "1e3"}', '{"a": ""}', '{"a": "x"}', '{"a": true}', '{"a": {}}', '{"a": [1]}');
SELECT * FROM decode_integers;
SELECT decode_bad('integers');

-- numbers from their digits: no digit is lost, and rounding is numeric's
CALL decode_create('numbers', $$ a numeric, b numeric(6,2) OPTIONS (path '$.a'), c float8, d float4, e text $$);
CALL decode_add('numbers',
	'{"a": 12.345, "c": 0.1, "d": 0.1, "e": 12.3450}',
	'{"a": -12.345, "c": 1e308, "d": -1e38, "e": -1.50E+2}',
	'{"a": 1.50e1, "c": "NaN", "d": "-Infinity"}',
	'{"a": 0.00, "c": -0.0}',
	'{"a": 9999.994999999999999999999999999999}',
	'{"a": "1e3"}',
	'{"c": 123456789012345678901234567890}',
	'{"a": 9999.995}', '{"a": "x"}', '{"a": false}', '{"c": 1e309}', '{"c": 1e-400}', '{"d": 1e39}');
SELECT * FROM decode_numbers;
SELECT decode_bad('numbers');

-- boolean
CALL decode_create('booleans', 'a boolean');
CALL decode_add('booleans', '{"a": true}', '{"a": false}', '{"a": "t"}', '{"a": "1"}', '{"a": "no"}', '{"a": 0}', '{"a": "\u006fn"}',
	'{"a": 2}', '{"a": "maybe"}', '{"a": []}');
SELECT * FROM decode_booleans;
SELECT decode_bad('booleans');

-- text: strings, the digits of numbers, the JSON text of the rest; lengths as the types have it
CALL decode_create('texts', 'a text, b varchar(3), c char(3)');
CALL decode_add('texts',
	'{"a": "\"\\\/\u00e9\ud83d\ude00", "b": "abc", "c": "a"}',
	'{"a": 1.50, "b": 1e2, "c": 1}', '{"a": true, "b": null, "c": ""}',
	'{"a": {"x": [1, 2]}, "b": [1], "c": {}}',
	'{"b": "ééé", "c": "ééé"}', '{"b": "abc    ", "c": "abc   "}',
	'{"b": "abcd"}', '{"b": true}', '{"c": "abcd"}', '{"a": "\u0000"}', '{"a": "\ud800"}');
SELECT a, b, c || '|' AS c, octet_length(c) AS bytes, _offset FROM decode_texts;
SELECT decode_bad('texts');

-- times: without a zone UTC, whatever the session's zone; numbers only by option epoch;
-- never words whose meaning depends on the clock
CALL decode_create('times', $$ a timestamptz, b timestamp, c date, d timestamptz(3) OPTIONS (path '$.a'),
	s timestamptz OPTIONS (epoch 's'), ms timestamptz OPTIONS (epoch 'ms'), us timestamp OPTIONS (epoch 'us') $$);
CALL decode_add('times',
	'{"a": "2026-01-01T00:00:00Z", "b": "2026-01-01T00:00:00", "c": "2026-01-01"}',
	'{"a": "2026-01-01T00:00:00.123456789+05:30", "b": "2026-01-01 00:00:00.9999999+05:30", "c": "2026-01-01T23:59:59Z"}',
	'{"a": "2026-01-01 00:00", "b": "2026-01-01", "c": "Jan 1 2026"}',
	'{"a": "2026-07-01 00:00 Europe/Berlin", "b": "infinity", "c": "-infinity"}',
	'{"a": "2026-01-01T00:00+05:30", "b": "2026-01-01T00:00-08"}', '{"a": "2026-01-01 00:00-0800", "b": "2026-01-01 00:00+0530"}',
	'{"a": "2026-01-01T24:00Z", "b": "2026-01-01T23:59:60"}',
	'{"s": 1767225600, "ms": 1767225600123, "us": 1767225600123456}',
	'{"s": 1767225600.1234565, "ms": -0.5, "us": 1.767225600123456e15}',
	'{"s": "2026-01-01", "ms": "infinity", "us": "2026-01-01"}',
	'{"a": 1767225600}', '{"b": 1767225600}', '{"c": 20260101}', '{"s": 1e15}', '{"a": "2026-02-29"}', '{"a": "x"}', '{"a": "Yesterday"}', '{"b": "now"}', '{"c": "today"}', '{"c": "tomorrow  "}', '{"c": "2026-13-01"}');
SELECT * FROM decode_times;
SELECT decode_bad('times');

-- nor such words inside arrays, ranges, rows and domains, however they are quoted
CREATE DOMAIN decode_day AS date;
CREATE TYPE decode_visit AS (day decode_day, who text);
CALL decode_create('clock', 'a timestamptz[], b tstzrange, c datemultirange, d decode_visit, e decode_day[], f decode_visit[], g text[], h daterange');
CALL decode_add('clock',
	'{"a": ["2026-01-01", "infinity"], "b": "[2026-01-01,)", "c": "{[2026-01-01,2026-01-02)}", "d": "(2026-01-01,noway)", "e": ["2026-01-01"], "f": ["(2026-01-01,x)"], "g": ["now"]}',
	'{"a": ["now"]}', '{"a": "{now}"}', '{"a": "{\"to\\\\day\"}"}', '{"b": "[,NOW]"}', '{"c": "{[yesterday,2099-01-01)}"}', '{"d": "(today,x)"}', '{"e": "{tomorrow}"}',
	'{"f": ["(now,)"]}', '{"h": "[to\"day\",2099-01-01)"}');
SELECT a, b, c, d, e, f, g FROM decode_clock;
SELECT decode_bad('clock');

-- other types through their input functions; json and jsonb as it was written
CREATE TYPE decode_mood AS ENUM ('sad', 'happy');
CALL decode_create('others', 'a uuid, b bytea, c decode_mood, d interval, e inet, f int4range, g json, h jsonb');
CALL decode_add('others',
	'{"a": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "b": "\\x0102", "c": "happy", "d": "1 day", "e": "10.0.0.0/8", "f": "[1,5)"}',
	'{"a": "{a0eebc999c0b4ef8bb6d6bb9bd380a11}", "b": "abc", "c": "\u0073ad", "d": "-1 2:03"}',
	'{"g": {"x" : 1.0, "x": "\u0000"}, "h": {"x" : 1.0, "x": 2}}', '{"g": "s", "h": "s"}', '{"g": 1e2, "h": 1e2}', '{"g": null, "h": null}',
	'{"a": "x"}', '{"b": "\\x0"}', '{"c": "angry"}', '{"d": "x"}', '{"e": 1}', '{"h": "\u0000"}');
SELECT * FROM decode_others;
SELECT decode_bad('others');

-- arrays, element by element
CALL decode_create('arrays', $$ a int[], b text[], c numeric(4,1)[], d jsonb[], e timestamptz[] OPTIONS (epoch 's') $$);
CALL decode_add('arrays',
	'{"a": [1, null, 3], "b": ["x", 1.50, true, null, {"y": "]"}], "c": [1.25, "2"], "d": [{"z": 1}, "s"], "e": [0, "2026-01-01"]}',
	'{"a": [], "b": [ ], "c": [[]]}', '{"a": [[1, 2], [3, 4]], "b": [[["x"]]]}', '{"a": "{5,6}"}',
	'{"a": [1, [2]]}', '{"a": [[1], [2, 3]]}', '{"a": [[1], 2]}', '{"a": ["x"]}', '{"a": 1}', '{"a": {}}', '{"c": [1000]}', '{"a": [[[[[[[1]]]]]]]}');
SELECT * FROM decode_arrays;
SELECT decode_bad('arrays');

-- paths, duplicates, unknown fields
CALL decode_create('paths', $$ a int OPTIONS (path '$.x.y'), b text OPTIONS (path '$.x'), c int OPTIONS (path '$.l[1].v'),
	d int OPTIONS (path '$["odd name"].z'), e jsonb OPTIONS (path '$') $$);
CALL decode_add('paths',
	'{"x": {"y": 1}, "l": [0, {"v": 2}], "odd name": {"z": 3}}',
	'{"x": {"y": 1}, "x": {"w": 2}}', '{"x": {"y": "bad"}, "x": 5}', '{"x": {"y": "bad", "y": 6}}', '{"l": {"1": {"v": "bad"}}}',
	'{"x": {"y": "bad"}}');
SELECT * FROM decode_paths;
SELECT decode_bad('paths');

-- what is no JSON object
CALL decode_create('records', 'a int');
CALL decode_add('records', '{"a": 1}', '{}', ' { } ', '', ' ', '[]', '1', '"x"', 'null', '{', '{"a": 1', '{"a": 1}}', '{"a": 1} x', '{"a" 1}',
	'{"a": 01}', '{"a": 1,}', '{"b": tru}', '{"b": "\q"}', '{"b": [1 2]}', E'{"b": "\n"}', '{''a'': 1}', '{"b": NaN}');
INSERT INTO decode_log SELECT 0, 100 + n, NULL, NULL, record, NULL, 'records'
	FROM unnest(ARRAY[NULL, '\x7b2262223a22ff227d', '\x000000000a7b7d', '\xefbbbf7b7d', '\x7b2262223a22e282ac227d']::bytea[]) WITH ORDINALITY u(record, n);
SELECT * FROM decode_records;

SET client_min_messages = warning;
DROP SERVER decode_server CASCADE;
DROP TABLE decode_log;
DROP TYPE decode_mood, decode_visit;
DROP DOMAIN decode_day;
DROP FUNCTION decode_bad;
DROP PROCEDURE decode_add, decode_create;
