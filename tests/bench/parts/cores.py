"""Planned moves behind two core routers that forward on BGP's routes (docs/cores.md), in the wrong order and in the right one: FRR as it comes, and
with bgpd's wait of 50 ms made 10 or 0 ms by our module on every router."""

import contextlib
import os

import scenario as scenarios
from report import SPREAD, Distribution, Goal, Part, Plot, Table

# Folder in containerlab/ -> what it is.
TOPOLOGIES = {"two-cores": "wrong order", "two-cores-path": "right order"}
RATE = 1000
# Of KEDGE_BGPD_HOLD -> what it is. The first one has no module.
HOLDS = {"": "stock (50)", "10": "10", "0": "0"}
PEERS = {"cn": scenarios.CN_ADDRESS, "cn2": "2001:db8:0:5::2"}
TARGETS = ("ar2", "ar1")


class Variant:
    def __init__(self, stack, topology, hold):
        name = f"bench-{topology}-{hold or 'stock'}-{os.getpid()}"
        self._lab = stack.enter_context(scenarios.lab_up(scenarios.REPOSITORY / "containerlab" / topology, name, {"KEDGE_BGPD_HOLD": hold}))
        self._lab.wait_synced()
        self._events = scenarios.Events(self._lab)
        stack.callback(self._events.close)
        self._address = self._lab.mn_address()
        self._prefix = self._lab.prefix_of(self._address)
        self.label = f"{topology}, {HOLDS[hold]}"
        # Target -> one for each move: packets lost on the way down and up, milliseconds until the old anchor's bgpd has moved
        self.moves = {target: [] for target in TARGETS}
        self.sent, self.send_gap = 0, 0

    def run(self, folder, peer, rounds):
        flow = scenarios.Flow(self._lab, folder, mn_address=self._address, rate=RATE, peer=peer, peer_address=PEERS[peer])
        made = []
        try:
            for _ in range(rounds):
                made += [(target, self._lab.move(self._events, target, self._prefix)) for target in TARGETS]
            flow.stop()
        except BaseException:
            flow.abort()
            raise
        for target, move in made:
            report = flow.report(move["window"])
            down, up = report["a_to_b"], report["b_to_a"]
            self.moves[target].append((down["lost"], up["lost"], move["timeline"]["best_path_changed"]))
            self.sent += down["sent"] + up["sent"]
            self.send_gap = max(self.send_gap, down["longest_send_gap_ms"], up["longest_send_gap_ms"])

    def lost(self, targets=TARGETS):
        return Distribution([down for target in targets for down, _, _ in self.moves[target]])


def run(bench):
    turns, rounds = bench.samples((3, 5), (1, 1))
    found = {}
    for topology in TOPOLOGIES:
        with contextlib.ExitStack() as stack:
            variants = {hold: Variant(stack, topology, hold) for hold in HOLDS}
            for turn in range(turns):
                for peer in PEERS:
                    for hold, variant in variants.items():
                        bench.say(f"turn {turn + 1} of {turns}: {variant.label}, flow from {peer}")
                        variant.run(bench.scratch / f"{topology}-{hold}-{peer}-{turn}", peer, rounds)
            found.update({(topology, hold): variant for hold, variant in variants.items()})
    return _part(found)


def _part(found):
    rows = []
    for (topology, hold), variant in found.items():
        for target in TARGETS:
            moves, lost = variant.moves[target], variant.lost([target])
            moved = [ms for _, _, ms in moves if ms is not None]
            rows.append([f"{TOPOLOGIES[topology]}, {HOLDS[hold]}", target, len(moves), *lost.cells(), sum(lost.samples),
                         sum(up for _, up, _ in moves), Distribution(moved).median if moved else None])  # fmt: skip
    wrong = {hold: found["two-cores", hold].lost(["ar2"]) for hold in HOLDS}
    right = {hold: found["two-cores-path", hold].lost() for hold in HOLDS}
    longest = max(variant.send_gap for variant in found.values())
    return Part(
        title="Two core routers",
        method=(
            "The labs two-cores (wrong order) and two-cores-path (right order: news travels against the packets; docs/cores.md), with bgpd as it comes and "
            "with kedge_bgpd_hold.so on all four routers; the three are up at once and take turns. "
            f"Planned moves under a flow of {RATE:,} packets/s each way, half of them from a host at either core router."
        ),
        tables=[Table("Packets lost in a move; ms from the first link change until the old anchor's bgpd has moved",
                      ["core, hold in ms", "move to", "moves", *(f"lost down, {word}" for word in SPREAD), "all down", "all up", "BGP has moved, ms"], rows,
                      f"{sum(v.sent for v in found.values()):,} packets were sent. The senders' own longest gap was {longest:.1f} ms.")],
        goals=[
            Goal("wrong order: with a hold of 0 ms a move to the farther AR loses a tenth of what it loses without our module, or less (median)",
                 f"{wrong['0'].median:.1f} beside {wrong[''].median:.1f} packets", wrong["0"].median * 10 <= wrong[""].median,
                 "the second core router's BGP and kernel come after the first one's"),
            Goal("right order: with a hold of 10 ms moves lose nothing", f"{sum(right['10'].samples)} packets in {len(right['10'].samples)} moves",
                 not any(right["10"].samples), "the nearer core router's kernel has to change within the hold of the farther one"),
        ],
        plots=[Plot.cumulative("cores-loss", "Packets lost in a planned move to the farther AR, core routers in the wrong order", "packets lost + 1",
                               {f"hold {HOLDS[hold]} ms": Distribution([x + 1 for x in d.samples]) for hold, d in wrong.items()})],
        limits=(
            "the core routers change one after the other; while the nearer one is the later, packets loop. In the wrong order the hold is most of that time. "
            "In the right order it is the margin: without it the farther one's kernel is at times the first."
        ),
        data={variant.label: variant.moves for variant in found.values()},
    )  # fmt: skip
