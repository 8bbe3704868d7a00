/*
 * session_parts.c
 *	  Session windows: a commit that looks at the keys part by part.
 *
 * NOTES
 *	  All groups of a session have one key, and so have what a commit carries, forgets,
 *	  archives or shows of it.  So a commit may be made for a part of the keys, a range of
 *	  hashes, after the other: the groups of the part, as committed, are
 *	  loaded (OpenSlice.base), those of the cycle are put into tables of their own in
 *	  place of OpenSlice.table, and the commit does what it does for all.  Then all of
 *	  that is given back.  So memory is bounded by the part, and the price is that every
 *	  such commit reads the buckets around the watermark from the state log, or its cache.
 *
 *	  What is logged of a part is not read again by this commit: no chunk reaches
 *	  from one part to the next.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "engine/engine.h"
#include "session_private.h"

#define MAX_PARTS 4096
#define MIN_MEMORY (64 * 1024)	/* kB, where there is no run cache */

/* A bucket of a commit in parts. */
struct SeBucketParts
{
	SeMemtable *whole;			/* groups of the cycle, of all parts */
	int64		position;		/* in it */
	bool		folds;			/* is logged anew */
	/* what the log held before */
	int			nruns;
	int64		entries;
	int64		largest;
	bool		changed;
	/* what the commit has logged of it */
	int			nruns_added;
	int64		entries_added;
	bool		changed_since;
	int64		groups;			/* committed by now, if they have been counted */
	bool		counted;
};

/* Private memory for groups of sessions is twice what the run cache has in shared memory. */
void
se_session_share_memory(Reader *reader)
{
	Size		bytes = (Size) (se_state_memory > 0 ? se_state_memory : MIN_MEMORY) * 2 * 1024;
	int			n = 0;

	for (int i = 0; i < reader->nqueries; i++)
		if (reader->queries[i].plan->window.kind == SE_WINDOW_SESSION)
			n++;
	for (int i = 0; i < reader->nqueries; i++)
		reader->queries[i].session_memory = bytes / Max(n, 1);
}

int
se_session_count_parts(const ReaderQuery *query, Size bytes)
{
	return (int) Min(bytes / (query->session_memory / 2 + 1) + 1, MAX_PARTS);
}

void
se_session_set_part(ReaderQuery *query, int part, int nparts)
{
	uint64		width = ((uint64) 1 << 32) / nparts;

	query->session_in_parts = true;
	query->session_low = (uint32) (width * part);
	query->session_high = part == nparts - 1 ? PG_UINT32_MAX : (uint32) (width * (part + 1) - 1);
}

/* Whether the commit may look at the groups of a bucket. */
static bool
is_wanted(const SessionCommit *commit, const OpenSlice *slice, bool looks)
{
	if (slice->base != NULL || se_session_worth_folding(commit, slice))
		return true;
	if (!looks)
		return false;
	return se_session_revises(commit->query->def) || slice->start <= commit->expiry;
}

void
se_session_parts_begin(SessionCommit *commit, bool looks)
{
	ReaderQuery *query = commit->query;
	Size		bytes = 0;

	for (int i = 0; i < commit->nslices; i++)
	{
		OpenSlice  *slice = commit->slices[i];

		if (is_wanted(commit, slice, looks))
			bytes += se_session_base_memory(query, slice) +
				(slice->table ? se_memtable_memory(slice->table) : 0);
	}
	commit->nparts = bytes > query->session_memory ? se_session_count_parts(query, bytes) : 1;
	if (commit->nparts == 1)
		return;
	commit->parts = palloc0(sizeof(struct SeBucketParts) * Max(commit->nslices, 1));
	for (int i = 0; i < commit->nslices; i++)
	{
		OpenSlice  *slice = commit->slices[i];
		struct SeBucketParts *part = &commit->parts[i];

		part->folds = !se_session_is_ripe(commit, slice) &&
			se_session_worth_folding(commit, slice);
		se_session_release(query, slice);
		part->whole = slice->table;
		slice->table = NULL;
		part->nruns = slice->nruns;
		part->entries = slice->entries;
		part->largest = slice->largest;
		part->changed = slice->changed;
		part->counted = true;
	}
}

bool
se_session_part_folds(const SessionCommit *commit, int bucket)
{
	return commit->parts[bucket].folds;
}

/* Let a bucket have the part's groups of the cycle only. */
static void
cut_out(SessionCommit *commit, OpenSlice *slice, struct SeBucketParts *part)
{
	ReaderQuery *query = commit->query;
	SeGroup    *group;

	slice->nruns = part->nruns;
	slice->entries = part->entries;
	slice->largest = part->largest;
	slice->changed = part->changed;
	slice->table_merged = false;
	if (part->whole == NULL)
		return;
	while ((group = se_memtable_next_upto(part->whole, &part->position,
										  query->session_high)) != NULL)
	{
		if (slice->table == NULL)
			slice->table = se_session_table(query, query->context,
											se_memtable_ngroups(part->whole) / commit->nparts);
		(void) se_memtable_add(slice->table, part->whole, group);
	}
}

void
se_session_part_begin(SessionCommit *commit, int n)
{
	if (commit->nparts == 1)
		return;
	CHECK_FOR_INTERRUPTS();
	se_session_set_part(commit->query, n, commit->nparts);
	for (int i = 0; i < commit->nslices; i++)
		cut_out(commit, commit->slices[i], &commit->parts[i]);
}

void
se_session_part_end(SessionCommit *commit)
{
	if (commit->nparts == 1)
		return;
	for (int i = 0; i < commit->nslices; i++)
	{
		OpenSlice  *slice = commit->slices[i];
		struct SeBucketParts *part = &commit->parts[i];

		part->nruns_added = Max(part->nruns_added, slice->nruns - part->nruns);
		part->entries_added += slice->entries - part->entries;
		part->changed_since |= slice->changed;
		if (slice->base != NULL)
			part->groups += se_memtable_ngroups(slice->base);
		else if (part->nruns > 0)
			part->counted = false;
		else
			part->groups += slice->entries - part->entries;
		se_session_release(commit->query, slice);
		if (slice->table != NULL)
			se_memtable_free(slice->table);
		slice->table = NULL;
	}
	commit->query->session_in_parts = false;
}

void
se_session_parts_end(SessionCommit *commit)
{
	if (commit->nparts == 1)
		return;
	for (int i = 0; i < commit->nslices; i++)
	{
		OpenSlice  *slice = commit->slices[i];
		struct SeBucketParts *part = &commit->parts[i];

		if (part->folds)
		{
			/* the delete does not see what this transaction has appended */
			se_state_log_delete(commit->log, commit->query->def->id, slice->start, slice->end);
			part->nruns = 0;
			part->entries = part->largest = 0;
		}
		slice->nruns = part->nruns + part->nruns_added;
		slice->entries = part->entries + part->entries_added;
		slice->largest = Max(part->largest, part->entries_added);
		slice->most_groups = part->counted ? part->groups : slice->entries;
		slice->changed = part->changed_since;
		slice->table_merged = slice->base_used = false;
		if (part->whole != NULL)
			se_memtable_free(part->whole);
	}
}
