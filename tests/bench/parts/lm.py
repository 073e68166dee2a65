"""The LM beside etcd: durable writes per second by one and the same client, then a million bindings."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import statistics
import subprocess
import time

import machine
import processes
import scenario as scenarios
from report import Distribution, Goal, Part, Plot, Table, number, ratio_spread

CORES = os.cpu_count()
ROUTERS = 500
SNAPSHOT_ROUTERS = 100
MOVES = 50
WARM_UP = 200
PUT, PUTS_TOGETHER, NEW, MOVE = "etcd put", "etcd puts, together", "attach, new MN", "attach, move"
# What remains without bindings and disk.
NOTHING, REFUSED = "nothing written: query that finds nothing", "nothing written: attach that is refused"
TIMES_ETCD = 5
RESTART_SECONDS = 5


def _configuration(folder, port, log_level):
    lines = [f'listen: "[::1]:{port}"', "insecure_plaintext: true", f"data_directory: {folder}/store", "access_routers:"]
    for i in range(1, ROUTERS + 1):
        lines += [f"  - name: ar{i}", f"    locator: 2001:db8:f000:{i:x}::1", f"    deliver_sid: 2001:db8:f000:{i:x}::d",
                  f"    uplink_sid: 2001:db8:f000:{i:x}::e", f'    pools: ["2001:db8:{i:x}::/48"]']  # fmt: skip
    # All nodes are new, and none moves too often.
    lines += ["mobility:", "  new_nodes_window: 0s", "  flap_window: 0s", "limits:", "  connections_per_address: 1000"]
    lines += ["log:", f"  level: {log_level}"]
    return "\n".join(lines) + "\n"


class Servers:
    """kedge-lm and etcd, each with an empty store on the same disk."""

    def __init__(self, bench):
        self._bench, self._number = bench, 0

    @contextlib.contextmanager
    def lm(self, folder=None, log_level="warning"):
        folder = folder or self._folder("lm")
        port = processes.free_port()
        (folder / "lm.yaml").write_text(_configuration(folder, port, log_level), encoding="utf-8")
        command = [self._bench.build / "lm-server" / "kedge-lm", "--config", folder / "lm.yaml"]
        with processes.running(command, folder / "log", lambda: processes.answers(port)) as process:
            yield process, f"[::1]:{port}"

    @contextlib.contextmanager
    def etcd(self):
        folder = self._folder("etcd")
        port, peers = processes.free_port(), processes.free_port()
        command = ["etcd", "--data-dir", folder / "store", "--listen-client-urls", f"http://[::1]:{port}", "--advertise-client-urls",
                   f"http://[::1]:{port}", "--listen-peer-urls", f"http://[::1]:{peers}", "--initial-advertise-peer-urls",
                   f"http://[::1]:{peers}", "--initial-cluster", f"default=http://[::1]:{peers}", "--log-level", "error"]  # fmt: skip
        environment = {**os.environ, "ETCD_UNSUPPORTED_ARCH": os.uname().machine}
        with processes.running(command, folder / "log", lambda: processes.answers(port), env=environment) as process:
            yield process, f"[::1]:{port}"
        shutil.rmtree(folder)

    def _folder(self, kind):
        self._number += 1
        folder = self._bench.scratch / f"{kind}-{self._number}"
        folder.mkdir()
        return folder


def _load(bench, server, target="kedge", **options):
    """Lines of JSON that lm_load has printed."""
    command = [bench.build / "tests" / "bench" / "lm_load", "--server", server, "--target", target]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", value]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0 or "lm_load:" in done.stderr:
        raise processes.BenchError(f"lm_load ended with status {done.returncode}: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _rounds(lines):
    return [line for line in lines if "per_second" in line]


class _Load:
    """Rounds of lm_load that differ in few options."""

    def __init__(self, bench, server, **options):
        self._bench, self._server, self._options = bench, server, options

    def rounds(self, target, **options):
        return _rounds(_load(self._bench, self._server, target, **{**self._options, **options}))


def _fsync_ms(folder, writes):
    """How long the disk takes to make one small write durable."""
    times = []
    descriptor = os.open(folder / "probe", os.O_CREAT | os.O_WRONLY)
    try:
        for _ in range(writes):
            begin = time.monotonic()
            os.write(descriptor, bytes(300))
            os.fdatasync(descriptor)
            times.append((time.monotonic() - begin) * 1000)
    finally:
        os.close(descriptor)
    return Distribution(times)


def _compare(bench, servers):
    """(in flight, kind) -> rounds: etcd's puts, attaches of new MNs, moves, and what is left when nothing is written."""
    repeats = bench.samples(5, 1)
    disk = machine.disk(bench.scratch)
    found = {}
    for in_flight, nodes in ((1, 500), (64, 20_000), (1000, 40_000)):
        nodes = bench.samples(nodes, 200)
        for repeat in range(repeats):
            bench.say(f"{in_flight} in flight, round {repeat + 1} of {repeats}")
            with servers.etcd() as (process, server):
                load = _Load(bench, server, nodes=nodes, in_flight=in_flight, server_pid=process.pid, disk=disk)
                _load(bench, server, "etcd", first=10**6, nodes=WARM_UP)
                for kind, target in ((PUT, "etcd"), (PUTS_TOGETHER, "etcd-together")):
                    found.setdefault((in_flight, kind), []).extend(load.rounds(target))
            with servers.lm() as (process, server):
                load = _Load(bench, server, nodes=nodes, in_flight=in_flight, server_pid=process.pid, disk=disk)
                _load(bench, server, first=10**6, nodes=WARM_UP, routers=3)
                found.setdefault((in_flight, NOTHING), []).extend(load.rounds("kedge-query"))
                found.setdefault((in_flight, REFUSED), []).extend(load.rounds("kedge-refused", routers=3, first=2 * 10**6))
                new, moved = load.rounds("kedge", routers=3, rounds=2)
                found.setdefault((in_flight, NEW), []).append(new)
                found.setdefault((in_flight, MOVE), []).append(moved)
    return found


@dataclasses.dataclass(frozen=True)
class Use:
    """What the operations of one kind used, over all rounds."""

    rate: float  # operations a second
    server_us: float  # CPU of the server, an operation
    client_us: float
    cores: float  # share of all cores that was in use, by whomever
    server_thread: float  # share of one core that the server's busiest thread had
    client_thread: float
    stolen: float  # share of all cores that the machine's host took
    flushes: float  # of the disk, a second
    per_flush: float  # operations

    @classmethod
    def of(cls, rounds):
        total = {key: sum(r[key] for r in rounds) for key in rounds[0] if key not in ("round", "target")}
        done, seconds, flushes = total["done"], total["seconds"], total["flushes"]
        free = total["idle"] + total["iowait"] + total["steal"]
        return cls(
            statistics.median(r["per_second"] for r in rounds), 1e6 * total["server_cpu"] / done, 1e6 * total["client_cpu"] / done,
            max(0, 1 - free / (CORES * seconds)), total["server_thread"] / seconds, total["client_thread"] / seconds,
            total["steal"] / (CORES * seconds), flushes / seconds, done / flushes if flushes else None,
        )  # fmt: skip

    @property
    def both_us(self):
        return self.server_us + self.client_us

    @property
    def most(self):
        """A second, if server and client had all cores, and never waited."""
        return CORES * 1e6 / self.both_us if self.both_us else float("inf")


def _comparison_tables(found):
    rows = []
    for (in_flight, kind), rounds in found.items():
        rates = Distribution([r["per_second"] for r in rounds])
        theirs = [r["per_second"] for r in found[in_flight, PUT]]
        rows.append([f"{in_flight} in flight: {kind}", min(rates.samples), rates.median, max(rates.samples),
                     statistics.median(r["p50_ms"] for r in rounds), statistics.median(r["p99_ms"] for r in rounds),
                     ratio_spread(rates.samples, theirs)])  # fmt: skip
    uses = {name: Use.of(rounds) for name, rounds in found.items()}
    return [
        Table("Operations a second, and ms until the answer (median of the rounds)",
              ["", "min/s", "median/s", "max/s", "p50 ms", "p99 ms", "against etcd (rounds)"], rows,
              "Same connections, disk and machine, without TLS; both answer after fdatasync. Attaches go as the speaker's own client sends "
              "them: four calls at a time for each of the three access routers, and what waits goes together; etcd's puts go one by one, or "
              "as many together in a transaction, four transactions at a time. With each attach the LM also serves the sessions of the access "
              "routers, whose acknowledgements it writes too; etcd puts values of 300 bytes and does nothing else. Where nothing is written, "
              "what is left is client and gRPC: Mobility.Query for an MN that is not there, one by one as etcd's puts, and attaches that the LM refuses, sent as the others."),
        Table(f"What an operation takes of {CORES} cores and the disk",
              ["", "server, µs", "client, µs", f"most/s on {CORES} cores", "cores in use, %", "server's busiest thread, %", "client's, %",
               "taken by the host, %", "disk flushes/s", "operations a flush"],
              [[f"{in_flight} in flight: {kind}", use.server_us, use.client_us, use.most, 100 * use.cores, 100 * use.server_thread,
                100 * use.client_thread, 100 * use.stolen, use.flushes, use.per_flush] for (in_flight, kind), use in uses.items()],
              "µs: user and system time of all threads, with acknowledgements and what else is left after the last answer. The other columns: from "
              "the first request to the last answer. most/s: if all cores did nothing but this, without a pause. Flushes: as the disk counts "
              "them, of all programs."),
    ]  # fmt: skip


def _throughput_limit(found):
    """What stands between attaches at 64 in flight and the goal: in short, and whole."""
    attach, put, nothing, refused = (Use.of(found[64, kind]) for kind in (NEW, PUT, NOTHING, REFUSED))
    aim = TIMES_ETCD * put.rate
    allowed = CORES * 1e6 / aim
    return (
        f"the CPU: an attach takes {attach.both_us:.0f} µs of LM and client, the goal would leave {allowed:.0f} µs; "
        f"a query that finds nothing comes to {nothing.rate / put.rate:.1f}x"
    ), (
        f"an attach takes {attach.server_us:.0f} µs of CPU in the LM and {attach.client_us:.0f} µs in the client (an etcd put "
        f"{put.server_us:.0f} and {put.client_us:.0f} µs). {CORES} cores give at most {attach.most:,.0f} attaches/s, and gave {attach.rate:,.0f}/s "
        f"with {100 * attach.cores:.0f}% of them in use, the LM's busiest thread {100 * attach.server_thread:.0f}% of the time. "
        f"{TIMES_ETCD} times etcd's puts are {aim:,.0f}/s, which leaves {allowed:.0f} µs for LM and client together. A query at the LM that "
        f"finds nothing takes {nothing.both_us:.0f} µs of both, and there are {nothing.rate:,.0f}/s of them, {nothing.rate / put.rate:.1f} times etcd's "
        f"puts; an attach that is refused takes {refused.both_us:.0f} µs, {refused.rate:,.0f}/s, {refused.rate / put.rate:.1f} times"
    )


def _p99_limit(found):
    """With so many always in flight, the mean is what the rate makes it; the rest is spread. In short, and whole."""
    def spread(kind):
        rounds = found[64, kind]
        mean = 64e3 / statistics.median(r["per_second"] for r in rounds)
        return mean, statistics.median(r["p99_ms"] for r in rounds)

    (mean, ours), (their_mean, theirs), (_, refused) = map(spread, (NEW, PUT, REFUSED))
    needed = 64e3 * ours / mean / theirs
    return (
        f"64 in flight at this rate are {number(mean)} ms on average; with this spread etcd's p99 takes {needed:,.0f} attaches/s"
    ), (
        f"64 in flight at this rate are {number(mean)} ms on average (etcd {number(their_mean)} ms), and p99 is {ours / mean:.1f} times that "
        f"(etcd {theirs / their_mean:.1f} times): with this spread a p99 of {number(theirs)} ms takes {needed:,.0f} attaches/s. Of attaches that are "
        f"refused, which know neither table nor disk, p99 is {number(refused)} ms"
    )


def _million(bench, servers):
    """One store with many bindings: memory, restart, snapshot, and who hears of a move."""
    nodes = bench.samples(1_000_000, 5_000)
    seen = {"bindings": nodes}
    folder = bench.scratch / "million"
    folder.mkdir()
    with servers.lm(folder) as (process, server):
        bench.say(f"{nodes:,} new MNs")
        made = _rounds(_load(bench, server, routers=SNAPSHOT_ROUTERS, nodes=nodes, in_flight=1000))[0]
        seen["fill_per_second"] = made["per_second"]
        seen["resident_mib"] = processes.resident_mib(process.pid)
        bench.say("snapshots")
        snapshots = [_load(bench, server, routers=1, rounds=0)[0] for _ in range(bench.samples(20, 3))]
        seen["snapshot_bindings"] = snapshots[0]["snapshot_bindings"]
        seen["snapshot_ms"] = Distribution([s["synced_ms"] for s in snapshots]).summary()
        bench.say(f"{ROUTERS} sessions, {MOVES} moves")
        # MN i goes from the i-th access router to the next one: so many, and one, are concerned.
        lines = _load(bench, server, routers=ROUTERS, channels=50, nodes=MOVES, in_flight=64, first_round=1)
        seen["fan_out"] = lines[-1]
        seen["fan_out_attaches"] = lines[1]
        begin = processes.cpu_seconds(process.pid), processes.switches(process.pid), time.monotonic()
        # How long nothing happens is measured, not waited for.
        scenarios.wait_until("ten seconds pass", lambda: time.monotonic() - begin[2] >= 10, 60, 0.5)
        elapsed = time.monotonic() - begin[2]
        seen["idle_cpu_percent"] = 100 * (processes.cpu_seconds(process.pid) - begin[0]) / elapsed
        seen["idle_wakeups_per_second"] = (processes.switches(process.pid) - begin[1]) / elapsed
    bench.say("restarts")
    seen["restarts"] = []
    for _ in range(bench.samples(3, 1)):
        (folder / "log").unlink()
        begin = time.time_ns()
        with servers.lm(folder, "info") as (process, server):
            _load(bench, server, routers=1, rounds=0)
            seen["restarts"].append(_stages((folder / "log").read_text(encoding="utf-8"), begin, time.time_ns()))
            seen["resident_after_restart_mib"] = processes.resident_mib(process.pid)
    return seen


def _stages(log, begin_ns, end_ns):
    """What a restart's time went into, in seconds, by what the LM has logged; `cpu_*`: core-seconds while the bindings were loaded."""
    lines = {}
    for line in log.splitlines():
        at, _level, event, *fields = [*line.split(), "", "", ""]
        if event not in ("store_opened", "store_loaded", "ready"):
            continue
        lines[event] = scenarios.timestamp_ns(at), dict(field.split("=", 1) for field in fields if "=" in field)
    (opened_at, opened), (loaded_at, loaded), (ready_at, _) = (lines[event] for event in ("store_opened", "store_loaded", "ready"))
    opening, loading = float(opened["seconds"]), float(loaded["seconds"])
    return {
        "all": (end_ns - begin_ns) / 1e9,
        "program": (opened_at - begin_ns) / 1e9 - opening,
        "opening": opening,
        "loading": loading,
        "listening": (ready_at - opened_at) / 1e9 - loading,
        "snapshot": (end_ns - ready_at) / 1e9,
        "cpu_reading": float(loaded["cpu_reading"]),
        "cpu_taking_over": float(loaded["cpu_taking_over"]),
    }


def _restart_table(restarts):
    labels = {
        "program": "the program starts and reads its configuration", "opening": "RocksDB is opened",
        "loading": "all records are read, checked and taken over", "listening": "the server is made, and listens",
        "snapshot": "a speaker connects and has its snapshot", "all": "together",
        "cpu_reading": "core-seconds of loading: reading and checking, and RocksDB's own work, other threads",
        "cpu_taking_over": "core-seconds of loading: taking over, one thread",
    }  # fmt: skip
    spread = {key: Distribution([restart[key] for restart in restarts]) for key in labels}
    rows = [[label, min(spread[key].samples), spread[key].median, max(spread[key].samples)] for key, label in labels.items()]
    return Table("What a restart's seconds go into", ["", "min", "median", "max"], rows)


def _restart_limit(restarts, bindings):
    """What the seconds go into, in short, and whole."""
    slowest = max(restarts, key=lambda restart: restart["all"])
    reading, taking = slowest["cpu_reading"], slowest["cpu_taking_over"]
    least = max((reading + taking) / CORES, taking)
    rest = slowest["all"] - slowest["loading"]
    return (
        f"the CPU: a record takes {1e6 * (reading + taking) / bindings:.1f} µs, all {least:.1f} s at least on {CORES} cores; the rest {rest:.1f} s"
    ), (
        f"of the slowest one's {slowest['all']:.1f} s the {bindings:,} records take {slowest['loading']:.1f} s, RocksDB's opening "
        f"{slowest['opening']:.1f} s, the first snapshot {slowest['snapshot']:.1f} s. Reading and checking take "
        f"{1e6 * reading / bindings:.1f} µs of CPU a record, taking over {1e6 * taking / bindings:.1f} µs: at least {least:.1f} s on {CORES} cores, "
        f"{least + rest:.1f} s for the whole restart; on any number of cores {taking + rest:.1f} s, since taking over is one thread's work"
    )


def run(bench):
    servers = Servers(bench)
    disk = _fsync_ms(bench.scratch, bench.samples(500, 50))
    found = _compare(bench, servers)
    million = _million(bench, servers)

    def median(in_flight, kind, key):
        return statistics.median(r[key] for r in found[in_flight, kind])

    ratio = median(64, NEW, "per_second") / median(64, PUT, "per_second")
    ours, theirs = median(64, NEW, "p99_ms"), median(64, PUT, "p99_ms")
    snapshot, fan = million["snapshot_ms"], million["fan_out"]
    per_move = fan["records"] / max(1, million["fan_out_attaches"]["done"])
    restart = max(restart["all"] for restart in million["restarts"])
    limits = {
        "Throughput at 64 in flight": _throughput_limit(found), "p99": _p99_limit(found),
        "Restart": _restart_limit(million["restarts"], million["bindings"]),
    }  # fmt: skip
    throughput, p99, restarting = (short for short, _ in limits.values())
    tables = [
        *_comparison_tables(found),
        Table("One store", ["", "seen"], [
            ["bindings", million["bindings"]],
            ["new MNs a second while it was filled, 1,000 in flight", million["fill_per_second"]],
            ["resident memory, MiB", million["resident_mib"]],
            ["resident memory after a restart, MiB", million["resident_after_restart_mib"]],
            ["restart until a speaker has its snapshot, s (longest)", restart],
            [f"snapshot of {million['snapshot_bindings']:,} bindings, ms, median", snapshot["median"]],
            ["the same, longest", snapshot["max"]],
            [f"records told for each move, {ROUTERS} sessions open", per_move],
            [f"of {ROUTERS} access routers, told anything in {MOVES} moves between {MOVES + 1}", fan["access_routers_told"]],
            ["idle: CPU, %", million["idle_cpu_percent"]],
            ["idle: wake-ups a second, all threads", million["idle_wakeups_per_second"]],
        ]),
        _restart_table(million["restarts"]),
    ]  # fmt: skip
    goals = [
        Goal(f"{TIMES_ETCD} times etcd's throughput at 64 in flight", f"{ratio:.2f}x", ratio >= TIMES_ETCD, throughput),
        Goal("a lower p99 than etcd's at 64 in flight", f"{number(ours)} ms against {number(theirs)} ms", ours < theirs, p99),
        Goal(f"{million['bindings']:,} bindings under 1 GiB", f"{million['resident_mib']:,.0f} MiB", million["resident_mib"] < 1024,
             f"{million['resident_mib'] * 2**20 / million['bindings']:,.0f} octets a binding, with all that the process needs"),
        Goal(f"restart to serving under {RESTART_SECONDS} s", f"{restart:.1f} s", restart < RESTART_SECONDS, restarting),
        Goal("snapshot with 10,000 bindings under 200 ms", f"{snapshot['median']:.0f} ms", snapshot["median"] < 200,
             f"{1000 * snapshot['median'] / max(1, million['snapshot_bindings']):.0f} µs a binding, at both ends"),
        Goal(f"{ROUTERS} sessions: a move is told to those that it concerns", f"{fan['access_routers_told']} of {ROUTERS} were told, "
             f"by {per_move:.1f} records a move", fan["access_routers_told"] <= MOVES + 1, "see the records"),
    ]  # fmt: skip
    plot = Plot("lm-throughput", "Durable writes a second", "in flight", "a second", {
        kind: [(n, median(n, kind, "per_second")) for n in (1, 64, 1000)] for kind in (PUT, PUTS_TOGETHER, NEW, MOVE)
    }, log_x=True, log_y=True)  # fmt: skip
    return Part(
        title="The LM",
        method=(
            "Attaches at kedge-lm and puts at etcd, each durable before its answer, by turns and by clients of one kind, and calls at kedge-lm "
            "that write nothing; then one LM with a million bindings."
        ),
        tables=tables, goals=goals, plots=[plot],
        limits=f"one fdatasync of 300 bytes takes {disk.median:.2f} ms here (median of {len(disk.samples)}). "
               + " ".join(f"{what}: {whole}." for what, (_, whole) in limits.items()),
        data={"fdatasync_ms": disk.summary(), "rounds": {f"{n} {kind}": r for (n, kind), r in found.items()}, "million": million},
    )  # fmt: skip
