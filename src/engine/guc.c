/*-------------------------------------------------------------------------
 *
 * guc.c
 *	  Settings of the engine
 *
 * NOTES
 *	  A setting's C variable bears its name.  Numbers are kept in the unit that
 *	  the variable's declaration in engine.h names.
 *
 * IDENTIFICATION
 *	  src/engine/guc.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "engine/engine.h"
#include "engine/failpoints.h"
#include "miscadmin.h"
#include "utils/guc.h"

bool		se_enabled = true;
int			se_max_workers = 64;
int			se_commit_interval = 1000;
int			se_max_commit_interval = 10000;
int			se_state_log_rate = 16 * 1024;
int			se_state_memory = 128 * 1024;
bool		se_state_cache = true;
int			se_worker_free_memory = 128 * 1024;
int			se_max_slices = 10000;
int			se_max_emit_rows = 20000;
int			se_retry_interval = 1000;
int			se_max_failures = 5;
int			se_ledger_retention = 24 * 60 * 60;
char	   *se_failpoints = NULL;

void
se_define_settings(void)
{
	/*
	 * What sizes shared memory is fixed at server start; in a library that was
	 * loaded later nothing reads it, and the server would refuse it.
	 */
	GucContext	at_start = process_shared_preload_libraries_in_progress ?
		PGC_POSTMASTER : PGC_SIGHUP;

	DefineCustomBoolVariable("stream_engine.enabled",
							 "Runs the workers of streams.",
							 "When off, all workers leave; streams keep their positions and continue from there when it is turned on.",
							 &se_enabled,
							 true,
							 PGC_SIGHUP,
							 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("stream_engine.max_workers",
							"Number of slots for managers and readers, in all databases together.",
							"Each worker also takes one of max_worker_processes.",
							&se_max_workers,
							64, 1, 1000,
							at_start,
							0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("stream_engine.commit_interval",
							"Time between two commits of a reader that closes no window.",
							"A window that is complete is committed at once. The interval grows up to max_commit_interval where the state log would exceed state_log_rate.",
							&se_commit_interval,
							1000, 10, 60000,
							PGC_SIGHUP,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("stream_engine.max_commit_interval",
							"Longest time between two commits of a reader that has new records.",
							NULL,
							&se_max_commit_interval,
							10000, 10, 600000,
							PGC_SIGHUP,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("stream_engine.state_log_rate",
							"Amount of state that a reader writes to its log per second before it commits less often.",
							NULL,
							&se_state_log_rate,
							16 * 1024, 64, INT_MAX,
							PGC_SIGHUP,
							GUC_UNIT_KB,
							NULL, NULL, NULL);

	DefineCustomIntVariable("stream_engine.state_memory",
							"Shared memory for the state of open windows.",
							"What does not fit is read from the state log. 0 turns the cache off.",
							&se_state_memory,
							128 * 1024, 0, INT_MAX,
							at_start,
							GUC_UNIT_KB,
							NULL, NULL, NULL);

	DefineCustomBoolVariable("stream_engine.state_cache",
							 "Reads the state of open windows from shared memory where it is there.",
							 "When off, it is read from the state log, with the same result: for tests.",
							 &se_state_cache,
							 true,
							 PGC_SUSET,
							 GUC_NOT_IN_SAMPLE,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("stream_engine.worker_free_memory",
							"Free memory that a worker keeps for the next records instead of giving it back to the operating system.",
							"Workers that start later use a new value. 0 leaves this to the C library.",
							&se_worker_free_memory,
							128 * 1024, 0, 2 * 1024 * 1024 - 1,
							PGC_SIGHUP,
							GUC_UNIT_KB,
							NULL, NULL, NULL);

	DefineCustomIntVariable("stream_engine.max_slices",
							"Largest number of slices in a hopping or cumulating window.",
							"Queries that need more are refused when they are created.",
							&se_max_slices,
							10000, 1, 1000000,
							PGC_SUSET,
							0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("stream_engine.max_emit_rows",
							"Number of rows of a closing window that a reader of several queries emits in one transaction.",
							"A larger window is emitted in several. A reader of one query emits ten times as many. 0 means no limit.",
							&se_max_emit_rows,
							20000, 0, INT_MAX,
							PGC_SIGHUP,
							0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("stream_engine.retry_interval",
							"Time before a worker that failed is started again.",
							"It doubles with each further failure, up to a minute, and is reset by a minute of healthy running.",
							&se_retry_interval,
							1000, 10, 60000,
							PGC_SIGHUP,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("stream_engine.max_failures",
							"Number of failures in a row, with the same error code, after which a reader is stopped.",
							"Its stream or query is then in state \"error\" until it is resumed. Errors that pass by themselves, such as a full disk or a lost connection, are not counted.",
							&se_max_failures,
							5, 1, 1000,
							PGC_SIGHUP,
							0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("stream_engine.ledger_retention",
							"Time for which the ledger of commits is kept.",
							NULL,
							&se_ledger_retention,
							24 * 60 * 60, 60, INT_MAX,
							PGC_SIGHUP,
							GUC_UNIT_S,
							NULL, NULL, NULL);

#ifdef SE_FAILPOINTS
	DefineCustomStringVariable("stream_engine.failpoints",
							   "Failures to provoke, for tests.",
							   "A list of name=action; action is error, kill, panic, exit, oom or sleep:MS, with @N for the N-th passing only.",
							   &se_failpoints,
							   "",
							   PGC_SUSET,
							   GUC_SUPERUSER_ONLY | GUC_NOT_IN_SAMPLE,
							   se_failpoints_check, se_failpoints_assign, NULL);
#endif

	MarkGUCPrefixReserved(SE_EXTENSION_NAME);
}
