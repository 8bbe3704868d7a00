/*
 * kernels.c
 *	  Aggregates with flat states: advance, merge, finalise.
 *
 * NOTES
 *	  Each loop runs over one aggregate's rows of a batch, allocates nothing and
 *	  calls no function (numerics: kernels_decimal.c).  Results are those of the
 *	  server's aggregates: sum(int4) is a bigint, sum(int8) and all averages of
 *	  integers are numerics, NaN is the largest float, a float sum overflows with
 *	  the server's error.  Float sums depend on the order of additions, as the
 *	  server's do under parallel plans.  avg(float) keeps no sum of squares, so
 *	  it does not raise the overflow that the server's shared transition
 *	  function raises for squares beyond the range.
 */
#include "postgres.h"

#include <math.h>

#include "common/int.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/numeric.h"

#include "source/vector.h"
#include "state/state_internal.h"

static inline int64
add_int64(int64 a, int64 b)
{
	int64		result;

	if (unlikely(pg_add_s64_overflow(a, b, &result)))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("bigint out of range")));
	return result;
}

static inline double
add_float8(double a, double b)
{
	double		result = a + b;

	if (unlikely(isinf(result)) && !isinf(a) && !isinf(b))
		float_overflow_error();
	return result;
}

static inline double
add_float4(double a, double b)
{
	float		result = (float) a + (float) b;

	if (unlikely(isinf(result)) && !isinf(a) && !isinf(b))
		float_overflow_error();
	return result;
}

/* Is a less than b, where NaN is the largest? */
static inline bool
float_less(double a, double b)
{
	return a < b || (isnan(b) && !isnan(a));
}

/*
 * Run "step" for each row whose argument is not NULL; "target" points to the
 * state and "seen" tells whether it has seen a value before.
 */
#define KERNEL_LOOP(ctype, step) \
	for (int i = 0; i < nrows; i++) \
	{ \
		int			row = rows[i]; \
		SeGroup    *group = groups[i]; \
		ctype	   *target = (ctype *) ((char *) group + offset); \
		uint64	   *has = &group->has[has_word]; \
		\
		if (null[row]) \
			continue; \
		step; \
		*has |= has_bit; \
	}

void
se_kernel_update(SeMemtable *table, const SeStateDef *state, const SeVector *args, const int *rows,
				 int nrows, SeGroup **groups)
{
	const uint32 offset = state->offset;
	const uint32 has_word = state->has_word;
	const uint64 has_bit = state->has_bit;
	const uint8 *null;
	const int64 *ints;
	const double *floats;

	if (state->kind == STATE_COUNT)
	{
		if (state->any_input)
		{
			for (int i = 0; i < nrows; i++)
				++*(int64 *) ((char *) groups[i] + offset);
		}
		else
		{
			null = args[0].null;
			for (int i = 0; i < nrows; i++)
				*(int64 *) ((char *) groups[i] + offset) += !null[rows[i]];
		}
		return;
	}

	if (args[0].rep != state->rep)
		elog(ERROR, "aggregate argument arrives in an unexpected representation");
	null = args[0].null;
	ints = args[0].v.i64;
	floats = args[0].v.f64;

	switch (state->kind)
	{
		case STATE_SUM_INT64:
			KERNEL_LOOP(int64, {
				se_state_error_row = row;
				*target = add_int64(*target, ints[row]);
			});
			break;
		case STATE_SUM_INT128:
			KERNEL_LOOP(int128_unaligned, *target += ints[row]);
			break;
		case STATE_SUM_FLOAT4:
			KERNEL_LOOP(double, {
				se_state_error_row = row;
				*target = (*has & has_bit) ? add_float4(*target, floats[row]) : floats[row];
			});
			break;
		case STATE_SUM_FLOAT8:
			KERNEL_LOOP(double, {
				se_state_error_row = row;
				*target = (*has & has_bit) ? add_float8(*target, floats[row]) : floats[row];
			});
			break;
		case STATE_MIN_INT:
			KERNEL_LOOP(int64, {
				if (!(*has & has_bit) || ints[row] < *target)
					*target = ints[row];
			});
			break;
		case STATE_MAX_INT:
			KERNEL_LOOP(int64, {
				if (!(*has & has_bit) || ints[row] > *target)
					*target = ints[row];
			});
			break;
		case STATE_MIN_FLOAT:
			KERNEL_LOOP(double, {
				if (!(*has & has_bit) || float_less(floats[row], *target))
					*target = floats[row];
			});
			break;
		case STATE_MAX_FLOAT:
			KERNEL_LOOP(double, {
				if (!(*has & has_bit) || float_less(*target, floats[row]))
					*target = floats[row];
			});
			break;
		case STATE_SUM_DECIMAL:
			se_decimal_sum_update(table, state, args, rows, nrows, groups);
			break;
		case STATE_MIN_DECIMAL:
		case STATE_MAX_DECIMAL:
			se_decimal_minmax_update(table, state, args, rows, nrows, groups);
			break;
		case STATE_COUNT:
		case STATE_COMBINE:
			break;
	}

	if (state->with_count)
	{
		const uint32 count_offset = state->count_offset;

		for (int i = 0; i < nrows; i++)
			*(int64 *) ((char *) groups[i] + count_offset) += !null[rows[i]];
	}
}

/*
 * Add the state of "from", a slot that may point to foreign memory, to that of
 * "to", a group of the table.
 */
void
se_kernel_merge(SeMemtable *table, const SeStateDef *state, SeGroup *to, const SeGroup *from)
{
	void	   *target = state_of(state, to);
	const void *source = state_of(state, from);
	bool		had = state_has(state, to);

	if (state->kind == STATE_COUNT)
	{
		*(int64 *) target = add_int64(*(int64 *) target, *(const int64 *) source);
		return;
	}
	if (!state_has(state, from))
		return;
	if (state->with_count)
		*state_count(state, to) = add_int64(*state_count(state, to), *state_count(state, from));

	switch (state->kind)
	{
		case STATE_SUM_INT64:
			*(int64 *) target = add_int64(*(int64 *) target, *(const int64 *) source);
			break;
		case STATE_SUM_INT128:
			*(int128_unaligned *) target += *(const int128_unaligned *) source;
			break;
		case STATE_SUM_FLOAT4:
			*(double *) target = had ?
				add_float4(*(double *) target, *(const double *) source) : *(const double *) source;
			break;
		case STATE_SUM_FLOAT8:
			*(double *) target = had ?
				add_float8(*(double *) target, *(const double *) source) : *(const double *) source;
			break;
		case STATE_SUM_DECIMAL:
			se_decimal_sum_merge(table, target, source);
			break;
		case STATE_MIN_INT:
			if (!had || *(const int64 *) source < *(int64 *) target)
				*(int64 *) target = *(const int64 *) source;
			break;
		case STATE_MAX_INT:
			if (!had || *(const int64 *) source > *(int64 *) target)
				*(int64 *) target = *(const int64 *) source;
			break;
		case STATE_MIN_FLOAT:
			if (!had || float_less(*(const double *) source, *(double *) target))
				*(double *) target = *(const double *) source;
			break;
		case STATE_MAX_FLOAT:
			if (!had || float_less(*(double *) target, *(const double *) source))
				*(double *) target = *(const double *) source;
			break;
		case STATE_MIN_DECIMAL:
		case STATE_MAX_DECIMAL:
			se_decimal_minmax_merge(table, state, to, *(const SeDecimal *) source);
			break;
		case STATE_COUNT:
		case STATE_COMBINE:
			break;
	}
	to->has[state->has_word] |= state->has_bit;
}

/*
 * The same for the entries, a slot each, of several groups; an entry whose group is NULL
 * is left out.
 */
void
se_kernel_merge_block(SeMemtable *table, const SeStateDef *state, SeGroup **groups,
					  const char *entries, int n)
{
	const uint32 stride = table->layout->slot_size;

	switch (state->with_count ? STATE_COMBINE : state->kind)
	{
		case STATE_COUNT:
			for (int i = 0; i < n; i++)
			{
				const SeGroup *entry = (const SeGroup *) (entries + i * stride);
				int64	   *target = groups[i] ? state_of(state, groups[i]) : NULL;

				if (target != NULL)
					*target = add_int64(*target, *(int64 *) state_of(state, entry));
			}
			break;
		case STATE_SUM_DECIMAL:
			se_decimal_sum_merge_block(table, state, groups, entries, n);
			break;
		case STATE_MIN_DECIMAL:
		case STATE_MAX_DECIMAL:
			se_decimal_minmax_merge_block(table, state, groups, entries, n);
			break;
		default:
			for (int i = 0; i < n; i++)
				if (groups[i] != NULL)
					se_kernel_merge(table, state, groups[i],
									(const SeGroup *) (entries + i * stride));
			break;
	}
}

static Datum
int_result(const SeAggDef *agg, int64 value)
{
	switch (agg->result_typlen)
	{
		case 1:
			return BoolGetDatum(value != 0);
		case 2:
			return Int16GetDatum((int16) value);
		case 4:
			return Int32GetDatum((int32) value);
		default:
			return Int64GetDatum(value);
	}
}

static Datum
average(Numeric sum, int64 count)
{
	return DirectFunctionCall2(numeric_div, NumericGetDatum(sum),
							   NumericGetDatum(int64_to_numeric(count)));
}

/* The final value; by-reference results are palloc'd. */
Datum
se_kernel_result(const SeAggDef *agg, const SeStateDef *state, const SeGroup *group, bool *isnull)
{
	const void *value = state_of(state, group);
	bool		averaged = agg->result == RESULT_AVERAGE;
	Numeric		sum;

	*isnull = false;
	if (state->kind == STATE_COUNT)
		return Int64GetDatum(*(const int64 *) value);
	if (!state_has(state, group))
	{
		*isnull = true;
		return (Datum) 0;
	}

	switch (state->kind)
	{
		case STATE_SUM_INT64:
			if (!averaged)
				return Int64GetDatum(*(const int64 *) value);
			return average(int64_to_numeric(*(const int64 *) value), *state_count(state, group));
		case STATE_SUM_INT128:
			sum = se_numeric_from_int128(*(const int128_unaligned *) value, 0);
			return averaged ? average(sum, *state_count(state, group)) : NumericGetDatum(sum);
		case STATE_SUM_DECIMAL:
			sum = se_decimal_sum_result(value);
			return averaged ? average(sum, *state_count(state, group)) : NumericGetDatum(sum);
		case STATE_SUM_FLOAT4:
			return Float4GetDatum((float4) *(const double *) value);
		case STATE_SUM_FLOAT8:
			if (averaged)
				/* the server adds to 0, which makes 0 of -0 */
				return Float8GetDatum((0.0 + *(const double *) value) / *state_count(state, group));
			return Float8GetDatum(*(const double *) value);
		case STATE_MIN_FLOAT:
		case STATE_MAX_FLOAT:
			if (agg->result_typlen == sizeof(float4))
				return Float4GetDatum((float4) *(const double *) value);
			return Float8GetDatum(*(const double *) value);
		case STATE_MIN_DECIMAL:
		case STATE_MAX_DECIMAL:
			return NumericGetDatum(se_numeric_from_decimal(*(const SeDecimal *) value));
		default:
			return int_result(agg, *(const int64 *) value);
	}
}
