/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The launcher: one process per server, sees that databases have managers
 *
 * NOTES
 *	  The launcher is connected to no database, so it knows which databases there
 *	  are but not which of them have streams.  It finds out by starting a manager,
 *	  which leaves at once where there are none: one database at a time, so that a
 *	  server with hundreds of databases never has more than one such process.  A
 *	  database is looked at when the launcher starts, when a session asks for it,
 *	  and, should a wake-up have been lost, a minute after the last look, at most
 *	  one a second.
 *
 *	  Template databases, and those that refuse connections, have no workers.
 *
 *	  It runs where a transaction can commit: not on a standby, but from its
 *	  promotion on.
 *
 * IDENTIFICATION
 *	  src/engine/launcher.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "engine/internal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* After an error the postmaster starts the launcher again, so many seconds later. */
#define RESTART_SECONDS 5

/* Least time between two looks that nobody asked for. */
#define PROBE_SPACING_MS 1000

typedef struct Database
{
	Oid			oid;			/* hash key */
	bool		listed;			/* seen in the last reading of pg_database */
	bool		requested;
	TimestampTz last_probe;		/* 0: never */
} Database;

static HTAB *databases;
static SeSlotCopy *slots;
static int	nslots;
static TimestampTz last_listing = 0;
static TimestampTz last_probe = 0;

void
se_launcher_register(void)
{
	BackgroundWorker worker;

	/* pg_upgrade wants the databases for itself */
	if (IsBinaryUpgrade)
		return;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_SECONDS;
	strlcpy(worker.bgw_library_name, SE_EXTENSION_NAME, sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "se_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "stream_engine launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "stream_engine launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

/* Read which databases can have workers. */
static void
list_databases(void)
{
	HASH_SEQ_STATUS status;
	Database   *database;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	hash_seq_init(&status, databases);
	while ((database = hash_seq_search(&status)) != NULL)
		database->listed = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();

	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		Oid			oid = form->oid;
		bool		found;

		/* a connection limit below -1 marks what an interrupted DROP has left */
		if (form->datistemplate || !form->datallowconn || form->datconnlimit < -1)
			continue;
		database = hash_search(databases, &oid, HASH_ENTER, &found);
		if (!found)
		{
			database->requested = false;
			database->last_probe = 0;
		}
		database->listed = true;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();

	hash_seq_init(&status, databases);
	while ((database = hash_seq_search(&status)) != NULL)
	{
		if (!database->listed)
			(void) hash_search(databases, &database->oid, HASH_REMOVE, NULL);
	}
	last_listing = GetCurrentTimestamp();
}

/* Take over what sessions have asked for. */
static void
take_requests(void)
{
	Oid			requests[SE_MAX_REQUESTS];
	int			n;
	bool		all;
	int			i;
	HASH_SEQ_STATUS status;
	Database   *database;

	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	n = se_shared->nrequests;
	memcpy(requests, se_shared->requests, n * sizeof(Oid));
	all = se_shared->request_all;
	se_shared->nrequests = 0;
	se_shared->request_all = false;
	LWLockRelease(se_shared->lock);

	/* a request may be about a database that is new, or not one any more */
	if (n > 0 || all ||
		TimestampDifferenceExceeds(last_listing, GetCurrentTimestamp(), SE_POLL_INTERVAL_MS))
		list_databases();

	for (i = 0; i < n; i++)
	{
		database = hash_search(databases, &requests[i], HASH_FIND, NULL);
		if (database)
			database->requested = true;
	}
	if (all)
	{
		hash_seq_init(&status, databases);
		while ((database = hash_seq_search(&status)) != NULL)
			database->requested = true;
	}
}

/*
 * Free the slots of managers that have left and of databases that are gone, stop
 * workers that must not be where they are.  Returns true while a manager has not
 * yet found out whether its database has streams.
 */
static bool
look_at_slots(void)
{
	bool		probing = false;
	int			i;

	nslots = se_slots_copy(slots, InvalidOid);
	for (i = 0; i < nslots; i++)
	{
		SeSlotCopy *slot = &slots[i];
		bool		eligible;

		if (slot->kind == SE_SLOT_LAUNCHER)
			continue;
		eligible = hash_search(databases, &slot->database, HASH_FIND, NULL) != NULL;

		if (slot->state == SE_SLOT_EXITED)
		{
			if (!eligible || (slot->kind == SE_SLOT_MANAGER && slot->attempts == 0))
				se_slot_release(slot->ref);
		}
		else if (!eligible)
			se_slot_stop(slot->ref);
		else if (slot->kind == SE_SLOT_MANAGER && slot->phase == SE_PHASE_STARTING)
			probing = true;
	}
	return probing;
}

/* The slot of a database's manager, NULL if it has none. */
static SeSlotCopy *
find_manager(Oid database)
{
	int			i;

	for (i = 0; i < nslots; i++)
	{
		if (slots[i].kind == SE_SLOT_MANAGER && slots[i].database == database &&
			!(slots[i].state == SE_SLOT_EXITED && slots[i].attempts == 0))
			return &slots[i];
	}
	return NULL;
}

/*
 * Start the manager that is due first, if any.  Lowers *timeout to the time until
 * the next one is.
 */
static void
start_next(long *timeout)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz spaced = last_probe + PROBE_SPACING_MS * INT64CONST(1000);
	Database   *next = NULL;
	TimestampTz next_due = 0;
	HASH_SEQ_STATUS status;
	Database   *database;

	hash_seq_init(&status, databases);
	while ((database = hash_seq_search(&status)) != NULL)
	{
		SeSlotCopy *manager = find_manager(database->oid);
		TimestampTz due;

		if (manager != NULL)
		{
			if (manager->state != SE_SLOT_EXITED)
			{
				/* it sees all that was asked for, unless it is about to leave */
				if (!manager->stop)
					database->requested = false;
				database->last_probe = now;
				continue;
			}
			due = manager->retry_at;
		}
		else if (database->requested || database->last_probe == 0)
			due = 0;
		else
			due = Max(spaced, database->last_probe + SE_POLL_INTERVAL_MS * INT64CONST(1000));

		if (next == NULL || due < next_due)
		{
			next = database;
			next_due = due;
		}
	}
	if (next == NULL)
		return;
	if (next_due > now)
	{
		*timeout = Min(*timeout, TimestampDifferenceMilliseconds(now, next_due));
		return;
	}

	switch (se_supervisor_start(SE_SLOT_MANAGER, next->oid, 0))
	{
		case SE_START_OK:
		case SE_START_PRESENT:
		case SE_START_HELD:
			next->requested = false;
			next->last_probe = last_probe = now;
			*timeout = Min(*timeout, PROBE_SPACING_MS);
			break;
		case SE_START_FAILED:
			next->last_probe = last_probe = now;
			*timeout = Min(*timeout, Max(se_retry_interval, PROBE_SPACING_MS));
			break;
	}
}

/* Start what is due, but not right into the next crash. */
static void
start_managers(long *timeout)
{
	long		wait = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
													   se_shared->start_at);

	if (wait > 0)
		*timeout = Min(*timeout, wait);
	else
		start_next(timeout);
}

static void
launcher_loop(void)
{
	for (;;)
	{
		long		timeout = SE_POLL_INTERVAL_MS;

		CHECK_FOR_INTERRUPTS();
		se_worker_reload();
		take_requests();
		se_supervisor_check();
		if (look_at_slots())
			timeout = Min(timeout, PROBE_SPACING_MS);
		else if (se_enabled)
			start_managers(&timeout);
		se_supervisor_end_pass();

		(void) se_worker_wait(-1, timeout);
	}
}

void
se_launcher_main(Datum main_arg)
{
	HASHCTL		ctl;
	SeSlot	   *slot = se_slot_attach_launcher();

	if (slot == NULL)
		proc_exit(1);
	se_worker_prepare(slot);
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	se_worker_settings();

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(Database);
	databases = hash_create("stream_engine databases", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	slots = MemoryContextAlloc(TopMemoryContext, se_shared->nslots * sizeof(SeSlotCopy));

	/* a launcher that takes over must not wait for the next request */
	LWLockAcquire(se_shared->lock, LW_EXCLUSIVE);
	se_shared->request_all = true;
	LWLockRelease(se_shared->lock);

	se_worker_phase(SE_PHASE_WAITING);
	se_worker_run(launcher_loop);
}
