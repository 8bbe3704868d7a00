#!/usr/bin/env python3
#
# tcp_proxy.py
#	A TCP proxy whose network can be broken on command: what a cut cable, a
#	firewall or a congested line does between a server and its broker.
#
# usage: tcp_proxy.py [HOST:PORT]
#
#	Commands on stdin, one a line, each answered by "ok ..." or "error: ..."
#	when it has taken effect; the first line of output is "bootstrap=HOST:PORT",
#	where the proxy listens.  End of input ends it.
#
#	  to HOST:PORT   where connections go from now on
#	  cut            close all connections, refuse new ones
#	  stall          forward nothing more, close nothing: a black hole
#	  half           forward to the target only: answers get lost
#	  drop           reset all connections once, go on
#	  slow N         at most N bytes a second each way, over all connections
#	  on             as at the beginning; what was held up is delivered
#	  stat           connections open, bytes forwarded to and from the target
#
# NOTES
#	One thread, non-blocking sockets.  A connection is two flows; a flow reads
#	when it has nothing to write and may forward.  While it may not, the kernel's
#	buffers fill up, as they do when packets vanish.
#
import errno
import select
import socket
import struct
import sys
import time

CHUNK = 65536


class Flow:
    """Bytes from one socket to another."""

    def __init__(self, source, sink, answers):
        self.source, self.sink, self.answers = source, sink, answers
        self.held = b""


class Proxy:
    def __init__(self, target):
        self.target = target
        self.mode = "on"
        self.rate = 0
        self.allowance = 0.0
        self.counted = time.monotonic()
        self.flows = []
        self.bytes = [0, 0]
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.listener.setblocking(False)

    def accept(self):
        client, _ = self.listener.accept()
        if self.mode == "cut" or self.target is None:
            self.reset(client)
            return
        try:
            server = socket.create_connection(self.target, timeout=5)
        except OSError:
            self.reset(client)
            return
        for one in client, server:
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.flows += [Flow(client, server, False), Flow(server, client, True)]

    @staticmethod
    def reset(one):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()

    def close(self, flow):
        for one in flow.source, flow.sink:
            self.reset(one)
        self.flows = [f for f in self.flows if f.source.fileno() >= 0 and f.sink.fileno() >= 0]

    def close_all(self):
        while self.flows:
            self.close(self.flows[0])

    def may_forward(self, flow):
        if self.mode == "stall" or (self.mode == "half" and flow.answers):
            return False
        return self.rate == 0 or self.allowance >= 1

    def limit(self):
        if self.rate == 0:
            return CHUNK
        return max(1, min(CHUNK, int(self.allowance)))

    def move(self, flow):
        """Forwards what there is; closes the connection when one side has."""
        try:
            if not flow.held:
                flow.held = flow.source.recv(self.limit())
                if not flow.held:
                    self.close(flow)
                    return
            sent = flow.sink.send(flow.held[:self.limit()])
            flow.held = flow.held[sent:]
            self.bytes[flow.answers] += sent
            if self.rate:
                self.allowance -= sent
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.EINTR:
                self.close(flow)

    def command(self, line):
        words = line.split()
        if not words:
            return "error: no command"
        name = words[0]
        if name == "to" and len(words) == 2:
            host, port = words[1].rsplit(":", 1)
            self.target = (host, int(port))
        elif name in ("cut", "stall", "half", "on"):
            self.mode, self.rate = name, 0
            if name == "cut":
                self.close_all()
        elif name == "drop":
            self.close_all()
        elif name == "slow" and len(words) == 2:
            self.mode, self.rate = "on", int(words[1])
        elif name == "stat":
            return "ok %d %d %d" % (len(self.flows) // 2, self.bytes[0], self.bytes[1])
        else:
            return "error: unknown command"
        return "ok"

    def run(self):
        print("bootstrap=127.0.0.1:%d" % self.listener.getsockname()[1], flush=True)
        commands = b""
        while True:
            now = time.monotonic()
            self.allowance = min(self.allowance + (now - self.counted) * self.rate, max(self.rate / 10, 1))
            self.counted = now
            reading = {self.listener: None, sys.stdin: None}
            writing = {}
            for flow in self.flows:
                if not self.may_forward(flow):
                    continue
                if flow.held:
                    writing[flow.sink] = flow
                else:
                    reading[flow.source] = flow
            ready, ready_to_write, _ = select.select(list(reading), list(writing), [], 0.02 if self.rate else None)
            for one in ready_to_write:
                if one.fileno() >= 0:
                    self.move(writing[one])
            for one in ready:
                if one is self.listener:
                    self.accept()
                elif one is sys.stdin:
                    data = sys.stdin.buffer.raw.read(4096)
                    if not data:
                        return
                    commands += data
                    while b"\n" in commands:
                        line, commands = commands.split(b"\n", 1)
                        if line.strip() == b"quit":
                            return
                        print(self.command(line.decode()), flush=True)
                elif one.fileno() >= 0:
                    self.move(reading[one])


if __name__ == "__main__":
    goal = None
    if len(sys.argv) > 2 or (len(sys.argv) == 2 and ":" not in sys.argv[1]):
        sys.exit("usage: tcp_proxy.py [HOST:PORT]")
    if len(sys.argv) == 2:
        goal = (sys.argv[1].rsplit(":", 1)[0], int(sys.argv[1].rsplit(":", 1)[1]))
    Proxy(goal).run()
