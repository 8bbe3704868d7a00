-- One frame of the demo's terminal view.  Variables: query and its live view.
SET client_min_messages = warning;
SET TimeZone = 'UTC';

SELECT format('  partition %s   read up to offset %6s   behind %5s   newest event %s%s', partition, next_offset, lag,
			  coalesce(to_char(nullif(max_event_time, '-infinity'), 'HH24:MI:SS.MS'), '-'),
			  CASE WHEN holds_watermark THEN '   <- holds the watermark' END)
FROM stream_engine.stat_partitions
WHERE query = :'query'::regclass
ORDER BY partition;

SELECT format('  watermark %s   %s orders counted, %s late, %s bad, %s future   %s windows closed',
			  coalesce(to_char(nullif(q.watermark, '-infinity'), 'HH24:MI:SS.MS'), '-'),
			  q.counted, q.late, p.dead, p.future, q.windows_closed)
FROM stream_engine.stat_queries q,
	(SELECT coalesce(sum(dead), 0) AS dead, coalesce(sum(future), 0) AS future
	 FROM stream_engine.stat_partitions WHERE query = :'query'::regclass) p
WHERE q.query = :'query'::regclass;

SELECT '';
SELECT '  window                orders      revenue';
SELECT format('  %s - %s  %7s %12s  %s %s', to_char(window_start, 'HH24:MI:SS'), to_char(window_end, 'HH24:MI:SS'),
			  orders, total, rpad(repeat('#', least(40, orders / 50)::int), 40), state)
FROM (
	SELECT window_start, window_end, sum(orders) AS orders, sum(total) AS total,
		   CASE WHEN bool_and(is_final) THEN 'closed' ELSE 'open' END AS state
	FROM :"live"
	GROUP BY window_start, window_end
	ORDER BY window_start DESC
	LIMIT 8) AS newest
ORDER BY window_start;
