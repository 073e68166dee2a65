"""Where the CPU's time goes in a storm, by perf, and what the daemons' memory is, by jemalloc's heap profile."""

import collections
import contextlib
import os
import pathlib
import re
import signal
import subprocess

import processes
import scenario as scenarios
from parts.storm import OVERLAP_MS, TOPOLOGY, StormLab
from report import Part, Table

SAMPLES_PER_SECOND = 199
# As powers of two: a sample of the heap for each so many bytes that are asked for, and a look at it all for each so many. Not `prof_gdump`: with
# it jemalloc 5.3 waits for its own lock at times, and the process stands still.
HEAP_SAMPLE, HEAP_INTERVAL = 17, 26
# Where the daemons, which are not root, may write; in a mount namespace of the node's own.
HEAP_FOLDER = "/var/lib/kedge"
OURS = {("lm", "kedge-lm"): "LM", ("ar1", "kedge-speaker"): "speaker of the AR that they leave first", ("ar2", "kedge-speaker"): "the other speaker"}
FRR = {("ar2", "zebra"): "zebra", ("ar2", "bgpd"): "bgpd", ("ar2", "staticd"): "staticd"}
# Where a sample was -> its name in the table: the first that is found in the file's name.
LIBRARIES = (
    ("vdso", "libc"), ("[", "kernel"), ("libgrpc", "gRPC"), ("libgpr", "gRPC"), ("libabsl", "gRPC"), ("libupb", "gRPC"),
    ("libprotobuf", "Protobuf"), ("librocksdb", "RocksDB"), ("jemalloc", "allocator"), ("libyang", "libyang"), ("libfrr", "libfrr"), ("libc.so", "libc"),
    ("libstdc++", "libc"), ("libspdlog", "log"), ("libfmt", "log"), ("ld-linux", "libc"), ("libcrypto", "TLS"), ("libssl", "TLS"), ("snappy", "RocksDB"),
    ("lib", "other libraries"),
)  # fmt: skip
_OURS = re.compile(r"^(?:\S+ )?kedge::(?!v1::)")


@contextlib.contextmanager
def _recorded(pids, file):
    """perf looks at the processes as long as this lasts."""
    command = ["perf", "record", "--quiet", "-F", SAMPLES_PER_SECOND, "-p", ",".join(map(str, pids)), "-o", file]
    with subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as perf:
        try:
            yield
        finally:
            perf.send_signal(signal.SIGINT)
            problem = perf.communicate(timeout=60)[1].decode()
    if not pathlib.Path(file).exists():
        raise processes.BenchError(f"perf record: {problem.strip()}")


def _where(library, symbol):
    if symbol.startswith("kedge::v1::") or "google::protobuf" in symbol:
        return "Protobuf"
    return next((name for part, name in LIBRARIES if part in library), "its own code")


def _samples(file, pid):
    """(share of the process's samples in per cent, library, function), the most frequent first."""
    done = subprocess.run(["perf", "report", "--stdio", "--quiet", "--no-children", "-i", str(file), "--pid", str(pid), "--percentage", "relative",
                           "--sort", "dso,symbol", "-F", "overhead,dso,symbol"], capture_output=True, text=True, check=True)  # fmt: skip
    found = []
    for line in done.stdout.splitlines():
        match = re.match(r"^\s*([\d.]+)%\s+(\S+)\s+\[.\]\s+(.*\S)", line)
        if match:
            found.append((float(match[1]), match[2], match[3].rstrip(" -")))
    return sorted(found, reverse=True)


def _plain(symbol):
    """A function's name without its arguments and templates."""
    symbol = re.sub(r"\[[^\]]*\]|\(anonymous namespace\)::", "", symbol)
    while True:
        less = re.sub(r"<[^<>]*>", "", symbol)
        if less == symbol:
            return re.sub(r"\(.*", "", symbol)
        symbol = less


def _short(symbol):
    return _plain(symbol).replace("kedge::", "")[:70]


def _heap(folder, binary, scratch):
    """(MiB in use, owner) by the innermost function of ours that asked for it, in the last profile that it has left: of a moment towards the end of the storm."""
    profiles = sorted(folder.glob("heap.*.heap"), key=lambda path: path.stat().st_mtime_ns)
    if not profiles:
        raise processes.BenchError(f"{binary.name} left no heap profile in {folder}")
    # In the node the program has another path; jeprof finds its functions by that.
    here = scratch / f"{binary.name}.heap"
    here.write_text(re.sub(rf"/\S*/{binary.name}$", str(binary.resolve()), profiles[-1].read_text(encoding="utf-8"), flags=re.MULTILINE), encoding="utf-8")
    done = subprocess.run(["jeprof", "--collapsed", "--inuse_space", str(binary.resolve()), str(here)], capture_output=True, text=True, check=True)
    owners = collections.Counter()
    for line in done.stdout.splitlines():
        stack, _, size = line.rpartition(" ")
        frames = stack.split(";")
        owner = next((frame for frame in reversed(frames) if _OURS.search(_plain(frame))), None) or next(
            (name for part, name in (("rocksdb", "RocksDB"), ("grpc", "gRPC"), ("google", "Protobuf")) if part in stack), "others"
        )
        owners[_short(owner)] += int(size) / 2**20
    return owners.most_common()


@contextlib.contextmanager
def _storm_lab(bench, nodes, name, environment=None):
    with contextlib.ExitStack() as stack:
        up = stack.enter_context(scenarios.lab_up(TOPOLOGY, f"bench-{name}-{os.getpid()}", environment))
        up.wait_synced()
        lab = StormLab(up, nodes, bench.scratch)
        stack.callback(lab.close)
        lab.arrive()
        yield lab


def _cpu(bench, nodes, moves):
    """(node, program) -> samples of the storms."""
    data = bench.scratch / "perf.data"
    with _storm_lab(bench, nodes, "perf") as lab:
        with _recorded(lab.pids.values(), data):
            for _ in range(moves):
                lab.storm(f"overlap {OVERLAP_MS}")
        pids = dict(lab.pids)
    return {key: _samples(data, pids[key]) for key in [*OURS, *FRR]}


def _heaps(bench, nodes):
    """(node, program) -> (owners of its heap, MiB resident), when all have moved once."""
    asked = f"prof:true,lg_prof_sample:{HEAP_SAMPLE},lg_prof_interval:{HEAP_INTERVAL},prof_prefix:{HEAP_FOLDER}/heap"
    with _storm_lab(bench, nodes, "heap", {"MALLOC_CONF": asked}) as lab:
        lab.storm(f"overlap {OVERLAP_MS}")
        programs = {"kedge-lm": bench.build / "lm-server" / "kedge-lm", "kedge-speaker": bench.build / "speaker" / "kedge-speaker"}
        return {key: (_heap(pathlib.Path(f"/proc/{lab.pids[key]}/root{HEAP_FOLDER}"), programs[key[1]], bench.scratch),
                      processes.resident_mib(lab.pids[key])) for key in OURS}  # fmt: skip


def run(bench):
    nodes, moves = bench.samples((10_000, 2), (1500, 1))
    cpu = _cpu(bench, nodes, moves)
    bench.say("all moved; now the heap")
    return _part(nodes, moves, cpu, _heaps(bench, nodes))


def _part(nodes, moves, cpu, heaps):
    names = {**OURS, **FRR}
    shares = {key: collections.Counter() for key in cpu}
    for key, samples in cpu.items():
        for share, library, symbol in samples:
            shares[key][_where(library, symbol)] += share
    places = sorted({place for found in shares.values() for place in found}, key=lambda place: -sum(found[place] for found in shares.values()))
    tables = [Table("Where the CPU's time goes, per cent of each process's samples", ["", *(names[key] for key in cpu)],
                    [[place, *(shares[key][place] for key in cpu)] for place in places])]  # fmt: skip
    for key, name in OURS.items():
        rows = [[f"`{_short(symbol)}`", _where(library, symbol), share] for share, library, symbol in cpu[key][:10]]
        tables.append(Table(f"The ten functions with the most samples: {name}", ["function", "in", "%"], rows))
    for key, (owners, resident) in heaps.items():
        rows = [[f"`{owner}`", size] for owner, size in owners[:8]]
        tables.append(Table(f"MiB in use on the heap, by who asked for them: {names[key]}", ["function", "MiB"], rows,
                            f"{sum(size for _, size in owners):,.1f} MiB in all; {resident:,.0f} MiB resident, with code and what the allocator keeps."))  # fmt: skip
    return Part(
        title="Profiles",
        method=f"The storm's lab: {nodes:,} MNs move, {moves} times, while perf takes {SAMPLES_PER_SECOND} samples of each process for a second of its CPU time. "
               f"In another lab they move once, and jemalloc looks at the heap for each {2 ** (HEAP_INTERVAL - 20)} MiB that are asked for; the last look counts.",
        tables=tables,
        data={"cpu": {" ".join(key): samples[:40] for key, samples in cpu.items()}, "heap_mib": {" ".join(key): found[0][:40] for key, found in heaps.items()}},
    )  # fmt: skip
