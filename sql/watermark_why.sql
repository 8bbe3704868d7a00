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

-- more situations, each a stream and a query of its own
CREATE TABLE why_topics (topic text, partition int, "offset" bigint, timestamp timestamptz DEFAULT now(), key bytea, value bytea,
	PRIMARY KEY (topic, partition, "offset"));
-- "HH:MM:SS KEY", or JSON
CREATE FUNCTION why_send(topic text, p int, VARIADIC records text[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO why_topics (topic, partition, "offset", value)
		SELECT why_send.topic, p, i - 1 + (SELECT count(*) FROM why_topics w WHERE w.topic = why_send.topic AND partition = p),
			convert_to(CASE WHEN r ^@ '{' THEN r ELSE format('{"t": "2026-01-05 %s+00", "k": "%s"}', split_part(r, ' ', 1), split_part(r, ' ', 2)) END, 'UTF8')
		FROM unnest(records) WITH ORDINALITY AS u (r, i)
$$;
CREATE SERVER why_any FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.why_topics');
CREATE SERVER why_one FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.why_topics', partitions '1');
CREATE SERVER why_two FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.why_topics', partitions '2');
CREATE PROCEDURE why_make(name text, server text, win text, stream text DEFAULT '', query text DEFAULT '', tail text DEFAULT '') LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT stream_engine.create_stream(%1$L, %2$L, %1$L, ''t timestamptz, k text'', event_time => ''t'', watermark_delay => ''10 s'', staging_retention => ''0'' %3$s)', name, server, stream);
	EXECUTE format('SELECT stream_engine.create_query(%L, %L %s)', 'q_' || name, format('SELECT k, count(*) AS n FROM %s GROUP BY %s k %s', name, win, tail), query);
	COMMIT;
	CALL stream_engine.wait(('q_' || name)::regclass);
	CALL until(format('EXISTS (SELECT FROM stream_engine.stat_workers w WHERE w.pid IS NOT NULL AND w.reader = (SELECT stream_engine.query_reader(%L)))', 'q_' || name));
END $$;

-- a partition that was idle comes back behind the watermark, which has gone on without it
CALL why_make('back', 'why_two', 'tumble(t, ''1 minute''),', ', idle_timeout => ''100 ms''');
SELECT why_send('back', 0, '10:00:30 a'), why_send('back', 1, '10:00:20 a');
CALL stream_engine.wait('q_back');
CALL until('(SELECT bool_and(idle) FROM stream_engine.stat_partitions WHERE query = ''q_back''::regclass)');
SELECT why_send('back', 0, '10:05:00 a');
CALL until('(SELECT watermark = ''2026-01-05 10:04:50+00'' FROM stream_engine.stat_queries WHERE query = ''q_back''::regclass)');
SELECT stream_engine.alter_stream('back', idle_timeout => '1 hour');
CALL until('EXISTS (SELECT FROM stream_engine.stat_workers w WHERE w.pid IS NOT NULL AND w.reader = (SELECT stream_engine.query_reader(''q_back'')))');
SELECT why_send('back', 1, '10:00:40 a', '10:04:00 a');
CALL stream_engine.wait('q_back');
SELECT * FROM stream_engine.why('q_back');

-- one that was added has had no good record yet
SELECT why_send('added', 0, '10:00:30 a');
CALL why_make('added', 'why_any', 'tumble(t, ''1 minute''),', ', idle_timeout => ''1 hour''');
SELECT why_send('added', 1, '{"t": null}'), why_send('added', 0, '10:03:30 a');
CALL stream_engine.wait('q_added');
SELECT finding, hint FROM stream_engine.why('q_added');

-- windows close, and HAVING refuses their rows
CALL why_make('picky', 'why_one', 'tumble(t, ''1 minute''),', ', idle_timeout => ''1 hour''', '', 'HAVING count(*) > 5');
SELECT why_send('picky', 0, '10:00:30 a', '10:05:00 b');
CALL stream_engine.wait('q_picky');
SELECT * FROM stream_engine.why('q_picky') WHERE finding ~ 'HAVING';
CALL why_make('picky_totals', 'why_one', '', ', idle_timeout => ''1 hour''', ', trigger_count => 2', 'HAVING count(*) > 5');
SELECT why_send('picky_totals', 0, '10:00:30 a', '10:05:00 a');
CALL stream_engine.wait('q_picky_totals');
SELECT finding, detail FROM stream_engine.why('q_picky_totals');

-- bad records that nobody keeps
CALL why_make('skips', 'why_one', 'tumble(t, ''1 minute''),', ', idle_timeout => ''1 hour'', on_error => ''skip''');
SELECT why_send('skips', 0, '{"t": 3}', '10:05:00 b');
CALL stream_engine.wait('q_skips');
SELECT * FROM stream_engine.why('q_skips') WHERE finding ~ 'used';

-- the session that ends first, which is not the one that begins first; what why() asks for closes it
CALL why_make('visits', 'why_one', 'session(t, ''30 minutes''),', ', idle_timeout => ''1 hour''');
SELECT why_send('visits', 0, '10:29:00 a', '10:20:00 b', '10:31:00 b', '10:40:00 c');
CALL stream_engine.wait('q_visits');
SELECT * FROM stream_engine.why('q_visits');
SELECT why_send('visits', 0, '10:59:09.999999 d');
CALL stream_engine.wait('q_visits');
SELECT count(*) FROM q_visits;
SELECT why_send('visits', 0, '10:59:10 d');
CALL stream_engine.wait('q_visits');
SELECT k, n FROM q_visits;
-- one that began before the query
CALL why_make('began', 'why_one', 'session(t, ''30 minutes''),', ', idle_timeout => ''1 hour''', ', start => ''latest''');
SELECT why_send('began', 0, '10:10:00 a', '10:20:00 a');
CALL stream_engine.wait('q_began');
SELECT * FROM stream_engine.why('q_began');

-- stream and query are paused: one after the other
SELECT stream_engine.pause('q_began'), stream_engine.pause('began');
SELECT finding, hint FROM stream_engine.why('q_began');
SELECT stream_engine.resume('began');
SELECT finding, hint FROM stream_engine.why('q_began');

-- idle_close has closed all: what comes for these windows is late
CALL why_make('closed', 'why_one', 'cumulate(t, ''1 day'', step => ''6 hours''),', ', idle_timeout => ''100 ms'', idle_close => ''200 ms''');
SELECT why_send('closed', 0, '10:29:30 a');
CALL until('(SELECT count(*) = 3 FROM q_closed)');
SELECT finding FROM stream_engine.why('q_closed');
SELECT why_send('closed', 0, '10:18:00 a');
CALL stream_engine.wait('q_closed');
SELECT * FROM stream_engine.why('q_closed') WHERE finding ~ 'late';

-- not a query
\set SHOW_CONTEXT never
SELECT * FROM stream_engine.why('why_rows');
\x off
\pset format aligned

SELECT stream_engine.drop_stream('why_rows', true);
SELECT stream_engine.drop_stream('why_again', true);
SELECT stream_engine.drop_stream('why_clock', true);
SET client_min_messages = error;
DROP SERVER why_any CASCADE;
DROP SERVER why_one CASCADE;
DROP SERVER why_two CASCADE;
DROP SERVER why_server;
DROP PROCEDURE why_make;
DROP FUNCTION why_send;
DROP TABLE why_log, why_topics;
DROP FUNCTION why_put;
DROP PROCEDURE until;
