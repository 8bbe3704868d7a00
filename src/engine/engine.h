/*
 * engine.h
 *	  Settings, shared memory, worker slots, failpoints.
 *
 * NOTES
 *	  README.md in this folder has the states of slots and processes, the locking
 *	  and what each failure leaves behind.
 */
#ifndef SE_ENGINE_H
#define SE_ENGINE_H

#include "postgres.h"

#include "compat/compat.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

/*
 * Version of the SQL objects that this library works with: default_version of
 * the control file.
 */
#define SE_EXTENSION_NAME "stream_engine"
#define SE_EXTENSION_VERSION "1.0"

/* ---- settings (guc.c) ---- */
extern bool se_enabled;			/* stream_engine.enabled, sighup */
extern int	se_max_workers;		/* stream_engine.max_workers: slots, postmaster */
extern int	se_commit_interval; /* stream_engine.commit_interval, ms */
extern int	se_max_commit_interval; /* stream_engine.max_commit_interval, ms */
extern int	se_state_log_rate;	/* stream_engine.state_log_rate, kB per second */
extern int	se_state_memory;	/* stream_engine.state_memory: of the run cache,
								 * kB, postmaster */
extern bool se_state_cache;		/* stream_engine.state_cache: read it */
extern int	se_max_slices;		/* stream_engine.max_slices: slices a hopping
								 * window */
extern int	se_worker_free_memory;	/* stream_engine.worker_free_memory: that it
									 * does not give back, kB */
extern int	se_max_emit_rows;	/* stream_engine.max_emit_rows: of a closing
								 * window in one transaction; 0 no limit */
extern int	se_retry_interval;	/* stream_engine.retry_interval: first back-off,
								 * ms */
extern int	se_max_failures;	/* stream_engine.max_failures: equal failures
								 * until state 'error' */
extern int	se_ledger_retention;	/* stream_engine.ledger_retention, seconds */
extern char *se_failpoints;		/* stream_engine.failpoints; NULL but in builds
								 * with SE_FAILPOINTS */

extern void se_define_settings(void);

/* ---- worker slots (slots.c) ---- */

typedef enum SeSlotKind
{
	SE_SLOT_FREE = 0,
	SE_SLOT_MANAGER,
	SE_SLOT_READER,
	SE_SLOT_LAUNCHER			/* slot 0 only */
} SeSlotKind;

typedef enum SeSlotState
{
	SE_SLOT_STARTING = 0,		/* requested, process not yet attached */
	SE_SLOT_RUNNING,			/* attached: pid and latch are valid */
	SE_SLOT_EXITED				/* kept by its supervisor until the next start */
} SeSlotState;

/* What a worker is doing: shown by stat_workers and as pg_stat_activity.query. */
typedef enum SePhase
{
	SE_PHASE_STARTING,
	SE_PHASE_RECOVERING,		/* reading the state log */
	SE_PHASE_WAITING,			/* for records */
	SE_PHASE_READING,
	SE_PHASE_COMMITTING,
	SE_PHASE_BACKOFF,			/* after an error */
	SE_PHASE_STOPPING
} SePhase;

#define SE_MESSAGE_SIZE 512

typedef struct SeSlot
{
	SeSlotKind	kind;
	uint32		generation;		/* + 1 each time the slot is taken */
	Oid			database;
	int32		reader;			/* reader id; 0 for a manager */
	pid_t		pid;			/* 0: not attached */
	Latch	   *latch;			/* of the attached process */
	bool		stop;			/* asked to leave */
	TimestampTz started;		/* requested, then attached */
	SeSlotState state;
	TimestampTz stop_since;
	uint32		wakes;			/* + 1 with each wake-up of a manager */
	/* how its last processes ended; kept while the slot waits for a restart */
	int			sqlstate;
	int			attempts;		/* starts since the last healthy run */
	int			failures;		/* failures in a row with the same sqlstate */
	TimestampTz retry_at;
	/* below: written by the owner without a lock, read by views */
	pg_atomic_uint32 phase;
	pg_atomic_uint64 records;	/* since start */
	pg_atomic_uint64 bytes;
	pg_atomic_uint64 commits;
	pg_atomic_uint64 last_commit;	/* TimestampTz */
	pg_atomic_uint64 last_record;	/* TimestampTz */
	pg_atomic_uint64 definition;	/* generation of the reader's row that it works by; 0: none */
	pg_atomic_uint32 waits;		/* in se_worker_wait */
	char		message[SE_MESSAGE_SIZE];	/* last error, "" if none; under lock */
} SeSlot;

#define SE_MAX_HOLDS 32
#define SE_MAX_REQUESTS 32

/* A session keeps the workers of a database stopped. */
typedef struct SeHold
{
	Oid			database;		/* InvalidOid: free */
	pid_t		pid;
} SeHold;

typedef struct SeShared
{
	LWLock	   *lock;			/* protects the slots' plain fields, the holds,
								 * the requests */
	ConditionVariable progress; /* broadcast after each commit of any reader */
	pg_atomic_uint32 waiters;	/* sessions in wait(): what has been read is
								 * committed at once when there is no more */
	ConditionVariable slots_changed;	/* broadcast when a worker has left */
	Latch	   *launcher_latch;
	TimestampTz start_at;		/* no worker is started before: crash loops */
	SeHold		holds[SE_MAX_HOLDS];
	int			nrequests;		/* databases that the launcher is to look at */
	bool		request_all;
	Oid			requests[SE_MAX_REQUESTS];
	int			nprepared;		/* databases in which transactions were prepared
								 * that wake; when full, all */
	Oid			prepared[SE_MAX_REQUESTS];
	int			nslots;
	SeSlot		slots[FLEXIBLE_ARRAY_MEMBER];
} SeShared;

/* NULL when the library is not preloaded. */
extern SeShared *se_shared;

/*
 * Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE with a hint that names the
 * line to add to postgresql.conf when the library is not preloaded.
 */
extern void se_require_preload(void);

/*
 * Raises when the extension of this database has another version than the
 * library.  To be called inside a transaction.
 */
extern void se_require_version(void);

/* Wake the managers and workers of this database when the transaction commits. */
extern void se_wake_at_commit(void);

/* Wake them now (after a commit of a procedure). */
extern void se_wake_database(Oid database);

/*
 * To be called before a session waits for a lock that a reader may hold: the manager of this
 * database cancels a reader that keeps somebody waiting and does not come round.
 */
extern void se_wake_manager(void);

/* ---- for worker processes (worker.c) ---- */

/*
 * First lines of a worker: attach to the slot given in bgw_main_arg, install
 * signal handlers, connect to the slot's database as the bootstrap superuser,
 * pin search_path.  Detaches at exit.  Returns the slot; exits 0 when the slot
 * was given away or stop was asked.
 */
extern SeSlot *se_worker_attach(Datum main_arg, SeSlotKind kind);
extern SeSlot *se_my_slot;

/*
 * Runs a worker's loop, outside any transaction, and ends the process: with
 * code 0 when the loop returns, with code 1 after an ERROR, which is reported,
 * rolled back and left in the slot for the supervisor.  Does not return.
 */
se_noreturn extern void se_worker_run(void (*loop) (void));

/*
 * Start a transaction; the caller pushes the snapshots it needs.  Takes a lock
 * on the extension that DROP and ALTER EXTENSION wait for.  Returns false, with
 * the transaction ended, when the extension is gone or has another version; the
 * worker has to leave then (se_worker_must_stop says so as well).
 */
extern bool se_worker_begin(void);

/* Commit it, and report the statistics that autovacuum lives on. */
extern void se_worker_commit(void);

/*
 * Wait for the latch, for "fd" to become readable (-1: none) or for
 * "timeout_ms" (-1: for ever); without a snapshot, and inside a transaction only
 * when it ends soon.  Serves interrupts and reloads of the configuration.  True
 * when fd is readable.  May return early.
 */
extern bool se_worker_wait(int fd, long timeout_ms);

/*
 * To be called before a descriptor that was waited for is closed: another one
 * may get its number.
 */
extern void se_worker_forget_fd(void);

/* True when the worker must leave: SIGTERM, slot->stop, enabled = off, extension gone. */
extern bool se_worker_must_stop(void);

/* Process the configuration file if SIGHUP has been seen; se_worker_wait does it too. */
extern void se_worker_reload(void);

extern void se_worker_phase(SePhase phase); /* also pg_stat_activity */
extern bool se_worker_message(const char *message);

/* To be called now and then while all is well: forgets old failures of the slot. */
extern void se_slot_is_well(SeSlot *slot, TimestampTz now);

/* Tell waiters that a reader has committed. */
extern void se_progress_broadcast(void);

/* Implemented in src/reader: entry point of a reader's worker. */
extern PGDLLEXPORT void se_reader_main(Datum main_arg);

/*
 * Implemented in src/catalog: ids of the readers that should be running in this
 * database (inside a transaction, as superuser); palloc'd.
 */
extern int	se_catalog_wanted_readers(int32 **readers);

/*
 * Implemented in src/catalog: a reader failed (message of the error) as often as
 * max_failures: set its state to error.  Called by the manager inside a
 * transaction.
 */
extern void se_catalog_reader_failed(int32 reader, const char *message, int sqlstate);

/*
 * Implemented in src/catalog: whether the definition of a reader, whose process is "pid", is
 * another than the one that it works by, or a session of this database has waited for so long
 * for what it has locked: its row, or the stream.  Called like the above.
 */
extern bool se_catalog_reader_is_asked(int32 reader, int64 generation, int pid, int waited_ms);

/*
 * Implemented in src/catalog: whether the current user may read what a reader of this database
 * says: as owner of its stream, or of a query that it feeds.
 */
extern bool se_catalog_may_see_reader(int32 reader);

/* Have the manager make a pass soon: the state log has grown. */
extern void se_worker_wake_manager(void);

/*
 * Implemented in src/state: bound the state log; called by the manager outside a
 * transaction.  Returns after how many ms there is more to do; -1: when woken.
 */
extern long se_state_log_maintain(void);

/* ---- for sessions (control.c) ---- */

/*
 * Stop all workers of a database and keep them stopped until se_resume_database
 * or the end of the transaction.  Waits up to timeout_ms; false when some are
 * still running then (they remain asked to leave).  Workers that do not react
 * within a few seconds are terminated.
 */
extern bool se_stop_database(Oid database, int timeout_ms);
extern void se_resume_database(Oid database);

/* ---- failpoints (failpoints.c) ---- */
/*
 * stream_engine.failpoints = 'name=action[,name=action...]'; action: error, kill
 * (SIGKILL to itself), panic, exit, oom, sleep:MS (latch wait), each optionally
 * with @N: only at the N-th passing.
 */
#ifdef SE_FAILPOINTS
extern void se_failpoint(const char *name);
#define SE_FAILPOINT(name) se_failpoint(name)
#else
#define SE_FAILPOINT(name) ((void) 0)
#endif

#endif							/* SE_ENGINE_H */
