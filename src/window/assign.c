/*-------------------------------------------------------------------------
 *
 * assign.c
 *	  Which slice a row belongs to, and which windows a slice belongs to
 *
 * NOTES
 *	  Starts of windows are the bounds of a lattice (calendar.c) whose step is
 *	  the window's size (tumble) or "every" (hop).  With indexes, the hopping
 *	  window that starts at index i ends "rest" after index i + whole; without
 *	  (hours in a zone whose clock is changed), where bounds can only be
 *	  counted, it ends "rest" after the bound that comes "whole" bounds later,
 *	  but not after the next one.  So hop(size, every => size) and tumble(size)
 *	  have the same windows in every zone, and starts and ends of consecutive
 *	  windows ascend: walking over the windows of a slice by their starts visits
 *	  their ends in order too.
 *
 *	  Cutting each step once, at "rest", is the least number of slices that can
 *	  make up all windows ("paired windows": Krishnamurthy, Wu, Franklin:
 *	  On-the-fly sharing for streamed aggregation, SIGMOD 2006).  Cutting at the
 *	  greatest common divisor of size and every would make many more.
 *
 *	  Numbers cannot overflow: sizes are at most MAX_YEARS, rows that are nearer
 *	  than that (of the size at hand) to the ends of the range of timestamps are
 *	  refused, and the range leaves eight days to the ends of int64.
 *
 * IDENTIFICATION
 *	  src/window/assign.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/int.h"
#include "compat/compat.h"
#include "utils/timestamp.h"
#include "window/window.h"

/* Largest size of a window */
#define MAX_YEARS	1000
#define MAX_MONTHS	((int64) MAX_YEARS * MONTHS_PER_YEAR)
#define MAX_WIDTH	((int64) MAX_YEARS * 366 * USECS_PER_DAY)

/*
 * What a zone's clock and the rounding of months can add to a window's size,
 * amply.
 */
#define MARGIN		(64 * USECS_PER_DAY)

/* Monday, 1970-01-05, in days since 1970-01-01 */
#define FIRST_MONDAY	4

/*
 * Check one interval of a window clause; returns its length in microseconds,
 * or in months if it has any.
 */
static int64
interval_length(const Interval *interval, const char *what, SeWindowUnit *unit)
{
	int64		length;

	if (SE_INTERVAL_NOT_FINITE(interval))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be finite", what)));

	if (interval->month != 0)
	{
		if (interval->day != 0 || interval->time != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s cannot mix months with days or time", what),
					 errdetail("The length of a month varies, so a sum of months and days has no fixed length."),
					 errhint("Use months and years only, or days and smaller units only.")));
		*unit = SE_UNIT_MONTHS;
		length = interval->month;
	}
	else
	{
		*unit = interval->day != 0 ? SE_UNIT_DAYS : SE_UNIT_CLOCK;

		/* an overflow has the sign of the part that makes it */
		if (pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &length))
			length = interval->day > 0 ? PG_INT64_MAX : PG_INT64_MIN;
		else if (pg_add_s64_overflow(length, interval->time, &length))
			length = interval->time > 0 ? PG_INT64_MAX : PG_INT64_MIN;
	}

	if (length <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be positive", what)));

	if (length > (*unit == SE_UNIT_MONTHS ? MAX_MONTHS : MAX_WIDTH))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not exceed %d years", what, MAX_YEARS)));

	return length;
}

/* Are the interval's bounds to be on Mondays, rather than on 1970-01-01? */
static bool
is_whole_weeks(const Interval *interval)
{
	return interval->month == 0 && interval->time == 0 &&
		interval->day % 7 == 0;
}

/* A lattice with the spec's unit and origin. */
static void
make_lattice(SeLattice *lattice, const SeWindowSpec *spec, int64 step,
			 const Interval *interval, const pg_tz *zone)
{
	se_lattice_init(lattice, spec->unit, step,
					spec->has_origin ? &spec->origin : NULL,
					is_whole_weeks(interval) ? FIRST_MONDAY : 0,
					zone);
}

/*
 * The lattice of slices, and for cumulate that of whole windows, in a zone.
 *
 * The anchor of cumulate's steps is that of the whole windows, so that each
 * whole window starts with a step.
 */
static void
make_lattices(const SeWindowSpec *spec, const pg_tz *zone,
			  SeLattice *lattice, SeLattice *period)
{
	const Interval *aligned = spec->kind == SE_WINDOW_HOP ?
	&spec->every : &spec->size;

	make_lattice(lattice, spec, spec->step, aligned, zone);
	if (spec->kind == SE_WINDOW_CUMULATE)
		make_lattice(period, spec, spec->width, aligned, zone);
}

/*
 * Check and compile a window clause.
 *
 * max_slices bounds the number of slices that a window may consist of; it is cut
 * to SE_WINDOW_SLICES_LIMIT, which 0 stands for.  Raises an error, and leaves the
 * spec unusable, if the clause makes no sense.
 */
void
se_window_spec_init(SeWindowSpec *spec, int64 max_slices)
{
	const char *every_name = spec->kind == SE_WINDOW_HOP ?
	"hop interval" : "cumulate step";
	SeWindowUnit every_unit;
	TimestampTz reach;

	spec->zone = NULL;
	spec->unit = SE_UNIT_CLOCK;
	spec->gap = spec->width = spec->step = spec->whole = spec->rest = 0;
	spec->slices_per_window = spec->windows_per_slice = 1;
	spec->arithmetic = false;
	spec->lowest = MIN_TIMESTAMP;
	spec->highest = END_TIMESTAMP - 1;

	if (spec->kind == SE_WINDOW_GLOBAL)
		return;

	if (spec->kind == SE_WINDOW_SESSION)
	{
		spec->gap = interval_length(&spec->size, "session gap", &spec->unit);
		if (spec->unit == SE_UNIT_MONTHS)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("session gap cannot be in months"),
					 errhint("Use days, of 24 hours, or smaller units.")));
		spec->unit = SE_UNIT_CLOCK;
		spec->width = spec->step = spec->gap;
		spec->whole = 1;
		se_lattice_init(&spec->lattice, SE_UNIT_CLOCK, spec->step, NULL, 0, NULL);
		spec->arithmetic = true;
		spec->anchor = spec->lattice.anchor;
		spec->lowest = MIN_TIMESTAMP + 2 * spec->gap;
		spec->highest = END_TIMESTAMP - 1 - 2 * spec->gap;
		return;
	}

	spec->width = interval_length(&spec->size, "window size", &spec->unit);
	spec->step = spec->width;

	if (spec->kind != SE_WINDOW_TUMBLE)
	{
		spec->step = interval_length(&spec->every, every_name, &every_unit);

		if ((spec->unit == SE_UNIT_MONTHS) != (every_unit == SE_UNIT_MONTHS))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("window size and %s cannot mix months with days or time",
							every_name),
					 errhint("Use months and years for both, or days and smaller units for both.")));
		spec->unit = Max(spec->unit, every_unit);

		if (spec->step > spec->width)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s must not be greater than the window size",
							every_name),
					 errhint("The size comes first, then the %s.", every_name)));
	}

	spec->whole = spec->width / spec->step;
	spec->rest = spec->width % spec->step;

	if (spec->kind == SE_WINDOW_CUMULATE)
	{
		if (spec->rest != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("window size must be a multiple of the %s",
							every_name)));
		spec->slices_per_window = spec->windows_per_slice = spec->whole;
	}
	else if (spec->rest == 0)
		spec->slices_per_window = spec->windows_per_slice = spec->whole;
	else
	{
		spec->slices_per_window = 2 * spec->whole + 1;
		spec->windows_per_slice = spec->whole + 1;
	}

	if (max_slices <= 0 || max_slices > SE_WINDOW_SLICES_LIMIT)
		max_slices = SE_WINDOW_SLICES_LIMIT;
	if (spec->slices_per_window > max_slices)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("window consists of too many slices"),
				 errdetail("A window of this size consists of %lld slices, the limit is %lld.",
						   (long long) spec->slices_per_window,
						   (long long) max_slices),
				 errhint("Increase the %s, or decrease the window size.",
						 every_name)));

	if (spec->has_origin &&
		(spec->origin < MIN_TIMESTAMP + MARGIN ||
		 spec->origin >= END_TIMESTAMP - MARGIN))
	{
		if (TIMESTAMP_NOT_FINITE(spec->origin))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("window origin must be finite")));
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("window origin out of range")));
	}

	if (spec->zone_name != NULL)
	{
		spec->zone = se_window_zone(spec->zone_name);
		if (spec->zone == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("time zone \"%s\" not recognized", spec->zone_name),
					 errhint("Use a name listed in pg_timezone_names; abbreviations are not accepted, because their meaning depends on a setting.")));
	}

	make_lattices(spec, spec->zone, &spec->lattice, &spec->period);

	spec->arithmetic = (spec->unit != SE_UNIT_MONTHS &&
						spec->lattice.zone == NULL);
	if (spec->arithmetic)
	{
		spec->anchor = spec->lattice.anchor - spec->lattice.offset;
		spec->anchor %= spec->step;
	}

	reach = spec->unit == SE_UNIT_MONTHS ?
		spec->width * 31 * USECS_PER_DAY : spec->width;
	if (!spec->arithmetic)
		reach += MARGIN;
	spec->lowest = MIN_TIMESTAMP + reach;
	spec->highest = END_TIMESTAMP - 1 - reach;
}

/* The spec's own lattice, or one for a row's zone made in *buffer. */
static const SeLattice *
lattice_in_zone(const SeWindowSpec *spec, const pg_tz *row_zone,
				SeLattice *buffer)
{
	SeLattice	period;

	if (row_zone == NULL || row_zone == spec->zone ||
		spec->kind == SE_WINDOW_SESSION)
		return &spec->lattice;
	make_lattices(spec, row_zone, buffer, &period);
	return buffer;
}

/*
 * End of a hopping window's last step, without indexes: "rest" after a bound,
 * but not after the next one.
 */
static TimestampTz
rest_after(const SeLattice *lattice, TimestampTz bound, int64 rest)
{
	TimestampTz next;

	if (rest == 0)
		return bound;
	next = se_lattice_after(lattice, bound);
	return next - bound < rest ? next : bound + rest;
}

/* The slice that holds t, in a lattice; t is known to be in range. */
static void
slice_in_lattice(const SeWindowSpec *spec, const SeLattice *lattice,
				 TimestampTz t, SeWindowBounds *slice)
{
	bool		indexed = se_lattice_has_index(lattice);
	int64		index;
	TimestampTz cut;

	slice->start = se_lattice_floor(lattice, t, &index);
	slice->end = indexed ? se_lattice_at(lattice, index + 1, 0) :
		se_lattice_after(lattice, t);
	if (spec->rest == 0)
		return;

	cut = indexed ? se_lattice_at(lattice, index, spec->rest) :
		rest_after(lattice, slice->start, spec->rest);
	if (t < cut)
		slice->end = cut;
	else
		slice->start = cut;
}

/*
 * se_window_slice() for everything that is not plain arithmetic.
 */
bool
se_window_slice_in_zone(const SeWindowSpec *spec, TimestampTz t,
						const pg_tz *row_zone,
						TimestampTz *start, TimestampTz *end)
{
	SeLattice	buffer;
	SeWindowBounds slice;

	if (t < spec->lowest || t > spec->highest)
		return false;
	if (row_zone != NULL &&
		(t - MARGIN < spec->lowest || t > spec->highest - MARGIN))
		return false;

	if (spec->kind == SE_WINDOW_GLOBAL)
	{
		*start = DT_NOBEGIN;
		*end = DT_NOEND;
		return true;
	}

	slice_in_lattice(spec, lattice_in_zone(spec, row_zone, &buffer), t, &slice);
	*start = slice.start;
	*end = slice.end;
	return true;
}

/*
 * Begin a walk over the windows that contain a slice, in the order of their
 * ends (and of their starts).
 *
 * The slice is one that se_window_slice() gave for the same spec and zone, or
 * one that starts as such a slice does and ends with one of its windows; the spec
 * must outlive the iterator, which holds no other resource.  By window, the slice
 * is its window.
 *
 * Sessions have no windows that could be told from a slice alone.  For them the
 * walk gives one interval: a session with a row in the slice and no later one
 * lies inside of [slice_start, slice_end + gap) from that row on.
 */
void
se_window_iterate(SeWindowIterator *iterator, const SeWindowSpec *spec,
				  TimestampTz slice_start, TimestampTz slice_end,
				  const pg_tz *row_zone)
{
	se_window_iterate_row(iterator, spec, slice_start, slice_end, row_zone);
	iterator->is_window = spec->by_window;
}

/*
 * The same for the windows of a row, in its own time zone: by window too, the
 * slice is the one that se_window_slice() gave for the row.
 */
void
se_window_iterate_row(SeWindowIterator *iterator, const SeWindowSpec *spec,
					  TimestampTz slice_start, TimestampTz slice_end,
					  const pg_tz *row_zone)
{
	SeLattice  *lattice = &iterator->lattice;
	SeLattice	period;
	int64		index;

	memset(iterator, 0, sizeof(SeWindowIterator));
	iterator->spec = spec;
	iterator->slice.start = slice_start;
	iterator->slice.end = slice_end;
	iterator->last.start = DT_NOBEGIN;
	iterator->last.end = DT_NOBEGIN;
	iterator->remaining = 1;

	if (spec->kind != SE_WINDOW_HOP && spec->kind != SE_WINDOW_CUMULATE)
		return;

	if (row_zone == NULL || row_zone == spec->zone)
	{
		*lattice = spec->lattice;
		period = spec->period;
	}
	else
		make_lattices(spec, row_zone, lattice, &period);

	if (spec->kind == SE_WINDOW_CUMULATE)
	{
		iterator->period.start = se_lattice_floor(&period, slice_start, &index);
		iterator->period.end = se_lattice_after(&period, slice_start);
		iterator->end = slice_end;
		return;
	}

	/* the last candidate starts with the slice's step, or at it */
	iterator->start = se_lattice_floor(lattice, slice_start, &index);
	iterator->end = iterator->start;
	iterator->index = index - spec->whole;
	iterator->remaining = spec->whole + 1;
	if (!se_lattice_has_index(lattice))
	{
		for (int64 i = 0; i < spec->whole; i++)
			iterator->start = se_lattice_floor(lattice, iterator->start - 1, &index);
	}
}

/*
 * The next window of the walk; false if there is none left.
 */
bool
se_window_next(SeWindowIterator *iterator, SeWindowBounds *window)
{
	const SeWindowSpec *spec = iterator->spec;
	const SeLattice *lattice = &iterator->lattice;

	if (iterator->remaining <= 0)
		return false;
	if (iterator->is_window)
	{
		iterator->remaining = 0;
		*window = iterator->slice;
		return true;
	}

	switch (spec->kind)
	{
		case SE_WINDOW_TUMBLE:
		case SE_WINDOW_GLOBAL:
			iterator->remaining = 0;
			*window = iterator->slice;
			return true;

		case SE_WINDOW_SESSION:
			iterator->remaining = 0;
			window->start = iterator->slice.start;
			window->end = iterator->slice.end + spec->gap;
			return true;

		case SE_WINDOW_CUMULATE:
			window->start = iterator->period.start;
			window->end = iterator->end;
			if (window->end >= iterator->period.end)
				iterator->remaining = 0;
			else
				iterator->end = se_lattice_after(lattice, window->end);
			return true;

		case SE_WINDOW_HOP:
			break;
	}

	while (iterator->remaining-- > 0)
	{
		if (se_lattice_has_index(lattice))
		{
			window->start = se_lattice_at(lattice, iterator->index, 0);
			window->end = se_lattice_at(lattice, iterator->index + spec->whole,
										spec->rest);
			iterator->index++;
		}
		else
		{
			window->start = iterator->start;
			window->end = rest_after(lattice, iterator->end, spec->rest);
			iterator->start = se_lattice_after(lattice, iterator->start);
			iterator->end = se_lattice_after(lattice, iterator->end);
		}

		/* the first may end before the slice, or where the slice begins */
		if (window->end < iterator->slice.end)
			continue;

		/* bounds that a zone skips fall together, and so may windows */
		if (window->start == iterator->last.start &&
			window->end == iterator->last.end)
			continue;

		iterator->last = *window;
		return true;
	}
	return false;
}

/*
 * All windows that contain a slice, in the order of their ends.
 *
 * Returns their number, and stores the first "max" of them.
 */
int
se_window_of_slice(const SeWindowSpec *spec,
				   TimestampTz slice_start, TimestampTz slice_end,
				   const pg_tz *row_zone, SeWindowBounds *out, int max)
{
	SeWindowIterator iterator;
	SeWindowBounds window;
	int			n = 0;

	se_window_iterate(&iterator, spec, slice_start, slice_end, row_zone);
	while (se_window_next(&iterator, &window))
	{
		if (n < max)
			out[n] = window;
		n++;
	}
	return n;
}

/*
 * The slices that make up a window, in order.
 *
 * Returns their number, and stores the first "max" of them.  For sessions these
 * are the buckets that the interval touches.
 */
int
se_window_slices(const SeWindowSpec *spec,
				 TimestampTz window_start, TimestampTz window_end,
				 const pg_tz *row_zone, SeWindowBounds *out, int max)
{
	SeLattice	buffer;
	const SeLattice *lattice;
	SeWindowBounds slice;
	int			n = 0;

	slice.start = window_start;
	slice.end = window_end;
	if (spec->kind == SE_WINDOW_GLOBAL)
	{
		if (max > 0)
			out[0] = slice;
		return 1;
	}

	lattice = lattice_in_zone(spec, row_zone, &buffer);
	for (TimestampTz t = window_start; t < window_end; t = slice.end)
	{
		slice_in_lattice(spec, lattice, t, &slice);
		if (n < max)
			out[n] = slice;
		n++;
	}
	return n;
}

/*
 * End of the first window that contains the slice: the earliest time at which
 * the slice has to be read.
 */
TimestampTz
se_window_first_end(const SeWindowSpec *spec,
					TimestampTz slice_start, TimestampTz slice_end,
					const pg_tz *row_zone)
{
	SeWindowIterator iterator;
	SeWindowBounds window;

	if (spec->kind == SE_WINDOW_SESSION)
		return slice_start + spec->gap;

	se_window_iterate(&iterator, spec, slice_start, slice_end, row_zone);
	if (!se_window_next(&iterator, &window))
		return slice_end;
	return window.end;
}

/*
 * End of the last window that contains the slice: the time from which it is not
 * needed any more.
 */
TimestampTz
se_window_last_end(const SeWindowSpec *spec,
				   TimestampTz slice_start, TimestampTz slice_end,
				   const pg_tz *row_zone)
{
	SeLattice	buffer;
	const SeLattice *lattice;
	TimestampTz end;
	int64		index;

	switch (spec->kind)
	{
		case SE_WINDOW_TUMBLE:
		case SE_WINDOW_GLOBAL:
			return slice_end;

		case SE_WINDOW_SESSION:
			return slice_end + spec->gap;

		case SE_WINDOW_CUMULATE:
			{
				SeWindowIterator iterator;

				se_window_iterate(&iterator, spec, slice_start, slice_end, row_zone);
				return iterator.period.end;
			}

		case SE_WINDOW_HOP:
			break;
	}

	lattice = lattice_in_zone(spec, row_zone, &buffer);
	end = se_lattice_floor(lattice, slice_start, &index);
	if (se_lattice_has_index(lattice))
		return se_lattice_at(lattice, index + spec->whole, spec->rest);

	for (int64 i = 0; i < spec->whole; i++)
		end = se_lattice_after(lattice, end);
	return rest_after(lattice, end, spec->rest);
}
