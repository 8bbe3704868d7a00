/*
 * correct.c
 *	  Rows of windows that have been emitted before: corrections of closed
 *	  windows, and changes of open ones.
 *
 * NOTES
 *	  A record that comes after its window has closed, within the allowed lateness,
 *	  is merged into the window's slice like any other; the commit then recomputes the
 *	  groups that this cycle has touched, and no others, and writes them over their
 *	  rows.
 *
 *	  With emit => 'changes' the rows of open windows are shown at most every
 *	  emit_interval.  What has changed since the last time stands in the state log
 *	  itself: the runs with a seq behind the one at which changes were emitted,
 *	  which is committed with them.  So a restart shows nothing twice and misses
 *	  nothing.  Folding a slice blurs this, which costs time only, for a row that
 *	  would stay the same is left alone.
 *
 *	  A window that closes after changes were shown gets its last changes as final
 *	  rows, and its other rows are made final by one statement.
 *
 *	  Of a window that is being emitted in several transactions only the groups that
 *	  have been emitted are corrected.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "close.h"
#include "engine/engine.h"

/* Fewer groups than this are looked up one by one in the log. */
#define FEW_GROUPS 16

/* Runs of the log that hold changes: none. */
#define NO_RUNS PG_INT64_MAX

typedef struct Touched
{
	ReaderQuery *query;
	SeStateLog *log;
	SeEmission *emission;
	const SeWindowBounds *window;
	OpenSlice **members;
	int			nmembers;
	int64		since;			/* runs with a larger seq are changes */
	bool		is_final;
	bool		fresh;			/* the table has no rows of the window */
	uint64		below;			/* groups with this hash, or a larger one, are left
								 * alone */
} Touched;

#define ALL_HASHES ((uint64) PG_UINT32_MAX + 1)

static void
merge_chunk(void *arg, const char *bytes, Size size)
{
	SeMergeRange *range = arg;

	se_memtable_merge(range->table, bytes, size, range->low, range->high);
}

/* The keys within "range" that have been touched: by this cycle, or by runs since. */
static SeGroup **
touched_keys(const Touched *touched, SeMergeRange *range, int64 *nkeys)
{
	ReaderQuery *query = touched->query;
	SeGroup   **keys;
	SeGroup    *group;
	int64		position = 0;
	int64		n = 0;

	for (int i = 0; i < touched->nmembers; i++)
	{
		OpenSlice  *slice = touched->members[i];

		if (touched->since != NO_RUNS && slice->changed && slice->nruns > 0)
			se_state_log_read_since(touched->log, query->def->id, slice->start, slice->end,
									touched->since, range->low, range->high, merge_chunk, range);
	}
	for (int i = 0; i < touched->nmembers; i++)
	{
		SeMemtable *table = touched->members[i]->table;

		position = 0;
		while (table != NULL && (group = se_memtable_next(table, &position)) != NULL)
		{
			uint32		hash = se_group_hash(group);

			if (hash >= range->low && hash <= range->high)
				(void) se_memtable_add_key(range->table, group);
		}
	}
	keys = MemoryContextAllocHuge(CurrentMemoryContext,
								  sizeof(SeGroup *) * Max(se_memtable_ngroups(range->table), 1));
	position = 0;
	while ((group = se_memtable_next(range->table, &position)) != NULL)
		keys[n++] = group;
	*nkeys = n;
	return keys;
}

static void
emit_total(const Touched *touched, SeMemtable *table, const SeGroup *key)
{
	SeGroup    *total = se_memtable_get(table, key);

	if (total == NULL)
		elog(ERROR, "a group of a window has no state");
	if (touched->fresh)
		se_emission_fresh_open(touched->emission, table, total, touched->window->start,
							   touched->window->end);
	else
		se_emission_replace(touched->emission, table, total, touched->window->start,
							touched->window->end, touched->is_final);
}

/* Recompute one group and emit it. */
static void
emit_one(const Touched *touched, const SeGroup *key)
{
	ReaderQuery *query = touched->query;
	SeMergeRange range;

	range.low = range.high = se_group_hash(key);
	range.table = se_memtable_create(query->layout, query->context, 8);
	for (int i = 0; i < touched->nmembers; i++)
		se_merge_log(query, touched->log, touched->members[i], &range);
	for (int i = 0; i < touched->nmembers; i++)
	{
		SeMemtable *table = touched->members[i]->table;
		SeGroup    *group = table ? se_memtable_get(table, key) : NULL;

		if (group != NULL)
			(void) se_memtable_add(range.table, table, group);
	}
	emit_total(touched, range.table, key);
	se_memtable_free(range.table);
}

/* Recompute keys[0..n-1], in hash order, and emit them. */
static void
emit_many(const Touched *touched, SeGroup **keys, int64 nkeys)
{
	ReaderQuery *query = touched->query;
	SeMergeRange range;

	range.low = se_group_hash(keys[0]);
	range.high = se_group_hash(keys[nkeys - 1]);
	range.table = se_memtable_create(query->layout, query->context, nkeys);
	for (int i = 0; i < touched->nmembers; i++)
		se_merge_slice(query, touched->log, touched->members[i], &range);
	for (int64 i = 0; i < nkeys; i++)
		emit_total(touched, range.table, keys[i]);
	se_memtable_free(range.table);
}

/* Emit all groups of a window that have been touched. */
static void
emit_touched(const Touched *touched)
{
	ReaderQuery *query = touched->query;
	int64		entries = 0;
	int			nranges;

	for (int i = 0; i < touched->nmembers; i++)
		entries += se_slice_entries(touched->members[i]);
	nranges = se_merge_ranges(entries);
	for (int i = 0; i < nranges; i++)
	{
		SeMergeRange range;
		SeGroup   **keys;
		int64		nkeys;

		CHECK_FOR_INTERRUPTS();
		se_merge_range_set(&range, i, nranges);
		if (range.low >= touched->below)
			break;
		range.high = Min(range.high, touched->below - 1);
		range.table = se_memtable_create(query->layout, query->context, 64);
		keys = touched_keys(touched, &range, &nkeys);
		if (nkeys > FEW_GROUPS)
			emit_many(touched, keys, nkeys);
		else
			for (int64 k = 0; k < nkeys; k++)
				emit_one(touched, keys[k]);
		pfree(keys);
		se_memtable_free(range.table);
	}
}

/* ---- corrections ---- */

static bool
has_new_rows(const ReaderQuery *query, const OpenSlice *slice)
{
	return slice->table != NULL && se_memtable_ngroups(slice->table) > 0;
}

bool
se_has_corrections(ReaderQuery *query)
{
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	if (se_query_retention(query) == 0)
		return false;
	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
		if (slice->first_end <= query->closed_through && has_new_rows(query, slice))
		{
			hash_seq_term(&status);
			return true;
		}
	return false;
}

void
se_correct_windows(ReaderQuery *query, SeStateLog *log, SeEmission *emission, OpenSlice **slices,
				   int nslices)
{
	OpenSlice **members;
	SeWindowBounds *windows;
	int			nwindows;

	if (!se_has_corrections(query))
		return;
	members = palloc(sizeof(OpenSlice *) * Max(nslices, 1));
	windows = se_slices_windows(query, slices, nslices, has_new_rows, DT_NOBEGIN,
								query->closed_through, &nwindows);
	for (int w = 0; w < nwindows; w++)
	{
		Touched		touched = {query, log, emission, &windows[w], members, 0, NO_RUNS, true, false,
		ALL_HASHES};
		int			order = query->closing.active ?
			se_window_compare(&windows[w], &query->closing.window) : -1;

		/* what has not been emitted yet will be, with these records */
		if (order > 0)
			break;
		if (order == 0)
			touched.below = query->closing.next_hash;
		else if (!se_window_is_emitted(query, &windows[w]))
			continue;
		touched.nmembers = se_window_members(query, &windows[w], slices, nslices, members);
		emit_touched(&touched);
	}
}

/* ---- changes ---- */

static bool
has_changed(const ReaderQuery *query, const OpenSlice *slice)
{
	return slice->changed || has_new_rows(query, slice);
}

bool
se_changes_are_due(const ReaderQuery *query, TimestampTz now)
{
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	if (!se_query_emits_changes(query) ||
		(query->changes_at != DT_NOBEGIN && now < query->changes_at + query->def->emit_interval))
		return false;
	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
		if (slice->last_end > query->closed_through && has_changed(query, slice))
		{
			hash_seq_term(&status);
			return true;
		}
	return false;
}

/*
 * When the changes that have been committed want a commit to be shown; DT_NOEND if
 * there are none.
 */
TimestampTz
se_changes_due(const ReaderQuery *query)
{
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	if (!se_query_emits_changes(query))
		return DT_NOEND;
	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
		if (slice->changed && (slice->last_end > query->closed_through ||
							   query->plan->window.kind == SE_WINDOW_SESSION))
		{
			hash_seq_term(&status);
			return query->changes_at == DT_NOBEGIN ? DT_NOBEGIN :
				query->changes_at + query->def->emit_interval;
		}
	return DT_NOEND;
}

void
se_emit_changes(ReaderQuery *query, SeStateLog *log, SeEmission *emission, OpenSlice **slices,
				int nslices, TimestampTz watermark, int64 seq, TimestampTz now)
{
	OpenSlice **members = palloc(sizeof(OpenSlice *) * Max(nslices, 1));
	int			nwindows;
	SeWindowBounds *windows = se_slices_windows(query, slices, nslices, has_changed, watermark,
												DT_NOEND, &nwindows);

	for (int w = 0; w < nwindows; w++)
	{
		Touched		touched = {query, log, emission, &windows[w], members, 0, query->changes_seq,
		false, false, ALL_HASHES};

		if (!se_window_is_emitted(query, &windows[w]))
			continue;
		touched.nmembers = se_window_members(query, &windows[w], slices, nslices, members);
		/* inserting is ten times as fast */
		touched.fresh = !se_emission_exists(emission, windows[w].start, windows[w].end);
		emit_touched(&touched);
	}
	for (int i = 0; i < nslices; i++)
		slices[i]->changed = false;
	query->changes_seq = seq;
	query->changes_at = now;
}

void
se_emit_last(ReaderQuery *query, SeStateLog *log, SeEmission *emission,
			 const SeWindowBounds *window, OpenSlice **members, int nmembers)
{
	Touched		touched = {query, log, emission, window, members, nmembers, query->changes_seq,
	true, false, ALL_HASHES};

	emit_touched(&touched);
	se_emission_finalize(emission, window->start, window->end);
}
