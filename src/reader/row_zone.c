/*
 * row_zone.c
 *	  Rows that have time zones of their own, in windows that overlap.
 *
 * NOTES
 *	  Two zones may cut the same interval for different windows: an hour of the
 *	  clock is part of one day here and of another one there.  A slice's bounds
 *	  would not tell which windows it feeds, and state, log, corrections and open
 *	  windows know a slice by its bounds alone.  So a hopping or cumulating
 *	  window whose rows have zones is kept as a slice of its own, as tumbling
 *	  ones are, and a row is added to each of its windows.  Windows of different
 *	  zones that have the same bounds are one, as they are in a batch.
 *
 *	  A row costs one update for each window; the walk over the windows is made
 *	  once for each slice and zone in a batch.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "row_zone.h"

/* What a slice of a zone is part of; of one batch. */
typedef struct ZonedSlice
{
	/* key */
	const pg_tz *zone;
	SeWindowBounds bounds;
	/* ascending by end */
	int			nwindows;
	SeWindowBounds *windows;
	OpenSlice **slices;			/* of windows; NULL: not looked for */
} ZonedSlice;

/* Rows and where they go. */
static ZonedSlice *row_zoned[SE_BATCH_MAX];
static int	pair_rows[SE_BATCH_MAX];
static OpenSlice *pair_slices[SE_BATCH_MAX];

bool
se_zone_of_row(Reader *reader, ReaderQuery *query, const SeBatch *batch, const SeRecord *record,
			   int row, const pg_tz **zone)
{
	const SeVector *zones;
	const SeSlice *name;
	char		text[TZ_STRLEN_MAX + 1];

	*zone = NULL;
	if (query->plan->zone_column == 0)
		return true;
	zones = &batch->columns[query->plan->zone_column - 1];
	if (zones->null[row])
		return true;
	name = &zones->v.text[row];
	if (name->len <= TZ_STRLEN_MAX)
	{
		memcpy(text, name->data, name->len);
		text[name->len] = '\0';
		*zone = se_window_zone(text);
	}
	if (*zone == NULL)
		se_record_fails(reader, query, record, "the time zone is not recognized");
	return *zone != NULL;
}

static HTAB *
make_zoned(void)
{
	HASHCTL		control;

	control.keysize = offsetof(ZonedSlice, nwindows);
	control.entrysize = sizeof(ZonedSlice);
	control.hcxt = CurrentMemoryContext;
	return hash_create("stream_engine slices of zones", 64, &control,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* The windows of a row; NULL if it is beyond the calendar. */
static ZonedSlice *
find_zoned(const ReaderQuery *query, HTAB *zoned, TimestampTz t, const pg_tz *zone)
{
	const SeWindowSpec *spec = &query->plan->window;
	SeWindowIterator iterator;
	SeWindowBounds window;
	ZonedSlice	key;
	ZonedSlice *entry;
	bool		found;
	int			n = 0;

	memset(&key, 0, sizeof(key));
	key.zone = zone;
	if (!se_window_slice(spec, t, zone, &key.bounds.start, &key.bounds.end))
		return NULL;
	entry = hash_search(zoned, &key, HASH_ENTER, &found);
	if (found)
		return entry;
	se_window_iterate_row(&iterator, spec, key.bounds.start, key.bounds.end, zone);
	while (se_window_next(&iterator, &window))
		n++;
	entry->nwindows = n;
	entry->windows = palloc(sizeof(SeWindowBounds) * n);
	entry->slices = palloc0(sizeof(OpenSlice *) * n);
	se_window_iterate_row(&iterator, spec, key.bounds.start, key.bounds.end, zone);
	for (int i = 0; i < n; i++)
		(void) se_window_next(&iterator, &entry->windows[i]);
	return entry;
}

/* How many of the windows do not take a record any more; their ends ascend. */
static int
count_missed(const ReaderQuery *query, const ZonedSlice *zoned, TimestampTz watermark)
{
	int			n = 0;

	while (n < zoned->nwindows && se_query_refuses(query, zoned->windows[n].end, watermark))
		n++;
	return n;
}

/* Whether some of the windows behind those that a row has missed are emitted. */
static bool
is_complete(const ReaderQuery *query, const ZonedSlice *zoned, int missed)
{
	for (int w = zoned->nwindows - 1; w >= missed; w--)
		if (se_query_completes(query->def, zoned->windows[w].start, zoned->windows[w].end))
			return true;
	return false;
}

/*
 * Whether some window takes the row.  A late one is set aside with all of its windows: its
 * time alone does not give them.
 */
static bool
is_taken(Reader *reader, ReaderQuery *query, const ZonedSlice *zoned, const SeRecord *record,
		 TimestampTz t, TimestampTz watermark)
{
	QueryCounters *counters = &query->counters[record->partition];
	int			missed = count_missed(query, zoned, watermark);
	bool		complete;

	counters->dirty = true;
	complete = is_complete(query, zoned, missed);
	if (missed == zoned->nwindows || (!complete && is_complete(query, zoned, 0)))
	{
		counters->late++;
		counters->late_assignments += zoned->nwindows;
		if (strcmp(query->def->late, "store") == 0)
			se_pending_late(reader->pending, query->def->id, record, t, watermark,
							zoned->windows, zoned->nwindows);
		return false;
	}
	if (!complete)
	{
		counters->before_start++;
		return false;
	}
	return true;
}

/* Add each of the rows to the windows that take it, some at a time. */
static void
add_to_windows(Reader *reader, ReaderQuery *query, const SeBatch *batch, const SeRecord *records,
			   const int *rows, int n, const TimestampTz *row_watermark)
{
	const int64 *event_time = batch->columns[query->plan->time_column - 1].v.i64;
	int			npairs = 0;

	for (int i = 0; i < n; i++)
	{
		ZonedSlice *zoned = row_zoned[i];
		int			row = rows[i];
		int			missed = count_missed(query, zoned, row_watermark[row]);

		if (query->long_keys && se_key_fails(reader, query, &records[row], row))
			continue;
		query->counters[records[row].partition].counted++;
		query->counters[records[row].partition].late_assignments += missed;
		if (missed > 0 && strcmp(query->def->late, "store") == 0)
			se_pending_partly_late(reader->pending, query->def->id, &records[row],
								   event_time[row], row_watermark[row], zoned->windows, missed);
		for (int w = missed; w < zoned->nwindows; w++)
		{
			if (zoned->slices[w] == NULL)
				zoned->slices[w] = se_slice_get(query, zoned->windows[w].start,
												zoned->windows[w].end);
			pair_rows[npairs] = row;
			pair_slices[npairs++] = zoned->slices[w];
			if (npairs == SE_BATCH_MAX)
			{
				se_add_to_slices(query, batch, pair_rows, pair_slices, npairs);
				npairs = 0;
			}
		}
	}
	se_add_to_slices(query, batch, pair_rows, pair_slices, npairs);
}

void
se_zoned_process(Reader *reader, ReaderQuery *query, SeBatch *batch, const SeRecord *records,
				 int *rows, int n, const TimestampTz *row_watermark)
{
	const int64 *event_time = batch->columns[query->plan->time_column - 1].v.i64;
	HTAB	   *zoned = make_zoned();
	int			kept = 0;

	for (int i = 0; i < n; i++)
	{
		int			row = rows[i];
		const SeRecord *record = &records[row];
		const pg_tz *zone;

		if (!se_zone_of_row(reader, query, batch, record, row, &zone))
			continue;
		row_zoned[kept] = find_zoned(query, zoned, event_time[row], zone);
		if (row_zoned[kept] == NULL)
			se_time_fails(reader, query, record);
		else if (is_taken(reader, query, row_zoned[kept], record, event_time[row],
						  row_watermark[row]))
			rows[kept++] = row;
	}
	if (kept > 0)
	{
		se_eval_rows(query->eval, batch, rows, kept);
		add_to_windows(reader, query, batch, records, rows, kept, row_watermark);
	}
}
