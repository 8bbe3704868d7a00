/*
 * close.h
 *	  Windows and the runs of their slices: shared by close.c and correct.c.
 */
#ifndef SE_CLOSE_H
#define SE_CLOSE_H

#include "emit.h"
#include "reader.h"

/* Groups merged at a time. */
#define SE_RANGE_GROUPS (256 * 1024)

/* A table that takes the groups of a range of hashes. */
typedef struct SeMergeRange
{
	SeMemtable *table;
	uint32		low;
	uint32		high;
} SeMergeRange;

/* Bounds of range i of n of the hash space; "table" is left as it is. */
extern void se_merge_range_set(SeMergeRange *range, int i, int n);

/* Number of ranges for merging so many groups. */
extern int	se_merge_ranges(int64 groups);

/* Merge what the log holds of a slice, or that and the running cycle's groups. */
extern void se_merge_log(ReaderQuery *query, SeStateLog *log, const OpenSlice *slice,
						 SeMergeRange *range);
extern void se_merge_slice(ReaderQuery *query, SeStateLog *log, OpenSlice *slice,
						   SeMergeRange *range);

/* Groups of a slice, counted once for each of its runs. */
extern int64 se_slice_entries(const OpenSlice *slice);

/* All slices with an entry, ascending by start; palloc'd. */
extern OpenSlice **se_slices_sorted(ReaderQuery *query, int *nslices);

/* The order in which windows are emitted: by end, then by start. */
static inline int
se_window_compare(const SeWindowBounds *x, const SeWindowBounds *y)
{
	if (x->end != y->end)
		return x->end < y->end ? -1 : 1;
	return x->start < y->start ? -1 : x->start > y->start ? 1 : 0;
}

/*
 * Windows, each once, ascending as se_window_compare has it.  Empty when it is zeroed; made
 * in CurrentMemoryContext.
 */
typedef struct SeWindowSet
{
	SeWindowBounds *windows;
	int			n;
	int			capacity;
} SeWindowSet;

/* Add the windows of a slice that end within (after, upto]. */
extern void se_window_set_add(SeWindowSet *set, const SeWindowSpec *spec, TimestampTz slice_start,
							  TimestampTz slice_end, TimestampTz after, TimestampTz upto);

/*
 * The windows that end within (after, upto] of the slices that "wanted" accepts (all if
 * NULL), ascending by end; palloc'd.
 */
typedef bool (*SeSliceFilter) (const ReaderQuery *query, const OpenSlice *slice);
extern SeWindowBounds *se_slices_windows(const ReaderQuery *query, OpenSlice **slices, int nslices,
										 SeSliceFilter wanted, TimestampTz after, TimestampTz upto,
										 int *nwindows);

/*
 * The slices of a window, of slices[0..n-1] ascending by start, into members; returns their
 * number.  A slice that begins in the window and ends behind it holds records that
 * came too late for the window.
 */
extern int	se_window_members(const ReaderQuery *query, const SeWindowBounds *window,
							  OpenSlice **slices, int nslices, OpenSlice **members);

/* Whether a window is emitted. */
static inline bool
se_window_is_emitted(const ReaderQuery *query, const SeWindowBounds *window)
{
	return se_query_completes(query->def, window->start, window->end);
}

/*
 * correct.c: rows of windows that have been emitted before.  The caller has
 * switched to the query's owner; "emission" writes.
 *
 * se_correct_windows corrects the windows that had closed before this commit and have been
 * given records in this cycle; se_emit_changes shows the groups of open windows
 * that have changed since the last time; se_emit_last makes a window final of
 * which changes have been emitted.
 */
extern bool se_has_corrections(ReaderQuery *query);
extern bool se_changes_are_due(const ReaderQuery *query, TimestampTz now);
extern void se_correct_windows(ReaderQuery *query, SeStateLog *log, SeEmission *emission,
							   OpenSlice **slices, int nslices);
extern void se_emit_changes(ReaderQuery *query, SeStateLog *log, SeEmission *emission,
							OpenSlice **slices, int nslices, TimestampTz watermark, int64 seq,
							TimestampTz now);
extern void se_emit_last(ReaderQuery *query, SeStateLog *log, SeEmission *emission,
						 const SeWindowBounds *window, OpenSlice **members, int nmembers);

#endif							/* SE_CLOSE_H */
