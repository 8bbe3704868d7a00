#!/usr/bin/env python3
#
# bench.py
#	  The measurements of test/bench.sh, which builds, starts what is needed and
#	  calls this; see README.md for what is measured and how.
#
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time

TICK = os.sysconf("SC_CLK_TCK")

COLUMNS = """order_id bigint, user_id bigint PATH '$.user.id', category text,
    amount numeric CHECK (amount >= 0), event_time timestamptz PATH '$.ts'"""

AGGREGATES = "count(*) AS orders, sum(amount) AS total, min(amount) AS low, max(amount) AS high"
BY_CATEGORY = f"SELECT category, {AGGREGATES} FROM %s GROUP BY tumble(event_time, '10 seconds'), category"
BY_USER = f"SELECT user_id, {AGGREGATES} FROM %s GROUP BY tumble(event_time, '10 seconds'), user_id"

# rate is in events per second of event time: with the number of users it sets
# how many events share a result row.
TOPICS = {
    "orders_8": dict(events=4_000_000, rate=20_000),
    "orders_sparse": dict(events=4_000_000, rate=90_000),
    "orders_dense": dict(events=1_000_000, rate=6_800),
}

# must and aim are bounds of the ratio to R, or, for latency, milliseconds of
# (p50, p99).
VARIANTS = {
    "8keys": dict(topic="orders_8", query=BY_CATEGORY, must=1.45, aim=1.2,
                  title="8 keys, 4 aggregates, staging off"),
    "100k_sparse": dict(topic="orders_sparse", query=BY_USER, must=2.4, aim=1.8,
                        title="100,000 keys, 1 result row per 9 events"),
    "100k_dense": dict(topic="orders_dense", query=BY_USER, must=8.0, aim=5.0,
                       title="100,000 keys, 0.73 result rows per event"),
    "staging": dict(topic="orders_8", query=BY_CATEGORY, staging="10 minutes", must=2.4, aim=1.9,
                    title="8 keys, 4 aggregates, staging on"),
    "latency": dict(rate=1_000, must=(20, 50), aim=(8, 20),
                    title="window end to visible row, 1,000 events/s"),
    "latency_20k": dict(rate=20_000, must=(20, 50), aim=(8, 20),
                        title="window end to visible row, 20,000 events/s"),
}
DEFAULT_VARIANTS = ["8keys", "100k_sparse", "100k_dense", "staging", "latency"]

PARTITIONS = 4
MIN_PAIRS = 7
MIN_WINDOWS = 50
MAX_STEAL = 35.0
MAX_LOAD = 1.0


def say(text):
    print(text, file=sys.stderr, flush=True)


class Failure(Exception):
    pass


def run(*command, timeout=900):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise Failure(f"{os.path.basename(command[0])}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


# ---- the cluster ----

class Cluster:
    def __init__(self, bindir, socket, data):
        self.bindir = bindir
        self.socket = socket
        self.data = data

    def sql(self, text, timeout=900):
        return run(f"{self.bindir}/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.socket, "-p", "5432",
                   "-U", "postgres", "-d", "postgres", "-c", text, timeout=timeout).strip()

    def postmaster(self):
        with open(f"{self.data}/postmaster.pid") as file:
            return int(file.readline())

    def cpu(self):
        """Seconds of CPU of the whole server so far, ended processes included."""
        postmaster = self.postmaster()
        ticks = sum(process_ticks(postmaster))
        for pid in children(postmaster):
            ticks += sum(process_ticks(pid)[:2])
        return ticks / TICK

    def cpu_of(self, pattern):
        """Seconds of CPU of the live processes of a backend type, each by pid."""
        rows = self.sql(f"SELECT pid, backend_type FROM pg_stat_activity WHERE backend_type LIKE '{pattern}'")
        times = {}
        for line in rows.splitlines():
            pid, kind = line.split("|", 1)
            times[int(pid)] = (kind, sum(process_ticks(int(pid))[:2]) / TICK)
        return times


def process_ticks(pid):
    """utime, stime, cutime, cstime of a process; zeros if it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return (0, 0, 0, 0)
    return tuple(int(field) for field in fields[11:15])


def children(parent):
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as file:
                if int(file.read().rsplit(")", 1)[1].split()[1]) == parent:
                    found.append(int(entry))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def memory(pid):
    """Kilobytes: peak resident, private, shared."""
    values = {}
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                name, _, rest = line.partition(":")
                if name in ("VmHWM", "RssAnon", "RssShmem"):
                    values[name] = int(rest.split()[0])
    except FileNotFoundError:
        pass
    return values.get("VmHWM", 0), values.get("RssAnon", 0), values.get("RssShmem", 0)


# ---- noise ----

class Noise:
    """Steal and foreign load since it was made, from /proc/stat."""

    def __init__(self):
        self.start = self.read()

    @staticmethod
    def read():
        with open("/proc/stat") as file:
            return [int(field) for field in file.readline().split()[1:9]]

    def steal(self):
        delta = [after - before for before, after in zip(self.start, self.read())]
        total = sum(delta)
        return 100.0 * delta[7] / total if total else 0.0


# ---- topics ----

class Kafka:
    def __init__(self, bootstrap, tools):
        self.bootstrap = bootstrap
        self.tools = tools

    def topics(self):
        return {line.split()[0] for line in run(f"{self.tools}/kadmin", "topics", self.bootstrap).splitlines()}

    def create(self, name):
        run(f"{self.tools}/kadmin", "create", self.bootstrap, name, str(PARTITIONS))

    def delete(self, name):
        run(f"{self.tools}/kadmin", "delete", self.bootstrap, name)

    def fill(self, name, events, rate):
        say(f"producing {events:,} orders into {name}")
        self.create(name)
        run(f"{self.tools}/orders", "--count", str(events), "--rate", str(rate), "--partitions", str(PARTITIONS),
            "--disorder", "2", "--brokers", self.bootstrap, "--topic", name)

    def consume(self, name, properties):
        options = [part for text in properties for part in ("-X", text)]
        return json.loads(run(f"{self.tools}/consume_raw", "-j", *options, self.bootstrap, name))


# ---- one job ----

def literal(text):
    return "'" + text.replace("'", "''") + "'"


def set_up(cluster, kafka):
    cluster.sql("CREATE EXTENSION IF NOT EXISTS stream_engine")
    cluster.sql("CREATE SERVER IF NOT EXISTS kafka FOREIGN DATA WRAPPER stream_engine_kafka"
                f" OPTIONS (bootstrap_servers {literal(kafka.bootstrap)})")


def create_stream(cluster, name, topic, delay, staging, start):
    cluster.sql(f"SELECT stream_engine.create_stream({literal(name)}, server => 'kafka', topic => {literal(topic)},"
                f" columns => {literal(COLUMNS)}, event_time => 'event_time', watermark_delay => {literal(delay)},"
                f" staging_retention => {literal(staging)}, start => {literal(start)})")


def drop(cluster, stream, query):
    cluster.sql(f"SELECT stream_engine.drop_query({literal(query)}, keep_results => false)")
    cluster.sql(f"SELECT stream_engine.drop_stream({literal(stream)})")


def job(cluster, variant, topic, events, number, profile=None):
    """Run the job once over the whole topic; what it cost."""
    stream, query = f"bench_stream_{number}", f"bench_query_{number}"
    create_stream(cluster, stream, topic, "5 seconds", variant.get("staging", "0"), "earliest")
    cluster.sql("CHECKPOINT")
    recorder = None
    cpu = cluster.cpu()
    wal = cluster.sql("SELECT pg_current_wal_insert_lsn()")
    wall = time.monotonic()
    cluster.sql(f"SELECT stream_engine.create_query({literal(query)}, {literal(variant['query'] % stream)})")
    if profile:
        pids = None
        while not pids and time.monotonic() - wall < 10:
            pids = cluster.sql("SELECT string_agg(pid::text, ',') FROM pg_stat_activity"
                               " WHERE backend_type = 'stream_engine reader'")
        if not pids:
            raise Failure("no reader has started")
        recorder = subprocess.Popen(["perf", "record", "-q", "-g", "-F", "999", "-o", profile, "-p", pids],
                                    stdin=subprocess.DEVNULL)
    cluster.sql(f"CALL stream_engine.wait({literal(query)}, '15 minutes')", timeout=1000)
    wall = time.monotonic() - wall
    cpu = cluster.cpu() - cpu
    if recorder:
        if recorder.poll() is not None:
            say("perf recorded nothing: is kernel.perf_event_paranoid too high?")
        recorder.terminate()
        recorder.wait()
    wal_bytes = int(float(cluster.sql(f"SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '{wal}')")))
    workers = cluster.cpu_of("stream_engine%")
    resident = max((memory(pid) for pid in workers), default=(0, 0, 0))
    rows = int(cluster.sql(f"SELECT count(*) FROM {query}"))

    # Not a part of the cost, but a wrong answer is no measurement.
    counted = int(cluster.sql(f"SELECT coalesce(sum(orders), 0) FROM {query}_live"))
    if counted != events:
        raise Failure(f"the job counted {counted} of {events} orders")
    drop(cluster, stream, query)
    return dict(cpu_ns_per_event=cpu * 1e9 / events, wall_s=wall, rows=rows, wal_bytes=wal_bytes,
                wal_bytes_per_event=wal_bytes / events, rss_kb=resident[0], rss_anon_kb=resident[1],
                rss_shared_kb=resident[2])


def summary(values):
    return dict(min=min(values), median=statistics.median(values), max=max(values))


def throughput(name, variant, cluster, kafka, options):
    topic = variant["topic"]
    shape = TOPICS[topic]
    events = options.events or shape["events"]
    if topic not in kafka.topics():
        kafka.fill(topic, events, shape["rate"])

    noise = Noise()
    raw = [kafka.consume(topic, options.property)]
    if raw[0]["messages"] != events:
        raise Failure(f"topic {topic} holds {raw[0]['messages']} of {events} records")
    jobs = []
    ratios = []
    for number in range(options.rounds):
        jobs.append(job(cluster, variant, topic, events, number))
        raw.append(kafka.consume(topic, options.property))
        around = (raw[-2]["cpu_ns_per_message"] + raw[-1]["cpu_ns_per_message"]) / 2
        ratios.append(jobs[-1]["cpu_ns_per_event"] / around)
        say(f"{name}: round {number + 1} of {options.rounds}: R {around:.0f} ns, job"
            f" {jobs[-1]['cpu_ns_per_event']:.0f} ns, ratio {ratios[-1]:.2f}")
    if options.profile:
        job(cluster, variant, topic, events, options.rounds, os.path.join(options.profile, f"{name}.perf"))

    result = dict(kind="throughput", title=variant["title"], events=events, rounds=options.rounds,
                  steal_percent=noise.steal(), must=variant["must"], aim=variant["aim"],
                  r_ns=summary([r["cpu_ns_per_message"] for r in raw]),
                  job_ns=summary([j["cpu_ns_per_event"] for j in jobs]),
                  ratio=summary(ratios),
                  events_per_s_wall=summary([events / j["wall_s"] for j in jobs]),
                  rows=jobs[-1]["rows"], rows_per_event=jobs[-1]["rows"] / events,
                  wal_bytes_per_event=summary([j["wal_bytes_per_event"] for j in jobs]),
                  rss_kb=max(j["rss_kb"] for j in jobs), rss_anon_kb=max(j["rss_anon_kb"] for j in jobs),
                  rss_shared_kb=max(j["rss_shared_kb"] for j in jobs), runs=jobs)
    judge(result, result["ratio"]["median"] <= variant["must"], result["ratio"]["median"] <= variant["aim"],
          options.rounds)
    return result


def judge(result, meets_must, meets_aim, rounds):
    doubts = []
    if result["steal_percent"] > MAX_STEAL:
        doubts.append(f"{result['steal_percent']:.0f} % of the CPU time was stolen")
    if rounds < MIN_PAIRS:
        doubts.append(f"fewer than {MIN_PAIRS} rounds")
    if result["kind"] == "latency":
        if result["windows"] < MIN_WINDOWS:
            doubts.append(f"fewer than {MIN_WINDOWS} windows")
        if result["load_average"] > MAX_LOAD * os.cpu_count():
            doubts.append(f"a load of {result['load_average']:.1f} on {os.cpu_count()} processors")
    if "r_ns" in result and result["r_ns"]["max"] > 1.6 * result["r_ns"]["min"]:
        doubts.append(f"R itself varied from {result['r_ns']['min']:.0f} to {result['r_ns']['max']:.0f} ns")
    result["doubts"] = doubts
    if doubts:
        result["verdict"] = "not judged"
    else:
        result["verdict"] = "aim" if meets_aim else "must" if meets_must else "missed"


def percentile(values, share):
    """The smallest value that at least this share of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1)]


def latency(name, variant, cluster, kafka, options):
    topic = f"bench_{name}"
    stream, query = f"{topic}_stream", f"{topic}_query"
    windows = options.windows
    if topic in kafka.topics():
        kafka.delete(topic)
    kafka.create(topic)
    create_stream(cluster, stream, topic, "0 seconds", "0", "earliest")
    cluster.sql(f"SELECT stream_engine.create_query({literal(query)}, 'SELECT category, {AGGREGATES}"
                f" FROM {stream} GROUP BY tumble(event_time, ''1 second''), category')")

    noise = Noise()
    producer = subprocess.Popen([f"{kafka.tools}/orders", "--pace", str(variant["rate"]), "--partition-by", "round",
                                 "--partitions", str(PARTITIONS), "--count", str(variant["rate"] * (windows + 120)),
                                 "--brokers", kafka.bootstrap, "--topic", topic],
                                stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        cpu, wall = cluster.cpu(), time.monotonic()
        out = run(f"{options.latency}", f"host={cluster.socket} port=5432 user=postgres dbname=postgres", query,
                  str(windows), "1000", timeout=windows + 300)
        cpu, wall = cluster.cpu() - cpu, time.monotonic() - wall
    finally:
        producer.kill()
        producer.wait()
    values = [int(line.split()[1]) / 1000 for line in out.splitlines() if line != "ready"]
    drop(cluster, stream, query)
    kafka.delete(topic)

    result = dict(kind="latency", title=variant["title"], windows=len(values), rate=variant["rate"],
                  steal_percent=noise.steal(), must=variant["must"], aim=variant["aim"],
                  p50_ms=percentile(values, 0.5), p99_ms=percentile(values, 0.99), max_ms=max(values),
                  server_cpu_percent=100 * cpu / wall, latencies_ms=values)
    result["load_average"] = os.getloadavg()[0]
    p50, p99 = result["p50_ms"], result["p99_ms"]
    judge(result, p50 <= variant["must"][0] and p99 <= variant["must"][1],
          p50 <= variant["aim"][0] and p99 <= variant["aim"][1], MIN_PAIRS)
    return result


# ---- report ----

def report(results):
    for name, r in results.items():
        print(f"\n{name}: {r['title']}")
        if r["kind"] == "throughput":
            print(f"  ratio to R     {r['ratio']['median']:.2f}   [{r['ratio']['min']:.2f} .. {r['ratio']['max']:.2f}]"
                  f"   must {r['must']}, aim {r['aim']}: {r['verdict']}")
            print(f"  CPU per event  {r['job_ns']['median']:.0f} ns   [{r['job_ns']['min']:.0f} .."
                  f" {r['job_ns']['max']:.0f}], raw consume {r['r_ns']['median']:.0f} ns"
                  f"   [{r['r_ns']['min']:.0f} .. {r['r_ns']['max']:.0f}]")
            print(f"  wall           {r['events_per_s_wall']['median']:,.0f} events/s with the broker on the same machine")
            print(f"  result rows    {r['rows']:,} ({r['rows_per_event']:.3f} per event)")
            print(f"  WAL            {r['wal_bytes_per_event']['median']:.1f} bytes per event")
            print(f"  worker memory  {r['rss_kb'] / 1024:.0f} MB resident at its peak; at the end"
                  f" {r['rss_anon_kb'] / 1024:.0f} MB private, {r['rss_shared_kb'] / 1024:.0f} MB shared")
        else:
            print(f"  latency        p50 {r['p50_ms']:.1f} ms, p99 {r['p99_ms']:.1f} ms, max {r['max_ms']:.1f} ms over"
                  f" {r['windows']} windows   must {r['must'][0]} / {r['must'][1]}, aim {r['aim'][0]} / {r['aim'][1]}:"
                  f" {r['verdict']}")
            print(f"  server CPU     {r['server_cpu_percent']:.1f} % of one core, the measuring client's session included")
        print(f"  noise          steal {r['steal_percent']:.1f} %" +
              "".join(f"; not judged: {doubt}" for doubt in r["doubts"]))


def compare(results, path, shown_as):
    """Two builds: ratios to R, each taken in its own run."""
    with open(path) as file:
        other = json.load(file)
    print(f"\ncompared with {shown_as} ({other.get('revision', 'unknown revision')})")
    for name, r in results.items():
        o = other["variants"].get(name)
        if o is None:
            print(f"  {name}: not in that file")
        elif r["kind"] == "throughput":
            change = r["ratio"]["median"] / o["ratio"]["median"] - 1
            if min(r["rounds"], o["rounds"]) < MIN_PAIRS:
                finding = f"fewer than {MIN_PAIRS} rounds, no finding"
            elif r["ratio"]["min"] > o["ratio"]["max"] or r["ratio"]["max"] < o["ratio"]["min"]:
                finding = "a difference"
            else:
                finding = "within the spread of the rounds"
            print(f"  {name}: ratio {o['ratio']['median']:.2f} -> {r['ratio']['median']:.2f} ({change:+.1%}),"
                  f" WAL {o['wal_bytes_per_event']['median']:.1f} -> {r['wal_bytes_per_event']['median']:.1f} bytes per event: {finding}")
        else:
            print(f"  {name}: p50 {o['p50_ms']:.1f} -> {r['p50_ms']:.1f} ms, p99 {o['p99_ms']:.1f} -> {r['p99_ms']:.1f} ms")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bindir", required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tools", required=True)
    parser.add_argument("--latency", required=True)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--variants", default=",".join(DEFAULT_VARIANTS))
    parser.add_argument("--rounds", type=int, default=MIN_PAIRS)
    parser.add_argument("--events", type=int, default=0)
    parser.add_argument("--windows", type=int, default=100)
    parser.add_argument("--property", action="append", default=[])
    parser.add_argument("--profile")
    parser.add_argument("--json")
    parser.add_argument("--compare")
    parser.add_argument("--compare-name")
    parser.add_argument("--revision", default="")
    parser.add_argument("--judge", action="store_true")
    options = parser.parse_args()

    cluster = Cluster(options.bindir, options.socket, options.data)
    kafka = Kafka(options.bootstrap, options.tools)
    results = {}
    try:
        set_up(cluster, kafka)
        for name in options.variants.split(","):
            variant = VARIANTS[name]
            measure = throughput if "topic" in variant else latency
            results[name] = measure(name, variant, cluster, kafka, options)
    except (Failure, subprocess.TimeoutExpired) as failure:
        say(f"bench: {failure}")
        return 1

    report(results)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(dict(revision=options.revision, machine=dict(cpus=os.cpu_count(), kernel=platform.release()),
                           time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), variants=results), file, indent=1)
            file.write("\n")
    if options.compare:
        compare(results, options.compare, options.compare_name or options.compare)
    if options.judge and any(r["verdict"] == "missed" for r in results.values()):
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
