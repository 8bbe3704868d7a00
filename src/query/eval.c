/*
 * eval.c
 *	  The incremental part of a query: WHERE, keys and arguments of a batch.
 *
 * NOTES
 *	  Most keys and arguments are columns, and a column's vector is handed on as
 *	  it is.  Anything else is computed row by row by the executor's expression
 *	  machinery, over a virtual tuple slot that is filled from the vectors with
 *	  those columns that the expressions use, and stored in a vector of our own.
 *	  Equal expressions are computed once.
 *
 *	  As in an ordinary aggregation, an argument is not evaluated for a row that the
 *	  aggregate's FILTER refuses: sum(1 / x) FILTER (WHERE x <> 0) must not fail.
 *	  Hence FILTERs are evaluated together with the arguments, and their verdict
 *	  is remembered for se_eval_aggregate_rows().
 *
 *	  Memory: what is compiled lives in the caller's context and survives
 *	  transactions; nothing of it refers to a transaction's memory or resources
 *	  (the slot's descriptor is a copy that is not reference-counted).  A row's
 *	  garbage is freed with the row; values that the vectors point to are copied
 *	  into a context that is reset when the next batch begins.
 *
 *	  An error leaves the machinery usable: the next batch starts afresh.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "source/vector.h"
#include "utils/acl.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "compat/compat.h"
#include "query.h"
#include "query_private.h"

/* Columns that a set of expressions reads. */
typedef struct ColumnSet
{
	int			n;
	AttrNumber *attnums;
} ColumnSet;

/* A FILTER clause; equal ones are shared. */
typedef struct Filter
{
	Expr	   *expr;
	ExprState  *state;
	bool	   *passed;			/* [row] */
} Filter;

/* An expression whose values are stored in a vector; equal ones are shared. */
typedef struct Computed
{
	Expr	   *expr;
	ExprState  *state;			/* NULL: a constant, stored once and for all */
	int			filter;			/* computed for rows that pass it; -1: for all */
	Oid			type;
	int16		typlen;
	bool		typbyval;
	SeVector	vector;
} Computed;

/* Where a key or an argument comes from: a column or a computed vector. */
typedef struct Source
{
	AttrNumber	attnum;
	int			computed;		/* if attnum is 0 */
} Source;

typedef struct AggregateInput
{
	int			nargs;
	Source	   *sources;
	SeVector   *vectors;
	int			filter;			/* -1 if none */
} AggregateInput;

struct SeQueryEval
{
	MemoryContext context;
	MemoryContext batch_context;
	TupleDesc	stream_desc;
	TupleTableSlot *slot;
	ExprContext *econtext;

	ExprState  *where;			/* NULL if none */
	ColumnSet	where_columns;

	int			nfilters;
	Filter	   *filters;
	int			ncomputed;
	Computed   *computed;
	ColumnSet	columns;		/* of filters and computed */
	bool		row_work;		/* is there any filter or non-constant? */

	int			nkeys;
	Source	   *key_sources;
	SeVector   *keys;
	int			naggs;
	AggregateInput *aggs;

	int		   *rows_out;		/* of se_eval_aggregate_rows */
	SeGroup   **groups_out;
};

int			se_eval_error_row = -1;

/* ---- making one ---- */

static ColumnSet
column_set(List *exprs)
{
	Bitmapset  *attributes = NULL;
	ColumnSet	set = {0};
	int			member = -1;

	pull_varattnos((Node *) exprs, 1, &attributes);
	set.attnums = palloc(sizeof(AttrNumber) * Max(bms_num_members(attributes), 1));
	while ((member = bms_next_member(attributes, member)) >= 0)
		set.attnums[set.n++] = member + FirstLowInvalidHeapAttributeNumber;
	bms_free(attributes);
	return set;
}

static int
find_filter(SeQueryEval *eval, Expr *expr)
{
	Filter	   *filter;

	if (expr == NULL)
		return -1;
	for (int i = 0; i < eval->nfilters; i++)
	{
		if (equal(eval->filters[i].expr, expr))
			return i;
	}
	filter = &eval->filters[eval->nfilters];
	filter->expr = copyObject(expr);
	filter->state = ExecInitQual(make_ands_implicit(filter->expr), NULL);
	filter->passed = palloc0(sizeof(bool) * SE_BATCH_MAX);
	return eval->nfilters++;
}

/*
 * Store a value where it survives the row.  Called in the row's context; a
 * decimal that fits its vector needs no memory at all.
 */
static void
store_value(SeQueryEval *eval, Computed *computed, int row, Datum value, bool isnull)
{
	SeVector   *vector = &computed->vector;

	if (!isnull && !computed->typbyval && vector->rep != SE_REP_INT64 &&
		vector->rep != SE_REP_FLOAT64)
	{
		MemoryContext old;

		if (vector->rep == SE_REP_DECIMAL)
		{
			se_vector_set(vector, row, computed->type, value, false);
			if (vector->v.dec[row].scale != SE_DECIMAL_WIDE)
				return;
		}
		old = MemoryContextSwitchTo(eval->batch_context);
		if (computed->typlen == -1)
			value = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
		else
			value = datumCopy(value, false, computed->typlen);
		se_vector_set(vector, row, computed->type, value, false);
		MemoryContextSwitchTo(old);
		return;
	}
	se_vector_set(vector, row, computed->type, value, isnull);
}

/* A constant fills its vector here; what it points to lives in the plan's copy. */
static void
store_constant(Computed *computed, Const *constant)
{
	Datum		value = constant->constvalue;

	if (!constant->constisnull && computed->typlen == -1)
		value = PointerGetDatum(PG_DETOAST_DATUM(value));
	for (int row = 0; row < SE_BATCH_MAX; row++)
		se_vector_set(&computed->vector, row, computed->type, value,
					  constant->constisnull);
}

static int
find_computed(SeQueryEval *eval, Expr *expr, int filter)
{
	Computed   *computed;

	if (IsA(expr, Const))
		filter = -1;
	for (int i = 0; i < eval->ncomputed; i++)
	{
		computed = &eval->computed[i];
		if (computed->filter == filter && equal(computed->expr, expr))
			return i;
	}

	computed = &eval->computed[eval->ncomputed];
	computed->expr = copyObject(expr);
	computed->filter = filter;
	computed->type = exprType((Node *) expr);
	get_typlenbyval(computed->type, &computed->typlen, &computed->typbyval);
	se_vector_init(&computed->vector, se_rep_of_type(computed->type), SE_BATCH_MAX,
				   eval->context);
	if (IsA(expr, Const))
		store_constant(computed, (Const *) computed->expr);
	else
		computed->state = ExecInitExpr(computed->expr, NULL);
	return eval->ncomputed++;
}

static Source
make_source(SeQueryEval *eval, Expr *expr, AttrNumber attnum, int filter)
{
	Source		source = {attnum, -1};

	if (attnum == 0)
		source.computed = find_computed(eval, expr, filter);
	return source;
}

static void
init_aggregate(SeQueryEval *eval, const SeAggregateCall *call, AggregateInput *input)
{
	AclResult	acl = se_aclcheck_function(call->aggref->aggfnoid, GetUserId());

	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_AGGREGATE, get_func_name(call->aggref->aggfnoid));

	input->filter = find_filter(eval, call->filter);
	input->nargs = call->nargs;
	input->sources = palloc0(sizeof(Source) * Max(call->nargs, 1));
	input->vectors = palloc0(sizeof(SeVector) * Max(call->nargs, 1));
	for (int i = 0; i < call->nargs; i++)
		input->sources[i] = make_source(eval, call->args[i], call->attnums[i],
										input->filter);
}

/* Columns of all that is computed row by row, and whether there is any. */
static void
collect_columns(SeQueryEval *eval)
{
	List	   *exprs = NIL;

	for (int i = 0; i < eval->nfilters; i++)
		exprs = lappend(exprs, eval->filters[i].expr);
	for (int i = 0; i < eval->ncomputed; i++)
	{
		if (eval->computed[i].state != NULL)
			exprs = lappend(exprs, eval->computed[i].expr);
	}
	eval->columns = column_set(exprs);
	eval->row_work = exprs != NIL;
	list_free(exprs);
}

/*
 * Compile the incremental part in "context"; it is freed with that.  To be called
 * inside a transaction, as the user whose query it is: raises an error if he may
 * not execute a function of it.  The result outlives the transaction and the plan.
 */
SeQueryEval *
se_eval_create(const SeQueryPlan *plan, TupleDesc stream_desc, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	SeQueryEval *eval = palloc0(sizeof(SeQueryEval));
	int			nexprs = plan->nkeys;

	for (int i = 0; i < plan->naggs; i++)
		nexprs += plan->aggs[i].nargs;

	eval->context = context;
	eval->batch_context = AllocSetContextCreate(context, "stream_engine batch values",
												ALLOCSET_DEFAULT_SIZES);
	eval->stream_desc = CreateTupleDescCopy(stream_desc);
	eval->slot = MakeSingleTupleTableSlot(eval->stream_desc, &TTSOpsVirtual);
	eval->econtext = CreateStandaloneExprContext();
	eval->econtext->ecxt_scantuple = eval->slot;

	if (plan->where != NULL)
	{
		Expr	   *where = copyObject(plan->where);

		eval->where = ExecInitQual(make_ands_implicit(where), NULL);
		eval->where_columns = column_set(list_make1(where));
	}

	eval->filters = palloc0(sizeof(Filter) * Max(plan->naggs, 1));
	eval->computed = palloc0(sizeof(Computed) * Max(nexprs, 1));
	eval->nkeys = plan->nkeys;
	eval->key_sources = palloc0(sizeof(Source) * Max(plan->nkeys, 1));
	eval->keys = palloc0(sizeof(SeVector) * Max(plan->nkeys, 1));
	for (int i = 0; i < plan->nkeys; i++)
		eval->key_sources[i] = make_source(eval, plan->keys[i].expr,
										   plan->keys[i].attnum, -1);
	eval->naggs = plan->naggs;
	eval->aggs = palloc0(sizeof(AggregateInput) * Max(plan->naggs, 1));
	for (int i = 0; i < plan->naggs; i++)
		init_aggregate(eval, &plan->aggs[i], &eval->aggs[i]);
	collect_columns(eval);

	eval->rows_out = palloc(sizeof(int) * SE_BATCH_MAX);
	eval->groups_out = palloc(sizeof(SeGroup *) * SE_BATCH_MAX);
	MemoryContextSwitchTo(old);
	return eval;
}

/* ---- a batch ---- */

/*
 * Make the slot show a row.  Frees what the row before has left; values are
 * palloc'd in the row's memory.
 */
static void
load_row(SeQueryEval *eval, const SeBatch *batch, const ColumnSet *columns, int row)
{
	TupleTableSlot *slot = eval->slot;
	MemoryContext old;

	ResetExprContext(eval->econtext);
	ExecClearTuple(slot);
	old = MemoryContextSwitchTo(eval->econtext->ecxt_per_tuple_memory);
	for (int i = 0; i < columns->n; i++)
	{
		int			column = columns->attnums[i] - 1;
		const SeVector *vector = &batch->columns[column];

		slot->tts_isnull[column] = vector->null[row];
		slot->tts_values[column] = vector->null[row] ? (Datum) 0 :
			se_vector_datum(vector, row,
							TupleDescAttr(eval->stream_desc, column)->atttypid);
	}
	MemoryContextSwitchTo(old);
	ExecStoreVirtualTuple(slot);
}

/*
 * Begin a batch: frees the values of the one before, then keeps of "rows" those
 * that pass WHERE.  May raise any error of the query's expressions.
 */
int
se_eval_filter(SeQueryEval *eval, const SeBatch *batch, int *rows, int nrows)
{
	int			kept = 0;

	se_eval_error_row = -1;
	MemoryContextReset(eval->batch_context);
	if (eval->where == NULL)
		return nrows;

	for (int i = 0; i < nrows; i++)
	{
		se_eval_error_row = rows[i];
		load_row(eval, batch, &eval->where_columns, rows[i]);
		if (ExecQual(eval->where, eval->econtext))
			rows[kept++] = rows[i];
	}
	se_eval_error_row = -1;
	return kept;
}

static void
compute_row(SeQueryEval *eval, int row)
{
	ExprContext *econtext = eval->econtext;

	for (int i = 0; i < eval->nfilters; i++)
		eval->filters[i].passed[row] = ExecQual(eval->filters[i].state, econtext);

	for (int i = 0; i < eval->ncomputed; i++)
	{
		Computed   *computed = &eval->computed[i];
		MemoryContext old;
		Datum		value;
		bool		isnull;

		if (computed->state == NULL ||
			(computed->filter >= 0 && !eval->filters[computed->filter].passed[row]))
			continue;
		old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
		value = ExecEvalExpr(computed->state, econtext, &isnull);
		store_value(eval, computed, row, value, isnull);
		MemoryContextSwitchTo(old);
	}
}

static inline SeVector
source_vector(SeQueryEval *eval, const SeBatch *batch, const Source *source)
{
	return source->attnum != 0 ? batch->columns[source->attnum - 1] :
		eval->computed[source->computed].vector;
}

/*
 * Evaluate FILTERs, keys and arguments; on an error se_eval_error_row tells the
 * row.  The vectors are valid until the next se_eval_filter() or, where they are
 * the batch's own, until the batch is reset.
 */
void
se_eval_rows(SeQueryEval *eval, const SeBatch *batch, const int *rows, int nrows)
{
	if (eval->row_work)
	{
		for (int i = 0; i < nrows; i++)
		{
			se_eval_error_row = rows[i];
			load_row(eval, batch, &eval->columns, rows[i]);
			compute_row(eval, rows[i]);
		}
		se_eval_error_row = -1;
	}

	for (int i = 0; i < eval->nkeys; i++)
		eval->keys[i] = source_vector(eval, batch, &eval->key_sources[i]);
	for (int i = 0; i < eval->naggs; i++)
	{
		AggregateInput *input = &eval->aggs[i];

		for (int j = 0; j < input->nargs; j++)
			input->vectors[j] = source_vector(eval, batch, &input->sources[j]);
	}
}

/* The key vectors, NULL if the query has no keys. */
const SeVector *
se_eval_keys(SeQueryEval *eval)
{
	return eval->nkeys > 0 ? eval->keys : NULL;
}

/* The argument vectors of an aggregate, NULL if it has none. */
const SeVector *
se_eval_args(SeQueryEval *eval, int agg)
{
	return eval->aggs[agg].nargs > 0 ? eval->aggs[agg].vectors : NULL;
}

/*
 * The rows that an aggregate counts.  Arrays given out are valid until the next
 * call.
 */
int
se_eval_aggregate_rows(SeQueryEval *eval, int agg, const int *rows, SeGroup **groups,
					   int nrows, const int **rows_out, SeGroup ***groups_out)
{
	const bool *passed;
	int			kept = 0;

	if (eval->aggs[agg].filter < 0)
	{
		*rows_out = rows;
		*groups_out = groups;
		return nrows;
	}

	passed = eval->filters[eval->aggs[agg].filter].passed;
	for (int i = 0; i < nrows; i++)
	{
		eval->rows_out[kept] = rows[i];
		eval->groups_out[kept] = groups[i];
		kept += passed[rows[i]];
	}
	*rows_out = eval->rows_out;
	*groups_out = eval->groups_out;
	return kept;
}
