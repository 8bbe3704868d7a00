/*-------------------------------------------------------------------------
 *
 * shmem.c
 *	  The engine's shared memory
 *
 * NOTES
 *	  A part of the engine that keeps something in shared memory has a line in
 *	  "areas": its size, asked once the settings are final, and what initialises
 *	  it.  That runs in the postmaster, at its start and again on fresh memory
 *	  after each crash of a backend.
 *
 * IDENTIFICATION
 *	  src/engine/shmem.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "engine/internal.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

typedef struct SharedArea
{
	const char *name;
	Size		(*size) (void);

	/*
	 * "found" is true in a process that attaches to an area which another one
	 * has filled (servers that start processes without fork).
	 */
	void		(*init) (void *area, bool found);
} SharedArea;

static const SharedArea areas[] =
{
	{"stream_engine slots", se_slots_size, se_slots_init},
	{"stream_engine run cache", se_run_cache_size, se_run_cache_init},
};

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void
request_shared_memory(void)
{
	int			i;

	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	for (i = 0; i < lengthof(areas); i++)
		RequestAddinShmemSpace(MAXALIGN(areas[i].size()));
	RequestNamedLWLockTranche(SE_EXTENSION_NAME, 1);
	RequestNamedLWLockTranche(SE_RUN_CACHE_TRANCHE, SE_RUN_CACHE_PARTITIONS);
}

static void
startup_shared_memory(void)
{
	int			i;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (i = 0; i < lengthof(areas); i++)
	{
		bool		found;
		void	   *area = ShmemInitStruct(areas[i].name, areas[i].size(), &found);

		areas[i].init(area, found);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
se_shmem_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shared_memory;
}
