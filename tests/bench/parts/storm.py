"""A storm: thousands of mobile nodes on one link move to another access router within a second, and back, and there again."""

import json
import os
import pathlib
import re
import subprocess
import time

import daemons
import scenario as scenarios
import swarms
from processes import BenchError, cpu_seconds, resident_mib
from report import SPREAD, Distribution, Goal, Part, Plot, Table

TOPOLOGY = pathlib.Path(__file__).resolve().parents[1] / "topologies" / "storm"
# How anchors get into FRR -> the goal for all to be anchored, in seconds.
INJECTORS = {"northbound": 5, "kernel": 2}
LEVELS = range(1, 9)
KERNEL_METRIC_BASE = 881800
FLOWS, RATE = 100, 20
OVERLAP_MS, GAP_MS = 2000, 50
WITHIN = 1
REDIRECTED_WITHIN = 1
SETTLED_WITHIN = 180
# Who comes back sooner than the speakers' overlap_guard is held for one that has merely kept its old link.
BETWEEN = 4
LOCATORS = {"ar1": "2001:db8:a1::1", "ar2": "2001:db8:a2::1"}
DELIVER_SIDS = {"ar1": "2001:db8:a1::d", "ar2": "2001:db8:a2::d"}
HOME = "ar1"
PROCESSES = {
    "lm": ["kedge-lm"], "ar1": ["kedge-speaker", "zebra", "bgpd", "staticd"], "ar2": ["kedge-speaker", "zebra", "bgpd", "staticd"],
    "core": ["zebra", "bgpd"], "swarm": ["mn_swarm"],
}  # fmt: skip
# Event of the LM -> where it has to come from: the access router that the nodes have left, or the one that they have reached.
STAGES = {
    "attach_committed": "new", "delivering": "new", "ra_sent": "new", "redirecting": "old", "advertised": "new", "superseded": "old",
    "settled": "new",
}  # fmt: skip
_LINE = re.compile(r"^(\S+)Z \w+ (\w+) prefix=(\S+) mn=\S+ ar=(\S+)")


def _other(ar):
    return "ar1" if ar == "ar2" else "ar2"


class LmLog:
    """The LM's own log tells when each stage of each prefix was reached; reading it takes nothing from the LM while it works."""

    def __init__(self, lab):
        self._path = lab.lab.folder / "nodes" / "lm" / "log" / "kedge" / "kedge-lm.log"
        self._wall_offset_ns = lab.wall_offset_ns
        self._read = 0
        self.forget()

    def forget(self):
        """What has been logged so far does not count."""
        self._read, self._rest, self._counts, self._lines = self._path.stat().st_size, b"", {}, []

    def count(self, event):
        """How many lines of this kind there are."""
        with open(self._path, "rb") as file:
            file.seek(self._read)
            new = file.read()
        self._read += len(new)
        whole, _, self._rest = (self._rest + new).rpartition(b"\n")
        self._lines.append(whole)
        for name in STAGES:
            self._counts[name] = self._counts.get(name, 0) + whole.count(b" %s prefix=" % name.encode())
        return self._counts[event]

    def stages(self, source, target, begin_ns):
        """Stage -> prefix -> seconds after the beginning, when it was first reached."""
        found = {stage: {} for stage in STAGES}
        ars = {"new": target, "old": source}
        for line in b"\n".join(self._lines).decode().splitlines():
            match = _LINE.match(line)
            if match and match[2] in STAGES and match[4] == ars[STAGES[match[2]]]:
                at_ns = scenarios.timestamp_ns(match[1]) - self._wall_offset_ns
                found[match[2]].setdefault(match[3], (at_ns - begin_ns) / 1e9)
        return found


class StormLab:
    def __init__(self, lab, nodes, scratch):
        self.lab, self.nodes, self.scratch = lab, nodes, scratch
        self.log = LmLog(lab)
        self.swarm = swarms.Program(lab, "swarm", "run", "--port", "ar1=eth1", "ar2=eth2", "--nodes", nodes, "--peer", scenarios.CN_ADDRESS)
        self.peer = swarms.Program(lab, "cn", "peer", "--local", scenarios.CN_ADDRESS, "--rate", RATE)
        self.at = HOME
        self.pids = {(node, name): pid for node, names in PROCESSES.items() for name, pid in daemons.pids(lab, node, names).items()}

    def close(self):
        self.swarm.close()
        self.peer.close()

    def arrive(self):
        self.log.forget()
        self.swarm.ask(f"arrive {HOME} {self.nodes} within {self.nodes / 1000}", "arrived", 120 + self.nodes / 100)
        self._wait_settled()

    def begin_flows(self):
        self.swarm.tell(f"flows {FLOWS} rate {RATE}")

    def _wait_settled(self):
        scenarios.wait_until("all have settled", lambda: self.log.count("settled") >= self.nodes, SETTLED_WITHIN, 0.25)

    def storm(self, how):
        """All move to the other access router; gives when each stage was reached, what it took and what is there after it."""
        time.sleep(BETWEEN)
        source, target = self.at, _other(self.at)
        self.log.forget()
        before = {key: cpu_seconds(pid) for key, pid in self.pids.items()}
        arrived = self.swarm.ask(f"move {target} {self.nodes} within {WITHIN} {how}", "arrived", 120)
        self._wait_settled()
        self.at = target
        end = time.monotonic_ns()
        # Those that were gone from their old link before they were redirected are told by the swarm.
        swarm = self.swarm.ask(f"report {self.scratch / 'nodes'}", "report")
        found = {
            "to": target, "how": how, "window": (arrived["begun_ns"], end), "ra_ms": arrived["waited_ms"],
            "solicited_again": arrived["solicited_again"], "ra_seconds": (arrived["last_ns"] - arrived["begun_ns"]) / 1e9,
            "stages": self.log.stages(source, target, arrived["begun_ns"]), "swarm": swarm,
            "cpu": {key: cpu_seconds(pid) - before[key] for key, pid in self.pids.items()},
            "memory": {key: resident_mib(pid) for key, pid in self.pids.items()},
        }  # fmt: skip
        found["counts"] = self._wait_exact()
        return found

    def _wait_exact(self):
        """What is left to be taken back takes a second or two longer than to settle."""
        deadline = time.monotonic() + 60
        while True:
            counts = self.counts()
            if all(has == wanted for has, wanted in counts.values()) or time.monotonic() > deadline:
                return counts
            time.sleep(0.5)

    def counts(self):
        """What -> (how many there are, how many there have to be); what is wrong in any way does not count."""
        away = 0 if self.at == HOME else self.nodes
        bindings = {b["prefix"]: b for b in self.lab.bindings()}
        prefixes = set(bindings)
        told = {}
        for line in (self.scratch / "nodes").read_text(encoding="utf-8").splitlines():
            address, port, *own = line.split()
            if port == self.at and len(own) == 1:
                told[own[0].rstrip("!")] = address
        settled = sum(b["state"] == "BINDING_STATE_SETTLED" and b["attached_ar"] == self.at and told.get(p) == b["mn_id"]
                      for p, b in bindings.items())  # fmt: skip
        found = {
            "bindings of the LM: attached, settled, as the nodes themselves have them": (settled, self.nodes),
            "bindings of the LM: any": (len(bindings), self.nodes),
        }
        best = self._best_paths()
        found[f"/64s at the reflector by {self.at}"] = (sum(best.get(p) == LOCATORS[self.at] for p in prefixes), away)
        found["/64s at the reflector: any"] = (len(best), away)
        for ar in LOCATORS:
            mobile, tunnels = self._table(ar, 8818), self._table(ar, 8819)
            deliver, redirect = self.nodes if ar == self.at else 0, away if ar == HOME else 0
            found[f"{ar}: deliver routes"] = (sum(" dev eth2 " in mobile.get(p, "") for p in prefixes), deliver)
            found[f"{ar}: redirect routes"] = (sum(" dev kx0 " in mobile.get(p, "") for p in prefixes), redirect)
            sid = f"[ {DELIVER_SIDS[_other(ar)]} ]"
            found[f"{ar}: tunnels"] = (sum(sid in tunnels.get(p, "") for p in prefixes), redirect)
            found[f"{ar}: any route"] = (len(mobile) + len(tunnels), deliver + 2 * redirect)
        return found

    def _best_paths(self):
        table = json.loads(self.lab.output("core", "vtysh", "-c", "show bgp ipv6 unicast json"))["routes"]
        return {prefix: next((hop["ip"] for path in paths if path.get("bestpath") for hop in path["nexthops"]
                              if hop.get("scope") == "global"), None)
                for prefix, paths in table.items() if prefix.endswith("/64")}  # fmt: skip

    def _table(self, ar, number):
        lines = self.lab.run(ar, "ip", "-6", "route", "show", "table", number, check=False).stdout.splitlines()
        return {line.split()[0]: line + " " for line in lines}

    def flows(self, storms):
        """Puts into each storm what its sampled flows lost."""
        folders = {name: self.scratch / name for name in ("nodes-flows", "peer-flows")}
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        self.swarm.ask(f"stop-flows {folders['nodes-flows']}", "flows")
        self.peer.ask(f"stop-flows {folders['peer-flows']}", "flows")
        pairs = [(path, folders["peer-flows"] / path.name) for path in sorted(folders["nodes-flows"].iterdir())]
        if len(pairs) != FLOWS or not all(peer.exists() for _, peer in pairs):
            raise BenchError(f"{len(pairs)} flows of {FLOWS}, of which the peer has {sum(peer.exists() for _, peer in pairs)}")
        for storm in storms:
            storm["flows"] = [_flow_report(mine, peer, storm["window"], self.scratch / "report.json") for mine, peer in pairs]


def _flow_report(mine, peer, window, output):
    """`a` is the mobile node."""
    command = [scenarios.labs.build_folder() / "tests" / "tools" / "flow_probe", "report", "--a", mine, "--b", peer,
               "--from", window[0], "--to", window[1], "-o", output]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True)
    report = json.loads(output.read_text(encoding="utf-8"))
    keys = ("sent", "lost", "duplicated", "longest_gap_ms", "send_failed", "longest_send_gap_ms")
    return {name: {key: report[side][key] for key in keys} for name, side in (("up", "a_to_b"), ("down", "b_to_a"))}


def _by_kernel(lab):
    """The lab as docs/injectors.md has it for the kernel injector."""
    commands = ["configure terminal"]
    for level in LEVELS:
        commands += [f"route-map KEDGE permit {10 * level}", "no match tag", f"match metric {KERNEL_METRIC_BASE + level}", f"set tag {level}",
                     "set metric 0", "exit"]  # fmt: skip
    commands += ["router bgp 65000", "address-family ipv6 unicast", "no redistribute static", "redistribute kernel route-map KEDGE"]
    script = '{ cat /etc/kedge/speaker.yaml; echo "frr: {injector: kernel}"; } >/run/kedge/speaker.yaml'
    for ar in LOCATORS:
        lab.run(ar, "vtysh", *(word for command in commands for word in ("-c", command)))
        lab.run(ar, "sh", "-c", script)
        old = lab.speaker_pid(ar)
        lab.run(ar, "kill", old)
        scenarios.wait_until(f"the speaker of {ar} has started again", lambda ar=ar, old=old: lab.speaker_pid(ar) not in (0, old))


def run(bench):
    nodes = bench.samples(int(os.environ.get("KEDGE_STORM_NODES", "10000")), 300)
    wanted = os.environ.get("KEDGE_STORM_INJECTORS", " ".join(INJECTORS)).split()
    found = {}
    for injector in wanted:
        bench.say(f"injector: {injector}")
        with scenarios.lab_up(TOPOLOGY, name=f"bench-storm-{os.getpid()}") as lab:
            if injector == "kernel":
                _by_kernel(lab)
            lab.wait_synced()
            # Which node has a flow differs from run to run: the files of one must not count as another's.
            scratch = bench.scratch / injector
            scratch.mkdir()
            found[injector] = _storms(bench, StormLab(lab, nodes, scratch))
    return _part(found, nodes)


def _storms(bench, storm_lab):
    try:
        bench.say(f"{storm_lab.nodes} nodes arrive")
        storm_lab.arrive()
        storm_lab.begin_flows()
        storms = []
        for number, how in enumerate([f"overlap {OVERLAP_MS}"] * 3 + [f"gap {GAP_MS}"]):
            storms.append(storm_lab.storm(how))
            stages = {stage: max(times.values(), default=0) for stage, times in storms[-1]["stages"].items()}
            bench.say(f"storm {number + 1}, to {storms[-1]['to']}, {how}: " + ", ".join(f"{s} {t:.2f} s" for s, t in stages.items()))
            wrong = {what: pair for what, pair in storms[-1]["counts"].items() if pair[0] != pair[1]}
            if wrong:
                bench.say(f"not exact: {wrong}")
        storm_lab.flows(storms)
        return storms
    finally:
        storm_lab.close()


def _name(number, storm):
    return f"{number + 1}: to {storm['to']}, {'planned' if storm['how'].startswith('overlap') else 'break before make'}"


def _part(found, nodes):
    tables, goals, plots, data = [], [], [], {}
    for injector, storms in found.items():
        named = {_name(number, storm): storm for number, storm in enumerate(storms)}
        planned = [storm for storm in storms if storm["how"].startswith("overlap")]
        tables += [_times(injector, named, nodes), _loss(injector, named), _exact(injector, named), _used(injector, named)]
        goals += _goals(injector, planned, storms, nodes)
        plots.append(
            Plot.cumulative(f"storm-{injector}", f"{nodes:,} nodes move within {WITHIN} s ({injector} injector)", "s after the first one moves",
                            {f"{what}, {name}": Distribution(list(storm["stages"][stage].values())) for name, storm in named.items()
                             for what, stage in (("redirected", "redirecting"), ("anchored", "superseded")) if storm["stages"][stage]},
                            log_x=False)
        )  # fmt: skip
        data[injector] = [
            {key: storm[key] for key in ("to", "how", "ra_seconds", "solicited_again", "counts", "swarm", "flows")}
            | {"cpu": {" ".join(key): value for key, value in storm["cpu"].items()},
               "stages": {stage: Distribution(list(times.values())).summary() for stage, times in storm["stages"].items() if times}}
            for storm in storms
        ]  # fmt: skip
    return Part(
        title="Storm",
        method=(
            f"{nodes:,} mobile nodes, all on one link, move to the other AR within {WITHIN} s: there, back, there, and back with a break of "
            f"{GAP_MS} ms before the new link comes. {FLOWS} of them exchange {RATE} packets/s each way with a host in the core. When a stage "
            "was reached is taken from the LM's log. All nodes, routers, LM and host share the machine. Planned: both links are up, and the "
            f"old one stays for {OVERLAP_MS} ms after the new AR's RA."
        ),
        tables=tables, goals=goals, plots=plots, data=data,
        limits=(
            "the machine: LM, two speakers, three FRRs, the nodes and their host share its cores, see the CPU table. "
            "staticd's commit takes as long as its whole configuration is large."
        ),
    )  # fmt: skip


def _times(injector, named, nodes):
    labels = {"attach_committed": "attached (on the LM's disk)", "ra_sent": "new AR's RA", "redirecting": "redirected by the old AR",
              "advertised": "announced by the new AR", "superseded": "anchored: the old AR's bgpd prefers the new AR", "settled": "settled"}  # fmt: skip
    rows = []
    for name, storm in named.items():
        for stage, label in labels.items():
            times = list(storm["stages"][stage].values())
            rows.append([f"{name}: {label}", len(times), *(Distribution(times).cells() if times else ["-"] * 4)])
    return Table(f"When, in seconds after the first of {nodes:,} nodes moves ({injector})", ["storm and stage", "nodes", *SPREAD], rows)


def _loss(injector, named):
    rows = []
    for name, storm in named.items():
        for side in ("up", "down"):
            flows = [flow[side] for flow in storm["flows"]]
            gaps = Distribution([flow["longest_gap_ms"] for flow in flows])
            rows.append([f"{name}, {'from' if side == 'up' else 'to'} the nodes", sum(f["sent"] for f in flows), sum(f["lost"] for f in flows),
                         sum(f["lost"] > 0 for f in flows), sum(f["duplicated"] for f in flows), gaps.median, max(gaps.samples)])  # fmt: skip
    needed = max(storm["swarm"]["latest_on_old_link_ms"] for storm in named.values())
    overrun = sum(port["overrun"] for port in list(named.values())[-1]["swarm"]["ports"])
    return Table(f"Loss on {FLOWS} flows ({injector})",
                 ["storm and direction", "sent", "lost", "flows that lost", "copies", "longest gap, ms: median flow", "worst flow"], rows,
                 f"The last packet that came by an old link came {needed:.0f} ms after the new AR's RA: as long a node needs it. "
                 f"At the nodes' own sockets {overrun} frames were dropped.")  # fmt: skip


def _exact(injector, named):
    what = sorted({key for storm in named.values() for key in storm["counts"]} - {"/64s at the reflector by ar1", "/64s at the reflector by ar2"})
    rows = [[key, *("{}/{}".format(*storm["counts"][key]) for storm in named.values())] for key in what]
    by_anchor = ["/64s at the reflector by the AR where the nodes are"]
    by_anchor += ["{}/{}".format(*storm["counts"][f"/64s at the reflector by {storm['to']}"]) for storm in named.values()]
    return Table(f"What is there after each storm, of how many there have to be ({injector})", ["", *named], [by_anchor, *rows])


def _used(injector, named):
    keys = list(next(iter(named.values()))["cpu"])
    rows = [[" ".join(key), *(storm["cpu"][key] for storm in named.values()), list(named.values())[-1]["memory"][key]] for key in keys]
    return Table(f"CPU seconds of each process from the first node's move until all have settled, and memory in MiB after the last storm ({injector})",
                 ["process", *named, "MiB"], rows)  # fmt: skip


def _goals(injector, planned, storms, nodes):
    redirected = max(max(storm["stages"]["redirecting"].values(), default=float("inf")) for storm in planned)
    anchored = max(max(storm["stages"]["superseded"].values(), default=float("inf")) for storm in planned)
    lost = sum(flow[side]["lost"] for storm in planned for flow in storm["flows"] for side in ("up", "down"))
    wrong = [what for storm in storms for what, (has, wanted) in storm["counts"].items() if has != wanted]
    within = INJECTORS[injector]
    return [
        Goal(f"{injector}: {nodes:,} nodes that move within {WITHIN} s are all redirected {REDIRECTED_WITHIN} s later",
             f"{redirected:.2f} s after the first one moved", redirected <= WITHIN + REDIRECTED_WITHIN,
             "the CPU: see what each process used of it"),
        Goal(f"{injector}: all are anchored {within} s later", f"{anchored:.2f} s after the first one moved", anchored <= WITHIN + within,
             "the CPU: zebra, bgpd and, with the northbound injector, staticd"),
        Goal(f"{injector}: planned storms lose nothing on {FLOWS} flows", str(lost), lost == 0, "see the table"),
        Goal(f"{injector}: after each storm all tables are exact", f"{len(wrong)} wrong: {', '.join(wrong)}" if wrong else "all", not wrong, "-"),
    ]  # fmt: skip
