/*-------------------------------------------------------------------------
 *
 * window.h
 *	  Windows and slices: the arithmetic of event time
 *
 * NOTES
 *	  A window is a half-open interval of time [start, end).  Nothing in the
 *	  engine keeps state per window: state is kept per slice, and a window is
 *	  a run of consecutive slices.  Slices are cut at all starts and ends of
 *	  windows, so that each row belongs to exactly one slice and each slice is
 *	  wholly inside or wholly outside of any window:
 *
 *		tumble		the slice is the window
 *		hop			with size = whole * every + rest each distance of "every" is
 *					cut once, after "rest" (not at all when rest is 0)
 *		cumulate	slices are the steps; windows are prefixes of a period
 *		session		slices are buckets as wide as the gap; where sessions begin
 *					and end is decided by the rows
 *		global		one slice, without bounds
 *
 *	  When rows have time zones of their own, the same interval may be a slice of
 *	  different windows in different zones.  Then slices are whole windows
 *	  ("by_window"): a row belongs to as many slices as it has windows, and what
 *	  is read from a slice's bounds alone needs no zone.
 *
 *	  Times are microseconds as in TimestampTz.  How bounds are found in time
 *	  zones is told in calendar.c.
 *
 *	  All functions here but se_window_spec_init() neither raise errors nor
 *	  allocate, and may be called once for each row.
 *
 * IDENTIFICATION
 *	  src/window/window.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef SE_WINDOW_H
#define SE_WINDOW_H

#include "datatype/timestamp.h"
#include "pgtime.h"

/*
 * Most slices that a window may consist of, whatever the caller allows: bounds
 * without indexes are reached by counting.
 */
#define SE_WINDOW_SLICES_LIMIT	1000000

typedef enum SeWindowKind
{
	SE_WINDOW_TUMBLE,
	SE_WINDOW_HOP,
	SE_WINDOW_CUMULATE,
	SE_WINDOW_SESSION,
	SE_WINDOW_GLOBAL
} SeWindowKind;

/* The coarsest unit of a window's intervals; it decides the rule for zones. */
typedef enum SeWindowUnit
{
	SE_UNIT_CLOCK,				/* hours and less */
	SE_UNIT_DAYS,
	SE_UNIT_MONTHS
} SeWindowUnit;

/*
 * A lattice is an infinite ascending list of local times at equal distances,
 * and the instants that belong to them in a zone.  Its indexes count from the
 * anchor and may be negative.
 */
typedef struct SeLattice
{
	SeWindowUnit unit;
	const pg_tz *zone;			/* NULL if the offset from UTC is constant */
	int64		offset;			/* that constant, microseconds east of UTC */
	int64		step;			/* microseconds, or months */
	int64		anchor;			/* local time of index 0; months: of day */
	int32		anchor_month;	/* months: year * 12 + month - 1 */
	int32		anchor_day;		/* months: day of the month */
} SeLattice;

/* A window's bounds: start inclusive, end exclusive. */
typedef struct SeWindowBounds
{
	TimestampTz start;
	TimestampTz end;
} SeWindowBounds;

/*
 * A window clause, compiled.  The caller zeroes it, sets the first group of
 * fields and calls se_window_spec_init(), which sets the others.  It holds no
 * memory of its own: zone_name belongs to the caller, and the pg_tz to the
 * server's cache of zones, which lives as long as the process.
 */
typedef struct SeWindowSpec
{
	SeWindowKind kind;
	Interval	size;			/* session: the gap; global: unused */
	Interval	every;			/* hop: every; cumulate: step */
	bool		has_origin;
	TimestampTz origin;
	const char *zone_name;		/* NULL = UTC */
	bool		by_window;		/* slices are whole windows; see above */

	/* set by se_window_spec_init() */
	const pg_tz *zone;			/* NULL = UTC */
	SeWindowUnit unit;
	int64		gap;			/* session: microseconds */
	int64		width;			/* size in microseconds or months */
	int64		step;			/* distance of slices' lattice, same unit */
	int64		whole;			/* width = whole * step + rest */
	int64		rest;
	int64		slices_per_window;	/* most slices of a window, in UTC */
	int64		windows_per_slice;	/* most windows of a slice, in UTC */
	bool		arithmetic;		/* slices are plain integer arithmetic */
	int64		anchor;			/* if arithmetic: of the lattice, in UTC */
	TimestampTz lowest;			/* rows outside of lowest..highest are out */
	TimestampTz highest;		/* of range; so are infinite ones */
	SeLattice	lattice;		/* of slices, in the spec's own zone */
	SeLattice	period;			/* cumulate: of whole windows */
} SeWindowSpec;

/* State of a walk over the windows of a slice; see se_window_iterate(). */
typedef struct SeWindowIterator
{
	const SeWindowSpec *spec;
	SeLattice	lattice;
	bool		is_window;		/* the slice is the only window */
	SeWindowBounds slice;
	SeWindowBounds last;		/* what was returned last */
	SeWindowBounds period;		/* cumulate */
	int64		index;			/* next candidate, if the lattice has indexes */
	int64		remaining;		/* candidates left */
	TimestampTz start;			/* next candidate's start and end points, if */
	TimestampTz end;			/* it has none */
} SeWindowIterator;

/* assign.c */
extern void se_window_spec_init(SeWindowSpec *spec, int64 max_slices);
extern bool se_window_slice_in_zone(const SeWindowSpec *spec, TimestampTz t,
									const pg_tz *row_zone,
									TimestampTz *start, TimestampTz *end);
extern void se_window_iterate(SeWindowIterator *iterator,
							  const SeWindowSpec *spec,
							  TimestampTz slice_start, TimestampTz slice_end,
							  const pg_tz *row_zone);
extern void se_window_iterate_row(SeWindowIterator *iterator,
								  const SeWindowSpec *spec,
								  TimestampTz slice_start,
								  TimestampTz slice_end,
								  const pg_tz *row_zone);
extern bool se_window_next(SeWindowIterator *iterator, SeWindowBounds *window);
extern int	se_window_of_slice(const SeWindowSpec *spec,
							   TimestampTz slice_start, TimestampTz slice_end,
							   const pg_tz *row_zone,
							   SeWindowBounds *out, int max);
extern int	se_window_slices(const SeWindowSpec *spec,
							 TimestampTz window_start, TimestampTz window_end,
							 const pg_tz *row_zone,
							 SeWindowBounds *out, int max);
extern TimestampTz se_window_first_end(const SeWindowSpec *spec,
									   TimestampTz slice_start,
									   TimestampTz slice_end,
									   const pg_tz *row_zone);
extern TimestampTz se_window_last_end(const SeWindowSpec *spec,
									  TimestampTz slice_start,
									  TimestampTz slice_end,
									  const pg_tz *row_zone);

/* calendar.c */
extern const pg_tz *se_window_zone(const char *name);
extern void se_lattice_init(SeLattice *lattice, SeWindowUnit unit, int64 step,
							const TimestampTz *origin, int64 anchor_day,
							const pg_tz *zone);
extern bool se_lattice_has_index(const SeLattice *lattice);
extern TimestampTz se_lattice_floor(const SeLattice *lattice, TimestampTz t,
									int64 *index);
extern TimestampTz se_lattice_at(const SeLattice *lattice, int64 index,
								 int64 rest);
extern TimestampTz se_lattice_after(const SeLattice *lattice, TimestampTz t);

/* Whether each window is one slice, with its bounds. */
static inline bool
se_window_is_slice(const SeWindowSpec *spec)
{
	return spec->kind == SE_WINDOW_TUMBLE || spec->by_window;
}

/*
 * The slice [*start, *end) that holds the instant t.
 *
 * row_zone, if not NULL, takes the place of the spec's zone.  Returns false,
 * and sets nothing, if t is infinite or too near to the ends of the range of
 * timestamps for its windows to have bounds.
 */
static inline bool
se_window_slice(const SeWindowSpec *spec, TimestampTz t, const pg_tz *row_zone,
				TimestampTz *start, TimestampTz *end)
{
	int64		past;

	if (unlikely(!spec->arithmetic || row_zone != NULL))
		return se_window_slice_in_zone(spec, t, row_zone, start, end);

	if (unlikely(t < spec->lowest || t > spec->highest))
		return false;

	/* C's remainder has the sign of the dividend; windows need its floor */
	past = (t - spec->anchor) % spec->step;
	if (past < 0)
		past += spec->step;

	if (past < spec->rest)
	{
		*start = t - past;
		*end = *start + spec->rest;
	}
	else
	{
		*start = t - past + spec->rest;
		*end = t - past + spec->step;
	}
	return true;
}

#endif							/* SE_WINDOW_H */
