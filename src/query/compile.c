/*
 * compile.c
 *	  From the Query of a grouped SELECT to a plan: keys, aggregates, output.
 *
 * NOTES
 *	  The output is made by replacing, from the top of each output expression
 *	  down, whatever equals a group key, the window or an aggregate by a column
 *	  of the group row.  Parse analysis has proved that nothing of the stream is
 *	  left then.  Matching is done on the expressions as parse analysis left them;
 *	  only then they are planned, so that folding cannot make equals differ.
 *
 *	  The same code compiles the text that a user gives and the stored batch view,
 *	  whose two leading columns are skipped: so what is run is what is stored.
 *
 *	  A plan holds no catalog references but OIDs; whoever keeps it compiles
 *	  again when the view or the stream changes.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_oper.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "source/vector.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rangetypes.h"
#include "utils/regproc.h"
#include "utils/typcache.h"

#include "compat/compat.h"
#include "query.h"
#include "query_private.h"

/* A compilation under way. */
typedef struct Compiler
{
	Query	   *query;			/* a copy; Vars of the stream have varno 1 */
	ParseState *pstate;
	SeQueryPlan *plan;
	List	   *group_exprs;	/* of the keys, as analysed, in order */
	Expr	   *window_expr;	/* as analysed; NULL for a global window */
	List	   *aggrefs;		/* of the aggregates, as analysed, in order */
	int			timezone_location;	/* -1 unless something depends on TimeZone */
	bool		timezone;
} Compiler;

/* Columns that each result table has. */
static const char *const reserved_columns[] = {
	"window_start", "window_end", "is_final", "revision", "emitted_at"
};

static void
note_timezone(Compiler *compiler, Expr *expr)
{
	if (compiler->pstate != NULL && !compiler->timezone)
		compiler->timezone = se_depends_on_timezone((Node *) expr,
													&compiler->timezone_location);
}

/* Check an expression and plan it. */
static Expr *
plan_expression(Compiler *compiler, Expr *expr)
{
	se_check_expression((Node *) expr, compiler->pstate);
	note_timezone(compiler, expr);
	expr = expression_planner((Expr *) copyObject(expr));
	se_check_planned((Node *) expr);
	return expr;
}

/*
 * The attribute number of an expression whose vector is that of a column: a
 * column itself, or one under a change of type that changes neither the value nor
 * its representation.  Else 0.
 */
static AttrNumber
plain_column(Expr *expr)
{
	Node	   *arg = (Node *) expr;

	while (IsA(arg, RelabelType))
		arg = (Node *) ((RelabelType *) arg)->arg;
	if (!IsA(arg, Var) ||
		se_rep_of_type(exprType(arg)) != se_rep_of_type(exprType((Node *) expr)))
		return 0;
	return ((Var *) arg)->varattno;
}

static void
add_needed(SeQueryPlan *plan, Expr *expr)
{
	Bitmapset  *attributes = NULL;
	int			member = -1;

	pull_varattnos((Node *) expr, 1, &attributes);
	while ((member = bms_next_member(attributes, member)) >= 0)
		plan->needed = bms_add_member(plan->needed,
									  member + FirstLowInvalidHeapAttributeNumber);
	bms_free(attributes);
}

/* ---- FROM ---- */

/*
 * Where GROUP BY's expressions are held apart, the columns among them have lost
 * their location on the way back into the target list.
 */
static void
restore_locations(Query *query)
{
	ListCell   *entry_cell;
	ListCell   *group_cell;
	ListCell   *target_cell;

	foreach(entry_cell, query->rtable)
	{
		foreach(group_cell, se_rte_group_exprs(lfirst_node(RangeTblEntry, entry_cell)))
		{
			foreach(target_cell, query->targetList)
			{
				Expr	   *expr = lfirst_node(TargetEntry, target_cell)->expr;

				if (IsA(expr, Var) && ((Var *) expr)->location < 0 &&
					equal(expr, lfirst(group_cell)))
					((Var *) expr)->location = exprLocation(lfirst(group_cell));
			}
		}
	}
}

static void
compile_stream(Compiler *compiler, SeStreamLookup lookup)
{
	Query	   *query = compiler->query;
	int			varno = linitial_node(RangeTblRef, query->jointree->fromlist)->rtindex;
	RangeTblEntry *entry = rt_fetch(varno, query->rtable);
	SeQueryPlan *plan = compiler->plan;

	plan->stream = entry->relid;
	LockRelationOid(plan->stream, AccessShareLock);
	if (!lookup(plan->stream, &plan->time_column))
	{
		char	   *name = get_rel_name(plan->stream);

		if (name == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("the stream of the query does not exist any more")));
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a stream", name),
				 errhint("Streams are made by stream_engine.create_stream()."),
				 parser_errposition(compiler->pstate,
									se_from_location(compiler->pstate, 0))));
	}

	if (compiler->pstate != NULL)
		se_query_check_permissions(query);

	query->targetList = (List *) se_flatten_group_exprs(query, (Node *) query->targetList);
	query->havingQual = se_flatten_group_exprs(query, query->havingQual);
	restore_locations(query);
	if (varno != 1)
	{
		ChangeVarNodes((Node *) query->targetList, varno, 1, 0);
		ChangeVarNodes(query->jointree->quals, varno, 1, 0);
		ChangeVarNodes(query->havingQual, varno, 1, 0);
	}
}

static void
compile_where(Compiler *compiler)
{
	SeQueryPlan *plan = compiler->plan;
	Expr	   *where = (Expr *) compiler->query->jointree->quals;

	if (where == NULL)
		return;
	where = plan_expression(compiler, where);
	if (IsA(where, Const) && !((Const *) where)->constisnull &&
		DatumGetBool(((Const *) where)->constvalue))
		return;
	plan->where = where;
	add_needed(plan, where);
}

/* ---- GROUP BY ---- */

static void
compile_window(Compiler *compiler)
{
	SeQueryPlan *plan = compiler->plan;
	SeWindowKind kind;
	TargetEntry *window = se_window_target(compiler->query, &kind, compiler->pstate);

	if (window == NULL)
	{
		plan->window.kind = SE_WINDOW_GLOBAL;
		se_window_spec_init(&plan->window, 1);
		return;
	}
	compiler->window_expr = window->expr;
	se_window_clause(castNode(FuncExpr, window->expr), kind, plan->stream,
					 plan->time_column, compiler->pstate, &plan->window,
					 &plan->zone_column);
	if (plan->zone_column != 0)
		plan->needed = bms_add_member(plan->needed, plan->zone_column);
	plan->needed = bms_add_member(plan->needed, plan->time_column);
}

static void
compile_key(Compiler *compiler, TargetEntry *entry, SeKeyColumn *key)
{
	Node	   *expr = (Node *) entry->expr;
	int			location = exprLocation(expr);
	bool		hashable;

	key->spec.type = exprType(expr);
	key->spec.typmod = exprTypmod(expr);
	key->spec.collation = exprCollation(expr);
	get_sort_group_operators(key->spec.type, false, false, false,
							 &key->spec.sort_opr, &key->spec.eq_opr, NULL, &hashable);
	if (!hashable || !OidIsValid(key->spec.sort_opr) || !OidIsValid(key->spec.eq_opr))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("type %s cannot be a group key of a continuous query",
						format_type_be(key->spec.type)),
				 errdetail("Group keys are of types that have a hash and a btree operator class."),
				 parser_errposition(compiler->pstate, location)));
	if (type_is_collatable(key->spec.type) && !OidIsValid(key->spec.collation))
		ereport(ERROR,
				(errcode(ERRCODE_INDETERMINATE_COLLATION),
				 errmsg("could not determine which collation to use for a group key"),
				 errhint("Use the COLLATE clause to set the collation explicitly."),
				 parser_errposition(compiler->pstate, location)));

	key->expr = plan_expression(compiler, entry->expr);
	key->attnum = plain_column(key->expr);
	add_needed(compiler->plan, key->expr);
}

static void
compile_keys(Compiler *compiler)
{
	Query	   *query = compiler->query;
	SeQueryPlan *plan = compiler->plan;
	int			nkeys = list_length(query->groupClause) - (compiler->window_expr ? 1 : 0);
	ListCell   *cell;

	plan->keys = palloc0(sizeof(SeKeyColumn) * Max(nkeys, 1));
	foreach(cell, query->groupClause)
	{
		TargetEntry *entry = get_sortgroupclause_tle(lfirst_node(SortGroupClause, cell),
													 query->targetList);

		if (entry->expr == compiler->window_expr)
			continue;
		if (plan->nkeys == SE_MAX_KEYS)
			ereport(ERROR,
					(errcode(ERRCODE_TOO_MANY_COLUMNS),
					 errmsg("a continuous query has at most %d group keys", SE_MAX_KEYS),
					 parser_errposition(compiler->pstate,
										exprLocation((Node *) entry->expr))));
		compile_key(compiler, entry, &plan->keys[plan->nkeys++]);
		compiler->group_exprs = lappend(compiler->group_exprs, entry->expr);
	}
}

/* ---- aggregates ---- */

/* Hint for an aggregate that could be taken over distinct values. */
static int
tell_of_distinct(const Aggref *aggref)
{
	TypeCacheEntry *type;

	if (aggref->aggkind != AGGKIND_NORMAL || aggref->aggdistinct != NIL || aggref->aggvariadic ||
		get_func_namespace(aggref->aggfnoid) != PG_CATALOG_NAMESPACE ||
		aggref->aggargtypes == NIL)
		return 0;
	for (int i = 1; i < list_length(aggref->aggargtypes); i++)
		if (!IsA(list_nth_node(TargetEntry, aggref->args, i)->expr, Const))
			return 0;
	type = lookup_type_cache(linitial_oid(aggref->aggargtypes),
							 TYPECACHE_CMP_PROC | TYPECACHE_HASH_PROC);
	if (!OidIsValid(type->cmp_proc) || !OidIsValid(type->hash_proc))
		return 0;
	return errhint("Over distinct values it is, as %s(DISTINCT ...).",
				   get_func_name(aggref->aggfnoid));
}

static void
refuse_aggregate(Aggref *aggref, const char *what, ParseState *pstate)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("aggregate %s(%s) is not supported in a continuous query",
					get_func_name(aggref->aggfnoid), what),
			 tell_of_distinct(aggref),
			 parser_errposition(pstate, aggref->location)));
}

static SeAggregateMethod
check_aggregate(Aggref *aggref, ParseState *pstate)
{
	const char *reason = NULL;
	SeAggregateMethod method;

	if (aggref->aggkind != AGGKIND_NORMAL)
		refuse_aggregate(aggref, "... WITHIN GROUP", pstate);
	if (aggref->aggorder != NIL && aggref->aggdistinct == NIL)
		refuse_aggregate(aggref, "ORDER BY", pstate);
	if (aggref->aggvariadic)
		refuse_aggregate(aggref, "VARIADIC", pstate);

	method = se_aggregate_method(aggref, &reason);
	if (method == SE_AGG_UNSUPPORTED)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("aggregate %s is not supported in a continuous query",
						format_procedure(aggref->aggfnoid)),
				 reason ? errdetail("%s", reason) : 0,
				 tell_of_distinct(aggref),
				 parser_errposition(pstate, aggref->location)));
	return method;
}

static void
compile_aggregate(Compiler *compiler, Aggref *aggref, SeAggregateCall *call)
{
	int			argno = 0;
	ListCell   *cell;

	call->aggref = aggref;
	call->method = check_aggregate(aggref, compiler->pstate);
	note_timezone(compiler, (Expr *) aggref);
	call->nargs = list_length(aggref->args);
	call->args = palloc0(sizeof(Expr *) * Max(call->nargs, 1));
	call->attnums = palloc0(sizeof(AttrNumber) * Max(call->nargs, 1));
	foreach(cell, aggref->args)
	{
		Expr	   *arg = plan_expression(compiler, lfirst_node(TargetEntry, cell)->expr);

		add_needed(compiler->plan, arg);
		call->args[argno] = arg;
		call->attnums[argno++] = plain_column(arg);
	}
	if (aggref->aggfilter != NULL)
	{
		call->filter = plan_expression(compiler, aggref->aggfilter);
		add_needed(compiler->plan, call->filter);
	}
}

static void
compile_aggregates(Compiler *compiler)
{
	SeQueryPlan *plan = compiler->plan;
	ListCell   *cell;

	plan->naggs = list_length(compiler->aggrefs);
	plan->aggs = palloc0(sizeof(SeAggregateCall) * Max(plan->naggs, 1));
	foreach(cell, compiler->aggrefs)
		compile_aggregate(compiler, lfirst_node(Aggref, cell),
						  &plan->aggs[foreach_current_index(cell)]);
}

/* ---- output ---- */

static Node *
group_column(AttrNumber attnum, Node *expr)
{
	return (Node *) makeVar(1, attnum, exprType(expr), exprTypmod(expr),
							exprCollation(expr), 0);
}

static Var *
window_bound(AttrNumber attnum)
{
	return makeVar(1, attnum, TIMESTAMPTZOID, -1, InvalidOid, 0);
}

static bool
is_window(Compiler *compiler, Node *node)
{
	return compiler->window_expr != NULL && equal(node, compiler->window_expr);
}

/*
 * The window as an output: its range, or a bound of it where lower() or upper()
 * is applied to it.  NULL if the node is neither.
 */
static Node *
window_output(Compiler *compiler, Node *node)
{
	if (!IsA(node, FuncExpr))
		return NULL;
	if (is_window(compiler, node))
		return (Node *) makeFuncExpr(F_TSTZRANGE_TIMESTAMPTZ_TIMESTAMPTZ, TSTZRANGEOID,
									 list_make2(window_bound(SE_GROUP_WINDOW_START),
												window_bound(SE_GROUP_WINDOW_END)),
									 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
	if (((FuncExpr *) node)->funcid == F_LOWER_ANYRANGE &&
		is_window(compiler, linitial(((FuncExpr *) node)->args)))
		return (Node *) window_bound(SE_GROUP_WINDOW_START);
	if (((FuncExpr *) node)->funcid == F_UPPER_ANYRANGE &&
		is_window(compiler, linitial(((FuncExpr *) node)->args)))
		return (Node *) window_bound(SE_GROUP_WINDOW_END);
	return NULL;
}

/* Rewrite an expression over the stream as one over the group row. */
static Node *
output_mutator(Node *node, Compiler *compiler)
{
	Node	   *window;
	ListCell   *cell;

	if (node == NULL)
		return NULL;

	foreach(cell, compiler->group_exprs)
	{
		if (equal(node, lfirst(cell)))
			return group_column(SE_GROUP_FIRST_KEY + foreach_current_index(cell), node);
	}
	if ((window = window_output(compiler, node)) != NULL)
		return window;

	if (IsA(node, Aggref))
	{
		AttrNumber	first = SE_GROUP_FIRST_KEY + list_length(compiler->group_exprs);

		foreach(cell, compiler->aggrefs)
		{
			if (equal(node, lfirst(cell)))
				return group_column(first + foreach_current_index(cell), node);
		}
		compiler->aggrefs = lappend(compiler->aggrefs, node);
		return group_column(first + list_length(compiler->aggrefs) - 1, node);
	}
	if (IsA(node, Var))
		ereport(ERROR,
				(errcode(ERRCODE_GROUPING_ERROR),
				 errmsg("column \"%s\" must appear in the GROUP BY clause or be used in an aggregate function",
						get_attname(compiler->plan->stream, ((Var *) node)->varattno, false)),
				 parser_errposition(compiler->pstate, exprLocation(node))));
	return expression_tree_mutator(node, output_mutator, compiler);
}

static void
check_output_column(Compiler *compiler, TargetEntry *entry)
{
	Oid			type = exprType((Node *) entry->expr);
	int			location = exprLocation((Node *) entry->expr);
	ListCell   *cell;

	for (int i = 0; i < lengthof(reserved_columns); i++)
	{
		if (strcmp(entry->resname, reserved_columns[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_RESERVED_NAME),
					 errmsg("column name \"%s\" is reserved", entry->resname),
					 errdetail("The result table has a column of that name."),
					 errhint("Choose another name with AS."),
					 parser_errposition(compiler->pstate, location)));
	}
	foreach(cell, compiler->plan->target)
	{
		if (strcmp(entry->resname, lfirst_node(TargetEntry, cell)->resname) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 errmsg("column \"%s\" specified more than once", entry->resname),
					 errhint("Choose another name with AS."),
					 parser_errposition(compiler->pstate, location)));
	}
	if (get_typtype(type) == TYPTYPE_PSEUDO)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("column \"%s\" has pseudo-type %s",
						entry->resname, format_type_be(type)),
				 parser_errposition(compiler->pstate, location)));
}

/* The key that an output column shows by itself gets its number. */
static void
note_key_output(Compiler *compiler, TargetEntry *entry, int output)
{
	ListCell   *cell;

	foreach(cell, compiler->group_exprs)
	{
		SeKeyColumn *key = &compiler->plan->keys[foreach_current_index(cell)];

		if (key->output == 0 && equal(entry->expr, lfirst(cell)))
			key->output = output;
	}
}

static void
compile_output(Compiler *compiler, int skip_columns)
{
	SeQueryPlan *plan = compiler->plan;
	Query	   *query = compiler->query;
	ListCell   *cell;

	foreach(cell, query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		Expr	   *expr;
		int			output;

		if (entry->resjunk || foreach_current_index(cell) < skip_columns)
			continue;
		check_output_column(compiler, entry);
		output = list_length(plan->target) + 1;
		note_key_output(compiler, entry, output);
		expr = (Expr *) output_mutator((Node *) entry->expr, compiler);
		expr = plan_expression(compiler, expr);
		plan->target = lappend(plan->target,
							   makeTargetEntry(expr, output, pstrdup(entry->resname), false));
	}
	if (plan->target == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("a continuous query must have an output column")));

	if (query->havingQual != NULL)
		plan->having = plan_expression(compiler,
									   (Expr *) output_mutator(query->havingQual, compiler));

	foreach(cell, compiler->group_exprs)
	{
		if (plan->keys[foreach_current_index(cell)].output == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					 errmsg("group key is not an output column"),
					 errdetail("Rows of the result table are told apart by window and group keys."),
					 errhint("Add the expression to the SELECT list."),
					 parser_errposition(compiler->pstate, exprLocation(lfirst(cell)))));
	}
}

/* ---- row types ---- */

static void
init_column(TupleDesc desc, AttrNumber attnum, const char *name, Node *expr)
{
	TupleDescInitEntry(desc, attnum, name, exprType(expr), exprTypmod(expr), 0);
	TupleDescInitEntryCollation(desc, attnum, exprCollation(expr));
}

static void
make_descriptors(SeQueryPlan *plan)
{
	AttrNumber	attnum = SE_GROUP_FIRST_KEY;
	ListCell   *cell;

	plan->group_desc = CreateTemplateTupleDesc(SE_GROUP_FIRST_KEY - 1 + plan->nkeys +
											   plan->naggs);
	init_column(plan->group_desc, SE_GROUP_WINDOW_START, "window_start",
				(Node *) window_bound(SE_GROUP_WINDOW_START));
	init_column(plan->group_desc, SE_GROUP_WINDOW_END, "window_end",
				(Node *) window_bound(SE_GROUP_WINDOW_END));
	for (int i = 0; i < plan->nkeys; i++)
		init_column(plan->group_desc, attnum++, psprintf("key_%d", i + 1),
					(Node *) plan->keys[i].expr);
	for (int i = 0; i < plan->naggs; i++)
		init_column(plan->group_desc, attnum++, psprintf("aggregate_%d", i + 1),
					(Node *) plan->aggs[i].aggref);

	plan->output_desc = CreateTemplateTupleDesc(list_length(plan->target));
	foreach(cell, plan->target)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);

		init_column(plan->output_desc, entry->resno, entry->resname, (Node *) entry->expr);
	}
}

static void
report_timezone(Compiler *compiler)
{
	if (!compiler->timezone)
		return;
	ereport(NOTICE,
			(errmsg("the query depends on the setting TimeZone"),
			 errdetail("The present value, \"%s\", is kept with the query.",
					   pg_get_timezone_name(session_timezone)),
			 errhint("Give the time zone explicitly, as with AT TIME ZONE."),
			 parser_errposition(compiler->pstate, compiler->timezone_location)));
}

/*
 * Check a Query and make its plan, palloc'd in CurrentMemoryContext; the Query
 * is left as it was.  pstate is that of se_query_parse(): the current user must be
 * allowed to read what the query reads.  It is NULL for a stored query: then
 * privileges are not checked, errors have no position, and there are no notices.
 */
SeQueryPlan *
se_query_compile(Query *query, ParseState *pstate, SeStreamLookup lookup, int skip_columns)
{
	Compiler	compiler = {0};
	SeTextScope scope;

	se_text_begin(&scope, pstate ? pstate->p_sourcetext : NULL);
	compiler.query = copyObject(query);
	compiler.pstate = pstate;
	compiler.plan = palloc0(sizeof(SeQueryPlan));
	compiler.timezone_location = -1;

	se_check_shape(compiler.query, pstate);
	compile_stream(&compiler, lookup);
	compile_window(&compiler);
	compile_where(&compiler);
	compile_keys(&compiler);
	compile_output(&compiler, skip_columns);
	compile_aggregates(&compiler);
	make_descriptors(compiler.plan);
	report_timezone(&compiler);
	se_text_end(&scope);
	return compiler.plan;
}
