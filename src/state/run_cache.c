/*
 * run_cache.c
 *	  The run cache: memory, directory, eviction.
 *
 * NOTES
 *	  The cache holds runs of the state log in fixed pages of shared memory, of
 *	  stream_engine.state_memory in all.  It mirrors the log: a slice's pages hold the
 *	  chunks that the log has for it, in the same order, each with the number of the
 *	  commit that wrote it.  A state is named by (reader, generation, seq), which each
 *	  commit of a reader changes in its row; so whoever has a snapshot knows which
 *	  state he sees, and reads the chunks whose commit is not behind it.  What a
 *	  later commit has taken away (a slice that closed, runs that were folded into one)
 *	  is not kept: "since" says from which state on a slice is complete, "slices_since"
 *	  the same of a query's list of slices.  Whoever sees an older state reads the log, which
 *	  has it, for his snapshot keeps the rows.  So the answer is that of the log, always.
 *
 *	  Memory: pages are on the free list, or in the list of one slice, or staged: taken
 *	  by a process for a commit that is still to come, and known to it alone, which
 *	  gives them back when the transaction aborts, also on the way out.  A process that
 *	  dies without that takes all shared memory with it.
 *
 *	  Pins: a reader of pages holds a pin on the list and no lock.  A list that is unlinked
 *	  while pinned is freed by the last unpin.  The end of the list is that of the
 *	  moment of pinning: more may be linked behind it meanwhile.
 *
 *	  Locking: one LWLock for the queries of a partition, and a spinlock for the free lists.
 *	  A commit takes the lock of a query once, a read of a slice twice; nothing takes
 *	  two of them.
 *
 *	  Eviction: when there is no free page, the clock's hand looks for a slice that nobody
 *	  has touched since it passed.  It waits for no lock, and gives up after two rounds; then
 *	  the slice for which the page was wanted is left to the log.  Open slices that grow are
 *	  touched by each commit, so when they alone exceed the memory, part of them is cached
 *	  and the cache does not churn.  What was evicted, or was in the log before the
 *	  process began, is filled again by a later commit if somebody misses it and
 *	  there are free pages.
 *
 *	  Cost: a chunk of 8000 bytes is copied once when it is written, 0.4 us, and saves 2.8 us
 *	  each time it is read; decoding and merging it takes 10 us either way.  So a
 *	  close or a fold gains a fifth, and a whole job, in which state takes few per cent, the
 *	  same within what can be measured (test/bench.sh, 8 to 100,000 keys).  It is
 *	  written on that path all the same, because that is the only place that knows the runs: what
 *	  gains are long windows, which are read many times, and _live.
 *
 *	  Not done: growing hash tables in place.  They could not show an older state, and growth
 *	  could fail after the commit.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/shmem.h"

#include "engine/internal.h"
#include "state/run_cache_internal.h"

/* Fewer pages than this are not worth having. */
#define MIN_PAGES 16

/* Slices in the directory, cached or not, for each page. */
#define SLICES_PER_PAGE 2

/* Pages for each bucket of a partition: all slices may be of one query. */
#define PAGES_PER_BUCKET 2

RunCache   *run_cache;
CacheSlice *run_cache_slices;
static int32 *buckets;
static char *pages;

/* ---- layout ---- */

static int32
configured_pages(void)
{
	int64		per_page = CACHE_PAGE_SIZE + sizeof(CacheSlice) * SLICES_PER_PAGE +
		SE_RUN_CACHE_PARTITIONS * 2 * sizeof(int32) / PAGES_PER_BUCKET;
	int64		n = (int64) se_state_memory * 1024 / per_page;

	return n < MIN_PAGES ? 0 : (int32) n;
}

static int32
configured_buckets(int32 npages)
{
	int32		n = 1;

	while (n < npages / PAGES_PER_BUCKET)
		n *= 2;
	return n;
}

static Size
header_size(void)
{
	return MAXALIGN(offsetof(RunCache, partitions) +
					sizeof(CachePartition) * SE_RUN_CACHE_PARTITIONS);
}

Size
se_run_cache_size(void)
{
	int32		n = configured_pages();
	Size		size;

	if (n == 0)
		return MAXALIGN(1);
	size = add_size(header_size(), mul_size(n * SLICES_PER_PAGE, sizeof(CacheSlice)));
	size = add_size(size, MAXALIGN(mul_size(configured_buckets(n) * SE_RUN_CACHE_PARTITIONS,
											sizeof(int32))));
	return add_size(size, mul_size(n, CACHE_PAGE_SIZE));
}

void
se_run_cache_init(void *area, bool found)
{
	int32		n = configured_pages();
	char	   *at = area;
	int32		nbuckets = configured_buckets(n);

	if (n == 0)
		return;
	run_cache = area;
	at += header_size();
	run_cache_slices = (CacheSlice *) at;
	at += n * SLICES_PER_PAGE * sizeof(CacheSlice);
	buckets = (int32 *) at;
	at += MAXALIGN(nbuckets * SE_RUN_CACHE_PARTITIONS * sizeof(int32));
	pages = at;
	if (found)
		return;

	memset(run_cache, 0, header_size());
	SpinLockInit(&run_cache->mutex);
	pg_atomic_init_u32(&run_cache->hand, 0);
	run_cache->npages = run_cache->nfree = n;
	run_cache->nslices = run_cache->nfree_slices = n * SLICES_PER_PAGE;
	run_cache->nbuckets = nbuckets;
	for (int p = 0; p < SE_RUN_CACHE_PARTITIONS; p++)
		for (int q = 0; q < QUERIES_PER_PARTITION; q++)
		{
			pg_atomic_init_u64(&run_cache->partitions[p].queries[q].hits, 0);
			pg_atomic_init_u64(&run_cache->partitions[p].queries[q].misses, 0);
		}
	for (int32 i = 0; i < nbuckets * SE_RUN_CACHE_PARTITIONS; i++)
		buckets[i] = NONE;
	for (int32 i = 0; i < run_cache->nslices; i++)
	{
		run_cache_slices[i].partition = NONE;
		run_cache_slices[i].next = i + 1 < run_cache->nslices ? i + 1 : NONE;
	}
	for (int32 i = 0; i < n; i++)
	{
		cache_page(i)->next = i + 1 < n ? i + 1 : NONE;
		pg_atomic_init_u32(&cache_page(i)->pins, 0);
	}
}

bool
se_run_cache_enabled(void)
{
	return run_cache != NULL;
}

RunPage *
cache_page(int32 page)
{
	return (RunPage *) (pages + (Size) page * CACHE_PAGE_SIZE);
}

/* ---- directory ---- */

LWLock *
cache_lock(int partition)
{
	return &GetNamedLWLockTranche(SE_RUN_CACHE_TRANCHE)[partition].lock;
}

int
cache_partition(int32 query)
{
	return hash_combine(murmurhash32(MyDatabaseId), murmurhash32((uint32) query)) %
		SE_RUN_CACHE_PARTITIONS;
}

/* The query of this database; NULL if it is not there. */
CacheQuery *
cache_query(int partition, int32 query)
{
	CacheQuery *queries = run_cache->partitions[partition].queries;

	for (int i = 0; i < QUERIES_PER_PARTITION; i++)
		if (queries[i].used && queries[i].query == query && queries[i].database == MyDatabaseId)
			return &queries[i];
	return NULL;
}

static int32 *
bucket_of(int partition, int32 query, TimestampTz start, TimestampTz end)
{
	TimestampTz key[2] = {start, end};
	uint32		hash = hash_bytes((const unsigned char *) key, sizeof(key));

	hash = hash_combine(hash, murmurhash32((uint32) query));
	return &buckets[partition * run_cache->nbuckets + (hash & (run_cache->nbuckets - 1))];
}

CacheSlice *
cache_slice(int partition, const CacheQuery *query, TimestampTz start, TimestampTz end)
{
	int32		index = (int32) (query - run_cache->partitions[partition].queries);
	int32		i = *bucket_of(partition, index, start, end);

	while (i != NONE)
	{
		CacheSlice *slice = &run_cache_slices[i];

		if (slice->query == index && slice->start == start && slice->end == end)
			return slice;
		i = slice->bucket_next;
	}
	return NULL;
}

void
cache_slice_insert(CacheSlice *slice, int partition, CacheQuery *query)
{
	int32		i = (int32) (slice - run_cache_slices);
	int32	   *bucket;

	slice->query = (int32) (query - run_cache->partitions[partition].queries);
	bucket = bucket_of(partition, slice->query, slice->start, slice->end);
	slice->bucket_next = *bucket;
	*bucket = i;
	slice->previous = NONE;
	slice->next = query->first_slice;
	if (slice->next != NONE)
		run_cache_slices[slice->next].previous = i;
	query->first_slice = i;
	query->nslices++;
	slice->partition = partition;
}

/* Take a slice without pages out of the directory and free it. */
void
cache_slice_remove(CacheSlice *slice, CacheQuery *query)
{
	int32		i = (int32) (slice - run_cache_slices);
	int32	   *link = bucket_of(slice->partition, slice->query, slice->start, slice->end);

	while (*link != i)
		link = &run_cache_slices[*link].bucket_next;
	*link = slice->bucket_next;
	if (slice->previous != NONE)
		run_cache_slices[slice->previous].next = slice->next;
	else
		query->first_slice = slice->next;
	if (slice->next != NONE)
		run_cache_slices[slice->next].previous = slice->previous;
	query->nslices--;
	cache_slice_free(i);
}

/* ---- memory ---- */

/* An empty slice that is in no directory yet, or NONE. */
int32
cache_slice_alloc(void)
{
	int32		i;

	SpinLockAcquire(&run_cache->mutex);
	i = run_cache->free_slice;
	if (i != NONE)
	{
		run_cache->free_slice = run_cache_slices[i].next;
		run_cache->nfree_slices--;
	}
	SpinLockRelease(&run_cache->mutex);
	if (i != NONE)
	{
		CacheSlice *slice = &run_cache_slices[i];

		memset(slice, 0, sizeof(CacheSlice));
		slice->partition = NONE;
		page_list_init(&slice->pages);
	}
	return i;
}

void
cache_slice_free(int32 slice)
{
	SpinLockAcquire(&run_cache->mutex);
	run_cache_slices[slice].partition = NONE;
	run_cache_slices[slice].next = run_cache->free_slice;
	run_cache->free_slice = slice;
	run_cache->nfree_slices++;
	SpinLockRelease(&run_cache->mutex);
}

void
cache_pages_free(PageList *list)
{
	if (list->n > 0)
	{
		RunPage    *tail = cache_page(list->tail);

		SpinLockAcquire(&run_cache->mutex);
		tail->next = run_cache->free_page;
		run_cache->free_page = list->head;
		run_cache->nfree += list->n;
		SpinLockRelease(&run_cache->mutex);
	}
	page_list_init(list);
}

/* Unlink a slice's pages; what is pinned goes with its last pin.  Under the lock. */
void
cache_slice_drop_pages(CacheSlice *slice, CacheQuery *query)
{
	query->npages -= slice->pages.n;
	if (slice->pages.n > 0)
	{
		RunPage    *head = cache_page(slice->pages.head);

		if (pg_atomic_read_u32(&head->pins) > 0)
		{
			head->tail = slice->pages.tail;
			head->npages = slice->pages.n;
			head->dead = true;
			page_list_init(&slice->pages);
		}
		else
			cache_pages_free(&slice->pages);
	}
	slice->complete = false;
}

/* Take the pages of a slice that has not been touched lately.  False: there is none. */
static bool
evict_slice(void)
{
	for (int32 i = 0; i < 2 * run_cache->nslices; i++)
	{
		uint32		hand = pg_atomic_fetch_add_u32(&run_cache->hand, 1) % run_cache->nslices;
		CacheSlice *slice = &run_cache_slices[hand];
		int			partition = slice->partition;
		bool		freed = false;

		/* a look without the lock, repeated under it */
		if (partition == NONE || slice->pages.n == 0)
			continue;
		if (slice->referenced)
		{
			slice->referenced = false;
			continue;
		}
		if (!LWLockConditionalAcquire(cache_lock(partition), LW_EXCLUSIVE))
			continue;
		if (slice->partition == partition && slice->pages.n > 0 &&
			pg_atomic_read_u32(&cache_page(slice->pages.head)->pins) == 0)
		{
			CacheQuery *query = &run_cache->partitions[partition].queries[slice->query];

			cache_slice_drop_pages(slice, query);
			query->evictions++;
			freed = true;
		}
		LWLockRelease(cache_lock(partition));
		if (freed)
			return true;
	}
	return false;
}

/* An empty page, known to the caller alone, or NONE. */
int32
cache_page_alloc(bool evict)
{
	for (;;)
	{
		int32		i;

		SpinLockAcquire(&run_cache->mutex);
		i = run_cache->free_page;
		if (i != NONE)
		{
			run_cache->free_page = cache_page(i)->next;
			run_cache->nfree--;
		}
		SpinLockRelease(&run_cache->mutex);
		if (i != NONE)
		{
			RunPage    *page = cache_page(i);

			page->next = NONE;
			page->used = 0;
			page->dead = false;
			return i;
		}
		if (!evict || !evict_slice())
			return NONE;
	}
}
