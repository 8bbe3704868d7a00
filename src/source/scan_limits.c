/*
 * scan_limits.c
 *	  Which partitions and offsets the conditions of a scan allow.
 *
 * NOTES
 *	  The conditions are checked on every row anyway.  Here they may only leave out
 *	  what none of them can match.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "scan.h"

static void
narrow(OffsetInterval *allowed, int strategy, int64 value)
{
	switch (strategy)
	{
		case BTLessStrategyNumber:
			allowed->last = Min(allowed->last, value == PG_INT64_MIN ? value : value - 1);
			if (value == PG_INT64_MIN)
				allowed->first = PG_INT64_MAX;
			break;
		case BTLessEqualStrategyNumber:
			allowed->last = Min(allowed->last, value);
			break;
		case BTEqualStrategyNumber:
			allowed->first = Max(allowed->first, value);
			allowed->last = Min(allowed->last, value);
			break;
		case BTGreaterEqualStrategyNumber:
			allowed->first = Max(allowed->first, value);
			break;
		case BTGreaterStrategyNumber:
			if (value == PG_INT64_MAX)
				allowed->last = PG_INT64_MIN;
			else
				allowed->first = Max(allowed->first, value + 1);
			break;
	}
}

static int64
integer_of(Datum value, Oid type)
{
	switch (type)
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		case TIMESTAMPTZOID:
			return DatumGetTimestampTz(value);
		default:
			return DatumGetInt64(value);
	}
}

/* The elements of an array condition; partitions beyond any topic's are left out. */
static void
limit_by_array(ScanLimits *limits, const ScanCondition *condition, Datum value)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	Oid			type = ARR_ELEMTYPE(array);
	OffsetInterval	hull = {PG_INT64_MAX, PG_INT64_MIN};
	Bitmapset  *wanted = NULL;
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int16		length;
	bool		byval;
	char		align;

	get_typlenbyvalalign(type, &length, &byval, &align);
	deconstruct_array(array, type, length, byval, align, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		int64		element;

		if (nulls[i])
			continue;
		element = integer_of(elements[i], type);
		hull.first = Min(hull.first, element);
		hull.last = Max(hull.last, element);
		if (condition->column == SE_META_PARTITION && element >= 0 && element < 1000000)
			wanted = bms_add_member(wanted, (int) element);
	}
	if (condition->column == SE_META_PARTITION)
		limits->lists[limits->nlists++] = wanted;
	else
	{
		narrow(&limits->offset, BTGreaterEqualStrategyNumber, hull.first);
		narrow(&limits->offset, BTLessEqualStrategyNumber, hull.last);
	}
}

/*
 * se_scan_limits
 */
void
se_scan_limits(ForeignScanState *node, const ScanCondition *conditions, List *exprs,
			   ScanLimits *limits)
{
	ExprContext *econtext = node->ss.ps.ps_ExprContext;
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;

	limits->partition.first = limits->offset.first = PG_INT64_MIN;
	limits->partition.last = limits->offset.last = PG_INT64_MAX;
	limits->since = DT_NOBEGIN;
	limits->nlists = 0;
	limits->lists = palloc(Max(list_length(exprs), 1) * sizeof(Bitmapset *));
	limits->nothing = false;

	for (int i = 0; i < list_length(exprs); i++)
	{
		const ScanCondition *condition = &conditions[i];
		Oid			type = exprType(list_nth(plan->fdw_exprs, i));
		bool		isnull;
		Datum		value;

		value = ExecEvalExprSwitchContext(list_nth(exprs, i), econtext, &isnull);
		if (isnull)
		{
			limits->nothing = true;
			return;
		}
		if (condition->any)
			limit_by_array(limits, condition, value);
		else if (condition->column == SE_META_PARTITION)
			narrow(&limits->partition, condition->strategy, integer_of(value, type));
		else if (condition->column == SE_META_OFFSET)
			narrow(&limits->offset, condition->strategy, integer_of(value, type));
		else
			limits->since = Max(limits->since, DatumGetTimestampTz(value));
	}
}

/*
 * se_scan_partition_wanted
 */
bool
se_scan_partition_wanted(const ScanLimits *limits, int32 partition)
{
	if (partition < limits->partition.first || partition > limits->partition.last)
		return false;
	for (int i = 0; i < limits->nlists; i++)
	{
		if (!bms_is_member(partition, limits->lists[i]))
			return false;
	}
	return true;
}
