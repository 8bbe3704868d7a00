-- Rules: with event_time => 'processing_time' a record's time is the moment when it is
-- read, the watermark is the clock, windows close by the clock alone, nothing is late
-- or future, and a query's first complete window begins after its creation.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;

\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until

CREATE TABLE proc_log (partition int, "offset" bigint, timestamp timestamptz DEFAULT now(), key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE FUNCTION proc_put(p int, n int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO proc_log (partition, "offset", value)
		SELECT p, (SELECT count(*) FROM proc_log WHERE partition = p) + i, format('{"v": %s}', i)::bytea
		FROM generate_series(0, n - 1) i
$$;
CREATE SERVER proc_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'public.proc_log', partitions '3');

SELECT stream_engine.create_stream('proc_rows', 'proc_server', NULL, 'v int', event_time => 'processing_time',
	max_future => '0', staging_retention => '0');
SELECT attname, atttypid::regtype FROM pg_attribute WHERE attrelid = 'proc_rows'::regclass AND attnum > 0 ORDER BY attnum;
SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'proc_rows'::regclass;

-- in a scan it is the clock of the scan
SELECT proc_put(0, 2);
SELECT count(*), bool_and(_processing_time BETWEEN statement_timestamp() AND clock_timestamp()) FROM proc_rows;

SET client_min_messages = notice;
SELECT stream_engine.create_query('proc_seconds', $$
	SELECT count(*) AS n, min(_processing_time) AS first, max(_processing_time) AS last
	FROM proc_rows GROUP BY tumble(_processing_time, '1 second') $$);
SET client_min_messages = warning;
SELECT stream_engine.create_query('proc_ages',
	$$ SELECT count(*) AS n FROM proc_rows GROUP BY tumble(_processing_time, '36500 days') $$);
SELECT stream_engine.create_query('proc_partial',
	$$ SELECT count(*) AS n FROM proc_rows GROUP BY tumble(_processing_time, '36500 days') $$, emit_partial => true);
SELECT stream_engine.create_query('proc_sessions',
	$$ SELECT count(*) AS n FROM proc_rows GROUP BY session(_processing_time, gap => '300 ms') $$);
CALL stream_engine.wait('proc_rows');

-- once the window of its creation is over every record counts, and no record is needed to close
CALL until($$ clock_timestamp() > date_trunc('second', complete_from) + interval '1 second'
	FROM stream_engine.query_progress w JOIN stream_engine.query q ON q.id = w.query WHERE q.result = 'proc_seconds'::regclass $$);
SELECT proc_put(0, 10);
CALL stream_engine.wait('proc_rows');
SELECT proc_put(1, 10);
CALL stream_engine.wait('proc_rows');
CALL until($$ (SELECT sum(n) FROM proc_seconds) = 22 - before_start
	FROM stream_engine.stat_queries WHERE query = 'proc_seconds'::regclass $$);
SELECT sum(n) >= 20 AS all_new, bool_and(first >= window_start AND last < window_end) AS inside, bool_and(emitted_at >= window_end) AS after_end
	FROM proc_seconds;
CALL until('(SELECT sum(n) >= 20 FROM proc_sessions)');
SELECT bool_and(window_end > window_start AND emitted_at >= window_end) FROM proc_sessions;
SELECT counted + before_start AS taken, late, failed, watermark <= clock_timestamp() AS w_is_past, watermark > now() - interval '1 hour' AS w_is_near
	FROM stream_engine.stat_queries WHERE query = 'proc_seconds'::regclass;

-- a window that began before the query is incomplete
SELECT decoded, counted, before_start FROM stream_engine.stat_queries WHERE query = 'proc_ages'::regclass;
SELECT n FROM proc_ages_live;
SELECT decoded, counted, before_start FROM stream_engine.stat_queries WHERE query = 'proc_partial'::regclass;
SELECT n, is_final FROM proc_partial_live;

-- what is committed stays when the reader starts again, W does not move back
SELECT watermark AS before FROM stream_engine.stat_queries WHERE query = 'proc_partial'::regclass \gset
SELECT stream_engine.pause('proc_rows');
SELECT proc_put(2, 5);
SELECT stream_engine.resume('proc_rows');
CALL stream_engine.wait('proc_rows');
SELECT n, is_final FROM proc_partial_live;
SELECT watermark > :'before' AS moved FROM stream_engine.stat_queries WHERE query = 'proc_partial'::regclass;
CALL until($$ (SELECT sum(n) FROM proc_seconds) = 27 - before_start
	FROM stream_engine.stat_queries WHERE query = 'proc_seconds'::regclass $$);
SELECT sum(late) AS late FROM stream_engine.stat_queries WHERE stream = 'proc_rows'::regclass;
SELECT bool_or(idle) AS idle, sum(future) AS future FROM stream_engine.stat_partitions WHERE stream = 'proc_rows'::regclass;

-- a clock that has been set back by an hour, which is a watermark that is an hour ahead: it stands still until the clock
-- comes there, and records belong to the windows that hold it; none is late, none is lost, also after a restart
SELECT stream_engine.pause('proc_rows');
SELECT sum(n) AS before FROM proc_seconds_live \gset
SELECT date_trunc('second', clock_timestamp()) + interval '1 hour 0.5 seconds' AS ahead \gset
UPDATE stream_engine.reader SET watermark = :'ahead' WHERE stream = (SELECT id FROM stream_engine.stream WHERE relation = 'proc_rows'::regclass);
UPDATE stream_engine.query_progress SET closed_through = :'ahead' WHERE query IN (SELECT id FROM stream_engine.query WHERE result IN ('proc_seconds'::regclass, 'proc_sessions'::regclass));
SELECT proc_put(0, 4);
SELECT stream_engine.resume('proc_rows');
CALL stream_engine.wait('proc_rows');
SELECT count(pg_terminate_backend(pid)) > 0 AS stopped FROM stream_engine.stat_workers WHERE kind = 'reader' AND database = current_database();
SELECT proc_put(1, 3);
CALL stream_engine.wait('proc_rows');
SELECT watermark = :'ahead' AS stands FROM stream_engine.stat_queries WHERE query = 'proc_seconds'::regclass;
SELECT window_start = date_trunc('second', timestamptz :'ahead') AS there, n, first = :'ahead' AND last = :'ahead' AS at_the_watermark, is_final FROM proc_seconds_live WHERE window_end > :'ahead';
SELECT window_start = :'ahead' AS there, n, is_final FROM proc_sessions_live WHERE window_end > :'ahead';
SELECT sum(n) - :before AS new_ones FROM proc_seconds_live;
SELECT sum(late) AS late, bool_and(decoded = counted + before_start) AS balanced FROM stream_engine.stat_queries WHERE stream = 'proc_rows'::regclass;

-- what needs another clock is refused
SELECT * FROM stream_engine.verify('proc_seconds');
SELECT stream_engine.advance_watermark('proc_rows', now());
CREATE FOREIGN TABLE proc_hand (t timestamptz) SERVER proc_server OPTIONS (event_time 'processing_time');
SELECT stream_engine.create_query('proc_never', 'SELECT count(*) AS n FROM proc_hand GROUP BY tumble(t, ''1 second'')');
ALTER FOREIGN TABLE proc_hand ADD COLUMN _processing_time date;
SELECT stream_engine.create_query('proc_never', 'SELECT count(*) AS n FROM proc_hand GROUP BY tumble(_processing_time, ''1 second'')');
DROP FOREIGN TABLE proc_hand;

SELECT stream_engine.drop_stream('proc_rows', true);
DROP SERVER proc_server;
DROP TABLE proc_log;
DROP FUNCTION proc_put;
DROP PROCEDURE until;
