/*
 * sliding.h
 *	  Groups of overlapping windows, without merging all slices for each.
 */
#ifndef SE_SLIDING_H
#define SE_SLIDING_H

#include "close.h"

/*
 * The groups of a window that closes: a table that is valid until the next call
 * here; or NULL: merge the members, there is no better way.  Windows come in the order of their
 * ends; "members" are those of se_window_members.
 */
extern SeMemtable *se_sliding_window(ReaderQuery *query, SeStateLog *log,
									 const SeWindowBounds *window,
									 OpenSlice **members, int nmembers);

/*
 * Take note of the running cycle's rows of slices that have been merged before.  Once in
 * each commit, before se_sliding_window and before the slices are flushed.
 */
extern void se_sliding_learn(ReaderQuery *query);

#endif							/* SE_SLIDING_H */
