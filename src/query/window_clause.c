/*
 * window_clause.c
 *	  The window of a query: finding it in GROUP BY, reading its arguments.
 *
 * NOTES
 *	  A window function is told by what it is, not by how it is called: a function
 *	  that belongs to the extension and was made with one of four names.  A user's own
 *	  tumble() is an ordinary function; ours may have been given another name.
 *
 *	  Arguments may be given by name and left to their defaults; parse analysis
 *	  keeps them as they were written, so the planner's routines put them in
 *	  order and fold them to constants here.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/dependency.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "funcapi.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat/compat.h"
#include "engine/engine.h"
#include "query.h"
#include "query_private.h"
#include "source/vector.h"

#define EXTENSION_NAME "stream_engine"

static const char *const window_names[] = {
	[SE_WINDOW_TUMBLE] = "tumble",
	[SE_WINDOW_HOP] = "hop",
	[SE_WINDOW_CUMULATE] = "cumulate",
	[SE_WINDOW_SESSION] = "session"
};

/* Name of the SQL function; not for SE_WINDOW_GLOBAL, which has none. */
const char *
se_window_name(SeWindowKind kind)
{
	return window_names[kind];
}

/*
 * The name that a window function was installed with, whatever it is called by now: that of its
 * C function.  Those that only refuse times without a zone share one.
 */
static char *
original_name(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	char	   *name = NULL;
	Datum		source;
	bool		isnull;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);
	if (!isnull)
	{
		name = TextDatumGetCString(source);
		if (strcmp(name, "se_window_needs_zone") == 0)
			name = pstrdup(NameStr(((Form_pg_proc) GETSTRUCT(tuple))->proname));
		else
			name = strncmp(name, "se_", 3) == 0 ? name + 3 : NULL;
	}
	ReleaseSysCache(tuple);
	return name;
}

/* Is expr a call of one of the extension's window functions? */
bool
se_window_function(Node *expr, SeWindowKind *kind)
{
	Oid			function;
	char	   *name;

	if (expr == NULL || !IsA(expr, FuncExpr))
		return false;
	function = ((FuncExpr *) expr)->funcid;
	name = original_name(function);
	if (name == NULL)
		return false;

	for (int i = 0; i < lengthof(window_names); i++)
	{
		if (strcmp(name, window_names[i]) == 0)
		{
			Oid			extension = getExtensionOfObject(ProcedureRelationId, function);

			if (!OidIsValid(extension) ||
				extension != get_extension_oid(EXTENSION_NAME, true))
				return false;
			*kind = (SeWindowKind) i;
			return true;
		}
	}
	return false;
}

static bool
find_window_walker(Node *node, Node **found)
{
	SeWindowKind kind;

	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr) && se_window_function(node, &kind))
	{
		*found = node;
		return true;
	}
	return expression_tree_walker(node, find_window_walker, found);
}

/* A window inside another expression would make a global window of the query. */
static void
refuse_hidden_window(Query *query, ParseState *pstate)
{
	Node	   *found = NULL;
	ListCell   *cell;

	foreach(cell, query->targetList)
	{
		Node	   *expr = (Node *) lfirst_node(TargetEntry, cell)->expr;

		if (find_window_walker(se_flatten_group_exprs(query, expr), &found))
			break;
	}
	if (found != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a window must be an expression of GROUP BY by itself"),
				 errhint("Add it to GROUP BY; expressions over it may then stand in the SELECT list."),
				 parser_errposition(pstate, exprLocation(found))));
}

/*
 * The target entry that is the window in GROUP BY, or NULL and SE_WINDOW_GLOBAL
 * if the query has none.  Raises an error for a second one.  The entry's expr is
 * as it stands in the Query (on PostgreSQL 18 a reference to a grouping step).
 */
TargetEntry *
se_window_target(Query *query, SeWindowKind *kind, ParseState *pstate)
{
	TargetEntry *window = NULL;
	ListCell   *cell;

	*kind = SE_WINDOW_GLOBAL;
	foreach(cell, query->groupClause)
	{
		TargetEntry *entry = get_sortgroupclause_tle(lfirst_node(SortGroupClause, cell),
													 query->targetList);
		Node	   *expr = se_flatten_group_exprs(query, (Node *) entry->expr);
		SeWindowKind this_kind;

		if (!se_window_function(expr, &this_kind))
			continue;
		if (window != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a continuous query has exactly one window"),
					 errhint("Create one query for each window."),
					 parser_errposition(pstate, exprLocation(expr))));
		window = entry;
		*kind = this_kind;
	}
	if (window == NULL)
		refuse_hidden_window(query, pstate);
	return window;
}

/* The arguments in the order of the declaration, defaults filled in. */
static List *
ordered_arguments(FuncExpr *window, char ***names)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(window->funcid));
	Datum		arg_names;
	Datum		arg_modes;
	bool		no_names;
	bool		no_modes;
	List	   *args;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", window->funcid);
	args = expand_function_arguments(copyObject(window->args), false,
									 window->funcresulttype, tuple);
	arg_names = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proargnames, &no_names);
	arg_modes = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proargmodes, &no_modes);
	if (no_names ||
		get_func_input_arg_names(arg_names, no_modes ? (Datum) 0 : arg_modes,
								 names) != list_length(args))
		elog(ERROR, "arguments of window function %u have no names", window->funcid);
	ReleaseSysCache(tuple);
	return args;
}

static Node *
strip_relabels(Node *expr)
{
	while (expr != NULL && IsA(expr, RelabelType))
		expr = (Node *) ((RelabelType *) expr)->arg;
	return expr;
}

static void
check_time_argument(Node *arg, SeWindowKind kind, Oid stream, AttrNumber event_time,
					int location, ParseState *pstate)
{
	Node	   *stripped = strip_relabels(arg);

	if (exprLocation(arg) >= 0)
		location = exprLocation(arg);
	if (event_time == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" has no event time column", get_rel_name(stream)),
				 errdetail("Windows are formed by event time."),
				 parser_errposition(pstate, location)));
	if (IsA(stripped, Var) && ((Var *) stripped)->varattno == event_time)
		return;
	if (exprType(arg) == TIMESTAMPOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("window function %s does not take a timestamp without time zone",
						se_window_name(kind)),
				 errhint("The event time column of stream \"%s\" is \"%s\"; in a batch query use AT TIME ZONE.",
						 get_rel_name(stream), get_attname(stream, event_time, false)),
				 parser_errposition(pstate, location)));
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("first argument of window function %s is not the event time of stream \"%s\"",
					se_window_name(kind), get_rel_name(stream)),
			 errhint("Use column \"%s\".", get_attname(stream, event_time, false)),
			 parser_errposition(pstate, location)));
}

/*
 * Fold an argument.  Returns false for NULL, which is an error unless the
 * argument is optional.
 */
static bool
constant_argument(Node *arg, const char *name, SeWindowKind kind, bool optional,
				  int location, ParseState *pstate, Datum *value)
{
	Node	   *folded = eval_const_expressions(NULL, arg);

	if (exprLocation(arg) >= 0)
		location = exprLocation(arg);
	if (!IsA(folded, Const))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("argument \"%s\" of window function %s must be a constant",
						name, se_window_name(kind)),
				 parser_errposition(pstate, location)));
	if (((Const *) folded)->constisnull)
	{
		if (!optional)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument \"%s\" of window function %s must not be null",
							name, se_window_name(kind)),
					 parser_errposition(pstate, location)));
		return false;
	}
	*value = ((Const *) folded)->constvalue;
	return true;
}

/* The column that an argument is, where rows may have their own; 0 if it is none. */
static AttrNumber
column_argument(Node *arg, SeWindowKind kind)
{
	Var		   *var = (Var *) strip_relabels(arg);

	if (kind == SE_WINDOW_SESSION || !IsA(var, Var) || var->varattno <= 0 || var->varlevelsup > 0)
		return 0;
	return se_rep_of_type(var->vartype) == SE_REP_TEXT ? var->varattno : 0;
}

/*
 * Read the arguments of a window function into *spec and compile that.  Memory
 * of the spec is palloc'd in CurrentMemoryContext.  *zone_column is set when the rows
 * have time zones of their own.  Errors have the position of
 * the argument, or that of the function where it is left out.
 */
void
se_window_clause(FuncExpr *window, SeWindowKind kind, Oid stream, AttrNumber event_time,
				 ParseState *pstate, SeWindowSpec *spec, AttrNumber *zone_column)
{
	char	  **names;
	List	   *args = ordered_arguments(window, &names);
	ParseCallbackState callback;

	memset(spec, 0, sizeof(*spec));
	spec->kind = kind;

	for (int i = 0; i < list_length(args); i++)
	{
		Node	   *arg = list_nth(args, i);
		const char *name = names[i];
		Datum		value;

		if (i == 0)
			check_time_argument(arg, kind, stream, event_time, window->location, pstate);
		else if (strcmp(name, "size") == 0 || strcmp(name, "gap") == 0)
		{
			constant_argument(arg, name, kind, false, window->location, pstate, &value);
			spec->size = *DatumGetIntervalP(value);
		}
		else if (strcmp(name, "every") == 0 || strcmp(name, "step") == 0)
		{
			constant_argument(arg, name, kind, false, window->location, pstate, &value);
			spec->every = *DatumGetIntervalP(value);
		}
		else if (strcmp(name, "origin") == 0)
		{
			spec->has_origin = constant_argument(arg, name, kind, true, window->location,
												 pstate, &value);
			if (spec->has_origin)
				spec->origin = DatumGetTimestampTz(value);
		}
		else if (strcmp(name, "time_zone") == 0)
		{
			*zone_column = column_argument(arg, kind);
			if (*zone_column == 0 &&
				constant_argument(arg, name, kind, true, window->location, pstate, &value))
				spec->zone_name = TextDatumGetCString(value);
		}
		else
			elog(ERROR, "window function %s has an unknown argument \"%s\"",
				 se_window_name(kind), name);
	}

	if (pstate != NULL)
		setup_parser_errposition_callback(&callback, pstate, window->location);
	/* the setting is that of whoever creates a query, its readers may have another one */
	se_window_spec_init(spec, pstate != NULL ? se_max_slices : 0);
	spec->by_window = *zone_column != 0 && kind != SE_WINDOW_TUMBLE;
	if (pstate != NULL)
		cancel_parser_errposition_callback(&callback);
}
