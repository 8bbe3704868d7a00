-- Costs of updating, flushing and merging; see state_bench in state_test.c.
\set QUIET on
CREATE TABLE bench (key bigint, name text, v4 int, v8 bigint, p numeric, f float8);
SELECT 'bigint key, count sum min max of int: ' || state_bench('SELECT key, count(*), sum(v4), min(v4), max(v4) FROM bench GROUP BY key', g, e)
    FROM (VALUES (8, 100000), (1000, 500000), (10000, 500000), (100000, 1000000), (1000000, 2000000)) w (g, e);
SELECT 'bigint key, count sum min max of bigint: ' || state_bench('SELECT key, count(*), sum(v8), min(v8), max(v8) FROM bench GROUP BY key', g, e)
    FROM (VALUES (1000, 500000), (100000, 1000000)) w (g, e);
SELECT 'bigint key, count sum avg min of numeric: ' || state_bench('SELECT key, count(*), sum(p), avg(p), min(p) FROM bench GROUP BY key', g, e)
    FROM (VALUES (1000, 500000), (100000, 1000000)) w (g, e);
SELECT 'text key, count sum min max of int: ' || state_bench('SELECT name, count(*), sum(v4), min(v4), max(v4) FROM bench GROUP BY name', g, e)
    FROM (VALUES (1000, 500000), (100000, 1000000)) w (g, e);
SELECT 'text key of collation C, count: ' || state_bench('SELECT name COLLATE "C", count(*) FROM bench GROUP BY name COLLATE "C"', g, e)
    FROM (VALUES (1000, 500000), (100000, 1000000)) w (g, e);
SELECT 'bigint key, stddev of int (combine): ' || state_bench('SELECT key, stddev(v4) FROM bench GROUP BY key', g, e)
    FROM (VALUES (1000, 300000)) w (g, e);
