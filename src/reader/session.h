/*
 * session.h
 *	  Session windows by gap buckets.
 */
#ifndef SE_SESSION_H
#define SE_SESSION_H

#include "reader.h"

/*
 * Take rows[0..n-1] (ascending) of a batch into a session query.  Returns how
 * many were taken: less than n when a session that has expired must be forgotten, by a
 * commit, before rows[result] can be judged.
 */
extern int	se_session_process(Reader *reader, ReaderQuery *query, const SeBatch *batch,
							   const SeRecord *records, int *rows, int n,
							   const TimestampTz *row_watermark);

/* Whether a commit at "watermark" would write result rows of a session query. */
extern bool se_session_emits(ReaderQuery *query, TimestampTz watermark, TimestampTz now);

/*
 * In the commit: emit the sessions that end at "watermark" or before, log what
 * stays.  Takes the place of se_close_windows and se_flush_slices.
 */
extern void se_session_commit(Reader *reader, ReaderQuery *query, TimestampTz watermark,
							  TimestampTz now);

/* The bucket to which a row of the bucket [*start, *end) is added. */
extern void se_session_place(const ReaderQuery *query, TimestampTz *start, TimestampTz *end);

/* Take notice of rows that are added to a bucket. */
extern void se_session_touch(ReaderQuery *query, const OpenSlice *slice);

/* Bound what each of the reader's session queries keeps in memory. */
extern void se_session_share_memory(Reader *reader);

/* A lower bound of when the next session ends. */
extern TimestampTz se_session_next_close(ReaderQuery *query);

/* When the last session of the state ends; DT_NOBEGIN if there is none. */
extern TimestampTz se_session_latest_end(ReaderQuery *query);

/*
 * First and last event time of a session's group; "naggs" are the query's own
 * aggregates.
 */
extern void se_session_bounds(SeMemtable *table, SeGroup *group, int naggs, TimestampTz *first,
							  TimestampTz *last);

/* Whether "next", a group of the bucket behind, goes on the session that ended at "last". */
extern bool se_session_continues(SeMemtable *next_table, SeGroup *next, int naggs,
								 TimestampTz last, int64 gap);

/* Whether a session's group says that it has taken in one which had been emitted. */
extern bool se_session_was_emitted(const SeQueryDef *def, SeMemtable *table, SeGroup *group,
								   int naggs);

/* Load a bucket's groups with hashes within a range from the log, tombstones applied. */
extern void se_session_load(SeStateLog *log, int32 query, TimestampTz start, TimestampTz end,
							uint32 low, uint32 high, SeMemtable *table);

/*
 * Whether a session's row may be written more than once: corrected after its end, or shown
 * before.
 */
static inline bool
se_session_revises(const SeQueryDef *def)
{
	return def->allowed_lateness > 0 || def->correction_horizon > 0 ||
		strcmp(def->emit, "changes") == 0;
}

/* Whether sessions that have expired are kept apart, see session_archive.c. */
static inline bool
se_session_archives(const SeQueryDef *def)
{
	return def->correction_horizon > def->allowed_lateness;
}

/* Whether a slice of the state log holds such sessions. */
static inline bool
se_session_is_archive(const SeQueryPlan *plan, TimestampTz start, TimestampTz end)
{
	return plan->window.kind == SE_WINDOW_SESSION && end - start > plan->window.gap;
}

/* Take notice of such a slice, which the log has. */
extern void se_session_note_archive(ReaderQuery *query, TimestampTz start);

/* What se_session_process does with late records that are retried; it takes them all. */
extern void se_session_retry(Reader *reader, ReaderQuery *query, const SeBatch *batch,
							 const SeRecord *records, const int *rows, int n,
							 const TimestampTz *row_watermark);

#endif							/* SE_SESSION_H */
