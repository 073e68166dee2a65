#!/usr/bin/python3
"""Seeds known mistakes into copies of the sources and tells whether the model notices, and after how many events.

usage: mutations.py [--build FOLDER] [--in-place] [--events N] [--seed N] [NAME...]

Without --in-place nothing in the work tree is changed. The last line counts; the exit code is 0 when all were caught.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
MACHINE = "lm-server/core/machine.cc"
RULES = "lm-server/core/rules.cc"
DESIRED = "speaker/core/desired.cc"
CONTROLLER = "speaker/controller/controller.cc"

# (name, file, what stands there, what stands there instead)
MUTATIONS = [
    ("redirect before the target has acknowledged", DESIRED,
     "result.forwarding = attached_delivers(binding) ? ", "result.forwarding = true ? "),
    ("the LM takes delivery of any generation", RULES,
     "return attached != nullptr && attached->delivers() && same(attached->generation(), binding.generation());",
     "return attached != nullptr && attached->delivers();"),
    ("acknowledgements of old generations count", MACHINE,
     "  const auto order = compare(ack.generation(), entry.binding.generation());",
     "  const auto order = std::strong_ordering::equal;"),
    ("an old acknowledgement of advertising is ignored", MACHINE,
     "    if (ack.stage() == v1::STAGE_ADVERTISED) {\n      holder.set_adv", "    if (false) {\n      holder.set_adv"),
    ("the attached AR is not entered in the holders", MACHINE,
     "binding.set_attached_ar(request.ar());\n",
     "binding.set_attached_ar(request.ar());\n  if (find_holder(binding, from) != nullptr && from != binding.home_ar()) remove_holder(binding, from);\n"),
    ("preference is not raised above the others", MACHINE,
     "  } else if (others >= preference) {\n    preference = others < levels ? others + 1 : 0;",
     "  } else if (others > preference) {\n    preference = others < levels ? others : 0;"),
    ("a new attachment begins at the lowest level", RULES,
     "return others < levels ? others + 1 : 0;", "return 1;"),
    ("settled without waiting for the others", RULES,
     "  return std::all_of(binding.holders().begin(), binding.holders().end(), [&](const v1::Holder& holder) {\n    if (holder.ar() == binding.attached_ar()) return holder",
     "  return std::any_of(binding.holders().begin(), binding.holders().end(), [&](const v1::Holder& holder) {\n    if (holder.ar() == binding.attached_ar()) return holder"),
    ("release without a hold", MACHINE,
     "    if (*since + settings_.redirect_hold > tx.now) continue;\n", ""),
    ("release while others may still point there", RULES,
     "return follows(binding, other) && (!needs_bgp || other.superseded());",
     "return other.ar().empty() || needs_bgp || true;"),
    ("nobody is ever released", RULES,
     "  if (holder.advertises_preference() != 0 || !attached_delivers(binding)) return false;",
     "  if (true) return false;"),
    ("a detach of an old attachment counts", MACHINE,
     "    if (!is_none(request.generation()) && !same(request.generation(), current.generation())) continue;\n", ""),
    ("the home AR withdraws before the others", MACHINE,
     "return h.ar() != attached.ar() && h.advertises_preference() > 0 && node(h.ar())->session != 0;", "return false;"),
    ("an old anchor withdraws without being superseded", CONTROLLER,
     "    case Anchoring::Kind::kUntilSuperseded:\n      if (entry.superseded) {",
     "    case Anchoring::Kind::kUntilSuperseded:\n      if (true) {"),
    ("the kernel is cleared before FRR has withdrawn", CONTROLLER,
     "(releasing(entry) && entry.level_wanted == 0 && entry.level_committed == 0U)", "releasing(entry)"),
    ("nothing is acknowledged anew after a snapshot", CONTROLLER,
     "    entry.record = binding;\n    entry.desired = desired(binding, config_.name);\n",
     "    entry.record = binding;\n    entry.desired = desired(binding, config_.name);\n    for (const auto* key : {\"1   0 0\", \"1  0 false\", \"4  1 false\", \"2 ar1 0 false\"}) entry.acknowledged.insert(key);\n"),
    ("records may be older than the one held", CONTROLLER,
     "  if (compare(binding.revision(), entry.record.revision()) < 0) return;\n", ""),
    ("what was superseded once counts for the next move", CONTROLLER,
     "entry.superseded = entry.superseded && !new_generation &&", "entry.superseded = entry.superseded &&"),
    ("advertised before it is delivered", CONTROLLER,
     "if (delivering(entry)) set_level(", "set_level("),
    ("advertised to the MN before it is delivered", CONTROLLER,
     "    if (!delivering(entry)) return;\n", ""),
    ("a route that the kernel refused counts as programmed", CONTROLLER,
     "  entry.confirmed = status.ok();\n  if (!status.ok()) {", "  entry.confirmed = true;\n  if (false) {"),
    ("a retried route is taken for the one wanted now", CONTROLLER,
     "  entry.programmed = entry.requested;\n  entry.confirmed = true;",
     "  entry.programmed = route_of(entry);\n  entry.confirmed = true;"),
    ("forgotten prefixes stay in the kernel", CONTROLLER,
     "  if (const auto status = forwarding_.set(prefix, std::nullopt); !status.ok()) {",
     "  if (const absl::Status status; !status.ok()) {"),
]


def run(command, **arguments):
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **arguments)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--build", help="keep the copy and its build in this folder, for the next run")
    parser.add_argument("--events", default="200000", help="events for each mutation (default: %(default)s)")
    parser.add_argument("--seed", default="1", help="seed of the events (default: %(default)s)")
    parser.add_argument("--in-place", action="store_true",
                        help="change the work tree itself, and put it back; --build is its build folder")
    parser.add_argument("names", nargs="*", help="parts of names of mutations")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="kedge-mutations-") as temporary:
        folder = pathlib.Path(arguments.build or temporary).resolve()
        sources, build = (ROOT, folder) if arguments.in_place else (folder / "sources", folder / "build")
        files = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT).stdout
        for name in filter(None, [] if arguments.in_place else files.split("\0")):
            target = sources / name
            if not (ROOT / name).is_file():
                continue
            if target.exists() and target.read_bytes() == (ROOT / name).read_bytes():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
        environment = dict(os.environ, CCACHE_BASEDIR=str(folder.parent), CCACHE_NOHASHDIR="1")
        configured = run(["cmake", "-S", sources, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"],
                         env=environment)
        if configured.returncode:
            sys.exit(configured.stdout)

        caught = total = 0
        print("| mutation | file | caught by | events |\n|---|---|---|---|", flush=True)
        for name, path, old, new in ([] if arguments.names else [("none", None, None, None)]) + MUTATIONS:
            if path and arguments.names and not any(part in name for part in arguments.names):
                continue
            original = None
            if path:
                original = (sources / path).read_text()
                if original.count(old) != 1:
                    sys.exit(f"{name}: {path} has the text {original.count(old)} times, not once: {old}")
                (sources / path).write_text(original.replace(old, new))
            try:
                built = run(["nice", "cmake", "--build", build, "-j", "2", "--target", "model_test"], env=environment)
                if built.returncode:
                    sys.exit(f"{name}: does not build\n{built.stdout[-3000:]}")
                result = run([build / "tests/model/model_test", "--gtest_filter=ModelOfToday.*"],
                             env=dict(environment, KEDGE_MODEL_SEED=arguments.seed,
                                      KEDGE_MODEL_EVENTS=arguments.events, KEDGE_MODEL_REPLAYS="0"))
            finally:
                if original:
                    (sources / path).write_text(original)
            found = re.search(r"event (\d+),.*\nviolated: (.*)", result.stdout)
            if found:
                by, after = found.group(2), found.group(1)
            else:
                by, after = ("nothing" if result.returncode == 0 else "the process died"), arguments.events
            print(f"| {name} | {path or '-'} | {by} | {after} |", flush=True)
            if path:
                total += 1
                caught += result.returncode != 0
        print(f"\n{caught} of {total} caught")
        sys.exit(0 if caught == total else 1)


if __name__ == "__main__":
    main()
