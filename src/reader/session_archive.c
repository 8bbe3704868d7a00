/*
 * session_archive.c
 *	  Sessions that have expired, kept apart until the correction horizon.
 *
 * NOTES
 *	  With correction_horizon, when it is longer than the allowed lateness, a session
 *	  that expires is not forgotten: it goes to the archive, where only records that
 *	  are retried find it (session_retry.c).
 *
 *	  The archive is in the state log alone.  A slice of it belongs to one bucket and
 *	  holds the sessions whose last rows lie there, as one group each; it ends one
 *	  microsecond behind the bucket, by which it is told from it.  A key may have several
 *	  sessions in one slice, for a row on time begins a new session even within the gap
 *	  of one that has expired.  So the groups of different chunks are never merged here:
 *	  each is a session.
 *
 *	  Sessions that a retried record has taken out are deleted by tombstones, which hit
 *	  all sessions of the key in the slice.  That is right: their last rows are within the
 *	  gap of each other, so that all that are still kept are taken out together.  In a
 *	  slice of the archive the tombstones of a commit come before its runs: they have
 *	  even numbers, and runs odd ones.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "session_private.h"

typedef struct ArchiveFlush
{
	SeStateLog *log;
	int32		query;
	TimestampTz start;
	TimestampTz end;
	int64		seq;
} ArchiveFlush;

static void
append_run(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high, int ngroups)
{
	ArchiveFlush *target = arg;

	se_state_log_append(target->log, target->query, target->start, target->end, target->seq + 1,
						hash_low, hash_high, ngroups, bytes, size);
}

static void
append_tombstones(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high,
				  int ngroups)
{
	ArchiveFlush *target = arg;

	se_state_log_append_tombstones(target->log, target->query, target->start, target->end,
								   target->seq, hash_low, hash_high, ngroups, bytes, size);
}

static ArchiveFlush
flush_to(const SessionCommit *commit, TimestampTz start)
{
	ArchiveFlush target;

	target.log = commit->log;
	target.query = commit->query->def->id;
	target.start = start;
	target.end = se_session_archive_end(commit->query, start);
	target.seq = commit->flush.seq;
	return target;
}

void
se_session_note_archive(ReaderQuery *query, TimestampTz start)
{
	if (query->archive == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = ctl.entrysize = sizeof(TimestampTz);
		ctl.hcxt = query->context;
		query->archive = hash_create("stream_engine archived sessions", 64, &ctl,
									 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	(void) hash_search(query->archive, &start, HASH_ENTER, NULL);
}

bool
se_session_is_kept(const ReaderQuery *query, TimestampTz last, TimestampTz watermark)
{
	return se_time_after(se_time_after(last, query->plan->window.gap),
						 query->def->correction_horizon) > watermark;
}

void
se_session_archive(SessionCommit *commit, TimestampTz start, SeMemtable *sessions)
{
	ArchiveFlush target = flush_to(commit, start);

	se_memtable_flush(sessions, SE_CHUNK_SIZE, append_run, &target);
	se_session_note_archive(commit->query, start);
}

void
se_session_archive_purge(SessionCommit *commit)
{
	ReaderQuery *query = commit->query;
	HASH_SEQ_STATUS status;
	TimestampTz *start;

	if (query->archive == NULL)
		return;
	hash_seq_init(&status, query->archive);
	while ((start = hash_seq_search(&status)) != NULL)
		if (!se_session_is_kept(query, *start + commit->gap, commit->watermark))
		{
			se_state_log_delete(commit->log, query->def->id, *start,
								se_session_archive_end(query, *start));
			(void) hash_search(query->archive, start, HASH_REMOVE, NULL);
		}
}

/* ---- sessions that have been taken out ---- */

void
se_session_archive_forget(SessionCommit *commit)
{
	ReaderQuery *query = commit->query;
	SeMemtable *dead;
	HASH_SEQ_STATUS status;
	TimestampTz *start;

	if (query->revival == NULL || query->archive == NULL)
		return;
	dead = se_memtable_create(query->layout, commit->reader->cycle, 64);
	hash_seq_init(&status, query->archive);
	while ((start = hash_seq_search(&status)) != NULL)
	{
		ArchiveFlush target = flush_to(commit, *start);
		ListCell   *cell;

		se_memtable_reset(dead);
		foreach(cell, query->revival->sessions)
		{
			SeArchived *session = lfirst(cell);

			if (session->bucket == *start && session->state == ARCHIVED_TAKEN)
				(void) se_memtable_add_key(dead, session->group);
		}
		if (se_memtable_ngroups(dead) > 0)
			se_memtable_flush(dead, SE_CHUNK_SIZE, append_tombstones, &target);
	}
	se_memtable_free(dead);
}
