/*
 * finish.c
 *	  The finishing part of a query: output rows from the groups of a window.
 *
 * NOTES
 *	  Output columns that are keys, aggregates or bounds of the window are
 *	  copied; others are expressions over a virtual slot that shows the group
 *	  row.  Values are not copied: they live as long as the group row does, or
 *	  until se_finish_reset(), whichever comes first.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "executor/tuptable.h"
#include "nodes/makefuncs.h"
#include "utils/memutils.h"

#include "query.h"
#include "query_private.h"

typedef struct OutputColumn
{
	AttrNumber	attnum;			/* of the group row, or 0 */
	ExprState  *state;			/* if attnum is 0 */
} OutputColumn;

struct SeQueryFinish
{
	TupleTableSlot *slot;
	ExprContext *econtext;
	ExprState  *having;			/* NULL if none */
	int			ncolumns;
	OutputColumn *columns;
	bool		expressions;	/* is the slot read at all? */
};

/*
 * Compile the finishing part in "context"; it is freed with that.  To be called
 * inside a transaction, as the user whose query it is.  The result outlives the
 * transaction and the plan.
 */
SeQueryFinish *
se_finish_create(const SeQueryPlan *plan, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	SeQueryFinish *finish = palloc0(sizeof(SeQueryFinish));
	ListCell   *cell;

	finish->slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(plan->group_desc),
											&TTSOpsVirtual);
	finish->econtext = CreateStandaloneExprContext();
	finish->econtext->ecxt_scantuple = finish->slot;

	if (plan->having != NULL)
	{
		finish->having = ExecInitQual(make_ands_implicit(copyObject(plan->having)), NULL);
		finish->expressions = true;
	}

	finish->ncolumns = list_length(plan->target);
	finish->columns = palloc0(sizeof(OutputColumn) * finish->ncolumns);
	foreach(cell, plan->target)
	{
		Expr	   *expr = lfirst_node(TargetEntry, cell)->expr;
		OutputColumn *column = &finish->columns[foreach_current_index(cell)];

		if (IsA(expr, Var))
			column->attnum = ((Var *) expr)->varattno;
		else
		{
			column->state = ExecInitExpr(copyObject(expr), NULL);
			finish->expressions = true;
		}
	}
	MemoryContextSwitchTo(old);
	return finish;
}

static void
show_group(SeQueryFinish *finish, const Datum *values, const bool *nulls)
{
	TupleTableSlot *slot = finish->slot;
	int			natts = slot->tts_tupleDescriptor->natts;

	ExecClearTuple(slot);
	memcpy(slot->tts_values, values, sizeof(Datum) * natts);
	memcpy(slot->tts_isnull, nulls, sizeof(bool) * natts);
	ExecStoreVirtualTuple(slot);
}

/*
 * Make the output row of a group.  False if HAVING refuses it; then nothing is
 * set.  May raise any error of the query's expressions.
 */
bool
se_finish_row(SeQueryFinish *finish, const Datum *group_values, const bool *group_nulls,
			  Datum *values, bool *isnull)
{
	if (finish->expressions)
		show_group(finish, group_values, group_nulls);
	if (finish->having != NULL && !ExecQual(finish->having, finish->econtext))
		return false;

	for (int i = 0; i < finish->ncolumns; i++)
	{
		OutputColumn *column = &finish->columns[i];

		if (column->attnum != 0)
		{
			values[i] = group_values[column->attnum - 1];
			isnull[i] = group_nulls[column->attnum - 1];
		}
		else
			values[i] = ExecEvalExprSwitchContext(column->state, finish->econtext,
												  &isnull[i]);
	}
	return true;
}

/* Free the values of the rows made since the last call. */
void
se_finish_reset(SeQueryFinish *finish)
{
	ResetExprContext(finish->econtext);
}
