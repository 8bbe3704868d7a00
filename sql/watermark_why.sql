-- Rule: why() says what a query waits for, who holds the watermark and what to do.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;

\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until

CREATE TABLE why_log (partition int, "offset" bigint, timestamp timestamptz DEFAULT now(), key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE FUNCTION why_put(p int, record text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO why_log (partition, "offset", value)
		SELECT p, (SELECT count(*) FROM why_log WHERE partition = p), record::bytea
$$;
CREATE SERVER why_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.why_log', partitions '2');
SELECT stream_engine.create_stream('why_rows', 'why_server', NULL, 't timestamptz, v int', event_time => 't',
	watermark_delay => '10 s', idle_timeout => '1 hour', staging_retention => '0');
SELECT stream_engine.create_query('why_counts', 'SELECT count(*) AS n FROM why_rows WHERE v > 0 GROUP BY tumble(t, ''1 minute'')');
-- a worker runs
CALL until('EXISTS (SELECT FROM stream_engine.stat_workers w WHERE w.pid IS NOT NULL AND w.reader = (SELECT stream_engine.query_reader(''why_counts'')))');
\pset format unaligned
\x on

-- nothing in the topic
SELECT * FROM stream_engine.why('why_counts');

-- nothing that can be used
SELECT why_put(0, '{"t": "yesterday"}');
SELECT why_put(0, '{"t": "2999-01-01"}');
CALL stream_engine.wait('why_counts');
SELECT * FROM stream_engine.why('why_counts');

-- nothing passes WHERE, and a partition is empty
SELECT why_put(0, '{"t": "2026-01-01 10:00:30+00", "v": 0}');
CALL stream_engine.wait('why_counts');
SELECT finding, detail FROM stream_engine.why('why_counts') WHERE finding !~ 'could not be used';
SELECT why_put(0, '{"t": "2026-01-01 10:00:31+00", "v": 1}');
CALL stream_engine.wait('why_counts');
SELECT * FROM stream_engine.why('why_counts') WHERE finding !~ 'could not be used';

-- one partition is slower
SELECT why_put(1, '{"t": "2026-01-01 10:00:45+00", "v": 1}');
SELECT why_put(0, '{"t": "2026-01-01 11:00:00+00", "v": 1}');
CALL stream_engine.wait('why_counts');
SELECT * FROM stream_engine.why('why_counts') WHERE finding !~ 'could not be used';

-- one is behind the watermark itself
SELECT stream_engine.advance_watermark('why_rows', '2026-01-01 10:00:50+00');
CALL until('(SELECT watermark = ''2026-01-01 10:00:50+00'' FROM stream_engine.stat_queries WHERE query = ''why_counts''::regclass)');
SELECT * FROM stream_engine.why('why_counts') WHERE finding !~ 'could not be used';

-- late records
SELECT why_put(1, '{"t": "2026-01-01 11:01:00+00", "v": 1}');
CALL stream_engine.wait('why_counts');
SELECT why_put(1, '{"t": "2026-01-01 10:00:00+00", "v": 1}');
CALL stream_engine.wait('why_counts');
SELECT * FROM stream_engine.why('why_counts') WHERE finding ~ 'late';

-- all are idle
ALTER FOREIGN TABLE why_rows OPTIONS (SET idle_timeout '100 ms');
CALL until('(SELECT bool_and(idle) FROM stream_engine.stat_partitions WHERE query = ''why_counts''::regclass)');
SELECT * FROM stream_engine.why('why_counts') WHERE finding ~ 'idle';
ALTER FOREIGN TABLE why_rows OPTIONS (ADD idle_close '1 hour');
CALL until('EXISTS (SELECT FROM stream_engine.stat_workers WHERE kind = ''reader'' AND phase = ''waiting'')');
SELECT * FROM stream_engine.why('why_counts') WHERE finding ~ 'idle';

-- it does not run
SELECT stream_engine.pause('why_counts');
SELECT * FROM stream_engine.why('why_counts') WHERE finding ~ 'state';
SELECT stream_engine.resume('why_counts');
SELECT stream_engine.pause('why_rows');
SELECT * FROM stream_engine.why('why_counts') WHERE finding ~ 'state';
SELECT stream_engine.resume('why_rows');

-- a query that fails
SELECT stream_engine.create_query('why_fails', 'SELECT sum(1 / (v - 1)) AS s FROM why_rows GROUP BY tumble(t, ''1 minute'')');
CALL until('(SELECT state = ''error'' FROM stream_engine.queries WHERE name = ''why_fails''::regclass)');
SELECT * FROM stream_engine.why('why_fails') WHERE finding ~ 'state';

-- a query that began later: windows before that are incomplete
SELECT stream_engine.create_query('why_later', 'SELECT count(*) AS n FROM why_rows GROUP BY tumble(t, ''1 minute'')', start => 'latest');
SELECT why_put(0, '{"t": "2026-01-01 12:00:01+00", "v": 2}');
CALL stream_engine.wait('why_later');
SELECT finding, hint FROM stream_engine.why('why_later') WHERE finding ~ 'window';

-- nothing is held up
SELECT stream_engine.create_stream('why_again', 'why_server', NULL, 't timestamptz NOT NULL, v int DEFAULT 0', event_time => '_timestamp',
	watermark_delay => '0', idle_timeout => '100 ms', idle_close => '100 ms', staging_retention => '0', max_future => '1 hour');
UPDATE why_log SET timestamp = '2026-01-01', value = '{"t": "2026-01-01"}';
SELECT stream_engine.create_query('why_done', 'SELECT count(*) AS n FROM why_again GROUP BY tumble(_timestamp, ''1 minute'')');
CALL until('(SELECT count(*) = 1 FROM why_done)');
SELECT finding, regexp_replace(detail, 'at .*, and', 'at (time), and') AS detail, hint FROM stream_engine.why('why_done');

-- the clock
SELECT stream_engine.create_stream('why_clock', 'why_server', NULL, 'v int', event_time => 'processing_time', staging_retention => '0');
SELECT stream_engine.create_query('why_ages', 'SELECT count(*) AS n FROM why_clock GROUP BY tumble(_processing_time, ''36500 days'', origin => ''2000-01-01+00'')', emit_partial => true);
CALL stream_engine.wait('why_ages');
SELECT * FROM stream_engine.why('why_ages');

-- not a query
\set SHOW_CONTEXT never
SELECT * FROM stream_engine.why('why_rows');
\x off
\pset format aligned

SELECT stream_engine.drop_stream('why_rows', true);
SELECT stream_engine.drop_stream('why_again', true);
SELECT stream_engine.drop_stream('why_clock', true);
DROP SERVER why_server;
DROP TABLE why_log;
DROP FUNCTION why_put;
DROP PROCEDURE until;
