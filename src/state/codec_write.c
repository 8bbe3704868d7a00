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
	Size		entry;			/* where the entry begins */
	Size		at;				/* where the next byte goes */
	int			lane;
	MemoryContext context;		/* of the buffer */
} Writer;

static void
writer_reserve(Writer *writer, Size bytes)
{
	if (writer->at + bytes <= writer->size)
		return;
	writer->size = Max(writer->size * 2, writer->at + bytes);
	writer->buffer = repalloc_huge(writer->buffer, writer->size);
}

static inline void
put_code(Writer *writer, int code)
{
	int			lane = writer->lane++;

	writer->buffer[writer->entry + (lane >> 1)] |= (char) (code << ((lane & 1) * 4));
}

/* Room for LANE_MAX bytes is there. */
static inline void
put_uint64(Writer *writer, uint64 value)
{
	int			len = value == 0 ? 0 : (71 - __builtin_clzll(value)) / 8;
	uint64		bytes = little_endian64(value);

	put_code(writer, len);
	memcpy(writer->buffer + writer->at, &bytes, sizeof(bytes));
	writer->at += len;
}

static void
put_int128(Writer *writer, __int128 value)
{
	uint64		low = little_endian64((uint64) value);
	uint64		high = little_endian64((uint64) (value >> 64));

	if (value == (int64) value)
	{
		put_uint64(writer, zigzag((int64) value));
		return;
	}
	put_code(writer, CODE_WORDS);
	memcpy(writer->buffer + writer->at, &low, sizeof(low));
	memcpy(writer->buffer + writer->at + sizeof(low), &high, sizeof(high));
	writer->at += sizeof(low) + sizeof(high);
}

/* Bytes behind what was put before; "lanes" lanes of the entry may follow. */
static void
put_raw(Writer *writer, const char *bytes, uint32 len, int lanes)
{
	writer_reserve(writer, len + (Size) lanes * LANE_MAX);
	memcpy(writer->buffer + writer->at, bytes, len);
	writer->at += len;
}

static void
put_bytes(Writer *writer, const char *bytes, uint32 len, int lanes)
{
	put_uint64(writer, len);
	put_raw(writer, bytes, len, lanes);
}

/* A numeric behind a four-byte length, in a lane of CODE_WIDE. */
static void
put_wide(Writer *writer, Numeric value, int lanes)
{
	uint32		len = VARSIZE(value) - VARHDRSZ;
	uint32		bytes = little_endian32(len);

	put_code(writer, CODE_WIDE);
	memcpy(writer->buffer + writer->at, &bytes, sizeof(bytes));
	writer->at += sizeof(bytes);
	put_raw(writer, VARDATA(value), len, lanes);
}

static inline void
put_scale(Writer *writer, int64 scale)
{
	if (scale < SCALE_BYTE)
		put_code(writer, (int) scale);
	else
	{
		put_code(writer, SCALE_BYTE);
		writer->buffer[writer->at++] = (char) scale;
	}
}

/* Two lanes. */
static void
put_decimal(Writer *writer, SeDecimal value, int lanes)
{
	if (value.scale == SE_DECIMAL_WIDE)
	{
		put_wide(writer, (Numeric) (intptr_t) value.mantissa, lanes);
		put_code(writer, 0);
	}
	else
	{
		put_uint64(writer, zigzag(value.mantissa));
		put_scale(writer, value.scale);
	}
}

static void
put_keys(Writer *writer, const SeGroupLayout *layout, const SeGroup *group)
{
	for (int i = 0; i < layout->nkeys; i++)
	{
		const SeKeyDef *key = &layout->keys[i];
		const char *part = slot_key(layout, group) + key->offset;

		if (group->nulls & ((uint32) 1 << i))
		{
			put_code(writer, CODE_NULL);
			if (key->kind == KEY_DECIMAL)
				put_code(writer, 0);
			continue;
		}
		switch (key->kind)
		{
			case KEY_INT64:
				put_uint64(writer, zigzag(*(const int64 *) part));
				break;
			case KEY_FLOAT64:
				put_uint64(writer, float_bits(*(const double *) part));
				break;
			case KEY_DECIMAL:
				put_decimal(writer, *(const SeDecimal *) part, layout->nlanes);
				break;
			case KEY_TEXT:
				{
					const SeTextKey *text_key = (const SeTextKey *) part;

					put_bytes(writer, text_key_data(text_key), text_key->len, layout->nlanes);
					break;
				}
			case KEY_DATUM:
				{
					Datum		value = *(const Datum *) part;

					if (key->typbyval)
						put_uint64(writer, zigzag((int64) value));
					else if (key->typlen == -1)
						put_bytes(writer, VARDATA_ANY(DatumGetPointer(value)),
								  VARSIZE_ANY_EXHDR(DatumGetPointer(value)), layout->nlanes);
					else if (key->typlen == -2)
						put_bytes(writer, DatumGetPointer(value),
								  strlen(DatumGetPointer(value)) + 1, layout->nlanes);
					else
						put_bytes(writer, DatumGetPointer(value), key->typlen, layout->nlanes);
					break;
				}
		}
	}
}

static void
put_count(Writer *writer, const SeGroupLayout *layout, const SeStateDef *state,
		  const SeGroup *group)
{
	int64		count = *state_count(state, group);

	if (count == 0)
		put_code(writer, CODE_NULL);
	else if (state->count_base >= 0 &&
			 *state_count(&layout->states[state->count_base], group) == count)
		put_code(writer, CODE_BASE);
	else
		put_uint64(writer, (uint64) count - 1);
}

static void
put_int_state(Writer *writer, const SeStateDef *state, const SeStateDef *base,
			  const SeGroup *group)
{
	int64		base_value;
	__int128	value = state->kind == STATE_SUM_INT128 ?
		(__int128) *(int128_unaligned *) state_of(state, group) :
		(__int128) *(int64 *) state_of(state, group);

	if (base != NULL && base_int64(base, group, &base_value))
	{
		if (base_value == value)
		{
			put_code(writer, CODE_BASE);
			return;
		}
		if (is_difference(state, base))
			value = (int64) ((uint64) value - (uint64) base_value);
	}
	put_int128(writer, value);
}

static void
put_float_state(Writer *writer, const SeStateDef *state, const SeStateDef *base,
				const SeGroup *group)
{
	uint64		bits = float_bits(*(double *) state_of(state, group));

	if (base != NULL && state_has(base, group) &&
		float_bits(*(double *) state_of(base, group)) == bits)
		put_code(writer, CODE_BASE);
	else
		put_uint64(writer, bits);
}

/* Sums take a third lane: the wide part. */
static void
put_decimal_state(Writer *writer, const SeGroupLayout *layout, const SeStateDef *state,
				  const SeStateDef *base, const SeGroup *group)
{
	bool		is_sum = state->kind == STATE_SUM_DECIMAL;
	SeDecimal	value;
	SeDecimal	base_value;

	if (base != NULL && base_decimal(state, group, &value) &&
		base_decimal(base, group, &base_value) &&
		value.mantissa == base_value.mantissa && value.scale == base_value.scale)
	{
		put_code(writer, CODE_BASE);
		put_code(writer, 0);
		if (is_sum)
			put_code(writer, CODE_NULL);
	}
	else if (!is_sum)
		put_decimal(writer, *(SeDecimal *) state_of(state, group), layout->nlanes);
	else
	{
		const SeDecimalSum *sum = state_of(state, group);

		put_int128(writer, sum->sum);
		put_scale(writer, sum->scale);
		if (sum->wide == NULL)
			put_code(writer, CODE_NULL);
		else
			put_wide(writer, sum->wide, layout->nlanes);
	}
}

static void
put_combine_state(Writer *writer, SeMemtable *table, const SeStateDef *state,
				  const SeGroup *group)
{
	const SeCombineState *value = state_of(state, group);

	if (value->isnull)
		put_code(writer, CODE_NULL);
	else if (se_combine_is_byval(state))
		put_uint64(writer, zigzag((int64) value->value));
	else
	{
		const char *bytes;
		uint32		len;

		se_combine_bytes(table, state, group, &bytes, &len);
		put_bytes(writer, bytes, len, table->layout->nlanes);
	}
}

static void
put_states(Writer *writer, SeMemtable *table, const SeGroup *group)
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
				put_count(writer, layout, state, group);
				break;
			case STATE_SUM_INT64:
			case STATE_SUM_INT128:
			case STATE_MIN_INT:
			case STATE_MAX_INT:
				if (has)
					put_int_state(writer, state, base, group);
				else
					put_code(writer, CODE_NULL);
				break;
			case STATE_SUM_FLOAT4:
			case STATE_SUM_FLOAT8:
			case STATE_MIN_FLOAT:
			case STATE_MAX_FLOAT:
				if (has)
					put_float_state(writer, state, base, group);
				else
					put_code(writer, CODE_NULL);
				break;
			case STATE_SUM_DECIMAL:
			case STATE_MIN_DECIMAL:
			case STATE_MAX_DECIMAL:
				if (has)
					put_decimal_state(writer, layout, state, base, group);
				else
				{
					put_code(writer, CODE_NULL);
					put_code(writer, 0);
					if (state->kind == STATE_SUM_DECIMAL)
						put_code(writer, CODE_NULL);
				}
				break;
			case STATE_COMBINE:
				put_combine_state(writer, table, state, group);
				break;
		}
		if (state->with_count)
			put_count(writer, layout, state, group);
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
	int			ngroups = 0;
	uint32		hash_low = 0;
	uint32		hash_high = 0;

	writer.size = max_chunk + entry_max + CHUNK_HEADER;
	writer.buffer = MemoryContextAllocHuge(CurrentMemoryContext, writer.size);
	writer.at = CHUNK_HEADER;

	while ((group = se_memtable_next(table, &position)) != NULL)
	{
		writer.entry = writer.at;
		writer.lane = 0;
		writer_reserve(&writer, entry_max);
		memset(writer.buffer + writer.at, 0, code_bytes);
		writer.at += code_bytes;
		put_code(&writer, ENTRY_PARTIAL);
		put_keys(&writer, layout, group);
		put_states(&writer, table, group);
		if (layout->has_combine)
			MemoryContextReset(table->call_context);

		if (writer.at > max_chunk && ngroups > 0)
		{
			Size		entry_size = writer.at - writer.entry;

			emit_chunk(&writer, writer.entry, ngroups, hash_low, hash_high, emit, arg);
			memmove(writer.buffer + CHUNK_HEADER, writer.buffer + writer.entry, entry_size);
			writer.at = CHUNK_HEADER + entry_size;
			ngroups = 0;
			CHECK_FOR_INTERRUPTS();
		}
		if (ngroups++ == 0)
			hash_low = group->hash;
		hash_high = group->hash;
	}
	if (ngroups > 0)
		emit_chunk(&writer, writer.at, ngroups, hash_low, hash_high, emit, arg);
	pfree(writer.buffer);
}
