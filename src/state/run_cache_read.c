/*
 * run_cache_read.c
 *	  The run cache: reading it, and its view.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "catalog/definitions.h"
#include "engine/internal.h"
#include "state/run_cache_internal.h"

PG_FUNCTION_INFO_V1(se_run_cache_stat);
PG_FUNCTION_INFO_V1(se_run_cache_memory);

#define STAT_COLUMNS 8

/* Reads within each other at most: what a reader calls may read another query. */
#define MAX_PINS 8

typedef struct Pin
{
	int			partition;
	int32		head;
	SubTransactionId subtransaction;
} Pin;

static Pin	pins[MAX_PINS];
static int	npins;

/* ---- pins ---- */

static void
unpin_last(void)
{
	Pin		   *pin = &pins[npins - 1];
	RunPage    *head = cache_page(pin->head);
	PageList	list = {NONE, NONE, 0};

	/* an unlinker has the lock for itself, so one of us or he sees the last pin go */
	LWLockAcquire(cache_lock(pin->partition), LW_SHARED);
	if (pg_atomic_sub_fetch_u32(&head->pins, 1) == 0 && head->dead)
	{
		list.head = pin->head;
		list.tail = head->tail;
		list.n = head->npages;
	}
	LWLockRelease(cache_lock(pin->partition));
	npins--;
	cache_pages_free(&list);
}

/* What an error has left pinned. */
static void
unpin_at_abort(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT)
		while (npins > 0)
			unpin_last();
}

static void
unpin_at_subabort(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		while (npins > 0 && pins[npins - 1].subtransaction >= mine)
			unpin_last();
}

static void
register_callbacks(void)
{
	static bool registered = false;

	if (registered)
		return;
	RegisterXactCallback(unpin_at_abort, NULL);
	RegisterSubXactCallback(unpin_at_subabort, NULL);
	registered = true;
}

/* ---- reading ---- */

/* Whether the query can show "view", and from which commit; the lock is held. */
static bool
shows(const CacheQuery *query, const SeCacheView *view, int64 *commit)
{
	if (query == NULL || !query->valid)
		return false;
	*commit = query->view.seq;
	if (view == NULL)
		return query->owner == MyProcPid;
	*commit = view->seq;
	return query->view.log == view->log && query->view.reader == view->reader &&
		query->view.generation == view->generation && view->seq <= query->view.seq;
}

static void
read_pages(int32 head, int32 tail, int32 tail_used, int64 commit, int64 seq, uint32 hash_low,
		   uint32 hash_high, SeCacheReader reader, void *arg)
{
	for (int32 i = head;;)
	{
		RunPage    *page = cache_page(i);
		int32		used = i == tail ? tail_used : page->used;

		CHECK_FOR_INTERRUPTS();
		for (int32 at = 0; at < used;)
		{
			RunChunk   *stored = (RunChunk *) (page->data + at);

			at += CHUNK_SPACE(stored->size);
			if (stored->commit <= commit && stored->seq > seq &&
				stored->hash_low <= hash_high && stored->hash_high >= hash_low)
			{
				SeCacheChunk chunk;

				chunk.seq = stored->seq;
				chunk.hash_low = stored->hash_low;
				chunk.hash_high = stored->hash_high;
				chunk.ngroups = stored->ngroups;
				chunk.size = stored->size;
				chunk.bytes = stored->bytes;
				reader(arg, &chunk);
			}
		}
		if (i == tail)
			break;
		i = page->next;
	}
}

/* Let the process that feeds a query know, wherever it waits, that somebody has asked. */
static void
wake_feeder(int owner)
{
	PGPROC	   *proc = BackendPidGetProc(owner);

	if (proc != NULL)
		SetLatch(&proc->procLatch);
}

bool
se_run_cache_read(const SeCacheView *view, int32 query, TimestampTz start, TimestampTz end,
				  int64 seq, uint32 hash_low, uint32 hash_high, SeCacheReader reader, void *arg)
{
	int			partition = cache_partition(query);
	CacheQuery *shared;
	CacheSlice *slice = NULL;
	PageList	list;
	int32		used = 0;
	int64		commit;
	bool		found = false;
	int			feeder = 0;		/* to be woken */
	int			depth = npins;

	if (npins == MAX_PINS)
		return false;
	register_callbacks();
	LWLockAcquire(cache_lock(partition), LW_SHARED);
	shared = cache_query(partition, query);
	if (shows(shared, view, &commit))
	{
		slice = cache_slice(partition, shared, start, end);
		if (slice != NULL && slice->complete && slice->since <= commit)
		{
			list = slice->pages;
			used = cache_page(list.tail)->used;
			pg_atomic_fetch_add_u32(&cache_page(list.head)->pins, 1);
			pg_atomic_fetch_add_u64(&shared->hits, 1);
			slice->referenced = true;
			found = true;
		}
		else if (slice != NULL && !slice->complete && !slice->too_large)
			slice->wanted = shared->wanted = true;
		if (view != NULL && slice != NULL && !shared->asked &&
			(slice->wanted || (found && cache_slice_is_unfolded(slice))))
		{
			shared->asked = true;
			feeder = shared->owner;
		}
	}
	if (!found && shared != NULL)
		pg_atomic_fetch_add_u64(&shared->misses, 1);
	LWLockRelease(cache_lock(partition));
	if (feeder != 0)
		wake_feeder(feeder);
	if (!found)
		return false;

	pins[npins].partition = partition;
	pins[npins].head = list.head;
	pins[npins++].subtransaction = GetCurrentSubTransactionId();
	read_pages(list.head, list.tail, used, commit, seq, hash_low, hash_high, reader, arg);
	/* a read within may have ended by an error that somebody has caught */
	while (npins > depth)
		unpin_last();
	return true;
}

static int
compare_slices(const void *a, const void *b)
{
	const SeCacheSliceInfo *x = a;
	const SeCacheSliceInfo *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end ? 1 : 0;
}

/* Copy up to "capacity" slices; returns how many there are, or -1 if that is not known. */
static int
copy_slices(const SeCacheView *view, int32 query, SeCacheSliceInfo *slices, int capacity,
			int *copied)
{
	int			partition = cache_partition(query);
	CacheQuery *shared;
	int64		commit;
	int			n = -1;

	*copied = 0;
	LWLockAcquire(cache_lock(partition), LW_SHARED);
	shared = cache_query(partition, query);
	if (shows(shared, view, &commit) && shared->slices_since <= commit)
	{
		n = shared->nslices;
		for (int32 i = shared->first_slice; i != NONE && *copied < capacity;)
		{
			const CacheSlice *slice = &run_cache_slices[i];

			i = slice->next;
			if (slice->born > commit)
			{
				n--;
				continue;
			}
			slices[*copied].start = slice->start;
			slices[*copied].end = slice->end;
			slices[*copied].nruns = slice->nruns;
			slices[*copied].entries = slice->entries;
			slices[*copied].largest = slice->largest;
			slices[(*copied)++].bytes = slice->bytes;
		}
	}
	LWLockRelease(cache_lock(partition));
	return n;
}

bool
se_run_cache_slices(const SeCacheView *view, int32 query, SeCacheSliceInfo **slices, int *nslices)
{
	int			capacity = 64;

	for (;;)
	{
		int			n;

		*slices = palloc_extended(sizeof(SeCacheSliceInfo) * capacity, MCXT_ALLOC_HUGE);
		n = copy_slices(view, query, *slices, capacity, nslices);
		if (n >= 0 && n <= *nslices)
			break;
		pfree(*slices);
		if (n < 0)
			return false;
		capacity = Max(n, capacity) * 2;
	}
	qsort(*slices, *nslices, sizeof(SeCacheSliceInfo), compare_slices);
	return true;
}

/* ---- the view ---- */

/* Who sees all sees entries of queries that have been dropped, too, until they are given up. */
static bool
may_see_query(int32 query)
{
	SeQueryDef *def = se_query_load(query);

	return def != NULL && se_may_see(def->owner);
}

static void
put_query(ReturnSetInfo *rsinfo, const CacheQuery *query, int cached)
{
	Datum		values[STAT_COLUMNS];
	bool		nulls[STAT_COLUMNS] = {0};
	int			c = 0;

	values[c++] = Int32GetDatum(query->query);
	values[c++] = Int32GetDatum(query->nslices);
	values[c++] = Int32GetDatum(cached);
	values[c++] = Int64GetDatum((int64) query->npages * CACHE_PAGE_SIZE);
	values[c++] = Int64GetDatum((int64) pg_atomic_read_u64(&((CacheQuery *) query)->hits));
	values[c++] = Int64GetDatum((int64) pg_atomic_read_u64(&((CacheQuery *) query)->misses));
	values[c++] = Int64GetDatum((int64) query->evictions);
	values[c++] = Int64GetDatum((int64) query->refusals);
	Assert(c == STAT_COLUMNS);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * run_cache() returns setof record: the queries of this database
 */
Datum
se_run_cache_stat(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CachePartition *copy = palloc(sizeof(CachePartition));
	bool		sees_all = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);

	se_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	for (int p = 0; p < SE_RUN_CACHE_PARTITIONS && run_cache != NULL; p++)
	{
		int			cached[QUERIES_PER_PARTITION] = {0};

		LWLockAcquire(cache_lock(p), LW_SHARED);
		memcpy(copy, &run_cache->partitions[p], sizeof(CachePartition));
		for (int q = 0; q < QUERIES_PER_PARTITION; q++)
			for (int32 i = copy->queries[q].used ? copy->queries[q].first_slice : NONE; i != NONE;
				 i = run_cache_slices[i].next)
				cached[q] += run_cache_slices[i].complete;
		LWLockRelease(cache_lock(p));
		for (int q = 0; q < QUERIES_PER_PARTITION; q++)
			if (copy->queries[q].used && copy->queries[q].database == MyDatabaseId &&
				(sees_all || may_see_query(copy->queries[q].query)))
				put_query(rsinfo, &copy->queries[q], cached[q]);
	}
	return (Datum) 0;
}

/*
 * state_memory(OUT total bigint, OUT free bigint)
 */
Datum
se_run_cache_memory(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[2] = {Int64GetDatum(0), Int64GetDatum(0)};
	bool		nulls[2] = {0};

	se_require_preload();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (run_cache != NULL)
	{
		int32		nfree;

		SpinLockAcquire(&run_cache->mutex);
		nfree = run_cache->nfree;
		SpinLockRelease(&run_cache->mutex);
		values[0] = Int64GetDatum((int64) run_cache->npages * CACHE_PAGE_SIZE);
		values[1] = Int64GetDatum((int64) nfree * CACHE_PAGE_SIZE);
	}
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
