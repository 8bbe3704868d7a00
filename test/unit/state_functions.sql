-- The functions of state_test.c, and what compares them with the server.
\set QUIET on
SET client_min_messages = warning;

CREATE FUNCTION state_groupby(query text, runs int, ranges int, max_chunk int, fold bool, seed bigint,
    OUT n bigint, OUT line text) RETURNS SETOF record AS :'module', 'state_groupby' LANGUAGE C;
CREATE FUNCTION state_fuzz(query text, iterations int, seed bigint, mode text) RETURNS text
    AS :'module', 'state_fuzz' LANGUAGE C;
CREATE FUNCTION state_methods(query text, OUT n bigint, OUT line text) RETURNS SETOF record
    AS :'module', 'state_methods' LANGUAGE C;
CREATE FUNCTION state_bench(query text, groups int, events int) RETURNS text
    AS :'module', 'state_bench' LANGUAGE C;

-- Compares a query over one table, its first "keys" columns being the group
-- keys, with state_groupby in several ways of splitting, folding and merging.
-- How: 'exact' compares the text of rows; 'equal' makes one spelling of values
-- that are equal (1.0 and 1.00, 0 and -0, case); 'near' rounds floats.
CREATE FUNCTION check_query(name text, query text, keys int, how text DEFAULT 'exact') RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    columns text;
    order_by text;
    bad text;
    differences bigint;
    way record;
BEGIN
    -- The last column is an aggregate.
    EXECUTE format('CREATE TEMP VIEW q (%s) AS %s',
        (SELECT string_agg('c' || c, ', ' ORDER BY c)
            FROM generate_series(1, (SELECT max(n) FROM state_methods(query))) c), query);
    SELECT string_agg(CASE
            WHEN how = 'near' AND atttypid IN ('float4'::regtype, 'float8'::regtype)
                THEN format('round(%I::numeric, 6)', attname)
            WHEN how = 'exact' THEN quote_ident(attname)
            WHEN atttypid = 'numeric'::regtype THEN format('trim_scale(%I)', attname)
            WHEN atttypid = 'float4'::regtype THEN format('%I + 0::float4', attname)
            WHEN atttypid = 'float8'::regtype THEN format('%I + 0::float8', attname)
            WHEN atttypid = 'text'::regtype THEN format('lower(%I COLLATE german)', attname)
            ELSE quote_ident(attname) END, ', ' ORDER BY attnum),
        string_agg(quote_ident(attname), ', ' ORDER BY attnum) FILTER (WHERE attnum <= keys)
        INTO columns, order_by
        FROM pg_attribute WHERE attrelid = 'q'::regclass AND attnum > 0;
    EXECUTE format('CREATE TEMP TABLE expected AS
        SELECT row_number() OVER (%s) AS n, ROW(%s)::text AS line FROM q',
        CASE WHEN keys > 0 THEN 'ORDER BY ' || order_by ELSE '' END, columns);
    FOR way IN SELECT * FROM (VALUES
        (1, 1, 8000, false, 1), (5, 1, 300, false, 2), (3, 1, 8000, true, 3),
        (4, 7, 1000, false, 4), (9, 3, 200, true, 5)) AS w (runs, ranges, max_chunk, fold, seed)
    LOOP
        EXECUTE format('CREATE TEMP TABLE actual AS
            SELECT n, ROW(%s)::text AS line FROM (SELECT n, (line::q).*
            FROM state_groupby(%L, %s, %s, %s, %L, %s)) r',
            columns, query, way.runs, way.ranges, way.max_chunk, way.fold, way.seed);
        -- One range comes sorted as a whole, several only each for itself.
        SELECT count(*), min(format(E'expected %s\n  actual %s', e, a)) INTO differences, bad FROM
            (SELECT CASE WHEN way.ranges = 1 THEN n ELSE row_number() OVER (ORDER BY line) END AS n,
                line AS e FROM expected) e
            FULL JOIN
            (SELECT CASE WHEN way.ranges = 1 THEN n ELSE row_number() OVER (ORDER BY line) END AS n,
                line AS a FROM actual) a USING (n)
            WHERE e IS DISTINCT FROM a;
        IF differences > 0 THEN
            RAISE EXCEPTION '%: % rows differ with %', name, differences, way USING DETAIL = bad;
        END IF;
        DROP TABLE actual;
    END LOOP;
    EXECUTE 'DROP TABLE expected';
    DROP VIEW q;
    RETURN 'ok - ' || name;
END $$;

-- Rows whose columns meet the corners of their types, about a tenth of them NULL.
SELECT setseed(0.5) \g /dev/null
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE FUNCTION maybe(anyelement) RETURNS anyelement LANGUAGE sql VOLATILE
    AS 'SELECT CASE WHEN random() < 0.9 THEN $1 END';
CREATE FUNCTION pick(anyarray) RETURNS anyelement LANGUAGE sql VOLATILE
    AS 'SELECT $1[1 + floor(random() * cardinality($1))::int]';
CREATE TABLE t AS SELECT i,
    maybe(floor(random() * 20)::int) AS k,
    maybe(floor(random() * 4000)::bigint - 2000) AS many,
    maybe((random() * 65535 - 32768)::int::int2) AS i2,
    maybe(pick(ARRAY[2147483647, -2147483648, 0, (random() * 1e6)::int, -(random() * 100)::int])) AS i4,
    maybe(pick(ARRAY[9223372036854775807, -9223372036854775808, 0, (random() * 1e15)::int8, -7])) AS i8,
    maybe((floor(random() * 4096) / 4 - 100)::float4) AS f4,
    maybe((floor(random() * 1e9) / 4 - 1e6)::float8) AS f8,
    maybe(pick(ARRAY['NaN', 'Infinity', '-Infinity', '0', '-0', '1.5', '-1e300', '1e-300']::float8[])) AS odd_f8,
    maybe(round((random() * 2e5 - 1e5)::numeric, 2)) AS price,
    maybe(pick(ARRAY[1.0, 1.00, 1, 0, 0.000, -0.5, 12345678901234567.8, 999999999999999999,
        0.000000000000000001, -99999999999999999.9, 1000000000000000000])) AS scales,
    maybe(pick(ARRAY['NaN', '1e40', '-3e50', '12345678901234567890123456789.000000000000000000000001',
        '1', '1.000000000000000000000000', '2.50', '0', '0.0000000000000000000000', '-1e-30']::numeric[])) AS wide,
    maybe(pick(ARRAY['NaN', 'Infinity', '-Infinity', '3', '1.000000000000000000000000000']::numeric[])) AS odd_numeric,
    maybe(pick(ARRAY[170141183460469231731687303715884105727, 17014118346046923173168730371588410572.7,
        123456789012345678, 0.123456789012345678])) AS huge,
    maybe(random() < 0.5) AS b,
    maybe(date '2024-01-01' + (random() * 100)::int) AS d,
    maybe(pick(ARRAY['infinity', '-infinity', '2024-02-29', '0044-03-15 BC']::date[])) AS odd_d,
    maybe(timestamp '2024-01-01' + random() * interval '100 days') AS ts,
    maybe(pick(ARRAY['infinity', '-infinity', '1999-12-31 23:59:59.999999+00']::timestamptz[])) AS tz,
    maybe(time '00:00' + random() * interval '1 day') AS tm,
    maybe(random() * interval '100 days' + interval '3 months') AS iv,
    maybe(left(md5(i::text), (random() * 32)::int)) AS txt,
    maybe(pick(ARRAY['', 'a', 'A', 'ä', 'Ä', 'z', 'twelve bytes', 'thirteen byte', 'Thirteen byte',
        'thirteen bytf', 'ﬀ', '日本語のとても長い文字列']::text[])) AS word,
    maybe(pick(ARRAY['x', 'x  ', 'y', 'long enough']::char(11)[])) AS padded,
    maybe(pick(ARRAY['x', 'y', 'z']::varchar(11)[])) AS vc,
    maybe(pick(ARRAY['10.0.0.1', '10.0.0.0/8', '::1']::inet[])) AS ip,
    maybe((random() * 100)::numeric::money) AS cash,
    maybe(pick(ARRAY['sad', 'ok', 'happy']::mood[])) AS feeling,
    maybe(ARRAY[(random() * 3)::int, NULL]) AS arr,
    maybe(md5((random() * 9)::int::text)::uuid) AS id,
    maybe((random() * 5)::int::text::jsonb) AS j,
    maybe(int4range((random() * 3)::int, 5)) AS r,
    maybe(((random() * 3)::int + 1)::positive) AS dom,
    maybe(repeat(pick(ARRAY['long', 'LONG', 'longer']), 3000)) AS toasted,
    maybe(((random() * 15)::int)::bit(4)) AS bits,
    maybe((random() * 50)::int::oid) AS o
    FROM generate_series(1, 6000) i;
CREATE COLLATION case_blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE COLLATION german (provider = icu, locale = 'de');
