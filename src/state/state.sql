/*
 * state.sql
 *	  The run cache as rows.
 */

/* Shows each caller the queries that he may see, so everybody may call it. */
CREATE FUNCTION stream_engine.run_cache(
	OUT query integer,
	OUT slices integer,
	OUT cached_slices integer,
	OUT memory bigint,
	OUT hits bigint,
	OUT misses bigint,
	OUT evictions bigint,
	OUT refusals bigint)
	RETURNS SETOF record
	LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'se_run_cache_stat';
COMMENT ON FUNCTION stream_engine.run_cache() IS 'what of the state of this database''s queries is in shared memory';

CREATE FUNCTION stream_engine.state_memory(OUT total bigint, OUT free bigint)
	LANGUAGE c STRICT VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'se_run_cache_memory';
COMMENT ON FUNCTION stream_engine.state_memory() IS 'shared memory for the state of open windows, of all databases, and how much of it is free, in bytes';

CREATE VIEW stream_engine.stat_state WITH (security_barrier) AS
	SELECT q.result AS query, c.slices, c.cached_slices, c.memory, c.hits, c.misses, c.evictions, c.refusals
	FROM stream_engine.run_cache() c
	JOIN stream_engine.query q ON q.id = c.query
	JOIN pg_catalog.pg_class v ON v.oid = q.batch_view
	WHERE stream_engine.may_see(v.relowner);
COMMENT ON VIEW stream_engine.stat_state IS 'open windows'' state in shared memory (stream_engine.state_memory), per query that is fed; what is not there is read from the state log';
COMMENT ON COLUMN stream_engine.stat_state.slices IS 'slices that have state';
COMMENT ON COLUMN stream_engine.stat_state.cached_slices IS 'slices whose state is in shared memory';
COMMENT ON COLUMN stream_engine.stat_state.memory IS 'shared memory that they take, in bytes';
COMMENT ON COLUMN stream_engine.stat_state.hits IS 'reads of a slice that took it from shared memory, by the worker and by sessions, since the worker began to feed the query';
COMMENT ON COLUMN stream_engine.stat_state.misses IS 'reads of a slice that went to the state log';
COMMENT ON COLUMN stream_engine.stat_state.evictions IS 'slices whose memory was taken for others';
COMMENT ON COLUMN stream_engine.stat_state.refusals IS 'slices that were left to the state log because there was no memory, or because one alone took more than half of it';
GRANT SELECT ON stream_engine.stat_state TO PUBLIC;
