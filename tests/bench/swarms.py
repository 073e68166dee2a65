"""mn_swarm in a lab: the mobile nodes, and the host that they talk to."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading

import scenario as scenarios
from processes import BenchError

PROGRAM = scenarios.labs.build_folder() / "tests" / "bench" / "swarm" / "mn_swarm"


class Program:
    """A running mn_swarm in a node: lines in, events out."""

    def __init__(self, lab, node, *arguments):
        if not PROGRAM.exists():
            raise BenchError(f"{PROGRAM} is not there; run: make build")
        command = [scenarios.NETLAB, "exec", "-t", lab.lab.name, node, "--", PROGRAM, *arguments]
        self._what = f"mn_swarm at {node}"
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._events = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.wait("ready", 10)

    def _read(self):
        for line in self._process.stdout:
            self._events.put(json.loads(line))
        self._events.put({"event": "ended"})

    def tell(self, command):
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def wait(self, kind, seconds):
        """The next event of this kind; others before it are passed over."""
        while True:
            try:
                event = self._events.get(timeout=seconds)
            except queue.Empty:
                raise BenchError(f"{self._what}: no {kind} within {seconds} s") from None
            if event["event"] == kind:
                return event
            if event["event"] in ("refused", "ended"):
                raise BenchError(f"{self._what}: {event}; {self._process.stderr.read() if event['event'] == 'ended' else ''}")

    def ask(self, command, kind, seconds=30):
        self.tell(command)
        return self.wait(kind, seconds)

    def close(self):
        with contextlib.suppress(ProcessLookupError, BrokenPipeError):
            self._process.send_signal(signal.SIGTERM)
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
