/*
 * internal.h
 *	  What the files of src/engine share with each other only.
 */
#ifndef SE_ENGINE_INTERNAL_H
#define SE_ENGINE_INTERNAL_H

#include "engine/engine.h"

/* Names a taken slot; stale as soon as somebody takes it anew. */
typedef struct SeSlotRef
{
	int			index;
	uint32		generation;
} SeSlotRef;

/* A copy of a slot, made under the lock. */
typedef struct SeSlotCopy
{
	SeSlotRef	ref;
	SeSlotKind	kind;
	SeSlotState state;
	Oid			database;
	int32		reader;
	pid_t		pid;
	bool		stop;
	TimestampTz started;
	int			sqlstate;
	int			attempts;
	int			failures;
	TimestampTz retry_at;
	SePhase		phase;
	int64		records;
	int64		bytes;
	int64		commits;
	TimestampTz last_commit;	/* 0: none */
	TimestampTz last_record;	/* 0: none */
	int64		definition;		/* 0: none */
	bool		waits;
	char		message[SE_MESSAGE_SIZE];
} SeSlotCopy;

typedef enum SeTakeResult
{
	SE_TAKE_OK,
	SE_TAKE_PRESENT,			/* one is starting or running */
	SE_TAKE_HELD,				/* the database is held: se_resume_database asks
								 * again */
	SE_TAKE_FULL				/* no free slot */
} SeTakeResult;

/* slots.c */
extern Size se_slots_size(void);
extern void se_slots_init(void *area, bool found);
extern Datum se_slot_to_datum(SeSlotRef ref);
extern SeTakeResult se_slot_take(SeSlotKind kind, Oid database, int32 reader, SeSlotRef *ref);
extern void se_slot_not_started(SeSlotRef ref, const char *message);
extern void se_slot_release(SeSlotRef ref);
extern SeSlot *se_slot_attach(Datum main_arg, SeSlotKind kind);
extern SeSlot *se_slot_attach_launcher(void);
extern void se_slot_detach(SeSlot *slot, int exit_code, int sqlstate, const char *message);
extern bool se_slot_leave(SeSlot *slot, uint32 wakes);
extern void se_slot_stop(SeSlotRef ref);
extern void se_slot_cancel(SeSlotRef ref);
extern void se_slot_wake_parent(SeSlot *slot);
extern void se_slots_wake_manager(Oid database);
extern int	se_slots_copy(SeSlotCopy *copies, Oid database);
extern void se_message_copy(char *dest, const char *message);
extern const char *se_phase_name(SePhase phase);

/* supervisor.c */
typedef enum SeStartResult
{
	SE_START_OK,
	SE_START_PRESENT,
	SE_START_HELD,
	SE_START_FAILED				/* out of slots or processes; said so */
} SeStartResult;

#define SE_POLL_INTERVAL_MS 60000	/* safety net behind each wake-up */

extern SeStartResult se_supervisor_start(SeSlotKind kind, Oid database, int32 reader);
extern void se_supervisor_check(void);
extern void se_supervisor_end_pass(void);

/* worker.c */
typedef enum SeExtensionState
{
	SE_EXTENSION_ABSENT,
	SE_EXTENSION_SKEWED,		/* another version than the library's */
	SE_EXTENSION_READY
} SeExtensionState;

extern SeExtensionState se_extension_state(Oid *oid, char **version);
extern void se_worker_prepare(SeSlot *slot);
extern void se_worker_settings(void);

/* control.c */
extern void se_control_init(void);
extern void se_wake_launcher_at_commit(void);
extern void se_wake_running_at_commit(void);
extern void se_wake_after_prepared(void);

/* Implemented in src/state: the run cache, and its locks. */
#define SE_RUN_CACHE_TRANCHE "stream_engine_run_cache"
#define SE_RUN_CACHE_PARTITIONS 16
extern Size se_run_cache_size(void);
extern void se_run_cache_init(void *area, bool found);

/* hooks.c, shmem.c, launcher.c */
extern void se_hooks_init(void);
extern void se_shmem_init(void);
extern void se_launcher_register(void);

extern PGDLLEXPORT void se_launcher_main(Datum main_arg);
extern PGDLLEXPORT void se_manager_main(Datum main_arg);

#endif							/* SE_ENGINE_INTERNAL_H */
