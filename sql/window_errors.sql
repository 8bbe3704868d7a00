-- Rule: a window clause that makes no sense is refused, by what is wrong with it.
SET timezone = 'UTC';
SET datestyle = 'ISO';

-- sizes
SELECT tumble('2024-01-01+00', '0');
SELECT tumble('2024-01-01+00', '-5 minutes');
SELECT tumble('2024-01-01+00', '-1 month');
SELECT tumble('2024-01-01+00', '1 day -24 hours');
SELECT tumble('2024-01-01+00', '1 month 1 day');
SELECT tumble('2024-01-01+00', '1 year 00:00:01');
SELECT tumble('2024-01-01+00', '1001 years');
SELECT tumble('2024-01-01+00', '2000000000 days');
SELECT tumble('2024-01-01+00', '-2000000000 days');
SELECT hop('2024-01-01+00', '5 minutes', '0');
SELECT hop('2024-01-01+00', '5 minutes', '6 minutes');
SELECT hop('2024-01-01+00', '1 month', '1 day');
SELECT hop('2024-01-01+00', '30 days', '1 month');
SELECT hop('2024-01-01+00', '1 day', '1 us');
SELECT cumulate('2024-01-01+00', '1 hour', '-1 minute');
SELECT cumulate('2024-01-01+00', '1 hour', '7 minutes');
SELECT cumulate('2024-01-01+00', '1 hour', '2 hours');
SELECT cumulate('2024-01-01+00', '1 month', '1 day');

-- instants without windows
SELECT tumble('infinity', '1 hour');
SELECT tumble('-infinity', '1 month');
SELECT hop('infinity', '2 hours', '1 hour');
SELECT cumulate('-infinity', '2 hours', '1 hour', time_zone => 'Europe/Berlin');
SELECT tumble('294276-12-31 23:59:59+00', '1 day');
SELECT tumble('4714-11-24 00:00:00+00 BC', '1 day');
SELECT tumble('294276-12-30 23:59:59+00', '1 day'), tumble('4714-11-25 00:00:00+00 BC', '1 day');

-- origins and zones
SELECT tumble('2024-01-01+00', '1 hour', origin => 'infinity');
SELECT tumble('2024-01-01+00', '1 hour', origin => '-infinity');
SELECT tumble('2024-01-01+00', '1 hour', origin => '294276-12-31+00');
SELECT tumble('2024-01-01+00', '1 hour', time_zone => 'Europe/Atlantis');
SELECT tumble('2024-01-01+00', '1 hour', time_zone => 'PST');
SELECT tumble('2024-01-01+00', '1 hour', time_zone => '');
SELECT tumble('2024-01-01+00', '1 hour', time_zone => '../../etc/passwd');
SELECT tumble('2024-01-01+00', '1 hour', time_zone => repeat('x', 300));

-- an error leaves nothing behind for the next row
SELECT tumble(t, size) FROM (VALUES ('2024-01-01 00:30+00'::timestamptz, interval '1 hour'), ('2024-01-01 00:30+00', '0')) AS v (t, size);
SELECT tumble('2024-01-01 00:30+00', '1 hour');

-- a time without zone would be read with the setting of TimeZone
SELECT tumble('2024-01-01'::timestamp, '1 hour');
SELECT tumble('2024-01-01'::date, '1 day');
SELECT hop('2024-01-01'::timestamp, '2 hours', '1 hour');
SELECT hop('2024-01-01'::date, '2 hours', '1 hour', time_zone => 'UTC');
SELECT cumulate('2024-01-01'::timestamp, '2 hours', '1 hour');
SELECT cumulate(t::date, '2 hours', '1 hour') FROM generate_series('2024-01-01'::timestamp, '2024-01-02', '1 day') AS t;
SELECT session('2024-01-01'::timestamp, '1 hour');
SELECT tumble('2024-01-01'::timestamp AT TIME ZONE 'UTC', '1 hour');

-- sessions depend on other rows; sets cannot be where one value is wanted
SELECT session('2024-01-01+00', '1 hour');
SELECT count(*) FROM generate_series(1, 2) AS i GROUP BY session(to_timestamp(i), gap => '5 minutes');
SELECT 1 WHERE lower(hop('2024-01-01+00'::timestamptz, '2 hours', '1 hour')) IS NULL;
