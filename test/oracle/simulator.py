# simulator.py
#	What the engine must make of a topic: results, late records and counters,
#	computed from the rules of event time alone.
#
# NOTES
#	Written from the rules of DESIGN.md section 3; nothing is shared with the
#	engine.  It keeps every row of every group and aggregates them at the end,
#	so that it is slow and has no state formats, slices or merges to be wrong in.
#
#	Records of several partitions are judged with the ledger: for each commit of
#	the reader the offsets, watermarks and idle flags that became visible with it.
#	A record is judged with W = max(W of the last commit, the least of its own
#	partition's watermark, advanced up to the record before it, and the others' as
#	of the last commit).  With one partition W is a function of the records, and
#	the ledger decides only in which commit something is emitted.
#
#	For sessions the rows of several partitions in one commit have no order that
#	the ledger tells: "order" picks one, and callers compare what all orders agree on.
#
import decimal
from collections import defaultdict
from fractions import Fraction

decimal.getcontext().prec = 1000  # sums are exact

NEVER = -(1 << 62)  # -infinity
FOREVER = 1 << 62

GOOD, BAD, FUTURE, TOMBSTONE = "good", "bad", "future", "tombstone"


class Record:
    __slots__ = ("partition", "offset", "kind", "time", "values")

    def __init__(self, partition, offset, kind, time=None, values=None):
        self.partition, self.offset, self.kind, self.time, self.values = partition, offset, kind, time, values


class Commit:
    """A row of the ledger; dictionaries are by partition."""
    __slots__ = ("seq", "at", "watermark", "next_offset", "watermarks", "idle")

    def __init__(self, seq, at, watermark, next_offset, watermarks, idle):
        self.seq, self.at, self.watermark = seq, at, watermark
        self.next_offset, self.watermarks, self.idle = next_offset, watermarks, idle


class Group:
    """A window of a key: its rows, and how many there were at the end of each commit that changed it."""
    __slots__ = ("rows", "versions", "emitted", "revision", "final")

    def __init__(self):
        self.rows, self.versions = [], []
        self.emitted = None  # seq of the commit that emitted it
        self.revision = 0
        self.final = None  # number of rows in the result, None if it is not there


class Session:
    __slots__ = ("low", "high", "group")

    def __init__(self, time):
        self.low = self.high = time
        self.group = Group()


class Verdict:
    """What became of a query's records."""

    def __init__(self):
        self.counters = defaultdict(lambda: dict(counted=0, filtered=0, late=0, late_assignments=0, before_start=0, failed=0))
        self.late = {}  # (partition, offset) -> (time, W, windows)
        self.groups = {}  # (start, end, key) -> Group
        self.watermark = NEVER
        self.notes = []  # what is wrong with the ledger, though it may be followed
        self.complete_from = NEVER  # windows that start earlier are not emitted


def aggregate(function, values):
    """An aggregate as SQL defines it over exact values; None is NULL."""
    if function == "count(*)":
        return len(values)
    values = [v for v in values if v is not None]
    if function == "count":
        return len(values)
    if not values:
        return None
    if function == "min":
        return min(values)
    if function == "max":
        return max(values)
    if function == "sum":
        return sum(values)
    if function == "avg":
        if isinstance(values[0], float):
            return sum(values) / len(values)
        return Fraction(sum(Fraction(v) for v in values), len(values))
    raise ValueError(function)


def row_of(query, rows):
    """Aggregates of rows: query.aggregates holds (function, argument or None, filter or None)."""
    result = []
    for function, argument, condition in query.aggregates:
        chosen = [r for r in rows if condition is None or condition(r.values) is True]
        result.append(aggregate(function, [r.values[argument] if argument else True for r in chosen]))
    return tuple(result)


class Simulation:
    """
    Runs records through a query.

    query: kind, windows (calendars.Windows; None for session and global), gap,
    lateness, where (a predicate or None), key (a function), trigger_count,
    aggregates, failing (a predicate on keys or None)
    delay: watermark_delay.  order: sorts the partitions of a commit.
    """

    def __init__(self, query, delay, order=sorted):
        self.query, self.delay, self.order = query, delay, order
        self.verdict = Verdict()
        self.highest = defaultdict(lambda: NEVER)  # by partition
        self.previous = Commit(0, None, NEVER, {}, {}, {})
        self.sessions = defaultdict(list)  # by key: those that can still grow
        self.closed_sessions = []
        self.changed = {}

    def run(self, records, commits):
        """records: by partition, in offset order.  commits: in order of seq."""
        position = defaultdict(int)
        for commit in commits:
            for partition in commit.next_offset:  # a new partition holds W
                self.previous.watermarks.setdefault(partition, NEVER)
                self.previous.idle.setdefault(partition, False)
            self.read_in_commit = {}
            for partition in self.order(commit.next_offset):
                rows = records.get(partition, [])
                while position[partition] < len(rows) and \
                        rows[position[partition]].offset < commit.next_offset[partition]:
                    self.read(rows[position[partition]])
                    self.read_in_commit[partition] = True
                    position[partition] += 1
            self.commit(commit)
        return self.finish()

    def run_alone(self, rows):
        """Records of a single partition, without a ledger: the watermark is the rows' own."""
        for row in rows:
            self.read(row)
            partition = row.partition
            watermark = max(self.previous.watermark, self.own_watermark(partition))
            self.previous = Commit(0, None, watermark, {}, {partition: NEVER}, {partition: False})
            self.close(watermark, 0)
        return self.finish()

    def own_watermark(self, partition):
        highest = self.highest[partition]
        return NEVER if highest == NEVER else highest - self.delay

    def judge(self, partition):
        """W for the next record of a partition."""
        last = self.previous
        others = [w for p, w in last.watermarks.items() if p != partition and not last.idle[p]]
        return max(last.watermark, min(others + [self.own_watermark(partition)]))

    def read(self, record):
        if record.kind != GOOD:
            return
        watermark = self.judge(record.partition)
        self.highest[record.partition] = max(self.highest[record.partition], record.time)
        query = self.query
        counters = self.verdict.counters[record.partition]
        if query.start is not None and not query.emit_partial and query.kind != "global" and self.verdict.complete_from == NEVER:
            self.verdict.complete_from = record.time + self.delay  # of a single partition
        if query.where is not None and query.where(record.values) is not True:
            counters["filtered"] += 1
            return
        key = query.key(record.values)
        if query.kind == "session":
            self.read_session(record, key, watermark, counters)
            return
        windows = [(NEVER, FOREVER)] if query.kind == "global" else query.windows.windows_of(record.time)
        closed = [w for w in windows if w[1] < FOREVER and w[1] + query.lateness <= watermark]
        if len(closed) == len(windows):
            counters["late_assignments"] += len(closed)
            self.late(record, watermark, windows, counters)
            return
        # what began before the query is not emitted, so nothing can miss it
        counters["late_assignments"] += sum(w[0] >= self.verdict.complete_from for w in closed)
        windows = [w for w in windows if w not in closed and w[0] >= self.verdict.complete_from]
        if not windows:
            counters["before_start"] += 1
            return
        if query.failing is not None and query.failing(key):
            counters["failed"] += 1
            return
        counters["counted"] += 1
        for window in windows:
            group = self.verdict.groups.setdefault(window + (key,), Group())
            group.rows.append(record)
            self.changed[window + (key,)] = group

    def late(self, record, watermark, windows, counters):
        counters["late"] += 1
        self.verdict.late[record.partition, record.offset] = (record.time, watermark, windows)

    def read_session(self, record, key, watermark, counters):
        query = self.query
        gap, time = query.gap, record.time
        near = [s for s in self.sessions[key] if s.low - gap <= time <= s.high + gap]
        ended = [s for s in near if s.high + gap <= watermark]
        near = [s for s in near if s not in ended]
        if not near and time + gap <= watermark:
            counters["late_assignments"] += 1
            self.late(record, watermark, [(time, time + gap)], counters)
            return
        # Those that W has passed for this record, and perhaps not for the stream, stand apart from the new one.
        self.closed_sessions += [(key, s) for s in ended]
        if query.failing is not None and query.failing(key):
            counters["failed"] += 1
            return
        counters["counted"] += 1
        grown = Session(time)
        for session in near:
            grown.low, grown.high = min(grown.low, session.low), max(grown.high, session.high)
            grown.group.rows += session.group.rows
        grown.group.rows.append(record)
        self.sessions[key] = [s for s in self.sessions[key] if s not in near and s not in ended] + [grown]

    def commit(self, commit):
        self.check_ledger(commit)
        self.close(commit.watermark, commit.seq)
        self.previous = commit

    def check_ledger(self, commit):
        """The ledger itself follows the rules: errors are raised."""
        last = self.previous
        for partition, watermark in commit.watermarks.items():
            if watermark != self.own_watermark(partition):
                raise Disagreement(f"ledger seq {commit.seq}: watermark of partition {partition} is {watermark}, "
                                   f"its records make it {self.own_watermark(partition)}")
            if commit.idle[partition] and self.read_in_commit.get(partition):
                self.verdict.notes.append(f"ledger seq {commit.seq}: partition {partition} is idle in a commit of its records")
            if commit.next_offset[partition] < last.next_offset.get(partition, 0):
                raise Disagreement(f"ledger seq {commit.seq}: partition {partition} goes back")
        if last.seq and commit.seq != last.seq + 1:
            raise Disagreement(f"ledger seq {commit.seq} follows {last.seq}")
        held = [w for p, w in commit.watermarks.items() if not commit.idle[p]]
        expected = max(last.watermark, min(held)) if held else last.watermark
        if commit.watermark != expected:
            raise Disagreement(f"ledger seq {commit.seq}: W is {commit.watermark}, should be {expected}")

    def close(self, watermark, seq):
        """What is emitted when a commit moves W to "watermark"."""
        query = self.query
        if query.kind == "session":
            for key, sessions in list(self.sessions.items()):
                closed = [s for s in sessions if s.high + query.gap <= watermark]
                self.closed_sessions += [(key, s) for s in closed]
                self.sessions[key] = [s for s in sessions if s not in closed]
            for key, session in self.closed_sessions:
                self.add_session(key, session, seq)
            self.closed_sessions = []
            return
        for (_, end, _), group in self.changed.items():
            group.versions.append(len(group.rows))
            if query.kind == "global":
                before = group.versions[-2] if len(group.versions) > 1 else 0
                if query.trigger_count and len(group.rows) // query.trigger_count > before // query.trigger_count:
                    group.revision += group.final is not None
                    group.final, group.emitted = len(group.rows), seq
            elif group.emitted is not None:
                group.revision += 1
                group.final = len(group.rows)
        if query.kind != "global":
            moved = watermark > self.verdict.watermark
            for (_, end, _), group in (self.verdict.groups if moved else self.changed).items():
                if group.emitted is None and end <= watermark:
                    group.emitted, group.final = seq, len(group.rows)
        self.changed = {}
        self.verdict.watermark = max(self.verdict.watermark, watermark)

    def add_session(self, key, session, seq):
        if session.low < self.verdict.complete_from:
            return
        window = (session.low, session.high + self.query.gap, key)
        # a session that closed and another with the same bounds: the second is a row of its own, which cannot be
        if window in self.verdict.groups:
            raise Disagreement(f"two sessions {window}")
        session.group.emitted, session.group.final = seq, len(session.group.rows)
        self.verdict.groups[window] = session.group

    def finish(self):
        for key, sessions in self.sessions.items():
            for session in sessions:
                if session.low < self.verdict.complete_from:
                    continue
                self.verdict.groups[session.low, session.high + self.query.gap, key] = session.group
        return self.verdict


class Disagreement(Exception):
    pass


def ideal_groups(query, records):
    """Groups of all records that can be decoded, none late, the future known: a batch query's.  Not for sessions."""
    groups = defaultdict(list)
    for rows in records.values():
        for record in rows:
            if record.kind in (GOOD, FUTURE) and (query.where is None or query.where(record.values) is True):
                key = query.key(record.values)
                windows = [(NEVER, FOREVER)] if query.kind == "global" else query.windows.windows_of(record.time)
                for window in windows:
                    groups[window + (key,)].append(record)
    return groups
