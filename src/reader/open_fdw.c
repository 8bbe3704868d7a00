/*
 * open_fdw.c
 *	  The foreign table <query>_open: a scan computes the windows that are open.
 *
 * NOTES
 *	  A foreign table and not a function, so that the privileges of the views over
 *	  it hold: a function in a view would be callable by whoever may read the view.
 *
 *	  The scan reads the state log and the query's progress under the
 *	  statement's snapshot, the one under which the result table is read in the
 *	  same statement; a window is therefore seen exactly once, closed or open,
 *	  whatever commits meanwhile.  The reader's row, as the snapshot sees it, names
 *	  the state; what shared memory has of just this state is not read from the
 *	  log.  A large window is computed one range of hashes at a time.
 *
 *	  Windows that have closed and are still being emitted (closing.c) are shown, as
 *	  final, with what is not in the result table yet.
 *
 *	  Which query a table shows is looked up by the table's own oid, so that a table
 *	  of somebody else's making shows nothing.
 *
 *	  The finishing expressions run as the query's owner.  A caller who is subject
 *	  to row security on the result table is refused: policies speak of rows that
 *	  are in the table.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/explain.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "foreign/fdwapi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "close.h"
#include "compat/compat.h"
#include "engine/engine.h"
#include "reader.h"
#include "session.h"

PG_FUNCTION_INFO_V1(se_open_fdw_handler);
PG_FUNCTION_INFO_V1(se_open_fdw_validator);
PG_FUNCTION_INFO_V1(se_next_window_end);
PG_FUNCTION_INFO_V1(se_state_size);

#define BUFFERED_ROWS 256

typedef struct OpenWindow
{
	SeWindowBounds bounds;
	int			first;			/* slices that begin in it */
	int			last;
	uint32		next_hash;		/* groups with a smaller one have been emitted */
} OpenWindow;

typedef struct LiveSlice
{
	TimestampTz start;
	TimestampTz end;
	int64		entries;
	int64		largest;
} LiveSlice;

typedef struct OpenScan
{
	SeQueryDef *def;
	SeQueryPlan *plan;
	SeGroupLayout *layout;
	SeQueryFinish *finish;
	MemoryContext context;
	MemoryContext window_context;
	/* of the reader, as the snapshot sees it */
	bool		has_reader;
	int64		generation;
	int64		seq;
	LiveSlice  *slices;			/* with state */
	int			nslices;
	int			capacity;
	OpenWindow *windows;
	int			nwindows;
	int			next_window;
	OpenWindow *window;			/* of which ranges are left */
	int			next_range;
	int			nranges;
	/* of the window, or the bucket of sessions, being returned */
	SeMemtable *table;
	SeMemtable *next_table;		/* of the bucket behind */
	int			next_slice;
	int64		position;
	Datum	   *group_values;
	bool	   *group_nulls;
	Datum	   *values;
	bool	   *nulls;
	int			final_column;	/* is_final in a row; 0 if the table has none */
	/* rows computed ahead, for switching to the owner costs more than a row */
	MemoryContext buffer;
	HeapTuple	rows[BUFFERED_ROWS];
	int			nrows;
	int			next_row;
} OpenScan;

static void
get_size(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	rel->rows = 1000;
}

static void
get_paths(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	add_path(rel, (Path *) se_create_foreignscan_path(root, rel, rel->rows, 10, 10 + rel->rows,
													  NULL));
}

static ForeignScan *
get_plan(PlannerInfo *root, RelOptInfo *rel, Oid relid, ForeignPath *path, List *tlist,
		 List *clauses, Plan *outer_plan)
{
	return make_foreignscan(tlist, extract_actual_clauses(clauses, false), rel->relid, NIL, NIL,
							NIL, NIL, outer_plan);
}

static void
note_slice(void *arg, TimestampTz start, TimestampTz end, int nruns, int64 entries, int64 largest)
{
	OpenScan   *scan = arg;

	if (se_session_is_archive(scan->plan, start, end))
		return;
	if (scan->nslices == scan->capacity)
	{
		scan->capacity = Max(scan->capacity * 2, 64);
		scan->slices = scan->slices ?
			repalloc(scan->slices, sizeof(LiveSlice) * scan->capacity) :
			palloc(sizeof(LiveSlice) * scan->capacity);
	}
	scan->slices[scan->nslices].start = start;
	scan->slices[scan->nslices].end = end;
	scan->slices[scan->nslices].entries = entries;
	scan->slices[scan->nslices++].largest = largest;
}

/* The state log as the active snapshot sees it. */
static SeStateLog *
open_log(const OpenScan *scan)
{
	SeStateLog *log = se_state_log_open(false);

	if (scan->has_reader)
		se_state_log_as_of(log, scan->def->reader, scan->generation, scan->seq);
	return log;
}

/* Which state of its reader the active snapshot sees. */
static void
find_state(OpenScan *scan)
{
	SeCatalogScope scope;
	Oid			type = INT4OID;
	Datum		key = Int32GetDatum(scan->def->reader);

	se_catalog_begin(&scope);
	/* "read-only" keeps the snapshot */
	if (SPI_execute_with_args("SELECT generation, seq FROM stream_engine.reader WHERE id = $1",
							  1, &type, &key, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the reader of a query");
	if (SPI_processed == 1)
	{
		bool		isnull;
		HeapTuple	tuple = SPI_tuptable->vals[0];

		scan->has_reader = true;
		scan->generation = DatumGetInt64(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 1, &isnull));
		scan->seq = DatumGetInt64(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 2, &isnull));
	}
	se_catalog_end(&scope);
}

/*
 * Whether a window has rows that are not in the result table as final ones: it is
 * open, or has closed and is still being emitted.
 */
static bool
is_shown(const OpenScan *scan, OpenWindow *window)
{
	const SeQueryDef *def = scan->def;

	window->next_hash = 0;
	if (window->bounds.end <= def->closed_through)
	{
		SeWindowBounds next = {def->closing_start, def->closing_end};
		int			order = def->closing ? se_window_compare(&window->bounds, &next) : -1;

		if (order < 0)
			return false;
		if (order == 0)
			window->next_hash = (uint32) def->closing_hash;
	}
	/* one that has been begun is finished */
	return window->next_hash > 0 || scan->plan->window.kind == SE_WINDOW_GLOBAL ||
		se_query_completes(def, window->bounds.start, window->bounds.end);
}

/* The first slice that does not begin before a time. */
static int
first_slice(const OpenScan *scan, TimestampTz start)
{
	int			low = 0;
	int			high = scan->nslices;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (scan->slices[middle].start < start)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The open windows that have state, each with its slices. */
static void
find_windows(OpenScan *scan)
{
	const SeQueryDef *def = scan->def;
	TimestampTz after = def->closing ? def->closing_end - 1 : def->closed_through;
	SeWindowSet set = {0};

	for (int i = 0; i < scan->nslices; i++)
	{
		CHECK_FOR_INTERRUPTS();
		se_window_set_add(&set, &scan->plan->window, scan->slices[i].start, scan->slices[i].end,
						  after, DT_NOEND);
	}
	scan->windows = palloc(sizeof(OpenWindow) * Max(set.n, 1));
	for (int i = 0; i < set.n; i++)
	{
		OpenWindow *window = &scan->windows[scan->nwindows];

		window->bounds = set.windows[i];
		if (!is_shown(scan, window))
			continue;
		window->first = first_slice(scan, window->bounds.start);
		window->last = first_slice(scan, window->bounds.end);
		scan->nwindows++;
	}
}

static void
check_column(Relation relation, int i, Oid type)
{
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(relation), i);

	if (!attribute->attisdropped && attribute->atttypid != type)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of \"%s\" has type %s, but the query gives %s",
						NameStr(attribute->attname), RelationGetRelationName(relation),
						format_type_be(attribute->atttypid), format_type_be(type))));
}

/* The table is the owner's, who may have altered it: values are put where these types are. */
static void
check_columns(const OpenScan *scan, Relation relation)
{
	TupleDesc	output = scan->plan->output_desc;
	int			natts = RelationGetDescr(relation)->natts;

	for (int i = 0; i < 2 && i < natts; i++)
		check_column(relation, i, TIMESTAMPTZOID);
	for (int i = 0; i < output->natts && i + 2 < natts; i++)
		check_column(relation, i + 2, TupleDescAttr(output, i)->atttypid);
	if (scan->final_column > 0)
		check_column(relation, scan->final_column, BOOLOID);
}

static void
begin_scan(ForeignScanState *node, int eflags)
{
	Relation	relation = node->ss.ss_currentRelation;
	OpenScan   *scan;
	SeStateLog *log;
	SeUserScope scope;
	Oid			user;

	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	scan = palloc0(sizeof(OpenScan));
	node->fdw_state = scan;
	scan->context = node->ss.ps.state->es_query_cxt;
	scan->def = se_query_by_open_table(RelationGetRelid(relation));
	if (scan->def == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("foreign table \"%s\" does not belong to a query",
						RelationGetRelationName(relation)),
				 errhint("Tables of open windows are made by stream_engine.create_query().")));
	/* the owner of a view over it, if it is read through one */
	user = se_foreign_scan_user((ForeignScan *) node->ss.ps.plan, node->ss.ps.state);
	if (check_enable_rls(scan->def->result, user, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("row security on %s hides its open windows", scan->def->name),
				 errhint("Read the result table itself.")));
	se_user_begin(&scope, scan->def->owner, scan->def->settings);
	scan->plan = se_query_plan_of_view(scan->def->batch_view);
	scan->layout = se_query_layout(scan->plan, scan->def, scan->context);
	scan->finish = se_finish_create(scan->plan, scan->context);
	se_user_end(&scope);
	scan->window_context = AllocSetContextCreate(scan->context, "stream_engine open window",
												 ALLOCSET_DEFAULT_SIZES);
	scan->buffer = AllocSetContextCreate(scan->context, "stream_engine open rows",
										 ALLOCSET_DEFAULT_SIZES);
	scan->group_values = palloc(sizeof(Datum) * (2 + scan->plan->nkeys + scan->plan->naggs));
	scan->group_nulls = palloc0(sizeof(bool) * (2 + scan->plan->nkeys + scan->plan->naggs));
	scan->values = palloc(sizeof(Datum) * scan->plan->output_desc->natts);
	scan->nulls = palloc(sizeof(bool) * scan->plan->output_desc->natts);
	if (RelationGetDescr(relation)->natts > 2 + scan->plan->output_desc->natts)
		scan->final_column = 2 + scan->plan->output_desc->natts;
	check_columns(scan, relation);

	if (scan->def->has_stamp &&
		(uint32) scan->def->state_stamp != se_query_stamp(scan->plan, scan->layout))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the state of query %s was written in another format", scan->def->name)));
	find_state(scan);
	log = open_log(scan);
	se_state_log_slices(log, scan->def->id, note_slice, scan);
	se_state_log_close(log);
	if (scan->plan->window.kind != SE_WINDOW_SESSION)
		find_windows(scan);
}

static void
merge_chunk(void *arg, const char *bytes, Size size)
{
	SeMergeRange *range = arg;

	se_memtable_merge(range->table, bytes, size, range->low, range->high);
}

static SeMemtable *
load_bucket(OpenScan *scan, int slice)
{
	SeMemtable *table = se_memtable_create(scan->layout, scan->window_context,
										   Max(scan->slices[slice].largest, 64));
	SeStateLog *log = open_log(scan);

	se_session_load(log, scan->def->id, scan->slices[slice].start, scan->slices[slice].end, 0,
					PG_UINT32_MAX, table);
	se_state_log_close(log);
	return table;
}

/* The next bucket of sessions, with what the one before has carried into it. */
static bool
next_bucket(OpenScan *scan)
{
	int			i = scan->next_slice;

	if (i >= scan->nslices)
		return false;
	if (scan->table != NULL)
		se_memtable_free(scan->table);
	scan->table = scan->next_table ? scan->next_table : load_bucket(scan, i);
	scan->next_table = i + 1 < scan->nslices && scan->slices[i + 1].start == scan->slices[i].end ?
		load_bucket(scan, i + 1) : NULL;
	scan->next_slice++;
	scan->position = 0;
	return true;
}

/*
 * Whether "group" is the last one of an open session; if another one follows, it is carried.
 * Its bounds become those of the row.
 */
static bool
session_ends(OpenScan *scan, SeGroup *group)
{
	int			naggs = scan->plan->naggs;
	int64		gap = scan->plan->window.gap;
	TimestampTz first;
	TimestampTz last;

	se_session_bounds(scan->table, group, naggs, &first, &last);
	if (scan->next_table != NULL)
	{
		SeGroup    *next = se_memtable_get(scan->next_table, group);

		if (se_session_continues(scan->next_table, next, naggs, last, gap))
		{
			(void) se_memtable_add(scan->next_table, scan->table, group);
			return false;
		}
	}
	scan->group_values[0] = TimestampTzGetDatum(first);
	scan->group_values[1] = TimestampTzGetDatum(last + gap);
	/* one that has been emitted is kept as long as late rows may join it */
	if (last + gap <= scan->def->closed_through)
		return false;
	return se_query_completes(scan->def, first, last + gap) ||
		se_session_was_emitted(scan->def, scan->table, group, naggs);
}

/* Whether slice i, which begins in the window, is part of it. */
static bool
is_member(const OpenScan *scan, const OpenWindow *window, int i)
{
	const LiveSlice *slice = &scan->slices[i];

	if (se_window_is_slice(&scan->plan->window))
		return slice->start == window->bounds.start && slice->end == window->bounds.end;
	return slice->end <= window->bounds.end;
}

/* The next range of hashes of a window. */
static void
load_range(OpenScan *scan, const OpenWindow *window)
{
	SeStateLog *log = open_log(scan);
	SeMergeRange range;
	int64		expected = 64;

	for (int i = window->first; i < window->last; i++)
		if (is_member(scan, window, i))
			expected = Max(expected, scan->slices[i].largest);
	se_merge_range_set(&range, scan->next_range++, scan->nranges);
	range.low = Max(range.low, window->next_hash);
	scan->table = range.table = se_memtable_create(scan->layout, scan->window_context,
												   expected / scan->nranges + 1);
	/* keys of the global window may have been forgotten */
	if (scan->plan->window.kind == SE_WINDOW_GLOBAL)
		se_session_load(log, scan->def->id, scan->slices[0].start, scan->slices[0].end,
						range.low, range.high, scan->table);
	else if (range.low <= range.high)
		for (int i = window->first; i < window->last; i++)
			if (is_member(scan, window, i))
				se_state_log_read(log, scan->def->id, scan->slices[i].start, scan->slices[i].end,
								  range.low, range.high, merge_chunk, &range);
	se_state_log_close(log);
}

/* The next table of groups; false at the end. */
static bool
next_table(OpenScan *scan)
{
	OpenWindow *window = scan->window;

	if (scan->plan->window.kind == SE_WINDOW_SESSION)
		return next_bucket(scan);
	if (scan->table != NULL)
		se_memtable_free(scan->table);
	scan->table = NULL;
	MemoryContextReset(scan->window_context);
	if (scan->next_range >= scan->nranges)
	{
		int64		entries = 0;

		if (scan->next_window >= scan->nwindows)
			return false;
		scan->window = window = &scan->windows[scan->next_window++];
		for (int i = window->first; i < window->last; i++)
			if (is_member(scan, window, i))
				entries += scan->slices[i].entries;
		scan->next_range = 0;
		scan->nranges = scan->plan->window.kind == SE_WINDOW_GLOBAL ? 1 : se_merge_ranges(entries);
		scan->group_values[0] = TimestampTzGetDatum(window->bounds.start);
		scan->group_values[1] = TimestampTzGetDatum(window->bounds.end);
	}
	load_range(scan, window);
	scan->position = 0;
	return true;
}

/* Whether the time to live of a key's totals is over, see global.c. */
static bool
is_forgotten(OpenScan *scan, SeGroup *group)
{
	int64		ttl = scan->def->state_ttl;
	bool		isnull;

	return ttl > 0 && scan->def->closed_through != DT_NOBEGIN &&
		DatumGetTimestampTz(se_group_result(scan->table, group, scan->plan->naggs + 1, &isnull)) +
		ttl <= scan->def->closed_through;
}

/* The next group that HAVING lets pass; false at the end. */
static bool
next_row(OpenScan *scan)
{
	const SeQueryPlan *plan = scan->plan;

	for (;;)
	{
		SeGroup    *group = scan->table ? se_memtable_next(scan->table, &scan->position) : NULL;

		if (group == NULL)
		{
			if (!next_table(scan))
				return false;
			continue;
		}
		if (plan->window.kind == SE_WINDOW_SESSION && !session_ends(scan, group))
			continue;
		if (plan->window.kind == SE_WINDOW_GLOBAL && is_forgotten(scan, group))
			continue;
		for (int key = 0; key < plan->nkeys; key++)
			scan->group_values[2 + key] = se_group_key(scan->table, group, key,
													   &scan->group_nulls[2 + key]);
		for (int agg = 0; agg < plan->naggs; agg++)
		{
			int			column = 2 + plan->nkeys + agg;

			scan->group_values[column] = se_group_result(scan->table, group, agg,
														 &scan->group_nulls[column]);
		}
		if (se_finish_row(scan->finish, scan->group_values, scan->group_nulls, scan->values,
						  scan->nulls))
			return true;
	}
}

/* Compute up to BUFFERED_ROWS rows as the query's owner. */
static void
fill_buffer(OpenScan *scan, TupleDesc desc)
{
	Datum	   *values;
	bool	   *nulls;
	SeUserScope scope;
	MemoryContext old;

	MemoryContextReset(scan->buffer);
	old = MemoryContextSwitchTo(scan->buffer);
	values = palloc0(sizeof(Datum) * desc->natts);
	nulls = palloc(sizeof(bool) * desc->natts);
	memset(nulls, true, sizeof(bool) * desc->natts);
	nulls[0] = nulls[1] = false;
	scan->nrows = scan->next_row = 0;
	se_user_begin(&scope, scan->def->owner, scan->def->settings);
	while (scan->nrows < BUFFERED_ROWS && next_row(scan))
	{
		values[0] = scan->group_values[0];
		values[1] = scan->group_values[1];
		if (scan->final_column > 0)
		{
			values[scan->final_column] = BoolGetDatum(scan->window != NULL &&
													  scan->window->bounds.end <=
													  scan->def->closed_through);
			nulls[scan->final_column] = false;
		}
		for (int i = 0; i < scan->plan->output_desc->natts && i + 2 < desc->natts; i++)
		{
			values[i + 2] = scan->values[i];
			nulls[i + 2] = scan->nulls[i];
		}
		/* one that has been dropped may have had another type before */
		for (int i = 0; i < desc->natts; i++)
			nulls[i] |= TupleDescAttr(desc, i)->attisdropped;
		scan->rows[scan->nrows++] = heap_form_tuple(desc, values, nulls);
		se_finish_reset(scan->finish);
	}
	se_user_end(&scope);
	MemoryContextSwitchTo(old);
}

static TupleTableSlot *
iterate_scan(ForeignScanState *node)
{
	OpenScan   *scan = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;

	ExecClearTuple(slot);
	CHECK_FOR_INTERRUPTS();
	if (scan->next_row == scan->nrows)
		fill_buffer(scan, slot->tts_tupleDescriptor);
	if (scan->next_row < scan->nrows)
		ExecForceStoreHeapTuple(scan->rows[scan->next_row++], slot, false);
	return slot;
}

static void
rescan(ForeignScanState *node)
{
	OpenScan   *scan = node->fdw_state;

	scan->next_window = scan->next_slice = scan->next_range = scan->nranges = 0;
	if (scan->next_table != NULL)
		se_memtable_free(scan->next_table);
	scan->next_table = NULL;
	scan->nrows = scan->next_row = 0;
	if (scan->table != NULL)
		se_memtable_free(scan->table);
	scan->table = NULL;
}

static void
end_scan(ForeignScanState *node)
{
	OpenScan   *scan = node->fdw_state;

	if (scan != NULL && scan->table != NULL)
		se_memtable_free(scan->table);
}

Datum
se_open_fdw_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = get_size;
	routine->GetForeignPaths = get_paths;
	routine->GetForeignPlan = get_plan;
	routine->BeginForeignScan = begin_scan;
	routine->IterateForeignScan = iterate_scan;
	routine->ReScanForeignScan = rescan;
	routine->EndForeignScan = end_scan;
	PG_RETURN_POINTER(routine);
}

/* There are no options: what a table shows is found by the table's oid. */
Datum
se_open_fdw_validator(PG_FUNCTION_ARGS)
{
	if (DatumGetArrayTypeP(PG_GETARG_DATUM(0)) != NULL &&
		ArrayGetNItems(ARR_NDIM(DatumGetArrayTypeP(PG_GETARG_DATUM(0))),
					   ARR_DIMS(DatumGetArrayTypeP(PG_GETARG_DATUM(0)))) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("wrapper \"stream_engine_state\" has no options")));
	PG_RETURN_VOID();
}

/*
 * The end of the open session that ends first, DT_NOEND if there is none.  What has its last
 * record in a bucket does not end before the bucket's start + gap: later ones are left unread.
 */
static TimestampTz
first_session_end(OpenScan *scan)
{
	TimestampTz first = DT_NOEND;
	int64		gap = scan->plan->window.gap;
	SeUserScope scope;
	SeGroup    *group;

	se_user_begin(&scope, scan->def->owner, scan->def->settings);
	scan->layout = se_query_layout(scan->plan, scan->def, CurrentMemoryContext);
	scan->window_context = CurrentMemoryContext;
	scan->group_values = palloc(sizeof(Datum) * 2);
	if (!scan->def->has_stamp ||
		(uint32) scan->def->state_stamp == se_query_stamp(scan->plan, scan->layout))
		while (scan->next_slice < scan->nslices &&
			   scan->slices[scan->next_slice].start + gap < first && next_bucket(scan))
			while ((group = se_memtable_next(scan->table, &scan->position)) != NULL)
			{
				CHECK_FOR_INTERRUPTS();
				if (session_ends(scan, group))
					first = Min(first, DatumGetTimestampTz(scan->group_values[1]));
			}
	se_user_end(&scope);
	return first;
}

/* The query with this result table, if the caller may see it as the views of statistics do it. */
static SeQueryDef *
find_visible_query(Oid result)
{
	SeCatalogScope scope;
	Oid			type = OIDOID;
	Datum		key = ObjectIdGetDatum(result);
	SeQueryDef *def;
	int32		id = 0;
	bool		isnull;

	se_catalog_begin(&scope);
	if (se_spi("SELECT id FROM stream_engine.query WHERE result = $1", 1, &type, &key, NULL,
			   SPI_OK_SELECT) == 1)
		id = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	se_catalog_end(&scope);
	def = id != 0 ? se_query_load(id) : NULL;
	return def != NULL && se_may_see(def->owner) ? def : NULL;
}

/*
 * state_size(query regclass, OUT slices bigint, OUT bytes bigint)
 */
Datum
se_state_size(PG_FUNCTION_ARGS)
{
	SeQueryDef *def = find_visible_query(PG_GETARG_OID(0));
	TupleDesc	desc;
	int64		slices;
	int64		bytes;
	Datum		values[2];
	bool		nulls[2] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (def == NULL)
		PG_RETURN_NULL();
	se_state_log_size(def->id, &slices, &bytes);
	values[0] = Int64GetDatum(slices);
	values[1] = Int64GetDatum(bytes);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/* The end of the open window that closes first. */
Datum
se_next_window_end(PG_FUNCTION_ARGS)
{
	OpenScan	scan = {0};
	SeStateLog *log;

	scan.def = find_visible_query(PG_GETARG_OID(0));
	if (scan.def == NULL)
		PG_RETURN_NULL();
	scan.plan = se_query_plan_of_view(scan.def->batch_view);
	find_state(&scan);
	log = open_log(&scan);
	se_state_log_slices(log, scan.def->id, note_slice, &scan);
	se_state_log_close(log);
	if (scan.plan->window.kind == SE_WINDOW_SESSION)
	{
		TimestampTz end = first_session_end(&scan);

		if (end == DT_NOEND)
			PG_RETURN_NULL();
		PG_RETURN_TIMESTAMPTZ(end);
	}
	if (scan.plan->window.kind == SE_WINDOW_GLOBAL)
		PG_RETURN_NULL();
	find_windows(&scan);
	for (int i = 0; i < scan.nwindows; i++)
		if (scan.windows[i].bounds.end > scan.def->closed_through)
			PG_RETURN_TIMESTAMPTZ(scan.windows[i].bounds.end);
	PG_RETURN_NULL();
}
