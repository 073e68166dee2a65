"""The LM beside etcd: durable writes per second by one and the same client, then a million bindings."""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import time

import processes
import scenario as scenarios
from report import Distribution, Goal, Part, Plot, Table, number

ROUTERS = 500
SNAPSHOT_ROUTERS = 100
MOVES = 50
WARM_UP = 200


def _configuration(folder, port):
    lines = [f'listen: "[::1]:{port}"', "insecure_plaintext: true", f"data_directory: {folder}/store", "access_routers:"]
    for i in range(1, ROUTERS + 1):
        lines += [f"  - name: ar{i}", f"    locator: 2001:db8:f000:{i:x}::1", f"    deliver_sid: 2001:db8:f000:{i:x}::d",
                  f"    uplink_sid: 2001:db8:f000:{i:x}::e", f'    pools: ["2001:db8:{i:x}::/48"]']  # fmt: skip
    # All nodes are new, and none moves too often.
    lines += ["mobility:", "  new_nodes_window: 0s", "  flap_window: 0s", "limits:", "  connections_per_address: 1000", "log:", "  level: warning"]
    return "\n".join(lines) + "\n"


class Servers:
    """kedge-lm and etcd, each with an empty store on the same disk."""

    def __init__(self, bench):
        self._bench, self._number = bench, 0

    @contextlib.contextmanager
    def lm(self, folder=None):
        folder = folder or self._folder("lm")
        port = processes.free_port()
        (folder / "lm.yaml").write_text(_configuration(folder, port), encoding="utf-8")
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
    """(in flight, kind) -> rounds: etcd's puts, attaches of new MNs, moves."""
    repeats = bench.samples(5, 1)
    found = {}
    for in_flight, nodes in ((1, 500), (64, 20_000), (1000, 40_000)):
        nodes = bench.samples(nodes, 200)
        for repeat in range(repeats):
            bench.say(f"{in_flight} in flight, round {repeat + 1} of {repeats}")
            with servers.etcd() as (_, server):
                _load(bench, server, "etcd", first=10**6, nodes=WARM_UP)
                for kind, target in (("etcd put", "etcd"), ("etcd puts, together", "etcd-together")):
                    found.setdefault((in_flight, kind), []).extend(_rounds(_load(bench, server, target, nodes=nodes, in_flight=in_flight)))
            with servers.lm() as (_, server):
                _load(bench, server, first=10**6, nodes=WARM_UP, routers=3)
                new, moved = _rounds(_load(bench, server, routers=3, nodes=nodes, in_flight=in_flight, rounds=2))
                found.setdefault((in_flight, "attach, new MN"), []).append(new)
                found.setdefault((in_flight, "attach, move"), []).append(moved)
    return found


def _comparison_tables(found):
    rows = []
    for (in_flight, kind), rounds in found.items():
        rates = Distribution([r["per_second"] for r in rounds])
        theirs = statistics.median(r["per_second"] for r in found[in_flight, "etcd put"])
        rows.append([f"{in_flight} in flight: {kind}", min(rates.samples), rates.median, max(rates.samples),
                     statistics.median(r["p50_ms"] for r in rounds), statistics.median(r["p99_ms"] for r in rounds),
                     f"{rates.median / theirs:.2f}x"])  # fmt: skip
    return Table("Durable writes a second, and ms until the answer (median of the rounds)",
                 ["", "min/s", "median/s", "max/s", "p50 ms", "p99 ms", "against etcd"], rows,
                 "Same connections, disk and machine, without TLS; both answer after fdatasync. Attaches go as the speaker's own client sends them: "
                 "four calls at a time, and what waits goes together; etcd's puts go one by one, or as many together in a transaction. With each attach "
                 "the LM also serves the sessions of the access routers, whose acknowledgements it writes too; "
                 "etcd puts values of 300 bytes and does nothing else.")  # fmt: skip


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
    restarts = []
    for _ in range(bench.samples(3, 1)):
        begin = time.monotonic()
        with servers.lm(folder) as (process, server):
            _load(bench, server, routers=1, rounds=0)
            restarts.append(time.monotonic() - begin)
            seen["resident_after_restart_mib"] = processes.resident_mib(process.pid)
    seen["restart_seconds"] = restarts
    return seen


def run(bench):
    servers = Servers(bench)
    disk = _fsync_ms(bench.scratch, bench.samples(500, 50))
    found = _compare(bench, servers)
    million = _million(bench, servers)

    def median(in_flight, kind, key):
        return statistics.median(r[key] for r in found[in_flight, kind])

    new, put = "attach, new MN", "etcd put"
    ratio = median(64, new, "per_second") / median(64, put, "per_second")
    ours, theirs = median(64, new, "p99_ms"), median(64, put, "p99_ms")
    snapshot, fan = million["snapshot_ms"], million["fan_out"]
    per_move = fan["records"] / max(1, million["fan_out_attaches"]["done"])
    restart = max(million["restart_seconds"])
    tables = [
        _comparison_tables(found),
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
    ]  # fmt: skip
    goals = [
        Goal("5 times etcd's throughput at 64 in flight", f"{ratio:.2f}x", ratio >= 5,
             f"client and server share {os.cpu_count()} cores; the CPU, not the disk, is used up (one fdatasync: {disk.median:.2f} ms)"),
        Goal("a lower p99 than etcd's at 64 in flight", f"{number(ours)} ms against {number(theirs)} ms", ours < theirs, "as above"),
        Goal(f"{million['bindings']:,} bindings under 1 GiB", f"{million['resident_mib']:,.0f} MiB", million["resident_mib"] < 1024,
             "records are held as Protobuf messages with their texts"),
        Goal("restart to serving under 5 s", f"{restart:.1f} s", restart < 5, "all records are read and parsed before the first answer"),
        Goal("snapshot with 10,000 bindings under 200 ms", f"{snapshot['median']:.0f} ms", snapshot["median"] < 200, "one message a record"),
        Goal(f"{ROUTERS} sessions: a move is told to those that it concerns", f"{fan['access_routers_told']} of {ROUTERS} were told, "
             f"by {per_move:.1f} records a move", fan["access_routers_told"] <= MOVES + 1, "see the records"),
    ]  # fmt: skip
    plot = Plot("lm-throughput", "Durable writes a second", "in flight", "a second", {
        kind: [(n, median(n, kind, "per_second")) for n in (1, 64, 1000)] for kind in (put, "etcd puts, together", new, "attach, move")
    }, log_x=True, log_y=True)  # fmt: skip
    return Part(
        title="The LM",
        method="Attaches at kedge-lm and puts at etcd, each durable before its answer, by turns and by clients of one kind; then one LM with a million bindings.",
        tables=tables, goals=goals, plots=[plot],
        limits=f"one fdatasync of 300 bytes takes {disk.median:.2f} ms here (median of {len(disk.samples)}); with 64 and more in flight it is the CPU.",
        data={"fdatasync_ms": disk.summary(), "rounds": {f"{n} {kind}": r for (n, kind), r in found.items()}, "million": million},
    )  # fmt: skip
