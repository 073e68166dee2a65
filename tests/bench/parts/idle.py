"""What the daemons do while nothing happens: 10,000 mobile nodes at home at one access router, then all of them away from home at another."""

import contextlib
import os
import time

import scenario as scenarios
from parts.storm import OVERLAP_MS, TOPOLOGY, StormLab
from processes import cpu_seconds, switches
from report import Goal, Part, Table

DAEMONS = ("kedge-lm", "kedge-speaker")


def _watch(lab, seconds):
    """(node, program) -> CPU in per cent, and wake-ups a second of all its threads."""
    before = {key: (cpu_seconds(pid), switches(pid)) for key, pid in lab.pids.items()}
    begin = time.monotonic()
    scenarios.wait_until(f"{seconds} s pass", lambda: time.monotonic() - begin >= seconds, 2 * seconds, 0.5)
    elapsed = time.monotonic() - begin
    return {key: (100 * (cpu_seconds(pid) - before[key][0]) / elapsed, (switches(pid) - before[key][1]) / elapsed)
            for key, pid in lab.pids.items()}  # fmt: skip


def run(bench):
    nodes, seconds = bench.samples((10_000, 120), (150, 10))
    seen = {}
    with contextlib.ExitStack() as stack:
        up = stack.enter_context(scenarios.lab_up(TOPOLOGY, name=f"bench-idle-{os.getpid()}"))
        up.wait_synced()
        lab = StormLab(up, nodes, bench.scratch)
        stack.callback(lab.close)
        lab.arrive()
        bench.say("all at home")
        seen["at home"] = _watch(lab, seconds)
        lab.storm(f"overlap {OVERLAP_MS}")
        bench.say("all away")
        seen["away from home"] = _watch(lab, seconds)
    rows = [[f"{node}: {name}", *(value for where in seen for value in seen[where][node, name])]
            for node, name in next(iter(seen.values())) if name != "mn_swarm"]  # fmt: skip
    worst = max((values[0], f"{name} of {node}, {where}") for where, found in seen.items() for (node, name), values in found.items() if name in DAEMONS)
    return Part(
        title="Idle",
        method=f"{nodes:,} MNs are there and silent but for what they answer; {seconds} s each, after all has settled.",
        tables=[Table("CPU (per cent of one core) and wake-ups a second of all threads", ["", *(f"{where}: {what}" for where in seen
                      for what in ("CPU", "wake-ups"))], rows)],
        goals=[Goal("each of Kedge's daemons under 1 % of one core", f"at most {worst[0]:.2f} %: {worst[1]}", worst[0] < 1,
                    "probes of MNs that have been silent, and reading FRR's configuration again")],
        data={where: {f"{node} {name}": values for (node, name), values in found.items()} for where, found in seen.items()},
    )  # fmt: skip
