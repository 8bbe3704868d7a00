-- Rule: an instant belongs to all hopping windows [s, s + size), s a multiple of
-- "every", that hold it; and to all cumulating windows of its period that end
-- after it.
SET timezone = 'UTC';
SET datestyle = 'ISO';

SELECT hop('1970-01-01 00:00:12+00', size => '10 seconds', every => '5 seconds');
-- on a bound, and one tick before it
SELECT t, hop(t, '10 seconds', '5 seconds')
FROM unnest('{1970-01-01 00:00:10+00, 1970-01-01 00:00:09.999999+00, 1969-12-31 23:59:59.999999+00}'::timestamptz[]) AS t;
-- a size that is no multiple: 3 or 2 windows, by where the row is in the step
SELECT t, hop(t, '7 minutes', '3 minutes')
FROM unnest('{1970-01-01 00:09+00, 1970-01-01 00:09:59.999999+00, 1970-01-01 00:10+00, 1970-01-01 00:11:59.999999+00}'::timestamptz[]) AS t;
-- every = size is tumble
SELECT hop('2024-02-10 12:34+00', '1 month', '1 month') = tumble('2024-02-10 12:34+00', '1 month') AS same;
-- weeks every day and every week begin where days and weeks do
SELECT hop('2024-05-02 12:00+00', '3 days', '1 day'), to_char(lower(hop('2024-05-02 12:00+00', '3 days', '1 day')), 'Dy') AS day;
SELECT hop('2024-05-02 12:00+00', '10 days', '7 days'), to_char(lower(hop('2024-05-02 12:00+00', '10 days', '7 days')), 'Dy') AS day;
-- months
SELECT hop('2024-03-15 00:00+00', '1 year', '6 months');
SELECT hop('2024-03-15 00:00+00', '5 months', '2 months');
SELECT hop('2024-02-29 00:00+00', '3 months', '1 month', origin => '2024-01-31 00:00+00');
-- origin and zone
SELECT hop('2024-05-02 12:00+00', '2 hours', '1 hour', '2024-01-01 00:20+00');
SELECT hop('2024-05-02 12:00+00', '2 days', '1 day', time_zone => 'Europe/Berlin');

SELECT cumulate('1970-01-01 00:25+00', size => '1 hour', step => '15 minutes');
SELECT cumulate('1970-01-01 00:30+00', '1 hour', '15 minutes');
SELECT cumulate('1970-01-01 00:59:59.999999+00', '1 hour', '15 minutes');
SELECT cumulate('2024-08-15 12:00+00', '1 year', '3 months');
SELECT cumulate('2024-05-05 12:00+00', '1 week', '1 day');
SELECT cumulate('2024-05-05 12:00+00', '1 day', '8 hours', origin => '2024-05-01 06:00+00');
SELECT cumulate('2024-05-05 12:00+00', '1 day', '8 hours', time_zone => 'Asia/Kolkata');

-- no row without arguments, and none is lost after such a row
SELECT i, hop(t, size, '1 hour'), cumulate(t, size, '1 hour')
FROM (VALUES (1, '2024-01-01 00:30+00'::timestamptz, interval '2 hours'), (2, NULL, '2 hours'), (3, '2024-01-01 00:30+00', NULL), (4, '2024-01-01 05:30+00', '2 hours')) AS v (i, t, size);
SELECT count(*) FROM hop('2024-01-01+00'::timestamptz, '1 hour', NULL);

-- a set that is not read to its end does not leak into the next row
SELECT i, w FROM generate_series(1, 3) AS i, LATERAL (SELECT hop('2024-01-01+00'::timestamptz + i * interval '1 hour', '3 hours', '1 hour') AS w LIMIT 1) AS s;
SELECT i, (SELECT hop('2024-01-01+00'::timestamptz + i * interval '1 hour', '3 hours', '1 hour') LIMIT 1) FROM generate_series(1, 3) AS i;
SELECT i, w FROM generate_series(1, 2) AS i, LATERAL hop('2024-01-01+00'::timestamptz + i * interval '1 hour', '3 hours', '1 hour') AS w WHERE lower(w) <> '2024-01-01+00';
BEGIN;
DECLARE c CURSOR FOR SELECT i, hop('2024-01-01+00'::timestamptz + i * interval '1 hour', '3 hours', '1 hour') FROM generate_series(1, 2) AS i;
FETCH 2 FROM c;
SELECT hop('2024-06-01+00'::timestamptz, '2 hours', '1 hour');
FETCH 2 FROM c;
CLOSE c;
COMMIT;

-- in GROUP BY, in an expression over the set, and through a view
SELECT hop(t, '1 hour', '30 minutes') AS w, count(*) FROM generate_series('2024-01-01 00:00+00'::timestamptz, '2024-01-01 00:59+00', '1 minute') AS t GROUP BY hop(t, '1 hour', '30 minutes') ORDER BY 1;
CREATE TEMP VIEW window_hop_view AS
	SELECT lower(hop(t, '1 hour', '30 minutes')) AS start, count(*) FROM generate_series('2024-01-01 00:00+00'::timestamptz, '2024-01-01 00:59+00', '1 minute') AS t
	GROUP BY hop(t, '1 hour', '30 minutes');
SELECT * FROM window_hop_view ORDER BY start;

-- Property: the windows of hop are those of tumble(every), moved back by
-- multiples of every, made as long as size, that hold the row; in order.
SELECT count(*) AS rows, sum(cardinality(got)) AS windows, count(*) FILTER (WHERE got = expected) AS same
FROM (VALUES (interval '10 s', interval '5 s'), ('10 s', '3 s'), ('7 minutes', '7 minutes'), ('1 hour', '59 minutes'), ('1 day', '1 hour'), ('5 days', '2 days'), ('14 days', '7 days'), ('10 days', '7 days'), ('2 days', '5 hours'), ('1 us', '1 us')) AS v (size, every),
     generate_series(-60, 60) AS i,
     LATERAL (SELECT to_timestamp(i * 7654321.123457) AS t) AS a,
     LATERAL (SELECT array_agg(w ORDER BY n) AS got FROM hop(t, size, every) WITH ORDINALITY AS h (w, n)) AS b,
     LATERAL (SELECT array_agg(tstzrange(s, s + size) ORDER BY s) AS expected
              FROM generate_series(0, 30) AS k, LATERAL (SELECT lower(tumble(t, every)) - k * every AS s) AS c WHERE s + size > t) AS d;

-- Property: the same for months.
SELECT count(*) AS rows, sum(cardinality(got)) AS windows, count(*) FILTER (WHERE got = expected) AS same
FROM (VALUES (interval '3 months', interval '1 month'), ('1 year', '5 months'), ('5 months', '2 months')) AS v (size, every),
     generate_series(-60, 60) AS i,
     LATERAL (SELECT to_timestamp(i * 7654321.123457) AS t) AS a,
     LATERAL (SELECT array_agg(w ORDER BY n) AS got FROM hop(t, size, every) WITH ORDINALITY AS h (w, n)) AS b,
     LATERAL (SELECT array_agg(tstzrange(s, s + size) ORDER BY s) AS expected
              FROM generate_series(0, 30) AS k, LATERAL (SELECT lower(tumble(t, every)) - k * every AS s) AS c WHERE s + size > t) AS d;

-- Property: each cumulating window starts with its period, ends at a step after
-- the row, and the last is the whole period.
SELECT count(*) AS rows, sum(cardinality(got)) AS windows, count(*) FILTER (WHERE got = expected) AS same
FROM (VALUES (interval '10 s', interval '5 s'), ('1 hour', '15 minutes'), ('1 day', '1 hour'), ('7 days', '1 day'), ('14 days', '7 days'), ('1 hour', '1 hour')) AS v (size, step),
     generate_series(-60, 60) AS i,
     LATERAL (SELECT to_timestamp(i * 7654321.123457) AS t) AS a,
     LATERAL (SELECT array_agg(w ORDER BY n) AS got FROM cumulate(t, size, step) WITH ORDINALITY AS h (w, n)) AS b,
     LATERAL (SELECT array_agg(tstzrange(lower(p), e) ORDER BY e) AS expected
              FROM tumble(t, size) AS p, generate_series(lower(p) + step, upper(p), step) AS e WHERE e > t) AS d;
