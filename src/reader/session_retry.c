/*
 * session_retry.c
 *	  Late records of session windows that are retried.
 *
 * NOTES
 *	  A retried record becomes part of every session of its key within the gap of it, whether
 *	  that is open, has ended, or has expired and lies in the archive; of every session
 *	  within the gap of these; and so on.  They become one, which is what a query
 *	  over all the records finds there.
 *
 *	  What is taken out of the archive goes back to the buckets, as groups of the running
 *	  cycle, and the commit does the rest: rows of sessions that have been absorbed
 *	  go, that of the whole is written, or it is open again; and if it has expired, the
 *	  same commit sends it back to the archive.  The rows of archived sessions are the only
 *	  ones that the commit does not find by itself: se_session_emit asks for them.
 *
 *	  A session of many buckets that comes back as one group must be a chain: its
 *	  group is put into the first bucket that is not ripe, and each bucket from there to
 *	  that of its last row gets a group, perhaps without rows, whose first and last
 *	  event times reach from one end of the bucket to the other.  If the session lies in front
 *	  of those buckets, it is put into the bucket of its last row, which is ripe and emptied by
 *	  this commit.  No two sessions of a key meet there: they would be within the gap.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "session_private.h"

/* The archived sessions of one key. */
typedef struct KeySessions
{
	/* key */
	SeGroup    *group;			/* in SeRevival.keys */
	List	   *sessions;		/* of SeArchived */
} KeySessions;

typedef struct Span
{
	TimestampTz first;
	TimestampTz last;
} Span;

static SeGroup *row_keys[SE_BATCH_MAX];

/* ---- the archived sessions of a batch's keys ---- */

typedef struct LoadTarget
{
	SeRevival  *revival;
	TimestampTz bucket;
	SeMemtable *chunk;
} LoadTarget;

/* A key's n-th session is in the n-th table. */
static SeMemtable *
nth_table(SeRevival *revival, int n)
{
	if (n == list_length(revival->tables))
		revival->tables = lappend(revival->tables,
								  se_memtable_create(se_memtable_layout(revival->keys),
													 CurrentMemoryContext, 64));
	return list_nth(revival->tables, n);
}

static void
add_session(LoadTarget *target, KeySessions *key, SeGroup *group)
{
	SeArchived *session = palloc0(sizeof(SeArchived));

	session->bucket = target->bucket;
	session->key = key->group;
	session->table = nth_table(target->revival, list_length(key->sessions));
	session->state = ARCHIVED_STAYS;
	(void) se_memtable_add(session->table, target->chunk, group);
	key->sessions = lappend(key->sessions, session);
	target->revival->sessions = lappend(target->revival->sessions, session);
}

static void
load_chunk(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high,
		   bool tombstones)
{
	LoadTarget *target = arg;
	SeRevival  *revival = target->revival;
	int64		position = 0;
	SeGroup    *group;

	se_memtable_reset(target->chunk);
	se_memtable_merge(target->chunk, bytes, size, 0, PG_UINT32_MAX);
	while ((group = se_memtable_next(target->chunk, &position)) != NULL)
	{
		SeGroup    *wanted = se_memtable_get(revival->keys, group);
		KeySessions *key;
		bool		found;
		ListCell   *cell;

		if (wanted == NULL)
			continue;
		key = hash_search(revival->by_key, &wanted, HASH_ENTER, &found);
		if (!found)
			key->sessions = NIL;
		if (!tombstones)
		{
			add_session(target, key, group);
			continue;
		}
		foreach(cell, key->sessions)
		{
			SeArchived *session = lfirst(cell);

			if (session->bucket == target->bucket)
				session->state = ARCHIVED_DELETED;
		}
	}
}

/* Load what the archive has of the keys of rows[0..n-1]; row_keys gets their keys. */
static void
load_archive(Reader *reader, ReaderQuery *query, const int *rows, int n)
{
	MemoryContext old = MemoryContextSwitchTo(reader->cycle);
	SeRevival  *revival = palloc0(sizeof(SeRevival));
	HASHCTL		ctl = {0};
	LoadTarget	target;
	SeStateLog *log;
	HASH_SEQ_STATUS status;
	TimestampTz *start;
	ListCell   *cell;

	query->revival = revival;
	revival->keys = se_memtable_create(query->layout, reader->cycle, n);
	se_memtable_lookup(revival->keys, se_eval_keys(query->eval), rows, n, row_keys);
	ctl.keysize = sizeof(SeGroup *);
	ctl.entrysize = sizeof(KeySessions);
	ctl.hcxt = reader->cycle;
	revival->by_key = hash_create("stream_engine sessions of keys", 64, &ctl,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	if (query->archive != NULL)
	{
		target.revival = revival;
		target.chunk = se_memtable_create(query->layout, reader->cycle, 64);
		log = se_state_log_open_latest();
		hash_seq_init(&status, query->archive);
		while ((start = hash_seq_search(&status)) != NULL)
		{
			target.bucket = *start;
			se_state_log_read_ordered(log, query->def->id, *start,
									  se_session_archive_end(query, *start), 0, PG_UINT32_MAX,
									  load_chunk, &target);
		}
		se_state_log_close(log);
		se_memtable_free(target.chunk);
	}
	foreach(cell, revival->sessions)
	{
		SeArchived *session = lfirst(cell);

		/* adding others has moved it */
		session->group = se_memtable_get(session->table, session->key);
		se_session_bounds(session->table, session->group, query->plan->naggs, &session->first,
						  &session->last);
	}
	MemoryContextSwitchTo(old);
}

/* ---- what a record brings together ---- */

/* Let the span take in a neighbour; false if that is not within the gap, or within the span. */
static bool
take_in(Span *span, int64 gap, TimestampTz first, TimestampTz last)
{
	if (first - span->last > gap || span->first - last > gap ||
		(first >= span->first && last <= span->last))
		return false;
	span->first = Min(span->first, first);
	span->last = Max(span->last, last);
	return true;
}

static bool
take_in_group(ReaderQuery *query, Span *span, SeMemtable *table, const SeGroup *key)
{
	SeGroup    *group = table ? se_memtable_get(table, key) : NULL;
	TimestampTz first;
	TimestampTz last;

	if (group == NULL)
		return false;
	se_session_bounds(table, group, query->plan->naggs, &first, &last);
	return take_in(span, query->plan->window.gap, first, last);
}

/* Widen the span by the sessions of the buckets. */
static bool
take_in_buckets(ReaderQuery *query, Span *span, const SeGroup *key)
{
	bool		grown = false;
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
	{
		if (slice->end <= span->first - query->plan->window.gap)
			continue;
		grown |= take_in_group(query, span, se_session_base_near(query, slice, key, 0), key);
		grown |= take_in_group(query, span, slice->table, key);
	}
	return grown;
}

/* Widen the span by archived sessions, which go to "taken". */
static bool
take_in_archived(ReaderQuery *query, Span *span, const KeySessions *key, TimestampTz watermark,
				 List **taken)
{
	bool		grown = false;
	ListCell   *cell;

	if (key == NULL)
		return false;
	foreach(cell, key->sessions)
	{
		SeArchived *session = lfirst(cell);

		if (session->state != ARCHIVED_STAYS ||
			session->first - span->last > query->plan->window.gap ||
			span->first - session->last > query->plan->window.gap ||
			!se_session_is_kept(query, session->last, watermark))
			continue;
		session->state = ARCHIVED_TAKEN;
		*taken = lappend(*taken, session);
		grown |= take_in(span, query->plan->window.gap, session->first, session->last);
	}
	return grown;
}

/* ---- where it goes ---- */

static TimestampTz
bucket_of(const ReaderQuery *query, TimestampTz t)
{
	TimestampTz start;
	TimestampTz end;

	if (!se_window_slice(&query->plan->window, t, NULL, &start, &end))
		elog(ERROR, "a session has no bucket");
	return start;
}

/* The first bucket that is not ripe; DT_NOBEGIN if none is. */
static TimestampTz
first_unripe(const ReaderQuery *query)
{
	TimestampTz expired = se_time_before(query->closed_through,
										 se_time_after(query->plan->window.gap,
													   query->def->allowed_lateness));

	return expired == DT_NOBEGIN ? DT_NOBEGIN : bucket_of(query, expired);
}

/* Groups of the cycle that lie within the span, and in other ripe buckets, go to "target". */
static void
gather_ripe(ReaderQuery *query, const Span *span, OpenSlice *target, const SeGroup *key,
			TimestampTz unripe)
{
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
	{
		SeGroup    *group;
		TimestampTz first;
		TimestampTz last;

		if (slice == target || slice->end > unripe || slice->table == NULL ||
			(group = se_memtable_get(slice->table, key)) == NULL)
			continue;
		se_session_bounds(slice->table, group, query->plan->naggs, &first, &last);
		if (first < span->first || last > span->last)
			continue;
		(void) se_memtable_add(target->table, slice->table, group);
		se_memtable_remove(slice->table, group);
	}
}

/* Make the span's session a chain of groups of the cycle; returns the bucket of the first. */
static OpenSlice *
make_chain(ReaderQuery *query, const Span *span, const SeGroup *key)
{
	int64		gap = query->plan->window.gap;
	int			naggs = query->plan->naggs;
	TimestampTz unripe = first_unripe(query);
	TimestampTz tail = bucket_of(query, span->last);
	TimestampTz head = Min(tail, Max(unripe, bucket_of(query, span->first)));

	for (TimestampTz start = head; start <= tail; start += gap)
	{
		OpenSlice  *slice = se_slice_get(query, start, start + gap);
		SeGroup    *group;

		if (slice->table == NULL)
			slice->table = se_memtable_create(query->layout, query->context, 64);
		group = se_memtable_add_key(slice->table, key);
		se_group_advance(slice->table, group, naggs + SESSION_FIRST,
						 start == head ? span->first : start);
		se_group_advance(slice->table, group, naggs + SESSION_LAST,
						 start == tail ? span->last : start + gap - 1);
		se_session_touch(query, slice);
	}
	{
		OpenSlice  *target = se_session_bucket(query, head);

		gather_ripe(query, span, target, key, unripe);
		return target;
	}
}

static void
retry_row(Reader *reader, ReaderQuery *query, const SeBatch *batch, const SeRecord *record,
		  int row, TimestampTz t, SeGroup *key_group, TimestampTz watermark)
{
	QueryCounters *counters = &query->counters[record->partition];
	KeySessions *key = hash_search(query->revival->by_key, &key_group, HASH_FIND, NULL);
	Span		span = {t, t};
	List	   *taken = NIL;
	OpenSlice  *target;
	ListCell   *cell;

	while (take_in_archived(query, &span, key, watermark, &taken) ||
		   take_in_buckets(query, &span, key_group))
		;
	target = make_chain(query, &span, key_group);
	foreach(cell, taken)
	{
		SeArchived *session = lfirst(cell);

		(void) se_memtable_add(target->table, session->table, session->group);
	}
	list_free(taken);
	counters->counted++;
	se_add_to_slices(query, batch, &row, &target, 1);
}

void
se_session_retry(Reader *reader, ReaderQuery *query, const SeBatch *batch,
				 const SeRecord *records, const int *rows, int n,
				 const TimestampTz *row_watermark)
{
	const SeWindowSpec *window = &query->plan->window;
	const int64 *event_time = batch->columns[query->plan->time_column - 1].v.i64;

	load_archive(reader, query, rows, n);
	for (int i = 0; i < n; i++)
	{
		int			row = rows[i];
		TimestampTz t = event_time[row];
		TimestampTz start;
		TimestampTz end;

		query->counters[records[row].partition].dirty = true;
		if (!se_window_slice(window, t, NULL, &start, &end))
			se_time_fails(reader, query, &records[row]);
		else if (!se_session_is_kept(query, t, row_watermark[row]))
		{
			SeWindowBounds bounds = {t, t + window->gap};

			se_late_record(reader, query, &records[row], t, row_watermark[row], &bounds, 1);
		}
		else if (!query->long_keys || !se_key_fails(reader, query, &records[row], row))
			retry_row(reader, query, batch, &records[row], row, t, row_keys[i],
					  row_watermark[row]);
	}
}

/* The group of the cycle that has the first row of an archived session, and its table. */
static SeGroup *
holder(ReaderQuery *query, const SeArchived *session, SeMemtable **table)
{
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
	{
		SeGroup    *group = slice->table ? se_memtable_get(slice->table, session->group) : NULL;
		TimestampTz first;
		TimestampTz last;

		if (group == NULL)
			continue;
		se_session_bounds(slice->table, group, query->plan->naggs, &first, &last);
		if (first <= session->first && session->first <= last)
		{
			hash_seq_term(&status);
			*table = slice->table;
			return group;
		}
	}
	elog(ERROR, "a session that was retried has no group");
	return NULL;
}

void
se_session_revive_revision(ReaderQuery *query, const SeArchived *session, int64 revision)
{
	SeMemtable *table = NULL;
	SeGroup    *group = holder(query, session, &table);

	se_session_set_revision(table, group, query->plan->naggs, revision);
}
