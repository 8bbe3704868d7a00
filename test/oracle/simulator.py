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
#	What an operator asks for in the middle (retry_late, retry_dead_letters) is an
#	event, with the time at which it was asked.  All that was in the topic has been
#	read then, and nothing else comes until it is done, but by which commit it
#	is done the ledger does not tell.
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

# A held record is bad until the stream's definition is mended.
GOOD, BAD, FUTURE, TOMBSTONE, HELD = "good", "bad", "future", "tombstone", "held"

# "emitted" of a row that any of several commits may have written.
SOME_COMMIT = -1


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


class Event:
    """retry_late (chosen: a predicate on late records) or retry_dead_letters (chosen: None)."""

    def __init__(self, at, query, chosen):
        self.at, self.query, self.chosen = at, query, chosen


class Group:
    """A window of a key: its rows, and its states at the end of each commit that changed it."""
    __slots__ = ("rows", "versions", "closed", "row", "emitted", "revision", "next")

    def __init__(self):
        self.rows = []
        self.versions = []  # (seq, what its row would be, how many rows it has)
        self.closed = False
        self.row = None  # the result's, None if it has none
        self.emitted = None  # seq of the commit that wrote the row
        self.revision = 0
        self.next = 0  # of a session: the revision behind those of all the rows that it has absorbed


class Session:
    """Rows of a key at most a gap apart; row_at is the window of its row in the result."""
    __slots__ = ("low", "high", "group", "row_at", "changed", "emitted")

    def __init__(self, time):
        self.low = self.high = time
        self.group = Group()
        self.row_at = None
        self.changed = True
        self.emitted = False  # it, or one that it has taken in


class Verdict:
    """What became of a query's records."""

    def __init__(self):
        self.counters = defaultdict(lambda: dict(counted=0, filtered=0, late=0, late_assignments=0, before_start=0, failed=0))
        self.late = {}  # (partition, offset) -> (time, W, windows)
        self.late_records = {}  # (partition, offset) -> Record
        self.groups = {}  # (start, end, key) -> Group
        self.watermark = NEVER
        self.notes = []  # what is wrong with the ledger, though it may be followed
        self.complete_from = NEVER  # windows that start earlier are not emitted
        self.shown = defaultdict(list)  # with changes, by key: (seq, window, row) of open sessions
        self.windows_closed = set()
        self.rows_out = 0


class Disagreement(Exception):
    pass


def aggregate(function, values):
    """An aggregate as SQL defines it over exact values; None is NULL."""
    if function == "count(*)":
        return len(values)
    values = [v for v in values if v is not None]
    if function.endswith(" distinct"):
        function, values = function.split()[0], list(set(values))
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


def values_of(query, rows):
    """Aggregates of rows: query.aggregates holds (function, argument or None, filter or None)."""
    result = []
    for function, argument, condition in query.aggregates:
        chosen = [r for r in rows if condition is None or condition(r.values) is True]
        result.append(aggregate(function, [r.values[argument] if argument else True for r in chosen]))
    return tuple(result)


def row_of(query, rows):
    """A group's row in the result: None if HAVING does not admit it."""
    if not rows:
        return None
    if query.having is not None:
        function, argument, admits = query.having
        if admits(aggregate(function, [r.values[argument] if argument else True for r in rows])) is not True:
            return None
    return values_of(query, rows)


class Simulation:
    """
    Runs records through a query.

    query: kind, windows_of (of a record; None if its time zone is unknown), gap,
    lateness, horizon, where, having, key, trigger_count, state_ttl, changes,
    aggregates, failing (a predicate on keys or None), started (the partitions that
    it does not read from their beginning), emit_partial
    delay: watermark_delay.  order: sorts the partitions of a commit.
    advanced: what advance_watermark() was called with.  idle_close: whether there is one.
    complete_from: with processing time, when the query was made; W is the clock then.
    begins: what the first record of a partition says about the first window holds for the whole commit ("first"), or only
    for what is read of that partition ("last"); None for those that are read behind it in the order of partitions.
    """

    def __init__(self, query, delay, order=sorted, advanced=(), idle_close=False, complete_from=None, begins=None):
        self.query, self.delay, self.order = query, delay, order
        self.advanced, self.idle_close = advanced, idle_close
        self.begins = begins
        self.verdict = Verdict()
        self.clock = complete_from is not None
        if self.clock and not query.emit_partial:
            self.verdict.complete_from = complete_from
        self.highest = defaultdict(lambda: NEVER)  # by partition
        self.beginning = set() if query.emit_partial or query.kind == "global" else set(query.started)
        self.previous = Commit(0, None, NEVER, {}, {}, {})
        self.sessions = defaultdict(list)  # by key: those that can still grow
        self.expired = []  # (key, session): those that cannot, and may have to be emitted
        self.archive = defaultdict(list)  # by key: those that only a retry can reach
        self.dropped = set()  # windows of rows that a merge has taken away
        self.changed = {}
        self.closings = []  # (W, the first complete start as of then): what closed at W was judged by it
        self.held = []
        self.mended = False

    # ---- the order of things ----

    def run(self, records, commits, events=()):
        """records: by partition, in offset order.  commits: in order of seq."""
        position = defaultdict(int)
        events = list(events)
        for commit in commits:
            for partition in commit.next_offset:  # a new partition holds W
                self.previous.watermarks.setdefault(partition, NEVER)
                self.previous.idle.setdefault(partition, False)
            while events and events[0].at < commit.at:
                self.happen(events.pop(0))
            self.read_in_commit = {}
            partitions = self.order(commit.next_offset)
            first = {p: next((r for r in records.get(p, [])[position[p]:]
                              if r.offset < commit.next_offset[p] and self.is_read(r)), None) for p in self.beginning & set(partitions)}
            if self.begins == "first":
                for record in first.values():
                    self.begin(record)
            elif self.begins == "last":
                partitions = sorted(partitions, key=lambda p: first.get(p) is not None)
            for partition in partitions:
                rows = records.get(partition, [])
                while position[partition] < len(rows) and \
                        rows[position[partition]].offset < commit.next_offset[partition]:
                    self.read(rows[position[partition]])
                    self.read_in_commit[partition] = True
                    position[partition] += 1
            self.commit(commit)
        for event in events:
            self.happen(event)
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

    def happen(self, event):
        """What an operator has asked for; all before it has been committed."""
        if event.chosen is None:
            self.mended = True
            for record in self.held:
                self.read(record)
            self.held = []
        elif event.query is self.query and self.query.late != "drop":  # what was dropped is not there to be retried
            for position, record in sorted(self.verdict.late_records.items()):
                if event.chosen(record):
                    self.retry(position, record)
        self.close(self.previous.watermark, SOME_COMMIT)

    def commit(self, commit):
        self.check_ledger(commit)
        self.close(commit.watermark, commit.seq)
        self.previous = Commit(commit.seq, commit.at, commit.watermark, commit.next_offset,
                               dict(commit.watermarks), dict(commit.idle))
        if self.query.state_ttl is not None:
            self.forget(commit.watermark)

    def finish(self):
        self.verdict.groups = {g: group for g, group in self.verdict.groups.items()
                               if group.closed or self.complete(g[0], g[1])}
        for key, sessions in self.sessions.items():
            for session in sessions:
                window = session.low, session.high + self.query.gap
                if not session.group.closed and (session.emitted or self.complete(*window)):
                    self.verdict.groups[window + (key,)] = session.group
        return self.verdict

    # ---- watermarks ----

    def own_watermark(self, partition):
        highest = self.highest[partition]
        return NEVER if highest == NEVER else highest - self.delay

    def judge(self, partition):
        """W for the next record of a partition."""
        last = self.previous
        others = [w for p, w in last.watermarks.items() if p != partition and not last.idle[p]]
        return max(last.watermark, min(others + [self.own_watermark(partition)]))

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
        if self.clock:
            if commit.watermark != max(last.watermark, commit.at) or any(commit.idle.values()):
                raise Disagreement(f"ledger seq {commit.seq}: W is {commit.watermark} at {commit.at}, idle {commit.idle}")
            if max(commit.watermarks.values()) > commit.watermark:
                raise Disagreement(f"ledger seq {commit.seq}: a record of {max(commit.watermarks.values())}, W is {commit.watermark}")
            return
        held = [w for p, w in commit.watermarks.items() if not commit.idle[p]]
        expected = max(last.watermark, min(held)) if held else last.watermark
        if commit.watermark == expected:
            return
        if commit.watermark > expected:
            if commit.watermark in self.advanced:
                return
            if self.idle_close and self.last_end() <= commit.watermark:
                return
        raise Disagreement(f"ledger seq {commit.seq}: W is {commit.watermark}, should be {expected}")

    def last_end(self):
        """The end of the last window that holds a row."""
        ends = [s.high + self.query.gap for sessions in self.sessions.values() for s in sessions]
        return max(ends + [end for _, end, _ in self.verdict.groups if end < FOREVER] + [NEVER])

    # ---- records ----

    def read(self, record):
        if record.kind == HELD and not self.mended:
            self.held.append(record)
        if not self.is_read(record):
            return
        watermark = self.judge(record.partition)
        if self.clock and record.time < self.previous.watermark:
            raise Disagreement(f"partition {record.partition} offset {record.offset} was read at {record.time}, "
                               f"after the commit of {self.previous.watermark}")
        self.highest[record.partition] = max(self.highest[record.partition], record.time)
        query = self.query
        counters = self.verdict.counters[record.partition]
        self.begin(record)
        if query.where is not None and query.where(record.values) is not True:
            counters["filtered"] += 1
            return
        key = query.key(record.values)
        if query.kind == "session":
            self.read_session(record, key, watermark, counters)
            return
        windows = self.windows_of(record)
        if windows is None:
            counters["failed"] += 1
            return
        missed = [w for w in windows if w[1] < FOREVER and w[1] + query.lateness <= watermark]
        taking = [w for w in windows if w not in missed]
        # none takes it that is emitted, and one that is has missed it
        if not taking or (not any(self.complete(*w) for w in taking) and any(self.complete(*w) for w in missed)):
            self.late(record, watermark, windows, counters)
            return
        self.count(record, key, taking, counters, len(missed))

    def is_read(self, record):
        return record.kind == GOOD or (record.kind == HELD and self.mended)

    def begin(self, record):
        """The window of a partition's first record began before it."""
        if record is None or record.partition not in self.beginning:
            return
        self.beginning.discard(record.partition)
        if record.time + self.delay > self.verdict.complete_from:
            self.verdict.complete_from = record.time + self.delay
            if not self.verdict.windows_closed:  # nothing has been emitted that could stay
                self.closings = []

    def complete(self, start, end):
        """Whether a window is emitted: that was decided when W first reached its end, if it has."""
        for watermark, complete_from in self.closings:
            if end <= watermark:
                return start >= complete_from
        return start >= self.verdict.complete_from

    def windows_of(self, record):
        return [(NEVER, FOREVER)] if self.query.kind == "global" else self.query.windows_of(record)

    def count(self, record, key, windows, counters, missed):
        """A record that "windows" take, if the query emits them."""
        query = self.query
        windows = [w for w in windows if self.complete(*w)]
        if not windows:
            counters["before_start"] += 1
            return
        if query.failing is not None and query.failing(key):
            counters["failed"] += 1
            return
        counters["late_assignments"] += missed
        counters["counted"] += 1
        for window in windows:
            group = self.verdict.groups.setdefault(window + (key,), Group())
            group.rows.append(record)
            self.changed[window + (key,)] = group

    def late(self, record, watermark, windows, counters):
        counters["late"] += 1
        counters["late_assignments"] += len(windows)
        self.verdict.late[record.partition, record.offset] = (record.time, watermark, windows)
        self.verdict.late_records[record.partition, record.offset] = record

    def retry(self, position, record):
        """A late record counts after all, in the windows whose state is kept."""
        query = self.query
        windows = [(record.time, record.time + query.gap)] if query.kind == "session" else self.windows_of(record)
        kept = [w for w in windows if w[1] + max(query.lateness, query.horizon) > self.previous.watermark]
        if not kept or (query.kind != "session" and not any(self.complete(*w) for w in kept)):
            return
        del self.verdict.late[position], self.verdict.late_records[position]
        counters = self.verdict.counters[record.partition]
        counters["late"] -= 1
        counters["late_assignments"] -= len(windows)
        if query.kind == "session":
            self.retry_session(record, query.key(record.values), counters)
            return
        self.count(record, query.key(record.values), kept, counters, len(windows) - len(kept))

    # ---- windows ----

    def close(self, watermark, seq):
        """What a commit that moves W to "watermark" writes."""
        query = self.query
        if query.kind == "session":
            self.close_sessions(watermark, seq)
        elif query.kind == "global":
            self.fire(seq)
        else:
            moved = watermark > self.verdict.watermark
            for (start, end, _), group in self.changed.items():
                if query.changes:
                    group.versions.append((seq, row_of(query, group.rows), len(group.rows)))
                if group.closed:
                    self.correct(group, seq)
            for (start, end, _), group in (self.verdict.groups if moved else self.changed).items():
                if not group.closed and end <= watermark and self.complete(start, end):
                    group.closed = True
                    group.row, group.emitted = row_of(query, group.rows), seq
                    self.verdict.windows_closed.add((start, end))
                    self.verdict.rows_out += group.row is not None
        self.changed = {}
        if watermark > self.verdict.watermark:
            if self.closings and self.closings[-1][1] == self.verdict.complete_from:
                self.closings.pop()
            self.closings.append((watermark, self.verdict.complete_from))
        self.verdict.watermark = max(self.verdict.watermark, watermark)

    def correct(self, group, seq, *row):
        """The row of a closed window, or of a key whose trigger fires, is written anew."""
        row = row[0] if row else row_of(self.query, group.rows)
        if row is not None:
            group.revision = group.revision + 1 if group.row is not None else 0
            group.emitted = seq
        group.row = row

    def fire(self, seq):
        every = self.query.trigger_count
        for group in self.changed.values():
            before = group.versions[-1][2] if group.versions else 0
            group.versions.append((seq, row_of(self.query, group.rows), len(group.rows)))
            if every and len(group.rows) // every > before // every:
                # as of the record with which it fired; a row that would stay the same is left alone
                fired = row_of(self.query, group.rows[:len(group.rows) // every * every])
                if fired != group.row:
                    self.correct(group, seq, fired)

    def forget(self, watermark):
        """Running totals whose time to live is over: their rows in the result stay."""
        for group in self.verdict.groups.values():
            if group.rows and max(r.time for r in group.rows) + self.query.state_ttl <= watermark:
                group.rows = []
                group.versions.append((self.previous.seq, None, 0))

    # ---- sessions ----

    def read_session(self, record, key, watermark, counters):
        query = self.query
        gap, time = query.gap, record.time
        near = [s for s in self.sessions[key] if s.low - gap <= time <= s.high + gap]
        expired = [s for s in near if s.high + gap + query.lateness <= watermark]
        near = [s for s in near if s not in expired]
        if not near and time + gap + query.lateness <= watermark:
            self.late(record, watermark, [(time, time + gap)], counters)
            return
        # Those that W has passed for this record, and perhaps not for the stream, stand apart from the new one.
        self.expired += [(key, s) for s in expired]
        if query.failing is not None and query.failing(key):
            counters["failed"] += 1
            return
        counters["counted"] += 1
        self.sessions[key] = [s for s in self.sessions[key] if s not in near and s not in expired]
        self.join(record, key, near)

    def retry_session(self, record, key, counters):
        query = self.query
        if query.failing is not None and query.failing(key):
            counters["failed"] += 1
            return
        counters["counted"] += 1
        near, low, high = [], record.time, record.time
        reach = self.sessions[key] + [s for s in self.archive[key]
                                      if s.high + query.gap + query.horizon > self.previous.watermark]
        while True:
            found = [s for s in reach if s not in near and s.low - query.gap <= high and low <= s.high + query.gap]
            if not found:
                break
            near += found
            low, high = min([low] + [s.low for s in found]), max([high] + [s.high for s in found])
        for kept in (self.sessions, self.archive):
            kept[key] = [s for s in kept[key] if s not in near]
        self.join(record, key, near)

    def join(self, record, key, near):
        """The record and sessions become one."""
        grown = Session(record.time)
        for session in near:
            grown.low, grown.high = min(grown.low, session.low), max(grown.high, session.high)
            grown.group.rows += session.group.rows
            grown.group.next = max(grown.group.next, session.group.next)
            grown.emitted |= session.emitted
            if session.row_at is not None:
                self.dropped.add(session.row_at)
            if session.group.row is not None:
                grown.group.next = max(grown.group.next, session.group.revision + 1)
        grown.group.rows.append(record)
        self.sessions[key].append(grown)

    def close_sessions(self, watermark, seq):
        query = self.query
        for window in self.dropped:
            self.verdict.groups.pop(window, None)
        self.dropped = set()
        closing = list(self.expired)
        for key, session in self.expired:
            self.archive[key].append(session)
        self.expired = []
        for key, sessions in list(self.sessions.items()):
            closing += [(key, s) for s in sessions if s.high + query.gap <= watermark and s.changed]
            if query.changes:
                for session in sessions:
                    if session.changed:
                        window = (session.low, session.high + query.gap)
                        self.verdict.shown[key].append((seq, window, row_of(query, session.group.rows)))
            for session in sessions:
                session.changed = session.high + query.gap > watermark
            self.sessions[key] = [s for s in sessions if s.high + query.gap + query.lateness > watermark]
            self.archive[key] += [s for s in sessions if s not in self.sessions[key]]
        for key, session in closing:
            self.close_session(key, session, seq)

    def close_session(self, key, session, seq):
        window = (session.low, session.high + self.query.gap, key)
        if session.group.closed or not (session.emitted or self.complete(*window[:2])):
            return
        session.emitted = True
        group = session.group
        # a session that closed and another with the same bounds: the second is a row of its own, which cannot be
        if window in self.verdict.groups:
            raise Disagreement(f"two sessions {window}")
        row = row_of(self.query, group.rows)
        if row is not None:
            group.revision = group.next
            self.verdict.rows_out += 1
        group.closed, group.row, group.emitted = True, row, seq
        session.row_at = window
        self.verdict.groups[window] = group
        self.verdict.windows_closed.add(window)


def ideal_groups(query, records, mended=False):
    """Rows of all records that can be decoded, none late, the future known: a batch query's.  Not for sessions."""
    groups = defaultdict(list)
    kinds = (GOOD, FUTURE, HELD) if mended else (GOOD, FUTURE)
    for rows in records.values():
        for record in rows:
            if record.kind in kinds and (query.where is None or query.where(record.values) is True):
                key = query.key(record.values)
                windows = [(NEVER, FOREVER)] if query.kind == "global" else query.windows_of(record)
                for window in windows:
                    groups[window + (key,)].append(record)
    rows = {group: row_of(query, rows) for group, rows in groups.items()}
    return {group: row for group, row in rows.items() if row is not None}
