#!/usr/bin/python3
"""Moves the lab's mobile node many times under a flow; reports the loss of each move and where in its time line it fell, and checks that no
redirect was programmed before its target delivered. Example: tests/lab/many_moves.py --moves 200 [--gap 0]"""

import argparse
import collections
import json
import pathlib
import statistics
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import order  # noqa: E402  pylint: disable=wrong-import-position
import scenario as scenarios  # noqa: E402  pylint: disable=wrong-import-position


def losses_of(flow, move):
    """(direction, milliseconds after the first link change, packets) of each run of losses in the move's window."""
    report = flow.report(move["window"])
    origin = move["events"][0]["ns"]
    return report, [
        (name, round((report["base_ns"] - origin) / 1e6 + loss["sent_at_ms"], 1), loss["count"])
        for name, side in (("cn>mn", "a_to_b"), ("mn>cn", "b_to_a"))
        for loss in report[side]["losses"]
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moves", type=int, default=200)
    parser.add_argument("--gap", type=float, help="break before make with this gap in ms (default: planned moves)")
    parser.add_argument("--rate", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kedge-moves-") as folder:
        with scenarios.lab_up(scenarios.REPOSITORY / "containerlab" / "handover", name="many-moves") as lab:
            lab.wait_synced()
            events = scenarios.Events(lab)
            prefix = lab.prefix_of(lab.mn_address())
            flow = scenarios.Flow(lab, folder, rate=arguments.rate)
            try:
                moves = [
                    lab.move(events, ("ar2", "ar1")[number % 2], prefix, arguments.gap) for number in range(arguments.moves)
                ]
                flow.stop()
            except BaseException:
                flow.abort()
                raise
            checked = order.check_order(events.all(), prefix)
            show(flow, moves)
            print(f"redirects checked: {checked}, none was programmed before its target delivered")
            held = lab.binding(prefix)
            print("end state:", held["state"], "at", held["attached_ar"], "holders", [h["ar"] for h in held["holders"]])


def show(flow, moves):
    total = collections.Counter()
    stages = collections.defaultdict(list)
    gaps = []
    for number, move in enumerate(moves):
        report, losses = losses_of(flow, move)
        gaps.append(max(report[side]["longest_gap_ms"] for side in ("a_to_b", "b_to_a")))
        for name, side in (("cn>mn", "a_to_b"), ("mn>cn", "b_to_a")):
            total[name + " sent"] += report[side]["sent"]
            total[name + " lost"] += report[side]["lost"]
        for stage, ms in move["timeline"].items():
            if ms is not None:
                stages[stage].append(ms)
        if losses:
            print(f"move {number}: lost {losses}; {json.dumps(move['timeline'])}")
    print(f"{len(moves)} moves:", dict(total))
    print(f"longest gap of a move: median {statistics.median(gaps):.1f} ms, most {max(gaps):.1f} ms")
    for stage, values in stages.items():
        print(f"  {stage:20} n={len(values):4} min {min(values):8.2f}  median {statistics.median(values):8.2f}  max {max(values):8.2f} ms")


if __name__ == "__main__":
    main()
