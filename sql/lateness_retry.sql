-- Rule: retry_late takes late records into their windows, whose rows it corrects, as
-- long as the windows' state is kept; other records stay late.  Every record is
-- accounted for, and the batch agrees.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA retry;
SET search_path = retry, public;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER retry_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'retry.log', partitions '1');
SELECT stream_engine.create_stream('orders', server => 'retry_server', topic => 'orders',
	columns => 'kind text, amount int, t timestamptz', event_time => 't', watermark_delay => '0',
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
	CALL stream_engine.wait('retry.orders', '1 minute');
END $$;
CREATE VIEW accounts AS
	SELECT query, counted, filtered, late, late_assignments, before_start, failed,
		decoded = counted + filtered + late + before_start + failed AS adds_up
	FROM stream_engine.stat_queries WHERE stream = 'orders'::regclass ORDER BY query::text;

SELECT stream_engine.create_query('tumbling', $$
	SELECT kind, count(*) AS n, sum(amount) AS total FROM orders WHERE amount <> 13 GROUP BY tumble(t, '10 minutes'), kind $$,
	correction_horizon => '1 hour');
SELECT stream_engine.create_query('hopping', $$
	SELECT kind, count(*) AS n, sum(amount) AS total FROM orders GROUP BY hop(t, '20 minutes', every => '10 minutes'), kind $$,
	correction_horizon => '30 minutes');
SELECT stream_engine.create_query('without', $$
	SELECT kind, count(*) AS n FROM orders GROUP BY tumble(t, '10 minutes'), kind $$);

CALL send('00:01 a 1', '00:11 b 2', '00:21 c 3', '00:02 a 10', '00:03 d 20', '00:04 a 13', '00:45 z 1');
SELECT window_start, kind, n, total, revision FROM tumbling ORDER BY 1, 2;
SELECT * FROM accounts;

-- some, then the others
SELECT stream_engine.retry_late('tumbling', $$ event_time < '2026-01-05 00:03+00' AND record::jsonb ->> 'kind' = 'a' $$);
CALL stream_engine.wait('tumbling', '1 minute');
SELECT window_start, kind, n, total, is_final, revision FROM tumbling ORDER BY 1, 2;
SELECT stream_engine.retry_late('tumbling');
SELECT stream_engine.retry_late('tumbling');
CALL stream_engine.wait('tumbling', '1 minute');
SELECT window_start, kind, n, total, is_final, revision FROM tumbling ORDER BY 1, 2;
-- W is 00:45: the window [23:50, 00:10) has no state any more, [00:00, 00:20) has
SELECT stream_engine.retry_late('hopping');
CALL stream_engine.wait('hopping', '1 minute');
SELECT window_start, kind, n, total, is_final, revision FROM hopping ORDER BY 1, 2;
SELECT event_time, windows FROM stream_engine.late_assignments WHERE query = 'hopping'::regclass ORDER BY 1;
SELECT * FROM accounts;
SELECT count(*) FROM stream_engine.late_events WHERE query <> 'without'::regclass;

-- behind the horizon nothing is taken
CALL send('02:00 z 1', '00:05 e 1', '01:05 f 1');
SELECT stream_engine.retry_late('tumbling', 'true');
CALL stream_engine.wait('tumbling', '1 minute');
SELECT kind, n FROM tumbling WHERE kind IN ('e', 'f');
SELECT event_time FROM stream_engine.late_events WHERE query = 'tumbling'::regclass;
SELECT * FROM accounts;
SELECT * FROM stream_engine.verify('tumbling');
SELECT * FROM stream_engine.verify('hopping');

-- a paused query takes them when it goes on; a record that is bad by now stays late
CALL send('01:06 g 5', '01:07 g 6');
SELECT stream_engine.pause('tumbling');
SELECT stream_engine.retry_late('tumbling', 'event_time > ''2026-01-05 01:00+00''');
ALTER FOREIGN TABLE orders ADD CHECK (amount <> 5);
SELECT stream_engine.resume('tumbling');
CALL stream_engine.wait('tumbling', '1 minute');
SELECT kind, n, total FROM tumbling WHERE kind = 'g';
SELECT event_time FROM stream_engine.late_events WHERE query = 'tumbling'::regclass ORDER BY 1;
SELECT * FROM accounts WHERE query = 'tumbling'::regclass;

-- who may, and with what
SELECT stream_engine.retry_late('without');
SELECT stream_engine.retry_late('orders');
SELECT stream_engine.retry_late(NULL);
SELECT stream_engine.retry_late('tumbling', 'nothing = 1');
SELECT stream_engine.retry_late('tumbling', 'true); DROP TABLE retry.log; SELECT (true');
SELECT stream_engine.retry_late('tumbling', 'true -- and no more');
CREATE ROLE regress_retry;
GRANT USAGE ON SCHEMA retry TO regress_retry;
GRANT SELECT ON tumbling TO regress_retry;
SET ROLE regress_retry;
SELECT stream_engine.retry_late('tumbling');
RESET ROLE;

-- what is marked when nothing is kept any more is late again, and nobody waits for it for ever
CALL send('01:08 h 1');
BEGIN;
SELECT stream_engine.retry_late('tumbling', $$ record::jsonb ->> 'kind' = 'h' $$);
SELECT stream_engine.alter_query('tumbling', correction_horizon => '0');
COMMIT;
CALL stream_engine.wait('tumbling', '1 minute');
SELECT count(*) FROM tumbling WHERE kind = 'h';
SELECT event_time, (SELECT count(*) FROM stream_engine.late_event e JOIN stream_engine.query q ON q.id = e.query
		WHERE e.retry AND q.result = 'tumbling'::regclass) AS marked
	FROM stream_engine.late_events WHERE query = 'tumbling'::regclass AND record::jsonb ->> 'kind' = 'h';
SELECT * FROM accounts WHERE query = 'tumbling'::regclass;
SELECT * FROM stream_engine.verify('tumbling');

-- late and bad records keep their headers: a query over these is given the same records again
CREATE TABLE shipments (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea, headers jsonb,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER headers_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'retry.shipments', partitions '1');
SELECT stream_engine.create_stream('shipped', server => 'headers_server', topic => 'shipments',
	columns => 'n int CONSTRAINT few CHECK (n < 10), t timestamptz EPOCH ''s''', event_time => 't', include => '{headers}', watermark_delay => '0',
	staging_retention => '0');
SELECT stream_engine.create_query('by_region', $$
	SELECT _headers ->> 'region' AS region, sum(n) AS n FROM shipped WHERE _headers ->> 'test' IS NULL GROUP BY tumble(t, '10 s'), region $$,
	correction_horizon => '1 hour');
INSERT INTO shipments SELECT 0, i - 1, now(), NULL, convert_to(format('{"n": %s, "t": %s}', n, t), 'UTF8'), h::jsonb
	FROM (VALUES (1, 1, 5, '{"region": "north"}'), (2, 2, 5, '{"region": "south"}'), (3, 20, 25, '{"region": "north", "e": null}'), (4, 3, 35, NULL),
		(5, 4, 6, '{"region": "south", "\\x": ["a", 1]}'), (6, 5, 6, '{"region": "north", "test": "1"}'), (7, 6, 7, '{"region": "east"}'),
		(8, 30, 36, '{}')) AS r (i, n, t, h);
CALL stream_engine.wait('by_region', '1 minute');
SELECT extract(epoch FROM window_start) AS start, region, n, revision FROM by_region ORDER BY 1, 2;
SELECT "offset", headers FROM stream_engine.late_events WHERE query = 'by_region'::regclass ORDER BY 1;
SELECT "offset", reason, headers FROM stream_engine.dead_letters WHERE stream = 'shipped'::regclass ORDER BY 1;
SELECT stream_engine.retry_late('by_region');
ALTER FOREIGN TABLE shipped DROP CONSTRAINT few;
SELECT stream_engine.retry_dead_letters('shipped');
SELECT stream_engine.retry_dead_letters('shipped', 'true) UNION ALL SELECT 1, 2.5 WHERE (true');
CALL until($$ NOT (EXISTS (SELECT FROM stream_engine.late_event WHERE retry) OR EXISTS (SELECT FROM stream_engine.replay)) $$);
-- what was bad has come late by now, with its headers
SELECT "offset", headers FROM stream_engine.late_events WHERE query = 'by_region'::regclass ORDER BY 1;
SELECT stream_engine.retry_late('by_region');
CALL until($$ NOT (EXISTS (SELECT FROM stream_engine.late_event WHERE retry)) $$);
SELECT extract(epoch FROM window_start) AS start, region, n, is_final FROM by_region_live ORDER BY 1, 2;
SELECT * FROM stream_engine.verify('by_region');
SELECT stream_engine.drop_stream('shipped', cascade => true);
DROP SERVER headers_server;
DROP TABLE shipments;

DROP VIEW accounts;
SELECT stream_engine.drop_stream('orders', cascade => true);
DROP SCHEMA retry CASCADE;
DROP SERVER retry_server;
DROP ROLE regress_retry;
