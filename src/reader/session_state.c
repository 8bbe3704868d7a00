/*
 * session_state.c
 *	  The state of session windows: buckets, their groups in memory and in the log.
 *
 * NOTES
 *	  The groups of the buckets around the watermark, as committed, are kept in
 *	  memory (OpenSlice.base), loaded from the log when needed first; groups of
 *	  the running cycle are in OpenSlice.table until the commit adds them.
 *
 *	  Where they would take more memory than ReaderQuery.session_memory, a commit looks
 *	  at the keys part by part (session_parts.c), and keeps no groups.  What rows at or
 *	  behind the watermark ask for in between is loaded around the hashes of their keys
 *	  (OpenSlice.partial).
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "session_private.h"

void
se_session_bounds(SeMemtable *table, SeGroup *group, int naggs, TimestampTz *first,
				  TimestampTz *last)
{
	*first = se_group_integer(table, group, naggs + SESSION_FIRST);
	*last = se_group_integer(table, group, naggs + SESSION_LAST);
}

bool
se_session_continues(SeMemtable *next_table, SeGroup *next, int naggs, TimestampTz last, int64 gap)
{
	TimestampTz next_first;
	TimestampTz next_last;

	if (next == NULL)
		return false;
	se_session_bounds(next_table, next, naggs, &next_first, &next_last);
	return next_first - last <= gap;
}

bool
se_session_mark(SeMemtable *table, SeGroup *group, int naggs, int mark, int64 *value)
{
	bool		isnull;

	*value = DatumGetInt64(se_group_result(table, group, naggs + mark, &isnull));
	if (isnull)
		*value = 0;
	return !isnull;
}

void
se_session_set_mark(SeMemtable *table, SeGroup *group, int naggs, int mark, int64 value)
{
	se_group_advance(table, group, naggs + mark, value);
}

void
se_session_set_revision(SeMemtable *table, SeGroup *group, int naggs, int64 revision)
{
	int64		before;

	(void) se_session_mark(table, group, naggs, SESSION_REVISION, &before);
	/* the least revision is that of both, whichever of them had been emitted */
	se_session_set_mark(table, group, naggs, SESSION_REVISION,
						((revision | before) & SESSION_EMITTED) |
						Max(revision & ~SESSION_EMITTED, before & ~SESSION_EMITTED));
}

bool
se_session_was_emitted(const SeQueryDef *def, SeMemtable *table, SeGroup *group, int naggs)
{
	int64		revision;

	return se_session_revises(def) &&
		se_session_mark(table, group, naggs, SESSION_REVISION, &revision) &&
		(revision & SESSION_EMITTED) != 0;
}

/* ---- loading ---- */

/* Committed groups of a bucket whose hashes lie in some of many equal ranges. */
#define PARTIAL_BITS 16
#define PARTIAL_RANGES (1 << PARTIAL_BITS)

typedef struct SePartialBase
{
	SeMemtable *table;
	bool		loaded[PARTIAL_RANGES];
} SePartialBase;

typedef struct LoadTarget
{
	SeMemtable *table;
	SeMemtable *dead;			/* groups of a chunk of tombstones */
	uint32		low;
	uint32		high;
	const bool *ranges;			/* or these, if not NULL */
} LoadTarget;

static bool
some_wanted(const bool *ranges, uint32 hash_low, uint32 hash_high)
{
	uint32		first = hash_low >> (32 - PARTIAL_BITS);
	uint32		last = hash_high >> (32 - PARTIAL_BITS);

	return memchr(ranges + first, true, last - first + 1) != NULL;
}

static void
load_chunk(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high,
		   bool tombstones)
{
	LoadTarget *target = arg;
	SeMemtable *table = tombstones ? target->dead : target->table;
	int64		position = 0;
	SeGroup    *group;

	if (target->ranges != NULL && !some_wanted(target->ranges, hash_low, hash_high))
		return;
	if (tombstones)
		se_memtable_reset(target->dead);
	if (target->ranges != NULL)
		se_memtable_merge_some(table, bytes, size, target->ranges, PARTIAL_BITS);
	else
		se_memtable_merge(table, bytes, size, target->low, target->high);
	if (!tombstones)
		return;
	while ((group = se_memtable_next(target->dead, &position)) != NULL)
	{
		SeGroup    *found = se_memtable_get(target->table, group);

		if (found != NULL)
			se_memtable_remove(target->table, found);
	}
}

static void
load(SeStateLog *log, int32 query, TimestampTz start, TimestampTz end, LoadTarget *target)
{
	target->dead = se_memtable_create(se_memtable_layout(target->table), CurrentMemoryContext, 64);
	se_state_log_read_ordered(log, query, start, end, target->low, target->high, load_chunk,
							  target);
	se_memtable_free(target->dead);
}

void
se_session_load(SeStateLog *log, int32 query, TimestampTz start, TimestampTz end, uint32 low,
				uint32 high, SeMemtable *table)
{
	LoadTarget	target = {table, NULL, low, high, NULL};

	load(log, query, start, end, &target);
}

static void
load_bucket(ReaderQuery *query, const OpenSlice *slice, LoadTarget *target)
{
	SeStateLog *log;

	if (slice->nruns == 0)
		return;
	log = se_state_log_open_latest();
	load(log, query->def->id, slice->start, slice->end, target);
	se_state_log_close(log);
}

/* Load the part of the keys that is looked at, or all. */
static void
load_part(ReaderQuery *query, const OpenSlice *slice, SeMemtable *table)
{
	LoadTarget	target = {table, NULL, 0, PG_UINT32_MAX, NULL};

	if (query->session_in_parts)
	{
		target.low = query->session_low;
		target.high = query->session_high;
	}
	load_bucket(query, slice, &target);
}

OpenSlice *
se_session_bucket(ReaderQuery *query, TimestampTz start)
{
	TimestampTz key[2] = {start, start + query->plan->window.gap};

	return hash_search(query->slices, key, HASH_FIND, NULL);
}

SeMemtable *
se_session_table(const ReaderQuery *query, MemoryContext context, int64 expected_groups)
{
	SeMemtable *table = se_memtable_create(query->layout, context, expected_groups);

	if (query->session_in_parts)
		se_memtable_limit(table, query->session_low, query->session_high);
	return table;
}

SeMemtable *
se_session_base(ReaderQuery *query, OpenSlice *slice, bool make)
{
	slice->base_used = true;
	if (slice->base == NULL && (slice->nruns > 0 || make))
	{
		double		share = query->session_in_parts ?
			((double) (query->session_high - query->session_low) + 1) / 4294967296.0 : 1;

		slice->base = se_session_table(query, query->context,
									   Max((int64) (slice->largest * share), 64));
		load_part(query, slice, slice->base);
	}
	return slice->base;
}

void
se_session_release(ReaderQuery *query, OpenSlice *slice)
{
	if (slice->base != NULL)
	{
		slice->most_groups = se_memtable_ngroups(slice->base);
		query->session_group = Max(query->session_group, se_memtable_group_memory(slice->base));
		se_memtable_free(slice->base);
		slice->base = NULL;
	}
	if (slice->partial != NULL)
	{
		se_memtable_free(slice->partial->table);
		pfree(slice->partial);
		slice->partial = NULL;
	}
}

Size
se_session_base_memory(const ReaderQuery *query, const OpenSlice *slice)
{
	Size		group = Max(query->session_group, 256);

	return slice->base ? se_memtable_memory(slice->base) : (Size) slice->most_groups * group;
}

/* Whether the committed groups of one more bucket fit into memory beside those that are there. */
static bool
base_fits(ReaderQuery *query, OpenSlice *slice)
{
	Size		bytes = se_session_base_memory(query, slice);
	HASH_SEQ_STATUS status;
	OpenSlice  *other;

	hash_seq_init(&status, query->slices);
	while ((other = hash_seq_search(&status)) != NULL)
		if (other->base != NULL)
			bytes += se_memtable_memory(other->base);
	return bytes <= query->session_memory;
}

/* Whether groups of a bucket are looked for in a part of them. */
static bool
is_partial(ReaderQuery *query, OpenSlice *slice)
{
	return slice->base == NULL && slice->nruns > 0 &&
		(slice->partial != NULL || !base_fits(query, slice));
}

static SePartialBase *
partial_base(ReaderQuery *query, OpenSlice *slice)
{
	if (slice->partial != NULL &&
		se_memtable_memory(slice->partial->table) > query->session_memory / 4)
		se_session_release(query, slice);
	if (slice->partial == NULL)
	{
		slice->partial = MemoryContextAllocZero(query->context, sizeof(SePartialBase));
		slice->partial->table = se_memtable_create(query->layout, query->context, 64);
		se_memtable_limit(slice->partial->table, 0, PG_UINT32_MAX);
	}
	return slice->partial;
}

/* Load the groups in ranges[0..n-1] that are not there yet, by one look at all runs. */
static void
load_ranges(ReaderQuery *query, OpenSlice *slice, const uint32 *ranges, int n)
{
	SePartialBase *partial = partial_base(query, slice);
	bool	   *wanted = NULL;
	LoadTarget	target = {partial->table, NULL, PG_UINT32_MAX, 0, NULL};

	for (int i = 0; i < n; i++)
	{
		uint32		low = ranges[i] << (32 - PARTIAL_BITS);

		if (partial->loaded[ranges[i]])
			continue;
		if (wanted == NULL)
			wanted = palloc0(sizeof(bool) * PARTIAL_RANGES);
		wanted[ranges[i]] = partial->loaded[ranges[i]] = true;
		target.low = Min(target.low, low);
		target.high = Max(target.high, low + ((1U << (32 - PARTIAL_BITS)) - 1));
	}
	if (wanted == NULL)
		return;
	target.ranges = wanted;
	load_bucket(query, slice, &target);
	pfree(wanted);
}

SeMemtable *
se_session_base_near(ReaderQuery *query, OpenSlice *slice, const SeGroup *key, int row)
{
	uint32		range;

	if (!is_partial(query, slice))
		return se_session_base(query, slice, false);
	range = (key ? se_group_hash(key) :
			 se_memtable_hash_row(partial_base(query, slice)->table, se_eval_keys(query->eval),
								  row)) >> (32 - PARTIAL_BITS);
	load_ranges(query, slice, &range, 1);
	return slice->partial->table;
}

void
se_session_look_ahead(ReaderQuery *query, const int *rows, int n)
{
	uint32	   *ranges = NULL;
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	if (n == 0)
		return;
	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
	{
		if (!is_partial(query, slice))
			continue;
		if (ranges == NULL)
		{
			SeMemtable *table = partial_base(query, slice)->table;

			ranges = palloc(sizeof(uint32) * n);
			for (int i = 0; i < n; i++)
				ranges[i] = se_memtable_hash_row(table, se_eval_keys(query->eval), rows[i]) >>
					(32 - PARTIAL_BITS);
		}
		load_ranges(query, slice, ranges, n);
	}
	if (ranges != NULL)
		pfree(ranges);
}

void
se_session_follow(ReaderQuery *query, OpenSlice *slice)
{
	SeMemtable *table = slice->table;
	int64		position = 0;
	SeGroup    *group;

	while ((group = se_memtable_next(table, &position)) != NULL)
		if (slice->partial->loaded[se_group_hash(group) >> (32 - PARTIAL_BITS)])
			(void) se_memtable_add(slice->partial->table, table, group);
}

SeMemtable *
se_session_merged(ReaderQuery *query, OpenSlice *slice)
{
	SeMemtable *base = se_session_base(query, slice, true);

	if (slice->table != NULL && !slice->table_merged)
	{
		se_memtable_merge_table(base, slice->table);
		slice->table_merged = true;
	}
	return base;
}

SeMemtable *
se_session_logged(ReaderQuery *query, OpenSlice *slice)
{
	Assert(slice->base != NULL && (slice->table == NULL || slice->table_merged));
	if (slice->table == NULL)
		slice->table = se_session_table(query, query->context, 64);
	slice->table_merged = true;
	return slice->table;
}

/* The time at which sessions that end at it or before are forgotten when W is "watermark". */
static inline TimestampTz
expiry_at(const ReaderQuery *query, TimestampTz watermark)
{
	return se_time_before(watermark, query->def->allowed_lateness);
}

/*
 * Where a row of the bucket [*start, *end) goes.  Ripe buckets are empty: what
 * went on was carried into the first bucket that is not ripe, and a row that is
 * taken so late belongs to a session there.
 */
void
se_session_place(const ReaderQuery *query, TimestampTz *start, TimestampTz *end)
{
	int64		gap = query->plan->window.gap;
	TimestampTz expired = expiry_at(query, query->closed_through);

	if (expired == DT_NOBEGIN || *end > expired - gap)
		return;
	(void) se_window_slice(&query->plan->window, expired - gap, NULL, start, end);
}

void
se_session_touch(ReaderQuery *query, const OpenSlice *slice)
{
	TimestampTz starts_to_close = slice->start + query->plan->window.gap;

	if (starts_to_close <= query->closed_through)
		query->session_next_close = query->closed_through + 1;
	query->session_next_expiry = Min(query->session_next_expiry, starts_to_close);
	/* all sessions that are open end after the committed watermark */
	query->next_close = Min(query->next_close,
							Max(starts_to_close, query->closed_through + 1));
}

/*
 * In the bucket that the committed watermark minus the gap cuts, what the last
 * close found; elsewhere no session ends before its bucket's start plus the gap.
 */
TimestampTz
se_session_next_close(ReaderQuery *query)
{
	TimestampTz next = query->session_next_close;
	int64		gap = query->plan->window.gap;
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
		if (slice->start + gap > query->closed_through)
			next = Min(next, slice->start + gap);
	return Max(next, query->closed_through + 1);
}

/* The bound is as in se_session_next_close. */
bool
se_session_may_expire(ReaderQuery *query, TimestampTz expiry)
{
	int64		gap = query->plan->window.gap;
	TimestampTz expired = expiry_at(query, query->closed_through);
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	if (expiry == DT_NOBEGIN)
		return false;
	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
	{
		TimestampTz next = slice->start + gap > expired ? slice->start + gap :
			query->session_next_expiry;

		if (next <= expiry || slice->end <= expiry - gap)
		{
			hash_seq_term(&status);
			return true;
		}
	}
	return false;
}

static TimestampTz
latest_row(const ReaderQuery *query, SeMemtable *table)
{
	TimestampTz latest = DT_NOBEGIN;
	int64		position = 0;
	SeGroup    *group;

	while (table != NULL && (group = se_memtable_next(table, &position)) != NULL)
	{
		TimestampTz first;
		TimestampTz last;

		CHECK_FOR_INTERRUPTS();
		se_session_bounds(table, group, query->plan->naggs, &first, &last);
		latest = Max(latest, last);
	}
	return latest;
}

/* The same of the committed groups of a bucket, however many they are. */
static TimestampTz
latest_committed(ReaderQuery *query, OpenSlice *slice)
{
	TimestampTz latest = DT_NOBEGIN;
	int			nparts;

	if (slice->base != NULL || slice->nruns == 0 || base_fits(query, slice))
		return latest_row(query, se_session_base(query, slice, false));
	nparts = se_session_count_parts(query, se_session_base_memory(query, slice));
	for (int i = 0; i < nparts; i++)
	{
		SeMemtable *table;

		se_session_set_part(query, i, nparts);
		table = se_session_table(query, query->context, 64);
		load_part(query, slice, table);
		latest = Max(latest, latest_row(query, table));
		se_memtable_free(table);
	}
	query->session_in_parts = false;
	return latest;
}

TimestampTz
se_session_latest_end(ReaderQuery *query)
{
	TimestampTz latest = DT_NOBEGIN;
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
	{
		TimestampTz committed;
		TimestampTz added;

		if (slice->end <= latest)
			continue;
		committed = latest_committed(query, slice);
		added = latest_row(query, slice->table);
		latest = Max(latest, Max(committed, added));
	}
	return latest == DT_NOBEGIN ? latest : latest + query->plan->window.gap;
}
