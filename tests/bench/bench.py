#!/usr/bin/python3
"""Measures Kedge beside what an operator would use instead; needs root.

Prints tables, writes <output>/report.json, report.md and plots (SVG). --publish puts the results into the pages of docs/ too, between the marks
of each part, and makes the summary of all that stands there anew. A part that fails is named at the end, and the others run all the same. Leaves
nothing behind, also on Ctrl-C."""

import argparse
import dataclasses
import datetime
import importlib
import json
import pathlib
import signal
import sys
import tempfile
import time
import traceback

sys.dont_write_bytecode = True
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "tests" / "bench"), str(REPOSITORY / "tests" / "lab")]

import machine  # noqa: E402  pylint: disable=wrong-import-position
import pages  # noqa: E402  pylint: disable=wrong-import-position
import plots  # noqa: E402  pylint: disable=wrong-import-position

# In this order; each is parts/<name>.py with `run(bench) -> report.Part`.
PARTS = (
    "handover", "convergence", "churn", "cores", "northbound", "kernel_routes", "lm", "storm", "profile", "dataplane", "idle", "scale", "micro",
)  # fmt: skip


@dataclasses.dataclass
class Bench:
    """What a part is given."""

    build: pathlib.Path  # the build folder with the programs under test
    scratch: pathlib.Path  # the part's own empty folder, removed after it; on a real disk
    quick: bool  # fewer samples: does the part work at all?

    @staticmethod
    def say(text):
        """One line of progress."""
        print(f"  {time.strftime('%H:%M:%S')} {text}", flush=True)

    def samples(self, whole, quick):
        return quick if self.quick else whole


def parse(available):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these, of: {', '.join(available)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="few samples: shows that all works, not how fast")
    parser.add_argument("--publish", action="store_true", help="put the results into docs/performance.md, and sum all up at its top")
    parser.add_argument("--output", type=pathlib.Path, default=REPOSITORY / "build" / "bench")
    parser.add_argument("--build", type=pathlib.Path, default=REPOSITORY / "build" / "release")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.parts if name not in available]
    if unknown:
        parser.error(f"no part is called {', '.join(unknown)}; there are: {', '.join(available)}")
    if arguments.quick and arguments.publish:
        parser.error("--quick shows no figures that could be published")
    return arguments


def available_parts():
    return [name for name in PARTS if (REPOSITORY / "tests" / "bench" / "parts" / f"{name}.py").exists()]


def run_part(name, arguments):
    """The part's results with when, how long and at which load it ran."""
    load_before, begin, at = machine.load(), time.monotonic(), datetime.datetime.now(datetime.timezone.utc)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=arguments.output) as scratch:
        bench = Bench(arguments.build, pathlib.Path(scratch), arguments.quick)
        part = importlib.import_module(f"parts.{name}").run(bench)
    run = {
        "at": at.isoformat(timespec="seconds"), "seconds": round(time.monotonic() - begin, 1), "load_before": load_before, "machine": machine.text(),
    }  # fmt: skip
    return part, run


def show(part, run):
    print(f"\n{part.title}  ({run['seconds']} s, load before {run['load_before']:.1f})\n{part.method}\n")
    for table in part.tables:
        print(table.text())
    for goal in part.goals:
        print(f"  {'met   ' if goal.met else 'MISSED'} {goal.aim}: {goal.seen}{'' if goal.met else ' - ' + goal.limit}")
    print(flush=True)


def markdown(part, run, images):
    return f"{part.markdown(images)}\n{pages.ran(run)}\n"


def merge(output, results):
    """The report with these parts; others stay as an earlier run left them."""
    path = output / "report.json"
    report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    parts = report.get("parts", {})
    parts.update({name: {"run": run, **part.json()} for name, (part, run) in results.items()})
    report = {"machine": machine.describe(), "parts": {name: parts[name] for name in PARTS if name in parts}}
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def main():
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    available = available_parts()
    arguments = parse(available)
    arguments.output.mkdir(parents=True, exist_ok=True)
    begin, results, failed = time.monotonic(), {}, []
    homeless = pages.without_place(arguments.parts or available) if arguments.publish else []
    if homeless:
        print(f"Not published: {', '.join(homeless)}; no page has the lines <!-- bench: NAME --> and <!-- end --> for it", flush=True)
    for name in arguments.parts or available:
        print(f"== {name}", flush=True)
        try:
            part, run = run_part(name, arguments)
            for plot in part.plots:
                plots.draw(plot, arguments.output)
        except Exception:  # pylint: disable=broad-exception-caught
            traceback.print_exc()
            failed.append(name)
            continue
        results[name] = part, run
        show(part, run)
        merge(arguments.output, {name: (part, run)})
        if arguments.publish and name not in homeless:
            pages.publish(name, markdown(part, run, "images/performance"), part.plots, arguments.output)
    texts = [f"# {part.title}\n\n{markdown(part, run, '.')}" for part, run in results.values()]
    (arguments.output / "report.md").write_text("\n".join(texts), encoding="utf-8")
    goals = [goal for part, _ in results.values() for goal in part.goals]
    print(f"{sum(goal.met for goal in goals)} of {len(goals)} goals met; {len(results)} parts in {(time.monotonic() - begin) / 60:.1f} minutes")
    if failed:
        sys.exit(f"bench: failed: {', '.join(failed)}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; everything has been removed")
