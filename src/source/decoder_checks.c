/*
 * decoder_checks.c
 *	  CHECK constraints that only compare columns with constants.
 *
 * NOTES
 *	  Most CHECKs of streams are of the kind "amount >= 0".  Such ones, and
 *	  conjunctions of them, are judged column by column on the vectors, without a
 *	  tuple, a Datum or a subtransaction; they cannot fail.
 *
 *	  A comparison is known by its place in the default btree operator class of a
 *	  built-in type, so that what is done here is what the operator does.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "decoder_internal.h"
#include "vector.h"

/* Is the type's value an integer in vectors, compared as such? */
static bool
is_integer_type(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

/*
 * The btree strategy of an operator between the types, NOT_EQUAL for <>, or 0 if
 * it is none of the comparisons that are known here.
 */
#define NOT_EQUAL (BTMaxStrategyNumber + 1)

static int
comparison_strategy(Oid opno, Oid left, Oid right)
{
	Oid			family;
	int			strategy;

	if (!(is_integer_type(left) && is_integer_type(right)) &&
		!(left == right && (left == NUMERICOID || left == DATEOID || left == TIMESTAMPOID ||
							left == TIMESTAMPTZOID)))
		return 0;
	family = get_opclass_family(GetDefaultOpClass(left, BTREE_AM_OID));
	strategy = get_op_opfamily_strategy(opno, family);
	if (strategy == 0 && OidIsValid(get_negator(opno)) &&
		get_op_opfamily_strategy(get_negator(opno), family) == BTEqualStrategyNumber)
		strategy = NOT_EQUAL;
	return strategy;
}

/* Take one comparison apart.  False: it is of another kind. */
static bool
read_comparison(const SeDecoder *decoder, Expr *expr, SeComparison *comparison)
{
	OpExpr	   *operation = (OpExpr *) expr;
	Oid			opno;
	Var		   *column;
	Const	   *constant;
	int			strategy;

	if (!IsA(expr, OpExpr) || list_length(operation->args) != 2)
		return false;
	opno = operation->opno;
	column = linitial(operation->args);
	constant = lsecond(operation->args);
	if (IsA(column, Const))
	{
		column = lsecond(operation->args);
		constant = linitial(operation->args);
		opno = get_commutator(opno);
	}
	if (!OidIsValid(opno) || !IsA(column, Var) || !IsA(constant, Const) ||
		column->varattno <= 0 || constant->constisnull)
		return false;
	strategy = comparison_strategy(opno, column->vartype, constant->consttype);
	if (strategy == 0)
		return false;

	comparison->attnum = column->varattno;
	comparison->less = strategy == BTLessStrategyNumber || strategy == BTLessEqualStrategyNumber ||
		strategy == NOT_EQUAL;
	comparison->equal = strategy == BTLessEqualStrategyNumber ||
		strategy == BTEqualStrategyNumber || strategy == BTGreaterEqualStrategyNumber;
	comparison->greater = strategy == BTGreaterEqualStrategyNumber ||
		strategy == BTGreaterStrategyNumber || strategy == NOT_EQUAL;
	switch (constant->consttype)
	{
		case NUMERICOID:
			comparison->decimal = se_decimal_from_numeric(DatumGetNumeric(constant->constvalue));
			return comparison->decimal.scale != SE_DECIMAL_WIDE;
		case INT2OID:
			comparison->integer = DatumGetInt16(constant->constvalue);
			return true;
		case INT4OID:
		case DATEOID:
			comparison->integer = DatumGetInt32(constant->constvalue);
			return true;
		default:
			comparison->integer = DatumGetInt64(constant->constvalue);
			return true;
	}
}

/*
 * se_checks_comparisons
 */
bool
se_checks_comparisons(const SeDecoder *decoder, Expr *expr, SeCheck *check)
{
	List	   *conditions = make_ands_implicit(expr);
	ListCell   *cell;

	check->comparisons = palloc0(sizeof(SeComparison) * Max(list_length(conditions), 1));
	check->ncomparisons = 0;
	foreach(cell, conditions)
	{
		if (!read_comparison(decoder, lfirst(cell), &check->comparisons[check->ncomparisons]))
			return false;
		check->ncomparisons++;
	}
	return true;
}

static int
compare_decimals(SeDecimal a, SeDecimal b)
{
	__int128	x = a.mantissa;
	__int128	y = b.mantissa;

	if (unlikely(a.scale == SE_DECIMAL_WIDE))
		return DatumGetInt32(DirectFunctionCall2(numeric_cmp,
												 NumericGetDatum(se_numeric_from_decimal(a)),
												 NumericGetDatum(se_numeric_from_decimal(b))));
	for (int scale = a.scale; scale < b.scale; scale++)
		x *= 10;
	for (int scale = b.scale; scale < a.scale; scale++)
		y *= 10;
	return x < y ? -1 : x > y;
}

static void
judge_comparison(SeDecoder *decoder, const SeCheck *check, const SeComparison *comparison)
{
	const SeVector *vector = &decoder->batch.columns[comparison->attnum - 1];
	const uint8 *verdict = decoder->batch.verdict;
	const bool	zero = comparison->decimal.mantissa == 0;

	for (int row = 0; row < decoder->batch.nrecords; row++)
	{
		int			order;

		if (vector->null[row] || verdict[row] != SE_RECORD_OK)
			continue;
		if (vector->rep == SE_REP_INT64)
			order = vector->v.i64[row] < comparison->integer ? -1 :
				vector->v.i64[row] > comparison->integer;
		else if (zero && vector->v.dec[row].scale != SE_DECIMAL_WIDE)
			order = vector->v.dec[row].mantissa < 0 ? -1 : vector->v.dec[row].mantissa > 0;
		else
			order = compare_decimals(vector->v.dec[row], comparison->decimal);

		if (!(order < 0 ? comparison->less : order > 0 ? comparison->greater : comparison->equal))
			se_decoder_bad_check(decoder, row, check);
	}
}

/*
 * se_checks_run
 */
void
se_checks_run(SeDecoder *decoder)
{
	MemoryContext old = MemoryContextSwitchTo(decoder->batch.context);

	/* the first CHECK that a row violates is the one that is named */
	for (int i = 0; i < decoder->nchecks; i++)
	{
		const SeCheck *check = &decoder->checks[i];

		for (int j = 0; j < check->ncomparisons; j++)
			judge_comparison(decoder, check, &check->comparisons[j]);
	}
	MemoryContextSwitchTo(old);
}
