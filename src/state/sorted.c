/*
 * sorted.c
 *	  Groups in the order of their keys.
 *
 * NOTES
 *	  Result rows are inserted in the order of the index on the result table,
 *	  which costs half of inserting them in hash order.  Integers, floats and
 *	  decimals are compared as they lie in the slots, and text of collation "C";
 *	  all other types through their SortSupport, text after one conversion to a
 *	  Datum each.
 */
#include "postgres.h"

#include <math.h>

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/sortsupport.h"

#include "state/state_internal.h"

typedef struct SortItem
{
	SeGroup    *group;
	int64		first;			/* the first key, when it is an integer */
	Datum	   *texts;			/* Datums of the keys that need them */
} SortItem;

typedef struct SortContext
{
	const SeGroupLayout *layout;
	SortSupport support;		/* [key] */
	int		   *text_index;		/* [key] index in SortItem.texts */
	bool		first_is_int;
} SortContext;

static inline int
compare_floats(double a, double b)
{
	if (isnan(a) || isnan(b))
		return isnan(a) - isnan(b);
	return (a > b) - (a < b);
}

static int
compare_bytes(const SeTextKey *a, const SeTextKey *b)
{
	int			order = memcmp(a->prefix, b->prefix, sizeof(a->prefix));

	if (order == 0)
		order = memcmp(text_key_data(a), text_key_data(b), Min(a->len, b->len));
	return order != 0 ? order : (a->len > b->len) - (a->len < b->len);
}

static int
compare_keys(const SortItem *a, const SortItem *b, SortContext *sort)
{
	const SeGroupLayout *layout = sort->layout;

	for (int i = 0; i < layout->nkeys; i++)
	{
		const SeKeyDef *key = &layout->keys[i];
		const char *x = slot_key(layout, a->group) + key->offset;
		const char *y = slot_key(layout, b->group) + key->offset;
		bool		a_null = (a->group->nulls >> i) & 1;
		bool		b_null = (b->group->nulls >> i) & 1;
		int			order = 0;

		if (a_null || b_null)
		{
			if (a_null != b_null)
				return a_null ? 1 : -1;
			continue;
		}
		switch (key->kind)
		{
			case KEY_INT64:
				order = (*(const int64 *) x > *(const int64 *) y) -
					(*(const int64 *) x < *(const int64 *) y);
				break;
			case KEY_FLOAT64:
				order = compare_floats(*(const double *) x, *(const double *) y);
				break;
			case KEY_DECIMAL:
				order = se_decimal_compare(*(const SeDecimal *) x, *(const SeDecimal *) y);
				break;
			case KEY_TEXT:
				if (key->bytewise)
					order = compare_bytes((const SeTextKey *) x, (const SeTextKey *) y);
				else
				{
					int			t = sort->text_index[i];

					order = sort->support[i].comparator(a->texts[t], b->texts[t],
														&sort->support[i]);
				}
				break;
			case KEY_DATUM:
				order = sort->support[i].comparator(*(const Datum *) x, *(const Datum *) y,
													&sort->support[i]);
				break;
		}
		if (order != 0)
			return order;
	}
	return 0;
}

static inline int
compare_items(const SortItem *a, const SortItem *b, SortContext *sort)
{
	if (sort->first_is_int && a->first != b->first &&
		((a->group->nulls | b->group->nulls) & 1) == 0)
		return a->first < b->first ? -1 : 1;
	return compare_keys(a, b, sort);
}

#define ST_SORT sort_items
#define ST_ELEMENT_TYPE SortItem
#define ST_COMPARE(a, b, sort) compare_items(a, b, sort)
#define ST_COMPARE_ARG_TYPE SortContext
#define ST_CHECK_FOR_INTERRUPTS
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/*
 * Prepare the comparison functions; returns the number of keys that need a
 * text Datum.
 */
static int
prepare_sort(SortContext *sort, const SeGroupLayout *layout)
{
	int			ntexts = 0;

	sort->layout = layout;
	sort->support = palloc0(sizeof(SortSupportData) * Max(layout->nkeys, 1));
	sort->text_index = palloc0(sizeof(int) * Max(layout->nkeys, 1));
	sort->first_is_int = layout->nkeys > 0 && layout->keys[0].kind == KEY_INT64;
	for (int i = 0; i < layout->nkeys; i++)
	{
		const SeKeyDef *key = &layout->keys[i];
		SortSupport support = &sort->support[i];

		if ((key->kind != KEY_TEXT && key->kind != KEY_DATUM) || key->bytewise)
			continue;
		support->ssup_cxt = CurrentMemoryContext;
		support->ssup_collation = key->collation;
		support->ssup_nulls_first = false;
		support->ssup_attno = i + 1;
		PrepareSortSupportFromOrderingOp(key->sort_opr, support);
		if (key->kind == KEY_TEXT)
			sort->text_index[i] = ntexts++;
	}
	return ntexts;
}

/* The text Datums of an item. */
static void
fill_texts(const SeMemtable *table, const SortContext *sort, SortItem *item)
{
	const SeGroupLayout *layout = table->layout;

	for (int i = 0; i < layout->nkeys; i++)
	{
		bool		isnull;

		if (layout->keys[i].kind == KEY_TEXT && !layout->keys[i].bytewise)
			item->texts[sort->text_index[i]] = se_group_key(table, item->group, i, &isnull);
	}
}

SeGroup **
se_memtable_sorted(SeMemtable *table, int64 *ngroups)
{
	return se_memtable_sorted_range(table, 0, PG_UINT32_MAX, ngroups);
}

SeGroup **
se_memtable_sorted_range(SeMemtable *table, uint32 hash_low, uint32 hash_high, int64 *ngroups)
{
	const SeGroupLayout *layout = table->layout;
	int64		count = table->ngroups;
	SeGroup   **result = MemoryContextAllocHuge(CurrentMemoryContext,
												sizeof(SeGroup *) * Max(count, 1));
	MemoryContext sort_context = AllocSetContextCreate(CurrentMemoryContext,
													   "stream_engine sort",
													   ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(sort_context);
	SortContext sort;
	int			ntexts = prepare_sort(&sort, layout);
	SortItem   *items = MemoryContextAllocHuge(sort_context, sizeof(SortItem) * Max(count, 1));
	Datum	   *texts = MemoryContextAllocHuge(sort_context,
											   sizeof(Datum) * Max(count * ntexts, 1));
	SeGroup    *group;
	int64		position = 0;
	int64		n = 0;

	while ((group = se_memtable_next(table, &position)) != NULL)
	{
		SortItem   *item = &items[n];
		uint32		hash = se_group_hash(group);

		if (hash < hash_low)
			continue;
		if (hash > hash_high)
			break;
		item->group = group;
		item->first = sort.first_is_int ? *(int64 *) slot_key(layout, group) : 0;
		item->texts = texts + n * ntexts;
		if (ntexts > 0)
			fill_texts(table, &sort, item);
		n++;
	}
	sort_items(items, n, &sort);
	for (int64 i = 0; i < n; i++)
		result[i] = items[i].group;

	MemoryContextSwitchTo(old);
	MemoryContextDelete(sort_context);
	*ngroups = n;
	return result;
}
