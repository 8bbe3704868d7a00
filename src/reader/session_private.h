/*
 * session_private.h
 *	  Shared by the files of session windows; nobody else includes it.
 */
#ifndef SE_SESSION_PRIVATE_H
#define SE_SESSION_PRIVATE_H

#include "emit.h"
#include "session.h"

/*
 * Aggregates of a session's group behind the query's own, see layout.c.  The first two
 * are of the rows, the others are set by commits: the least revision of the session's
 * next row, and the bounds of the row that shows it while it is open.
 */
enum
{
	SESSION_FIRST, SESSION_LAST, SESSION_REVISION, SESSION_SHOWN_START, SESSION_SHOWN_END
};

/*
 * Set in SESSION_REVISION: the session has taken in one that had been emitted, so that it is
 * complete wherever it begins.
 */
#define SESSION_EMITTED (INT64CONST(1) << 32)

/* Where runs go; a sink for se_memtable_flush. */
typedef struct SessionFlush
{
	SeStateLog *log;
	int32		query;
	const OpenSlice *slice;
	int64		seq;
} SessionFlush;

/* A commit of a session query. */
typedef struct SessionCommit
{
	Reader	   *reader;
	ReaderQuery *query;
	int64		gap;
	int			naggs;
	TimestampTz watermark;
	TimestampTz expiry;			/* sessions that end at it or before are forgotten */
	TimestampTz now;
	SeStateLog *log;
	SeEmission *emission;		/* NULL: nothing is to be emitted */
	SessionFlush flush;
	OpenSlice **slices;			/* ascending; NULL: forgotten */
	int			nslices;
	bool		merged;			/* groups are looked at with those of the cycle */
	bool		expires;		/* sessions are forgotten, and those in ripe buckets carried */
	bool		shows;			/* changes of open sessions are emitted, */
	int64		shown_seq;		/* those since this commit */
	int			nparts;			/* of the keys, that are looked at one by one */
	struct SeBucketParts *parts;	/* [nslices], if they are several */
	TimestampTz next_close;		/* of what stays, in the buckets looked at */
	TimestampTz next_expiry;
} SessionCommit;

/* A session of the archive, while its key's records are retried. */
typedef struct SeArchived
{
	TimestampTz bucket;
	SeMemtable *table;
	SeGroup    *group;
	const SeGroup *key;			/* the same key among those of the batch */
	TimestampTz first;
	TimestampTz last;
	enum
	{
		ARCHIVED_STAYS, ARCHIVED_TAKEN, ARCHIVED_DELETED
	}			state;
} SeArchived;

/* The archived sessions of the keys of retried records, for a cycle. */
typedef struct SeRevival
{
	SeMemtable *keys;
	HTAB	   *by_key;
	List	   *sessions;		/* of SeArchived */
	List	   *tables;			/* that hold them */
} SeRevival;

/* session_archive.c */

/* The end of the slice of the log that archives the bucket which begins at "start". */
static inline TimestampTz
se_session_archive_end(const ReaderQuery *query, TimestampTz start)
{
	return start + query->plan->window.gap + 1;
}

/* Whether the archive keeps a session whose last row is at "last". */
extern bool se_session_is_kept(const ReaderQuery *query, TimestampTz last, TimestampTz watermark);

/* Archive sessions whose last rows lie in the bucket that begins at "start". */
extern void se_session_archive(SessionCommit *commit, TimestampTz start, SeMemtable *sessions);

/* Delete what is not kept any more. */
extern void se_session_archive_purge(SessionCommit *commit);

/* Delete the sessions that retried records have taken out. */
extern void se_session_archive_forget(SessionCommit *commit);

/* session_retry.c */

/* se_session_set_revision for the group that an archived session is part of now. */
extern void se_session_revive_revision(ReaderQuery *query, const SeArchived *session,
									   int64 revision);

/* session_state.c */

extern OpenSlice *se_session_bucket(ReaderQuery *query, TimestampTz start);

/* A table for groups, of the part of the keys that is looked at. */
extern SeMemtable *se_session_table(const ReaderQuery *query, MemoryContext context,
									int64 expected_groups);

/* The committed groups of a bucket; NULL if it has none and "make" is false. */
extern SeMemtable *se_session_base(ReaderQuery *query, OpenSlice *slice, bool make);

/* Between commits: a table with that of "key", or of a row, if it has one; or NULL. */
extern SeMemtable *se_session_base_near(ReaderQuery *query, OpenSlice *slice, const SeGroup *key,
										int row);

/* The keys of these rows will be asked for; one look at the log does for all of them. */
extern void se_session_look_ahead(ReaderQuery *query, const int *rows, int n);

/* The cycle's groups of a bucket are committed: let the partial base, which is there, have them. */
extern void se_session_follow(ReaderQuery *query, OpenSlice *slice);

/* Give back the committed groups of a bucket; what they take or would take, bytes. */
extern void se_session_release(ReaderQuery *query, OpenSlice *slice);
extern Size se_session_base_memory(const ReaderQuery *query, const OpenSlice *slice);

/* The base with the groups of the cycle in it, from then on. */
extern SeMemtable *se_session_merged(ReaderQuery *query, OpenSlice *slice);

/* The table that this commit logs for a bucket, whose base has its groups already. */
extern SeMemtable *se_session_logged(ReaderQuery *query, OpenSlice *slice);

/* What a commit has set in a group, if it has; and setting it. */
extern bool se_session_mark(SeMemtable *table, SeGroup *group, int naggs, int mark, int64 *value);
extern void se_session_set_mark(SeMemtable *table, SeGroup *group, int naggs, int mark,
								int64 value);

/* Let the group's next row have this revision at least, perhaps with SESSION_EMITTED. */
extern void se_session_set_revision(SeMemtable *table, SeGroup *group, int naggs,
									int64 revision);

/* Whether a session may expire at "expiry"; by a look at the buckets. */
extern bool se_session_may_expire(ReaderQuery *query, TimestampTz expiry);

/* session_parts.c */

/* How many parts of so many bytes; and going to one of them. */
extern int	se_session_count_parts(const ReaderQuery *query, Size bytes);
extern void se_session_set_part(ReaderQuery *query, int part, int nparts);

/*
 * A commit in parts; one part is all.  "looks": at groups of the buckets around the watermark.
 * In each part each bucket is flushed that is not ripe.
 */
extern void se_session_parts_begin(SessionCommit *commit, bool looks);
extern void se_session_part_begin(SessionCommit *commit, int n);
extern bool se_session_part_folds(const SessionCommit *commit, int bucket);
extern void se_session_part_end(SessionCommit *commit);
extern void se_session_parts_end(SessionCommit *commit);

/* session_commit.c */

extern bool se_session_worth_folding(const SessionCommit *commit, const OpenSlice *slice);

/* Whether all of a bucket's sessions have expired or are carried. */
static inline bool
se_session_is_ripe(const SessionCommit *commit, const OpenSlice *slice)
{
	return commit->expires && slice->end <= commit->expiry - commit->gap;
}

/* session_emit.c */

/* Whether changes of open sessions are to be emitted. */
extern bool se_session_changes_due(ReaderQuery *query, TimestampTz now);

/* Emit what there is to emit in a query whose rows may be written more than once. */
extern void se_session_emit(SessionCommit *commit);

/*
 * Before "group" of "from" is added to "ahead" of "to": the rows that show them while they
 * are open are deleted, if they are two.
 */
extern void se_session_shown_apart(SessionCommit *commit, SeMemtable *from, SeGroup *group,
								   SeMemtable *to, SeGroup *ahead);

#endif							/* SE_SESSION_PRIVATE_H */
