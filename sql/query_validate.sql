-- Rule: validate_query says of each output column how it is computed, or raises
-- the error that create_query would raise, with its position in the query's text.
-- It changes nothing and reads no record.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
SET client_min_messages = 'notice';

CREATE SCHEMA query_validate;
CREATE SCHEMA query_own;
SET search_path = query_validate, public, stream_engine;
CREATE TABLE plain (event_time timestamptz);
CREATE SEQUENCE s;
CREATE TABLE topic (partition int, "offset" bigint, "timestamp" timestamptz, key bytea, value bytea);
CREATE SERVER query_validate_server FOREIGN DATA WRAPPER stream_engine_table
	OPTIONS ("table" 'query_validate.topic');
CREATE FOREIGN TABLE orders (
	category text, code varchar(10), amount numeric(12,2), quantity integer, price money,
	document jsonb, transaction xid, event_time timestamptz, shipped timestamptz, local timestamp
) SERVER query_validate_server OPTIONS (topic 'orders', event_time 'event_time');
CREATE FOREIGN TABLE clockwork (category text)
	SERVER query_validate_server OPTIONS (topic 'orders');

CREATE FUNCTION sqlstate_of(query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM validate_query(query);
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	RETURN format('%s %s', SQLSTATE, SQLERRM);
END $$;

-- ---- accepted ----

-- roles: window, key, aggregate, expression; plain and computed keys
SELECT * FROM validate_query($$
	SELECT category, upper(code) AS code, sum(amount) AS total, count(*) AS orders,
		sum(amount) / count(*) AS mean, 'eur' AS currency,
		lower(tumble(event_time, '5 minutes')) AS opens,
		tumble(event_time, '5 minutes') AS bounds
	FROM orders
	WHERE quantity > 0
	GROUP BY tumble(event_time, '5 minutes'), category, upper(code) $$);

-- keys only; an alias; ordinals; a final semicolon
SELECT * FROM validate_query($$ SELECT category FROM orders GROUP BY tumble(event_time, '1 day'), category $$);
SELECT * FROM validate_query($$
	SELECT o.category, count(o.amount) FILTER (WHERE o.quantity > 1 AND o.category LIKE 'a%')
	FROM orders AS o GROUP BY 1, tumble(o.event_time, '1 month'); $$);

-- arguments of the window by name, in any order, folded to constants
SELECT * FROM validate_query($$
	SELECT count(*) FROM orders
	GROUP BY tumble(event_time, time_zone => 'Europe/' || 'Berlin', origin => '2024-01-01 00:00+01', size => interval '1 hour' * 6) $$);

-- an ordinary function of the same name is no window
CREATE FUNCTION query_own.tumble(text) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT length($1)';
SELECT * FROM validate_query($$
	SELECT query_own.tumble(category) AS k FROM orders GROUP BY query_own.tumble(category), tumble(event_time, '1 hour') $$);

-- the window functions are found under any search_path
SET search_path = query_own;
SELECT column_name, role FROM stream_engine.validate_query($$
	SELECT count(*) FROM query_validate.orders GROUP BY tumble(event_time, '1 hour') $$);
SHOW search_path;
SELECT stream_engine.validate_query('SELECT nothing FROM query_validate.orders');
SHOW search_path;
SET search_path = query_validate, public, stream_engine;

-- thirty keys are the most
SELECT count(*) FROM validate_query((SELECT format('SELECT %s FROM orders GROUP BY tumble(event_time, ''1 hour''), %s',
		string_agg(format('quantity + %s AS k%s', i, i), ', '), string_agg(format('quantity + %s', i), ', '))
	FROM generate_series(1, 30) i));

-- TimeZone: a notice for what depends on it, none for what is given a zone
SELECT count(*) FROM validate_query($$ SELECT event_time::date AS d FROM orders GROUP BY tumble(event_time, '1 hour'), event_time::date $$);
SELECT count(*) FROM validate_query($$ SELECT max(to_char(event_time, 'HH24')) FROM orders GROUP BY tumble(event_time, '1 hour') $$);
SELECT count(*) FROM validate_query($$ SELECT date_trunc('day', lower(tumble(event_time, '1 hour'))) AS d FROM orders GROUP BY tumble(event_time, '1 hour') $$);
SELECT count(*) FROM validate_query($$ SELECT count(*) FROM orders WHERE event_time > date '2024-01-01' GROUP BY tumble(event_time, '1 hour') $$);
SELECT count(*) FROM validate_query($$ SELECT max(extract(hour FROM event_time)) FILTER (WHERE event_time::text <> '') FROM orders GROUP BY tumble(event_time, '1 hour') $$);
SELECT count(*) FROM validate_query($$
	SELECT date_trunc('day', lower(tumble(event_time, '1 hour')), 'Asia/Tokyo') AS d, max(extract(epoch FROM event_time)) AS e,
		max((event_time AT TIME ZONE 'UTC')::date) AS f
	FROM orders WHERE event_time > '2024-01-01' GROUP BY tumble(event_time, '1 hour') $$);

-- ---- not one SELECT ----
SELECT validate_query('');
SELECT validate_query(' ; ');
SELECT validate_query('SELEKT 1');
SELECT validate_query('SELECT 1 FROM orders GROUP BY tumble(event_time, ''1 hour'') +');
SELECT validate_query('  DELETE FROM orders');
SELECT validate_query('EXPLAIN SELECT 1');
SELECT validate_query('SELECT 1; SELECT 2');
SELECT validate_query('SELECT 1 INTO t FROM orders');
SELECT validate_query('SELECT 1 UNION ALL SELECT 2');
SELECT validate_query('VALUES (1)');
SELECT validate_query('SELECT $1 FROM orders');
SELECT validate_query('SELECT nothing FROM orders');
SELECT validate_query(E'SELECT count(*)\nFROM orders\nGROUP BY tumble(event_time, ''ä'' || ''b''),\n nothing');

-- ---- FROM ----
SELECT validate_query('SELECT 1');
SELECT validate_query('SELECT count(*) FROM plain GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT count(*) FROM missing');
SELECT validate_query('SELECT count(*) FROM orders, plain');
SELECT validate_query('SELECT count(*) FROM orders JOIN plain USING (event_time)');
SELECT validate_query('SELECT count(*) FROM (SELECT * FROM orders) AS s');
SELECT validate_query('SELECT count(*) FROM generate_series(1, 10) AS g');
SELECT validate_query('SELECT count(*) FROM orders TABLESAMPLE system (10)');

-- ---- clauses ----
SELECT validate_query('WITH w AS (SELECT 1) SELECT count(*) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT count(*) FROM orders WHERE quantity = (SELECT 1) GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT rank() OVER (ORDER BY count(*)) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT category, count(*) FROM orders GROUP BY tumble(event_time, ''1 hour''), ROLLUP (category)');
SELECT validate_query('SELECT DISTINCT count(*) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(event_time, ''1 hour'') LIMIT 5');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(event_time, ''1 hour'') ORDER BY count(*)');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(event_time, ''1 hour'') HAVING count(*) > 1');
SELECT validate_query('SELECT generate_series(1, 2) FROM orders GROUP BY tumble(event_time, ''1 hour'')');

-- what those write who come from elsewhere
SELECT validate_query('SELECT window_start, count(*) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT ''ä'' AS "ö", count(*) FROM orders GROUP BY tumbling(event_time, ''1 hour'')');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(event_time, 60)');
SELECT validate_query('SELECT nothing(quantity), count(*) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY hop(event_time, ''1 minute'', ''1 hour'')');
SELECT validate_query('SELECT string_agg(category, '','') FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT string_agg(category, category) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
-- ---- the window ----
SELECT validate_query('SELECT category, count(*) FROM orders GROUP BY category');
SELECT validate_query('SELECT count(*) FROM orders');
SELECT validate_query('SELECT lower(tumble(event_time, ''1 hour'')) AS t FROM orders GROUP BY lower(tumble(event_time, ''1 hour''))');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(event_time, ''1 hour''), tumble(event_time, ''2 hours'')');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY hop(event_time, ''1 hour'', ''5 minutes'')');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY cumulate(event_time, ''1 hour'', ''5 minutes'')');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY session(event_time, ''1 hour'')');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(shipped, ''1 hour'')');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(event_time + ''1 hour'', ''1 hour'')');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(local, ''1 hour'')');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(event_time, quantity * interval ''1 hour'')');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(event_time, NULL)');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(event_time, ''-1 hour'')');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(event_time, ''1 hour'', time_zone => category)');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(event_time, ''1 hour'', time_zone => ''Europe/Atlantis'')');
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(event_time, ''1 hour'', origin => now())');

SELECT validate_query('SELECT count(*) FROM clockwork GROUP BY tumble(now(), ''1 hour'')');
SELECT validate_query('SELECT count(*) FROM clockwork');

-- ---- keys ----
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(event_time, ''1 hour''), category');
SELECT validate_query('SELECT upper(category) AS u FROM orders GROUP BY tumble(event_time, ''1 hour''), category');
SELECT validate_query('SELECT price FROM orders GROUP BY tumble(event_time, ''1 hour''), price');
SELECT validate_query('SELECT transaction FROM orders GROUP BY tumble(event_time, ''1 hour''), transaction');
SELECT validate_query('SELECT document::json AS j FROM orders GROUP BY tumble(event_time, ''1 hour''), document::json');
SELECT validate_query('SELECT generate_series(1, quantity) AS g FROM orders GROUP BY tumble(event_time, ''1 hour''), generate_series(1, quantity)');
SELECT sqlstate_of((SELECT format('SELECT %s FROM orders GROUP BY tumble(event_time, ''1 hour''), %s',
		string_agg(format('quantity + %s AS k%s', i, i), ', '), string_agg(format('quantity + %s', i), ', '))
	FROM generate_series(1, 31) i));

-- ---- aggregates ----
SELECT validate_query('SELECT corr(DISTINCT quantity, quantity) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT array_agg(category ORDER BY category) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY quantity) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT array_agg(category) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT string_agg(category, code) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT jsonb_agg(category) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
-- some versions do not have these
SELECT call FROM unnest('{any_value(category),array_agg(ARRAY[category]),xmlagg(document::text::xml),json_objectagg(code: category),"max(ROW(category, code))::text"}'::text[]) AS call
	WHERE sqlstate_of(format('SELECT %s FROM orders GROUP BY tumble(event_time, ''1 hour'')', call)) = 'accepted';
CREATE AGGREGATE query_own.last_of(integer) (sfunc = int4larger, stype = integer);
SELECT validate_query('SELECT query_own.last_of(quantity) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT quantity FROM orders GROUP BY tumble(event_time, ''1 hour'')');

-- ---- expressions ----
SELECT validate_query('SELECT count(*) FROM orders WHERE random() < 0.5 GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT sum(random()) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT count(*) FILTER (WHERE random() < 0.5) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT count(*) + random() AS r FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT count(*) FROM orders WHERE event_time > now() GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT current_date AS d FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT max(age(event_time)) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT max(statement_timestamp() - event_time) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT current_user AS u FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT count(*) FROM orders WHERE quantity = pg_backend_pid() GROUP BY tumble(event_time, ''1 hour'')');
SELECT sqlstate_of('SELECT system_user AS u FROM orders GROUP BY tumble(event_time, ''1 hour'')') = 'accepted' AS accepted;
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(event_time, ''1 hour''), (SELECT 1)');
SELECT validate_query('SELECT count(nextval(''s'')) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
-- what inlining shows has no position in the text
CREATE FUNCTION query_own.recently(timestamptz) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT $1 > now() - interval ''1 hour''';
SELECT validate_query('SELECT count(*) FROM orders WHERE query_own.recently(event_time) GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT count(orders) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT count(tableoid) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT 1 / 0 AS x FROM orders GROUP BY tumble(event_time, ''1 hour'')');

-- ---- output columns ----
SELECT validate_query('SELECT category AS window_start FROM orders GROUP BY tumble(event_time, ''1 hour''), category');
SELECT validate_query('SELECT count(*) AS is_final FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT count(*), count(amount) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT validate_query('SELECT row(category) AS r, category FROM orders GROUP BY tumble(event_time, ''1 hour''), category');
SELECT validate_query('SELECT FROM orders GROUP BY tumble(event_time, ''1 hour'')');

-- ---- conditions ----
SELECT sqlstate_of(query) FROM unnest(ARRAY[
	'',
	'SELECT 1; SELECT 2',
	'SELECT count(*) FROM plain',
	'SELECT count(*) FROM orders, plain',
	'SELECT count(*) FROM orders GROUP BY tumble(local, ''1 hour'')',
	'SELECT count(*) FROM orders GROUP BY tumble(event_time, NULL)',
	'SELECT price FROM orders GROUP BY tumble(event_time, ''1 hour''), price',
	'SELECT count(*) FROM orders GROUP BY tumble(event_time, ''1 hour''), category',
	'SELECT count(*) AS revision FROM orders GROUP BY tumble(event_time, ''1 hour'')',
	'SELECT count(*), count(*) FROM orders GROUP BY tumble(event_time, ''1 hour'')',
	'SELECT row(1) AS r FROM orders GROUP BY tumble(event_time, ''1 hour'')',
	'SELECT upper(category || code) AS k FROM orders GROUP BY tumble(event_time, ''1 hour''), upper(category || code)'
]) WITH ORDINALITY AS q(query, n) ORDER BY n;

-- ---- privileges ----
CREATE ROLE regress_query_reader;
GRANT USAGE ON SCHEMA query_validate TO regress_query_reader;
SET ROLE regress_query_reader;
SELECT validate_query('SELECT count(*) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
RESET ROLE;
GRANT SELECT (event_time) ON orders TO regress_query_reader;
SET ROLE regress_query_reader;
SELECT column_name FROM validate_query('SELECT count(*) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
SELECT column_name FROM validate_query('SELECT sum(quantity) FROM orders GROUP BY tumble(event_time, ''1 hour'')');
RESET ROLE;

SET client_min_messages = 'warning';
DROP SCHEMA query_own CASCADE;
DROP SCHEMA query_validate CASCADE;
DROP SERVER query_validate_server;
DROP ROLE regress_query_reader;
