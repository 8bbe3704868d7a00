# database.py
#	SQL through psql: one workload's database.
#
# NOTES
#	The socket's folder is in PGHOST, psql in the PATH.  While servers are killed,
#	what is asked is asked again until the server answers: all statements given to
#	sql() with patient=True may therefore run twice.
#
import json
import subprocess
import threading
from decimal import Decimal

LOST = ("server closed the connection", "connection to server", "terminating connection", "starting up", "shutting down",
        "recovery mode", "not yet accepting", "connection to server was lost", "crash of another server process",
        "being accessed by other users")


class Failure(Exception):
    pass


class Database:
    def __init__(self, name, patient):
        self.name, self.patient = name, patient
        self.nap = threading.Event()

    def sql(self, text, database=None, patient=None):
        """Runs a script and returns its output; errors raise Failure."""
        patient = self.patient if patient is None else patient
        for attempt in range(600):
            run = subprocess.run(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database or self.name],
                                 input=text.encode(), capture_output=True, timeout=300)
            if run.returncode == 0:
                return run.stdout.decode()
            message = run.stderr.decode()
            if not (patient and any(m in message for m in LOST)):
                raise Failure(message + text[:2000])
            self.nap.wait(0.05)
        raise Failure("the server does not come back: " + message)

    def rows(self, text):
        """The lines of a script's output, each JSON."""
        return [json.loads(line, parse_float=Decimal) for line in self.sql(text).splitlines() if line]

    def until(self, query, seconds=60):
        """Asks again until the answer is true."""
        for _ in range(seconds * 20):
            if self.sql(query).strip() == "t":
                return
            self.nap.wait(0.05)
        raise Failure("waited in vain for: " + query)
