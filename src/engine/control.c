/*-------------------------------------------------------------------------
 *
 * control.c
 *	  What sessions ask of the workers: look again, stay away
 *
 * NOTES
 *	  Wake-ups.  A session that has changed what should run calls
 *	  se_wake_at_commit(); at commit, when others can see the change, the manager
 *	  of the database is woken, or, where there is none, the launcher is asked to
 *	  look at the database.  A lost wake-up only delays: launcher and managers look
 *	  by themselves once a minute.
 *
 *	  Holds.  While a session holds a database no worker is started in it, and
 *	  those that run have been asked to leave.  A hold ends with the transaction
 *	  at the latest.  A session that dies ends its transaction on its way out, and
 *	  one that cannot do even that takes shared memory with it.
 *
 * IDENTIFICATION
 *	  src/engine/control.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "compat/compat.h"
#include "engine/internal.h"
#include "miscadmin.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* What to do at the end of the current transaction. */
static bool wake_at_commit = false; /* this database's manager, or start it */
static bool wake_running_at_commit = false; /* the manager if it runs */
static bool wake_launcher_at_commit = false;
static bool holding = false;

/* Ask the launcher to look at a database; under the lock. */
static void
request_database(Oid database)
{
	int			i;

	for (i = 0; i < se_shared->nrequests; i++)
	{
		if (se_shared->requests[i] == database)
			break;
	}
	if (i == SE_MAX_REQUESTS)
		se_shared->request_all = true;
	else if (i == se_shared->nrequests)
		se_shared->requests[se_shared->nrequests++] = database;
	if (se_shared->launcher_latch)
		SetLatch(se_shared->launcher_latch);
}

/*
 * Wake the workers of a database.  With "start" a manager is started where there
 * is none.
 */
static void
wake_database(Oid database, bool start)
{
	bool		have_manager = false;
	int			i;

	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	for (i = 1; i < se_shared->nslots; i++)
	{
		SeSlot	   *slot = &se_shared->slots[i];

		if (slot->kind == SE_SLOT_FREE || slot->database != database)
			continue;
		if (slot->kind == SE_SLOT_MANAGER && slot->state != SE_SLOT_EXITED && !slot->stop)
		{
			/* one that is just about to leave will think again */
			slot->wakes++;
			have_manager = true;
		}
		if (slot->latch)
			SetLatch(slot->latch);
	}
	if (start && !have_manager)
		request_database(database);
	LWLockRelease(se_shared->lock);
}

void
se_wake_database(Oid database)
{
	if (se_shared != NULL)
		wake_database(database, true);
}

void
se_wake_manager(void)
{
	if (se_shared != NULL)
		se_slots_wake_manager(MyDatabaseId);
}

void
se_wake_at_commit(void)
{
	wake_at_commit = true;
}

/* The same, but only if the database has a manager: for DROP. */
void
se_wake_running_at_commit(void)
{
	wake_running_at_commit = true;
}

/* The list of databases changes. */
void
se_wake_launcher_at_commit(void)
{
	wake_launcher_at_commit = true;
}

/* Give up this session's holds, InvalidOid: all. */
static void
release_holds(Oid database)
{
	int			i;

	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < SE_MAX_HOLDS; i++)
	{
		SeHold	   *hold = &se_shared->holds[i];

		if (!OidIsValid(hold->database) || hold->pid != MyProcPid ||
			(OidIsValid(database) && hold->database != database))
			continue;
		request_database(hold->database);
		hold->database = InvalidOid;
		hold->pid = 0;
	}
	LWLockRelease(se_shared->lock);
}

/* Signal all workers of a database; returns how many have not left. */
static int
stop_workers(Oid database, bool terminate)
{
	TimestampTz now = GetCurrentTimestamp();
	int			nrunning = 0;
	int			i;

	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	for (i = 1; i < se_shared->nslots; i++)
	{
		SeSlot	   *slot = &se_shared->slots[i];

		if (slot->kind == SE_SLOT_FREE || slot->database != database ||
			slot->state == SE_SLOT_EXITED)
			continue;
		if (!slot->stop)
		{
			slot->stop = true;
			slot->stop_since = now;
		}
		/* one that is still starting leaves before it connects */
		if (slot->state != SE_SLOT_RUNNING)
			continue;
		nrunning++;
		if (terminate)
			kill(slot->pid, SIGTERM);
		SetLatch(slot->latch);
	}
	LWLockRelease(se_shared->lock);
	return nrunning;
}

bool
se_stop_database(Oid database, int timeout_ms)
{
	TimestampTz start = GetCurrentTimestamp();
	int			free_hold = -1;
	int			i;

	if (se_shared == NULL)
		return true;

	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < SE_MAX_HOLDS && free_hold < 0; i++)
	{
		if (!OidIsValid(se_shared->holds[i].database))
		{
			free_hold = i;
			se_shared->holds[i].database = database;
			se_shared->holds[i].pid = MyProcPid;
		}
	}
	LWLockRelease(se_shared->lock);
	if (free_hold < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many sessions are keeping workers of stream_engine stopped"),
				 errhint("Wait for other commands on databases to end.")));
	holding = true;

	ConditionVariablePrepareToSleep(&se_shared->slots_changed);
	for (;;)
	{
		long		waited = TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());
		bool		impatient = waited >= Min(timeout_ms / 2, 3000);

		if (stop_workers(database, impatient) == 0)
			break;
		if (waited >= timeout_ms)
		{
			ConditionVariableCancelSleep();
			return false;
		}
		(void) ConditionVariableTimedSleep(&se_shared->slots_changed,
										   Min(timeout_ms - waited, 500),
										   se_wait_event_new("StreamEngineStop"));
	}
	ConditionVariableCancelSleep();
	return true;
}

void
se_resume_database(Oid database)
{
	if (se_shared != NULL)
		release_holds(database);
}

/* Whether this database has prepared transactions that would wake somebody; under the lock. */
static bool
has_prepared(void)
{
	for (int i = 0; i < se_shared->nprepared; i++)
		if (se_shared->prepared[i] == MyDatabaseId)
			return true;
	return se_shared->nprepared == SE_MAX_REQUESTS;
}

/*
 * A transaction that would wake somebody is prepared.  Who commits it does not know what it has
 * done, so from now on every COMMIT PREPARED of this database wakes as it would.  Before, as after
 * a restart of the server, it wakes the workers only where they run.
 */
static void
prepare_wake(void)
{
	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	if (!has_prepared())
		se_shared->prepared[se_shared->nprepared++] = MyDatabaseId;
	LWLockRelease(se_shared->lock);
}

/* COMMIT PREPARED has committed a transaction of this database. */
void
se_wake_after_prepared(void)
{
	bool		start;

	LWLockAcquire(se_shared->lock, LW_SHARED);
	start = has_prepared();
	LWLockRelease(se_shared->lock);
	wake_database(MyDatabaseId, start);
	if (start)
		wake_database(InvalidOid, true);
}

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (wake_at_commit || wake_running_at_commit)
				wake_database(MyDatabaseId, wake_at_commit);
			if (wake_launcher_at_commit)
				wake_database(InvalidOid, true);
			break;
		case XACT_EVENT_PREPARE:
			if (wake_at_commit || wake_running_at_commit || wake_launcher_at_commit)
				prepare_wake();
			break;
		case XACT_EVENT_ABORT:
			break;
		default:
			return;
	}
	wake_at_commit = wake_running_at_commit = wake_launcher_at_commit = false;

	if (holding)
	{
		release_holds(InvalidOid);
		holding = false;
	}
}

void
se_control_init(void)
{
	RegisterXactCallback(at_end_of_transaction, NULL);
}
