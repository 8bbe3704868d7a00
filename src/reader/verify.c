/*
 * verify.c
 *	  verify(query): the batch over the same offsets against the results.
 *
 * NOTES
 *	  The batch view is read with a scan override: each partition from the
 *	  reader's first offset to its committed position, without the positions
 *	  that the query did not count (late records) and those that another clock
 *	  judged (future records, skipped ones).  Positions, results and the rest are
 *	  read under one snapshot, the statement's.  Only complete windows that have
 *	  closed are compared, and not those that have missed a record which longer or later
 *	  windows took: no one batch can show such a record to some of its windows.
 *	  Floating-point columns may differ in the last digits,
 *	  for the order of additions does.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "catalog/ddl.h"
#include "compat/compat.h"
#include "engine/engine.h"
#include "reader.h"

PG_FUNCTION_INFO_V1(se_verify);

#define ASK_TIMEOUT_MS 5000

typedef struct VerifyInput
{
	SeQueryDef *query;
	SeStream   *stream;
	SeScanOverride override;
	int64	   *gaps;			/* [range] offsets without a record */
	int64		dropped;		/* late records without a position */
	TimestampTz emitted_end;	/* windows before this one have been emitted */
	TimestampTz emitted_start;
	Datum		emitted_from;	/* complete windows before complete_from, arrays */
	Datum		emitted_through;
	/* records that some of their windows missed, once for each that is known */
	int			npartly;
	TimestampTz *partly_time;	/* event times */
	SeWindowBounds *partly_window;
	bool	   *partly_last;	/* it is the last one that missed the record */
} VerifyInput;

static uint64
select_in_snapshot(const char *sql, Datum value, Oid type)
{
	if (SPI_execute_with_args(sql, 1, &type, &value, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read positions for verify");
	return SPI_processed;
}

static int64
int_value(uint64 row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column,
									  &isnull);

	if (isnull)
		return 0;
	return SPI_gettypeid(SPI_tuptable->tupdesc, column) == INT4OID ?
		(int64) DatumGetInt32(value) : DatumGetInt64(value);
}

/* An array of the first row, in "context". */
static Datum
array_value(MemoryContext context, int column)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column,
									  &isnull);

	value = PointerGetDatum(DatumGetArrayTypePCopy(value));
	MemoryContextSwitchTo(old);
	return value;
}

/* The records must still be there, from the first one that the query has read. */
static void
check_retention(const VerifyInput *input)
{
	const SeSourceRoutine *routine = se_source()->routine_of_server(input->stream->serverid);
	SeSource   *source = routine->open(input->stream->relid, input->stream->owner);

	(void) routine->partitions(source, ASK_TIMEOUT_MS);
	for (int i = 0; i < input->override.nranges; i++)
	{
		const SeScanRange *range = &input->override.ranges[i];
		int64		low;
		int64		high;

		routine->offsets(source, range->partition, ASK_TIMEOUT_MS, &low, &high);
		/* offsets that never held a record are no loss */
		if (Min(low, range->end) - range->start > input->gaps[i])
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("query %s cannot be verified: its first records are not in the topic any more",
							input->query->name),
					 errdetail("The query has read partition %d from offset %lld, the topic begins at %lld.",
							   range->partition, (long long) range->start, (long long) low),
					 errhint("A query that is created now with the same SELECT can be verified.")));
	}
	routine->close(source);
}

static void
find_input(VerifyInput *input, Oid relid)
{
	MemoryContext context = CurrentMemoryContext;
	SeCatalogScope scope;
	SeScanRange *ranges;
	SeScanExclusion *excluded;
	int32		id = 0;
	uint64		n;

	memset(input, 0, sizeof(VerifyInput));
	se_catalog_begin(&scope);
	if (select_in_snapshot("SELECT id FROM stream_engine.query WHERE result = $1",
						   ObjectIdGetDatum(relid), OIDOID) == 1)
		id = (int32) int_value(0, 1);
	se_catalog_end(&scope);
	if (id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("\"%s\" is not a query", get_rel_name(relid) ? get_rel_name(relid) : "?"),
				 errhint("A query is named by its result table.")));
	input->query = se_query_load(id);
	if (input->query == NULL || input->query->name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the query has been dropped")));
	se_check_owner(input->query->batch_view);
	input->stream = se_stream_load(input->query->stream);
	/* an old snapshot may have rows of what is gone */
	if (input->stream == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the stream has been dropped")));
	if (input->stream->options.processing_time)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("query %s cannot be verified", input->query->name),
				 errdetail("Its windows are of processing time: to read a record again gives it another time.")));

	se_catalog_begin(&scope);
	n = select_in_snapshot("SELECT p.partition, COALESCE(o.start_offset, p.start_offset), p.next_offset,"
						   " w.closed_through, w.complete_from, p.gaps + COALESCE(o.gaps, 0),"
						   " COALESCE(c.window_end, 'infinity'), COALESCE(c.window_start, 'infinity')"
						   " FROM stream_engine.query_progress w"
						   " LEFT JOIN stream_engine.closing c ON c.query = w.query"
						   " JOIN stream_engine.reader_partition p ON p.reader = w.reader"
						   " LEFT JOIN stream_engine.query_origin o ON o.query = w.query AND o.partition = p.partition"
						   " WHERE w.query = $1 ORDER BY p.partition", Int32GetDatum(id), INT4OID);
	ranges = MemoryContextAllocZero(context, sizeof(SeScanRange) * Max(n, 1));
	input->gaps = MemoryContextAllocZero(context, sizeof(int64) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		ranges[i].partition = (int32) int_value(i, 1);
		ranges[i].start = int_value(i, 2);
		ranges[i].end = int_value(i, 3);
		input->gaps[i] = int_value(i, 6);
		input->query->closed_through = int_value(i, 4);
		input->query->complete_from = int_value(i, 5);
		input->emitted_end = int_value(i, 7);
		input->emitted_start = int_value(i, 8);
	}
	input->override.nranges = (int) n;
	input->override.ranges = ranges;

	(void) select_in_snapshot("SELECT COALESCE((SELECT emitted_from FROM stream_engine.query_progress WHERE query = $1), '{}'),"
							  " COALESCE((SELECT emitted_through FROM stream_engine.query_progress WHERE query = $1), '{}')",
							  Int32GetDatum(id), INT4OID);
	input->emitted_from = array_value(context, 1);
	input->emitted_through = array_value(context, 2);

	n = select_in_snapshot("SELECT l.partition, l.\"offset\" FROM stream_engine.late_event l WHERE l.query = $1 AND NOT l.partly AND NOT l.former"
						   " UNION SELECT d.partition, d.\"offset\" FROM stream_engine.dead_letter d"
						   " JOIN stream_engine.query q ON q.stream = d.stream"
						   " WHERE q.id = $1 AND d.reason <> 'bad' AND q.id <> ALL (COALESCE(d.read_by, '{}'))"
						   " UNION SELECT f.partition, f.\"offset\" FROM stream_engine.failed_record f"
						   " WHERE f.query = $1"
						   " UNION SELECT h.partition, h.\"offset\" FROM stream_engine.dead_letter_reader h"
						   " JOIN stream_engine.query_progress w ON w.reader = h.reader WHERE w.query = $1"
						   " UNION SELECT p.partition, p.\"offset\" FROM stream_engine.replay p"
						   " JOIN stream_engine.query_progress w ON w.reader = p.reader WHERE w.query = $1"
						   " AND (p.query IS NULL OR p.query = $1) ORDER BY 1, 2",
						   Int32GetDatum(id), INT4OID);
	excluded = MemoryContextAllocHuge(context, sizeof(SeScanExclusion) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		excluded[i].partition = (int32) int_value(i, 1);
		excluded[i].offset = int_value(i, 2);
	}
	input->override.nexcluded = (int) n;
	input->override.excluded = excluded;

	n = select_in_snapshot("SELECT l.event_time, pg_catalog.lower(w.bounds), pg_catalog.upper(w.bounds),"
						   " (w.i = pg_catalog.cardinality(l.windows))::int FROM stream_engine.late_event l,"
						   " ROWS FROM (pg_catalog.unnest(l.windows)) WITH ORDINALITY AS w(bounds, i)"
						   " WHERE l.query = $1 AND l.partly AND NOT l.former",
						   Int32GetDatum(id), INT4OID);
	input->npartly = (int) n;
	input->partly_time = MemoryContextAllocHuge(context, sizeof(TimestampTz) * Max(n, 1));
	input->partly_window = MemoryContextAllocHuge(context, sizeof(SeWindowBounds) * Max(n, 1));
	input->partly_last = MemoryContextAllocHuge(context, sizeof(bool) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		input->partly_time[i] = int_value(i, 1);
		input->partly_window[i].start = int_value(i, 2);
		input->partly_window[i].end = int_value(i, 3);
		input->partly_last[i] = int_value(i, 4) != 0;
	}

	(void) select_in_snapshot("SELECT COALESCE(sum(late_assignments), 0)::bigint FROM stream_engine.query_partition WHERE query = $1",
							  Int32GetDatum(id), INT4OID);
	if (strcmp(input->query->late, "drop") == 0 || input->query->late_purged)
		input->dropped = int_value(0, 1);
	se_catalog_end(&scope);

	if (input->dropped > 0 && input->query->late_purged)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("late records of query %s have been dropped or purged, so it cannot be verified",
						input->query->name),
				 errdetail("Their positions are not kept.")));
	if (input->dropped > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("query %s has dropped late records from %lld windows and cannot be verified",
						input->query->name, (long long) input->dropped),
				 errdetail("The positions of dropped records are not kept."),
				 errhint("Create the query with late => 'store'.")));
	check_retention(input);
	input->override.relid = input->stream->relid;
	input->override.quiet = true;
}

/* Compare one column of "expected" and "found", two jsonb objects. */
static void
append_difference(StringInfo sql, const char *name, Oid type)
{
	char	   *literal = quote_literal_cstr(name);

	if (type == FLOAT4OID || type == FLOAT8OID)
		appendStringInfo(sql, " OR NOT stream_engine.nearly_equal((expected ->> %s)::float8, (found ->> %s)::float8, %s)",
						 literal, literal, type == FLOAT4OID ? "1e-4" : "1e-9");
	else
		appendStringInfo(sql, " OR (expected -> %s) IS DISTINCT FROM (found -> %s)", literal,
						 literal);
}

static int
compare_bounds(const void *a, const void *b)
{
	const SeWindowBounds *x = a;
	const SeWindowBounds *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end ? 1 : 0;
}

/* Starts and ends of the windows that have missed a record which others took, as arrays. */
static int
windows_left_out(const VerifyInput *input, const SeWindowSpec *spec, Datum *starts, Datum *ends)
{
	int			capacity = 64;
	int			n = 0;
	int			distinct = 0;
	SeWindowBounds *windows = palloc(sizeof(SeWindowBounds) * capacity);
	Datum	   *values;

	for (int i = 0; i < input->npartly; i++)
	{
		SeWindowIterator iterator;
		SeWindowBounds slice;
		SeWindowBounds window;

		CHECK_FOR_INTERRUPTS();
		/* in a zone of its own all of them are known, else some of many */
		if (spec->by_window)
			slice = input->partly_window[i];
		else if (!input->partly_last[i] ||
				 !se_window_slice(spec, input->partly_time[i], NULL, &slice.start, &slice.end))
			continue;
		se_window_iterate(&iterator, spec, slice.start, slice.end, NULL);
		while (se_window_next(&iterator, &window) && window.end <= input->partly_window[i].end)
		{
			if (n == capacity)
				windows = repalloc_huge(windows, sizeof(SeWindowBounds) * (capacity *= 2));
			windows[n++] = window;
		}
	}
	qsort(windows, n, sizeof(SeWindowBounds), compare_bounds);
	for (int i = 0; i < n; i++)
		if (i == 0 || compare_bounds(&windows[i], &windows[distinct - 1]) != 0)
			windows[distinct++] = windows[i];
	values = palloc(sizeof(Datum) * Max(distinct, 1));
	for (int i = 0; i < distinct; i++)
		values[i] = TimestampTzGetDatum(windows[i].start);
	*starts = PointerGetDatum(construct_array(values, distinct, TIMESTAMPTZOID, 8, true,
											  TYPALIGN_DOUBLE));
	for (int i = 0; i < distinct; i++)
		values[i] = TimestampTzGetDatum(windows[i].end);
	*ends = PointerGetDatum(construct_array(values, distinct, TIMESTAMPTZOID, 8, true,
											TYPALIGN_DOUBLE));
	return distinct;
}

static char *
quoted_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/* Name of the output column that shows a key. */
static const char *
key_column(const SeQueryPlan *plan, int key)
{
	return NameStr(TupleDescAttr(plan->output_desc, plan->keys[key].output - 1)->attname);
}

static char *
comparison(const VerifyInput *input, const SeQueryPlan *plan)
{
	StringInfoData sql;
	StringInfoData columns;
	StringInfoData keys;

	initStringInfo(&columns);
	initStringInfo(&keys);
	for (int i = 0; i < plan->output_desc->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(plan->output_desc, i)->attname);

		if (get_attnum(input->query->result, name) <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of result table \"%s\" does not exist", name,
							get_rel_name(input->query->result)),
					 errhint("Rename it back or add it again.")));
		appendStringInfo(&columns, ", %s", quote_identifier(name));
	}
	for (int i = 0; i < plan->nkeys; i++)
		appendStringInfo(&keys, ", %s",
						 quote_identifier(key_column(plan, i)));
	initStringInfo(&sql);
	/* the names of result tables' own columns are the only ones that no column of a query has */
	appendStringInfo(&sql,
					 "SELECT window_start, window_end,"
					 " CASE WHEN found IS NULL THEN 'missing' WHEN expected IS NULL THEN 'unexpected'"
					 " WHEN nexpected > 1 OR nfound > 1 THEN 'repeated' ELSE 'different' END, expected, found"
					 " FROM (SELECT window_start, window_end,"
					 " pg_catalog.count(*) FILTER (WHERE is_final) AS nexpected,"
					 " pg_catalog.count(*) FILTER (WHERE NOT is_final) AS nfound,"
					 " (pg_catalog.array_agg(emitted_at) FILTER (WHERE is_final))[1] AS expected,"
					 " (pg_catalog.array_agg(emitted_at) FILTER (WHERE NOT is_final))[1] AS found"
					 " FROM (SELECT true AS is_final, revision.*, pg_catalog.to_jsonb(revision) AS emitted_at FROM"
					 " (SELECT window_start, window_end%s FROM %s) revision"
					 " UNION ALL SELECT false, revision.*, pg_catalog.to_jsonb(revision) FROM"
					 " (SELECT window_start, window_end%s FROM %s) revision) both_sides"
					 " WHERE window_end <= $1 AND (window_start >= $2 OR EXISTS"
					 "  (SELECT FROM ROWS FROM (pg_catalog.unnest($7), pg_catalog.unnest($8)) c(f, t)"
					 "  WHERE c.f <= window_start AND window_end <= c.t))"
					 " AND (window_end < $5 OR (window_end = $5 AND window_start < $6))"
					 " AND NOT EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4)) m(s, e)"
					 " WHERE m.s = window_start AND m.e = window_end)"
					 " GROUP BY window_start, window_end%s) paired"
					 " WHERE expected IS NULL OR found IS NULL OR nexpected > 1 OR nfound > 1",
					 columns.data,
					 quoted_name(input->query->batch_view),
					 columns.data, input->query->name, keys.data);
	for (int i = 0; i < plan->output_desc->natts; i++)
	{
		bool		is_key = false;

		/* keys are equal by now, though 'a' and 'A' of some collation differ in JSON */
		for (int k = 0; k < plan->nkeys && !is_key; k++)
			is_key = plan->keys[k].output == i + 1;
		if (!is_key)
			append_difference(&sql, NameStr(TupleDescAttr(plan->output_desc, i)->attname),
							  TupleDescAttr(plan->output_desc, i)->atttypid);
	}
	appendStringInfoString(&sql, " ORDER BY 1, 2");
	return sql.data;
}

Datum
se_verify(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	VerifyInput input;
	SeQueryPlan *plan;
	char	   *sql;
	Oid			types[8] = {TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZARRAYOID,
		TIMESTAMPTZARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZARRAYOID,
	TIMESTAMPTZARRAYOID};
	Datum		values[8];
	int			nleft_out;
	SeUserScope scope;

	se_require_argument(fcinfo, 0, "query");
	InitMaterializedSRF(fcinfo, 0);
	find_input(&input, PG_GETARG_OID(0));
	plan = se_query_plan_of_view(input.query->batch_view);
	if (plan->window.kind == SE_WINDOW_SESSION || plan->window.kind == SE_WINDOW_GLOBAL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("query %s cannot be verified", input.query->name),
				 plan->window.kind == SE_WINDOW_SESSION ?
				 errdetail("Session windows cannot be computed as a batch.") :
				 errdetail("A query without a window has no closed windows to compare.")));
	sql = comparison(&input, plan);
	values[0] = TimestampTzGetDatum(input.query->closed_through);
	values[1] = TimestampTzGetDatum(input.query->emit_partial ? DT_NOBEGIN :
									input.query->complete_from);
	values[4] = TimestampTzGetDatum(input.emitted_end);
	values[5] = TimestampTzGetDatum(input.emitted_start);
	values[6] = input.emitted_from;
	values[7] = input.emitted_through;
	nleft_out = windows_left_out(&input, &plan->window, &values[2], &values[3]);
	if (nleft_out > 0)
		ereport(NOTICE,
				(errmsg("%d windows are not compared: records came too late for them that other windows took",
						nleft_out),
				 errhint("The view stream_engine.late_assignments shows these records.")));

	/* a superuser, too, may look without running the owner's code as his own */
	se_user_begin(&scope, input.query->owner, input.query->settings);
	SPI_connect();
	se_source()->scan_override_push(&input.override);
	PG_TRY();
	{
		if (SPI_execute_with_args(sql, 8, types, values, NULL, true, 0) != SPI_OK_SELECT)
			elog(ERROR, "could not compare batch and results");
	}
	PG_FINALLY();
	{
		se_source()->scan_override_pop(&input.override);
	}
	PG_END_TRY();
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Datum		row[5];
		bool		nulls[5];

		for (int column = 0; column < 5; column++)
			row[column] = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, column + 1,
										&nulls[column]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
	}
	SPI_finish();
	se_user_end(&scope);
	return (Datum) 0;
}
