/*
 * emit.h
 *	  One result row of a group: finishing expressions, then the result table.
 */
#ifndef SE_EMIT_H
#define SE_EMIT_H

#include "reader.h"

typedef struct SeEmission SeEmission;

/*
 * Begin to emit rows of a query in the commit's transaction, in "context".  The
 * caller has switched to the query's owner.
 */
extern SeEmission *se_emission_begin(ReaderQuery *query, TimestampTz now, MemoryContext context);

/*
 * Emit the row of "group" for the window [start, end), unless HAVING refuses
 * it.  A fresh row must not be in the table yet.  The second is for a window that
 * is open: its row is not final.
 */
extern void se_emission_fresh(SeEmission *emission, SeMemtable *table, SeGroup *group,
							  TimestampTz start, TimestampTz end);
extern void se_emission_fresh_open(SeEmission *emission, SeMemtable *table, SeGroup *group,
								   TimestampTz start, TimestampTz end);

/*
 * The same for a row that may be in the table: it is replaced, its revision
 * grows; it is deleted when HAVING refuses it.  A row that is not final is left
 * alone when it would stay the same.
 */
extern void se_emission_replace(SeEmission *emission, SeMemtable *table, SeGroup *group,
								TimestampTz start, TimestampTz end, bool is_final);

/*
 * For windows whose bounds move: insert a row with a revision; write over the row with the
 * same bounds, with a revision of at least that; delete it (its revision, or -1 if
 * there is none).
 */
extern void se_emission_insert(SeEmission *emission, SeMemtable *table, SeGroup *group,
							   TimestampTz start, TimestampTz end, bool is_final, int32 revision);
extern void se_emission_rewrite(SeEmission *emission, SeMemtable *table, SeGroup *group,
								TimestampTz start, TimestampTz end, bool is_final,
								int32 revision);
extern int64 se_emission_delete(SeEmission *emission, SeMemtable *table, SeGroup *group,
								TimestampTz start, TimestampTz end);

/* Whether the table has rows of a window. */
extern bool se_emission_exists(SeEmission *emission, TimestampTz start, TimestampTz end);

/* Make the other rows of a window final, or delete those that are not. */
extern void se_emission_finalize(SeEmission *emission, TimestampTz start, TimestampTz end);
extern void se_emission_withdraw(SeEmission *emission, TimestampTz start, TimestampTz end);

/* Delete rows that are not final, of windows that start before one time and end behind another. */
extern void se_emission_hide(SeEmission *emission, TimestampTz before, TimestampTz behind);

/* Flush; adds to the query's rows_out. */
extern void se_emission_end(SeEmission *emission);

/* first_window.c */
extern void se_hide_incomplete(ReaderQuery *query, SeEmission *emission);

#endif							/* SE_EMIT_H */
