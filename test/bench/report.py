#
# report.py
#	  Verdicts, and what is printed.
#
import statistics

from machine import summary

MIN_ROUNDS = 7
MIN_WINDOWS = 50
MAX_STEAL = 35.0
MAX_R_SPREAD = 1.6
# percent of the processors' time, while latencies are measured
MAX_BUSY = 80
# of a bound on p99, what is not the engine's doing
MAX_NOISE = 0.5

CPU_KINDS = ("ratio", "twin", "further", "rows")


def within(values, bounds):
    return all(bound is None or value <= bound for value, bound in zip(values, bounds))


def doubts_of(result):
    """Why no verdict can be given."""
    doubts = []
    if result["steal_percent"] > MAX_STEAL:
        doubts.append(f"{result['steal_percent']:.0f} % of the CPU time was stolen")
    if result["kind"] == "latency":
        if result["windows"] < MIN_WINDOWS:
            doubts.append(f"fewer than {MIN_WINDOWS} windows")
        # What the machine does can only make it slower: what is in time all the same is.
        if within((result["p50_ms"], result["p99_ms"]), result["must"]):
            return doubts
        if result["busy_percent"] > MAX_BUSY:
            doubts.append(f"the processors were busy for {result['busy_percent']:.0f} % of the time")
        for key, what in (("arrival_ms", "a plain consumer had to wait for the records"),
                          ("commit_ms", "an empty transaction took")):
            if result[key] and result[key][1] > MAX_NOISE * result["must"][1]:
                doubts.append(f"{what} {result[key][1]:.0f} ms (p99)")
        return doubts
    if result["rounds"] < (result["rounds_wanted"] or MIN_ROUNDS):
        doubts.append(f"fewer than {MIN_ROUNDS} rounds")
    spread = result["r_ns"]
    if result["kind"] in CPU_KINDS and spread["max"] > MAX_R_SPREAD * spread["min"]:
        doubts.append(f"R itself varied from {spread['min']:.0f} to {spread['max']:.0f} ns")
    return doubts


def judge(result):
    """Add "doubts" and "verdict": aim, must, missed or not judged."""
    result["doubts"] = doubts_of(result)
    if result["kind"] == "latency":
        values, must, aim = (result["p50_ms"], result["p99_ms"]), result["must"], result["aim"]
    else:
        values, must, aim = (result["value"]["median"],), (result["must"],), (result["aim"],)
    reaches_aim = within(values, aim) and any(bound is not None for bound in aim)
    if result["doubts"]:
        result["verdict"] = "not judged"
    else:
        result["verdict"] = "aim" if reaches_aim else "must" if within(values, must) else "missed"


def number(value, unit):
    if unit in ("R", "x", "s"):
        text = f"{value:.2f}"
    elif unit == "ms":
        text = f"{value:.1f}"
    else:
        text = f"{value:.1f}" if value < 10 else f"{value:.0f}"
    return text if unit == "x" else f"{text} {unit}"


def bound(value, unit):
    if isinstance(value, tuple):
        return " / ".join("-" if part is None else f"{part:g}" for part in value) + f" {unit}"
    return "-" if value is None else f"{value:g}" if unit == "x" else f"{value:g} {unit}"


def shown(result):
    if result["kind"] == "latency":
        return f"{result['p50_ms']:.1f} / {result['p99_ms']:.1f} ms"
    return number(result["value"]["median"], result["unit"])


def spread(result):
    if result["kind"] == "latency":
        return f"max {result['max_ms']:.1f}"
    value = result["value"]
    if result["rounds"] == 1:
        return ""
    return f"{number(value['min'], 'x')} .. {number(value['max'], 'x')}"


def print_table(results):
    print(f"\n{'variant':<13} {'median':>14} {'min .. max':>14} {'must':>12} {'aim':>12}  verdict")
    for name, r in results.items():
        print(f"{name:<13} {shown(r):>14} {spread(r):>14} {bound(r['must'], r['unit']):>12}"
              f" {bound(r['aim'], r['unit']):>12}  {r['verdict']}")


def print_details(results):
    jobs = {}
    for r in results.values():
        jobs.update({job: (r, runs) for job, runs in r.get("jobs", {}).items()})
    if jobs:
        print("\njob                 CPU ns/event     R ns      wall ev/s   rows/event  WAL B/event  peak MB  private  shared")
    for job, (r, runs) in jobs.items():
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0] if key != "values"}
        print(f"{job:<18} {middle['cpu_ns_per_event']:>13.0f} {middle['r_ns']:>8.0f}"
              f" {middle['events'] / middle['wall_s']:>14,.0f} {middle['rows'] / middle['events']:>12.4f}"
              f" {middle['wal_bytes_per_event']:>12.1f} {middle['rss_mb']:>8.0f} {middle['private_mb']:>8.0f}"
              f" {middle['shared_mb']:>7.0f}")
        extra = [f"{label} {middle[key]:.{digits}f}" for key, label, digits in (
            ("copy_ns_per_row", "COPY of the same rows, ns a row:", 0), ("live_ms", "SELECT of _live, ms:", 1),
            ("open_groups", "open groups:", 0), ("state_median_mb", "state in shared memory, MB:", 1),
            ("state_peak_mb", "at most:", 1),
            ("restart_s", "first record after, s:", 2), ("start_s", "server started after, s:", 2),
            ("committed_s", "all committed after, s:", 2)) if key in middle]
        if extra:
            print("    " + ", ".join(extra))
    for name, r in results.items():
        if r["kind"] == "latency":
            print(f"{name}: {r['windows']} windows at {r['rate']:,} events/s; the server took {r['server_cpu_percent']:.0f} % of"
                  f" a core, the producer {r['producer_cpu_percent']:.0f} %; all together {r['busy_percent']:.0f} % of all cores")
            print("    p50 / p99: " + ", ".join(
                f"{what} {r[key][0]:.1f} / {r[key][1]:.1f} ms" for key, what in (
                    ("arrival_ms", "records at a plain consumer after"), ("rest_ms", "visible after that"),
                    ("commit_ms", "an empty transaction")) if r[key]))


def print_doubts(results):
    reasons = {}
    for name, r in results.items():
        for doubt in r["doubts"]:
            reasons.setdefault(doubt, []).append(name)
    for doubt, names in reasons.items():
        print(f"not judged: {', '.join(names)}: {doubt}")


def report(results, titles=True):
    for r in results.values():
        judge(r)
    if titles:
        print()
        for name, r in results.items():
            print(f"{name:<13} {r['title']}")
    print_table(results)
    print_details(results)
    print_doubts(results)


def change_text(change):
    return f"{change['median'] - 1:+.1%} [{change['min'] - 1:+.1%} .. {change['max'] - 1:+.1%}]"


def compare_builds(ours, theirs, our_name, their_name):
    """Two builds in the same rounds: each round is a pair."""
    print(f"\n{their_name} -> {our_name}, CPU and values of the same round against each other")
    for name, r in ours.items():
        o = theirs[name]
        if r["kind"] == "latency":
            print(f"  {name}: p50 / p99 {shown(o)} -> {shown(r)}")
            continue
        pairs = [a / b for a, b in zip(r["values"], o["values"]) if b > 0]
        if not pairs:
            continue
        change = summary(pairs)
        if r["rounds"] < MIN_ROUNDS and not r["rounds_wanted"]:
            finding = f"fewer than {MIN_ROUNDS} rounds, no finding"
        elif change["max"] < 1 or change["min"] > 1:
            finding = "a difference: all rounds agree"
        else:
            finding = "no difference: rounds contradict each other"
        print(f"  {name}: {shown(o)} -> {shown(r)}, {change_text(change)}: {finding}")


def compare_file(results, other, shown_as):
    """With the results of an earlier run: ratios, each to the R of its own run."""
    print(f"\ncompared with {shown_as} ({other.get('revision', 'unknown revision')})")
    for name, r in results.items():
        o = other["variants"].get(name)
        if o is None:
            print(f"  {name}: not in that file")
        elif r["kind"] == "latency":
            print(f"  {name}: p50 / p99 {shown(o)} -> {shown(r)}")
        else:
            change = r["value"]["median"] / o["value"]["median"] - 1 if o["value"]["median"] > 0 else 0
            if min(r["rounds"], o["rounds"]) < MIN_ROUNDS and not r["rounds_wanted"]:
                finding = f"fewer than {MIN_ROUNDS} rounds, no finding"
            elif r["value"]["min"] > o["value"]["max"] or r["value"]["max"] < o["value"]["min"]:
                finding = "a difference"
            else:
                finding = "within the spread of the rounds"
            print(f"  {name}: {shown(o)} -> {shown(r)} ({change:+.1%}): {finding}")
