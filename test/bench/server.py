#
# server.py
#	  The server that is measured and the broker that feeds it.
#
import json
import os
import subprocess

from machine import TICK, Failure, children, process_ticks, run, say

PARTITIONS = 4

COLUMNS = """order_id bigint, user_id bigint PATH '$.user.id', category text,
    amount numeric CHECK (amount >= 0), event_time timestamptz PATH '$.ts'"""


def literal(text):
    return "'" + text.replace("'", "''") + "'"


class Server:
    """A cluster with one build of the extension; "name" is what reports call the build."""

    def __init__(self, name, bindir, socket, data):
        self.name = name
        self.bindir = bindir
        self.socket = socket
        self.data = data

    def sql(self, text, timeout=900):
        """One call is one transaction, whatever number of statements it has."""
        return run(f"{self.bindir}/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *self.address(), "-c", text,
                   timeout=timeout).strip()

    def session(self):
        """A session that reads statements from its standard input."""
        return subprocess.Popen([f"{self.bindir}/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *self.address()],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def address(self):
        return ["-h", self.socket, "-p", "5432", "-U", "postgres", "-d", "postgres"]

    def conninfo(self):
        return f"host={self.socket} port=5432 user=postgres dbname=postgres"

    def control(self, *arguments):
        # A server that pg_ctl starts keeps its output: a file, since a pipe would never end.
        with open(f"{self.data}/pg_ctl.out", "w") as output:
            run_to(output, f"{self.bindir}/pg_ctl", "-D", self.data, "-l", f"{self.data}.log", "-w", "-t", "120",
                   *arguments)

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

    def readers(self):
        """Process ids of the workers that read topics."""
        return [int(pid) for pid in
                self.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'stream_engine reader'").split()]

    def wal(self):
        """Bytes of WAL written so far."""
        return int(float(self.sql("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")))

    def set_up(self, kafka):
        self.sql("CREATE EXTENSION IF NOT EXISTS stream_engine")
        self.sql("CREATE SERVER IF NOT EXISTS kafka FOREIGN DATA WRAPPER stream_engine_kafka"
                 f" OPTIONS (bootstrap_servers {literal(kafka.bootstrap)})")

    def create(self, stream, topic, delay, queries, staging="0"):
        """
        A stream and its queries, of which "queries" maps names to texts with %s for the stream.  All in one
        transaction: none begins before the others, as the head that stages would.
        """
        self.sql("; ".join([
            f"SELECT stream_engine.create_stream({literal(stream)}, server => 'kafka', topic => {literal(topic)},"
            f" columns => {literal(COLUMNS)}, event_time => 'event_time', watermark_delay => {literal(delay)},"
            f" staging_retention => {literal(staging)}, start => 'earliest')"] + [
            f"SELECT stream_engine.create_query({literal(name)}, {literal(text % stream)})"
            for name, text in queries.items()]))

    def wait(self, queries):
        for name in queries:
            self.sql(f"CALL stream_engine.wait({literal(name)}, '15 minutes')", timeout=1000)

    def drop(self, stream, queries):
        for name in queries:
            self.sql(f"SELECT stream_engine.drop_query({literal(name)}, keep_results => false)")
        self.sql(f"SELECT stream_engine.drop_stream({literal(stream)})")


def run_to(output, *command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    if done.returncode != 0:
        raise Failure(f"{os.path.basename(command[0])} failed: see {output.name}")


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

    def records(self, name):
        """How many a topic holds that has never lost one."""
        return sum(int(line.split()[2]) for line in
                   run(f"{self.tools}/kadmin", "offsets", self.bootstrap, name).splitlines())

    def orders(self, name, *options):
        """The command that produces orders into a topic."""
        return [f"{self.tools}/orders", "--partitions", str(PARTITIONS), "--brokers", self.bootstrap,
                "--topic", name, *options]

    def fill(self, name, shape):
        """Make the topic, unless it is there."""
        if name in self.topics():
            return
        say(f"producing {shape['events']:,} orders into {name}")
        self.create(name)
        run(*self.orders(name, "--count", str(shape["events"]), "--rate", f"{shape['rate']:.6f}",
                         "--users", str(shape["users"]), "--disorder", "2"))

    def consume(self, name, properties):
        """A raw consume of the whole topic: R is its cpu_ns_per_message."""
        options = [part for text in properties for part in ("-X", text)]
        return json.loads(run(f"{self.tools}/consume_raw", "-j", *options, self.bootstrap, name))
