/* ---- open windows ---- */

CREATE FUNCTION stream_engine.open_fdw_handler() RETURNS fdw_handler
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'se_open_fdw_handler';
COMMENT ON FUNCTION stream_engine.open_fdw_handler() IS 'scan of the open windows of a query';

CREATE FUNCTION stream_engine.open_fdw_validator(text[], oid) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'se_open_fdw_validator';
COMMENT ON FUNCTION stream_engine.open_fdw_validator(text[], oid) IS 'tables of open windows have no options';

CREATE FOREIGN DATA WRAPPER stream_engine_state
	HANDLER stream_engine.open_fdw_handler VALIDATOR stream_engine.open_fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER stream_engine_state IS 'open windows of queries';

/* everybody may have one: a table that create_query did not make shows nothing */
CREATE SERVER stream_engine_state FOREIGN DATA WRAPPER stream_engine_state;
GRANT USAGE ON FOREIGN SERVER stream_engine_state TO PUBLIC;
COMMENT ON SERVER stream_engine_state IS 'open windows of queries';

/* ---- wait, verify ---- */

CREATE PROCEDURE stream_engine.wait(name regclass, timeout interval DEFAULT NULL)
	LANGUAGE c AS 'MODULE_PATHNAME', 'se_wait';
COMMENT ON PROCEDURE stream_engine.wait(regclass, interval)
	IS 'return when all that was in the topic at the call has been committed for a query, or for all readers of a stream';

CREATE FUNCTION stream_engine.nearly_equal(a float8, b float8, tolerance float8) RETURNS boolean
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN CASE WHEN a IS NULL OR b IS NULL THEN a IS NULL AND b IS NULL
		WHEN a = b THEN true
		WHEN a IN ('NaN', 'Infinity', '-Infinity') OR b IN ('NaN', 'Infinity', '-Infinity') THEN false
		ELSE pg_catalog.abs(a - b) <= tolerance * GREATEST(pg_catalog.abs(a), pg_catalog.abs(b)) END;
COMMENT ON FUNCTION stream_engine.nearly_equal(float8, float8, float8)
	IS 'equal but for the last digits, which depend on the order of additions; the tolerance is relative';

CREATE FUNCTION stream_engine.verify(
	query regclass, OUT window_start timestamptz, OUT window_end timestamptz, OUT problem text,
	OUT expected jsonb, OUT found jsonb)
	RETURNS SETOF record
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'se_verify';
COMMENT ON FUNCTION stream_engine.verify(regclass)
	IS 'read the topic again from the query''s first offset to its committed position and compare its complete closed windows with the results: rows that differ, none expected';

CREATE FUNCTION stream_engine.retry_late(query regclass, condition text DEFAULT NULL) RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'se_retry_late';
COMMENT ON FUNCTION stream_engine.retry_late(regclass, text)
	IS 'have late records counted after all, those that meet a condition over the columns of late_events: windows whose state is still kept (allowed_lateness, correction_horizon) are corrected; returns how many records are taken, the others stay late';

CREATE FUNCTION stream_engine.next_window_end(query regclass) RETURNS timestamptz
	LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'se_next_window_end';
COMMENT ON FUNCTION stream_engine.next_window_end(regclass) IS 'end of the query''s open window that closes first, NULL if none is open';

CREATE FUNCTION stream_engine.state_size(query regclass, OUT slices bigint, OUT bytes bigint)
	LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'se_state_size';
COMMENT ON FUNCTION stream_engine.state_size(regclass) IS 'how many slices of a query have state, and how large that is in the state log';
