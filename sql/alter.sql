-- Rule: alter_stream and alter_query change what is named and nothing else, for what comes
-- from now on; windows whose state has been dropped take no record, however long the
-- lateness is made; what cannot be done is refused and changes nothing.  What is purged is
-- gone, but no verdict is.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
\set SHOW_CONTEXT never
CREATE SCHEMA alter_test;
SET search_path = alter_test, public;

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER alter_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'alter_test.log', partitions '1');
SELECT stream_engine.create_stream('orders', server => 'alter_server', topic => 'orders',
	columns => 'kind text, amount int CHECK (amount >= 0), t timestamptz', event_time => 't', watermark_delay => '0',
	staging_retention => '0');
CREATE PROCEDURE send(VARIADIC records text[]) LANGUAGE plpgsql AS $$
DECLARE
	record text;
BEGIN
	FOREACH record IN ARRAY records LOOP
		INSERT INTO log SELECT 0, COALESCE((SELECT max("offset") + 1 FROM log), 0), NULL, NULL,
			convert_to(json_build_object('t', '2026-01-05 ' || split_part(record, ' ', 1) || '+00',
				'kind', split_part(record, ' ', 2), 'amount', split_part(record, ' ', 3))::text, 'UTF8');
	END LOOP;
	COMMIT;
	CALL stream_engine.wait('alter_test.orders', '1 minute');
END $$;

SELECT stream_engine.create_query('closing', $$
	SELECT kind, count(*) AS n, sum(amount) AS total FROM orders GROUP BY tumble(t, '10 minutes'), kind $$);
SELECT stream_engine.create_query('hopping', $$
	SELECT kind, count(*) AS n FROM orders GROUP BY hop(t, '20 minutes', every => '10 minutes'), kind $$, correction_horizon => '10 minutes');
SELECT stream_engine.create_query('changing', $$
	SELECT kind, count(*) AS n FROM orders GROUP BY tumble(t, '10 minutes'), kind $$, emit => 'changes', emit_interval => '1 hour');
SELECT stream_engine.create_query('totals', 'SELECT kind, count(*) AS n FROM orders GROUP BY kind', trigger_interval => '1 hour');
SELECT stream_engine.create_query('visits', $$ SELECT kind, count(*) AS n FROM orders GROUP BY session(t, '1 minute'), kind $$);

-- what cannot be
SELECT stream_engine.alter_stream(NULL);
SELECT stream_engine.alter_stream('closing', watermark_delay => '1 s');
SELECT stream_engine.alter_stream('log', watermark_delay => '1 s');
SELECT stream_engine.alter_stream('orders', watermark_delay => '-1 s');
SELECT stream_engine.alter_stream('orders', watermark_delay => '1 month');
SELECT stream_engine.alter_stream('orders', on_error => 'ignore');
SELECT stream_engine.alter_stream('orders', on_error_limit => -1);
SELECT stream_engine.alter_stream('orders', staging_retention => '1 minute');
SELECT stream_engine.alter_stream('orders', options => '{"topic": "others"}');
SELECT stream_engine.alter_stream('orders', options => '{"event_time": null}');
SELECT stream_engine.alter_stream('orders', options => '{"nothing": 1}');
SELECT stream_engine.alter_stream('orders', options => '{"max_future": [1]}');
SELECT stream_engine.alter_stream('orders', options => '[1]');
SELECT stream_engine.alter_stream('orders', max_future => '1 minute', options => '{"max_future": "2 minutes"}');
SELECT stream_engine.alter_query(NULL);
SELECT stream_engine.alter_query('orders', late => 'drop');
SELECT stream_engine.alter_query('closing', late => 'error');
SELECT stream_engine.alter_query('closing', emit_interval => '1 s');
SELECT stream_engine.alter_query('closing', trigger_interval => '1 s');
SELECT stream_engine.alter_query('closing', allowed_lateness => '-1 s');
SELECT stream_engine.alter_query('closing', allowed_lateness => '1 month');
SELECT stream_engine.alter_query('changing', correction_horizon => '1 s');
SELECT stream_engine.alter_query('totals', trigger_interval => '0');
SELECT stream_engine.alter_query('totals', allowed_lateness => '1 s');
SELECT stream_engine.alter_query('visits', allowed_lateness => '1 s');
SELECT stream_engine.purge_late(NULL, now());
SELECT stream_engine.purge_late('closing', NULL);
SELECT stream_engine.purge_dead_letters('closing', now());
CREATE ROLE alter_stranger;
GRANT USAGE ON SCHEMA alter_test TO alter_stranger;
SET ROLE alter_stranger;
SELECT stream_engine.alter_stream('orders', watermark_delay => '1 s');
SELECT stream_engine.alter_query('closing', late => 'drop');
SELECT stream_engine.purge_late('closing', now());
SELECT stream_engine.purge_dead_letters('orders', now());
RESET ROLE;
SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'orders'::regclass;
SELECT name, emit_interval, late, trigger_interval, allowed_lateness, correction_horizon, state FROM stream_engine.queries ORDER BY name::text;

-- [0, 10) closes and its state is dropped; in "hopping" [-10, 10) is kept until 00:20
CALL send('00:01 a 1', '00:02 b 2', '00:15 a 4');
SELECT stream_engine.alter_query('closing', allowed_lateness => '1 hour');
CALL send('00:03 a 100', '00:22 a 1');
CALL send('00:12 a 10', '00:05 b 1');
SELECT to_char(window_start, 'HH24:MI') AS w, kind, n, total, revision FROM closing ORDER BY 1, 2;
SELECT kind, to_char(event_time, 'HH24:MI') AS t, to_char(watermark, 'HH24:MI') AS w FROM stream_engine.late_events,
	LATERAL (SELECT record::json->>'kind' AS kind) x WHERE query = 'closing'::regclass ORDER BY "offset";
SELECT * FROM stream_engine.verify('closing');
-- a horizon that has grown retries what there still is state of
SELECT stream_engine.alter_query('hopping', correction_horizon => '2 hours');
SELECT to_char(event_time, 'HH24:MI') AS t, windows FROM stream_engine.late_events WHERE query = 'hopping'::regclass ORDER BY "offset";
SELECT stream_engine.retry_late('hopping');
CALL send('00:23 a 1');
SELECT to_char(window_start, 'HH24:MI') AS w, to_char(window_end, 'HH24:MI') AS until, kind, n, revision FROM hopping ORDER BY 1, 2, 3;
-- and shrinks again
SELECT stream_engine.alter_query('closing', allowed_lateness => '0');
CALL send('00:31 a 1', '00:24 a 1');
SELECT to_char(window_start, 'HH24:MI') AS w, kind, n, total, revision FROM closing ORDER BY 1, 2;
SELECT open_slices FROM stream_engine.stat_queries WHERE query = 'closing'::regclass;

-- nothing was shown for an hour; then at once
SELECT count(*) AS shown FROM totals;
SELECT stream_engine.alter_query('totals', trigger_interval => '10 ms');
SELECT stream_engine.alter_query('changing', emit_interval => '10 ms');
CALL send('00:32 a 1');
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until
CALL until($$ (SELECT sum(n) = 11 FROM totals) $$);
SELECT kind, n FROM totals ORDER BY kind;
CALL until($$ EXISTS (SELECT FROM changing WHERE NOT is_final AND kind = 'a' AND n = 2) $$);
SELECT to_char(window_start, 'HH24:MI') AS w, kind, n FROM changing WHERE NOT is_final;

-- paused, and not
SELECT stream_engine.alter_query('totals', paused => true, trigger_interval => '20 ms');
SELECT state, trigger_interval FROM stream_engine.queries WHERE name = 'totals'::regclass;
SELECT stream_engine.alter_query('totals', paused => false);
CALL stream_engine.wait('totals', '1 minute');

-- the stream: watermark, dead letters, defaults
SELECT stream_engine.alter_stream('orders', watermark_delay => '10 minutes', on_error => 'skip', idle_close => '1 hour');
CALL send('00:41 a 1', '00:40 a -1', '00:42 a 1');
SELECT to_char(max(watermark), 'HH24:MI') AS w FROM stream_engine.stat_queries WHERE query = 'closing'::regclass;
SELECT count(*) FROM stream_engine.dead_letters;
SELECT stream_engine.alter_stream('orders', watermark_delay => '0', on_error => 'dead_letter', options => '{"idle_close": null, "on_error_limit": null, "max_future": "1 day"}');
SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'orders'::regclass;
CALL send('00:43 a -1', '00:44 a 1');
SELECT to_char(max(watermark), 'HH24:MI') AS w FROM stream_engine.stat_queries WHERE query = 'closing'::regclass;

-- a verdict outlives what is purged; a reader that has not come so far needs it
INSERT INTO log SELECT 0, max("offset") + 1, NULL, NULL, convert_to('{"t": "2099-01-01T00:00:00Z", "kind": "a"}', 'UTF8') FROM log;
CALL stream_engine.wait('orders', '1 minute');
SELECT reason, message IS NOT NULL AS told FROM stream_engine.dead_letters ORDER BY "offset";
SELECT stream_engine.purge_dead_letters('orders', '2020-01-01');
SELECT stream_engine.create_query('behind', $$ SELECT count(*) AS n FROM orders GROUP BY tumble(t, '10 minutes') $$, paused => true);
SELECT stream_engine.purge_dead_letters('orders', now());
SELECT stream_engine.drop_query('behind');
SELECT stream_engine.purge_dead_letters('orders', now());
SELECT stream_engine.purge_dead_letters('orders', now());
SELECT count(*) FROM stream_engine.dead_letters;
SELECT * FROM stream_engine.verify('closing');
SELECT stream_engine.purge_late('closing', '2020-01-01');
SELECT stream_engine.purge_late('closing', now()) > 0 AS purged;
SELECT count(*) FROM stream_engine.late_events WHERE query = 'closing'::regclass;
SELECT * FROM stream_engine.verify('closing');
SELECT sum(n) FROM changing_live;

-- staging ends and begins again
SELECT stream_engine.create_stream('staged', server => 'alter_server', topic => 'orders',
	columns => 'kind text, t timestamptz', event_time => 't', max_future => '100000 days');
CALL stream_engine.wait('staged', '1 minute');
SELECT count(*) = (SELECT count(*) FROM log) AS all_are_staged FROM staged_recent;
SELECT stream_engine.alter_stream('staged', staging_retention => '0');
INSERT INTO log SELECT 0, max("offset") + 1, NULL, NULL, convert_to('{"t": "2026-01-05T00:50:00Z", "kind": "off"}', 'UTF8') FROM log;
CALL stream_engine.wait('staged', '1 minute');
SELECT stream_engine.alter_stream('staged', staging_retention => '1 hour');
INSERT INTO log SELECT 0, max("offset") + 1, NULL, NULL, convert_to('{"t": "2026-01-05T00:51:00Z", "kind": "on"}', 'UTF8') FROM log;
CALL stream_engine.wait('staged', '1 minute');
SELECT kind FROM staged_recent WHERE kind LIKE 'o%';
SELECT stream_engine.drop_stream('staged');

-- all that is counted, in one form
SELECT name, value > 0 AS positive FROM stream_engine.metrics()
	WHERE labels @> '{"query": "closing"}' AND name NOT IN ('query_filtered_total', 'query_before_start_total') ORDER BY name COLLATE "C";
SELECT name, labels FROM stream_engine.metrics() WHERE labels->>'stream' = 'orders' AND labels->>'query' IS NULL;
SET ROLE alter_stranger;
SELECT count(*) FROM stream_engine.metrics() WHERE name <> 'workers';
RESET ROLE;

SELECT stream_engine.drop_stream('orders', cascade => true);
DROP SERVER alter_server;
DROP SCHEMA alter_test CASCADE;
DROP ROLE alter_stranger;
