#
# measure.py
#	  Running jobs and latency clients; from their rounds to the variants' values.
#
import os
import re
import signal
import statistics
import subprocess
import threading
import time

from machine import Failure, Noise, memory, page_faults, percentile, process_ticks, run, say, summary, TICK
from server import literal
from variants import AGGREGATES, JOBS, VARIANTS, topic_shape

RECORD_WAIT_S = 60

# Latencies are measured when records have been read for so long.
WARM_UP_S = 5

# The maximal rate is that over so many seconds, with a producer that is asked for more.
MAXIMUM_S = 15
UNBOUNDED_RATE = 10_000_000


# ---- one job ----

def query_names(number, job):
    return [f"bench_query_{number}_{i}" for i in range(job.get("copies", 1))]


def start_perf(server, path):
    """perf record on the readers, as soon as there is one."""
    until = time.monotonic() + 10
    pids = []
    while not pids:
        if time.monotonic() > until:
            raise Failure("no reader has started")
        pids = server.readers()
    return subprocess.Popen(["perf", "record", "-q", "-g", "-F", "999", "-o", path, "-p", ",".join(map(str, pids))],
                            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class StateSampler:
    """
    Bytes of shared memory that hold state, every few milliseconds until it is
    stopped: pages of runs, those that a commit has taken and not linked yet, and
    their share of the directory.
    """
    INTERVAL_S = 0.005
    TEXT = (b"SELECT (total - free) / total::float8 * pg_size_bytes(current_setting('stream_engine.state_memory'))"
            b" FROM stream_engine.state_memory();\n")

    def __init__(self, server):
        self.samples = []
        self.stopped = threading.Event()
        self.psql = server.session()
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()

    def sample(self):
        while not self.stopped.wait(self.INTERVAL_S):
            self.psql.stdin.write(self.TEXT)
            self.psql.stdin.flush()
            line = self.psql.stdout.readline()
            if not line:
                break
            self.samples.append(float(line))

    def stop(self):
        self.stopped.set()
        self.thread.join()
        self.psql.stdin.close()
        self.psql.wait()
        if not self.samples:
            raise Failure("the state's memory could not be read")
        # The first half is left out of the median: groups are still coming.
        usual = statistics.median(self.samples[len(self.samples) // 2:])
        return dict(state_peak_mb=max(self.samples) / 1048576, state_median_mb=usual / 1048576)


def run_job(server, kafka, name, number, options, profile=None):
    """Run a job once over its whole topic; what it cost, as a dictionary."""
    job = JOBS[name]
    shape = topic_shape(job["topic"], options.events)
    stream = f"bench_stream_{number}"
    queries = query_names(number, job)
    server.sql("CHECKPOINT")
    cpu, wal, wall = server.cpu(), server.wal(), time.monotonic()
    sampler = StateSampler(server) if job.get("samples_state") else None
    try:
        server.create(stream, job["topic"], "5 seconds", {query: job["query"] for query in queries},
                      job.get("staging", "0"))
        recorder = start_perf(server, profile) if profile else None
        server.wait(queries)
    finally:
        sampled = sampler.stop() if sampler else {}
    wall = time.monotonic() - wall
    cpu = server.cpu() - cpu
    if recorder:
        if recorder.poll() is not None:
            say("perf recorded nothing: is kernel.perf_event_paranoid above 2?")
        else:
            recorder.send_signal(signal.SIGINT)
            recorder.wait()
    wal = server.wal() - wal
    pids = server.readers()
    readers = [memory(pid) for pid in pids]
    peak, private, shared = (sum(column) for column in zip(*readers)) if readers else (0, 0, 0)
    rows = sum(int(server.sql(f"SELECT count(*) FROM {query}")) for query in queries)
    result = dict(cpu_ns_per_event=cpu * 1e9 / shape["events"], wall_s=wall, events=shape["events"], rows=rows,
                  wal_bytes=wal, wal_bytes_per_event=wal / shape["events"], rss_mb=peak / 1024,
                  private_mb=private / 1024, shared_mb=shared / 1024, page_faults=sum(map(page_faults, pids)), **sampled)

    # Not a part of the cost, but a wrong answer is no measurement.
    factor = job.get("factor", 1)
    for query in queries if factor else []:
        counted = int(server.sql(f"SELECT coalesce(sum(orders), 0) FROM {query}_live"))
        if counted != shape["events"] * factor:
            raise Failure(f"job {name} counted {counted} orders instead of {shape['events'] * factor}")
    for after in job.get("after", []):
        result.update(AFTER[after](server, kafka, job, shape, stream, queries[0]))
    server.drop(stream, queries)
    return result


# ---- what is measured at the end of a job ----

def after_copy(server, kafka, job, shape, stream, query):
    """CPU of a COPY of the query's result rows, in their order, into an equal table."""
    file = f"{server.data}/bench_rows"
    rows = int(server.sql(f"SELECT count(*) FROM {query}"))
    server.sql(f"CREATE TABLE bench_copy (LIKE {query} INCLUDING ALL); COPY {query} TO {literal(file)} (FORMAT binary)")
    server.sql("CHECKPOINT")
    cpu = server.cpu()
    server.sql(f"COPY bench_copy FROM {literal(file)} (FORMAT binary)")
    cpu = server.cpu() - cpu
    server.sql("DROP TABLE bench_copy")
    os.unlink(file)
    return dict(copy_ns_per_row=cpu * 1e9 / max(rows, 1))


def after_live(server, kafka, job, shape, stream, query):
    """Milliseconds inside the server of a SELECT of all that is open; the median of five."""
    text = f"EXPLAIN (ANALYZE, TIMING OFF, SUMMARY ON) SELECT * FROM {query}_live"
    times = []
    for _ in range(5):
        plan = server.sql(text)
        times.append(float(re.search(r"Execution Time: ([0-9.]+) ms", plan).group(1)))
    groups = int(server.sql(f"SELECT count(*) FROM {query}_live"))
    return dict(live_ms=statistics.median(times), open_groups=groups)


def after_restart(server, kafka, job, shape, stream, query):
    """
    Seconds from the command to start the server until a worker has consumed a
    record that came meanwhile.
    """
    result = dict(open_groups=int(server.sql(f"SELECT count(*) FROM {query}_live")))
    server.control("stop", "-m", "fast")
    run(*kafka.orders(job["topic"], "--count", "100", "--first", str(shape["events"]), "--rate", "1000",
                      "--users", str(shape["users"]), "--start", "2025-01-01T00:00:10Z"))
    start = time.monotonic()
    server.control("start")
    ready = time.monotonic()
    while int(server.sql("SELECT coalesce(max(records), 0) FROM stream_engine.stat_workers")) == 0:
        if time.monotonic() - start > RECORD_WAIT_S:
            raise Failure("no record was consumed after the restart")
    result.update(restart_s=time.monotonic() - start, start_s=ready - start)
    server.wait([query])
    result["committed_s"] = time.monotonic() - start
    counted = int(server.sql(f"SELECT coalesce(sum(orders), 0) FROM {query}_live"))
    if counted != shape["events"] + 100:
        raise Failure(f"after the restart {counted} orders were counted instead of {shape['events'] + 100}")
    # The topic is as it was for nobody any more.
    kafka.delete(job["topic"])
    return result


AFTER = dict(copy=after_copy, live=after_live, restart=after_restart)


# ---- rounds ----

def measure_topic(topic, jobs, rounds, servers, kafka, options):
    """
    Rounds of R, job, R, job, ..., R over a topic, each job on each build.
    Returns the R's, and by build and job the list of results, each with "ratio",
    its CPU to the mean of the R before and the R after it.
    """
    shape = topic_shape(topic, options.events)
    results = {server.name: {job: [] for job in jobs} for server in servers}
    raw = []
    number = 0

    def consume():
        kafka.fill(topic, shape)
        raw.append(kafka.consume(topic, options.property))
        if raw[-1]["messages"] != shape["events"]:
            raise Failure(f"topic {topic} holds {raw[-1]['messages']} of {shape['events']} records")

    consume()
    for turn in range(rounds):
        for job in jobs:
            # The builds take turns in being the first.
            for server in servers if turn % 2 == 0 else reversed(servers):
                kafka.fill(topic, shape)
                result = run_job(server, kafka, job, number, options)
                number += 1
                consume()
                result["r_ns"] = (raw[-2]["cpu_ns_per_message"] + raw[-1]["cpu_ns_per_message"]) / 2
                result["ratio"] = result["cpu_ns_per_event"] / result["r_ns"]
                results[server.name][job].append(result)
                say(f"{topic}: round {turn + 1} of {rounds}: {job}"
                    f"{' on ' + server.name if len(servers) > 1 else ''}: R {result['r_ns']:.0f} ns,"
                    f" job {result['cpu_ns_per_event']:.0f} ns, ratio {result['ratio']:.2f}")
    return [r["cpu_ns_per_message"] for r in raw], results


def kind_ratio(variant, job):
    return [result["ratio"] for result in job]


def kind_twin(variant, job, twin):
    return [a["cpu_ns_per_event"] / b["cpu_ns_per_event"] for a, b in zip(job, twin)]


def kind_further(variant, many, one):
    copies = JOBS[variant["jobs"][0]]["copies"]
    return [(a["ratio"] - b["ratio"]) / (copies - 1) for a, b in zip(many, one)]


def kind_rows(variant, job, no_rows):
    """CPU of the job beyond that of a job that finds the same rows and emits none."""
    return [(a["cpu_ns_per_event"] - b["cpu_ns_per_event"]) * a["events"] / max(a["rows"], 1) / a["copy_ns_per_row"]
            for a, b in zip(job, no_rows)]


def kind_field(variant, job):
    return [result[variant["field"]] for result in job]


def kind_group_memory(variant, job):
    return [result[variant["field"]] * 1048576 / result["open_groups"] for result in job]


KINDS = dict(ratio=kind_ratio, twin=kind_twin, further=kind_further, rows=kind_rows, field=kind_field,
             group_memory=kind_group_memory)


def measure_jobs(names, servers, kafka, options):
    """All variants that are made of jobs: by build, their results."""
    topics = {}
    for name in names:
        variant = VARIANTS[name]
        for job in variant.get("jobs", []):
            # A topic is measured in as many rounds as the most demanding variant over it wants.
            entry = topics.setdefault(JOBS[job]["topic"], dict(jobs=[], rounds=0))
            if job not in entry["jobs"]:
                entry["jobs"].append(job)
            entry["rounds"] = max(entry["rounds"], min(options.rounds, variant.get("rounds", options.rounds)))
    runs = {server.name: {} for server in servers}
    found = {server.name: {} for server in servers}
    r_ns = {}
    noise = {}
    for topic, entry in topics.items():
        noise[topic] = Noise()
        r_ns[topic], results = measure_topic(topic, entry["jobs"], entry["rounds"], servers, kafka, options)
        noise[topic] = noise[topic].steal()
        for server in servers:
            runs[server.name].update(results[server.name])
    for name in names:
        variant = VARIANTS[name]
        if variant["kind"] == "latency":
            continue
        topic = JOBS[variant["jobs"][0]]["topic"]
        for server in servers:
            jobs = [runs[server.name][job] for job in variant["jobs"]]
            found[server.name][name] = dict(
                kind=variant["kind"], title=variant["title"], unit=variant["unit"], must=variant["must"],
                aim=variant["aim"], rounds=len(jobs[0]), rounds_wanted=variant.get("rounds"),
                steal_percent=noise[topic], r_ns=summary(r_ns[topic]), values=KINDS[variant["kind"]](variant, *jobs),
                jobs=dict(zip(variant["jobs"], jobs)))
            found[server.name][name]["value"] = summary(found[server.name][name]["values"])
    return found


def profile_job(name, server, kafka, options, path):
    """One run of a job under perf record."""
    kafka.fill(JOBS[name]["topic"], topic_shape(JOBS[name]["topic"], options.events))
    return run_job(server, kafka, name, 0, options, profile=path)


# ---- latency ----

class LatencyStream:
    """
    A stream and a query over a topic of its own that is being written, and the client
    that waits for the windows.  "linger" is how many milliseconds the producer collects
    records for a request.  It is not an idempotent one: librdkafka's thread of such a
    producer takes a processor of its own as long as five requests wait for the broker.
    """

    def __init__(self, name, server, kafka, linger, beside=None):
        self.server, self.kafka, self.linger = server, kafka, linger
        self.topic = f"bench_{name}"
        self.stream, self.query = f"{self.topic}_stream", f"{self.topic}_query"
        if self.topic in kafka.topics():
            kafka.delete(self.topic)
        kafka.create(self.topic)
        queries = {self.query: f"SELECT category, {AGGREGATES} FROM %s GROUP BY tumble(event_time, '1 second'), category"}
        if beside:
            queries[f"{self.topic}_beside"] = beside
        server.create(self.stream, self.topic, "0 seconds", queries)
        self.queries = list(queries)

    def produce(self, rate, seconds, users=100_000):
        """Start a producer; return when its records have been read for some seconds."""
        producer = subprocess.Popen(
            self.kafka.orders(self.topic, "--partition-by", "round", "--pace", str(rate), "--count",
                              str(rate * (seconds + RECORD_WAIT_S)), "--users", str(users),
                              "-X", f"linger.ms={self.linger}", "-X", "enable.idempotence=false"),
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + RECORD_WAIT_S
        try:
            while self.read() == 0:
                if time.monotonic() > until:
                    raise Failure("no record was consumed")
        except BaseException:
            end(producer)
            raise
        time.sleep(WARM_UP_S)
        return producer

    def read(self):
        """How many records the stream's reader has read."""
        return int(self.server.sql("SELECT coalesce(max(records), 0) FROM stream_engine.stat_workers"))

    def client(self, program, windows):
        """The command that measures so many windows."""
        return [program, self.server.conninfo(), self.query, str(windows), "1000", self.kafka.bootstrap, self.topic]

    def drop(self):
        self.server.drop(self.stream, self.queries)
        self.kafka.delete(self.topic)


def end(process):
    process.kill()
    process.wait()


def maximal_rate(server, kafka, program, linger):
    """
    Records a second that producer, broker, job and the client that measures sustain
    together on the same machine, the producer as fast as it can be: the lesser of what is
    produced and what is read over some seconds.  So neither a backlog that is read off
    nor one that grows counts.
    """
    stream = LatencyStream("maximum", server, kafka, linger)
    producer = stream.produce(UNBOUNDED_RATE, MAXIMUM_S)
    client = subprocess.Popen(stream.client(program, 1_000_000), stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(WARM_UP_S)
        start, produced, read = time.monotonic(), kafka.records(stream.topic), stream.read()
        time.sleep(MAXIMUM_S)
        produced, read = kafka.records(stream.topic) - produced, stream.read() - read
        rate = min(produced, read) / (time.monotonic() - start)
    finally:
        end(client)
        end(producer)
    stream.drop()
    return rate


def middle_and_tail(values):
    return (percentile(values, 0.5), percentile(values, 0.99)) if values else None


def measure_latency(name, server, kafka, options):
    variant = VARIANTS[name]
    windows = options.windows
    rate = variant["rate"] or int(maximal_rate(server, kafka, options.latency, variant["linger"]) / 2)
    stream = LatencyStream(name, server, kafka, variant["linger"], variant.get("beside"))
    producer = stream.produce(rate, windows + WARM_UP_S, variant.get("users", 100_000))
    noise = Noise()
    try:
        cpu, wall, produced = server.cpu(), time.monotonic(), sum(process_ticks(producer.pid)[:2])
        out = run(*stream.client(options.latency, windows), timeout=windows + 300)
        cpu, wall = server.cpu() - cpu, time.monotonic() - wall
        produced = (sum(process_ticks(producer.pid)[:2]) - produced) / TICK / wall
    finally:
        end(producer)
    rows = [[int(field) / 1000 for field in line.split()[1:]] for line in out.splitlines() if line != "ready"]
    values = [latency for latency, _, _ in rows]
    arrivals = [arrival for _, arrival, _ in rows if arrival >= 0]
    commits = [commit for _, _, commit in rows if commit >= 0]
    rest = [latency - arrival for latency, arrival, _ in rows if arrival >= 0]
    steal, busy = noise.steal(), noise.busy()
    stream.drop()
    return dict(kind="latency", title=variant["title"], unit="ms", windows=len(values), rate=rate,
                steal_percent=steal, busy_percent=busy, must=variant["must"], aim=variant["aim"],
                p50_ms=percentile(values, 0.5), p99_ms=percentile(values, 0.99), max_ms=max(values),
                arrival_ms=middle_and_tail(arrivals), rest_ms=middle_and_tail(rest),
                commit_ms=middle_and_tail(commits),
                server_cpu_percent=100 * cpu / wall, producer_cpu_percent=100 * produced,
                latencies_ms=values)
