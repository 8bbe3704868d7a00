-- Rule: with emit => 'changes' the result table shows open windows too, is_final false;
-- a row's revision grows with each change and when it becomes final; the live view shows
-- each group once.  A restart shows nothing twice and misses nothing.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = 'warning';
CREATE SCHEMA changes;
SET search_path = changes, public;

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (partition, "offset"));
CREATE SERVER changes_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'changes.log', partitions '1');
SELECT stream_engine.create_stream('orders', server => 'changes_server', topic => 'orders',
	columns => 'kind text, amount int, t timestamptz', event_time => 't', watermark_delay => '0',
	staging_retention => '0');
CREATE PROCEDURE send(VARIADIC records text[]) LANGUAGE plpgsql AS $$
DECLARE
	record text;
BEGIN
	FOREACH record IN ARRAY records LOOP
		INSERT INTO log SELECT 0, COALESCE((SELECT max("offset") + 1 FROM log), 0), NULL, NULL,
			convert_to(json_build_object('t', '2026-01-05 ' || split_part(record, ' ', 1) || '+00',
				'kind', NULLIF(split_part(record, ' ', 2), 'null'), 'amount', split_part(record, ' ', 3))::text, 'UTF8');
	END LOOP;
	COMMIT;
	CALL stream_engine.wait('changes.orders', '1 minute');
END $$;

SELECT stream_engine.create_query('wrong', 'SELECT count(*) FROM orders GROUP BY tumble(t, ''1 hour'')', emit => 'changes', emit_interval => '1 month');
SELECT stream_engine.create_query('wrong', 'SELECT count(*) FROM orders GROUP BY tumble(t, ''1 hour'')', emit => 'changes', correction_horizon => '1 day');
SELECT stream_engine.create_query('wrong', 'SELECT count(*) FROM orders', trigger_count => 1, emit => 'changes');

SELECT stream_engine.create_query('tumbling', $$
	SELECT kind, count(*) AS n, max(amount) AS top FROM orders GROUP BY tumble(t, '10 minutes'), kind $$,
	emit => 'changes', emit_interval => '0', allowed_lateness => '5 minutes');
SELECT stream_engine.create_query('growing', $$
	SELECT kind, count(*) AS n, sum(amount) AS total FROM orders GROUP BY cumulate(t, '20 minutes', step => '10 minutes'), kind
	HAVING count(*) < 3 $$,
	emit => 'changes', emit_interval => '0');
SELECT stream_engine.create_query('highest', $$
	SELECT kind, max(amount) AS top FROM orders GROUP BY hop(t, '10 minutes', every => '5 minutes'), kind $$,
	emit => 'changes', emit_interval => '0');
-- the first commit shows what it has, and the next would an hour later
SELECT stream_engine.create_query('seldom', $$
	SELECT kind, count(*) AS n FROM orders GROUP BY tumble(t, '10 minutes'), kind $$,
	emit => 'changes', emit_interval => '1 hour');
CREATE FUNCTION shown(query regclass) RETURNS TABLE (w text, kind text, row_ jsonb) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format('SELECT to_char(window_start, ''HH24:MI-'') || to_char(window_end, ''HH24:MI''), kind,
		to_jsonb(q) - ''{window_start,window_end,kind,emitted_at}''::text[] FROM %s q ORDER BY 1, 2', query);
END $$;

CALL send('00:01 a 1', '00:02 b 2');
SELECT * FROM shown('tumbling');
SELECT * FROM shown('growing');
-- a changes, NULL comes; a row that stays the same though a record came is left alone
CALL send('00:03 a 5', '00:03 null 1', '00:03 b 1');
SELECT * FROM shown('tumbling');
SELECT * FROM shown('highest');
SELECT * FROM shown('tumbling_live');
-- HAVING refuses a, whose row goes
CALL send('00:04 a 0');
SELECT * FROM shown('growing');
-- [0, 10) closes: b and NULL become final, a gets a last change
CALL send('00:05 a 9', '00:11 c 1');
SELECT * FROM shown('tumbling');
SELECT * FROM shown('growing');
SELECT * FROM shown('tumbling_live');
SELECT * FROM shown('growing_live');
SELECT * FROM shown('seldom_live');
-- a closed window is corrected, and stays final
CALL send('00:06 b 7', '00:06 d 1');
SELECT * FROM shown('tumbling');

-- pause, resume: nothing is shown twice
CREATE TABLE before AS SELECT * FROM tumbling;
SELECT stream_engine.pause('tumbling');
SELECT stream_engine.resume('tumbling');
CALL send('00:12 c 1');
SELECT count(*) AS same, count(*) FILTER (WHERE t.kind <> 'c') AS same_of_others FROM before NATURAL JOIN tumbling t;
SELECT * FROM shown('tumbling');

CALL send('01:00 z 1');
SELECT * FROM shown('tumbling');
SELECT * FROM shown('growing');
SELECT * FROM shown('seldom_live');
SELECT query, counted, late, windows_closed, open_slices FROM stream_engine.stat_queries ORDER BY query::text;
SELECT * FROM stream_engine.verify('tumbling');
SELECT * FROM stream_engine.verify('growing');
SELECT * FROM stream_engine.verify('seldom');

-- a window that turns out to be incomplete, when a partition's first record comes, is withdrawn
CREATE TABLE parts (LIKE log INCLUDING ALL);
CREATE SERVER changes_parts FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS (table 'changes.parts', partitions '2');
CREATE FOREIGN TABLE part_orders (kind text, t timestamptz) SERVER changes_parts
	OPTIONS (topic 'parts', event_time 't', watermark_delay '0', staging_retention '0');
CREATE PROCEDURE send_part(part int, at text) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO parts SELECT part, (SELECT count(*) FROM parts WHERE partition = part), NULL, NULL,
		convert_to(json_build_object('t', '2026-01-05 ' || at || '+00', 'kind', 'p' || part)::text, 'UTF8');
	COMMIT;
	IF EXISTS (SELECT FROM stream_engine.queries WHERE name = to_regclass('changes.incomplete')) THEN
		CALL stream_engine.wait('changes.incomplete', '1 minute');
	END IF;
END $$;
CALL send_part(0, '00:00');
CALL send_part(1, '00:00');
SELECT stream_engine.create_query('incomplete', $$
	SELECT kind, count(*) AS n FROM part_orders GROUP BY tumble(t, '10 minutes'), kind $$,
	emit => 'changes', emit_interval => '0', start => 'latest');
CALL send_part(0, '00:09');
CALL send_part(0, '00:12');
SELECT * FROM shown('incomplete');
CALL send_part(1, '00:15');
SELECT * FROM shown('incomplete');
CALL send_part(0, '00:32');
CALL send_part(1, '00:31');
SELECT * FROM shown('incomplete');
SELECT counted, before_start, windows_closed, windows_incomplete FROM stream_engine.stat_queries WHERE query = 'incomplete'::regclass;
SELECT stream_engine.drop_stream('part_orders', cascade => true);
DROP SERVER changes_parts;

SELECT stream_engine.drop_stream('orders', cascade => true);
DROP SCHEMA changes CASCADE;
DROP SERVER changes_server;
