"""Programs that a part starts and ends, and what they use."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess

from scenario import wait_until

_TICKS = os.sysconf("SC_CLK_TCK")


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


def cpu_seconds(pid):
    """User and system time that the process has used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


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
