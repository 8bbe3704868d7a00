/* ---- streams and queries: create, drop, pause, resume ---- */

CREATE FUNCTION stream_engine.home() RETURNS text
	LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'se_home_sql';
COMMENT ON FUNCTION stream_engine.home() IS 'identity of this database in this cluster; streams made elsewhere (restore, TEMPLATE) do not run until resume()';

CREATE FUNCTION stream_engine.wake() RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'se_wake_sql';
COMMENT ON FUNCTION stream_engine.wake() IS 'have the workers of this database look at the catalog when this transaction commits';

CREATE FUNCTION stream_engine.create_stream(
	name text, server name, topic text, columns text,
	event_time name DEFAULT NULL,
	watermark_delay interval DEFAULT '5 seconds',
	format text DEFAULT 'json',
	include text[] DEFAULT '{partition,offset,timestamp}',
	idle_timeout interval DEFAULT '30 seconds',
	idle_close interval DEFAULT NULL,
	max_future interval DEFAULT '5 minutes',
	start text DEFAULT 'earliest',
	on_error text DEFAULT 'dead_letter',
	on_error_limit integer DEFAULT NULL,
	staging_retention interval DEFAULT '10 minutes',
	workers integer DEFAULT 1,
	options jsonb DEFAULT '{}',
	if_not_exists boolean DEFAULT false)
	RETURNS regclass
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'se_create_stream';
COMMENT ON FUNCTION stream_engine.create_stream(text, name, text, text, name, interval, text, text[], interval, interval, interval, text, text, integer, interval, integer, jsonb, boolean)
	IS 'define a stream over a topic: writes a foreign table, its staging and its reader; event_time is a column, NULL or ''_timestamp'' for Kafka''s own time, or ''processing_time'': the moment a record is read, the watermark being the clock';

CREATE FUNCTION stream_engine.create_query(
	name text, query text,
	emit text DEFAULT 'final',
	emit_interval interval DEFAULT NULL,
	allowed_lateness interval DEFAULT '0',
	late text DEFAULT 'store',
	trigger_count bigint DEFAULT NULL,
	trigger_interval interval DEFAULT NULL,
	correction_horizon interval DEFAULT NULL,
	start text DEFAULT NULL,
	into_table regclass DEFAULT NULL,
	retention interval DEFAULT NULL,
	paused boolean DEFAULT false,
	emit_partial boolean DEFAULT false,
	if_not_exists boolean DEFAULT false,
	state_ttl interval DEFAULT NULL)
	RETURNS regclass
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'se_create_query';
COMMENT ON FUNCTION stream_engine.create_query(text, text, text, interval, interval, text, bigint, interval, interval, text, regclass, interval, boolean, boolean, boolean, interval)
	IS 'run a windowed aggregation continuously: makes the result table <name> and the views <name>_live and <name>_batch';

CREATE FUNCTION stream_engine.validate_query(
	query text, OUT column_name text, OUT type regtype, OUT role text, OUT note text)
	RETURNS SETOF record
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'se_validate_query';
COMMENT ON FUNCTION stream_engine.validate_query(text)
	IS 'what create_query would make of a SELECT, or the error that it would raise; changes nothing';

CREATE FUNCTION stream_engine.pause(name regclass) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'se_pause';
COMMENT ON FUNCTION stream_engine.pause(regclass) IS 'stop a stream with all its queries, or one query; state and position are kept';

CREATE FUNCTION stream_engine.resume(name regclass, start text DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'se_resume';
COMMENT ON FUNCTION stream_engine.resume(regclass, text)
	IS 'go on after pause, an error, or a restore; start is needed for a restored stream and for partitions whose offsets were lost';

CREATE FUNCTION stream_engine.alter_stream(
	name regclass,
	watermark_delay interval DEFAULT NULL,
	idle_timeout interval DEFAULT NULL,
	idle_close interval DEFAULT NULL,
	max_future interval DEFAULT NULL,
	on_error text DEFAULT NULL,
	on_error_limit integer DEFAULT NULL,
	staging_retention interval DEFAULT NULL,
	options jsonb DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'se_alter_stream';
COMMENT ON FUNCTION stream_engine.alter_stream(regclass, interval, interval, interval, interval, text, integer, interval, jsonb)
	IS 'change settings of a stream for the records that come from now on; what is NULL stays; null in options goes back to the default';

CREATE FUNCTION stream_engine.alter_query(
	name regclass,
	emit_interval interval DEFAULT NULL,
	late text DEFAULT NULL,
	trigger_interval interval DEFAULT NULL,
	allowed_lateness interval DEFAULT NULL,
	correction_horizon interval DEFAULT NULL,
	paused boolean DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'se_alter_query';
COMMENT ON FUNCTION stream_engine.alter_query(regclass, interval, text, interval, interval, interval, boolean)
	IS 'change settings of a query from its next commit on; what is NULL stays; a longer allowed_lateness or correction_horizon is for windows whose state is still there';

CREATE FUNCTION stream_engine.purge_late(query regclass, before timestamptz) RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'se_purge_late';
COMMENT ON FUNCTION stream_engine.purge_late(regclass, timestamptz)
	IS 'delete a query''s late records that were seen before a time; it cannot be verified any more; returns how many';

CREATE FUNCTION stream_engine.purge_dead_letters(stream regclass, before timestamptz) RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'se_purge_dead_letters';
COMMENT ON FUNCTION stream_engine.purge_dead_letters(regclass, timestamptz)
	IS 'delete a stream''s dead letters that were seen before a time, all but those that a reader has yet to come to; returns how many';

CREATE FUNCTION stream_engine.skip(stream regclass, partition integer, "offset" bigint) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'se_skip';
COMMENT ON FUNCTION stream_engine.skip(regclass, integer, bigint)
	IS 'step over one record that has not been read yet: it is kept in dead_letters without being decoded';

CREATE FUNCTION stream_engine.drop_query(name regclass, keep_results boolean DEFAULT false) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'se_drop_query';
COMMENT ON FUNCTION stream_engine.drop_query(regclass, boolean)
	IS 'remove a query with its state, late records and views; keep_results leaves the result table as an ordinary one';

CREATE FUNCTION stream_engine.drop_stream(name regclass, cascade boolean DEFAULT false) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'se_drop_stream';
COMMENT ON FUNCTION stream_engine.drop_stream(regclass, boolean)
	IS 'remove a stream with its staging and dead letters; with cascade its queries and their results as well';

CREATE FUNCTION stream_engine.advance_watermark(stream regclass, "to" timestamptz) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'se_advance_watermark';
COMMENT ON FUNCTION stream_engine.advance_watermark(regclass, timestamptz)
	IS 'assert that no earlier rows come: every reader of the stream raises its watermark to that time, which closes windows even while all partitions are idle; earlier rows that come all the same are late';

CREATE FUNCTION stream_engine.retry_dead_letters(stream regclass, condition text DEFAULT NULL) RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'se_retry_dead_letters';
COMMENT ON FUNCTION stream_engine.retry_dead_letters(regclass, text)
	IS 'after the cause is mended: bad records for which the condition over the columns of stream_engine.dead_letters holds (all if NULL) are processed once more, as if they arrived now, by the readers that had set them aside; those that are still bad come back; returns how many are retried';

/* Rows of the engine go with the relations that they belong to. */
CREATE FUNCTION stream_engine.forget(gone oid[]) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	q record;
	relation oid;
BEGIN
	/* readers first, as their commits do it */
	PERFORM FROM stream_engine.reader r
	WHERE EXISTS (SELECT FROM stream_engine.query_progress p JOIN stream_engine.query d ON d.id = p.query
			WHERE p.reader = r.id AND (d.result::oid = ANY (gone) OR d.batch_view::oid = ANY (gone)))
		OR EXISTS (SELECT FROM stream_engine.stream s WHERE s.id = r.stream AND s.relation::oid = ANY (gone))
	ORDER BY r.id FOR UPDATE;
	/* what they are doing is thrown away, and they look again */
	UPDATE stream_engine.reader r SET generation = r.generation + 1
	FROM stream_engine.query_progress p JOIN stream_engine.query d ON d.id = p.query
	WHERE p.reader = r.id AND (d.result::oid = ANY (gone) OR d.batch_view::oid = ANY (gone));

	FOR q IN DELETE FROM stream_engine.query
		WHERE result::oid = ANY (gone) OR batch_view::oid = ANY (gone) RETURNING *
	LOOP
		DELETE FROM stream_engine.state_log s WHERE s.query = q.id;
		DELETE FROM stream_engine.reader r
		WHERE NOT r.head AND r.stream = q.stream
			AND NOT EXISTS (SELECT FROM stream_engine.query_progress p WHERE p.reader = r.id)
			AND NOT EXISTS (SELECT FROM stream_engine.reader_history h WHERE h.reader = r.id);
		/* without the definition there is nothing to show */
		FOREACH relation IN ARRAY ARRAY[q.live_view::oid, q.open_table::oid, q.batch_view::oid]
		LOOP
			IF EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation AND c.relkind = 'v') THEN
				EXECUTE pg_catalog.format('DROP VIEW %s', relation::regclass);
			ELSIF EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation) THEN
				EXECUTE pg_catalog.format('DROP FOREIGN TABLE %s', relation::regclass);
			END IF;
		END LOOP;
	END LOOP;
	DELETE FROM stream_engine.stream s WHERE s.relation::oid = ANY (gone);
	PERFORM stream_engine.wake();
END $$;
COMMENT ON FUNCTION stream_engine.forget(oid[]) IS 'remove the engine''s rows of relations that are gone';
REVOKE ALL ON FUNCTION stream_engine.forget(oid[]) FROM PUBLIC;

CREATE FUNCTION stream_engine.on_drop() RETURNS event_trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	/* rows go by foreign keys, whose triggers do not fire in a replica's session */
	SET session_replication_role = origin AS $$
DECLARE
	gone oid[];
BEGIN
	SELECT array_agg(o.objid) INTO gone
	FROM pg_catalog.pg_event_trigger_dropped_objects() o
	WHERE o.classid = 'pg_catalog.pg_class'::regclass AND o.objsubid = 0;
	IF gone IS NULL THEN
		RETURN;
	END IF;
	IF EXISTS (SELECT FROM stream_engine.stream s LEFT JOIN stream_engine.query d ON d.stream = s.id
		WHERE s.relation::oid = ANY (gone) OR d.result::oid = ANY (gone) OR d.batch_view::oid = ANY (gone))
	THEN
		PERFORM stream_engine.forget(gone);
	END IF;
	/* of a view that has been dropped by itself no number stays, which a dump would take elsewhere */
	UPDATE stream_engine.query SET live_view = NULL WHERE live_view::oid = ANY (gone);
	UPDATE stream_engine.query SET open_table = NULL WHERE open_table::oid = ANY (gone);
	UPDATE stream_engine.stream SET recent_view = NULL WHERE recent_view::oid = ANY (gone);
END $$;
COMMENT ON FUNCTION stream_engine.on_drop() IS 'remove the engine''s rows of relations that are dropped';

/* It is part of every DROP of the database, and who makes the extension need not stay a superuser. */
DO $$
BEGIN
	EXECUTE pg_catalog.format('ALTER FUNCTION stream_engine.on_drop() OWNER TO %I', pg_catalog.pg_get_userbyid(10));
END $$;

CREATE EVENT TRIGGER stream_engine_on_drop ON sql_drop EXECUTE FUNCTION stream_engine.on_drop();
ALTER EVENT TRIGGER stream_engine_on_drop ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER stream_engine_on_drop IS 'remove the engine''s rows of relations that are dropped';
