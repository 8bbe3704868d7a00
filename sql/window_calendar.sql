-- Rule: in a zone, rows are bucketed by the zone's clock, and bounds are instants
-- again: windows partition the line of time whatever the clock does.
SET timezone = 'UTC';
SET datestyle = 'ISO';

-- The windows one after the other, as the zone's clock shows their starts, with
-- their true lengths.
CREATE FUNCTION pg_temp.windows(zone text, size interval, since timestamptz, until timestamptz)
RETURNS TABLE (starts timestamp, start_utc timestamptz, length interval) LANGUAGE sql AS $$
	WITH RECURSIVE w (w) AS (
		SELECT tumble(since, size, time_zone => zone)
		UNION ALL
		SELECT tumble(upper(w), size, time_zone => zone) FROM w WHERE upper(w) < until)
	SELECT lower(w) AT TIME ZONE zone, lower(w), upper(w) - lower(w) FROM w $$;

-- Berlin. Spring: 02:00 to 03:00 is skipped; the day has 23 hours.
SELECT * FROM pg_temp.windows('Europe/Berlin', '1 day', '2024-03-30 12:00+01', '2024-04-02 00:00+02');
SELECT * FROM pg_temp.windows('Europe/Berlin', '1 hour', '2024-03-31 00:00+01', '2024-03-31 05:00+02');
SELECT * FROM pg_temp.windows('Europe/Berlin', '6 hours', '2024-03-31 00:00+01', '2024-04-01 00:00+02');
-- a window whose start is skipped begins with the first instant after the gap
SELECT * FROM pg_temp.windows('Europe/Berlin', '40 minutes', '2024-03-31 00:40+01', '2024-03-31 05:00+02');
-- Autumn: 02:00 to 03:00 comes twice; the day has 25 hours, and each pass of the
-- hour is a window.
SELECT * FROM pg_temp.windows('Europe/Berlin', '1 day', '2024-10-26 12:00+02', '2024-10-29 00:00+01');
SELECT * FROM pg_temp.windows('Europe/Berlin', '1 hour', '2024-10-27 01:00+02', '2024-10-27 05:00+01');
SELECT * FROM pg_temp.windows('Europe/Berlin', '30 minutes', '2024-10-27 01:30+02', '2024-10-27 03:30+01');
SELECT * FROM pg_temp.windows('Europe/Berlin', '6 hours', '2024-10-27 00:00+02', '2024-10-28 00:00+01');
-- weeks, months and years start at local midnight
SELECT * FROM pg_temp.windows('Europe/Berlin', '1 week', '2024-03-20 00:00+01', '2024-04-15 00:00+02');
SELECT * FROM pg_temp.windows('Europe/Berlin', '1 month', '2024-01-15 00:00+01', '2024-06-01 00:00+02');
SELECT * FROM pg_temp.windows('Europe/Berlin', '1 year', '2022-06-01 00:00+02', '2025-01-01 00:00+01');

-- New York
SELECT * FROM pg_temp.windows('America/New_York', '1 day', '2024-03-09 12:00-05', '2024-03-12 00:00-04');
SELECT * FROM pg_temp.windows('America/New_York', '1 hour', '2024-03-10 00:00-05', '2024-03-10 05:00-04');
SELECT * FROM pg_temp.windows('America/New_York', '1 day', '2024-11-02 12:00-04', '2024-11-05 00:00-05');
SELECT * FROM pg_temp.windows('America/New_York', '1 hour', '2024-11-03 00:00-04', '2024-11-03 04:00-05');
SELECT * FROM pg_temp.windows('America/New_York', '2 hours', '2024-11-03 00:00-04', '2024-11-03 06:00-05');

-- Lord Howe's summer time is half an hour: hours of 30 and of 90 minutes, and
-- both passes of 01:30 to 02:00
SELECT * FROM pg_temp.windows('Australia/Lord_Howe', '1 day', '2024-04-06 12:00+11', '2024-04-08 00:00+10:30');
SELECT * FROM pg_temp.windows('Australia/Lord_Howe', '1 hour', '2024-04-07 00:00+11', '2024-04-07 03:00+10:30');
SELECT * FROM pg_temp.windows('Australia/Lord_Howe', '15 minutes', '2024-04-07 01:15+11', '2024-04-07 02:15+10:30');
SELECT * FROM pg_temp.windows('Australia/Lord_Howe', '1 day', '2024-10-05 12:00+10:30', '2024-10-07 00:00+11');
SELECT * FROM pg_temp.windows('Australia/Lord_Howe', '1 hour', '2024-10-06 00:00+10:30', '2024-10-06 04:00+11');

-- Sao Paulo changed at midnight: a day that begins at 01:00, and one whose last
-- hour comes twice
SELECT * FROM pg_temp.windows('America/Sao_Paulo', '1 day', '2018-11-03 12:00-03', '2018-11-06 00:00-02');
SELECT * FROM pg_temp.windows('America/Sao_Paulo', '1 hour', '2018-11-03 22:00-03', '2018-11-04 03:00-02');
SELECT * FROM pg_temp.windows('America/Sao_Paulo', '1 day', '2019-02-15 12:00-02', '2019-02-18 00:00-03');
SELECT * FROM pg_temp.windows('America/Sao_Paulo', '1 hour', '2019-02-16 22:00-02', '2019-02-17 02:00-03');

-- Apia had no 2011-12-30
SELECT * FROM pg_temp.windows('Pacific/Apia', '1 day', '2011-12-28 12:00-10', '2012-01-02 00:00+14');
SELECT hop('2011-12-29 12:00-10', '2 days', '1 day', time_zone => 'Pacific/Apia');
SELECT hop('2011-12-31 12:00+14', '2 days', '1 day', time_zone => 'Pacific/Apia');

-- Kolkata has a half hour, and no summer time
SELECT * FROM pg_temp.windows('Asia/Kolkata', '1 day', '2024-03-31 12:00+05:30', '2024-04-02 00:00+05:30');
SELECT * FROM pg_temp.windows('Asia/Kolkata', '1 hour', '2024-03-31 12:15+05:30', '2024-03-31 14:00+05:30');

-- Havana's clock shows midnight twice: one day of 25 hours, from the first, but
-- two windows of an hour
SELECT * FROM pg_temp.windows('America/Havana', '1 day', '2024-11-02 12:00-04', '2024-11-05 00:00-05');
SELECT * FROM pg_temp.windows('America/Havana', '1 hour', '2024-11-02 23:00-04', '2024-11-03 02:00-05');
-- St. John's went back to 23:01 of the day before a minute after midnight: the
-- new day has begun, and goes on
SELECT * FROM pg_temp.windows('America/St_Johns', '1 day', '2010-11-06 12:00-02:30', '2010-11-09 00:00-03:30');

-- an origin is a time of the zone's clock, summer and winter; the month's 31st
-- is its last day
SELECT w, lower(w) AT TIME ZONE 'Europe/Berlin' AS starts
FROM unnest('{2024-01-10 12:00+01, 2024-07-10 05:59+02, 2024-07-10 06:00+02, 2024-03-31 06:30+02}'::timestamptz[]) AS t,
     tumble(t, '1 day', '2024-01-01 06:00+01', 'Europe/Berlin') AS w;
SELECT w, lower(w) AT TIME ZONE 'Europe/Berlin' AS starts
FROM unnest('{2024-02-29 12:00+01, 2024-05-01 00:00+02}'::timestamptz[]) AS t,
     tumble(t, '1 month', '2024-01-31 06:00+01', 'Europe/Berlin') AS w;
-- an origin in the hour that is skipped: 02:30, on that day 03:00
SELECT w, lower(w) AT TIME ZONE 'Europe/Berlin' AS starts
FROM unnest('{2024-03-30 12:00+01, 2024-03-31 12:00+02, 2024-04-01 12:00+02}'::timestamptz[]) AS t,
     tumble(t, '1 day', '2024-01-01 02:30+01', 'Europe/Berlin') AS w;

-- hops and steps on those nights
SELECT hop('2024-10-27 02:30+01', '2 hours', '1 hour', time_zone => 'Europe/Berlin');
SELECT hop('2024-10-27 12:00+01', '2 days', '1 day', time_zone => 'Europe/Berlin');
SELECT cumulate('2024-10-27 02:30+02', '1 day', '6 hours', time_zone => 'Europe/Berlin');
SELECT cumulate('2024-10-27 01:30+02', '4 hours', '1 hour', time_zone => 'Europe/Berlin');
SELECT cumulate('2024-03-31 01:30+01', '4 hours', '1 hour', time_zone => 'Europe/Berlin');

-- fixed offsets and POSIX rules are zones, too
SELECT tumble('2024-05-01 12:00+00', '1 day', time_zone => 'Etc/GMT-5'), tumble('2024-05-01 12:00+00', '1 day', time_zone => 'CET-1CEST,M3.5.0,M10.5.0/3');

-- The instants around each change, and far from any.
CREATE TEMP TABLE instants AS
SELECT zone, t FROM (VALUES
	('Europe/Berlin', '2024-03-31 01:00+00'::timestamptz), ('Europe/Berlin', '2024-10-27 01:00+00'), ('Europe/Berlin', '1945-05-24 00:00+00'),
	('America/New_York', '2024-03-10 07:00+00'), ('America/New_York', '2024-11-03 06:00+00'), ('America/New_York', '2090-11-05 06:00+00'),
	('Australia/Lord_Howe', '2024-04-06 15:00+00'), ('Australia/Lord_Howe', '2024-10-05 15:30+00'),
	('America/Sao_Paulo', '2018-11-04 03:00+00'), ('America/Sao_Paulo', '2019-02-17 02:00+00'),
	('Pacific/Apia', '2011-12-30 10:00+00'), ('America/Havana', '2024-11-03 05:00+00'), ('America/St_Johns', '2010-11-07 02:31+00'),
	('Antarctica/Troll', '2024-10-27 01:00+00'), ('Asia/Kolkata', '2024-06-01 00:00+00'), ('UTC', '2024-06-01 00:00+00')) AS v (zone, change),
	generate_series(change - interval '5 hours', change + interval '5 hours', '4 minutes') AS t;

-- Property: the row is inside, and windows partition the line of time.
SELECT size, count(*) AS rows,
       count(*) FILTER (WHERE w @> t) AS inside,
       count(*) FILTER (WHERE upper(tumble(lower(w) - interval '1 us', size, NULL, zone)) = lower(w)) AS after_neighbour,
       count(*) FILTER (WHERE lower(tumble(upper(w), size, NULL, zone)) = upper(w)) AS before_neighbour,
       count(*) FILTER (WHERE tumble(lower(w), size, NULL, zone) = w AND tumble(upper(w) - interval '1 us', size, NULL, zone) = w) AS one_window
FROM unnest('{7 minutes, 20 minutes, 1 hour, 5 hours, 36 hours, 1 day, 1 day 06:00, 1 week, 1 month, 1 year}'::interval[]) AS size,
     instants, LATERAL (SELECT tumble(t, size, NULL, zone) AS w) AS b
GROUP BY size ORDER BY size;

-- Property: local days, weeks, months and years are those of the clock, except
-- for the minutes in St. John's when the clock shows a date that is over.
SELECT unit, count(*) AS rows, count(*) FILTER (WHERE lower(w) AT TIME ZONE zone >= date_trunc(unit, t AT TIME ZONE zone)
	AND upper(w) AT TIME ZONE zone >= date_trunc(unit, t AT TIME ZONE zone) + ('1 ' || unit)::interval
	AND (upper(w) - interval '1 us') AT TIME ZONE zone < date_trunc(unit, t AT TIME ZONE zone) + ('1 ' || unit)::interval) AS same
FROM unnest('{day, week, month, year}'::text[]) AS unit, instants, LATERAL (SELECT tumble(t, ('1 ' || unit)::interval, NULL, zone) AS w) AS b
WHERE zone <> 'America/St_Johns' GROUP BY unit ORDER BY unit;

-- Property: windows of a constant offset are date_bin's of the local time.
SELECT count(*) AS rows, count(*) FILTER (WHERE lower(w) AT TIME ZONE 'Asia/Kolkata' = date_bin(size, t AT TIME ZONE 'Asia/Kolkata', '1970-01-01')) AS same
FROM unnest('{7 minutes, 1 hour, 5 hours, 1 day, 10 days}'::interval[]) AS size, generate_series('2024-01-01+00'::timestamptz, '2024-02-01+00', '17 minutes') AS t,
     LATERAL (SELECT tumble(t, size, NULL, 'Asia/Kolkata') AS w) AS b;

-- Property: hop(size, every = size) is tumble(size); hop(n * every) joins n
-- windows of tumble(every).
SELECT size, count(*) AS rows, count(*) FILTER (WHERE ARRAY(SELECT hop(t, size, size, NULL, zone)) = ARRAY[tumble(t, size, NULL, zone)]) AS same
FROM unnest('{20 minutes, 1 hour, 1 day, 1 month}'::interval[]) AS size, instants GROUP BY size ORDER BY size;
SELECT every, count(*) AS rows, count(*) FILTER (WHERE got = ARRAY[tstzrange(lower(b), upper(c)), tstzrange(lower(c), upper(d))]) AS same
FROM unnest('{20 minutes, 1 hour, 1 month}'::interval[]) AS every, instants,
     LATERAL (SELECT ARRAY(SELECT hop(t, 2 * every, every, NULL, zone)) AS got) AS a,
     LATERAL (SELECT tumble(t, every, NULL, zone) AS c) AS e,
     LATERAL (SELECT tumble(lower(c) - interval '1 us', every, NULL, zone) AS b, tumble(upper(c), every, NULL, zone) AS d) AS f
GROUP BY every ORDER BY every;

-- Property: the last cumulating window is the tumbling one, and all start there.
SELECT size, step, count(*) AS rows,
       count(*) FILTER (WHERE got[cardinality(got)] = tumble(t, size, NULL, zone)) AS last_is_whole,
       count(*) FILTER (WHERE upper(got[1]) = upper(tumble(t, step, NULL, zone))) AS first_is_step,
       bool_and((SELECT bool_and(lower(w) = lower(got[1])) FROM unnest(got) AS w)) AS same_start
FROM (VALUES (interval '1 hour', interval '20 minutes'), ('4 hours', '1 hour'), ('1 week', '1 day'), ('1 year', '3 months')) AS v (size, step), instants,
     LATERAL (SELECT ARRAY(SELECT cumulate(t, size, step, NULL, zone)) AS got) AS a
GROUP BY size, step ORDER BY size, step;

-- a zone in each row
SELECT tenant, zone, tumble('2024-06-30 22:30+00', '1 day', time_zone => zone), tumble('2024-06-30 22:30+00', '1 month', time_zone => zone)
FROM (VALUES (1, 'Europe/Berlin'), (2, 'America/New_York'), (3, 'Asia/Kolkata'), (4, NULL)) AS v (tenant, zone);
