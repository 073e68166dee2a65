"""On what the benchmark ran: nothing that names the machine, all that its figures depend on."""

import os
import pathlib
import platform
import subprocess

_PACKAGES = ("frr", "gobgpd", "exabgp", "etcd-server", "librocksdb7.8", "libgrpc++1.51", "libyang2", "nftables")


def _cpu():
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib():
    kib = int(pathlib.Path("/proc/meminfo").read_text(encoding="utf-8").split()[1])
    return round(kib / 2**20, 1)


def versions():
    """Package -> installed version, of those that are compared."""
    found = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *_PACKAGES], capture_output=True, text=True, check=False).stdout
    return dict(line.split(" ", 1) for line in found.splitlines() if " " in line and line.split(" ", 1)[1])


def load():
    """Runnable processes on average over the last minute."""
    return os.getloadavg()[0]


def describe():
    return {"cpu": _cpu(), "cores": os.cpu_count(), "memory_gib": _memory_gib(), "kernel": platform.release(), "packages": versions()}
