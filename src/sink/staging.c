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
 *
 *	  Rows are most of what staging costs, so they take the shortest way: a heap
 *	  tuple is written straight from the vectors into a buffer, value by value as
 *	  heap_fill_tuple() would store its Datum, and heap_multi_insert() takes the
 *	  tuples from slots that do nothing but point to them.  Space behind the last
 *	  page is taken without a look at the free space map, since nothing is ever
 *	  deleted; no ring of buffers is used, which would write out pages that are
 *	  mostly truncated before anything else needs their buffers.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tupmacs.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat/compat.h"
#include "engine/engine.h"
#include "source/vector.h"
#include "staging.h"

/* Memory that is kept for the tuples of a batch; large ones have their own. */
#define BUFFER_SIZE (256 * 1024)

/* What is written in front of a value at most: alignment and length word. */
#define VALUE_OVERHEAD (MAXIMUM_ALIGNOF + VARHDRSZ)

/* Where a column of the children comes from. */
typedef struct StagedColumn
{
	int			source;			/* index into the batch's columns */
	Oid			type;
	int16		len;
	bool		by_value;
	bool		packable;		/* may have a one-byte length word */
	char		align;
} StagedColumn;

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
	StagedColumn *columns;		/* [ncolumns] */
	int			ncolumns;
	Size		fixed_size;		/* bound of a tuple without what varies */

	/* of the batch that is inserted */
	MemoryContext rows;
	char	   *buffer;			/* [BUFFER_SIZE] */
	char	   *free;			/* of the current piece of memory */
	char	   *end;
	HeapTupleData tuples[SE_BATCH_MAX];
	TupleTableSlot *slots[SE_BATCH_MAX];
	TupleTableSlotOps slot_ops;
};

char *
se_staging_table_name(int32 stream, int child)
{
	return psprintf("staging_%d_%d", stream, child);
}

/* The children have the stream's columns without the dropped ones. */
static void
describe_columns(SeStaging *staging)
{
	TupleDesc	desc = staging->stream_desc;

	staging->columns = palloc0(sizeof(StagedColumn) * Max(desc->natts, 1));
	staging->fixed_size = MAXALIGN(SizeofHeapTupleHeader + BITMAPLEN(desc->natts));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		StagedColumn *column = &staging->columns[staging->ncolumns];

		if (attribute->attisdropped)
			continue;
		staging->ncolumns++;
		column->source = i;
		column->type = attribute->atttypid;
		column->len = attribute->attlen;
		column->by_value = attribute->attbyval;
		column->align = attribute->attalign;
		column->packable = attribute->attlen == -1 && attribute->attstorage != TYPSTORAGE_PLAIN;
		staging->fixed_size += VALUE_OVERHEAD + Max(attribute->attlen, 0);
	}
}

/* The tuple stays where it is. */
static void
keep_tuple(TupleTableSlot *slot)
{
}

/* Whether a child has the stream's columns: it has not after ALTER FOREIGN TABLE. */
static bool
child_fits(const SeStaging *staging, TupleDesc child)
{
	if (child->natts != staging->ncolumns)
		return false;
	for (int i = 0; i < staging->ncolumns; i++)
		if (TupleDescAttr(child, i)->atttypid != staging->columns[i].type)
			return false;
	return true;
}

SeStaging *
se_staging_open(int32 stream, TupleDesc stream_desc, int64 retention, int64 max_size,
				MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	SeStaging  *staging = palloc0(sizeof(SeStaging));
	Oid			schema = get_namespace_oid("stream_engine", false);
	int			empty = -1;
	bool		fits = true;

	staging->stream = stream;
	staging->stream_desc = stream_desc;
	staging->retention = retention;
	staging->max_size = max_size;
	describe_columns(staging);
	for (int i = 0; i < SE_STAGING_CHILDREN; i++)
	{
		char	   *name = se_staging_table_name(stream, i);
		Relation	relation;

		staging->children[i] = get_relname_relid(name, schema);
		if (!OidIsValid(staging->children[i]))
		{
			/* renamed or dropped: that is no reason not to read */
			ereport(LOG,
					(errmsg("a stream is not staged, because table \"%s.%s\" does not exist",
							"stream_engine", name),
					 errhint("Drop the stream and create it again if it is to be staged.")));
			MemoryContextSwitchTo(old);
			return NULL;
		}
		relation = table_open(staging->children[i], AccessShareLock);
		if (relation->rd_rel->relam != HEAP_TABLE_AM_OID)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("staging table \"%s.%s\" does not use access method \"%s\"",
							"stream_engine", name, "heap")));
		fits = fits && child_fits(staging, RelationGetDescr(relation));
		if (empty < 0 && RelationGetNumberOfBlocks(relation) == 0)
			empty = i;
		table_close(relation, AccessShareLock);
	}
	if (!fits)
	{
		ereport(LOG,
				(errmsg("a stream is not staged, because its columns are not those of table \"%s.%s\"",
						"stream_engine", se_staging_table_name(stream, 0)),
				 errhint("Drop the stream and create it again if it is to be staged.")));
		MemoryContextSwitchTo(old);
		return NULL;
	}
	staging->current = Max(empty, 0);
	staging->current_since = GetCurrentTimestamp();
	staging->rows = AllocSetContextCreate(context, "stream_engine staging rows",
										  ALLOCSET_DEFAULT_SIZES);
	staging->buffer = palloc(BUFFER_SIZE);

	/* these slots are for heap_multi_insert() alone, which materializes them */
	staging->slot_ops = TTSOpsHeapTuple;
	staging->slot_ops.materialize = keep_tuple;
	for (int i = 0; i < SE_BATCH_MAX; i++)
	{
		staging->slots[i] = MakeTupleTableSlot(NULL, &staging->slot_ops);
		((HeapTupleTableSlot *) staging->slots[i])->tuple = &staging->tuples[i];
		staging->slots[i]->tts_flags &= ~TTS_FLAG_EMPTY;
	}
	MemoryContextSwitchTo(old);
	return staging;
}

/* ---- tuples ---- */

/* Align as a type wants; what is skipped is zero, as readers of tuples expect. */
static inline char *
align_value(char *at, const char *base, char align)
{
	char	   *aligned = unconstify(char *, base) + att_align_nominal(at - base, align);

	while (at < aligned)
		*at++ = '\0';
	return at;
}

/* Store bytes behind a length word; packable ones that are short need no more. */
static inline char *
store_bytes(char *at, const char *base, const StagedColumn *column, const char *data, Size len)
{
	if (column->packable && len + VARHDRSZ_SHORT <= VARATT_SHORT_MAX)
	{
		SET_VARSIZE_SHORT(at, len + VARHDRSZ_SHORT);
		at += VARHDRSZ_SHORT;
	}
	else
	{
		at = align_value(at, base, column->align);
		SET_VARSIZE(at, len + VARHDRSZ);
		at += VARHDRSZ;
	}
	memcpy(at, data, len);
	return at + len;
}

/* Store a Datum that is not of one of the common types. */
static char *
store_datum(char *at, const char *base, const StagedColumn *column, Datum value)
{
	if (column->by_value)
	{
		at = align_value(at, base, column->align);
		store_att_byval(at, value, column->len);
		return at + column->len;
	}
	if (column->len == -1)
	{
		struct varlena *data = (struct varlena *) DatumGetPointer(value);

		if (VARATT_IS_COMPRESSED(data))
		{
			at = align_value(at, base, column->align);
			memcpy(at, data, VARSIZE(data));
			return at + VARSIZE(data);
		}
		return store_bytes(at, base, column, VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data));
	}
	at = align_value(at, base, column->align);
	memcpy(at, DatumGetPointer(value), column->len);
	return at + column->len;
}

/*
 * A bound of the tuple's size.  Datums whose data is elsewhere (expanded arrays,
 * for one) are replaced by what will be stored.
 */
static Size
tuple_bound(const SeStaging *staging, const SeBatch *batch, int row)
{
	Size		bound = staging->fixed_size;

	for (int i = 0; i < staging->ncolumns; i++)
	{
		const StagedColumn *column = &staging->columns[i];
		const SeVector *vector = &batch->columns[column->source];

		if (column->len != -1 || vector->null[row])
			continue;
		switch (vector->rep)
		{
			case SE_REP_TEXT:
				bound += vector->v.text[row].len;
				break;
			case SE_REP_DECIMAL:
				bound += vector->v.dec[row].scale != SE_DECIMAL_WIDE ? SE_DECIMAL_STORE_MAX :
					VARSIZE_ANY((Numeric) (intptr_t) vector->v.dec[row].mantissa);
				break;
			default:
				if (VARATT_IS_EXTERNAL((char *) vector->v.datum[row]))
				{
					MemoryContext old = MemoryContextSwitchTo(batch->context);

					vector->v.datum[row] = (uintptr_t)
						detoast_external_attr((struct varlena *) vector->v.datum[row]);
					MemoryContextSwitchTo(old);
				}
				bound += VARSIZE_ANY((char *) vector->v.datum[row]);
				break;
		}
	}
	return bound;
}

/* Write the data of a row's tuple to "base", return its end. */
static char *
fill_tuple(const SeStaging *staging, const SeBatch *batch, int row, HeapTupleHeader header,
		   char *base)
{
	char	   *at = base;

	for (int i = 0; i < staging->ncolumns; i++)
	{
		const StagedColumn *column = &staging->columns[i];
		const SeVector *vector = &batch->columns[column->source];

		if (vector->null[row])
			continue;
		if (header->t_infomask & HEAP_HASNULL)
			header->t_bits[i >> 3] |= 1 << (i & 7);
		if (column->len < 0)
			header->t_infomask |= HEAP_HASVARWIDTH;
		switch (vector->rep)
		{
			case SE_REP_TEXT:
				at = store_bytes(at, base, column, vector->v.text[row].data,
								 vector->v.text[row].len);
				break;
			case SE_REP_DECIMAL:
				if (vector->v.dec[row].scale != SE_DECIMAL_WIDE)
				{
					/* short enough for the one-byte length word that numeric may have */
					int			len = se_decimal_store(vector->v.dec[row], at + VARHDRSZ_SHORT);

					SET_VARSIZE_SHORT(at, len + VARHDRSZ_SHORT);
					at += len + VARHDRSZ_SHORT;
				}
				else
					at = store_datum(at, base, column, (Datum) vector->v.dec[row].mantissa);
				break;
			case SE_REP_INT64:
				if (column->len == sizeof(int64))
				{
					at = align_value(at, base, column->align);
					memcpy(at, &vector->v.i64[row], sizeof(int64));
					at += sizeof(int64);
					break;
				}
				/* FALLTHROUGH */
			default:
				at = store_datum(at, base, column, se_vector_datum(vector, row, column->type));
				break;
		}
	}
	return at;
}

static void
make_tuple(SeStaging *staging, const SeBatch *batch, int row, HeapTuple tuple)
{
	HeapTupleHeader header;
	Size		bound = tuple_bound(staging, batch, row);
	bool		has_null = false;
	Size		header_size;

	if (staging->end - staging->free < bound)
	{
		Size		size = Max(BUFFER_SIZE, bound);

		staging->free = palloc(size);
		staging->end = staging->free + size;
	}
	for (int i = 0; i < staging->ncolumns && !has_null; i++)
		has_null = batch->columns[staging->columns[i].source].null[row];
	header_size = MAXALIGN(SizeofHeapTupleHeader + (has_null ? BITMAPLEN(staging->ncolumns) : 0));

	header = (HeapTupleHeader) staging->free;
	memset(header, 0, header_size);
	HeapTupleHeaderSetNatts(header, staging->ncolumns);
	header->t_hoff = header_size;
	header->t_infomask = has_null ? HEAP_HASNULL : 0;

	tuple->t_data = header;
	tuple->t_len = fill_tuple(staging, batch, row, header, staging->free + header_size) -
		staging->free;
	ItemPointerSetInvalid(&tuple->t_self);
	Assert(tuple->t_len <= bound);
	staging->free += MAXALIGN(tuple->t_len);
	if (staging->free > staging->end)
		staging->free = staging->end;
}

void
se_staging_insert(SeStaging *staging, const SeBatch *batch, const int *rows, int nrows)
{
	Relation	relation = table_open(staging->children[staging->current], RowExclusiveLock);
	TupleDesc	desc = RelationGetDescr(relation);
	MemoryContext old;

	if (!child_fits(staging, desc))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("staging table \"%s\" does not fit the stream",
						RelationGetRelationName(relation))));

	MemoryContextReset(staging->rows);
	old = MemoryContextSwitchTo(staging->rows);
	staging->free = staging->buffer;
	staging->end = staging->buffer + BUFFER_SIZE;
	for (int i = 0; i < nrows; i++)
		make_tuple(staging, batch, rows[i], &staging->tuples[i]);
	if (nrows > 0)
		heap_multi_insert(relation, staging->slots, nrows, GetCurrentCommandId(true),
						  HEAP_INSERT_SKIP_FSM, NULL);
	MemoryContextSwitchTo(old);
	MemoryContextReset(staging->rows);
	staging->current_blocks = RelationGetNumberOfBlocks(relation);
	table_close(relation, NoLock);
}

void
se_staging_rotate(SeStaging *staging, TimestampTz now)
{
	int64		share = staging->max_size / (SE_STAGING_CHILDREN - 1);
	int64		term = staging->retention / (SE_STAGING_CHILDREN - 1);
	bool		old_enough = now - staging->current_since >= term;
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
		SE_FAILPOINT("staging.before_truncate");
		if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(child)))
			heap_truncate(list_make1_oid(child));
		SE_FAILPOINT("staging.after_truncate");
		staging->current = next;
		staging->current_since = now;
		staging->current_blocks = 0;
	}
	CommitTransactionCommand();
}
