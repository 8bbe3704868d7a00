#!/usr/bin/env python3
#
# workload.py
#	Runs one random workload against a server and compares all that the engine
#	made of it with the simulator.
#
# usage: workload.py [--kills] [--keep] [--with EXTRA]... KIND:SEED...
#
#	Needs PGHOST, psql in the PATH, and a database "oracle_template" that run.sh
#	makes.  Prints a line for each workload, "ok" or "FAILED" with the differences;
#	the exit status is 0 iff all agree.  --keep leaves the databases of failed ones.
#
# NOTES
#	All that is compared is read in one REPEATABLE READ transaction, so that it may
#	be compared at any moment, also while records are being read: the ledger tells
#	how far the reader was, and the simulator goes just as far.
#
import argparse
import json
import os
import signal
import sys
import time
import traceback
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import calendars
import generate
import simulator
from database import Database, Failure
from simulator import BAD, FOREVER, FUTURE, GOOD, HELD, NEVER, TOMBSTONE

ORDERS = (sorted, lambda p: sorted(p, reverse=True), lambda p: sorted(p, key=lambda n: (n * 7 + 3) % 5))
SHOWN = int(os.environ.get("ORACLE_SHOWN", "6"))


def quote(text):
    return "'" + text.replace("'", "''") + "'"


def show(value):
    if isinstance(value, int) and abs(value) > 10 ** 12:
        if value <= NEVER:
            return "-infinity"
        if value >= FOREVER:
            return "infinity"
        return str(calendars.naive(value))
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(show(v) for v in value) + ")"
    text = repr(value)
    return text if len(text) < 80 else text[:60] + "..."


def same(found, expected):
    """A value of a result against the exact one."""
    if isinstance(expected, Fraction):
        if found is None:
            return False
        digits = -min(Decimal(found).as_tuple().exponent, 0)
        rounded = (Decimal(expected.numerator) / expected.denominator).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
        return rounded == found
    if isinstance(expected, float):
        return found is not None and float(found) == expected
    return found == expected


class Run:
    def __init__(self, workload, kills):
        self.workload = workload
        self.name = f"w_{workload.kind}_{workload.seed}" + ("_kills" if kills else "")
        self.database = Database(self.name, kills)
        self.created = []
        self.inserted = {p: [] for p in workload.records}
        self.position = {p: 0 for p in workload.records}
        self.differences = []
        self.doing = "begin"
        self.advanced = []  # what advance_watermark() was called with
        self.events = []
        self.mended = False
        self.kept = 0  # corrected rows of windows that were emitted before the first complete one rose
        self.seen_rows = {}  # by query: what the last check found in the result

    # ---- what happens ----

    def setup(self):
        w = self.workload
        for attempt in range(5):
            self.drop()
            try:
                self.database.sql(f"CREATE DATABASE {self.name} TEMPLATE oracle_template", database="postgres", patient=True)
                break
            except Failure as failure:
                # a kill may come between the command's commit and its answer
                if attempt == 4:
                    raise
                print(f"again: {str(failure).splitlines()[0]}", file=sys.stderr)
        epoch = " EPOCH 'us'" if w.time_format == "epoch" else ""
        columns = "k text, b bigint, x numeric CHECK (x >= 0), v bigint, f float8"
        columns += "" if w.kafka_time or w.clock else f", ts timestamptz{epoch}"
        columns += ", z text" if w.row_zones else ""
        columns += ", h int CONSTRAINT held CHECK (h IS NULL)" if w.kind == "replays" else ""
        partitions = "" if w.growing else f", partitions '{w.partitions}'"
        idle_close = "" if w.idle_close is None else f", idle_close => '{w.idle_close} microseconds'"
        self.once("to_regclass('s') IS NOT NULL", f"""
            CREATE SERVER topic FOREIGN DATA WRAPPER stream_engine_table
                OPTIONS ("table" 'public.topic'{partitions});
            DO $do$ BEGIN PERFORM stream_engine.create_stream('s', server => 'topic', topic => 't', columns => {quote(columns)},
                event_time => '{"_timestamp" if w.kafka_time else "processing_time" if w.clock else "ts"}', watermark_delay => '{w.delay} microseconds',
                idle_timeout => '{w.idle_timeout} microseconds'{idle_close},
                on_error => '{w.on_error}', staging_retention => '0'); END $do$;""")

    def once(self, done, text):
        """Runs SQL in a transaction, unless it has been done."""
        self.database.sql(f"""
            SELECT {done} AS done \\gset
            \\if :done
            \\q
            \\endif
            BEGIN; {text} COMMIT;""")

    def drop(self):
        self.database.sql(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)", database="postgres", patient=True)

    def create(self, index):
        query = self.workload.queries[index]
        options = "".join(f", {name} => {quote(value)}" for name, value in query.options.items())
        if query.start is not None:
            begins = {}
            for partition, there in self.inserted.items():
                first = int(query.start * len(there))
                if there:
                    begins[str(partition)] = there[first].offset if first < len(there) else there[-1].offset + 1
            if not begins and self.workload.growing:
                begins = {"0": 0}  # there is no partition yet whose end might be the latest
            options += f", start => {quote(json.dumps(begins) if begins else 'latest')}"
        self.once(f"to_regclass('{query.name}') IS NOT NULL",
                  f"DO $do$ BEGIN PERFORM stream_engine.create_query('{query.name}', {quote(query.sql)}{options}); END $do$;")
        self.created.append(query)

    def create_all(self):
        """All queries, and one that tells when each record was read: they have one reader from its first commit on."""
        begin = self.now()
        calls = [f"PERFORM stream_engine.create_query('witness', 'SELECT _partition, _offset, min(_processing_time) AS t FROM s"
                 " GROUP BY _partition, _offset', trigger_count => 1000000);"]
        for query in self.workload.queries:
            options = "".join(f", {name} => {quote(value)}" for name, value in query.options.items())
            calls.append(f"PERFORM stream_engine.create_query('{query.name}', {quote(query.sql)}{options});")
        self.once("to_regclass('witness') IS NOT NULL", f"DO $do$ BEGIN {' '.join(calls)} END $do$;")
        self.created += self.workload.queries
        self.made_between = begin, self.now()

    def now(self):
        return int(self.database.sql("SELECT us(clock_timestamp())"))

    def insert(self, rows):
        lines = []
        for partition, offset, payload, stamp in rows:
            value = "\\N" if payload is None else "\\\\x" + payload.hex()
            lines.append(f"{partition}\t{offset}\t{value}\t" + ("\\N" if stamp is None else str(stamp)))
        self.database.sql("CREATE TEMP TABLE arriving (partition int, \"offset\" bigint, value bytea, at bigint);\n"
                          "COPY arriving FROM STDIN;\n" + "\n".join(lines) + "\n\\.\n"
                          "INSERT INTO topic SELECT partition, \"offset\", timestamptz 'epoch' + at / 1000000 * interval '1 s' + at % 1000000 * interval '1 us', NULL,"
                          " value FROM arriving ORDER BY 1, 2 ON CONFLICT DO NOTHING;")
        for partition, offset, *_ in rows:
            record = self.workload.records[partition][self.position[partition]]
            assert record.offset == offset
            self.position[partition] += 1
            self.inserted[partition].append(record)

    def wait(self):
        if self.created:
            self.database.sql("CALL stream_engine.wait('s', '60 s')")

    def idle(self):
        if self.created:
            self.wait()
            self.database.until("SELECT bool_and(idle) FROM stream_engine.reader_partition")

    def reader_pid(self):
        return self.database.sql("SELECT pid FROM stream_engine.stat_workers WHERE kind = 'reader' AND database = current_database()"
                                 " AND pid IS NOT NULL ORDER BY random() LIMIT 1").strip()

    def terminate(self):
        pid = self.reader_pid()
        if pid:
            self.database.sql(f"SELECT pg_terminate_backend({pid})")

    def kill(self):
        pid = self.reader_pid()
        if pid:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass

    def pause(self):
        self.database.sql("SELECT stream_engine.pause('s')")

    def resume(self):
        self.database.sql("SELECT stream_engine.resume('s')")

    def pause_query(self, index):
        self.database.sql(f"SELECT stream_engine.pause('q{index}')")

    def resume_query(self, index):
        self.database.sql(f"SELECT stream_engine.resume('q{index}')")

    def advance(self, to):
        if self.created:
            self.advanced.append(to)
            at = quote(generate.literal(to))
            self.database.sql(f"SELECT stream_engine.advance_watermark('s', {at})")
            # a query that is paused takes it when it goes on
            self.database.until(f"SELECT bool_and(w.watermark >= {at}) IS NOT FALSE FROM stream_engine.stat_queries w"
                                " JOIN stream_engine.queries q ON q.name = w.query WHERE q.state = 'running'")

    def idle_closed(self):
        """Until idle_close has closed all windows."""
        self.wait()
        for query in self.created:
            self.database.until(f"SELECT bool_and(is_final) IS NOT FALSE OR EXISTS (SELECT FROM stream_engine.queries"
                                f" WHERE name = '{query.name}'::regclass AND state = 'paused') FROM {query.name}_live")

    def event(self, script, query, chosen):
        """What an operator does, while nothing arrives."""
        self.wait()
        at = self.database.sql(f"SELECT us(clock_timestamp()); {script}").split()[0]
        self.events.append(simulator.Event(int(at), query, chosen))

    def retry_late(self, index, modulus):
        query = self.workload.queries[index]
        self.event(f"SELECT stream_engine.retry_late('{query.name}', '\"offset\" % {modulus} = 0')",
                   query, lambda record: record.offset % modulus == 0)
        self.database.until("SELECT NOT EXISTS (SELECT FROM stream_engine.late_event WHERE retry)")

    def mend(self):
        self.event("BEGIN; ALTER FOREIGN TABLE s DROP CONSTRAINT IF EXISTS held;"
                   " SELECT stream_engine.retry_dead_letters('s', $$message LIKE '%held%'$$); COMMIT;", None, None)
        self.mended = True
        # a query that is paused takes them when it goes on
        self.database.until("SELECT NOT EXISTS (SELECT FROM stream_engine.replay p WHERE EXISTS (SELECT"
                            " FROM stream_engine.query_progress w JOIN stream_engine.query q ON q.id = w.query"
                            " WHERE w.reader = p.reader AND q.state = 'running'))")

    def settle(self):
        """Until the result shows all that has been read."""
        self.wait()
        for query in self.created:
            if (query.changes or query.trigger_interval) and query.state_ttl is None:
                columns = ", ".join(["window_start", "window_end"] + [f"k{i}" for i in range(query.key_count)]
                                    + [f"a{i}" for i in range(len(query.aggregates))])
                result, live = f"SELECT {columns} FROM {query.name}", f"SELECT {columns} FROM {query.name}_live"
                self.database.until(f"SELECT NOT EXISTS ({result} EXCEPT {live}) AND NOT EXISTS ({live} EXCEPT {result})")

    # ---- what is compared ----

    def differs(self, where, what, expected, found):
        self.differences.append(f"{where}: {what}\n    expected {show(expected)}\n    found    {show(found)}")

    def compare(self, where, what, expected, found):
        """Dictionaries: missing, surplus and other values."""
        for key in expected.keys() | found.keys():
            if key not in found:
                self.differs(where, f"{what} {show(key)} is missing", expected[key], None)
            elif key not in expected:
                self.differs(where, f"{what} {show(key)} should not be there", None, found[key])
            elif isinstance(expected[key], dict):
                self.compare(where, f"{what} {show(key)}", expected[key], found[key])
            elif expected[key] != found[key]:
                self.differs(where, f"{what} {show(key)}", expected[key], found[key])

    def snapshot(self):
        """All that the engine tells, of one moment."""
        script = ["BEGIN ISOLATION LEVEL REPEATABLE READ;", """
            SELECT json_build_array('ledger', reader, seq, us(committed_at), us(watermark), partitions, next_offsets,
                (SELECT array_agg(us(w) ORDER BY i) FROM unnest(watermarks) WITH ORDINALITY AS u (w, i)), idle)
                FROM stream_engine.ledger ORDER BY reader, seq;
            SELECT json_build_array('history', query, reader, after_seq, upto_seq, ledger_shift) FROM
                (SELECT query, reader, after_seq, upto_seq, ledger_shift FROM stream_engine.reader_history
                UNION ALL SELECT query, reader, joined_seq, NULL, ledger_shift FROM stream_engine.query_progress) h;
            SELECT json_build_array('reader', reader, partition, json_build_object('start_offset', start_offset,
                'next_offset', next_offset, 'records', records, 'gaps', gaps, 'decoded', decoded, 'dead', dead, 'future', future,
                'tombstones', tombstones, 'skipped', skipped), problem) FROM stream_engine.reader_partition;
            SELECT json_build_array('start', q.result::text, p.partition, COALESCE(o.start_offset, p.start_offset), COALESCE(o.complete, p.complete),
                p.start_offset, -o.dead)
                FROM stream_engine.query q JOIN stream_engine.query_progress w ON w.query = q.id
                JOIN stream_engine.reader_partition p ON p.reader = w.reader
                LEFT JOIN stream_engine.query_origin o ON o.query = q.id AND o.partition = p.partition;
            SELECT json_build_array('dead', partition, "offset", reason) FROM stream_engine.dead_letters;
            SELECT json_build_array('stream', state, error) FROM stream_engine.streams;"""]
        if self.workload.clock:
            script.append("SELECT json_build_array('witness', _partition, _offset, us(t)) FROM witness_live;")
        for query in self.created:
            keys = "".join(f", to_json(k{i})" for i in range(query.key_count))
            values = "".join(f", to_json(a{i})" for i in range(len(query.aggregates)))
            columns = (f"us(window_start), us(window_end), json_build_array({keys[2:]}), json_build_array({values[2:]})")
            name = quote(query.name)
            script.append(f"""
                SELECT json_build_array('query', {name}, q.state, q.error, q.id, p.reader, p.windows_closed, p.rows_out, us(p.complete_from))
                    FROM stream_engine.query q JOIN stream_engine.query_progress p ON p.query = q.id WHERE q.result = {name}::regclass;
                SELECT json_build_array('counters', {name}, c.partition, json_build_object('counted', counted, 'filtered', filtered,
                    'late', c.late, 'late_assignments', late_assignments, 'before_start', before_start, 'failed', failed))
                    FROM stream_engine.query q JOIN stream_engine.query_partition c ON c.query = q.id WHERE q.result = {name}::regclass;
                SELECT json_build_array('late', {name}, partition, "offset", us(event_time), us(watermark),
                    (SELECT array_agg(ARRAY[us(lower(w)), us(upper(w))] ORDER BY w) FROM unnest(windows) AS w))
                    FROM stream_engine.late_events WHERE query = {name}::regclass;
                SELECT json_build_array('result', {name}, {columns}, is_final, revision, us(emitted_at)) FROM {query.name};
                SELECT json_build_array('live', {name}, {columns}, is_final) FROM {query.name}_live;""")
            if query.row_windows is not None and self.workload.unknown_zones:
                continue
            if query.late == "store" and query.windows is not None and not self.workload.clock:
                script.append(f"SELECT json_build_array('verify', {name}, us(window_start), us(window_end), problem, expected, found)"
                              f" FROM stream_engine.verify({name});")
            if query.kind != "session" and not self.workload.clock:
                script.append(f"SELECT json_build_array('batch', {name}, {columns}) FROM {query.name}_batch;")
        facts = {}
        for row in self.database.rows("\n".join(script + ["COMMIT;"])):
            facts.setdefault(row[0], []).append(row[1:])
        return facts

    def check(self):
        if not self.created:
            return
        facts = self.snapshot()
        for state, error in facts.get("stream", []):
            if state != "running":
                self.differs("stream", f"state {state}", "running", error)
        ledgers = {}
        for reader, seq, at, watermark, partitions, offsets, watermarks, idle in facts.get("ledger", []):
            ledgers.setdefault(reader, []).append(simulator.Commit(
                seq, at, watermark, dict(zip(partitions, offsets)), dict(zip(partitions, watermarks)), dict(zip(partitions, idle))))
        self.check_readers(facts, ledgers)
        if self.workload.clock:
            self.learn_times(facts)
        for query in self.created:
            self.check_query(query, facts, ledgers)

    def check_readers(self, facts, ledgers):
        seen = {p: set() for p in self.inserted}
        for reader, partition, found, problem in facts.get("reader", []):
            where = f"reader {reader} partition {partition}"
            if problem is not None:
                self.differs(where, "problem", None, problem)
            begin, end = found["start_offset"], found["next_offset"]
            read = [r for r in self.inserted[partition] if begin <= r.offset < end]
            seen[partition].update(r.offset for r in read)
            if all(q.start is None for q in self.created) and any(r.offset < begin for r in self.inserted[partition]):
                self.differs(where, "records before start_offset", 0, begin)
            count = {kind: sum(self.kind_now(r) == kind for r in read) for kind in (GOOD, BAD, FUTURE, TOMBSTONE)}
            dead = count[BAD] if self.workload.on_error == "dead_letter" else 0
            expected = dict(records=len(read), gaps=end - begin - len(read), decoded=count[GOOD], dead=dead,
                            future=count[FUTURE], tombstones=count[TOMBSTONE], skipped=count[BAD] - dead,
                            start_offset=begin, next_offset=end)
            self.compare(where, "counter", expected, found)
            if reader in ledgers and ledgers[reader][-1].next_offset.get(partition) != end:
                self.differs(where, "next_offset and the last row of the ledger", end, ledgers[reader][-1].next_offset)
        kept = (FUTURE,) if self.workload.on_error == "skip" else (FUTURE, BAD)
        expected = {(p, r.offset): self.kind_now(r) for p, rows in self.inserted.items() for r in rows
                    if self.kind_now(r) in kept and r.offset in seen[p]}
        self.compare("dead_letters", "record", expected, {(p, o): reason for p, o, reason in facts.get("dead", [])})

    def learn_times(self, facts):
        """Processing time: a record's time is what the engine says; that it can be so is found out by simulation."""
        if len(facts.get("reader", [])) != self.workload.partitions:
            self.differs("readers", "partitions of one reader", self.workload.partitions, facts.get("reader"))
        times = {(p, o): t for p, o, t in facts.get("witness", [])}
        end = {p: found["next_offset"] for _, p, found, _ in facts.get("reader", [])}
        good = {(r.partition, r.offset): r for rows in self.inserted.values() for r in rows if r.kind == GOOD and r.offset < end[r.partition]}
        self.compare("witness", "whether it has", dict.fromkeys(good, True), dict.fromkeys(times, True))
        for position in good.keys() & times.keys():
            good[position].time = times[position]

    def kind_now(self, record):
        return (GOOD if self.mended else BAD) if record.kind == HELD else record.kind

    def of(self, facts, name, query):
        return [row[1:] for row in facts.get(name, []) if row[0] == query.name]

    def commits_of(self, query, facts, ledgers):
        """The commits that a query had a part in, whichever reader made them, numbered from one."""
        commits = []
        for owner, reader, after, upto, shift in facts.get("history", []):
            if owner == query:
                commits += [simulator.Commit(c.seq + shift, c.at, c.watermark, c.next_offset, c.watermarks, c.idle)
                            for c in ledgers.get(reader, []) if c.seq > after and (upto is None or c.seq <= upto)]
        return sorted(commits, key=lambda c: c.seq)

    def check_query(self, query, facts, ledgers):
        where = query.name
        progress = self.of(facts, "query", query)
        query_id = None
        if progress:
            state, error, query_id, reader, windows_closed, rows_out, complete_from = progress[0]
            if state != "running":
                self.differs(where, f"state {state}", "running", error)
                return
            if self.workload.clock and not self.made_between[0] <= complete_from <= self.made_between[1]:
                self.differs(where, "complete_from", self.made_between, complete_from)
        made = complete_from if self.workload.clock else None
        commits = self.commits_of(query_id, facts, ledgers)
        begins = {p: offset for p, offset, *_ in self.of(facts, "start", query)}
        query.started = {p for p, _, complete, *_ in self.of(facts, "start", query) if not complete}
        if begins and not self.workload.growing and query.started != (set() if query.start is None else set(self.inserted)):
            self.differs(where, "partitions that are not complete", query.start, query.started)
        records = {p: [r for r in rows if r.offset >= begins.get(p, 0)] for p, rows in self.inserted.items()}
        try:
            verdicts = [self.simulation(query, order, made).run(records, commits, self.events)
                        for order in (ORDERS if query.kind in ("session", "global") and self.workload.partitions > 1 else ORDERS[:1])]
            if len(query.started) > 1 and query.kind not in ("session", "global"):
                verdicts += [self.simulation(query, order, made, begins).run(records, commits, self.events)
                             for order, begins in ((ORDERS[0], "first"), (ORDERS[0], "last"), (ORDERS[1], "last"))]
        except simulator.Disagreement as error:
            self.differences.append(f"{where}: {error}")
            return
        verdict = verdicts[0]
        self.differences += [f"{where}: {note}" for note in verdict.notes]
        for partition, begin, _, start, dead in self.of(facts, "start", query):
            # the query has joined a reader that holds bad records from before its beginning, and reads them again
            if self.mended and dead:
                bad = sum(start <= r.offset < begin and r.kind == BAD for r in self.inserted[partition])
                for v in verdicts:
                    v.counters[partition]["before_start"] += dead - bad
        for row in self.of(facts, "verify", query):
            self.differs(where, "verify()", None, row)
        # what depends on the order of the records of a commit cannot be told
        if any(outcome(query, v, self.comparable) != outcome(query, verdict, self.comparable) for v in verdicts[1:]):
            return
        # A session that grows backwards, over the query's beginning, stays if a commit has emitted it before.
        grows_out = query.kind == "session" and query.started and not query.emit_partial
        if self.workload.partitions == 1 and commits and query.state_ttl is None and not grows_out and \
                not (self.events or self.advanced or self.workload.idle_close or self.workload.clock):
            rows = [r for r in records[0] if r.offset < commits[-1].next_offset[0]]
            alone = self.simulation(query, sorted).run_alone(rows)
            if outcome(query, alone) != outcome(query, verdict) and not verdict.notes:
                self.compare(where, "without the ledger, simulated", *(dict(enumerate(outcome(query, v))) for v in (alone, verdict)))
                return

        expected = {p: self.comparable(query, c) for p, c in verdict.counters.items() if any(c.values())}
        found = {p: self.comparable(query, c) for p, c in self.of(facts, "counters", query) if any(c.values())}
        self.compare(where, "counters of partition", expected, found)
        self.compare(where, "late record", verdict.late if query.late == "store" else {},
                     {(p, o): (t, w, [tuple(b) for b in windows]) for p, o, t, w, windows in self.of(facts, "late", query)})
        self.check_rows(query, facts, verdict, {c.seq: c.at for c in commits})
        self.kept += sum(1 for (start, _, _), g in verdict.groups.items() if start < verdict.complete_from and g.revision)
        if query.emit == "final" and query.lateness == 0 and query.kind != "global" and progress and not self.events and \
                not any(c["failed"] for c in verdict.counters.values()):
            self.compare(where, "statistics", dict(windows=len(verdict.windows_closed), rows=verdict.rows_out),
                         dict(windows=windows_closed, rows=rows_out))
        if query.kind != "session" and not self.workload.clock and (query.row_windows is None or not self.workload.unknown_zones):
            expected = simulator.ideal_groups(query, self.inserted, self.mended)
            self.check_values(where + "_batch", expected, self.rows_by_group(where + "_batch", self.of(facts, "batch", query)))

    def simulation(self, query, order, made=None, begins=None):
        return simulator.Simulation(query, self.workload.delay, order, self.advanced, self.workload.idle_close is not None, made, begins)

    @staticmethod
    def comparable(query, counters):
        """Of a query that begins in several partitions the first window moves while they begin, at which record is not told."""
        counters = dict(counters)
        if len(query.started) > 1:
            counters["counted"] += counters.pop("before_start") + counters.pop("failed")
            del counters["late_assignments"]
        return counters

    def rows_by_group(self, where, rows):
        result = {}
        for start, end, key, values, *rest in rows:
            group = (NEVER if start is None else start, FOREVER if end is None else end, tuple(key))
            if group in result:
                self.differs(where, f"group {show(group)} is there twice", result[group], values)
            result[group] = (values, *rest)
        return result

    def check_values(self, where, expected, found):
        for group in expected.keys() | found.keys():
            if group not in found:
                self.differs(where, f"group {show(group)} is missing", expected[group], None)
            elif group not in expected:
                self.differs(where, f"group {show(group)} should not be there", None, found[group])
            elif not all(same(f, e) for f, e in zip(found[group][0], expected[group])):
                self.differs(where, f"group {show(group)}", expected[group], found[group][0])

    def check_rows(self, query, facts, verdict, commit_times):
        """The result table: closed windows, when and how often they were emitted; and the view of all windows."""
        where = query.name
        found = self.rows_by_group(where, self.of(facts, "result", query))
        commits = {at: seq for seq, at in commit_times.items()}
        expected = {group: state.row for group, state in verdict.groups.items() if state.row is not None}
        if query.changes or query.trigger_interval:
            self.expect_shown(query, verdict, found, commits, expected)
        self.check_values(where, expected, found)
        for group in expected.keys() & found.keys():
            state = verdict.groups.get(group)
            _, is_final, revision, emitted_at = found[group]
            final = state is not None and state.closed
            if is_final != final:
                self.differs(where, f"is_final of {show(group)}", final, is_final)
            if emitted_at not in commits:
                self.differs(where, f"emitted_at of {show(group)}", "a commit's", emitted_at)
            if query.changes or query.trigger_interval:
                if final and state.emitted != commits.get(emitted_at):
                    self.differs(where, f"commit that made {show(group)} final", commit_times[state.emitted], emitted_at)
                continue
            if revision != state.revision:
                self.differs(where, f"revision of {show(group)}", state.revision, revision)
            if state.emitted not in (simulator.SOME_COMMIT, commits.get(emitted_at)):
                self.differs(where, f"commit that emitted {show(group)}", commit_times[state.emitted], emitted_at)
        self.check_history(query, found)
        live = self.rows_by_group(where + "_live", self.of(facts, "live", query))
        rows = {group: simulator.row_of(query, state.rows) for group, state in verdict.groups.items()}
        self.check_values(where + "_live", {group: row for group, row in rows.items() if row is not None}, live)
        for group in verdict.groups.keys() & live.keys():
            final = verdict.groups[group].closed
            if live[group][1] != final:
                self.differs(where + "_live", f"is_final of {show(group)}", final, live[group][1])

    def expect_shown(self, query, verdict, found, commits, expected):
        """Rows of what is still open: as of the commit that wrote them, which may be any, and none need be there."""
        spans = {}
        for group, (values, _, _, emitted_at) in found.items():
            seq = commits.get(emitted_at)
            state = verdict.groups.get(group)
            if seq is None or (state is not None and state.closed):
                continue
            if query.kind == "session":
                rows = [row for at, window, row in verdict.shown[group[2]] if at == seq and window == group[:2]]
                spans.setdefault(group[2], []).append(group[:2])
            elif state is None or (state.emitted is not None and seq < state.emitted):
                continue
            else:
                at = [version for version in state.versions if version[0] <= seq and version[2] > 0]
                rows = [version[1] for version in at if version[0] == at[-1][0]]
                if seq == state.emitted:  # the count fired, as of a record before the commit's last one
                    rows.append(state.row)
            rows = [row for row in rows if row is not None]
            if rows:
                expected[group] = next((row for row in rows if all(same(f, e) for f, e in zip(values, row))), rows[-1])
            else:
                expected.pop(group, None)
        for group in expected.keys() - found.keys():
            # the interval may have fired when HAVING refused the row
            state = verdict.groups[group]
            if query.trigger_interval and any(row is None for seq, row, n in state.versions if seq >= state.emitted):
                del expected[group]
        # sessions that have been joined since the last emission may have two rows, but none is left of an earlier one
        for key, windows in spans.items():
            windows.sort()
            for earlier, later in zip(windows, windows[1:]):
                if later[0] < earlier[1]:
                    self.differs(query.name, f"rows of open sessions of {show(key)}", earlier, later)

    def check_history(self, query, found):
        """A row that is there from one check to the next: its revision tells whether it has changed."""
        before = self.seen_rows.get(query.name, {})
        if query.having is None and query.kind != "session":
            for group in before.keys() & found.keys():
                (old, _, old_revision, old_at), (new, _, revision, at) = before[group], found[group]
                if revision < old_revision or at < old_at or (revision == old_revision and (old, old_at) != (new, at)):
                    self.differs(query.name, f"values, revision and time of {show(group)}", (old, old_revision, old_at), (new, revision, at))
            for group in before.keys() - found.keys():
                self.differs(query.name, f"row of {show(group)}", before[group], None)
        self.seen_rows[query.name] = found

    # ---- all of it ----

    def run(self):
        self.doing = "setup"
        self.setup()
        for number, (step, *arguments) in enumerate(self.workload.steps):
            self.doing = f"step {number}, {step}"
            getattr(self, step)(*arguments)
            if self.differences:
                return


def outcome(query, verdict, of_counters=lambda query, counters: counters):
    """What does not depend on when things were committed."""
    return (verdict.late, {p: of_counters(query, c) for p, c in verdict.counters.items()},
            {g: (simulator.row_of(query, s.rows), s.closed, query.kind == "global" and s.row) for g, s in verdict.groups.items()})


def say(text):
    """Lines in one piece: others write to the same pipe."""
    sys.stdout.flush()
    os.write(1, (text + "\n").encode())


def run_one(kind, seed, arguments):
    begin = time.monotonic()
    kills, keep = arguments.kills, arguments.keep
    run = Run(generate.make(seed, kind, kills, arguments.extras), kills)
    try:
        run.run()
    except Exception:  # of whatever sort, it is a failure with a seed
        run.differences.append(traceback.format_exc(limit=-3))
    workload = run.workload
    name = f"{kind} seed {seed}" + (" --kills" if kills else "")
    failed = bool(run.differences)
    if failed:
        text = [f"FAILED {name} at {run.doing}: {len(run.differences)} differences",
                f"  delay {workload.delay} us, idle_timeout {workload.idle_timeout} us, partitions {workload.partitions}"]
        text += [f"  again: test/oracle/run.sh --kinds {kind} --first-seed {seed} " + ("--seeds 0 --kills 1" if kills else "--seeds 1 --kills 0")]
        text += [f"  {q.name}: {q.sql} {q.options}" for q in workload.queries]
        text += ["  " + d.replace("\n", "\n  ") for d in sorted(run.differences, key=len)[:SHOWN]]
        say("\n".join(text))
    else:
        records = sum(len(r) for r in workload.records.values())
        say(f"ok {name}: {len(workload.queries)} queries, {workload.partitions} partitions, {records} records, "
            f"{time.monotonic() - begin:.1f} s" + (f", corrected {run.kept} rows behind which the first window had gone" if run.kept else ""))
    if not (failed and keep):
        try:
            run.drop()
        except Failure as error:
            say(f"FAILED {name}: {error}")
            failed = True
    return not failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--with", dest="extras", action="append", choices=generate.EXTRAS, default=[])
    parser.add_argument("workloads", nargs="+", metavar="KIND:SEED")
    arguments = parser.parse_args()
    results = []
    for workload in arguments.workloads:
        kind, _, seed = workload.partition(":")
        if kind not in generate.KINDS or not seed.isdigit():
            parser.error(f"not a workload: {workload}")
        results.append(run_one(kind, int(seed), arguments))
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
