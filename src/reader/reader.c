/*
 * reader.c
 *	  The worker of a reader: load the definition, wait, drain, commit.
 *
 * NOTES
 *	  The loop waits for the source's descriptor, the latch, or the next deadline
 *	  (commit, idle partition).  It commits at once when the watermark has passed
 *	  the end of an open window, at most every CATCH_UP_COMMIT_MS while it is
 *	  behind; otherwise after an interval that grows with the state log's rate,
 *	  and that is stretched a little when a window is about to close.  While a large
 *	  window is being emitted (closing.c) commits follow each other, with as much time
 *	  for reading in between as they take.
 *
 *	  Errors have three destinations.  What user code or the result table raises
 *	  for a query sets that query aside (state error, with position and hint) and
 *	  the others go on.  What the source raises while it is asked something is
 *	  shown and tried again, for ever.  All else ends the process, and the
 *	  manager starts it again later; committed state is never in danger.  When it is a
 *	  query's work that this happens in again and again, that query goes on alone (aside.c).
 *
 *	  A session that changes a definition raises the reader's generation and wakes
 *	  us; the fence in the commit notices it even when the wake-up is lost.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "rewrite/rewriteHandler.h"
#include "storage/ipc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog/ddl.h"
#include "compat/compat.h"
#include "engine/engine.h"
#include "global.h"
#include "key_size.h"
#include "merge.h"
#include "reader.h"

#define CATCH_UP_COMMIT_MS 100
#define SESSION_COMMIT_MS 20
#define QUIET_MS 1000
#define DISCOVER_INTERVAL_MS 30000
#define DISCOVER_TABLE_INTERVAL_MS 1000
#define VERIFY_INTERVAL_MS 250
#define HOUSEKEEPING_MS 1000
#define ASK_TIMEOUT_MS 5000
#define IDLE_WAIT_MS 5000
#define CHECK_DEFINITION_MS 200
#define MAX_BACKOFF_MS 30000

/* Failures in a row after which a query that is blamed gets a reader of its own. */
#define ISOLATE_ATTEMPTS 2

/* The same, when its result table has been locked for so long. */
#define ISOLATE_LOCKED_MS 2000

/* A cycle is committed early when its memtables and rows are this large. */
#define CYCLE_MEMORY (64 * 1024 * 1024)

/*
 * And when so many late and bad records wait to be written: a commit holds the stream locked, and
 * who wants to drop or alter it waits.
 */
#define CYCLE_SIDE_ROWS 10000

typedef enum Outcome
{
	OUTCOME_LEAVE,
	OUTCOME_RELOAD
} Outcome;

static int32 my_reader;

/* The last commit that closed windows. */
static TimestampTz last_close = 0;

/* The source refused the login when it was last asked; and how long was waited then. */
static bool login_refused;
static long login_backoff;

/* ---- errors ---- */

static int
blamed_row(void)
{
	return se_eval_error_row >= 0 ? se_eval_error_row : se_state_error_row;
}

static void
error_context(void *arg)
{
	Reader	   *reader = se_current_reader;

	if (reader == NULL || reader->stream == NULL)
		return;
	if (se_blame.query != NULL)
		errcontext("query %s", se_blame.query->def->name);
	if (se_blame.records != NULL && blamed_row() >= 0)
		errcontext("stream %s, partition %d, offset %lld", reader->stream->name,
				   se_blame.records[blamed_row()].partition,
				   (long long) se_blame.records[blamed_row()].offset);
	else
		errcontext("stream %s", reader->stream->name);
}

/* Whether an error is the doing of a query, so that trying again is in vain. */
static bool
is_querys_fault(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_CONNECTION_EXCEPTION:
		case ERRCODE_INTERNAL_ERROR:
			return false;
	}
	return sqlstate != ERRCODE_LOCK_NOT_AVAILABLE && sqlstate != ERRCODE_DATA_CORRUPTED;
}

/* ---- the source ---- */

/*
 * Whether it is the source that an error is about, so that it may go by itself.  Topics that are
 * not there or not granted are undefined objects and a lack of privilege.
 */
static bool
is_of_source(int sqlstate)
{
	switch (sqlstate)
	{
		case ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION:
		case ERRCODE_INSUFFICIENT_PRIVILEGE:
		case ERRCODE_UNDEFINED_OBJECT:
			return true;
		default:
			return ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_CONNECTION_EXCEPTION ||
				ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_FDW_ERROR;
	}
}

/*
 * Ask for partitions, in a transaction of its own.  An error of the source is
 * shown, and false returned; others are raised.
 */
static bool
try_discover(Reader *reader, bool *grown)
{
	MemoryContext old = CurrentMemoryContext;
	volatile bool answered = false;

	PG_TRY();
	{
		if (se_worker_begin())
		{
			PushActiveSnapshot(GetTransactionSnapshot());
			MemoryContextSwitchTo(reader->cycle);
			*grown = se_partitions_discover(reader, ASK_TIMEOUT_MS);
			PopActiveSnapshot();
			MemoryContextSwitchTo(old);
			se_worker_commit();
			answered = true;
			login_refused = false;
		}
	}
	PG_CATCH();
	{
		char	   *text;
		ErrorData  *error;

		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		login_refused = error->sqlerrcode == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
		if (!is_of_source(error->sqlerrcode))
			PG_RE_THROW();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(old);
		/* the detail is what tells one cause from another */
		text = error->detail ? psprintf("%s: %s", error->message, error->detail) :
			pstrdup(error->message);
		if (se_worker_message(text))
			ereport(LOG,
					(errmsg("stream %s waits for its source: %s", reader->stream->name,
							error->message),
					 error->detail ? errdetail_internal("%s", error->detail) : 0,
					 error->hint ? errhint("%s", error->hint) : 0));
		pfree(text);
		FreeErrorData(error);
	}
	PG_END_TRY();
	return answered;
}

/*
 * Begin to read where the partitions stand; new ones are committed first, see
 * se_partitions_discover.  False: read the definition again.
 */
static bool
assign_partitions(Reader *reader, bool grown)
{
	if (grown && !se_reader_commit(reader))
		return false;
	se_partitions_assign(reader);
	return true;
}

/*
 * Wait until the source has told its partitions.  False: leave, or open it again,
 * with the password that a file may hold by now.
 */
static bool
open_source(Reader *reader)
{
	long		backoff = login_refused ? Min(login_backoff * 2, MAX_BACKOFF_MS) :
		se_retry_interval;
	bool		grown;

	while (!try_discover(reader, &grown))
	{
		se_worker_phase(SE_PHASE_BACKOFF);
		se_worker_wait(-1, backoff);
		login_backoff = backoff;
		if (se_worker_must_stop() || se_relations_changed || login_refused)
			return false;
		backoff = Min(backoff * 2, MAX_BACKOFF_MS);
	}
	se_worker_message("");
	return assign_partitions(reader, grown);
}

/* All records of a partition before "offset" have come. */
static void
pass_gap(Reader *reader, ReaderPartition *partition, int64 offset)
{
	int64		end = se_merge_clip_end(reader, partition->partition, offset);

	if (end <= partition->next_offset)
		return;
	partition->delta.gaps += end - partition->next_offset;
	partition->next_offset = end;
	partition->dirty = true;
	reader->dirty = true;
}

static void
handle_event(Reader *reader, const SeSourceEvent *event)
{
	switch (event->kind)
	{
		case SE_EVENT_EOF:
			{
				ReaderPartition *partition = &reader->partitions[event->partition];

				pass_gap(reader, partition, event->offset);
				partition->caught_up = partition->next_offset >= event->offset;
				/* the source answers again */
				if (se_my_slot->message[0] != '\0')
					se_worker_message("");
				break;
			}
		case SE_EVENT_OFFSET_LOST:
			se_partition_problem(reader, event->partition, event->message);
			break;
		case SE_EVENT_FATAL:
			ereport(ERROR,
					(errcode(event->sqlstate),
					 errmsg("%s", event->message),
					 event->hint[0] ? errhint("%s", event->hint) : 0));
			break;
		case SE_EVENT_DATA:
			/* skip() steps over it from where it is; not if what lies before comes again */
			if (!reader->assign_wanted)
			{
				pass_gap(reader, &reader->partitions[event->partition], event->offset);
				reader->commit_wanted = true;
			}
			se_partition_problem(reader, event->partition, event->message);
			break;
		case SE_EVENT_TRANSIENT:
		case SE_EVENT_CONFIG:
			if (se_worker_message(event->message))
				ereport(LOG,
						(errmsg("stream %s: %s", reader->stream->name, event->message),
						 event->hint[0] ? errhint("%s", event->hint) : 0));
			/* what it logs in with may have been changed, in a file even */
			if (event->sqlstate == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION)
				se_relations_changed = true;
			break;
	}
}

/* ---- when to commit ---- */

static bool
catching_up(const Reader *reader)
{
	for (int i = 0; i < reader->npartitions; i++)
		if (!reader->partitions[i].caught_up && !reader->partitions[i].lost)
			return true;
	return false;
}

/*
 * Whether there are records that we know of and have not read.  While they keep
 * coming the end of a partition is not told, but we may be there.
 */
static bool
behind(const Reader *reader)
{
	for (int i = 0; i < reader->npartitions; i++)
	{
		const ReaderPartition *partition = &reader->partitions[i];
		int64		high;

		if (partition->caught_up || partition->lost)
			continue;
		high = reader->routine->cached_high(reader->source, i);
		if (high < 0 || partition->next_offset < high)
			return true;
	}
	return false;
}

/* W as it would be committed now. */
static TimestampTz
current_watermark(Reader *reader, TimestampTz now)
{
	bool		idle[1024];
	bool	   *flags = idle;
	TimestampTz watermark;

	if (reader->npartitions > (int) lengthof(idle))
		flags = palloc(sizeof(bool) * reader->npartitions);
	watermark = se_reader_watermark(reader, now, flags);
	if (flags != idle)
		pfree(flags);
	return watermark;
}

/* Microseconds between commits that sessions' ends ask for, at least. */
static int64
session_interval(const Reader *reader)
{
	int64		interval = SESSION_COMMIT_MS * 1000;

	for (int i = 0; i < reader->nqueries; i++)
		interval = Max(interval, reader->queries[i].session_rest);
	return interval;
}

/* Whether a commit now would close a window; with "soon" also within session_interval. */
static bool
can_close(Reader *reader, TimestampTz now, bool soon)
{
	TimestampTz watermark = current_watermark(reader, now);

	for (int i = 0; i < reader->nqueries; i++)
	{
		/* sessions of many keys end all the time */
		if (reader->queries[i].plan->window.kind == SE_WINDOW_SESSION && !soon &&
			now - reader->last_commit < session_interval(reader))
			continue;
		if (reader->queries[i].next_close <= watermark)
			return true;
	}
	return false;
}

/* From when on a commit may be made because it closes windows: they come thick in old records. */
static TimestampTz
close_allowed(const Reader *reader)
{
	return behind(reader) ? last_close + CATCH_UP_COMMIT_MS * 1000 : DT_NOBEGIN;
}

/* Whether a window will close within "span" if W moves on as the clock does. */
static bool
will_close(Reader *reader, TimestampTz now, int64 span)
{
	TimestampTz watermark = current_watermark(reader, now);

	if (TIMESTAMP_NOT_FINITE(watermark))
		return false;
	for (int i = 0; i < reader->nqueries; i++)
		if (reader->queries[i].next_close <= watermark + span)
			return true;
	return false;
}

static Size
cycle_memory(const Reader *reader)
{
	Size		bytes = se_pending_memory(reader->pending);

	for (int q = 0; q < reader->nqueries; q++)
	{
		HASH_SEQ_STATUS status;
		OpenSlice  *slice;

		hash_seq_init(&status, reader->queries[q].slices);
		while ((slice = hash_seq_search(&status)) != NULL)
			if (slice->table != NULL)
				bytes += se_memtable_memory(slice->table);
	}
	return bytes;
}

/* W may have moved without a record. */
static bool
watermark_due(const Reader *reader, TimestampTz now)
{
	return se_partitions_next_move(reader) <= now;
}

/*
 * Microseconds between commits that no window asks for: so long that the state log
 * keeps to its rate, judged by the last commit.
 */
static int64
commit_interval(const Reader *reader)
{
	int64		interval = (int64) se_commit_interval * 1000;
	int64		wanted = 0;

	if (se_state_log_rate > 0)
		wanted = (int64) ((double) reader->commit_bytes * USECS_PER_SEC /
						  ((double) se_state_log_rate * 1024));
	wanted = Min(wanted, (int64) se_max_commit_interval * 1000);
	return Max(interval, wanted);
}

/*
 * When what was read is committed though no window asks for it.  A window that is about
 * to close is waited for: its rows would have to wait for this commit's end.
 */
static TimestampTz
interval_due(Reader *reader, TimestampTz now)
{
	int64		interval = commit_interval(reader);
	TimestampTz due = Max(reader->last_commit, reader->cycle_began) + interval;
	TimestampTz latest = due + interval / 8;

	return due <= now && now < latest && will_close(reader, now, latest - now) ? latest : due;
}

/* When windows that wait want a commit, see closing.c. */
static TimestampTz
closing_due(Reader *reader, TimestampTz now)
{
	return se_closing_due(reader, behind(reader), current_watermark(reader, now));
}

/*
 * When the next interval trigger fires, or changes are to be emitted; DT_NOEND if
 * there is nothing to emit.
 */
static TimestampTz
trigger_due(const Reader *reader)
{
	TimestampTz due = DT_NOEND;

	for (int i = 0; i < reader->nqueries; i++)
	{
		if (reader->queries[i].plan->window.kind == SE_WINDOW_GLOBAL &&
			hash_get_num_entries(reader->queries[i].slices) > 0)
			due = Min(due, se_global_due(&reader->queries[i]));
		due = Min(due, se_changes_due(&reader->queries[i]));
	}
	return due;
}

/*
 * Whether a commit that has nothing to write would make reading the open windows cheaper, for
 * sessions that do: it brings their state back into memory, and folds it.  Only when
 * nothing has come for a while, as other commits do that by the way, or will soon
 * undo it.
 */
static bool
quiet_commit_due(Reader *reader, TimestampTz now)
{
	bool		result = false;

	if (now < reader->last_commit + QUIET_MS * 1000)
		return false;
	for (int q = 0; q < reader->nqueries; q++)
	{
		ReaderQuery *query = &reader->queries[q];
		bool		unfolded;

		result |= se_state_log_asked(query->def->id, &unfolded);
		if (unfolded && !se_query_emits_changes(query))
			reader->quiet = result = true;
	}
	return result;
}

static bool
commit_due(Reader *reader, TimestampTz now)
{
	if (reader->commit_wanted || watermark_due(reader, now) || trigger_due(reader) <= now ||
		se_merge_wants_commit(reader) || closing_due(reader, now) <= now)
		return true;
	if (!reader->dirty)
		return quiet_commit_due(reader, now);
	if (reader->pause_wanted || interval_due(reader, now) <= now ||
		se_closing_fold_due(reader, behind(reader), current_watermark(reader, now)))
		return true;
	if (cycle_memory(reader) > CYCLE_MEMORY || se_pending_rows(reader->pending) >= CYCLE_SIDE_ROWS)
		return true;
	if (pg_atomic_read_u32(&se_shared->waiters) > 0 && !catching_up(reader))
		return true;
	return can_close(reader, now, false) && close_allowed(reader) <= now;
}

/* ---- the loop ---- */

/*
 * Whether the reader's row still says what we loaded.  What sessions have left
 * there for the next commit is noticed.
 */
static bool
definition_is_current(Reader *reader)
{
	SeCatalogScope scope;
	Oid			type = INT4OID;
	Datum		key = Int32GetDatum(reader->def->id);
	bool		isnull;
	bool		result;

	if (!se_worker_begin())
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	se_catalog_begin(&scope);
	result = se_spi("SELECT r.generation, r.advance_to IS NOT NULL, EXISTS"
					" (SELECT FROM stream_engine.replay p WHERE p.reader = r.id)"
					" FROM stream_engine.reader r"
					" JOIN stream_engine.stream s ON s.id = r.stream"
					" WHERE r.id = $1 AND s.state = 'running'", 1, &type, &key, NULL,
					SPI_OK_SELECT) == 1 &&
		DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)) ==
		reader->def->generation;
	if (result)
	{
		reader->commit_wanted |= DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0],
															SPI_tuptable->tupdesc, 2, &isnull));
		reader->replay_wanted = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0],
														   SPI_tuptable->tupdesc, 3, &isnull));
	}
	se_catalog_end(&scope);
	PopActiveSnapshot();
	se_worker_commit();
	return result && !se_relations_changed;
}

static uint64
batch_bytes(const SeSourceBatch *batch)
{
	uint64		bytes = 0;

	for (int i = 0; i < batch->nrecords; i++)
		bytes += Max(batch->records[i].payload_len, 0) + Max(batch->records[i].key_len, 0);
	return bytes;
}

/* False also when the stream has changed and nothing is lost by reading it again. */
static bool
begin_cycle(Reader *reader)
{
	if (!se_cycle_begin(reader))
		return false;
	return !se_stream_changed || reader->dirty;
}

/*
 * Process the records that wait in table replay, behind a check that the stream
 * is as we know it.  Nothing may be in flight.  False: read the definition again.
 */
static bool
replay(Reader *reader)
{
	bool	   *caught_up = MemoryContextAlloc(reader->context,
											   sizeof(bool) * Max(reader->npartitions, 1));

	for (int i = 0; i < reader->npartitions; i++)
		caught_up[i] = reader->partitions[i].caught_up;
	se_cycle_end_empty(reader);
	for (;;)
	{
		if (!begin_cycle(reader))
			return false;
		if (!se_replay_run(reader))
			break;
		if (!se_reader_commit(reader))
			return false;
		/* nothing was read, and the source does not tell a second time */
		for (int i = 0; i < reader->npartitions; i++)
			reader->partitions[i].caught_up = caught_up[i];
	}
	pfree(caught_up);
	reader->replay_wanted = false;
	return true;
}

/*
 * Take what the source has, committing whenever it is due.  *more tells that
 * there may be more, but that it is time to look around.  False: leave or read
 * the definition again.
 */
static bool
drain(Reader *reader, bool *more)
{
	TimestampTz began = GetCurrentTimestamp();

	*more = false;
	for (;;)
	{
		SeSourceBatch *fetched = reader->fetched;
		int			nrecords;
		bool		got;

		if (reader->merge != NULL && !se_merge_may_read(reader))
			break;
		if (reader->replay_wanted && !reader->dirty && !replay(reader))
			return false;
		if (reader->source_in_transaction)
		{
			if (!begin_cycle(reader))
				return false;
			PushActiveSnapshot(GetTransactionSnapshot());
		}
		reader->routine->fetch(reader->source, fetched, SE_BATCH_MAX);
		if (reader->source_in_transaction)
			PopActiveSnapshot();
		got = fetched->nrecords > 0;
		se_partitions_check(reader, fetched);
		nrecords = reader->merge ? se_merge_clip(reader, fetched) : fetched->nrecords;
		if (nrecords > 0)
		{
			se_worker_phase(SE_PHASE_READING);
			if (!begin_cycle(reader))
				return false;
			for (int done = 0;;)
			{
				done += se_process_batch(reader, fetched->records + done, nrecords - done);
				if (done == nrecords || reader->pause_wanted)
					break;
				/* a session that has ended must be emitted before the next record */
				if (!se_reader_commit(reader) || !se_cycle_begin(reader))
					return false;
			}
			pg_atomic_fetch_add_u64(&se_my_slot->records, nrecords);
			pg_atomic_fetch_add_u64(&se_my_slot->bytes, batch_bytes(fetched));
			pg_atomic_write_u64(&se_my_slot->last_record, (uint64) GetCurrentTimestamp());
			if (se_my_slot->message[0] != '\0')
				se_worker_message("");
		}
		if (nrecords < fetched->nrecords && !reader->pause_wanted)
			se_merge_pass(reader, fetched, nrecords);
		/* an end lies behind records that are not taken when the stream stops */
		if (reader->pause_wanted)
			fetched->nevents = 0;
		for (int i = 0; i < fetched->nevents; i++)
			if (fetched->events[i].kind == SE_EVENT_EOF)
				handle_event(reader, &fetched->events[i]);
		if (fetched->nevents > 0)
		{
			/* others may need a transaction of their own */
			for (int i = 0; i < fetched->nevents; i++)
				if (fetched->events[i].kind != SE_EVENT_EOF)
				{
					if (reader->in_cycle && !reader->dirty)
						se_cycle_end_empty(reader);
					else if (reader->in_cycle && !se_reader_commit(reader))
						return false;
					handle_event(reader, &fetched->events[i]);
				}
		}
		reader->routine->release(reader->source, fetched);
		if (reader->assign_wanted)
			se_partitions_assign(reader);

		if (commit_due(reader, GetCurrentTimestamp()))
		{
			bool		closes = can_close(reader, GetCurrentTimestamp(), true);

			if (!se_reader_commit(reader))
				return false;
			reader->quiet = false;
			if (closes)
				last_close = reader->last_commit;
			if (reader->pause_wanted)
			{
				se_stream_stops(reader);
				return false;
			}
			/* windows that wait to be emitted must not become more and more */
			while (se_closing_presses(reader))
			{
				if (se_worker_must_stop() || !se_reader_commit(reader))
					return false;
			}
		}
		if (!got)
			break;
		if (!reader->dirty && GetCurrentTimestamp() - began >= HOUSEKEEPING_MS * 1000)
		{
			*more = true;
			break;
		}
		CHECK_FOR_INTERRUPTS();
		if (se_worker_must_stop())
			return false;
	}
	if (se_merge_wants_commit(reader) && !se_reader_commit(reader))
		return false;
	/* nothing was written by a cycle without staging: no reason to keep it open */
	if (reader->in_cycle && reader->staging == NULL)
		se_cycle_end_empty(reader);
	return true;
}

static long
next_timeout(Reader *reader, TimestampTz now, int poll_ms)
{
	TimestampTz deadline = now + (int64) IDLE_WAIT_MS * 1000;

	if (reader->dirty)
	{
		deadline = Min(deadline, interval_due(reader, now));
		if (can_close(reader, now, false))
			deadline = Min(deadline, close_allowed(reader));
		else if (can_close(reader, now, true))
			deadline = Min(deadline, Max(reader->last_commit + session_interval(reader),
										 close_allowed(reader)));
	}
	else if (now < reader->last_commit + QUIET_MS * 1000)
		deadline = Min(deadline, reader->last_commit + QUIET_MS * 1000);
	deadline = Min(deadline, se_partitions_next_move(reader));
	deadline = Min(deadline, trigger_due(reader));
	deadline = Min(deadline, closing_due(reader, now));
	deadline = Min(deadline, se_merge_next_look(reader));
	if (reader->verifying)
		deadline = Min(deadline, now + VERIFY_INTERVAL_MS * 1000);
	if (poll_ms > 0)
		deadline = Min(deadline, now + (int64) poll_ms * 1000);
	if (deadline <= now || (reader->replay_wanted && !reader->dirty))
		return 0;
	return (long) ((deadline - now + 999) / 1000);
}

static Outcome
run_reader(Reader *reader)
{
	TimestampTz last_discover;
	TimestampTz last_check;
	int64		discover_interval;
	bool		check = true;	/* the definition, when it is time */
	bool		more = false;

	if (!open_source(reader) || !se_retry_records(reader))
		return OUTCOME_RELOAD;
	reader->last_commit = last_discover = GetCurrentTimestamp();
	last_check = 0;
	discover_interval = (reader->source_in_transaction ? DISCOVER_TABLE_INTERVAL_MS :
						 DISCOVER_INTERVAL_MS) * (int64) 1000;

	while (!se_worker_must_stop())
	{
		TimestampTz now = GetCurrentTimestamp();
		int			poll_ms = -1;
		int			fd = reader->routine->wait_fd(reader->source, &poll_ms);
		long		timeout;

		if (!reader->dirty && now - last_discover >=
			(reader->verifying ? VERIFY_INTERVAL_MS * (int64) 1000 : discover_interval))
		{
			bool		grown = false;

			se_cycle_end_empty(reader);
			if (try_discover(reader, &grown) && (grown || reader->assign_wanted) &&
				!assign_partitions(reader, grown))
				return OUTCOME_RELOAD;
			if (se_partitions_end_moved(reader))
				reader->commit_wanted = true;
			last_discover = now;
		}
		if (check && !reader->dirty && now >= last_check + CHECK_DEFINITION_MS * 1000)
		{
			se_cycle_end_empty(reader);
			if (!definition_is_current(reader))
				return OUTCOME_RELOAD;
			last_check = now;
			check = false;
		}
		if (reader->staging != NULL && !reader->in_cycle)
			se_staging_rotate(reader->staging, now);
		se_slot_is_well(se_my_slot, now);

		if (!reader->in_cycle)
			se_merge_look(reader, now);

		if (fd >= 0)
			reader->routine->drain_fd(reader->source);
		if (!drain(reader, &more))
			return OUTCOME_RELOAD;
		if (se_worker_must_stop())
			break;
		if (!reader->dirty)
			se_worker_phase(SE_PHASE_WAITING);
		now = GetCurrentTimestamp();
		timeout = more ? 0 : next_timeout(reader, now, poll_ms);
		if (check && !reader->dirty)
			timeout = Min(timeout, Max(CHECK_DEFINITION_MS - (now - last_check) / 1000, 0));
		if (!se_worker_wait(fd, timeout) || more || se_relations_changed)
			check = true;
	}
	return OUTCOME_LEAVE;
}

/* Messages of librdkafka must be given back before the process goes. */
static void
close_at_exit(int code, Datum arg)
{
	if (se_current_reader != NULL && se_current_reader->source != NULL)
	{
		SeSource   *source = se_current_reader->source;

		se_current_reader->source = NULL;
		se_current_reader->routine->close(source);
	}
}

/*
 * One life of the definition.  An error that is a query's fault is taken care of
 * here; others are raised.
 */
static Outcome
one_life(void)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "stream_engine reader",
												  ALLOCSET_DEFAULT_SIZES);
	ErrorContextCallback callback;
	volatile Outcome outcome = OUTCOME_LEAVE;

	callback.callback = error_context;
	callback.arg = NULL;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	se_state_log_detach();
	PG_TRY();
	{
		Reader	   *reader = se_reader_prepare(my_reader, context);

		if (reader != NULL)
			outcome = run_reader(reader);
	}
	PG_CATCH();
	{
		ErrorData  *error;
		ReaderQuery *culprit = se_blame.query ? se_blame.query : se_loading_query;
		int			row = blamed_row();
		int32		partition = -1;
		int64		offset = -1;
		int32		query;
		int64		generation;
		bool		faulty;

		if (se_blame.query != NULL && se_blame.records != NULL && row >= 0)
		{
			partition = se_blame.records[row].partition;
			offset = se_blame.records[row].offset;
		}
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		faulty = culprit != NULL && is_querys_fault(error->sqlerrcode);
		if (culprit == NULL || (!faulty && se_my_slot->attempts < ISOLATE_ATTEMPTS))
		{
			error_context_stack = callback.previous;
			PG_RE_THROW();
		}
		EmitErrorReport();
		FlushErrorState();
		query = culprit->def->id;
		generation = se_current_reader->def->generation;
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(context);
		se_blame.query = NULL;
		se_blame.records = NULL;
		se_loading_query = NULL;
		/* of a definition that is not in force any more nothing follows: the owner, say */
		if (faulty && !se_relations_changed)
			se_query_fails(my_reader, generation, query, error, partition, offset);
		if (!faulty && !se_query_isolate(query))
		{
			error_context_stack = callback.previous;
			ReThrowError(error);
		}
		outcome = OUTCOME_RELOAD;
	}
	PG_END_TRY();

	error_context_stack = callback.previous;
	if (se_current_reader != NULL && se_current_reader->in_cycle)
		AbortOutOfAnyTransaction();
	/* the next source's descriptor may get the same number, and would not be waited for */
	se_worker_forget_fd();
	close_at_exit(0, (Datum) 0);
	se_current_reader = NULL;
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextDelete(context);
	return outcome;
}

static void
reader_loop(void)
{
	TimestampTz waits_since = 0;

	while (!se_worker_must_stop())
	{
		int32		kept_out;

		if (!se_definition_is_settled(my_reader, &kept_out))
		{
			TimestampTz now = GetCurrentTimestamp();

			/* others do not wait for a table that somebody has locked */
			if (kept_out == 0 || waits_since == 0)
				waits_since = now;
			else if (now - waits_since >= ISOLATE_LOCKED_MS * 1000 && se_query_isolate(kept_out))
				continue;
			(void) se_worker_wait(-1, CHECK_DEFINITION_MS);
			continue;
		}
		waits_since = 0;
		if (one_life() == OUTCOME_LEAVE)
			break;
	}
}

/* Where the source is, or how to log in there, may have changed. */
static void
options_invalidated(Datum arg, int cacheid, uint32 hash)
{
	if (se_current_reader != NULL)
		se_relations_changed = true;
}

void
se_reader_main(Datum main_arg)
{
	SeSlot	   *slot = se_worker_attach(main_arg, SE_SLOT_READER);

	my_reader = slot->reader;
	on_proc_exit(close_at_exit, (Datum) 0);
	CacheRegisterRelcacheCallback(se_relation_invalidated, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, options_invalidated, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, options_invalidated, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, se_object_invalidated, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, se_object_invalidated, (Datum) 0);
	se_worker_run(reader_loop);
}
