-- Rules: a record whose key cannot be indexed fails, and has missed no window; an open session
-- that had been emitted before is shown as it was when the first complete window becomes a
-- later one; a record that waits to be processed again keeps its headers when its query is
-- given a reader of its own; bad records of a topic that is made anew take the place of old ones.
SET timezone = 'UTC';
SET client_min_messages = warning;
CREATE SCHEMA late_corners;
SET search_path = late_corners, public;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until
CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea, headers jsonb, PRIMARY KEY (partition, "offset"));
CREATE FUNCTION put(part int, k text, VARIADIC times int[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO late_corners.log SELECT part, i - 1 + (SELECT count(*) FROM late_corners.log WHERE partition = part), now(), NULL,
		convert_to(json_build_object('at', t, 'k', k, 'z', 'Asia/Kolkata')::text, 'UTF8')
	FROM unnest(times) WITH ORDINALITY AS u (t, i) $$;

-- the record at 15 has missed [0, 20), and [10, 30) would take it
CREATE SERVER one_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'late_corners.log', partitions '1');
SELECT stream_engine.create_stream('one', 'one_server', 't', 'at timestamptz EPOCH ''s'', k text, z text', event_time => 'at',
	watermark_delay => '0', staging_retention => '0');
SELECT stream_engine.create_query('hops', 'SELECT k, count(*) AS n FROM one GROUP BY hop(at, ''20 s'', every => ''10 s''), k');
SELECT stream_engine.create_query('zones', 'SELECT k, count(*) AS n FROM one GROUP BY hop(at, ''20 s'', every => ''10 s'', time_zone => z), k');
SELECT put(0, 'a', 5, 25, 16);
SELECT put(0, (SELECT string_agg(encode(sha256(i::text::bytea), 'base64'), '') FROM generate_series(1, 150) AS i), 15);
CALL stream_engine.wait('one', '1 minute');
SELECT query::text, counted, late, late_assignments, failed FROM stream_engine.stat_queries WHERE stream = 'one'::regclass ORDER BY 1;
SELECT query::text, "offset", windows FROM stream_engine.late_assignments WHERE query IN ('hops'::regclass, 'zones'::regclass) ORDER BY 1, 2;
SELECT extract(epoch FROM window_start) AS start, k, n, is_final FROM hops_live ORDER BY 1;
SELECT v.* FROM unnest('{hops,zones}'::regclass[]) AS q, LATERAL stream_engine.verify(q) v;
SELECT stream_engine.drop_stream('one', true);
DELETE FROM log;

-- [0, 15) is emitted, and opened again by 14; partition 1, which begins at 25, makes sessions complete from there
CREATE SERVER two_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'late_corners.log', partitions '2');
SELECT stream_engine.create_stream('two', 'two_server', 't', 'at timestamptz EPOCH ''s'', k text', event_time => 'at',
	watermark_delay => '0', idle_timeout => '20 ms', staging_retention => '0');
SELECT stream_engine.create_query('changing', 'SELECT k, count(*) AS n FROM two GROUP BY session(at, gap => ''10 s''), k', start => 'latest',
	allowed_lateness => '1 hour', emit => 'changes', emit_interval => '1 ms');
CALL until('bool_and(idle) FROM stream_engine.stat_partitions WHERE query = ''changing''::regclass');
SELECT put(0, 'a', 0, 5), put(0, 'b', 20);
CALL until('min(watermark) = to_timestamp(20) FROM stream_engine.stat_queries WHERE query = ''changing''::regclass');
SELECT put(0, 'b', 2), put(0, 'c', 12), put(0, 'a', 14, 19);
CALL until('sum(n) = 7 FROM changing');
SELECT extract(epoch FROM window_start) AS start, extract(epoch FROM window_end) AS upto, k, n, is_final FROM changing ORDER BY 1, 3;
SELECT put(1, 'z', 25);
CALL until('min(watermark) = to_timestamp(25) FROM stream_engine.stat_queries WHERE query = ''changing''::regclass');
SELECT extract(epoch FROM complete_from) AS complete_from FROM stream_engine.stat_queries WHERE query = 'changing'::regclass;
SELECT extract(epoch FROM window_start) AS start, extract(epoch FROM window_end) AS upto, k, n, is_final FROM changing ORDER BY 1, 3;
SELECT extract(epoch FROM window_start) AS start, extract(epoch FROM window_end) AS upto, k, n, is_final FROM changing_live ORDER BY 1, 3;
SELECT put(0, 'd', 130), put(1, 'z', 130);
CALL until('min(watermark) = to_timestamp(130) FROM stream_engine.stat_queries WHERE query = ''changing''::regclass');
SELECT extract(epoch FROM window_start) AS start, extract(epoch FROM window_end) AS upto, k, n FROM changing WHERE is_final ORDER BY 1, 3;
SELECT stream_engine.drop_stream('two', true);
DELETE FROM log;

-- both queries have counted it as bad in one reader, and each processes it again
SELECT stream_engine.create_stream('headed', 'one_server', 't', 'at timestamptz EPOCH ''s'', k text CONSTRAINT known CHECK (k <> ''x'')',
	event_time => 'at', watermark_delay => '0', include => '{headers}', staging_retention => '0');
SELECT stream_engine.create_query('stays', 'SELECT _headers ->> ''h'' AS h, count(*) AS n FROM headed GROUP BY tumble(at, ''10 s''), _headers ->> ''h''');
SELECT stream_engine.create_query('leaves', 'SELECT _headers ->> ''h'' AS h, count(*) AS n FROM headed GROUP BY tumble(at, ''10 s''), _headers ->> ''h''');
INSERT INTO log VALUES (0, 0, now(), NULL, '{"at": 1, "k": "a"}', '{"h": "good"}'), (0, 1, now(), NULL, '{"at": 1, "k": "x"}', '{"h": "bad"}');
CALL stream_engine.wait('headed', '1 minute');
SELECT stream_engine.pause('headed');
ALTER FOREIGN TABLE headed DROP CONSTRAINT known;
SELECT stream_engine.retry_dead_letters('headed');
SELECT stream_engine.pause('leaves');
SELECT stream_engine.resume('headed');
SELECT stream_engine.resume('leaves');
CALL until('NOT EXISTS (SELECT FROM stream_engine.replay)');
SELECT h, n FROM stays_live ORDER BY 1;
SELECT h, n FROM leaves_live ORDER BY 1;

SELECT stream_engine.drop_stream('headed', true);
DELETE FROM log;

-- a topic that is made anew has another bad record where the old one had one, and before the position
-- at which a query began that has joined the reader since
CREATE FUNCTION start_anew(VARIADIC records text[]) RETURNS void LANGUAGE sql AS $$
	DELETE FROM late_corners.log;
	INSERT INTO late_corners.log SELECT 0, i - 1, now(), NULL, convert_to(r, 'UTF8') FROM unnest(records) WITH ORDINALITY AS u (r, i) $$;
SELECT start_anew('{"at": 1}', '{"at": 1, "k": 1e400}', '{"at": 2}');
SELECT stream_engine.create_stream('anew', 'one_server', 't', 'at timestamptz EPOCH ''s'', k float8', event_time => 'at',
	watermark_delay => '0', staging_retention => '0');
SELECT stream_engine.create_query('whole', 'SELECT count(*) AS n FROM anew GROUP BY tumble(at, ''1 minute'')');
SELECT stream_engine.create_query('joined', 'SELECT count(*) AS n FROM anew GROUP BY tumble(at, ''1 minute'')', start => 'latest', emit_partial => true);
CALL stream_engine.wait('anew', '1 minute');
INSERT INTO log VALUES (0, 3, now(), NULL, '{"at": 3}');
CALL stream_engine.wait('anew', '1 minute');
CALL until('count(*) = 1 FROM stream_engine.query_origin o JOIN stream_engine.query q ON q.id = o.query WHERE q.result = ''joined''::regclass');
SELECT stream_engine.pause('anew');
SELECT start_anew('{"at": 61}', '{"at": 62, "k": "one"}', '{"at": 63}', '{"at": 64}');
SELECT stream_engine.resume('anew');
CALL until('bool_and(problem IS NOT NULL) FROM stream_engine.stat_partitions WHERE stream = ''anew''::regclass');
SELECT stream_engine.resume('anew', start => 'earliest');
CALL until('bool_and(next_offset = 4 AND problem IS NULL) FROM stream_engine.stat_partitions WHERE stream = ''anew''::regclass');
SELECT partition, "offset", record, sqlstate FROM stream_engine.dead_letters WHERE stream = 'anew'::regclass;
ALTER FOREIGN TABLE anew ALTER COLUMN k TYPE text;
SELECT stream_engine.retry_dead_letters('anew');
CALL until('NOT EXISTS (SELECT FROM stream_engine.replay)');
SELECT 'whole' AS query, extract(epoch FROM window_start) AS start, n FROM whole_live UNION ALL
	SELECT 'joined', extract(epoch FROM window_start), n FROM joined_live ORDER BY 1 DESC, 2;
SELECT query::text, start_offset, next_offset, records, gaps, decoded, dead, records + gaps = next_offset - start_offset AS balanced
	FROM stream_engine.stat_partitions WHERE stream = 'anew'::regclass AND query IS NOT NULL ORDER BY 1 DESC;
SELECT query::text, decoded = counted + filtered + late + before_start + failed AS balanced FROM stream_engine.stat_queries WHERE stream = 'anew'::regclass ORDER BY 1 DESC;

SET client_min_messages = error;
DROP SERVER one_server CASCADE;
DROP SERVER two_server CASCADE;
DROP SCHEMA late_corners CASCADE;
