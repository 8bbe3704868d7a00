# generate.py
#	A random workload from a seed: a topic's records, a stream, queries over it,
#	and what happens while it is read.
#
# NOTES
#	The same seed and kind give the same workload; only the moments at which the
#	engine commits differ from run to run, and those are in the ledger.
#
import json
import random
from decimal import Decimal

import calendars
import features
from calendars import DAY, HOUR, MINUTE, SECOND
from simulator import BAD, FUTURE, GOOD, TOMBSTONE, Record

KINDS = ("tumble", "hop", "cumulate", "session", "global", "lateness", "changes",
         "triggers", "watermarks", "replays", "zones", "session_late", "session_changes", "processing", "session_retries")

# What a workload may contain besides, if it is asked for.
EXTRAS = ("longkeys", "starts")

# Kinds of windows that a kind of workload draws from.
WINDOWS = {"tumble": ("tumble",), "hop": ("hop",), "cumulate": ("cumulate",), "session": ("session",),
           "global": ("global",), "lateness": ("tumble", "hop", "cumulate"), "changes": ("tumble", "hop", "cumulate"),
           "triggers": ("global",), "watermarks": ("tumble", "hop", "cumulate", "session"),
           "replays": ("tumble", "hop", "cumulate"), "zones": ("tumble", "hop", "cumulate"), "session_late": ("session",),
           "session_changes": ("session",), "session_retries": ("session",), "processing": ("tumble", "hop", "cumulate", "session")}

# (size, every or step or None, time zones may be used)
SIZES = {
    "tumble": [("1 second", None), ("10 seconds", None), ("7 seconds", None), ("1 minute", None), ("5 minutes", None),
               ("40 minutes", None), ("1 hour", None), ("5 hours", None), ("1 day", None), ("1 week", None), ("10 days", None),
               ("1 month", None), ("3 months", None)],
    "hop": [("10 seconds", "5 seconds"), ("10 seconds", "3 seconds"), ("1 minute", "1 second"), ("1 hour", "7 minutes"),
            ("1 hour", "10 minutes"), ("25 minutes", "10 minutes"), ("5 seconds", "5 seconds"), ("1 day", "6 hours"),
            ("7 days", "1 day"), ("3 months", "1 month")],
    "cumulate": [("10 seconds", "1 second"), ("10 seconds", "5 seconds"), ("1 hour", "10 minutes"), ("1 hour", "1 hour"),
                 ("1 day", "1 hour"), ("7 days", "1 day"), ("1 year", "3 months")],
    "session": [("1 millisecond", None), ("1 second", None), ("5 seconds", None), ("1 minute", None), ("30 minutes", None),
                ("1 day", None)],
    "global": [(None, None)],
}
# Of windows over the clock: some end while the workload runs.
CLOCK_SIZES = {
    "tumble": [("20 milliseconds", None), ("300 milliseconds", None), ("1 second", None), ("1 hour", None)],
    "hop": [("300 milliseconds", "100 milliseconds"), ("2 seconds", "250 milliseconds"), ("1 second", "1 second")],
    "cumulate": [("300 milliseconds", "100 milliseconds"), ("2 seconds", "500 milliseconds")],
    "session": [("20 milliseconds", None), ("200 milliseconds", None), ("1 second", None)],
}
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo")

# Near what the records' times lie: round numbers of calendars, and clock changes.
BASES = ("2023-06-15 12:00:00", "1970-01-01 00:00:00", "1969-12-31 23:00:00", "2000-01-01 00:00:00", "1999-12-31 12:34:56",
         "2024-03-31 00:30:00", "2024-10-27 00:10:00", "2024-11-03 05:00:00", "2018-11-04 02:00:00", "2024-02-28 20:00:00",
         "1850-05-05 05:05:05")

# Keys: SQL of the select list and group clause, and the same in Python.
KEYS = {
    "none": ((), lambda v: ()),
    "text": (("k",), lambda v: (v["k"],)),
    "bigint": (("b",), lambda v: (v["b"],)),
    "numeric": (("x",), lambda v: (v["x"],)),
    "two": (("k", "b"), lambda v: (v["k"], v["b"])),
    "three": (("b", "x", "k"), lambda v: (v["b"], v["x"], v["k"])),
    "expression": (("b % 3", "upper(k)"),
                   lambda v: (None if v["b"] is None else abs(v["b"]) % 3 * (1 if v["b"] >= 0 else -1),
                              None if v["k"] is None else v["k"].upper())),
}


def sql_and(*values):
    return False if False in values else None if None in values else True


def compare(value, function):
    return None if value is None else function(value)


CONDITIONS = (
    ("v > 0", lambda v: compare(v["v"], lambda n: n > 0)),
    ("k IS NOT NULL", lambda v: v["k"] is not None),
    ("x < 50 AND v % 2 = 0", lambda v: sql_and(compare(v["x"], lambda n: n < 50), compare(v["v"], lambda n: n % 2 == 0))),
    ("k IS DISTINCT FROM 'a'", lambda v: v["k"] != "a"),
    ("b IN (1, 2, 3) OR k = 'c'",
     lambda v: (lambda p, q: True if True in (p, q) else None if None in (p, q) else False)(
         compare(v["b"], lambda n: n in (1, 2, 3)), compare(v["k"], lambda t: t == "c"))),
    ("false", lambda v: False),
)

ARGUMENTS = {"count": ("v", "x", "k", "f"), "sum": ("v", "x", "b", "f"), "avg": ("v", "x", "f"), "min": ("v", "x", "k", "f"),
             "max": ("v", "x", "k", "f", "b")}


class Query:
    """A query's SQL, and what the simulator wants to know of it."""

    def __init__(self, name):
        self.name = name
        self.gap = self.windows = self.origin = self.zone = self.trigger_count = self.trigger_interval = None
        self.having_sql = self.having = self.state_ttl = None
        self.row_windows = None  # by time zone, if each row has its own
        self.lateness = self.horizon = 0
        self.late = "store"
        self.emit = "final"
        self.started = set()  # partitions that it does not read from their beginning
        self.options = {}

    @property
    def changes(self):
        return self.emit == "changes"

    def windows_of(self, record):
        if self.row_windows is None:
            return self.windows.windows_of(record.time)
        windows = self.row_windows.get(record.values["z"])
        return None if windows is None else windows.windows_of(record.time)


class Workload:
    """
    partitions, delay, idle_timeout (microseconds), on_error, time_format, queries,
    records (by partition), payloads (by partition and offset), stamps (Kafka's times,
    by partition and offset), kafka_time (they are the event time), clock (processing time:
    records have no time before they are read), idle_close, growing
    (partitions are added), row_zones, unknown_zones, steps: a list of tuples that begin with
    create N | create_all | insert rows | wait | terminate | kill | idle | check | pause | resume |
    pause_query N | resume_query N | advance TIME | idle_closed | retry_late N MODULUS | mend | settle
    """


def literal(micros):
    return (calendars.naive(micros).isoformat(sep=" ") + "+00")


def make_query(rng, kind, name, base, scale, starts):
    query = Query(name)
    query.kind = rng.choice(WINDOWS[kind])
    choices = (CLOCK_SIZES if kind == "processing" else SIZES)[query.kind]
    if query.kind != "global" and kind != "processing":
        near = [c for c in choices if scale / 40 <= approximate(c[0]) <= scale * 2]
        choices = near or choices
    size, every = rng.choice(choices)
    query.size, query.every = size, every
    options = query.options
    arguments = ""
    if query.kind in ("tumble", "hop", "cumulate"):
        if rng.random() < 0.25:
            query.origin = base + rng.randrange(-40 * DAY, 40 * DAY)
            if rng.random() < 0.7 or calendars.interval(size)[0]:
                query.origin -= query.origin % DAY
            arguments += f", origin => '{literal(query.origin)}'"
        if rng.random() < 0.3 and kind != "processing" and not (query.kind == "hop" and every in ("3 seconds", "7 minutes") or size == "25 minutes"):
            query.zone = rng.choice(ZONES)
            arguments += f", time_zone => '{query.zone}'"
        query.windows = calendars.Windows(query.kind, size, every, query.origin, query.zone)
    if query.kind == "tumble":
        window = f"tumble(ts, '{size}'{arguments})"
    elif query.kind == "hop":
        window = f"hop(ts, size => '{size}', every => '{every}'{arguments})"
    elif query.kind == "cumulate":
        window = f"cumulate(ts, size => '{size}', step => '{every}'{arguments})"
    elif query.kind == "session":
        query.gap = calendars.duration(size)
        window = f"session(ts, gap => '{size}')"
    else:
        window = None
        query.trigger_count = rng.choice((1, 2, 5, 10, 100))
        options["trigger_count"] = str(query.trigger_count)

    query.keys = rng.choice([k for k in KEYS if window or k != "none"])
    keys, query.key = KEYS[query.keys]
    query.where_sql, query.where = rng.choice(CONDITIONS) if rng.random() < 0.4 else (None, None)
    query.aggregates, columns = [("count(*)", None, None)], ["count(*) AS a0"]
    for i in range(1, rng.randint(1, 6) + 1):
        function = rng.choice(("count", "sum", "avg", "min", "max", "count(*)"))
        argument = None if function == "count(*)" else rng.choice(ARGUMENTS[function])
        condition_sql, condition = rng.choice(CONDITIONS) if rng.random() < 0.25 else (None, None)
        sql = function if argument is None else f"{function}({argument})"
        columns.append(sql + (f" FILTER (WHERE {condition_sql})" if condition_sql else "") + f" AS a{i}")
        query.aggregates.append((function, argument, condition))
    distinct = random.Random(" ".join(columns))
    if distinct.random() < 0.15:
        function, argument = distinct.choice((("count", "v"), ("count", "x"), ("count", "k"), ("sum", "v"), ("sum", "x"), ("max", "k")))
        columns.append(f"{function}(DISTINCT {argument}) AS a{len(columns)}")
        query.aggregates.append((f"{function} distinct", argument, None))
    query.key_count = len(keys)
    query.sql = "SELECT " + ", ".join([f"{k} AS k{i}" for i, k in enumerate(keys)] + columns) + " FROM s"
    if query.where_sql:
        query.sql += f" WHERE {query.where_sql}"
    groups = [window] if window else []
    groups += keys
    rng.shuffle(groups)
    query.sql += " GROUP BY " + ", ".join(groups)
    # a key that no btree can hold
    query.failing = lambda key: any(isinstance(k, str) and len(k) > 3000 for k in key)

    if rng.random() < 0.2:
        query.late = options["late"] = "drop"
    if kind in ("lateness", "session_late"):
        query.lateness = rng.choice((0, SECOND, 20 * SECOND, HOUR, int(scale / 5), int(scale)))
        options["allowed_lateness"] = f"{query.lateness} microseconds"
    if kind in ("changes", "session_changes"):
        query.emit = options["emit"] = "changes"
        options["emit_interval"] = rng.choice(("10 ms", "50 ms", "1 s"))
    # where it starts: a part of what is in the topic when it is created; None is at the earliest record
    query.start = rng.choice((0.0, 0.3, 0.7, 1.0)) if starts and rng.random() < 0.6 else None
    query.emit_partial = query.start is not None and rng.random() < 0.3
    if query.emit_partial:
        options["emit_partial"] = "true"
    return query


def approximate(size):
    months, days, micros = calendars.interval(size)
    return months * 30 * DAY + days * DAY + micros


# ---------------------------------------------------------------------------
# Records
# ---------------------------------------------------------------------------

def make_values(rng, shape):
    keys, long_keys = shape
    values = {}
    values["k"] = rng.choice((None, "", "a", "b", "c", "A", "é", "\U0001f600", "a\tb\n\"\\", "a ")) if keys < 20 \
        else rng.choice((None, f"key {rng.randrange(keys)}", f"Key {rng.randrange(5)}"))
    if long_keys and rng.random() < 0.01:
        values["k"] = "".join(rng.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/") for _ in range(5000))
    values["b"] = rng.choice((None, rng.randrange(-keys, keys + 1), 9223372036854775807, -9223372036854775808)) \
        if rng.random() < 0.1 else rng.randrange(min(keys, 1000))
    values["x"] = rng.choice((None, Decimal("0"), Decimal("1.0"), Decimal("1.00"), Decimal("1"), Decimal("50.5"),
                              Decimal("99999999999999999999.123456789"))) if rng.random() < 0.3 \
        else Decimal(rng.randrange(10000)).scaleb(-rng.randrange(4))
    values["v"] = None if rng.random() < 0.05 else rng.randrange(-1000, 1000)
    values["f"] = None if rng.random() < 0.05 else rng.randrange(-4000, 4000) / 4
    return values


def make_times(rng, count, base, span, windows, gaps):
    """Event times of a partition: a rising line with jitter, bursts of late ones, borders and repetitions."""
    times, now = [], base
    jitter = rng.choice((0, 0, span // 200, span // 50, span // 10))
    step = max(span // max(count, 1), 1)
    burst, shift = 0, 0
    while len(times) < count:
        now += int(rng.expovariate(1) * step)
        if rng.random() < 0.01:
            now += span // 10
        if burst == 0 and rng.random() < 0.02:
            burst, shift = rng.randint(1, 20), rng.choice((span // 50, span // 10, span // 3, span))
        time = now - rng.randint(0, jitter)
        if burst > 0:
            burst -= 1
            time -= shift
        if times and rng.random() < 0.1:
            time = rng.choice(times[-5:])
        elif windows and rng.random() < 0.15:
            bound = rng.choice(rng.choice(windows).windows_of(time))
            time = rng.choice(bound) + rng.choice((-1, 0, 0, 0, 1))
        elif gaps and times and rng.random() < 0.15:
            time = rng.choice(times[-5:]) + rng.choice(gaps) * rng.choice((1, 1, -1)) + rng.choice((-1, 0, 0, 1))
            now = max(now, time) if rng.random() < 0.5 else now
        times.append(time)
    return times


def payload_of(rng, time, values, time_format):
    """A record's bytes: members in any order, NULLs as null or left out."""
    if time_format == "epoch":
        ts = str(time)
    else:
        ts = calendars.naive(time).isoformat(timespec="microseconds") + rng.choice(("Z", "+00:00", ""))
        ts = json.dumps(ts)
    members = [("ts", ts)]
    for name, value in values.items():
        if value is None:
            if rng.random() < 0.5:
                members.append((name, "null"))
        elif isinstance(value, str):
            members.append((name, json.dumps(value, ensure_ascii=rng.random() < 0.5)))
        else:
            members.append((name, f"{value:f}" if isinstance(value, Decimal) else repr(value)))
    if rng.random() < 0.1:
        members.append(("unknown", '{"k": [1, {"v": 2}]}'))
    rng.shuffle(members)
    return ("{" + ", ".join(f'"{n}": {v}' for n, v in members) + "}").encode()


def make_bad(rng, time, values, time_format):
    ts = str(time) if time_format == "epoch" else json.dumps(calendars.naive(time).isoformat() + "Z")
    return rng.choice((
        b"", b"{", b"null", b"[1]", b"\xff\xfe", b'{"ts": null, "v": 1}', b'{"v": 1}',
        b'{"ts": "at noon", "v": 1}', b'{"ts": "infinity"}', b'{"ts": "-infinity"}',
        ('{"ts": %s, "v": 1.5}' % ts).encode(), ('{"ts": %s, "v": "abc"}' % ts).encode(),
        ('{"ts": %s, "v": 99999999999999999999}' % ts).encode(), ('{"ts": %s, "k": "\\u0000"}' % ts).encode(),
        ('{"ts": %s, "x": -0.5}' % ts).encode(), ('{"ts": %s, "f": "one"}' % ts).encode(),
        ('{"ts": %s} trailing' % ts).encode()))


def make_partition(rng, more, partition, times, workload, shape, rates):
    """Records of a partition, their bytes and Kafka's times."""
    records, payloads = [], {}
    stamps = workload.stamps
    offset = rng.choice((0, 0, 0, 100, 1 << 40))
    for time in times:
        if rng.random() < 0.02:
            offset += rng.randint(1, 5)  # compacted away
        values = make_values(rng, shape)
        stamps[partition, offset] = time
        if workload.row_zones:
            values["z"] = features.zone_of_row(workload, more)
        chance = rng.random()
        if chance < rates["bad"]:
            record, payload = Record(partition, offset, BAD), make_bad(rng, time, values, workload.time_format)
            if workload.kafka_time and payload in features.BY_TIME:
                stamps[partition, offset] = None
        elif chance < rates["bad"] + rates["tombstone"]:
            record, payload = Record(partition, offset, TOMBSTONE), None
        elif chance < rates["bad"] + rates["tombstone"] + rates["future"]:
            future = calendars.since_epoch(calendars.datetime.datetime(2999, 1, 1)) + time % DAY
            record = Record(partition, offset, FUTURE, future, values)
            stamps[partition, offset] = future
            payload = payload_of(rng, future, values, workload.time_format)
        else:
            record = Record(partition, offset, GOOD, time, values)
            payload = payload_of(rng, time, values, workload.time_format)
        records.append(record)
        payloads[offset] = payload
        offset += 1
    return records, payloads


# ---------------------------------------------------------------------------
# The whole
# ---------------------------------------------------------------------------

def make(seed, kind, kills=False, extras=()):
    rng, more = random.Random(f"{kind} {seed}"), random.Random(f"{kind} {seed} more")
    workload = Workload()
    workload.seed, workload.kind = seed, kind
    workload.partitions = 1 if rng.random() < 0.4 else rng.randint(2, 5)
    workload.time_format = rng.choice(("epoch", "text"))
    workload.on_error = rng.choice(("dead_letter", "dead_letter", "skip"))
    total = rng.choice((20, 100, 300, 600, 1200))
    scale = rng.choice((20 * SECOND, 10 * MINUTE, 3 * HOUR, 3 * DAY, 100 * DAY))
    base = calendars.since_epoch(calendars.datetime.datetime.fromisoformat(rng.choice(BASES)))
    base += rng.choice((0, rng.randrange(HOUR)))
    workload.delay = rng.choice((0, 0, 1, SECOND, 10 * SECOND, 5 * MINUTE, scale // 20, scale // 4))
    workload.idle_timeout = rng.choice((20, 100, 500, 30000, 30000)) * 1000
    starts = "starts" in extras
    workload.queries = [make_query(rng, kind, f"q{i}", base, scale, starts and workload.partitions == 1 and kind not in ("replays", "processing"))
                        for i in range(rng.choice((1, 1, 2, 3)))]
    features.prepare(workload, more)
    if workload.clock:
        features.share_reader(workload)
    features.widen_queries(workload, more, starts)
    windows = [q.windows for q in workload.queries if q.windows]
    gaps = [q.gap for q in workload.queries if q.gap]

    shape = (rng.choice((2, 10, 50, 1000)), rng.random() < 0.15 and "longkeys" in extras)
    bad = rng.random() < 0.6
    rates = dict(bad=0.03 if bad else 0, tombstone=rng.choice((0, 0.02)), future=rng.choice((0, 0.01)))
    workload.records, workload.payloads, workload.stamps = {}, {}, {}
    for partition in range(workload.partitions):
        share = max(total // workload.partitions, 1)
        if workload.partitions > 1 and rng.random() < 0.15:
            share = rng.choice((0, 1, share // 10))  # silent
        skew = rng.choice((0, 0, rng.randrange(-3 * HOUR, 3 * HOUR), int(rng.uniform(-0.5, 0.5) * scale)))
        times = make_times(rng, share, base + skew, scale, windows, gaps)
        workload.records[partition], workload.payloads[partition] = \
            make_partition(rng, more, partition, times, workload, shape, rates)
    if kind == "replays":
        features.hold_records(workload, more)
    if workload.clock:
        features.make_timeless(workload)
    workload.steps = make_steps(rng, workload, kills)
    features.widen_steps(workload, more)
    if starts:
        features.begin_late(workload, random.Random(f"{kind} {seed} begin"))
    return workload


def make_steps(rng, workload, kills):
    """Pieces of the topic, in each partition's order, and events between them."""
    pieces = rng.choice((1, 2, 3, 5, 8))
    cuts = {p: sorted(rng.randint(0, len(r)) for _ in range(pieces - 1)) + [len(r)]
            for p, r in workload.records.items()}
    early = rng.choice((0, 0, 1, pieces))  # pieces that are there before the queries
    created = rng.sample(range(len(workload.queries)), len(workload.queries))
    steps, begin = [], {p: 0 for p in cuts}
    can_idle = workload.idle_timeout <= 500000

    def disturb():
        choices = ["wait", "terminate", "check"] + ["wait"] * 3 + ["idle"] * (2 * can_idle) + ["pause"] + ["kill"] * (3 * kills)
        return rng.choice(choices)

    for piece in range(pieces):
        if piece == early:
            steps += [("create", q) for q in created]
        chunks = []
        for partition, cut in cuts.items():
            rows = workload.records[partition][begin[partition]:cut[piece]]
            begin[partition] = cut[piece]
            if rows:
                chunks.append([(r.partition, r.offset, workload.payloads[r.partition][r.offset],
                                workload.stamps[r.partition, r.offset]) for r in rows])
        if rng.random() < 0.5:  # one transaction, else one for each partition
            chunks = [[r for c in chunks for r in c]] if chunks else []
        rng.shuffle(chunks)
        for chunk in chunks:
            steps.append(("insert", chunk))
            if piece >= early and rng.random() < 0.3:
                steps.append((disturb(),))
        if piece >= early and rng.random() < 0.6:
            steps.append((disturb(),))
    if early >= pieces:
        steps += [("create", q) for q in created]
        steps += [(disturb(),) for _ in range(rng.randint(0, 2))]
    result = []
    for step in steps:
        result.append(step)
        if step[0] == "pause":
            result.append(("resume",))
    result.append(("wait",))
    if can_idle and rng.random() < 0.5:
        result.append(("idle",))
    result.append(("check",))
    return result
