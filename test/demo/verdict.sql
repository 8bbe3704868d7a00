-- The accounting identities, one line each: what, left side, right side.  Variable: query.
SELECT 'records + gaps = next offset - start offset', sum(p.records + p.gaps), sum(p.next_offset - p.start_offset)
FROM stream_engine.query_progress g JOIN stream_engine.reader_partition p USING (reader)
WHERE g.query = (stream_engine.query_of(:'query')).id
UNION ALL
SELECT 'records = decoded + dead + future + tombstones + skipped',
	   sum(p.records), sum(p.decoded + p.dead + p.future + p.tombstones + p.skipped)
FROM stream_engine.query_progress g JOIN stream_engine.reader_partition p USING (reader)
WHERE g.query = (stream_engine.query_of(:'query')).id
UNION ALL
SELECT 'decoded = counted + filtered + late + before start + failed',
	   (SELECT sum(p.decoded) FROM stream_engine.reader_partition p WHERE p.reader = g.reader),
	   (SELECT coalesce(sum(c.counted + c.filtered + c.late + c.before_start + c.failed), 0)
		FROM stream_engine.query_partition c WHERE c.query = g.query)
FROM stream_engine.query_progress g
WHERE g.query = (stream_engine.query_of(:'query')).id;
