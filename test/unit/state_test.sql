-- Each line states what it checks and prints TAP's "ok"; the first difference
-- raises.
\set QUIET on

-- Kernels over their types.
SELECT check_query('counts', 'SELECT k, count(*), count(i4), count(txt), count(wide), count(j) FROM t GROUP BY k', 1);
SELECT check_query('counts without keys', 'SELECT count(*), sum(i8), min(txt) FROM t', 0);
SELECT check_query('smallint', 'SELECT k, sum(i2), avg(i2), min(i2), max(i2) FROM t GROUP BY k', 1);
SELECT check_query('integer', 'SELECT k, sum(i4), avg(i4), min(i4), max(i4) FROM t GROUP BY k', 1);
SELECT check_query('bigint', 'SELECT k, sum(i8), avg(i8), min(i8), max(i8), count(*), count(i8) FROM t GROUP BY k', 1);
SELECT check_query('order of aggregates', 'SELECT k, max(i8), avg(i8), min(i8), sum(i8), max(i8), count(i8) FROM t GROUP BY k', 1);
SELECT check_query('many groups', 'SELECT many, count(*), sum(i4), min(i4), max(i4), avg(price) FROM t GROUP BY many', 1);
SELECT check_query('one row a group', 'SELECT i, count(*), sum(i8), min(i8), max(i8), avg(price), max(price), min(scales), sum(scales), sum(f8), max(f8) FROM t GROUP BY i', 1);
SELECT check_query('real', 'SELECT k, sum(f4), avg(f4), min(f4), max(f4) FROM t GROUP BY k', 1);
SELECT check_query('double precision', 'SELECT k, sum(f8), avg(f8), min(f8), max(f8) FROM t GROUP BY k', 1);
SELECT check_query('NaN, infinity, -0', 'SELECT many, min(odd_f8), max(odd_f8), sum(odd_f8) FROM t GROUP BY many', 1, 'equal');
SELECT check_query('decimals', 'SELECT k, sum(price), avg(price), min(price), max(price) FROM t GROUP BY k', 1);
SELECT check_query('decimals of many scales', 'SELECT k, sum(scales), avg(scales), count(scales) FROM t GROUP BY k', 1);
SELECT check_query('least and greatest of many scales', 'SELECT k, min(scales), max(scales) FROM t GROUP BY k', 1, 'equal');
SELECT check_query('wide numerics', 'SELECT many, sum(wide), avg(wide) FROM t GROUP BY many', 1);
SELECT check_query('least and greatest of wide numerics', 'SELECT many, min(wide), max(wide) FROM t GROUP BY many', 1, 'equal');
SELECT check_query('numeric infinity', 'SELECT many, sum(odd_numeric), avg(odd_numeric), min(odd_numeric), max(odd_numeric) FROM t GROUP BY many', 1, 'equal');
SELECT check_query('sums beyond 128 bits', 'SELECT k, sum(huge), avg(huge), min(huge), max(huge) FROM t GROUP BY k', 1);
SELECT check_query('booleans', 'SELECT many, bool_and(b), bool_or(b), every(b) FROM t GROUP BY many', 1);
SELECT check_query('dates and times', 'SELECT k, min(d), max(d), min(odd_d), max(odd_d), min(ts), max(ts), min(tz), max(tz) FROM t GROUP BY k', 1);
SELECT check_query('FILTER and shared inputs', 'SELECT k, sum(i4) FILTER (WHERE b), sum(i4), avg(i4) FILTER (WHERE b), avg(i4) FILTER (WHERE NOT b), count(*) FILTER (WHERE b), sum(i4) FILTER (WHERE false), count(*) FILTER (WHERE false) FROM t GROUP BY k', 1);
SELECT check_query('expressions', 'SELECT k % 3, sum(i2 * 2), sum(i2 * 2 + 1), max(i2 * 2) FROM t GROUP BY k % 3', 1);

-- Aggregates through their own functions.
SELECT check_query('text', 'SELECT k, min(txt), max(txt), min(vc), max(vc), min(padded), max(padded), min(toasted) FROM t GROUP BY k', 1);
SELECT check_query('text by a collation', 'SELECT k, min(word COLLATE german), max(word COLLATE german), min(word COLLATE "C"), max(word COLLATE "C") FROM t GROUP BY k', 1);
SELECT check_query('intervals', 'SELECT k, sum(iv), avg(iv), min(iv), max(iv) FROM t GROUP BY k', 1);
SELECT check_query('times', 'SELECT many, min(tm), max(tm), avg(tm) FROM t GROUP BY many', 1);
SELECT check_query('money, inet, enum, oid', 'SELECT many, sum(cash), min(cash), max(cash), min(ip), max(ip), min(feeling), max(feeling), min(o), max(o) FROM t GROUP BY many', 1);
SELECT check_query('arrays', 'SELECT many, min(arr), max(arr) FROM t GROUP BY many', 1);
SELECT check_query('bit operations', 'SELECT many, bit_and(i4), bit_or(i4), bit_xor(i4), bit_and(i8), bit_or(i2), bit_xor(bits), bit_and(bits) FROM t GROUP BY many', 1);
SELECT check_query('ranges', 'SELECT many, range_intersect_agg(r) FROM t GROUP BY many', 1);
SELECT check_query('exact variances', 'SELECT many, var_pop(i4), var_samp(i2), stddev(i8), stddev_pop(price), variance(wide), stddev_samp(scales) FROM t GROUP BY many', 1);
SELECT check_query('float variances', 'SELECT k, var_pop(f8 / 1e5), var_samp(f4), stddev(f8 / 1e5), stddev_pop(f4) FROM t GROUP BY k', 1, 'near');
SELECT check_query('two arguments', 'SELECT k, corr(f4, i2), covar_pop(f4, i2), covar_samp(f4, i2), regr_count(f4, i2), regr_slope(f4, i2), regr_intercept(f4, i2), regr_r2(f4, i2), regr_avgx(f4, i2), regr_sxx(f4, f4), regr_syy(f4, f4), regr_sxy(f4, f4) FROM t GROUP BY k', 1, 'near');
SELECT check_query('domains', 'SELECT many, sum(dom), min(dom), count(dom) FROM t GROUP BY many', 1);

-- Aggregates over distinct values.
SELECT check_query('distinct counts', 'SELECT k, count(DISTINCT i2), count(DISTINCT i4), count(DISTINCT i8), count(DISTINCT f4), count(DISTINCT b), count(DISTINCT txt), count(DISTINCT price), count(DISTINCT scales), count(DISTINCT wide), count(DISTINCT d), count(DISTINCT tz), count(*) FROM t GROUP BY k', 1);
SELECT check_query('distinct counts of other types', 'SELECT many, count(DISTINCT iv), count(DISTINCT tm), count(DISTINCT id), count(DISTINCT ip), count(DISTINCT arr), count(DISTINCT r), count(DISTINCT j), count(DISTINCT feeling), count(DISTINCT padded), count(DISTINCT vc), count(DISTINCT o), count(DISTINCT dom), count(DISTINCT toasted) FROM t GROUP BY many', 1);
SELECT check_query('distinct counts without keys', 'SELECT count(DISTINCT i8), count(DISTINCT txt), count(DISTINCT b) FROM t', 0);
SELECT check_query('distinct counts by a collation', 'SELECT k, count(DISTINCT word COLLATE case_blind), count(DISTINCT word COLLATE german), count(DISTINCT word COLLATE "C") FROM t GROUP BY k', 1);
SELECT check_query('distinct sums', 'SELECT k, sum(DISTINCT i2), sum(DISTINCT i4), avg(DISTINCT i8), sum(DISTINCT price), avg(DISTINCT price), sum(DISTINCT f8), stddev(DISTINCT i4), bit_xor(DISTINCT i4) FROM t GROUP BY k', 1);
SELECT check_query('distinct least and greatest', 'SELECT k, min(DISTINCT txt), max(DISTINCT vc), min(DISTINCT i4), max(DISTINCT iv), max(DISTINCT arr) FROM t GROUP BY k', 1);
SELECT check_query('distinct, of which no more is left', 'SELECT many, array_agg(DISTINCT i2), array_agg(DISTINCT txt ORDER BY txt DESC), array_agg(DISTINCT b ORDER BY b NULLS FIRST), string_agg(DISTINCT txt, '', ''), string_agg(DISTINCT word COLLATE "C", NULL), jsonb_agg(DISTINCT i2) FROM t GROUP BY many', 1);
SELECT check_query('distinct with FILTER, beside others', 'SELECT k, count(DISTINCT i4) FILTER (WHERE b), count(DISTINCT i4), count(DISTINCT i4) FILTER (WHERE NOT b), sum(i4), count(i4), max(txt), count(DISTINCT txt) FILTER (WHERE false) FROM t GROUP BY k', 1);
SELECT check_query('distinct, one row a group', 'SELECT i, count(DISTINCT i4), array_agg(DISTINCT txt), sum(DISTINCT wide) FROM t GROUP BY i', 1);

-- Group keys over types, in sorted order.
SELECT check_query('key boolean, date', 'SELECT b, d, count(*) FROM t GROUP BY b, d', 2);
SELECT check_query('key timestamptz', 'SELECT tz, ts, count(*) FROM t GROUP BY tz, ts', 2);
SELECT check_query('key double precision', 'SELECT odd_f8, count(*) FROM t GROUP BY odd_f8', 1, 'equal');
SELECT check_query('key real', 'SELECT f4, count(*) FROM t GROUP BY f4', 1);
SELECT check_query('key numeric', 'SELECT price, count(*) FROM t GROUP BY price', 1);
SELECT check_query('key numeric of many scales', 'SELECT scales, count(*) FROM t GROUP BY scales', 1, 'equal');
SELECT check_query('key wide numeric', 'SELECT wide, odd_numeric, count(*) FROM t GROUP BY wide, odd_numeric', 2, 'equal');
SELECT check_query('key text', 'SELECT txt, count(*), max(i) FROM t GROUP BY txt', 1);
SELECT check_query('key text C', 'SELECT word COLLATE "C", count(*) FROM t GROUP BY word COLLATE "C"', 1);
SELECT check_query('key text German', 'SELECT word COLLATE german, count(*) FROM t GROUP BY word COLLATE german', 1);
SELECT check_query('key text without case', 'SELECT word COLLATE case_blind, count(*) FROM t GROUP BY word COLLATE case_blind', 1, 'equal');
SELECT check_query('key toasted text', 'SELECT toasted, count(*) FROM t GROUP BY toasted', 1);
SELECT check_query('key char(n), varchar', 'SELECT padded, vc, count(*) FROM t GROUP BY padded, vc', 2);
SELECT check_query('key interval, time', 'SELECT iv, tm, count(*) FROM t GROUP BY iv, tm', 2);
SELECT check_query('key uuid, enum, inet', 'SELECT id, feeling, ip, count(*), sum(i4) FROM t GROUP BY id, feeling, ip', 3);
SELECT check_query('key jsonb, array, range, domain', 'SELECT j, arr, r, dom, count(*) FROM t GROUP BY j, arr, r, dom', 4);
SELECT check_query('key oid, bytea, name', 'SELECT o, word::bytea, word::name, count(*) FROM t GROUP BY o, word::bytea, word::name', 3);
SELECT check_query('key row', 'SELECT ROW(k, word)::pair, count(*) FROM t GROUP BY ROW(k, word)::pair', 1);
SELECT check_query('thirty keys', 'SELECT ' || string_agg(format('k + %s', n), ', ') || ', count(*) FROM t GROUP BY '
    || string_agg(format('k + %s', n), ', '), 30) FROM generate_series(1, 30) n;
SELECT check_query('seventy aggregates', 'SELECT k, ' || string_agg(format('sum(i2 - %s), min(i2 + %s)', n, n), ', ') || ' FROM t GROUP BY k', 1)
    FROM generate_series(1, 35) n;
CREATE TABLE nothing AS SELECT * FROM t WHERE false;
SELECT check_query('no groups', 'SELECT k, count(*) FROM nothing GROUP BY k', 1);

-- A million groups: growth, and the memory that goes with it.
CREATE TABLE large AS SELECT (i * 7919::bigint) % 1000003 AS key, i % 100 AS v FROM generate_series(1, 1000000) i;
SELECT CASE WHEN (SELECT count(*) FROM (
    SELECT line FROM state_groupby('SELECT key, count(*), sum(v), min(v) FROM large GROUP BY key', 2, 4, 8000, false, 1)
    EXCEPT ALL SELECT ROW(key, count(*), sum(v), min(v))::text FROM large GROUP BY key) d) = 0
    THEN 'ok' ELSE 'not ok' END || ' - a million groups';

-- Damage.
SELECT state_fuzz('SELECT many, count(*), sum(i4), avg(i8), min(i8), max(i8) FROM t GROUP BY many', 3000, 1, 'flat') || ' - damaged integers';
SELECT state_fuzz('SELECT word, scales, f4, sum(wide), avg(scales), min(wide), max(price), sum(f8) FROM t GROUP BY word, scales, f4', 3000, 2, 'flat') || ' - damaged text and decimals';
SELECT state_fuzz('SELECT wide, id, min(txt), stddev(i4) FROM t GROUP BY wide, id', 3000, 3, 'deserialize') || ' - damaged wide keys and serialized states';
SELECT state_fuzz('SELECT k, count(DISTINCT i4), array_agg(DISTINCT i8), count(DISTINCT b) FROM t GROUP BY k', 3000, 5, 'flat') || ' - damaged sets';
SELECT state_fuzz('SELECT arr, avg(iv), range_intersect_agg(r), max(arr) FROM t GROUP BY arr', 3000, 4, 'crc') || ' - damaged arrays and ranges';

-- How aggregates are executed.
SELECT CASE WHEN string_agg(line, ',' ORDER BY n) = 'kernel,kernel,combine,combine,'
    'distinct,unsupported: It has an ORDER BY clause.,'
    'unsupported: It is an ordered-set aggregate.,unsupported: The aggregate has no combine function.'
    THEN 'ok' ELSE 'not ok: ' || string_agg(line, ',' ORDER BY n) END || ' - methods'
    FROM state_methods('SELECT sum(i4), avg(price), max(txt), stddev(i4), count(DISTINCT i4),
        sum(i4 ORDER BY i4), mode() WITHIN GROUP (ORDER BY i4), jsonb_agg(i4) FROM t');
CREATE AGGREGATE own(int) (sfunc = int4pl, stype = int, combinefunc = int4pl, initcond = 0);
SELECT CASE WHEN line LIKE 'unsupported: It is not one%' THEN 'ok' ELSE 'not ok' END || ' - aggregates of others'
    FROM state_methods('SELECT own(i4) FROM t');

-- Errors are the server's.
CREATE FUNCTION raises(query text, state text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM state_groupby(query, 2, 1, 8000, false, 1);
    RETURN 'not ok - nothing raised by ' || query;
EXCEPTION WHEN OTHERS THEN
    RETURN CASE WHEN SQLSTATE = state THEN 'ok' ELSE 'not ok: ' || SQLERRM END || ' - error of ' || query;
END $$;
CREATE TABLE overflowing AS SELECT 3e38::float4 AS f4, 1.5e308::float8 AS f8, '$92233720368547758.07'::money AS m FROM generate_series(1, 4);
SELECT raises('SELECT sum(f4) FROM overflowing', '22003');
SELECT raises('SELECT sum(f8) FROM overflowing', '22003');
SELECT raises('SELECT own(f4::int) FROM overflowing', '0A000');
SELECT raises('SELECT m, count(*) FROM overflowing GROUP BY m', '42883');
SELECT raises('SELECT ROW(f4, f8), count(*) FROM overflowing GROUP BY ROW(f4, f8)', '0A000');
