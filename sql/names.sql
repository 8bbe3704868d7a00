-- Rule: whatever the names of streams, queries and columns are, and whatever comments stand
-- between columns, a definition means what is written, and verify compares what is shown.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA "Na.mes";
SET search_path = "Na.mes", public;

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER names_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table '"Na.mes".log', partitions '1');

-- a comment ends where its line does
SELECT stream_engine.create_stream('commented', server => 'names_server', topic => 't', event_time => 't',
	include => '{}', staging_retention => '0', columns => $$ -- before
		t timestamptz -- the time
		, id bigint -- of the user
			PATH '$.user.id', /* none */ v int -- positive
			NOT NULL -- always
			CHECK (v > 0), -- and
		CONSTRAINT c -- one more
			CHECK (v < 10) -- at last $$);
SELECT attname, attfdwoptions, attnotnull FROM pg_attribute WHERE attrelid = 'commented'::regclass AND attnum > 0;
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'commented'::regclass AND contype = 'c' ORDER BY 1;
SELECT stream_engine.drop_stream('commented');

-- a temporary or system table of the same name is another one
CREATE TEMPORARY TABLE "S" (a int);
SELECT stream_engine.create_stream('"S"', server => 'names_server', topic => 't', event_time => 't',
	include => '{}', watermark_delay => '0', columns => 'k text, v int, t timestamptz');
SELECT stream_engine.create_stream('"S"', server => 'names_server', topic => 't', event_time => 't',
	columns => 't timestamptz', if_not_exists => true) = '"Na.mes"."S"'::regclass AS same;
DROP TABLE pg_temp."S";
SELECT stream_engine.create_stream('pg_class', server => 'names_server', topic => 't', event_time => 't',
	columns => 't timestamptz', staging_retention => '0');
SELECT stream_engine.drop_stream('"Na.mes".pg_class');

-- quoted, of 63 bytes; columns named as a statement's parts may be
SELECT stream_engine.create_query('"A ""long"" name, of which little is left; of sixty-three byte: 12"',
	'SELECT k AS "K.x""y", count(*) AS "N" FROM "S" GROUP BY tumble(t, ''10 s''), k');
\set VERBOSITY terse
SELECT stream_engine.create_query('"A ""long"" name, of which little is left; of sixty-three byte: 34"',
	'SELECT k AS "K.x""y", count(*) AS "N" FROM "S" GROUP BY tumble(t, ''10 s''), k');
\set VERBOSITY default
SELECT stream_engine.create_query('said', $$
	SELECT k AS batch, v AS j, sum(v) AS b, count(*) AS r, max(v) AS f, 1 AS t, 2 AS m, 3 AS s, 4 AS e, 5 AS c, 6 AS paired, 7 AS both_sides
	FROM "S" GROUP BY tumble(t, '10 s'), k, v $$);
SELECT stream_engine.create_query('told', $$
	SELECT k AS expected, v AS found, count(*) AS nexpected, sum(v) AS nfound, 1 AS problem, 2 AS stream_engine_rows, 3 AS excluded
	FROM "S" GROUP BY tumble(t, '10 s'), k, v $$, emit => 'changes', emit_interval => '0');
INSERT INTO log SELECT 0, i, NULL, NULL, convert_to(json_build_object('k', chr(97 + i % 2), 'v', 1,
		't', timestamptz '2026-01-05 00:00Z' + i * interval '3 seconds')::text, 'UTF8') FROM generate_series(0, 9) i;
CALL stream_engine.wait('"S"', '1 minute');
SELECT relname, octet_length(relname) FROM pg_class WHERE relnamespace = '"Na.mes"'::regnamespace AND relkind IN ('v', 'f', 'r')
	ORDER BY relname COLLATE "C";
SELECT name, state, error FROM stream_engine.queries ORDER BY name::text COLLATE "C";
SELECT window_start, "K.x""y", "N", is_final FROM "A ""long"" name, of which little is left; of sixty-three byt_live" ORDER BY 1, 2;
SELECT count(*) AS differences FROM stream_engine.verify('"A ""long"" name, of which little is left; of sixty-three byte: 12"');
SELECT count(*) AS differences FROM stream_engine.verify('said');
SELECT count(*) AS differences FROM stream_engine.verify('told');
UPDATE said SET b = b + 1 WHERE batch = 'a';
SELECT window_start, problem, expected ->> 'b' AS b, found ->> 'b' AS b FROM stream_engine.verify('said');
UPDATE told SET nexpected = 0 WHERE expected = 'b';
SELECT window_start, problem, expected ->> 'nexpected' AS n, found ->> 'nexpected' AS n FROM stream_engine.verify('told');
DELETE FROM told WHERE expected = 'b';
SELECT window_start, problem FROM stream_engine.verify('told');

SELECT stream_engine.drop_stream('"S"', cascade => true);

-- words of the column list as names
SELECT stream_engine.create_stream('words', server => 'names_server', topic => 'words', staging_retention => '0', event_time => 't',
	columns => $$ "_offset" bigint, p pg_catalog.path PATH '$.path', path path, k int CONSTRAINT path CHECK (k > 0), "T" int, t timestamptz $$);
SELECT attname, format_type(atttypid, atttypmod), attfdwoptions FROM pg_attribute WHERE attrelid = 'words'::regclass AND attnum > 0 ORDER BY attnum;
SELECT stream_engine.drop_stream('words');
DROP SCHEMA "Na.mes" CASCADE;
DROP SERVER names_server;
