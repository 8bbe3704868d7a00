/*
 * results.h
 *	  Rows of closed windows into the result table.
 */
#ifndef SE_RESULTS_H
#define SE_RESULTS_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "datatype/timestamp.h"

#include "query/query.h"

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

/*
 * Rows that may be in the table already are found by window and keys: "plan" is
 * that of the query, and must live as long as the sink.  Needed once, before any
 * of the functions below.
 */
extern void se_results_set_keys(SeResultSink *sink, const SeQueryPlan *plan);

/*
 * Insert a row, or write its values over the row of the same window and keys, whose
 * revision grows by one, or to that in "values" if it is larger.  Without "always" a row
 * whose output columns and is_final would stay the same is left alone.
 */
extern void se_results_upsert(SeResultSink *sink, const Datum *values, const bool *nulls,
							  bool always);

/* Delete the row of the same window and keys.  Returns its revision, -1 if there is none. */
extern int64 se_results_delete(SeResultSink *sink, const Datum *values, const bool *nulls);

/* Whether there are rows of a window. */
extern bool se_results_exist(SeResultSink *sink, TimestampTz window_start, TimestampTz window_end);

/* Make all rows of a window final that are not; or delete these. */
extern void se_results_finalize(SeResultSink *sink, TimestampTz window_start,
								TimestampTz window_end, TimestampTz emitted_at);
extern void se_results_withdraw(SeResultSink *sink, TimestampTz window_start,
								TimestampTz window_end);

/* Delete rows that are not final, of windows that start before one time and end behind another. */
extern void se_results_hide(SeResultSink *sink, TimestampTz before, TimestampTz behind);

/* Insert what is buffered, fire AFTER triggers, close.  Returns the rows inserted or updated. */
extern int64 se_results_close(SeResultSink *sink);

#endif							/* SE_RESULTS_H */
