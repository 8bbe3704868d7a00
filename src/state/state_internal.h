/*
 * state_internal.h
 *	  Shared by the files of src/state; nobody else includes it.
 *
 * NOTES
 *	  A group is a slot of a memtable's array:
 *
 *		uint32 hash | uint32 nulls | uint64 has[] | key parts | states
 *
 *	  "nulls" has a bit for each key that is NULL, and SLOT_OCCUPIED.  "has" has
 *	  a bit for each state: it has seen a non-null input.  A zeroed slot is free,
 *	  and zeroed states are empty ones, except those of STATE_COMBINE.
 *
 *	  Several aggregates may share one state: sum(x) and avg(x), or the same
 *	  aggregate written twice.  Only the first of them, the owner, advances it.
 *
 *	  The group that a chunk's entry is decoded into, and the key that is looked
 *	  for, have the same shape as a slot, but point to bytes that are not the
 *	  table's: a new group copies what it keeps.
 */
#ifndef SE_STATE_INTERNAL_H
#define SE_STATE_INTERNAL_H

#include "fmgr.h"
#include "nodes/execnodes.h"
#include "utils/numeric.h"

#include "state/state.h"

typedef __int128 int128_unaligned __attribute__((aligned(8)));

#define SE_STATE_MAX_KEYS 30
#define SLOT_OCCUPIED 0x80000000u
#define SLOT_DEAD 0x40000000u	/* removed; equal to nothing */

struct SeGroup
{
	uint32		hash;
	uint32		nulls;
	uint64		has[FLEXIBLE_ARRAY_MEMBER];
};

/* Keys. */

typedef enum SeKeyKind
{
	KEY_INT64,					/* int64 */
	KEY_FLOAT64,				/* double, as first spelt */
	KEY_DECIMAL,				/* SeDecimal, as first spelt */
	KEY_TEXT,					/* SeTextKey: equal iff the bytes are */
	KEY_DATUM					/* Datum: the type's own functions decide */
} SeKeyKind;

#define TEXT_KEY_INLINE 12

typedef struct SeTextKey
{
	uint32		len;
	char		prefix[4];		/* zero padded, as is "rest" */
	union
	{
		char		rest[TEXT_KEY_INLINE - 4];	/* when len <= TEXT_KEY_INLINE */
		const char *data;		/* else all bytes */
	}			u;
} SeTextKey;

typedef struct SeKeyDef
{
	SeKeyKind	kind;
	SeRep		rep;			/* of the vectors in which it arrives */
	Oid			type;
	Oid			collation;
	Oid			sort_opr;
	int16		typlen;
	bool		typbyval;
	bool		bytewise;		/* KEY_TEXT: sorts as its bytes do */
	uint32		offset;			/* in the key parts */
	FmgrInfo   *hash;			/* KEY_DATUM */
	FmgrInfo   *equal;			/* KEY_DATUM */
} SeKeyDef;

/* States. */

typedef enum SeStateKind
{
	STATE_COUNT,				/* int64 */
	STATE_SUM_INT64,			/* int64; inputs of at most 32 bits */
	STATE_SUM_INT128,			/* int128 */
	STATE_SUM_FLOAT4,			/* double, rounded to float at each step */
	STATE_SUM_FLOAT8,			/* double */
	STATE_SUM_DECIMAL,			/* SeDecimalSum */
	STATE_MIN_INT,				/* int64 */
	STATE_MAX_INT,
	STATE_MIN_FLOAT,			/* double */
	STATE_MAX_FLOAT,
	STATE_MIN_DECIMAL,			/* SeDecimal */
	STATE_MAX_DECIMAL,
	STATE_COMBINE				/* SeCombineState */
} SeStateKind;

/*
 * The sum of numerics: sum * 10^-scale, plus what did not fit.  "scale" is the
 * largest display scale of the narrow inputs.
 */
typedef struct SeDecimalSum
{
	int128_unaligned sum;
	Numeric		wide;			/* NULL if none */
	int64		scale;
} SeDecimalSum;

typedef struct SeCombineState
{
	Datum		value;
	uint32		len;			/* only in a decoded entry: bytes at "value" */
	bool		isnull;
	bool		no_value;		/* a strict transition still waits for its first
								 * non-null argument */
} SeCombineState;

typedef struct SeCombineCall SeCombineCall;
typedef struct SeDistinctDef SeDistinctDef;

typedef struct SeStateDef
{
	SeStateKind kind;
	SeRep		rep;			/* of the argument (kernels) */
	bool		any_input;		/* count(*): no argument */
	bool		with_count;		/* int64 count behind the state, for avg */
	uint32		offset;			/* in the slot */
	uint32		count_offset;	/* of the count, in the slot */
	uint32		has_word;
	uint64		has_bit;
	int			owner;			/* the aggregate that advances it */

	/*
	 * For the byte format: an earlier state over the same input, and an
	 * earlier state that counts, whose values often are this one's too; -1 if
	 * there is none.
	 */
	int			base;
	int			count_base;
	SeCombineCall *combine;		/* STATE_COMBINE */
	SeDistinctDef *distinct;	/* STATE_COMBINE: a set of values; else NULL */
} SeStateDef;

/* Aggregates. */

typedef enum SeResultKind
{
	RESULT_COUNT,
	RESULT_VALUE,				/* the state's value, as result_type */
	RESULT_AVERAGE,
	RESULT_COMBINE
} SeResultKind;

typedef struct SeAggDef
{
	Oid			function;
	Oid			result_type;
	int16		result_typlen;
	SeResultKind result;
	int			state;
} SeAggDef;

struct SeGroupLayout
{
	int			nkeys;
	SeKeyDef   *keys;
	bool		single_int;		/* the key is one KEY_INT64 */
	bool		single_text;	/* the key is one KEY_TEXT */
	uint32		key_offset;		/* of the key parts, in the slot */
	uint32		key_size;
	int			naggs;
	SeAggDef   *aggs;
	int			nstates;
	SeStateDef *states;
	bool		has_combine;
	bool		plain;			/* no state points to anything */
	int			has_words;
	uint32		slot_size;
	int			nlanes;			/* of an entry of the byte format */
	uint32		stamp;
};

/* Rows that are looked up, or entries that are merged, at a time. */
#define SE_STATE_BLOCK 64

struct SeMemtable
{
	const SeGroupLayout *layout;
	MemoryContext context;		/* the table's own; slots and scratch space */
	MemoryContext state_context;	/* what slots point to */
	MemoryContext call_context; /* short-lived */

	char	   *slots;			/* aligned to a cache line */
	void	   *slots_alloc;
	int			bits;			/* home slots = 2^bits */
	uint32		range_low;		/* the hashes that are spread over the slots */
	uint32		range_high;
	uint64		scale;			/* home slot = (hash - range_low) * scale / 2^32 */
	int64		tail;			/* further slots behind them, instead of
								 * wrapping */
	int64		ngroups;		/* dead ones included */
	int64		ndead;
	int64		limit;			/* groups at which it grows */
	bool		ordered;		/* slots are in hash order */
	bool		limited;		/* the range stays what it is */

	char	   *arena;			/* free bytes for text keys */
	Size		arena_left;

	char	   *scratch;		/* SE_STATE_BLOCK slots */
};

static inline bool
slot_is_live(const SeGroup *group)
{
	return (group->nulls & (SLOT_OCCUPIED | SLOT_DEAD)) == SLOT_OCCUPIED;
}

static inline char *
slot_key(const SeGroupLayout *layout, const SeGroup *group)
{
	return (char *) group + layout->key_offset;
}

static inline SeGroup *
slot_at(const SeMemtable *table, int64 index)
{
	return (SeGroup *) (table->slots + index * table->layout->slot_size);
}

static inline int64
home_of(const SeMemtable *table, uint32 hash)
{
	return (int64) (((hash - table->range_low) * table->scale) >> 32);
}

static inline bool
state_has(const SeStateDef *state, const SeGroup *group)
{
	return (group->has[state->has_word] & state->has_bit) != 0;
}

static inline void *
state_of(const SeStateDef *state, const SeGroup *group)
{
	return (char *) group + state->offset;
}

static inline int64 *
state_count(const SeStateDef *state, const SeGroup *group)
{
	return (int64 *) ((char *) group + state->count_offset);
}

/* memtable.c */

/*
 * The group with the hash, nulls and key of "probe" (a slot-shaped scratch),
 * made if there is none; NULL if the table must grow first (se_memtable_grow),
 * which moves all groups.
 */
extern SeGroup *se_memtable_find(SeMemtable *table, const SeGroup *probe);
extern void se_memtable_grow(SeMemtable *table);
extern void se_memtable_cover(SeMemtable *table, uint32 hash_low, uint32 hash_high);
extern void se_memtable_order(SeMemtable *table);
extern char *se_memtable_scratch(SeMemtable *table);

/* keys.c */

extern void se_keys_compile(SeGroupLayout *layout, const SeKeySpec *specs, MemoryContext context);
extern uint32 se_key_hash(const SeGroupLayout *layout, const SeGroup *probe);
extern bool se_key_equal(const SeGroupLayout *layout, const SeGroup *a, const SeGroup *b);
extern void se_key_load(SeMemtable *table, const SeVector *vectors, const int *rows, int nrows,
						char *probes);
extern void se_key_copy(SeMemtable *table, SeGroup *group, const SeGroup *probe);
extern int	se_decimal_compare(SeDecimal a, SeDecimal b);

static inline const char *
text_key_data(const SeTextKey *key)
{
	return key->len <= TEXT_KEY_INLINE ? key->prefix : key->u.data;
}

static inline bool
text_key_equal(const SeTextKey *a, const SeTextKey *b)
{
	/* the length and the first four bytes at once */
	if (*(const uint64 *) a != *(const uint64 *) b)
		return false;
	if (likely(a->len <= TEXT_KEY_INLINE))
		return memcmp(a->u.rest, b->u.rest, sizeof(a->u.rest)) == 0;
	return memcmp(a->u.data, b->u.data, a->len) == 0;
}

/*
 * Make *key hold the bytes when they are few, else refer to them.
 */
static inline void
text_key_set(SeTextKey *key, const char *data, uint32 len)
{
	key->len = len;
	if (unlikely(len > TEXT_KEY_INLINE))
	{
		memcpy(key->prefix, data, sizeof(key->prefix));
		key->u.data = data;
		return;
	}
#ifndef WORDS_BIGENDIAN
	/* Two loads that may overlap, but never leave the text. */
	if (len >= 8)
	{
		uint64		first;
		uint32		last;

		memcpy(&first, data, sizeof(first));
		memcpy(&last, data + len - sizeof(last), sizeof(last));
		last = (uint32) ((uint64) last >> (8 * (TEXT_KEY_INLINE - len)));
		memcpy(key->prefix, &first, sizeof(first));
		memcpy(key->u.rest + 4, &last, sizeof(last));
		return;
	}
	if (len >= 4)
	{
		uint32		first;
		uint32		last;
		uint64		rest;

		memcpy(&first, data, sizeof(first));
		memcpy(&last, data + len - sizeof(last), sizeof(last));
		rest = (uint64) last >> (8 * (8 - len));
		memcpy(key->prefix, &first, sizeof(first));
		memcpy(key->u.rest, &rest, sizeof(rest));
		return;
	}
#endif
	memset(key->prefix, 0, TEXT_KEY_INLINE);
	for (uint32 i = 0; i < len; i++)
		key->prefix[i] = data[i];
}

static inline uint64
mix_hash(uint64 hash, uint64 value)
{
	hash = (hash ^ value) * UINT64CONST(0x9FB21C651E98DF25);
	hash ^= hash >> 35;
	hash *= UINT64CONST(0xD6E8FEB86659FD93);
	return hash ^ (hash >> 32);
}

#define HASH_SEED UINT64CONST(0x2545F4914F6CDD1D)

static inline uint32
finish_hash(uint64 hash)
{
	return (uint32) ((hash * UINT64CONST(0x9E3779B97F4A7C15)) >> 32);
}

/* kernels.c */

extern void se_kernel_update(SeMemtable *table, const SeStateDef *state, const SeVector *args,
							 const int *rows, int nrows, SeGroup **groups);
extern void se_kernel_merge(SeMemtable *table, const SeStateDef *state, SeGroup *to,
							const SeGroup *from);
extern void se_kernel_merge_block(SeMemtable *table, const SeStateDef *state, SeGroup **groups,
								  const char *entries, int n);
extern Datum se_kernel_result(const SeAggDef *agg, const SeStateDef *state, const SeGroup *group,
							  bool *isnull);

/* kernels_decimal.c */

extern void se_decimal_sum_update(SeMemtable *table, const SeStateDef *state, const SeVector *arg,
								  const int *rows, int nrows, SeGroup **groups);
extern void se_decimal_sum_merge(SeMemtable *table, SeDecimalSum *to, const SeDecimalSum *from);
extern Numeric se_decimal_sum_result(const SeDecimalSum *sum);
extern void se_decimal_minmax_update(SeMemtable *table, const SeStateDef *state,
									 const SeVector *arg, const int *rows, int nrows,
									 SeGroup **groups);
extern void se_decimal_own(SeMemtable *table, const SeStateDef *state, SeGroup *group);
extern void se_decimal_minmax_merge(SeMemtable *table, const SeStateDef *state, SeGroup *to,
									SeDecimal value);
extern void se_decimal_sum_merge_block(SeMemtable *table, const SeStateDef *state,
									   SeGroup **groups, const char *entries, int n);
extern void se_decimal_minmax_merge_block(SeMemtable *table, const SeStateDef *state,
										  SeGroup **groups, const char *entries, int n);

/* combine.c */

extern SeCombineCall *se_combine_compile(const Aggref *aggref, MemoryContext context,
										 Oid *transtype);
extern void se_combine_init(SeMemtable *table, const SeStateDef *state, SeGroup *group);
extern void se_combine_update(SeMemtable *table, const SeStateDef *state, const SeVector *args,
							  const int *rows, int nrows, SeGroup **groups);
extern void se_combine_merge(SeMemtable *table, const SeStateDef *state, SeGroup *to,
							 const SeGroup *from);
extern bool se_combine_is_byval(const SeStateDef *state);
extern void se_combine_bytes(SeMemtable *table, const SeStateDef *state, const SeGroup *group,
							 const char **bytes, uint32 *len);
extern bool se_combine_check(const SeStateDef *state, uint32 len);
extern Datum se_combine_result(SeMemtable *table, const SeStateDef *state, SeGroup *group,
							   bool *isnull);
extern bool se_type_is_anonymous(Oid type);
extern const char *se_combine_refusal(const Aggref *aggref);
extern Datum se_combine_run(SeCombineCall *call, const NullableDatum *values, uint32 nvalues,
							int nextra, const NullableDatum *extra, bool *isnull);
extern bool se_combine_skips_nulls(const SeCombineCall *call);

/* distinct.c */

extern const char *se_distinct_refusal(const Aggref *aggref);
extern SeDistinctDef *se_distinct_compile(const Aggref *aggref, SeCombineCall *call, bool strict,
										  MemoryContext context);
extern uint32 se_distinct_stamp(const SeDistinctDef *def);
extern void se_distinct_update(SeMemtable *table, const SeStateDef *state, const SeVector *args,
							   const int *rows, int nrows, SeGroup **groups);
extern void se_distinct_bytes(const SeStateDef *state, const SeGroup *group, const char **bytes,
							  uint32 *len);
extern bool se_distinct_check(Size len);
extern void se_distinct_merge(SeMemtable *table, const SeStateDef *state, SeGroup *to,
							  const SeGroup *from);
extern Datum se_distinct_result(const SeStateDef *state, const SeGroup *group, bool *isnull);

/* Give a group that is new the states of its entry, of which none is of STATE_COMBINE. */
static inline void
se_group_adopt(SeMemtable *table, SeGroup *group, const SeGroup *entry)
{
	const SeGroupLayout *layout = table->layout;
	uint32		states_offset = layout->key_offset + layout->key_size;

	memcpy(group->has, entry->has, layout->has_words * sizeof(uint64));
	memcpy((char *) group + states_offset, (const char *) entry + states_offset,
		   layout->slot_size - states_offset);
	for (int s = 0; s < layout->nstates && !layout->plain; s++)
		if (layout->states[s].rep == SE_REP_DECIMAL)
			se_decimal_own(table, &layout->states[s], group);
}

/* Merge a decoded entry, or a slot of another table if no state is of STATE_COMBINE. */
static inline void
se_group_merge(SeMemtable *table, const SeGroup *entry)
{
	const SeGroupLayout *layout = table->layout;
	int64		before = table->ngroups;
	SeGroup    *group;

	while ((group = se_memtable_find(table, entry)) == NULL)
		se_memtable_grow(table);
	if (table->ngroups > before && !layout->has_combine)
	{
		se_group_adopt(table, group, entry);
		return;
	}
	for (int s = 0; s < layout->nstates; s++)
	{
		const SeStateDef *state = &layout->states[s];

		if (state->kind == STATE_COMBINE)
			se_combine_merge(table, state, group, entry);
		else
			se_kernel_merge(table, state, group, entry);
	}
}

#endif							/* SE_STATE_INTERNAL_H */
