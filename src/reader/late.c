/*
 * late.c
 *	  Records that come too late for their windows, or for some of them.
 *
 * NOTES
 *	  They are counted, and with late => 'store' they are set aside, to be written by the
 *	  cycle's commit.  One that is late for some windows only must be counted by others: if its
 *	  key cannot be indexed it fails, and is not late for any.
 */
#include "postgres.h"

#include "reader.h"

#define MAX_LATE_WINDOWS 64		/* of one record, shown in late_event */

void
se_late_record(Reader *reader, ReaderQuery *query, const SeRecord *record, TimestampTz t,
			   TimestampTz watermark, const SeWindowBounds *windows, int nwindows)
{
	QueryCounters *counters = &query->counters[record->partition];

	counters->late++;
	counters->late_assignments += nwindows;
	counters->dirty = true;
	if (strcmp(query->def->late, "store") == 0)
		se_pending_late(reader->pending, query->def->id, record, t, watermark, windows,
						Min(nwindows, MAX_LATE_WINDOWS));
}

void
se_late_in_slice(Reader *reader, ReaderQuery *query, const OpenSlice *slice,
				 const SeRecord *record, TimestampTz t, TimestampTz watermark)
{
	SeWindowBounds windows[MAX_LATE_WINDOWS];
	SeWindowIterator iterator;
	SeWindowBounds window;
	int			n = 0;

	/* of more windows than are kept, the last one is */
	se_window_iterate(&iterator, &query->plan->window, slice->start, slice->end, NULL);
	while (se_window_next(&iterator, &window))
	{
		windows[Min(n, MAX_LATE_WINDOWS - 1)] = window;
		n++;
	}
	se_late_record(reader, query, record, t, watermark, windows, n);
}

void
se_partly_late_record(Reader *reader, ReaderQuery *query, const SeRecord *record, TimestampTz t,
					  TimestampTz watermark)
{
	SeWindowBounds missed[MAX_LATE_WINDOWS];
	SeWindowIterator iterator;
	SeWindowBounds window;
	TimestampTz start;
	TimestampTz end;
	int			nmissed = 0;

	if (!se_window_slice(&query->plan->window, t, NULL, &start, &end))
		elog(ERROR, "a record that is counted has no window");
	se_window_iterate(&iterator, &query->plan->window, start, end, NULL);
	/* of more windows than are kept, the last one is */
	while (se_window_next(&iterator, &window) && se_query_refuses(query, window.end, watermark))
	{
		missed[Min(nmissed, MAX_LATE_WINDOWS - 1)] = window;
		nmissed++;
	}
	query->counters[record->partition].late_assignments += nmissed;
	if (strcmp(query->def->late, "store") == 0)
		se_pending_partly_late(reader->pending, query->def->id, record, t, watermark, missed,
							   Min(nmissed, MAX_LATE_WINDOWS));
}
