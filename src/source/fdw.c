/*
 * fdw.c
 *	  Foreign-data wrapper handlers, and planning of a stream's scan.
 *
 * NOTES
 *	  SELECT on a stream is a bounded read of its topic.  Planning asks no broker:
 *	  the number of records is what ALTER TABLE or a restored statistic put in
 *	  pg_class.reltuples, else a guess.
 *
 *	  Conditions on _partition, _offset and _timestamp narrow what is read.  All
 *	  conditions stay in the plan and are checked on every row, so narrowing
 *	  needs to be right only in one direction: no record that fulfils the
 *	  conditions may be left unread.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/sysattr.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "foreign/fdwapi.h"
#include "foreign/foreign.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat/compat.h"
#include "options.h"
#include "scan.h"

/* Records of a topic of which nothing is known. */
#define DEFAULT_RECORDS 1000000.0

/* In units of cpu_tuple_cost: to fetch and decode a record; to connect. */
#define RECORD_COST_FACTOR 4.0
#define CONNECT_COST 100.0

PG_FUNCTION_INFO_V1(se_kafka_fdw_handler);
PG_FUNCTION_INFO_V1(se_table_fdw_handler);

static void
stream_rel_size(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	if (baserel->tuples <= 0)
		baserel->tuples = DEFAULT_RECORDS;
	set_baserel_size_estimates(root, baserel);
}

/* ---- conditions ---- */

static bool
is_integer_type(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

/* The metadata column that a Var names, if conditions on it narrow the scan. */
static SeMetadata
metadata_of_var(Node *node, RelOptInfo *baserel, Oid relid)
{
	Var		   *var = (Var *) node;
	SeMetadata	column;

	if (!IsA(node, Var) || var->varno != baserel->relid || var->varlevelsup != 0 ||
		var->varattno <= 0)
		return SE_META_NONE;
	column = se_metadata_of_column(get_attname(relid, var->varattno, false));
	if (column != SE_META_NONE &&
		se_option_value(GetForeignColumnOptions(relid, var->varattno), "path") != NULL)
		return SE_META_NONE;	/* a field of the records with such a name */
	switch (column)
	{
		case SE_META_PARTITION:
		case SE_META_OFFSET:
			return is_integer_type(var->vartype) ? column : SE_META_NONE;
		case SE_META_TIMESTAMP:
			return var->vartype == TIMESTAMPTZOID ? column : SE_META_NONE;
		default:
			return SE_META_NONE;
	}
}

/* Whether an expression can be computed before the scan begins. */
static bool
is_known_before(Node *expr, RelOptInfo *baserel)
{
	return !contain_var_clause(expr) && !contain_volatile_functions(expr);
}

static int
strategy_of(Oid opno, SeMetadata column)
{
	Oid			type = column == SE_META_TIMESTAMP ? TIMESTAMPTZOID : INT8OID;

	return get_op_opfamily_strategy(opno,
									get_opclass_family(GetDefaultOpClass(type, BTREE_AM_OID)));
}

/*
 * If a clause narrows the scan, append to the two lists what it says.
 */
static void
add_condition(Expr *clause, RelOptInfo *baserel, Oid relid, List **conditions, List **exprs)
{
	SeMetadata	column = SE_META_NONE;
	int			strategy = 0;
	bool		any = false;
	Node	   *value = NULL;

	if (IsA(clause, OpExpr) && list_length(((OpExpr *) clause)->args) == 2)
	{
		OpExpr	   *op = (OpExpr *) clause;
		Oid			opno = op->opno;

		column = metadata_of_var(linitial(op->args), baserel, relid);
		value = lsecond(op->args);
		if (column == SE_META_NONE)
		{
			column = metadata_of_var(lsecond(op->args), baserel, relid);
			value = linitial(op->args);
			opno = get_commutator(opno);
		}
		if (column == SE_META_NONE || !OidIsValid(opno))
			return;
		strategy = strategy_of(opno, column);
	}
	else if (IsA(clause, ScalarArrayOpExpr) && ((ScalarArrayOpExpr *) clause)->useOr)
	{
		ScalarArrayOpExpr *op = (ScalarArrayOpExpr *) clause;

		column = metadata_of_var(linitial(op->args), baserel, relid);
		value = lsecond(op->args);
		any = true;
		if (column == SE_META_NONE)
			return;
		strategy = strategy_of(op->opno, column);
		if (strategy != BTEqualStrategyNumber || column == SE_META_TIMESTAMP ||
			!is_integer_type(get_element_type(exprType(value))))
			return;
	}
	else
		return;

	/* of a time only a lower bound helps: times need not rise with offsets */
	if (strategy == 0 ||
		(column == SE_META_TIMESTAMP &&
		 strategy != BTGreaterStrategyNumber && strategy != BTGreaterEqualStrategyNumber &&
		 strategy != BTEqualStrategyNumber))
		return;
	if (!any && (column == SE_META_TIMESTAMP ? exprType(value) != TIMESTAMPTZOID :
				 !is_integer_type(exprType(value))))
		return;
	if (!is_known_before(value, baserel))
		return;

	*conditions = lappend(*conditions, list_make3_int((int) column, strategy, any ? 1 : 0));
	*exprs = lappend(*exprs, value);
}

/* ---- paths and plan ---- */

static void
stream_paths(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	List	   *conditions = NIL;
	List	   *exprs = NIL;
	double		read = baserel->tuples;
	Cost		startup;
	Cost		total;
	ListCell   *cell;

	/* narrowing conditions are not paid for by reading and throwing away */
	foreach(cell, baserel->baserestrictinfo)
		add_condition(lfirst_node(RestrictInfo, cell)->clause, baserel, relid, &conditions, &exprs);
	if (conditions != NIL)
		read = Max(baserel->rows, read * 0.1);

	startup = CONNECT_COST + baserel->baserestrictcost.startup;
	total = startup + read * (cpu_tuple_cost * RECORD_COST_FACTOR +
							  baserel->baserestrictcost.per_tuple);
	add_path(baserel, (Path *)
			 se_create_foreignscan_path(root, baserel, baserel->rows, startup, total,
										baserel->lateral_relids));
}

static ForeignScan *
stream_plan(PlannerInfo *root, RelOptInfo *baserel, Oid relid, ForeignPath *best_path,
			List *tlist, List *scan_clauses, Plan *outer_plan)
{
	Bitmapset  *attributes = NULL;
	List	   *needed = NIL;
	List	   *conditions = NIL;
	List	   *exprs = NIL;
	ListCell   *cell;
	int			attribute;

	pull_varattnos((Node *) baserel->reltarget->exprs, baserel->relid, &attributes);
	foreach(cell, scan_clauses)
	{
		RestrictInfo *info = lfirst_node(RestrictInfo, cell);

		pull_varattnos((Node *) info->clause, baserel->relid, &attributes);
		if (!info->pseudoconstant)
			add_condition(info->clause, baserel, relid, &conditions, &exprs);
	}

	attribute = -1;
	while ((attribute = bms_next_member(attributes, attribute)) >= 0)
	{
		AttrNumber	attnum = attribute + FirstLowInvalidHeapAttributeNumber;

		if (attnum == InvalidAttrNumber)
		{
			/* the whole row */
			needed = NIL;
			for (AttrNumber a = 1; a <= baserel->max_attr; a++)
				needed = lappend_int(needed, a);
			break;
		}
		if (attnum > 0)
			needed = lappend_int(needed, attnum);
	}

	return make_foreignscan(tlist, extract_actual_clauses(scan_clauses, false), baserel->relid,
							exprs, list_make2(needed, conditions), NIL, NIL, outer_plan);
}

static FdwRoutine *
make_routine(void)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = stream_rel_size;
	routine->GetForeignPaths = stream_paths;
	routine->GetForeignPlan = stream_plan;
	routine->BeginForeignScan = se_scan_begin;
	routine->IterateForeignScan = se_scan_iterate;
	routine->ReScanForeignScan = se_scan_rescan;
	routine->EndForeignScan = se_scan_end;
	routine->ExplainForeignScan = se_scan_explain;
	return routine;
}

Datum
se_kafka_fdw_handler(PG_FUNCTION_ARGS)
{
	PG_RETURN_POINTER(make_routine());
}

Datum
se_table_fdw_handler(PG_FUNCTION_ARGS)
{
	PG_RETURN_POINTER(make_routine());
}
