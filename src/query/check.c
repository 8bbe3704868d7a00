/*
 * check.c
 *	  What a continuous query may not contain.
 *
 * NOTES
 *	  Two kinds of refusals, by their reason:
 *
 *	  - The shape of the query (se_check_shape): what the incremental evaluation
 *		cannot express: joins, subqueries, ranking.
 *	  - Expressions whose value depends on more than the record
 *		(se_check_expression): a result must be the same when the records are read
 *		again, after a crash or by the batch view.  Volatile functions and clocks
 *		are therefore errors.  A dependency on TimeZone is not: the settings of the
 *		definition are kept with the query; the caller is told by a NOTICE.
 *
 *	  Functions are checked twice: as written, so that errors have a position,
 *	  and after planning, which shows what inlined SQL functions call.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "compat/compat.h"
#include "query.h"
#include "query_private.h"

static void
refuse(const char *what, const char *hint, int location, ParseState *pstate)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s not supported in a continuous query", what),
			 hint ? errhint("%s", hint) : 0,
			 parser_errposition(pstate, location)));
}

/* Location of the first item of a DISTINCT or ORDER BY list. */
static int
clause_location(List *clause, Query *query)
{
	if (clause == NIL)
		return -1;
	return exprLocation((Node *) get_sortgroupclause_tle(linitial_node(SortGroupClause, clause),
														 query->targetList)->expr);
}

/*
 * Location of the first node of a kind that the parser has counted but not
 * located.
 */
typedef struct FindContext
{
	NodeTag		tag;
	Node	   *found;
} FindContext;

static bool
find_walker(Node *node, FindContext *context)
{
	if (node == NULL)
		return false;
	if (nodeTag(node) == context->tag)
	{
		context->found = node;
		return true;
	}
	return expression_tree_walker(node, find_walker, context);
}

static int
find_location(Query *query, NodeTag tag)
{
	FindContext context = {tag, NULL};
	ListCell   *cell;

	if (find_walker((Node *) query->targetList, &context) ||
		find_walker(query->jointree->quals, &context) ||
		find_walker(query->havingQual, &context))
		return exprLocation(context.found);
	foreach(cell, query->rtable)
	{
		if (find_walker((Node *) se_rte_group_exprs(lfirst_node(RangeTblEntry, cell)), &context))
			return exprLocation(context.found);
	}
	return -1;
}

static void
check_from(Query *query, ParseState *pstate)
{
	List	   *from = query->jointree->fromlist;
	RangeTblEntry *entry;

	if (from == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous query reads exactly one stream"),
				 errdetail("The query has no FROM clause.")));
	if (list_length(from) > 1 || !IsA(linitial(from), RangeTblRef))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous query reads exactly one stream"),
				 errdetail("Joins are not supported."),
				 errhint("Join the result table instead."),
				 parser_errposition(pstate, se_from_location(pstate,
															 list_length(from) > 1 ? 1 : 0))));

	entry = rt_fetch(linitial_node(RangeTblRef, from)->rtindex, query->rtable);
	if (entry->rtekind != RTE_RELATION)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous query reads exactly one stream"),
				 entry->rtekind == RTE_SUBQUERY ?
				 errdetail("Subqueries in FROM are not supported.") :
				 errdetail("\"%s\" is not a table.", entry->eref->aliasname),
				 parser_errposition(pstate, se_from_location(pstate, 0))));
}

/*
 * Check the clauses of a query.  Afterwards FROM is one relation, and there is no
 * subquery anywhere.
 */
void
se_check_shape(Query *query, ParseState *pstate)
{
	if (query->commandType != CMD_SELECT || query->utilityStmt != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("query is not a SELECT statement")));
	if (query->setOperations != NULL)
		refuse("UNION, INTERSECT and EXCEPT are", NULL, -1, pstate);
	if (query->cteList != NIL)
		refuse("WITH is", NULL,
			   linitial_node(CommonTableExpr, query->cteList)->location, pstate);
	check_from(query, pstate);
	if (query->hasSubLinks)
		refuse("subqueries are", NULL, find_location(query, T_SubLink), pstate);
	if (query->hasWindowFuncs)
		refuse("OVER is", "Apply window functions to the result table.",
			   find_location(query, T_WindowFunc), pstate);
	if (query->groupingSets != NIL)
		refuse("GROUPING SETS, CUBE and ROLLUP are",
			   "Create one query for each grouping.",
			   exprLocation(linitial(query->groupingSets)), pstate);
	if (query->distinctClause != NIL)
		refuse("SELECT DISTINCT is", "Use GROUP BY.",
			   clause_location(query->distinctClause, query), pstate);
	if (query->limitCount != NULL || query->limitOffset != NULL)
		refuse("LIMIT and OFFSET are", "Limit the rows when reading the result table.",
			   exprLocation(query->limitCount ? query->limitCount : query->limitOffset),
			   pstate);
	if (query->sortClause != NIL)
		refuse("ORDER BY is", "Order the rows when reading the result table.",
			   clause_location(query->sortClause, query), pstate);
	if (query->rowMarks != NIL)
		refuse("FOR UPDATE and FOR SHARE are", NULL, -1, pstate);
}

/* ---- functions ---- */

static bool
is_volatile(Oid function, void *context)
{
	return func_volatile(function) == PROVOLATILE_VOLATILE;
}

static bool
is_clock(Oid function, void *context)
{
	switch (function)
	{
		case F_NOW:
		case F_TRANSACTION_TIMESTAMP:
		case F_STATEMENT_TIMESTAMP:
		case F_CLOCK_TIMESTAMP:
		case F_TIMEOFDAY:
		case F_AGE_TIMESTAMPTZ:		/* to the current date */
		case F_AGE_TIMESTAMP:
			return true;
		default:
			return false;
	}
}

/* Functions that tell of the session, as the keywords of check_session_value() do. */
static bool
is_session(Oid function, void *context)
{
	switch (function)
	{
		case F_CURRENT_USER:
		case F_SESSION_USER:
		case F_GETPGUSERNAME:
		case F_CURRENT_SCHEMA:
		case F_CURRENT_SCHEMAS:
		case F_INET_CLIENT_ADDR:
		case F_INET_CLIENT_PORT:
		case F_INET_SERVER_ADDR:
		case F_INET_SERVER_PORT:
		case F_PG_BACKEND_PID:
		case F_PG_MY_TEMP_SCHEMA:
#ifdef F_SYSTEM_USER
		case F_SYSTEM_USER:
#endif
			return true;
		default:
			return false;
	}
}

static void
report_clock(int location, ParseState *pstate)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("functions of the current time are not supported in a continuous query"),
			 errdetail("The result would differ when the same records are read again."),
			 errhint("Use the event time column of the stream."),
			 parser_errposition(pstate, location)));
}

static void
report_session(int location, ParseState *pstate)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("functions of the current session are not supported in a continuous query"),
			 errdetail("The query runs in a background worker."),
			 parser_errposition(pstate, location)));
}

static void
check_session_value(SQLValueFunction *value, ParseState *pstate)
{
	switch (value->op)
	{
		case SVFOP_CURRENT_ROLE:
		case SVFOP_CURRENT_USER:
		case SVFOP_USER:
		case SVFOP_SESSION_USER:
		case SVFOP_CURRENT_CATALOG:
		case SVFOP_CURRENT_SCHEMA:
			report_session(value->location, pstate);
			break;
		default:
			report_clock(value->location, pstate);
	}
}

/* Errors about the functions of one node. */
static void
check_node_functions(Node *node, ParseState *pstate)
{
	SeWindowKind kind;

	if (IsA(node, SQLValueFunction))
		check_session_value((SQLValueFunction *) node, pstate);
	if (check_functions_in_node(node, is_clock, NULL))
		report_clock(exprLocation(node), pstate);
	if (check_functions_in_node(node, is_session, NULL))
		report_session(exprLocation(node), pstate);
	if (IsA(node, NextValueExpr) || check_functions_in_node(node, is_volatile, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("volatile functions are not supported in a continuous query"),
				 errdetail("The result would differ when the same records are read again."),
				 parser_errposition(pstate, exprLocation(node))));
	if (se_window_function(node, &kind) && kind == SE_WINDOW_SESSION)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("session() must be an expression of GROUP BY by itself"),
				 parser_errposition(pstate, exprLocation(node))));
}

static bool
planned_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	check_node_functions(node, NULL);
	return expression_tree_walker(node, planned_walker, NULL);
}

/*
 * Check the functions that planning has brought to light.  Positions are not
 * reported: they are those of the inlined function's text.
 */
void
se_check_planned(Node *expr)
{
	(void) planned_walker(expr, NULL);
}

static bool
expression_walker(Node *node, ParseState *pstate)
{
	if (node == NULL)
		return false;

	switch (nodeTag(node))
	{
		case T_Var:
			if (((Var *) node)->varattno == 0)
				refuse("whole-row references are", "Name the columns.",
					   exprLocation(node), pstate);
			if (((Var *) node)->varattno < 0)
				refuse("system columns are", NULL, exprLocation(node), pstate);
			break;
		case T_SubLink:
			refuse("subqueries are", NULL, exprLocation(node), pstate);
			break;
		case T_WindowFunc:
			refuse("OVER is", NULL, exprLocation(node), pstate);
			break;
		case T_GroupingFunc:
			refuse("GROUPING is", NULL, exprLocation(node), pstate);
			break;
		case T_FuncExpr:
			if (((FuncExpr *) node)->funcretset)
				refuse("set-returning functions are", NULL, exprLocation(node), pstate);
			break;
		case T_OpExpr:
			if (((OpExpr *) node)->opretset)
				refuse("set-returning functions are", NULL, exprLocation(node), pstate);
			break;
		default:
			break;
	}
	check_node_functions(node, pstate);
	return expression_tree_walker(node, expression_walker, pstate);
}

/* Raise an error for anything in an expression that has no place in a query. */
void
se_check_expression(Node *expr, ParseState *pstate)
{
	(void) expression_walker(expr, pstate);
}

/* ---- TimeZone ---- */

/* Is a type, or what it is made of, a time with time zone? */
static bool
has_zone(Oid type)
{
	Oid			part;

	type = getBaseType(type);
	if (OidIsValid(part = get_element_type(type)) ||
		OidIsValid(part = get_range_subtype(type)))
		return has_zone(part);
	if (OidIsValid(part = get_multirange_range(type)))
		return has_zone(part);
	return type == TIMESTAMPTZOID || type == TIMETZOID;
}

static bool
child_has_zone(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, List))
		return expression_tree_walker(node, child_has_zone, context);
	if (IsA(node, TargetEntry))
		node = (Node *) ((TargetEntry *) node)->expr;
	return has_zone(exprType(node));
}

/* Stable built-in functions over times are so because of TimeZone. */
static bool
is_stable_builtin(Oid function, void *context)
{
	switch (function)
	{
		case F_DATE_TRUNC_TEXT_TIMESTAMPTZ_TEXT:	/* these are given a zone */
		case F_MAKE_TIMESTAMPTZ_INT4_INT4_INT4_INT4_INT4_FLOAT8_TEXT:
			return false;
		default:
			return function < FirstUnpinnedObjectId &&
				func_volatile(function) == PROVOLATILE_STABLE;
	}
}

/* extract(epoch from t) is stable only for its sisters' sake. */
static bool
is_epoch(Node *node)
{
	Node	   *field;

	if (!IsA(node, FuncExpr) ||
		(((FuncExpr *) node)->funcid != F_EXTRACT_TEXT_TIMESTAMPTZ &&
		 ((FuncExpr *) node)->funcid != F_DATE_PART_TEXT_TIMESTAMPTZ))
		return false;
	field = linitial(((FuncExpr *) node)->args);
	return IsA(field, Const) && !((Const *) field)->constisnull &&
		pg_strcasecmp(TextDatumGetCString(((Const *) field)->constvalue), "epoch") == 0;
}

static bool
timezone_walker(Node *node, int *location)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, is_stable_builtin, NULL) && !is_epoch(node) &&
		(has_zone(exprType(node)) || expression_tree_walker(node, child_has_zone, NULL)))
	{
		*location = exprLocation(node);
		return true;
	}
	return expression_tree_walker(node, timezone_walker, location);
}

/*
 * Does an expression depend on the setting TimeZone?  If so *location is that of
 * the first part that does.
 */
bool
se_depends_on_timezone(Node *expr, int *location)
{
	return timezone_walker(expr, location);
}
