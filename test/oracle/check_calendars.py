#!/usr/bin/env python3
#
# check_calendars.py
#	The windows of calendars.py against the functions tumble, hop and cumulate, at
#	random instants, many of them near changes of clocks.
#
# usage: check_calendars.py SEED COUNT
#
#	Needs PGHOST, psql in the PATH and the database "oracle_template".
#
import random
import sys

from calendars import DAY, HOUR, MINUTE, SECOND, Windows, interval, naive
from database import Database

CHANGES = {"Europe/Berlin": (1711846800, 1729990800), "America/New_York": (1710054000, 1730613600),
           "Australia/Lord_Howe": (1712415600, 1728142200), "America/Sao_Paulo": (1541300400, 1550368800),
           "Europe/London": (1711846800, 1729990800)}
ZONES = (None, None, "Asia/Kolkata") + tuple(CHANGES)
CHOICES = (
    [("tumble", s, None) for s in ("7 seconds", "1 minute", "7 minutes", "15 minutes", "20 minutes", "1 hour", "2 hours", "5 hours",
                                   "6 hours", "1 day", "3 days", "7 days", "14 days", "10 days", "1 week", "1 month",
                                   "2 months", "3 months", "1 year")] +
    [("hop", s, e) for s, e in (("10 seconds", "3 seconds"), ("1 minute", "5 seconds"), ("2 hours", "1 hour"), ("1 day", "6 hours"),
                                ("2 days", "1 day"), ("7 days", "1 day"), ("14 days", "7 days"), ("3 months", "1 month"),
                                ("1 year", "3 months"), ("3 hours", "20 minutes"), ("25 minutes", "10 minutes"))] +
    [("cumulate", s, e) for s, e in (("1 hour", "20 minutes"), ("4 hours", "1 hour"), ("1 day", "6 hours"), ("7 days", "1 day"),
                                     ("1 year", "3 months"), ("14 days", "7 days"), ("3 days", "12 hours"))])


def instant(micros):
    return f"(timestamptz 'epoch' + interval '{micros} microseconds')"


def make(rng):
    kind, size, every = rng.choice(CHOICES)
    zone = rng.choice(ZONES)
    if (size, every) in (("10 seconds", "3 seconds"), ("25 minutes", "10 minutes")):
        zone = None  # what a part of a step is when the clock changes is not told
    if zone in CHANGES and rng.random() < 0.8:
        time = rng.choice(CHANGES[zone]) * SECOND + rng.randrange(-30 * HOUR, 30 * HOUR)
    else:
        time = rng.choice((0, 946684800, 1700000000)) * SECOND + rng.randrange(-40 * DAY, 40 * DAY)
    if rng.random() < 0.4:
        time += rng.choice((-1, 0, 0, 1)) - time % rng.choice((SECOND, MINUTE, HOUR))
    origin = None
    if rng.random() < 0.3:
        origin = rng.choice((0, 1704067200)) * SECOND + rng.randrange(-3 * DAY, 3 * DAY)
        if interval(size)[0]:
            origin -= origin % DAY
    return kind, size, every, origin, zone, time


def main():
    rng = random.Random(int(sys.argv[1]))
    cases = [make(rng) for _ in range(int(sys.argv[2]))]
    script = []
    for kind, size, every, origin, zone, time in cases:
        arguments = [instant(time), f"interval '{size}'"]
        arguments += [f"interval '{every}'"] if every else []
        arguments += ["NULL" if origin is None else instant(origin), f"'{zone}'" if zone else "NULL"]
        script.append(f"SELECT json_agg(json_build_array(us(lower(w)), us(upper(w)))) FROM {kind}({', '.join(arguments)}) AS w;")
    failed = 0
    for case, found in zip(cases, Database("oracle_template", False).rows("\n".join(script)), strict=True):
        expected = Windows(*case[:5]).windows_of(case[5])
        found = [tuple(w) for w in found]
        if found != expected:
            failed += 1
            print(f"FAILED calendars {case}, {naive(case[5])}: expected {[tuple(map(str, map(naive, w))) for w in expected]}, "
                  f"found {[tuple(map(str, map(naive, w))) for w in found]}")
    if failed == 0:
        print(f"ok calendars: {len(cases)} instants")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
