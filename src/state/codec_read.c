/*
 * codec_read.c
 *	  Bytes to groups: the merge of a chunk into a memtable.  See codec.h for
 *	  the format.
 *
 * NOTES
 *	  An entry is decoded into a slot outside the table, whose pointers lead into
 *	  the chunk or into call_context; merging copies what it keeps.  Whatever
 *	  the bytes are, the outcome is a merge or ERRCODE_DATA_CORRUPTED.
 */
#include "postgres.h"

#include "port/pg_crc32c.h"
#include "utils/memutils.h"

#include "compat/compat.h"
#include "state/codec.h"

/*
 * Kept in registers while entries are decoded: nothing may take its address but
 * functions that are inlined; others work on a copy.
 */
typedef struct Reader
{
	const uint8 *at;
	const uint8 *end;
	const uint8 *codes;			/* of the entry */
	int			lane;
} Reader;

se_noreturn static void corrupted(void);

static void
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

static inline __int128
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

static inline const char *
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
static pg_noinline Numeric
read_wide(Reader *reader)
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

static inline Numeric
get_wide(Reader *reader)
{
	Reader		copy = *reader;
	Numeric		value = read_wide(&copy);

	*reader = copy;
	return value;
}

static inline int
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

static inline SeDecimal
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
static pg_noinline Datum
read_key_datum(Reader *reader, const SeKeyDef *key, int code)
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

static inline void
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

					text_key_set((SeTextKey *) part, bytes, len);
					break;
				}
			case KEY_DATUM:
				{
					Reader		copy = *reader;

					*(Datum *) part = read_key_datum(&copy, key, code);
					*reader = copy;
					break;
				}
		}
	}
}

static inline void
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

static inline void
get_int_state(Reader *reader, const SeStateDef *state, const SeStateDef *base, int code,
			  SeGroup *group)
{
	int64		value;
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
		value = unzigzag(get_uint64(reader, code));
		if (has_base && is_difference(state, base))
			value = (int64) ((uint64) value + (uint64) base_value);
	}
	*(int64 *) state_of(state, group) = value;
}

static inline void
get_int128_state(Reader *reader, const SeStateDef *state, const SeStateDef *base, int code,
				 SeGroup *group)
{
	int64		base_value = 0;
	__int128	value;

	if (code != CODE_BASE)
		value = get_int128(reader, code);
	else if (base != NULL && base_int64(base, group, &base_value))
		value = base_value;
	else
		corrupted();
	*(int128_unaligned *) state_of(state, group) = value;
}

static inline void
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

static inline void
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

static inline void
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

static inline void
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
			case STATE_SUM_INT128:
				if (code != CODE_NULL)
					get_int128_state(reader, state, base, code, group);
				break;
			case STATE_SUM_INT64:
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
static inline void
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
	if (!layout->has_combine)
		memset((char *) group + layout->key_offset + layout->key_size, 0,
			   layout->slot_size - layout->key_offset - layout->key_size);
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

/* Merge the states of entries [first, last) to those of their groups, state by state. */
static void
merge_states(SeMemtable *table, SeGroup **groups, int first, int last)
{
	const SeGroupLayout *layout = table->layout;

	for (int s = 0; s < layout->nstates && first < last; s++)
		se_kernel_merge_block(table, &layout->states[s], groups + first,
							  table->scratch + first * layout->slot_size, last - first);
}

/* Merge "n" decoded entries. */
static void
merge_block(SeMemtable *table, int n)
{
	const SeGroupLayout *layout = table->layout;
	char	   *entries = table->scratch;
	SeGroup    *groups[SE_STATE_BLOCK];
	int			first = 0;

	for (int i = 0; i < n; i++)
	{
		const SeGroup *entry = (const SeGroup *) (entries + i * layout->slot_size);
		const char *slot = (const char *) slot_at(table, home_of(table, entry->hash));

		for (uint32 at = 0; at < layout->slot_size; at += 64)
			__builtin_prefetch(slot + at, 1);
	}
	for (int i = 0; i < n; i++)
	{
		const SeGroup *entry = (const SeGroup *) (entries + i * layout->slot_size);
		int64		before = table->ngroups;

		if (layout->has_combine)
		{
			se_group_merge(table, entry);
			continue;
		}
		while (unlikely((groups[i] = se_memtable_find(table, entry)) == NULL))
		{
			/* groups will move: finish those that were found */
			merge_states(table, groups, first, i);
			first = i;
			se_memtable_grow(table);
		}
		if (table->ngroups > before)
		{
			se_group_adopt(table, groups[i], entry);
			groups[i] = NULL;
		}
	}
	if (!layout->has_combine)
		merge_states(table, groups, first, n);
}

static pg_attribute_always_inline void
merge_entries(SeMemtable *table, const char *bytes, Size size, uint32 hash_low, uint32 hash_high,
			  const bool *wanted, int shift)
{
	const SeGroupLayout *layout = table->layout;
	char	   *entries = se_memtable_scratch(table);
	Reader		reader;
	uint32		left = open_chunk(&reader, bytes, size);
	uint32		previous = 0;
	MemoryContext old = MemoryContextSwitchTo(table->call_context);

	se_memtable_cover(table, hash_low, hash_high);
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
			else if (entry->hash >= hash_low && (wanted == NULL || wanted[entry->hash >> shift]))
				n++;
		}
		merge_block(table, n);
		MemoryContextReset(table->call_context);
	}
	MemoryContextSwitchTo(old);
	if (reader.at != reader.end)
		corrupted();
}

void
se_memtable_merge(SeMemtable *table, const char *bytes, Size size, uint32 hash_low,
				  uint32 hash_high)
{
	merge_entries(table, bytes, size, hash_low, hash_high, NULL, 0);
}

void
se_memtable_merge_some(SeMemtable *table, const char *bytes, Size size, const bool *wanted,
					   int bits)
{
	merge_entries(table, bytes, size, 0, PG_UINT32_MAX, wanted, 32 - bits);
}
