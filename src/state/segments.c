/*
 * segments.c
 *	  The ring of segments that bounds the state log.
 *
 * NOTES
 *	  Chunks are appended to one segment, the current one.  When it has grown to
 *	  more than all live state it retires, and an empty one becomes current.  What
 *	  is left alive in a retired segment usually dies by itself, when its windows
 *	  close.  Only when the log as a whole is larger than it may be are the chunks
 *	  of the oldest one moved forward.  A segment without live chunks is
 *	  truncated.
 *
 *	  Truncation does not wait for snapshots that still see the dead chunks, but when
 *	  there is room it does: then nobody notices.  When there is none it waits
 *	  GRACE_MS, for short statements, and snapshots that are older than the last
 *	  chunk's death get an error from se_segments_current.  That keeps the log within
 *	  4 x the live state + 64 MB: at most 3 x live + 12 MB before chunks are moved,
 *	  and what is moved and appended meanwhile.
 *
 *	  All this is the manager's, in transactions of its own.  It moves the chunks of
 *	  one reader at a time, whose row it locks as a commit of that reader does; the
 *	  reader's commits look at the log with snapshots taken after they have that
 *	  lock, so they find a chunk in one place or in the other.  Locks on segments
 *	  are taken conditionally, so that nobody waits behind the manager.  With many
 *	  readers there may be no instant without a commit; then, when there is no room, the
 *	  manager queues as others do: for PATIENCE_MS, and if that was in vain, for
 *	  commits take longer, for twice as long the next time.  Commits that begin
 *	  meanwhile wait, but for no more than a fifth of the time.
 *
 *	  Who appends asks which segment is current when he has locked all of them, and
 *	  not his snapshot.  So once nobody holds such a lock, nothing is added to
 *	  a segment that has retired.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compat/compat.h"
#include "engine/engine.h"
#include "segments.h"

/* Columns of stream_engine.state_segment. */
enum
{
	COL_SEGMENT = 1, COL_GENERATION, COL_CURRENT, COL_RETIRED_AT, COL_HORIZON
};

/* A log of this size needs no care. */
#define SMALL_LOG (INT64CONST(10) * 1024 * 1024)

/* A segment retires when it is larger than the live state plus this. */
#define SEGMENT_SLACK (INT64CONST(4) * 1024 * 1024)

/* Chunks are moved and snapshots given up beyond 3 x live state plus this. */
#define LOG_SLACK (INT64CONST(12) * 1024 * 1024)

/* How long a segment without live chunks is spared though there is no room. */
#define GRACE_MS 300

/* What a chunk takes besides its payload, in the table and in the index. */
#define CHUNK_OVERHEAD 140

/* Chunks moved in one transaction, and transactions in one pass. */
#define MOVE_CHUNKS 1000
#define MOVES_A_PASS 8

/* Between passes while there is something to do. */
#define SOON_MS 100
#define LATER_MS 1000

#define LOCK_ATTEMPTS 10
#define LOCK_RETRY_MS 5

/* How long others' commits may have to wait behind the manager, at first and at most. */
#define PATIENCE_MS 200
#define MAX_PATIENCE_MS 1600

typedef struct Segment
{
	int64		generation;
	bool		current;
	TimestampTz retired_at;
	int64		size;			/* with index and TOAST, in bytes */
	bool		empty;			/* has no page */
} Segment;

/* Since when a segment is known to have no live chunk. */
typedef struct Dead
{
	int64		generation;		/* 0: it may have */
	TransactionId since;		/* snapshots with such an xmin see none */
	TimestampTz at;
} Dead;

static Dead dead[SE_SEGMENTS];

/* ---- reading ---- */

typedef struct Emptied
{
	int64		generation;
	TransactionId horizon;
} Emptied;

/* How the snapshot sees the segments; returns which one is current then. */
static int
read_segments_as_of(Relation rel, Snapshot snapshot, Emptied *emptied)
{
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	TupleDesc	desc = RelationGetDescr(rel);
	HeapTuple	tuple;
	int			current = -1;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		int			segment = DatumGetInt16(heap_getattr(tuple, COL_SEGMENT, desc, &isnull));

		if (segment < 0 || segment >= SE_SEGMENTS)
			continue;
		emptied[segment].generation = DatumGetInt64(heap_getattr(tuple, COL_GENERATION, desc,
																 &isnull));
		emptied[segment].horizon = (TransactionId) DatumGetInt64(heap_getattr(tuple, COL_HORIZON,
																			  desc, &isnull));
		if (DatumGetBool(heap_getattr(tuple, COL_CURRENT, desc, &isnull)))
			current = segment;
	}
	systable_endscan(scan);
	return current;
}

int
se_segments_current(Oid schema, Snapshot snapshot, bool check)
{
	Relation	rel = table_open(get_relname_relid("state_segment", schema), AccessShareLock);
	Emptied		seen[SE_SEGMENTS] = {{0}};
	Emptied		now[SE_SEGMENTS] = {{0}};
	Snapshot	latest;
	int			current;

	if (check)
		(void) read_segments_as_of(rel, snapshot, seen);
	/* one of now that can also be had while other parts of a plan run in parallel */
	latest = RegisterSnapshot(GetCatalogSnapshot(RelationGetRelid(rel)));
	current = read_segments_as_of(rel, latest, now);
	UnregisterSnapshot(latest);
	table_close(rel, AccessShareLock);
	for (int i = 0; i < SE_SEGMENTS && check; i++)
		if (seen[i].generation != now[i].generation &&
			TransactionIdPrecedes(snapshot->xmin, now[i].horizon))
			ereport(ERROR,
					(errcode(SE_ERRCODE_SNAPSHOT_TOO_OLD),
					 errmsg("snapshot too old"),
					 errdetail("Window state that this snapshot may see has been removed from the state log, which would have grown beyond its bound."),
					 errhint("Read open windows in a new transaction.")));
	if (current < 0)
		elog(ERROR, "no segment of the state log is current");
	return current;
}

/* ---- maintenance ---- */

static void
execute(int expected, const char *sql)
{
	int			result = SPI_execute(sql, false, 0);

	if (result != expected)
		elog(ERROR, "maintenance of the state log failed: %s", SPI_result_code_string(result));
}

static int64
select_int64(const char *sql)
{
	bool		isnull;

	execute(SPI_OK_SELECT, sql);
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

static int64
read_segments(Segment *segments)
{
	int64		total = 0;

	execute(SPI_OK_SELECT,
			"SELECT s.segment, s.generation, s.current,"
			" COALESCE(s.retired_at, '-infinity'),"
			" pg_catalog.pg_total_relation_size(c.oid),"
			" pg_catalog.pg_relation_size(c.oid) = 0"
			" FROM stream_engine.state_segment s JOIN pg_catalog.pg_class c"
			" ON c.relnamespace = 'stream_engine'::pg_catalog.regnamespace"
			" AND c.relname = 'state_log_' || s.segment");
	if (SPI_processed != SE_SEGMENTS)
		elog(ERROR, "the state log has " UINT64_FORMAT " segments", (uint64) SPI_processed);
	for (int i = 0; i < SE_SEGMENTS; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		Segment    *segment = &segments[DatumGetInt16(SPI_getbinval(tuple, desc, 1, &isnull))];

		segment->generation = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
		segment->current = DatumGetBool(SPI_getbinval(tuple, desc, 3, &isnull));
		segment->retired_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 4, &isnull));
		segment->size = DatumGetInt64(SPI_getbinval(tuple, desc, 5, &isnull));
		segment->empty = DatumGetBool(SPI_getbinval(tuple, desc, 6, &isnull));
		total += segment->size;
	}
	return total;
}

/* Bytes of live chunks; counted anew only when the log has changed much since. */
static int64
live_bytes(int64 total)
{
	static int64 counted_at = 0;
	static int64 live = 0;

	if (total < counted_at * 3 / 4 || total > counted_at + Max(counted_at / 4, SEGMENT_SLACK))
	{
		live = select_int64("SELECT COALESCE(pg_catalog.sum(pg_catalog.octet_length(payload) + "
							CppAsString2(CHUNK_OVERHEAD)
							"), 0)::bigint FROM stream_engine.state_log");
		counted_at = total;
	}
	return live;
}

static bool
has_live_chunks(int segment)
{
	execute(SPI_OK_SELECT, psprintf("SELECT FROM stream_engine.state_log_%d LIMIT 1", segment));
	return SPI_processed > 0;
}

static Oid
segment_relid(int segment)
{
	return get_relname_relid(psprintf("state_log_%d", segment),
							 get_namespace_oid("stream_engine", false));
}

/* Is there a snapshot that sees what was alive in the segment? */
static bool
is_wanted(int segment)
{
	Relation	rel = table_open(segment_relid(segment), AccessShareLock);
	TransactionId oldest = GetOldestNonRemovableTransactionId(rel);

	table_close(rel, AccessShareLock);
	return TransactionIdPrecedes(oldest, dead[segment].since);
}

/* Wait for the lock in the queue, where later commits are behind us; false: not got in time. */
static bool
queue_for_segment(int segment, LOCKMODE mode)
{
	static int	patience = PATIENCE_MS;
	static TimestampTz not_before = 0;
	char		timeout[12];
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool locked = true;

	if (GetCurrentTimestamp() < not_before)
		return false;
	snprintf(timeout, sizeof(timeout), "%d", patience);
	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		int			settings = NewGUCNestLevel();

		(void) set_config_option("lock_timeout", timeout, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		LockRelationOid(segment_relid(segment), mode);
		AtEOXact_GUC(true, settings);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ReThrowError(error);
		FreeErrorData(error);
		not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 4 * patience);
		patience = Min(2 * patience, MAX_PATIENCE_MS);
		locked = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return locked;
}

static bool
lock_segment(int segment, LOCKMODE mode, bool force)
{
	for (int i = 0; i < LOCK_ATTEMPTS; i++)
	{
		if (ConditionalLockRelationOid(segment_relid(segment), mode))
			return true;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOCK_RETRY_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return force && queue_for_segment(segment, mode);
}

/* Begin and end a transaction with SPI; false: the extension is gone. */
static bool
begin(void)
{
	if (!se_worker_begin())
		return false;
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	return true;
}

static void
end(void)
{
	PopActiveSnapshot();
	SPI_finish();
	se_worker_commit();
}

/* Empty a retired segment if it has no live chunks and may be; else false. */
static bool
empty_segment(int number, const Segment *segment, bool force)
{
	bool		emptied = false;

	if (!begin())
		return false;
	if (has_live_chunks(number))
		dead[number].generation = 0;
	else if (dead[number].generation != segment->generation &&
			 lock_segment(number, ShareRowExclusiveLock, force) && !has_live_chunks(number))
	{
		/*
		 * Whoever has seen it as current has ended now, and nobody will again: there
		 * will be no other chunks.  Whoever has taken chunks away before the look has
		 * an older xid.
		 */
		dead[number].generation = segment->generation;
		dead[number].since = ReadNextTransactionId();
		dead[number].at = GetCurrentTimestamp();
	}
	if (dead[number].generation == segment->generation &&
		(!is_wanted(number) ||
		 (force && TimestampDifferenceExceeds(dead[number].at, GetCurrentTimestamp(), GRACE_MS))) &&
		lock_segment(number, AccessExclusiveLock, force))
	{
		if (!has_live_chunks(number))
		{
			SE_FAILPOINT("segment.before_truncate");
			execute(SPI_OK_UTILITY, psprintf("TRUNCATE stream_engine.state_log_%d", number));
			execute(SPI_OK_UPDATE,
					psprintf("UPDATE stream_engine.state_segment SET generation = generation + 1,"
							 " retired_at = NULL, horizon = %u WHERE segment = %d",
							 dead[number].since, number));
			emptied = true;
		}
		dead[number].generation = 0;
	}
	SE_FAILPOINT("segment.before_commit");
	end();
	return emptied;
}

/* Make an empty segment current. */
static void
rotate(int from, int to)
{
	if (!begin())
		return;
	execute(SPI_OK_UPDATE,
			psprintf("UPDATE stream_engine.state_segment SET current = (segment = %d), retired_at ="
					 " CASE WHEN segment = %d THEN pg_catalog.clock_timestamp() END"
					 " WHERE segment IN (%d, %d)", to, from, from, to));
	end();
}

/*
 * Move some chunks out of a segment; false when none could be moved.  Readers whose
 * rows are locked are left for the next time.
 */
static bool
move_chunks(int from, int to)
{
	bool		moved = false;

	if (!begin())
		return false;
	/* the lock first: what is moved must be seen by a later snapshot */
	execute(SPI_OK_SELECT,
			psprintf("SELECT q.query, p.reader FROM (SELECT DISTINCT query FROM stream_engine.state_log_%d) q"
					 " LEFT JOIN stream_engine.query_progress p ON p.query = q.query"
					 " WHERE p.reader IS NULL OR EXISTS (SELECT FROM stream_engine.reader r"
					 " WHERE r.id = p.reader FOR UPDATE SKIP LOCKED) LIMIT 1", from));
	if (SPI_processed > 0)
	{
		bool		isnull;
		int32		query = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0],
														SPI_tuptable->tupdesc, 1, &isnull));
		char	   *reader = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);

		/* before we had the lock the query may have got another reader */
		PopActiveSnapshot();
		PushActiveSnapshot(GetTransactionSnapshot());
		execute(SPI_OK_INSERT,
				psprintf("WITH moved AS (DELETE FROM stream_engine.state_log_%d WHERE ctid = ANY (ARRAY"
						 "(SELECT ctid FROM stream_engine.state_log_%d WHERE query = %d AND"
						 " (SELECT reader FROM stream_engine.query_progress WHERE query = %d)"
						 " IS NOT DISTINCT FROM %s LIMIT %d))"
						 " RETURNING *) INSERT INTO stream_engine.state_log_%d SELECT query,"
						 " slice_start, slice_end, seq, hash_low, hash_high, ngroups, %d, payload"
						 " FROM moved", from, from, query, query, reader ? reader : "NULL::integer",
						 MOVE_CHUNKS, to, to));
		moved = SPI_processed > 0;
	}
	SE_FAILPOINT("segment.before_move_commit");
	end();
	return moved;
}

long
se_state_log_maintain(void)
{
	Segment		segments[SE_SEGMENTS];
	int64		total;
	int64		live = 0;
	int			current = 0;
	int			oldest = -1;
	int			empty = -1;
	bool		crowded;

	if (!begin())
		return -1;
	total = read_segments(segments);
	if (total > SMALL_LOG)
		live = live_bytes(total);
	end();

	crowded = total > 3 * live + LOG_SLACK;
	for (int i = 0; i < SE_SEGMENTS; i++)
	{
		if (segments[i].current)
			current = i;
		else if (segments[i].empty || empty_segment(i, &segments[i], crowded))
			empty = i;
		else if (oldest < 0 || segments[i].retired_at < segments[oldest].retired_at)
			oldest = i;
	}
	if (empty >= 0 && segments[current].size > live + SEGMENT_SLACK && total > SMALL_LOG)
	{
		rotate(current, empty);
		return SOON_MS;
	}
	if (oldest >= 0 && (crowded || empty < 0))
		for (int i = 0; i < MOVES_A_PASS && move_chunks(oldest, current); i++)
			CHECK_FOR_INTERRUPTS();
	if (oldest < 0)
		return -1;
	return crowded ? SOON_MS : LATER_MS;
}
