# calendars.py
#	Windows of an instant: tumbling, hopping and cumulating, in any zone.
#
# NOTES
#	Instants are integers, microseconds since 1970-01-01 00:00 UTC.  This module
#	shares nothing with the engine: zones come from Python's zoneinfo, and bounds
#	are found by listing them around an instant, not by arithmetic on indexes.
#
#	The bounds of a lattice are the instants of the local times anchor + n * step.
#	With steps of hours or less each instant at which the clock shows such a time
#	is a bound; with days and months it is the first.  A local time that the clock
#	skips is the instant of the change.
#
import datetime
import functools
import re
import zoneinfo

SECOND = 1000000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
EPOCH = datetime.datetime(1970, 1, 1)
MONDAY = 4 * DAY
FACTORS = {"microsecond": 1, "millisecond": 1000, "second": SECOND, "minute": MINUTE, "hour": HOUR}


@functools.lru_cache(None)
def interval(text):
    """(months, days, microseconds) of "2 hours", "1 month", "1 minute 30 seconds"."""
    months = days = micros = 0
    for number, unit in re.findall(r"(-?\d+) ([a-z]+?)s?\b", text):
        number = int(number)
        if unit in ("month", "year"):
            months += number * (12 if unit == "year" else 1)
        elif unit in ("day", "week"):
            days += number * (7 if unit == "week" else 1)
        else:
            micros += number * FACTORS[unit]
    return months, days, micros


def duration(text):
    """Microseconds of an interval without months."""
    months, days, micros = interval(text)
    assert months == 0
    return days * DAY + micros


def naive(micros):
    return EPOCH + datetime.timedelta(microseconds=micros)


def since_epoch(when):
    return (when - EPOCH) // datetime.timedelta(microseconds=1)


class Zone:
    """A zone's clock, as microseconds of local time since its own 1970."""

    def __init__(self, name):
        self.info = zoneinfo.ZoneInfo(name) if name else None

    def offset(self, instant):
        if self.info is None:
            return 0
        aware = naive(instant).replace(tzinfo=datetime.timezone.utc).astimezone(self.info)
        return aware.utcoffset() // datetime.timedelta(microseconds=1)

    def local(self, instant):
        return instant + self.offset(instant)

    def steady(self, instant):
        """No change of the clock within a day or so of the instant."""
        return self.info is None or \
            len({self.offset(instant + d) for d in range(-27 * HOUR, 27 * HOUR + 1, 3 * HOUR)}) == 1

    def instants(self, local):
        """All instants at which the clock shows a local time; if it skips it, that of the change."""
        if self.info is None:
            return [local]
        offsets = {self.offset(local + d) for d in range(-36 * HOUR, 36 * HOUR + 1, 3 * HOUR)}
        shown = sorted(local - o for o in offsets if self.local(local - o) == local)
        if shown:
            return shown
        low, high = local - 36 * HOUR, local + 36 * HOUR
        while high - low > 1:  # the first instant at which the clock shows a later time
            middle = (low + high) // 2
            if self.local(middle) < local:
                low = middle
            else:
                high = middle
        return [high]


class Lattice:
    """Local times at equal distances, and their instants; "calendar" is the rule of days and months."""

    def __init__(self, step, origin, zone, calendar):
        self.months, days, micros = interval(step)
        self.micros = days * DAY + micros
        self.zone = zone
        self.calendar = calendar
        if origin is not None:
            self.anchor = zone.local(origin)
        else:
            self.anchor = MONDAY if self.months == 0 and self.micros % (7 * DAY) == 0 else 0
        self.cached_bounds = functools.lru_cache(None)(self.bounds_of_index)

    def point(self, n):
        if not self.months:
            return self.anchor + n * self.micros
        anchor = naive(self.anchor)
        month = anchor.year * 12 + anchor.month - 1 + n * self.months
        year, month = divmod(month, 12)
        last = (datetime.datetime(year + month // 11, (month + 1) % 12 + 1, 1) - datetime.timedelta(days=1)).day
        return since_epoch(anchor.replace(year=year, month=month + 1, day=min(anchor.day, last)))

    def index(self, local):
        """The greatest n whose point is not after a local time."""
        if not self.months:
            return (local - self.anchor) // self.micros
        here, anchor = naive(local), naive(self.anchor)
        n = ((here.year - anchor.year) * 12 + here.month - anchor.month) // self.months + 1
        while self.point(n) > local:
            n -= 1
        return n

    def bounds_of_index(self, n):
        shown = self.zone.instants(self.point(n))
        return shown[:1] if self.calendar else shown

    def around(self, instant, count):
        """Bounds in order, with at least "count" of them on either side of the instant."""
        n = self.index(self.zone.local(instant))
        reach = count + 2
        if not self.months and not self.zone.steady(instant):
            reach += 4 * HOUR // self.micros
        return sorted({b for i in range(n - reach, n + reach + 1) for b in self.cached_bounds(i)})


class Windows:
    """The windows of a clause; windows_of(instant) lists those that hold it, in order."""

    def __init__(self, kind, size, every=None, origin=None, time_zone=None):
        self.kind = kind
        self.zone = Zone(time_zone)
        self.size = size
        calendar = any(months or days for months, days, _ in (interval(i) for i in (size, every) if i))
        self.lattice = Lattice(every if kind == "hop" else size, origin, self.zone, calendar)
        if kind == "cumulate":
            self.steps = Lattice(every, origin if origin is not None else since_local(self.lattice), self.zone, calendar)
        if kind == "hop":
            size_months, size_days, size_micros = interval(size)
            if self.lattice.months:
                self.whole, rest = divmod(size_months, self.lattice.months)
            else:
                self.whole, rest = divmod(size_days * DAY + size_micros, self.lattice.micros)
            self.rest = rest != 0
            assert not self.rest or (time_zone is None and not size_months)
        self.windows_of = functools.lru_cache(None)(self.compute)

    def compute(self, instant):
        if self.kind == "hop":
            return self.hop(instant)
        bounds = self.lattice.around(instant, 1)
        start = max(b for b in bounds if b <= instant)
        end = min(b for b in bounds if b > instant)
        if self.kind == "tumble":
            return [(start, end)]
        ends = [b for b in self.steps.around(instant, 2 + self.steps_in_period()) if instant < b <= end]
        return [(start, b) for b in sorted(set(ends) | {end})]

    def steps_in_period(self):
        if self.steps.months:
            return interval(self.size)[0] // self.steps.months
        months, days, micros = interval(self.size)
        return (months * 31 * DAY + days * DAY + micros) // self.steps.micros

    def hop(self, instant):
        if self.rest:
            width = duration(self.size)
            bounds = self.lattice.around(instant, self.whole + 2)
            return [(b, b + width) for b in bounds if b <= instant < b + width]
        bounds = self.lattice.around(instant, self.whole + 2)
        return [(bounds[i], bounds[i + self.whole]) for i in range(len(bounds) - self.whole)
                if bounds[i] <= instant < bounds[i + self.whole]]


def since_local(lattice):
    """The instant of a lattice's anchor: steps are counted from where periods are."""
    return lattice.zone.instants(lattice.anchor)[0]
