/*
 * decoder_rules.c
 *	  What a good record must obey: defaults, NOT NULL, event time, CHECK.
 *
 * NOTES
 *	  The server does not enforce the constraints of foreign tables; a stream's
 *	  decoder does.  Defaults and CHECKs run under the caller's settings, which
 *	  are those of the stream's definition.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "nodes/nodeFuncs.h"
#include "nodes/readfuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/datum.h"
#include "utils/timestamp.h"

#include "compat/compat.h"
#include "decoder_internal.h"
#include "vector.h"

/* The default of a column, evaluated here if it is a constant. */
static void
create_default(SeDecoder *decoder, SeColumn *column, Relation stream)
{
	Expr	   *expr = (Expr *) build_column_default(stream, column->attnum);

	if (expr == NULL)
		return;
	expr = (Expr *) eval_const_expressions(NULL, (Node *) expr);
	if (IsA(expr, Const))
	{
		Const	   *constant = (Const *) expr;

		column->default_constant = true;
		column->default_value = constant->constvalue;
		column->default_null = constant->constisnull;
	}
	else
	{
		if (decoder->estate == NULL)
			decoder->estate = CreateExecutorState();
		column->default_expr = ExecPrepareExpr(expr, decoder->estate);
	}
	column->has_default = true;
}

void
se_rules_create(SeDecoder *decoder, Relation stream)
{
	TupleConstr *constraints = decoder->desc->constr;

	for (int i = 0; i < decoder->ncolumns; i++)
	{
		if (decoder->columns[i].metadata == SE_META_NONE)
			create_default(decoder, &decoder->columns[i], stream);
	}

	if (constraints == NULL || constraints->num_check == 0)
		return;
	if (decoder->estate == NULL)
		decoder->estate = CreateExecutorState();
	decoder->checks = palloc0(sizeof(SeCheck) * constraints->num_check);
	decoder->check_slot = MakeSingleTupleTableSlot(decoder->desc, &TTSOpsVirtual);
	decoder->only_comparisons = true;
	for (int i = 0; i < constraints->num_check; i++)
	{
		SeCheck    *check = &decoder->checks[decoder->nchecks];
		Expr	   *expr;
		Bitmapset  *used = NULL;
		int			number = -1;

		if (!se_check_is_enforced(&constraints->check[i]))
			continue;
		expr = (Expr *) eval_const_expressions(NULL, stringToNode(constraints->check[i].ccbin));
		pull_varattnos((Node *) expr, 1, &used);
		while ((number = bms_next_member(used, number)) >= 0)
		{
			AttrNumber	attnum = number + FirstLowInvalidHeapAttributeNumber;

			if (attnum > 0)
				decoder->check_columns = bms_add_member(decoder->check_columns, attnum);
			else if (attnum == 0)
			{
				for (int j = 0; j < decoder->ncolumns; j++)
					decoder->check_columns = bms_add_member(decoder->check_columns,
															decoder->columns[j].attnum);
			}
			else
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("check constraint \"%s\" uses a system column",
								constraints->check[i].ccname)));
		}
		check->name = constraints->check[i].ccname;
		check->expr = ExecPrepareExpr(expr, decoder->estate);
		if (decoder->only_comparisons)
			decoder->only_comparisons = se_checks_comparisons(decoder, expr, check);
		decoder->nchecks++;
	}
}

static void
default_task(SeDecoder *decoder, const SeTask *task)
{
	SeColumn   *column = &decoder->columns[task->column];
	ExprContext *econtext = GetPerTupleExprContext(decoder->estate);
	MemoryContext old;
	Datum		value;
	bool		isnull;

	/* the value stays with the batch */
	ResetExprContext(econtext);
	value = ExecEvalExprSwitchContext(column->default_expr, econtext, &isnull);
	old = MemoryContextSwitchTo(decoder->batch.context);
	if (!isnull)
		value = datumCopy(value, column->coercion.typbyval, column->coercion.typlen);
	se_vector_set(&decoder->batch.columns[column->attnum - 1], task->row,
				  column->coercion.type, value, isnull);
	MemoryContextSwitchTo(old);
}

void
se_decoder_bad_check(SeDecoder *decoder, int row, const SeCheck *check)
{
	se_decoder_bad_row(decoder, row, NULL, ERRCODE_CHECK_VIOLATION,
					   "new row for relation \"%s\" violates check constraint \"%s\"",
					   decoder->relname, check->name);
}

static void
check_task(SeDecoder *decoder, const SeTask *task)
{
	ExprContext *econtext = GetPerTupleExprContext(decoder->estate);
	TupleTableSlot *slot = decoder->check_slot;
	MemoryContext old;
	int			attnum = -1;

	ResetExprContext(econtext);
	old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, sizeof(bool) * decoder->desc->natts);
	while ((attnum = bms_next_member(decoder->check_columns, attnum)) >= 0)
	{
		SeVector   *vector = &decoder->batch.columns[attnum - 1];

		slot->tts_isnull[attnum - 1] = vector->null[task->row];
		if (!vector->null[task->row])
			slot->tts_values[attnum - 1] =
				se_vector_datum(vector, task->row,
								TupleDescAttr(decoder->desc, attnum - 1)->atttypid);
	}
	ExecStoreVirtualTuple(slot);
	MemoryContextSwitchTo(old);

	econtext->ecxt_scantuple = slot;
	for (int i = 0; i < decoder->nchecks; i++)
	{
		if (!ExecCheck(decoder->checks[i].expr, econtext))
		{
			se_decoder_bad_check(decoder, task->row, &decoder->checks[i]);
			break;
		}
	}
}

static void
judge_nulls(SeDecoder *decoder, const SeColumn *column)
{
	const uint8 *null = decoder->batch.columns[column->attnum - 1].null;

	for (int row = 0; row < decoder->batch.nrecords; row++)
	{
		if (null[row] && decoder->batch.verdict[row] == SE_RECORD_OK)
			se_decoder_bad_row(decoder, row, column, ERRCODE_NOT_NULL_VIOLATION,
							   "null value in column \"%s\" of relation \"%s\" violates not-null constraint",
							   column->name, decoder->relname);
	}
}

static void
judge_event_time(SeDecoder *decoder, const SeColumn *column)
{
	SeVector   *vector = &decoder->batch.columns[column->attnum - 1];

	for (int row = 0; row < decoder->batch.nrecords; row++)
	{
		if (decoder->batch.verdict[row] != SE_RECORD_OK)
			continue;
		if (vector->null[row])
			se_decoder_bad_row(decoder, row, column, ERRCODE_NULL_VALUE_NOT_ALLOWED,
							   "null value in event time column \"%s\"", column->name);
		else if (TIMESTAMP_NOT_FINITE(vector->v.i64[row]))
			se_decoder_bad_row(decoder, row, column, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE,
							   "infinite value in event time column \"%s\"", column->name);
	}
}

void
se_rules_run(SeDecoder *decoder)
{
	se_decoder_tasks(decoder, &decoder->defaults, default_task, false);

	for (int i = 0; i < decoder->ncolumns; i++)
	{
		if (decoder->columns[i].not_null)
			judge_nulls(decoder, &decoder->columns[i]);
	}
	for (int i = 0; i < decoder->ncolumns; i++)
	{
		if (decoder->columns[i].attnum == decoder->event_time)
			judge_event_time(decoder, &decoder->columns[i]);
	}

	if (decoder->only_comparisons)
		se_checks_run(decoder);
	else if (decoder->nchecks > 0)
	{
		SeTaskList	list = {0};

		for (int row = 0; row < decoder->batch.nrecords; row++)
		{
			if (decoder->batch.verdict[row] == SE_RECORD_OK)
				se_decoder_add_task(decoder, &list, row, -1);
		}
		se_decoder_tasks(decoder, &list, check_task, false);
	}
}
