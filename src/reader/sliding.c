/*
 * sliding.c
 *	  Groups of overlapping windows, without merging all slices for each.
 *
 * NOTES
 *	  A window of k slices shares k - 1 of them with the one before.  They are
 *	  merged by two stacks: slices in front of a boundary in time are merged from
 *	  the boundary backwards, once, and what each later window needs of them is
 *	  kept as bytes (a part); slices behind the boundary are merged forwards into
 *	  one table as windows reach them.  A window is then one part and that table,
 *	  and a slice is read twice in all.  When a window begins at the boundary or
 *	  behind it, its end becomes the next boundary.  A cumulating window has only
 *	  the table: the boundary is the start of its period.
 *
 *	  Nothing here is state: it is built from slices when a window wants it, so a
 *	  restart, or an abort, which drops it with the reader's memory, costs one
 *	  rebuild.  Rows that come late for slices that have been merged go into the
 *	  table, or stand behind the parts as further bytes: a part is merged with
 *	  those that came after it was made.  Slices that the boundary cuts (those of
 *	  records that some windows have missed) are merged window by window.
 *
 *	  Memory: the parts of a query take PARTS_MEMORY at most.  When they would take
 *	  more, every second one is dropped, and again; a window that has lost its part
 *	  takes the next one and the slices in between, and leaves parts for the windows
 *	  up to there if there is room.  So nearly k merges become about 2 sqrt(k)
 *	  at worst.  The two tables hold SE_RANGE_GROUPS groups each; larger windows
 *	  are merged range by range, all slices each time.
 *
 *	  States of aggregates' own functions are merged in the order of the slices,
 *	  as their results may depend on it, and so not here.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "sliding.h"

/* Windows of fewer slices are merged as they are. */
#define MIN_SLICES 4

#define PARTS_MEMORY ((Size) 64 * 1024 * 1024)

/* Late rows that are merged with each window, relative to a part. */
#define LATE_MEMORY (PARTS_MEMORY / 16)

#define CHUNK_SIZE (64 * 1024)

/* Groups as bytes: chunks, each behind its size. */
typedef struct Bytes
{
	char	   *data;
	Size		size;
	Size		capacity;
} Bytes;

/* All that slices from "start" to the boundary hold. */
typedef struct Part
{
	TimestampTz start;
	Bytes		bytes;
	int			nlate;			/* late rows that it holds already */
} Part;

/* Rows that came for a slice after parts had been made of it. */
typedef struct Late
{
	TimestampTz start;			/* of the slice */
	Bytes		bytes;
} Late;

typedef struct SeSliding
{
	MemoryContext context;
	bool		active;
	TimestampTz rest_until;		/* too large: windows that begin before are not tried */
	TimestampTz front_start;	/* of the window that set the boundary */
	TimestampTz boundary;
	TimestampTz back_end;		/* slices of the back end up to here */
	SeMemtable *back;
	SeMemtable *total;			/* of the window asked for */
	Part	   *parts;			/* ascending by start */
	int			nparts;
	int			capacity;
	Size		parts_size;
	Late	   *late;			/* in the order they came */
	int			nlate;
	int			late_capacity;
	Size		late_size;
} SeSliding;

/* ---- bytes ---- */

static void
append_chunk(void *arg, const char *chunk, Size size, uint32 hash_low, uint32 hash_high,
			 int ngroups)
{
	Bytes	   *bytes = arg;
	Size		needed = bytes->size + sizeof(Size) + size;

	if (needed > bytes->capacity)
	{
		bytes->capacity = Max(needed, bytes->capacity * 2);
		bytes->data = repalloc_huge(bytes->data, bytes->capacity);
	}
	memcpy(bytes->data + bytes->size, &size, sizeof(Size));
	memcpy(bytes->data + bytes->size + sizeof(Size), chunk, size);
	bytes->size = needed;
}

/* The groups of a table; about as many bytes as "expected". */
static Bytes
bytes_of(const SeSliding *sliding, SeMemtable *table, Size expected)
{
	Bytes		bytes;

	bytes.size = 0;
	bytes.capacity = Max(expected + expected / 16, 256);
	bytes.data = MemoryContextAllocHuge(sliding->context, bytes.capacity);
	se_memtable_flush(table, CHUNK_SIZE, append_chunk, &bytes);
	return bytes;
}

static void
merge_bytes(SeMemtable *table, const Bytes *bytes)
{
	Size		at = 0;

	while (at < bytes->size)
	{
		Size		size;

		memcpy(&size, bytes->data + at, sizeof(Size));
		at += sizeof(Size);
		se_memtable_merge(table, bytes->data + at, size, 0, PG_UINT32_MAX);
		at += size;
	}
}

/* ---- parts ---- */

/* Drop parts[0..n-1]. */
static void
drop_parts(SeSliding *sliding, int n)
{
	if (n == 0)
		return;
	for (int i = 0; i < n; i++)
	{
		sliding->parts_size -= sliding->parts[i].bytes.capacity;
		pfree(sliding->parts[i].bytes.data);
	}
	sliding->nparts -= n;
	memmove(sliding->parts, sliding->parts + n, sizeof(Part) * sliding->nparts);
}

static void
forget(SeSliding *sliding)
{
	drop_parts(sliding, sliding->nparts);
	for (int i = 0; i < sliding->nlate; i++)
		pfree(sliding->late[i].bytes.data);
	sliding->nlate = 0;
	sliding->late_size = 0;
	if (sliding->back != NULL)
		se_memtable_reset(sliding->back);
	sliding->active = false;
}

/* The first part that does not begin before "start"; nparts if there is none. */
static int
find_part(const SeSliding *sliding, TimestampTz start)
{
	int			i = 0;

	while (i < sliding->nparts && sliding->parts[i].start < start)
		i++;
	return i;
}

/*
 * Keep "total" as the part that begins at "start", which lies before those from
 * parts[at] on.
 */
static void
add_part(SeSliding *sliding, int at, TimestampTz start)
{
	Size		expected = at < sliding->nparts ? sliding->parts[at].bytes.size : 0;
	Part	   *part;

	if (sliding->nparts == sliding->capacity)
	{
		sliding->capacity = Max(sliding->capacity * 2, 64);
		sliding->parts = sliding->parts ?
			repalloc(sliding->parts, sizeof(Part) * sliding->capacity) :
			MemoryContextAlloc(sliding->context, sizeof(Part) * sliding->capacity);
	}
	part = &sliding->parts[at];
	memmove(part + 1, part, sizeof(Part) * (sliding->nparts - at));
	part->start = start;
	part->nlate = sliding->nlate;
	part->bytes.data = NULL;
	part->bytes.capacity = part->bytes.size = 0;
	part->bytes = bytes_of(sliding, sliding->total, expected);
	sliding->nparts++;
	sliding->parts_size += part->bytes.capacity;
}

/* Drop every second part, but not the last one.  True: the first one is gone. */
static bool
thin_parts(SeSliding *sliding)
{
	bool		drops_first = sliding->nparts % 2 == 0;
	int			kept = 0;

	for (int i = 0; i < sliding->nparts; i++)
	{
		if ((sliding->nparts - i) % 2 == 0)
		{
			sliding->parts_size -= sliding->parts[i].bytes.capacity;
			pfree(sliding->parts[i].bytes.data);
		}
		else
			sliding->parts[kept++] = sliding->parts[i];
	}
	sliding->nparts = kept;
	return drops_first;
}

/* "total", which is empty, becomes what a part stands for. */
static void
load_part(SeSliding *sliding, const Part *part)
{
	merge_bytes(sliding->total, &part->bytes);
	for (int i = part->nlate; i < sliding->nlate; i++)
		if (sliding->late[i].start >= part->start)
			merge_bytes(sliding->total, &sliding->late[i].bytes);
}

/* ---- merging ---- */

static void
merge_slice(ReaderQuery *query, SeStateLog *log, OpenSlice *slice, SeMemtable *table)
{
	SeMergeRange range = {table, 0, PG_UINT32_MAX};

	CHECK_FOR_INTERRUPTS();
	se_merge_log(query, log, slice, &range);
	if (slice->table != NULL)
		se_memtable_merge_table(table, slice->table);
}

static bool
begins_window(const SeWindowSpec *spec, TimestampTz start)
{
	int64		index;

	return se_lattice_floor(&spec->lattice, start, &index) == start;
}

/*
 * Add slices[0..n-1] to "total" from the last to the first, and keep a part for each
 * start of a window behind "from".  A new front is bounded: its parts are thinned
 * out, and false says that it is too large.
 */
static bool
merge_backwards(SeSliding *sliding, ReaderQuery *query, SeStateLog *log, OpenSlice **slices, int n,
				TimestampTz from, bool bounded)
{
	int			at = find_part(sliding, from);
	int			stride = 1;		/* starts of windows from part to part */
	int			distance = 0;	/* from the first one */

	for (int i = n - 1; i >= 0; i--)
	{
		TimestampTz start = slices[i]->start;

		merge_slice(query, log, slices[i], sliding->total);
		if (bounded && se_memtable_ngroups(sliding->total) > SE_RANGE_GROUPS)
			return false;
		if (start == from || (i > 0 && slices[i - 1]->start == start) ||
			!begins_window(&query->plan->window, start) || ++distance < stride)
			continue;
		distance = 0;
		add_part(sliding, at, start);
		while (bounded && sliding->parts_size > PARTS_MEMORY / 2)
		{
			if (sliding->nparts == 1)
				return false;
			if (thin_parts(sliding))
				distance += stride;
			stride *= 2;
		}
	}
	return true;
}

/* Make the window's end, or for cumulating ones its start, the boundary. */
static bool
set_boundary(SeSliding *sliding, ReaderQuery *query, SeStateLog *log, const SeWindowBounds *window,
			 OpenSlice **members, int nmembers)
{
	forget(sliding);
	sliding->front_start = window->start;
	if (query->plan->window.kind == SE_WINDOW_CUMULATE)
	{
		sliding->boundary = sliding->back_end = window->start;
		sliding->active = true;
		return true;
	}
	sliding->boundary = sliding->back_end = window->end;
	se_memtable_reset(sliding->total);
	sliding->active = merge_backwards(sliding, query, log, members, nmembers, window->start, true);
	return sliding->active;
}

/* Merge slices that the windows have reached into the back. */
static bool
extend_back(SeSliding *sliding, ReaderQuery *query, SeStateLog *log, TimestampTz end,
			OpenSlice **members, int nmembers)
{
	for (int i = 0; i < nmembers; i++)
		if (members[i]->start >= sliding->boundary && members[i]->end > sliding->back_end)
			merge_slice(query, log, members[i], sliding->back);
	sliding->back_end = end;
	return se_memtable_ngroups(sliding->back) <= SE_RANGE_GROUPS;
}

/*
 * "total" becomes the groups of the window's slices in front of the boundary, and of
 * those that it cuts.
 */
static void
load_front(SeSliding *sliding, ReaderQuery *query, SeStateLog *log, const SeWindowBounds *window,
		   OpenSlice **members, int nmembers)
{
	const Part *part;
	TimestampTz covered = sliding->boundary;
	OpenSlice **missing = palloc(sizeof(OpenSlice *) * Max(nmembers, 1));
	int			nmissing = 0;
	int			nstarts = 0;

	drop_parts(sliding, find_part(sliding, window->start));
	se_memtable_reset(sliding->total);
	part = sliding->nparts > 0 ? &sliding->parts[0] : NULL;
	if (part != NULL)
	{
		covered = part->start;
		load_part(sliding, part);
	}
	for (int i = 0; i < nmembers && members[i]->start < covered; i++)
		if (members[i]->end <= sliding->boundary)
		{
			missing[nmissing++] = members[i];
			nstarts += members[i]->start > window->start;
		}
	/* leave parts for the windows up to the next one that has one */
	if (part != NULL && sliding->parts_size + part->bytes.size * nstarts <= PARTS_MEMORY)
		(void) merge_backwards(sliding, query, log, missing, nmissing, window->start, false);
	else
		for (int i = 0; i < nmissing; i++)
			merge_slice(query, log, missing[i], sliding->total);
	for (int i = 0; i < nmembers && members[i]->start < sliding->boundary; i++)
		if (members[i]->end > sliding->boundary)
			merge_slice(query, log, members[i], sliding->total);
	pfree(missing);
}

static bool
is_reached(const SeSliding *sliding, const ReaderQuery *query, const SeWindowBounds *window)
{
	return sliding->active && window->start >= sliding->front_start &&
		window->end >= sliding->back_end &&
		(query->plan->window.kind == SE_WINDOW_CUMULATE ? window->start == sliding->boundary :
		 window->start < sliding->boundary);
}

static SeSliding *
make_sliding(ReaderQuery *query)
{
	MemoryContext context = AllocSetContextCreate(query->context, "stream_engine sliding windows",
												  ALLOCSET_DEFAULT_SIZES);
	SeSliding  *sliding = MemoryContextAllocZero(context, sizeof(SeSliding));

	sliding->context = context;
	sliding->rest_until = DT_NOBEGIN;
	sliding->back = se_memtable_create(query->layout, context, 64);
	sliding->total = se_memtable_create(query->layout, context, 64);
	return sliding;
}

/* Whether windows are made of slices that can be shared. */
static bool
is_worthwhile(const ReaderQuery *query)
{
	const SeWindowSpec *spec = &query->plan->window;

	return (spec->kind == SE_WINDOW_HOP || spec->kind == SE_WINDOW_CUMULATE) && !spec->by_window &&
		spec->whole >= MIN_SLICES && !se_layout_has_combine(query->layout);
}

SeMemtable *
se_sliding_window(ReaderQuery *query, SeStateLog *log, const SeWindowBounds *window,
				  OpenSlice **members, int nmembers)
{
	SeSliding  *sliding = query->sliding;
	bool		fits;

	if (!is_worthwhile(query))
		return NULL;
	if (sliding == NULL)
		sliding = query->sliding = make_sliding(query);
	if (window->start < sliding->rest_until)
		return NULL;
	if (is_reached(sliding, query, window))
	{
		fits = extend_back(sliding, query, log, window->end, members, nmembers);
		if (fits && query->plan->window.kind == SE_WINDOW_CUMULATE)
			return sliding->back;
		if (fits)
		{
			load_front(sliding, query, log, window, members, nmembers);
			se_memtable_merge_table(sliding->total, sliding->back);
		}
	}
	else
	{
		if (nmembers < MIN_SLICES && query->plan->window.kind == SE_WINDOW_HOP)
		{
			forget(sliding);
			return NULL;
		}
		fits = set_boundary(sliding, query, log, window, members, nmembers);
		if (fits && query->plan->window.kind == SE_WINDOW_CUMULATE)
		{
			fits = extend_back(sliding, query, log, window->end, members, nmembers);
			if (fits)
				return sliding->back;
		}
	}
	if (!fits)
	{
		forget(sliding);
		se_memtable_reset(sliding->total);
		sliding->rest_until = window->end;
		return NULL;
	}
	return sliding->total;
}

/* ---- late rows ---- */

static void
add_late(SeSliding *sliding, OpenSlice *slice)
{
	Late	   *late;

	if (sliding->nlate == sliding->late_capacity)
	{
		sliding->late_capacity = Max(sliding->late_capacity * 2, 16);
		sliding->late = sliding->late ?
			repalloc(sliding->late, sizeof(Late) * sliding->late_capacity) :
			MemoryContextAlloc(sliding->context, sizeof(Late) * sliding->late_capacity);
	}
	late = &sliding->late[sliding->nlate++];
	late->start = slice->start;
	late->bytes = bytes_of(sliding, slice->table, 0);
	sliding->late_size += late->bytes.size;
}

void
se_sliding_learn(ReaderQuery *query)
{
	SeSliding  *sliding = query->sliding;
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	if (sliding == NULL || !sliding->active)
		return;
	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
	{
		if (slice->table == NULL || se_memtable_ngroups(slice->table) == 0)
			continue;
		if (slice->start >= sliding->boundary && slice->end <= sliding->back_end)
			se_memtable_merge_table(sliding->back, slice->table);
		else if (slice->end <= sliding->boundary && sliding->nparts > 0 &&
				 slice->start >= sliding->parts[0].start)
			add_late(sliding, slice);
	}
	/* when they are many, building anew costs less than merging them with each window */
	if (sliding->late_size > LATE_MEMORY ||
		(sliding->nparts > 0 && sliding->late_size > Max(sliding->parts[0].bytes.size, 8192) * 2))
		forget(sliding);
}
