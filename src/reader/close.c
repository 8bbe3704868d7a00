/*
 * close.c
 *	  Close windows: merge the runs of their slices, finish, emit; write the
 *	  other slices' groups to the state log.
 *
 * NOTES
 *	  A window is closed in the commit that makes W reach its end.  Its groups are
 *	  re-aggregated one hash range at a time: all runs of its slices, from the
 *	  state log and from the memtables, go into one small table; the cost does
 *	  not depend on the number of runs, and memory is bounded by the range.  Within
 *	  a range rows are inserted in the order of their keys, which costs the unique
 *	  index half of what hash order does.
 *
 *	  A slice whose runs hold many times the groups that they stand for is folded
 *	  into one run when it is flushed, so that state is bounded by the groups
 *	  and not by the commits.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "engine/engine.h"
#include "reader.h"

/* Groups merged at a time. */
#define RANGE_GROUPS (256 * 1024)

/* A slice is folded when it has this many runs, and this many entries a group. */
#define FOLD_RUNS 16
#define FOLD_ENTRIES_PER_GROUP 4
#define FOLD_MIN_ENTRIES 4000

#define MAX_SPARE_MEMTABLES 8

typedef struct MergeRange
{
	SeMemtable *table;
	uint32		low;
	uint32		high;
} MergeRange;

static void
merge_chunk(void *arg, const char *bytes, Size size)
{
	MergeRange *range = arg;

	se_memtable_merge(range->table, bytes, size, range->low, range->high);
}

static void
merge_memtable_chunk(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high,
					 int ngroups)
{
	MergeRange *range = arg;

	if (hash_high >= range->low && hash_low <= range->high)
		se_memtable_merge(range->table, bytes, size, range->low, range->high);
}

static int64
slice_entries(const OpenSlice *slice)
{
	return slice->entries + (slice->table ? se_memtable_ngroups(slice->table) : 0);
}

static void
merge_slice(ReaderQuery *query, SeStateLog *log, OpenSlice *slice, MergeRange *range)
{
	if (slice->nruns > 0)
		se_state_log_read(log, query->def->id, slice->start, slice->end, range->low, range->high,
						  merge_chunk, range);
	if (slice->table != NULL)
		se_memtable_flush(slice->table, SE_CHUNK_SIZE, merge_memtable_chunk, range);
}

/* Bounds of range i of n of the hash space. */
static void
set_range(MergeRange *range, int i, int n)
{
	uint64		width = ((uint64) 1 << 32) / n;

	range->low = (uint32) (width * i);
	range->high = i == n - 1 ? PG_UINT32_MAX : (uint32) (width * (i + 1) - 1);
}

static void
release_memtable(ReaderQuery *query, OpenSlice *slice)
{
	if (slice->table == NULL)
		return;
	if (list_length(query->spare) < MAX_SPARE_MEMTABLES)
	{
		MemoryContext old = MemoryContextSwitchTo(query->context);

		se_memtable_reset(slice->table);
		query->spare = lappend(query->spare, slice->table);
		MemoryContextSwitchTo(old);
	}
	else
		se_memtable_free(slice->table);
	slice->table = NULL;
}

/* ---- emission ---- */

typedef struct Emission
{
	ReaderQuery *query;
	SeStateLog *log;
	SeResultSink *sink;
	TimestampTz now;
	MemoryContext row_context;
	Datum	   *group_values;
	bool	   *group_nulls;
	Datum	   *values;
	bool	   *nulls;
} Emission;

static void
emit_groups(Emission *emission, SeMemtable *table, const SeWindowBounds *window)
{
	ReaderQuery *query = emission->query;
	const SeQueryPlan *plan = query->plan;
	int			noutput = plan->output_desc->natts;
	int64		ngroups;
	SeGroup   **sorted;

	sorted = se_memtable_sorted(table, &ngroups);
	if (ngroups > 0 && emission->sink == NULL)
		emission->sink = se_results_open(query->def->result, plan->output_desc);
	for (int64 i = 0; i < ngroups; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(emission->row_context);
		bool		passes;

		emission->group_values[0] = TimestampTzGetDatum(window->start);
		emission->group_values[1] = TimestampTzGetDatum(window->end);
		emission->group_nulls[0] = emission->group_nulls[1] = false;
		for (int key = 0; key < plan->nkeys; key++)
			emission->group_values[2 + key] = se_group_key(table, sorted[i], key,
														   &emission->group_nulls[2 + key]);
		for (int agg = 0; agg < plan->naggs; agg++)
		{
			int			column = 2 + plan->nkeys + agg;

			emission->group_values[column] = se_group_result(table, sorted[i], agg,
															 &emission->group_nulls[column]);
		}
		passes = se_finish_row(query->finish, emission->group_values, emission->group_nulls,
							   emission->values + 2, emission->nulls + 2);
		MemoryContextSwitchTo(old);
		if (passes)
		{
			emission->values[0] = emission->group_values[0];
			emission->values[1] = emission->group_values[1];
			emission->nulls[0] = emission->nulls[1] = false;
			emission->values[2 + noutput] = BoolGetDatum(true);
			emission->values[3 + noutput] = Int32GetDatum(0);
			emission->values[4 + noutput] = TimestampTzGetDatum(emission->now);
			memset(emission->nulls + 2 + noutput, 0, 3 * sizeof(bool));
			se_results_insert(emission->sink, emission->values, emission->nulls);
		}
		if (i % 64 == 63)
		{
			se_finish_reset(query->finish);
			MemoryContextReset(emission->row_context);
			CHECK_FOR_INTERRUPTS();
		}
	}
	se_finish_reset(query->finish);
	MemoryContextReset(emission->row_context);
	pfree(sorted);
}

/*
 * Emit a window from slices[0..n-1], those that begin in it.  A slice that ends behind it
 * holds records that came too late for it.
 */
static void
emit_window(Emission *emission, const SeWindowBounds *window, OpenSlice **candidates,
			int ncandidates)
{
	ReaderQuery *query = emission->query;
	OpenSlice **slices = palloc(sizeof(OpenSlice *) * Max(ncandidates, 1));
	int			nslices = 0;
	int64		entries = 0;
	int			nranges;

	for (int i = 0; i < ncandidates; i++)
		if (candidates[i]->end <= window->end)
		{
			slices[nslices++] = candidates[i];
			entries += slice_entries(candidates[i]);
		}
	if (nslices == 1 && slices[0]->nruns == 0)
	{
		if (slices[0]->table != NULL)
			emit_groups(emission, slices[0]->table, window);
		return;
	}
	nranges = (int) Min(entries / RANGE_GROUPS + 1, 4096);
	for (int i = 0; i < nranges; i++)
	{
		MergeRange	range;

		set_range(&range, i, nranges);
		range.table = se_memtable_create(query->layout, query->context,
										 Min(entries / nranges + 1, RANGE_GROUPS));
		for (int s = 0; s < nslices; s++)
			merge_slice(query, emission->log, slices[s], &range);
		emit_groups(emission, range.table, window);
		se_memtable_free(range.table);
	}
}

/* ---- which windows ---- */

static int
compare_windows(const void *a, const void *b)
{
	const SeWindowBounds *x = a;
	const SeWindowBounds *y = b;

	if (x->end != y->end)
		return x->end < y->end ? -1 : 1;
	return x->start < y->start ? -1 : x->start > y->start ? 1 : 0;
}

static int
compare_slices(const void *a, const void *b)
{
	const OpenSlice *x = *(OpenSlice *const *) a;
	const OpenSlice *y = *(OpenSlice *const *) b;

	return x->start < y->start ? -1 : x->start > y->start ? 1 : 0;
}

static OpenSlice **
sorted_slices(ReaderQuery *query, int *nslices)
{
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;
	OpenSlice **slices = palloc(sizeof(OpenSlice *) * Max(hash_get_num_entries(query->slices), 1));
	int			n = 0;

	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
		slices[n++] = slice;
	qsort(slices, n, sizeof(OpenSlice *), compare_slices);
	*nslices = n;
	return slices;
}

static SeWindowBounds *
windows_to_close(const ReaderQuery *query, OpenSlice **slices, int nslices, TimestampTz watermark,
				 int *nwindows)
{
	int			capacity = 16;
	int			n = 0;
	int			distinct = 0;
	SeWindowBounds *windows = palloc(sizeof(SeWindowBounds) * capacity);

	for (int i = 0; i < nslices; i++)
	{
		SeWindowIterator iterator;
		SeWindowBounds window;

		if (slices[i]->first_end > watermark)
			continue;
		se_window_iterate(&iterator, &query->plan->window, slices[i]->start, slices[i]->end, NULL);
		while (se_window_next(&iterator, &window))
		{
			if (window.end > watermark || window.end <= query->closed_through)
				continue;
			if (n == capacity)
				windows = repalloc(windows, sizeof(SeWindowBounds) * (capacity *= 2));
			windows[n++] = window;
		}
	}
	qsort(windows, n, sizeof(SeWindowBounds), compare_windows);
	for (int i = 0; i < n; i++)
		if (i == 0 || compare_windows(&windows[i], &windows[distinct - 1]) != 0)
			windows[distinct++] = windows[i];
	*nwindows = distinct;
	return windows;
}

/*
 * Emit the windows of "query" that close at "watermark" and drop the slices that no
 * window needs any more.  Inside the commit's transaction with an active
 * snapshot; what is changed in memory is thrown away if the commit fails.
 */
void
se_close_windows(Reader *reader, ReaderQuery *query, TimestampTz watermark, TimestampTz now)
{
	MemoryContext old = MemoryContextSwitchTo(reader->cycle);
	Emission	emission = {0};
	SeUserScope scope;
	int			ncolumns = 2 + query->plan->nkeys + query->plan->naggs;
	int			noutput = query->plan->output_desc->natts;
	int			nslices;
	int			nwindows;
	OpenSlice **slices = sorted_slices(query, &nslices);
	SeWindowBounds *windows = windows_to_close(query, slices, nslices, watermark, &nwindows);

	emission.query = query;
	emission.now = now;
	emission.group_values = palloc(sizeof(Datum) * ncolumns);
	emission.group_nulls = palloc(sizeof(bool) * ncolumns);
	emission.values = palloc(sizeof(Datum) * (noutput + 5));
	emission.nulls = palloc(sizeof(bool) * (noutput + 5));
	emission.row_context = AllocSetContextCreate(reader->cycle, "stream_engine emitted rows",
												 ALLOCSET_DEFAULT_SIZES);
	emission.log = se_state_log_open(true);

	se_blame.query = query;
	se_user_begin(&scope, query->def->owner, query->def->settings);
	SE_FAILPOINT("emit.begin");
	for (int w = 0, first = 0; w < nwindows; w++)
	{
		int			last;

		/* windows ascend by end, and so by start for all kinds but cumulate */
		if (query->plan->window.kind == SE_WINDOW_CUMULATE)
			first = 0;
		while (first < nslices && slices[first]->start < windows[w].start)
			first++;
		last = first;
		while (last < nslices && slices[last]->start < windows[w].end)
			last++;
		if (windows[w].start < query->complete_from && !query->def->emit_partial)
			query->windows_incomplete++;
		else
		{
			emit_window(&emission, &windows[w], slices + first, last - first);
			query->windows_closed++;
		}
	}
	if (emission.sink != NULL)
		query->rows_out += se_results_close(emission.sink);
	SE_FAILPOINT("emit.end");
	se_user_end(&scope);
	se_blame.query = NULL;

	for (int i = 0; i < nslices; i++)
	{
		TimestampTz key[2] = {slices[i]->start, slices[i]->end};

		if (slices[i]->last_end > watermark)
			continue;
		if (slices[i]->nruns > 0)
			se_state_log_delete(emission.log, query->def->id, slices[i]->start, slices[i]->end);
		release_memtable(query, slices[i]);
		hash_search(query->slices, key, HASH_REMOVE, NULL);
	}
	query->last_slice = NULL;
	se_state_log_close(emission.log);
	MemoryContextDelete(emission.row_context);
	MemoryContextSwitchTo(old);
}

/* ---- the slices that stay open ---- */

typedef struct FlushTarget
{
	SeStateLog *log;
	int32		query;
	const OpenSlice *slice;
	int64		seq;
} FlushTarget;

static void
append_chunk(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high, int ngroups)
{
	FlushTarget *target = arg;

	se_state_log_append(target->log, target->query, target->slice->start, target->slice->end,
						target->seq, hash_low, hash_high, ngroups, bytes, size);
}

static bool
worth_folding(const OpenSlice *slice)
{
	int64		groups = Max(slice->largest, se_memtable_ngroups(slice->table));

	return slice->nruns >= FOLD_RUNS &&
		slice->entries > Max(groups * FOLD_ENTRIES_PER_GROUP, FOLD_MIN_ENTRIES);
}

/* Replace a slice's runs and its memtable by one run. */
static void
fold_slice(ReaderQuery *query, OpenSlice *slice, FlushTarget *target)
{
	int64		entries = slice_entries(slice);
	int			nranges = (int) Min(entries / FOLD_ENTRIES_PER_GROUP / RANGE_GROUPS + 1, 4096);
	int64		groups = 0;

	SE_FAILPOINT("fold.begin");
	for (int i = 0; i < nranges; i++)
	{
		MergeRange	range;

		set_range(&range, i, nranges);
		range.table = se_memtable_create(query->layout, query->context,
										 Min(slice->largest / nranges + 1, RANGE_GROUPS));
		merge_slice(query, target->log, slice, &range);
		groups += se_memtable_ngroups(range.table);
		se_memtable_flush(range.table, SE_CHUNK_SIZE, append_chunk, target);
		se_memtable_free(range.table);
	}
	/* the snapshot of this transaction does not see what was just appended */
	se_state_log_delete(target->log, query->def->id, slice->start, slice->end);
	SE_FAILPOINT("fold.end");
	slice->nruns = 1;
	slice->entries = slice->largest = groups;
}

/*
 * Write the groups of open slices to the state log as runs of this commit and
 * empty their memtables.
 */
void
se_flush_slices(Reader *reader, ReaderQuery *query)
{
	MemoryContext old = MemoryContextSwitchTo(reader->cycle);
	SeStateLog *log = NULL;
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	/* aggregates' own functions may be called while states are encoded */
	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
	{
		FlushTarget target;
		int64		ngroups;

		if (slice->table == NULL)
			continue;
		ngroups = se_memtable_ngroups(slice->table);
		if (ngroups > 0)
		{
			if (log == NULL)
				log = se_state_log_open(true);
			target.log = log;
			target.query = query->def->id;
			target.slice = slice;
			target.seq = reader->def->seq + 1;
			if (worth_folding(slice))
				fold_slice(query, slice, &target);
			else
			{
				se_memtable_flush(slice->table, SE_CHUNK_SIZE, append_chunk, &target);
				slice->nruns++;
				slice->entries += ngroups;
				slice->largest = Max(slice->largest, ngroups);
			}
			query->expected_groups = Max(ngroups, query->expected_groups / 2);
		}
		release_memtable(query, slice);
	}
	if (log != NULL)
		se_state_log_close(log);
	MemoryContextSwitchTo(old);
}
