/*
 * global.h
 *	  The global window: running totals of each key, emitted by triggers.
 */
#ifndef SE_GLOBAL_H
#define SE_GLOBAL_H

#include "reader.h"

/*
 * Advance the aggregates of groups[i], which are in slice->table, with rows[i], in
 * this order, and keep the totals of the keys whose count trigger fires on the way.
 */
extern void se_global_update(ReaderQuery *query, const SeBatch *batch, OpenSlice *slice,
							 const int *rows, SeGroup **groups, int n);

/* After rows were added: whether a count trigger wants a commit at once. */
extern bool se_global_fires(ReaderQuery *query);

/* Whether a commit at "now" would write result rows. */
extern bool se_global_emits(ReaderQuery *query, TimestampTz now);

/* When the interval trigger wants a commit; DT_NOEND if it does not. */
extern TimestampTz se_global_due(ReaderQuery *query);

/*
 * In the commit: emit the keys whose trigger fires, log what is new.  Takes the
 * place of se_close_windows and se_flush_slices.
 */
extern void se_global_commit(Reader *reader, ReaderQuery *query, TimestampTz watermark,
							 TimestampTz now);

#endif							/* SE_GLOBAL_H */
