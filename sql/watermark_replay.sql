-- Rules: retry_dead_letters() has bad records processed once more, after the cause is
-- mended, by the readers that had set them aside; they are judged by the watermark
-- of that moment; what is still bad comes back; every record is counted once.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;

CREATE TABLE replay_log (partition int, "offset" bigint, timestamp timestamptz DEFAULT '2026-01-01', key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER replay_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'public.replay_log', partitions '2');
SELECT stream_engine.create_stream('replay_rows', 'replay_server', NULL,
	't timestamptz, k text, v int CONSTRAINT positive CHECK (v >= 0), w smallint', event_time => 't',
	watermark_delay => '10 s', idle_timeout => '1 hour', staging_retention => '0');
SELECT stream_engine.create_query('replay_sums', 'SELECT k, sum(v) AS total, count(*) AS n FROM replay_rows GROUP BY tumble(t, ''1 minute''), k');
SELECT stream_engine.create_query('replay_hours', 'SELECT count(*) AS n FROM replay_rows WHERE k <> ''c'' GROUP BY tumble(t, ''1 hour'')');

INSERT INTO replay_log (partition, "offset", value) VALUES
	(0, 0, '{"t": "2026-01-01 10:00:00+00", "k": "a", "v": 1}'),
	(0, 1, '{"t": "2026-01-01 10:00:10+00", "k": "a", "v": 10, "w": 100000}'),
	(0, 2, '{"t": "2026-01-01 10:00:20+00", "k": "b", "v": -5}'),
	(0, 3, '{"t": "2026-01-01 10:00:25+00", "k": "c", "v": 7, "w": 70000}'),
	(0, 4, '{"t": "2026-01-01 10:00:30+00", "k": "a", "v": "x"}'),
	(0, 5, '{"t": "2026-01-01 10:01:30+00", "k": "a", "v": 2}'),
	(1, 0, '{"t": "2026-01-01 10:00:40+00", "k": "b", "v": 3}'),
	(1, 1, '{"t": "2026-01-01 10:02:40+00", "k": "b", "v": 8, "w": 80000}'),
	(1, 2, '{"t": "2999-01-01", "k": "b", "v": 4}');
CALL stream_engine.wait('replay_rows');

CREATE VIEW replay_counts AS
	SELECT query::text, partition, records, decoded, dead, future, max_event_time,
		records = decoded + dead + future + tombstones + skipped AS accounted
	FROM stream_engine.stat_partitions WHERE stream = 'replay_rows'::regclass ORDER BY 1, 2;
CREATE VIEW replay_queries AS
	SELECT query::text, watermark, decoded, counted, filtered, late, decoded = counted + filtered + late + before_start + failed AS accounted
	FROM stream_engine.stat_queries WHERE stream = 'replay_rows'::regclass ORDER BY 1;
CREATE VIEW replay_letters AS
	SELECT partition, "offset", reason, column_name, message FROM stream_engine.dead_letters
	WHERE stream = 'replay_rows'::regclass ORDER BY 1, 2;
SELECT * FROM replay_letters;
SELECT * FROM replay_counts;
SELECT * FROM replay_queries;

-- the cause is not mended: they come back
SELECT stream_engine.retry_dead_letters('replay_rows', $$ column_name = 'w' AND "offset" = 1 AND record LIKE '%100000%' $$);
CALL stream_engine.wait('replay_rows', '1 minute');
SELECT * FROM replay_letters WHERE partition = 0 AND "offset" = 1;
SELECT * FROM replay_counts;
SELECT * FROM stream_engine.verify('replay_sums');

-- it is mended, and the retry is in the same transaction
BEGIN;
ALTER FOREIGN TABLE replay_rows ALTER COLUMN w TYPE bigint;
SELECT stream_engine.retry_dead_letters('replay_rows', 'column_name = ''w'' -- all of them');
SELECT * FROM replay_letters;
COMMIT;
CALL stream_engine.wait('replay_rows', '1 minute');
SELECT * FROM replay_letters;
SELECT * FROM replay_counts;
SELECT * FROM replay_queries;
SELECT window_start, k, total, n FROM replay_sums_live ORDER BY 1, 2;
SELECT window_start, k, total, n FROM replay_sums ORDER BY 1, 2;
SELECT * FROM stream_engine.verify('replay_sums');

-- the window of the other one has closed: it is late
ALTER FOREIGN TABLE replay_rows DROP CONSTRAINT positive;
SELECT * FROM stream_engine.verify('replay_sums');
SELECT stream_engine.retry_dead_letters('replay_rows', $$ message LIKE '%positive%' $$);
CALL stream_engine.wait('replay_rows', '1 minute');
SELECT query::text, partition, "offset", watermark, windows FROM stream_engine.late_events
	WHERE query IN ('replay_sums'::regclass, 'replay_hours'::regclass) ORDER BY 1;
SELECT * FROM replay_counts;
SELECT * FROM replay_queries;
SELECT window_start, k, total, n FROM replay_sums_live ORDER BY 1, 2;
SELECT * FROM stream_engine.verify('replay_sums');
SELECT * FROM stream_engine.verify('replay_hours');

-- what waits for a paused stream is taken when it goes on; all that is left, and nothing twice
SELECT stream_engine.pause('replay_rows');
SELECT stream_engine.retry_dead_letters('replay_rows');
SELECT stream_engine.retry_dead_letters('replay_rows');
SELECT * FROM replay_letters;
SELECT * FROM stream_engine.verify('replay_sums');
SELECT stream_engine.resume('replay_rows');
CALL stream_engine.wait('replay_rows', '1 minute');
SELECT * FROM replay_letters;
SELECT * FROM replay_counts;

-- a reader that has not come to the letter yet decodes the record when it does
INSERT INTO replay_log (partition, "offset", value) VALUES (1, 3, '{"t": "2026-01-01 11:00:00+00", "k": "z", "w": 1e30}');
CALL stream_engine.wait('replay_rows');
SELECT stream_engine.pause('replay_hours');
INSERT INTO replay_log (partition, "offset", value) VALUES (1, 4, '{"t": "2026-01-01 11:00:00+00", "k": "z", "w": 1e30}');
CALL stream_engine.wait('replay_sums');
BEGIN;
ALTER FOREIGN TABLE replay_rows ALTER COLUMN w TYPE numeric;
SELECT stream_engine.retry_dead_letters('replay_rows', 'partition = 1');
COMMIT;
SELECT stream_engine.resume('replay_hours');
CALL stream_engine.wait('replay_rows');
SELECT * FROM replay_counts;
SELECT * FROM replay_queries;
SELECT window_start, n FROM replay_hours_live ORDER BY 1;

-- sessions: a record that joins two of them
SELECT stream_engine.create_query('replay_sessions', 'SELECT k, count(*) AS n FROM replay_rows GROUP BY session(t, gap => ''1 minute''), k');
CALL stream_engine.wait('replay_sessions');
ALTER FOREIGN TABLE replay_rows ADD CONSTRAINT not_nine CHECK (v <> 9);
INSERT INTO replay_log (partition, "offset", value) VALUES
	(0, 6, '{"t": "2026-01-01 12:00:00+00", "k": "s"}'),
	(0, 7, '{"t": "2026-01-01 12:00:45+00", "k": "s", "v": 9}'),
	(0, 8, '{"t": "2026-01-01 12:01:30+00", "k": "s"}');
CALL stream_engine.wait('replay_sessions');
SELECT window_start, window_end, n FROM replay_sessions_live WHERE k = 's' ORDER BY 1;
ALTER FOREIGN TABLE replay_rows DROP CONSTRAINT not_nine;
SELECT stream_engine.retry_dead_letters('replay_rows', '"offset" = 7');
CALL stream_engine.wait('replay_rows', '1 minute');
SELECT window_start, window_end, n FROM replay_sessions_live WHERE k = 's' ORDER BY 1;
SELECT * FROM replay_letters;

-- the condition is the caller's: one expression, with the caller's rights
SELECT stream_engine.retry_dead_letters('replay_rows', 'false');
SELECT stream_engine.retry_dead_letters('replay_rows', 'nonsense > 1');
SELECT stream_engine.retry_dead_letters('replay_rows', 'true); DELETE FROM replay_log; SELECT (true');
SELECT stream_engine.retry_dead_letters('replay_rows', '1');
SELECT stream_engine.retry_dead_letters(NULL);
SELECT stream_engine.retry_dead_letters('replay_log');
CREATE ROLE replay_other;
SET ROLE replay_other;
SELECT stream_engine.retry_dead_letters('replay_rows');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER replay_server TO replay_other;
ALTER FOREIGN TABLE replay_rows OWNER TO replay_other;
SET ROLE replay_other;
SELECT stream_engine.retry_dead_letters('replay_rows', 'EXISTS (SELECT FROM stream_engine.stream)');
RESET ROLE;
ALTER FOREIGN TABLE replay_rows OWNER TO CURRENT_USER;
REVOKE USAGE ON FOREIGN SERVER replay_server FROM replay_other;
DROP ROLE replay_other;

DROP VIEW replay_counts, replay_queries, replay_letters;
SELECT stream_engine.drop_stream('replay_rows', true);
SELECT count(*) FROM stream_engine.dead_letter_reader;
DROP SERVER replay_server;
DROP TABLE replay_log;
