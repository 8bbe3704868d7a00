/*
 * session.c
 *	  Session windows by gap buckets: taking rows.
 *
 * NOTES
 *	  State is kept in buckets as wide as the gap.  Rows of a key in one bucket
 *	  lie within the gap of each other and belong to one session; groups of
 *	  neighbouring buckets belong to one session iff the later one's first row is at
 *	  most the gap behind the earlier one's last; others never do.  A group knows
 *	  its first and last row, so groups stay commutative partials like all state.
 *
 *	  A session has ended, and is emitted, when W >= last + gap.  It expires when
 *	  W >= last + gap + allowed lateness: until then rows are merged into it, and
 *	  two sessions into one; then it is forgotten, or archived for retry_late, which is
 *	  the same to all other rows (session_archive.c).  So who belongs to which session is
 *	  decided by V = W - lateness alone, and emission (session_emit.c) is another
 *	  matter, except without lateness, where the two coincide.
 *
 *	  When V has passed a whole bucket by the gap (it is "ripe"), each of its
 *	  groups either expires there, or is carried: merged into the
 *	  group of the next bucket that goes on.  Without lateness a session of any length
 *	  therefore occupies one group, or two.  In the bucket that V - gap cuts, groups that
 *	  have expired are forgotten at once; the log gets tombstones for them, until the
 *	  bucket is ripe and deleted as a whole.
 *
 *	  A row may lie before its session's bucket for that reason: it is added to
 *	  the bucket that holds the session (se_session_place).
 *
 *	  Which rows may be taken without looking: a row in front of V as of the watermark
 *	  that judges it (t > V) cannot touch a session that has expired (last + gap <=
 *	  V).  A row at or behind it can, so the sessions of its key around it are
 *	  looked up.  If one of them has expired but is still in the state, because the
 *	  commit that forgets it is still to come, that commit must come first; else
 *	  the row would revive it.  So the outcome does not depend on how rows are cut
 *	  into batches.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "session_private.h"

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
	OpenSlice  *slice = se_session_bucket(query, start);
	SeMemtable *base;

	if (slice == NULL)
		return span;
	base = se_session_base_near(query, slice, NULL, row);
	widen(query, &span, base, row);
	widen(query, &span, slice->table, row);
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
	ROW_AFTER_COMMIT			/* an expired session must be forgotten first */
} RowFate;

static RowFate
fate_of_row(ReaderQuery *query, TimestampTz t, TimestampTz expired, int row)
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
		if (session_last(query, start + i * gap, span, row) + gap <= expired)
			return ROW_AFTER_COMMIT;
		open = true;
	}
	return open || t + gap > expired ? ROW_TAKEN : ROW_LATE;
}

/* The rows that cannot be taken without looking. */
static void
look_ahead(ReaderQuery *query, const int64 *event_time, const int *rows, int n,
		   const TimestampTz *row_watermark)
{
	static int	behind[SE_BATCH_MAX];
	int			nbehind = 0;

	for (int i = 0; i < n; i++)
		if (event_time[rows[i]] <= se_time_before(row_watermark[rows[i]], query->lateness))
			behind[nbehind++] = rows[i];
	se_session_look_ahead(query, behind, nbehind);
}

int
se_session_process(Reader *reader, ReaderQuery *query, const SeBatch *batch,
				   const SeRecord *records, int *rows, int n, const TimestampTz *row_watermark)
{
	const int64 *event_time = batch->columns[query->plan->time_column - 1].v.i64;
	int			first = 0;		/* rows taken but not added yet begin here */

	se_eval_rows(query->eval, batch, rows, n);
	if (query->lateness > query->def->allowed_lateness)
	{
		se_session_retry(reader, query, batch, records, rows, n, row_watermark);
		return n;
	}
	look_ahead(query, event_time, rows, n, row_watermark);
	for (int i = 0; i < n; i++)
	{
		int			row = rows[i];
		TimestampTz t = event_time[row];
		TimestampTz expired = se_time_before(row_watermark[row], query->lateness);
		RowFate		fate;

		if (likely(t > expired))
			continue;
		/* what lies before it must be visible to the look-up */
		se_add_rows(reader, query, batch, records, rows + first, i - first);
		first = i;
		fate = fate_of_row(query, t, expired, row);
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
