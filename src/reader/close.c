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
 *	  A commit that has emitted its share of rows leaves the rest to the next ones
 *	  (closing.c), in the order of the windows' ends; the hash at which it has stopped
 *	  says where they go on.
 *
 *	  Windows that overlap share what their slices hold (sliding.c).
 *
 *	  A slice whose runs hold several times the groups that they stand for is folded
 *	  into one run when it is flushed (se_slice_is_folded), so that state is bounded by the
 *	  groups and not by the commits.
 *
 *	  Slices outlive their last window by the allowed lateness, or by the
 *	  correction horizon where that is longer, and are dropped by the first commit
 *	  behind.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "close.h"
#include "engine/engine.h"
#include "global.h"
#include "session.h"
#include "sliding.h"

/*
 * Folding makes all groups look changed, so where changes are emitted it waits for
 * a commit that emits them, up to this many runs.  Where so many hold three entries a
 * group most groups have changed anyhow, and a group would take a kilobyte.
 */
#define FOLD_RUNS_CHANGES 64

/* Folding a slice of so many entries keeps out of others' way, until it has twice what folds it. */
#define FOLD_LARGE_ENTRIES 50000

#define MAX_RANGES 4096
#define PREFETCHED_GROUPS 4

/* Writing over a row costs as much as inserting so many. */
#define REPLACING_COST 4

/* So many windows that have closed have their own share of a commit's rows. */
#define WINDOWS_AT_ONCE 8

/* Emptied memtables that are kept, and their memory: fresh memory costs page faults. */
#define MIN_SPARE_MEMTABLES 8
#define MAX_SPARE_MEMTABLES 128
#define MAX_SPARE_MEMORY ((Size) 64 * 1024 * 1024)

/* ---- merging ---- */

static void
merge_chunk(void *arg, const char *bytes, Size size)
{
	SeMergeRange *range = arg;

	se_memtable_merge(range->table, bytes, size, range->low, range->high);
}

static void
merge_memtable_chunk(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high,
					 int ngroups)
{
	SeMergeRange *range = arg;

	if (hash_high >= range->low && hash_low <= range->high)
		se_memtable_merge(range->table, bytes, size, range->low, range->high);
}

int64
se_slice_entries(const OpenSlice *slice)
{
	return slice->entries + (slice->table ? se_memtable_ngroups(slice->table) : 0);
}

void
se_merge_log(ReaderQuery *query, SeStateLog *log, const OpenSlice *slice, SeMergeRange *range)
{
	if (slice->nruns > 0)
		se_state_log_read(log, query->def->id, slice->start, slice->end, range->low, range->high,
						  merge_chunk, range);
}

void
se_merge_slice(ReaderQuery *query, SeStateLog *log, OpenSlice *slice, SeMergeRange *range)
{
	se_merge_log(query, log, slice, range);
	if (slice->table != NULL)
		se_memtable_flush(slice->table, SE_CHUNK_SIZE, merge_memtable_chunk, range);
}

void
se_merge_range_set(SeMergeRange *range, int i, int n)
{
	uint64		width = ((uint64) 1 << 32) / n;

	range->low = (uint32) (width * i);
	range->high = i == n - 1 ? PG_UINT32_MAX : (uint32) (width * (i + 1) - 1);
}

int
se_merge_ranges(int64 groups)
{
	return (int) Min(groups / SE_RANGE_GROUPS + 1, MAX_RANGES);
}

static void
release_memtable(ReaderQuery *query, OpenSlice *slice)
{
	int			nspare = list_length(query->spare);

	if (slice->table == NULL)
		return;
	/* the spare ones are about as large as this one */
	if (nspare < MIN_SPARE_MEMTABLES ||
		(nspare < MAX_SPARE_MEMTABLES &&
		 se_memtable_memory(slice->table) * nspare < MAX_SPARE_MEMORY))
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

/* ---- windows and slices ---- */

static int
compare_slices(const void *a, const void *b)
{
	const OpenSlice *x = *(OpenSlice *const *) a;
	const OpenSlice *y = *(OpenSlice *const *) b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end ? 1 : 0;
}

OpenSlice **
se_slices_sorted(ReaderQuery *query, int *nslices)
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

void
se_window_set_add(SeWindowSet *set, const SeWindowSpec *spec, TimestampTz slice_start,
				  TimestampTz slice_end, TimestampTz after, TimestampTz upto)
{
	SeWindowIterator iterator;
	SeWindowBounds window;
	int			at = -1;

	se_window_iterate(&iterator, spec, slice_start, slice_end, NULL);
	while (se_window_next(&iterator, &window) && window.end <= upto)
	{
		if (window.end <= after)
			continue;
		if (at < 0)
		{
			int			high = set->n;

			at = 0;
			while (at < high)
			{
				int			middle = at + (high - at) / 2;

				if (se_window_compare(&set->windows[middle], &window) < 0)
					at = middle + 1;
				else
					high = middle;
			}
		}
		/* they come in their order, and slices that lie side by side share most of them */
		while (at < set->n && se_window_compare(&set->windows[at], &window) < 0)
			at++;
		if (at < set->n && se_window_compare(&set->windows[at], &window) == 0)
			continue;
		if (set->n == set->capacity)
		{
			set->capacity = Max(set->capacity * 2, 16);
			set->windows = set->windows ?
				repalloc_huge(set->windows, sizeof(SeWindowBounds) * set->capacity) :
				palloc(sizeof(SeWindowBounds) * set->capacity);
		}
		memmove(&set->windows[at + 1], &set->windows[at], sizeof(SeWindowBounds) * (set->n - at));
		set->windows[at] = window;
		set->n++;
	}
}

SeWindowBounds *
se_slices_windows(const ReaderQuery *query, OpenSlice **slices, int nslices, SeSliceFilter wanted,
				  TimestampTz after, TimestampTz upto, int *nwindows)
{
	SeWindowSet set = {0};
	bool		walked = false;

	for (int i = 0; i < nslices; i++)
	{
		/* slices that have windows on both sides have all those in between */
		bool		spans = slices[i]->first_end <= after && slices[i]->last_end > upto;

		if (slices[i]->first_end > upto || slices[i]->last_end <= after || (spans && walked))
			continue;
		if (wanted != NULL && !wanted(query, slices[i]))
			continue;
		walked |= spans;
		se_window_set_add(&set, &query->plan->window, slices[i]->start, slices[i]->end, after,
						  upto);
	}
	*nwindows = set.n;
	return set.windows;
}

/* In several time zones a window may lie within another one. */
static inline bool
is_its_slice(const OpenSlice *slice, const SeWindowBounds *window)
{
	return slice->start == window->start && slice->end == window->end;
}

int
se_window_members(const ReaderQuery *query, const SeWindowBounds *window, OpenSlice **slices,
				  int nslices, OpenSlice **members)
{
	int			low = 0;
	int			high = nslices;
	int			n = 0;

	/* the first slice that does not begin before the window */
	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (slices[middle]->start < window->start)
			low = middle + 1;
		else
			high = middle;
	}
	for (int i = low; i < nslices && slices[i]->start < window->end; i++)
		if (slices[i]->end <= window->end &&
			(!se_window_is_slice(&query->plan->window) || is_its_slice(slices[i], window)))
			members[n++] = slices[i];
	return n;
}

/* ---- emission ---- */

/* A window that is being emitted, up to a number of rows. */
typedef struct WindowEmission
{
	ReaderQuery *query;
	SeStateLog *log;
	SeEmission *emission;
	const SeWindowBounds *window;
	OpenSlice **members;
	int			nmembers;
	bool		replaces;		/* rows of groups may be in the table */
	uint32		low;			/* groups with a smaller hash have been emitted */
	double		density;		/* groups per hash, 0 unknown */
	int64		left;			/* rows that may still be emitted, about */
	int64		least;			/* for fewer it is not worth reading slices */
} WindowEmission;

/* Emit the groups of "table" from we->low up to "high". */
static void
emit_range(WindowEmission *we, SeMemtable *table, uint32 high)
{
	const SeWindowBounds *window = we->window;
	int64		ngroups;
	SeGroup   **sorted;

	if (we->low > 0 || high < PG_UINT32_MAX)
		SE_FAILPOINT("closing.range");
	sorted = se_memtable_sorted_range(table, we->low, high, &ngroups);
	/* their order is not that of memory */
	for (int64 i = 0; i < ngroups; i++)
	{
		if (i + PREFETCHED_GROUPS < ngroups)
			se_group_prefetch(table, sorted[i + PREFETCHED_GROUPS]);
		if (we->replaces)
			se_emission_replace(we->emission, table, sorted[i], window->start, window->end, true);
		else
			se_emission_fresh(we->emission, table, sorted[i], window->start, window->end);
	}
	pfree(sorted);
	we->left -= we->replaces ? ngroups * REPLACING_COST : ngroups;
	if (high < PG_UINT32_MAX)
	{
		we->density = (double) Max(ngroups, 1) / ((double) high - we->low + 1);
		we->low = high + 1;
	}
}

/* Groups of a window's slices, counted once for each of their runs. */
static int64
members_entries(OpenSlice **members, int nmembers)
{
	int64		entries = 0;

	for (int i = 0; i < nmembers; i++)
		entries += se_slice_entries(members[i]);
	return entries;
}

/* About how many groups a window's slices have: those of the largest run, if it was folded. */
static int64
likely_groups(OpenSlice **members, int nmembers)
{
	int64		groups = 0;

	for (int i = 0; i < nmembers; i++)
	{
		groups = Max(groups, members[i]->largest);
		if (members[i]->table != NULL)
			groups = Max(groups, se_memtable_ngroups(members[i]->table));
		groups = Max(groups, se_slice_entries(members[i]) / SE_FOLD_ENTRIES_PER_GROUP);
	}
	return groups;
}

/* How many groups may be emitted; all that there are if they are few more than are left. */
static int64
groups_allowed(const WindowEmission *we)
{
	int64		rows = Max(we->left, 1);

	/* without a limit */
	if (rows > PG_INT64_MAX / 2)
		return rows;
	rows += rows / 4;
	return we->replaces ? rows / REPLACING_COST + 1 : rows;
}

/* The groups of one table.  True: all of them. */
static bool
emit_table(WindowEmission *we, SeMemtable *table)
{
	int64		allowed = groups_allowed(we);
	int64		position = 0;
	int64		n = 0;
	SeGroup    *group;
	uint32		last = 0;
	uint32		high = PG_UINT32_MAX;

	if (se_memtable_ngroups(table) > allowed)
	{
		while (high == PG_UINT32_MAX && (group = se_memtable_next(table, &position)) != NULL)
		{
			uint32		hash = se_group_hash(group);

			if (hash < we->low)
				continue;
			if (n++ >= allowed && hash != last)
				high = last;
			last = hash;
		}
	}
	emit_range(we, table, high);
	return high == PG_UINT32_MAX;
}

/*
 * Emit a window from the hash we->low on.  False: the rows that were allowed are out, and
 * the next commit is to go on at we->low.
 */
static bool
emit_window(WindowEmission *we)
{
	ReaderQuery *query = we->query;
	int64		entries = members_entries(we->members, we->nmembers);
	SeMemtable *table;

	if (we->nmembers == 1 && we->members[0]->nruns == 0)
		return we->members[0]->table == NULL || emit_table(we, we->members[0]->table);
	table = se_sliding_window(query, we->log, we->window, we->members, we->nmembers);
	if (table != NULL)
		return emit_table(we, table);
	for (;;)
	{
		double		rest = (double) PG_UINT32_MAX + 1 - we->low;
		double		density = we->density > 0 ? we->density :
			(double) Max(entries, 1) / ((double) PG_UINT32_MAX + 1);
		double		width = Min(groups_allowed(we), SE_RANGE_GROUPS) / density;
		SeMergeRange range;

		range.low = we->low;
		range.high = width >= rest ? PG_UINT32_MAX : we->low + (uint32) Max(width, 1) - 1;
		range.table = se_memtable_create(query->layout, query->context,
										 (int64) (density * Min(width, rest)) + 1);
		for (int s = 0; s < we->nmembers; s++)
			se_merge_slice(query, we->log, we->members[s], &range);
		emit_range(we, range.table, range.high);
		se_memtable_free(range.table);
		if (range.high == PG_UINT32_MAX)
			return true;
		if (we->left <= we->least)
			return false;
	}
}

/*
 * Emit the windows that have closed, or close with "watermark", in the order of their ends;
 * "budget" is the number of rows for each of some of them.  What is left is noted; with
 * "gives_way" that is all of the first window that is too large for one commit.
 */
static void
close_windows(ReaderQuery *query, SeStateLog *log, SeEmission *emission, OpenSlice **slices,
			  int nslices, TimestampTz watermark, int64 budget, bool gives_way)
{
	SeClosing	before = query->closing;
	OpenSlice **members = palloc(sizeof(OpenSlice *) * Max(nslices, 1));
	bool		changes = se_query_emits_changes(query);
	WindowEmission we = {0};
	int			nwindows;
	int			w = 0;
	SeWindowBounds *windows = se_slices_windows(query, slices, nslices, NULL,
												before.active ? before.window.end - 1 :
												query->closed_through, watermark, &nwindows);

	while (w < nwindows && before.active && se_window_compare(&windows[w], &before.window) < 0)
		w++;
	we.query = query;
	we.log = log;
	we.emission = emission;
	we.members = members;
	we.left = budget == 0 ? PG_INT64_MAX : budget * Min(Max(nwindows - w, 1), WINDOWS_AT_ONCE);
	we.least = budget / 16;
	for (; w < nwindows && we.left > we.least; w++)
	{
		bool		begun = before.active && before.next_hash > 0 &&
			se_window_compare(&windows[w], &before.window) == 0;

		we.window = &windows[w];
		we.low = begun ? before.next_hash : 0;
		we.density = begun ? before.density : 0;
		if (!begun && !se_window_is_emitted(query, &windows[w]))
		{
			/* it may have been taken for a complete one */
			if (changes)
				se_emission_withdraw(emission, windows[w].start, windows[w].end);
			query->windows_incomplete++;
			continue;
		}
		we.nmembers = se_window_members(query, &windows[w], slices, nslices, members);
		we.replaces = changes && (begun ? before.replaces :
								  se_emission_exists(emission, windows[w].start,
													 windows[w].end));
		if (gives_way && likely_groups(members, we.nmembers) > budget)
			break;
		/* what has changed since then is known only in the commit that closes it */
		if (we.replaces && !begun && windows[w].end > query->closed_through &&
			members_entries(members, we.nmembers) <= we.left)
		{
			se_emit_last(query, log, emission, &windows[w], members, we.nmembers);
			we.left -= members_entries(members, we.nmembers);
		}
		else if (!emit_window(&we))
			break;
		we.low = 0;
		we.density = 0;
		query->windows_closed++;
	}

	query->closing.active = w < nwindows;
	query->closing.gave_way = gives_way && w < nwindows;
	if (w < nwindows)
	{
		query->closing.window = windows[w];
		query->closing.nwindows = nwindows - w;
		query->closing.next_hash = we.low;
		query->closing.density = we.density;
		query->closing.replaces = we.replaces;
		if (!before.active)
			SE_FAILPOINT("closing.begin");
	}
	else if (before.active)
		SE_FAILPOINT("closing.end");
}

/* Whether nothing wants a slice any more at "watermark". */
static bool
is_expired(const ReaderQuery *query, const OpenSlice *slice, TimestampTz watermark)
{
	return se_slice_expires(query, slice) <= watermark &&
		!(query->closing.active && slice->last_end >= query->closing.window.end);
}

static void
drop_slices(ReaderQuery *query, SeStateLog *log, OpenSlice **slices, int nslices,
			TimestampTz watermark)
{
	for (int i = 0; i < nslices; i++)
	{
		TimestampTz key[2] = {slices[i]->start, slices[i]->end};

		if (!is_expired(query, slices[i], watermark))
			continue;
		if (slices[i]->nruns > 0)
			se_state_log_delete(log, query->def->id, slices[i]->start, slices[i]->end);
		release_memtable(query, slices[i]);
		hash_search(query->slices, key, HASH_REMOVE, NULL);
	}
	query->last_slice = NULL;
}

bool
se_windows_emit(ReaderQuery *query, TimestampTz watermark, TimestampTz now)
{
	if (query->plan->window.kind == SE_WINDOW_GLOBAL)
		return se_global_emits(query, now);
	if (query->plan->window.kind == SE_WINDOW_SESSION)
		return se_session_emits(query, watermark, now);
	return query->hides || query->closing.active || query->next_close <= watermark ||
		se_changes_are_due(query, now) || se_has_corrections(query);
}

static bool
something_expires(ReaderQuery *query, TimestampTz watermark)
{
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
		if (is_expired(query, slice, watermark))
		{
			hash_seq_term(&status);
			return true;
		}
	return false;
}

/*
 * Emit what there is to emit of the windows of "query" at "watermark": corrections, windows
 * that close, changes of open ones; and drop the slices that are not needed any
 * more.  Inside the commit's transaction with an active snapshot; what is changed
 * in memory is thrown away if the commit fails.
 */
void
se_close_windows(Reader *reader, ReaderQuery *query, TimestampTz watermark, TimestampTz now)
{
	bool		emits = se_windows_emit(query, watermark, now);
	MemoryContext old;
	SeStateLog *log;
	OpenSlice **slices;
	int			nslices;

	se_sliding_learn(query);
	if (!emits && !something_expires(query, watermark))
		return;
	old = MemoryContextSwitchTo(reader->cycle);
	slices = se_slices_sorted(query, &nslices);
	log = se_state_log_open(true);
	if (emits)
	{
		SeUserScope scope;
		SeEmission *emission;

		se_blame.query = query;
		se_user_begin(&scope, query->def->owner, query->def->settings);
		emission = se_emission_begin(query, now, reader->cycle);
		SE_FAILPOINT("emit.begin");
		se_hide_incomplete(query, emission);
		se_correct_windows(query, log, emission, slices, nslices);
		if (query->closing.active || query->next_close <= watermark)
		{
			int64		budget = se_closing_budget(reader);

			close_windows(query, log, emission, slices, nslices, watermark, budget,
						  budget > 0 && !query->closing.gave_way &&
						  se_closing_disturbs(reader, query, watermark));
		}
		if (se_changes_are_due(query, now))
			se_emit_changes(query, log, emission, slices, nslices, watermark,
							reader->def->seq + 1, now);
		se_emission_end(emission);
		SE_FAILPOINT("emit.end");
		se_user_end(&scope);
		se_blame.query = NULL;
	}
	drop_slices(query, log, slices, nslices, watermark);
	se_state_log_close(log);
	MemoryContextSwitchTo(old);
}

/* ---- the slices that stay ---- */

typedef struct FlushTarget
{
	SeStateLog *log;
	int32		query;
	const OpenSlice *slice;
	int64		seq;
} FlushTarget;

static void
append_chunk(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high,
			 int ngroups)
{
	FlushTarget *target = arg;

	se_state_log_append(target->log, target->query, target->slice->start, target->slice->end,
						target->seq, hash_low, hash_high, ngroups, bytes, size);
}

static bool
worth_folding(const ReaderQuery *query, const OpenSlice *slice, int64 seq)
{
	bool		waits = se_query_emits_changes(query) && query->changes_seq < seq;

	return (!waits || slice->nruns >= FOLD_RUNS_CHANGES) &&
		se_slice_is_folded(slice->entries, slice->largest, se_memtable_ngroups(slice->table));
}

/*
 * Whether a slice without new groups is folded all the same: while there is nothing else to
 * do, for sessions that have read it.
 */
static bool
is_folded_quietly(const Reader *reader, const ReaderQuery *query, const OpenSlice *slice)
{
	return reader->quiet && !se_query_emits_changes(query) &&
		se_slice_is_unfolded(slice->nruns, slice->entries, slice->largest);
}

/* Whether a large slice is folded by a later commit, since this one closes others' windows. */
static bool
fold_gives_way(Reader *reader, const OpenSlice *slice, bool disturbs)
{
	int64		groups = Max(slice->largest, se_memtable_ngroups(slice->table));

	if (!disturbs || slice->entries < FOLD_LARGE_ENTRIES ||
		slice->entries > groups * SE_FOLD_ENTRIES_PER_GROUP * 2)
		return false;
	reader->fold_waits = true;
	return true;
}

/* Replace a slice's runs and its memtable by one run. */
static void
fold_slice(ReaderQuery *query, OpenSlice *slice, FlushTarget *target)
{
	int64		entries = se_slice_entries(slice);
	int			nranges = se_merge_ranges(entries / SE_FOLD_ENTRIES_PER_GROUP);
	int64		groups = 0;

	SE_FAILPOINT("fold.begin");
	for (int i = 0; i < nranges; i++)
	{
		SeMergeRange range;

		se_merge_range_set(&range, i, nranges);
		range.table = se_memtable_create(query->layout, query->context,
										 Min(slice->largest / nranges + 1, SE_RANGE_GROUPS));
		se_merge_slice(query, target->log, slice, &range);
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
 * Write the groups of slices to the state log as runs of this commit and empty
 * their memtables.
 */
void
se_flush_slices(Reader *reader, ReaderQuery *query, TimestampTz watermark)
{
	MemoryContext old = MemoryContextSwitchTo(reader->cycle);
	bool		disturbs = se_closing_disturbs(reader, query, watermark);
	int64		seq = reader->def->seq + 1;
	SeStateLog *log = NULL;
	int64		largest = 0;
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	/* aggregates' own functions may be called while states are encoded */
	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
	{
		FlushTarget target;
		int64		ngroups;

		if (slice->table == NULL && !is_folded_quietly(reader, query, slice))
			continue;
		ngroups = slice->table ? se_memtable_ngroups(slice->table) : 0;
		if (ngroups > 0 || slice->table == NULL)
		{
			if (log == NULL)
				log = se_state_log_open(true);
			target.log = log;
			target.query = query->def->id;
			target.slice = slice;
			target.seq = seq;
			if (slice->table == NULL || (worth_folding(query, slice, seq) &&
										 !fold_gives_way(reader, slice, disturbs)))
				fold_slice(query, slice, &target);
			else
			{
				se_memtable_flush(slice->table, SE_CHUNK_SIZE, append_chunk, &target);
				slice->nruns++;
				slice->entries += ngroups;
				slice->largest = Max(slice->largest, ngroups);
			}
			slice->changed = query->changes_seq < seq;
			largest = Max(largest, ngroups);
		}
		release_memtable(query, slice);
	}
	query->expected_groups = Max(largest, query->expected_groups / 2);
	if (log != NULL)
		se_state_log_close(log);
	MemoryContextSwitchTo(old);
}
