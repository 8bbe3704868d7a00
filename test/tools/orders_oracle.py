#!/usr/bin/env python3
#
# orders_oracle.py
#	  What a tumbling window over the file of test/tools/orders must give.
#
# NOTES
#	  Written from the semantics of windows and watermarks alone; shares nothing
#	  with the engine.  The query it answers is
#	      SELECT category, sum(amount), count(*), min(amount), max(amount), avg(amount)
#	      FROM orders GROUP BY tumble(ts, SIZE), category
#	  over a stream with the columns
#	      order_id bigint, user_id bigint PATH '$.user.id', category text,
#	      amount numeric CHECK (amount >= 0), ts timestamptz
#
#	  A record's offset is its number among the lines of its partition.
#
#	  Which records are late:
#	  --late own     one partition: a record whose window's end is not after the
#	                 partition's watermark, the largest event time so far - delay
#	  --late none    no record is late (the delay exceeds the disorder)
#	  --late FILE    those of the file, lines "partition,offset", as the engine
#	                 reported them.  Which they are depends on when the partitions
#	                 were read; but each must be late by its own partition's
#	                 watermark, which the stream's never exceeds while no partition
#	                 is idle.  Others are errors.
#	  --late ledger  judged anew by the rules, from --ledger FILE, the commits that
#	                 the engine wrote down: "seq,watermark,partition,next_offset,
#	                 partition_watermark,idle" for each commit and partition.  Each
#	                 watermark in it is computed again, and differences are errors.
#	                 Taken from it are only where commits lay and who was idle.
#
import argparse
import bisect
import csv
import json
import re
import sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal, ROUND_HALF_UP, getcontext

getcontext().prec = 200

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?Z$")
DECIMAL = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*$")
INTEGER = re.compile(r"[+-]?\d+$")
seconds_of_minute = {}


def micros(text):
    """Microseconds since 1970 of an ISO time in UTC."""
    # Orders come in bunches of the same minute.
    minute = seconds_of_minute.get(text[:16])
    match = ISO.match(text)
    if match is None:
        raise ValueError(f"not a time: {text}")
    year, month, day, hour, minutes, second, fraction = match.groups()
    if minute is None:
        moment = datetime(int(year), int(month), int(day), int(hour), int(minutes), tzinfo=timezone.utc)
        minute = seconds_of_minute[text[:16]] = int((moment - EPOCH).total_seconds())
    return (minute + int(second)) * 1_000_000 + int((fraction or "0").ljust(6, "0"))


def iso(us):
    """The form in which psql prints a timestamptz in UTC."""
    text = (EPOCH + timedelta(microseconds=us)).strftime("%Y-%m-%d %H:%M:%S.%f").rstrip("0").rstrip(".")
    return text + "+00"


def pg_micros(text):
    """The same of a timestamptz that psql has printed in UTC."""
    if text == "-infinity":
        return float("-inf")
    return micros(text.replace(" ", "T").removesuffix("+00") + "Z")


def numeric(value):
    """A JSON value as numeric; raises if it is none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
        raise ValueError("not a number")
    if isinstance(value, str):
        if not DECIMAL.match(value):
            raise ValueError(f"not a number: {value}")
        value = Decimal(value.strip())
    return Decimal(value)


def bigint(value):
    if value is None:
        return None
    if isinstance(value, bool):
        raise ValueError("not a whole number")
    if isinstance(value, str):
        if not INTEGER.match(value):
            raise ValueError("not a whole number")
        value = int(value)
    if isinstance(value, Decimal):
        if value != value.to_integral_value():
            raise ValueError("not a whole number")
        value = int(value)
    if not -(2**63) <= value < 2**63:
        raise ValueError("out of range")
    return value


def decode(payload):
    """(category, amount, time) of an order; raises ValueError if it is bad."""
    record = json.loads(payload.decode("utf-8"), parse_float=Decimal)
    if not isinstance(record, dict):
        raise ValueError("not an object")
    bigint(record.get("order_id"))
    user = record.get("user")
    bigint(user.get("id") if isinstance(user, dict) else None)
    category = record.get("category")
    if category is not None and not isinstance(category, str):
        raise ValueError("not a text")
    amount = numeric(record.get("amount"))
    if amount is not None and amount < 0:
        raise ValueError("amount is negative")
    if not isinstance(record.get("ts"), str):
        raise ValueError("no event time")
    return category, amount, micros(record["ts"])


def base_10000(value):
    """Weight and value of the first digit to base 10000, as numeric keeps it."""
    sign, digits, exponent = value.as_tuple()
    if value == 0:
        return 0, 0
    # The weight is that of the power of 10000 that the leading digit belongs to.
    weight = value.adjusted() // 4
    first = int(abs(value) / (Decimal(10000) ** weight))
    return weight, first


def scale(value):
    return max(0, -value.as_tuple().exponent)


def average(total, count):
    """total / count with the number of digits that Postgres's numeric gives."""
    divisor = Decimal(count)
    weight1, first1 = base_10000(total)
    weight2, first2 = base_10000(divisor)
    quotient = weight1 - weight2
    if first1 <= first2:
        quotient -= 1
    digits = min(max(16 - quotient * 4, scale(total), 0), 1000)
    return (total / divisor).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)


class Ledger:
    """The commits of a reader, and what follows from them for its records."""

    def __init__(self, path, delay):
        self.delay = delay
        self.commits = []       # (watermark, {partition: (next_offset, watermark, idle)})
        self.wrong = []
        self.times = {}         # of a partition: largest event time up to each record
        rows = {}
        with open(path, newline="") as file:
            for seq, watermark, partition, offset, own, idle in csv.reader(file):
                commit = rows.setdefault(int(seq), (pg_micros(watermark), {}))
                commit[1][int(partition)] = (int(offset), pg_micros(own), idle == "t")
        previous = None
        for seq in sorted(rows):
            if previous is not None and seq != previous + 1:
                self.wrong.append(f"commits {previous + 1} to {seq - 1} are missing in the ledger")
            previous = seq
            self.commits.append(rows[seq])
        self.ends = {}
        for partition in {p for _, partitions in self.commits for p in partitions}:
            self.ends[partition] = [c[1][partition][0] if partition in c[1] else 0 for c in self.commits]
        # what the others' partitions allow, as of each commit
        self.others = {}
        for partition in self.ends:
            self.others[partition] = [
                min((own for p, (_, own, idle) in c[1].items() if p != partition and not idle), default=float("inf"))
                for c in self.commits]

    def watermark_for(self, partition, offset, maximum):
        """W as it is for a record; "maximum" is its partition's event time up to and with it."""
        own = maximum - self.delay
        ends = self.ends.get(partition, [])
        commit = bisect.bisect_right(ends, offset)
        if commit == len(ends):
            self.wrong.append(f"partition {partition} offset {offset} is behind the last commit")
        if commit == 0:
            return float("-inf") if len(self.ends) > 1 else own
        return max(self.commits[commit - 1][0], min(own, self.others[partition][commit - 1]))

    def note(self, partition, offset, maximum):
        """The largest event time of a partition up to and with an offset."""
        offsets, maxima = self.times.setdefault(partition, ([], []))
        offsets.append(offset)
        maxima.append(maximum)

    def check(self):
        """Compute the watermark of each commit from the records before it."""
        before = float("-inf")
        for watermark, partitions in self.commits:
            least = float("inf")
            for partition, (end, own, idle) in partitions.items():
                offsets, maxima = self.times.get(partition, ([], []))
                last = bisect.bisect_left(offsets, end)
                expected = maxima[last - 1] - self.delay if last > 0 else float("-inf")
                if own != expected:
                    self.wrong.append(f"the watermark of partition {partition} at offset {end} is {own}, not {expected}")
                if not idle:
                    least = min(least, expected)
            expected = before if least == float("inf") else max(before, least)
            if watermark != expected:
                self.wrong.append(f"a commit has the watermark {watermark}, not {expected}")
            before = watermark
        return before


class Group:
    __slots__ = ("count", "values", "total", "low", "high")

    def __init__(self):
        self.count = self.values = 0
        self.total = Decimal(0)
        self.low = self.high = None

    def add(self, amount):
        self.count += 1
        if amount is None:
            return
        self.values += 1
        self.total += amount
        if self.low is None or amount < self.low:
            self.low = amount
        if self.high is None or amount > self.high:
            self.high = amount

    def row(self):
        if self.values == 0:
            return ["", self.count, "", "", ""]
        return [self.total, self.count, self.low, self.high, average(self.total, self.values)]


def main():
    parser = argparse.ArgumentParser(description="Tumbling windows over a file of orders, as CSV.")
    parser.add_argument("file")
    parser.add_argument("--size", type=float, default=10, help="seconds of a window (10)")
    parser.add_argument("--delay", type=float, default=5, help="watermark_delay in seconds (5)")
    parser.add_argument("--late", default="none", help="own, none, ledger or a file of partition,offset (none)")
    parser.add_argument("--ledger", metavar="FILE", help="the engine's commits, for --late ledger")
    parser.add_argument("--future-after", default=None, metavar="TIME",
                        help="event times after this are dead letters (default: now + 5 minutes)")
    parser.add_argument("--open", action="store_true",
                        help="also the windows that the watermark has not closed; adds a column is_final")
    parser.add_argument("--keys", choices=["category", "user"], default="category")
    parser.add_argument("--dead", metavar="FILE", help="write the bad and future records: partition,offset,kind")
    parser.add_argument("--late-out", metavar="FILE", help="write the late records: partition,offset")
    parser.add_argument("--summary", metavar="FILE", help="write the counts as JSON")
    args = parser.parse_args()

    size = round(args.size * 1_000_000)
    delay = round(args.delay * 1_000_000)
    if args.future_after:
        future_after = micros(args.future_after)
    else:
        future_after = int((datetime.now(timezone.utc) - EPOCH).total_seconds() + 300) * 1_000_000
    reported = None
    ledger = None
    if (args.late == "ledger") != (args.ledger is not None):
        sys.exit("orders_oracle.py: --late ledger and --ledger FILE go together")
    if args.late == "ledger":
        ledger = Ledger(args.ledger, delay)
    elif args.late not in ("own", "none"):
        with open(args.late, newline="") as file:
            reported = {(int(row[0]), int(row[1])) for row in csv.reader(file) if row}

    groups = {}
    offsets = {}
    maxima = {}
    counts = dict(records=0, counted=0, late=0, bad=0, future=0, tombstones=0)
    dead = []
    late = []
    wrong = 0
    with open(args.file, "rb") as file:
        for line in file:
            number, _, payload = line.rstrip(b"\n").split(b"\t", 2)
            partition = int(number)
            offset = offsets.get(partition, 0)
            offsets[partition] = offset + 1
            counts["records"] += 1
            if payload == b"\\N":
                counts["tombstones"] += 1
                continue
            try:
                category, amount, time = decode(payload)
                key = category
                if args.keys == "user":
                    key = bigint(json.loads(payload)["user"]["id"])
            except (ValueError, KeyError):
                counts["bad"] += 1
                dead.append((partition, offset, "bad"))
                continue
            if time > future_after:
                counts["future"] += 1
                dead.append((partition, offset, "future"))
                continue

            start = time // size * size
            maximum = maxima.get(partition)
            own_late = maximum is not None and start + size <= maximum - delay
            if maximum is None or time > maximum:
                maxima[partition] = time
            if ledger is not None:
                ledger.note(partition, offset, maxima[partition])
                is_late = start + size <= ledger.watermark_for(partition, offset, maxima[partition])
            elif reported is not None:
                is_late = (partition, offset) in reported
                if is_late and not own_late:
                    print(f"partition {partition} offset {offset} was reported late, but its partition's"
                          f" watermark had not passed its window", file=sys.stderr)
                    wrong += 1
                reported.discard((partition, offset))
            else:
                is_late = own_late and args.late == "own"
            if is_late:
                counts["late"] += 1
                late.append((partition, offset))
                continue
            counts["counted"] += 1
            groups.setdefault((start, key), Group()).add(amount)

    if args.late == "own" and len(offsets) > 1:
        sys.exit("orders_oracle.py: --late own needs a file of one partition")
    if reported:
        for partition, offset in sorted(reported):
            print(f"partition {partition} offset {offset} was reported late, but is no decodable record",
                  file=sys.stderr)
        wrong += len(reported)

    watermark = min(maxima.values()) - delay if maxima else None
    if ledger is not None:
        watermark = ledger.check()
        for problem in ledger.wrong[:20]:
            print(problem, file=sys.stderr)
        wrong += len(ledger.wrong)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    header = ["window_start", args.keys, "sum", "count", "min", "max", "avg"]
    writer.writerow(header + (["is_final"] if args.open else []))
    # NULL keys sort last, as in Postgres.
    for start, key in sorted(groups, key=lambda g: (g[0], g[1] is None, g[1] or (0 if args.keys == "user" else ""))):
        final = watermark is not None and start + size <= watermark
        if final or args.open:
            row = [iso(start), "" if key is None else key] + groups[(start, key)].row()
            writer.writerow(row + (["t" if final else "f"] if args.open else []))

    for path, rows in ((args.dead, dead), (args.late_out, late)):
        if path:
            with open(path, "w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
    if args.summary:
        counts["watermark"] = None if watermark in (None, float("-inf")) else iso(watermark)
        with open(args.summary, "w") as file:
            json.dump(counts, file)
            file.write("\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
