/*
 * kernels_decimal.c
 *	  sum, avg, min and max of numerics.
 *
 * NOTES
 *	  Narrow values (SeDecimal) are added as scaled 128-bit integers.  What does
 *	  not fit (NaN, infinities, more digits than SeDecimal has, a sum beyond 127
 *	  bits) is added by the server's own numeric_add to a second, wide sum; the
 *	  result is the two sums added.  Both carry the largest display scale of
 *	  their inputs, and numeric_add keeps the larger of two, so the result has
 *	  the digits and the scale that the server's aggregate gives.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "source/vector.h"
#include "state/state_internal.h"

static inline Numeric
wide_value(SeDecimal value)
{
	return (Numeric) (intptr_t) value.mantissa;
}

static inline int64
ten_to_the(int64 exponent)
{
	static const int64 powers[SE_DECIMAL_MAX_SCALE + 1] = {
		INT64CONST(1), INT64CONST(10), INT64CONST(100), INT64CONST(1000), INT64CONST(10000),
		INT64CONST(100000), INT64CONST(1000000), INT64CONST(10000000), INT64CONST(100000000),
		INT64CONST(1000000000), INT64CONST(10000000000), INT64CONST(100000000000),
		INT64CONST(1000000000000), INT64CONST(10000000000000), INT64CONST(100000000000000),
		INT64CONST(1000000000000000), INT64CONST(10000000000000000),
		INT64CONST(100000000000000000), INT64CONST(1000000000000000000)
	};

	return powers[exponent];
}

/* Multiply *value; false, and nothing done, if that overflows. */
static bool
multiply_int128(int128_unaligned *value, int64 factor)
{
	__int128	result;

	if (__builtin_mul_overflow((__int128) *value, (__int128) factor, &result))
		return false;
	*value = result;
	return true;
}

/* Add a numeric to the wide sum; "value" is not kept. */
static void
add_wide(SeMemtable *table, SeDecimalSum *sum, Numeric value)
{
	MemoryContext old = MemoryContextSwitchTo(table->state_context);
	Numeric		previous = sum->wide;

	if (previous == NULL)
		sum->wide = DatumGetNumericCopy(NumericGetDatum(value));
	else
	{
		sum->wide = DatumGetNumeric(DirectFunctionCall2(numeric_add, NumericGetDatum(previous),
														NumericGetDatum(value)));
		pfree(previous);
	}
	MemoryContextSwitchTo(old);
}

static void
add_wide_int128(SeMemtable *table, SeDecimalSum *sum, __int128 mantissa, int scale)
{
	Numeric		value = se_numeric_from_int128(mantissa, scale);

	add_wide(table, sum, value);
	pfree(value);
}

/* Add mantissa * 10^-scale; rare cases of add_narrow. */
static pg_noinline void
add_rescaled(SeMemtable *table, SeDecimalSum *sum, __int128 mantissa, int64 scale)
{
	int128_unaligned addend = mantissa;
	__int128	result;

	if (scale > sum->scale)
	{
		if (!multiply_int128(&sum->sum, ten_to_the(scale - sum->scale)))
		{
			add_wide_int128(table, sum, sum->sum, (int) sum->scale);
			sum->sum = 0;
		}
		sum->scale = scale;
	}
	else if (!multiply_int128(&addend, ten_to_the(sum->scale - scale)))
	{
		add_wide_int128(table, sum, mantissa, (int) scale);
		return;
	}

	if (__builtin_add_overflow((__int128) sum->sum, (__int128) addend, &result))
	{
		add_wide_int128(table, sum, sum->sum, (int) sum->scale);
		result = addend;
	}
	sum->sum = result;
}

static inline void
add_narrow(SeMemtable *table, SeDecimalSum *sum, __int128 mantissa, int64 scale)
{
	__int128	result;

	if (likely(scale == sum->scale &&
			   !__builtin_add_overflow((__int128) sum->sum, mantissa, &result)))
		sum->sum = result;
	else if (likely(sum->sum == 0 && scale > sum->scale))
	{
		/* the first one, as a rule */
		sum->sum = mantissa;
		sum->scale = scale;
	}
	else
		add_rescaled(table, sum, mantissa, scale);
}

void
se_decimal_sum_update(SeMemtable *table, const SeStateDef *state, const SeVector *arg,
					  const int *rows, int nrows, SeGroup **groups)
{
	for (int i = 0; i < nrows; i++)
	{
		int			row = rows[i];
		SeGroup    *group = groups[i];
		SeDecimalSum *sum = state_of(state, group);
		SeDecimal	value;

		if (arg->null[row])
			continue;
		se_state_error_row = row;
		value = arg->v.dec[row];
		if (likely(value.scale != SE_DECIMAL_WIDE))
			add_narrow(table, sum, value.mantissa, value.scale);
		else
			add_wide(table, sum, wide_value(value));
		group->has[state->has_word] |= state->has_bit;
	}
}

void
se_decimal_sum_merge(SeMemtable *table, SeDecimalSum *to, const SeDecimalSum *from)
{
	add_narrow(table, to, from->sum, from->scale);
	if (from->wide != NULL)
		add_wide(table, to, from->wide);
}

/* The sum as a palloc'd numeric. */
Numeric
se_decimal_sum_result(const SeDecimalSum *sum)
{
	Numeric		narrow = se_numeric_from_int128(sum->sum, (int) sum->scale);

	if (sum->wide == NULL)
		return narrow;
	return DatumGetNumeric(DirectFunctionCall2(numeric_add, NumericGetDatum(sum->wide),
											   NumericGetDatum(narrow)));
}

/* Make *target a copy of "value", and free what it pointed to. */
static void
replace_decimal(SeMemtable *table, SeDecimal *target, bool had, SeDecimal value)
{
	Numeric		previous = had && target->scale == SE_DECIMAL_WIDE ? wide_value(*target) : NULL;

	if (value.scale == SE_DECIMAL_WIDE)
	{
		MemoryContext old = MemoryContextSwitchTo(table->state_context);

		value.mantissa = (int64) (intptr_t)
			DatumGetNumericCopy(NumericGetDatum(wide_value(value)));
		MemoryContextSwitchTo(old);
	}
	*target = value;
	if (previous != NULL)
		pfree(previous);
}

static inline bool
replaces(SeStateKind kind, SeDecimal value, SeDecimal present)
{
	int			order;

	if (likely(value.scale == present.scale && value.scale != SE_DECIMAL_WIDE))
		order = (value.mantissa > present.mantissa) - (value.mantissa < present.mantissa);
	else
		order = se_decimal_compare(value, present);
	return kind == STATE_MIN_DECIMAL ? order < 0 : order > 0;
}

void
se_decimal_minmax_merge(SeMemtable *table, const SeStateDef *state, SeGroup *to, SeDecimal value)
{
	SeDecimal  *target = state_of(state, to);
	bool		had = state_has(state, to);

	if (had && !replaces(state->kind, value, *target))
		return;
	if (likely(value.scale != SE_DECIMAL_WIDE && !(had && target->scale == SE_DECIMAL_WIDE)))
		*target = value;
	else
		replace_decimal(table, target, had, value);
	to->has[state->has_word] |= state->has_bit;
}

/*
 * Merge the sums of the entries, a slot each, to those of their groups; an entry whose
 * group is NULL is left out.
 */
void
se_decimal_sum_merge_block(SeMemtable *table, const SeStateDef *state, SeGroup **groups,
						   const char *entries, int n)
{
	const uint32 stride = table->layout->slot_size;

	for (int i = 0; i < n; i++)
	{
		const SeGroup *entry = (const SeGroup *) (entries + i * stride);

		if (groups[i] == NULL || !state_has(state, entry))
			continue;
		se_decimal_sum_merge(table, state_of(state, groups[i]), state_of(state, entry));
		groups[i]->has[state->has_word] |= state->has_bit;
	}
}

/*
 * Does a value of the scale of the present one, as nearly all are, replace it?  Where
 * this can decide, it does without a branch that depends on the order of the data.
 */
static inline bool
minmax_narrow(SeDecimal *target, SeDecimal value, bool maximum)
{
	int64		present = target->mantissa;

	if (unlikely(value.scale != target->scale || value.scale == SE_DECIMAL_WIDE))
		return false;
	target->mantissa = maximum ? Max(present, value.mantissa) : Min(present, value.mantissa);
	return true;
}

/* The same for minima and maxima. */
static inline void
minmax_merge_block(SeMemtable *table, const SeStateDef *state, SeGroup **groups,
				   const char *entries, int n, bool maximum)
{
	const uint32 stride = table->layout->slot_size;

	for (int i = 0; i < n; i++)
	{
		const SeGroup *entry = (const SeGroup *) (entries + i * stride);
		SeGroup    *group = groups[i];
		SeDecimal	value = *(SeDecimal *) state_of(state, entry);

		if (group == NULL || !state_has(state, entry))
			continue;
		if (unlikely(!state_has(state, group) ||
					 !minmax_narrow(state_of(state, group), value, maximum)))
			se_decimal_minmax_merge(table, state, group, value);
	}
}

void
se_decimal_minmax_merge_block(SeMemtable *table, const SeStateDef *state, SeGroup **groups,
							  const char *entries, int n)
{
	if (state->kind == STATE_MAX_DECIMAL)
		minmax_merge_block(table, state, groups, entries, n, true);
	else
		minmax_merge_block(table, state, groups, entries, n, false);
}

/* Make what a state points to, which is another table's, the table's own. */
void
se_decimal_own(SeMemtable *table, const SeStateDef *state, SeGroup *group)
{
	if (state->kind == STATE_SUM_DECIMAL)
	{
		SeDecimalSum *sum = state_of(state, group);
		Numeric		wide = sum->wide;

		sum->wide = NULL;
		if (wide != NULL)
			add_wide(table, sum, wide);
	}
	else if (state_has(state, group))
	{
		SeDecimal  *value = state_of(state, group);

		if (value->scale == SE_DECIMAL_WIDE)
			replace_decimal(table, value, false, *value);
	}
}

static inline void
minmax_update(SeMemtable *table, const SeStateDef *state, const SeVector *arg, const int *rows,
			  int nrows, SeGroup **groups, bool maximum)
{
	for (int i = 0; i < nrows; i++)
	{
		int			row = rows[i];

		if (arg->null[row])
			continue;
		if (unlikely(!state_has(state, groups[i]) ||
					 !minmax_narrow(state_of(state, groups[i]), arg->v.dec[row], maximum)))
			se_decimal_minmax_merge(table, state, groups[i], arg->v.dec[row]);
	}
}

void
se_decimal_minmax_update(SeMemtable *table, const SeStateDef *state, const SeVector *arg,
						 const int *rows, int nrows, SeGroup **groups)
{
	MemoryContext old = MemoryContextSwitchTo(table->call_context);

	if (state->kind == STATE_MAX_DECIMAL)
		minmax_update(table, state, arg, rows, nrows, groups, true);
	else
		minmax_update(table, state, arg, rows, nrows, groups, false);
	MemoryContextSwitchTo(old);
	MemoryContextReset(table->call_context);
}
