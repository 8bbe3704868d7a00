/*-------------------------------------------------------------------------
 *
 * calendar.c
 *	  Lattices of local times, and the instants that belong to them
 *
 * NOTES
 *	  Bounds of windows are local times at equal distances: every 15 minutes,
 *	  every day, every 3 months, counted from an anchor.  The anchor is the
 *	  origin, read on the zone's clock, or else the local midnight of 1970-01-01
 *	  (of Monday, 1970-01-05, for distances of whole weeks).
 *
 *	  An instant has exactly one local time, but not the other way round: clocks
 *	  are put back, and show some times twice, and are put forward, and skip
 *	  some.  So a row is always shifted from UTC to local time, bucketed there,
 *	  and the bounds of its bucket are then searched as instants, such that the
 *	  window's start is not after the row and its end is.  The rule depends on
 *	  the unit:
 *
 *	  Hours and less (SE_UNIT_CLOCK): a bound is each instant at which the clock
 *	  comes to show a time of the lattice.  A time that is shown twice is two
 *	  bounds, so both passes of a repeated hour are windows of their own.
 *
 *	  Days and months: a bound is the first instant at which the clock shows a
 *	  time of the lattice or a later one.  A time that is shown twice is one
 *	  bound, the first pass, so a local day remains one window, of 25 hours
 *	  perhaps.  If intervals of both sorts meet in one window clause (a hop of a
 *	  day every hour), this rule holds for all its bounds.
 *
 *	  Under both, a time that is skipped is represented by the instant of the
 *	  change, the first one that exists after it; several skipped times fall
 *	  together in it, and the windows between them, which no row can belong to,
 *	  do not exist.
 *
 *	  Bounds are thus a sorted list of instants, whatever the zone does, and
 *	  windows between neighbours partition the line of time.  Converting a
 *	  bucket's local start with the rules of timestamp AT TIME ZONE instead
 *	  would not give that: it takes the second pass of a repeated time, which is
 *	  after the rows of the first, and moves a skipped time by the length of the
 *	  gap, which need not be where the gap ends.
 *
 *	  Local times are kept as the TimestampTz that the same digits would have
 *	  in UTC.
 *
 * IDENTIFICATION
 *	  src/window/calendar.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/datetime.h"
#include "window/window.h"

/* No zone's clock is further from UTC than this. */
#define ZONE_REACH	(8 * USECS_PER_DAY)

/* Seconds between the epochs of pg_time_t and TimestampTz */
#define EPOCH_SHIFT \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

/* A stretch of time in which a zone's offset from UTC is constant. */
typedef struct Stretch
{
	int64		offset;			/* microseconds east of UTC */
	bool		bounded;		/* does it end? */
	TimestampTz end;			/* if so, when, and */
	int64		next_offset;	/* what holds from then on */
} Stretch;

/* Integer division that rounds down; b is positive. */
static inline int64
floor_div(int64 a, int64 b)
{
	int64		quotient = a / b;

	if (a % b < 0)
		quotient--;
	return quotient;
}

/* The stretch that holds the instant t; its beginning is not told. */
static void
zone_stretch(const pg_tz *zone, TimestampTz t, Stretch *stretch)
{
	pg_time_t	seconds = floor_div(t, USECS_PER_SEC) + EPOCH_SHIFT;
	pg_time_t	boundary = 0;
	long int	before = 0;
	long int	after = 0;
	int			before_isdst;
	int			after_isdst;
	int			found;

	found = pg_next_dst_boundary(&seconds, &before, &before_isdst,
								 &boundary, &after, &after_isdst, zone);

	/* like the server itself, take UTC where the zone's data have no answer */
	stretch->offset = found < 0 ? 0 : before * USECS_PER_SEC;
	stretch->bounded = found > 0 &&
		boundary - EPOCH_SHIFT <= (END_TIMESTAMP - 1) / USECS_PER_SEC;
	stretch->end = 0;
	stretch->next_offset = 0;
	if (stretch->bounded)
	{
		stretch->end = (boundary - EPOCH_SHIFT) * USECS_PER_SEC;
		stretch->next_offset = after * USECS_PER_SEC;
	}
}

/*
 * Find the last change of offset in (since, until].
 *
 * Returns false if there is none; else its time and the offset before it.
 * Searches in growing distances from the end, since the nearest is wanted and
 * the zone's data can only be read forward.
 */
static bool
last_change(const pg_tz *zone, TimestampTz since, TimestampTz until,
			TimestampTz *change, int64 *offset_before)
{
	int64		reach = USECS_PER_DAY;
	bool		found = false;

	for (;;)
	{
		TimestampTz at = until - reach > since ? until - reach : since;
		bool		all = (at == since);
		Stretch		stretch;

		zone_stretch(zone, at, &stretch);
		while (stretch.bounded && stretch.end <= until)
		{
			found = true;
			*change = stretch.end;
			*offset_before = stretch.offset;
			zone_stretch(zone, stretch.end, &stretch);
		}
		if (found || all)
			return found;
		reach *= 16;
	}
}

/* The first instant at which the zone's clock shows local or a later time. */
static TimestampTz
first_instant(const pg_tz *zone, int64 local)
{
	Stretch		stretch;

	/* begin where no clock can show it yet */
	zone_stretch(zone, local - ZONE_REACH, &stretch);
	while (stretch.bounded && local - stretch.offset >= stretch.end)
	{
		if (stretch.end + stretch.next_offset >= local)
			return stretch.end;
		zone_stretch(zone, stretch.end, &stretch);
	}
	return local - stretch.offset;
}

/*
 * Local time of an index, plus rest.
 *
 * Months are counted from the anchor at once, not one by one: the 31st of a
 * month becomes the last day of a shorter one, and the 31st again after that.
 */
static int64
local_time(const SeLattice *lattice, int64 index, int64 rest)
{
	int64		month;
	int			year;
	int			day;

	if (lattice->unit != SE_UNIT_MONTHS)
		return lattice->anchor + index * lattice->step + rest;

	month = lattice->anchor_month + index * lattice->step + rest;
	year = (int) floor_div(month, MONTHS_PER_YEAR);
	month -= (int64) year * MONTHS_PER_YEAR;
	day = Min(lattice->anchor_day, day_tab[isleap(year)][month]);

	return (int64) (date2j(year, (int) month + 1, day) - POSTGRES_EPOCH_JDATE) *
		USECS_PER_DAY + lattice->anchor;
}

/* The last index whose local time is not after local. */
static int64
local_index(const SeLattice *lattice, int64 local)
{
	int64		days;
	int64		index;
	int			year;
	int			month;
	int			day;

	if (lattice->unit != SE_UNIT_MONTHS)
		return floor_div(local - lattice->anchor, lattice->step);

	days = floor_div(local, USECS_PER_DAY);
	j2date((int) (days + POSTGRES_EPOCH_JDATE), &year, &month, &day);
	index = floor_div((int64) year * MONTHS_PER_YEAR + month - 1 -
					  lattice->anchor_month, lattice->step);

	/* the month is right; day and time may be before the lattice's */
	if (local_time(lattice, index, 0) > local)
		index--;
	return index;
}

/*
 * Does the lattice have indexes?
 *
 * It has not if a local time may belong to two instants; then bounds can only
 * be reached from their neighbours.
 */
bool
se_lattice_has_index(const SeLattice *lattice)
{
	return lattice->unit != SE_UNIT_CLOCK || lattice->zone == NULL;
}

/*
 * The last bound that is not after t, of a lattice without indexes.
 */
static TimestampTz
clock_floor(const SeLattice *lattice, TimestampTz t)
{
	for (;;)
	{
		Stretch		stretch;
		int64		local;
		TimestampTz start;
		TimestampTz change;
		int64		offset_before;

		zone_stretch(lattice->zone, t, &stretch);
		local = lattice->anchor +
			local_index(lattice, t + stretch.offset) * lattice->step;
		start = local - stretch.offset;

		if (!last_change(lattice->zone, start, t, &change, &offset_before))
			return start;

		/* was the time of the lattice skipped by that change? */
		if (local >= change + offset_before)
			return change;

		/* a bound before the change, perhaps one with a later local time */
		t = change - 1;
	}
}

/*
 * The first bound after t, of a lattice without indexes.
 */
static TimestampTz
clock_after(const SeLattice *lattice, TimestampTz t)
{
	for (;;)
	{
		Stretch		stretch;
		int64		local;

		zone_stretch(lattice->zone, t, &stretch);
		local = lattice->anchor +
			(local_index(lattice, t + stretch.offset) + 1) * lattice->step;

		if (!stretch.bounded || local - stretch.offset < stretch.end)
			return local - stretch.offset;

		/* is the change itself a bound, because it skips or shows a time? */
		if (stretch.next_offset >= stretch.offset ?
			local <= stretch.end + stretch.next_offset :
			(stretch.end + stretch.next_offset - lattice->anchor) % lattice->step == 0)
			return stretch.end;

		t = stretch.end;
	}
}

/*
 * Make a lattice.
 *
 * step is in months if that is the unit, else in microseconds, and positive.
 * Without an origin the anchor is the local midnight of anchor_day (days since
 * 1970-01-01).  zone may be NULL for UTC.
 */
void
se_lattice_init(SeLattice *lattice, SeWindowUnit unit, int64 step,
				const TimestampTz *origin, int64 anchor_day, const pg_tz *zone)
{
	long int	offset;

	memset(lattice, 0, sizeof(SeLattice));
	lattice->unit = unit;
	lattice->step = step;
	lattice->zone = zone;
	if (zone != NULL && pg_get_timezone_offset(zone, &offset))
	{
		lattice->zone = NULL;
		lattice->offset = offset * USECS_PER_SEC;
	}

	if (origin == NULL)
		lattice->anchor = (anchor_day +
						   UNIX_EPOCH_JDATE - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;
	else if (lattice->zone == NULL)
		lattice->anchor = *origin + lattice->offset;
	else
	{
		Stretch		stretch;

		zone_stretch(lattice->zone, *origin, &stretch);
		lattice->anchor = *origin + stretch.offset;
	}

	if (unit == SE_UNIT_MONTHS)
	{
		int64		days = floor_div(lattice->anchor, USECS_PER_DAY);
		int			year;
		int			month;
		int			day;

		j2date((int) (days + POSTGRES_EPOCH_JDATE), &year, &month, &day);
		lattice->anchor_month = year * MONTHS_PER_YEAR + month - 1;
		lattice->anchor_day = day;
		lattice->anchor -= days * USECS_PER_DAY;
	}
	else
	{
		/* the nearest anchor to zero, so that no difference can overflow */
		lattice->anchor -= floor_div(lattice->anchor, step) * step;
	}
}

/*
 * The last bound that is not after t, and its index if the lattice has any.
 *
 * If several indexes fall together in that bound, it is the last of them: the
 * next index is after t.
 */
TimestampTz
se_lattice_floor(const SeLattice *lattice, TimestampTz t, int64 *index)
{
	Stretch		stretch;
	int64		latest;

	*index = 0;
	if (!se_lattice_has_index(lattice))
		return clock_floor(lattice, t);

	if (lattice->zone == NULL)
	{
		*index = local_index(lattice, t + lattice->offset);
		return local_time(lattice, *index, 0) - lattice->offset;
	}

	/*
	 * What counts is the latest time that the clock has shown up to t.  That is
	 * later than what it shows at t, if it was put back just before.
	 */
	zone_stretch(lattice->zone, t - 2 * ZONE_REACH, &stretch);
	latest = PG_INT64_MIN;
	while (stretch.bounded && stretch.end <= t)
	{
		latest = Max(latest, stretch.end + stretch.offset - 1);
		zone_stretch(lattice->zone, stretch.end, &stretch);
	}
	latest = Max(latest, t + stretch.offset);

	*index = local_index(lattice, latest);
	return se_lattice_at(lattice, *index, 0);
}

/*
 * The instant of the local time at an index, plus rest.  The lattice must have
 * indexes.
 */
TimestampTz
se_lattice_at(const SeLattice *lattice, int64 index, int64 rest)
{
	int64		local = local_time(lattice, index, rest);

	Assert(se_lattice_has_index(lattice));
	if (lattice->zone == NULL)
		return local - lattice->offset;
	return first_instant(lattice->zone, local);
}

/* The first bound after t. */
TimestampTz
se_lattice_after(const SeLattice *lattice, TimestampTz t)
{
	int64		index;

	if (!se_lattice_has_index(lattice))
		return clock_after(lattice, t);

	(void) se_lattice_floor(lattice, t, &index);
	return se_lattice_at(lattice, index + 1, 0);
}

/*
 * The zone of that name, or NULL if there is none, or none that can be used.
 *
 * Names are those of pg_timezone_names and POSIX specifications.  Abbreviations
 * (PST) are not looked up: what they mean depends on a setting, and windows
 * must not.
 */
const pg_tz *
se_window_zone(const char *name)
{
	pg_tz	   *zone;

	if (strlen(name) > TZ_STRLEN_MAX)
		return NULL;
	zone = pg_tzset(name);
	if (zone == NULL || !pg_tz_acceptable(zone))
		return NULL;
	return zone;
}
