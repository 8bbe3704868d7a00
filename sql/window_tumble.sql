-- Rule: each instant belongs to exactly one tumbling window [start, end),
-- aligned to the Unix epoch in UTC unless an origin or a zone moves it.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';

-- half-open: the start is inside, the end belongs to the next window
SELECT t, tumble(t, '10 seconds')
FROM unnest('{1970-01-01 00:00:00+00, 1970-01-01 00:00:09.999999+00, 1970-01-01 00:00:10+00}'::timestamptz[]) AS t;

-- before the epoch, and before 2000 (where the server counts from), bounds are
-- still rounded down
SELECT t, tumble(t, '10 seconds')
FROM unnest('{1969-12-31 23:59:59.999999+00, 1969-12-31 23:59:50+00, 1969-12-31 23:59:49.999999+00,
              1999-12-31 23:59:59.999999+00, 0044-03-15 12:00:00+00 BC}'::timestamptz[]) AS t;

-- sizes that do not divide a day count from the epoch, not from midnight
SELECT tumble('1970-01-01 00:20+00', '7 minutes'), tumble('1970-01-02 00:00+00', '7 hours');

-- whole weeks begin on Mondays, other numbers of days on 1970-01-01; hours are
-- not days, however many
SELECT size, tumble('1970-01-04 12:00+00', size::interval), to_char(lower(tumble('1970-01-04 12:00+00', size::interval)), 'FMDay') AS day
FROM unnest('{1 week, 7 days, 14 days, 2 days, 10 days, 168 hours}'::text[]) AS size;

-- months and years are calendar units
SELECT size, tumble('2024-02-29 23:59:59.999999+00', size::interval)
FROM unnest('{1 month, 2 months, 3 months, 6 months, 1 year, 5 years, 10 years}'::text[]) AS size;
SELECT tumble('1969-12-31+00', '1 month'), tumble('1969-12-31+00', '3 months'), tumble('0001-01-15+00 BC', '1 month');

-- an origin moves the windows, forward and back, and takes the place of Mondays
SELECT tumble('2024-05-01 12:00+00', '1 hour', '2024-01-01 00:15+00'),
       tumble('2024-05-01 12:00+00', '1 hour', '2100-01-01 00:15+00');
SELECT tumble('2024-05-01 12:00+00', '1 week', '2024-01-03 00:00+00') AS from_wednesday;
SELECT tumble('2024-05-01 12:00+00', '1 month', origin => '2024-01-15 06:00+00');
-- the 31st is the last day of shorter months, and the 31st again after them
SELECT t, tumble(t, '1 month', origin => '2023-01-31 00:00+00')
FROM unnest('{2023-02-27 23:59+00, 2023-02-28 00:00+00, 2023-03-30 23:59+00, 2023-03-31 00:00+00, 2024-02-29 00:00+00, 2022-12-31 00:00+00, 2022-12-30 00:00+00}'::timestamptz[]) AS t;

-- no argument, no window
SELECT tumble(NULL::timestamptz, '1 hour') IS NULL AS t, tumble('2024-01-01+00'::timestamptz, NULL) IS NULL AS size;

-- named notation
SELECT tumble(ts => '2024-05-01 12:34+00', size => '1 hour', origin => '2024-01-01 00:30+00', time_zone => 'UTC');

-- the setting of TimeZone has no influence
SET timezone = 'Asia/Kolkata';
SELECT tumble('2024-05-01 00:30+00', '1 day') = '[2024-05-01 00:00+00,2024-05-02 00:00+00)'::tstzrange AS same;
SET timezone = 'UTC';
SELECT provolatile, proparallel, count(*) FROM pg_proc
WHERE proname IN ('tumble', 'hop', 'cumulate', 'session') AND prosrc LIKE 'se\_%' GROUP BY 1, 2;

-- Property: the row is inside, and windows partition the line of time: the last
-- instant before a window and the first after it are in its neighbours.
SELECT count(*) AS rows,
       count(*) FILTER (WHERE w @> t) AS inside,
       count(*) FILTER (WHERE upper(tumble(lower(w) - interval '1 us', size)) = lower(w)) AS after_neighbour,
       count(*) FILTER (WHERE lower(tumble(upper(w), size)) = upper(w)) AS before_neighbour,
       count(*) FILTER (WHERE tumble(lower(w), size) = w AND tumble(upper(w) - interval '1 us', size) = w) AS one_window
FROM unnest('{1 us, 1 ms, 00:00:00.007, 10 s, 7 minutes, 1 hour, 5 hours, 1 day, 3 days, 1 week, 36 hours, 1 day 06:00, 1 month, 5 months, 1 year}'::interval[]) AS size,
     generate_series(-400, 400) AS i,
     LATERAL (SELECT to_timestamp(i * 7654321.123457) AS t) AS a,
     LATERAL (SELECT tumble(t, size) AS w) AS b;

-- Property: sizes of fixed length agree with date_bin.
SELECT count(*) AS rows, count(*) FILTER (WHERE tumble(t, size) = tstzrange(bin, bin + size)) AS same
FROM unnest('{1 ms, 00:00:00.007, 10 s, 7 minutes, 15 minutes, 1 hour, 5 hours, 100 hours}'::interval[]) AS size,
     generate_series(-400, 400) AS i,
     LATERAL (SELECT to_timestamp(i * 7654321.123457) AS t) AS a,
     LATERAL (SELECT date_bin(size, t, '1970-01-01 00:00+00') AS bin) AS b;
SELECT count(*) AS rows, count(*) FILTER (WHERE lower(tumble(t, size, origin)) = date_bin(size, t, origin)) AS same
FROM unnest('{7 minutes, 1 hour, 5 hours, 1 day, 7 days, 10 days}'::interval[]) AS size,
     unnest('{2001-02-03 04:05:06.789+00, 1950-01-01 00:00:01+00, 2050-01-01 00:00:01+00}'::timestamptz[]) AS origin,
     generate_series(-100, 100) AS i,
     LATERAL (SELECT to_timestamp(i * 7654321.123457) AS t) AS a;

-- Property: calendar units agree with date_trunc.
SELECT unit, count(*) AS rows, count(*) FILTER (WHERE lower(w) = date_trunc(unit, t)) AS starts,
       count(*) FILTER (WHERE upper(w) = date_trunc(unit, t) + ('1 ' || unit)::interval) AS ends
FROM unnest('{day, week, month, year}'::text[]) AS unit,
     generate_series(-500, 500) AS i,
     LATERAL (SELECT to_timestamp(i * 7654321.123457) AS t) AS a,
     LATERAL (SELECT tumble(t, ('1 ' || unit)::interval) AS w) AS b
GROUP BY unit ORDER BY unit;

-- arguments that change from row to row
SELECT size, zone, tumble('2024-07-01 12:00+00', size, time_zone => zone)
FROM (VALUES (interval '1 hour', NULL), ('1 day', NULL), ('1 day', 'Asia/Tokyo'), ('1 day', 'America/New_York'), ('1 hour', ''||'UTC'), ('1 day', 'Asia/Tokyo')) AS v (size, zone);

-- in GROUP BY
SELECT lower(w) AS start, count(*), sum(i) FROM (SELECT i, tumble('2024-01-01 00:00+00'::timestamptz + i * interval '1 minute', '7 minutes', '2024-01-01+00') AS w FROM generate_series(0, 20) AS i) AS s
GROUP BY w ORDER BY w;
SELECT tumble(t, '1 hour'), count(*) FROM generate_series('2024-01-01 00:30+00'::timestamptz, '2024-01-01 02:15+00', '15 minutes') AS t
GROUP BY tumble(t, '1 hour') ORDER BY 1;
