-- template.sql
--	What every workload's database begins with.
CREATE EXTENSION stream_engine;
CREATE TABLE topic (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea, PRIMARY KEY (partition, "offset"));
-- microseconds since 1970, infinities as numbers beyond all times
CREATE FUNCTION us(t timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE t WHEN 'infinity' THEN 1::bigint << 62 WHEN '-infinity' THEN -(1::bigint << 62)
		ELSE (extract(epoch FROM t) * 1000000)::bigint END $$;
