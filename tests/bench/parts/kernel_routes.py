"""Announcements by routes of the kernel (frr.injector: kernel), from the injector's call to the reflector's kernel, with nothing to a hundred
thousand announced already. Beside it, as far as it goes, the injector by FRR's northbound."""

import contextlib
import json
import subprocess
import sys

import processes
import scenario as scenarios
from report import SPREAD, Distribution, Goal, Part, Plot, Table, extent, number, ratio_spread

sys.path.insert(0, str(scenarios.REPOSITORY / "tests" / "component" / "frr"))

import frr_node  # noqa: E402  pylint: disable=wrong-import-position
import test_anchoring_plane as planes  # noqa: E402  pylint: disable=wrong-import-position

BULK = 20_000
GOAL_RATE = 20_000
MOST = 100_000
# FRR's northbound takes its turn up to here.
BESIDE_UP_TO = 1_000
# So many times the median of its kind, and a sample is looked at by itself.
SLOW = 1.2


@contextlib.contextmanager
def _routers(injector, folder):
    """An access router and its reflector, as the tests of the anchoring plane have them, with zebra's own waits off."""
    with contextlib.ExitStack() as nodes:
        both = []
        for name in ("ar", "reflector"):
            both.append(frr_node.FrrNode(name, folder))
            nodes.callback(both[-1].close)
        ar, reflector = both
        ar.connect("core", planes.AR + "/64", reflector, "ar", planes.REFLECTOR + "/64")
        for node, way, own, other, more in (
            (ar, injector, 1, planes.REFLECTOR, ""),
            (reflector, planes.NORTHBOUND, 2, planes.AR, f"neighbor {planes.AR} route-reflector-client"),
        ):
            node.configure("zebra", "zebra work-queue 0\n")
            node.configure("bgpd", planes.bgpd(way, router_id=f"192.0.2.{own}", neighbor=other, more=more))
            node.start("zebra", "-s", "90000000", "--v6-rr-semantics")
            node.start("bgpd", "-p", "179", "-l", "::")
        injector.start(ar)
        frr_node.wait_for(lambda: '"Established"' in reflector.vtysh("show bgp ipv6 unicast summary json"), "the BGP session")
        yield ar, reflector


def _load(bench, injector, resident, bulk, singles):
    """The driver's lines, and how many prefixes the reflector's bgpd has at the end."""
    folder = bench.scratch / f"{injector.name}-{resident}"
    folder.mkdir()
    with _routers(injector, folder) as (ar, reflector):
        command = [
            "nsenter", "-t", ar.pid, "-n", bench.build / "tests" / "bench" / "injector_load", "--injector", injector.name,
            "--reflector", f"/proc/{reflector.pid}/ns/net", "--vty-directory", f"/proc/{ar.pid}/root/run/frr",
            "--resident", resident, "--bulk", bulk, "--singles", singles,
        ]  # fmt: skip
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise processes.BenchError(f"injector_load with {resident} routes: {done.stderr.strip().splitlines()[-1:]}")
        received = planes.received(reflector)
        drops = planes.zebra_drops(ar)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {"lines": lines, "received": received, "expected": resident, "drops": drops}


def _single(run, operation, what):
    return next(line for line in run["lines"] if line["phase"] == "single" and line["operation"] == operation)[what]


def _bulk(run, operation):
    return next(line for line in run["lines"] if line["phase"] == "bulk" and line["operation"] == operation)


def _exact(run):
    counts = all(line["expected"] == line["at_reflector"] for line in run["lines"] if "expected" in line)
    return counts and run["received"] == run["expected"]


def run(bench):
    residents = bench.samples([0, 1_000, 10_000, MOST], [0, 1_000])
    bulk, singles, rounds = bench.samples((BULK, 30, 3), (2_000, 5, 2))
    found, beside = {}, {}
    for resident in residents:
        for count in range(rounds):
            bench.say(f"{resident:,} announced, round {count + 1} of {rounds}")
            found.setdefault(resident, []).append(_load(bench, planes.KERNEL, resident, bulk, singles))
            _forget(bench)
            if resident <= BESIDE_UP_TO:
                beside.setdefault(resident, []).append(_load(bench, planes.NORTHBOUND, resident, 0, singles))
                _forget(bench)
    return _part(found, beside, bulk)


def _forget(bench):
    """The folders of logs: names are used again."""
    subprocess.run(["find", str(bench.scratch), "-mindepth", "1", "-delete"], check=True)


def _slow_ones(found):
    """Whose time it was that samples took which stand out."""
    samples, slow = 0, []
    for runs in found.values():
        for operation in ("add", "withdraw"):
            pairs = [pair for one in runs for pair in zip(_single(one, operation, "reflector_ms"), _single(one, operation, "committed_ms"))]
            usual = Distribution([at for at, _ in pairs]).median
            samples += len(pairs)
            slow += [(at, done) for at, done in pairs if at > SLOW * usual]
    if not slow:
        return f"None of {samples:,} samples took more than {SLOW} times the median."
    waited = extent([at - done for at, done in slow])
    return (f"{len(slow)} of {samples:,} samples took more than {SLOW} times the median. Of these the injector had committed after "
            f"{number(max(done for _, done in slow))} ms at most, and the other {waited} ms were FRR's two routers'.")  # fmt: skip


def _part(found, beside, bulk):
    rows, latency = [], {}
    for resident, runs in found.items():
        for operation in ("add", "withdraw"):
            ours, theirs = ([_single(one, operation, "reflector_ms") for one in rounds] for rounds in (runs, beside.get(resident, [])))
            at, done = Distribution(sum(ours, [])), Distribution(sum((_single(one, operation, "committed_ms") for one in runs), []))
            latency[operation, resident] = at
            other = Distribution(sum(theirs, [])).median if theirs else None
            rows.append([f"{operation}, {resident:,} announced", done.median, *at.cells(), other, ratio_spread(theirs, ours)])
    rates, bulk_rows = {}, []
    for resident, runs in found.items():
        for operation in ("add", "withdraw"):
            lines = [_bulk(one, operation) for one in runs]
            rates[operation, resident] = Distribution([line["routes"] / line["reflector_s"] for line in lines])
            missing = [line["expected"] - line["at_reflector"] for line in lines]
            bulk_rows.append([f"{operation} {bulk:,}, {resident:,} announced", *rates[operation, resident].cells(), max(missing, key=abs)])
    slowest, most = min(rate.median for rate in rates.values()), max(found)
    grows = latency["add", most].median / latency["add", 0].median
    exact = [_exact(one) for runs in found.values() for one in runs]
    tables = [
        Table("One prefix, ms from the injector's call",
              ["", "committed (median)", *[f"reflector {word}" for word in SPREAD], "northbound, median", "northbound / this (rounds)"], rows,
              "`committed`: the kernel has it and zebra has it in its queue. `reflector`: the route is in the reflector's kernel, or gone; bgpd's wait "
              "of 50 ms at each of the two routers is most of it. `northbound`: Kedge's other injector, in turns with this one, at the reflector as "
              f"well; in brackets the least and the most of the rounds. {_slow_ones(found)}"),
        Table("Many at once, routes a second at the reflector", ["", *SPREAD, "missing"], bulk_rows,
              "From the first call to the last change in the reflector's kernel. `missing`: expected less counted there, once it stands still."),
    ]  # fmt: skip
    goals = [
        Goal(f"a single move costs the same with {most:,} announced as with none (at most 1.2 times)", f"{grows:.2f}x", grows <= 1.2,
             "zebra and bgpd have more to walk through"),
        Goal(f"{GOAL_RATE:,} routes a second in bulk, added and withdrawn", f"{slowest:,.0f}/s, the lowest median", slowest >= GOAL_RATE,
             "the machine: the same cores run zebra and bgpd of both routers, and whatever else there is"),
        Goal("the count at the reflector is exact each time", f"{sum(exact)} of {len(exact)} runs", all(exact), "see `missing`"),
    ]  # fmt: skip
    plot = Plot("kernel-routes-single", "One prefix, by how many are announced", "announced", "ms",
                {operation: [(max(1, resident), latency[operation, resident].median) for resident in found] for operation in ("add", "withdraw")},
                log_x=True)  # fmt: skip
    return Part(
        title="Announcements by routes of the kernel",
        method=(
            "An access router and a reflector with FRR's own zebra and bgpd, in namespaces; the speaker's injector, alone, in a driver that also watches "
            "the reflector's kernel. Each number of announced prefixes is set up anew in each round."
        ),
        tables=tables, goals=goals, plots=[plot],
        limits=f"bgpd's wait for single prefixes, FRR's own work for many. zebra missed {sum(one['drops'] for runs in found.values() for one in runs)} "
        "notices in all.",
        data={"kernel": {str(resident): runs for resident, runs in found.items()}, "northbound": {str(resident): runs for resident, runs in beside.items()}},
    )  # fmt: skip
