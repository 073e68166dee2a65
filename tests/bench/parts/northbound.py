"""Kedge's route injector by FRR's northbound, with Debian's FRR as it is, beside what an operator would use in its place: GoBGP, ExaBGP, vtysh and
FRR's own reload. What counts is what the reflector's kernel has."""

import contextlib
import dataclasses
import ipaddress
import os
import statistics
import time

import bgp_lab
import machine
import processes
import route_injectors
from report import Distribution, Goal, Part, Plot, Table, number, ratio

KEDGE, GOBGP, EXABGP, VTYSH, RELOAD = "Kedge (northbound)", "GoBGP", "ExaBGP", "vtysh", "frr-reload.py"
NAMES = (KEDGE, GOBGP, EXABGP, VTYSH, RELOAD)
POOLS = {"ar": "2001:db8:4000::/36", "gobgp": "2001:db8:5000::/36", "exabgp": "2001:db8:6000::/36"}
# Of the aims: so many MNs stay at one access router, and so many come to it in a second.
AIM_RESIDENT, AIM_RATE, AIM_BULK = 5000, 1000, 10_000
OPERATIONS = ("add", "withdraw")
MIXED = "mixed"


@dataclasses.dataclass
class Plan:
    # Number of resident routes -> how often one is added and withdrawn: by Kedge, GoBGP and ExaBGP; by vtysh and reload.
    singles: dict
    bulk_onto_none: int
    bulk: int
    # For one route, and for all routes of a bulk, of vtysh and reload, s.
    single_limit: float
    bulk_limit: float
    moves_resident: int
    moves_seconds: int


WHOLE = Plan({0: (20, 10), 1000: (20, 5), 5000: (10, 3), 10_000: (4, 1), 20_000: (2, 1)}, AIM_BULK, 1000, 30, 10, AIM_RESIDENT, 12)
QUICK = Plan({0: (3, 2), 1000: (2, 1)}, 500, 100, 30, 3, 1000, 2)


@dataclasses.dataclass
class Bulk:
    routes: int
    # What was done of it, and in which time; less than `routes` when the time was over.
    done: int
    seconds: float
    expected: int
    at_reflector: int

    @property
    def per_second(self):
        return self.done / self.seconds


@dataclasses.dataclass
class Latencies:
    """Of one route each, until the reflector's kernel has changed."""

    seen: int
    p50_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None

    @staticmethod
    def of(samples):
        took = Distribution(samples)
        return Latencies(len(samples), took.median, took.quantile(0.99), max(samples)) if samples else Latencies(0)


@dataclasses.dataclass
class Moves:
    commits: int | None
    # Of each, adds and withdrawals.
    asked: int
    adds: Latencies
    # None when none is withdrawn.
    withdrawals: Latencies | None
    expected: int
    at_reflector: int

    @property
    def changes(self):
        return self.asked * (2 if self.withdrawals else 1)

    @property
    def seen(self):
        return self.adds.seen + (self.withdrawals.seen if self.withdrawals else 0)


@dataclasses.dataclass
class Found:
    # (injector, resident, operation) -> ms; None: it took longer than the plan's limit.
    singles: dict = dataclasses.field(default_factory=dict)
    # (injector, resident, operation) -> Bulk
    bulks: dict = dataclasses.field(default_factory=dict)
    # (injector, kind) -> Moves
    moves: dict = dataclasses.field(default_factory=dict)
    # What of Kedge's was going on -> seconds of staticd's CPU, load of the machine at its end.
    cost: dict = dataclasses.field(default_factory=dict)


class Measurement:
    """An injector's changes, as the watch sees them."""

    def __init__(self, name, injector, watch, plan, found):
        self._name, self._injector, self._watch, self._plan, self._found = name, injector, watch, plan, found

    def prepare(self, numbers, present):
        if hasattr(self._injector, "prepare"):
            self._injector.prepare(numbers, present)

    def singles(self, resident, samples):
        """Routes that were never there before, one after the other."""
        for sample in range(samples):
            for operation in OPERATIONS:
                route, present = resident + self._plan.bulk_onto_none + sample, operation == "add"
                self.prepare([route], present)
                begin = time.monotonic_ns()
                self._injector.change([route], present, self._plan.single_limit)
                _, changes = self._watch.await_count(resident + present, timeout=self._plan.single_limit)
                took = [(at - begin) / 1e6 for changed, there, at in changes if (changed, there) == (route, present)]
                self._found.singles.setdefault((self._name, resident, operation), []).append(took[0] if took else None)
                if not took:
                    return

    def bulk(self, resident, routes, limit=60.0, record=True):
        """Adds them and takes them back."""
        for operation in OPERATIONS:
            if not (done := self.change(resident, range(resident, resident + routes), operation, limit)).done:
                return
            if record:
                self._found.bulks[self._name, resident, operation] = done
            if operation == "add":
                routes = done.done

    def change(self, standing, numbers, operation, limit):
        present = operation == "add"
        expected = standing + (len(numbers) if present else 0)
        self.prepare(numbers, present)
        begin = time.monotonic_ns()
        self._injector.change(numbers, present, limit)
        left = max(2.0, limit - (time.monotonic_ns() - begin) / 1e9)
        count, changes = self._watch.await_count(expected, still=1.0, timeout=left)
        seen = [at for _, there, at in changes if there == present]
        return Bulk(len(numbers), len(seen), (max(seen, default=begin + 1) - begin) / 1e9, expected, count)

    def moves(self, resident, seconds, mixed):
        """AIM_RATE routes a second; with each, when `mixed`, the one that has stood longest goes."""
        asked, begin = {}, time.monotonic()
        sent, whole = 0, AIM_RATE * seconds
        while sent < whole:
            due = min(whole, int((time.monotonic() - begin) * AIM_RATE) + 1)
            if due == sent:
                time.sleep(0.001)
                continue
            for present, first in ((True, resident), (False, 0))[: 1 + mixed]:
                numbers = range(first + sent, first + due)
                asked.update(((route, present), time.monotonic_ns()) for route in numbers)
                self._injector.change(numbers, present, seconds)
            sent = due
        expected = resident + (0 if mixed else whole)
        count, changes = self._watch.await_count(expected, still=1.0)
        adds, withdrawals = ([(at - asked[route, there]) / 1e6 for route, there, at in changes if (route, there) in asked and there == present]
                             for present in (True, False))  # fmt: skip
        self._found.moves[self._name, MIXED if mixed else "add"] = Moves(
            None, whole, Latencies.of(adds), Latencies.of(withdrawals) if mixed else None, expected, count)  # fmt: skip


class Run:
    def __init__(self, bench, lab, plan):
        self._bench, self._lab, self._plan = bench, lab, plan
        self.found = Found()

    def kedge(self, what, resident, samples, bulk, **options):
        staticd = self._lab["ar"].host_pid("staticd")
        before = processes.cpu_seconds(staticd)
        lines = bgp_lab.injector_load(
            self._lab, self._bench.build, "ar", POOLS["ar"], resident=resident, singles=samples, bulk=bulk, **options)  # fmt: skip
        self.found.cost[what] = processes.cpu_seconds(staticd) - before, machine.load()
        for line in lines:
            if line["phase"] == "single" and samples:
                self.found.singles[KEDGE, resident, line["operation"]] = line["reflector_ms"]
        return [line for line in lines if line["phase"] == "bulk"]

    def kedge_turn(self, resident, samples):
        routes = self._plan.bulk if resident else self._plan.bulk_onto_none
        for line in self.kedge(f"turn {resident}", resident, samples, routes):
            self.found.bulks[KEDGE, resident, line["operation"]] = Bulk(
                line["routes"], line["adds"]["seen"] + line["withdrawals"]["seen"], line["reflector_s"], line["expected"], line["at_reflector"])  # fmt: skip

    def kedge_moves(self):
        for kind in ("add", MIXED):
            resident = self._plan.moves_resident
            line = self.kedge(f"moves {kind}", resident, 0, AIM_RATE * self._plan.moves_seconds, rate=AIM_RATE, mixed=kind == MIXED)[0]
            withdrawals = Latencies(**line["withdrawals"]) if kind == MIXED else None
            self.found.moves[KEDGE, kind] = Moves(
                line["commits"], line["routes"], Latencies(**line["adds"]), withdrawals, line["expected"], line["at_reflector"])  # fmt: skip

    @contextlib.contextmanager
    def measuring(self, name, injector, pool):
        with bgp_lab.Watch(self._lab, self._bench.build, POOLS[pool]) as watch:
            yield Measurement(name, injector, watch, self._plan, self.found), watch.count_at_begin

    def vty_turn(self, name, injector, resident, samples):
        """On the routes that Kedge has just left there."""
        with bgp_lab.Watch(self._lab, self._bench.build, POOLS["ar"]) as watch:
            left = watch.count_at_begin != resident
        if left:
            # What the turn before could not withdraw in its time.
            self.kedge("repair", resident, 0, 0)
        with self.measuring(name, injector, "ar") as (measurement, standing):
            if standing != resident:
                raise processes.BenchError(f"{standing} routes of {resident} stand before {name} takes its turn")
            measurement.singles(resident, samples)
            if resident in (0, self._plan.moves_resident):
                measurement.bulk(resident, self._plan.bulk_onto_none if not resident else self._plan.bulk, self._plan.bulk_limit)

    def peer_turn(self, name, injector, pool, resident, samples):
        with self.measuring(name, injector, pool) as (measurement, standing):
            measurement.change(standing, range(standing, resident), "add", 120)
            measurement.singles(resident, samples)
            measurement.bulk(resident, self._plan.bulk if resident else self._plan.bulk_onto_none)

    def peer_moves(self, name, injector, pool):
        resident = self._plan.moves_resident
        with self.measuring(name, injector, pool) as (measurement, _):
            whole = AIM_RATE * self._plan.moves_seconds
            measurement.moves(resident, self._plan.moves_seconds, mixed=False)
            measurement.change(resident, range(resident, resident + whole), "withdraw", 120)
            measurement.moves(resident, self._plan.moves_seconds, mixed=True)
            measurement.change(0, range(whole, whole + resident), "withdraw", 120)
            measurement.change(0, range(resident), "add", 120)

    def all(self):
        pools = {name: ipaddress.IPv6Network(pool) for name, pool in POOLS.items()}
        vtysh = route_injectors.Vtysh(self._lab["ar"], pools["ar"])
        reload = route_injectors.Reload(self._lab["ar"], pools["ar"], self._bench.scratch)
        with contextlib.ExitStack() as stack:
            peers = []
            for name, injector, node in ((GOBGP, route_injectors.GoBgp, "gobgp"), (EXABGP, route_injectors.ExaBgp, "exabgp")):
                peers.append((name, stack.enter_context(injector(self._lab, node, pools[node]).running()), node))
            for resident, (samples, slow) in self._plan.singles.items():
                self._bench.say(f"{resident:,} resident routes")
                self.kedge_turn(resident, samples)
                for name, injector, node in peers:
                    self.peer_turn(name, injector, node, resident, samples)
                self.vty_turn(VTYSH, vtysh, resident, slow)
                self.vty_turn(RELOAD, reload, resident, slow)
                if resident == self._plan.moves_resident:
                    self._bench.say(f"{AIM_RATE:,} moves/s")
                    self.kedge_moves()
                    for name, injector, node in peers:
                        self.peer_moves(name, injector, node)


def run(bench):
    plan = QUICK if bench.quick else WHOLE
    with bgp_lab.Lab(bench.scratch, tuple(POOLS)) as lab:
        lab.start_access_router("ar")
        measured = Run(bench, lab, plan)
        measured.all()
    return _part(measured.found, plan)


def _over(plan):
    return f"over {plan.single_limit:g} s"


def _singles_table(found, plan, operation):
    rows = []
    for resident in plan.singles:
        ours = _usable(found.singles.get((KEDGE, resident, operation), []))
        for name in NAMES:
            samples = found.singles.get((name, resident, operation), [])
            usable = _usable(samples)
            if usable:
                spread = [min(usable), statistics.median(usable), max(usable) if len(usable) == len(samples) else _over(plan)]
                compared = ratio(statistics.median(usable), statistics.median(ours)) if ours else "-"
            else:
                spread, compared = ["-", _over(plan) if samples else "-", "-"], "-"
            rows.append([f"{resident:,} resident: {name}", len(samples), *spread, compared])
    return Table(f"One route, {operation}: ms until the reflector's kernel {'has it' if operation == 'add' else 'has let it go'}",
                 ["", "samples", "min", "median", "max", "this / Kedge"], rows)  # fmt: skip


def _usable(samples):
    return [sample for sample in samples if sample is not None]


def _bulks_table(found, plan):
    rows = []
    for (name, resident, operation), bulk in sorted(found.bulks.items(), key=lambda item: (item[0][1], item[0][2], NAMES.index(item[0][0]))):
        ours = found.bulks[KEDGE, resident, operation].per_second
        rows.append([f"{operation}, onto {resident:,}: {name}", bulk.routes, bulk.done, bulk.seconds, bulk.per_second, ratio(ours, bulk.per_second),
                     f"{bulk.at_reflector:,} of {bulk.expected:,}"])  # fmt: skip
    return Table("Many routes at once, until the reflector's kernel has the last one",
                 ["", "asked for", "done", "s", "routes/s", "Kedge / this", "at the reflector"], rows,
                 f"vtysh and frr-reload.py have {plan.bulk_limit:g} s for each, and withdraw what they have added by then.")  # fmt: skip


def _moves_table(found, plan):
    rows = []
    for kind, label in (("add", f"{plan.moves_resident:,} and growing"), (MIXED, f"{plan.moves_resident:,}, as many leave")):
        for name in (KEDGE, GOBGP, EXABGP):
            moves = found.moves[name, kind]
            commits = moves.commits / plan.moves_seconds if moves.commits else "-"
            leaving = moves.withdrawals or Latencies(0)
            rows.append([f"{label}: {name}", moves.changes, moves.seen, moves.adds.p50_ms, moves.adds.p99_ms, moves.adds.max_ms,
                         leaving.p50_ms, leaving.p99_ms, commits, moves.changes / moves.commits if moves.commits else "-",
                         f"{moves.at_reflector:,} of {moves.expected:,}"])  # fmt: skip
    return Table(f"{AIM_RATE:,} moves/s arriving for {plan.moves_seconds} s: ms for one route until the reflector's kernel has changed",
                 ["onto", "changes", "seen", "arriving p50", "p99", "max", "leaving p50", "p99", "commits/s", "changes/commit", "at the reflector"], rows,
                 f"Load of the machine at the end of Kedge's: {found.cost['moves add'][1]:.1f} and {found.cost['moves ' + MIXED][1]:.1f}.")  # fmt: skip


def _part(found, plan):
    tables = [_singles_table(found, plan, operation) for operation in OPERATIONS] + [_bulks_table(found, plan), _moves_table(found, plan)]
    steady, growing, bulk = found.moves[KEDGE, MIXED], found.moves[KEDGE, "add"], found.bulks[KEDGE, 0, "add"]
    cost = {resident: statistics.median(found.singles[KEDGE, resident, "add"]) for resident in plan.singles}
    cores = os.cpu_count()

    def moves_goal(what, kind, moves):
        cpu, load = found.cost[f"moves {kind}"]
        limit = (f"each commit copies and compares staticd's whole configuration: one route onto {plan.moves_resident:,} takes "
                 f"{number(cost[plan.moves_resident])} ms; {moves.commits} commits, {cpu:.1f} s of staticd's CPU, load {load:.1f} on {cores} cores")  # fmt: skip
        leaving = f" (p99 of those leaving {number(moves.withdrawals.p99_ms)} ms)" if moves.withdrawals else ""
        return Goal(f"{AIM_RATE:,} moves/s arriving onto {what}: all anchored, p99 under 1 s",
                    f"{moves.adds.seen:,} of {moves.asked:,}, p99 {number(moves.adds.p99_ms)} ms{leaving}",
                    moves.seen == moves.changes and moves.at_reflector == moves.expected and moves.adds.p99_ms < 1000,
                    limit)  # fmt: skip

    goals = [
        moves_goal(f"{plan.moves_resident:,} resident, as many leaving", MIXED, steady),
        moves_goal(f"{plan.moves_resident:,} resident, none leaving", "add", growing),
        Goal(f"{plan.bulk_onto_none:,} onto none at 5,000/s or more", f"{number(bulk.per_second)}/s, {bulk.at_reflector:,} at the reflector",
             bulk.per_second >= 5000 and bulk.at_reflector == bulk.expected, f"{found.cost['turn 0'][0]:.1f} s of staticd's CPU for adding and removing them, load {found.cost['turn 0'][1]:.1f} on {cores} cores"),
    ]  # fmt: skip
    series = {}
    for name in NAMES:
        points = [(max(1, resident), statistics.median(usable)) for resident in plan.singles
                  if (usable := _usable(found.singles.get((name, resident, "add"), [])))]  # fmt: skip
        if points:
            series[name] = points
    return Part(
        title="Routes by FRR's northbound",
        method=(
            "An access router with FRR, gobgpd and exabgp, each with an iBGP session to one reflector with FRR (its bgpd waits 50 ms before it selects; "
            "so does the access router's). Each adds and withdraws /64s by turns, at each number of resident routes; vtysh and frr-reload.py at the "
            "same access router, on the same resident routes as Kedge. From the call to the change in the reflector's kernel."
        ),
        tables=tables, goals=goals,
        plots=[Plot("northbound-add", "One more route at the reflector", "resident routes", "ms", series, log_x=True, log_y=True)],
        limits=(
            "staticd's commit costs as much as its whole configuration is large, whoever makes it; GoBGP and ExaBGP pay by the route. Two waits of "
            "bgpd, 50 ms each, are in each figure of Kedge, vtysh and frr-reload.py, one in those of GoBGP and ExaBGP."
        ),
        data={
            "singles_ms": {" | ".join(map(str, key)): samples for key, samples in found.singles.items()},
            "bulks": {" | ".join(map(str, key)): dataclasses.asdict(bulk) for key, bulk in found.bulks.items()},
            "staticd": {what: {"cpu_s": cpu, "load": load} for what, (cpu, load) in found.cost.items()},
            "moves": {" | ".join(key): dataclasses.asdict(moves) for key, moves in found.moves.items()},
        },
    )  # fmt: skip
