"""Programs that a part starts and ends, and what they use."""

import bisect
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

import machine
from scenario import wait_until


class BenchError(Exception):
    """What went wrong, and where it can be read."""


def free_port():
    """A TCP port of the loopback that nobody uses now."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return probe.getsockname()[1]


def answers(port):
    """Whether something listens on the loopback's port."""
    with socket.socket(socket.AF_INET6) as client:
        return client.connect_ex(("::1", port)) == 0


def _cpu_seconds_in(stat):
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / machine.TICKS


def cpu_seconds(pid):
    """User and system time that the process has used."""
    return _cpu_seconds_in(pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8"))


def _status(pid, name):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


def resident_mib(pid):
    return _status(pid, "VmRSS") / 1024


def switches(pid):
    """How often its threads were given the CPU anew: each wake-up is one."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += _status(f"{pid}/task/{task.name}", "voluntary_ctxt_switches")
    return total


class CpuSamples:
    """What processes, their main threads and the whole machine have used of the CPUs, read at short intervals for as long as it is open; between two
    readings it is taken as even."""

    def __init__(self, pids, interval=0.1):
        """`pids`: any key -> process id."""
        self._interval = interval
        self._files = {}
        for key, pid in pids.items():
            for what, path in (("all", f"/proc/{pid}/stat"), ("main thread", f"/proc/{pid}/task/{pid}/stat")):
                self._files[what, key] = os.open(path, os.O_RDONLY)
        self._at, self._readings = [], []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._read()
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._ended.set()
        self._thread.join()
        self._read()
        for file in self._files.values():
            os.close(file)

    def _run(self):
        while not self._ended.wait(self._interval):
            self._read()

    def _read(self):
        reading = {("machine", kind): seconds for kind, seconds in machine.cpu_times().items()}
        for key, file in self._files.items():
            try:
                reading[key] = _cpu_seconds_in(os.pread(file, 1024, 0).decode())
            except ProcessLookupError:
                reading[key] = self._readings[-1][key] if self._readings else 0
        self._at.append(time.monotonic_ns())
        self._readings.append(reading)

    def used(self, begin_ns, end_ns):
        """("all" or "main thread", key), ("machine", "busy", "idle", "iowait" or "steal") -> seconds between the two times on the monotonic clock."""
        begin, end = self._by(begin_ns), self._by(end_ns)
        return {key: end[key] - begin[key] for key in end}

    def _by(self, at_ns):
        after = min(max(1, bisect.bisect_left(self._at, at_ns)), len(self._at) - 1)
        (begin, first), (end, last) = ((self._at[i], self._readings[i]) for i in (after - 1, after))
        share = min(max(0, (at_ns - begin) / (end - begin)), 1)
        return {key: first[key] + share * (last[key] - first[key]) for key in last}


@contextlib.contextmanager
def running(command, log, ready=None, what=None, seconds=60, **options):
    """The process, once it is ready; ended with SIGTERM whatever happens, then with SIGKILL."""
    with open(log, "ab") as output:
        process = subprocess.Popen(list(map(str, command)), stdout=output, stderr=output, stdin=subprocess.DEVNULL, **options)
    try:
        if ready:
            wait_until(what or f"{command[0]} is ready (log: {log})", lambda: _alive(process, log) and ready(), seconds, 0.005)
        yield process
    finally:
        stop(process)


def _alive(process, log):
    if process.poll() is not None:
        last = pathlib.Path(log).read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        raise BenchError(f"{process.args[0]} ended with status {process.returncode}: {' / '.join(last)}")
    return True


def stop(process, number=signal.SIGTERM, seconds=30):
    if process.poll() is None:
        process.send_signal(number)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
