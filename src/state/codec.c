/*
 * codec.c
 *	  The byte format of groups: flush and merge.
 *
 * NOTES
 *	  A chunk is
 *
 *		format (1 byte) | CRC-32C of what follows (4) | number of entries (4)
 *		| entries, in the order of their keys' hashes
 *
 *	  and an entry is
 *
 *		one 4-bit code for each lane, two in a byte, low half first
 *		| the lanes' bytes
 *
 *	  Lane 0 is the kind of the entry; then come the keys, then the states, in
 *	  the layout's order.  Most lanes are 64-bit integers: the code is the number
 *	  of bytes that follow, 0 to 8, or one of CODE_...  Signed values are
 *	  zigzagged; floats are written with their bytes reversed, because those of
 *	  everyday values end in zeros; counts are written less one.  A state whose
 *	  value is that of an earlier state over the same input (its base) takes no
 *	  bytes, so the sum, min and max of a group of one row are written once.  All
 *	  integers are little-endian.
 *
 *	  Lengths in front and bytes behind let both sides work with whole words
 *	  instead of a loop over each byte.  The hash is not stored: computing it
 *	  again is cheaper than reading it from a log.
 *
 *	  The CRC is there because the bytes of by-reference keys and states are
 *	  handed to functions of their types, which trust them.  Below it, decoding
 *	  trusts no length and no order.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "port/pg_crc32c.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "source/vector.h"
#include "state/state_internal.h"

#define CHUNK_FORMAT 1
#define CHUNK_HEADER 9
#define CRC_OFFSET 1
#define COUNT_OFFSET 5

#define ENTRY_PARTIAL 0

#define CODE_WORDS 9			/* 16 bytes: an int128 */
#define CODE_WIDE 13			/* a numeric's bytes, behind their length */
#define CODE_BASE 14			/* as the base's value */
#define CODE_NULL 15			/* no value; a count of 0 */

/* Codes of a lane that holds a decimal's scale: the scale, or a byte follows. */
#define SCALE_BYTE 15

/* Bytes of one lane at most, without those of by-reference values. */
#define LANE_MAX 16

static inline uint64
little_endian64(uint64 value)
{
#ifdef WORDS_BIGENDIAN
	return pg_bswap64(value);
#else
	return value;
#endif
}

static inline uint32
little_endian32(uint32 value)
{
#ifdef WORDS_BIGENDIAN
	return pg_bswap32(value);
#else
	return value;
#endif
}

static inline uint64
zigzag(int64 value)
{
	return ((uint64) value << 1) ^ (uint64) (value >> 63);
}

static inline int64
unzigzag(uint64 value)
{
	return (int64) (value >> 1) ^ -(int64) (value & 1);
}

static inline uint64
float_bits(double value)
{
	uint64		bits;

	memcpy(&bits, &value, sizeof(bits));
	return pg_bswap64(bits);
}

static inline double
float_of_bits(uint64 bits)
{
	double		value;

	bits = pg_bswap64(bits);
	memcpy(&value, &bits, sizeof(value));
	return value;
}

/* The base's value as an int64, if it is one. */
static bool
base_int64(const SeStateDef *base, const SeGroup *group, int64 *value)
{
	if (!state_has(base, group))
		return false;
	if (base->kind == STATE_SUM_INT128)
	{
		__int128	sum = *(int128_unaligned *) state_of(base, group);

		*value = (int64) sum;
		return *value == sum;
	}
	*value = *(int64 *) state_of(base, group);
	return true;
}

/* The base's value as a narrow decimal, if it is one. */
static bool
base_decimal(const SeStateDef *base, const SeGroup *group, SeDecimal *value)
{
	if (!state_has(base, group))
		return false;
	if (base->kind == STATE_SUM_DECIMAL)
	{
		const SeDecimalSum *sum = state_of(base, group);

		value->mantissa = (int64) sum->sum;
		value->scale = (int32) sum->scale;
		return sum->wide == NULL && value->mantissa == sum->sum;
	}
	*value = *(SeDecimal *) state_of(base, group);
	return value->scale != SE_DECIMAL_WIDE;
}

/* An integer min or max is written as the difference from another one. */
static inline bool
is_difference(const SeStateDef *state, const SeStateDef *base)
{
	return (state->kind == STATE_MIN_INT || state->kind == STATE_MAX_INT) &&
		(base->kind == STATE_MIN_INT || base->kind == STATE_MAX_INT);
}

/*
 * Writing
 */

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

/*
 * Reading
 */

typedef struct Reader
{
	const uint8 *at;
	const uint8 *end;
	const uint8 *codes;			/* of the entry */
	int			lane;
} Reader;

static void pg_attribute_noreturn()
corrupted(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("state chunk is corrupted")));
}

static inline int
get_code(Reader *reader)
{
	int			lane = reader->lane++;

	return (reader->codes[lane >> 1] >> ((lane & 1) * 4)) & 0x0F;
}

static inline void
need_bytes(const Reader *reader, Size len)
{
	if (unlikely(len > (Size) (reader->end - reader->at)))
		corrupted();
}

/* The integer of a lane whose code, 0 to 8, has been read. */
static inline uint64
get_uint64(Reader *reader, int len)
{
	uint64		value = 0;

	if (unlikely(len > 8))
		corrupted();
	if (likely(reader->end - reader->at >= (ptrdiff_t) sizeof(value)))
	{
		if (len == 0)
			return 0;
		memcpy(&value, reader->at, sizeof(value));
		value = little_endian64(value) & (~UINT64CONST(0) >> (64 - 8 * len));
	}
	else
	{
		need_bytes(reader, len);
		for (int i = 0; i < len; i++)
			value |= (uint64) reader->at[i] << (8 * i);
	}
	reader->at += len;
	return value;
}

static __int128
get_int128(Reader *reader, int code)
{
	uint64		low;
	uint64		high;

	if (code != CODE_WORDS)
		return unzigzag(get_uint64(reader, code));
	need_bytes(reader, sizeof(low) + sizeof(high));
	memcpy(&low, reader->at, sizeof(low));
	memcpy(&high, reader->at + sizeof(low), sizeof(high));
	reader->at += sizeof(low) + sizeof(high);
	return (__int128) (((unsigned __int128) little_endian64(high) << 64) | little_endian64(low));
}

static const char *
get_bytes(Reader *reader, int code, uint32 *len)
{
	uint64		size = get_uint64(reader, code);
	const char *bytes = (const char *) reader->at;

	if (size >= MaxAllocSize - VARHDRSZ)
		corrupted();
	need_bytes(reader, size);
	reader->at += size;
	*len = (uint32) size;
	return bytes;
}

/*
 * A palloc'd numeric from the bytes of a lane of CODE_WIDE.  Whatever passes
 * here can be handed to the server's functions: a header of one or two words,
 * then whole digits.
 */
static Numeric
get_wide(Reader *reader)
{
	uint32		len;
	uint16		header;
	struct varlena *value;

	need_bytes(reader, sizeof(len));
	memcpy(&len, reader->at, sizeof(len));
	len = little_endian32(len);
	reader->at += sizeof(len);
	need_bytes(reader, len);
	if (len < sizeof(header) || len % sizeof(int16) != 0 || len >= MaxAllocSize - VARHDRSZ)
		corrupted();
	memcpy(&header, reader->at, sizeof(header));
	if ((header & 0x8000) == 0 && len < 2 * sizeof(int16))
		corrupted();			/* the long form has a weight */
	for (uint32 i = (header & 0x8000) ? 2 : 4; i < len; i += sizeof(int16))
	{
		int16		digit;

		memcpy(&digit, reader->at + i, sizeof(digit));
		if (digit < 0 || digit > 9999)
			corrupted();
	}

	value = palloc(len + VARHDRSZ);
	SET_VARSIZE(value, len + VARHDRSZ);
	memcpy(VARDATA(value), reader->at, len);
	reader->at += len;
	return (Numeric) value;
}

static int
get_scale(Reader *reader)
{
	int			scale = get_code(reader);

	if (scale == SCALE_BYTE)
	{
		need_bytes(reader, 1);
		scale = *reader->at++;
	}
	if (scale > SE_DECIMAL_MAX_SCALE)
		corrupted();
	return scale;
}

static SeDecimal
get_decimal(Reader *reader, int code)
{
	SeDecimal	value;

	if (code == CODE_WIDE)
	{
		value.mantissa = (int64) (intptr_t) get_wide(reader);
		value.scale = SE_DECIMAL_WIDE;
		(void) get_code(reader);
	}
	else
	{
		value.mantissa = unzigzag(get_uint64(reader, code));
		value.scale = get_scale(reader);
		if (value.mantissa <= -INT64CONST(1000000000000000000) ||
			value.mantissa >= INT64CONST(1000000000000000000))
			corrupted();
	}
	return value;
}

/* An aligned Datum of a by-reference key. */
static Datum
get_key_datum(Reader *reader, const SeKeyDef *key, int code)
{
	uint32		len;
	const char *bytes;

	if (key->typbyval)
		return (Datum) unzigzag(get_uint64(reader, code));

	bytes = get_bytes(reader, code, &len);
	if (key->typlen == -1)
	{
		struct varlena *value = palloc(len + VARHDRSZ);

		SET_VARSIZE(value, len + VARHDRSZ);
		memcpy(VARDATA(value), bytes, len);
		return PointerGetDatum(value);
	}
	else
	{
		char	   *value = palloc(len + 1);

		if (key->typlen > 0 ? len != (uint32) key->typlen :
			len == 0 || bytes[len - 1] != '\0')
			corrupted();
		memcpy(value, bytes, len);
		return PointerGetDatum(value);
	}
}

static void
get_keys(Reader *reader, const SeGroupLayout *layout, SeGroup *group)
{
	group->nulls = SLOT_OCCUPIED;
	for (int i = 0; i < layout->nkeys; i++)
	{
		const SeKeyDef *key = &layout->keys[i];
		char	   *part = slot_key(layout, group) + key->offset;
		int			code = get_code(reader);

		if (code == CODE_NULL)
		{
			group->nulls |= (uint32) 1 << i;
			if (key->kind == KEY_DECIMAL)
				(void) get_code(reader);
			if (layout->single_int)
				*(int64 *) part = 0;
			continue;
		}
		switch (key->kind)
		{
			case KEY_INT64:
				*(int64 *) part = unzigzag(get_uint64(reader, code));
				break;
			case KEY_FLOAT64:
				*(double *) part = float_of_bits(get_uint64(reader, code));
				break;
			case KEY_DECIMAL:
				*(SeDecimal *) part = get_decimal(reader, code);
				break;
			case KEY_TEXT:
				{
					uint32		len;
					const char *bytes = get_bytes(reader, code, &len);

					se_text_key_set((SeTextKey *) part, bytes, len);
					break;
				}
			case KEY_DATUM:
				*(Datum *) part = get_key_datum(reader, key, code);
				break;
		}
	}
}

static void
get_count(Reader *reader, const SeGroupLayout *layout, const SeStateDef *state, SeGroup *group)
{
	int			code = get_code(reader);
	uint64		count;

	if (code == CODE_NULL)
		count = 0;
	else if (code == CODE_BASE)
	{
		if (state->count_base < 0)
			corrupted();
		count = *state_count(&layout->states[state->count_base], group);
	}
	else
	{
		count = get_uint64(reader, code) + 1;
		if (count == 0 || count > PG_INT64_MAX)
			corrupted();
	}
	*state_count(state, group) = (int64) count;
}

static void
get_int_state(Reader *reader, const SeStateDef *state, const SeStateDef *base, int code,
			  SeGroup *group)
{
	__int128	value;
	int64		base_value = 0;
	bool		has_base = base != NULL && base_int64(base, group, &base_value);

	if (code == CODE_BASE)
	{
		if (!has_base)
			corrupted();
		value = base_value;
	}
	else
	{
		value = get_int128(reader, code);
		if (has_base && is_difference(state, base))
			value = (int64) ((uint64) value + (uint64) base_value);
	}

	if (state->kind == STATE_SUM_INT128)
		*(int128_unaligned *) state_of(state, group) = value;
	else if (value == (int64) value)
		*(int64 *) state_of(state, group) = (int64) value;
	else
		corrupted();
}

static void
get_float_state(Reader *reader, const SeStateDef *state, const SeStateDef *base, int code,
				SeGroup *group)
{
	double	   *value = state_of(state, group);

	if (code != CODE_BASE)
		*value = float_of_bits(get_uint64(reader, code));
	else if (base != NULL && state_has(base, group))
		*value = *(double *) state_of(base, group);
	else
		corrupted();
}

static void
get_decimal_state(Reader *reader, const SeStateDef *state, const SeStateDef *base, int code,
				  SeGroup *group)
{
	SeDecimal	value = {0, 0};

	if (code == CODE_BASE)
	{
		if (base == NULL || !base_decimal(base, group, &value))
			corrupted();
		(void) get_code(reader);
	}

	if (state->kind == STATE_SUM_DECIMAL)
	{
		SeDecimalSum *sum = state_of(state, group);

		sum->wide = NULL;
		if (code == CODE_BASE)
		{
			sum->sum = value.mantissa;
			sum->scale = value.scale;
		}
		else
		{
			sum->sum = get_int128(reader, code);
			sum->scale = get_scale(reader);
		}
		code = get_code(reader);
		if (code == CODE_WIDE)
			sum->wide = get_wide(reader);
		else if (code != CODE_NULL)
			corrupted();
	}
	else
		*(SeDecimal *) state_of(state, group) =
			code == CODE_BASE ? value : get_decimal(reader, code);
}

static void
get_combine_state(Reader *reader, const SeStateDef *state, int code, SeGroup *group)
{
	SeCombineState *value = state_of(state, group);

	value->isnull = code == CODE_NULL;
	value->no_value = value->isnull;
	value->len = 0;
	if (value->isnull)
		value->value = (Datum) 0;
	else if (se_combine_is_byval(state))
		value->value = (Datum) unzigzag(get_uint64(reader, code));
	else
	{
		value->value = PointerGetDatum(get_bytes(reader, code, &value->len));
		if (!se_combine_check(state, value->len))
			corrupted();
	}
}

static void
get_states(Reader *reader, const SeGroupLayout *layout, SeGroup *group)
{
	for (int i = 0; i < layout->nstates; i++)
	{
		const SeStateDef *state = &layout->states[i];
		const SeStateDef *base = state->base >= 0 ? &layout->states[state->base] : NULL;
		int			code;

		if (state->kind == STATE_COUNT)
		{
			get_count(reader, layout, state, group);
			continue;
		}

		code = get_code(reader);
		if (code != CODE_NULL)
			group->has[state->has_word] |= state->has_bit;
		switch (state->kind)
		{
			case STATE_SUM_INT64:
			case STATE_SUM_INT128:
			case STATE_MIN_INT:
			case STATE_MAX_INT:
				if (code != CODE_NULL)
					get_int_state(reader, state, base, code, group);
				break;
			case STATE_SUM_FLOAT4:
			case STATE_SUM_FLOAT8:
			case STATE_MIN_FLOAT:
			case STATE_MAX_FLOAT:
				if (code != CODE_NULL)
					get_float_state(reader, state, base, code, group);
				break;
			case STATE_SUM_DECIMAL:
			case STATE_MIN_DECIMAL:
			case STATE_MAX_DECIMAL:
				if (code != CODE_NULL)
					get_decimal_state(reader, state, base, code, group);
				else
					reader->lane += state->kind == STATE_SUM_DECIMAL ? 2 : 1;
				break;
			case STATE_COMBINE:
				get_combine_state(reader, state, code, group);
				break;
			case STATE_COUNT:
				break;
		}
		if (state->with_count)
			get_count(reader, layout, state, group);
	}
}

/* Decode the next entry into a scratch slot. */
static void
get_entry(Reader *reader, const SeGroupLayout *layout, SeGroup *group)
{
	int			code_bytes = (layout->nlanes + 1) / 2;

	need_bytes(reader, code_bytes);
	reader->codes = reader->at;
	reader->at += code_bytes;
	reader->lane = 0;
	if (get_code(reader) != ENTRY_PARTIAL)
		corrupted();
	memset(group->has, 0, layout->has_words * sizeof(uint64));
	get_keys(reader, layout, group);
	group->hash = se_key_hash(layout, group);
	get_states(reader, layout, group);
}

/* Check a chunk's header; returns the number of its entries. */
static uint32
open_chunk(Reader *reader, const char *bytes, Size size)
{
	uint32		stored;
	uint32		count;
	pg_crc32c	crc;

	if (size < CHUNK_HEADER || bytes[0] != CHUNK_FORMAT)
		corrupted();
	memcpy(&stored, bytes + CRC_OFFSET, sizeof(stored));
	memcpy(&count, bytes + COUNT_OFFSET, sizeof(count));
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, bytes + COUNT_OFFSET, size - COUNT_OFFSET);
	FIN_CRC32C(crc);
	if (crc != little_endian32(stored))
		corrupted();

	reader->at = (const uint8 *) bytes + CHUNK_HEADER;
	reader->end = (const uint8 *) bytes + size;
	return little_endian32(count);
}

/* Merge "n" decoded entries. */
static void
merge_block(SeMemtable *table, int n)
{
	const SeGroupLayout *layout = table->layout;
	char	   *entries = table->scratch;

	for (int i = 0; i < n; i++)
	{
		const SeGroup *entry = (const SeGroup *) (entries + i * layout->slot_size);

		__builtin_prefetch(slot_at(table, entry->hash >> (32 - table->bits)), 1);
	}
	for (int i = 0; i < n; i++)
	{
		const SeGroup *entry = (const SeGroup *) (entries + i * layout->slot_size);
		SeGroup    *group;

		while ((group = se_memtable_find(table, entry)) == NULL)
			se_memtable_grow(table);
		for (int s = 0; s < layout->nstates; s++)
		{
			const SeStateDef *state = &layout->states[s];

			if (state->kind == STATE_COMBINE)
				se_combine_merge(table, state, group, entry);
			else
				se_kernel_merge(table, state, group, entry);
		}
	}
}

void
se_memtable_merge(SeMemtable *table, const char *bytes, Size size, uint32 hash_low,
				  uint32 hash_high)
{
	const SeGroupLayout *layout = table->layout;
	char	   *entries = se_memtable_scratch(table);
	Reader		reader;
	uint32		left = open_chunk(&reader, bytes, size);
	uint32		previous = 0;
	MemoryContext old = MemoryContextSwitchTo(table->call_context);

	while (left > 0)
	{
		int			n = 0;

		while (left > 0 && n < SE_STATE_BLOCK)
		{
			SeGroup    *entry = (SeGroup *) (entries + n * layout->slot_size);

			get_entry(&reader, layout, entry);
			left--;
			if (entry->hash < previous)
				corrupted();
			previous = entry->hash;
			if (entry->hash > hash_high)
			{
				left = 0;
				reader.at = reader.end;
			}
			else if (entry->hash >= hash_low)
				n++;
		}
		merge_block(table, n);
		MemoryContextReset(table->call_context);
	}
	MemoryContextSwitchTo(old);
	if (reader.at != reader.end)
		corrupted();
}
