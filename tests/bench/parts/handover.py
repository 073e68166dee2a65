"""Moves of one mobile node under a flow of 1,000 packets/s each way: by Kedge, by Kedge without its redirection (BGP alone), and by what an
operator would write instead, a script at each access router that calls vtysh on link events."""

import contextlib
import json
import os
import select
import statistics
import threading
import time

import scenario as scenarios
from report import SPREAD, Distribution, Goal, Part, Plot, Table, extent, ratio_spread
from routes import RouteMonitor

TOPOLOGY = scenarios.REPOSITORY / "containerlab" / "handover"
RATE = 1000
PLANNED, BREAK, BGP_ONLY, SCRIPT = "planned", "break before make", "break before make, BGP alone", "break before make, vtysh script"

# Where the prefix of the mobile node comes from.
HOME = "ar1"
# So many times the median loss, and a move is looked at by itself.
STANDS_OUT = 3

# What a script can do: the /64 is the interface's for as long as its link is up. It writes when it has heard of the link and when vtysh was done.
_SCRIPT = """
stdbuf -oL ip -o monitor link dev eth2 | while read -r line; do
    heard=$EPOCHREALTIME
    case $line in
        *LOWER_UP*) link=up; vtysh -c 'configure terminal' -c "ipv6 route $1 $2 eth2 tag 1" ;;
        *) link=down; vtysh -c 'configure terminal' -c "no ipv6 route $1 $2 eth2 tag 1" ;;
    esac >/dev/null
    echo "$link $heard $EPOCHREALTIME" >>/run/script
done
"""
# When the mobile node's kernel has its router's link-layer address again: with its last link it forgets it, and asks anew.
_ROUTER_FOUND = """
stdbuf -oL ip -6 -o monitor neigh dev br0 | while read -r line; do
    case $line in
        Deleted*fe80::1\\ *) forgotten=yes ;;
        *router*REACHABLE*) [ -z "$forgotten" ] || echo "found $EPOCHREALTIME" >>/run/script; forgotten= ;;
    esac
done
"""
# Stage of a move by the script, in words.
_SCRIPT_STAGES = {
    "router_found": "MN has asked for its router's link-layer address and has it",
    "heard_down": "old AR's script has heard that the link is down",
    "removed": "its vtysh has returned",
    "heard_up": "new AR's script has heard that the link is up",
    "added": "its vtysh has returned",
    "delivers": "new AR's kernel delivers",
    "core": "the core's kernel forwards to the new AR",
    "old": "old AR's kernel forwards to the new AR",
}


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
            lab.start(ar, "bash", "-c", _SCRIPT, "bash", prefix, link_local)
        lab.start("mn1", "bash", "-c", _ROUTER_FOUND)
        lab.run("ar1", "vtysh", "-c", "configure terminal", "-c", f"ipv6 route {prefix} {link_local} eth2 tag 1")
        self._wait_at("ar1")
        self._kernels = Kernels(lab, prefix, ("ar1", "ar2", "core"))

    def close(self):
        self._kernels.close()

    def _wait_at(self, ar):
        locator = {"ar1": "2001:db8:a1::1", "ar2": "2001:db8:a2::1"}[ar]
        scenarios.wait_until(f"the core's best path is {ar}'s", lambda: (self._lab.bgp_best("core", self._prefix) or [None])[0] == locator)

    def move(self, flow):
        source, target = self._at, _other(self._at)
        begin = time.monotonic_ns()
        done = json.loads(self._lab.output("mn1", "move", target, "--gap", 0, "--no-rs", "--wait", 0))
        self._wait_at(target)
        flow.wait_for_traffic()
        self._at = target
        window = (begin, time.monotonic_ns())
        return {"to": target, "window": window, "timeline": self._timeline(source, target, done, window[1])}

    def _timeline(self, source, target, done, end):
        """Stage -> milliseconds after the first link change; None: not within the move."""
        begin, offset = done["events"][0]["ns"], done["wall_clock_offset_ns"]
        found = {}

        def take(stage, times, which):
            within = [at for at in times if begin <= at <= end]
            found[stage] = round((which(within) - begin) / 1e6, 3) if within else None

        for node, kind, stages in (("mn1", "found", ["router_found"]), (source, "down", ["heard_down", "removed"]), (target, "up", ["heard_up", "added"])):
            lines = [line.split() for line in self._lab.run(node, "cat", "/run/script", check=False).stdout.splitlines()]
            for stage, times in zip(stages, zip(*(times for what, *times in lines if what == kind))):
                take(stage, (int(float(time) * 1e9) - offset for time in times), min)
        # What a router learns by BGP may come in two steps: the last one is the one that stays.
        for node, stage, which in ((target, "delivers", min), ("core", "core", max), (source, "old", max)):
            take(stage, self._kernels.added(node), which)
        return {stage: found.get(stage) for stage in _SCRIPT_STAGES}


class Kernels:
    """When nodes' kernels were given a route for the prefix."""

    def __init__(self, lab, prefix, nodes):
        self._prefix = prefix
        self._monitors = {RouteMonitor(lab.lab.nodes[node].pid): node for node in nodes}
        self._added = {node: [] for node in nodes}
        self._ended = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self):
        while not self._ended:
            for monitor in select.select(self._monitors, [], [], 0.2)[0]:
                at = time.monotonic_ns()
                self._added[self._monitors[monitor]] += [at for prefix, is_there in monitor.read() if prefix == self._prefix and is_there]

    def added(self, node):
        """Monotonic nanoseconds of each."""
        return list(self._added[node])

    def close(self):
        self._ended = True
        self._thread.join()
        for monitor in self._monitors:
            monitor.close()


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
    rounds, moves = bench.samples((4, 25), (2, 4))
    found = {name: [] for name in (PLANNED, BREAK, BGP_ONLY, SCRIPT)}
    with contextlib.ExitStack() as stack:
        # One after the other: each needs the machine to itself while it starts.
        labs = [stack.enter_context(scenarios.lab_up(TOPOLOGY, name=f"bench-{kind}-{os.getpid()}")) for kind in ("kedge", "script")]
        for lab in labs:
            lab.wait_synced()
        kedge, script = KedgeLab(labs[0]), stack.enter_context(contextlib.closing(ScriptLab(labs[1])))
        for count in range(rounds):
            bench.say(f"round {count + 1} of {rounds}")
            for name, gap in ((PLANNED, None), (BREAK, 0), (BGP_ONLY, 0)):
                if name == BGP_ONLY:
                    kedge.redirection(False)
                folder = bench.scratch / f"{name}-{count}".replace(" ", "-")
                found[name].append(_measure(labs[0], folder, kedge.address, moves, lambda _flow, gap=gap: kedge.move(gap)))
            kedge.redirection(True)
            found[SCRIPT].append(_measure(labs[1], bench.scratch / f"script-{count}", script.address, moves, script.move))
    return _part(found)


def _part(rounds):
    """Of each way to move: rounds of moves, in turns."""
    found = {name: sum(moves, []) for name, moves in rounds.items()}
    lost = {name: [[m["down"] + m["up"] for m in moves] for moves in each] for name, each in rounds.items()}
    gap = {name: [[m["gap"] for m in moves] for moves in each] for name, each in rounds.items()}
    loss, gaps = ({name: Distribution(sum(each, [])) for name, each in of.items()} for of in (lost, gap))
    sent = {name: sum(m["sent"] for m in moves) for name, moves in found.items()}
    compared = f"this / Kedge's {BREAK} (rounds)"

    def beside_kedge(name, of):
        """Planned moves have two links at a time, and no counterpart."""
        return "-" if name == PLANNED else "1.00x" if name == BREAK else ratio_spread(of[name], of[BREAK])

    tables = [
        Table("Packets lost in a move, both directions together", ["move", "moves", "sent", *SPREAD, "all", compared],
              [[name, len(found[name]), sent[name], *d.cells(), sum(d.samples), beside_kedge(name, lost)] for name, d in loss.items()],
              f"{RATE} packets/s each way. A break-before-make move takes the old link away and brings the new one at once. Last column: the ratio of "
              f"the medians, and in brackets the least and the most of the rounds' own. {_outliers(found)}".rstrip()),
        Table("Longest gap between two packets that arrived, ms", ["move", *SPREAD, compared],
              [[name, *d.cells(), beside_kedge(name, gap)] for name, d in gaps.items()],
              f"The sender's own longest gaps were {max(m['send_gap'] for moves in found.values() for m in moves):.1f} ms."),
        _stages(found),
        _script_stages(found[SCRIPT]),
    ]  # fmt: skip
    planned, broken = loss[PLANNED], loss[BREAK]
    goals = [
        Goal("planned moves lose nothing", f"{sum(planned.samples)} of {sent[PLANNED]:,}", sum(planned.samples) == 0,
             f"{sum(x > 0 for x in planned.samples)} moves lost packets, at most {max(planned.samples)}"
             if any(planned.samples) else "-"),
        Goal("break before make: 10 packets or fewer each way (median)", f"{broken.median:.0f} both ways", broken.median <= 20,
             "the time until the MN is heard and the two kernels are programmed"),
    ]  # fmt: skip
    plot = Plot.cumulative("handover-loss", "Packets lost in a move (1,000 packets/s each way)", "packets lost + 1",
                           {name: Distribution([x + 1 for x in d.samples]) for name, d in loss.items()})  # fmt: skip
    gap_plot = Plot.cumulative("handover-gap", "Longest gap of a move", "ms", gaps)
    data = {name: [[{key: m[key] for key in ("to", "down", "up", "gap", "timeline")} for m in moves] for moves in each] for name, each in rounds.items()}
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
    """By direction: only who comes home leaves an announcement behind that has to go."""
    columns = [(name, home) for name in (PLANNED, BREAK, BGP_ONLY) for home in (False, True)]
    rows = [[label, *(_stage(_towards(found[name], home), stage, statistics.median) for name, home in columns)]
            for stage, label in scenarios.STAGE_LABELS.items()]  # fmt: skip
    return Table("Where the time goes: ms after the first link change, median",
                 ["stage", *(f"{name}, {'home' if home else 'away'}" for name, home in columns)], rows,
                 "`home`: back to the AR that the prefix is from; `away`: to the other one. Home, the last step waits for mobility.redirect_hold, 1 s.")  # fmt: skip


def _script_stages(moves):
    rows = [[label, *(_stage(_towards(moves, home), stage, which) for home in (False, True) for which in (min, statistics.median, max))]
            for stage, label in _SCRIPT_STAGES.items()]  # fmt: skip
    return Table("Where the script's time goes: ms after the first link change",
                 ["stage", *(f"{way}, {word}" for way in ("away", "home") for word in ("min", "median", "max"))], rows,
                 "Coming home, packets find the new AR, which announces the pool of the prefix, as soon as the core has lost the /64 by the old one.")  # fmt: skip


def _towards(moves, home):
    return [move for move in moves if (move["to"] == HOME) == home]


def _stage(moves, stage, which):
    """Of the moves that had the stage."""
    values = [move["timeline"][stage] for move in moves if move["timeline"].get(stage) is not None]
    return which(values) if values else None


def _outliers(found):
    """What was late in moves that lost far more than others of their kind."""
    texts, labels = [], scenarios.STAGE_LABELS | _SCRIPT_STAGES
    for name, moves in found.items():
        usual = statistics.median(move["down"] + move["up"] for move in moves)
        worst = [move for move in moves if move["down"] + move["up"] > STANDS_OUT * max(1, usual)]
        if not worst:
            continue
        late = {}
        for move in worst:
            late.setdefault(_first_late(move, moves), []).append(move)
        whys = []
        for stage, those in late.items():
            what = f"\"{labels[stage]}\" after {extent([move['timeline'][stage] for move in those])} ms" if stage else "no stage was late"
            whys.append(f"{what} ({len(those)}, with gaps of {extent([move['gap'] for move in those])} ms)")
        texts.append(f"Of {len(moves)} moves \"{name}\" {len(worst)} lost more than {STANDS_OUT} times the median. The first stage that was late in them: "
                     f"{'; '.join(whys)}.")  # fmt: skip
        if "router_found" in late:
            texts.append("The MN's kernel repeats a solicitation that was lost, sent when the new link was hardly up, after 1 s (RFC 4861, 10: RETRANS_TIMER); "
                         "Kedge's RA tells the address.")  # fmt: skip
    return " ".join(texts)


def _first_late(move, moves):
    """The first stage whose delay, beyond the usual in its direction, makes up most of the gap's."""
    usual = _towards(moves, move["to"] == HOME)
    more = move["gap"] - statistics.median(each["gap"] for each in usual)
    if more <= 0:
        return None
    late = {}
    for stage, ms in move["timeline"].items():
        known = [each["timeline"][stage] for each in usual if each["timeline"].get(stage) is not None]
        if ms is not None and ms - statistics.median(known) > more / 2:
            late[stage] = ms
    return min(late, key=late.get, default=None)
