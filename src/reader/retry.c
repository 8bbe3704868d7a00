/*
 * retry.c
 *	  retry_late(query, condition): have late records counted after all.
 *
 * NOTES
 *	  The session marks the records in late_event and raises the generation of the
 *	  query's reader, all in one transaction that holds the reader's row.  So no
 *	  commit of the reader lies between the watermark by which the session chose the
 *	  records and the reader's next life, which begins with them: what was chosen
 *	  has its state.  The reader adds the records to the slices of their windows,
 *	  and its commit deletes them from late_event, corrects the counters and the
 *	  windows' rows, all at once.
 *
 *	  A record that cannot be decoded any more, because the stream's columns have
 *	  changed, stays late.  So does one that came late before the stream was restored from
 *	  a dump: its windows have no state here, and the new position may be before it.  And
 *	  one whose windows are not emitted, because they began before the query did.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog/ddl.h"
#include "engine/engine.h"
#include "reader.h"

PG_FUNCTION_INFO_V1(se_retry_late);

/* ---- the session's part ---- */

/* The query of that name, if its late records can be retried by the caller. */
static SeQueryDef *
find_query(Oid relid)
{
	SeQueryDef *def = se_find_query(relid);

	if (Max(def->allowed_lateness, def->correction_horizon) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("query %s keeps no state of closed windows", def->name),
				 errhint("Create the query with correction_horizon or allowed_lateness.")));
	return def;
}

/*
 * Positions of the query's late records that meet the condition, as two arrays.
 * The condition is the caller's and runs with the caller's rights, on a view that
 * shows no other's records, in a single query that cannot write.
 */
static bool
choose_records(Oid relid, const char *condition, Datum *partitions, Datum *offsets)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext inner;
	Oid			type = OIDOID;
	Datum		value = ObjectIdGetDatum(relid);
	SPIPlanPtr	plan;
	bool		isnull;

	SPI_connect();
	plan = SPI_prepare(psprintf("SELECT pg_catalog.array_agg(l.partition), pg_catalog.array_agg(l.\"offset\")"
								" FROM (SELECT partition, \"offset\" FROM stream_engine.late_events"
								" WHERE query OPERATOR(pg_catalog.=) $1 AND (%s\n)) l", condition), 1, &type);
	if (plan == NULL || !SPI_is_cursor_plan(plan))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the condition is not one expression")));
	if (SPI_execute_plan(plan, &value, NULL, true, 0) != SPI_OK_SELECT || SPI_processed != 1 ||
		SPI_gettypeid(SPI_tuptable->tupdesc, 1) != INT4ARRAYOID ||
		SPI_gettypeid(SPI_tuptable->tupdesc, 2) != INT8ARRAYOID)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the condition is not one expression")));
	inner = MemoryContextSwitchTo(caller);
	*partitions = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
	{
		*partitions = PointerGetDatum(DatumGetArrayTypePCopy(*partitions));
		*offsets = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
		*offsets = PointerGetDatum(DatumGetArrayTypePCopy(*offsets));
	}
	MemoryContextSwitchTo(inner);
	SPI_finish();
	return !isnull;
}

Datum
se_retry_late(PG_FUNCTION_ARGS)
{
	SeQueryDef *def;
	SeCatalogScope scope;
	Oid			types[4] = {INT4OID, INT4ARRAYOID, INT8ARRAYOID, INT8OID};
	Datum		values[4];
	char	   *condition = PG_ARGISNULL(1) ? "true" : text_to_cstring(PG_GETARG_TEXT_PP(1));
	int64		n;

	se_require_preload();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("query must not be null")));
	def = find_query(PG_GETARG_OID(0));
	if (!choose_records(PG_GETARG_OID(0), condition, &values[1], &values[2]))
		PG_RETURN_INT64(0);
	values[0] = Int32GetDatum(def->id);
	values[3] = Int64GetDatum(Max(def->allowed_lateness, def->correction_horizon));

	se_catalog_begin(&scope);
	/* no commit of the reader, and no other watermark, until ours */
	(void) se_query_lock_reader(def->id);
	n = (int64) se_spi("UPDATE stream_engine.late_event l SET retry = true"
					   " FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) AS c(part, pos),"
					   " stream_engine.query_progress p"
					   " WHERE l.query = $1 AND l.partition = c.part AND l.\"offset\" = c.pos"
					   " AND NOT l.partly AND NOT l.retry AND NOT l.former AND p.query = $1"
					   " AND pg_catalog.upper(l.windows[pg_catalog.cardinality(l.windows)])"
					   "  + $4 * '1 microsecond'::interval > p.closed_through"
					   " AND pg_catalog.upper(l.windows[pg_catalog.cardinality(l.windows)])"
					   "  > (SELECT q.kept_from FROM stream_engine.query q WHERE q.id = $1)"
	/* a session may take in one that is complete; of the others some window must be */
					   " AND ((SELECT q.session OR q.emit_partial FROM stream_engine.query q WHERE q.id = $1)"
					   "  OR EXISTS (SELECT FROM pg_catalog.unnest(l.windows) w"
					   "  WHERE pg_catalog.upper(w) + $4 * '1 microsecond'::interval > p.closed_through"
					   "  AND (pg_catalog.lower(w) >= p.complete_from OR EXISTS (SELECT FROM ROWS FROM"
					   "   (pg_catalog.unnest(p.emitted_from), pg_catalog.unnest(p.emitted_through)) c(f, t)"
					   "   WHERE c.f <= pg_catalog.lower(w) AND pg_catalog.upper(w) <= c.t))))",
					   4, types, values, NULL, SPI_OK_UPDATE);
	if (n > 0)
		se_spi("UPDATE stream_engine.reader r SET generation = r.generation + 1"
			   " FROM stream_engine.query_progress p WHERE p.query = $1 AND r.id = p.reader",
			   1, types, values, NULL, SPI_OK_UPDATE);
	se_catalog_end(&scope);
	if (n > 0)
		se_wake_at_commit();
	PG_RETURN_INT64(n);
}

/* ---- the reader's part ---- */

/* Records in the form that the decoder takes, in CurrentMemoryContext. */
typedef struct RetryBatch
{
	int			n;
	SeRecord	records[SE_BATCH_MAX];
	TimestampTz event_time[SE_BATCH_MAX];	/* as stored */
	int			nwindows[SE_BATCH_MAX]; /* as stored, perhaps not all */
} RetryBatch;

/* The next marked records of a query, whose marks are taken off. */
static void
take_marked(const ReaderQuery *query, RetryBatch *batch, MemoryContext context)
{
	SeCatalogScope scope;
	Oid			types[3] = {INT4OID, INT4OID, INT8OID};
	Datum		values[3];

	values[0] = Int32GetDatum(query->def->id);
	values[1] = Int32GetDatum(SE_BATCH_MAX);
	values[2] = Int64GetDatum(SE_AGAIN_BYTES);
	se_catalog_begin(&scope);
	se_spi("UPDATE stream_engine.late_event l SET retry = false"
		   " FROM (SELECT partition, \"offset\", pg_catalog.sum(pg_catalog.octet_length(payload))"
		   "  OVER (ORDER BY partition, \"offset\" ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before"
		   "  FROM (SELECT partition, \"offset\", payload FROM stream_engine.late_event"
		   "   WHERE query = $1 AND retry ORDER BY partition, \"offset\" LIMIT $2) r) m"
		   " WHERE l.query = $1 AND l.partition = m.partition AND l.\"offset\" = m.\"offset\""
		   " AND (m.before IS NULL OR m.before < $3)"
		   " RETURNING l.partition, l.\"offset\", l.kafka_timestamp, l.key, l.payload, l.headers,"
		   " l.event_time, pg_catalog.cardinality(l.windows)",
		   3, types, values, NULL, SPI_OK_UPDATE_RETURNING);
	batch->n = (int) SPI_processed;
	for (int i = 0; i < batch->n; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;

		se_record_of_row(i, context, &batch->records[i]);
		batch->event_time[i] = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 7, &isnull));
		batch->nwindows[i] = DatumGetInt32(SPI_getbinval(tuple, desc, 8, &isnull));
	}
	se_catalog_end(&scope);
}

/* Delete the rows of records that are processed once more. */
static void
delete_taken(const ReaderQuery *query, const RetryBatch *batch, const TimestampTz *event_time)
{
	SeCatalogScope scope;
	Oid			types[3] = {INT4OID, INT4OID, INT8OID};
	Datum		values[3];

	se_catalog_begin(&scope);
	for (int i = 0; i < batch->n; i++)
	{
		if (event_time[i] == DT_NOBEGIN)
			continue;
		values[0] = Int32GetDatum(query->def->id);
		values[1] = Int32GetDatum(batch->records[i].partition);
		values[2] = Int64GetDatum(batch->records[i].offset);
		se_spi("DELETE FROM stream_engine.late_event WHERE query = $1 AND partition = $2 AND \"offset\" = $3",
			   3, types, values, NULL, SPI_OK_DELETE);
	}
	se_catalog_end(&scope);
}

/* They do not count as late any more; if they still are, processing them has counted them again. */
static void
uncount(ReaderQuery *query, const RetryBatch *batch, const TimestampTz *event_time)
{
	const SeWindowSpec *window = &query->plan->window;

	for (int i = 0; i < batch->n; i++)
	{
		QueryCounters *counters = &query->counters[batch->records[i].partition];
		TimestampTz start;
		TimestampTz end;

		if (event_time[i] == DT_NOBEGIN ||
			!se_window_slice(window, batch->event_time[i], NULL, &start, &end))
			continue;
		counters->late--;
		counters->late_assignments -= window->by_window ? batch->nwindows[i] :
			se_window_of_slice(window, start, end, NULL, NULL, 0);
		counters->dirty = true;
	}
}

static bool
retry_query(Reader *reader, ReaderQuery *query)
{
	MemoryContext context = AllocSetContextCreate(reader->context, "stream_engine retry",
												  ALLOCSET_DEFAULT_SIZES);
	RetryBatch *batch = MemoryContextAlloc(context, sizeof(RetryBatch));

	for (;;)
	{
		TimestampTz event_time[SE_BATCH_MAX];

		if (!se_cycle_begin(reader))
			return false;
		PushActiveSnapshot(GetTransactionSnapshot());
		/* until the commit: there may be more of them than fit into memory */
		take_marked(query, batch, reader->cycle);
		if (batch->n > 0)
		{
			se_process_late(reader, query, batch->records, batch->n, event_time);
			delete_taken(query, batch, event_time);
			uncount(query, batch, event_time);
		}
		PopActiveSnapshot();
		if (batch->n == 0)
			break;
		SE_FAILPOINT("retry.before_commit");
		if (!se_reader_commit(reader))
			return false;
	}
	se_cycle_end_empty(reader);
	MemoryContextDelete(context);
	return true;
}

/*
 * Process the marked records of all queries, with commits of their own, before any
 * other.  False: the definition is to be read again.
 */
bool
se_retry_records(Reader *reader)
{
	/* also where nothing is kept any more since they were marked: they are late again then */
	for (int i = 0; i < reader->nqueries; i++)
		if (!retry_query(reader, &reader->queries[i]))
			return false;
	return true;
}
