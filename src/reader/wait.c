/*
 * wait.c
 *	  CALL wait(stream or query, timeout).
 *
 * NOTES
 *	  The end offsets are asked of the source once, at the call; then the caller
 *	  sleeps on the condition variable that every commit of a reader broadcasts,
 *	  and looks at the committed positions again.  Between two looks it is outside
 *	  of any snapshot, so that it holds back no vacuum; hence a procedure, and
 *	  not inside a transaction block.
 *
 *	  What has been read by then may have closed windows that are emitted by further
 *	  commits (closing.c).  These are waited for, but not those that close later.
 *	  What retry_late and retry_dead_letters have queued is waited for, too.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "catalog/ddl.h"
#include "compat/compat.h"
#include "engine/engine.h"
#include "reader.h"

PG_FUNCTION_INFO_V1(se_wait);

static bool waiting;			/* counted in se_shared->waiters */

#define ASK_TIMEOUT_MS 5000

/* A longer timeout is none. */
#define MAX_TIMEOUT_DAYS 36525

typedef struct WaitTarget
{
	char	   *name;
	int32		stream;
	int32		query;			/* 0: all readers of the stream */
	bool		at_home;		/* else it has no readers */
	int			npartitions;
	Datum	   *partitions;
	Datum	   *ends;
	bool		read;			/* up to the ends */
	TimestampTz closed;			/* windows had closed when that was seen */
} WaitTarget;

/* What a wait is for, and how far it has to go; in "context". */
static WaitTarget *
find_target(Oid relid, MemoryContext context)
{
	WaitTarget *target = MemoryContextAllocZero(context, sizeof(WaitTarget));
	SeCatalogScope scope;
	Oid			type = OIDOID;
	Datum		key = ObjectIdGetDatum(relid);
	SeStream   *stream;
	const SeSourceRoutine *routine;
	SeSource   *source;
	bool		isnull;

	se_catalog_begin(&scope);
	if (se_spi("SELECT stream, id FROM stream_engine.query WHERE result = $1 UNION ALL"
			   " SELECT id, 0 FROM stream_engine.stream WHERE relation = $1", 1, &type, &key, NULL,
			   SPI_OK_SELECT) == 1)
	{
		target->stream = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
													 1, &isnull));
		target->query = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
													2, &isnull));
	}
	se_catalog_end(&scope);
	stream = target->stream != 0 ? se_stream_load(target->stream) : NULL;
	if (stream == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("\"%s\" is neither a stream nor a query",
						get_rel_name(relid) ? get_rel_name(relid) : "?"),
				 errhint("A query is named by its result table.")));
	se_check_owner(relid);
	target->name = MemoryContextStrdup(context, get_rel_name(relid));
	target->at_home = stream->at_home;

	routine = se_source()->routine_of_server(stream->serverid);
	source = routine->open(stream->relid, stream->owner);
	target->npartitions = routine->partitions(source, ASK_TIMEOUT_MS);
	target->partitions = MemoryContextAlloc(context, sizeof(Datum) * Max(target->npartitions, 1));
	target->ends = MemoryContextAlloc(context, sizeof(Datum) * Max(target->npartitions, 1));
	for (int i = 0; i < target->npartitions; i++)
	{
		int64		low;
		int64		high;

		routine->offsets(source, i, ASK_TIMEOUT_MS, &low, &high);
		target->partitions[i] = Int32GetDatum(i);
		target->ends[i] = Int64GetDatum(high);
	}
	routine->close(source);
	return target;
}

typedef enum WaitState
{
	WAIT_BEHIND,
	WAIT_DONE,
	WAIT_STOPPED				/* nobody works on it */
} WaitState;

/* Windows of $1 or, if it is given, of the query $2 alone. */
#define CONCERNED \
	" FROM stream_engine.query_progress w JOIN stream_engine.query q ON q.id = w.query" \
	" WHERE q.stream = $1 AND CASE WHEN $2 = 0 THEN q.state = 'running' ELSE q.id = $2 END"

/* Whether windows that had closed when all was read are still being emitted; in a catalog scope. */
static bool
is_closing(WaitTarget *target)
{
	Oid			types[3] = {INT4OID, INT4OID, TIMESTAMPTZOID};
	Datum		values[3];
	bool		isnull;

	values[0] = Int32GetDatum(target->stream);
	values[1] = Int32GetDatum(target->query);
	if (!target->read)
	{
		se_spi("SELECT COALESCE(pg_catalog.max(w.closed_through), '-infinity')" CONCERNED, 2, types,
			   values, NULL, SPI_OK_SELECT);
		target->closed = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
														   SPI_tuptable->tupdesc, 1, &isnull));
		target->read = true;
	}
	values[2] = TimestampTzGetDatum(target->closed);
	return se_spi("SELECT" CONCERNED " AND EXISTS (SELECT FROM stream_engine.closing c"
				  " WHERE c.query = q.id AND c.window_end <= $3) LIMIT 1", 3, types, values, NULL,
				  SPI_OK_SELECT) > 0;
}

static WaitState
look(WaitTarget *target, char **reason)
{
	SeCatalogScope scope;
	Oid			types[4] = {INT4OID, INT4OID, INT4ARRAYOID, INT8ARRAYOID};
	Datum		values[4];
	WaitState	state = WAIT_DONE;
	MemoryContext caller = CurrentMemoryContext;

	values[0] = Int32GetDatum(target->stream);
	values[1] = Int32GetDatum(target->query);
	values[2] = PointerGetDatum(construct_array(target->partitions, target->npartitions, INT4OID,
												4, true, TYPALIGN_INT));
	values[3] = PointerGetDatum(construct_array(target->ends, target->npartitions, INT8OID, 8,
												true, TYPALIGN_DOUBLE));
	se_catalog_begin(&scope);
	/* readers concerned that are behind somewhere, or have records to process again */
	if (se_spi("SELECT p.problem FROM stream_engine.reader r"
			   " JOIN stream_engine.stream s ON s.id = r.stream CROSS JOIN"
			   " LATERAL ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4)) AS t(part, fin)"
			   " LEFT JOIN stream_engine.reader_partition p ON p.reader = r.id AND p.partition = t.part"
			   " WHERE s.id = $1"
			   " AND CASE WHEN $2 = 0 THEN r.head OR EXISTS"
			   "  (SELECT FROM stream_engine.query_progress w JOIN stream_engine.query q ON q.id = w.query"
			   "   WHERE w.reader = r.id AND q.state = 'running')"
			   "  ELSE EXISTS (SELECT FROM stream_engine.query_progress w WHERE w.reader = r.id"
			   "   AND w.query = $2) END"
			   " AND (p.next_offset IS NULL OR p.next_offset < t.fin OR EXISTS"
			   "  (SELECT FROM stream_engine.query_progress w JOIN stream_engine.late_event l ON l.query = w.query"
			   "   WHERE w.reader = r.id AND l.retry) OR EXISTS"
			   "  (SELECT FROM stream_engine.replay y WHERE y.reader = r.id)) ORDER BY p.problem LIMIT 1",
			   4, types, values, NULL, SPI_OK_SELECT) > 0)
	{
		char	   *problem = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

		state = problem ? WAIT_STOPPED : WAIT_BEHIND;
		if (problem)
			*reason = MemoryContextStrdup(caller, problem);
	}
	if (state == WAIT_DONE && is_closing(target))
		state = WAIT_BEHIND;
	if ((state == WAIT_BEHIND || !target->at_home) &&
		se_spi("SELECT COALESCE(q.error, s.error, CASE WHEN s.state = 'paused' THEN 'it is paused'"
			   " WHEN q.state = 'paused' THEN 'it is paused'"
			   " WHEN h.home IS DISTINCT FROM stream_engine.home() THEN 'it comes from a dump or a template'"
			   " ELSE 'it is in state ' || COALESCE(q.state, s.state) END)"
			   " FROM stream_engine.stream s LEFT JOIN stream_engine.query q ON q.id = $2"
			   " LEFT JOIN stream_engine.stream_home h ON h.stream = s.id"
			   " WHERE s.id = $1 AND (s.state <> 'running' OR q.state <> 'running'"
			   " OR h.home IS DISTINCT FROM stream_engine.home())",
			   2, types, values, NULL, SPI_OK_SELECT) == 1)
	{
		char	   *text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

		*reason = MemoryContextStrdup(caller, text);
		state = WAIT_STOPPED;
	}
	if (state == WAIT_DONE &&
		se_spi("SELECT FROM stream_engine.stream s WHERE id = $1 AND ($2 = 0 OR EXISTS"
			   " (SELECT FROM stream_engine.query WHERE id = $2))",
			   2, types, values, NULL, SPI_OK_SELECT) == 0)
	{
		*reason = MemoryContextStrdup(caller, "it has been dropped");
		state = WAIT_STOPPED;
	}
	se_catalog_end(&scope);
	return state;
}

/* When a wait ends in vain. */
static TimestampTz
deadline_of(const Interval *timeout)
{
	int64		days = (int64) timeout->month * DAYS_PER_MONTH + timeout->day +
		timeout->time / USECS_PER_DAY;

	if (days > MAX_TIMEOUT_DAYS)
		return DT_NOEND;
	if (days < 0)
		return DT_NOBEGIN;
	return GetCurrentTimestamp() + days * USECS_PER_DAY + timeout->time % USECS_PER_DAY;
}

/* Queries of a stream that have failed were not waited for, and who waits should know. */
static void
warn_of_failed(const WaitTarget *target)
{
	SeCatalogScope scope;
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(target->stream);

	se_catalog_begin(&scope);
	se_spi("SELECT result::text FROM stream_engine.query WHERE stream = $1 AND state = 'error' ORDER BY id",
		   1, &type, &value, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("query %s is in state error and has not been waited for",
						SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1)),
				 errhint("See the view stream_engine.queries; stream_engine.resume() starts it again.")));
	se_catalog_end(&scope);
}

static void
stop_waiting(int code, Datum arg)
{
	if (waiting)
		pg_atomic_fetch_sub_u32(&se_shared->waiters, 1);
	waiting = false;
}

static void
start_waiting(void)
{
	waiting = true;
	pg_atomic_fetch_add_u32(&se_shared->waiters, 1);
	se_wake_database(MyDatabaseId);
}

Datum
se_wait(PG_FUNCTION_ARGS)
{
	bool		nonatomic = fcinfo->context && IsA(fcinfo->context, CallContext) &&
		!castNode(CallContext, fcinfo->context)->atomic;
	MemoryContext context;
	WaitTarget *target;
	volatile TimestampTz deadline = DT_NOEND;
	WaitState	state;
	char	   *volatile reason = NULL;

	se_require_preload();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("what to wait for must not be null")));
	if (!nonatomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("stream_engine.wait cannot run inside a transaction block"),
				 errdetail("It would not see what is committed meanwhile.")));
	if (!PG_ARGISNULL(1))
		deadline = deadline_of(PG_GETARG_INTERVAL_P(1));
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	context = AllocSetContextCreate(PortalContext, "stream_engine wait", ALLOCSET_SMALL_SIZES);
	target = find_target(PG_GETARG_OID(0), context);

	PG_ENSURE_ERROR_CLEANUP(stop_waiting, (Datum) 0);
	{
		start_waiting();
		ConditionVariablePrepareToSleep(&se_shared->progress);
		for (;;)
		{
			TimestampTz now;

			state = look(target, (char **) &reason);
			if (state != WAIT_BEHIND)
				break;
			SPI_commit();
			now = GetCurrentTimestamp();
			if (now >= deadline)
				break;
			/* a second at most: a lost worker broadcasts nothing */
			(void) ConditionVariableTimedSleep(&se_shared->progress,
											   (long) Min((deadline - now) / 1000 + 1, 1000),
											   PG_WAIT_EXTENSION);
		}
		ConditionVariableCancelSleep();
	}
	PG_END_ENSURE_ERROR_CLEANUP(stop_waiting, (Datum) 0);
	stop_waiting(0, (Datum) 0);
	if (state == WAIT_STOPPED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s does not go on: %s", target->name, reason),
				 errhint("See the views stream_engine.streams and stream_engine.queries; stream_engine.resume() starts it again.")));
	if (state == WAIT_BEHIND)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("timeout while waiting for %s", target->name),
				 errhint("SELECT * FROM stream_engine.stat_partitions tells how far it is.")));
	if (target->query == 0)
		warn_of_failed(target);
	MemoryContextDelete(context);
	SPI_finish();
	PG_RETURN_VOID();
}
