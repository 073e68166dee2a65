#!/usr/bin/python3
"""Kills each daemon (kill -9) at each stage of a move away from home and of the return, under a numbered flow, and tells for each what was lost
and how long it took until kernel, FRR and BGP held again what the bindings say.

A kill is aimed: the first frame that the mobile node sends on its new link is seen on the access router's own interface, and the daemon is killed
a time after it that lies within the stage in moves without a kill. What had really been reached is read from the daemons' logs afterwards. A pair
of daemon and stage that was missed is tried again.

Results are added to the file of --results, and pairs that it has already are not tried again, so that a long table can be made in slices:

  tests/lab/kill_table.py --seconds 280      as often as it says that pairs are left
  tests/lab/kill_table.py --show             prints the table"""

import argparse
import collections
import contextlib
import ctypes
import dataclasses
import datetime
import json
import os
import pathlib
import random
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import audit  # noqa: E402  pylint: disable=wrong-import-position
import daemons  # noqa: E402  pylint: disable=wrong-import-position
import scenario as scenarios  # noqa: E402  pylint: disable=wrong-import-position

HOME, AWAY = "ar1", "ar2"
CORE, LM, MN = "core", "lm", "mn1"
PORTS = {"ar1": "eth1", "ar2": "eth2"}
LOCATORS = {"ar1": "2001:db8:a1::1", "ar2": "2001:db8:a2::1"}
ACCESS_INTERFACE = "eth2"
MN_MAC = "02:00:00:00:00:11"
ETH_P_ALL, SO_TIMESTAMPNS = 3, 35
# Stage -> the daemon whose log tells of it, and the words of the line that does. "target" is the access router that the node moves to.
STAGES = {
    "MN heard": ("target", ("arrival", f"mn={MN_MAC}")),
    "attach committed": ("lm", ("attach_committed", "prefix={prefix}", "ar={target}")),
    "new AR delivers": ("target", ("programmed", "prefix={prefix}", "route=deliver")),
    "RA sent": ("target", ("ra_sent", f"mn={MN_MAC}", "prefixes=2")),
    "old AR redirects": ("origin", ("programmed", "prefix={prefix}", "route=redirect")),
    "FRR committed the /64": ("target", ("frr_committed", "removed=0")),
    "old AR's bgpd prefers": ("origin", ("superseded", "prefix={prefix}")),
    "old AR withdrew": ("lm", ("withdrawn", "prefix={prefix}", "ar={origin}")),
    "home AR withdrew": ("lm", ("withdrawn", "prefix={prefix}", "ar={target}")),
    "settled": ("lm", ("settled", "prefix={prefix}", "ar={target}")),
}
ONLY_HOME = {"old AR withdrew", "home AR withdrew"}
# At home already: what a return leaves to be done is done when the home AR has withdrawn.
DIRECTIONS = {"away": (HOME, AWAY), "home": (AWAY, HOME)}


def stages_of(direction):
    return [stage for stage in STAGES if direction == "home" or stage not in ONLY_HOME]


@dataclasses.dataclass(frozen=True)
class Victim:
    """Daemons that are killed together. `where`: a node, or "origin" or "target", the access routers that a node moves from and to."""

    name: str
    where: str
    daemons: tuple

    def node(self, direction):
        origin, target = DIRECTIONS[direction]
        return {"origin": origin, "target": target}.get(self.where, self.where)

    def restarted(self):
        """Which have to come back: watchfrr starts all of FRR anew when zebra is gone."""
        return daemons.FRR if "zebra" in self.daemons else self.daemons


def _victims():
    yield Victim("kedge-lm", LM, ("kedge-lm",))
    for where, label in (("origin", "old AR"), ("target", "new AR")):
        yield Victim(f"kedge-speaker, {label}", where, ("kedge-speaker",))
        for name in ("staticd", "bgpd", "zebra"):
            yield Victim(f"{name}, {label}", where, (name,))
        yield Victim(f"all of FRR, {label}", where, daemons.FRR)
    yield Victim("bgpd, reflector", CORE, ("bgpd",))


VICTIMS = {victim.name: victim for victim in _victims()}


# Aiming


class Port:
    """Sees what the mobile node sends on an access router's interface, on its arrival there."""

    def __init__(self, lab, ar):
        self._lab, self._mac = lab, bytes.fromhex(MN_MAC.replace(":", ""))
        opener = threading.Thread(target=self._open, args=(lab.lab.nodes[ar].pid,))
        opener.start()
        opener.join()

    def _open(self, pid):
        # Only this thread enters the namespace; a socket belongs to the one that it was made in.
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace, 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(namespace)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.bind((ACCESS_INTERFACE, ETH_P_ALL))

    def wait_for_node(self, seconds=10):
        """When its first frame was there, in monotonic nanoseconds."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                frame, ancillary, _, _ = self._socket.recvmsg(64, 64)
            except socket.timeout:
                break
            if frame[6:12] == self._mac:
                seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
                return seconds * 10**9 + nanoseconds - self._lab.wall_offset_ns
        raise scenarios.ScenarioError("the mobile node was not heard on its new link")

    def close(self):
        self._socket.close()


@contextlib.contextmanager
def ahead_of_all():
    """Nothing but the kernel keeps this thread from running."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def wait_until_ns(at):
    while (left := at - time.monotonic_ns()) > 0:
        if left > 2_000_000:
            time.sleep((left - 1_000_000) / 1e9)


# What happened


def _log_lines(lab, node, daemon):
    text = (lab.lab.node_folder(node) / "log" / "kedge" / f"{daemon}.log").read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        words = line.split()
        if len(words) > 2:
            yield words


def reached(lab, direction, prefix, since_ns):
    """Stage -> when it was first reached after a time, by the logs of those who did it; all in monotonic nanoseconds."""
    origin, target = DIRECTIONS[direction]
    nodes = {"lm": (LM, "kedge-lm"), "origin": (origin, "kedge-speaker"), "target": (target, "kedge-speaker")}
    lines = {who: list(_log_lines(lab, *where)) for who, where in nodes.items()}
    found = {}
    for stage in stages_of(direction):
        who, words = STAGES[stage]
        wanted = {word.format(prefix=prefix, origin=origin, target=target) for word in words}
        for line in lines[who]:
            if wanted.issubset(line):
                at = int(datetime.datetime.fromisoformat(line[0]).timestamp() * 1e6) * 1000 - lab.wall_offset_ns
                if at >= since_ns:
                    found[stage] = at
                    break
    return found


def stage_at(stages, at):
    """The last stage that had been reached, in the order of a move."""
    done = [stage for stage in STAGES if stages.get(stage, at + 1) <= at]
    return done[-1] if done else "before"


class Mover:
    """Moves the node with both links up until told otherwise, or for `overlap` ms after the RA."""

    def __init__(self, lab, direction, overlap=None):
        self._lab, self._origin, self._overlap = lab, DIRECTIONS[direction][0], overlap
        self._process = lab.start(MN, "move", DIRECTIONS[direction][1], "--overlap", 600_000 if overlap is None else overlap)

    def finish(self):
        """The old link is gone afterwards."""
        if self._overlap is None:
            scenarios.stop_process(self._process)
            self._lab.run(MN, "ip", "link", "set", PORTS[self._origin], "down")
        elif self._process.wait(timeout=60) != 0:
            raise scenarios.ScenarioError(f"move: {self._process.stderr.read()}")


def reflector_answers(lab):
    return daemons.ask(lab, CORE, "bgpd", "show version") is not None


def as_it_should_be(lab, prefix, target):
    """What is not, one line each."""
    if not reflector_answers(lab):
        return ["the reflector's bgpd does not answer"]
    found = audit.differences(lab, old_links_stay=True)
    if not found and lab.binding(prefix)["attached_ar"] != target:
        found = [f"{prefix}: not attached at {target}"]
    return found


def announced_as_it_should_be(lab, prefix):
    """What is not: FRR at the attached access router has the prefix at the binding's level, and the reflector prefers it."""
    if not reflector_answers(lab):
        return ["the reflector's bgpd does not answer"]
    answer = lab.run(LM, "kedgectl", "binding", prefix, "-o", "json", check=False)
    if answer.returncode != 0:
        return [f"the LM does not answer: {answer.stderr.strip()}"]
    binding = json.loads(answer.stdout)
    attached, level = binding.get("attached_ar"), binding.get("preference", 0)
    found = []
    if attached:
        statics = daemons.ask(lab, attached, "staticd", "show running-config")
        if statics is None or (f"ipv6 route {prefix} blackhole tag {level}" in statics) != (level > 0):
            found.append(f"{attached}'s staticd has {prefix} not at level {level}")
        best, wanted = lab.bgp_best(CORE, prefix), (LOCATORS[attached], 100 + level) if level else None
        if best != wanted:
            found.append(f"the reflector prefers {best} instead of {wanted} for {prefix}")
    return found


@dataclasses.dataclass
class Repair:
    """Since when, in monotonic nanoseconds, it has been right; None: it was not in time, and `wrong` says what."""

    announced: int = None
    complete: int = None
    wrong: list = dataclasses.field(default_factory=list)


def wait_repaired(lab, prefix, target, seconds=40):
    """Until all has been right for a while."""
    quiet_ns = 1_000_000_000
    deadline, repair = time.monotonic_ns() + int(seconds * 1e9), Repair()
    while True:
        begin = time.monotonic_ns()
        repair.wrong = announced_as_it_should_be(lab, prefix)
        repair.announced = None if repair.wrong else repair.announced or begin
        repair.wrong = repair.wrong or as_it_should_be(lab, prefix, target)
        repair.complete = None if repair.wrong else repair.complete or begin
        if repair.complete is not None and begin - repair.complete >= quiet_ns:
            return repair
        if begin > deadline:
            return repair
        time.sleep(0.02)


def wait_returned(lab, node, names, before, seconds=30):
    """When the last of the daemons ran again, in monotonic nanoseconds."""

    def back():
        now = daemons.pids(lab, node)
        return all(now.get(name) not in (None, before[name]) for name in names) and time.monotonic_ns()

    return scenarios.wait_until(f"{', '.join(names)} of {node} run again", back, seconds, interval=0.01)


@dataclasses.dataclass
class Kill:
    """One kill; times in monotonic nanoseconds."""

    victim: str
    direction: str
    stage: str
    heard: int
    killed: int
    returned: int
    repair: Repair
    # From before the move until its old link was gone and all was right.
    window: tuple
    stages: dict

    def record(self, flow=None):
        record = {
            "victim": self.victim, "direction": self.direction, "stage": self.stage,
            "killed_after_heard_ms": round((self.killed - self.heard) / 1e6, 3),
            "away_ms": round((self.returned - self.killed) / 1e6, 1),
            "announced_ms": self._after_return_ms(self.repair.announced),
            "complete_ms": self._after_return_ms(self.repair.complete),
            "wrong": self.repair.wrong,
            "stages_ms": {stage: round((at - self.heard) / 1e6, 3) for stage, at in self.stages.items()},
        }  # fmt: skip
        if flow is not None:
            report = flow.report(self.window)
            for name, side in (("down", "a_to_b"), ("up", "b_to_a")):
                record[f"lost_{name}"] = report[side]["lost"]
                record[f"gap_{name}_ms"] = round(report[side]["longest_gap_ms"], 1)
                record[f"send_gap_{name}_ms"] = round(report[side]["longest_send_gap_ms"], 1)
                record[f"losses_{name}"] = [
                    (round((report["base_ns"] - self.killed) / 1e6 + loss["sent_at_ms"], 1), loss["count"]) for loss in report[side]["losses"]
                ]
        return record

    def _after_return_ms(self, at):
        return None if at is None else max(0, round((at - self.returned) / 1e6, 1))


def kill_during_move(lab, prefix, victim, direction, delay_ms, overlap=None):
    """A move of the node, which is at the direction's origin with all at rest, and the kill some time after it was heard on its new link. Waits
    until all is right again."""
    node, target = victim.node(direction), DIRECTIONS[direction][1]
    before = daemons.pids(lab, node)
    port = Port(lab, target)
    begin = time.monotonic_ns()
    mover = Mover(lab, direction, overlap)
    victims = [before[name] for name in victim.daemons]
    with ahead_of_all():
        heard = port.wait_for_node()
        wait_until_ns(heard + int(delay_ms * 1e6))
        killed = daemons.kill(victims)
    port.close()
    returned = wait_returned(lab, node, victim.restarted(), before)
    repair = wait_repaired(lab, prefix, target)
    mover.finish()
    repair.wrong = repair.wrong or wait_repaired(lab, prefix, target).wrong
    stages = reached(lab, direction, prefix, begin)
    return Kill(victim.name, direction, stage_at(stages, killed), heard, killed, returned, repair, (begin, time.monotonic_ns()), stages)


def unharmed_move(lab, prefix, direction):
    """Stage -> milliseconds after the node was heard, in a move without a kill."""
    port = Port(lab, DIRECTIONS[direction][1])
    begin = time.monotonic_ns()
    mover = Mover(lab, direction)
    heard = port.wait_for_node()
    port.close()
    wrong = wait_repaired(lab, prefix, DIRECTIONS[direction][1]).wrong
    mover.finish()
    wrong = wrong or wait_repaired(lab, prefix, DIRECTIONS[direction][1]).wrong
    if wrong:
        raise scenarios.ScenarioError(f"a move without a kill went wrong: {wrong}")
    return {stage: (at - heard) / 1e6 for stage, at in reached(lab, direction, prefix, begin).items()}


# The table


class Aim:
    """When a stage is under way, learnt from moves that were not disturbed before it, and from misses."""

    def __init__(self, seed):
        self._times = collections.defaultdict(list)
        self._correction = collections.defaultdict(float)
        self._draw = random.Random(seed)

    def choose(self, pairs):
        return self._draw.choice(pairs)

    def learn(self, direction, stages_ms):
        for stage, ms in stages_ms.items():
            self._times[direction, stage].append(ms)

    def delay_ms(self, direction, stage):
        """Some time within the stage: after it was reached and before the next one usually is."""
        stages = stages_of(direction)
        usual = [statistics.median(self._times[direction, one]) for one in stages]
        number = stages.index(stage)
        begin, later = usual[number], [ms for ms in usual[number + 1 :] if ms > usual[number]]
        end = min(later) if later else begin + 50
        return max(0.0, begin + self._draw.uniform(0.1, 0.9) * (end - begin) + self._correction[direction, stage])

    def correct(self, kill, aimed):
        """Learns from a kill: what came before it, and whether it was too early or too late for the stage."""
        self.learn(kill.direction, {stage: (at - kill.heard) / 1e6 for stage, at in kill.stages.items() if at <= kill.killed})
        order = ["before", *STAGES]
        missed_by = order.index(aimed) - order.index(kill.stage)
        if missed_by != 0:
            self._correction[kill.direction, aimed] += 0.3 if missed_by > 0 else -0.3


class Table:
    def __init__(self, path):
        self.path = path
        self.kills = json.loads(path.read_text(encoding="utf-8"))["kills"] if path.exists() else []

    def add(self, records):
        self.kills += records
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"kills": self.kills}, indent=1), encoding="utf-8")
        new.replace(self.path)

    def missing(self, victims, tries):
        """Pairs that have no kill yet and are to be tried: at most so many times as many kills as there are stages, for each daemon."""
        found = []
        for direction in DIRECTIONS:
            for name in victims:
                had = [kill["stage"] for kill in self.kills if (kill["victim"], kill["direction"]) == (name, direction)]
                stages = stages_of(direction)
                if len(had) < tries * len(stages):
                    found += [(name, direction, stage) for stage in stages if stage not in had]
        return found

    def lines(self):
        yield "| daemon killed | move | stage reached | kills | lost down / up | longest gap, ms | daemon away, ms | announced, ms | all right, ms | end state |"
        yield "|---|---|---|---|---|---|---|---|---|---|"
        for name in [victim for victim in VICTIMS if any(kill["victim"] == victim for kill in self.kills)]:
            for direction in DIRECTIONS:
                for stage in ["before", *stages_of(direction)]:
                    kills = [k for k in self.kills if (k["victim"], k["direction"], k["stage"]) == (name, direction, stage)]
                    if kills:
                        yield self._line(name, direction, stage, kills)
                    elif stage != "before":
                        yield f"| {name} | {direction} | {stage} | 0 | not hit | | | | | |"

    @staticmethod
    def _line(name, direction, stage, kills):
        def most(*keys):
            values = [kill[key] for kill in kills for key in keys if kill[key] is not None]
            return f"{max(values):.0f}" if values else "-"

        right = all(not kill["wrong"] for kill in kills)
        return (
            f"| {name} | {direction} | {stage} | {len(kills)} | {most('lost_down')} / {most('lost_up')} | {most('gap_down_ms', 'gap_up_ms')} | "
            f"{most('away_ms')} | {most('announced_ms')} | {most('complete_ms')} | {'right' if right else 'WRONG'} |"
        )


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--victim", action="append", choices=list(VICTIMS), help="only this one; may be given several times")
    parser.add_argument("--overlap", type=float, metavar="MS", help="the old link goes so long after the RA (default: it stays until all is right)")
    parser.add_argument("--tries", type=int, default=3, help="kills for each stage at most, on average of a daemon's stages (default: 3)")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no further kill after so long")
    parser.add_argument("--rate", type=int, default=1000, help="packets per second in each direction (default: 1000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--results", type=pathlib.Path, default=scenarios.REPOSITORY / "build" / "kill-table.json", help="(default: build/kill-table.json)"
    )
    parser.add_argument("--show", action="store_true", help="print the table of the results and end")
    return parser.parse_args()


def run(lab, arguments, table, folder):
    """Kills until the time is over or nothing is missing. Results count once the flow has ended, which knows of the losses."""
    lab.wait_synced()
    prefix = lab.prefix_of(lab.mn_address())
    audit.audit(lab)
    aim, kills = Aim(arguments.seed + len(table.kills)), []
    deadline = time.monotonic() + arguments.seconds
    for direction in ("away", "home") * 2:
        aim.learn(direction, unharmed_move(lab, prefix, direction))
    flow = scenarios.Flow(lab, folder, rate=arguments.rate)
    seen = Table(arguments.results)
    at = "away"
    try:
        while time.monotonic() < deadline:
            missing = [pair for pair in seen.missing(arguments.victim or VICTIMS, arguments.tries)]
            if not missing:
                break
            here = [pair for pair in missing if pair[1] == at]
            if not here:
                aim.learn(at, unharmed_move(lab, prefix, at))
            else:
                name, _, stage = aim.choose([pair for pair in here if pair[0] == here[0][0]])
                kill = kill_during_move(lab, prefix, VICTIMS[name], at, aim.delay_ms(at, stage), arguments.overlap)
                aim.correct(kill, stage)
                kills.append(kill)
                seen.kills.append({"victim": name, "direction": at, "stage": kill.stage})
                print(f"{name}, {at}: aimed at '{stage}', killed at '{kill.stage}'{': WRONG: ' + '; '.join(kill.repair.wrong) if kill.repair.wrong else ''}", flush=True)
                if kill.repair.wrong:
                    break
            at = "home" if at == "away" else "away"
        flow.stop()
    finally:
        flow.abort()
        table.add([kill.record(flow) for kill in kills if all((folder / end).exists() for end in ("cn.json", "mn.json"))])


def main():
    arguments = parse()
    table = Table(arguments.results)
    if not arguments.show:
        with tempfile.TemporaryDirectory(prefix="kedge-kills-") as folder:
            with scenarios.lab_up(scenarios.REPOSITORY / "containerlab" / "handover", name=f"kills-{os.getpid()}") as lab:
                run(lab, arguments, table, pathlib.Path(folder))
        left = len(table.missing(arguments.victim or VICTIMS, arguments.tries))
        print(f"{len(table.kills)} kills; {left} pairs of daemon and stage left")
    with contextlib.suppress(BrokenPipeError):
        print("\n".join(table.lines()))


if __name__ == "__main__":
    main()
