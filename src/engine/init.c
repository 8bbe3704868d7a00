/*-------------------------------------------------------------------------
 *
 * init.c
 *	  Loading of the library
 *
 * NOTES
 *	  In shared_preload_libraries the library has shared memory, a launcher and a
 *	  utility hook.  Loaded later, by a function of the extension, it has its
 *	  settings only: pg_dump, pg_upgrade and a look at the catalogs work, and what
 *	  needs more says so through se_require_preload().
 *
 *	  After a crash of a backend the postmaster does not call _PG_init again, but
 *	  runs the shared memory hooks on fresh memory.  So nothing here may remember
 *	  that shared memory "is initialised".
 *
 * IDENTIFICATION
 *	  src/engine/init.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat/compat.h"
#include "engine/internal.h"
#include "fmgr.h"
#include "miscadmin.h"

SE_MODULE_MAGIC(SE_EXTENSION_NAME, SE_EXTENSION_VERSION);

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	se_define_settings();

	if (!process_shared_preload_libraries_in_progress)
		return;

	se_shmem_init();
	se_control_init();
	se_hooks_init();
	se_launcher_register();
}

void
se_require_preload(void)
{
	if (se_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"%s\" must be loaded via shared_preload_libraries",
						SE_EXTENSION_NAME),
				 errhint("Set shared_preload_libraries = '%s' in postgresql.conf (after a comma if it names others) and restart the server. "
						 "max_worker_processes, now %d, must have room for 2 workers of the engine and one for each stream and each query.",
						 SE_EXTENSION_NAME, max_worker_processes)));
}
