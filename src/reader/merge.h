/*
 * merge.h
 *	  A reader that has caught up hands its queries over to another one.
 */
#ifndef SE_MERGE_H
#define SE_MERGE_H

#include "reader.h"

/*
 * To be called between drains, outside of a transaction: looks for a reader to
 * merge into when it is time, follows the one that was found, gives up when that
 * takes too long.
 */
extern void se_merge_look(Reader *reader, TimestampTz now);

/* When it wants to be called again; DT_NOEND if it does not matter. */
extern TimestampTz se_merge_next_look(const Reader *reader);

/* While merging: whether the reader stands just where the other one does. */
extern bool se_merge_reached(const Reader *reader);

/* While merging: whether there is something to be read up to there. */
extern bool se_merge_may_read(const Reader *reader);

/* Whether a commit is wanted in which the merge can happen. */
extern bool se_merge_wants_commit(Reader *reader);

/*
 * Move the records of a batch that lie before the other reader's positions to its
 * front; returns their number.  The others are left unread; when those have been
 * processed se_merge_pass takes note of what the others tell.
 */
extern int	se_merge_clip(Reader *reader, SeSourceBatch *batch);
extern void se_merge_pass(Reader *reader, const SeSourceBatch *batch, int first);

/* How far a partition's end of data, at "offset", may be believed now. */
extern int64 se_merge_clip_end(const Reader *reader, int32 partition, int64 offset);

/*
 * In the commit's transaction, when all else is written, in a catalog scope: hand
 * the queries over if everything fits.  True: this reader has no queries left, and
 * its process leaves after the commit.
 */
extern bool se_merge_apply(Reader *reader, TimestampTz watermark, TimestampTz now);

/* It has been committed. */
extern void se_merge_done(const Reader *reader);

#endif							/* SE_MERGE_H */
