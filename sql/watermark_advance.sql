-- Rules: advance_watermark() raises W of every reader of the stream at its next commit
-- and closes windows while nothing arrives; it never lowers W; rows before it are late.
-- It takes finite times up to now + max_future, from the stream's owner.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;

\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until

CREATE TABLE advance_log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER advance_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'public.advance_log', partitions '2');
SELECT stream_engine.create_stream('advance_rows', 'advance_server', NULL,
	$$ t timestamptz, k text, v int $$, event_time => 't', watermark_delay => '10 s', idle_timeout => '1 hour');
SELECT stream_engine.create_query('advance_sums',
	$$ SELECT k, sum(v) AS total, count(*) AS n FROM advance_rows GROUP BY tumble(t, '1 minute'), k $$);
SELECT stream_engine.create_query('advance_counts',
	$$ SELECT count(*) AS n FROM advance_rows GROUP BY tumble(t, '1 hour') $$);

CREATE VIEW advance_watermarks AS
	SELECT query::text, watermark, commits FROM stream_engine.stat_queries WHERE stream = 'advance_rows'::regclass ORDER BY 1;

INSERT INTO advance_log SELECT 0, i, now(), NULL, format('{"t": "2026-01-01 10:00:%s+00", "k": "a", "v": %s}', i * 5, i)::bytea
	FROM generate_series(0, 11) i;
CALL stream_engine.wait('advance_rows');

-- partition 1 has had no record: nothing closes
SELECT query, watermark FROM advance_watermarks;
SELECT count(*) FROM advance_sums;

-- nothing arrives any more, and the window closes all the same, not a tick early
SELECT stream_engine.advance_watermark('advance_rows', '2026-01-01 10:00:59.999999+00');
CALL until($$ (SELECT min(watermark) = '2026-01-01 10:00:59.999999+00' FROM advance_watermarks) $$);
SELECT count(*) FROM advance_sums;
SELECT stream_engine.advance_watermark('advance_rows', '2026-01-01 10:01:00+00');
CALL until($$ (SELECT min(watermark) = '2026-01-01 10:01:00+00' FROM advance_watermarks) $$);
SELECT window_start, window_end, k, total, n, is_final FROM advance_sums;
SELECT count(*) FROM advance_counts;
SELECT watermark, next_offsets, watermarks, idle FROM stream_engine.ledger l
	WHERE reader = (SELECT stream_engine.query_reader('advance_sums')) ORDER BY seq DESC LIMIT 1;
SELECT DISTINCT advance_to FROM stream_engine.reader;

-- it does not move back
SELECT stream_engine.advance_watermark('advance_rows', '2026-01-01 09:00+00');
SELECT DISTINCT advance_to FROM stream_engine.reader;

-- an earlier row is late for the window that has closed, and counts in the open one
INSERT INTO advance_log VALUES (1, 0, now(), NULL, '{"t": "2026-01-01 10:00:30+00", "k": "b", "v": 1}');
CALL stream_engine.wait('advance_rows');
SELECT query, partition, "offset", watermark, windows FROM stream_engine.late_events WHERE query = 'advance_sums'::regclass;
SELECT query, watermark FROM advance_watermarks;
SELECT query::text, decoded, counted, late FROM stream_engine.stat_queries WHERE stream = 'advance_rows'::regclass ORDER BY 1;
SELECT * FROM stream_engine.verify('advance_sums');

-- two calls before a commit: the later time counts; one that is rolled back does not
SELECT stream_engine.pause('advance_rows');
SELECT stream_engine.advance_watermark('advance_rows', '2026-01-01 10:05+00');
SELECT stream_engine.advance_watermark('advance_rows', '2026-01-01 10:03+00');
BEGIN;
SELECT stream_engine.advance_watermark('advance_rows', '2026-01-01 12:00+00');
ROLLBACK;
SELECT stream_engine.resume('advance_rows');
CALL until($$ (SELECT min(watermark) >= '2026-01-01 10:03+00' FROM advance_watermarks) $$);
SELECT query, watermark FROM advance_watermarks;

-- refused
SELECT stream_engine.advance_watermark('advance_rows', NULL);
SELECT stream_engine.advance_watermark(NULL, '2026-01-01');
SELECT stream_engine.advance_watermark('advance_rows', 'infinity');
SELECT stream_engine.advance_watermark('advance_rows', '-infinity');
SELECT stream_engine.advance_watermark('advance_sums', '2026-01-01');
SELECT stream_engine.advance_watermark('advance_log', '2026-01-01');
DO $$
BEGIN
	PERFORM stream_engine.advance_watermark('advance_rows', now() + interval '6 minutes');
EXCEPTION WHEN invalid_parameter_value THEN
	RAISE WARNING '%', regexp_replace(sqlerrm, '\d.*\d', '(time)');
END $$;
SELECT stream_engine.advance_watermark('advance_rows', now() + interval '4 minutes');
CREATE ROLE advance_other;
SET ROLE advance_other;
SELECT stream_engine.advance_watermark('advance_rows', '2026-01-01');
RESET ROLE;
DROP ROLE advance_other;

-- no time lies before the first one
CREATE TABLE advance_first (LIKE advance_log);
CREATE SERVER advance_first_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'public.advance_first', partitions '1');
SELECT stream_engine.create_stream('advance_old', 'advance_first_server', NULL,
	$$ t timestamptz $$, event_time => 't', watermark_delay => '10 s', idle_timeout => '1 hour', staging_retention => '0');
SELECT stream_engine.create_query('advance_olds',
	$$ SELECT count(*) AS n FROM advance_old GROUP BY tumble(t, '1 hour') $$);
INSERT INTO advance_first VALUES (0, 0, NULL, NULL, convert_to('{"t": "4714-11-24 00:00:00+00 BC"}', 'UTF8'));
CALL stream_engine.wait('advance_old', '1 minute');
SELECT max_event_time, watermark FROM stream_engine.stat_partitions WHERE stream = 'advance_old'::regclass;
SELECT finding FROM stream_engine.why('advance_olds');
SELECT stream_engine.drop_stream('advance_old', true);
DROP SERVER advance_first_server;
DROP TABLE advance_first;

DROP VIEW advance_watermarks;
SELECT stream_engine.drop_stream('advance_rows', true);
DROP SERVER advance_server;
DROP TABLE advance_log;
DROP PROCEDURE until;
