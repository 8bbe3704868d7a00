/*
 * state_log.c
 *	  Append, read and delete chunks of window state.
 *
 * NOTES
 *	  Rows go in and out by the table and index access methods, not by SPI: a
 *	  commit writes hundreds of chunks and a close reads thousands.  The payload is
 *	  stored EXTERNAL with a toast target of a whole page, which keeps chunks of
 *	  SE_CHUNK_SIZE in line and uncompressed, and still takes the rare group
 *	  that is larger.
 *
 *	  Chunks of closed slices are deleted, and vacuum gives their pages to new
 *	  ones: extending a file costs twice as much as reusing a page.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat/compat.h"
#include "state_log.h"

/* Columns of stream_engine.state_log. */
enum
{
	COL_QUERY = 1, COL_SLICE_START, COL_SLICE_END, COL_SEQ, COL_HASH_LOW, COL_HASH_HIGH,
	COL_NGROUPS, COL_PAYLOAD, NCOLUMNS = COL_PAYLOAD
};

uint64		se_state_log_bytes;

struct SeStateLog
{
	Relation	heap;
	Relation	index;
	CatalogIndexState indexes;	/* when writing */
};

SeStateLog *
se_state_log_open(bool write)
{
	LOCKMODE	mode = write ? RowExclusiveLock : AccessShareLock;
	SeStateLog *log = palloc0(sizeof(SeStateLog));
	Oid			schema = get_namespace_oid("stream_engine", false);

	log->heap = table_open(get_relname_relid("state_log", schema), mode);
	log->index = index_open(get_relname_relid("state_log_slice_idx", schema), mode);
	if (write)
		log->indexes = CatalogOpenIndexes(log->heap);
	return log;
}

void
se_state_log_close(SeStateLog *log)
{
	if (log->indexes)
		CatalogCloseIndexes(log->indexes);
	index_close(log->index, NoLock);
	table_close(log->heap, NoLock);
	pfree(log);
}

void
se_state_log_append(SeStateLog *log, int32 query, TimestampTz slice_start, TimestampTz slice_end,
					int64 seq, uint32 hash_low, uint32 hash_high, int ngroups,
					const char *bytes, Size size)
{
	Datum		values[NCOLUMNS];
	bool		nulls[NCOLUMNS] = {0};
	bytea	   *payload = palloc(VARHDRSZ + size);
	HeapTuple	tuple;

	SET_VARSIZE(payload, VARHDRSZ + size);
	memcpy(VARDATA(payload), bytes, size);
	values[COL_QUERY - 1] = Int32GetDatum(query);
	values[COL_SLICE_START - 1] = TimestampTzGetDatum(slice_start);
	values[COL_SLICE_END - 1] = TimestampTzGetDatum(slice_end);
	values[COL_SEQ - 1] = Int64GetDatum(seq);
	values[COL_HASH_LOW - 1] = Int64GetDatum((int64) hash_low);
	values[COL_HASH_HIGH - 1] = Int64GetDatum((int64) hash_high);
	values[COL_NGROUPS - 1] = Int32GetDatum(ngroups);
	values[COL_PAYLOAD - 1] = PointerGetDatum(payload);
	tuple = heap_form_tuple(RelationGetDescr(log->heap), values, nulls);
	CatalogTupleInsertWithInfo(log->heap, tuple, log->indexes);
	heap_freetuple(tuple);
	pfree(payload);
	se_state_log_bytes += size;
}

/* They are told from runs by the sign of ngroups. */
void
se_state_log_append_tombstones(SeStateLog *log, int32 query, TimestampTz slice_start,
							   TimestampTz slice_end, int64 seq, uint32 hash_low,
							   uint32 hash_high, int ngroups, const char *bytes, Size size)
{
	se_state_log_append(log, query, slice_start, slice_end, seq, hash_low, hash_high, -ngroups,
						bytes, size);
}

static IndexScanDesc
begin_scan(SeStateLog *log, ScanKeyData *keys, int32 query, TimestampTz slice_start,
		   TimestampTz slice_end, int nkeys)
{
	IndexScanDesc scan;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(query));
	if (nkeys >= 3)
	{
		ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TIMESTAMPTZ_EQ,
					TimestampTzGetDatum(slice_start));
		ScanKeyInit(&keys[2], 3, BTEqualStrategyNumber, F_TIMESTAMPTZ_EQ,
					TimestampTzGetDatum(slice_end));
	}
	scan = se_index_beginscan(log->heap, log->index, GetActiveSnapshot(), nkeys);
	index_rescan(scan, keys, nkeys, NULL, 0);
	return scan;
}

static void
read_chunks(SeStateLog *log, int32 query, TimestampTz slice_start, TimestampTz slice_end,
			int64 seq, uint32 hash_low, uint32 hash_high, SeChunkReader reader,
			SeOrderedReader ordered, void *arg)
{
	TupleTableSlot *slot = table_slot_create(log->heap, NULL);
	ScanKeyData keys[4];
	IndexScanDesc scan;

	ScanKeyInit(&keys[3], 4, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(seq));
	scan = begin_scan(log, keys, query, slice_start, slice_end, seq > 0 ? 4 : 3);

	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bytea	   *payload;
		Datum		value;
		int			ngroups;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		if (DatumGetInt64(slot->tts_values[COL_HASH_LOW - 1]) > (int64) hash_high ||
			DatumGetInt64(slot->tts_values[COL_HASH_HIGH - 1]) < (int64) hash_low)
			continue;
		ngroups = DatumGetInt32(slot->tts_values[COL_NGROUPS - 1]);
		value = slot->tts_values[COL_PAYLOAD - 1];
		payload = DatumGetByteaPP(value);
		if (ordered)
			ordered(arg, VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload), ngroups < 0);
		else
			reader(arg, VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload));
		if (payload != (bytea *) DatumGetPointer(value))
			pfree(payload);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}

void
se_state_log_read(SeStateLog *log, int32 query, TimestampTz slice_start, TimestampTz slice_end,
				  uint32 hash_low, uint32 hash_high, SeChunkReader reader, void *arg)
{
	read_chunks(log, query, slice_start, slice_end, 0, hash_low, hash_high, reader, NULL, arg);
}

void
se_state_log_read_since(SeStateLog *log, int32 query, TimestampTz slice_start,
						TimestampTz slice_end, int64 seq, uint32 hash_low, uint32 hash_high,
						SeChunkReader reader, void *arg)
{
	read_chunks(log, query, slice_start, slice_end, seq, hash_low, hash_high, reader, NULL, arg);
}

void
se_state_log_read_ordered(SeStateLog *log, int32 query, TimestampTz slice_start,
						  TimestampTz slice_end, SeOrderedReader reader, void *arg)
{
	read_chunks(log, query, slice_start, slice_end, 0, 0, PG_UINT32_MAX, NULL, reader, arg);
}

void
se_state_log_delete(SeStateLog *log, int32 query, TimestampTz slice_start, TimestampTz slice_end)
{
	TupleTableSlot *slot = table_slot_create(log->heap, NULL);
	ScanKeyData keys[3];
	IndexScanDesc scan = begin_scan(log, keys, query, slice_start, slice_end, 3);

	while (index_getnext_slot(scan, ForwardScanDirection, slot))
		simple_heap_delete(log->heap, &slot->tts_tid);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}

void
se_state_log_slices(SeStateLog *log, int32 query, SeSliceReader reader, void *arg)
{
	TupleTableSlot *slot = table_slot_create(log->heap, NULL);
	ScanKeyData keys[3];
	IndexScanDesc scan = begin_scan(log, keys, query, 0, 0, 1);
	TimestampTz start = 0;
	TimestampTz end = 0;
	int64		seq = 0;
	int			nruns = 0;
	int64		entries = 0;
	int64		run = 0;
	int64		largest = 0;

	/* the index gives chunks by slice, and by seq within a slice */
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		TimestampTz chunk_start;
		TimestampTz chunk_end;
		int64		chunk_seq;
		int			ngroups;

		CHECK_FOR_INTERRUPTS();
		slot_getsomeattrs(slot, COL_NGROUPS);
		chunk_start = DatumGetTimestampTz(slot->tts_values[COL_SLICE_START - 1]);
		chunk_end = DatumGetTimestampTz(slot->tts_values[COL_SLICE_END - 1]);
		chunk_seq = DatumGetInt64(slot->tts_values[COL_SEQ - 1]);
		ngroups = Abs(DatumGetInt32(slot->tts_values[COL_NGROUPS - 1]));
		if (nruns > 0 && (chunk_start != start || chunk_end != end))
		{
			reader(arg, start, end, nruns, entries, Max(largest, run));
			nruns = 0;
		}
		if (nruns == 0)
			entries = run = largest = 0;
		if (nruns == 0 || chunk_seq != seq)
		{
			largest = Max(largest, run);
			run = 0;
			nruns++;
		}
		start = chunk_start;
		end = chunk_end;
		seq = chunk_seq;
		run += ngroups;
		entries += ngroups;
	}
	if (nruns > 0)
		reader(arg, start, end, nruns, entries, Max(largest, run));
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}
