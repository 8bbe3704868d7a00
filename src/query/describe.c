/*
 * describe.c
 *	  What a query is made of, in rows: the answer of validate_query.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "query.h"
#include "query_private.h"

static void
put_row(Tuplestorestate *store, AttInMetadata *metadata, const char *name, Oid type,
		int32 typmod, const char *role, const char *note)
{
	char	   *values[4];

	values[0] = unconstify(char *, name);
	values[1] = format_type_with_typemod(type, typmod);
	values[2] = unconstify(char *, role);
	values[3] = unconstify(char *, note);
	tuplestore_puttuple(store, BuildTupleFromCStrings(metadata, values));
}

static char *
interval_text(const Interval *interval)
{
	Datum		value = IntervalPGetDatum(unconstify(Interval *, interval));

	return DatumGetCString(DirectFunctionCall1(interval_out, value));
}

static char *
window_note(const SeWindowSpec *window)
{
	StringInfoData note;

	if (window->kind == SE_WINDOW_GLOBAL)
		return pstrdup("one window without bounds");
	initStringInfo(&note);
	appendStringInfo(&note, "%s of %s", se_window_name(window->kind),
					 interval_text(&window->size));
	if (window->kind == SE_WINDOW_HOP)
		appendStringInfo(&note, " every %s", interval_text(&window->every));
	if (window->kind == SE_WINDOW_CUMULATE)
		appendStringInfo(&note, " in steps of %s", interval_text(&window->every));
	if (window->has_origin)
		appendStringInfo(&note, " from %s",
						 DatumGetCString(DirectFunctionCall1(timestamptz_out,
															 TimestampTzGetDatum(window->origin))));
	if (window->zone_name != NULL)
		appendStringInfo(&note, " in time zone %s", window->zone_name);
	return note.data;
}

static const char *
method_note(SeAggregateMethod method)
{
	switch (method)
	{
		case SE_AGG_KERNEL:
			return "built-in kernel";
		case SE_AGG_COMBINE:
			return "the aggregate's own functions, with partial states combined";
		case SE_AGG_DISTINCT:
			return "a set of values, over which the aggregate runs when the window closes";
		case SE_AGG_UNSUPPORTED:
			break;
	}
	return "unsupported";
}

static const char *
key_note(const SeKeyColumn *key)
{
	return key->attnum != 0 ? "column of the stream" : "computed from each record";
}

/*
 * A row for each column that the query puts into its result table: name, type,
 * role (window, key, aggregate, expression) and how it is computed.  "desc" has
 * four columns whose types have text input.
 */
void
se_query_describe(const SeQueryPlan *plan, Tuplestorestate *store, TupleDesc desc)
{
	AttInMetadata *metadata = TupleDescGetAttInMetadata(desc);
	AttrNumber	first_aggregate = SE_GROUP_FIRST_KEY + plan->nkeys;
	char	   *window = window_note(&plan->window);
	ListCell   *cell;

	put_row(store, metadata, "window_start", TIMESTAMPTZOID, -1, "window", window);
	put_row(store, metadata, "window_end", TIMESTAMPTZOID, -1, "window", window);
	foreach(cell, plan->target)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		Node	   *expr = (Node *) entry->expr;
		AttrNumber	attnum = IsA(expr, Var) ? ((Var *) expr)->varattno : 0;
		const char *role = "expression";
		const char *note = "computed when the window closes";

		if (attnum >= first_aggregate)
		{
			role = "aggregate";
			note = method_note(plan->aggs[attnum - first_aggregate].method);
		}
		else if (attnum >= SE_GROUP_FIRST_KEY)
		{
			role = "key";
			note = key_note(&plan->keys[attnum - SE_GROUP_FIRST_KEY]);
		}
		else if (attnum > 0)
		{
			role = "window";
			note = window;
		}
		put_row(store, metadata, entry->resname, exprType(expr), exprTypmod(expr),
				role, note);
	}
}

void
se_query_validate_to_store(const char *text, SeStreamLookup lookup,
						   Tuplestorestate *store, TupleDesc desc)
{
	ParseState *pstate;
	Query	   *query = se_query_parse(text, &pstate);

	se_query_describe(se_query_compile(query, pstate, lookup, 0), store, desc);
}
