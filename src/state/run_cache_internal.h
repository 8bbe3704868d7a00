/*
 * run_cache_internal.h
 *	  Shared by the files of the run cache; nobody else includes it.
 */
#ifndef SE_RUN_CACHE_INTERNAL_H
#define SE_RUN_CACHE_INTERNAL_H

#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#include "state/run_cache.h"

#define CACHE_PAGE_SIZE 8192
#define QUERIES_PER_PARTITION 64
#define NONE (-1)				/* no page, no slice */

/* One slice may hold this share of the memory: 1 / MAX_SLICE_SHARE. */
#define MAX_SLICE_SHARE 2

/* Chunks follow each other in "data", each behind its header, aligned. */
typedef struct RunPage
{
	int32		next;
	int32		used;			/* bytes of data */
	/* of the first page of a list that readers have seen */
	pg_atomic_uint32 pins;
	bool		dead;			/* unlinked while pinned: the last unpin frees it */
	int32		tail;			/* of a dead list */
	int32		npages;
	char		data[FLEXIBLE_ARRAY_MEMBER];
} RunPage;

#define PAGE_DATA (CACHE_PAGE_SIZE - (int32) offsetof(RunPage, data))

typedef struct RunChunk
{
	int64		seq;			/* the log's */
	int64		commit;			/* that made it visible */
	uint32		hash_low;
	uint32		hash_high;
	int32		ngroups;
	uint32		size;
	char		bytes[FLEXIBLE_ARRAY_MEMBER];
} RunChunk;

#define CHUNK_SPACE(size) (offsetof(RunChunk, bytes) + MAXALIGN(size))

typedef struct PageList
{
	int32		head;
	int32		tail;
	int32		n;
} PageList;

typedef struct CacheSlice
{
	int32		partition;		/* NONE: free; "next" is the free list then */
	int32		query;			/* index in the partition */
	int32		bucket_next;
	int32		previous;		/* slices of the query */
	int32		next;
	bool		complete;		/* "pages" hold all that the log does */
	bool		referenced;		/* since the clock's hand passed */
	bool		wanted;			/* somebody missed it */
	bool		too_large;		/* is never filled */
	TimestampTz start;
	TimestampTz end;
	int64		born;			/* the commit of its first run */
	int64		since;			/* complete for the states from this commit on */
	PageList	pages;
	/* what the log holds */
	int32		nruns;
	int64		entries;
	int64		largest;
	int64		bytes;
} CacheSlice;

typedef struct CacheQuery
{
	bool		used;
	bool		valid;			/* may be read */
	bool		wanted;			/* a slice is */
	bool		asked;			/* a session has been slow for what a commit can mend */
	Oid			database;
	int32		query;
	int			owner;			/* process id */
	SeCacheView view;			/* its seq: the commit whose runs are all linked */
	int64		slices_since;	/* the last commit that removed a slice */
	int32		first_slice;
	int32		nslices;
	int32		npages;
	pg_atomic_uint64 hits;		/* reads of slices */
	pg_atomic_uint64 misses;
	uint64		evictions;
	uint64		refusals;
} CacheQuery;

/*
 * A partition is protected by its lock: its queries, their slices with all fields but
 * "referenced", "wanted" and "asked", which are hints, and the bytes of linked pages, which
 * never change.  Held for loads and stores, never across an allocation in the
 * process, and one at a time.
 */
typedef struct CachePartition
{
	CacheQuery	queries[QUERIES_PER_PARTITION];
} CachePartition;

typedef struct RunCache
{
	slock_t		mutex;			/* protects the free lists */
	int32		free_page;
	int32		free_slice;
	int32		nfree;			/* pages */
	int32		nfree_slices;
	int32		npages;
	int32		nslices;
	int32		nbuckets;		/* of a partition; a power of two */
	pg_atomic_uint32 hand;
	CachePartition partitions[FLEXIBLE_ARRAY_MEMBER];
} RunCache;

extern RunCache *run_cache;
extern CacheSlice *run_cache_slices;

/* run_cache.c */
extern RunPage *cache_page(int32 page);
extern LWLock *cache_lock(int partition);
extern int	cache_partition(int32 query);
extern CacheQuery *cache_query(int partition, int32 query);
extern CacheSlice *cache_slice(int partition, const CacheQuery *query, TimestampTz start,
							   TimestampTz end);
extern void cache_slice_insert(CacheSlice *slice, int partition, CacheQuery *query);
extern void cache_slice_remove(CacheSlice *slice, CacheQuery *query);
extern int32 cache_slice_alloc(void);
extern void cache_slice_free(int32 slice);
extern int32 cache_page_alloc(bool evict);
extern void cache_pages_free(PageList *list);
extern void cache_slice_drop_pages(CacheSlice *slice, CacheQuery *query);

/* Whether it may be folded while nothing else is to be done. */
static inline bool
cache_slice_is_unfolded(const CacheSlice *slice)
{
	return se_slice_is_unfolded(slice->nruns, slice->entries, slice->largest);
}

static inline void
page_list_init(PageList *list)
{
	list->head = list->tail = NONE;
	list->n = 0;
}

#endif							/* SE_RUN_CACHE_INTERNAL_H */
