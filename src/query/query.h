/*
 * query.h
 *	  A continuous query: from a SELECT to a window plan, and its evaluation.
 *
 * NOTES
 *	  A query's grouped SELECT is split in two.  The incremental part runs on
 *	  each batch of records: WHERE, group keys, aggregate arguments and FILTERs
 *	  are evaluated over the stream's columns.  The finishing part runs on each
 *	  group of a closed window: the output expressions (and HAVING) over the
 *	  "group row": window_start, window_end, the keys, the aggregates' results.
 */
#ifndef SE_QUERY_H
#define SE_QUERY_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "executor/executor.h"
#include "nodes/bitmapset.h"
#include "nodes/parsenodes.h"
#include "parser/parse_node.h"
#include "utils/tuplestore.h"

#include "source/decoder.h"
#include "state/state.h"
#include "window/window.h"

#define SE_MAX_KEYS 30

typedef struct SeKeyColumn
{
	SeKeySpec	spec;
	Expr	   *expr;			/* over the stream: Vars with varno 1 */
	AttrNumber	attnum;			/* when expr is a plain column, else 0 */
	int			output;			/* 1-based output column that shows it */
} SeKeyColumn;

typedef struct SeAggregateCall
{
	Aggref	   *aggref;
	int			nargs;
	Expr	  **args;			/* over the stream */
	AttrNumber *attnums;		/* [arg] when a plain column, else 0 */
	Expr	   *filter;			/* NULL if none */
	SeAggregateMethod method;
} SeAggregateCall;

/* Columns of the group row, 1-based: Vars of the finishing part have varno 1. */
#define SE_GROUP_WINDOW_START 1
#define SE_GROUP_WINDOW_END 2
#define SE_GROUP_FIRST_KEY 3

typedef struct SeQueryPlan
{
	Oid			stream;			/* the foreign table */
	SeWindowSpec window;
	AttrNumber	time_column;	/* the stream's event time, as the window names it */
	AttrNumber	zone_column;	/* each row's own time zone, or 0 */
	int			nkeys;
	SeKeyColumn *keys;
	int			naggs;
	SeAggregateCall *aggs;
	Expr	   *where;			/* NULL if none; one boolean expression */
	Bitmapset  *needed;			/* attribute numbers of the stream */
	List	   *target;			/* TargetEntrys over the group row, no resjunk:
								 * the query's own output columns, without the
								 * window's bounds */
	Expr	   *having;			/* over the group row, or NULL */
	TupleDesc	group_desc;
	TupleDesc	output_desc;	/* of target */
} SeQueryPlan;

/*
 * Check a Query (from parse analysis, not rewritten) and make the plan, in
 * CurrentMemoryContext.  "stream" and "event_time" say which relation is a
 * stream: the callback returns false when relid is none, else its event time
 * column.  Everything that is not supported raises an error with SQLSTATE, hint and, through
 * "pstate" (may be NULL when a stored query is compiled again), a position.
 * "skip_columns" leading target entries are left out of the output (a stored view
 * has window_start and window_end in front).
 */
typedef bool (*SeStreamLookup) (Oid relid, AttrNumber *event_time);
extern SeQueryPlan *se_query_compile(Query *query, ParseState *pstate, SeStreamLookup lookup,
									 int skip_columns);

/*
 * Parse one SELECT with the caller's search_path plus the extension's schema, and
 * analyse it.  Raises errors whose position is inside "text" (through an
 * error context callback that sets internalquery/internalerrposition).
 * *pstate is for se_query_compile.
 */
extern Query *se_query_parse(const char *text, ParseState **pstate);

/*
 * Raise an error unless the current user may read what the query reads; for the
 * Query of a stored view that is the view's owner.  The reader does not go
 * through the executor, so privileges on the stream are checked here or not at all:
 * se_query_compile() does so for a new query, whoever runs a stored one calls it.
 */
extern void se_query_check_permissions(Query *query);

/*
 * The text of the batch view: the same SELECT with the window's lower bound as window_start and
 * upper bound as window_end in front, deparsed with pg_get_querydef.  It is to be parsed under
 * SE_BATCH_SEARCH_PATH: what that finds is not qualified.
 */
#define SE_BATCH_SEARCH_PATH "pg_catalog"
extern char *se_query_batch_sql(Query *query);

/* Rows of validate_query for a plan: name, type, role, note. */
extern void se_query_describe(const SeQueryPlan *plan, Tuplestorestate *store, TupleDesc desc);

/* The whole of validate_query: parse, compile, describe. */
extern void se_query_validate_to_store(const char *text, SeStreamLookup lookup,
									   Tuplestorestate *store, TupleDesc desc);

/*
 * Evaluation of the incremental part, in one process, many batches.
 */
typedef struct SeQueryEval SeQueryEval;

/*
 * Compile in "context".  Columns are read from batches whose decoder was told
 * at least plan->needed.
 */
extern SeQueryEval *se_eval_create(const SeQueryPlan *plan, TupleDesc stream_desc,
								   MemoryContext context);

/*
 * Begin a batch: applies WHERE to rows[0..nrows-1] (ascending) of the batch and keeps
 * those that pass, in place; returns how many.
 */
extern int	se_eval_filter(SeQueryEval *eval, const SeBatch *batch, int *rows, int nrows);

/*
 * Evaluate keys and arguments for rows[0..nrows-1].  Afterwards se_eval_keys
 * gives the nkeys key vectors, se_eval_args those of an aggregate, both
 * indexed by the batch's row numbers.  se_eval_aggregate_rows applies the
 * aggregate's FILTER: from (rows, groups) it writes the passing ones to
 * (rows_out, groups_out) and returns their number; without a FILTER it returns nrows
 * and sets the out pointers to the in pointers.
 */
extern void se_eval_rows(SeQueryEval *eval, const SeBatch *batch, const int *rows, int nrows);
extern const SeVector *se_eval_keys(SeQueryEval *eval);
extern const SeVector *se_eval_args(SeQueryEval *eval, int agg);
extern int	se_eval_aggregate_rows(SeQueryEval *eval, int agg, const int *rows, SeGroup **groups,
								   int nrows, const int **rows_out, SeGroup ***groups_out);

/* Row of the batch under evaluation when an error was raised, -1 if none. */
extern int	se_eval_error_row;

/*
 * The finishing part: fills values/isnull (natts of output_desc) from the
 * group row; false if HAVING refuses the group.  Results are valid until the
 * next call of se_finish_reset.
 */
typedef struct SeQueryFinish SeQueryFinish;
extern SeQueryFinish *se_finish_create(const SeQueryPlan *plan, MemoryContext context);
extern bool se_finish_row(SeQueryFinish *finish, const Datum *group_values,
						  const bool *group_nulls, Datum *values, bool *isnull);
extern void se_finish_reset(SeQueryFinish *finish);

#endif							/* SE_QUERY_H */
