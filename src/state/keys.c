/*
 * keys.c
 *	  Group keys: their shape in a slot, hashing, equality, copying.
 *
 * NOTES
 *	  Two keys are one group when GROUP BY would say so.  Where that can be told
 *	  from the value itself (integers, times, floats, decimals, text whose
 *	  collation is deterministic) it is, without a function call; all else goes
 *	  through the hash and equality functions of the operator that GROUP BY
 *	  chose.  Hashes must agree with equality: -0 = 0, all NaNs are one, 1.0 =
 *	  1.00, also when one spelling of a numeric is wide and the other is not.
 *
 *	  Hashes are stored nowhere but order the log's chunks, so a value must hash
 *	  the same in every process of a server; whatever a change of the functions
 *	  below or of a collation's version would alter is part of the layout's
 *	  stamp.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/pg_locale.h"

#include "compat/compat.h"
#include "source/vector.h"
#include "state/state_internal.h"

#define HASH_NULL UINT64CONST(0xA24BAED4963EE407)
#define HASH_TEXT UINT64CONST(0xE7037ED1A0B428DB)

#define ARENA_BLOCK 8192

static const int64 power_of_ten[SE_DECIMAL_MAX_SCALE + 1] = {
	INT64CONST(1), INT64CONST(10), INT64CONST(100), INT64CONST(1000), INT64CONST(10000),
	INT64CONST(100000), INT64CONST(1000000), INT64CONST(10000000), INT64CONST(100000000),
	INT64CONST(1000000000), INT64CONST(10000000000), INT64CONST(100000000000),
	INT64CONST(1000000000000), INT64CONST(10000000000000), INT64CONST(100000000000000),
	INT64CONST(1000000000000000), INT64CONST(10000000000000000),
	INT64CONST(100000000000000000), INT64CONST(1000000000000000000)
};

/*
 * Fill layout->keys, key_size, single_int and single_text.  Raises
 * ERRCODE_UNDEFINED_FUNCTION for a type that cannot be hashed, and
 * ERRCODE_FEATURE_NOT_SUPPORTED for one that cannot be stored.
 */
void
se_keys_compile(SeGroupLayout *layout, const SeKeySpec *specs, MemoryContext context)
{
	uint32		offset = 0;

	if (layout->nkeys > SE_STATE_MAX_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("too many group keys"),
				 errdetail("A query can group by at most %d expressions.", SE_STATE_MAX_KEYS)));

	layout->keys = MemoryContextAllocZero(context, sizeof(SeKeyDef) * Max(layout->nkeys, 1));
	for (int i = 0; i < layout->nkeys; i++)
	{
		SeKeyDef   *key = &layout->keys[i];

		/* Its column types are known to this process only. */
		if (specs[i].type == RECORDOID)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot group by an anonymous row"),
					 errhint("Group by its columns, or cast it to a named composite type.")));

		key->type = specs[i].type;
		key->collation = specs[i].collation;
		key->sort_opr = specs[i].sort_opr;
		key->rep = se_rep_of_type(specs[i].type);
		get_typlenbyval(key->type, &key->typlen, &key->typbyval);
		key->offset = offset;

		switch (key->rep)
		{
			case SE_REP_INT64:
				key->kind = KEY_INT64;
				offset += sizeof(int64);
				break;
			case SE_REP_FLOAT64:
				key->kind = KEY_FLOAT64;
				offset += sizeof(double);
				break;
			case SE_REP_DECIMAL:
				key->kind = KEY_DECIMAL;
				offset += sizeof(SeDecimal);
				break;
			case SE_REP_TEXT:
				if (!OidIsValid(key->collation) || get_collation_isdeterministic(key->collation))
				{
					key->kind = KEY_TEXT;
					key->bytewise = OidIsValid(key->collation) &&
						se_collation_is_c(key->collation);
					offset += sizeof(SeTextKey);
					break;
				}
				/* FALLTHROUGH */
			case SE_REP_DATUM:
				{
					RegProcedure hash;
					RegProcedure hash_right;

					if (!get_op_hash_functions(specs[i].eq_opr, &hash, &hash_right))
						ereport(ERROR,
								(errcode(ERRCODE_UNDEFINED_FUNCTION),
								 errmsg("could not identify a hash function for type %s",
										format_type_be(key->type))));
					key->kind = KEY_DATUM;
					key->hash = MemoryContextAlloc(context, sizeof(FmgrInfo));
					key->equal = MemoryContextAlloc(context, sizeof(FmgrInfo));
					fmgr_info_cxt(hash, key->hash, context);
					fmgr_info_cxt(get_opcode(specs[i].eq_opr), key->equal, context);
					offset += sizeof(Datum);
					break;
				}
		}
	}
	layout->key_size = offset;
	layout->single_int = layout->nkeys == 1 && layout->keys[0].kind == KEY_INT64;
	layout->single_text = layout->nkeys == 1 && layout->keys[0].kind == KEY_TEXT;
}

/* The numeric that a wide decimal points to. */
static inline Datum
wide_datum(SeDecimal value)
{
	return PointerGetDatum((void *) (intptr_t) value.mantissa);
}

/*
 * The one spelling that all spellings of a numeric's value share: no trailing
 * zeros in the fraction.  A wide result is palloc'd.
 */
static SeDecimal
normalize_decimal(SeDecimal value)
{
	if (value.scale == SE_DECIMAL_WIDE)
	{
		Datum		trimmed = DirectFunctionCall1(numeric_trim_scale, wide_datum(value));

		value = se_decimal_from_numeric(DatumGetNumeric(trimmed));
		if (value.scale == SE_DECIMAL_WIDE)
			return value;
	}
	if (value.mantissa == 0)
		value.scale = 0;
	while (value.scale > 0 && value.mantissa % 10 == 0)
	{
		value.mantissa /= 10;
		value.scale--;
	}
	return value;
}

/*
 * Order of two numerics, by value; NaN is the largest.
 */
int
se_decimal_compare(SeDecimal a, SeDecimal b)
{
	__int128	left;
	__int128	right;

	if (unlikely(a.scale == SE_DECIMAL_WIDE || b.scale == SE_DECIMAL_WIDE))
		return DatumGetInt32(DirectFunctionCall2(numeric_cmp,
												 NumericGetDatum(se_numeric_from_decimal(a)),
												 NumericGetDatum(se_numeric_from_decimal(b))));
	left = a.mantissa;
	right = b.mantissa;
	if (a.scale < b.scale)
		left *= power_of_ten[b.scale - a.scale];
	else if (a.scale > b.scale)
		right *= power_of_ten[a.scale - b.scale];
	return (left > right) - (left < right);
}

static uint64
hash_long_text(uint64 hash, const char *data, uint32 len)
{
	uint64		word;

	hash = mix_hash(hash, HASH_TEXT ^ len);
	while (len >= sizeof(word))
	{
		memcpy(&word, data, sizeof(word));
		hash = mix_hash(hash, word);
		data += sizeof(word);
		len -= sizeof(word);
	}
	if (len > 0)
	{
		word = 0;
		memcpy(&word, data, len);
		hash = mix_hash(hash, word);
	}
	return hash;
}

static inline uint64
hash_of_text(uint64 hash, const SeTextKey *key)
{
	if (unlikely(key->len > TEXT_KEY_INLINE))
		return hash_long_text(hash, key->u.data, key->len);
	return mix_hash(mix_hash(hash, ((const uint64 *) key)[0]), ((const uint64 *) key)[1]);
}

static inline uint64
hash_of_float(double value)
{
	uint64		bits;

	if (value == 0)
		value = 0;				/* of -0 too */
	if (isnan(value))
		return HASH_TEXT;
	memcpy(&bits, &value, sizeof(bits));
	return bits;
}

/*
 * The hash of a probe's key, whose "nulls" are set.  May run functions of the
 * key's type, and leave memory of theirs in CurrentMemoryContext.
 */
uint32
se_key_hash(const SeGroupLayout *layout, const SeGroup *probe)
{
	const char *parts = slot_key(layout, probe);
	uint64		hash = HASH_SEED;

	for (int i = 0; i < layout->nkeys; i++)
	{
		const SeKeyDef *key = &layout->keys[i];
		const char *part = parts + key->offset;

		if (probe->nulls & ((uint32) 1 << i))
		{
			hash = mix_hash(hash, HASH_NULL);
			continue;
		}
		switch (key->kind)
		{
			case KEY_INT64:
				hash = mix_hash(hash, *(const uint64 *) part);
				break;
			case KEY_FLOAT64:
				hash = mix_hash(hash, hash_of_float(*(const double *) part));
				break;
			case KEY_DECIMAL:
				{
					SeDecimal	value = normalize_decimal(*(const SeDecimal *) part);

					if (value.scale == SE_DECIMAL_WIDE)
						hash = mix_hash(hash,
										DatumGetUInt32(DirectFunctionCall1(hash_numeric,
																		   wide_datum(value))));
					else
						hash = mix_hash(mix_hash(hash, value.mantissa), value.scale);
					break;
				}
			case KEY_TEXT:
				hash = hash_of_text(hash, (const SeTextKey *) part);
				break;
			case KEY_DATUM:
				hash = mix_hash(hash, DatumGetUInt32(FunctionCall1Coll(key->hash, key->collation,
																	   *(const Datum *) part)));
				break;
		}
	}
	return finish_hash(hash);
}

static bool
decimal_equal(SeDecimal a, SeDecimal b)
{
	if (a.scale == b.scale && a.scale != SE_DECIMAL_WIDE)
		return a.mantissa == b.mantissa;
	return se_decimal_compare(a, b) == 0;
}

/*
 * Are the keys of two slots one group?  Their "nulls" are known to be equal.
 */
bool
se_key_equal(const SeGroupLayout *layout, const SeGroup *a, const SeGroup *b)
{
	const char *a_parts = slot_key(layout, a);
	const char *b_parts = slot_key(layout, b);

	for (int i = 0; i < layout->nkeys; i++)
	{
		const SeKeyDef *key = &layout->keys[i];
		const char *x = a_parts + key->offset;
		const char *y = b_parts + key->offset;

		if (a->nulls & ((uint32) 1 << i))
			continue;
		switch (key->kind)
		{
			case KEY_INT64:
				if (*(const int64 *) x != *(const int64 *) y)
					return false;
				break;
			case KEY_FLOAT64:
				{
					double		left = *(const double *) x;
					double		right = *(const double *) y;

					if (left != right && !(isnan(left) && isnan(right)))
						return false;
					break;
				}
			case KEY_DECIMAL:
				if (!decimal_equal(*(const SeDecimal *) x, *(const SeDecimal *) y))
					return false;
				break;
			case KEY_TEXT:
				if (!text_key_equal((const SeTextKey *) x, (const SeTextKey *) y))
					return false;
				break;
			case KEY_DATUM:
				if (!DatumGetBool(FunctionCall2Coll(key->equal, key->collation,
													*(const Datum *) x, *(const Datum *) y)))
					return false;
				break;
		}
	}
	return true;
}

/*
 * Fill slot-shaped probes (nulls, key parts and hash) from rows of key
 * vectors, column by column.  They point to the vectors' bytes; memory for
 * conversions and by functions is taken from the table's call_context.
 */
void
se_key_load(SeMemtable *table, const SeVector *vectors, const int *rows, int nrows, char *probes)
{
	const SeGroupLayout *layout = table->layout;
	uint32		stride = layout->slot_size;
	MemoryContext old;

	if (layout->single_int)
	{
		const uint8 *null = vectors[0].null;
		const int64 *values = vectors[0].v.i64;

		for (int i = 0; i < nrows; i++)
		{
			SeGroup    *probe = (SeGroup *) (probes + i * stride);
			int			row = rows[i];
			bool		isnull = null[row] != 0;
			int64		value = isnull ? 0 : values[row];

			probe->nulls = SLOT_OCCUPIED | isnull;
			*(int64 *) slot_key(layout, probe) = value;
			probe->hash = finish_hash(mix_hash(HASH_SEED, isnull ? HASH_NULL : (uint64) value));
		}
		return;
	}
	if (layout->single_text && vectors[0].rep == SE_REP_TEXT)
	{
		const uint8 *null = vectors[0].null;
		const SeSlice *values = vectors[0].v.text;

		for (int i = 0; i < nrows; i++)
		{
			SeGroup    *probe = (SeGroup *) (probes + i * stride);
			SeTextKey  *key = (SeTextKey *) slot_key(layout, probe);
			int			row = rows[i];

			if (unlikely(null[row]))
			{
				probe->nulls = SLOT_OCCUPIED | 1;
				probe->hash = finish_hash(mix_hash(HASH_SEED, HASH_NULL));
				continue;
			}
			probe->nulls = SLOT_OCCUPIED;
			text_key_set(key, values[row].data, values[row].len);
			probe->hash = finish_hash(hash_of_text(HASH_SEED, key));
		}
		return;
	}

	for (int i = 0; i < nrows; i++)
		((SeGroup *) (probes + i * stride))->nulls = SLOT_OCCUPIED;

	old = MemoryContextSwitchTo(table->call_context);
	for (int k = 0; k < layout->nkeys; k++)
	{
		const SeKeyDef *key = &layout->keys[k];
		const SeVector *vector = &vectors[k];
		uint32		offset = layout->key_offset + key->offset;

		if (vector->rep != key->rep)
			elog(ERROR, "group key %d arrives in an unexpected representation", k + 1);
		for (int i = 0; i < nrows; i++)
		{
			char	   *probe = probes + i * stride;
			char	   *part = probe + offset;
			int			row = rows[i];

			if (vector->null[row])
			{
				((SeGroup *) probe)->nulls |= (uint32) 1 << k;
				continue;
			}
			switch (key->kind)
			{
				case KEY_INT64:
					*(int64 *) part = vector->v.i64[row];
					break;
				case KEY_FLOAT64:
					*(double *) part = vector->v.f64[row];
					break;
				case KEY_DECIMAL:
					*(SeDecimal *) part = vector->v.dec[row];
					break;
				case KEY_TEXT:
					text_key_set((SeTextKey *) part, vector->v.text[row].data,
									vector->v.text[row].len);
					break;
				case KEY_DATUM:
					*(Datum *) part = se_vector_datum(vector, row, key->type);
					break;
			}
		}
	}
	for (int i = 0; i < nrows; i++)
	{
		SeGroup    *probe = (SeGroup *) (probes + i * stride);

		probe->hash = se_key_hash(layout, probe);
	}
	MemoryContextSwitchTo(old);
}

/* Bytes for a text key, from blocks that live until the table is reset. */
static char *
arena_alloc(SeMemtable *table, uint32 len)
{
	char	   *result;

	if (len > ARENA_BLOCK / 4)
		return MemoryContextAllocHuge(table->state_context, len);
	if (len > table->arena_left)
	{
		table->arena = MemoryContextAlloc(table->state_context, ARENA_BLOCK);
		table->arena_left = ARENA_BLOCK;
	}
	result = table->arena;
	table->arena += len;
	table->arena_left -= len;
	return result;
}

/*
 * Copy a probe's key into a free slot, with all that it points to.  The slot
 * becomes occupied by this.
 */
void
se_key_copy(SeMemtable *table, SeGroup *group, const SeGroup *probe)
{
	const SeGroupLayout *layout = table->layout;

	for (int i = 0; i < layout->nkeys; i++)
	{
		const SeKeyDef *key = &layout->keys[i];
		const char *from = slot_key(layout, probe) + key->offset;
		char	   *to = slot_key(layout, group) + key->offset;
		MemoryContext old;

		if (probe->nulls & ((uint32) 1 << i))
			continue;
		switch (key->kind)
		{
			case KEY_INT64:
			case KEY_FLOAT64:
				*(int64 *) to = *(const int64 *) from;
				break;
			case KEY_DECIMAL:
				{
					SeDecimal	value = *(const SeDecimal *) from;

					if (value.scale == SE_DECIMAL_WIDE)
					{
						old = MemoryContextSwitchTo(table->state_context);
						value.mantissa = (int64) (intptr_t) DatumGetNumericCopy(wide_datum(value));
						MemoryContextSwitchTo(old);
					}
					*(SeDecimal *) to = value;
					break;
				}
			case KEY_TEXT:
				{
					SeTextKey  *text_key = (SeTextKey *) to;

					*text_key = *(const SeTextKey *) from;
					if (text_key->len > TEXT_KEY_INLINE)
					{
						char	   *copy = arena_alloc(table, text_key->len);

						memcpy(copy, text_key->u.data, text_key->len);
						text_key->u.data = copy;
					}
					break;
				}
			case KEY_DATUM:
				old = MemoryContextSwitchTo(table->state_context);
				if (key->typlen == -1)
					*(Datum *) to = PointerGetDatum(PG_DETOAST_DATUM_COPY(*(const Datum *) from));
				else
					*(Datum *) to = datumCopy(*(const Datum *) from, key->typbyval, key->typlen);
				MemoryContextSwitchTo(old);
				break;
		}
	}
	group->nulls = probe->nulls | SLOT_OCCUPIED;
	group->hash = probe->hash;
}

/*
 * The key as a Datum; see state.h.
 */
Datum
se_group_key(const SeMemtable *table, const SeGroup *group, int key_index, bool *isnull)
{
	const SeGroupLayout *layout = table->layout;
	const SeKeyDef *key = &layout->keys[key_index];
	const char *part = slot_key(layout, group) + key->offset;

	*isnull = (group->nulls & ((uint32) 1 << key_index)) != 0;
	if (*isnull)
		return (Datum) 0;
	switch (key->kind)
	{
		case KEY_INT64:
			switch (key->typlen)
			{
				case 1:
					return BoolGetDatum(*(const int64 *) part != 0);
				case 2:
					return Int16GetDatum((int16) *(const int64 *) part);
				case 4:
					return Int32GetDatum((int32) *(const int64 *) part);
				default:
					return Int64GetDatum(*(const int64 *) part);
			}
		case KEY_FLOAT64:
			if (key->typlen == sizeof(float4))
				return Float4GetDatum((float4) *(const double *) part);
			return Float8GetDatum(*(const double *) part);
		case KEY_DECIMAL:
			return NumericGetDatum(se_numeric_from_decimal(*(const SeDecimal *) part));
		case KEY_TEXT:
			{
				const SeTextKey *text_key = (const SeTextKey *) part;

				return PointerGetDatum(cstring_to_text_with_len(text_key_data(text_key),
																text_key->len));
			}
		case KEY_DATUM:
			break;
	}
	return *(const Datum *) part;
}
