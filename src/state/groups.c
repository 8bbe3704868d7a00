/*
 * groups.c
 *	  Groups from table to table: find, add, merge, remove.
 *
 * NOTES
 *	  State that is kept is merged from its byte form (codec_read.c).  Sessions
 *	  and triggers move single groups from table to table, and windows that
 *	  overlap merge whole tables; then the slot of one table serves as the entry
 *	  for the other, except for states of aggregates' own functions, which travel
 *	  as bytes here too, for they remember their memory context.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "state/state_internal.h"

const SeGroupLayout *
se_memtable_layout(const SeMemtable *table)
{
	return table->layout;
}

uint32
se_group_hash(const SeGroup *group)
{
	return group->hash;
}

uint32
se_memtable_hash_row(SeMemtable *table, const SeVector *keys, int row)
{
	SeGroup    *probe = (SeGroup *) se_memtable_scratch(table);

	if (table->layout->nkeys == 0)
		return finish_hash(HASH_SEED);
	se_key_load(table, keys, &row, 1, (char *) probe);
	return probe->hash;
}

SeGroup *
se_memtable_get(SeMemtable *table, const SeGroup *probe)
{
	const SeGroupLayout *layout = table->layout;
	uint32		nulls = probe->nulls & ~SLOT_DEAD;

	if (probe->hash < table->range_low || probe->hash > table->range_high)
		return NULL;
	for (int64 i = home_of(table, probe->hash);; i++)
	{
		SeGroup    *group = slot_at(table, i);

		if (!(group->nulls & SLOT_OCCUPIED))
			return NULL;
		if (group->hash == probe->hash && group->nulls == nulls &&
			se_key_equal(layout, group, probe))
			return group;
	}
}

SeGroup *
se_memtable_get_row(SeMemtable *table, const SeVector *keys, int row)
{
	SeGroup    *probe = (SeGroup *) se_memtable_scratch(table);
	SeGroup    *group;
	MemoryContext old;

	if (table->layout->nkeys == 0)
	{
		int64		position = 0;

		return se_memtable_next(table, &position);
	}
	se_key_load(table, keys, &row, 1, (char *) probe);
	old = MemoryContextSwitchTo(table->call_context);
	group = se_memtable_get(table, probe);
	MemoryContextSwitchTo(old);
	MemoryContextReset(table->call_context);
	return group;
}

SeGroup *
se_memtable_add_key(SeMemtable *table, const SeGroup *from)
{
	SeGroup    *group;

	se_memtable_cover(table, 0, PG_UINT32_MAX);
	while ((group = se_memtable_find(table, from)) == NULL)
		se_memtable_grow(table);
	return group;
}

SeGroup *
se_memtable_add(SeMemtable *table, SeMemtable *from, const SeGroup *source)
{
	const SeGroupLayout *layout = table->layout;
	SeGroup    *group = se_memtable_add_key(table, source);
	SeGroup    *entry = (SeGroup *) se_memtable_scratch(table);

	memcpy(entry, source, layout->slot_size);
	for (int i = 0; i < layout->nstates; i++)
	{
		const SeStateDef *state = &layout->states[i];

		if (state->kind == STATE_COMBINE)
		{
			SeCombineState *value = state_of(state, entry);

			if (!value->isnull && !se_combine_is_byval(state))
			{
				const char *bytes;

				se_combine_bytes(from, state, source, &bytes, &value->len);
				value->value = PointerGetDatum(bytes);
			}
			se_combine_merge(table, state, group, entry);
		}
		else
			se_kernel_merge(table, state, group, entry);
	}
	MemoryContextReset(table->call_context);
	if (from != table)
		MemoryContextReset(from->call_context);
	return group;
}

void
se_memtable_merge_table(SeMemtable *table, SeMemtable *from)
{
	MemoryContext old;
	SeGroup    *group;
	int64		position = 0;

	if (table->layout->has_combine)
	{
		while ((group = se_memtable_next(from, &position)) != NULL)
			(void) se_memtable_add(table, from, group);
		return;
	}
	se_memtable_cover(table, 0, PG_UINT32_MAX);
	old = MemoryContextSwitchTo(table->call_context);
	while ((group = se_memtable_next(from, &position)) != NULL)
		se_group_merge(table, group);
	MemoryContextSwitchTo(old);
	MemoryContextReset(table->call_context);
}

void
se_group_prefetch(const SeMemtable *table, const SeGroup *group)
{
	const char *slot = (const char *) group;

	for (uint32 i = 0; i < table->layout->slot_size; i += 64)
		__builtin_prefetch(slot + i);
}

bool
se_layout_has_combine(const SeGroupLayout *layout)
{
	return layout->has_combine;
}

void
se_memtable_remove(SeMemtable *table, SeGroup *group)
{
	Assert(slot_is_live(group));
	group->nulls |= SLOT_DEAD;
	table->ndead++;
}
