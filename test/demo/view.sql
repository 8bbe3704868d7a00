-- One frame of the demo's terminal view.  Variable: query.
SET client_min_messages = warning;
SET TimeZone = 'UTC';

SELECT format('  partition %s   read up to offset %6s   newest event %s%s', p.partition, p.next_offset,
			  coalesce(to_char(nullif(p.max_event_time, '-infinity'), 'HH24:MI:SS.MS'), '-'),
			  CASE WHEN p.max_event_time > '-infinity' AND p.max_event_time = min(p.max_event_time) OVER ()
				   THEN '   <- holds the watermark' END)
FROM stream_engine.query_progress g JOIN stream_engine.reader_partition p USING (reader)
WHERE g.query = (stream_engine.query_of(:'query')).id
ORDER BY p.partition;

SELECT format('  watermark %s   committed %s orders, of them %s late, and %s bad, %s future',
			  coalesce(to_char(nullif(r.watermark, '-infinity'), 'HH24:MI:SS.MS'), '-'),
			  sum(p.decoded), (SELECT coalesce(sum(q.late), 0) FROM stream_engine.query_partition q WHERE q.query = g.query),
			  sum(p.dead), sum(p.future))
FROM stream_engine.query_progress g
JOIN stream_engine.reader r ON r.id = g.reader
JOIN stream_engine.reader_partition p ON p.reader = g.reader
WHERE g.query = (stream_engine.query_of(:'query')).id
GROUP BY g.query, r.watermark;

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
