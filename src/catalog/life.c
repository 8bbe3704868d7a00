/*
 * life.c
 *	  pause, resume, skip, advance_watermark, drop.
 *
 * NOTES
 *	  Each checks the caller's ownership, changes rows, raises the generation of
 *	  the readers concerned, which fences whatever they are doing, and wakes the
 *	  workers when the transaction commits.  advance_watermark needs no fence: the
 *	  reader's next commit takes what it left.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat/compat.h"
#include "ddl.h"
#include "engine/engine.h"
#include "sink/staging.h"
#include "stream_ddl.h"

PG_FUNCTION_INFO_V1(se_pause);
PG_FUNCTION_INFO_V1(se_resume);
PG_FUNCTION_INFO_V1(se_skip);
PG_FUNCTION_INFO_V1(se_advance_watermark);
PG_FUNCTION_INFO_V1(se_drop_query);
PG_FUNCTION_INFO_V1(se_drop_stream);
PG_FUNCTION_INFO_V1(se_wake_sql);

#define RESOLVE_TIMEOUT_MS 5000

typedef struct Target
{
	SeStream   *stream;			/* of the query, if it is one */
	SeQueryDef *query;			/* NULL: the stream is meant */
} Target;

static SeQueryDef *
query_by_result(Oid relid)
{
	SeCatalogScope scope;
	Oid			type = OIDOID;
	Datum		key = ObjectIdGetDatum(relid);
	int32		id = 0;
	bool		isnull;

	se_catalog_begin(&scope);
	if (se_spi("SELECT id FROM stream_engine.query WHERE result = $1 OR batch_view = $1", 1, &type,
			   &key, NULL, SPI_OK_SELECT) == 1)
		id = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	se_catalog_end(&scope);
	return id != 0 ? se_query_load(id) : NULL;
}

static Target
find_target(Oid relid)
{
	Target		target = {0};

	target.query = query_by_result(relid);
	if (target.query != NULL && target.query->name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the query has been dropped")));
	target.stream = target.query ? se_stream_load(target.query->stream) :
		se_stream_by_relation(relid);
	if (target.stream == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("\"%s\" is neither a stream nor a query",
						get_rel_name(relid) ? get_rel_name(relid) : "?"),
				 errhint("A query is named by its result table; see the views stream_engine.streams and stream_engine.queries.")));
	se_check_owner(target.query ? target.query->batch_view : target.stream->relid);
	return target;
}

SeStream *
se_find_stream(Oid relid)
{
	Target		target = find_target(relid);

	if (target.query != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is a query, not a stream", target.query->name)));
	return target.stream;
}

SeQueryDef *
se_find_query(Oid relid)
{
	Target		target = find_target(relid);

	if (target.query == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is a stream, not a query", target.stream->name)));
	return target.query;
}

/* Run a statement with one integer parameter. */
static void
change(const char *sql, int32 id, int expected)
{
	SeCatalogScope scope;
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(id);

	se_catalog_begin(&scope);
	se_spi(sql, 1, &type, &value, NULL, expected);
	se_catalog_end(&scope);
}

void
se_fence_query(int32 query)
{
	change("UPDATE stream_engine.reader SET generation = generation + 1 WHERE id = $1",
		   se_query_lock_reader(query), SPI_OK_UPDATE);
	se_wake_at_commit();
}

/* Lock the stream's readers; returns the number of the latest one, 0 if there is none. */
static int32
lock_readers(int32 stream)
{
	SeCatalogScope scope;
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(stream);
	int32		latest = 0;
	bool		isnull;

	se_catalog_begin(&scope);
	se_wake_manager();
	if (se_spi("SELECT id FROM stream_engine.reader WHERE stream = $1 ORDER BY id FOR UPDATE", 1,
			   &type, &value, NULL, SPI_OK_SELECT) > 0)
		latest = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[SPI_processed - 1],
											 SPI_tuptable->tupdesc, 1, &isnull));
	se_catalog_end(&scope);
	return latest;
}

/* While one waits for one of them a query may be split off from it. */
static void
lock_all_readers(int32 stream)
{
	int32		latest = lock_readers(stream);
	int32		seen;

	do
	{
		seen = latest;
		latest = lock_readers(stream);
	} while (latest != seen);
}

void
se_fence_stream(int32 stream)
{
	lock_all_readers(stream);
	change("UPDATE stream_engine.reader SET generation = generation + 1 WHERE stream = $1",
		   stream, SPI_OK_UPDATE);
	se_wake_at_commit();
}

static void
fence(const Target *target)
{
	if (target->query)
		se_fence_query(target->query->id);
	else
		se_fence_stream(target->stream->id);
}

void
se_query_set_paused(int32 query, bool paused)
{
	if (paused)
	{
		change("UPDATE stream_engine.query SET state = 'paused' WHERE id = $1 AND state = 'running'",
			   query, SPI_OK_UPDATE);
		/* the others go on without it */
		se_query_split(query);
	}
	else
		change("UPDATE stream_engine.query SET state = 'running', error = NULL,"
			   " error_sqlstate = NULL, error_hint = NULL, error_partition = NULL,"
			   " error_offset = NULL, error_at = NULL WHERE id = $1", query, SPI_OK_UPDATE);
}

Datum
se_pause(PG_FUNCTION_ARGS)
{
	Target		target;

	se_require_argument(fcinfo, 0, "name");
	target = find_target(PG_GETARG_OID(0));
	fence(&target);
	if (target.query)
		se_query_set_paused(target.query->id, true);
	else
		change("UPDATE stream_engine.stream SET state = 'paused' WHERE id = $1 AND state = 'running'",
			   target.stream->id, SPI_OK_UPDATE);
	PG_RETURN_VOID();
}

/* A dump does not hold automatic dependencies. */
static void
depend_again(const SeStream *stream)
{
	SeCatalogScope scope;
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(stream->id);

	se_catalog_begin(&scope);
	se_spi("SELECT c.oid, s.relation::oid FROM stream_engine.stream s, pg_catalog.pg_class c"
		   " WHERE s.id = $1 AND (c.oid = s.recent_view OR (c.relname ~ ('^staging_' || s.id || '_[0-9]$')"
		   " AND c.relnamespace = 'stream_engine'::pg_catalog.regnamespace))"
		   " UNION ALL SELECT d.oid, d.on FROM stream_engine.query q, LATERAL (VALUES"
		   " (q.open_table::oid, q.batch_view::oid), (q.live_view::oid, q.batch_view::oid),"
		   " (q.live_view::oid, q.result::oid)) AS d(oid, \"on\")"
		   " JOIN pg_catalog.pg_class c ON c.oid = d.oid WHERE q.stream = $1",
		   1, &type, &value, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Oid			dependent = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
															   SPI_tuptable->tupdesc, 1, &isnull));
		Oid			on = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
														SPI_tuptable->tupdesc, 2, &isnull));

		se_depend_auto_once(dependent, on);
	}
	se_catalog_end(&scope);
}

/*
 * The statement by which deferred triggers on a table fire within the statements that follow,
 * NULL if it has none.  At the end of the transaction they would have the rights of whoever
 * has called us, and a restricted operation may not leave any.  In a catalog scope.
 */
static char *
fire_at_once(Oid relid)
{
	Oid			type = OIDOID;
	Datum		value = ObjectIdGetDatum(relid);

	se_spi("SELECT 'SET CONSTRAINTS ' || pg_catalog.string_agg(DISTINCT"
		   " pg_catalog.format('%I.%I', n.nspname, c.conname), ', ') || ' IMMEDIATE'"
		   " FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_constraint c ON c.oid = t.tgconstraint"
		   " JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace"
		   " WHERE t.tgrelid = $1 AND t.tgdeferrable", 1, &type, &value, NULL, SPI_OK_SELECT);
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/*
 * A window that was being emitted when the database was dumped is in the results with
 * some of its rows.  They are deleted, as the table's owner would, so that it is there
 * wholly or not at all.  In a catalog scope.
 */
static void
delete_begun_window(int32 query)
{
	SeQueryDef *def = se_query_load(query);
	SeUserScope scope;
	Oid			types[2] = {TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum		values[2];
	char	   *immediate;

	if (def == NULL || def->name == NULL || !def->closing)
		return;
	immediate = fire_at_once(def->result);
	values[0] = TimestampTzGetDatum(def->closing_start);
	values[1] = TimestampTzGetDatum(def->closing_end);
	se_user_begin(&scope, se_relation_owner(def->result), NIL);
	if (immediate != NULL)
		se_spi(immediate, 0, NULL, NULL, NULL, SPI_OK_UTILITY);
	se_spi(psprintf("DELETE FROM %s WHERE window_start OPERATOR(pg_catalog.=) $1"
					" AND window_end OPERATOR(pg_catalog.=) $2", def->name),
		   2, types, values, NULL, SPI_OK_DELETE);
	se_user_end(&scope);
	types[0] = INT4OID;
	values[0] = Int32GetDatum(query);
	se_spi("DELETE FROM stream_engine.closing WHERE query = $1", 1, types, values, NULL,
		   SPI_OK_DELETE);
}

/*
 * Windows from here on are not in a query's results yet: what the results hold
 * came with the dump, and is not emitted again when the topic is read again.
 *
 * The result table is the owner's: planning alone may run what he has attached to
 * it, so it is read as him.
 */
static TimestampTz
results_end(int32 query)
{
	SeQueryDef *def = se_query_load(query);
	TimestampTz result = DT_NOBEGIN;
	SeUserScope scope;
	Datum		value;
	bool		isnull;

	if (def == NULL || def->name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("a query of the stream has been dropped meanwhile")));
	se_user_begin(&scope, se_relation_owner(def->result), NIL);
	SPI_connect();
	if (SPI_execute(psprintf("SELECT pg_catalog.max(window_start) FROM %s WHERE is_final", def->name),
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the results of query %s", def->name);
	if (SPI_gettypeid(SPI_tuptable->tupdesc, 1) != TIMESTAMPTZOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"window_start\" of %s has been altered", def->name)));
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull && !TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(value)))
		result = DatumGetTimestampTz(value) + 1;
	SPI_finish();
	se_user_end(&scope);
	return result;
}

/* Whether a stream is still to be settled, now that nobody else can settle it. */
static bool
lock_homeless(int32 stream)
{
	SeCatalogScope scope;
	Oid			types[2] = {INT4OID, TEXTOID};
	Datum		values[2];
	bool		result;

	values[0] = Int32GetDatum(stream);
	values[1] = CStringGetTextDatum(se_home());
	se_catalog_begin(&scope);
	result = se_spi("SELECT FROM stream_engine.stream WHERE id = $1 FOR UPDATE", 2, types, values,
					NULL, SPI_OK_SELECT) == 1 &&
		se_spi("SELECT FROM stream_engine.stream_home WHERE stream = $1 AND home = $2", 2, types,
			   values, NULL, SPI_OK_SELECT) == 0;
	se_catalog_end(&scope);
	return result;
}

/* A stream from a dump or a template: new readers, at "start", and no state. */
static void
settle(SeStream *stream, const char *start)
{
	SePosition *positions;
	bool	   *complete;
	int64		nrecords;
	int			npositions;
	SeCatalogScope scope;
	Oid			types[2] = {INT4OID, TEXTOID};
	Datum		values[2];
	int			nqueries;
	int32	   *queries;
	bool	   *running;
	bool	   *session;

	if (!lock_homeless(stream->id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("stream %s has been resumed by another session", stream->name)));
	npositions = se_resolve_start(stream, start, RESOLVE_TIMEOUT_MS, &positions, &complete,
								  &nrecords);
	depend_again(stream);
	change("DELETE FROM stream_engine.state_log l USING stream_engine.query q"
		   " WHERE q.stream = $1 AND l.query = q.id", stream->id, SPI_OK_DELETE);
	change("DELETE FROM stream_engine.query_partition p USING stream_engine.query q"
		   " WHERE q.stream = $1 AND p.query = q.id", stream->id, SPI_OK_DELETE);
	change("DELETE FROM stream_engine.query_origin o USING stream_engine.query q"
		   " WHERE q.stream = $1 AND o.query = q.id", stream->id, SPI_OK_DELETE);
	change("DELETE FROM stream_engine.reader WHERE stream = $1", stream->id, SPI_OK_DELETE);
	change("UPDATE stream_engine.query SET kept_from = '-infinity' WHERE stream = $1", stream->id,
		   SPI_OK_UPDATE);
	/* what has been skipped is skipped by all from here on */
	change("UPDATE stream_engine.dead_letter SET read_by = NULL WHERE stream = $1"
		   " AND read_by IS NOT NULL", stream->id, SPI_OK_UPDATE);
	/* the windows of late records have no state here, and the records may be read again */
	change("UPDATE stream_engine.late_event l SET retry = false, former = true"
		   " FROM stream_engine.query q WHERE q.stream = $1 AND l.query = q.id"
		   " AND (l.retry OR NOT l.former)", stream->id, SPI_OK_UPDATE);
	/* the option may have been set since the stream was made without */
	if (stream->options.staging_retention > 0 &&
		OidIsValid(get_relname_relid(se_staging_table_name(stream->id, 0),
									 get_namespace_oid(SE_SCHEMA, false))))
		(void) se_reader_create(stream->id, true, start, positions, complete, npositions);

	values[0] = Int32GetDatum(stream->id);
	values[1] = CStringGetTextDatum(se_home());
	se_catalog_begin(&scope);
	se_spi("SELECT id, state = 'running', session FROM stream_engine.query WHERE stream = $1 ORDER BY id",
		   1, types, values, NULL, SPI_OK_SELECT);
	nqueries = (int) SPI_processed;
	queries = palloc(sizeof(int32) * Max(nqueries, 1));
	running = palloc(sizeof(bool) * Max(nqueries, 1));
	session = palloc(sizeof(bool) * Max(nqueries, 1));
	for (int i = 0; i < nqueries; i++)
	{
		bool		isnull;

		queries[i] = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1,
												 &isnull));
		running[i] = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2,
												&isnull));
		session[i] = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 3,
												&isnull));
	}
	for (int i = 0; i < nqueries; i++)
	{
		Oid			ptypes[3] = {INT4OID, INT4OID, TIMESTAMPTZOID};
		Datum		pvalues[3];
		int32		reader = 0;

		if (running[i])
			reader = se_reader_to_join(stream->id, session[i], start, positions, npositions);
		if (reader == 0)
			reader = se_reader_create(stream->id, false, start, positions, complete, npositions);
		delete_begun_window(queries[i]);
		/* what has been deleted is not to be seen any more */
		CommandCounterIncrement();
		PushActiveSnapshot(GetTransactionSnapshot());
		pvalues[0] = Int32GetDatum(queries[i]);
		pvalues[1] = Int32GetDatum(reader);
		pvalues[2] = TimestampTzGetDatum(Max(se_stream_complete_from(stream),
											 results_end(queries[i])));
		se_spi("INSERT INTO stream_engine.query_progress (query, reader, complete_from)"
			   " VALUES ($1, $2, $3)", 3, ptypes, pvalues, NULL, SPI_OK_INSERT);
		PopActiveSnapshot();
	}
	se_spi("INSERT INTO stream_engine.stream_home (stream, home) VALUES ($1, $2)"
		   " ON CONFLICT (stream) DO UPDATE SET home = $2", 2, types, values, NULL, SPI_OK_INSERT);
	se_catalog_end(&scope);
}

/*
 * Partitions that have stopped go on at "start"; the distance is counted as a gap.  Those that the
 * topic has not any more are given up.
 */
static void
reposition(SeStream *stream, const char *start)
{
	SePosition *positions;
	bool	   *complete;
	int64		nrecords;
	int			npositions;
	SeCatalogScope scope;
	Oid			types[3] = {INT4OID, INT4OID, INT8OID};
	Datum		values[3];

	npositions = se_resolve_start(stream, start, RESOLVE_TIMEOUT_MS, &positions, &complete,
								  &nrecords);
	se_catalog_begin(&scope);
	for (int i = 0; i < npositions; i++)
	{
		values[0] = Int32GetDatum(stream->id);
		values[1] = Int32GetDatum(positions[i].partition);
		values[2] = Int64GetDatum(positions[i].offset);
		/* a query that has joined a reader that goes back reads from there, too */
		se_spi("UPDATE stream_engine.query_origin o"
			   " SET gaps = o.gaps + o.start_offset - $3, start_offset = $3"
			   " FROM stream_engine.query_progress w JOIN stream_engine.reader r ON r.id = w.reader"
			   " JOIN stream_engine.reader_partition p ON p.reader = r.id"
			   " WHERE o.query = w.query AND o.partition = $2 AND o.start_offset > $3"
			   " AND r.stream = $1 AND p.partition = $2 AND p.problem IS NOT NULL", 3, types, values,
			   NULL, SPI_OK_UPDATE);
		se_spi("UPDATE stream_engine.reader_partition p"
			   " SET gaps = p.gaps + $3 - p.next_offset, next_offset = $3, problem = NULL,"
			   " last_offset = NULL, last_timestamp = NULL, last_checksum = NULL"
			   " FROM stream_engine.reader r WHERE r.id = p.reader AND r.stream = $1"
			   " AND p.partition = $2 AND p.problem IS NOT NULL", 3, types, values, NULL,
			   SPI_OK_UPDATE);
		/* verdicts on what had these offsets before are not on what has them from now on */
		if (SPI_processed > 0)
			se_spi("DELETE FROM stream_engine.dead_letter WHERE stream = $1 AND partition = $2"
				   " AND \"offset\" >= $3 AND reason <> 'bad'", 3, types, values, NULL,
				   SPI_OK_DELETE);
	}
	/* what the topic has not any more */
	values[1] = Int32GetDatum(npositions);
	se_spi("UPDATE stream_engine.reader_partition p SET gone = true, problem = NULL,"
		   " last_offset = NULL, last_timestamp = NULL, last_checksum = NULL"
		   " FROM stream_engine.reader r WHERE r.id = p.reader AND r.stream = $1"
		   " AND p.partition >= $2 AND p.problem IS NOT NULL", 2, types, values, NULL,
		   SPI_OK_UPDATE);
	se_catalog_end(&scope);
}

Datum
se_resume(PG_FUNCTION_ARGS)
{
	Target		target;
	char	   *start;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("what to resume must not be null")));
	target = find_target(PG_GETARG_OID(0));
	fence(&target);
	start = PG_ARGISNULL(1) ? NULL : se_check_start(text_to_cstring(PG_GETARG_TEXT_PP(1)));

	if (target.query)
	{
		if (start != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a query resumes at its own position"),
					 errhint("Leave out \"start\".")));
		se_query_set_paused(target.query->id, false);
	}
	else
	{
		if (!target.stream->at_home)
		{
			if (start == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("stream %s comes from a dump or a template and has no position here",
								target.stream->name),
						 errhint("Give one: stream_engine.resume(..., start => 'latest').")));
			settle(target.stream, start);
		}
		else if (start != NULL)
			reposition(target.stream, start);
		else
			/* tried again where they stand */
			change("UPDATE stream_engine.reader_partition p SET problem = NULL"
				   " FROM stream_engine.reader r WHERE r.id = p.reader AND r.stream = $1"
				   " AND p.problem IS NOT NULL", target.stream->id, SPI_OK_UPDATE);
		change("UPDATE stream_engine.stream SET state = 'running', error = NULL,"
			   " error_sqlstate = NULL, error_partition = NULL, error_offset = NULL,"
			   " error_at = NULL WHERE id = $1", target.stream->id, SPI_OK_UPDATE);
	}
	PG_RETURN_VOID();
}

Datum
se_skip(PG_FUNCTION_ARGS)
{
	SeStream   *stream;
	Target		target = {NULL, NULL};
	int32		partition = PG_GETARG_INT32(1);
	int64		offset = PG_GETARG_INT64(2);
	SeCatalogScope scope;
	Oid			types[4] = {INT4OID, INT4OID, INT8OID, TEXTOID};
	Datum		values[4];

	se_require_argument(fcinfo, 0, "stream");
	se_require_argument(fcinfo, 1, "partition");
	se_require_argument(fcinfo, 2, "offset");
	stream = se_find_stream(PG_GETARG_OID(0));
	target.stream = stream;
	values[0] = Int32GetDatum(stream->id);
	values[1] = Int32GetDatum(partition);
	values[2] = Int64GetDatum(offset);
	values[3] = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	fence(&target);
	se_catalog_begin(&scope);
	if (se_spi("SELECT FROM stream_engine.reader_partition p JOIN stream_engine.reader r"
			   " ON r.id = p.reader WHERE r.stream = $1 AND p.partition = $2"
			   " AND p.next_offset <= $3 FOR UPDATE OF p", 3, types, values, NULL,
			   SPI_OK_SELECT) == 0)
	{
		bool		known = se_spi("SELECT FROM stream_engine.reader_partition p"
								   " JOIN stream_engine.reader r ON r.id = p.reader"
								   " WHERE r.stream = $1 AND p.partition = $2 LIMIT 1", 3, types,
								   values, NULL, SPI_OK_SELECT) > 0;

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 known ?
				 errmsg("offset %lld of partition %d has been read already", (long long) offset,
						partition) :
				 errmsg("partition %d is not known to any reader of stream %s", partition,
						stream->name)));
	}
	/* queries that are ahead of others have it in their results, where it stays */
	se_spi("INSERT INTO stream_engine.dead_letter (stream, partition, \"offset\", reason, message,"
		   " seen_at, read_by) SELECT $1, $2, $3, 'skipped', 'skipped by ' || $4,"
		   " pg_catalog.clock_timestamp(), pg_catalog.array_agg(w.query ORDER BY w.query)"
		   " FROM stream_engine.reader_partition p JOIN stream_engine.reader r ON r.id = p.reader"
		   " JOIN stream_engine.query_progress w ON w.reader = r.id"
		   " WHERE r.stream = $1 AND p.partition = $2 AND p.next_offset > $3"
		   " ON CONFLICT DO NOTHING", 4, types, values, NULL, SPI_OK_INSERT);
	/* one that cannot even be fetched will never come to be skipped, or may come after all */
	se_spi("UPDATE stream_engine.reader_partition p SET next_offset = $3 + 1,"
		   " records = p.records + 1, skipped = p.skipped + 1, problem = NULL,"
		   " last_offset = NULL, last_timestamp = NULL, last_checksum = NULL"
		   " FROM stream_engine.reader r WHERE r.id = p.reader AND r.stream = $1"
		   " AND p.partition = $2 AND p.next_offset = $3 AND p.problem IS NOT NULL", 4, types,
		   values, NULL, SPI_OK_UPDATE);
	se_catalog_end(&scope);
	fence(&target);
	PG_RETURN_VOID();
}

Datum
se_advance_watermark(PG_FUNCTION_ARGS)
{
	SeStream   *stream;
	TimestampTz to;
	TimestampTz latest;
	SeCatalogScope scope;
	Oid			types[2] = {INT4OID, TIMESTAMPTZOID};
	Datum		values[2];

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("arguments \"stream\" and \"to\" must not be null")));
	stream = se_find_stream(PG_GETARG_OID(0));
	to = PG_GETARG_TIMESTAMPTZ(1);
	if (TIMESTAMP_NOT_FINITE(to))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a watermark must be finite")));
	if (stream->options.processing_time)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the watermark of stream %s is the clock", stream->name)));
	latest = GetCurrentTimestamp() + stream->options.max_future;
	if (to > latest)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("watermark %s lies more than max_future in the future",
						timestamptz_to_str(to)),
				 errdetail("Every record up to that time would be late."),
				 errhint("Option max_future of stream %s bounds it.", stream->name)));

	values[0] = Int32GetDatum(stream->id);
	values[1] = TimestampTzGetDatum(to);
	lock_all_readers(stream->id);
	se_catalog_begin(&scope);
	se_spi("UPDATE stream_engine.reader SET advance_to = GREATEST(advance_to, $2)"
		   " WHERE stream = $1 AND watermark < $2 AND absorbed_by IS NULL", 2, types, values, NULL, SPI_OK_UPDATE);
	se_catalog_end(&scope);
	se_wake_at_commit();
	PG_RETURN_VOID();
}

/* The name as it is now; somebody else may have dropped the relation while we waited. */
static char *
qualified(Oid relid)
{
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("it has been dropped by another session")));
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name);
}

/* Drop a query's relations as the caller; the event trigger removes its rows. */
static void
drop_query(SeQueryDef *query, bool keep_results)
{
	Target		target = {NULL, query};
	char	   *result;

	/* the reader's commit would want the relations while we want its row */
	fence(&target);
	result = qualified(query->result);

	SPI_connect();
	/* the open table and the live view go with it */
	se_run_utility(psprintf("DROP VIEW %s", qualified(query->batch_view)));
	if (!keep_results)
		se_run_utility(psprintf("DROP TABLE %s", result));
	SPI_finish();
}

Datum
se_drop_query(PG_FUNCTION_ARGS)
{
	se_require_argument(fcinfo, 0, "name");
	se_require_argument(fcinfo, 1, "keep_results");
	drop_query(se_find_query(PG_GETARG_OID(0)), PG_GETARG_BOOL(1));
	PG_RETURN_VOID();
}

Datum
se_drop_stream(PG_FUNCTION_ARGS)
{
	SeStream   *stream;
	SeCatalogScope scope;
	Oid			type = INT4OID;
	Datum		value;
	int			n;

	se_require_argument(fcinfo, 0, "name");
	se_require_argument(fcinfo, 1, "cascade");
	stream = se_find_stream(PG_GETARG_OID(0));
	value = Int32GetDatum(stream->id);

	/* before any row: readers hold it while they wait for their rows */
	se_wake_manager();
	LockRelationOid(stream->relid, AccessExclusiveLock);
	if (PG_GETARG_BOOL(1))
	{
		int32	   *ids;

		se_catalog_begin(&scope);
		se_spi("SELECT id FROM stream_engine.query WHERE stream = $1", 1, &type, &value, NULL,
			   SPI_OK_SELECT);
		n = (int) SPI_processed;
		ids = MemoryContextAlloc(TopTransactionContext, sizeof(int32) * Max(n, 1));
		for (int i = 0; i < n; i++)
		{
			bool		isnull;

			ids[i] = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1,
												 &isnull));
		}
		se_catalog_end(&scope);
		for (int i = 0; i < n; i++)
		{
			SeQueryDef *query = se_query_load(ids[i]);

			if (query == NULL)
				continue;		/* somebody else was faster */
			se_check_owner(query->batch_view);
			drop_query(query, false);
		}
	}
	else
	{
		se_catalog_begin(&scope);
		n = se_spi("SELECT FROM stream_engine.query WHERE stream = $1", 1, &type, &value, NULL,
				   SPI_OK_SELECT);
		se_catalog_end(&scope);
		if (n > 0)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cannot drop stream %s because queries depend on it", stream->name),
					 errdetail_plural("It has %d query; see the view stream_engine.queries.",
									  "It has %d queries; see the view stream_engine.queries.",
									  n, n),
					 errhint("With cascade => true they and their results are dropped, too.")));
	}
	SPI_connect();
	se_run_utility(psprintf("DROP FOREIGN TABLE %s", qualified(stream->relid)));
	SPI_finish();
	PG_RETURN_VOID();
}

Datum
se_wake_sql(PG_FUNCTION_ARGS)
{
	if (se_shared != NULL)
		se_wake_at_commit();
	PG_RETURN_VOID();
}
