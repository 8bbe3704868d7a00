/*
 * global.c
 *	  The global window: running totals of each key, emitted by triggers.
 *
 * NOTES
 *	  There is one slice, without bounds, and its groups are never closed: a row
 *	  of the result table shows a key's totals as of its last firing.  The count
 *	  trigger fires for a key at the record that makes the number of its rows a
 *	  multiple, and asks for a commit at once; the interval trigger fires for all keys
 *	  that have changed since it fired last.
 *
 *	  A batch goes on behind such a record, so the key's totals are copied as they
 *	  are at it (ReaderQuery.fired), and the copy is what the commit emits.  The rows of
 *	  a batch are added in pieces, each of which ends where a key that has fired
 *	  in it comes again: at the end of a piece the totals of all keys that have fired
 *	  are those of their firing.  When a key fires several times before the commit the last
 *	  firing is what is emitted, for one commit shows one row of a key.
 *
 *	  The totals as committed are kept in memory (OpenSlice.base), for a firing
 *	  wants single groups of them.  The log has the runs, and is rewritten from
 *	  memory when it has grown to several times the groups.  Which keys have
 *	  changed since the last firing is not logged: after a restart all are taken
 *	  for changed, and rows that would stay the same are left alone.
 *
 *	  With a time to live a key is forgotten by the commit whose watermark passes
 *	  its last event time by it; its result row stays.  To look at all keys in every
 *	  commit would cost too much, so a forgotten key may lie in the state for a
 *	  while; its totals are taken away when its next record comes, and are not shown.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "emit.h"
#include "engine/engine.h"
#include "global.h"
#include "session.h"

/* Hidden aggregates, behind the query's own: see layout.c. */
static int64
rows_of(ReaderQuery *query, SeMemtable *table, SeGroup *group)
{
	bool		isnull;

	return DatumGetInt64(se_group_result(table, group, query->plan->naggs, &isnull));
}

static TimestampTz
last_of(ReaderQuery *query, SeMemtable *table, SeGroup *group)
{
	bool		isnull;

	return DatumGetTimestampTz(se_group_result(table, group, query->plan->naggs + 1, &isnull));
}

/* Whether the totals of "group" were forgotten by the last commit, or by one before it. */
static bool
is_forgotten(ReaderQuery *query, SeMemtable *table, SeGroup *group)
{
	return query->def->state_ttl > 0 && query->closed_through != DT_NOBEGIN &&
		last_of(query, table, group) + query->def->state_ttl <= query->closed_through;
}

static OpenSlice *
the_slice(ReaderQuery *query)
{
	TimestampTz key[2] = {DT_NOBEGIN, DT_NOEND};

	return hash_search(query->slices, key, HASH_FIND, NULL);
}

static SeMemtable *
the_base(ReaderQuery *query, OpenSlice *slice)
{
	if (slice->base == NULL)
	{
		slice->base = se_memtable_create(query->layout, query->context, Max(slice->largest, 64));
		if (slice->nruns > 0)
		{
			SeStateLog *log = se_state_log_open_latest();

			se_session_load(log, query->def->id, slice->start, slice->end, 0,
							PG_UINT32_MAX, slice->base);
			se_state_log_close(log);
		}
	}
	return slice->base;
}

/* A group's totals as committed, NULL if there are none. */
static SeGroup *
committed_totals(ReaderQuery *query, SeMemtable *base, SeGroup *group)
{
	SeGroup    *known = se_memtable_get(base, group);

	return known != NULL && !is_forgotten(query, base, known) ? known : NULL;
}

/* Keep the totals of a group of the running cycle as they are now. */
static void
keep_totals(ReaderQuery *query, SeMemtable *base, SeMemtable *table, SeGroup *group)
{
	SeGroup    *known = committed_totals(query, base, group);
	SeGroup    *earlier;

	if (query->fired == NULL)
		query->fired = se_memtable_create(query->layout, query->context, 64);
	earlier = se_memtable_get(query->fired, group);
	if (earlier != NULL)
		se_memtable_remove(query->fired, earlier);
	if (known != NULL)
		(void) se_memtable_add(query->fired, base, known);
	(void) se_memtable_add(query->fired, table, group);
}

/* A group in a batch: how many rows its key has had, and in which piece it fired. */
typedef struct KeyCount
{
	SeGroup    *group;			/* NULL: free */
	int64		rows;
	int			fired_in;		/* 0: not yet */
} KeyCount;

#define COUNT_SLOTS (4 * SE_BATCH_MAX)

static KeyCount *
count_of(KeyCount *counts, SeGroup *group)
{
	uint32		i = se_group_hash(group) * 0x9E3779B1U % COUNT_SLOTS;

	while (counts[i].group != NULL && counts[i].group != group)
		i = (i + 1) % COUNT_SLOTS;
	return &counts[i];
}

void
se_global_update(ReaderQuery *query, const SeBatch *batch, OpenSlice *slice, const int *rows,
				 SeGroup **groups, int n)
{
	int64		every = query->def->trigger_count;
	SeMemtable *base = the_base(query, slice);
	KeyCount   *counts = palloc0(sizeof(KeyCount) * COUNT_SLOTS);
	SeGroup   **firing = palloc(sizeof(SeGroup *) * Max(n, 1));
	int			nfiring = 0;
	int			piece = 1;
	int			start = 0;

	for (int i = 0; i <= n; i++)
	{
		KeyCount   *count = i < n ? count_of(counts, groups[i]) : NULL;

		if (count == NULL || (count->group != NULL && count->fired_in == piece))
		{
			se_update_groups(query, batch, slice, rows + start, groups + start, i - start);
			for (int k = 0; k < nfiring; k++)
				keep_totals(query, base, slice->table, firing[k]);
			nfiring = 0;
			start = i;
			piece++;
		}
		if (count == NULL)
			break;
		if (count->group == NULL)
		{
			SeGroup    *known = committed_totals(query, base, groups[i]);

			/* its rows of this batch are not in its totals yet: it is not in the piece */
			count->group = groups[i];
			count->rows = rows_of(query, slice->table, groups[i]) +
				(known ? rows_of(query, base, known) : 0);
		}
		if (++count->rows % every == 0)
		{
			count->fired_in = piece;
			firing[nfiring++] = groups[i];
		}
	}
	pfree(counts);
	pfree(firing);
}

bool
se_global_fires(ReaderQuery *query)
{
	return query->fired != NULL && se_memtable_ngroups(query->fired) > 0;
}

static bool
interval_fires(const ReaderQuery *query, TimestampTz now)
{
	return query->def->trigger_interval > 0 &&
		(query->last_fired == DT_NOBEGIN ||
		 now >= query->last_fired + query->def->trigger_interval);
}

bool
se_global_emits(ReaderQuery *query, TimestampTz now)
{
	OpenSlice  *slice = the_slice(query);

	if (slice == NULL)
		return false;
	if (se_global_fires(query))
		return true;
	return interval_fires(query, now) &&
		(query->last_fired == DT_NOBEGIN || query->has_changed || slice->table != NULL);
}

TimestampTz
se_global_due(ReaderQuery *query)
{
	OpenSlice  *slice;

	if (query->def->trigger_interval <= 0)
		return DT_NOEND;
	/* records that are not committed yet have changed their keys, too */
	slice = the_slice(query);
	if (!query->has_changed && (slice == NULL || slice->table == NULL))
		return DT_NOEND;
	if (query->last_fired == DT_NOBEGIN)
		return DT_NOBEGIN;
	return query->last_fired + query->def->trigger_interval;
}

/* ---- commit ---- */

typedef struct GlobalCommit
{
	Reader	   *reader;
	ReaderQuery *query;
	OpenSlice  *slice;
	SeStateLog *log;
	int64		seq;			/* of the run with what the cycle has added */
	int64		tombstone_seq;
} GlobalCommit;

static void
append_run(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high, int ngroups)
{
	GlobalCommit *commit = arg;

	se_state_log_append(commit->log, commit->query->def->id, commit->slice->start,
						commit->slice->end, commit->seq, hash_low, hash_high, ngroups, bytes, size);
}

static void
append_tombstones(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high,
				  int ngroups)
{
	GlobalCommit *commit = arg;

	se_state_log_append_tombstones(commit->log, commit->query->def->id, commit->slice->start,
								   commit->slice->end, commit->tombstone_seq, hash_low, hash_high,
								   ngroups, bytes, size);
}

static void
merge_run(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high, int ngroups)
{
	se_memtable_merge(arg, bytes, size, 0, PG_UINT32_MAX);
}

/*
 * Keys whose interval trigger fires now; if it does not, those of the cycle are noted
 * as changed.
 */
static SeMemtable *
changed_keys(GlobalCommit *commit, bool fires)
{
	ReaderQuery *query = commit->query;
	SeMemtable *table = commit->slice->table;
	SeMemtable *firing = se_memtable_create(query->layout, commit->reader->cycle, 64);
	SeGroup    *group;
	int64		position = 0;

	if (table != NULL && query->def->trigger_interval > 0)
		while ((group = se_memtable_next(table, &position)) != NULL)
		{
			if (query->changed == NULL)
				query->changed = se_memtable_create(query->layout, query->context, 64);
			(void) se_memtable_add_key(query->changed, group);
			query->has_changed = true;
		}
	if (fires && query->changed != NULL)
	{
		position = 0;
		while ((group = se_memtable_next(query->changed, &position)) != NULL)
			(void) se_memtable_add_key(firing, group);
		se_memtable_reset(query->changed);
	}
	return firing;
}

/* Emit the rows of "keys" with their totals in "totals", which may be the same table. */
static void
emit_keys(GlobalCommit *commit, SeMemtable *keys, SeMemtable *totals, TimestampTz now)
{
	ReaderQuery *query = commit->query;
	SeEmission *emission;
	SeUserScope scope;
	SeGroup    *group;
	int64		position = 0;

	if (se_memtable_ngroups(keys) == 0)
		return;
	se_user_begin(&scope, query->def->owner, query->def->settings);
	SE_FAILPOINT("emit.begin");
	emission = se_emission_begin(query, now, commit->reader->cycle);
	while ((group = se_memtable_next(keys, &position)) != NULL)
	{
		SeGroup    *total = keys == totals ? group : se_memtable_get(totals, group);

		if (total != NULL)
			se_emission_replace(emission, totals, total, DT_NOBEGIN, DT_NOEND, false);
	}
	se_emission_end(emission);
	SE_FAILPOINT("emit.end");
	se_user_end(&scope);
}

/* End the keys of "dead", which may be NULL, in all runs with a smaller seq. */
static void
log_tombstones(GlobalCommit *commit, SeMemtable *dead, int64 seq)
{
	if (dead == NULL)
		return;
	commit->tombstone_seq = seq;
	se_memtable_flush(dead, SE_CHUNK_SIZE, append_tombstones, commit);
	commit->slice->nruns++;
	commit->slice->entries += se_memtable_ngroups(dead);
	se_memtable_free(dead);
}

/* Take the forgotten totals away of keys that the cycle begins anew. */
static void
begin_anew(GlobalCommit *commit, SeMemtable *base)
{
	ReaderQuery *query = commit->query;
	SeMemtable *dead = NULL;
	SeGroup    *group;
	int64		position = 0;

	if (query->def->state_ttl <= 0 || commit->slice->table == NULL)
		return;
	while ((group = se_memtable_next(commit->slice->table, &position)) != NULL)
	{
		SeGroup    *known = se_memtable_get(base, group);

		if (known == NULL || !is_forgotten(query, base, known))
			continue;
		if (dead == NULL)
			dead = se_memtable_create(query->layout, commit->reader->cycle, 64);
		(void) se_memtable_add_key(dead, group);
		se_memtable_remove(base, known);
	}
	/* behind the runs of the last commit, before that of this one */
	log_tombstones(commit, dead, commit->seq - 1);
}

/* Forget keys that the watermark has left behind. */
static void
expire_keys(GlobalCommit *commit, SeMemtable *base, TimestampTz watermark, TimestampTz now)
{
	ReaderQuery *query = commit->query;
	SeMemtable *dead = NULL;
	SeGroup    *group;
	int64		position = 0;

	/* a look at all keys, four times in the time to live */
	if (query->def->state_ttl <= 0 || watermark == DT_NOBEGIN ||
		(query->last_expired != DT_NOBEGIN &&
		 watermark - query->last_expired < query->def->state_ttl / 4))
		return;
	query->last_expired = watermark;
	while ((group = se_memtable_next(base, &position)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (last_of(query, base, group) + query->def->state_ttl > watermark)
			continue;
		/* its row is still to be written */
		if (query->changed != NULL && se_memtable_get(query->changed, group) != NULL)
			continue;
		if (dead == NULL)
			dead = se_memtable_create(query->layout, commit->reader->cycle, 64);
		(void) se_memtable_add_key(dead, group);
		se_memtable_remove(base, group);
	}
	log_tombstones(commit, dead, commit->seq + 1);
}

/* Log what the cycle has added; or all totals anew. */
static void
log_groups(GlobalCommit *commit, SeMemtable *base)
{
	OpenSlice  *slice = commit->slice;
	int64		groups = se_memtable_ngroups(base);

	if (se_slice_is_folded(slice->entries, groups,
						   slice->table ? se_memtable_ngroups(slice->table) : 0) ||
		(commit->reader->quiet &&
		 se_slice_is_unfolded(slice->nruns, slice->entries, slice->largest)))
	{
		/* what is appended in this transaction is not seen by the delete */
		se_state_log_delete(commit->log, commit->query->def->id, slice->start, slice->end);
		se_memtable_flush(base, SE_CHUNK_SIZE, append_run, commit);
		slice->nruns = 1;
		slice->entries = groups;
	}
	else if (slice->table != NULL && se_memtable_ngroups(slice->table) > 0)
	{
		se_memtable_flush(slice->table, SE_CHUNK_SIZE, append_run, commit);
		slice->nruns++;
		slice->entries += se_memtable_ngroups(slice->table);
	}
	slice->largest = Max(slice->largest, groups);
}

void
se_global_commit(Reader *reader, ReaderQuery *query, TimestampTz watermark, TimestampTz now)
{
	MemoryContext old = MemoryContextSwitchTo(reader->cycle);
	int64		seq = (reader->def->seq + 1) * 2;
	GlobalCommit commit = {reader, query, the_slice(query), NULL, seq, seq};
	bool		fires = interval_fires(query, now);
	SeMemtable *base;
	SeMemtable *changed;

	if (commit.slice == NULL)
	{
		MemoryContextSwitchTo(old);
		return;
	}
	se_blame.query = query;
	commit.log = se_state_log_open(true);
	base = the_base(query, commit.slice);
	begin_anew(&commit, base);
	changed = changed_keys(&commit, fires);
	if (commit.slice->table != NULL)
		se_memtable_flush(commit.slice->table, SE_CHUNK_SIZE, merge_run, base);
	/* what the interval trigger shows is at least what the count trigger would */
	if (!fires && query->fired != NULL)
		emit_keys(&commit, query->fired, query->fired, now);
	/* after a restart it is not known what has changed */
	else if (fires)
		emit_keys(&commit, query->last_fired == DT_NOBEGIN ? base : changed, base, now);
	if (query->fired != NULL)
		se_memtable_reset(query->fired);
	if (fires)
	{
		query->last_fired = now;
		query->has_changed = false;
	}
	log_groups(&commit, base);
	expire_keys(&commit, base, watermark, now);
	if (commit.slice->table != NULL)
		se_memtable_free(commit.slice->table);
	commit.slice->table = NULL;
	se_memtable_free(changed);
	se_state_log_close(commit.log);
	se_blame.query = NULL;
	MemoryContextSwitchTo(old);
}
