"""A storm: thousands of mobile nodes on one link move to another access router within a second, and back, and there again."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import time

import audit
import daemons
import scenario as scenarios
import swarms
from processes import BenchError, CpuSamples, resident_mib
from report import SPREAD, Distribution, Goal, Part, Plot, Table, number

CORES = os.cpu_count()
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
    "core": ["zebra", "bgpd"], "swarm": ["mn_swarm"], "cn": ["mn_swarm"],
}  # fmt: skip
# Who would have a machine of its own in a network: label -> node. What is left are the mobile nodes, their host, and the benchmark.
ROLES = {"LM": "lm", "AR1": "ar1", "AR2": "ar2", "reflector": "core"}
# Stage that has a goal -> what it is called.
MILESTONES = {"redirecting": "redirected", "superseded": "anchored"}
# The benchmark itself, which looks on: its key among the processes.
OBSERVER = ("bench", "python")
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
        pids = {**self.pids, OBSERVER: os.getpid()}
        with CpuSamples(pids) as samples:
            arrived = self.swarm.ask(f"move {target} {self.nodes} within {WITHIN} {how}", "arrived", 120)
            self._wait_settled()
        self.at = target
        begin, end = arrived["begun_ns"], time.monotonic_ns()
        stages = self.log.stages(source, target, begin)
        reached = {stage: max(stages[stage].values(), default=0) for stage in MILESTONES}
        # Those that were gone from their old link before they were redirected are told by the swarm.
        swarm = self.swarm.ask(f"report {self.scratch / 'nodes'}", "report")
        found = {
            "to": target, "how": how, "window": (begin, end), "ra_ms": arrived["waited_ms"],
            "solicited_again": arrived["solicited_again"], "ra_seconds": (arrived["last_ns"] - begin) / 1e9,
            "stages": stages, "swarm": swarm, "used": samples.used(begin, end), "reached": reached,
            "used_until": {stage: samples.used(begin, begin + int(seconds * 1e9)) for stage, seconds in reached.items()},
            "memory": {key: resident_mib(pid) for key, pid in pids.items()},
            "missing": {stage: self.nodes - len(stages[stage]) for stage in MILESTONES},
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
            # Each takes up room that the next hops of the uplink need.
            found[f"{ar}: neighbours that the kernel has learnt on the access link"] = (len(audit.passing_neighbours(self.lab, ar)), 0)
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
    wanted = os.environ.get("KEDGE_STORM_INJECTORS", "").split() or list(INJECTORS)
    if unknown := [name for name in wanted if name not in INJECTORS]:
        raise BenchError(f"KEDGE_STORM_INJECTORS: {', '.join(unknown)}; there are: {', '.join(INJECTORS)}")
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
    tables, goals, plots, data, limits = [], [], [], {}, []
    for injector, storms in found.items():
        named = {_name(number, storm): storm for number, storm in enumerate(storms)}
        planned = {name: storm for name, storm in named.items() if storm["how"].startswith("overlap")}
        milestones = [Milestone.slowest(stage, planned, nodes, WITHIN + within)
                      for stage, within in (("redirecting", REDIRECTED_WITHIN), ("superseded", INJECTORS[injector]))]  # fmt: skip
        tables += [_times(injector, named, nodes), _loss(injector, named), _exact(injector, named), _used(injector, named),
                   _until(injector, milestones), _roles(injector, milestones)]  # fmt: skip
        goals += _goals(injector, planned, storms, milestones)
        limits += [f"{injector.capitalize()} injector. {'. '.join(milestone.limit() for milestone in milestones)}. {_losses(storms)}"]
        plots.append(
            Plot.cumulative(f"storm-{injector}", f"{nodes:,} nodes move within {WITHIN} s ({injector} injector)", "s after the first one moves",
                            {f"{what}, {name}": Distribution(list(storm["stages"][stage].values())) for name, storm in named.items()
                             for stage, what in MILESTONES.items() if storm["stages"][stage]},
                            log_x=False)
        )  # fmt: skip
        data[injector] = [
            {key: storm[key] for key in ("to", "how", "ra_seconds", "solicited_again", "counts", "swarm", "flows", "reached")}
            | {"cpu": _in_words(storm["used"]), "cpu_until": {stage: _in_words(used) for stage, used in storm["used_until"].items()},
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
        tables=tables, goals=goals, plots=plots, data=data, limits=" ".join(limits),
    )  # fmt: skip


def _in_words(used):
    return {f"{' '.join(key) if isinstance(key, tuple) else key}, {what}": seconds for (what, key), seconds in used.items()}


@dataclasses.dataclass(frozen=True)
class Milestone:
    """What was used of the CPUs from the first move until the last node had reached a stage, in the planned storm in which that took longest."""

    label: str
    storm: str
    seconds: float
    # Nodes that have never reached it.
    missing: int
    goal: float
    nodes: int
    used: dict

    @classmethod
    def slowest(cls, stage, planned, nodes, goal):
        name = max(planned, key=lambda name: (planned[name]["missing"][stage], planned[name]["reached"][stage]))
        storm = planned[name]
        return cls(MILESTONES[stage], name, storm["reached"][stage], storm["missing"][stage], goal, nodes, storm["used_until"][stage])

    @property
    def available(self):
        """Core-seconds."""
        return CORES * self.seconds

    def of_role(self, role):
        """Core-seconds of all processes, and of the thread that had most of them: a process's main thread."""
        node = ROLES[role]
        threads = {key: used for (what, key), used in self.used.items() if what == "main thread" and key[0] == node}
        busiest = max(threads, key=threads.get)
        return sum(used for (what, key), used in self.used.items() if what == "all" and key[0] == node), threads[busiest], busiest[1]

    def alone(self, role):
        """How many seconds the role needs at least, if it has as many cores as this machine, and nobody else."""
        every, thread, _ = self.of_role(role)
        return max(every / CORES, thread)

    def rest(self):
        """What no process that was looked at has used."""
        return max(0, self.used["machine", "busy"] - sum(used for (what, _), used in self.used.items() if what == "all"))

    def shortly(self):
        role = max(ROLES, key=self.alone)
        return (f"the CPU: {self.used['machine', 'busy']:.1f} of {self.available:.1f} core-seconds were used; with a machine for each role "
                f"{role} alone takes {self.alone(role):.1f} s of {self.goal:g} s")  # fmt: skip

    def limit(self):
        role = max(ROLES, key=self.alone)
        _, thread, busiest = self.of_role(role)
        free = ", ".join(f"{self.used['machine', kind]:.1f} {label}" for kind, label in (("idle", "idle"), ("iowait", "waiting for the disk"),
                                                                                         ("steal", "taken by the host")))  # fmt: skip
        roles = sum(self.of_role(role)[0] for role in ROLES)
        faster = self.alone(role) / self.goal
        verdict = f"for the goal it needs a machine {faster:.1f} times as fast" if faster > 1 else "the goal leaves it more"
        return (
            f"Until the last node was {self.label}, {self.seconds:.1f} s, {self.used['machine', 'busy']:.1f} of {self.available:.1f} core-seconds "
            f"were used ({free}), {roles:.1f} by Kedge and FRR; the goal's {self.goal:g} s have {CORES * self.goal:g}. With a machine like this one for "
            f"each role, {role} would need {self.alone(role):.1f} s at least: {self.of_role(role)[0]:.1f} core-seconds, of which {busiest}'s main "
            f"thread had {thread:.1f}; {verdict}"
        )


def _until(injector, milestones):
    """Of the CPUs, until the last node was redirected, and anchored."""
    def cells(milestone, key):
        every, thread = milestone.used["all", key], milestone.used["main thread", key]
        return [every, thread, 1e6 * every / milestone.nodes]

    keys = [key for what, key in milestones[0].used if what == "all"]
    rows = [[" ".join(key), *(cell for milestone in milestones for cell in cells(milestone, key))] for key in keys]
    for label, value in (("all others, and the kernel's own threads", Milestone.rest), ("idle", lambda m: m.used["machine", "idle"]),
                         ("waiting for the disk", lambda m: m.used["machine", "iowait"]),
                         ("taken by the machine's host", lambda m: m.used["machine", "steal"]), ("there were", lambda m: m.available)):
        rows.append([label, *(cell for milestone in milestones for cell in (value(milestone), "", 1e6 * value(milestone) / milestone.nodes))])
    columns = [f"{m.label}: {what}" for m in milestones for what in ("core-seconds", "main thread", "µs a node")]
    slowest = "; ".join(f"{m.label} after {number(m.seconds)} s in storm {m.storm}" for m in milestones)
    return Table(f"CPU from the first node's move until the last one was {' and '.join(m.label for m in milestones)} ({injector})",
                 ["", *columns], rows, f"In the planned storm in which that took longest: {slowest}. Processes are read every 100 ms. Work on later "
                 "stages of other nodes, done by then, counts as well.")  # fmt: skip


def _roles(injector, milestones):
    rows = []
    for role in ROLES:
        row = [role]
        for milestone in milestones:
            every, thread, name = milestone.of_role(role)
            row += [every, f"{number(thread)} ({name})", milestone.alone(role), every / milestone.goal]
        rows.append(row)
    columns = [f"{m.label}: {what}" for m in milestones
               for what in ("core-seconds", "busiest main thread", f"s alone on {CORES} cores, at least", f"cores for {m.goal:g} s")]  # fmt: skip
    return Table(f"What each role would need on a machine of its own ({injector})", ["role", *columns], rows,
                 "From the table above. What one thread does takes as long on any number of cores; that roles wait for each other comes on top.")


def _losses(storms):
    """What the sampled flows have lost, by kind of storm and direction."""
    told = []
    for kind, how in (("planned", "overlap"), ("break before make", "gap")):
        flows = [flow for storm in storms if storm["how"].startswith(how) for flow in storm["flows"]]
        both = [f"{sum(flow[side]['lost'] for flow in flows):,} of {sum(flow[side]['sent'] for flow in flows):,} packets {words}"
                for side, words in (("up", "from the nodes"), ("down", "to the nodes"))]  # fmt: skip
        told.append(f"{kind}: {' and '.join(both)}")
    return f"Lost, {'; '.join(told)}."


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
    keys = [key for what, key in next(iter(named.values()))["used"] if what == "all"]
    rows = [[" ".join(key), *(storm["used"]["all", key] for storm in named.values()), list(named.values())[-1]["memory"][key]] for key in keys]
    return Table(f"CPU seconds of each process from the first node's move until all have settled, and memory in MiB after the last storm ({injector})",
                 ["process", *named, "MiB"], rows)  # fmt: skip


def _goals(injector, planned, storms, milestones):
    redirected, anchored = milestones
    lost = sum(flow[side]["lost"] for storm in planned.values() for flow in storm["flows"] for side in ("up", "down"))
    wrong = [what for storm in storms for what, (has, wanted) in storm["counts"].items() if has != wanted]
    return [
        Goal(f"{injector}: {redirected.nodes:,} nodes that move within {WITHIN} s are all redirected {REDIRECTED_WITHIN} s later",
             *_reached(redirected)),
        Goal(f"{injector}: all are anchored {INJECTORS[injector]} s later", *_reached(anchored)),
        Goal(f"{injector}: planned storms lose nothing on {FLOWS} flows", str(lost), lost == 0, _losses(storms)),
        Goal(f"{injector}: after each storm all tables are exact", f"{len(wrong)} wrong: {', '.join(wrong)}" if wrong else "all", not wrong, "-"),
    ]  # fmt: skip


def _reached(milestone):
    """Seen, met, what limits it."""
    if not milestone.seconds:
        return f"none was {milestone.label}", False, "see the log of the LM"
    if milestone.missing:
        return f"{milestone.missing:,} of {milestone.nodes:,} were never {milestone.label}", False, "see the log of the LM"
    return f"{milestone.seconds:.2f} s after the first one moved", milestone.seconds <= milestone.goal, milestone.shortly()
