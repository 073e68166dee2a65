"""On what the benchmark ran: nothing that names the machine, all that its figures depend on; and what all of it has used of the CPUs."""

import os
import pathlib
import platform
import subprocess

# Of the kernel's counts of CPU time, in a second.
TICKS = os.sysconf("SC_CLK_TCK")
# The columns of /proc/stat (proc(5)) by what became of the time.
_CPU_TIMES = {"busy": (0, 1, 2, 5, 6), "idle": (3,), "iowait": (4,), "steal": (7,)}
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


def cpu_times():
    """Seconds since the machine has started, of all cores together: `busy`, `idle`, `iowait` (idle while something waited for the disk), `steal`
    (taken by the host of a virtual machine)."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = list(map(int, file.readline().split()[1:]))
    return {name: sum(ticks[column] for column in columns) / TICKS for name, columns in _CPU_TIMES.items()}


def disk(folder):
    """The name of the disk that the folder is on, as in /sys/class/block; empty when it is on none."""
    device = os.stat(folder).st_dev
    path = pathlib.Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    if not path.exists():
        return ""
    return path.parent.name if (path / "partition").exists() else path.name


def describe():
    return {"cpu": _cpu(), "cores": os.cpu_count(), "memory_gib": _memory_gib(), "kernel": platform.release(), "packages": versions()}


def text():
    """In short, for a page."""
    found = describe()
    release = ".".join(found["kernel"].split(".")[:2])
    return f"{found['cores']} cores ({found['cpu']}), {found['memory_gib']:.0f} GiB, Linux {release}"
