"""Forwarding as Kedge has it beside plain forwarding, in the kernel alone: cost of a packet by way and by number of bindings."""

import json
import subprocess

import processes
from report import Distribution, Goal, Part, Plot, Table

WAYS = {
    "plain": "plain: /64s in `main`",
    "deliver": "deliver: mobile table, all rules",
    "direct": "encapsulation in the route itself",
    "redirect": "redirect: through kx0-kx1",
}


def run(bench):
    command = [bench.build / "tests" / "bench" / "forwarding_bench", "--samples", bench.samples(15, 1), "--milliseconds", bench.samples(1000, 100)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise processes.BenchError(f"forwarding_bench: {done.stderr.strip()}")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    costs, lost, programmed = {}, 0, []
    for line in lines:
        if "way" in line:
            # The sender's own work is a part of it, for each way alike.
            costs.setdefault((line["way"], line["bindings"]), []).append(1e9 * line["seconds"] / max(1, line["received"]))
            lost += line["sent"] - line["received"]
        elif "programmed" in line:
            programmed.append(line)
    costs = {key: Distribution(values) for key, values in costs.items()}
    return _part(costs, lost, programmed, next(line for line in lines if "neighbours" in line))


def _part(costs, lost, programmed, neighbours):
    numbers = sorted({bindings for _, bindings in costs})
    rows = []
    for bindings in numbers:
        plain = costs["plain", bindings].median
        for way, label in WAYS.items():
            cost = costs[way, bindings]
            rows.append([f"{bindings:,} bindings, {label}", min(cost.samples), cost.median, max(cost.samples), 1e9 / cost.median,
                         f"{cost.median / plain:.2f}x", cost.median - plain])  # fmt: skip
    most = max(numbers)
    growth = {way: costs[way, most].median / costs[way, numbers[0]].median for way in WAYS}
    each = {}
    for line in programmed:
        if line["bindings"] == most:
            each.setdefault(line["programmed"], []).append(1e6 * line["seconds"] / line["bindings"])
    tables = [
        Table("Nanoseconds a packet, from the sender's system call to the mobile node's interface, on one core",
              ["", "min", "median", "max", "packets/s", "against plain", "ns more"], rows,
              "`plain` and `deliver` go through one access router, the two others through two and a tunnel between them. 66 octets a packet, to "
              "one address of each prefix in turn."),
        Table("Programming, one request after the other, microseconds a route", ["", "median", "times that the kernel was out of memory"],
              [[kind, Distribution(values).median, sum(line["out_of_memory"] for line in programmed if line["programmed"] == kind)]
               for kind, values in each.items()],
              "Out of memory: encapsulating routes need per-CPU memory that the kernel makes ready in the background; a burst of thousands can find "
              "none for some milliseconds (`ip route` as well). The speaker tries again until it is there."),
    ]  # fmt: skip
    goals = [
        Goal(f"deliver at {most:,} bindings costs at most half as much again as plain forwarding",
             f"{costs['deliver', most].median / costs['plain', most].median:.2f}x",
             costs["deliver", most].median <= 1.5 * costs["plain", most].median, "rules are gone through one by one before the table"),
        Goal("the pair costs at most twice the route with the encapsulation in it",
             f"{costs['redirect', most].median / costs['direct', most].median:.2f}x",
             costs["redirect", most].median <= 2 * costs["direct", most].median, "the packet is forwarded twice at the redirecting router"),
        Goal(f"{neighbours['neighbours']:,} neighbours on one access interface with gc_thresh3 at {neighbours['gc_thresh3']:,}",
             f"{neighbours['permanent']:,} there", neighbours["permanent"] == neighbours["neighbours"],
             "the neighbour table is full: raise net.ipv6.neigh.default.gc_thresh3"),
    ]  # fmt: skip
    plot = Plot("dataplane-cost", "Cost of a packet", "bindings", "ns",
                {label: [(bindings, costs[way, bindings].median) for bindings in numbers] for way, label in WAYS.items()}, log_x=True)  # fmt: skip
    return Part(
        title="Data plane",
        method=(
            "cn - core - ar1 (- core - ar2) - mn in network namespaces, with the forwarding plane of the speaker; one sender as fast as it goes, so that "
            "all that happens to a packet happens on its core. Ways take turns."
        ),
        tables=tables, goals=goals, plots=[plot],
        limits=f"the core that sends. {lost} packets of all ways were sent and did not arrive. Between 1 and {most:,} bindings: "
        + ", ".join(f"{way} {factor:.2f}x" for way, factor in growth.items()) + ".",
        data={"ns": {f"{way} {bindings}": cost.samples for (way, bindings), cost in costs.items()}, "programmed": programmed, "neighbours": neighbours},
    )  # fmt: skip
