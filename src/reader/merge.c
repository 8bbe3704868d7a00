/*
 * merge.c
 *	  A reader that has caught up hands its queries over to another one.
 *
 * NOTES
 *	  Readers of the same stream at the same place do the same work twice.  The
 *	  stream's own reader (head), or else the one with the smallest number, takes the
 *	  queries of the others, which follow it: a follower reads no further than the
 *	  other one has committed, and when it has read exactly that much its commit
 *	  does the rest.
 *
 *	  In that one transaction the follower, which holds its own row by its fence,
 *	  locks the other row if that still has the seq and the generation that it had
 *	  followed, compares positions, the partitions' watermarks and W, and moves its
 *	  queries.  It waits for no lock: a row that is locked or has moved makes this a
 *	  commit like any other, and the follower goes on following.  The other reader's
 *	  generation is raised, so it throws its running cycle away, reads its definition
 *	  again and begins at the offsets that both had committed, with all queries.  So
 *	  each record has its effect on each query in one reader's commit, and whatever
 *	  dies on the way has changed nothing, or everything.
 *
 *	  What must be equal: next offset and watermark of each partition, W (with
 *	  processing time neither, for there W is the clock), and the bad records that are kept
 *	  for retry_dead_letters(), from the follower's start on: these are processed again
 *	  by readers, not by queries.  The other reader must have begun no later.  Idle
 *	  flags may differ; they are the other's from now on, and the ledger row that is
 *	  written for it here says so.
 *
 *	  What the query has of its own: query_origin keeps its first offset and the
 *	  difference between the counters of the two readers, so that its accounts
 *	  stay its own; reader_history keeps the ledger of the old reader readable; the
 *	  other's seq continues behind the larger of the two, because the state log
 *	  orders runs by it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "engine/engine.h"
#include "merge.h"

/* Records between the two at which following begins. */
#define MERGE_DISTANCE 100000

/* How often to look for a reader, and at the one that is followed. */
#define LOOK_MS 1000
#define FOLLOW_MS 10
#define MAX_PAUSE_MS 30000

/* Following ends after so long, or two commit intervals. */
#define PATIENCE_MS 3000

typedef struct SeMerge
{
	int32		target;
	int64		generation;		/* of the target: its queries are those that we looked at */
	int64		seq;			/* of the target, whose positions these are */
	int64		tried_seq;		/* a commit at this seq did not merge; -1 none */
	TimestampTz watermark;		/* the target's W */
	TimestampTz deadline;
	bool		left;			/* the source has given records or ends beyond */
	int			npartitions;
	int64	   *upto;			/* [partition] */
	TimestampTz *max_event_time;	/* [partition] */
} SeMerge;

/* They outlive the definition: what failed a moment ago need not be tried at once. */
static TimestampTz next_look = 0;
static int64 pause_ms = LOOK_MS;

static bool
can_merge(const Reader *reader)
{
	return !reader->def->head && reader->nqueries > 0 && reader->npartitions > 0;
}

/* Whether a worker of the reader runs, and well. */
static bool
is_healthy(int32 reader)
{
	bool		result = false;

	LWLockAcquire(se_shared->lock, LW_SHARED);
	for (int i = 0; i < se_shared->nslots && !result; i++)
	{
		const SeSlot *slot = &se_shared->slots[i];

		result = slot->kind == SE_SLOT_READER && slot->database == MyDatabaseId &&
			slot->reader == reader && slot->state == SE_SLOT_RUNNING && slot->pid != 0 &&
			slot->failures == 0 && slot->message[0] == '\0' && !slot->stop;
	}
	LWLockRelease(se_shared->lock);
	return result;
}

static int64
column_int64(uint64 row, int column)
{
	bool		isnull;

	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column,
									   &isnull));
}

static int32
column_int32(uint64 row, int column)
{
	bool		isnull;

	return DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column,
									   &isnull));
}

/*
 * The readers that this one may be merged into, the best first, with the generations
 * for which that holds; in a catalog scope.
 */
static int
candidates(const Reader *reader, int32 *ids, int64 *generations, int max)
{
	Oid			types[2] = {INT4OID, INT4OID};
	Datum		values[2];
	int			n;

	values[0] = Int32GetDatum(reader->def->id);
	values[1] = Int32GetDatum(reader->stream->id);
	se_spi("SELECT t.id, t.generation FROM stream_engine.reader t, LATERAL (SELECT"
		   "  pg_catalog.sum(p.start_offset) FILTER (WHERE p.reader = t.id) AS others,"
		   "  pg_catalog.sum(p.start_offset) FILTER (WHERE p.reader = $1) AS own"
		   "  FROM stream_engine.reader_partition p WHERE p.reader IN (t.id, $1)) starts"
		   " WHERE t.stream = $2 AND t.id <> $1 AND t.absorbed_by IS NULL AND t.seq > 0"
		   " AND (t.head OR ((others, t.id) < (own, $1) AND NOT EXISTS (SELECT FROM stream_engine.reader h"
		   "  WHERE h.stream = $2 AND h.head)"
		   "  AND EXISTS (SELECT FROM stream_engine.query_progress p WHERE p.reader = t.id)))"
		   " AND NOT EXISTS (SELECT FROM stream_engine.query_progress p"
		   "  JOIN stream_engine.query q ON q.id = p.query WHERE p.reader = t.id"
		   "  AND (q.state <> 'running' OR (q.session AND EXISTS"
		   "   (SELECT FROM stream_engine.query_progress o JOIN stream_engine.query s ON s.id = o.query"
		   "    WHERE o.reader = $1 AND s.session))))"
		   " ORDER BY others, t.id", 2, types, values, NULL, SPI_OK_SELECT);
	n = (int) Min(SPI_processed, (uint64) max);
	for (int i = 0; i < n; i++)
	{
		ids[i] = column_int32(i, 1);
		generations[i] = column_int64(i, 2);
	}
	return n;
}

/*
 * The positions of a reader, as committed, in reader->context; NULL when its queries are
 * others than at that generation, or in another state, or when it has other partitions
 * than we have, has begun later, or does not go on.
 */
static SeMerge *
positions_of(const Reader *reader, int32 target, int64 generation)
{
	Oid			types[2] = {INT4OID, INT8OID};
	Datum		values[2];
	int			n = reader->npartitions;
	SeMerge    *merge;

	values[0] = Int32GetDatum(target);
	values[1] = Int64GetDatum(generation);
	se_spi("SELECT p.partition, p.next_offset, p.start_offset, p.max_event_time, r.watermark, r.seq"
		   " FROM stream_engine.reader r JOIN stream_engine.reader_partition p ON p.reader = r.id"
		   " WHERE r.id = $1 AND r.generation = $2 AND r.absorbed_by IS NULL AND p.problem IS NULL"
		   " ORDER BY p.partition", 2, types, values, NULL, SPI_OK_SELECT);
	if (SPI_processed != (uint64) n)
		return NULL;
	for (int i = 0; i < n; i++)
		if (column_int32(i, 1) != i || reader->partitions[i].lost ||
			column_int64(i, 3) > reader->partitions[i].start_offset)
			return NULL;
	merge = MemoryContextAllocZero(reader->context, sizeof(SeMerge));
	merge->upto = MemoryContextAlloc(reader->context, sizeof(int64) * n);
	merge->max_event_time = MemoryContextAlloc(reader->context, sizeof(TimestampTz) * n);
	merge->target = target;
	merge->generation = generation;
	merge->npartitions = n;
	merge->tried_seq = -1;
	for (int i = 0; i < n; i++)
	{
		merge->upto[i] = column_int64(i, 2);
		merge->max_event_time[i] = column_int64(i, 4);
	}
	merge->watermark = column_int64(0, 5);
	merge->seq = column_int64(0, 6);
	return merge;
}

static void
free_merge(SeMerge *merge)
{
	pfree(merge->upto);
	pfree(merge->max_event_time);
	pfree(merge);
}

/* Records between us and the positions, whichever is ahead. */
static int64
distance(const Reader *reader, const SeMerge *merge)
{
	int64		sum = 0;

	for (int i = 0; i < merge->npartitions; i++)
	{
		int64		d = merge->upto[i] - reader->partitions[i].next_offset;

		sum += d < 0 ? -d : d;
	}
	return sum;
}

/* Look for a reader near by; the pause until the next look follows from what is found. */
static SeMerge *
find_target(Reader *reader)
{
	SeCatalogScope scope;
	SeMerge    *merge = NULL;
	int32		ids[16];
	int64		generations[16];
	int			n;
	bool		any = false;

	if (!se_worker_begin())
		return NULL;
	PushActiveSnapshot(GetTransactionSnapshot());
	se_catalog_begin(&scope);
	n = candidates(reader, ids, generations, lengthof(ids));
	for (int i = 0; i < n && merge == NULL; i++)
	{
		if (!is_healthy(ids[i]))
			continue;
		merge = positions_of(reader, ids[i], generations[i]);
		if (merge != NULL && distance(reader, merge) > MERGE_DISTANCE)
		{
			any = true;
			free_merge(merge);
			merge = NULL;
		}
	}
	se_catalog_end(&scope);
	PopActiveSnapshot();
	se_worker_commit();
	if (merge == NULL)
		/* one that is far away comes nearer */
		pause_ms = any ? LOOK_MS : Min(pause_ms * 2, MAX_PAUSE_MS);
	return merge;
}

/* What was left unread is fetched again. */
static void
fetch_again(Reader *reader)
{
	for (int i = 0; i < reader->npartitions; i++)
		reader->partitions[i].caught_up = false;
	se_partitions_assign(reader);
}

/* Read where the target stands now.  False: it is not what it was. */
static bool
follow(Reader *reader)
{
	SeMerge    *merge = reader->merge;
	SeCatalogScope scope;
	SeMerge    *now;

	if (!is_healthy(merge->target) || !se_worker_begin())
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	se_catalog_begin(&scope);
	now = positions_of(reader, merge->target, merge->generation);
	se_catalog_end(&scope);
	PopActiveSnapshot();
	se_worker_commit();
	if (now == NULL)
		return false;
	now->tried_seq = merge->tried_seq;
	now->deadline = merge->deadline;
	now->left = merge->left;
	reader->merge = now;
	if (now->left && memcmp(now->upto, merge->upto, sizeof(int64) * now->npartitions) != 0)
	{
		/* the source stands behind what may be read from now on */
		now->left = false;
		fetch_again(reader);
	}
	free_merge(merge);
	return true;
}

/* Read on as an ordinary reader, and look again in "pause" milliseconds. */
static void
give_up(Reader *reader, int64 pause)
{
	free_merge(reader->merge);
	reader->merge = NULL;
	pause_ms = pause;
	fetch_again(reader);
}

void
se_merge_look(Reader *reader, TimestampTz now)
{
	if (reader->merge == NULL)
	{
		if (!can_merge(reader) || now < next_look)
			return;
		reader->merge = find_target(reader);
		if (reader->merge != NULL)
		{
			reader->merge->deadline = now +
				Max(PATIENCE_MS, 2 * (int64) se_commit_interval) * 1000;
			SE_FAILPOINT("merge.follow");
		}
	}
	else if (now >= reader->merge->deadline)
		give_up(reader, Min(pause_ms * 2, MAX_PAUSE_MS));
	else if (!follow(reader))
		give_up(reader, LOOK_MS);
	else if (reader->merge->tried_seq == reader->merge->seq)
		give_up(reader, Min(pause_ms * 2, MAX_PAUSE_MS));
	next_look = now + (reader->merge ? FOLLOW_MS : pause_ms) * 1000;
}

TimestampTz
se_merge_next_look(const Reader *reader)
{
	return can_merge(reader) ? next_look : DT_NOEND;
}

bool
se_merge_reached(const Reader *reader)
{
	if (reader->merge == NULL || reader->merge->npartitions != reader->npartitions)
		return false;
	for (int i = 0; i < reader->npartitions; i++)
		if (reader->partitions[i].next_offset != reader->merge->upto[i])
			return false;
	return true;
}

bool
se_merge_may_read(const Reader *reader)
{
	for (int i = 0; i < reader->npartitions; i++)
		if (i >= reader->merge->npartitions ||
			reader->partitions[i].next_offset < reader->merge->upto[i])
			return true;
	return false;
}

/* Whether the watermarks are those of the target, too, as a commit would find them now. */
static bool
watermarks_fit(Reader *reader)
{
	bool	   *idle;
	TimestampTz watermark;

	if (reader->stream->options.processing_time)
		return true;
	for (int i = 0; i < reader->npartitions; i++)
		if (reader->partitions[i].max_event_time != reader->merge->max_event_time[i])
			return false;
	idle = palloc(sizeof(bool) * reader->npartitions);
	watermark = se_reader_watermark(reader, GetCurrentTimestamp(), idle);
	pfree(idle);
	return watermark == reader->merge->watermark;
}

bool
se_merge_wants_commit(Reader *reader)
{
	if (reader->merge == NULL || reader->merge->tried_seq == reader->merge->seq ||
		!se_merge_reached(reader))
		return false;
	if (watermarks_fit(reader))
		return true;
	reader->merge->tried_seq = reader->merge->seq;
	return false;
}

/*
 * Everything before "upto" has been seen when something at or behind it has: the
 * offsets between hold no records, as the target has found as well.
 */
static void
pass_gap(Reader *reader, int32 number)
{
	ReaderPartition *partition = &reader->partitions[number];
	int64		upto = reader->merge->upto[number];

	if (partition->next_offset >= upto)
		return;
	partition->delta.gaps += upto - partition->next_offset;
	partition->next_offset = upto;
	partition->dirty = true;
	reader->dirty = true;
}

int
se_merge_clip(Reader *reader, SeSourceBatch *batch)
{
	SeMerge    *merge = reader->merge;
	int			kept = 0;
	SeRecord   *left = palloc(sizeof(SeRecord) * Max(batch->nrecords, 1));
	int			nleft = 0;

	for (int i = 0; i < batch->nrecords; i++)
	{
		const SeRecord *record = &batch->records[i];

		if (record->partition < merge->npartitions &&
			record->offset >= merge->upto[record->partition])
			left[nleft++] = *record;
		else
			batch->records[kept++] = *record;
	}
	memcpy(batch->records + kept, left, sizeof(SeRecord) * nleft);
	merge->left |= nleft > 0;
	pfree(left);
	return kept;
}

/* When what was kept has been processed. */
void
se_merge_pass(Reader *reader, const SeSourceBatch *batch, int first)
{
	for (int i = first; i < batch->nrecords; i++)
		pass_gap(reader, batch->records[i].partition);
}

int64
se_merge_clip_end(const Reader *reader, int32 partition, int64 offset)
{
	int64		end;

	if (reader->merge == NULL || partition >= reader->merge->npartitions)
		return offset;
	end = Max(reader->merge->upto[partition], reader->partitions[partition].next_offset);
	reader->merge->left |= end < offset;
	return Min(offset, end);
}

/* ---- the transaction ---- */

/*
 * Lock the target if it stands where we stand.  $1 our reader, $2 the target, $3 its
 * seq, $4 our W, $5 whether the stream has processing time, $6 its generation.
 *
 * Whoever stops one of its queries, or gives it another, raises the generation under
 * the lock of the row.  The state of its queries is not looked at here: this statement
 * may see it as it was before the row was locked.
 */
static bool
lock_target(const Reader *reader, TimestampTz watermark)
{
	Oid			types[6] = {INT4OID, INT4OID, INT8OID, TIMESTAMPTZOID, BOOLOID, INT8OID};
	Datum		values[6];

	values[0] = Int32GetDatum(reader->def->id);
	values[1] = Int32GetDatum(reader->merge->target);
	values[2] = Int64GetDatum(reader->merge->seq);
	values[3] = TimestampTzGetDatum(watermark);
	values[4] = BoolGetDatum(reader->stream->options.processing_time);
	values[5] = Int64GetDatum(reader->merge->generation);
	return se_spi("SELECT FROM stream_engine.reader t WHERE t.id = $2 AND t.seq = $3"
				  " AND t.generation = $6 AND t.absorbed_by IS NULL AND (t.watermark = $4 OR $5)"
				  " AND NOT EXISTS (SELECT FROM"
				  "  (SELECT * FROM stream_engine.reader_partition WHERE reader = $1) a FULL JOIN"
				  "  (SELECT * FROM stream_engine.reader_partition WHERE reader = $2) b USING (partition)"
				  "  WHERE a.next_offset IS DISTINCT FROM b.next_offset"
				  "  OR (a.max_event_time <> b.max_event_time AND NOT $5)"
				  "  OR b.start_offset > a.start_offset"
				  /* the first record may yet say from when on the query's windows are complete */
				  "  OR (NOT a.complete AND a.first_event_time IS NULL AND NOT $5)"
				  "  OR a.problem IS NOT NULL OR b.problem IS NOT NULL)"
				  " AND NOT EXISTS (SELECT FROM stream_engine.replay p WHERE p.reader IN ($1, $2))"
				  " AND NOT EXISTS (SELECT FROM stream_engine.dead_letter_reader h WHERE h.reader = $1"
				  "  AND NOT EXISTS (SELECT FROM stream_engine.dead_letter_reader o WHERE o.reader = $2"
				  "   AND o.partition = h.partition AND o.\"offset\" = h.\"offset\"))"
				  " AND NOT EXISTS (SELECT FROM stream_engine.dead_letter_reader h"
				  "  JOIN stream_engine.reader_partition a ON a.reader = $1 AND a.partition = h.partition"
				  "  WHERE h.reader = $2 AND h.\"offset\" >= a.start_offset"
				  "  AND NOT EXISTS (SELECT FROM stream_engine.dead_letter_reader o WHERE o.reader = $1"
				  "   AND o.partition = h.partition AND o.\"offset\" = h.\"offset\"))"
				  " FOR UPDATE OF t SKIP LOCKED", 6, types, values, NULL, SPI_OK_SELECT) == 1;
}

/*
 * Move the queries.  $1 our reader, $2 the target, $3 the seq of the target's
 * ledger row for the merge, $4 W, $5 now.
 */
static void
move_queries(const Reader *reader, int64 seq, TimestampTz watermark, TimestampTz now)
{
	static const char *const steps[] = {
		/* the two readers' counters differ by what the query has not read, or read before */
		"INSERT INTO stream_engine.query_origin AS q (query, partition, start_offset, complete,"
		" records, gaps, decoded, dead, future, tombstones, skipped)"
		" SELECT w.query, a.partition, a.start_offset, a.complete,"
		" a.records - b.records, a.gaps - b.gaps, a.decoded - b.decoded, a.dead - b.dead, a.future - b.future,"
		" a.tombstones - b.tombstones, a.skipped - b.skipped"
		" FROM stream_engine.query_progress w"
		" JOIN stream_engine.reader_partition a ON a.reader = w.reader"
		" JOIN stream_engine.reader_partition b ON b.reader = $2 AND b.partition = a.partition"
		" WHERE w.reader = $1"
		" ON CONFLICT (query, partition) DO UPDATE SET"
		" records = q.records + excluded.records, gaps = q.gaps + excluded.gaps,"
		" decoded = q.decoded + excluded.decoded, dead = q.dead + excluded.dead,"
		" future = q.future + excluded.future, tombstones = q.tombstones + excluded.tombstones,"
		" skipped = q.skipped + excluded.skipped",

		/* the target's queries, too, count on when its seq leaps */
		"INSERT INTO stream_engine.reader_history (query, reader, after_seq, upto_seq, ledger_shift)"
		" SELECT w.query, w.reader, w.joined_seq, r.seq, w.ledger_shift"
		" FROM stream_engine.query_progress w JOIN stream_engine.reader r ON r.id = w.reader"
		" WHERE r.seq > w.joined_seq AND (r.id = $1 OR (r.id = $2 AND r.seq < $3 - 1))",

		"UPDATE stream_engine.query_progress w SET joined_seq = $3 - 1,"
		" ledger_shift = w.ledger_shift + r.seq - ($3 - 1)"
		" FROM stream_engine.reader r WHERE r.id = $2 AND w.reader = $2 AND r.seq < $3 - 1",

		"UPDATE stream_engine.query_progress w SET reader = $2, joined_seq = $3 - 1,"
		" ledger_shift = w.ledger_shift + r.seq - ($3 - 1)"
		" FROM stream_engine.reader r WHERE r.id = $1 AND w.reader = $1",

		"DELETE FROM stream_engine.dead_letter_reader WHERE reader = $1",
		"DELETE FROM stream_engine.reader_partition WHERE reader = $1",
		"UPDATE stream_engine.reader SET absorbed_by = $2, generation = generation + 1 WHERE id = $1",

		"UPDATE stream_engine.reader SET generation = generation + 1, seq = $3,"
		" watermark = GREATEST(watermark, $4), promise = GREATEST(promise, $4), committed_at = $5"
		" WHERE id = $2",

		"INSERT INTO stream_engine.ledger (reader, seq, committed_at, watermark, partitions,"
		" next_offsets, watermarks, idle)"
		" SELECT $2, $3, $5, r.watermark, pg_catalog.array_agg(p.partition ORDER BY p.partition),"
		" pg_catalog.array_agg(p.next_offset ORDER BY p.partition),"
		" pg_catalog.array_agg(CASE WHEN p.max_event_time < '4714-11-24 00:00:00+00 BC'::timestamptz"
		"  + $6 * '1 microsecond'::interval THEN '-infinity'"
		"  ELSE p.max_event_time - $6 * '1 microsecond'::interval END ORDER BY p.partition),"
		" pg_catalog.array_agg(p.idle ORDER BY p.partition)"
		" FROM stream_engine.reader r JOIN stream_engine.reader_partition p ON p.reader = r.id"
		" WHERE r.id = $2 GROUP BY r.watermark"
	};
	static const int results[] = {
		SPI_OK_INSERT, SPI_OK_INSERT, SPI_OK_UPDATE, SPI_OK_UPDATE, SPI_OK_DELETE, SPI_OK_DELETE,
		SPI_OK_UPDATE, SPI_OK_UPDATE, SPI_OK_INSERT
	};
	Oid			types[6] = {INT4OID, INT4OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID};
	Datum		values[6];

	values[0] = Int32GetDatum(reader->def->id);
	values[1] = Int32GetDatum(reader->merge->target);
	values[2] = Int64GetDatum(seq);
	values[3] = TimestampTzGetDatum(watermark);
	/* rows of the ledger are told apart by it: our commit has a row as well */
	values[4] = TimestampTzGetDatum(now + 1);
	values[5] = Int64GetDatum(reader->stream->options.watermark_delay);
	for (int i = 0; i < lengthof(steps); i++)
	{
		SE_FAILPOINT("merge.step");
		se_spi(steps[i], 6, types, values, NULL, results[i]);
	}
}

bool
se_merge_apply(Reader *reader, TimestampTz watermark, TimestampTz now)
{
	int64		seq;

	if (!se_merge_wants_commit(reader))
		return false;
	reader->merge->tried_seq = reader->merge->seq;
	SE_FAILPOINT("merge.before_lock");
	if (!lock_target(reader, watermark))
		return false;
	SE_FAILPOINT("merge.after_lock");
	seq = Max(reader->merge->seq, reader->def->seq + 1) + 1;
	move_queries(reader, seq, watermark, now);
	SE_FAILPOINT("merge.before_commit");
	se_wake_at_commit();
	return true;
}

void
se_merge_done(const Reader *reader)
{
	ereport(LOG,
			(errmsg("reader %d of stream %s has handed its queries over to reader %d",
					reader->def->id, reader->stream->name, reader->merge->target)));
}
