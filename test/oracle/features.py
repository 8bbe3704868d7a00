# features.py
#	What a workload may have besides: HAVING, time zones of rows, Kafka's time,
#	processing time, idle_close, advance_watermark, growing topics, records that come good,
#	retries.
#
# NOTES
#	All of it is drawn from a generator of its own, after the workload has been made:
#	what generate.py draws from a seed stays the same.
#
import random

import calendars
from calendars import SECOND
from simulator import FUTURE, GOOD, HELD, NEVER

# SQL, and the same as (aggregate, argument, predicate).
HAVINGS = (
    ("count(*) > 1", ("count(*)", None, lambda n: n > 1)),
    ("count(*) % 2 = 1", ("count(*)", None, lambda n: n % 2 == 1)),
    ("sum(v) > 0", ("sum", "v", lambda n: None if n is None else n > 0)),
    ("max(k) IS NOT NULL", ("max", "k", lambda t: t is not None)),
    ("NOT min(v) < -500", ("min", "v", lambda n: None if n is None else n >= -500)),
)

ROW_ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC")

# Bad records that are bad by the column of their time.
BY_TIME = (b'{"ts": null, "v": 1}', b'{"v": 1}', b'{"ts": "at noon", "v": 1}', b'{"ts": "infinity"}', b'{"ts": "-infinity"}')


def prepare(workload, rng):
    """What records depend on; before they are made."""
    workload.kafka_time = rng.random() < (0.3 if workload.kind == "watermarks" else 0.1)
    workload.row_zones = workload.kind == "zones"
    workload.unknown_zones = workload.row_zones and rng.random() < 0.3
    workload.idle_close = None
    workload.growing = False
    workload.clock = workload.kind == "processing"
    if workload.clock:
        workload.kafka_time, workload.delay, workload.idle_timeout = False, 0, 30 * SECOND
    if workload.kind == "watermarks":
        workload.idle_timeout = rng.choice((20, 100, 30000)) * 1000
        if workload.idle_timeout < SECOND and rng.random() < 0.6:
            workload.idle_close = rng.choice((1, 50, 300)) * 1000
        workload.growing = workload.partitions > 1 and rng.random() < 0.5
    if workload.kind == "replays":
        workload.idle_timeout = 30 * SECOND
        workload.on_error = "dead_letter"


def widen_queries(workload, rng, starts):
    for query in workload.queries:
        if rng.random() < 0.25 and workload.kind not in ("session_late", "session_changes"):
            query.having_sql, query.having = rng.choice(HAVINGS)
            query.sql += f" HAVING {query.having_sql}"
        if workload.kafka_time:
            query.sql = query.sql.replace("(ts, ", "(_timestamp, ")
        if workload.clock:
            query.sql = query.sql.replace("(ts, ", "(_processing_time, ")
            if starts and rng.random() < 0.3:
                query.emit_partial = True
                query.options["emit_partial"] = "true"
        if workload.kind == "triggers":
            widen_triggers(query, rng)
        if workload.kind == "session_retries" and rng.random() < 0.3:
            query.lateness = rng.choice((SECOND, 60 * SECOND, 3600 * SECOND))
            query.options["allowed_lateness"] = f"{query.lateness} microseconds"
        if workload.kind == "session_changes":
            widen_changes(query, random.Random(f"{workload.seed} {query.sql} lateness"))
        if workload.kind in ("replays", "session_retries") and rng.random() < 0.8:
            query.horizon = rng.choice((1, 20 * SECOND, 3600 * SECOND, 100 * 86400 * SECOND))
            query.options["correction_horizon"] = f"{query.horizon} microseconds"
        if workload.kind == "watermarks" and rng.random() < 0.3 and query.kind != "session":
            query.lateness = rng.choice((SECOND, 60 * SECOND, 3600 * SECOND))
            query.options["allowed_lateness"] = f"{query.lateness} microseconds"
        if workload.row_zones and rng.random() < 0.8 and not (query.kind == "hop" and query.windows.rest):
            widen_zones(query)
        if starts and workload.partitions > 1 and workload.kind not in ("replays", "global", "triggers", "processing") and rng.random() < 0.25:
            query.start = rng.choice((0.0, 0.3, 0.7, 1.0))


def widen_changes(query, rng):
    """Sessions that have ended may be open again."""
    if rng.random() < 0.7:
        query.lateness = rng.choice((SECOND, 20 * SECOND, 3600 * SECOND))
        query.options["allowed_lateness"] = f"{query.lateness} microseconds"


def widen_triggers(query, rng):
    if rng.random() < 0.7:
        query.trigger_interval = rng.choice(("1 ms", "20 ms", "200 ms"))
        query.options["trigger_interval"] = query.trigger_interval
        if rng.random() < 0.6:
            query.trigger_count = None
            del query.options["trigger_count"]
    if rng.random() < 0.5:
        query.state_ttl = rng.choice((1, SECOND, 60 * SECOND, 1800 * SECOND, 86400 * SECOND))
        query.options["state_ttl"] = f"{query.state_ttl} microseconds"


def widen_zones(query):
    """The column z instead of a constant; windows in UTC where it is NULL."""
    call = query.sql.rindex(f"{query.kind}(")
    end = query.sql.index(")", call)
    arguments = query.sql[call:end].split(", time_zone =>")[0]
    query.sql = query.sql[:call] + arguments + ", time_zone => z" + query.sql[end:]
    query.row_windows = {zone: calendars.Windows(query.kind, query.size, query.every, query.origin, zone)
                         for zone in (None,) + ROW_ZONES}


def zone_of_row(workload, rng):
    if workload.unknown_zones and rng.random() < 0.02:
        return "Nowhere/Nothing"
    return rng.choice((None,) + ROW_ZONES)


def share_reader(workload):
    """Of queries that are created together all have one reader, but for a second one of sessions."""
    sessions = [q for q in workload.queries if q.kind == "session"]
    workload.queries = [q for q in workload.queries if q not in sessions[1:]]


def make_timeless(workload):
    """No record is bad, or in the future, by its time."""
    for partition, records in workload.records.items():
        payloads = workload.payloads[partition]
        for record in records:
            if record.kind == FUTURE:
                record.kind = GOOD
            if payloads[record.offset] in BY_TIME:
                payloads[record.offset] = b"{"


def add_member(payload, member):
    return b"{" + member + (b", " if payload[1:].strip() != b"}" else b"") + payload[1:]


def hold_records(workload, rng):
    """Some records are bad until a constraint is dropped: only such as would move no watermark then."""
    for partition, records in workload.records.items():
        highest = NEVER
        for record in records:
            if record.kind != GOOD:
                continue
            if record.time <= highest and rng.random() < 0.15:
                record.kind = HELD
                payloads = workload.payloads[partition]
                payloads[record.offset] = add_member(payloads[record.offset], b'"h": 1')
            else:
                highest = max(highest, record.time)


# ---------------------------------------------------------------------------
# Steps
# ---------------------------------------------------------------------------

def first_after_creation(steps):
    return max((i for i, s in enumerate(steps) if s[0] == "create"), default=-1) + 1


def put_in(steps, rng, *new):
    """Puts steps anywhere behind the creation of the queries, and not between pause and resume."""
    places = [i for i in range(first_after_creation(steps), len(steps)) if i == 0 or not steps[i - 1][0].startswith("pause")]
    place = rng.choice(places)
    steps[place:place] = new


def widen_steps(workload, rng):
    steps = workload.steps
    if workload.growing:
        steps = delay_partitions(workload, rng, steps)
    inserts = [i for i, s in enumerate(steps) if s[0] == "insert" and i >= first_after_creation(steps)]
    if workload.clock:
        first = first_after_creation(steps)
        steps[first - len(workload.queries):first] = [("create_all",)]
    elif inserts and len(workload.queries) > 1 and rng.random() < 0.3:
        place, query = rng.choice(inserts), rng.randrange(len(workload.queries))
        steps[place:place + 1] = [("pause_query", query), steps[place], ("resume_query", query)]
    if workload.kind == "watermarks":
        times = [r.time for rows in workload.records.values() for r in rows if r.kind == GOOD]
        if times and rng.random() < 0.5:
            for _ in range(rng.randint(1, 3)):
                put_in(steps, rng, ("advance", rng.choice(times) + rng.choice((-1, 0, 1)) * rng.choice((0, 1, SECOND, workload.delay))))
        if workload.idle_close is not None:
            put_in(steps, rng, ("idle_closed",))
            steps[-1:] = [("idle_closed",), ("check",)]
    if workload.kind in ("replays", "session_retries"):
        for index, query in enumerate(workload.queries):
            for _ in range(rng.randint(0, 3) if query.horizon else 0):
                put_in(steps, rng, ("retry_late", index, rng.choice((1, 2, 3))))
    if workload.kind == "replays":
        if rng.random() < 0.8:
            put_in(steps, rng, ("mend",))
        steps.insert(len(steps) - 1, ("check",))
    if any(q.changes or q.trigger_interval for q in workload.queries):
        steps[-1:] = [("settle",), ("check",)]
    workload.steps = steps


def delay_partitions(workload, rng, steps):
    """Partitions other than the first come into being in the middle."""
    inserts = [i for i, s in enumerate(steps) if s[0] == "insert"]
    for partition in range(1, workload.partitions):
        born = rng.choice(inserts)
        held = []
        for i in inserts:
            rows = [r for r in steps[i][1] if r[0] == partition]
            others = [r for r in steps[i][1] if r[0] != partition]
            held += rows
            if i >= born:
                others += held
                held = []
            steps[i] = ("insert", others)
        assert not held
    return [s for s in steps if s != ("insert", [])]


def begin_late(workload, rng):
    """
    A partition has no records from the creation of the queries on until windows of the others have been emitted,
    and then begins at about the time that the others have reached.
    """
    queries = [q for q in workload.queries if q.lateness or q.horizon]
    first = first_after_creation(workload.steps)
    inserts = [i for i, s in enumerate(workload.steps) if s[0] == "insert" and i >= first]
    if workload.partitions < 2 or workload.growing or workload.clock or not queries or len(inserts) < 2 or rng.random() < 0.4:
        return
    workload.idle_timeout = rng.choice((20, 100)) * 1000
    for query in queries:
        query.start = rng.choice((0.7, 1.0))
    partition = rng.randrange(workload.partitions)
    steps = []
    born = rng.choice(inserts[1:])
    for i, step in enumerate(workload.steps):
        if i == first:
            steps.append(("idle",))
        if step[0] == "insert" and first <= i < born:
            kept = [r for r in step[1] if r[0] != partition]
            gone = {r[1] for r in step[1] if r[0] == partition}
            workload.records[partition] = [r for r in workload.records[partition] if r.offset not in gone]
            step = ("insert", kept)
        if step != ("insert", []):
            steps.append(step)
    workload.steps = steps
