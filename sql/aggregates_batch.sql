-- Rule: for every aggregate that is taken, over every type that it has, a query's rows are those
-- of its batch, to the last character (float statistics to the digits of a real): for tumble, hop and
-- cumulate, also with an origin, in a zone and of months, with and without FILTER and HAVING, with groups
-- of few values, of no value and of odd values, and with state that is merged from several commits.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
SET client_min_messages = warning;
CREATE SCHEMA aggregates_batch;
SET search_path = aggregates_batch, public;
\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
-- Servers without ICU have no collation to which two different texts are equal: there the column has one text.
SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'und-x-icu') AS has_icu \gset
\if :has_icu
CREATE COLLATION no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
\else
CREATE COLLATION no_case FROM "C";
\endif
CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0);

-- A number from the bits of a hash.
CREATE FUNCTION random_of(i int, salt text, below int) RETURNS int LANGUAGE sql IMMUTABLE AS
	$$ SELECT abs(('x' || substr(md5(i || salt), 1, 7))::bit(28)::int % below) $$;
-- The columns: a type, an expression over i for a usual value, and odd values.
CREATE TABLE col (name text, type text, usual text, odd text[]);
INSERT INTO col VALUES
	('b', 'boolean', $$random_of(i, 'b', 2) = 1$$, '{t,f}'),
	('i2', 'smallint', $$random_of(i, 'i2', 65535) - 32768$$, '{-32768,32767,0}'),
	('i4', 'integer', $$random_of(i, 'i4', 2000000) - 1000000$$, '{-2147483648,2147483647,0}'),
	('i8', 'bigint', $$(random_of(i, 'i8', 2000000) - 1000000)::bigint * 1000000007$$, '{-9223372036854775808,9223372036854775807}'),
	-- multiples of 1/8: their sums are exact in any order
	('f4', 'real', $$(random_of(i, 'f4', 16000) - 8000) / 8.0$$, '{NaN,Infinity,-Infinity,1}'),
	('f8', 'double precision', $$(random_of(i, 'f8', 1600000) - 800000) / 8.0$$, '{NaN,Infinity,-1}'),
	('f8b', 'double precision', $$(random_of(i, 'f8b', 1600000) - 800000) / 8.0$$, '{-Infinity,2,-2}'),
	('zero', 'double precision', $$'-0'$$, '{-0}'),
	('n', 'numeric', $$(random_of(i, 'n', 2000000) - 1000000) / 10 ^ (i % 7)::numeric + i$$, '{NaN,Infinity,-Infinity,1e-300,123456789012345678901234567890.123456789}'),
	('n2', 'numeric(12,2)', $$(random_of(i, 'n2', 200000000) - 100000000) / 100.0$$, '{NaN,0.00,-9999999999.99}'),
	('m', 'money', $$(random_of(i, 'm', 200000) / 100.0)::text$$, '{-9000000000000.00,1}'),
	('t', 'text', $$md5(i::text)$$, '{"",ä,Z,"a b"}'),
	('tc', 'text COLLATE "C"', $$left(md5(i::text || 'tc'), 9)$$, '{Ä,z,Z}'),
	('vc', 'varchar(10)', $$left(md5(i::text || 'vc'), 10)$$, '{"  x",""}'),
	('bp', 'char(5)', $$left(md5(i::text || 'bp'), 1 + i % 5)$$, '{a,ab}'),
	('d', 'date', $$date '2000-01-01' + random_of(i, 'd', 20000)$$, '{infinity,-infinity,4714-11-24 BC}'),
	('tm', 'time', $$time '00:00' + random_of(i, 'tm', 86399) * interval '1 s'$$, '{24:00,00:00}'),
	('tz', 'timetz', $$(time '00:00' + random_of(i, 'tz', 86399) * interval '1 s')::text || '+' || lpad((i % 12)::text, 2, '0')$$, '{24:00-11,00:00+14}'),
	('ts', 'timestamp', $$timestamp '2000-01-01' + random_of(i, 'ts', 100000000) * interval '1.000001 s'$$, '{infinity,-infinity}'),
	('tt', 'timestamptz', $$timestamptz '2000-01-01+00' + random_of(i, 'tt', 100000000) * interval '1.000001 s'$$, '{infinity,-infinity}'),
	('iv', 'interval', $$make_interval(months => random_of(i, 'im', 30), days => random_of(i, 'id', 90), secs => random_of(i, 'is', 100000))$$, '{"-1 mon 31 days","1000000 years"}'),
	('ip', 'inet', $$'10.' || random_of(i, 'a', 256) || '.' || random_of(i, 'c', 256) || '.' || i % 256 || '/' || 8 + i % 25$$, '{::1,ffff::/16}'),
	('cd', 'cidr', $$'10.' || random_of(i, 'cd', 256) || '.' || i % 256 || '.0/24'$$, '{::/0}'),
	('o', 'oid', $$random_of(i, 'o', 2000000000)$$, '{4294967295,0}'),
	('td', 'tid', $$'(' || random_of(i, 'td', 1000) || ',' || i % 100 + 1 || ')'$$, '{"(0,1)"}'),
	('ls', 'pg_lsn', $$to_hex(random_of(i, 'l', 1000)) || '/' || to_hex(random_of(i, 's', 1000000))$$, '{0/0,FFFFFFFF/FFFFFFFF}'),
	('x8', 'xid8', $$random_of(i, 'x8', 2000000000)$$, '{18446744073709551615}'),
	('b8', 'bit(8)', $$random_of(i, 'b8', 256)::bit(8)$$, '{00000000,11111111}'),
	('r', 'int4range', $$format('[%s,%s)', random_of(i, 'lo', 50), 60 + random_of(i, 'hi', 40))$$, '{empty,"(,)"}'),
	('nr', 'numrange', $$format('[%s,%s]', random_of(i, 'nl', 50) / 10.0, 60 + random_of(i, 'nh', 40))$$, '{empty,"(,5]"}'),
	('mr', 'int4multirange', $$format('{[%s,%s),[200,%s)}', random_of(i, 'ml', 50), 60 + random_of(i, 'mh', 40), 210 + i % 9)$$, '{"{}"}'),
	('md', 'mood', $$(enum_range(NULL::mood))[1 + i % 3]$$, '{sad}'),
	('ev', 'even', $$2 * random_of(i, 'ev', 1000)$$, '{-2}'),
	('ia', 'integer[]', $$ARRAY[random_of(i, 'ia', 10), NULL, i]$$, '{"{}","{{1,2},{3,4}}"}'),
	('ta', 'text[]', $$ARRAY[md5(i::text), 'x']$$, '{"{NULL,\"\"}"}'),
	('u', 'uuid', $$md5(i::text)::uuid$$, '{00000000-0000-0000-0000-000000000000}'),
	('j', 'jsonb', $$json_build_object('i', i)$$, '{"{}",null,"[]"}');

-- Groups: usual values, one in four NULL; few values; none; odd values.  Key k is compared by its
-- collation, key nk by numeric equality whatever the scale, key nc without regard to case.
SELECT string_agg(format('CASE WHEN g = 2 AND random_of(i, %1$L, 12) > 0 OR g = 3 OR random_of(i, ''null'' || %1$L, 4) = 0 THEN NULL
	WHEN g = 4 THEN (%2$L::text[])[1 + random_of(i, ''odd'' || %1$L, %3$s)] ELSE (%4$s)::text END AS %1$I', name, odd, cardinality(odd), usual), ', ') AS columns
FROM col \gset
\set ECHO errors
CREATE TABLE sent AS
	SELECT i, (ARRAY['usual', 'few', 'none', 'odd'])[g] AS k, (ARRAY['1', '1.0', '1.00', '2'])[1 + random_of(i, 'nk', 4)] AS nk,
		timestamptz '2026-01-05 00:00+00' + i * interval '20 s' - random_of(i, 't', 240) * interval '1 s' AS at, (ARRAY['a', CASE WHEN :'has_icu'::bool THEN 'A' ELSE 'a' END, 'b'])[1 + random_of(i, 'nc', 3)] AS nc, :columns
	FROM generate_series(0, 999) AS i, LATERAL (SELECT 1 + random_of(i, 'g', 4) AS g) AS gs;
\set ECHO all
SELECT k, count(*) AS rows, count(i4) AS integers, count(n) AS numerics, count(t) AS texts FROM sent GROUP BY k ORDER BY k;

CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea, PRIMARY KEY (partition, "offset"));
CREATE SERVER aggregates FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'aggregates_batch.log', partitions '1');
\set ECHO errors
SELECT format('SELECT stream_engine.create_stream(''s'', server => ''aggregates'', topic => ''s'', event_time => ''at'', watermark_delay => ''10 minutes'', max_future => ''10000 days'',
	staging_retention => ''0'', columns => %L)', 'at timestamptz, k text, nk numeric, nc text COLLATE aggregates_batch.no_case, ' || string_agg(format('%I %s', name, type), ', ')) FROM col \gexec
\set ECHO all
CREATE FUNCTION send(first int, past int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO log SELECT 0, i, NULL, NULL, convert_to(to_json(s)::text, 'UTF8') FROM sent s WHERE i >= first AND i < past $$;

-- What validate_query takes of all ordinary aggregates over all columns.
CREATE TABLE agg (name text, arguments text, types text, note text);
CREATE PROCEDURE try(name text, arguments text, types text) LANGUAGE plpgsql AS $$
DECLARE
	remark text;
BEGIN
	SELECT note INTO remark FROM stream_engine.validate_query(
		format('SELECT %s(%s) AS a FROM s GROUP BY tumble(at, ''1 hour'')', name, arguments)) v WHERE v.column_name = 'a';
	INSERT INTO agg VALUES (name, arguments, types, remark);
EXCEPTION WHEN undefined_function OR ambiguous_function OR datatype_mismatch THEN
	NULL;
END $$;
\set ECHO errors
SELECT format('CALL try(%L, %L, %L)', n, c.name, c.type)
FROM unnest('{avg,bit_and,bit_or,bit_xor,bool_and,bool_or,count,every,max,min,range_intersect_agg,stddev,stddev_pop,stddev_samp,sum,var_pop,var_samp,variance}'::text[]) AS n, col c
-- those that later versions have and version 15 has not
WHERE NOT (n IN ('min', 'max') AND c.name IN ('u', 'j'))
ORDER BY 1 \gexec
SELECT format('CALL try(%L, %L, %L)', n, a, t)
FROM unnest('{corr,covar_pop,covar_samp,regr_avgx,regr_avgy,regr_count,regr_intercept,regr_r2,regr_slope,regr_sxx,regr_sxy,regr_syy}'::text[]) AS n,
	(VALUES ('f8, f8b', 'double precision, double precision'), ('i4, f4', 'integer, real')) AS v (a, t) ORDER BY 1 \gexec
CALL try('count', '*', '')
;
\set ECHO all
SELECT name, string_agg(types, ', ' ORDER BY types COLLATE "C") AS over, string_agg(DISTINCT note, '; ' ORDER BY note) AS how FROM agg GROUP BY name ORDER BY name;

-- Queries: all of them at once, for each kind of window, with and without FILTER.
ALTER TABLE agg ADD COLUMN number int;
UPDATE agg SET number = o FROM (SELECT name, arguments, row_number() OVER (ORDER BY name COLLATE "C", arguments COLLATE "C") AS o FROM agg) AS n
	WHERE (n.name, n.arguments) = (agg.name, agg.arguments);
CREATE TABLE query (name text, win text, filter text, keys text, tail text DEFAULT '');
INSERT INTO query VALUES
	('tumbling', $$tumble(at, '1 hour')$$, '', 'k'), ('tumbling_some', $$tumble(at, '1 hour')$$, ' FILTER (WHERE i2 > 0 OR zero = 0)', 'k'),
	('hopping', $$hop(at, '2 hours', every => '30 minutes')$$, '', 'k'), ('hopping_some', $$hop(at, '100 minutes', every => '35 minutes')$$, ' FILTER (WHERE b)', 'k'),
	('growing', $$cumulate(at, '3 hours', step => '1 hour')$$, '', 'k'), ('growing_some', $$cumulate(at, '3 hours', step => '30 minutes')$$, ' FILTER (WHERE i4 < 0)', 'k'),
	('by_numeric', $$hop(at, '3 hours', every => '1 hour')$$, '', 'nk, nc'), ('by_null', $$tumble(at, '2 hours')$$, '', 'md, d'), ('by_nothing', $$cumulate(at, '6 hours', step => '1 hour')$$, '', NULL),
	('shifted', $$tumble(at, '70 minutes', origin => '2026-01-05 00:13+00')$$, '', 'k'), ('local_days', $$tumble(at, '1 day', time_zone => 'America/New_York')$$, ' FILTER (WHERE i2 < 0)', 'k'),
	('local_hops', $$hop(at, '7 hours', every => '3 hours', time_zone => 'Asia/Kolkata', origin => '2026-01-01 00:30+05:30')$$, '', 'k'),
	('months', $$hop(at, '2 months', every => '1 month', time_zone => 'Pacific/Auckland')$$, '', 'k'),
	('quarters', $$cumulate(at, '1 year', step => '3 months', origin => '2025-01-05 02:00+00')$$, '', 'k');
INSERT INTO query VALUES
	('tumbling_large', $$tumble(at, '1 hour')$$, '', 'k', 'HAVING count(*) > 40 OR max(i2) < 30000'), ('hopping_large', $$hop(at, '2 hours', every => '30 minutes')$$, '', 'k', 'HAVING sum(n2) > 0'),
	('growing_large', $$cumulate(at, '3 hours', step => '1 hour')$$, '', 'k', 'HAVING bool_or(b) AND count(t) > 20');
\set ECHO errors
SELECT format('SELECT stream_engine.create_query(%L, %L)', q.name, format('SELECT %s%s FROM s GROUP BY %s%s %s', keys || ', ',
	(SELECT string_agg(format('%s(%s)%s AS a%s', a.name, a.arguments, filter, number), ', ' ORDER BY number) FROM agg a), win, ', ' || keys, tail))
FROM query q ORDER BY name \gexec
\set ECHO all
-- expressions over keys, aggregates and the window, beside those that are keys
SELECT stream_engine.create_query('expressions', $$
	SELECT upper(k) AS who, i2 % 3 AS third, md AS mood, COALESCE(md::text, 'none') AS mood_text, sum(i4) * 2 - count(*) AS a, round(avg(n2), 3) || ' of ' || count(n2) AS b, max(d) > min(d) AS spread,
		CASE WHEN bool_and(b) THEN 'all' WHEN bool_or(b) THEN 'some' ELSE COALESCE(min(t), 'none') END AS c, upper(hop(at, '2 hours', every => '30 minutes')) - max(at) AS rest,
		ARRAY[min(i2), max(i2)] AS span, sum(CASE WHEN tm > '12:00' THEN 1 ELSE 0 END) FILTER (WHERE i8 IS NOT NULL) AS afternoon, avg(length(t) * i2::numeric) AS d
	FROM s WHERE i2 IS NOT NULL OR d > '2010-01-01' GROUP BY hop(at, '2 hours', every => '30 minutes'), upper(k), i2 % 3, md
	HAVING count(*) > 1 AND max(at) > '2026-01-05 00:30+00' $$);
-- in three pieces, so that states of several commits are merged
SELECT send(0, 333);
CALL stream_engine.wait('s', '1 minute');
SELECT send(333, 500);
CALL stream_engine.wait('s', '1 minute');
SELECT send(500, 1000);
CALL stream_engine.wait('s', '1 minute');
SELECT sum(dead) AS dead FROM stream_engine.stat_partitions WHERE stream = 's'::regclass;
SELECT stream_engine.advance_watermark('s', '2028-01-01+00');
CALL until($$ min(watermark) >= '2028-01-01+00' FROM stream_engine.stat_queries WHERE stream = 's'::regclass $$);
SELECT query, state FROM stream_engine.queries q JOIN LATERAL (SELECT name::text AS query) AS n ON true WHERE stream = 's'::regclass AND state <> 'running';
SELECT count(*) AS queries, sum(late) AS late, bool_and(decoded = counted + filtered) AS all_counted FROM stream_engine.stat_queries WHERE stream = 's'::regclass;

-- The last digits of float statistics depend on the order of additions, as in any parallel plan.
CREATE FUNCTION rounded(x double precision) RETURNS text LANGUAGE sql STABLE AS
	$$ SELECT CASE WHEN x IN ('NaN', 'Infinity', '-Infinity') THEN x::text ELSE x::real::text END $$;
CREATE FUNCTION compare(query text, keys text, OUT rows bigint, OUT columns bigint, OUT differences text) LANGUAGE plpgsql AS $$
DECLARE
	a record;
	n bigint;
	expression text;
BEGIN
	EXECUTE format('SELECT count(*) FROM %I', query) INTO rows;
	columns := 0;
	FOR a IN SELECT * FROM agg ORDER BY number LOOP
		SELECT format(CASE WHEN atttypid = 'float8'::regtype AND (a.name ~ '^(stddev|var|corr|covar|regr)') THEN 'rounded(%I)' ELSE '%I::text' END, attname)
			INTO expression FROM pg_attribute WHERE attrelid = query::regclass AND attname = 'a' || a.number;
		EXECUTE format('SELECT count(*) FROM ((SELECT window_start, window_end, %3$s, %2$s FROM %1$I WHERE is_final EXCEPT ALL SELECT window_start, window_end, %3$s, %2$s FROM %4$I)
			UNION ALL (SELECT window_start, window_end, %3$s, %2$s FROM %4$I EXCEPT ALL SELECT window_start, window_end, %3$s, %2$s FROM %1$I WHERE is_final)) AS d',
			query, expression, COALESCE(keys, '0 AS no_key'), query || '_in_batch') INTO n;
		columns := columns + 1;
		IF n > 0 THEN
			differences := concat_ws('; ', differences, format('%s(%s): %s', a.name, a.types, n));
		END IF;
	END LOOP;
END $$;
\set ECHO errors
SELECT format('CREATE TEMP TABLE %I AS TABLE %I', name || '_in_batch', name || '_batch') FROM query \gexec
\set ECHO all
SELECT q.name, c.* FROM query q, compare(q.name, q.keys) AS c ORDER BY 1;
SELECT count(*), count(DISTINCT (who, third, mood)) FROM expressions;
SELECT count(*) AS differences FROM ((SELECT to_jsonb(e) - '{is_final,revision,emitted_at}'::text[] FROM expressions AS e EXCEPT ALL SELECT to_jsonb(e) FROM expressions_batch AS e)
	UNION ALL (SELECT to_jsonb(e) FROM expressions_batch AS e EXCEPT ALL SELECT to_jsonb(e) - '{is_final,revision,emitted_at}'::text[] FROM expressions AS e)) AS d;
SELECT * FROM stream_engine.verify('expressions');
-- verify() is of the same opinion
SELECT q.name, v.window_start, v.window_end, v.problem FROM query q, LATERAL stream_engine.verify(q.name::regclass) AS v;

-- Samples of what is easily lost: the scale of a numeric, a negative zero, NaN among infinities.
CREATE TEMP TABLE sample AS SELECT * FROM (VALUES ('sum', 'n2', 1), ('sum', 'zero', 2), ('max', 'f8', 3), ('avg', 'iv', 4), ('min', 'bp', 5), ('range_intersect_agg', 'mr', 6)) AS v (name, arguments, o);
SELECT format('SELECT window_start, k, %s FROM tumbling WHERE window_start <= ''2026-01-05 01:00+00'' ORDER BY 1, 2',
	string_agg(format('a%s AS %s_%s', number, left(name, 5), arguments), ', ' ORDER BY o)) FROM agg JOIN sample USING (name, arguments) \gexec

SELECT stream_engine.drop_stream('s', cascade => true);
DROP SERVER aggregates;
SET client_min_messages = error;
DROP SCHEMA aggregates_batch CASCADE;
