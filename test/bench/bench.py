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
import re
import subprocess
import sys
import time

import measure
import report
from machine import Failure, run, say
from server import Kafka, Server
from variants import DEFAULT, JOBS, VARIANTS

PROFILE_LINES = 45


def chosen(text):
    names = text.split(",") if text else DEFAULT
    for name in names:
        if name not in VARIANTS:
            raise Failure(f"no such variant: \"{name}\"; there are {', '.join(VARIANTS)}")
    return names


def perf_report(path, keys, limit):
    text = run("perf", "report", "-i", path, "--stdio", "--no-children", "-g", "none", "--percent-limit", str(limit),
               "--sort", keys, timeout=300)
    # newer versions of perf add columns that are empty here
    return [re.sub(r"[\s-]+$", "", line) for line in text.splitlines() if line and not line.startswith("#")]


def profile(names, server, kafka, options):
    """Record jobs, and print where the worker and its threads spent their time."""
    for name in names.split(","):
        # a variant stands for its first job
        job = VARIANTS[name]["jobs"][0] if name in VARIANTS and "jobs" in VARIANTS[name] else name
        if job not in JOBS:
            raise Failure(f"no such job: \"{name}\"; there are {', '.join(JOBS)}")
        path = os.path.join(options.profile_folder, f"{job}.perf")
        result = measure.profile_job(job, server, kafka, options, path)
        print(f"\n{job}: {result['cpu_ns_per_event']:.0f} ns of CPU per event, the whole server")
        print("worker and librdkafka's threads, by library:")
        print("\n".join(perf_report(path, "comm,dso", 0.5)))
        functions = perf_report(path, "comm,dso,symbol", 0.2)
        print("by function:")
        print("\n".join(functions[:PROFILE_LINES]))
        with open(f"{path[:-5]}.txt", "w") as file:
            file.write("\n".join(functions) + "\n")


def measure_all(names, servers, kafka, options):
    found = measure.measure_jobs(names, servers, kafka, options)
    for name in names:
        if VARIANTS[name]["kind"] == "latency":
            for server in servers:
                found[server.name][name] = measure.measure_latency(name, server, kafka, options)
    # in the order that was asked for
    return {build: {name: results[name] for name in names} for build, results in found.items()}


def write_json(path, results, revision):
    with open(path, "w") as file:
        json.dump(dict(revision=revision, machine=dict(cpus=os.cpu_count(), kernel=platform.release()),
                       time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), variants=results), file, indent=1)
        file.write("\n")


def list_variants():
    for name, variant in VARIANTS.items():
        jobs = f" ({', '.join(variant['jobs'])})" if "jobs" in variant else ""
        print(f"{name:<13} {variant['title']}{jobs}")


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", nargs=4, action="append", metavar=("NAME", "BINDIR", "SOCKET", "DATA"), required=True)
    parser.add_argument("--tools", required=True)
    parser.add_argument("--latency", required=True)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--variants", default="")
    parser.add_argument("--rounds", type=int, default=report.MIN_ROUNDS)
    parser.add_argument("--events", type=int, default=0)
    parser.add_argument("--windows", type=int, default=100)
    parser.add_argument("--property", action="append", default=[])
    parser.add_argument("--profile")
    parser.add_argument("--profile-folder")
    parser.add_argument("--json")
    parser.add_argument("--compare-file")
    parser.add_argument("--compare-name")
    parser.add_argument("--revision", default="")
    parser.add_argument("--judge", action="store_true")
    return parser.parse_args()


def main():
    if sys.argv[1:] == ["--list"]:
        list_variants()
        return 0
    options = parse()
    servers = [Server(*build) for build in options.build]
    kafka = Kafka(options.bootstrap, options.tools)
    try:
        names = chosen(options.variants)
        for server in servers:
            server.set_up(kafka)
        if options.profile:
            profile(options.profile, servers[0], kafka, options)
            return 0
        found = measure_all(names, servers, kafka, options)
    except (Failure, subprocess.TimeoutExpired) as failure:
        say(f"bench: {failure}")
        return 1

    for position, server in enumerate(servers):
        if len(servers) > 1:
            print(f"\n==== {server.name} ====")
        report.report(found[server.name], titles=position == 0)
    ours = found[servers[0].name]
    if options.json:
        write_json(options.json, ours, options.revision)
    if len(servers) > 1:
        report.compare_builds(ours, found[servers[1].name], servers[0].name, servers[1].name)
    if options.compare_file:
        with open(options.compare_file) as file:
            report.compare_file(ours, json.load(file), options.compare_name or options.compare_file)
    if options.judge and any(r["verdict"] == "missed" for r in ours.values()):
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
