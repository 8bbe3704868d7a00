/*
 * engine.sql
 *	  First part of the install script: the schema, and the workers as rows.
 */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION stream_engine" to load this file. \quit

/* Where others may create they may have operators that fit better than the server's. */
SET LOCAL search_path = pg_catalog, pg_temp;

/* A schema of this name that somebody else has made is not adopted. */
CREATE SCHEMA stream_engine;
GRANT USAGE ON SCHEMA stream_engine TO PUBLIC;
COMMENT ON SCHEMA stream_engine IS 'continuous windowed aggregation over Kafka';

/* Shows each caller what he may see, so everybody may call it. */
CREATE FUNCTION stream_engine.worker_slots(
	OUT slot integer,
	OUT generation bigint,
	OUT kind text,
	OUT state text,
	OUT database oid,
	OUT reader integer,
	OUT pid integer,
	OUT phase text,
	OUT started timestamptz,
	OUT records bigint,
	OUT bytes bigint,
	OUT commits bigint,
	OUT last_commit timestamptz,
	OUT last_record timestamptz,
	OUT message text,
	OUT sqlstate text,
	OUT attempts integer,
	OUT failures integer,
	OUT next_attempt timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'se_worker_slots'
LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION stream_engine.worker_slots() IS
	'worker slots in shared memory; without the privileges of pg_read_all_stats those of this database, with messages of readers of one''s own streams and queries';
GRANT EXECUTE ON FUNCTION stream_engine.worker_slots() TO PUBLIC;

CREATE VIEW stream_engine.stat_workers AS
	SELECT w.pid,
		   w.kind,
		   d.datname AS database,
		   w.reader,
		   w.phase,
		   w.started,
		   w.records,
		   w.bytes,
		   w.commits,
		   w.last_commit,
		   w.last_record,
		   w.message
	FROM stream_engine.worker_slots() w
	LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) w.database;
GRANT SELECT ON stream_engine.stat_workers TO PUBLIC;
COMMENT ON VIEW stream_engine.stat_workers IS
	'processes of the engine, and those that wait for their next start (pid null)';
COMMENT ON COLUMN stream_engine.stat_workers.kind IS 'launcher, manager or reader';
COMMENT ON COLUMN stream_engine.stat_workers.reader IS 'id of the reader';
COMMENT ON COLUMN stream_engine.stat_workers.phase IS
	'starting, recovering, waiting, reading, committing, backoff or stopping';
COMMENT ON COLUMN stream_engine.stat_workers.records IS 'records read since the process started';
COMMENT ON COLUMN stream_engine.stat_workers.bytes IS 'bytes read since the process started';
COMMENT ON COLUMN stream_engine.stat_workers.commits IS 'transactions since the process started';
COMMENT ON COLUMN stream_engine.stat_workers.message IS
	'the last error, until the worker has recovered from it';
