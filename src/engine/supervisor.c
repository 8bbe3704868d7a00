/*-------------------------------------------------------------------------
 *
 * supervisor.c
 *	  Starting workers: what launcher and managers have in common
 *
 * NOTES
 *	  The postmaster never restarts a worker by itself (BGW_NEVER_RESTART): when and
 *	  how often to do so is decided here, by what the slot says about its last
 *	  processes.
 *
 *	  "Started" means attached to the slot.  A process that was registered and
 *	  never attached, because it could not be forked or failed before, is noticed
 *	  by its handle; after a change of the supervisor, whose handles are lost, by
 *	  the time (se_slots_copy).
 *
 * IDENTIFICATION
 *	  src/engine/supervisor.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "engine/internal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/memutils.h"

typedef struct Started
{
	SeSlotRef	ref;
	BackgroundWorkerHandle *handle; /* NULL: none */
} Started;

/* Indexed by slot. */
static Started *started = NULL;

/* Each shortage is logged when it begins. */
static bool slots_exhausted = false;
static bool slots_exhausted_in_pass = false;
static bool processes_exhausted = false;

static bool
register_worker(SeSlotKind kind, Oid database, int32 reader, SeSlotRef ref,
				BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = se_slot_to_datum(ref);
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, SE_EXTENSION_NAME, sizeof(worker.bgw_library_name));
	if (kind == SE_SLOT_MANAGER)
	{
		strlcpy(worker.bgw_function_name, "se_manager_main", sizeof(worker.bgw_function_name));
		strlcpy(worker.bgw_type, "stream_engine manager", BGW_MAXLEN);
		snprintf(worker.bgw_name, BGW_MAXLEN, "stream_engine manager for database %u", database);
	}
	else
	{
		strlcpy(worker.bgw_function_name, "se_reader_main", sizeof(worker.bgw_function_name));
		strlcpy(worker.bgw_type, "stream_engine reader", BGW_MAXLEN);
		snprintf(worker.bgw_name, BGW_MAXLEN, "stream_engine reader %d", reader);
	}
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

static void
forget_start(Started *start)
{
	if (start->handle != NULL)
		pfree(start->handle);
	start->handle = NULL;
}

/*
 * Start a worker.  Call it when there is none, or when its slot's retry_at has
 * passed.
 */
SeStartResult
se_supervisor_start(SeSlotKind kind, Oid database, int32 reader)
{
	BackgroundWorkerHandle *handle = NULL;
	MemoryContext oldcontext;
	SeSlotRef	ref;
	bool		registered;

	if (started == NULL)
		started = MemoryContextAllocZero(TopMemoryContext,
										 se_shared->nslots * sizeof(Started));

	switch (se_slot_take(kind, database, reader, &ref))
	{
		case SE_TAKE_OK:
			break;
		case SE_TAKE_PRESENT:
			return SE_START_PRESENT;
		case SE_TAKE_HELD:
			return SE_START_HELD;
		case SE_TAKE_FULL:
			if (!slots_exhausted)
				ereport(LOG,
						(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						 errmsg("out of worker slots of stream_engine"),
						 errdetail("All %d slots are taken.", se_max_workers),
						 errhint("Increase \"stream_engine.max_workers\" and restart the server.")));
			slots_exhausted = slots_exhausted_in_pass = true;
			se_worker_message("out of worker slots: see stream_engine.max_workers");
			return SE_START_FAILED;
	}
	forget_start(&started[ref.index]);
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	registered = register_worker(kind, database, reader, ref, &handle);
	MemoryContextSwitchTo(oldcontext);

	if (!registered)
	{
		se_slot_not_started(ref, "out of background worker slots: see max_worker_processes");
		if (!processes_exhausted)
			ereport(LOG,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("out of background worker slots"),
					 errdetail("A worker of stream_engine could not be started; it will be tried again."),
					 errhint("Increase \"max_worker_processes\" and restart the server.")));
		processes_exhausted = true;
		return SE_START_FAILED;
	}
	processes_exhausted = false;
	started[ref.index].ref = ref;
	started[ref.index].handle = handle;
	return SE_START_OK;
}

/* Notice the workers that were registered and will never attach. */
void
se_supervisor_check(void)
{
	int			i;

	if (started == NULL)
		return;
	for (i = 0; i < se_shared->nslots; i++)
	{
		pid_t		pid;

		if (started[i].handle == NULL)
			continue;
		if (GetBackgroundWorkerPid(started[i].handle, &pid) == BGWH_STOPPED)
		{
			se_slot_not_started(started[i].ref, "the process could not be started");
			forget_start(&started[i]);
		}
	}
}

/* After all starts that were due: is a shortage over? */
void
se_supervisor_end_pass(void)
{
	if (slots_exhausted && !slots_exhausted_in_pass)
	{
		slots_exhausted = false;
		se_worker_message("");
	}
	slots_exhausted_in_pass = false;
}
