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
	TimestampTz next_close;		/* of what stays, in the buckets looked at */
	TimestampTz next_expiry;
} SessionCommit;

/* session_state.c */

extern OpenSlice *se_session_bucket(ReaderQuery *query, TimestampTz start);

/* The committed groups of a bucket; NULL if it has none and "make" is false. */
extern SeMemtable *se_session_base(ReaderQuery *query, OpenSlice *slice, bool make);

/* The base with the groups of the cycle in it, from then on. */
extern SeMemtable *se_session_merged(ReaderQuery *query, OpenSlice *slice);

/* The table that this commit logs for a bucket, whose base has its groups already. */
extern SeMemtable *se_session_logged(ReaderQuery *query, OpenSlice *slice);

/* What a commit has set in a group, if it has; and setting it. */
extern bool se_session_mark(SeMemtable *table, SeGroup *group, int naggs, int mark, int64 *value);
extern void se_session_set_mark(SeMemtable *table, SeGroup *group, int naggs, int mark,
								int64 value);

/* Whether a session may expire at "expiry"; by a look at the buckets. */
extern bool se_session_may_expire(ReaderQuery *query, TimestampTz expiry);

/* session_emit.c */

/* Emit what there is to emit in a query whose rows may be written more than once. */
extern void se_session_emit(SessionCommit *commit);

/*
 * Before "group" of "from" is added to "ahead" of "to": the rows that show them while they
 * are open are deleted, if they are two.
 */
extern void se_session_shown_apart(SessionCommit *commit, SeMemtable *from, SeGroup *group,
								   SeMemtable *to, SeGroup *ahead);

#endif							/* SE_SESSION_PRIVATE_H */
