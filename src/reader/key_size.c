/*
 * key_size.c
 *	  Whether a record's group key fits into the result table's index.
 *
 * NOTES
 *	  A btree entry holds a third of a page.  A key that is larger, even
 *	  compressed, could never be emitted; it is found when the record is read, so
 *	  that one record fails and not the query.  The index tuple is judged as the
 *	  index would form it: long values compressed, one after the other.
 */
#include "postgres.h"

#include "access/itup.h"
#include "access/nbtree.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/heaptoast.h"
#include "access/toast_compression.h"
#include "access/toast_internals.h"
#include "catalog/pg_type.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "key_size.h"
#include "source/vector.h"

/* No key of this size or less can fail. */
#define HARMLESS_SIZE 2000

/* As nbtree computes it; its macro has changed over the versions. */
#define BTREE_MAX_ITEM \
	(MAXALIGN_DOWN((BLCKSZ - \
					MAXALIGN(SizeOfPageHeaderData + 3 * sizeof(ItemIdData)) - \
					MAXALIGN(sizeof(BTPageOpaqueData))) / 3) - \
	 MAXALIGN(sizeof(ItemPointerData)))

bool
se_has_long_keys(const SeQueryPlan *plan)
{
	for (int i = 0; i < plan->nkeys; i++)
		if (get_typlen(plan->keys[i].spec.type) == -1)
			return true;
	return false;
}

static Size
rough_size(const SeQueryPlan *plan, const SeVector *keys, int row)
{
	Size		size = 0;

	for (int i = 0; i < plan->nkeys; i++)
	{
		if (keys[i].null[row])
			continue;
		if (keys[i].rep == SE_REP_TEXT)
			size += keys[i].v.text[row].len;
		else if (keys[i].rep == SE_REP_DATUM && get_typlen(plan->keys[i].spec.type) == -1)
			size += VARSIZE_ANY(DatumGetPointer((Datum) keys[i].v.datum[row]));
		else
			size += sizeof(int64);
	}
	return size;
}

bool
se_keys_are_short(const SeQueryPlan *plan, const SeVector *keys, const int *rows, int n)
{
	Size		size = 0;

	for (int k = 0; k < plan->nkeys; k++)
	{
		const SeVector *key = &keys[k];
		Size		longest = sizeof(int64);

		if (key->rep == SE_REP_DATUM)
			return false;
		for (int i = 0; key->rep == SE_REP_TEXT && i < n; i++)
			if (!key->null[rows[i]])
				longest = Max(longest, (Size) key->v.text[rows[i]].len);
		size += longest;
	}
	return size <= HARMLESS_SIZE;
}

bool
se_key_fits(const SeQueryPlan *plan, const SeVector *keys, int row)
{
	Size		size = MAXALIGN(sizeof(IndexTupleData) + sizeof(IndexAttributeBitMapData)) +
		2 * sizeof(TimestampTz);

	if (likely(rough_size(plan, keys, row) <= HARMLESS_SIZE))
		return true;
	for (int i = 0; i < plan->nkeys; i++)
	{
		Oid			type = plan->keys[i].spec.type;
		Datum		value;

		if (keys[i].null[row])
			continue;
		value = se_vector_datum(&keys[i], row, type);
		if (get_typlen(type) != -1)
		{
			size = MAXALIGN(size + (get_typlen(type) > 0 ? get_typlen(type) : 64));
			continue;
		}
		if (VARSIZE_ANY_EXHDR(DatumGetPointer(value)) > TOAST_INDEX_TARGET &&
			get_typstorage(type) != TYPSTORAGE_PLAIN)
		{
			Datum		compressed = toast_compress_datum(value, default_toast_compression);

			if (DatumGetPointer(compressed) != NULL)
				value = compressed;
		}
		size += MAXALIGN(VARSIZE_ANY(DatumGetPointer(value)) + VARHDRSZ);
	}
	return MAXALIGN(size) <= BTREE_MAX_ITEM;
}
