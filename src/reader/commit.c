/*
 * commit.c
 *	  The cycle's transaction: its beginning, and the commit of everything.
 *
 * NOTES
 *	  In one transaction: the fence (compare-and-set of generation and seq on the
 *	  reader's row), late records and dead letters, result rows, window state,
 *	  positions, watermarks, counters, the ledger.  The fence comes first: a
 *	  reader whose row another process has moved (or a session has marked, by
 *	  raising the generation, to have it read its definition again) gets no
 *	  further and throws its cycle away.
 *
 *	  Row locks are taken in the same order by all: reader, side outputs, results,
 *	  partitions, queries.  A reader never waits for its own row, because it has
 *	  the stream locked, which a session that has changed the row may want next
 *	  (BEGIN; pause; DROP): a row that is locked counts as one that has moved.
 *	  Nor does it wait long for a result table.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog/ddl.h"
#include "engine/engine.h"
#include "global.h"
#include "merge.h"
#include "reader.h"
#include "session.h"

/* Old ledger rows are looked for once in so many commits. */
#define LEDGER_PRUNE_COMMITS 512

/* How a result table is waited for while the stream is locked. */
#define LOCK_ATTEMPTS 30
#define LOCK_RETRY_MS 10

/* The same for the reader's row, which a move of chunks holds for some ten milliseconds. */
#define FENCE_ATTEMPTS 10

/*
 * Open the cycle's transaction if it is not open.  False: the extension or the
 * stream is gone and the worker must leave; no transaction is open then.
 *
 * The stream is locked before any row is, as DROP does it.
 */
bool
se_cycle_begin(Reader *reader)
{
	if (reader->in_cycle)
		return true;
	if (!se_worker_begin())
		return false;
	LockRelationOid(reader->stream->relid, AccessShareLock);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(reader->stream->relid)))
	{
		AbortCurrentTransaction();
		return false;
	}
	reader->in_cycle = true;
	if (!reader->dirty)
		reader->cycle_began = GetCurrentTimestamp();
	return true;
}

/* End a cycle that has nothing to commit. */
void
se_cycle_end_empty(Reader *reader)
{
	if (!reader->in_cycle)
		return;
	se_worker_commit();
	reader->in_cycle = false;
}

static SPIPlanPtr
keep_plan(const char *sql, int nargs, Oid *types)
{
	SPIPlanPtr	plan = SPI_prepare(sql, nargs, types);

	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	return plan;
}

static void
run_plan(SPIPlanPtr plan, Datum *values, const char *nulls, int expected)
{
	int			result = SPI_execute_plan(plan, values, nulls, false, 0);

	if (result != expected)
		elog(ERROR, "a statement of the commit returned %s", SPI_result_code_string(result));
}

static void
wait_for_lock(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOCK_RETRY_MS,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Whether the row is what it was, as far as is committed. */
static bool
row_is_ours(Datum *values)
{
	Oid			types[] = {INT4OID, INT8OID, INT8OID};

	return se_spi("SELECT FROM stream_engine.reader WHERE id = $1 AND generation = $2 AND seq = $3",
				  lengthof(types), types, values, NULL, SPI_OK_SELECT) == 1;
}

/*
 * The fence.  False: somebody else has the reader, or its definition has changed, or
 * somebody who holds the row is about to change it; he may want what we have locked.
 * *watermark is raised to what advance_watermark() has asked for, and notice is
 * taken of records that wait to be processed again.
 */
static bool
advance_reader(Reader *reader, TimestampTz *watermark, TimestampTz now)
{
	static SPIPlanPtr plan = NULL;
	Datum		values[5];
	bool		isnull;

	if (plan == NULL)
	{
		Oid			types[] = {INT4OID, INT8OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID};

		plan = keep_plan("UPDATE stream_engine.reader SET seq = $3 + 1,"
						 " watermark = GREATEST($4, advance_to), promise = GREATEST($4, advance_to),"
						 " advance_to = NULL, committed_at = $5"
						 " WHERE id = (SELECT id FROM stream_engine.reader WHERE id = $1"
						 " AND generation = $2 AND seq = $3 FOR NO KEY UPDATE SKIP LOCKED)"
						 " RETURNING watermark,"
						 " EXISTS (SELECT FROM stream_engine.replay p WHERE p.reader = $1)",
						 lengthof(types), types);
	}
	values[0] = Int32GetDatum(reader->def->id);
	values[1] = Int64GetDatum(reader->def->generation);
	values[2] = Int64GetDatum(reader->def->seq);
	values[3] = TimestampTzGetDatum(*watermark);
	values[4] = TimestampTzGetDatum(now);
	for (int attempts = FENCE_ATTEMPTS;;)
	{
		run_plan(plan, values, NULL, SPI_OK_UPDATE_RETURNING);
		if (SPI_processed == 1)
			break;
		if (--attempts == 0 || !row_is_ours(values))
			return false;
		wait_for_lock();
	}
	*watermark = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
												   &isnull));
	reader->replay_wanted = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
													   2, &isnull));
	return true;
}

/* What has been emitted before complete_from rose in this cycle; that is rare. */
static void
store_emitted(const ReaderQuery *query)
{
	const SeQueryDef *def = query->def;
	Oid			types[] = {INT4OID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID};
	Datum		values[3];
	Datum	   *bounds;

	if (def->nemitted == query->nemitted_stored)
		return;
	bounds = palloc(sizeof(Datum) * def->nemitted);
	values[0] = Int32GetDatum(def->id);
	for (int i = 0; i < def->nemitted; i++)
		bounds[i] = TimestampTzGetDatum(def->emitted[i].from);
	values[1] = PointerGetDatum(construct_array(bounds, def->nemitted, TIMESTAMPTZOID, 8, true,
												TYPALIGN_DOUBLE));
	for (int i = 0; i < def->nemitted; i++)
		bounds[i] = TimestampTzGetDatum(def->emitted[i].through);
	values[2] = PointerGetDatum(construct_array(bounds, def->nemitted, TIMESTAMPTZOID, 8, true,
												TYPALIGN_DOUBLE));
	se_spi("UPDATE stream_engine.query_progress SET emitted_from = $2, emitted_through = $3"
		   " WHERE query = $1", lengthof(types), types, values, NULL, SPI_OK_UPDATE);
}

static void
store_query(Reader *reader, ReaderQuery *query, TimestampTz watermark, TimestampTz now)
{
	static SPIPlanPtr progress = NULL;
	static SPIPlanPtr counters = NULL;
	Datum		values[10];
	char		nulls[] = "          ";

	if (progress == NULL)
	{
		Oid			types[] = {INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID,
		TIMESTAMPTZOID, INT8OID, INT8OID, TIMESTAMPTZOID};
		Oid			counter_types[] = {INT4OID, INT4OID, INT8OID, INT8OID, INT8OID, INT8OID,
		INT8OID, INT8OID};

		progress = keep_plan("UPDATE stream_engine.query_progress SET closed_through = $2,"
							 " complete_from = $3, windows_closed = windows_closed + $4,"
							 " windows_incomplete = windows_incomplete + $5, rows_out = rows_out + $6,"
							 " emitted_at = COALESCE($7, emitted_at), state_stamp = $8,"
							 " changes_seq = $9, changes_at = $10"
							 " WHERE query = $1", lengthof(types), types);
		counters = keep_plan("INSERT INTO stream_engine.query_partition AS p"
							 " (query, partition, counted, filtered, late, late_assignments,"
							 " before_start, failed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
							 " ON CONFLICT (query, partition) DO UPDATE SET"
							 " counted = p.counted + $3, filtered = p.filtered + $4,"
							 " late = p.late + $5, late_assignments = p.late_assignments + $6,"
							 " before_start = p.before_start + $7, failed = p.failed + $8",
							 lengthof(counter_types), counter_types);
	}
	for (int i = 0; i < reader->npartitions; i++)
	{
		QueryCounters *delta = &query->counters[i];

		if (!delta->dirty)
			continue;
		values[0] = Int32GetDatum(query->def->id);
		values[1] = Int32GetDatum(i);
		values[2] = Int64GetDatum(delta->counted);
		values[3] = Int64GetDatum(delta->filtered);
		values[4] = Int64GetDatum(delta->late);
		values[5] = Int64GetDatum(delta->late_assignments);
		values[6] = Int64GetDatum(delta->before_start);
		values[7] = Int64GetDatum(delta->failed);
		run_plan(counters, values, NULL, SPI_OK_INSERT);
	}
	values[0] = Int32GetDatum(query->def->id);
	values[1] = TimestampTzGetDatum(watermark);
	values[2] = TimestampTzGetDatum(query->def->complete_from);
	values[3] = Int64GetDatum(query->windows_closed);
	values[4] = Int64GetDatum(query->windows_incomplete);
	values[5] = Int64GetDatum(query->rows_out);
	values[6] = TimestampTzGetDatum(now);
	if (query->rows_out == 0)
		nulls[6] = 'n';
	values[7] = Int64GetDatum((int64) se_query_stamp(query->plan, query->layout));
	values[8] = Int64GetDatum(query->changes_seq);
	values[9] = TimestampTzGetDatum(query->changes_at);
	if (query->changes_at == DT_NOBEGIN)
		nulls[9] = 'n';
	run_plan(progress, values, nulls, SPI_OK_UPDATE);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("query %s has been dropped", query->def->name)));
	store_emitted(query);
	se_closing_store(query);
}

static void
write_ledger(Reader *reader, TimestampTz watermark, const bool *idle, TimestampTz now)
{
	static SPIPlanPtr insert = NULL;
	static SPIPlanPtr prune = NULL;
	int			n = reader->npartitions;
	Datum	   *partitions = palloc(sizeof(Datum) * Max(n, 1));
	Datum	   *offsets = palloc(sizeof(Datum) * Max(n, 1));
	Datum	   *watermarks = palloc(sizeof(Datum) * Max(n, 1));
	Datum	   *flags = palloc(sizeof(Datum) * Max(n, 1));
	Datum		values[8];

	if (insert == NULL)
	{
		Oid			types[] = {INT4OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4ARRAYOID,
		INT8ARRAYOID, TIMESTAMPTZARRAYOID, BOOLARRAYOID};
		Oid			prune_types[] = {INT4OID, TIMESTAMPTZOID};

		insert = keep_plan("INSERT INTO stream_engine.ledger (reader, seq, committed_at, watermark,"
						   " partitions, next_offsets, watermarks, idle)"
						   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", lengthof(types), types);
		/* readers that have handed their queries over are kept for their ledger */
		prune = keep_plan("WITH absorbed AS (DELETE FROM stream_engine.reader r"
						  " USING stream_engine.reader o WHERE o.id = $1 AND r.stream = o.stream"
						  " AND r.absorbed_by IS NOT NULL AND r.committed_at < $2)"
						  " DELETE FROM stream_engine.ledger WHERE reader = $1 AND committed_at < $2",
						  lengthof(prune_types), prune_types);
	}
	for (int i = 0; i < n; i++)
	{
		partitions[i] = Int32GetDatum(i);
		offsets[i] = Int64GetDatum(reader->partitions[i].next_offset);
		watermarks[i] = TimestampTzGetDatum(se_partition_watermark(reader, &reader->partitions[i]));
		flags[i] = BoolGetDatum(idle[i]);
	}
	values[0] = Int32GetDatum(reader->def->id);
	values[1] = Int64GetDatum(reader->def->seq + 1);
	values[2] = TimestampTzGetDatum(now);
	values[3] = TimestampTzGetDatum(watermark);
	values[4] = PointerGetDatum(construct_array(partitions, n, INT4OID, 4, true, TYPALIGN_INT));
	values[5] = PointerGetDatum(construct_array(offsets, n, INT8OID, 8, true, TYPALIGN_DOUBLE));
	values[6] = PointerGetDatum(construct_array(watermarks, n, TIMESTAMPTZOID, 8, true,
												TYPALIGN_DOUBLE));
	values[7] = PointerGetDatum(construct_array(flags, n, BOOLOID, 1, true, TYPALIGN_CHAR));
	run_plan(insert, values, NULL, SPI_OK_INSERT);
	if ((reader->def->seq + 1) % LEDGER_PRUNE_COMMITS == 0)
	{
		values[0] = Int32GetDatum(reader->def->id);
		values[1] = TimestampTzGetDatum(now - (int64) se_ledger_retention * USECS_PER_SEC);
		run_plan(prune, values, NULL, SPI_OK_DELETE);
	}
}

/* Memory follows the transaction; cannot fail. */
static void
after_commit(Reader *reader, TimestampTz watermark, const bool *idle, TimestampTz now)
{
	int64		nrecords = 0;

	for (int i = 0; i < reader->npartitions; i++)
		nrecords += reader->partitions[i].delta.records;
	reader->def->seq++;
	se_partitions_committed(reader, watermark, idle);
	for (int q = 0; q < reader->nqueries; q++)
	{
		ReaderQuery *query = &reader->queries[q];

		query->closed_through = watermark;
		query->def->has_emitted |= query->windows_closed > 0;
		query->nemitted_stored = query->def->nemitted;
		query->windows_closed = query->windows_incomplete = query->rows_out = 0;
		memset(query->counters, 0, sizeof(QueryCounters) * reader->npartitions);
		se_query_next_close(query);
	}
	MemoryContextReset(reader->cycle);
	reader->pending = se_pending_create(reader->cycle);
	reader->in_cycle = false;
	reader->dirty = reader->commit_wanted = false;
	reader->verdicts_fresh = false;
	reader->last_commit = now;
	reader->commit_duration = GetCurrentTimestamp() - now;
	se_closing_committed(reader);
	pg_atomic_write_u64(&se_my_slot->last_commit, (uint64) now);
	pg_atomic_fetch_add_u64(&se_my_slot->commits, 1);
	se_progress_broadcast();
	se_commit_tell(reader, nrecords);
}

/*
 * Lock the result tables that this commit will write, before any row.  False: somebody
 * holds one for long.  He may want the stream next, so it must be let go of.
 */
static bool
lock_results(Reader *reader, TimestampTz watermark, TimestampTz now)
{
	for (int q = 0; q < reader->nqueries; q++)
	{
		int			attempts = LOCK_ATTEMPTS;

		if (!se_windows_emit(&reader->queries[q], watermark, now))
			continue;
		while (!ConditionalLockRelationOid(reader->queries[q].def->result, RowExclusiveLock))
		{
			if (--attempts == 0)
				return false;
			wait_for_lock();
		}
	}
	return true;
}

/*
 * Commit the cycle.  False: the reader's row has moved, the stream is gone, or the
 * queries have been handed over; the caller reads the definition again.  Raises
 * errors of emission and of the server; the cycle is lost then.
 */
bool
se_reader_commit(Reader *reader)
{
	SeCatalogScope scope;
	TimestampTz now;
	TimestampTz watermark;
	uint64		log_bytes = se_state_log_bytes;
	TimestampTz idle_close;
	bool		idle[1024];
	bool	   *flags = idle;
	bool		merged;

	if (!se_cycle_begin(reader))
		return false;
	se_worker_phase(SE_PHASE_COMMITTING);
	se_commit_step(SE_STEP_READING);
	if (reader->npartitions > (int) lengthof(idle))
		flags = MemoryContextAlloc(reader->cycle, sizeof(bool) * reader->npartitions);

	MemoryContextSwitchTo(reader->cycle);
	now = GetCurrentTimestamp();
	watermark = se_reader_watermark(reader, now, flags);
	PushActiveSnapshot(GetTransactionSnapshot());
	idle_close = se_partitions_idle_close(reader, now);
	watermark = Max(watermark, idle_close);
	if (!lock_results(reader, watermark, now))
	{
		PopActiveSnapshot();
		AbortCurrentTransaction();
		reader->in_cycle = false;
		return false;
	}
	se_catalog_begin(&scope);
	SE_FAILPOINT("commit.before_fence");
	/* the watermark may have become another one, which wants other tables */
	if (!advance_reader(reader, &watermark, now) || !lock_results(reader, watermark, now))
	{
		se_catalog_end(&scope);
		PopActiveSnapshot();
		AbortCurrentTransaction();
		reader->in_cycle = false;
		return false;
	}
	se_reader_commits(reader->def->id);
	SE_FAILPOINT("commit.after_fence");
	/* chunks of the log are moved under the lock that we have now: see them there */
	PopActiveSnapshot();
	PushActiveSnapshot(GetTransactionSnapshot());
	se_state_log_commit(reader->def->id, reader->def->generation, reader->def->seq + 1);
	se_commit_step(SE_STEP_LOCKS);

	/* deferred triggers may not fire inside a security-restricted operation */
	for (int q = 0; q < reader->nqueries; q++)
		if (se_windows_emit(&reader->queries[q], watermark, now))
		{
			if (SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0) != SPI_OK_UTILITY)
				elog(ERROR, "could not set constraints immediate");
			break;
		}

	/* late records of this cycle are judged already, so the order is free */
	se_pending_write(reader->pending, reader->stream->id, reader->def->id, now);
	SE_FAILPOINT("commit.after_side");
	se_catalog_end(&scope);

	se_commit_step(SE_STEP_SIDE);
	se_closing_begin(reader, watermark);
	for (int q = 0; q < reader->nqueries; q++)
	{
		ReaderQuery *query = &reader->queries[q];

		if (query->plan->window.kind == SE_WINDOW_SESSION)
		{
			se_session_commit(reader, query, watermark, now);
			se_commit_step(SE_STEP_WINDOWS);
			continue;
		}
		if (query->plan->window.kind == SE_WINDOW_GLOBAL)
		{
			se_global_commit(reader, query, watermark, now);
			se_commit_step(SE_STEP_WINDOWS);
			continue;
		}
		se_close_windows(reader, query, watermark, now);
		se_commit_step(SE_STEP_WINDOWS);
		SE_FAILPOINT("commit.before_chunks");
		se_blame.query = query;
		se_flush_slices(reader, query, watermark);
		se_blame.query = NULL;
		se_commit_step(SE_STEP_STATE);
	}
	SE_FAILPOINT("commit.after_chunks");

	se_catalog_begin(&scope);
	for (int i = 0; i < reader->npartitions; i++)
	{
		ReaderPartition *partition = &reader->partitions[i];
		int64		high;

		if (partition->idle != flags[i] || !partition->stored)
			partition->dirty = true;
		partition->idle = flags[i];
		high = reader->routine->cached_high(reader->source, i);
		if (high > partition->high_offset)
		{
			/* what it cannot read yet is lag, too */
			partition->high_offset = high;
			partition->dirty = true;
		}
	}
	se_partitions_commit(reader);
	SE_FAILPOINT("commit.after_offsets");
	for (int q = 0; q < reader->nqueries; q++)
		store_query(reader, &reader->queries[q], watermark, now);
	SE_FAILPOINT("commit.before_ledger");
	write_ledger(reader, watermark, flags, now);
	merged = se_merge_apply(reader, watermark, now);
	se_catalog_end(&scope);
	PopActiveSnapshot();
	se_commit_step(SE_STEP_PROGRESS);
	SE_FAILPOINT("commit.before_commit");
	se_worker_commit();
	se_commit_step(SE_STEP_COMMIT);
	SE_FAILPOINT("commit.after_commit");
	reader->commit_bytes = se_state_log_bytes - log_bytes;
	after_commit(reader, watermark, flags, now);
	if (merged)
		se_merge_done(reader);
	return !merged;
}
