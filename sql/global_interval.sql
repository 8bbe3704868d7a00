-- Rules: a key whose changes the interval trigger has not written yet is not forgotten before
-- they are; deferred constraints on the result table are checked within the commit that
-- writes; intervals are so short that sums of times and intervals do not overflow.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA intervals;
SET search_path = intervals, public;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until
CREATE TABLE log (topic text, partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (topic, partition, "offset"));
CREATE SERVER intervals_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'intervals.log', partitions '1');
-- each record is "SECONDS SENSOR V"
CREATE PROCEDURE send(stream text, VARIADIC records text[]) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log SELECT stream, 0, (SELECT count(*) FROM log WHERE topic = stream) + o - 1, NULL, NULL,
		convert_to(json_build_object('t', timestamptz '2026-01-05 00:00:00+00' + split_part(r, ' ', 1)::numeric * interval '1 second',
			'sensor', split_part(r, ' ', 2), 'v', split_part(r, ' ', 3)::int)::text, 'UTF8')
	FROM unnest(records) WITH ORDINALITY AS u (r, o);
	COMMIT;
	CALL stream_engine.wait(format('intervals.%s', stream), '1 minute');
END $$;
CREATE FUNCTION make_stream(name text) RETURNS void LANGUAGE sql AS $$
	SELECT stream_engine.create_stream(name, server => 'intervals_server', topic => name,
		columns => 'sensor text, v int, t timestamptz', event_time => 't', watermark_delay => '0',
		staging_retention => '0') $$;
DO $$ BEGIN PERFORM make_stream(name) FROM unnest(ARRAY['expiring', 'checked']) AS name; END $$;

-- b is due to be forgotten before the interval has passed; it is written first
SELECT stream_engine.create_query('short_lived', 'SELECT sensor, count(*) AS n, sum(v) AS total FROM expiring GROUP BY sensor',
	trigger_interval => '2 seconds', state_ttl => '1 second');
CALL send('expiring', '0 a 1');
CALL until('EXISTS (SELECT FROM short_lived)');
CALL send('expiring', '1 b 1', '1 b 2');
CALL send('expiring', '100 a 3');
CALL until('(SELECT n = 1 AND total = 3 FROM short_lived WHERE sensor = ''a'')');
SELECT sensor, n, total FROM short_lived ORDER BY sensor;
-- and then it is forgotten
CALL send('expiring', '101 b 4');
CALL until('(SELECT total = 4 FROM short_lived WHERE sensor = ''b'')');
SELECT sensor, n, total FROM short_lived ORDER BY sensor;

-- the first commit that writes, and one that comes when the interval has passed without a record
CREATE TABLE sensors (name text PRIMARY KEY);
INSERT INTO sensors VALUES ('a'), ('b');
SELECT stream_engine.create_query('referring', 'SELECT sensor, sum(v) AS total FROM checked GROUP BY sensor',
	trigger_interval => '1 millisecond', paused => true);
ALTER TABLE referring ADD FOREIGN KEY (sensor) REFERENCES sensors DEFERRABLE INITIALLY DEFERRED;
SELECT stream_engine.resume('referring');
CALL send('checked', '0 a 1');
CALL until('EXISTS (SELECT FROM referring WHERE sensor = ''a'')');
CALL send('checked', '1 b 2');
CALL until('EXISTS (SELECT FROM referring WHERE sensor = ''b'')');
SELECT sensor, total FROM referring ORDER BY sensor;
SELECT state FROM stream_engine.queries WHERE name = 'referring'::regclass;

-- too long
\set sums 'SELECT sensor, sum(v) AS total FROM checked GROUP BY sensor'
SELECT stream_engine.create_query('x', :'sums', trigger_count => 1, state_ttl => '100000000 days');
SELECT stream_engine.create_query('x', :'sums', trigger_count => 1, state_ttl => '-300000000 days');
SELECT stream_engine.create_query('x', :'sums', trigger_interval => '250000000 days');
SELECT stream_engine.create_query('x', 'SELECT count(*) AS n FROM checked GROUP BY tumble(t, ''1 hour'')', allowed_lateness => '40000 days');
ALTER FOREIGN TABLE checked OPTIONS (SET max_future '100000000 days');
ALTER FOREIGN TABLE checked OPTIONS (ADD idle_close '366001 days');
ALTER FOREIGN TABLE checked OPTIONS (SET max_future '366000 days');

SELECT stream_engine.drop_stream(s, cascade => true) FROM unnest(ARRAY['intervals.expiring', 'intervals.checked']::regclass[]) AS s;
DROP SCHEMA intervals CASCADE;
DROP SERVER intervals_server;
