-- Rule: a query without a window keeps running totals and emits a key's row when its
-- trigger fires: the count trigger at the record that makes the key's rows a multiple,
-- the interval trigger for the keys that have changed.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA totals;
SET search_path = totals, public;

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER totals_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'totals.log', partitions '1');
SELECT stream_engine.create_stream('readings', server => 'totals_server', topic => 'readings',
	columns => 'sensor text, v int, t timestamptz', event_time => 't', watermark_delay => '0',
	staging_retention => '0');
-- each record is "SECONDS SENSOR V"
CREATE PROCEDURE send(VARIADIC records text[]) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log SELECT 0, COALESCE((SELECT max("offset") + 1 FROM log), 0) + o - 1, NULL, NULL,
		convert_to(json_build_object('t', timestamptz '2026-01-05 00:00:00+00' + split_part(r, ' ', 1)::numeric * interval '1 second',
			'sensor', NULLIF(split_part(r, ' ', 2), 'null'), 'v', split_part(r, ' ', 3)::int)::text, 'UTF8')
	FROM unnest(records) WITH ORDINALITY AS u (r, o);
	COMMIT;
	CALL stream_engine.wait('totals.readings', '1 minute');
END $$;

-- a trigger is needed, and only here
SELECT stream_engine.create_query('x', 'SELECT sensor, sum(v) FROM readings GROUP BY sensor');
SELECT stream_engine.create_query('x', 'SELECT sensor, sum(v) FROM readings GROUP BY sensor', trigger_count => 0);
SELECT stream_engine.create_query('x', 'SELECT sensor, sum(v) FROM readings GROUP BY sensor', trigger_interval => '0');
SELECT stream_engine.create_query('x', 'SELECT sensor, sum(v) FROM readings GROUP BY sensor', trigger_interval => '1 month');
SELECT stream_engine.create_query('x', 'SELECT sum(v) FROM readings GROUP BY tumble(t, ''1 hour'')', trigger_count => 10);
SELECT stream_engine.create_query('x', 'SELECT sum(v) FROM readings GROUP BY tumble(t, ''1 hour'')', state_ttl => '1 hour');
SELECT stream_engine.create_query('x', 'SELECT sum(v) FROM readings', trigger_count => 1, state_ttl => '300000000 days');

SELECT stream_engine.create_query('by_count', 'SELECT sensor, count(*) AS n, sum(v) AS total, avg(v) AS mean FROM readings GROUP BY sensor', trigger_count => 3);
SELECT stream_engine.create_query('by_time', 'SELECT sensor, count(*) AS n, sum(v) AS total FROM readings GROUP BY sensor', trigger_interval => '1 millisecond');
SELECT stream_engine.create_query('over_all', 'SELECT count(*) AS n, max(v) AS highest FROM readings', trigger_interval => '1 millisecond');
SELECT stream_engine.create_query('short_lived', 'SELECT sensor, count(*) AS n FROM readings GROUP BY sensor', trigger_count => 1, state_ttl => '1 minute');

CALL send('0 a 1', '1 a 2', '2 b 10', '3 null 5');
TABLE by_count;
SELECT sensor, n, total, is_final, revision FROM by_count_live ORDER BY sensor;
CALL send('4 a 3');
SELECT window_start, window_end, sensor, n, total, mean, is_final, revision FROM by_count ORDER BY sensor;
-- 4 and 5 do not pass a multiple of 3, 6 does
CALL send('5 a 4', '6 a 5');
SELECT sensor, n, total, revision FROM by_count ORDER BY sensor;
CALL send('7 a 6', '8 null 5', '9 null 5');
SELECT sensor, n, total, revision FROM by_count ORDER BY sensor;
-- the interval trigger has shown all
SELECT count(*) = 0 AS as_expected FROM (
	(SELECT sensor, n, total FROM by_time) EXCEPT (SELECT sensor, count(*), sum(v) FROM readings GROUP BY sensor)) AS d
WHERE (SELECT count(*) FROM by_time) = 3;
SELECT window_start, window_end, n, highest FROM over_all;
-- totals survive a restart, and a restart changes no row
CREATE TABLE before AS TABLE by_count;
SELECT count(pg_terminate_backend(pid)) > 0 AS stopped FROM stream_engine.stat_workers WHERE kind = 'reader';
CALL send('10 b 1', '11 b 1');
SELECT sensor, n, total, revision FROM by_count ORDER BY sensor;
SELECT count(*) AS unchanged FROM before NATURAL JOIN by_count;
-- a key that has been quiet for its time to live begins anew; its row stays
CALL send('30 a 0', '100 c 1');
CALL send('101 a 0', '101 c 1');
SELECT sensor, n FROM short_lived ORDER BY sensor;
SELECT sensor, n FROM short_lived_live ORDER BY sensor;
SELECT sensor, n FROM short_lived_batch ORDER BY sensor;
-- a batch goes on behind the record with which it fires: the row is as of that record
CALL send('110 d 1', '110 e 1', '110 d 10', '110 d 100', '110 e 10', '110 d 1000', '110 d 10000', '110 d 100000', '110 d 5', '110 d 5');
SELECT sensor, n, total, mean FROM by_count WHERE sensor >= 'd' ORDER BY sensor;
CALL send('111 d 7', '111 d 7', '111 e 100', '111 e 1000', '111 d 7');
SELECT sensor, n, total, mean FROM by_count WHERE sensor >= 'd' ORDER BY sensor;
SELECT sensor, n, total FROM by_count_live WHERE sensor >= 'd' ORDER BY sensor, n;
SELECT * FROM stream_engine.verify('by_count');
SELECT stream_engine.drop_stream('readings', cascade => true);
DROP SCHEMA totals CASCADE;
DROP SERVER totals_server;
