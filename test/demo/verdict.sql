-- The accounting identities, one line each: what, left side, right side.  Variable: query.
SELECT 'records + gaps = next offset - start offset', sum(records + gaps), sum(next_offset - start_offset)
FROM stream_engine.stat_partitions
WHERE query = :'query'::regclass
UNION ALL
SELECT 'records = decoded + dead + future + tombstones + skipped',
	   sum(records), sum(decoded + dead + future + tombstones + skipped)
FROM stream_engine.stat_partitions
WHERE query = :'query'::regclass
UNION ALL
SELECT 'decoded = counted + filtered + late + before start + failed',
	   decoded, counted + filtered + late + before_start + failed
FROM stream_engine.stat_queries
WHERE query = :'query'::regclass;
