-- Rules: the commit in which a key's records pass a multiple of trigger_count is made at once,
-- however long commit_interval is; trigger_interval fires by itself; with both, either does; a
-- key is forgotten when the watermark reaches its last record + state_ttl, not a tick earlier.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA commits;
SET search_path = commits, public;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until
CREATE TABLE log (topic text, partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (topic, partition, "offset"));
CREATE SERVER commits_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'commits.log', partitions '1');
-- "SECONDS KEY V": one record each, in one transaction; nobody waits, so nobody asks for a commit
CREATE FUNCTION send(topic text, VARIADIC records text[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO log SELECT topic, 0, o - 1 + (SELECT count(*) FROM log l WHERE l.topic = send.topic), NULL, NULL,
		convert_to(json_build_object('t', timestamptz '2026-01-05 00:00+00' + split_part(r, ' ', 1)::numeric * interval '1 second',
			'k', NULLIF(split_part(r, ' ', 2), 'null'), 'v', split_part(r, ' ', 3)::int)::text, 'UTF8')
	FROM unnest(records) WITH ORDINALITY AS u (r, o) $$;
-- a topic, a stream and a query of one name
CREATE FUNCTION make(name text, arguments text, query text DEFAULT 'SELECT k, count(*) AS n, sum(v) AS total FROM s_%s WHERE v > 0 GROUP BY k') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM stream_engine.create_stream('s_' || name, server => 'commits_server', topic => name, columns => 'k text, v int, t timestamptz',
		event_time => 't', watermark_delay => '0', staging_retention => '0');
	EXECUTE format('SELECT stream_engine.create_query(%L, %L, %s)', name, format(query, name), arguments);
END $$;

ALTER SYSTEM SET stream_engine.commit_interval = '1 min';
ALTER SYSTEM SET stream_engine.max_commit_interval = '10 min';
SELECT pg_reload_conf();
-- a session reads its settings again between statements only; workers that start later have them, too
\set ECHO none
SELECT 'DO $$ BEGIN IF current_setting(''stream_engine.commit_interval'') <> ''1min'' THEN PERFORM pg_sleep(0.05); END IF; END $$'
FROM generate_series(1, 1000) \gexec
\set ECHO all
SHOW stream_engine.commit_interval;

-- two records of a key are not three, a third is; NULL is a key, and WHERE does not let all count
DO $$ BEGIN PERFORM make('by_count', 'trigger_count => 3'); END $$;
CALL stream_engine.wait('by_count', '1 minute');
SELECT send('by_count', '0 a 1', '1 a 2', '2 b 1', '3 null 1', '4 a -1', '5 b 2', '6 null 2', '7 null -3');
SELECT send('by_count', '8 a 3');
CALL until('EXISTS (SELECT FROM by_count WHERE k = ''a'')');
SELECT k, n, total, revision FROM by_count ORDER BY k;
SELECT records FROM stream_engine.stat_partitions WHERE query = 'by_count'::regclass;
SELECT send('by_count', '9 null 3');
CALL until('EXISTS (SELECT FROM by_count WHERE k IS NULL)');
SELECT k, n, total, revision FROM by_count ORDER BY k;
-- many at once: the multiple is passed in one commit, and one row says how far
SELECT send('by_count', VARIADIC ARRAY(SELECT format('%s b 1', 10 + i) FROM generate_series(1, 500) AS i));
CALL until('(SELECT n >= 501 FROM by_count WHERE k = ''b'')');
SELECT k, n - n % 3 AS fired_for, n IN (501, 502) AS at_the_end FROM by_count WHERE k = 'b';
CALL stream_engine.wait('by_count', '1 minute');
SELECT k, n, total FROM by_count_live ORDER BY k;

-- the interval fires without another record, and only for what has changed
DO $$ BEGIN PERFORM make('by_time', 'trigger_interval => ''50 ms'''); END $$;
CALL stream_engine.wait('by_time', '1 minute');
SELECT send('by_time', '0 a 1', '1 b 1');
CALL until('(SELECT count(*) = 2 FROM by_time)');
SELECT send('by_time', '2 b 1');
CALL until('(SELECT n = 2 FROM by_time WHERE k = ''b'')');
SELECT k, n, total, revision FROM by_time ORDER BY k;
SELECT commits AS before FROM stream_engine.stat_queries WHERE query = 'by_time'::regclass \gset
CALL until('(SELECT clock_timestamp() > committed_at + interval ''500 ms'' FROM stream_engine.stat_queries WHERE query = ''by_time''::regclass)');
SELECT commits - :before AS commits_without_records FROM stream_engine.stat_queries WHERE query = 'by_time'::regclass;

-- both: the count at once, the rest by the interval
DO $$ BEGIN PERFORM make('by_both', 'trigger_count => 2, trigger_interval => ''1 hour'''); END $$;
CALL stream_engine.wait('by_both', '1 minute');
SELECT send('by_both', '0 a 1', '1 b 1', '2 a 1');
CALL until('EXISTS (SELECT FROM by_both WHERE k = ''a'')');
SELECT send('by_both', '3 c 1', '4 c 1');
CALL until('EXISTS (SELECT FROM by_both WHERE k = ''c'')');
DO $$ BEGIN PERFORM make('by_either', 'trigger_count => 1000000, trigger_interval => ''50 ms'''); END $$;
SELECT send('by_either', '0 a 1', '1 b 1', '2 a 1');
CALL until('(SELECT count(*) = 2 FROM by_either)');
SELECT k, n FROM by_either ORDER BY k;

-- a restart in between loses and repeats nothing
SELECT count(pg_terminate_backend(pid)) > 0 AS stopped FROM stream_engine.stat_workers WHERE kind = 'reader';
SELECT send('by_both', '5 b 1');
CALL until('EXISTS (SELECT FROM by_both WHERE k = ''b'')');
SELECT k, n, revision FROM by_both ORDER BY k;

ALTER SYSTEM RESET stream_engine.commit_interval;
ALTER SYSTEM RESET stream_engine.max_commit_interval;
SELECT pg_reload_conf();

-- time to live, to the tick: W is the newest event time.  Key a is last seen at 10, b at 11.
DO $$ BEGIN PERFORM make('short', 'trigger_count => 1, state_ttl => ''60 s'''); END $$;
SELECT send('short', '0 a 1', '10 a 1', '11 b 1', '69.999999 z 1');
CALL stream_engine.wait('short', '1 minute');
SELECT k, n FROM short_live ORDER BY k;
SELECT send('short', '10 a 1');
CALL stream_engine.wait('short', '1 minute');
SELECT k, n FROM short ORDER BY k;
-- W reaches 70: a is forgotten (its third record was of 10, too), b is not
SELECT send('short', '70 z 1');
CALL stream_engine.wait('short', '1 minute');
SELECT k, n FROM short_live WHERE k <> 'z' ORDER BY k;
SELECT send('short', '70 a 1', '70 b 1');
CALL stream_engine.wait('short', '1 minute');
SELECT k, n, revision FROM short WHERE k <> 'z' ORDER BY k;
-- c is forgotten by the commit that has it, lies in the state still, and begins anew: whoever reads the state agrees
SELECT send('short', '5 c 1');
CALL stream_engine.wait('short', '1 minute');
SELECT k, n, total FROM short_live WHERE k = 'c';
SELECT send('short', '70 c 2');
CALL stream_engine.wait('short', '1 minute');
SELECT k, n, total FROM short_live WHERE k = 'c';
SET stream_engine.state_cache = off;
SELECT k, n, total FROM short_live WHERE k = 'c';
RESET stream_engine.state_cache;
SELECT stream_engine.pause('s_short');
SELECT stream_engine.resume('s_short');
SELECT send('short', '71 c 3');
CALL stream_engine.wait('short', '1 minute');
SELECT k, n, total FROM short_live WHERE k = 'c';
SELECT k, n, total FROM short WHERE k = 'c';
SELECT decoded, counted, late FROM stream_engine.stat_queries WHERE query = 'short'::regclass;

-- wrong arguments
\set bad 'SELECT k, count(*) AS n FROM s_short GROUP BY k'
SELECT stream_engine.create_query('x', :'bad', trigger_count => -1);
SELECT stream_engine.create_query('x', :'bad', trigger_interval => '-1 s');
SELECT stream_engine.create_query('x', :'bad', trigger_count => 1, state_ttl => '0');
SELECT stream_engine.create_query('x', :'bad', trigger_count => 1, state_ttl => '1 month');
SELECT stream_engine.create_query('x', :'bad', trigger_count => 1, allowed_lateness => '1 s');
SELECT stream_engine.create_query('x', :'bad', trigger_count => 1, emit => 'changes');
SELECT stream_engine.create_query('x', :'bad', trigger_count => 1, correction_horizon => '1 s');
SELECT stream_engine.create_query('x', 'SELECT count(*) AS n FROM s_short GROUP BY session(t, ''1 s'')', trigger_interval => '1 s');
SET client_min_messages = error;
DROP SERVER commits_server CASCADE;
DROP SCHEMA commits CASCADE;
