-- Rule: on_error => 'pause', and more bad records in a minute than on_error_limit, stop the
-- stream in front of the bad record; what lies behind it, there and in other partitions, is
-- not passed over: it is read once the record has been mended or skipped.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA error_pause;
SET search_path = error_pause, public;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until
CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER error_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'error_pause.log', partitions '2');
SELECT stream_engine.create_stream('orders', server => 'error_server', topic => 'orders',
	columns => 'k int, t timestamptz', event_time => 't', watermark_delay => '0',
	staging_retention => '0', on_error => 'pause');
SELECT stream_engine.create_query('counts', $$
	SELECT k, count(*) AS n FROM orders GROUP BY tumble(t, '10 minutes'), k $$,
	emit => 'changes', emit_interval => '0');
SELECT stream_engine.create_query('visits', $$
	SELECT k, count(*) AS n FROM orders GROUP BY session(t, '10 minutes'), k $$,
	emit => 'changes', emit_interval => '0');

CREATE FUNCTION record(k int) RETURNS bytea LANGUAGE sql AS $$
	SELECT convert_to(json_build_object('k', k, 't', '2026-01-05 00:01+00')::text, 'UTF8') $$;
CREATE VIEW stopped AS
	SELECT s.state, s.error, s.error_partition AS part, s.error_offset AS at FROM stream_engine.stream s
		WHERE s.relation = 'error_pause.orders'::regclass;
CREATE VIEW passed AS
	SELECT DISTINCT p.partition, p.next_offset - p.start_offset - p.records AS gaps, p.gaps AS counted,
		p.next_offset <= CASE p.partition WHEN s.error_partition THEN s.error_offset ELSE 10 END AS before_it
		FROM stream_engine.stream s JOIN stream_engine.reader r ON r.stream = s.id
		JOIN stream_engine.reader_partition p ON p.reader = r.id
		WHERE s.relation = 'error_pause.orders'::regclass;

INSERT INTO log SELECT p, i, NULL, NULL, CASE WHEN (p, i) = (0, 3) THEN '{bad'::bytea ELSE error_pause.record(p) END
	FROM generate_series(0, 1) p, generate_series(0, 9) i;
CALL until($$ (SELECT state FROM stopped) = 'error' $$);
SELECT * FROM stopped;
SELECT partition, gaps, counted, before_it FROM passed ORDER BY 1;

-- mended
UPDATE log SET value = error_pause.record(0) WHERE (partition, "offset") = (0, 3);
SELECT stream_engine.resume('orders');
CALL stream_engine.wait('orders', '1 minute');
SELECT k, n FROM counts ORDER BY 1;
SELECT k, n FROM visits ORDER BY 1;
SELECT partition, gaps, counted FROM passed ORDER BY 1;

-- skipped
INSERT INTO log SELECT 1, i, NULL, NULL, CASE i WHEN 12 THEN '{bad'::bytea ELSE error_pause.record(1) END
	FROM generate_series(10, 19) i;
CALL until($$ (SELECT state FROM stopped) = 'error' $$);
SELECT * FROM stopped;
SELECT stream_engine.skip('orders', 1, 12);
SELECT stream_engine.resume('orders');
CALL stream_engine.wait('orders', '1 minute');
SELECT k, n FROM counts ORDER BY 1;
SELECT k, n FROM visits ORDER BY 1;
SELECT partition, gaps, counted FROM passed ORDER BY 1;

-- more than allowed: two are set aside, the third one stops the stream
SELECT stream_engine.alter_stream('orders', on_error => 'dead_letter', on_error_limit => 2);
INSERT INTO log SELECT 0, i, NULL, NULL, CASE WHEN i < 13 THEN '{bad'::bytea ELSE error_pause.record(0) END
	FROM generate_series(10, 19) i;
CALL until($$ (SELECT state FROM stopped) = 'error' $$);
SELECT * FROM stopped;
SELECT stream_engine.resume('orders');
CALL stream_engine.wait('orders', '1 minute');
SELECT k, n FROM counts ORDER BY 1;
SELECT k, n FROM visits ORDER BY 1;
SELECT partition, gaps, counted FROM passed ORDER BY 1;
SELECT partition, "offset" FROM stream_engine.dead_letters WHERE stream = 'orders'::regclass ORDER BY 1, 2;
SELECT count(*) FROM stream_engine.verify('counts');

DROP VIEW stopped, passed;
SELECT stream_engine.drop_stream('orders', cascade => true);
DROP SCHEMA error_pause CASCADE;
