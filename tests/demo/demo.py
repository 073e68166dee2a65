#!/usr/bin/python3
"""A mobile node with a running flow is moved between two access routers, on real FRR and the kernel's own forwarding, in network namespaces.

Prints a time line and the loss of each move, then one table; writes build/demo/report.json. Leaves nothing behind, also on Ctrl-C.
"""

import json
import pathlib
import signal
import sys
import tempfile

sys.dont_write_bytecode = True
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "lab"))

import scenario as scenarios  # noqa: E402  pylint: disable=wrong-import-position

TOPOLOGY = REPOSITORY / "containerlab" / "handover"
REPORT = REPOSITORY / "build" / "demo" / "report.json"
RATE = 1000

# name, mode, AR, gap in ms (None: planned)
RUNS = [
    ("planned move to ar2", "relocate", "ar2", None),
    ("planned move home to ar1", "relocate", "ar1", None),
    ("break before make to ar2", "relocate", "ar2", 0),
    ("break before make to ar2, BGP alone", "bgp-only", "ar2", 0),
]


def show_timeline(run):
    print(f"\n{run['name']}")
    timed = sorted((ms, stage) for stage, ms in run["timeline"].items() if ms is not None)
    for ms, stage in timed:
        print(f"  {ms:10.2f} ms  {scenarios.STAGE_LABELS[stage]}")
    for stage, ms in run["timeline"].items():
        if ms is None:
            print(f"           - ms  {scenarios.STAGE_LABELS[stage]}")
    for direction in ("cn_to_mn", "mn_to_cn"):
        part = run[direction]
        print(f"  {direction.replace('_', ' '):8}: {part['sent']} sent, {part['lost']} lost, longest gap {part['longest_gap_ms']:.1f} ms")


def fill_loss(run, flow):
    report = flow.report(run.pop("window"))
    sides = {"cn_to_mn": report["a_to_b"], "mn_to_cn": report["b_to_a"]}
    for name, side in sides.items():
        run[name] = {key: side[key] for key in ("sent", "received", "lost", "duplicated", "reordered", "longest_gap_ms", "longest_send_gap_ms")}
    for key in ("sent", "received", "lost"):
        run[key] = sum(side[key] for side in sides.values())
    run["longest_gap_ms"] = max(side["longest_gap_ms"] for side in sides.values())


def show_table(runs):
    heading = ("move", "sent", "lost CN>MN", "lost MN>CN", "longest gap", "redirected", "BGP moved")
    rows = [heading]
    for run in runs:
        line = run["timeline"]
        rows.append((
            run["name"], str(run["sent"]), str(run["cn_to_mn"]["lost"]), str(run["mn_to_cn"]["lost"]), f"{run['longest_gap_ms']:.1f} ms",
            "-" if line["redirect_programmed"] is None else f"{line['redirect_programmed']:.1f} ms",
            "-" if line["best_path_changed"] is None else f"{line['best_path_changed']:.1f} ms",
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows)]
    print()
    for number, row in enumerate(rows):
        print("  ".join(text.ljust(width) if i == 0 else text.rjust(width) for i, (text, width) in enumerate(zip(row, widths))))
        if number == 0:
            print("  ".join("-" * width for width in widths))


def play(scenario, folder):
    events = scenarios.Events(scenario)
    scenario.wait_synced()
    address = scenario.mn_address()
    prefix = scenario.prefix_of(address)
    print(f"mn1 has {address}; {RATE} packets/s flow each way between it and cn")
    runs = []
    for number, (name, mode, target, gap) in enumerate(RUNS):
        if scenario.binding(prefix)["attached_ar"] == target:
            # Back to where this run begins, without a flow.
            scenario.move(events, "ar1" if target == "ar2" else "ar2", prefix)
        if mode == "bgp-only":
            scenario.restart_speakers("kernel:\n  redirection: false\n")
        flow = scenarios.Flow(scenario, folder / str(number), mn_address=address, rate=RATE)
        try:
            run = {"name": name, "mode": mode, **scenario.move(events, target, prefix, gap)}
            # What was sent until the move had settled counts; packets sent later let late ones show.
            flow.stop()
        except BaseException:
            flow.abort()
            raise
        fill_loss(run, flow)
        runs.append(run)
        show_timeline(run)
    events.close()
    return runs


def main():
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="kedge-demo-") as folder:
        with scenarios.lab_up(TOPOLOGY) as scenario:
            runs = play(scenario, pathlib.Path(folder))
    show_table(runs)
    for run in runs:
        run.pop("events")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps({"rate_per_direction": RATE, "runs": runs}, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten: {REPORT.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; everything has been removed")
    except (scenarios.ScenarioError, scenarios.labs.LabError) as error:
        sys.exit(f"demo: {error}")
