/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  What launcher, managers and readers have in common as processes
 *
 * NOTES
 *	  Life of a worker: attach to the slot, connect, run a loop, leave.
 *
 *	  It leaves in one of three ways.  The loop returns (exit code 0): it was asked
 *	  to, or has nothing to do.  An ERROR reaches the top (code 1): se_worker_run
 *	  rolls back, leaves the message in the slot and ends the process, because a
 *	  fresh process is the only clean-up that cannot be incomplete.  A FATAL (code
 *	  1), above all "terminated by administrator command": the message is caught on
 *	  its way to the log.  In each case the exit callback hands the slot back after
 *	  the transaction has been rolled back and its locks are gone, so a successor
 *	  never meets its predecessor.
 *
 *	  A worker is a session of the bootstrap superuser.  Whoever runs code of a
 *	  user in it switches to that user in a security-restricted context first.
 *
 *	  Waiting happens outside of transactions only: an idle worker holds no
 *	  snapshot and no lock.
 *
 * IDENTIFICATION
 *	  src/engine/worker.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <setjmp.h>
#include <signal.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "compat/compat.h"
#include "engine/internal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* A wait after which pending statistics are reported, whatever they are. */
#define STATS_FLUSH_MS 1000

SeSlot	   *se_my_slot = NULL;

/* The error that is ending this process. */
static int	exit_sqlstate = 0;
static char exit_message[SE_MESSAGE_SIZE];
static emit_log_hook_type prev_emit_log_hook = NULL;

static bool extension_gone = false;
static Oid	last_extension = InvalidOid;
static bool stats_pending = false;

static WaitEventSet *wait_set = NULL;
static int	wait_fd = -1;

/* ---------------------------------------------------------------------
 * Start and end
 * ---------------------------------------------------------------------
 */

static void
remember_error(ErrorData *edata)
{
	exit_sqlstate = edata->sqlerrcode;
	if (edata->message != NULL)
		se_message_copy(exit_message, edata->message);
}

/* Catches what ends the process from below se_worker_run. */
static void
watch_log(ErrorData *edata)
{
	if (edata->elevel >= ERROR)
		remember_error(edata);
	if (prev_emit_log_hook)
		prev_emit_log_hook(edata);
}

static void
detach_at_exit(int code, Datum arg)
{
	SeSlot	   *slot = se_my_slot;

	/* a FATAL can come from anywhere */
	LWLockReleaseAll();
	se_my_slot = NULL;
	if (slot != NULL)
		se_slot_detach(slot, code, exit_sqlstate, exit_message);
}

/*
 * Make "slot" this process's own: signal handlers, exit callback.  The callback
 * is registered before the connection is made, so it runs after the transaction
 * has been rolled back.
 */
void
se_worker_prepare(SeSlot *slot)
{
	se_my_slot = slot;
	before_shmem_exit(detach_at_exit, (Datum) 0);
	prev_emit_log_hook = emit_log_hook;
	emit_log_hook = watch_log;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
}

/*
 * Settings that a worker depends on, whatever the server's or the database's are.
 */
void
se_worker_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"session_replication_role", "origin"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"exit_on_error", "off"},
		{"max_parallel_workers_per_gather", "0"},
		/* in a deadlock with a session the worker gives way: it loses nothing */
		{"deadlock_timeout", "100ms"},
#if SE_HAVE_TRANSACTION_TIMEOUT
		{"transaction_timeout", "0"},
#endif
	};
	int			i;

	for (i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("application_name", MyBgworkerEntry->bgw_name, PGC_USERSET, PGC_S_OVERRIDE);
}

SeSlot *
se_worker_attach(Datum main_arg, SeSlotKind kind)
{
	SeSlot	   *slot = se_slot_attach(main_arg, kind);

	if (slot == NULL)
		proc_exit(0);
	se_worker_prepare(slot);
	SE_FAILPOINT("worker-attach");
	BackgroundWorkerInitializeConnectionByOid(slot->database, InvalidOid, 0);
	se_worker_settings();
	se_worker_phase(SE_PHASE_STARTING);
	return slot;
}

void
se_worker_run(void (*loop) (void))
{
	sigjmp_buf	local_sigjmp_buf;

	if (sigsetjmp(local_sigjmp_buf, 1) != 0)
	{
		/*
		 * As the main loops of the server's own background processes do, but
		 * once: a further error in here is a FATAL.
		 */
		PG_exception_stack = NULL;
		error_context_stack = NULL;
		HOLD_INTERRUPTS();
		disable_all_timeouts(false);

		MemoryContextSwitchTo(TopMemoryContext);
		remember_error(CopyErrorData());
		EmitErrorReport();
		AbortOutOfAnyTransaction();
		LWLockReleaseAll();
		FlushErrorState();
		proc_exit(1);
	}
	PG_exception_stack = &local_sigjmp_buf;

	loop();
	se_worker_phase(SE_PHASE_STOPPING);
	proc_exit(0);
}

bool
se_worker_must_stop(void)
{
	return ProcDiePending || extension_gone || !se_enabled ||
		se_my_slot == NULL || *(volatile bool *) &se_my_slot->stop;
}

void
se_worker_reload(void)
{
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/* ---------------------------------------------------------------------
 * Transactions
 * ---------------------------------------------------------------------
 */

/* The extension's oid, InvalidOid if it is not there; *version is palloc'd. */
static Oid
read_extension(char **version)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	Oid			oid = InvalidOid;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(SE_EXTENSION_NAME));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(rel), &isnull);

		oid = ((Form_pg_extension) GETSTRUCT(tuple))->oid;
		*version = isnull ? pstrdup("") : TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return oid;
}

/*
 * Is the extension in this database, in the library's version?  Inside a
 * transaction; takes a lock that keeps DROP EXTENSION out until its end.  *oid is
 * the extension's.
 */
SeExtensionState
se_extension_state(Oid *oid, char **version)
{
	Oid			locked = InvalidOid;

	/* usually it is what it was the last time: lock that before looking */
	*oid = last_extension;
	if (!OidIsValid(*oid))
		*oid = read_extension(version);

	/* it may have been dropped, and made anew, while we waited for the lock */
	while (OidIsValid(*oid) && *oid != locked)
	{
		LockDatabaseObject(ExtensionRelationId, *oid, 0, AccessShareLock);
		locked = *oid;
		*oid = read_extension(version);
	}
	last_extension = *oid;
	if (!OidIsValid(*oid))
		return SE_EXTENSION_ABSENT;
	return strcmp(*version, SE_EXTENSION_VERSION) == 0 ?
		SE_EXTENSION_READY : SE_EXTENSION_SKEWED;
}

void
se_require_version(void)
{
	char	   *version = NULL;

	if (OidIsValid(read_extension(&version)) && strcmp(version, SE_EXTENSION_VERSION) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"%s\" has version %s, but the loaded library is version %s",
						SE_EXTENSION_NAME, version, SE_EXTENSION_VERSION),
				 errhint("Run ALTER EXTENSION %s UPDATE, or restart the server if the library on disk is newer than the loaded one.",
						 SE_EXTENSION_NAME)));
}

bool
se_worker_begin(void)
{
	static Oid	my_extension = InvalidOid;
	char	   *version = NULL;
	Oid			oid;
	SeExtensionState state;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	state = se_extension_state(&oid, &version);
	if (!OidIsValid(my_extension))
		my_extension = oid;

	/* one that was made anew has other streams under the same names */
	if (state != SE_EXTENSION_READY || oid != my_extension)
	{
		CommitTransactionCommand();
		extension_gone = true;
		return false;
	}
	return true;
}

void
se_worker_commit(void)
{
	CommitTransactionCommand();
	stats_pending = pgstat_report_stat(false) > 0;
}

/* ---------------------------------------------------------------------
 * Waiting, telling
 * ---------------------------------------------------------------------
 */

void
se_worker_forget_fd(void)
{
	if (wait_set != NULL)
		FreeWaitEventSet(wait_set);
	wait_set = NULL;
	wait_fd = -1;
}

static void
build_wait_set(int fd)
{
	se_worker_forget_fd();
	wait_set = se_create_wait_event_set(3);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	if (fd >= 0)
		AddWaitEventToSet(wait_set, WL_SOCKET_READABLE, fd, NULL, NULL);
	wait_fd = fd;
}

bool
se_worker_wait(int fd, long timeout_ms)
{
	static uint32 wait_event = 0;
	WaitEvent	events[3];
	bool		readable = false;
	int			n;
	int			i;

	if (wait_event == 0)
		wait_event = se_wait_event_new("StreamEngineWait");
	if (wait_set == NULL || fd != wait_fd)
		build_wait_set(fd);
	if (stats_pending && !IsTransactionState() &&
		(timeout_ms < 0 || timeout_ms > STATS_FLUSH_MS))
		timeout_ms = STATS_FLUSH_MS;

	pg_atomic_write_u32(&se_my_slot->waits, 1);
	n = WaitEventSetWait(wait_set, timeout_ms, events, lengthof(events), wait_event);
	pg_atomic_write_u32(&se_my_slot->waits, 0);
	for (i = 0; i < n; i++)
	{
		if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		if (events[i].events & WL_SOCKET_READABLE)
			readable = true;
	}
	CHECK_FOR_INTERRUPTS();
	se_worker_reload();
	if (n == 0 && stats_pending && !IsTransactionState())
	{
		pgstat_report_stat(true);
		stats_pending = false;
	}
	return readable;
}

void
se_worker_phase(SePhase phase)
{
	pg_atomic_write_u32(&se_my_slot->phase, phase);
	pgstat_report_activity(phase == SE_PHASE_WAITING ? STATE_IDLE : STATE_RUNNING,
						   se_phase_name(phase));
}

void
se_worker_wake_manager(void)
{
	if (se_my_slot != NULL)
		se_slot_wake_parent(se_my_slot);
}

/*
 * Show what is wrong; "" clears.  False: it is shown already.
 */
bool
se_worker_message(const char *message)
{
	char		clean[SE_MESSAGE_SIZE];

	/* only this process writes it while it is attached */
	se_message_copy(clean, message);
	if (strcmp(clean, se_my_slot->message) == 0)
		return false;
	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	strlcpy(se_my_slot->message, clean, SE_MESSAGE_SIZE);
	LWLockRelease(se_shared->lock);
	return true;
}

void
se_progress_broadcast(void)
{
	if (se_shared != NULL)
		ConditionVariableBroadcast(&se_shared->progress);
}
