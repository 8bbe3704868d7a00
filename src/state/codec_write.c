/*
 * codec_write.c
 *	  Groups to bytes: the flush of a memtable.  See codec.h for the format.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "utils/memutils.h"

#include "state/codec.h"

typedef struct Writer
{
	char	   *buffer;
	Size		size;			/* allocated */
	int			nlanes;			/* of an entry */
} Writer;

/*
 * Where the next bytes and codes go.  Kept in registers while an entry is
 * written: nothing may take its address but functions that are inlined.
 */
typedef struct Cursor
{
	char	   *at;
	char	   *codes_at;
	uint64		codes;			/* up to 16 that are not stored yet */
	int			lane;
} Cursor;

static inline void
put_code(Cursor *cursor, int code)
{
	cursor->codes |= (uint64) code << ((cursor->lane & 15) * 4);
	if ((++cursor->lane & 15) == 0)
	{
		uint64		bytes = little_endian64(cursor->codes);

		memcpy(cursor->codes_at, &bytes, sizeof(bytes));
		cursor->codes_at += sizeof(bytes);
		cursor->codes = 0;
	}
}

/* Store the codes that are left, and nothing behind them. */
static inline void
finish_codes(Cursor *cursor)
{
	int			left = ((cursor->lane & 15) + 1) / 2;

	for (int i = 0; i < left; i++)
		cursor->codes_at[i] = (char) (cursor->codes >> (8 * i));
}

/* Room for LANE_MAX bytes is there. */
static inline void
put_uint64(Cursor *cursor, uint64 value)
{
	int			len = value == 0 ? 0 : (71 - __builtin_clzll(value)) / 8;
	uint64		bytes = little_endian64(value);

	put_code(cursor, len);
	memcpy(cursor->at, &bytes, sizeof(bytes));
	cursor->at += len;
}

static inline void
put_int128(Cursor *cursor, __int128 value)
{
	uint64		low = little_endian64((uint64) value);
	uint64		high = little_endian64((uint64) (value >> 64));

	if (likely(value == (int64) value))
	{
		put_uint64(cursor, zigzag((int64) value));
		return;
	}
	put_code(cursor, CODE_WORDS);
	memcpy(cursor->at, &low, sizeof(low));
	memcpy(cursor->at + sizeof(low), &high, sizeof(high));
	cursor->at += sizeof(low) + sizeof(high);
}

/*
 * Bytes of any number behind what was put before, with room for the rest of
 * the entry; the buffer may move, and the cursor with it.
 */
static pg_noinline Cursor
put_raw_bytes(Writer *writer, Cursor cursor, const char *bytes, uint32 len)
{
	Size		used = cursor.at - writer->buffer;
	Size		needed = used + len + (Size) writer->nlanes * LANE_MAX;

	if (needed > writer->size)
	{
		Size		codes = cursor.codes_at - writer->buffer;

		writer->size = Max(writer->size * 2, needed);
		writer->buffer = repalloc_huge(writer->buffer, writer->size);
		cursor.at = writer->buffer + used;
		cursor.codes_at = writer->buffer + codes;
	}
	memcpy(cursor.at, bytes, len);
	cursor.at += len;
	return cursor;
}

static inline void
put_bytes(Writer *writer, Cursor *cursor, const char *bytes, uint32 len)
{
	put_uint64(cursor, len);
	*cursor = put_raw_bytes(writer, *cursor, bytes, len);
}

/* A numeric behind a four-byte length, in a lane of CODE_WIDE. */
static inline void
put_wide(Writer *writer, Cursor *cursor, Numeric value)
{
	uint32		len = VARSIZE(value) - VARHDRSZ;
	uint32		bytes = little_endian32(len);

	put_code(cursor, CODE_WIDE);
	memcpy(cursor->at, &bytes, sizeof(bytes));
	cursor->at += sizeof(bytes);
	*cursor = put_raw_bytes(writer, *cursor, VARDATA(value), len);
}

static inline void
put_scale(Cursor *cursor, int64 scale)
{
	if (scale < SCALE_BYTE)
		put_code(cursor, (int) scale);
	else
	{
		put_code(cursor, SCALE_BYTE);
		*cursor->at++ = (char) scale;
	}
}

/* Two lanes. */
static inline void
put_decimal(Writer *writer, Cursor *cursor, SeDecimal value)
{
	if (unlikely(value.scale == SE_DECIMAL_WIDE))
	{
		put_wide(writer, cursor, (Numeric) (intptr_t) value.mantissa);
		put_code(cursor, 0);
	}
	else
	{
		put_uint64(cursor, zigzag(value.mantissa));
		put_scale(cursor, value.scale);
	}
}

static inline void
put_keys(Writer *writer, Cursor *cursor, const SeGroupLayout *layout, const SeGroup *group)
{
	for (int i = 0; i < layout->nkeys; i++)
	{
		const SeKeyDef *key = &layout->keys[i];
		const char *part = slot_key(layout, group) + key->offset;

		if (group->nulls & ((uint32) 1 << i))
		{
			put_code(cursor, CODE_NULL);
			if (key->kind == KEY_DECIMAL)
				put_code(cursor, 0);
			continue;
		}
		switch (key->kind)
		{
			case KEY_INT64:
				put_uint64(cursor, zigzag(*(const int64 *) part));
				break;
			case KEY_FLOAT64:
				put_uint64(cursor, float_bits(*(const double *) part));
				break;
			case KEY_DECIMAL:
				put_decimal(writer, cursor, *(const SeDecimal *) part);
				break;
			case KEY_TEXT:
				{
					const SeTextKey *text_key = (const SeTextKey *) part;

					put_bytes(writer, cursor, text_key_data(text_key), text_key->len);
					break;
				}
			case KEY_DATUM:
				{
					Datum		value = *(const Datum *) part;

					if (key->typbyval)
						put_uint64(cursor, zigzag((int64) value));
					else if (key->typlen == -1)
						put_bytes(writer, cursor, VARDATA_ANY(DatumGetPointer(value)),
								  VARSIZE_ANY_EXHDR(DatumGetPointer(value)));
					else if (key->typlen == -2)
						put_bytes(writer, cursor, DatumGetPointer(value),
								  strlen(DatumGetPointer(value)) + 1);
					else
						put_bytes(writer, cursor, DatumGetPointer(value), key->typlen);
					break;
				}
		}
	}
}

static inline void
put_count(Cursor *cursor, const SeGroupLayout *layout, const SeStateDef *state,
		  const SeGroup *group)
{
	int64		count = *state_count(state, group);

	if (count == 0)
		put_code(cursor, CODE_NULL);
	else if (state->count_base >= 0 &&
			 *state_count(&layout->states[state->count_base], group) == count)
		put_code(cursor, CODE_BASE);
	else
		put_uint64(cursor, (uint64) count - 1);
}

static inline void
put_int_state(Cursor *cursor, const SeStateDef *state, const SeStateDef *base,
			  const SeGroup *group)
{
	int64		value = *(int64 *) state_of(state, group);
	int64		base_value;

	if (base != NULL && base_int64(base, group, &base_value))
	{
		if (base_value == value)
		{
			put_code(cursor, CODE_BASE);
			return;
		}
		if (is_difference(state, base))
			value = (int64) ((uint64) value - (uint64) base_value);
	}
	put_uint64(cursor, zigzag(value));
}

static inline void
put_int128_state(Cursor *cursor, const SeStateDef *state, const SeStateDef *base,
				 const SeGroup *group)
{
	__int128	value = *(int128_unaligned *) state_of(state, group);
	int64		base_value;

	if (base != NULL && base_int64(base, group, &base_value) && base_value == value)
		put_code(cursor, CODE_BASE);
	else
		put_int128(cursor, value);
}

static inline void
put_float_state(Cursor *cursor, const SeStateDef *state, const SeStateDef *base,
				const SeGroup *group)
{
	uint64		bits = float_bits(*(double *) state_of(state, group));

	if (base != NULL && state_has(base, group) &&
		float_bits(*(double *) state_of(base, group)) == bits)
		put_code(cursor, CODE_BASE);
	else
		put_uint64(cursor, bits);
}

/* Sums take a third lane: the wide part. */
static inline void
put_decimal_state(Writer *writer, Cursor *cursor, const SeStateDef *state,
				  const SeStateDef *base, const SeGroup *group)
{
	bool		is_sum = state->kind == STATE_SUM_DECIMAL;
	SeDecimal	value;
	SeDecimal	base_value;

	if (base != NULL && base_decimal(state, group, &value) &&
		base_decimal(base, group, &base_value) &&
		value.mantissa == base_value.mantissa && value.scale == base_value.scale)
	{
		put_code(cursor, CODE_BASE);
		put_code(cursor, 0);
		if (is_sum)
			put_code(cursor, CODE_NULL);
	}
	else if (!is_sum)
		put_decimal(writer, cursor, *(SeDecimal *) state_of(state, group));
	else
	{
		const SeDecimalSum *sum = state_of(state, group);

		put_int128(cursor, sum->sum);
		put_scale(cursor, sum->scale);
		if (sum->wide == NULL)
			put_code(cursor, CODE_NULL);
		else
			put_wide(writer, cursor, sum->wide);
	}
}

static inline void
put_combine_state(Writer *writer, Cursor *cursor, SeMemtable *table, const SeStateDef *state,
				  const SeGroup *group)
{
	const SeCombineState *value = state_of(state, group);

	if (value->isnull)
		put_code(cursor, CODE_NULL);
	else if (se_combine_is_byval(state))
		put_uint64(cursor, zigzag((int64) value->value));
	else
	{
		const char *bytes;
		uint32		len;

		se_combine_bytes(table, state, group, &bytes, &len);
		put_bytes(writer, cursor, bytes, len);
	}
}

static inline void
put_states(Writer *writer, Cursor *cursor, SeMemtable *table, const SeGroup *group)
{
	const SeGroupLayout *layout = table->layout;

	for (int i = 0; i < layout->nstates; i++)
	{
		const SeStateDef *state = &layout->states[i];
		const SeStateDef *base = state->base >= 0 ? &layout->states[state->base] : NULL;
		bool		has = state_has(state, group);

		switch (state->kind)
		{
			case STATE_COUNT:
				put_count(cursor, layout, state, group);
				break;
			case STATE_SUM_INT128:
				if (has)
					put_int128_state(cursor, state, base, group);
				else
					put_code(cursor, CODE_NULL);
				break;
			case STATE_SUM_INT64:
			case STATE_MIN_INT:
			case STATE_MAX_INT:
				if (has)
					put_int_state(cursor, state, base, group);
				else
					put_code(cursor, CODE_NULL);
				break;
			case STATE_SUM_FLOAT4:
			case STATE_SUM_FLOAT8:
			case STATE_MIN_FLOAT:
			case STATE_MAX_FLOAT:
				if (has)
					put_float_state(cursor, state, base, group);
				else
					put_code(cursor, CODE_NULL);
				break;
			case STATE_SUM_DECIMAL:
			case STATE_MIN_DECIMAL:
			case STATE_MAX_DECIMAL:
				if (has)
					put_decimal_state(writer, cursor, state, base, group);
				else
				{
					put_code(cursor, CODE_NULL);
					put_code(cursor, 0);
					if (state->kind == STATE_SUM_DECIMAL)
						put_code(cursor, CODE_NULL);
				}
				break;
			case STATE_COMBINE:
				put_combine_state(writer, cursor, table, state, group);
				break;
		}
		if (state->with_count)
			put_count(cursor, layout, state, group);
	}
}

/* Complete the header of the chunk of "size" bytes and hand it over. */
static void
emit_chunk(Writer *writer, Size size, int ngroups, uint32 hash_low, uint32 hash_high,
		   SeChunkSink emit, void *arg)
{
	uint32		count = little_endian32(ngroups);
	pg_crc32c	crc;

	writer->buffer[0] = CHUNK_FORMAT;
	memcpy(writer->buffer + COUNT_OFFSET, &count, sizeof(count));
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, writer->buffer + COUNT_OFFSET, size - COUNT_OFFSET);
	FIN_CRC32C(crc);
	crc = little_endian32(crc);
	memcpy(writer->buffer + CRC_OFFSET, &crc, sizeof(crc));
	emit(arg, writer->buffer, size, hash_low, hash_high, ngroups);
}

void
se_memtable_flush(SeMemtable *table, Size max_chunk, SeChunkSink emit, void *arg)
{
	const SeGroupLayout *layout = table->layout;
	int			code_bytes = (layout->nlanes + 1) / 2;
	Size		entry_max = code_bytes + (Size) layout->nlanes * LANE_MAX;
	Writer		writer;
	SeGroup    *group;
	int64		position = 0;
	Size		used = CHUNK_HEADER;
	int			ngroups = 0;
	uint32		hash_low = 0;
	uint32		hash_high = 0;

	writer.nlanes = layout->nlanes;
	writer.size = max_chunk + entry_max + CHUNK_HEADER;
	writer.buffer = MemoryContextAllocHuge(CurrentMemoryContext, writer.size);

	while ((group = se_memtable_next(table, &position)) != NULL)
	{
		Cursor		cursor;
		Size		entry_size;

		if (used + entry_max > writer.size)
		{
			writer.size = used + entry_max;
			writer.buffer = repalloc_huge(writer.buffer, writer.size);
		}
		cursor.codes_at = writer.buffer + used;
		cursor.at = cursor.codes_at + code_bytes;
		cursor.codes = 0;
		cursor.lane = 0;
		put_code(&cursor, ENTRY_PARTIAL);
		put_keys(&writer, &cursor, layout, group);
		put_states(&writer, &cursor, table, group);
		finish_codes(&cursor);
		entry_size = cursor.at - writer.buffer - used;
		if (layout->has_combine)
			MemoryContextReset(table->call_context);

		if (used + entry_size > max_chunk && ngroups > 0)
		{
			emit_chunk(&writer, used, ngroups, hash_low, hash_high, emit, arg);
			memmove(writer.buffer + CHUNK_HEADER, writer.buffer + used, entry_size);
			used = CHUNK_HEADER;
			ngroups = 0;
			CHECK_FOR_INTERRUPTS();
		}
		used += entry_size;
		if (ngroups++ == 0)
			hash_low = group->hash;
		hash_high = group->hash;
	}
	if (ngroups > 0)
		emit_chunk(&writer, used, ngroups, hash_low, hash_high, emit, arg);
	pfree(writer.buffer);
}
