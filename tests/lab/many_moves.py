#!/usr/bin/python3
"""Moves the lab's mobile node many times under a flow between access routers; reports the loss of each move and where in its time line it fell,
checks that no redirect was programmed before its target delivered, and that at the end kernel, FRR and BGP hold what the bindings say and nothing
else. Between more than two access routers each move goes to one drawn by lot.

Example: tests/lab/many_moves.py --moves 200 [--gap 0] [--topology three-routers]"""

import argparse
import collections
import datetime
import json
import os
import pathlib
import random
import statistics
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import audit  # noqa: E402  pylint: disable=wrong-import-position
import order  # noqa: E402  pylint: disable=wrong-import-position
import scenario as scenarios  # noqa: E402  pylint: disable=wrong-import-position


PEERS = {"cn": scenarios.CN_ADDRESS, "cn2": "2001:db8:0:5::2"}


def losses_of(flow, move):
    """(direction, milliseconds after the first link change, packets) of each run of losses in the move's window."""
    report = flow.report(move["window"])
    origin = move["events"][0]["ns"]
    return report, [
        (name, round((report["base_ns"] - origin) / 1e6 + loss["sent_at_ms"], 1), loss["count"])
        for name, side in (("cn>mn", "a_to_b"), ("mn>cn", "b_to_a"))
        for loss in report[side]["losses"]
    ]


class CoreRoutes:
    """When the kernels of the core routers changed a prefix's route, by `ip monitor`."""

    def __init__(self, lab, cores, prefix):
        self._lab, self._prefix = lab, prefix
        self._processes = {core: lab.start(core, "stdbuf", "-oL", "ip", "-6", "-ts", "monitor", "route") for core in cores}
        self._changes = {}

    def stop(self):
        for core, process in self._processes.items():
            process.terminate()
            # [2026-01-31T12:00:00.123456] [Deleted] PREFIX nhid 7 via ADDRESS dev INTERFACE ...
            lines = (line.split() for line in process.communicate(timeout=10)[0].splitlines())
            self._changes[core] = [
                (int(datetime.datetime.fromisoformat(words[0].strip("[]")).timestamp() * 1e9) - self._lab.wall_offset_ns, words[1:])
                for words in lines if self._prefix in words
            ]  # fmt: skip

    def first(self, core, move):
        """Milliseconds after the move's first link change until the core's first change of the route; None when there was none."""
        origin = move["events"][0]["ns"]
        return next(((at - origin) / 1e6 for at, _ in self._changes[core] if origin <= at < move["window"][1]), None)


def targets(routers, moves, seed):
    """Where to go, one for each move; the mobile node starts at the first."""
    draw = random.Random(seed)
    at = routers[0]
    for _ in range(moves):
        at = draw.choice([router for router in routers if router != at])
        yield at


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="handover", help="folder in containerlab/ (default: handover)")
    parser.add_argument("--moves", type=int, default=200)
    parser.add_argument("--gap", type=float, help="break before make with this gap in ms (default: planned moves)")
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--peer", choices=list(PEERS), default="cn", help="the flow's other end (default: cn)")
    parser.add_argument("--seed", type=int, default=1, help="for where to go (default: 1)")
    parser.add_argument("--bgpd-hold", metavar="MS", help="bgpd of all routers with our module and this hold (default: bgpd as it comes)")
    return parser.parse_args()


def main():
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="kedge-moves-") as folder:
        topology = scenarios.REPOSITORY / "containerlab" / arguments.topology
        environment = {} if arguments.bgpd_hold is None else {"KEDGE_BGPD_HOLD": arguments.bgpd_hold}
        with scenarios.lab_up(topology, f"moves-{os.getpid()}", environment) as lab:
            lab.wait_synced()
            cores = [node for node in lab.nodes() if node.startswith("core")]
            events = scenarios.Events(lab)
            prefix = lab.prefix_of(lab.mn_address())
            flow = scenarios.Flow(lab, folder, rate=arguments.rate, peer=arguments.peer, peer_address=PEERS[arguments.peer])
            core_routes = CoreRoutes(lab, cores, prefix)
            moves = []
            try:
                for target in targets(lab.access_routers(), arguments.moves, arguments.seed):
                    moves.append({"to": target, **lab.move(events, target, prefix, arguments.gap)})
                flow.stop()
            except BaseException:
                flow.abort()
                raise
            checked = order.check_order(events.all(), prefix)
            show(flow, moves)
            core_routes.stop()
            for to in sorted({move["to"] for move in moves}):
                for core in cores:
                    found = [ms for move in moves if move["to"] == to and (ms := core_routes.first(core, move)) is not None]
                    if found:
                        print(f"  moves to {to}: {core}'s kernel changes the route after {statistics.median(found):.1f} ms (median of {len(found)})")
            print(f"redirects checked: {checked}, none was programmed before its target delivered")
            held = lab.binding(prefix)
            print("end state:", held["state"], "at", held["attached_ar"], "holders", [h["ar"] for h in held["holders"]])
            for core in cores:
                audit.audit(lab, core=core)
            print(f"kernel, FRR and the BGP tables of {', '.join(cores)} are exactly as the bindings say")


def show(flow, moves):
    total = collections.Counter()
    stages = collections.defaultdict(list)
    gaps, send_gaps = [], []
    early = 0
    lost_towards = collections.defaultdict(list)
    for number, move in enumerate(moves):
        report, losses = losses_of(flow, move)
        gaps.append(max(report[side]["longest_gap_ms"] for side in ("a_to_b", "b_to_a")))
        send_gaps.append(max(report[side]["longest_send_gap_ms"] for side in ("a_to_b", "b_to_a")))
        heard = [step["ns"] for step in move["events"] if step["event"] == "ra_heard"]
        early += bool(heard) and (heard[0] - move["events"][0]["ns"]) / 1e6 < (move["timeline"]["deliver_programmed"] or 0)
        lost_towards[move["to"]].append(report["a_to_b"]["lost"])
        for name, side in (("cn>mn", "a_to_b"), ("mn>cn", "b_to_a")):
            total[name + " sent"] += report[side]["sent"]
            total[name + " lost"] += report[side]["lost"]
        for stage, ms in move["timeline"].items():
            if ms is not None:
                stages[stage].append(ms)
        if losses:
            print(f"move {number} to {move['to']}: lost {losses}; {json.dumps(move['timeline'])}")
    print(f"{len(moves)} moves:", dict(total))
    print(f"longest gap of a move: median {statistics.median(gaps):.1f} ms, most {max(gaps):.1f} ms")
    print(f"longest pause of a sender itself: {max(send_gaps):.1f} ms")
    print(f"router advertisements heard before the access router delivered: {early}")
    for router, values in sorted(lost_towards.items()):
        print(f"  cn>mn, moves to {router}: n={len(values)} lost min {min(values)} median {statistics.median(values)} max {max(values)}")
    for stage, values in stages.items():
        print(f"  {stage:20} n={len(values):4} min {min(values):8.2f}  median {statistics.median(values):8.2f}  max {max(values):8.2f} ms")


if __name__ == "__main__":
    main()
