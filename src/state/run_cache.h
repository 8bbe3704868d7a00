/*
 * run_cache.h
 *	  The run cache: runs of the state log in shared memory.
 *
 * NOTES
 *	  Used by state_log.c only, which goes to the table for what is not here: every
 *	  function that reads says whether it could.  Nobody may rely on the cache for
 *	  anything but speed.
 *
 *	  run_cache.c: memory, eviction; run_cache_read.c: readers; run_cache_write.c: the
 *	  reader's process, which alone writes the runs of its queries.
 */
#ifndef SE_RUN_CACHE_H
#define SE_RUN_CACHE_H

#include "postgres.h"

#include "state/state_log.h"

/* A state of a query: what the commit "seq" of a reader has left. */
typedef struct SeCacheView
{
	Oid			log;			/* the table, for ids begin anew in another one */
	int32		reader;
	int64		generation;
	int64		seq;
} SeCacheView;

/* One chunk of the log. */
typedef struct SeCacheChunk
{
	int64		seq;			/* as in the log */
	uint32		hash_low;
	uint32		hash_high;
	int32		ngroups;		/* negative: tombstones */
	uint32		size;
	const char *bytes;
} SeCacheChunk;

/* What the log holds of a slice. */
typedef struct SeCacheSliceInfo
{
	TimestampTz start;
	TimestampTz end;
	int			nruns;
	int64		entries;
	int64		largest;
	int64		bytes;
} SeCacheSliceInfo;

/* False when there is no shared memory for it: nothing else here does anything then. */
extern bool se_run_cache_enabled(void);

/* ---- readers ---- */

/*
 * Hand the chunks of a slice, as of "view", with seq > "seq" and hashes within the
 * range to "reader", in the order of the log.  False when they are not here, before
 * anything has been handed over.  With view NULL the state is that of the last commit of this
 * process, which must feed the query.  The bytes are valid during the call, which may
 * raise errors.
 */
typedef void (*SeCacheReader) (void *arg, const SeCacheChunk *chunk);
extern bool se_run_cache_read(const SeCacheView *view, int32 query, TimestampTz start,
							  TimestampTz end, int64 seq, uint32 hash_low, uint32 hash_high,
							  SeCacheReader reader, void *arg);

/*
 * All slices of the query that have state as of "view", ascending, palloc'd; false when
 * they are not known.  The numbers of runs and entries may be younger.
 */
extern bool se_run_cache_slices(const SeCacheView *view, int32 query, SeCacheSliceInfo **slices,
								int *nslices);

/* ---- the process that feeds queries ---- */

/* Take a query over, as of "view"; its slices follow, none of them cached; then end. */
extern bool se_run_cache_attach(const SeCacheView *view, int32 query);
extern void se_run_cache_attach_slice(int32 query, const SeCacheSliceInfo *slice);
extern void se_run_cache_attach_end(int32 query);

/* Whether this process feeds any. */
extern bool se_run_cache_feeds(void);

/* Give up all queries; also done when the process ends. */
extern void se_run_cache_release(void);

/*
 * In the transaction that makes "view" the state of the queries attached with its reader
 * and generation: begin; what is appended to and deleted from the log.  It takes
 * effect when the transaction commits, without errors; when it aborts, nothing has
 * happened.
 */
extern void se_run_cache_begin(int32 reader, int64 generation, int64 seq);
extern void se_run_cache_append(int32 query, TimestampTz start, TimestampTz end,
								const SeCacheChunk *chunk);
extern void se_run_cache_delete(int32 query, TimestampTz start, TimestampTz end);

/* A query that was given up for lack of room and may be attached again, as of before. */
extern bool se_run_cache_next_broken(int32 *query);

/*
 * Slices that somebody has missed, and that fit into free memory: the next one, to be filled with
 * what the log held before this transaction.
 */
extern bool se_run_cache_next_wanted(int32 *query, TimestampTz *start, TimestampTz *end);
/*
 * Whether a session has read slices of the query from the log, and they fit into free memory; or
 * (*unfolded) has read many runs where few would do.  Once; the process may then
 * commit though nothing else asks for it.
 */
extern bool se_run_cache_asked(int32 query, bool *unfolded);
extern void se_run_cache_fill(int32 query, TimestampTz start, TimestampTz end,
							  const SeCacheChunk *chunk);

#endif							/* SE_RUN_CACHE_H */
