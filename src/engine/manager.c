/*-------------------------------------------------------------------------
 *
 * manager.c
 *	  The manager of a database: sees that its readers run
 *
 * NOTES
 *	  A manager compares the readers that the catalog wants with the slots of its
 *	  database, starts what is missing, stops what is not wanted any more.  It
 *	  remembers nothing: one that was killed is followed by another, which adopts
 *	  the readers that have gone on meanwhile.
 *
 *	  It leaves when the extension is gone or the database has no stream.  A
 *	  wake-up that arrives while it makes up its mind is not lost: see
 *	  se_slot_leave.
 *
 *	  A reader that failed is started again after the time that its slot says.
 *	  When it has failed max_failures times in a row with the same error code its
 *	  state in the catalog is set to error, and it is not wanted any more.
 *
 * IDENTIFICATION
 *	  src/engine/manager.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "engine/internal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

typedef enum Outlook
{
	NOTHING_TO_DO,				/* no extension, no streams */
	WRONG_VERSION,				/* wait for an ALTER EXTENSION or a restart */
	STREAMS
} Outlook;

/* A reader that is asked for something and has not come round for so long is cancelled. */
#define DEAF_MS 5000

/* What a reader had done when it was last looked at and was not waiting. */
typedef struct Watched
{
	uint32		generation;		/* of the slot; 0: it was waiting */
	int64		records;
	int64		commits;
	TimestampTz since;			/* has done nothing more */
} Watched;

static Watched *watched;		/* [slot] */
static SeSlotCopy *slots;
static int32 *wanted;
static int	nwanted;
static MemoryContext pass_context;
static bool skew_logged = false;

/* Does the extension's table of streams have a row? */
static bool
have_streams(Oid extension)
{
	Oid			schema = get_namespace_oid("stream_engine", true);
	Oid			relid = OidIsValid(schema) ? get_relname_relid("stream", schema) : InvalidOid;
	Relation	rel;
	SysScanDesc scan;
	bool		found;

	if (!OidIsValid(relid) ||
		getExtensionOfObject(RelationRelationId, relid) != extension)
		return false;

	rel = table_open(relid, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, GetActiveSnapshot(), 0, NULL);
	found = systable_getnext(scan) != NULL;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * Read from the catalog what should run; in pass_context.  Readers that have
 * failed too often are set to error before.
 */
static Outlook
read_catalog(int nslots)
{
	Outlook		outlook = NOTHING_TO_DO;
	char	   *version = NULL;
	Oid			extension;
	int			i;

	nwanted = 0;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	switch (se_extension_state(&extension, &version))
	{
		case SE_EXTENSION_ABSENT:
			break;

		case SE_EXTENSION_SKEWED:
			outlook = WRONG_VERSION;
			if (!skew_logged)
				ereport(LOG,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("extension \"%s\" has version %s, but the loaded library is version %s",
								SE_EXTENSION_NAME, version, SE_EXTENSION_VERSION),
						 errdetail("Streams of this database do not run."),
						 errhint("Run ALTER EXTENSION %s UPDATE, or restart the server if the library on disk is newer than the loaded one.",
								 SE_EXTENSION_NAME)));
			skew_logged = true;
			break;

		case SE_EXTENSION_READY:
			PushActiveSnapshot(GetTransactionSnapshot());
			for (i = 0; i < nslots; i++)
			{
				if (slots[i].kind == SE_SLOT_READER && slots[i].state == SE_SLOT_EXITED &&
					slots[i].failures >= se_max_failures)
				{
					se_catalog_reader_failed(slots[i].reader, slots[i].message,
											 slots[i].sqlstate);
					CommandCounterIncrement();
				}
			}
			PopActiveSnapshot();
			PushActiveSnapshot(GetTransactionSnapshot());
			if (have_streams(extension))
			{
				int32	   *readers = NULL;

				nwanted = se_catalog_wanted_readers(&readers);
				wanted = MemoryContextAlloc(pass_context, Max(nwanted, 1) * sizeof(int32));
				if (nwanted > 0)
					memcpy(wanted, readers, nwanted * sizeof(int32));
				outlook = STREAMS;
			}
			PopActiveSnapshot();
			break;
	}
	se_worker_commit();
	return outlook;
}

static bool
is_wanted(int32 reader)
{
	int			i;

	for (i = 0; i < nwanted; i++)
	{
		if (wanted[i] == reader)
			return true;
	}
	return false;
}

/* Forget the slots of readers that failed for good: resumed, they start afresh. */
static void
forget_failed(int nslots)
{
	int			i;

	for (i = 0; i < nslots; i++)
	{
		if (slots[i].kind == SE_SLOT_READER && slots[i].state == SE_SLOT_EXITED &&
			slots[i].failures >= se_max_failures)
			se_slot_release(slots[i].ref);
	}
}

/* Stop the readers that are not wanted, free their slots; how many still run. */
static int
stop_unwanted(int nslots)
{
	int			nleft = 0;
	int			i;

	for (i = 0; i < nslots; i++)
	{
		if (slots[i].kind != SE_SLOT_READER || is_wanted(slots[i].reader))
			continue;
		if (slots[i].state == SE_SLOT_EXITED)
			se_slot_release(slots[i].ref);
		else
		{
			se_slot_stop(slots[i].ref);
			nleft++;
		}
	}
	return nleft;
}

/* Start the readers that are missing; returns ms until the next one is due. */
static long
start_missing(int nslots)
{
	TimestampTz now = GetCurrentTimestamp();
	long		timeout = SE_POLL_INTERVAL_MS;
	int			i;

	for (i = 0; i < nwanted; i++)
	{
		SeSlotCopy *slot = NULL;
		int			j;

		for (j = 0; j < nslots && slot == NULL; j++)
		{
			if (slots[j].kind == SE_SLOT_READER && slots[j].reader == wanted[i])
				slot = &slots[j];
		}
		if (slot != NULL && slot->state != SE_SLOT_EXITED)
			continue;
		if (slot != NULL && slot->retry_at > now)
		{
			timeout = Min(timeout, TimestampDifferenceMilliseconds(now, slot->retry_at));
			continue;
		}
		if (se_supervisor_start(SE_SLOT_READER, MyDatabaseId, wanted[i]) == SE_START_FAILED)
			timeout = Min(timeout, se_retry_interval);
	}
	return timeout;
}

/* Whether a session wants something of a reader, which it has not noticed. */
static bool
is_asked(const SeSlotCopy *slot)
{
	bool		asked;

	if (!se_worker_begin())
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	asked = se_catalog_reader_is_asked(slot->reader, slot->definition, slot->pid, DEAF_MS);
	PopActiveSnapshot();
	se_worker_commit();
	return asked;
}

/*
 * Code of a user that never returns keeps a reader from noticing anything, and what it has locked
 * locked: cancel it when somebody asks for something, for his query may be the one that is to
 * be stopped.  What the reader was doing is refused by the fence anyhow when its definition has
 * changed; it is done again when somebody has waited for a lock.  A reader that is to leave is
 * terminated by stop_unwanted.  Returns ms until the next look.
 */
static long
watch_readers(int nslots)
{
	TimestampTz now = GetCurrentTimestamp();
	long		timeout = SE_POLL_INTERVAL_MS;
	int			i;

	for (i = 0; i < nslots; i++)
	{
		const SeSlotCopy *slot = &slots[i];
		Watched    *watch = &watched[slot->ref.index];

		if (slot->kind != SE_SLOT_READER || slot->state != SE_SLOT_RUNNING || slot->waits ||
			slot->stop)
		{
			watch->generation = 0;
			continue;
		}
		timeout = DEAF_MS / 2;
		if (watch->generation != slot->ref.generation || watch->records != slot->records ||
			watch->commits != slot->commits)
		{
			watch->generation = slot->ref.generation;
			watch->records = slot->records;
			watch->commits = slot->commits;
			watch->since = now;
		}
		if (!TimestampDifferenceExceeds(watch->since, now, DEAF_MS) || !is_asked(slot))
			continue;
		ereport(LOG,
				(errmsg("reader %d is cancelled: it has not come round for %d ms, and somebody waits for that",
						slot->reader, DEAF_MS)));
		se_slot_cancel(slot->ref);
		watch->since = now;
	}
	return timeout;
}

static void
manager_loop(void)
{
	for (;;)
	{
		Outlook		outlook = NOTHING_TO_DO;
		uint32		wakes;
		int			nslots;
		int			nleft;
		long		timeout;

		CHECK_FOR_INTERRUPTS();
		se_worker_reload();
		SE_FAILPOINT("manager-pass");
		MemoryContextReset(pass_context);

		LWLockAcquire(se_shared->lock, LW_SHARED);
		wakes = se_my_slot->wakes;
		LWLockRelease(se_shared->lock);

		/* asked to leave: whoever did so has asked the readers as well */
		if (se_my_slot->stop)
			return;

		se_supervisor_check();
		nslots = se_slots_copy(slots, MyDatabaseId);
		nwanted = 0;
		if (se_enabled)
		{
			outlook = read_catalog(nslots);
			forget_failed(nslots);
		}
		nleft = stop_unwanted(nslots);

		/* where versions differ we stay, so that it is said only once */
		if (outlook == NOTHING_TO_DO && nleft == 0 && se_slot_leave(se_my_slot, wakes))
		{
			/* the launcher keeps the request until the engine is enabled */
			if (!se_enabled)
				se_wake_database(MyDatabaseId);
			return;
		}

		if (outlook == WRONG_VERSION)
			se_worker_message("extension and library have different versions: run ALTER EXTENSION stream_engine UPDATE or restart the server");
		else if (skew_logged)
		{
			skew_logged = false;
			se_worker_message("");
		}

		timeout = start_missing(nslots);
		se_supervisor_end_pass();
		if (nleft > 0)
			timeout = Min(timeout, 1000);
		if (outlook == STREAMS)
			timeout = Min(timeout, watch_readers(nslots));

		/* tells the launcher that it may look at the next database */
		if (pg_atomic_read_u32(&se_my_slot->phase) == SE_PHASE_STARTING)
		{
			se_worker_phase(SE_PHASE_WAITING);
			se_slot_wake_parent(se_my_slot);
		}
		if (outlook == STREAMS && se_enabled)
		{
			long		maintain = se_state_log_maintain();

			if (maintain >= 0)
				timeout = Min(timeout, maintain);
		}
		(void) se_worker_wait(-1, timeout);
	}
}

void
se_manager_main(Datum main_arg)
{
	(void) se_worker_attach(main_arg, SE_SLOT_MANAGER);
	slots = MemoryContextAlloc(TopMemoryContext, se_shared->nslots * sizeof(SeSlotCopy));
	watched = MemoryContextAllocZero(TopMemoryContext, se_shared->nslots * sizeof(Watched));
	pass_context = AllocSetContextCreate(TopMemoryContext, "stream_engine manager",
										 ALLOCSET_DEFAULT_SIZES);
	se_worker_run(manager_loop);
}
