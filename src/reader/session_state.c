/*
 * session_state.c
 *	  The state of session windows: buckets, their groups in memory and in the log.
 *
 * NOTES
 *	  The groups of the buckets around the watermark, as committed, are kept in
 *	  memory (OpenSlice.base), loaded from the log when needed first; groups of
 *	  the running cycle are in OpenSlice.table until the commit adds them.
 */
#include "postgres.h"

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

/* ---- loading ---- */

typedef struct LoadTarget
{
	SeMemtable *table;
	SeMemtable *dead;			/* groups of a chunk of tombstones */
} LoadTarget;

static void
load_chunk(void *arg, const char *bytes, Size size, bool tombstones)
{
	LoadTarget *target = arg;
	int64		position = 0;
	SeGroup    *group;

	if (!tombstones)
	{
		se_memtable_merge(target->table, bytes, size, 0, PG_UINT32_MAX);
		return;
	}
	se_memtable_reset(target->dead);
	se_memtable_merge(target->dead, bytes, size, 0, PG_UINT32_MAX);
	while ((group = se_memtable_next(target->dead, &position)) != NULL)
	{
		SeGroup    *found = se_memtable_get(target->table, group);

		if (found != NULL)
			se_memtable_remove(target->table, found);
	}
}

void
se_session_load(SeStateLog *log, int32 query, TimestampTz start, TimestampTz end,
				SeMemtable *table)
{
	LoadTarget	target;

	target.table = table;
	target.dead = se_memtable_create(se_memtable_layout(table), CurrentMemoryContext, 64);
	se_state_log_read_ordered(log, query, start, end, load_chunk, &target);
	se_memtable_free(target.dead);
}

OpenSlice *
se_session_bucket(ReaderQuery *query, TimestampTz start)
{
	TimestampTz key[2] = {start, start + query->plan->window.gap};

	return hash_search(query->slices, key, HASH_FIND, NULL);
}

SeMemtable *
se_session_base(ReaderQuery *query, OpenSlice *slice, bool make)
{
	slice->base_used = true;
	if (slice->base == NULL && (slice->nruns > 0 || make))
	{
		slice->base = se_memtable_create(query->layout, query->context,
										 Max(slice->largest, 64));
		if (slice->nruns > 0)
		{
			SeStateLog *log = se_state_log_open_latest();

			se_session_load(log, query->def->id, slice->start, slice->end, slice->base);
			se_state_log_close(log);
		}
	}
	return slice->base;
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
		slice->table = se_memtable_create(query->layout, query->context, 64);
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

		se_session_bounds(table, group, query->plan->naggs, &first, &last);
		latest = Max(latest, last);
	}
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
		committed = latest_row(query, se_session_base(query, slice, false));
		added = latest_row(query, slice->table);
		latest = Max(latest, Max(committed, added));
	}
	return latest == DT_NOBEGIN ? latest : latest + query->plan->window.gap;
}
