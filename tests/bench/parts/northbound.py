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
from report import SPREAD, Distribution, Goal, Part, Plot, Table, extent, number, ratio_spread

KEDGE, GOBGP, EXABGP, VTYSH, RELOAD = "Kedge (northbound)", "GoBGP", "ExaBGP", "vtysh", "frr-reload.py"
NAMES = (KEDGE, GOBGP, EXABGP, VTYSH, RELOAD)
POOLS = {"ar": "2001:db8:4000::/36", "gobgp": "2001:db8:5000::/36", "exabgp": "2001:db8:6000::/36"}
# Of the aims: so many MNs stay at one access router, and so many come to it in a second.
AIM_RESIDENT, AIM_RATE, AIM_BULK = 5000, 1000, 10_000
OPERATIONS = ("add", "withdraw")
MIXED = "mixed"
# For one route, s; for all routes of a bulk, of those that may not get ready with it, s.
SINGLE_LIMIT = 30
BULK_LIMITS = {VTYSH: 3, RELOAD: 15}
# So long nothing has to change at the reflector before its routes are counted, s.
STILL = 0.5
PEER_TO_KEDGE = "peer / Kedge (rounds)"


@dataclasses.dataclass
class Level:
    """What each does in its turn, onto a number of resident routes."""

    # How often one route is added and withdrawn: by Kedge, GoBGP and ExaBGP; by vtysh and frr-reload.py.
    samples: int
    slow_samples: int
    bulk: int
    # By vtysh and frr-reload.py as well.
    slow_bulk: bool = False


@dataclasses.dataclass
class Plan:
    rounds: int
    # Number of resident routes -> Level
    levels: dict
    moves_resident: int
    moves_seconds: int


WHOLE = Plan(3, {0: Level(7, 3, AIM_BULK, True), 1000: Level(7, 2, 1000), 5000: Level(4, 1, 1000, True), 10_000: Level(2, 1, 1000),
                 20_000: Level(1, 1, 1000)}, AIM_RESIDENT, 8)  # fmt: skip
QUICK = Plan(2, {0: Level(2, 1, 500, True), 1000: Level(1, 1, 100, True)}, 1000, 2)


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

    @property
    def seconds_each(self):
        return self.seconds / self.done if self.done else None


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
    # How long each commit took; of Kedge's alone.
    commits_ms: list
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
    """Lists of rounds, in which all have taken their turns."""

    # (injector, resident, operation) -> ms of each sample; None: it took longer than SINGLE_LIMIT.
    singles: dict = dataclasses.field(default_factory=dict)
    # (injector, resident, operation) -> Bulk
    bulks: dict = dataclasses.field(default_factory=dict)
    # (injector, kind) -> Moves
    moves: dict = dataclasses.field(default_factory=dict)
    # What of Kedge's was going on -> seconds of staticd's CPU, load of the machine at its end.
    cost: dict = dataclasses.field(default_factory=dict)


class Measurement:
    """An injector's changes, as the watch sees them."""

    def __init__(self, name, injector, watch, found):
        self._name, self._injector, self._watch, self._found = name, injector, watch, found

    def prepare(self, numbers, present):
        if hasattr(self._injector, "prepare"):
            self._injector.prepare(numbers, present)

    def singles(self, resident, first, samples):
        """The routes from the first on, one after the other."""
        taken = {operation: [] for operation in OPERATIONS}
        for operation in OPERATIONS:
            self._found.singles.setdefault((self._name, resident, operation), []).append(taken[operation])
        for route in range(first, first + samples):
            for operation in OPERATIONS:
                present = operation == "add"
                self.prepare([route], present)
                begin = time.monotonic_ns()
                self._injector.change([route], present, SINGLE_LIMIT)
                _, changes = self._watch.await_count(resident + present, timeout=SINGLE_LIMIT)
                took = [(at - begin) / 1e6 for changed, there, at in changes if (changed, there) == (route, present)]
                taken[operation].append(took[0] if took else None)
                if not took:
                    return

    def bulk(self, resident, routes):
        """Adds them and takes them back."""
        for operation in OPERATIONS:
            done = self.change(resident, range(resident, resident + routes), operation, BULK_LIMITS.get(self._name, 60))
            self._found.bulks.setdefault((self._name, resident, operation), []).append(done)
            if not done.done:
                return
            if operation == "add":
                routes = done.done

    def change(self, standing, numbers, operation, limit):
        present = operation == "add"
        expected = standing + (len(numbers) if present else 0)
        self.prepare(numbers, present)
        begin = time.monotonic_ns()
        self._injector.change(numbers, present, limit)
        left = max(2.0, limit - (time.monotonic_ns() - begin) / 1e9)
        count, changes = self._watch.await_count(expected, still=STILL, timeout=left)
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
        count, changes = self._watch.await_count(expected, still=STILL)
        adds, withdrawals = ([(at - asked[route, there]) / 1e6 for route, there, at in changes if (route, there) in asked and there == present]
                             for present in (True, False))  # fmt: skip
        self._found.moves.setdefault((self._name, MIXED if mixed else "add"), []).append(
            Moves([], whole, Latencies.of(adds), Latencies.of(withdrawals) if mixed else None, expected, count))  # fmt: skip


class Run:
    def __init__(self, bench, lab, plan):
        self._bench, self._lab, self._plan = bench, lab, plan
        self.found = Found()

    def kedge(self, what, resident, samples, bulk, **options):
        staticd = self._lab["ar"].host_pid("staticd")
        before = processes.cpu_seconds(staticd)
        lines = bgp_lab.injector_load(
            self._lab, self._bench.build, "ar", POOLS["ar"], resident=resident, singles=samples, bulk=bulk, **options)  # fmt: skip
        self.found.cost.setdefault(what, []).append((processes.cpu_seconds(staticd) - before, machine.load()))
        for line in lines:
            if line["phase"] == "single" and samples:
                self.found.singles.setdefault((KEDGE, resident, line["operation"]), []).append(line["reflector_ms"])
        return [line for line in lines if line["phase"] == "bulk"]

    def kedge_turn(self, resident, level):
        for line in self.kedge(f"turn {resident}", resident, level.samples, level.bulk):
            seen = line["adds"]["seen"] + line["withdrawals"]["seen"]
            self.found.bulks.setdefault((KEDGE, resident, line["operation"]), []).append(
                Bulk(line["routes"], seen, line["reflector_s"], line["expected"], line["at_reflector"]))  # fmt: skip

    def kedge_moves(self):
        for kind in ("add", MIXED):
            resident = self._plan.moves_resident
            # What an earlier run has left there, is not this one's to take away.
            self.kedge("repair", resident, 0, 0)
            line = self.kedge(f"moves {kind}", resident, 0, AIM_RATE * self._plan.moves_seconds, rate=AIM_RATE, mixed=kind == MIXED)[0]
            withdrawals = Latencies(**line["withdrawals"]) if kind == MIXED else None
            self.found.moves.setdefault((KEDGE, kind), []).append(
                Moves(line["commits_ms"], line["routes"], Latencies(**line["adds"]), withdrawals, line["expected"], line["at_reflector"]))  # fmt: skip

    @contextlib.contextmanager
    def measuring(self, name, injector, pool):
        with bgp_lab.Watch(self._lab, self._bench.build, POOLS[pool]) as watch:
            yield Measurement(name, injector, watch, self.found), watch.count_at_begin

    def vty_turn(self, name, injector, resident, level):
        """On the routes that Kedge has just left there."""
        with bgp_lab.Watch(self._lab, self._bench.build, POOLS["ar"]) as watch:
            left = watch.count_at_begin != resident
        if left:
            # What the turn before could not withdraw in its time.
            self.kedge("repair", resident, 0, 0)
        with self.measuring(name, injector, "ar") as (measurement, standing):
            if standing != resident:
                raise processes.BenchError(f"{standing} routes of {resident} stand before {name} takes its turn")
            measurement.singles(resident, resident + level.bulk, level.slow_samples)
            if level.slow_bulk:
                measurement.bulk(resident, level.bulk)

    def peer_turn(self, name, injector, pool, resident, level):
        with self.measuring(name, injector, pool) as (measurement, standing):
            if standing < resident:
                measurement.change(standing, range(standing, resident), "add", 120)
            measurement.singles(resident, resident + level.bulk, level.samples)
            measurement.bulk(resident, level.bulk)

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
        vtys = ((VTYSH, route_injectors.Vtysh(self._lab["ar"], pools["ar"])),
                (RELOAD, route_injectors.Reload(self._lab["ar"], pools["ar"], self._bench.scratch)))  # fmt: skip
        with contextlib.ExitStack() as stack:
            peers = []
            for name, injector, node in ((GOBGP, route_injectors.GoBgp, "gobgp"), (EXABGP, route_injectors.ExaBgp, "exabgp")):
                peers.append((name, stack.enter_context(injector(self._lab, node, pools[node]).running()), node))
            for resident, level in self._plan.levels.items():
                for count in range(self._plan.rounds):
                    self._bench.say(f"{resident:,} resident routes, round {count + 1} of {self._plan.rounds}")
                    self.kedge_turn(resident, level)
                    for peer in peers:
                        self.peer_turn(*peer, resident, level)
                    for vty in vtys:
                        self.vty_turn(*vty, resident, level)
                if resident == self._plan.moves_resident:
                    for count in range(self._plan.rounds):
                        self._bench.say(f"{AIM_RATE:,} moves/s, round {count + 1} of {self._plan.rounds}")
                        self.kedge_moves()
                        for peer in peers:
                            self.peer_moves(*peer)


def run(bench):
    plan = QUICK if bench.quick else WHOLE
    with bgp_lab.Lab(bench.scratch, tuple(POOLS)) as lab:
        lab.start_access_router("ar")
        measured = Run(bench, lab, plan)
        measured.all()
    return _part(measured.found, plan)


def _known(values):
    return [value for value in values if value is not None]


def _in_rounds(values):
    """For ratio_spread: rounds without a value stay in their places."""
    return [[] if value is None else [value] for value in values]


def _usable(rounds):
    return [_known(samples) for samples in rounds]


def _middle(values):
    """The median of those that are known."""
    known = _known(values)
    return statistics.median(known) if known else None


def _worst_count(runs):
    """Of runs with a count at the reflector, the one that is farthest from what it should be."""
    worst = max(runs, key=lambda run: abs(run.at_reflector - run.expected))
    return f"{worst.at_reflector:,} of {worst.expected:,}"


def _singles_table(found, plan, operation):
    rows = []
    for resident in plan.levels:
        ours = found.singles[KEDGE, resident, operation]
        for name in NAMES:
            rounds = found.singles.get((name, resident, operation), [])
            usable, samples = sum(_usable(rounds), []), sum(rounds, [])
            over = f"over {SINGLE_LIMIT:g} s" if len(usable) < len(samples) else None
            spread = [min(usable), statistics.median(usable), over or max(usable)] if usable else ["-", over or "-", "-"]
            rows.append([f"{resident:,} resident: {name}", len(samples), *spread, "1.00x" if name == KEDGE else ratio_spread(_usable(rounds), ours)])
    return Table(f"One route, {operation}: ms until the reflector's kernel {'has it' if operation == 'add' else 'has let it go'}",
                 ["", "samples", "min", "median", "max", PEER_TO_KEDGE], rows)  # fmt: skip


def _bulks_table(found, plan):
    rows = []
    for resident in plan.levels:
        for operation in OPERATIONS:
            ours = _in_rounds(bulk.seconds_each for bulk in found.bulks[KEDGE, resident, operation])
            for name in NAMES:
                if not (bulks := found.bulks.get((name, resident, operation))):
                    continue
                rates = Distribution([bulk.per_second for bulk in bulks])
                theirs = _in_rounds(bulk.seconds_each for bulk in bulks)
                rows.append([f"{operation}, onto {resident:,}: {name}", len(bulks), extent([bulk.routes for bulk in bulks]),
                             extent([bulk.done for bulk in bulks]), min(rates.samples), rates.median, max(rates.samples),
                             "1.00x" if name == KEDGE else ratio_spread(theirs, ours), _worst_count(bulks)])  # fmt: skip
    limits = " and ".join(f"{name} has {limit:g} s" for name, limit in BULK_LIMITS.items())
    return Table("Many routes at once, until the reflector's kernel has the last one: routes/s",
                 ["", "rounds", "asked for", "done", "min", "median", "max", f"time for a route, {PEER_TO_KEDGE}", "at the reflector"], rows,
                 f"{limits} for each; they withdraw what they have added by then.")  # fmt: skip


def _kinds(plan):
    return {"add": f"{plan.moves_resident:,} and growing", MIXED: f"{plan.moves_resident:,}, as many leave"}


def _moves_table(found, plan):
    rows = []
    for kind, label in _kinds(plan).items():
        ours = found.moves[KEDGE, kind]
        for name in (KEDGE, GOBGP, EXABGP):
            runs = found.moves[name, kind]
            adds, leaving = [run.adds for run in runs], [run.withdrawals or Latencies(0) for run in runs]
            ratios = [ratio_spread(_in_rounds(one.p50_ms for one in adds), _in_rounds(run.adds.p50_ms for run in ours)),
                      ratio_spread(_in_rounds(one.p99_ms for one in adds), _in_rounds(run.adds.p99_ms for run in ours))]  # fmt: skip
            rows.append([f"{label}: {name}", sum(run.changes for run in runs), sum(run.seen for run in runs),
                         _middle(one.p50_ms for one in adds), _middle(one.p99_ms for one in adds), max(one.max_ms or 0 for one in adds),
                         _middle(one.p50_ms for one in leaving), _middle(one.p99_ms for one in leaving),
                         *(["1.00x"] * 2 if name == KEDGE else ratios), _worst_count(runs)])  # fmt: skip
    loads = [statistics.median(load for _, load in found.cost[f"moves {kind}"]) for kind in _kinds(plan)]
    return Table(f"{AIM_RATE:,} moves/s arriving for {plan.moves_seconds} s: ms for one route until the reflector's kernel has changed",
                 ["onto", "changes", "seen", "arriving p50", "p99", "max", "leaving p50", "p99", f"arriving p50, {PEER_TO_KEDGE}",
                  f"p99, {PEER_TO_KEDGE}", "at the reflector"], rows,
                 f"{plan.rounds} rounds, in turns: p50 and p99 are the median round's, max is the most of all. "
                 f"Load of the machine at the end of Kedge's: {loads[0]:.1f} and {loads[1]:.1f}.")  # fmt: skip


def _commits_table(found, plan):
    rows = []
    for kind, label in _kinds(plan).items():
        runs = found.moves[KEDGE, kind]
        took = [ms for run in runs for ms in run.commits_ms]
        rows.append([label, extent([len(run.commits_ms) for run in runs]), *Distribution(took).cells(), sum(run.changes for run in runs) / len(took)])
    return Table("Kedge's commits in these runs: ms from the beginning of a candidate until FRR has it",
                 ["onto", "commits in a run", *SPREAD, "changes in a commit"], rows)  # fmt: skip


def _part(found, plan):
    tables = [_singles_table(found, plan, operation) for operation in OPERATIONS]
    tables += [_bulks_table(found, plan), _moves_table(found, plan), _commits_table(found, plan)]
    series = {}
    for name in NAMES:
        points = [(max(1, resident), statistics.median(usable)) for resident in plan.levels
                  if (usable := sum(_usable(found.singles.get((name, resident, "add"), [])), []))]  # fmt: skip
        if points:
            series[name] = points
    return Part(
        title="Routes by FRR's northbound",
        method=(
            "An access router with FRR, gobgpd and exabgp, each with an iBGP session to one reflector with FRR (its bgpd waits 50 ms before it selects; "
            "so does the access router's). Each adds and withdraws /64s by turns, at each number of resident routes; vtysh and frr-reload.py at the "
            "same access router, on the same resident routes as Kedge. From the call to the change in the reflector's kernel. "
            f"{plan.rounds} rounds, in each of which all take their turn. {PEER_TO_KEDGE}: the ratio of the medians, and in brackets the least and the most "
            "of the rounds' own; above 1 Kedge is the faster one."
        ),
        tables=tables, goals=_goals(found, plan),
        plots=[Plot("northbound-add", "One more route at the reflector", "resident routes", "ms", series, log_x=True, log_y=True)],
        limits=(
            "staticd's commit costs as much as its whole configuration is large, whoever makes it; GoBGP and ExaBGP pay by the route. Two waits of "
            "bgpd, 50 ms each, are in each figure of Kedge, vtysh and frr-reload.py, one in those of GoBGP and ExaBGP."
        ),
        data={
            "singles_ms": {" | ".join(map(str, key)): rounds for key, rounds in found.singles.items()},
            "bulks": {" | ".join(map(str, key)): [dataclasses.asdict(bulk) for bulk in bulks] for key, bulks in found.bulks.items()},
            "staticd": {what: [{"cpu_s": cpu, "load": load} for cpu, load in runs] for what, runs in found.cost.items()},
            "moves": {" | ".join(key): [dataclasses.asdict(run) for run in runs] for key, runs in found.moves.items()},
        },
    )  # fmt: skip


def _goals(found, plan):
    bulks = found.bulks[KEDGE, 0, "add"]
    rates = Distribution([bulk.per_second for bulk in bulks])
    cpu, load = _cost(found, "turn 0")
    return [
        _moves_goal(found, plan, MIXED, "as many leaving"),
        _moves_goal(found, plan, "add", "none leaving"),
        Goal(f"{plan.levels[0].bulk:,} onto none at 5,000/s or more",
             f"{number(rates.median)}/s ({extent(rates.samples)}), {_worst_count(bulks)} at the reflector",
             rates.median >= 5000 and all(bulk.at_reflector == bulk.expected for bulk in bulks),
             f"{cpu:.1f} s of staticd's CPU for adding and removing them, load {load:.1f} on {os.cpu_count()} cores"),
    ]  # fmt: skip


def _moves_goal(found, plan, kind, leaving):
    runs = found.moves[KEDGE, kind]
    p99 = _middle(run.adds.p99_ms for run in runs)
    one_more = statistics.median(sum(found.singles[KEDGE, plan.moves_resident, "add"], []))
    commits = Distribution([ms for run in runs for ms in run.commits_ms])
    cpu, load = _cost(found, f"moves {kind}")
    seen = f"{sum(run.adds.seen for run in runs):,} of {sum(run.asked for run in runs):,} in {len(runs)} runs, p99 {number(p99)} ms"
    if known := _known(run.adds.p99_ms for run in runs):
        seen += f" ({extent(known)})"
    if kind == MIXED:
        seen += f", of those leaving {number(_middle(run.withdrawals.p99_ms for run in runs))} ms"
    return Goal(f"{AIM_RATE:,} moves/s arriving onto {plan.moves_resident:,} resident, {leaving}: all anchored, p99 under 1 s", seen,
                all(run.seen == run.changes and run.at_reflector == run.expected for run in runs) and p99 is not None and p99 < 1000,
                f"each commit copies and compares staticd's whole configuration: one route onto {plan.moves_resident:,} takes {number(one_more)} ms, "
                f"a commit in these runs {number(commits.median)} ms; {cpu:.1f} s of staticd's CPU, load {load:.1f} on {os.cpu_count()} cores")  # fmt: skip


def _cost(found, what):
    """Seconds of staticd's CPU and the machine's load, of the median run."""
    return [statistics.median(values) for values in zip(*found.cost[what])]
