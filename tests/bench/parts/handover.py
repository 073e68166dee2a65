"""Moves of one mobile node under a flow of 1,000 packets/s each way: by Kedge, by Kedge without its redirection (BGP alone), and by what an
operator would write instead, a script at each access router that calls vtysh on link events."""

import contextlib
import json
import os
import statistics
import time

import scenario as scenarios
from report import SPREAD, Distribution, Goal, Part, Plot, Table

TOPOLOGY = scenarios.REPOSITORY / "containerlab" / "handover"
RATE = 1000
PLANNED, BREAK, BGP_ONLY, SCRIPT = "planned", "break before make", "break before make, BGP alone", "break before make, vtysh script"

# What a script can do: the /64 is the interface's for as long as its link is up.
_SCRIPT = """
stdbuf -oL ip -o monitor link dev eth2 | while read -r line; do
    case $line in
        *LOWER_UP*) vtysh -c 'configure terminal' -c "ipv6 route $1 $2 eth2 tag 1" ;;
        *) vtysh -c 'configure terminal' -c "no ipv6 route $1 $2 eth2 tag 1" ;;
    esac
done
"""


def _other(ar):
    return "ar1" if ar == "ar2" else "ar2"


class KedgeLab:
    """The lab as it is."""

    def __init__(self, lab):
        self._lab, self._events = lab, scenarios.Events(lab)
        self.address = lab.mn_address()
        self._prefix = lab.prefix_of(self.address)

    def move(self, gap_ms):
        target = _other(self._lab.binding(self._prefix)["attached_ar"])
        return {"to": target, **self._lab.move(self._events, target, self._prefix, gap_ms)}

    def redirection(self, on):
        self._lab.restart_speakers("" if on else "kernel:\n  redirection: false\n")


class ScriptLab:
    """The lab with its speakers stopped and all that they had put into kernels gone; scripts do the work."""

    def __init__(self, lab):
        self._lab = lab
        self.address = lab.mn_address()
        prefix, self._at = lab.prefix_of(self.address), "ar1"
        self._prefix = prefix
        link = json.loads(lab.output("mn1", "ip", "-j", "-6", "address", "show", "dev", "br0", "scope", "link"))
        link_local = next(a["local"] for part in link for a in part.get("addr_info", []) if "local" in a)
        for ar in ("ar1", "ar2"):
            lab.kill(ar, "kedge-speaker", "STOP")
            for rule in json.loads(lab.output(ar, "ip", "-j", "-6", "rule")):
                if 880 <= rule["priority"] < 900:
                    lab.run(ar, "ip", "-6", "rule", "delete", "priority", rule["priority"])
            for words in (line.split() for line in lab.output(ar, "nft", "list", "tables").splitlines()):
                if words[2].startswith("kedge"):
                    lab.run(ar, "nft", "delete", *words)
            lab.start(ar, "sh", "-c", _SCRIPT, "sh", prefix, link_local)
        lab.run("ar1", "vtysh", "-c", "configure terminal", "-c", f"ipv6 route {prefix} {link_local} eth2 tag 1")
        self._wait_at("ar1")

    def _wait_at(self, ar):
        locator = {"ar1": "2001:db8:a1::1", "ar2": "2001:db8:a2::1"}[ar]
        scenarios.wait_until(f"the core's best path is {ar}'s", lambda: (self._lab.bgp_best("core", self._prefix) or [None])[0] == locator)

    def move(self, flow):
        target = _other(self._at)
        begin = time.monotonic_ns()
        self._lab.run("mn1", "move", target, "--gap", 0, "--no-rs", "--wait", 0)
        self._wait_at(target)
        flow.wait_for_traffic()
        self._at = target
        return {"to": target, "window": (begin, time.monotonic_ns()), "timeline": {}}


def _measure(lab, folder, address, moves, one_move):
    """Makes the moves under one flow; gives each with what it lost each way and its longest gap."""
    flow = scenarios.Flow(lab, folder, mn_address=address, rate=RATE)
    made = []
    try:
        for _ in range(moves):
            made.append(one_move(flow))
        flow.stop()
    except BaseException:
        flow.abort()
        raise
    for move in made:
        report = flow.report(move["window"])
        sides = (report["a_to_b"], report["b_to_a"])
        move.update(
            down=sides[0]["lost"], up=sides[1]["lost"], sent=sum(side["sent"] for side in sides),
            gap=max(side["longest_gap_ms"] for side in sides), send_gap=max(side["longest_send_gap_ms"] for side in sides),
        )  # fmt: skip
    return made


def run(bench):
    rounds, moves = bench.samples((4, 25), (1, 3))
    found = {name: [] for name in (PLANNED, BREAK, BGP_ONLY, SCRIPT)}
    with contextlib.ExitStack() as stack:
        # One after the other: each needs the machine to itself while it starts.
        labs = [stack.enter_context(scenarios.lab_up(TOPOLOGY, name=f"bench-{kind}-{os.getpid()}")) for kind in ("kedge", "script")]
        for lab in labs:
            lab.wait_synced()
        kedge, script = KedgeLab(labs[0]), ScriptLab(labs[1])
        for number in range(rounds):
            bench.say(f"round {number + 1} of {rounds}")
            for name, gap in ((PLANNED, None), (BREAK, 0), (BGP_ONLY, 0)):
                if name == BGP_ONLY:
                    kedge.redirection(False)
                folder = bench.scratch / f"{name}-{number}".replace(" ", "-")
                found[name] += _measure(labs[0], folder, kedge.address, moves, lambda _flow, gap=gap: kedge.move(gap))
            kedge.redirection(True)
            found[SCRIPT] += _measure(labs[1], bench.scratch / f"script-{number}", script.address, moves, script.move)
    return _part(found)


def _part(found):
    loss = {name: Distribution([m["down"] + m["up"] for m in moves]) for name, moves in found.items()}
    gaps = {name: Distribution([m["gap"] for m in moves]) for name, moves in found.items()}
    sent = {name: sum(m["sent"] for m in moves) for name, moves in found.items()}
    script = loss[SCRIPT].median
    tables = [
        Table("Packets lost in a move, both directions together", ["move", "moves", "sent", *SPREAD, "all", "script / this"],
              [[name, len(found[name]), sent[name], *d.cells(), sum(d.samples), "-" if not d.median else f"{script / d.median:.1f}x"]
               for name, d in loss.items()],
              f"{RATE} packets/s each way. A break-before-make move takes the old link away and brings the new one at once."),
        Table("Longest gap between two packets that arrived, ms", ["move", *SPREAD],
              [[name, *d.cells()] for name, d in gaps.items()],
              f"The sender's own longest gaps were {max(m['send_gap'] for moves in found.values() for m in moves):.1f} ms."),
        _stages(found),
    ]  # fmt: skip
    planned, broken = loss[PLANNED], loss[BREAK]
    goals = [
        Goal("planned moves lose nothing", f"{sum(planned.samples)} of {sent[PLANNED]:,}", sum(planned.samples) == 0, "see the table"),
        Goal("break before make: 10 packets or fewer each way (median)", f"{broken.median:.0f} both ways", broken.median <= 20,
             "the time until the MN is heard and the two kernels are programmed"),
    ]  # fmt: skip
    plot = Plot.cumulative("handover-loss", "Packets lost in a move (1,000 packets/s each way)", "packets lost + 1",
                           {name: Distribution([x + 1 for x in d.samples]) for name, d in loss.items()})  # fmt: skip
    gap_plot = Plot.cumulative("handover-gap", "Longest gap of a move", "ms", gaps)
    data = {name: [{key: m[key] for key in ("to", "down", "up", "gap", "timeline")} for m in moves] for name, moves in found.items()}
    return Part(
        title="Handover",
        method=(
            "One MN moves to and fro between two ARs with a route reflector between them; each kind of move takes its turn in every round. "
            "`vtysh script`: Kedge is off, a script at each AR adds and removes the /64 by vtysh when its link comes and goes."
        ),
        tables=tables, goals=goals, plots=[plot, gap_plot], data=data,
        limits=(
            "break before make: hearing the MN, the LM's write to disk and two kernels' programming, see the stages. BGP alone and the script: "
            "bgpd's wait of 50 ms at each router on the way."
        ),
    )  # fmt: skip


def _stages(found):
    def median(name, stage):
        values = [m["timeline"][stage] for m in found[name] if m["timeline"].get(stage) is not None]
        return statistics.median(values) if values else None

    names = (PLANNED, BREAK, BGP_ONLY)
    return Table("Where the time goes: ms after the first link change, median", ["stage", *names],
                 [[label, *(median(name, stage) for name in names)] for stage, label in scenarios.STAGE_LABELS.items()])  # fmt: skip
