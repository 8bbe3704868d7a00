/*
 * results.h
 *	  Rows of closed windows into the result table.
 */
#ifndef SE_RESULTS_H
#define SE_RESULTS_H

#include "postgres.h"

#include "access/tupdesc.h"

typedef struct SeResultSink SeResultSink;

/*
 * Open the result table for inserting rows of (window_start, window_end, the
 * columns of "output", is_final, revision, emitted_at), matched by column name.
 * The current user must be the query's owner: its rights, triggers, constraints
 * and defaults apply as for an INSERT of that user.  Needs an active snapshot.
 */
extern SeResultSink *se_results_open(Oid relid, TupleDesc output);

/* Values are copied; "values" has output->natts + 5 elements. */
extern void se_results_insert(SeResultSink *sink, const Datum *values, const bool *nulls);

/* Insert what is buffered, fire AFTER triggers, close.  Returns the rows inserted. */
extern int64 se_results_close(SeResultSink *sink);

#endif							/* SE_RESULTS_H */
