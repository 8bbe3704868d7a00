-- Rule: a call with a missing, null, unknown or wrong argument raises an error that says which, and
-- changes nothing.
SET timezone = 'UTC';
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE SCHEMA wrong_calls;
SET search_path = wrong_calls, public;
CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea, PRIMARY KEY (partition, "offset"));
CREATE SERVER wrong_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'wrong_calls.log', partitions '1');
SELECT stream_engine.create_stream('s', 'wrong_server', 't', 'at timestamptz, v int', event_time => 'at', watermark_delay => '0', staging_retention => '0');
SELECT stream_engine.create_query('q', 'SELECT sum(v) AS total FROM s GROUP BY tumble(at, ''1 minute'')');

-- nothing is nothing, and no silent success
SELECT stream_engine.create_stream(NULL, 'wrong_server', 't', 'a int');
SELECT stream_engine.create_stream('w', NULL, 't', 'a int');
SELECT stream_engine.create_stream('w', 'wrong_server', 't', NULL);
SELECT stream_engine.create_query(NULL, 'SELECT 1');
SELECT stream_engine.create_query('w', NULL);
SELECT stream_engine.validate_query(NULL);
SELECT stream_engine.pause(NULL);
SELECT stream_engine.resume(NULL);
SELECT stream_engine.skip(NULL, 0, 0);
SELECT stream_engine.skip('s', NULL, 0);
SELECT stream_engine.skip('s', 0, NULL);
SELECT stream_engine.advance_watermark('s', NULL);
SELECT stream_engine.drop_query(NULL);
SELECT stream_engine.drop_query('q', NULL);
SELECT stream_engine.drop_stream(NULL);
SELECT stream_engine.drop_stream('s', NULL);
CALL stream_engine.wait(NULL);
SELECT * FROM stream_engine.verify(NULL);
SELECT * FROM stream_engine.why(NULL);
SELECT stream_engine.retry_late(NULL);
SELECT stream_engine.retry_dead_letters(NULL);

-- a stream where a query is wanted, a query where a stream is, and neither
SELECT stream_engine.skip('q', 0, 0);
SELECT stream_engine.advance_watermark('q', '2026-01-01');
SELECT stream_engine.drop_query('s');
SELECT stream_engine.drop_stream('q');
SELECT * FROM stream_engine.verify('s');
SELECT * FROM stream_engine.why('s');
SELECT stream_engine.retry_late('s');
SELECT stream_engine.retry_dead_letters('q');
SELECT stream_engine.pause('log');
SELECT stream_engine.resume('log');
SELECT stream_engine.drop_stream('log');
CALL stream_engine.wait('log');
SELECT stream_engine.pause('nothing');

-- names, and what is there already
SELECT stream_engine.create_stream('', 'wrong_server', 't', 'a int');
SELECT stream_engine.create_stream('no_database.public.w', 'wrong_server', 't', 'a int');
SELECT stream_engine.create_stream('s', 'wrong_server', 't', 'a int');
SELECT stream_engine.create_query('q', 'SELECT sum(v) AS total FROM s GROUP BY tumble(at, ''1 minute'')');
SELECT stream_engine.create_query('log', 'SELECT sum(v) AS total FROM s GROUP BY tumble(at, ''1 minute'')');
SELECT stream_engine.create_stream('w', 'no_server', 't', 'a int');

-- values
SELECT stream_engine.create_stream('w', 'wrong_server', 't', 'at timestamptz', event_time => 'at', format => 'avro');
SELECT stream_engine.create_stream('w', 'wrong_server', 't', 'at timestamptz', event_time => 'at', on_error => 'ignore');
SELECT stream_engine.create_stream('w', 'wrong_server', 't', 'at timestamptz', event_time => 'at', on_error_limit => -1);
SELECT stream_engine.create_stream('w', 'wrong_server', 't', 'at timestamptz', event_time => 'at', workers => 2);
SELECT stream_engine.create_stream('w', 'wrong_server', 't', 'at timestamptz', event_time => 'at', options => '{"linger_ms": 1}');
SELECT stream_engine.create_stream('w', 'wrong_server', 't', 'at timestamptz', event_time => 'at', options => '[]');
SELECT stream_engine.create_stream('w', 'wrong_server', 't', 'at timestamptz', event_time => 'at', start => 'someday');
SELECT stream_engine.create_stream('w', 'wrong_server', 't', 'at timestamptz', event_time => 'at', start => '{"first": 1}');
SELECT stream_engine.create_stream('w', 'wrong_server', 't', 'at timestamptz', event_time => 'at', start => '{"1": 1}');
SELECT stream_engine.create_stream('w', 'wrong_server', 't', 'at timestamptz', event_time => 'at', start => '{"0": 1}');
SELECT stream_engine.create_stream('w', 'wrong_server', 't', 'at timestamptz', event_time => 'at', start => '{"0": 0.5}');
SELECT stream_engine.create_query('w', 'SELECT sum(v) AS total FROM s GROUP BY tumble(at, ''1 minute'')', start => 'someday');
SELECT stream_engine.create_stream('w', 'wrong_server', 't', 'at timestamptz', event_time => 'at', watermark_delay => '-1 s');
SELECT stream_engine.create_stream('w', 'wrong_server', 't', 'at timestamptz', event_time => 'at', watermark_delay => '1 month');
SELECT stream_engine.create_stream('w', 'wrong_server', 't', 'at timestamptz', event_time => 'nothing');
SELECT stream_engine.create_stream('w', 'wrong_server', 't', 'at timestamp', event_time => 'at');
SELECT stream_engine.create_stream('w', 'wrong_server', 't', 'at bigint', event_time => 'at');
SELECT stream_engine.resume('q', start => 'latest');
SELECT stream_engine.skip('s', 0, -1);
SELECT stream_engine.drop_stream('s');
INSERT INTO s VALUES (now(), 1);
ALTER FOREIGN TABLE s OPTIONS (SET watermark_delay 'soon');
ALTER FOREIGN TABLE s OPTIONS (ADD nothing 'x');
ALTER FOREIGN TABLE s OPTIONS (SET start '{"0": -1}');
ALTER FOREIGN TABLE s OPTIONS (SET start '{"0": "1"}');
ALTER FOREIGN TABLE s OPTIONS (SET start '{"0": [1]}');
ALTER FOREIGN TABLE s OPTIONS (SET start '{"0":');

-- all is as it was
SELECT name, state FROM stream_engine.streams;
SELECT name, state FROM stream_engine.queries;
SELECT relname FROM pg_class WHERE relnamespace = 'wrong_calls'::regnamespace AND relkind <> 'i' ORDER BY relname COLLATE "C";
SELECT stream_engine.drop_stream('s', cascade => true);
DROP SERVER wrong_server;
DROP SCHEMA wrong_calls CASCADE;
