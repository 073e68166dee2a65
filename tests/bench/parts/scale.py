"""What a large network would ask of BGP, of access routers and of the LM, by a simulation of mobile nodes that wander over a grid of access
routers. No packet is sent: the policies' rules are applied to drawn movements, and counts are scaled up. docs/scale.md draws the conclusions."""

import dataclasses
import random

from report import Part, Table

NODES = 10_000_000
SIDE = 100  # access routers stand on a grid of 100 by 100
REGION = 10  # a region has 10 by 10 of them
HOURS = 4  # of which the last one is counted
MOST_PREFIXES = 8  # mobility.max_prefixes_per_mn
# A session that an MN has begun with a prefix goes on so long, in seconds, drawn from an exponential distribution.
SESSION = 600


@dataclasses.dataclass(frozen=True)
class Kind:
    name: str
    share: float
    dwell: float  # seconds at an access router, mean of an exponential distribution
    homing: float  # how likely a step leads towards home


KINDS = (
    Kind("at home or at the office", 0.60, 7200, 0.9),
    Kind("on foot", 0.30, 600, 0.6),
    Kind("in a vehicle", 0.10, 60, 0.5),
)


@dataclasses.dataclass(frozen=True)
class Policy:
    name: str
    relocate_after: float
    idle_after: float
    # Prefixes that leave their home region stay redirected.
    within_region: bool


POLICIES = (
    Policy("relocate at once, idle_after 2 h", 0, 7200, False),
    Policy("relocate at once, idle_after 10 min", 0, 600, False),
    Policy("relocate_after 60 s, idle_after 10 min", 60, 600, False),
    Policy("relocate_after 60 s, idle_after 10 min, within a region", 60, 600, True),
    Policy("relocate_after 5 min, idle_after 10 min, within a region", 300, 600, True),
)


def _step(draw, at, home, homing):
    """One step to a neighbour on the grid, whose edges are joined."""
    def towards(a, b):
        distance = (b - a + SIDE // 2) % SIDE - SIDE // 2
        return (distance > 0) - (distance < 0)

    directions = [(0, 1), (0, -1), (1, 0), (-1, 0)]
    if draw.random() < homing and at != home:
        x, y = towards(at[0], home[0]), towards(at[1], home[1])
        dx, dy = (x, 0) if x and (not y or draw.random() < 0.5) else (0, y)
    else:
        dx, dy = draw.choice(directions)
    return (at[0] + dx) % SIDE, (at[1] + dy) % SIDE


def _walk(draw, kind):
    """(arrival, access router) of each stay of one mobile node, from its home on."""
    home = (draw.randrange(SIDE), draw.randrange(SIDE))
    at, time, stays = home, 0.0, []
    # Not all begin to move at once.
    leaves = draw.expovariate(1 / kind.dwell)
    while time < HOURS * 3600:
        stays.append((time, at))
        time = leaves
        at = _step(draw, at, home, kind.homing)
        leaves = time + draw.expovariate(1 / kind.dwell)
    return stays


class _Count:
    """Of one policy, within the last hour."""

    def __init__(self):
        self.relocations = 0
        self.withdrawals = 0
        # Prefix-seconds that are announced away from home, that are redirected, and that exist at all.
        self.announced = 0.0
        self.redirected = 0.0
        self.held = 0.0


def _region(at):
    return at[0] // REGION, at[1] // REGION


def _account(draw, stays, policy, count):
    """One prefix for each access router that the node has been at: it stays while it is used or young, and follows its node."""
    end, begin = HOURS * 3600.0, (HOURS - 1) * 3600.0

    def share(since, until):
        return max(0.0, min(until, end) - max(since, begin))

    ends_of = {}  # prefix's home -> when it is released
    for index, (arrival, at) in enumerate(stays):
        until = stays[index + 1][0] if index + 1 < len(stays) else end
        # The last session that begins here goes on for a while, then the prefix is idle; it may be released earlier, to make room.
        ends_of[at] = until + draw.expovariate(1 / SESSION) + policy.idle_after
        live = sorted((home for home, ends in ends_of.items() if ends > arrival), key=ends_of.get)
        for home in live[: max(0, len(live) - MOST_PREFIXES)]:
            ends_of[home] = arrival
        ends_of = {home: ends for home, ends in ends_of.items() if ends > arrival}
        for home, ends in ends_of.items():
            stop = min(until, ends)
            count.held += share(arrival, stop)
            if home == at:
                continue
            moves = arrival + policy.relocate_after
            if moves >= stop or (policy.within_region and _region(home) != _region(at)):
                count.redirected += share(arrival, stop)
                continue
            count.redirected += share(arrival, moves)
            count.announced += share(moves, stop)
            if begin <= moves < end:
                count.relocations += 1
            if begin <= stop < end:
                count.withdrawals += 1


def run(bench):
    nodes = bench.samples(5_000, 500)
    scale = NODES / nodes
    draw = random.Random(8818)
    counts = {policy: _Count() for policy in POLICIES}
    handovers = 0
    for number in range(nodes):
        left = number / nodes
        kind = next((k for k in KINDS if (left := left - k.share) < 0), KINDS[-1])
        stays = _walk(draw, kind)
        handovers += sum(1 for arrival, _ in stays[1:] if arrival >= (HOURS - 1) * 3600)
        for policy in POLICIES:
            # Each policy sees the same movements and the same sessions.
            _account(random.Random(number), stays, policy, counts[policy])
    routers = SIDE * SIDE
    per_second = scale / 3600
    rows = []
    for policy, count in counts.items():
        announced, redirected = count.announced * per_second, count.redirected * per_second
        rows.append([
            policy.name, round(announced / 1e6, 2), round(announced / (routers // REGION**2)) if policy.within_region else None,
            round(announced / routers), round(redirected / routers), round(count.relocations * per_second),
            round((count.relocations + count.withdrawals) * per_second), round(count.held * per_second / 1e6, 1),
        ])  # fmt: skip
    return Part(
        title="A large network, simulated",
        method=(
            f"{NODES:,} MNs over {routers:,} access routers, {nodes:,} of them simulated for {HOURS} hours and the last hour counted: "
            + ", ".join(f"{k.share:.0%} {k.name} ({k.dwell:.0f} s at an access router)" for k in KINDS)
            + f". Sessions go on for {SESSION} s on average after an MN has left. {handovers * per_second:,.0f} handovers a second in all."
        ),
        tables=[Table(
            "What the policy makes of the same movements",
            ["policy", "/64s in BGP, millions", "of these in a region's BGP", "injected by each AR", "redirected by each AR", "relocations/s",
             "BGP announcements and withdrawals/s", "bindings, millions"], rows)],
        data={"handovers_per_second": handovers * per_second},
    )  # fmt: skip
