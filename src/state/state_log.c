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
 *	  ones: extending a file costs twice as much as reusing a page.  Where vacuum
 *	  can't keep up, or may not because somebody holds an old snapshot, the ring of
 *	  segments bounds the log (segments.c).  TRUNCATE is not MVCC-safe, so a
 *	  segment has a generation: where the latest one is not that of the caller's
 *	  snapshot, the snapshot may miss chunks, and an error is raised.  The locks on
 *	  segments that are only read are therefore released when the log is closed:
 *	  a transaction that has looked once does not keep a segment from
 *	  being emptied.
 *
 *	  The chunks of a slice may lie in several segments.  They are given in the
 *	  order of the index all the same, by merging.
 *
 *	  What is appended and deleted is also told to the run cache, and reading asks
 *	  it first; callers cannot tell the difference.  A process that feeds queries reads
 *	  them as of its last commit, a session as of the state that it names.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat/compat.h"
#include "engine/engine.h"
#include "engine/failpoints.h"
#include "run_cache.h"
#include "segments.h"
#include "state_log.h"

/* Columns of stream_engine.state_log. */
enum
{
	COL_QUERY = 1, COL_SLICE_START, COL_SLICE_END, COL_SEQ, COL_HASH_LOW, COL_HASH_HIGH,
	COL_NGROUPS, COL_SEGMENT, COL_PAYLOAD, NCOLUMNS = COL_PAYLOAD
};

/* The manager looks at the log whenever a process has appended so much. */
#define WAKE_BYTES (1024 * 1024)

uint64		se_state_log_bytes;

static Size appended = 0;		/* since the manager was woken */
static TransactionId fenced = InvalidTransactionId; /* the last that called
													 * se_state_log_commit */

typedef struct Segment
{
	Relation	heap;
	Relation	index;
} Segment;

struct SeStateLog
{
	Segment		segments[SE_SEGMENTS];
	int			current;		/* the segment that is appended to */
	LOCKMODE	mode;
	CatalogIndexState indexes;	/* of the current one, when writing */
	SeCacheView view;			/* if has_view, the state that the snapshot sees */
	bool		has_view;
	bool		pushed;			/* a snapshot, to be popped */
};

static void
open_segment(Segment *segment, int number, Oid schema, LOCKMODE mode)
{
	char		name[NAMEDATALEN];
	List	   *indexes;

	snprintf(name, sizeof(name), "state_log_%d", number);
	segment->heap = table_open(get_relname_relid(name, schema), mode);
	indexes = RelationGetIndexList(segment->heap);
	if (list_length(indexes) != 1)
		elog(ERROR, "segment \"%s\" of the state log must have one index", name);
	segment->index = index_open(linitial_oid(indexes), mode);
	list_free(indexes);
}

/* Does this transaction hold the lock under which the chunks of its reader are moved? */
static bool
is_fenced(void)
{
	return TransactionIdIsValid(fenced) && fenced == GetTopTransactionIdIfAny();
}

/* Which snapshot is active while the log is open. */
typedef enum LogSnapshot
{
	SNAPSHOT_GIVEN,
	SNAPSHOT_OF_TRANSACTION,	/* the latest that it may take */
	SNAPSHOT_OF_NOW
} LogSnapshot;

static SeStateLog *
open_log(bool write, LogSnapshot which)
{
	SeStateLog *log = palloc0(sizeof(SeStateLog));
	Oid			schema = get_namespace_oid("stream_engine", false);

	log->mode = write ? RowExclusiveLock : AccessShareLock;
	for (int i = 0; i < SE_SEGMENTS; i++)
		open_segment(&log->segments[i], i, schema, log->mode);
	/* no segment is emptied from here on */
	if (which != SNAPSHOT_GIVEN)
	{
		/* that of the catalogs can also be had while other parts of a plan run in parallel */
		if (which == SNAPSHOT_OF_NOW)
			InvalidateCatalogSnapshot();
		PushActiveSnapshot(which == SNAPSHOT_OF_NOW ? GetCatalogSnapshot(RelationRelationId) :
						   GetTransactionSnapshot());
		log->pushed = true;
	}
	log->current = se_segments_current(schema, GetActiveSnapshot(), !is_fenced());
	if (write)
		log->indexes = CatalogOpenIndexes(log->segments[log->current].heap);
	return log;
}

SeStateLog *
se_state_log_open(bool write)
{
	return open_log(write, SNAPSHOT_GIVEN);
}

SeStateLog *
se_state_log_open_latest(void)
{
	return open_log(false, is_fenced() ? SNAPSHOT_GIVEN : SNAPSHOT_OF_TRANSACTION);
}

void
se_state_log_close(SeStateLog *log)
{
	LOCKMODE	unlock = log->mode == AccessShareLock ? AccessShareLock : NoLock;

	if (log->indexes)
		CatalogCloseIndexes(log->indexes);
	for (int i = 0; i < SE_SEGMENTS; i++)
	{
		index_close(log->segments[i].index, unlock);
		table_close(log->segments[i].heap, unlock);
	}
	if (log->pushed)
		PopActiveSnapshot();
	pfree(log);
}

void
se_state_log_as_of(SeStateLog *log, int32 reader, int64 generation, int64 seq)
{
	log->view.log = RelationGetRelid(log->segments[0].heap);
	log->view.reader = reader;
	log->view.generation = generation;
	log->view.seq = seq;
	log->has_view = true;
}

/* Whether the cache may know what is asked for. */
static bool
ask_cache(const SeStateLog *log)
{
	return se_state_cache && se_run_cache_enabled() && (log->has_view || se_run_cache_feeds());
}

void
se_state_log_append(SeStateLog *log, int32 query, TimestampTz slice_start, TimestampTz slice_end,
					int64 seq, uint32 hash_low, uint32 hash_high, int ngroups,
					const char *bytes, Size size)
{
	Datum		values[NCOLUMNS];
	bool		nulls[NCOLUMNS] = {0};
	bytea	   *payload = palloc(VARHDRSZ + size);
	Relation	heap = log->segments[log->current].heap;
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
	values[COL_SEGMENT - 1] = Int16GetDatum(log->current);
	values[COL_PAYLOAD - 1] = PointerGetDatum(payload);
	tuple = heap_form_tuple(RelationGetDescr(heap), values, nulls);
	CatalogTupleInsertWithInfo(heap, tuple, log->indexes);
	heap_freetuple(tuple);
	pfree(payload);
	se_state_log_bytes += size;
	if (se_run_cache_feeds())
	{
		SeCacheChunk chunk = {seq, hash_low, hash_high, ngroups, (uint32) size, bytes};

		se_run_cache_append(query, slice_start, slice_end, &chunk);
	}
	appended += size;
	if (appended > WAKE_BYTES)
	{
		appended = 0;
		se_worker_wake_manager();
	}
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

/* ---- scans ---- */

/* The chunks of a query, or of one of its slices, in the order of the index. */
typedef struct ChunkScan
{
	ScanKeyData keys[4];
	int			nsegments;
	struct
	{
		Relation	heap;
		IndexScanDesc scan;
		TupleTableSlot *slot;	/* empty: at its end */
	}			segments[SE_SEGMENTS];
	int			given;			/* the segment of the last chunk, -1: none */
} ChunkScan;

static void
advance(ChunkScan *scan, int i)
{
	if (!index_getnext_slot(scan->segments[i].scan, ForwardScanDirection, scan->segments[i].slot))
		ExecClearTuple(scan->segments[i].slot);
	else
		slot_getsomeattrs(scan->segments[i].slot, COL_SEQ);
}

/* nkeys: 1 the query, 3 the slice, 4 its runs with a greater seq. */
static void
begin_scan(ChunkScan *scan, SeStateLog *log, int32 query, TimestampTz slice_start,
		   TimestampTz slice_end, int64 seq, int nkeys)
{
	ScanKeyInit(&scan->keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(query));
	ScanKeyInit(&scan->keys[1], 2, BTEqualStrategyNumber, F_TIMESTAMPTZ_EQ,
				TimestampTzGetDatum(slice_start));
	ScanKeyInit(&scan->keys[2], 3, BTEqualStrategyNumber, F_TIMESTAMPTZ_EQ,
				TimestampTzGetDatum(slice_end));
	ScanKeyInit(&scan->keys[3], 4, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(seq));
	scan->nsegments = 0;
	scan->given = -1;
	for (int i = 0; i < SE_SEGMENTS; i++)
	{
		Segment    *segment = &log->segments[i];
		int			n = scan->nsegments;

		if (RelationGetNumberOfBlocks(segment->heap) == 0)
			continue;
		scan->segments[n].heap = segment->heap;
		scan->segments[n].slot = table_slot_create(segment->heap, NULL);
		scan->segments[n].scan = se_index_beginscan(segment->heap, segment->index,
													GetActiveSnapshot(), nkeys);
		index_rescan(scan->segments[n].scan, scan->keys, nkeys, NULL, 0);
		scan->nsegments++;
		advance(scan, n);
	}
}

static bool
is_before(const TupleTableSlot *a, const TupleTableSlot *b)
{
	static const int columns[] = {COL_SLICE_START, COL_SLICE_END, COL_SEQ};

	for (int i = 0; i < (int) lengthof(columns); i++)
	{
		int64		x = DatumGetInt64(a->tts_values[columns[i] - 1]);
		int64		y = DatumGetInt64(b->tts_values[columns[i] - 1]);

		if (x != y)
			return x < y;
	}
	return false;
}

/* The next chunk, valid until the next call; NULL at the end. */
static TupleTableSlot *
next_chunk(ChunkScan *scan)
{
	CHECK_FOR_INTERRUPTS();
	if (scan->given >= 0)
		advance(scan, scan->given);
	scan->given = -1;
	for (int i = 0; i < scan->nsegments; i++)
		if (!TTS_EMPTY(scan->segments[i].slot) &&
			(scan->given < 0 ||
			 is_before(scan->segments[i].slot, scan->segments[scan->given].slot)))
			scan->given = i;
	return scan->given < 0 ? NULL : scan->segments[scan->given].slot;
}

static void
end_scan(ChunkScan *scan)
{
	for (int i = 0; i < scan->nsegments; i++)
	{
		index_endscan(scan->segments[i].scan);
		ExecDropSingleTupleTableSlot(scan->segments[i].slot);
	}
}

static void
scan_chunks(SeStateLog *log, int32 query, TimestampTz slice_start, TimestampTz slice_end,
			int64 seq, uint32 hash_low, uint32 hash_high, SeCacheReader reader, void *arg)
{
	ChunkScan	scan;
	TupleTableSlot *slot;

	begin_scan(&scan, log, query, slice_start, slice_end, seq, seq > 0 ? 4 : 3);
	while ((slot = next_chunk(&scan)) != NULL)
	{
		SeCacheChunk chunk;
		bytea	   *payload;
		Datum		value;

		slot_getallattrs(slot);
		if (DatumGetInt64(slot->tts_values[COL_HASH_LOW - 1]) > (int64) hash_high ||
			DatumGetInt64(slot->tts_values[COL_HASH_HIGH - 1]) < (int64) hash_low)
			continue;
		value = slot->tts_values[COL_PAYLOAD - 1];
		payload = DatumGetByteaPP(value);
		chunk.seq = DatumGetInt64(slot->tts_values[COL_SEQ - 1]);
		chunk.hash_low = (uint32) DatumGetInt64(slot->tts_values[COL_HASH_LOW - 1]);
		chunk.hash_high = (uint32) DatumGetInt64(slot->tts_values[COL_HASH_HIGH - 1]);
		chunk.ngroups = DatumGetInt32(slot->tts_values[COL_NGROUPS - 1]);
		chunk.size = (uint32) VARSIZE_ANY_EXHDR(payload);
		chunk.bytes = VARDATA_ANY(payload);
		reader(arg, &chunk);
		if (payload != (bytea *) DatumGetPointer(value))
			pfree(payload);
	}
	end_scan(&scan);
}

typedef struct ChunkTarget
{
	SeChunkReader reader;
	SeOrderedReader ordered;
	void	   *arg;
} ChunkTarget;

static void
hand_over(void *arg, const SeCacheChunk *chunk)
{
	ChunkTarget *target = arg;

	if (target->ordered)
		target->ordered(target->arg, chunk->bytes, chunk->size, chunk->hash_low,
						chunk->hash_high, chunk->ngroups < 0);
	else
		target->reader(target->arg, chunk->bytes, chunk->size);
}

static void
read_chunks(SeStateLog *log, int32 query, TimestampTz slice_start, TimestampTz slice_end,
			int64 seq, uint32 hash_low, uint32 hash_high, ChunkTarget *target)
{
	if (!ask_cache(log) ||
		!se_run_cache_read(log->has_view ? &log->view : NULL, query, slice_start, slice_end, seq,
						   hash_low, hash_high, hand_over, target))
		scan_chunks(log, query, slice_start, slice_end, seq, hash_low, hash_high, hand_over,
					target);
}

void
se_state_log_read(SeStateLog *log, int32 query, TimestampTz slice_start, TimestampTz slice_end,
				  uint32 hash_low, uint32 hash_high, SeChunkReader reader, void *arg)
{
	ChunkTarget target = {reader, NULL, arg};

	read_chunks(log, query, slice_start, slice_end, 0, hash_low, hash_high, &target);
}

void
se_state_log_read_since(SeStateLog *log, int32 query, TimestampTz slice_start,
						TimestampTz slice_end, int64 seq, uint32 hash_low, uint32 hash_high,
						SeChunkReader reader, void *arg)
{
	ChunkTarget target = {reader, NULL, arg};

	read_chunks(log, query, slice_start, slice_end, seq, hash_low, hash_high, &target);
}

void
se_state_log_read_ordered(SeStateLog *log, int32 query, TimestampTz slice_start,
						  TimestampTz slice_end, uint32 hash_low, uint32 hash_high,
						  SeOrderedReader reader, void *arg)
{
	ChunkTarget target = {NULL, reader, arg};

	read_chunks(log, query, slice_start, slice_end, 0, hash_low, hash_high, &target);
}

void
se_state_log_delete(SeStateLog *log, int32 query, TimestampTz slice_start, TimestampTz slice_end)
{
	ChunkScan	scan;
	TupleTableSlot *slot;

	begin_scan(&scan, log, query, slice_start, slice_end, 0, 3);
	while ((slot = next_chunk(&scan)) != NULL)
		simple_heap_delete(scan.segments[scan.given].heap, &slot->tts_tid);
	end_scan(&scan);
	if (se_run_cache_feeds())
		se_run_cache_delete(query, slice_start, slice_end);
}

typedef void (*InfoReader) (void *arg, const SeCacheSliceInfo *slice);

static void
scan_slices(SeStateLog *log, int32 query, InfoReader reader, void *arg)
{
	ChunkScan	scan;
	TupleTableSlot *slot;
	SeCacheSliceInfo slice = {0};
	int64		seq = 0;
	int64		run = 0;

	begin_scan(&scan, log, query, 0, 0, 0, 1);
	while ((slot = next_chunk(&scan)) != NULL)
	{
		TimestampTz start;
		TimestampTz end;
		int64		chunk_seq;
		int			ngroups;

		slot_getsomeattrs(slot, COL_PAYLOAD);
		start = DatumGetTimestampTz(slot->tts_values[COL_SLICE_START - 1]);
		end = DatumGetTimestampTz(slot->tts_values[COL_SLICE_END - 1]);
		chunk_seq = DatumGetInt64(slot->tts_values[COL_SEQ - 1]);
		ngroups = abs(DatumGetInt32(slot->tts_values[COL_NGROUPS - 1]));
		if (slice.nruns > 0 && (start != slice.start || end != slice.end))
		{
			reader(arg, &slice);
			memset(&slice, 0, sizeof(slice));
		}
		if (slice.nruns == 0 || chunk_seq != seq)
		{
			run = 0;
			slice.nruns++;
		}
		slice.start = start;
		slice.end = end;
		seq = chunk_seq;
		run += ngroups;
		slice.largest = Max(slice.largest, run);
		slice.entries += ngroups;
		slice.bytes += toast_raw_datum_size(slot->tts_values[COL_PAYLOAD - 1]) - VARHDRSZ;
	}
	if (slice.nruns > 0)
		reader(arg, &slice);
	end_scan(&scan);
}

typedef struct SliceTarget
{
	SeSliceReader reader;
	void	   *arg;
	int32		query;			/* to be attached; 0: none */
} SliceTarget;

static void
hand_slice(void *arg, const SeCacheSliceInfo *slice)
{
	SliceTarget *target = arg;

	if (target->reader != NULL)
		target->reader(target->arg, slice->start, slice->end, slice->nruns, slice->entries,
					   slice->largest);
	if (target->query != 0)
		se_run_cache_attach_slice(target->query, slice);
}

void
se_state_log_slices(SeStateLog *log, int32 query, SeSliceReader reader, void *arg)
{
	SliceTarget target = {reader, arg, 0};
	SeCacheSliceInfo *slices;
	int			nslices;

	if (ask_cache(log) &&
		se_run_cache_slices(log->has_view ? &log->view : NULL, query, &slices, &nslices))
	{
		for (int i = 0; i < nslices; i++)
			hand_slice(&target, &slices[i]);
		pfree(slices);
		return;
	}
	scan_slices(log, query, hand_slice, &target);
}

typedef struct LogSize
{
	int64		slices;
	int64		bytes;
} LogSize;

static void
add_slice(void *arg, const SeCacheSliceInfo *slice)
{
	LogSize    *size = arg;

	size->slices++;
	size->bytes += slice->bytes;
}

void
se_state_log_size(int32 query, int64 *slices, int64 *bytes)
{
	LogSize		size = {0};
	SeStateLog *log = open_log(false, SNAPSHOT_OF_NOW);

	scan_slices(log, query, add_slice, &size);
	se_state_log_close(log);
	*slices = size.slices;
	*bytes = size.bytes;
}

/* ---- the process that feeds queries ---- */

void
se_state_log_attach(SeStateLog *log, int32 query, int32 reader, int64 generation, int64 seq,
					SeSliceReader slice_reader, void *arg)
{
	SliceTarget target = {slice_reader, arg, 0};
	SeCacheView view = {RelationGetRelid(log->segments[0].heap), reader, generation, seq};

	if (se_run_cache_enabled() && se_run_cache_attach(&view, query))
		target.query = query;
	scan_slices(log, query, hand_slice, &target);
	if (target.query != 0)
		se_run_cache_attach_end(query);
}

void
se_state_log_detach(void)
{
	if (se_run_cache_feeds())
		se_run_cache_release();
}

bool
se_state_log_asked(int32 query, bool *unfolded)
{
	*unfolded = false;
	return se_run_cache_feeds() && se_run_cache_asked(query, unfolded);
}

typedef struct FillTarget
{
	int32		query;
	TimestampTz start;
	TimestampTz end;
} FillTarget;

static void
fill_cache(void *arg, const SeCacheChunk *chunk)
{
	FillTarget *target = arg;

	se_run_cache_fill(target->query, target->start, target->end, chunk);
}

void
se_state_log_commit(int32 reader, int64 generation, int64 seq)
{
	SeStateLog *log = NULL;
	FillTarget	target;

	fenced = GetTopTransactionId();
	if (!se_run_cache_feeds())
		return;
	se_run_cache_begin(reader, generation, seq);
	while (se_run_cache_next_broken(&target.query))
	{
		if (log == NULL)
			log = se_state_log_open(false);
		se_state_log_attach(log, target.query, reader, generation, seq - 1, NULL, NULL);
	}
	while (se_run_cache_next_wanted(&target.query, &target.start, &target.end))
	{
		if (log == NULL)
			log = se_state_log_open(false);
		scan_chunks(log, target.query, target.start, target.end, 0, 0, PG_UINT32_MAX, fill_cache,
					&target);
		SE_FAILPOINT("cache.filled");
	}
	if (log != NULL)
		se_state_log_close(log);
}
