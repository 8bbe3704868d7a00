/*-------------------------------------------------------------------------
 *
 * slots.c
 *	  Worker slots in shared memory
 *
 * NOTES
 *	  A slot stands for a wanted process: the launcher (slot 0), the manager of a
 *	  database, a reader.  Its states:
 *
 *		free      -> starting	se_slot_take, by the supervisor (launcher, manager)
 *		exited    -> starting	the same: a restart keeps the slot, with the record
 *								of how its last processes ended
 *		starting  -> running	se_slot_attach, by the worker
 *		starting  -> exited		se_slot_not_started, by the supervisor
 *		running   -> exited		se_slot_detach, when the worker's process ends
 *		exited    -> free		se_slot_release, by the supervisor
 *
 *	  Each taking increments the generation, and a worker is given (slot,
 *	  generation): one that comes late, after its slot has been given away, finds
 *	  another generation or state and leaves without a trace.  The state survives
 *	  its supervisor, whose successor simply goes on with the slots it finds; so
 *	  the record of failures, and the time of the next start, are worked out by
 *	  the process that leaves.
 *
 *	  The plain fields are protected by se_shared->lock, which is held for a few
 *	  loads and stores only: no allocation, no error, no wait under it.  Signals
 *	  are sent under it, because it is what keeps a pid valid.  The latch of a slot
 *	  belongs to its process's PGPROC, which outlives the process: setting it too
 *	  late does no harm.
 *
 * IDENTIFICATION
 *	  src/engine/slots.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "engine/internal.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

/* A worker that was asked to leave and has not after so long is terminated. */
#define STOP_GRACE_MS		3000

/* A worker that ran for so long was healthy. */
#define HEALTHY_MS			60000

/* Longest back-off. */
#define MAX_RETRY_MS		60000

/* A start that nobody has heard of for so long did not happen. */
#define START_TIMEOUT_MS	60000

/*
 * From the second crash in a row on workers wait before they start: at first
 * retry_interval, twice as long each further time, up to so many times of it.
 */
#define MAX_CRASH_DELAY		10

/* A Datum has 32 bits on some machines: the generation's low bits must do. */
#define INDEX_BITS			10
#define GENERATION_MASK		((1U << (32 - INDEX_BITS)) - 1)

SeShared   *se_shared = NULL;

Size
se_slots_size(void)
{
	return add_size(offsetof(SeShared, slots),
					mul_size(se_max_workers + 1, sizeof(SeSlot)));
}

/*
 * A worker that crashes takes the server with it, and would again as soon as it
 * is started: nobody could log in to stop it.  So the postmaster remembers, across
 * its restarts of all other processes, how often it has been here lately.
 * Returns the time before which workers must not start.
 */
static TimestampTz
start_after_crash(void)
{
	static int	crashes = -1;
	static TimestampTz start_at = 0;
	TimestampTz now = GetCurrentTimestamp();
	int			delay = 0;
	int			i;

	if (TimestampDifferenceExceeds(start_at, now, HEALTHY_MS))
		crashes = crashes < 0 ? 0 : 1;
	else
		crashes++;
	if (crashes > 1)
	{
		delay = se_retry_interval;
		for (i = 2; i < crashes && delay < MAX_CRASH_DELAY * se_retry_interval; i++)
			delay *= 2;
		delay = Min(delay, MAX_CRASH_DELAY * se_retry_interval);
		ereport(LOG,
				(errmsg("workers of stream_engine start in %d ms", delay),
				 errdetail("Server processes have crashed %d times in a row.", crashes),
				 errhint("If a worker causes the crashes, set stream_engine.enabled = off and reload the configuration.")));
	}
	start_at = TimestampTzPlusMilliseconds(now, delay);
	return start_at;
}

void
se_slots_init(void *area, bool found)
{
	int			i;

	se_shared = area;
	if (found)
		return;

	memset(area, 0, se_slots_size());
	se_shared->lock = &(GetNamedLWLockTranche(SE_EXTENSION_NAME))->lock;
	ConditionVariableInit(&se_shared->progress);
	pg_atomic_init_u32(&se_shared->waiters, 0);
	ConditionVariableInit(&se_shared->slots_changed);
	se_shared->start_at = start_after_crash();
	se_shared->nslots = se_max_workers + 1;
	for (i = 0; i < se_shared->nslots; i++)
	{
		SeSlot	   *slot = &se_shared->slots[i];

		pg_atomic_init_u32(&slot->phase, SE_PHASE_STARTING);
		pg_atomic_init_u64(&slot->records, 0);
		pg_atomic_init_u64(&slot->bytes, 0);
		pg_atomic_init_u64(&slot->commits, 0);
		pg_atomic_init_u64(&slot->last_commit, 0);
		pg_atomic_init_u64(&slot->last_record, 0);
		pg_atomic_init_u64(&slot->definition, 0);
		pg_atomic_init_u32(&slot->waits, 0);
	}
	se_shared->slots[0].kind = SE_SLOT_LAUNCHER;
	se_shared->slots[0].state = SE_SLOT_EXITED;
	se_shared->request_all = true;
}

/* The bgw_main_arg of the worker that is to run in the slot. */
Datum
se_slot_to_datum(SeSlotRef ref)
{
	return UInt32GetDatum((ref.generation << INDEX_BITS) | (uint32) ref.index);
}

/* The slot that "ref" names, or NULL if it has been taken anew; under the lock. */
static SeSlot *
slot_of(SeSlotRef ref)
{
	SeSlot	   *slot = &se_shared->slots[ref.index];

	return slot->generation == ref.generation ? slot : NULL;
}

static bool
is_held(Oid database)
{
	int			i;

	for (i = 0; i < SE_MAX_HOLDS; i++)
	{
		if (se_shared->holds[i].database == database)
			return true;
	}
	return false;
}

/*
 * Take a slot for a new process.  A slot that an earlier process of the same
 * kind, database and reader has left is taken again.
 */
SeTakeResult
se_slot_take(SeSlotKind kind, Oid database, int32 reader, SeSlotRef *ref)
{
	TimestampTz now = GetCurrentTimestamp();
	SeTakeResult result = SE_TAKE_FULL;
	SeSlot	   *slot = NULL;
	int			i;

	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	for (i = 1; i < se_shared->nslots; i++)
	{
		SeSlot	   *candidate = &se_shared->slots[i];

		if (candidate->kind == kind && candidate->database == database &&
			candidate->reader == reader)
		{
			slot = candidate;
			break;
		}
		if (candidate->kind == SE_SLOT_FREE && slot == NULL)
			slot = candidate;
	}

	if (slot != NULL && slot->kind == kind && slot->state != SE_SLOT_EXITED)
		result = SE_TAKE_PRESENT;
	else if (is_held(database))
		result = SE_TAKE_HELD;
	else if (slot != NULL)
	{
		if (slot->kind == SE_SLOT_FREE)
		{
			slot->message[0] = '\0';
			slot->sqlstate = 0;
			slot->attempts = 0;
			slot->failures = 0;
			slot->wakes = 0;
		}
		slot->kind = kind;
		slot->state = SE_SLOT_STARTING;
		slot->generation++;
		slot->database = database;
		slot->reader = reader;
		slot->pid = 0;
		slot->latch = NULL;
		slot->stop = false;
		slot->started = now;
		pg_atomic_write_u32(&slot->phase, SE_PHASE_STARTING);
		pg_atomic_write_u64(&slot->records, 0);
		pg_atomic_write_u64(&slot->bytes, 0);
		pg_atomic_write_u64(&slot->commits, 0);
		pg_atomic_write_u64(&slot->last_commit, 0);
		pg_atomic_write_u64(&slot->last_record, 0);
		pg_atomic_write_u64(&slot->definition, 0);
		pg_atomic_write_u32(&slot->waits, 0);
		ref->index = slot - se_shared->slots;
		ref->generation = slot->generation;
		result = SE_TAKE_OK;
	}
	LWLockRelease(se_shared->lock);
	return result;
}

/*
 * Errors that pass by themselves, or that an administrator has caused: a worker
 * is started again after them as often as it takes.
 */
static bool
is_transient(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_CONNECTION_EXCEPTION:
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return true;
		default:
			return sqlstate == 0 ||
				sqlstate == ERRCODE_LOCK_NOT_AVAILABLE ||
				sqlstate == ERRCODE_OBJECT_IN_USE;
	}
}

/* Work out when to start again; under the lock. */
static void
note_failure(SeSlot *slot, TimestampTz now, int sqlstate)
{
	int			delay = se_retry_interval;
	int			i;

	if (TimestampDifferenceExceeds(slot->started, now, HEALTHY_MS))
	{
		slot->attempts = 0;
		slot->failures = 0;
	}
	slot->attempts++;
	if (!is_transient(sqlstate))
	{
		slot->failures = (slot->failures > 0 && sqlstate == slot->sqlstate) ?
			slot->failures + 1 : 1;
		slot->sqlstate = sqlstate;
	}
	else if (slot->failures == 0)
		slot->sqlstate = sqlstate;

	for (i = 1; i < slot->attempts && delay < MAX_RETRY_MS; i++)
		delay *= 2;
	slot->retry_at = TimestampTzPlusMilliseconds(now, Min(delay, MAX_RETRY_MS));
}

/* Under the lock. */
static void
wake_manager(Oid database)
{
	int			i;

	for (i = 1; i < se_shared->nslots; i++)
	{
		SeSlot	   *slot = &se_shared->slots[i];

		if (slot->kind == SE_SLOT_MANAGER && slot->database == database && slot->latch != NULL)
			SetLatch(slot->latch);
	}
}

/* Let the supervisor of a slot look at it; under the lock. */
static void
wake_parent(SeSlot *slot)
{
	if (slot->kind != SE_SLOT_MANAGER)
		wake_manager(slot->database);
	else if (se_shared->launcher_latch)
		SetLatch(se_shared->launcher_latch);
}

void
se_slot_wake_parent(SeSlot *slot)
{
	LWLockAcquire(se_shared->lock, LW_SHARED);
	wake_parent(slot);
	LWLockRelease(se_shared->lock);
}

/* The slot's process could not be started: try again later. */
void
se_slot_not_started(SeSlotRef ref, const char *message)
{
	TimestampTz now = GetCurrentTimestamp();
	char		clean[SE_MESSAGE_SIZE];
	SeSlot	   *slot;

	se_message_copy(clean, message);
	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	slot = slot_of(ref);
	if (slot != NULL && slot->state == SE_SLOT_STARTING)
	{
		slot->state = SE_SLOT_EXITED;
		note_failure(slot, now, 0);
		strlcpy(slot->message, clean, SE_MESSAGE_SIZE);
		pg_atomic_write_u32(&slot->phase, SE_PHASE_BACKOFF);
	}
	LWLockRelease(se_shared->lock);
}

/* Free a slot whose process has ended. */
void
se_slot_release(SeSlotRef ref)
{
	SeSlot	   *slot;

	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	slot = slot_of(ref);
	if (slot != NULL && slot->state == SE_SLOT_EXITED)
		slot->kind = SE_SLOT_FREE;
	LWLockRelease(se_shared->lock);
}

/*
 * For a new worker: make the slot its own.  NULL when the slot has been given
 * away or its process is not wanted any more; the worker leaves then.
 */
SeSlot *
se_slot_attach(Datum main_arg, SeSlotKind kind)
{
	uint32		arg = DatumGetUInt32(main_arg);
	uint32		index = arg & ((1U << INDEX_BITS) - 1);
	TimestampTz now = GetCurrentTimestamp();
	SeSlot	   *slot;
	bool		attached = false;

	if (se_shared == NULL || index == 0 || index >= (uint32) se_shared->nslots)
		return NULL;
	slot = &se_shared->slots[index];

	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	if ((slot->generation & GENERATION_MASK) == arg >> INDEX_BITS &&
		slot->kind == kind && slot->state == SE_SLOT_STARTING)
	{
		if (slot->stop)
		{
			slot->state = SE_SLOT_EXITED;
			slot->retry_at = now;
			wake_parent(slot);
		}
		else
		{
			slot->state = SE_SLOT_RUNNING;
			slot->pid = MyProcPid;
			slot->latch = MyLatch;
			slot->started = now;
			attached = true;
		}
	}
	LWLockRelease(se_shared->lock);
	return attached ? slot : NULL;
}

/* The launcher's own slot; NULL when another launcher has it. */
SeSlot *
se_slot_attach_launcher(void)
{
	SeSlot	   *slot = &se_shared->slots[0];
	TimestampTz now = GetCurrentTimestamp();
	bool		attached = false;

	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	if (slot->state == SE_SLOT_EXITED)
	{
		slot->state = SE_SLOT_RUNNING;
		slot->generation++;
		slot->pid = MyProcPid;
		slot->latch = MyLatch;
		slot->started = now;
		slot->stop = false;
		se_shared->launcher_latch = MyLatch;
		attached = true;
	}
	LWLockRelease(se_shared->lock);
	return attached ? slot : NULL;
}

/*
 * The slot's process is about to end.  "sqlstate" and "message" tell of the error
 * that ends it, if exit_code is not 0.
 */
void
se_slot_detach(SeSlot *slot, int exit_code, int sqlstate, const char *message)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	slot->state = SE_SLOT_EXITED;
	slot->pid = 0;
	slot->latch = NULL;
	if (slot->kind == SE_SLOT_LAUNCHER)
		se_shared->launcher_latch = NULL;

	if (exit_code == 0 || slot->stop)
	{
		/* one that leaves by itself again and again must not keep us busy */
		slot->retry_at = TimestampTzPlusMilliseconds(slot->started, se_retry_interval);
		slot->attempts = 0;
		slot->failures = 0;
		slot->sqlstate = 0;
		pg_atomic_write_u32(&slot->phase, SE_PHASE_STARTING);
	}
	else
	{
		note_failure(slot, now, sqlstate);
		if (message[0] != '\0')
			strlcpy(slot->message, message, SE_MESSAGE_SIZE);
		pg_atomic_write_u32(&slot->phase, SE_PHASE_BACKOFF);
	}
	wake_parent(slot);
	LWLockRelease(se_shared->lock);

	ConditionVariableBroadcast(&se_shared->slots_changed);
}

/* A process that has run well for long is not to be judged by those before it. */
void
se_slot_is_well(SeSlot *slot, TimestampTz now)
{
	if ((slot->attempts == 0 && slot->failures == 0) ||
		!TimestampDifferenceExceeds(slot->started, now, HEALTHY_MS))
		return;
	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	slot->attempts = 0;
	slot->failures = 0;
	LWLockRelease(se_shared->lock);
}

/*
 * For a manager that has nothing left to do: true, and from now on a wake-up
 * starts another one, unless somebody has woken it since it read "wakes" and
 * looked.
 */
bool
se_slot_leave(SeSlot *slot, uint32 wakes)
{
	bool		leave;

	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	leave = slot->wakes == wakes;
	if (leave)
		slot->stop = true;
	LWLockRelease(se_shared->lock);
	return leave;
}

/* Ask a slot's process to leave; when it has not for a while, terminate it. */
void
se_slot_stop(SeSlotRef ref)
{
	TimestampTz now = GetCurrentTimestamp();
	SeSlot	   *slot;

	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	slot = slot_of(ref);
	if (slot != NULL && slot->state != SE_SLOT_EXITED)
	{
		if (!slot->stop)
		{
			slot->stop = true;
			slot->stop_since = now;
		}
		else if (slot->pid != 0 &&
				 TimestampDifferenceExceeds(slot->stop_since, now, STOP_GRACE_MS))
			kill(slot->pid, SIGTERM);
		if (slot->latch)
			SetLatch(slot->latch);
	}
	LWLockRelease(se_shared->lock);
}

/* Cancel what a slot's process is doing, with an error; what it has not committed is lost. */
void
se_slot_cancel(SeSlotRef ref)
{
	SeSlot	   *slot;

	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	slot = slot_of(ref);
	if (slot != NULL && slot->state == SE_SLOT_RUNNING && slot->pid != 0)
		kill(slot->pid, SIGINT);
	LWLockRelease(se_shared->lock);
}

/* Let the manager of a database, if it has one, look at once. */
void
se_slots_wake_manager(Oid database)
{
	LWLockAcquire(se_shared->lock, LW_SHARED);
	wake_manager(database);
	LWLockRelease(se_shared->lock);
}

/*
 * Copy the slots of a database, InvalidOid: all that are taken, to "copies", which
 * has room for se_shared->nslots.  Returns their number; a launcher that never ran,
 * as on a standby, is not among them.  Starts that nobody has
 * heard of for long are marked as not started.
 */
int
se_slots_copy(SeSlotCopy *copies, Oid database)
{
	TimestampTz now = GetCurrentTimestamp();
	int			n = 0;
	int			i;

	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < se_shared->nslots; i++)
	{
		SeSlot	   *slot = &se_shared->slots[i];
		SeSlotCopy *copy = &copies[n];

		if (slot->kind == SE_SLOT_FREE || slot->generation == 0 ||
			(OidIsValid(database) && slot->database != database))
			continue;
		if (slot->state == SE_SLOT_STARTING &&
			TimestampDifferenceExceeds(slot->started, now, START_TIMEOUT_MS))
		{
			slot->state = SE_SLOT_EXITED;
			note_failure(slot, slot->started, 0);
			pg_atomic_write_u32(&slot->phase, SE_PHASE_BACKOFF);
		}
		copy->ref.index = i;
		copy->ref.generation = slot->generation;
		copy->kind = slot->kind;
		copy->state = slot->state;
		copy->database = slot->database;
		copy->reader = slot->reader;
		copy->pid = slot->pid;
		copy->stop = slot->stop;
		copy->started = slot->started;
		copy->sqlstate = slot->sqlstate;
		copy->attempts = slot->attempts;
		copy->failures = slot->failures;
		copy->retry_at = slot->retry_at;
		copy->phase = (SePhase) pg_atomic_read_u32(&slot->phase);
		copy->records = (int64) pg_atomic_read_u64(&slot->records);
		copy->bytes = (int64) pg_atomic_read_u64(&slot->bytes);
		copy->commits = (int64) pg_atomic_read_u64(&slot->commits);
		copy->last_commit = (TimestampTz) pg_atomic_read_u64(&slot->last_commit);
		copy->last_record = (TimestampTz) pg_atomic_read_u64(&slot->last_record);
		copy->definition = (int64) pg_atomic_read_u64(&slot->definition);
		copy->waits = pg_atomic_read_u32(&slot->waits) != 0;
		strlcpy(copy->message, slot->message, SE_MESSAGE_SIZE);
		n++;
	}
	LWLockRelease(se_shared->lock);
	return n;
}

/*
 * Copy a message of the current database's encoding to a slot's size: cut at a
 * character, on one line.
 */
void
se_message_copy(char *dest, const char *message)
{
	int			len = pg_mbcliplen(message, strlen(message), SE_MESSAGE_SIZE - 1);
	int			i;

	memcpy(dest, message, len);
	dest[len] = '\0';
	for (i = 0; i < len; i++)
	{
		if ((unsigned char) dest[i] < ' ')
			dest[i] = ' ';
	}
}

const char *
se_phase_name(SePhase phase)
{
	switch (phase)
	{
		case SE_PHASE_STARTING:
			return "starting";
		case SE_PHASE_RECOVERING:
			return "recovering";
		case SE_PHASE_WAITING:
			return "waiting";
		case SE_PHASE_READING:
			return "reading";
		case SE_PHASE_COMMITTING:
			return "committing";
		case SE_PHASE_BACKOFF:
			return "backoff";
		case SE_PHASE_STOPPING:
			return "stopping";
	}
	return "unknown";
}
