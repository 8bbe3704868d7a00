#
# machine.py
#	  What /proc says of processes and of the machine; running commands.
#
import os
import statistics
import subprocess
import sys

TICK = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """A measurement that cannot go on; its text is for the user."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(*command, timeout=900):
    """The output of a command; Failure if it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise Failure(f"{os.path.basename(command[0])}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def process_ticks(pid):
    """utime, stime, cutime, cstime of a process, all its threads; zeros if it is gone."""
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
    """Kilobytes: peak resident, private, shared; zeros if the process is gone."""
    values = {}
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                name, _, rest = line.partition(":")
                if name in ("VmHWM", "RssAnon", "RssShmem"):
                    values[name] = int(rest.split()[0])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return values.get("VmHWM", 0), values.get("RssAnon", 0), values.get("RssShmem", 0)


def page_faults(pid):
    """Of a process so far, without those that read a file; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rsplit(")", 1)[1].split()[7])
    except (FileNotFoundError, ProcessLookupError):
        return 0


class Noise:
    """CPU time since this was made: what the hypervisor gave to others, and all that was not idle."""

    def __init__(self):
        self.start = self.read()

    @staticmethod
    def read():
        with open("/proc/stat") as file:
            return [int(field) for field in file.readline().split()[1:9]]

    def percent(self, wanted):
        delta = [after - before for before, after in zip(self.start, self.read())]
        total = sum(delta)
        return 100.0 * wanted(delta) / total if total else 0.0

    def steal(self):
        return self.percent(lambda delta: delta[7])

    def busy(self):
        """Neither idle nor waiting for a disk."""
        return self.percent(lambda delta: sum(delta) - delta[3] - delta[4])


def summary(values):
    return dict(min=min(values), median=statistics.median(values), max=max(values))


def percentile(values, share):
    """The smallest value that at least this share of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1)]
