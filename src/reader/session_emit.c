/*
 * session_emit.c
 *	  Session windows whose rows may be written more than once: corrections
 *	  within the allowed lateness, changes of open sessions.
 *
 * NOTES
 *	  A session is a chain of groups in neighbouring buckets.  A commit that moves W
 *	  from C to W has to write
 *
 *	  - sessions that end in (C, W]: their last groups lie in the buckets that
 *		C - gap and W - gap bound;
 *	  - sessions that had ended at C and have been given rows: such a row lies at
 *		or before C, so that the groups of the cycle that begin there are looked at,
 *		and no others;
 *	  - where changes are emitted and it is time, open sessions that have changed
 *		since the last time: in this cycle, or by runs of the log with a later
 *		seq, which are known after a restart too.
 *
 *	  A session's bounds, and so the identity of its row, move when it grows.  The row
 *	  of a session that had ended is known from the groups as committed: it has
 *	  the bounds of their chain.  Before the cycle's groups are added to them, the rows
 *	  of all chains that touched groups are near to are deleted; the groups remember
 *	  the revision that follows theirs, so that it is there when a session which
 *	  has been opened again ends, however many commits later.
 *
 *	  The row that shows an open session is remembered by its last group as of then.
 *	  Of the rows that a chain's groups remember, those that lie within another one have
 *	  been replaced by it.  The others are deleted when the chain is written; or,
 *	  when two of their groups become one, at that time.
 *
 *	  A row that is written where none has been is inserted with others in bulk.
 *
 *	  What has been emitted stays complete: the groups that take back an emitted row remember
 *	  that, too, and the session which they are part of is emitted wherever it begins.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "session_private.h"

/* A row of the result table. */
typedef SeWindowBounds ShownRow;

/* Groups that are one session, from the last one back. */
typedef struct Chain
{
	TimestampTz first;
	TimestampTz last;
	int			head;			/* index of the first group's bucket */
	int			tail;
	bool		was_emitted;	/* one that had been is part of it */
	int			nshown;
	int			capacity;
	ShownRow   *shown;
} Chain;

/* Sessions that are to be written, whose last groups lie in one bucket. */
typedef struct Written
{
	SeMemtable *fresh;			/* the table has no row with these bounds */
	SeMemtable *again;			/* it has */
} Written;

/* ---- when ---- */

bool
se_session_changes_due(ReaderQuery *query, TimestampTz now)
{
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	if (!se_query_emits_changes(query) ||
		(query->changes_at != DT_NOBEGIN && now < query->changes_at + query->def->emit_interval))
		return false;
	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
		if (slice->changed || slice->table != NULL)
		{
			hash_seq_term(&status);
			return true;
		}
	return false;
}

/* Whether the cycle's rows may belong to sessions that had ended. */
static bool
corrects(const ReaderQuery *query)
{
	return query->def->allowed_lateness > 0 || query->revival != NULL;
}

/* Whether rows have come that may belong to sessions which had ended before. */
static bool
has_touched(ReaderQuery *query)
{
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	if (!corrects(query))
		return false;
	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
		if (slice->start <= query->closed_through && slice->table != NULL)
		{
			hash_seq_term(&status);
			return true;
		}
	return false;
}

bool
se_session_emits(ReaderQuery *query, TimestampTz watermark, TimestampTz now)
{
	if (watermark != DT_NOBEGIN && query->next_close <= watermark)
		return true;
	if (!se_session_revises(query->def))
		return false;
	/* to carry a group may take a row back that shows it */
	return query->hides || has_touched(query) || se_session_changes_due(query, now) ||
		(se_query_emits_changes(query) &&
		 se_session_may_expire(query, se_time_before(watermark, query->def->allowed_lateness)));
}

/* ---- chains ---- */

/* The bucket next to another one, on either side; -1 if there is none. */
static int
neighbour(const SessionCommit *commit, int bucket, int step)
{
	int			other = bucket + step;

	if (other < 0 || other >= commit->nslices ||
		commit->slices[other]->start != commit->slices[bucket]->start + step * commit->gap)
		return -1;
	return other;
}

/* The groups of a bucket: as committed, or with those of the cycle.  NULL if there are none. */
static SeMemtable *
groups_of(SessionCommit *commit, int bucket)
{
	return commit->merged ? se_session_merged(commit->query, commit->slices[bucket]) :
		se_session_base(commit->query, commit->slices[bucket], false);
}

/*
 * The group that goes on the chain of "group" in the next bucket, or (step -1) that it goes
 * on.  *bucket moves along.  NULL at the end.
 */
static SeGroup *
follow(SessionCommit *commit, int *bucket, SeGroup *group, int step)
{
	int			other = neighbour(commit, *bucket, step);
	SeMemtable *table = other < 0 ? NULL : groups_of(commit, other);
	SeGroup    *next = table ? se_memtable_get(table, group) : NULL;
	TimestampTz first[2];
	TimestampTz last[2];

	if (next == NULL)
		return NULL;
	se_session_bounds(groups_of(commit, *bucket), group, commit->naggs, &first[0], &last[0]);
	se_session_bounds(table, next, commit->naggs, &first[1], &last[1]);
	if ((step > 0 ? first[1] - last[0] : first[0] - last[1]) > commit->gap)
		return NULL;
	*bucket = other;
	return next;
}

static SeGroup *
last_of_chain(SessionCommit *commit, int *bucket, SeGroup *group)
{
	SeGroup    *next;

	while ((next = follow(commit, bucket, group, 1)) != NULL)
		group = next;
	return group;
}

/* Remember a row that may be shown, unless a later one has replaced it. */
static void
add_shown(Chain *chain, ShownRow row)
{
	int			kept = 0;

	for (int i = 0; i < chain->nshown; i++)
		if (chain->shown[i].start <= row.start && chain->shown[i].end >= row.end)
			return;
	for (int i = 0; i < chain->nshown; i++)
		if (chain->shown[i].start < row.start || chain->shown[i].end > row.end)
			chain->shown[kept++] = chain->shown[i];
	chain->nshown = kept;
	if (chain->nshown == chain->capacity)
	{
		chain->capacity = Max(chain->capacity * 2, 4);
		chain->shown = chain->shown ?
			repalloc(chain->shown, sizeof(ShownRow) * chain->capacity) :
			palloc(sizeof(ShownRow) * chain->capacity);
	}
	chain->shown[chain->nshown++] = row;
}

static bool
shown_row(SeMemtable *table, SeGroup *group, int naggs, ShownRow *row)
{
	return se_session_mark(table, group, naggs, SESSION_SHOWN_START, &row->start) &&
		se_session_mark(table, group, naggs, SESSION_SHOWN_END, &row->end);
}

/* The chain whose last group is "group" of "bucket"; chain->shown is reused. */
static void
measure(SessionCommit *commit, int bucket, SeGroup *group, Chain *chain)
{
	bool		shows = se_query_emits_changes(commit->query);

	chain->tail = bucket;
	chain->was_emitted = false;
	chain->nshown = 0;
	se_session_bounds(groups_of(commit, bucket), group, commit->naggs, &chain->first,
					  &chain->last);
	do
	{
		SeMemtable *table = groups_of(commit, bucket);
		TimestampTz first;
		TimestampTz last;
		ShownRow	row;

		se_session_bounds(table, group, commit->naggs, &first, &last);
		chain->first = Min(chain->first, first);
		chain->head = bucket;
		chain->was_emitted |= se_session_was_emitted(commit->query->def, table, group,
													 commit->naggs);
		if (shows && shown_row(table, group, commit->naggs, &row))
			add_shown(chain, row);
		group = follow(commit, &bucket, group, -1);
	} while (group != NULL);
}

static bool
is_emitted(const SessionCommit *commit, const Chain *chain)
{
	return chain->was_emitted || se_query_completes(commit->query->def, chain->first,
													chain->last + commit->gap);
}

/* Mark a key of a bucket; false if it is marked already. */
static bool
mark_key(SessionCommit *commit, OpenSlice *slice, const SeGroup *group)
{
	int64		before;

	if (slice->marked == NULL)
		slice->marked = se_session_table(commit->query, commit->reader->cycle, 64);
	before = se_memtable_ngroups(slice->marked);
	(void) se_memtable_add_key(slice->marked, group);
	return se_memtable_ngroups(slice->marked) > before;
}

static void
unmark(SessionCommit *commit)
{
	for (int i = 0; i < commit->nslices; i++)
	{
		if (commit->slices[i]->marked != NULL)
			se_memtable_free(commit->slices[i]->marked);
		commit->slices[i]->marked = NULL;
	}
}

/* Delete a row that may be there; *revision becomes at least what follows its own. */
static void
take_back(SessionCommit *commit, SeMemtable *table, SeGroup *group, const ShownRow *row,
		  int64 *revision)
{
	int64		found = se_emission_delete(commit->emission, table, group, row->start, row->end);

	*revision = Max(*revision, found + 1);
}

/* ---- rows of sessions that had ended ---- */

/*
 * Delete the row of the chain that "group" of "bucket" is in, if it had ended.  Returns 0, or if
 * the chain has been emitted the revision that follows and SESSION_EMITTED.
 */
static int64
withdraw(SessionCommit *commit, int bucket, SeGroup *group, Chain *chain)
{
	ReaderQuery *query = commit->query;
	int64		revision = 0;
	ShownRow	row;

	group = last_of_chain(commit, &bucket, group);
	measure(commit, bucket, group, chain);
	if (chain->last + commit->gap > query->closed_through ||
		!mark_key(commit, commit->slices[bucket], group))
		return 0;
	if (!is_emitted(commit, chain))
	{
		query->windows_incomplete--;
		return 0;
	}
	query->windows_closed--;
	row.start = chain->first;
	row.end = chain->last + commit->gap;
	take_back(commit, groups_of(commit, bucket), group, &row, &revision);
	return revision | SESSION_EMITTED;
}

/* Delete the rows of sessions that had ended and that a group of the cycle is near to. */
static void
withdraw_around(SessionCommit *commit, int bucket, SeGroup *group, Chain *chain)
{
	SeMemtable *table = commit->slices[bucket]->table;
	TimestampTz first;
	TimestampTz last;
	int64		revision = 0;

	se_session_bounds(table, group, commit->naggs, &first, &last);
	for (int step = -1; step <= 1; step++)
	{
		int			other = neighbour(commit, bucket, step);
		SeMemtable *base = other < 0 ? NULL : groups_of(commit, other);
		SeGroup    *near = base ? se_memtable_get(base, group) : NULL;
		TimestampTz near_first;
		TimestampTz near_last;

		if (near == NULL)
			continue;
		se_session_bounds(base, near, commit->naggs, &near_first, &near_last);
		if (near_first - last <= commit->gap && first - near_last <= commit->gap)
		{
			int64		follows = withdraw(commit, other, near, chain);

			revision = Max(revision, follows);
		}
	}
	if (revision > 0)
		se_session_set_revision(table, group, commit->naggs, revision);
}

/* The next group of the cycle in a bucket that may belong to a session that had ended. */
static SeGroup *
next_touched(SessionCommit *commit, OpenSlice *slice, int64 *position)
{
	SeGroup    *group;

	if (slice->table == NULL)
		return NULL;
	while ((group = se_memtable_next(slice->table, position)) != NULL)
	{
		TimestampTz first;
		TimestampTz last;

		se_session_bounds(slice->table, group, commit->naggs, &first, &last);
		if (first <= commit->query->closed_through)
			return group;
	}
	return NULL;
}

static void
withdraw_touched(SessionCommit *commit)
{
	Chain		chain = {0};

	for (int i = 0; i < commit->nslices; i++)
	{
		int64		position = 0;
		SeGroup    *group;

		if (commit->slices[i]->start > commit->query->closed_through)
			break;
		while ((group = next_touched(commit, commit->slices[i], &position)) != NULL)
			withdraw_around(commit, i, group, &chain);
	}
	unmark(commit);
}

static bool
is_in_part(const ReaderQuery *query, const SeGroup *group)
{
	return !query->session_in_parts || (se_group_hash(group) >= query->session_low &&
										se_group_hash(group) <= query->session_high);
}

/* Delete the rows of sessions that retried records have taken out of the archive. */
static void
withdraw_archived(SessionCommit *commit)
{
	ReaderQuery *query = commit->query;
	ListCell   *cell;

	foreach(cell, query->revival->sessions)
	{
		SeArchived *session = lfirst(cell);
		ShownRow	row = {session->first, session->last + commit->gap};
		int64		revision = 0;

		if (session->state != ARCHIVED_TAKEN || !is_in_part(query, session->group))
			continue;
		if (!se_query_completes(query->def, row.start, row.end) &&
			!se_session_was_emitted(query->def, session->table, session->group, commit->naggs))
		{
			query->windows_incomplete--;
			continue;
		}
		query->windows_closed--;
		take_back(commit, session->table, session->group, &row, &revision);
		se_session_revive_revision(query, session, revision | SESSION_EMITTED);
	}
}

/* Mark, by its last group, each session that had ended and is one still. */
static void
mark_corrected(SessionCommit *commit)
{
	for (int i = 0; i < commit->nslices; i++)
	{
		OpenSlice  *slice = commit->slices[i];
		int64		position = 0;
		SeGroup    *touched;

		if (slice->start > commit->query->closed_through)
			break;
		if (slice->table != NULL)
			(void) groups_of(commit, i);	/* moves the cycle's groups */
		while ((touched = next_touched(commit, slice, &position)) != NULL)
		{
			int			bucket = i;
			SeGroup    *group = se_memtable_get(groups_of(commit, i), touched);
			TimestampTz first;
			TimestampTz last;

			group = last_of_chain(commit, &bucket, group);
			se_session_bounds(groups_of(commit, bucket), group, commit->naggs, &first, &last);
			if (last + commit->gap <= commit->query->closed_through)
				(void) mark_key(commit, commit->slices[bucket], group);
		}
	}
}

/* ---- writing ---- */

/*
 * Put the chain's session among those that are written; rows that show it with other
 * bounds are deleted.  With "hide" that is all.
 */
static void
gather(SessionCommit *commit, Written *written, int bucket, SeGroup *group, const Chain *chain,
	   bool hide)
{
	SeMemtable *base = groups_of(commit, bucket);
	SeMemtable **table = &written->fresh;
	SeGroup    *total = NULL;
	int64		revision = 0;

	for (int i = 0; i < chain->nshown; i++)
	{
		const ShownRow *row = &chain->shown[i];

		if (!hide && row->start == chain->first && row->end == chain->last + commit->gap)
			table = &written->again;
		else
			take_back(commit, base, group, row, &revision);
	}
	if (hide)
		return;
	if (*table == NULL)
		*table = se_session_table(commit->query, commit->reader->cycle, 64);
	for (; group != NULL; group = follow(commit, &bucket, group, -1))
		total = se_memtable_add(*table, groups_of(commit, bucket), group);
	if (revision > 0)
		se_session_set_revision(*table, total, commit->naggs, revision);
}

static void
write_table(SessionCommit *commit, SeMemtable *table, bool again, bool is_final)
{
	int64		ngroups;
	SeGroup   **sorted;

	if (table == NULL)
		return;
	sorted = se_memtable_sorted(table, &ngroups);
	for (int64 i = 0; i < ngroups; i++)
	{
		TimestampTz first;
		TimestampTz last;
		int64		revision;

		se_session_bounds(table, sorted[i], commit->naggs, &first, &last);
		(void) se_session_mark(table, sorted[i], commit->naggs, SESSION_REVISION, &revision);
		revision &= ~SESSION_EMITTED;
		if (again)
			se_emission_rewrite(commit->emission, table, sorted[i], first, last + commit->gap,
								is_final, (int32) revision);
		else
			se_emission_insert(commit->emission, table, sorted[i], first, last + commit->gap,
							   is_final, (int32) revision);
	}
	pfree(sorted);
	se_memtable_free(table);
}

static void
write_gathered(SessionCommit *commit, Written *written, bool is_final)
{
	write_table(commit, written->fresh, false, is_final);
	write_table(commit, written->again, true, is_final);
	memset(written, 0, sizeof(Written));
}

/* ---- sessions that end ---- */

static void
close_chain(SessionCommit *commit, Written *written, int bucket, SeGroup *group, Chain *chain)
{
	bool		emitted;

	measure(commit, bucket, group, chain);
	emitted = is_emitted(commit, chain);
	gather(commit, written, bucket, group, chain, !emitted);
	if (emitted)
		commit->query->windows_closed++;
	else
		commit->query->windows_incomplete++;
}

/* Emit the sessions whose last groups lie in a bucket, and that end (if some may) or are marked. */
static void
close_bucket(SessionCommit *commit, int bucket, bool ends, Chain *chain)
{
	OpenSlice  *slice = commit->slices[bucket];
	TimestampTz closed_through = commit->query->closed_through;
	Written		written = {0};
	int64		position = 0;
	SeGroup    *group;

	/* the last rows of an old bucket had ended before the watermark moved */
	if (!ends || (closed_through != DT_NOBEGIN && slice->end + commit->gap <= closed_through))
		group = NULL;
	else
		group = se_memtable_next(groups_of(commit, bucket), &position);
	for (; group != NULL; group = se_memtable_next(groups_of(commit, bucket), &position))
	{
		int			other = bucket;
		TimestampTz first;
		TimestampTz last;

		se_session_bounds(slice->base, group, commit->naggs, &first, &last);
		if (last + commit->gap <= closed_through || follow(commit, &other, group, 1) != NULL)
			continue;
		if (last + commit->gap > commit->watermark)
			commit->next_close = Min(commit->next_close, last + commit->gap);
		else
			close_chain(commit, &written, bucket, group, chain);
	}
	position = 0;
	while (slice->marked != NULL && (group = se_memtable_next(slice->marked, &position)) != NULL)
		close_chain(commit, &written, bucket, se_memtable_get(groups_of(commit, bucket), group),
					chain);
	write_gathered(commit, &written, true);
}

/* ---- changes of open sessions ---- */

typedef struct ChangedKeys
{
	SeMemtable *table;
	uint32		low;
	uint32		high;
} ChangedKeys;

static void
merge_chunk(void *arg, const char *bytes, Size size)
{
	ChangedKeys *changed = arg;

	se_memtable_merge(changed->table, bytes, size, changed->low, changed->high);
}

/* Mark, by its last group, each open session that has changed since the last time. */
static void
mark_changed(SessionCommit *commit)
{
	ReaderQuery *query = commit->query;
	ChangedKeys changed = {NULL, 0, PG_UINT32_MAX};

	if (query->session_in_parts)
	{
		changed.low = query->session_low;
		changed.high = query->session_high;
	}
	for (int i = 0; i < commit->nslices; i++)
	{
		OpenSlice  *slice = commit->slices[i];
		int64		position = 0;
		SeGroup    *key;

		if (!slice->changed && slice->table == NULL)
			continue;
		CHECK_FOR_INTERRUPTS();
		changed.table = se_session_table(query, commit->reader->cycle, 64);
		/* keys of tombstones are among them, and have no group any more */
		if (slice->changed && slice->nruns > 0)
			se_state_log_read_since(commit->log, query->def->id, slice->start, slice->end,
									commit->shown_seq * 2 + 1, changed.low, changed.high,
									merge_chunk, &changed);
		if (slice->table != NULL)
		{
			(void) groups_of(commit, i);
			while ((key = se_memtable_next(slice->table, &position)) != NULL)
				(void) se_memtable_add_key(changed.table, key);
		}
		position = 0;
		while ((key = se_memtable_next(changed.table, &position)) != NULL)
		{
			int			bucket = i;
			SeGroup    *group = se_memtable_get(groups_of(commit, i), key);
			TimestampTz first;
			TimestampTz last;

			if (group == NULL)
				continue;
			group = last_of_chain(commit, &bucket, group);
			se_session_bounds(groups_of(commit, bucket), group, commit->naggs, &first, &last);
			if (last + commit->gap > commit->watermark)
				(void) mark_key(commit, commit->slices[bucket], group);
		}
		se_memtable_free(changed.table);
		slice->changed = false;
	}
}

/* Let the last group of a chain remember the row that shows it. */
static void
remember_shown(SessionCommit *commit, int bucket, SeGroup *group, const Chain *chain)
{
	OpenSlice  *slice = commit->slices[bucket];
	SeMemtable *logged = se_session_logged(commit->query, slice);
	SeGroup    *entry = se_memtable_add_key(logged, group);
	TimestampTz end = chain->last + commit->gap;

	se_session_set_mark(slice->base, group, commit->naggs, SESSION_SHOWN_START, chain->first);
	se_session_set_mark(slice->base, group, commit->naggs, SESSION_SHOWN_END, end);
	se_session_set_mark(logged, entry, commit->naggs, SESSION_SHOWN_START, chain->first);
	se_session_set_mark(logged, entry, commit->naggs, SESSION_SHOWN_END, end);
}

static void
show_bucket(SessionCommit *commit, int bucket, Chain *chain)
{
	SeMemtable *marked = commit->slices[bucket]->marked;
	Written		written = {0};
	int64		position = 0;
	SeGroup    *key;

	while (marked != NULL && (key = se_memtable_next(marked, &position)) != NULL)
	{
		SeGroup    *group = se_memtable_get(groups_of(commit, bucket), key);
		bool		emitted;

		measure(commit, bucket, group, chain);
		emitted = is_emitted(commit, chain);
		gather(commit, &written, bucket, group, chain, !emitted);
		if (emitted && (chain->nshown != 1 || chain->shown[0].start != chain->first ||
						chain->shown[0].end != chain->last + commit->gap))
			remember_shown(commit, bucket, group, chain);
	}
	write_gathered(commit, &written, false);
}

void
se_session_shown_apart(SessionCommit *commit, SeMemtable *from, SeGroup *group, SeMemtable *to,
					   SeGroup *ahead)
{
	Chain		chain = {0};
	ShownRow	row;
	int64		revision = 0;

	if (shown_row(from, group, commit->naggs, &row))
		add_shown(&chain, row);
	if (shown_row(to, ahead, commit->naggs, &row))
		add_shown(&chain, row);
	for (int i = 0; chain.nshown > 1 && i < chain.nshown; i++)
		take_back(commit, from, group, &chain.shown[i], &revision);
	/* the caller adds the group, and logs it, with this in it */
	if (revision > 0)
		se_session_set_revision(from, group, commit->naggs, revision);
	if (chain.shown != NULL)
		pfree(chain.shown);
}

void
se_session_emit(SessionCommit *commit)
{
	ReaderQuery *query = commit->query;
	bool		ends = commit->watermark != DT_NOBEGIN && query->next_close <= commit->watermark;
	Chain		chain = {0};

	commit->merged = false;
	if (corrects(query))
		withdraw_touched(commit);
	if (query->revival != NULL)
		withdraw_archived(commit);
	commit->merged = true;
	if (corrects(query))
		mark_corrected(commit);
	for (int i = 0; i < commit->nslices; i++)
		if (commit->watermark != DT_NOBEGIN &&
			commit->slices[i]->start <= commit->watermark - commit->gap)
			close_bucket(commit, i, ends, &chain);
	unmark(commit);
	if (ends)
		query->session_next_close = commit->next_close;
	if (commit->shows)
	{
		mark_changed(commit);
		for (int i = 0; i < commit->nslices; i++)
			show_bucket(commit, i, &chain);
		unmark(commit);
		query->changes_seq = commit->reader->def->seq + 1;
		query->changes_at = commit->now;
	}
	if (chain.shown != NULL)
		pfree(chain.shown);
}
