/*
 * memtable.c
 *	  The groups of one slice, in a flat open-addressing table.
 *
 * NOTES
 *	  Home slots rise with the hash and are probed linearly without wrapping:
 *	  behind them lies a tail.  So the array is nearly in hash order, a flush only
 *	  has to sort within clusters (of one to three slots at this load), and reads
 *	  memory once, forward.  Indexing by the hash's low bits would cost the same
 *	  to update and a radix sort to flush.
 *
 *	  A table into which one hash range is merged spreads that range over its
 *	  slots (se_memtable_cover): over all hashes, the range would be one cluster.
 *
 *	  Keys that hash alike (badly hashed types, or an adversary) make a long
 *	  cluster rather than a full table; when a cluster runs into the end of the
 *	  array, the tail is doubled, not the table.
 *
 *	  A group that is removed leaves a dead slot, which equals no key and goes
 *	  when the table is built anew.
 *
 *	  Slots are allocated in the table's context, what they point to in
 *	  "state_context", a child; resetting that forgets every group at once.  A
 *	  table that grew keeps its memory over a reset, because fresh memory (page
 *	  faults, zeroing) costs more than all lookups of a commit.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "state/state_internal.h"

#define CACHE_LINE 64
#define MIN_BITS 5
#define MAX_BITS 30
#define MIN_TAIL 16

int			se_state_error_row = -1;

static inline int64
home_slots(const SeMemtable *table)
{
	return INT64CONST(1) << table->bits;
}

static inline int64
total_slots(const SeMemtable *table)
{
	return home_slots(table) + table->tail;
}

/* Fewest bits at which "ngroups" stay below the load limit of 0.62. */
static int
bits_for(int64 ngroups)
{
	int			bits = MIN_BITS;

	while (bits < MAX_BITS && (int64) ((INT64CONST(1) << bits) * 0.62) < ngroups)
		bits++;
	return bits;
}

static void
set_range(SeMemtable *table, uint32 hash_low, uint32 hash_high)
{
	table->range_low = hash_low;
	table->range_high = hash_high;
	table->scale = ((uint64) home_slots(table) << 32) / ((uint64) (hash_high - hash_low) + 1);
}

/* Allocate zeroed slots for table->bits and table->tail. */
static void
allocate_slots(SeMemtable *table)
{
	Size		size = (Size) total_slots(table) * table->layout->slot_size;

	table->slots_alloc = MemoryContextAllocExtended(table->context, size + CACHE_LINE,
													MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	table->slots = (char *) TYPEALIGN(CACHE_LINE, table->slots_alloc);
	table->limit = (int64) (home_slots(table) * 0.62);
	set_range(table, table->range_low, table->range_high);
}

SeMemtable *
se_memtable_create(const SeGroupLayout *layout, MemoryContext parent, int64 expected_groups)
{
	MemoryContext context = AllocSetContextCreate(parent, "stream_engine memtable",
												  ALLOCSET_SMALL_SIZES);
	SeMemtable *table = MemoryContextAllocZero(context, sizeof(SeMemtable));

	table->layout = layout;
	table->context = context;
	table->state_context = AllocSetContextCreate(context, "stream_engine memtable state",
												 ALLOCSET_DEFAULT_SIZES);
	table->call_context = AllocSetContextCreate(context, "stream_engine memtable call",
												ALLOCSET_SMALL_SIZES);
	table->bits = bits_for(expected_groups);
	table->tail = MIN_TAIL;
	table->range_high = PG_UINT32_MAX;
	table->ordered = true;
	allocate_slots(table);
	return table;
}

void
se_memtable_limit(SeMemtable *table, uint32 hash_low, uint32 hash_high)
{
	Assert(table->ngroups == 0);
	set_range(table, hash_low, hash_high);
	table->limited = true;
}

void
se_memtable_free(SeMemtable *table)
{
	MemoryContextDelete(table->context);
}

void
se_memtable_reset(SeMemtable *table)
{
	int			bits = bits_for(table->ngroups * 2);

	MemoryContextReset(table->state_context);
	MemoryContextReset(table->call_context);
	table->arena = NULL;
	table->arena_left = 0;

	if (bits + 3 < table->bits)
	{
		pfree(table->slots_alloc);
		table->bits = bits;
		table->tail = MIN_TAIL;
		allocate_slots(table);
	}
	else if (table->ngroups > 0)
		memset(table->slots, 0, (Size) total_slots(table) * table->layout->slot_size);
	table->ngroups = table->ndead = 0;
	table->ordered = true;
}

int64
se_memtable_ngroups(const SeMemtable *table)
{
	return table->ngroups - table->ndead;
}

Size
se_memtable_memory(const SeMemtable *table)
{
	return MemoryContextMemAllocated(table->context, true);
}

Size
se_memtable_group_memory(const SeMemtable *table)
{
	/* of the slots a third to two thirds are taken */
	return 2 * table->layout->slot_size +
		MemoryContextMemAllocated(table->state_context, true) / Max(table->ngroups, 64);
}

/* SE_STATE_BLOCK zeroed slots outside the table. */
char *
se_memtable_scratch(SeMemtable *table)
{
	if (table->scratch == NULL)
		table->scratch = MemoryContextAllocZero(table->context,
												SE_STATE_BLOCK * table->layout->slot_size);
	return table->scratch;
}

/*
 * Copy the slots of an array to table->slots, which is empty.  False if a
 * cluster ran into the end.
 */
static bool
move_slots(SeMemtable *table, const char *slots, int64 nslots)
{
	uint32		stride = table->layout->slot_size;
	int64		end = total_slots(table) - 1;	/* stays free */

	for (int64 i = 0; i < nslots; i++)
	{
		const SeGroup *from = (const SeGroup *) (slots + i * stride);
		int64		at;

		if (!slot_is_live(from))
			continue;
		at = home_of(table, from->hash);
		while (at < end && (slot_at(table, at)->nulls & SLOT_OCCUPIED))
			at++;
		if (at == end)
			return false;
		memcpy(slot_at(table, at), from, stride);
	}
	return true;
}

/* Move all groups to new slots, for table->bits, table->tail and the range. */
static void
rebuild(SeMemtable *table, int64 old_total)
{
	char	   *old_slots = table->slots;
	void	   *old_alloc = table->slots_alloc;

	for (;;)
	{
		allocate_slots(table);
		if (move_slots(table, old_slots, old_total))
			break;
		pfree(table->slots_alloc);
		table->tail *= 2;
	}
	pfree(old_alloc);
	table->ngroups -= table->ndead;
	table->ndead = 0;
	table->ordered = false;
}

/*
 * Make room for more groups, after se_memtable_find refused.  All pointers to
 * groups die.
 */
void
se_memtable_grow(SeMemtable *table)
{
	int64		old_total = total_slots(table);

	if (table->ngroups < table->limit)
		table->tail *= 2;
	else if (table->bits < MAX_BITS)
		table->bits++;
	else
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many groups in one window")));
	rebuild(table, old_total);
}

/*
 * Prepare the table for groups with these hashes.  An empty table is given the
 * range; one with groups keeps its own if that contains the new one, else it is
 * spread over all hashes, and pointers to groups die.  A table that is limited stays as
 * it is.
 */
void
se_memtable_cover(SeMemtable *table, uint32 hash_low, uint32 hash_high)
{
	if (table->limited)
		return;
	if (table->ngroups == 0)
		set_range(table, hash_low, Max(hash_low, hash_high));
	else if (hash_low < table->range_low || hash_high > table->range_high)
	{
		table->range_low = 0;
		table->range_high = PG_UINT32_MAX;
		rebuild(table, total_slots(table));
	}
}

SeGroup *
se_memtable_find(SeMemtable *table, const SeGroup *probe)
{
	const SeGroupLayout *layout = table->layout;
	uint32		stride = layout->slot_size;
	uint32		hash = probe->hash;
	uint32		nulls = probe->nulls;
	char	   *at = table->slots + home_of(table, hash) * stride;
	char	   *end;
	SeGroup    *group;

	Assert(hash >= table->range_low && hash <= table->range_high);
	for (group = (SeGroup *) at; group->nulls & SLOT_OCCUPIED; group = (SeGroup *) at)
	{
		if (group->hash == hash && group->nulls == nulls)
		{
			if (layout->single_int)
			{
				if (*(int64 *) slot_key(layout, group) == *(int64 *) slot_key(layout, probe))
					return group;
			}
			else if (layout->single_text)
			{
				if ((nulls & 1) != 0 ||
					text_key_equal((const SeTextKey *) slot_key(layout, group),
								   (const SeTextKey *) slot_key(layout, probe)))
					return group;
			}
			else if (se_key_equal(layout, group, probe))
				return group;
		}
		at += stride;
	}

	/* The last slot of the array stays free, so that probing needs no bound. */
	end = table->slots + (total_slots(table) - 1) * stride;
	if (unlikely(table->ngroups >= table->limit || at >= end))
		return NULL;

	se_key_copy(table, group, probe);
	if (layout->has_combine)
	{
		for (int i = 0; i < layout->nstates; i++)
		{
			if (layout->states[i].kind == STATE_COMBINE)
				se_combine_init(table, &layout->states[i], group);
		}
	}
	table->ngroups++;
	table->ordered = false;
	return group;
}

/*
 * Look up a row's block; false if the table must grow.
 */
static bool
lookup_block(SeMemtable *table, const SeVector *keys, const int *rows, int nrows,
			 SeGroup **groups)
{
	char	   *probes = se_memtable_scratch(table);
	uint32		stride = table->layout->slot_size;
	MemoryContext old;
	bool		done = true;

	se_key_load(table, keys, rows, nrows, probes);
	for (int i = 0; i < nrows; i++)
	{
		const SeGroup *probe = (const SeGroup *) (probes + i * stride);
		const char *slot = (const char *) slot_at(table, home_of(table, probe->hash));

		__builtin_prefetch(slot, 1);
		if (stride > CACHE_LINE)
			__builtin_prefetch(slot + CACHE_LINE, 1);
	}

	old = MemoryContextSwitchTo(table->call_context);
	for (int i = 0; i < nrows; i++)
	{
		groups[i] = se_memtable_find(table, (SeGroup *) (probes + i * stride));
		if (unlikely(groups[i] == NULL))
		{
			done = false;
			break;
		}
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(table->call_context);
	return done;
}

/*
 * See state.h.  When the table grows in the middle, the rows before are looked
 * up again: they are all there.
 */
void
se_memtable_lookup(SeMemtable *table, const SeVector *keys, const int *rows, int nrows,
				   SeGroup **groups)
{
	int			start = 0;

	se_state_error_row = -1;
	se_memtable_cover(table, 0, PG_UINT32_MAX);
	if (table->layout->nkeys == 0)
	{
		SeGroup    *probe = (SeGroup *) se_memtable_scratch(table);
		SeGroup    *group;

		probe->nulls = SLOT_OCCUPIED;
		probe->hash = finish_hash(HASH_SEED);
		/* there is one group at most, but there may be dead ones */
		while ((group = se_memtable_find(table, probe)) == NULL)
			se_memtable_grow(table);
		for (int i = 0; i < nrows; i++)
			groups[i] = group;
		return;
	}

	while (start < nrows)
	{
		int			n = Min(SE_STATE_BLOCK, nrows - start);

		if (likely(lookup_block(table, keys, rows + start, n, groups + start)))
			start += n;
		else
		{
			se_memtable_grow(table);
			start = 0;
		}
	}
}

void
se_memtable_update(SeMemtable *table, int agg, const SeVector *args, const int *rows, int nrows,
				   SeGroup **groups)
{
	const SeGroupLayout *layout = table->layout;
	const SeStateDef *state = &layout->states[layout->aggs[agg].state];

	se_state_error_row = -1;
	if (state->owner != agg)
		return;
	if (state->kind == STATE_COMBINE)
		se_combine_update(table, state, args, rows, nrows, groups);
	else
		se_kernel_update(table, state, args, rows, nrows, groups);
	se_state_error_row = -1;
}

void
se_group_advance(SeMemtable *table, SeGroup *group, int agg, int64 value)
{
	static uint8_t null[1] = {0};
	const SeGroupLayout *layout = table->layout;
	int			row = 0;
	SeVector	vector;

	vector.rep = SE_REP_INT64;
	vector.null = null;
	vector.v.i64 = &value;
	/* another aggregate may own the state */
	se_memtable_update(table, layout->states[layout->aggs[agg].state].owner, &vector, &row, 1,
					   &group);
}

Datum
se_group_result(SeMemtable *table, SeGroup *group, int agg, bool *isnull)
{
	const SeAggDef *def = &table->layout->aggs[agg];
	const SeStateDef *state = &table->layout->states[def->state];

	if (def->result == RESULT_COMBINE)
		return se_combine_result(table, state, group, isnull);
	return se_kernel_result(def, state, group, isnull);
}

int64
se_group_integer(const SeMemtable *table, const SeGroup *group, int agg)
{
	return *(int64 *) state_of(&table->layout->states[table->layout->aggs[agg].state], group);
}

/* Sort the slots [first, last) of one cluster by hash. */
static void
order_cluster(SeMemtable *table, int64 first, int64 last, char *spare)
{
	uint32		stride = table->layout->slot_size;

	for (int64 i = first + 1; i < last; i++)
	{
		uint32		hash = slot_at(table, i)->hash;
		int64		low = first;
		int64		high = i;

		if (slot_at(table, i - 1)->hash <= hash)
			continue;

		/* the first slot with a larger hash */
		while (low < high)
		{
			int64		middle = low + (high - low) / 2;

			if (slot_at(table, middle)->hash <= hash)
				low = middle + 1;
			else
				high = middle;
		}
		memcpy(spare, slot_at(table, i), stride);
		memmove(slot_at(table, low + 1), slot_at(table, low), (i - low) * stride);
		memcpy(slot_at(table, low), spare, stride);
	}
}

/*
 * Bring the slots into hash order.  Which slots are occupied does not change,
 * and every group stays at or behind its home slot, so lookups go on working;
 * but pointers to groups die.
 */
void
se_memtable_order(SeMemtable *table)
{
	int64		total = total_slots(table);
	char	   *spare = se_memtable_scratch(table);
	int64		i = 0;

	if (table->ordered)
		return;
	while (i < total)
	{
		int64		first = i;

		while (i < total && (slot_at(table, i)->nulls & SLOT_OCCUPIED))
			i++;
		if (i - first > 1)
			order_cluster(table, first, i, spare);
		i++;
	}
	table->ordered = true;
}

SeGroup *
se_memtable_next(SeMemtable *table, int64 *position)
{
	int64		total = total_slots(table);

	if (*position == 0)
		se_memtable_order(table);
	while (*position < total)
	{
		SeGroup    *group = slot_at(table, (*position)++);

		if (slot_is_live(group))
			return group;
	}
	return NULL;
}

SeGroup *
se_memtable_next_upto(SeMemtable *table, int64 *position, uint32 hash_high)
{
	int64		next = *position;
	SeGroup    *group = se_memtable_next(table, &next);

	if (group == NULL || group->hash > hash_high)
		return NULL;
	*position = next;
	return group;
}
