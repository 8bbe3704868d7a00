/*
 * staging.c
 *	  Keep the rows that were consumed lately in four unlogged tables.
 *
 * NOTES
 *	  Rows go into the current child; the children take turns, so that dropping
 *	  old rows is a TRUNCATE of the oldest child, once in a third of the
 *	  retention, and never a DELETE.  At any time three children hold at least
 *	  the retention and the fourth is filling or empty.
 *
 *	  The TRUNCATE takes AccessExclusiveLock if it can have it at once; while
 *	  somebody reads, the current child goes on growing, up to its share of the
 *	  size bound and then beyond it only until the reader is done.
 *
 *	  Which child is current is not stored: after a restart the first empty child
 *	  is, or else the first.  Staging vouches for nothing.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "catalog/namespace.h"
#include "executor/tuptable.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "source/vector.h"
#include "staging.h"

struct SeStaging
{
	int32		stream;
	TupleDesc	stream_desc;
	int64		retention;
	int64		max_size;
	int			current;
	TimestampTz current_since;
	BlockNumber current_blocks;
	Oid			children[SE_STAGING_CHILDREN];
	MemoryContext rows;
	TupleTableSlot *slots[SE_BATCH_MAX];
};

char *
se_staging_table_name(int32 stream, int child)
{
	return psprintf("staging_%d_%d", stream, child);
}

SeStaging *
se_staging_open(int32 stream, TupleDesc stream_desc, int64 retention, int64 max_size,
				MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	SeStaging  *staging = palloc0(sizeof(SeStaging));
	Oid			schema = get_namespace_oid("stream_engine", false);
	int			empty = -1;

	staging->stream = stream;
	staging->stream_desc = stream_desc;
	staging->retention = retention;
	staging->max_size = max_size;
	for (int i = 0; i < SE_STAGING_CHILDREN; i++)
	{
		char	   *name = se_staging_table_name(stream, i);
		Relation	relation;

		staging->children[i] = get_relname_relid(name, schema);
		if (!OidIsValid(staging->children[i]))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("staging table \"%s.%s\" does not exist", "stream_engine", name),
					 errhint("Drop the stream and create it again.")));
		relation = table_open(staging->children[i], AccessShareLock);
		if (empty < 0 && RelationGetNumberOfBlocks(relation) == 0)
			empty = i;
		table_close(relation, AccessShareLock);
	}
	staging->current = Max(empty, 0);
	staging->current_since = GetCurrentTimestamp();
	staging->rows = AllocSetContextCreate(context, "stream_engine staging rows",
										  ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(old);
	return staging;
}

void
se_staging_insert(SeStaging *staging, const SeBatch *batch, const int *rows, int nrows)
{
	Relation	relation = table_open(staging->children[staging->current], RowExclusiveLock);
	TupleDesc	desc = RelationGetDescr(relation);
	MemoryContext old;
	int			target = 0;
	int			source_of[MaxHeapAttributeNumber];

	/* the children have the stream's columns without the dropped ones */
	for (int i = 0; i < staging->stream_desc->natts; i++)
		if (!TupleDescAttr(staging->stream_desc, i)->attisdropped)
		{
			if (target >= desc->natts ||
				TupleDescAttr(desc, target)->atttypid != TupleDescAttr(staging->stream_desc, i)->atttypid)
				ereport(ERROR,
						(errcode(ERRCODE_DATATYPE_MISMATCH),
						 errmsg("staging table \"%s\" does not fit the stream",
								RelationGetRelationName(relation))));
			source_of[target++] = i;
		}

	MemoryContextReset(staging->rows);
	old = MemoryContextSwitchTo(staging->rows);
	for (int i = 0; i < nrows; i++)
	{
		TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, table_slot_callbacks(relation));

		for (int column = 0; column < target; column++)
		{
			const SeVector *vector = &batch->columns[source_of[column]];
			bool		isnull = vector->null[rows[i]];

			slot->tts_isnull[column] = isnull;
			slot->tts_values[column] = isnull ? (Datum) 0 :
				se_vector_datum(vector, rows[i], TupleDescAttr(desc, column)->atttypid);
		}
		ExecStoreVirtualTuple(slot);
		staging->slots[i] = slot;
	}
	if (nrows > 0)
		table_multi_insert(relation, staging->slots, nrows, GetCurrentCommandId(true), 0, NULL);
	for (int i = 0; i < nrows; i++)
		ExecDropSingleTupleTableSlot(staging->slots[i]);
	MemoryContextSwitchTo(old);
	MemoryContextReset(staging->rows);
	staging->current_blocks = RelationGetNumberOfBlocks(relation);
	table_close(relation, NoLock);
}

void
se_staging_rotate(SeStaging *staging, TimestampTz now)
{
	int64		share = staging->max_size / (SE_STAGING_CHILDREN - 1);
	bool		old_enough = now - staging->current_since >= staging->retention / (SE_STAGING_CHILDREN - 1);
	bool		large_enough = (int64) staging->current_blocks * BLCKSZ >= share;
	int			next = (staging->current + 1) % SE_STAGING_CHILDREN;
	Oid			child = staging->children[next];

	if (staging->current_blocks == 0)
	{
		/* nothing came: its rows' time has not begun */
		if (old_enough)
			staging->current_since = now;
		return;
	}
	if (!old_enough && !large_enough)
		return;

	StartTransactionCommand();
	if (ConditionalLockRelationOid(child, AccessExclusiveLock))
	{
		/* not undone by a crash or an error, which is as well here */
		if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(child)))
			heap_truncate(list_make1_oid(child));
		staging->current = next;
		staging->current_since = now;
		staging->current_blocks = 0;
	}
	CommitTransactionCommand();
}
