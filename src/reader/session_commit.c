/*
 * session_commit.c
 *	  Session windows in a commit: emit, forget, carry, log.
 *
 * NOTES
 *	  A query whose rows are written once emits a session where it forgets it; else
 *	  session_emit.c has emitted it before.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "engine/engine.h"
#include "session_private.h"

/* Between commits in parts a worker does other things for so many times as long. */
#define REST_FACTOR 4

/* Runs at which a bucket is folded by a commit that emits no changes: see close.c. */
#define FOLD_RUNS_CHANGES 64

static void
append_run(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high, int ngroups)
{
	SessionFlush *target = arg;

	se_state_log_append(target->log, target->query, target->slice->start, target->slice->end,
						target->seq, hash_low, hash_high, ngroups, bytes, size);
}

static void
append_tombstones(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high,
				  int ngroups)
{
	SessionFlush *target = arg;

	se_state_log_append_tombstones(target->log, target->query, target->slice->start,
								   target->slice->end, target->seq + 1, hash_low, hash_high,
								   ngroups, bytes, size);
}

/* Hand a group on to the bucket behind, where its session goes on. */
static void
carry(SessionCommit *commit, OpenSlice *slice, SeGroup *group, OpenSlice *next, SeGroup *ahead)
{
	SeMemtable *logged = se_session_logged(commit->query, next);

	if (se_query_emits_changes(commit->query))
		se_session_shown_apart(commit, slice->base, group, next->base, ahead);
	(void) se_memtable_add(next->base, slice->base, group);
	(void) se_memtable_add(logged, slice->base, group);
}

/* A session that has ended; its group stays where it is until it is emitted. */
typedef struct Ended
{
	TimestampTz first;
	TimestampTz last;
	SeGroup    *group;
} Ended;

typedef struct EndedList
{
	Ended	   *sessions;
	int64		n;
	int64		capacity;
} EndedList;

static void
add_ended(EndedList *ended, SeGroup *group, TimestampTz first, TimestampTz last)
{
	if (ended->n == ended->capacity)
	{
		ended->capacity = Max(ended->capacity * 2, 256);
		ended->sessions = ended->sessions ?
			repalloc_huge(ended->sessions, sizeof(Ended) * ended->capacity) :
			palloc(sizeof(Ended) * ended->capacity);
	}
	ended->sessions[ended->n].first = first;
	ended->sessions[ended->n].last = last;
	ended->sessions[ended->n++].group = group;
}

static int
compare_ended(const void *a, const void *b)
{
	const Ended *x = a;
	const Ended *y = b;

	if (x->first != y->first)
		return x->first < y->first ? -1 : 1;
	return x->last < y->last ? -1 : x->last > y->last ? 1 : 0;
}

/* In the order of their bounds, with which the index on the result table begins. */
static void
emit_ended(SessionCommit *commit, SeMemtable *base, EndedList *ended)
{
	ReaderQuery *query = commit->query;

	if (ended->n == 0)
		return;
	qsort(ended->sessions, ended->n, sizeof(Ended), compare_ended);
	for (int64 i = 0; i < ended->n; i++)
	{
		const Ended *session = &ended->sessions[i];

		if (!se_query_completes(query->def, session->first, session->last + commit->gap))
			query->windows_incomplete++;
		else
		{
			se_emission_fresh(commit->emission, base, session->group, session->first,
							  session->last + commit->gap);
			query->windows_closed++;
		}
	}
	pfree(ended->sessions);
}

/* Forget a group of a bucket that stays; *dead collects keys that the log must forget. */
static void
forget(SessionCommit *commit, OpenSlice *slice, SeGroup *group, SeMemtable **dead)
{
	SeGroup    *fresh = slice->table ? se_memtable_get(slice->table, group) : NULL;

	if (slice->nruns > 0)
	{
		if (*dead == NULL)
			*dead = se_session_table(commit->query, commit->reader->cycle, 64);
		(void) se_memtable_add_key(*dead, group);
	}
	if (fresh != NULL)
		se_memtable_remove(slice->table, fresh);
	se_memtable_remove(slice->base, group);
}

/* Forget or carry what expires in a bucket whose start V - gap has reached. */
static void
expire_bucket(SessionCommit *commit, OpenSlice *slice)
{
	ReaderQuery *query = commit->query;
	bool		ripe = se_session_is_ripe(commit, slice);
	OpenSlice  *next = se_session_bucket(query, slice->end);
	SeMemtable *base = se_session_merged(query, slice);
	bool		revises = se_session_revises(query->def);
	EndedList	ended = {0};
	SeMemtable *archived = NULL;
	SeMemtable *dead = NULL;
	int64		position = 0;
	SeGroup    *group;

	if (next != NULL)
		(void) se_session_merged(query, next);
	while ((group = se_memtable_next(base, &position)) != NULL)
	{
		SeGroup    *ahead;
		TimestampTz first;
		TimestampTz last;

		CHECK_FOR_INTERRUPTS();
		se_session_bounds(base, group, commit->naggs, &first, &last);
		/* most have not ended, and whether they go on does not matter yet */
		if (!ripe && last + commit->gap > commit->expiry)
		{
			commit->next_expiry = Min(commit->next_expiry, last + commit->gap);
			continue;
		}
		ahead = next ? se_memtable_get(next->base, group) : NULL;
		if (ahead && se_session_continues(next->base, ahead, commit->naggs, last, commit->gap))
		{
			if (ripe)
				carry(commit, slice, group, next, ahead);
			continue;
		}
		if (last + commit->gap > commit->expiry)
		{
			commit->next_expiry = Min(commit->next_expiry, last + commit->gap);
			continue;
		}
		if (!revises)
			add_ended(&ended, group, first, last);
		else if (se_session_archives(query->def) &&
				 se_session_is_kept(query, last, commit->watermark))
		{
			if (archived == NULL)
				archived = se_session_table(query, commit->reader->cycle, 64);
			(void) se_memtable_add(archived, base, group);
		}
		if (!ripe)
			forget(commit, slice, group, &dead);
	}
	emit_ended(commit, base, &ended);
	if (archived != NULL)
	{
		se_session_archive(commit, slice->start, archived);
		se_memtable_free(archived);
	}
	if (dead != NULL)
	{
		commit->flush.slice = slice;
		se_memtable_flush(dead, SE_CHUNK_SIZE, append_tombstones, &commit->flush);
		se_memtable_free(dead);
		slice->nruns++;
	}
}

static void
expire_buckets(SessionCommit *commit)
{
	/* ascending, for a ripe bucket carries into the one behind it */
	for (int i = 0; i < commit->nslices; i++)
	{
		OpenSlice  *slice = commit->slices[i];

		if (slice->start > commit->expiry - commit->gap)
		{
			/* none of its sessions expires before */
			commit->next_expiry = Min(commit->next_expiry, slice->start + commit->gap);
			break;
		}
		expire_bucket(commit, slice);
	}
	commit->query->session_next_expiry = commit->next_expiry;
}

/* Ripe buckets have been emptied: what is left in memory and in the log goes. */
static void
drop_ripe_buckets(SessionCommit *commit)
{
	ReaderQuery *query = commit->query;

	for (int i = 0; i < commit->nslices; i++)
	{
		OpenSlice  *slice = commit->slices[i];
		TimestampTz key[2] = {slice->start, slice->end};

		if (!se_session_is_ripe(commit, slice))
			continue;
		if (slice->nruns > 0)
			se_state_log_delete(commit->log, query->def->id, slice->start, slice->end);
		if (slice->table)
			se_memtable_free(slice->table);
		se_session_release(query, slice);
		hash_search(query->slices, key, HASH_REMOVE, NULL);
		commit->slices[i] = NULL;
	}
}

/* ---- what stays ---- */

bool
se_session_worth_folding(const SessionCommit *commit, const OpenSlice *slice)
{
	int64		ngroups = slice->table ? se_memtable_ngroups(slice->table) : 0;
	bool		waits = se_query_emits_changes(commit->query) && !commit->shows;

	/* for sessions of users that have read it, while there is nothing else to do */
	if (commit->reader->quiet && !se_query_emits_changes(commit->query))
		return se_slice_is_unfolded(slice->nruns, slice->entries, slice->largest);
	return ngroups > 0 && (!waits || slice->nruns >= FOLD_RUNS_CHANGES) &&
		se_slice_is_folded(slice->entries, slice->largest, ngroups);
}

/*
 * Log a bucket's groups anew, as one run, when its runs hold many times what they stand
 * for: a bucket is as wide as the gap, and commits are not.
 */
static void
fold_bucket(SessionCommit *commit, OpenSlice *slice)
{
	SeMemtable *base = se_session_merged(commit->query, slice);
	int64		ngroups = se_memtable_ngroups(base);

	se_memtable_flush(base, SE_CHUNK_SIZE, append_run, &commit->flush);
	if (commit->nparts > 1)
	{
		/* what was there before is deleted behind the last part */
		slice->nruns++;
		slice->entries += ngroups;
		return;
	}
	/* the delete does not see what this transaction has appended */
	se_state_log_delete(commit->log, commit->query->def->id, slice->start, slice->end);
	slice->nruns = 1;
	slice->entries = slice->largest = slice->most_groups = ngroups;
}

static void
flush_bucket(SessionCommit *commit, int bucket)
{
	ReaderQuery *query = commit->query;
	OpenSlice  *slice = commit->slices[bucket];
	int64		ngroups = slice->table ? se_memtable_ngroups(slice->table) : 0;
	bool		folds = commit->nparts > 1 ? se_session_part_folds(commit, bucket) :
		se_session_worth_folding(commit, slice);

	commit->flush.slice = slice;
	if (slice->partial != NULL)
	{
		if (commit->expires || folds)
			se_session_release(query, slice);
		else if (ngroups > 0)
			se_session_follow(query, slice);
	}
	if (folds)
		fold_bucket(commit, slice);
	else if (ngroups > 0)
	{
		if (slice->base != NULL)
			(void) se_session_merged(query, slice);
		se_memtable_flush(slice->table, SE_CHUNK_SIZE, append_run, &commit->flush);
		slice->nruns++;
		slice->entries += ngroups;
		slice->most_groups += ngroups;
		slice->largest = Max(slice->largest, ngroups);
	}
	if (folds || ngroups > 0)
		slice->changed = query->changes_seq < commit->reader->def->seq + 1;
	if (slice->table != NULL)
		se_memtable_free(slice->table);
	slice->table = NULL;
	slice->table_merged = false;
}

/* Give back the groups of buckets that a commit which looks for closed sessions did not want. */
static void
release_bases(SessionCommit *commit)
{
	for (int i = 0; i < commit->nslices; i++)
	{
		OpenSlice  *slice = commit->slices[i];

		if (slice != NULL && slice->base != NULL && !slice->base_used)
			se_session_release(commit->query, slice);
		if (slice != NULL)
			slice->base_used = false;
	}
}

static int
compare_slices(const void *a, const void *b)
{
	const OpenSlice *x = *(OpenSlice *const *) a;
	const OpenSlice *y = *(OpenSlice *const *) b;

	return x->start < y->start ? -1 : x->start > y->start ? 1 : 0;
}

static void
sort_slices(SessionCommit *commit)
{
	ReaderQuery *query = commit->query;
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	commit->slices = palloc(sizeof(OpenSlice *) * Max(hash_get_num_entries(query->slices), 1));
	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
		commit->slices[commit->nslices++] = slice;
	qsort(commit->slices, commit->nslices, sizeof(OpenSlice *), compare_slices);
}

/* Emit, forget and log the groups of a part of the keys. */
static void
commit_part(SessionCommit *commit, bool emits)
{
	ReaderQuery *query = commit->query;
	SeUserScope scope;

	if (emits || commit->expires)
	{
		se_user_begin(&scope, query->def->owner, query->def->settings);
		SE_FAILPOINT("emit.begin");
		commit->emission = se_emission_begin(query, commit->now, commit->reader->cycle);
		if (se_session_revises(query->def) && emits)
			se_session_emit(commit);
		if (commit->expires)
			expire_buckets(commit);
		se_emission_end(commit->emission);
		SE_FAILPOINT("emit.end");
		se_user_end(&scope);
	}
	for (int i = 0; i < commit->nslices; i++)
		if (!se_session_is_ripe(commit, commit->slices[i]))
			flush_bucket(commit, i);
}

void
se_session_commit(Reader *reader, ReaderQuery *query, TimestampTz watermark, TimestampTz now)
{
	MemoryContext old = MemoryContextSwitchTo(reader->cycle);
	TimestampTz began = GetCurrentTimestamp();
	SessionCommit commit = {0};
	bool		revises = se_session_revises(query->def);
	bool		emits = se_session_emits(query, watermark, now);
	bool		hides = query->hides;

	commit.reader = reader;
	commit.query = query;
	commit.gap = query->plan->window.gap;
	commit.naggs = query->plan->naggs;
	commit.watermark = watermark;
	/* without a watermark nothing has ended, and there is no arithmetic on it */
	commit.expiry = se_time_before(watermark, query->def->allowed_lateness);
	commit.now = now;
	commit.next_close = commit.next_expiry = DT_NOEND;
	/* which open sessions are not emitted any more is known when all of them are looked at */
	commit.shows = hides || se_session_changes_due(query, now);
	commit.shown_seq = hides ? 0 : query->changes_seq;
	query->hides = false;
	commit.log = se_state_log_open(true);
	commit.flush.log = commit.log;
	commit.flush.query = query->def->id;
	/* runs have even numbers; tombstones follow the runs of their commit */
	commit.flush.seq = (reader->def->seq + 1) * 2;
	sort_slices(&commit);
	for (int i = 0; hides && i < commit.nslices; i++)
		commit.slices[i]->changed = true;
	se_session_archive_purge(&commit);
	se_session_archive_forget(&commit);

	commit.expires = revises ? se_session_may_expire(query, commit.expiry) : emits;
	se_blame.query = query;
	se_session_parts_begin(&commit, emits || commit.expires);
	for (int i = 0; i < commit.nparts; i++)
	{
		se_session_part_begin(&commit, i);
		commit_part(&commit, emits);
		se_session_part_end(&commit);
	}
	se_session_parts_end(&commit);
	drop_ripe_buckets(&commit);
	if (commit.expires && !revises)
		query->session_next_close = query->session_next_expiry;
	se_blame.query = NULL;
	if (revises && emits)
		release_bases(&commit);
	/* parts cost as much as all the groups do, and not as what has changed */
	query->session_rest = commit.nparts > 1 ? (GetCurrentTimestamp() - began) * REST_FACTOR : 0;
	query->last_slice = NULL;
	query->revival = NULL;
	se_state_log_close(commit.log);
	MemoryContextSwitchTo(old);
}
