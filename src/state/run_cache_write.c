/*
 * run_cache_write.c
 *	  The run cache: what a commit changes.
 *
 * NOTES
 *	  Only the process that feeds a query changes its slices, but for eviction.  What a
 *	  transaction appends is staged in pages of its own before COMMIT, and linked by
 *	  the callback behind it, with stores and small copies: nothing is allocated then
 *	  and nothing can fail.  A transaction that aborts gives the pages back.  Between
 *	  COMMIT and the callback there are snapshots that see more than is linked;
 *	  their readers go to the log.
 *
 *	  Deletion and appending of one slice in one transaction, in whatever order, leave what
 *	  was appended: so does the log, whose delete does not see the appended rows.
 *	  Tombstones come behind the runs of their commit, as in the order of the log.
 *
 *	  A query whose slices are more than the directory has room for is not cached, until
 *	  there is room and it is attached again, from the log.
 *
 *	  When a page cannot be had, or a subtransaction that touched the slice
 *	  aborts, the slice is left to the log: its pages are dropped, and it stays in the
 *	  list of slices as one that is not cached.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "engine/engine.h"
#include "engine/internal.h"
#include "state/run_cache_internal.h"

/* Bytes that one commit fills at most, for those who have missed them. */
#define FILL_BYTES (4 * 1024 * 1024)

/* Commits until a query that had too many slices is tried again. */
#define RETRY_COMMITS 64

typedef struct StagedKey
{
	int32		query;
	int32		padding;
	TimestampTz start;
	TimestampTz end;
} StagedKey;

/* A commit appends runs, and tombstones in front of them and behind them. */
#define MAX_STAGED_SEQS 3

typedef struct StagedChunks
{
	int64		seq;
	PageList	pages;
} StagedChunks;

/* A slice that the running transaction changes. */
typedef struct StagedSlice
{
	StagedKey	key;
	struct StagedSlice *next;	/* of the query */
	int32		slice;			/* NONE: more than can be kept */
	bool		created;		/* not in the directory yet */
	bool		deleted;		/* what was there before this transaction */
	bool		refused;		/* the log has it */
	bool		too_large;
	SubTransactionId touched;
	PageList	fill;			/* from the log, as before this transaction */
	/* what was appended */
	StagedChunks appended[MAX_STAGED_SEQS]; /* ascending */
	int			nappended;
	int64		last_seq;
	int64		run;
	int32		nruns;
	int64		entries;
	int64		largest;
	int64		bytes;
} StagedSlice;

typedef struct Attached
{
	int32		query;
	int			partition;
	CacheQuery *shared;
	StagedSlice *staged;
	bool		broken;			/* there is no room for its slices */
	int			commits;		/* since it broke */
} Attached;

static Attached *attached;
static int	nattached;
static int	attached_capacity;

/* The transaction. */
static MemoryContext staging_context;
static HTAB *staged_slices;
static StagedSlice *last_staged;
static bool begun;
static int32 commit_reader;
static int64 commit_generation;
static int64 commit_seq;
static bool exhausted;			/* no page could be had */
static int64 filled;

/* ---- attaching ---- */

static Attached *
find_attached(int32 query)
{
	for (int i = 0; i < nattached; i++)
		if (attached[i].query == query)
			return &attached[i];
	return NULL;
}

bool
se_run_cache_feeds(void)
{
	return nattached > 0;
}

/* Whether we still feed it; the lock is held. */
static bool
is_mine(const Attached *a)
{
	return a->shared->used && a->shared->owner == MyProcPid && a->shared->query == a->query &&
		a->shared->database == MyDatabaseId;
}

/* Remove a query and all of its slices; the lock is held. */
static void
remove_query(CacheQuery *query)
{
	while (query->first_slice != NONE)
	{
		CacheSlice *slice = &run_cache_slices[query->first_slice];

		cache_slice_drop_pages(slice, query);
		cache_slice_remove(slice, query);
	}
	query->used = query->valid = false;
}

static void discard_staged(void);

void
se_run_cache_release(void)
{
	discard_staged();
	for (int i = 0; i < nattached; i++)
	{
		LWLock	   *lock = cache_lock(attached[i].partition);

		LWLockAcquire(lock, LW_EXCLUSIVE);
		if (is_mine(&attached[i]))
			remove_query(attached[i].shared);
		LWLockRelease(lock);
	}
	nattached = 0;
}

static void
release_at_exit(int code, Datum arg)
{
	/* a FATAL can come from anywhere */
	LWLockReleaseAll();
	se_run_cache_release();
}

static void end_transaction(XactEvent event, void *arg);
static void end_subtransaction(SubXactEvent event, SubTransactionId mine,
							   SubTransactionId parent, void *arg);

static void
start_writing(void)
{
	if (staging_context != NULL)
		return;
	RegisterXactCallback(end_transaction, NULL);
	RegisterSubXactCallback(end_subtransaction, NULL);
	before_shmem_exit(release_at_exit, (Datum) 0);
	staging_context = AllocSetContextCreate(TopMemoryContext, "stream_engine run cache",
											ALLOCSET_DEFAULT_SIZES);
}

bool
se_run_cache_attach(const SeCacheView *view, int32 query)
{
	int			partition = cache_partition(query);
	CacheQuery *queries = run_cache->partitions[partition].queries;
	CacheQuery *shared;
	Attached   *a = find_attached(query);
	MemoryContext old;

	start_writing();
	if (a == NULL && nattached == attached_capacity)
	{
		old = MemoryContextSwitchTo(TopMemoryContext);
		attached_capacity = Max(attached_capacity * 2, 8);
		attached = attached ? repalloc(attached, sizeof(Attached) * attached_capacity) :
			palloc(sizeof(Attached) * attached_capacity);
		MemoryContextSwitchTo(old);
	}
	LWLockAcquire(cache_lock(partition), LW_EXCLUSIVE);
	shared = cache_query(partition, query);
	if (shared != NULL)
		remove_query(shared);
	else
		for (int i = 0; i < QUERIES_PER_PARTITION && shared == NULL; i++)
			if (!queries[i].used)
				shared = &queries[i];
	if (shared != NULL)
	{
		shared->used = true;
		shared->valid = shared->wanted = shared->asked = false;
		shared->database = MyDatabaseId;
		shared->query = query;
		shared->owner = MyProcPid;
		shared->view = *view;
		shared->slices_since = view->seq;
		shared->first_slice = NONE;
		shared->nslices = shared->npages = 0;
		pg_atomic_write_u64(&shared->hits, 0);
		pg_atomic_write_u64(&shared->misses, 0);
		shared->evictions = shared->refusals = 0;
	}
	LWLockRelease(cache_lock(partition));
	if (shared == NULL)
		return false;
	if (a == NULL)
		a = &attached[nattached++];
	memset(a, 0, sizeof(Attached));
	a->query = query;
	a->partition = partition;
	a->shared = shared;
	return true;
}

void
se_run_cache_attach_slice(int32 query, const SeCacheSliceInfo *info)
{
	Attached   *a = find_attached(query);
	int32		i;
	CacheSlice *slice;

	if (a == NULL || a->broken)
		return;
	i = cache_slice_alloc();
	if (i == NONE)
	{
		a->broken = true;
		return;
	}
	slice = &run_cache_slices[i];
	slice->start = info->start;
	slice->end = info->end;
	slice->born = slice->since = a->shared->view.seq;
	slice->nruns = info->nruns;
	slice->entries = info->entries;
	slice->largest = info->largest;
	slice->bytes = info->bytes;
	LWLockAcquire(cache_lock(a->partition), LW_EXCLUSIVE);
	cache_slice_insert(slice, a->partition, a->shared);
	LWLockRelease(cache_lock(a->partition));
}

void
se_run_cache_attach_end(int32 query)
{
	Attached   *a = find_attached(query);

	if (a == NULL)
		return;
	LWLockAcquire(cache_lock(a->partition), LW_EXCLUSIVE);
	if (a->broken)
		remove_query(a->shared);
	else
		a->shared->valid = true;
	LWLockRelease(cache_lock(a->partition));
}

bool
se_run_cache_next_broken(int32 *query)
{
	if (run_cache->nfree_slices < run_cache->nslices / 4)
		return false;
	for (int i = 0; begun && i < nattached; i++)
		if (attached[i].broken && attached[i].commits >= RETRY_COMMITS)
		{
			attached[i].commits = 0;
			*query = attached[i].query;
			return true;
		}
	return false;
}

/* ---- staging ---- */

void
se_run_cache_begin(int32 reader, int64 generation, int64 seq)
{
	if (nattached == 0)
		return;
	begun = true;
	commit_reader = reader;
	commit_generation = generation;
	commit_seq = seq;
}

static void
refuse(StagedSlice *staged)
{
	cache_pages_free(&staged->fill);
	for (int i = 0; i < staged->nappended; i++)
		cache_pages_free(&staged->appended[i].pages);
	staged->refused = true;
}

/* What this transaction does to a slice; NULL when the query is not cached. */
static StagedSlice *
stage(int32 query, TimestampTz start, TimestampTz end)
{
	StagedKey	key = {query, 0, start, end};
	Attached   *a;
	CacheSlice *slice;
	StagedSlice *staged = last_staged;
	bool		found;

	if (nattached == 0)
		return NULL;
	if (staged == NULL || memcmp(&staged->key, &key, sizeof(key)) != 0)
	{
		a = find_attached(query);
		if (a == NULL || a->broken)
			return NULL;
		if (staged_slices == NULL)
		{
			HASHCTL		ctl = {0};

			ctl.keysize = sizeof(StagedKey);
			ctl.entrysize = sizeof(StagedSlice);
			ctl.hcxt = staging_context;
			staged_slices = hash_create("stream_engine staged slices", 64, &ctl,
										HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		}
		staged = hash_search(staged_slices, &key, HASH_ENTER, &found);
		if (!found)
		{
			memset((char *) staged + sizeof(StagedKey), 0,
				   sizeof(StagedSlice) - sizeof(StagedKey));
			page_list_init(&staged->fill);
			LWLockAcquire(cache_lock(a->partition), LW_SHARED);
			slice = cache_slice(a->partition, a->shared, start, end);
			staged->slice = slice ? (int32) (slice - run_cache_slices) : NONE;
			staged->refused = slice && !slice->complete;
			LWLockRelease(cache_lock(a->partition));
			if (slice == NULL)
			{
				staged->created = true;
				staged->slice = cache_slice_alloc();
				if (staged->slice == NONE)
					a->broken = true;
			}
			staged->next = a->staged;
			a->staged = staged;
		}
		last_staged = staged;
	}
	staged->touched = GetCurrentSubTransactionId();
	return staged;
}

static int
staged_pages(const StagedSlice *staged)
{
	int			n = staged->fill.n;

	for (int i = 0; i < staged->nappended; i++)
		n += staged->appended[i].pages.n;
	return n;
}

/*
 * Where chunks with a seq are put, so that the slice has them in the order of seq, as the
 * log; NULL if there are too many.
 */
static PageList *
pages_of_seq(StagedSlice *staged, int64 seq)
{
	int			i = staged->nappended;

	while (i > 0 && staged->appended[i - 1].seq > seq)
		i--;
	if (i > 0 && staged->appended[i - 1].seq == seq)
		return &staged->appended[i - 1].pages;
	if (staged->nappended == MAX_STAGED_SEQS)
		return NULL;
	memmove(&staged->appended[i + 1], &staged->appended[i],
			sizeof(StagedChunks) * (staged->nappended - i));
	staged->nappended++;
	staged->appended[i].seq = seq;
	page_list_init(&staged->appended[i].pages);
	return &staged->appended[i].pages;
}

static bool
put_chunk(StagedSlice *staged, PageList *list, const SeCacheChunk *chunk, int64 commit,
		  bool evict)
{
	int32		space = (int32) CHUNK_SPACE(chunk->size);
	RunPage    *page;
	RunChunk   *stored;

	if (chunk->size > PAGE_DATA || space > PAGE_DATA ||
		staged_pages(staged) >= run_cache->npages / MAX_SLICE_SHARE)
	{
		staged->too_large = true;
		return false;
	}
	if (list->n == 0 || cache_page(list->tail)->used + space > PAGE_DATA)
	{
		int32		i = exhausted ? NONE : cache_page_alloc(evict);

		if (i == NONE)
		{
			/* not for each further slice the same search */
			exhausted = evict;
			return false;
		}
		if (list->n > 0)
			cache_page(list->tail)->next = i;
		else
			list->head = i;
		list->tail = i;
		list->n++;
	}
	page = cache_page(list->tail);
	stored = (RunChunk *) (page->data + page->used);
	stored->seq = chunk->seq;
	stored->commit = commit;
	stored->hash_low = chunk->hash_low;
	stored->hash_high = chunk->hash_high;
	stored->ngroups = chunk->ngroups;
	stored->size = chunk->size;
	memcpy(stored->bytes, chunk->bytes, chunk->size);
	page->used += space;
	return true;
}

void
se_run_cache_append(int32 query, TimestampTz start, TimestampTz end, const SeCacheChunk *chunk)
{
	StagedSlice *staged = stage(query, start, end);
	int32		ngroups = abs(chunk->ngroups);

	if (staged == NULL)
		return;
	if (staged->nruns == 0 || staged->last_seq != chunk->seq)
	{
		staged->nruns++;
		staged->run = 0;
	}
	staged->last_seq = chunk->seq;
	staged->run += ngroups;
	staged->largest = Max(staged->largest, staged->run);
	staged->entries += ngroups;
	staged->bytes += chunk->size;
	if (!staged->refused)
	{
		PageList   *pages = pages_of_seq(staged, chunk->seq);

		if (pages == NULL || !put_chunk(staged, pages, chunk, commit_seq, true))
			refuse(staged);
	}
}

void
se_run_cache_delete(int32 query, TimestampTz start, TimestampTz end)
{
	StagedSlice *staged = stage(query, start, end);

	if (staged == NULL)
		return;
	cache_pages_free(&staged->fill);
	staged->deleted = true;
	/* what the log has from here on will be appended, all of it */
	if (staged->nruns == 0)
		staged->refused = false;
}

/* ---- filling ---- */

static bool
is_staged(int32 query, TimestampTz start, TimestampTz end)
{
	StagedKey	key = {query, 0, start, end};

	return staged_slices != NULL &&
		hash_search(staged_slices, &key, HASH_FIND, NULL) != NULL;
}

/* The next slice of a query that somebody has missed and that fits. */
static bool
next_wanted_slice(Attached *a, TimestampTz *start, TimestampTz *end)
{
	bool		found = false;
	int64		room = Min((int64) run_cache->nfree * CACHE_PAGE_SIZE / 2, FILL_BYTES - filled);

	if (a->broken || !a->shared->wanted)
		return false;
	LWLockAcquire(cache_lock(a->partition), LW_EXCLUSIVE);
	a->shared->wanted = false;
	for (int32 i = a->shared->first_slice; i != NONE; i = run_cache_slices[i].next)
	{
		CacheSlice *slice = &run_cache_slices[i];

		if (!slice->wanted || slice->complete || slice->too_large)
			continue;
		a->shared->wanted = true;
		/* missed once more while we were filling it */
		if (is_staged(a->query, slice->start, slice->end))
			continue;
		/* the first of a commit may be larger than the others' bound */
		if (slice->bytes > room && !(filled == 0 && slice->bytes <
									 (int64) run_cache->nfree * CACHE_PAGE_SIZE / 2))
			continue;
		*start = slice->start;
		*end = slice->end;
		filled += slice->bytes;
		slice->wanted = false;
		found = true;
		break;
	}
	LWLockRelease(cache_lock(a->partition));
	return found;
}

bool
se_run_cache_next_wanted(int32 *query, TimestampTz *start, TimestampTz *end)
{
	for (int i = 0; begun && i < nattached; i++)
		if (next_wanted_slice(&attached[i], start, end))
		{
			StagedSlice *staged = stage(attached[i].query, *start, *end);

			*query = attached[i].query;
			/* before anything is appended to it */
			if (staged != NULL)
				staged->refused = false;
			return staged != NULL;
		}
	return false;
}

bool
se_run_cache_asked(int32 query, bool *unfolded)
{
	Attached   *a = find_attached(query);
	int64		room = (int64) run_cache->nfree * CACHE_PAGE_SIZE / 2;
	bool		fits = false;

	*unfolded = false;
	if (a == NULL || a->broken || !a->shared->asked)
		return false;
	LWLockAcquire(cache_lock(a->partition), LW_EXCLUSIVE);
	if (is_mine(a))
		for (int32 i = a->shared->first_slice; i != NONE; i = run_cache_slices[i].next)
		{
			const CacheSlice *slice = &run_cache_slices[i];

			fits |= slice->wanted && !slice->complete && !slice->too_large &&
				slice->bytes < room;
			*unfolded |= cache_slice_is_unfolded(slice);
		}
	a->shared->asked = false;
	LWLockRelease(cache_lock(a->partition));
	return fits;
}

void
se_run_cache_fill(int32 query, TimestampTz start, TimestampTz end, const SeCacheChunk *chunk)
{
	StagedSlice *staged = stage(query, start, end);

	if (staged != NULL && !staged->refused &&
		!put_chunk(staged, &staged->fill, chunk, commit_seq - 1, false))
		refuse(staged);
}

/* ---- the end of the transaction ---- */

/* Put pages behind those of a slice; a page that fits into the last one's room is copied. */
static void
link_pages(CacheSlice *slice, CacheQuery *query, PageList *list)
{
	if (list->n == 0)
		return;
	if (slice->pages.n > 0)
	{
		RunPage    *tail = cache_page(slice->pages.tail);
		RunPage    *page = cache_page(list->head);

		if (list->n == 1 && tail->used + page->used <= PAGE_DATA)
		{
			memcpy(tail->data + tail->used, page->data, page->used);
			tail->used += page->used;
			cache_pages_free(list);
			return;
		}
		tail->next = list->head;
	}
	else
		slice->pages.head = list->head;
	slice->pages.tail = list->tail;
	slice->pages.n += list->n;
	query->npages += list->n;
	page_list_init(list);
}

static void
link_slice(Attached *a, StagedSlice *staged)
{
	CacheQuery *query = a->shared;
	CacheSlice *slice;

	if (staged->slice == NONE)
		return;
	slice = &run_cache_slices[staged->slice];
	if (staged->created)
	{
		if (staged->nruns == 0)
		{
			cache_slice_free(staged->slice);
			return;
		}
		slice->start = staged->key.start;
		slice->end = staged->key.end;
		slice->born = slice->since = commit_seq;
		slice->complete = true;
		cache_slice_insert(slice, a->partition, query);
	}
	else if (staged->deleted)
	{
		cache_slice_drop_pages(slice, query);
		slice->nruns = 0;
		slice->entries = slice->largest = slice->bytes = 0;
		slice->too_large = false;
		if (staged->nruns == 0 && !staged->refused)
		{
			query->slices_since = commit_seq;
			cache_slice_remove(slice, query);
			return;
		}
		slice->complete = true;
		slice->since = commit_seq;
	}
	else if (staged->fill.n > 0)
	{
		cache_slice_drop_pages(slice, query);
		slice->complete = true;
		slice->since = commit_seq - 1;
		link_pages(slice, query, &staged->fill);
	}
	slice->nruns += staged->nruns;
	slice->entries += staged->entries;
	slice->largest = Max(slice->largest, staged->largest);
	slice->bytes += staged->bytes;
	slice->too_large |= staged->too_large;
	/* it may have been evicted since */
	if (slice->complete && !staged->refused)
	{
		for (int i = 0; i < staged->nappended; i++)
			link_pages(slice, query, &staged->appended[i].pages);
		slice->referenced = true;
		if (slice->pages.n > run_cache->npages / MAX_SLICE_SHARE)
			slice->too_large = staged->refused = true;
	}
	if (staged->refused)
	{
		if (slice->complete)
			query->refusals++;
		cache_slice_drop_pages(slice, query);
	}
}

/* The commit has happened: what was staged becomes visible. */
static void
link_staged(void)
{
	for (int i = 0; i < nattached; i++)
	{
		Attached   *a = &attached[i];
		bool		mine;
		bool		follows;

		a->commits++;
		LWLockAcquire(cache_lock(a->partition), LW_EXCLUSIVE);
		/* another process may have taken the query over, by what this transaction has done */
		mine = is_mine(a);
		follows = mine && begun && a->shared->valid && !a->broken &&
			a->shared->view.reader == commit_reader &&
			a->shared->view.generation == commit_generation;
		if (follows)
		{
			for (StagedSlice *staged = a->staged; staged != NULL; staged = staged->next)
			{
				link_slice(a, staged);
				staged->slice = NONE;
			}
			a->shared->view.seq = commit_seq;
		}
		else if (mine && (a->broken || a->staged != NULL))
		{
			/* there is no room, or it has changed in a way that we do not follow */
			remove_query(a->shared);
			a->broken = true;
			a->commits = 0;
		}
		LWLockRelease(cache_lock(a->partition));
	}
}

/* Give back all that has not been linked. */
static void
discard_staged(void)
{
	for (int i = 0; i < nattached; i++)
	{
		for (StagedSlice *staged = attached[i].staged; staged != NULL; staged = staged->next)
		{
			refuse(staged);
			if (staged->created && staged->slice != NONE)
				cache_slice_free(staged->slice);
		}
		attached[i].staged = NULL;
	}
	staged_slices = NULL;
	last_staged = NULL;
	begun = exhausted = false;
	filled = 0;
	if (staging_context != NULL)
		MemoryContextReset(staging_context);
}

static void
end_transaction(XactEvent event, void *arg)
{
	if (nattached == 0)
		return;
	if (event == XACT_EVENT_COMMIT && (begun || staged_slices != NULL))
	{
		/* only for what ends the process: nothing may be raised after a commit */
		SE_FAILPOINT("cache.link");
		link_staged();
	}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		discard_staged();
}

static void
end_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	for (int i = 0; i < nattached; i++)
		for (StagedSlice *staged = attached[i].staged; staged != NULL; staged = staged->next)
			if (staged->touched >= mine)
			{
				refuse(staged);
				/* what it deleted may be there again */
				staged->nruns = Max(staged->nruns, 1);
			}
}
