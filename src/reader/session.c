/*
 * session.c
 *	  Session windows by gap buckets.
 *
 * NOTES
 *	  State is kept in buckets as wide as the gap.  Rows of a key in one bucket
 *	  lie within the gap of each other and belong to one session; groups of
 *	  neighbouring buckets belong to one session iff the later one's first row is at
 *	  most the gap behind the earlier one's last; others never do.  A group knows
 *	  its first and last row, so groups stay commutative partials like all state.
 *
 *	  When W has passed a whole bucket by the gap (it is "ripe"), each of its
 *	  groups either ends there and is emitted, or is carried: merged into the
 *	  group of the next bucket that goes on.  A session of any length therefore
 *	  occupies one group, or two.  In the bucket that W - gap cuts, groups that
 *	  have ended are emitted at once; the log gets tombstones for them, until the
 *	  bucket is ripe and deleted as a whole.
 *
 *	  A row may lie before its session's bucket for that reason: it is added to
 *	  the bucket that holds the session (se_session_place).
 *
 *	  Which rows may be taken without looking: a row in front of the watermark
 *	  that judges it (t > W) cannot touch a session that has ended (last + gap <=
 *	  W).  A row at or behind it can, so the sessions of its key around it are
 *	  looked up.  If one of them has ended but is still in the state, because the
 *	  commit that emits it is still to come, that commit must come first; else
 *	  the row would revive it.  So the outcome does not depend on how rows are cut
 *	  into batches.
 *
 *	  The groups of the buckets around the watermark, as committed, are kept in
 *	  memory (OpenSlice.base), loaded from the log when needed first; groups of
 *	  the running cycle are in OpenSlice.table until the commit adds them.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "emit.h"
#include "engine/engine.h"
#include "session.h"

/* A bucket is folded when it has this many runs, and this many entries a group. */
#define FOLD_RUNS 16
#define FOLD_ENTRIES_PER_GROUP 4
#define FOLD_MIN_ENTRIES 4000

void
se_session_bounds(SeMemtable *table, SeGroup *group, int naggs, TimestampTz *first,
				  TimestampTz *last)
{
	bool		isnull;

	*first = DatumGetTimestampTz(se_group_result(table, group, naggs, &isnull));
	*last = DatumGetTimestampTz(se_group_result(table, group, naggs + 1, &isnull));
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

/* The committed groups of a bucket; NULL if it has none and "make" is false. */
static SeMemtable *
base_of(ReaderQuery *query, OpenSlice *slice, bool make)
{
	if (slice->base == NULL && (slice->nruns > 0 || make))
	{
		slice->base = se_memtable_create(query->layout, query->context,
										 Max(slice->largest, 64));
		if (slice->nruns > 0)
		{
			SeStateLog *log = se_state_log_open(false);

			se_session_load(log, query->def->id, slice->start, slice->end, slice->base);
			se_state_log_close(log);
		}
	}
	return slice->base;
}

static OpenSlice *
find_bucket(ReaderQuery *query, TimestampTz start)
{
	TimestampTz key[2] = {start, start + query->plan->window.gap};

	return hash_search(query->slices, key, HASH_FIND, NULL);
}

/* ---- looking up the sessions around a row ---- */

typedef struct Span
{
	bool		exists;
	TimestampTz first;
	TimestampTz last;
} Span;

static void
widen(ReaderQuery *query, Span *span, SeMemtable *table, int row)
{
	SeGroup    *group;
	TimestampTz first;
	TimestampTz last;

	if (table == NULL)
		return;
	group = se_memtable_get_row(table, se_eval_keys(query->eval), row);
	if (group == NULL)
		return;
	se_session_bounds(table, group, query->plan->naggs, &first, &last);
	span->first = span->exists ? Min(span->first, first) : first;
	span->last = span->exists ? Max(span->last, last) : last;
	span->exists = true;
}

/* What the bucket that starts at "start" holds of the row's key. */
static Span
span_of(ReaderQuery *query, TimestampTz start, int row)
{
	Span		span = {false, 0, 0};
	OpenSlice  *slice = find_bucket(query, start);

	if (slice != NULL)
	{
		widen(query, &span, base_of(query, slice, false), row);
		widen(query, &span, slice->table, row);
	}
	return span;
}

/* The last row of the session that "span", of the bucket at "start", belongs to. */
static TimestampTz
session_last(ReaderQuery *query, TimestampTz start, Span span, int row)
{
	int64		gap = query->plan->window.gap;

	for (;;)
	{
		Span		next;

		start += gap;
		next = span_of(query, start, row);
		if (!next.exists || next.first - span.last > gap)
			return span.last;
		span = next;
	}
}

typedef enum RowFate
{
	ROW_TAKEN,
	ROW_LATE,
	ROW_AFTER_COMMIT			/* an ended session must be emitted first */
} RowFate;

/*
 * Where a row of the bucket [*start, *end) goes.  Ripe buckets are empty: what
 * went on was carried into the first bucket that is not ripe, and a row that is
 * taken so late belongs to a session there.
 */
void
se_session_place(const ReaderQuery *query, TimestampTz *start, TimestampTz *end)
{
	int64		gap = query->plan->window.gap;

	if (query->closed_through == DT_NOBEGIN || *end > query->closed_through - gap)
		return;
	(void) se_window_slice(&query->plan->window, query->closed_through - gap, NULL, start, end);
}

static RowFate
fate_of_row(ReaderQuery *query, TimestampTz t, TimestampTz watermark, int row)
{
	int64		gap = query->plan->window.gap;
	TimestampTz start;
	TimestampTz end;
	bool		open = false;

	if (!se_window_slice(&query->plan->window, t, NULL, &start, &end))
		return ROW_TAKEN;		/* is counted as failed */
	se_session_place(query, &start, &end);
	for (int i = -1; i <= 1; i++)
	{
		Span		span = span_of(query, start + i * gap, row);

		if (!span.exists || t - span.last > gap || span.first - t > gap)
			continue;
		if (session_last(query, start + i * gap, span, row) + gap <= watermark)
			return ROW_AFTER_COMMIT;
		open = true;
	}
	return open || t + gap > watermark ? ROW_TAKEN : ROW_LATE;
}

int
se_session_process(Reader *reader, ReaderQuery *query, const SeBatch *batch,
				   const SeRecord *records, int *rows, int n, const TimestampTz *row_watermark)
{
	const int64 *event_time = batch->columns[query->plan->time_column - 1].v.i64;
	int			first = 0;		/* rows taken but not added yet begin here */

	se_eval_rows(query->eval, batch, rows, n);
	for (int i = 0; i < n; i++)
	{
		int			row = rows[i];
		TimestampTz t = event_time[row];
		RowFate		fate;

		if (likely(t > row_watermark[row]))
			continue;
		/* what lies before it must be visible to the look-up */
		se_add_rows(reader, query, batch, records, rows + first, i - first);
		first = i;
		fate = fate_of_row(query, t, row_watermark[row], row);
		if (fate == ROW_AFTER_COMMIT)
			return i;
		if (fate == ROW_LATE)
		{
			SeWindowBounds window = {t, t + query->plan->window.gap};

			se_late_record(reader, query, &records[row], t, row_watermark[row], &window, 1);
			first = i + 1;
		}
	}
	se_add_rows(reader, query, batch, records, rows + first, n - first);
	return n;
}

/* ---- commit ---- */

typedef struct FlushTarget
{
	SeStateLog *log;
	int32		query;
	const OpenSlice *slice;
	int64		seq;
} FlushTarget;

static void
append_run(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high, int ngroups)
{
	FlushTarget *target = arg;

	se_state_log_append(target->log, target->query, target->slice->start, target->slice->end,
						target->seq, hash_low, hash_high, ngroups, bytes, size);
}

static void
append_tombstones(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high,
				  int ngroups)
{
	FlushTarget *target = arg;

	se_state_log_append_tombstones(target->log, target->query, target->slice->start,
								   target->slice->end, target->seq + 1, hash_low, hash_high,
								   ngroups, bytes, size);
}

static void
merge_run(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high, int ngroups)
{
	se_memtable_merge(arg, bytes, size, 0, PG_UINT32_MAX);
}

/* The base with the groups of the cycle in it; once in a commit. */
static SeMemtable *
merged_base(ReaderQuery *query, OpenSlice *slice)
{
	SeMemtable *base = base_of(query, slice, true);

	if (slice->table != NULL && !slice->table_merged)
	{
		se_memtable_flush(slice->table, SE_CHUNK_SIZE, merge_run, base);
		slice->table_merged = true;
	}
	return base;
}

typedef struct Closing
{
	Reader	   *reader;
	ReaderQuery *query;
	SeStateLog *log;
	SeEmission *emission;
	TimestampTz watermark;
	FlushTarget flush;
	TimestampTz next_close;		/* of what stays */
} Closing;

/* Hand a group on to the bucket behind, where its session goes on. */
static void
carry(Closing *closing, OpenSlice *slice, SeGroup *group, OpenSlice *next)
{
	(void) se_memtable_add(next->base, slice->base, group);
	if (next->table == NULL)
		next->table = se_memtable_create(closing->query->layout, closing->query->context, 64);
	(void) se_memtable_add(next->table, slice->base, group);
	next->table_merged = true;
}

static void
emit_sessions(Closing *closing, SeMemtable *ended)
{
	ReaderQuery *query = closing->query;
	int64		ngroups;
	SeGroup   **sorted = se_memtable_sorted(ended, &ngroups);

	for (int64 i = 0; i < ngroups; i++)
	{
		TimestampTz first;
		TimestampTz last;

		se_session_bounds(ended, sorted[i], query->plan->naggs, &first, &last);
		if (first < query->complete_from && !query->def->emit_partial)
			query->windows_incomplete++;
		else
		{
			se_emission_fresh(closing->emission, ended, sorted[i], first,
							  last + query->plan->window.gap);
			query->windows_closed++;
		}
	}
	pfree(sorted);
}

/* Emit or carry what ends in a bucket whose start W - gap has reached. */
static void
close_bucket(Closing *closing, OpenSlice *slice)
{
	ReaderQuery *query = closing->query;
	int64		gap = query->plan->window.gap;
	int			naggs = query->plan->naggs;
	bool		ripe = slice->end <= closing->watermark - gap;
	OpenSlice  *next = find_bucket(query, slice->end);
	SeMemtable *base = merged_base(query, slice);
	SeMemtable *ended = se_memtable_create(query->layout, closing->reader->cycle, 64);
	SeMemtable *dead = NULL;	/* keys that the log must forget */
	int64		position = 0;
	SeGroup    *group;

	if (next != NULL)
		(void) merged_base(query, next);
	while ((group = se_memtable_next(base, &position)) != NULL)
	{
		SeGroup    *ahead = next ? se_memtable_get(next->base, group) : NULL;
		TimestampTz first;
		TimestampTz last;

		se_session_bounds(base, group, naggs, &first, &last);
		if (ahead && se_session_continues(next->base, ahead, naggs, last, gap))
		{
			if (ripe)
				carry(closing, slice, group, next);
			continue;
		}
		if (last + gap > closing->watermark)
		{
			closing->next_close = Min(closing->next_close, last + gap);
			continue;
		}
		(void) se_memtable_add(ended, base, group);
		if (!ripe)
		{
			SeGroup    *fresh = slice->table ? se_memtable_get(slice->table, group) : NULL;

			if (slice->nruns > 0)
			{
				if (dead == NULL)
					dead = se_memtable_create(query->layout, closing->reader->cycle, 64);
				(void) se_memtable_add_key(dead, group);
			}
			if (fresh != NULL)
				se_memtable_remove(slice->table, fresh);
			se_memtable_remove(base, group);
		}
	}
	emit_sessions(closing, ended);
	se_memtable_free(ended);
	if (dead != NULL)
	{
		closing->flush.slice = slice;
		se_memtable_flush(dead, SE_CHUNK_SIZE, append_tombstones, &closing->flush);
		se_memtable_free(dead);
		slice->nruns++;
	}
	if (ripe)
	{
		TimestampTz key[2] = {slice->start, slice->end};

		if (slice->nruns > 0)
			se_state_log_delete(closing->log, query->def->id, slice->start, slice->end);
		if (slice->table)
			se_memtable_free(slice->table);
		se_memtable_free(slice->base);
		hash_search(query->slices, key, HASH_REMOVE, NULL);
	}
}

/*
 * Log a bucket's groups anew, as one run, when its runs hold many times what they stand
 * for: a bucket is as wide as the gap, and commits are not.
 */
static void
fold_bucket(Closing *closing, OpenSlice *slice)
{
	SeMemtable *base = merged_base(closing->query, slice);

	/* the delete does not see what this transaction appends */
	se_state_log_delete(closing->log, closing->query->def->id, slice->start, slice->end);
	se_memtable_flush(base, SE_CHUNK_SIZE, append_run, &closing->flush);
	slice->nruns = 1;
	slice->entries = slice->largest = se_memtable_ngroups(base);
}

static void
flush_bucket(Closing *closing, OpenSlice *slice)
{
	int64		ngroups;

	if (slice->table == NULL)
		return;
	ngroups = se_memtable_ngroups(slice->table);
	if (ngroups > 0)
	{
		closing->flush.slice = slice;
		if (slice->nruns >= FOLD_RUNS &&
			slice->entries > Max(Max(slice->largest, ngroups) * FOLD_ENTRIES_PER_GROUP,
								 FOLD_MIN_ENTRIES))
			fold_bucket(closing, slice);
		else
		{
			if (slice->base != NULL)
				(void) merged_base(closing->query, slice);
			se_memtable_flush(slice->table, SE_CHUNK_SIZE, append_run, &closing->flush);
			slice->nruns++;
			slice->entries += ngroups;
			slice->largest = Max(slice->largest, ngroups);
		}
	}
	se_memtable_free(slice->table);
	slice->table = NULL;
	slice->table_merged = false;
}

static int
compare_slices(const void *a, const void *b)
{
	const OpenSlice *x = *(OpenSlice *const *) a;
	const OpenSlice *y = *(OpenSlice *const *) b;

	return x->start < y->start ? -1 : x->start > y->start ? 1 : 0;
}

void
se_session_commit(Reader *reader, ReaderQuery *query, TimestampTz watermark, TimestampTz now)
{
	MemoryContext old = MemoryContextSwitchTo(reader->cycle);
	Closing		closing = {0};
	SeUserScope scope;
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;
	OpenSlice **slices = palloc(sizeof(OpenSlice *) * Max(hash_get_num_entries(query->slices), 1));
	int			n = 0;
	/* without a watermark nothing has ended, and there is no arithmetic on it */
	bool		close = watermark != DT_NOBEGIN && query->next_close <= watermark;

	closing.reader = reader;
	closing.query = query;
	closing.watermark = watermark;
	closing.next_close = DT_NOEND;
	closing.log = se_state_log_open(true);
	closing.flush.log = closing.log;
	closing.flush.query = query->def->id;
	/* runs have even numbers; tombstones follow the runs of their commit */
	closing.flush.seq = (reader->def->seq + 1) * 2;

	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
		slices[n++] = slice;
	qsort(slices, n, sizeof(OpenSlice *), compare_slices);

	se_blame.query = query;
	if (close)
	{
		se_user_begin(&scope, query->def->owner, query->def->settings);
		SE_FAILPOINT("emit.begin");
		closing.emission = se_emission_begin(query, now, reader->cycle);
		/* ascending, for a ripe bucket carries into the one behind it */
		for (int i = 0; i < n && slices[i]->start <= watermark - query->plan->window.gap; i++)
		{
			close_bucket(&closing, slices[i]);
			if (!find_bucket(query, slices[i]->start))
				slices[i] = NULL;
		}
		se_emission_end(closing.emission);
		SE_FAILPOINT("emit.end");
		se_user_end(&scope);
		query->session_next_close = closing.next_close;
	}
	for (int i = 0; i < n; i++)
		if (slices[i] != NULL)
			flush_bucket(&closing, slices[i]);
	se_blame.query = NULL;
	query->last_slice = NULL;
	se_state_log_close(closing.log);
	MemoryContextSwitchTo(old);
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
		if (slice->end <= latest)
			continue;
		latest = Max(latest, latest_row(query, base_of(query, slice, false)));
		latest = Max(latest, latest_row(query, slice->table));
	}
	return latest == DT_NOBEGIN ? latest : latest + query->plan->window.gap;
}
