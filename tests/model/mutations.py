#!/usr/bin/python3
"""Seeds known mistakes into copies of the sources and tells whether the model notices, and after how many events.

usage: mutations.py [--folder FOLDER] [--in-place] [--events N] [--seeds N] [NAME...]

Each mutation goes through what `ctest -R model_test` does, seed after seed, until an invariant breaks. Without --in-place
nothing in the work tree is changed. The last line counts; the exit code is 0 when all were caught but those that are
expected not to be (docs/model.md says why).
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
ACK = "lm-server/core/machine_ack.cc"
ATTACH = "lm-server/core/machine_attach.cc"
CONTROLLER = "speaker/controller/controller.cc"
DESIRED = "speaker/core/desired.cc"
IDLE = "lm-server/core/machine_idle.cc"
LEDGER = "speaker/frr/route_ledger.cc"
MACHINE = "lm-server/core/machine.cc"
PLAN = "lm-server/core/policy.cc"
POLICIES = "lm-server/core/machine_policy.cc"
RECOVERY = "speaker/controller/controller_recovery.cc"
REPORTER = "speaker/controller/activity_reporter.cc"
RULES = "lm-server/core/rules.cc"

# Why they are not: docs/model.md.
NOT_CAUGHT = {
    "redirect before the target has acknowledged",
    "an AR's first word in a generation does not stand",
    "withdrawn counts though the AR was told to announce again",
    "superseded by a lower level counts",
    "superseded of the last generation counts",
    "release while BGP may still lead there",
    "a route that won at a lower level supersedes",
    "a snapshot forgets that bgpd has not followed yet",
    "an old acknowledgement of advertising is ignored",
    "the last word of the AR that was left is not waited for",
    "idle before the MN came counts",
    "an AR takes over from one that has not handed over",
}

# (name, file, what stands there, what stands there instead, and so on in pairs)
MUTATIONS = [
    # The order of a move
    ("redirect before the target has acknowledged", DESIRED,
     "result.forwarding = attached_delivers(binding)\n", "result.forwarding = !binding.attached_ar().empty()\n"),
    ("the LM takes delivery of any generation", RULES,
     "return attached != nullptr && attached->delivers() && same(attached->generation(), binding.generation());",
     "return attached != nullptr && attached->delivers();"),
    ("acknowledgements of old generations count", ACK,
     "  const auto order = compare(ack.generation(), entry.binding.generation());",
     "  const auto order = std::strong_ordering::equal;"),
    ("an old acknowledgement of advertising is ignored", ACK,
     "    if (ack.stage() == v1::STAGE_ADVERTISED) {\n      holder.set_adv",
     "    if (false) {\n      holder.set_adv"),
    ("the AR that the MN has left is no holder any more", ATTACH,
     "  take_plan(binding, plan_of(binding, rules, tx.now));\n",
     "  take_plan(binding, plan_of(binding, rules, tx.now));\n"
     "  if (from != request.ar() && from != binding.home_ar()) remove_holder(binding, from);\n"),
    ("the attached AR is told its level and not entered with it", ATTACH,
     "  attached.set_advertises_preference(std::max(attached.advertises_preference(), binding.preference()));\n",
     "  attached.set_superseded(false);\n"),
    ("an attach is answered and told before it is on disk", ATTACH,
     "  entry.progress.clear();\n  tx.durability = Durability::kSync;\n}\n\n// Detach",
     "  entry.progress.clear();\n}\n\n// Detach",
     "  tx.durability = Durability::kSync;\n  tx.output.generation = tx.generation();",
     "  tx.output.generation = tx.generation();"),
    ("an AR's first word in a generation does not stand", ACK,
     "  if (keeps_what_it_acknowledged && same(holder.generation(), binding.generation())) return;\n",
     "  if (keeps_what_it_acknowledged && is_none(binding.generation())) return;\n"),
    ("withdrawn counts as cleared", ACK,
     "if (ack.stage() == v1::STAGE_CLEARED && holder.releasing()) {",
     "if (ack.stage() == v1::STAGE_CLEARED || ack.stage() == v1::STAGE_WITHDRAWN) {"),
    ("withdrawn counts though the AR was told to announce again", ACK,
     "    case v1::STAGE_WITHDRAWN:\n      holder.set_advertises_preference(told);",
     "    case v1::STAGE_WITHDRAWN:\n      holder.set_advertises_preference(0);"),
    # Levels
    ("a new attachment begins at the lowest level", RULES,
     "return others < levels ? others + 1 : 0;", "return others < levels ? 1 : 0;"),
    ("levels beyond the last one are used", RULES,
     "return others < levels ? others + 1 : 0;", "return levels > 0 ? others + 1 : 0;"),
    ("more that is announced than was known does not raise the level", ACK,
     "  if (preference > 0 && others >= preference) return begin_generation(tx, entry);\n", ""),
    ("a sole announcer stays at its level", ACK,
     "    preference = std::min(preference, has_to_announce(binding) ? others + 1 : 0);",
     "    if (!has_to_announce(binding)) preference = 0;"),
    ("the level falls while others still announce", ACK,
     "  if (another_announces(binding, true)) return;\n",
     "  if (!is_away(binding) && another_announces(binding, true)) return;\n",
     "has_to_announce(binding) ? others + 1 : 0", "has_to_announce(binding) ? 1U : 0U"),
    ("the home AR withdraws before the others", ACK,
     "  if (another_announces(binding, true)) return;\n",
     "  if (is_away(binding) && another_announces(binding, true)) return;\n",
     "has_to_announce(binding) ? others + 1 : 0", "is_away(binding) ? others + 1 : 0"),
    ("a return home in redirection announces nothing", ACK,
     "  if (!is_away(binding)) return others > 0;",
     "  if (!is_away(binding)) return binding.mode() == v1::MODE_RELOCATE && others > 0;"),
    ("an anchor gives up before its home redirects", ACK,
     "return (is_anchor && !redirected) || another", "return (is_anchor && !redirected && false) || another"),
    ("a level rises within its generation", ACK,
     "others < settings_.preference_levels) return begin_generation(tx, entry);",
     "others < settings_.preference_levels) preference = others + 1;",
     "  if (preference > 0) {\n    // RFC 8818, 4.3", "  if (binding.preference() > 0) {\n    // RFC 8818, 4.3"),
    ("superseded by a lower level counts", ACK,
     "if (attached || binding.preference() == 0 || ack.preference() < binding.preference()) return;",
     "if (attached || binding.preference() == 0) return;"),
    ("superseded of the last generation counts", ATTACH,
     "    holder.set_superseded(false);\n    holder.set_releasing(false);", "    holder.set_releasing(false);"),
    # The end of a move
    ("settled without waiting for the others", RULES,
     "  return std::all_of(binding.holders().begin(), binding.holders().end(), [&](const v1::Holder& holder) {\n"
     "    if (holder.ar() == binding.attached_ar()) return holder",
     "  return std::any_of(binding.holders().begin(), binding.holders().end(), [&](const v1::Holder& holder) {\n"
     "    if (holder.ar() == binding.attached_ar()) return holder"),
    ("release without a hold", ACK, "    if (*since + settings_.redirect_hold > tx.now) continue;\n", ""),
    ("release while others may still tunnel there", RULES,
     "return follows(binding, other) && (!needs_bgp || other.superseded());",
     "return !needs_bgp || other.superseded();"),
    ("release while BGP may still lead there", RULES,
     "return follows(binding, other) && (!needs_bgp || other.superseded());",
     "return follows(binding, other) && (!needs_bgp || true);"),
    ("nobody is ever released", RULES,
     "  if (holder.advertises_preference() != 0 || !attached_delivers(binding)) return false;",
     "  if (holder.advertises_preference() != 0 || attached_delivers(binding)) return false;"),
    ("an AR that is needed again is still told to let go", ATTACH,
     "    holder.set_superseded(false);\n    holder.set_releasing(false);", "    holder.set_superseded(false);"),
    # Arrivals and departures
    ("a detach of an old attachment counts", ATTACH,
     "  return compare(began, generation) <= 0;", "  return compare(began, generation) != std::strong_ordering::equal || true;"),
    ("a detach ends only the prefixes of the same generation", ATTACH,
     "  return compare(began, generation) <= 0;",
     "  return !is_none(began) && same(binding.generation(), generation);"),
    ("a repeated attach counts", ATTACH,
     "  if (order == CallOrder::kRepeated) return refuse(overtaken(request), request, now);\n", ""),
    ("an attach that was overtaken counts", ATTACH,
     "  if (order == CallOrder::kStale) return refuse(overtaken(request), request, now);\n", ""),
    ("a refused attach overtakes a departure", ATTACH,
     "  if (order == CallOrder::kStale) return refuse(overtaken(request), request, now);\n",
     "  if (order == CallOrder::kStale) return refuse(overtaken(request), request, now);\n"
     "  if (known != mobile_nodes_.end()) {\n"
     "    mobile_nodes_.at(request.mn_id()).sequences[request.ar()] = {request.incarnation(), request.sequence()};\n"
     "  }\n"),
    ("calls of an earlier run of the speaker count", ATTACH,
     "  if (at.incarnation == 0 || at.incarnation == incarnation) return absl::OkStatus();",
     "  if (at.incarnation == 0 || incarnation != 0) return absl::OkStatus();"),
    # Policies
    ("another mode keeps its generation", POLICIES,
     "  begin_generation(tx, entry);\n  tx.event(v1::EVENT_TYPE_MODE_CHANGED", "  tx.event(v1::EVENT_TYPE_MODE_CHANGED"),
    ("a changed default is not applied", POLICIES,
     "  for (const auto& mn_id : affected) apply_policy(tx, mn_id);\n", ""),
    ("draining moves no anchor", PLAN, "  if (at.away && at.home_draining) {", "  if (false) {"),
    ("an AR that is no longer allowed refuses its own MNs another port", ATTACH,
     "  if (is_attached_at(request.mn_id(), request.ar())) return absl::OkStatus();\n", ""),
    ("a relocation that was put off never comes", MACHINE,
     "  if (is_due(binding.has_relocate_at(), binding.relocate_at())) {",
     "  if (is_due(false, binding.relocate_at())) {"),
    ("a nomadic prefix goes along", ATTACH,
     "away).mode != v1::MODE_NOMADIC;", "away).mode != v1::MODE_UNSPECIFIED;"),
    ("an ended prefix that becomes fixed waits for a move", POLICIES,
     "    } else if (rules.find_fixed(binding.prefix()) != nullptr) {", "    } else if (false) {"),
    ("a fixed prefix goes back into the pool", MACHINE, "  if (!policies_.owner_of(prefix)) {", "  {"),
    # The speaker
    ("an old anchor withdraws without being superseded", CONTROLLER,
     "    case Anchoring::Kind::kUntilSuperseded:\n      if (entry.superseded) {",
     "    case Anchoring::Kind::kUntilSuperseded:\n      if (true) {"),
    ("a route that won at a lower level supersedes", CONTROLLER,
     "seen.successor == wanted.successor && seen.level >= wanted.level;", "seen.successor == wanted.successor;"),
    ("what was superseded once counts for the next move", CONTROLLER,
     "entry.superseded = entry.superseded && !new_generation && covers(before.anchoring, entry.desired.anchoring);",
     "entry.superseded = entry.superseded;"),
    ("the kernel is cleared before FRR has withdrawn", CONTROLLER,
     "(releasing(entry) && announces_nothing(entry))", "releasing(entry)"),
    ("what FRR has removed counts as withdrawn before bgpd has followed", CONTROLLER,
     "entry.level_committed == 0U && entry.withdrawn;", "entry.level_committed == 0U;"),
    ("a snapshot forgets that bgpd has not followed yet", CONTROLLER,
     "      entry.withdrawn = node.mapped().withdrawn;\n", ""),
    ("a snapshot clears the kernel before FRR has withdrawn", CONTROLLER,
     "if (!route && (may_announce || !releasing(entry))) route",
     "if (!route && !(may_announce && false) && !releasing(entry)) route"),
    ("a snapshot that knows less than the kernel clears it", CONTROLLER,
     "if (!route && (may_announce || !releasing(entry))) route",
     "if (!route && may_announce) route"),
    ("nothing is acknowledged anew after a snapshot", CONTROLLER,
     "      entry.programmed = node.mapped().programmed;\n",
     "      entry.programmed = node.mapped().programmed;\n"
     "      if (same_generation) entry.acknowledged = node.mapped().acknowledged;\n"),
    ("records may be older than the one held", CONTROLLER,
     "keeps(entry, &binding) : compare(binding.revision(), entry.record.revision()) < 0;", "keeps(entry, &binding) : false;"),
    ("advertised before it is delivered", CONTROLLER, "if (delivering(entry)) set_level(", "set_level("),
    ("advertised to the MN before it is delivered", CONTROLLER, "    if (!delivering(entry)) return;\n", ""),
    ("a route that the kernel refused counts as programmed", CONTROLLER,
     "  entry.confirmed = status.ok();\n  if (!status.ok()) {", "  entry.confirmed = true;\n  if (false) {"),
    ("a retried route is taken for the one wanted now", CONTROLLER,
     "  entry.programmed = entry.requested;\n  entry.confirmed = true;",
     "  entry.programmed = route_of(entry);\n  entry.confirmed = true;"),
    ("a restarted speaker ignores what its earlier run has left", CONTROLLER,
     "      entry.programmed = forwarding_.held(*prefix);\n", "      entry.programmed.reset();\n"),
    ("an old anchor goes back to what the LM remembers", CONTROLLER,
     "      if (entry.record.state() != v1::BINDING_STATE_DETACHED && entry.programmed) return entry.programmed;\n", ""),
    ("a restarted old anchor withdraws at once", CONTROLLER,
     "return known ? entry.level_wanted : own->advertises_preference();",
     "return known ? entry.level_wanted : 0;"),
    ("forgotten prefixes stay in the kernel", CONTROLLER,
     "  if (const auto status = forwarding_.set(prefix, std::nullopt); !status.ok()) {",
     "  if (const absl::Status status; !status.ok()) {"),
    ("forgotten prefixes stay in FRR", CONTROLLER,
     "  observer_.forget_withdrawal(prefix);\n  injector_->set(prefix, 0);\n", "  observer_.forget_withdrawal(prefix);\n"),
    ("a departure that the LM missed is not reported again", CONTROLLER,
     "    wait_to_retry(pending, [this, mn] { report_departure(mn); });\n", ""),
    ("what a restored LM does not know of is kept for ever", RECOVERY,
     "  for (const auto& prefix : over) drop(prefix);\n", ""),
    ("an MN that has left is served again", CONTROLLER, "  if (leaving(*mn)) return;\n", ""),
    ("new levels of the LM are not taken up", CONTROLLER,
     "  injector_->raise_levels(welcome.preference_levels());\n", ""),
    ("what FRR's configuration had saved stays", LEDGER,
     "    if (is_ours(route) && desired(prefix) == 0) open_.insert(prefix);\n  }\n  for (const auto& [prefix, conflict]",
     "    if (is_ours(route) && complete_ && false) open_.insert(prefix);\n  }\n  for (const auto& [prefix, conflict]"),
    ("what is asked for during a commit is forgotten", LEDGER,
     "    if (desired(prefix) != change.level) {", "    if (desired(prefix) != change.level && false) {"),
    # Prefixes that nobody uses
    ("the last word of the AR that was left is not waited for", IDLE,
     " && !awaits_last_word(entry))", ")"),
    ("what nobody has looked at counts as idle", IDLE,
     "const bool goes_on = unused && (looks_on || takes_over);", "const bool goes_on = unused && (looks_on || takes_over || true);"),
    ("a prefix that was used goes on being idle", IDLE,
     "const bool goes_on = unused && (looks_on || takes_over);", "const bool goes_on = (unused || true) && (looks_on || takes_over);"),
    ("idle before the MN came counts", IDLE,
     "  if (is_attached && at < arrived) {", "  if (false) {"),
    ("an AR takes over from one that has not handed over", IDLE,
     "const bool takes_over = before->handed_over && at", "const bool takes_over = at"),
    ("an AR where the MN is not ends an idle prefix", IDLE,
     "if (is_over && entry.binding.attached_ar() == ar && !awaits", "if (is_over && !awaits"),
    ("the AR that was left says no last word", REPORTER,
     "    tell_last(removed);\n", ""),
]


def run(command, **arguments):
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **arguments)


def copy_sources(sources):
    files = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT).stdout
    for name in filter(None, files.split("\0")):
        target = sources / name
        if not (ROOT / name).is_file() or (target.exists() and target.read_bytes() == (ROOT / name).read_bytes()):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)


def mutate(name, path, text, replacements):
    for old, new in zip(replacements[::2], replacements[1::2]):
        if text.count(old) != 1:
            sys.exit(f"{name}: {path} has the text {text.count(old)} times, not once: {old}")
        text = text.replace(old, new)
    return text


def explore(program, seeds, events, environment):
    """The invariant that broke ("" for none), and after how many events of all seeds."""
    done = 0
    for seed in range(1, seeds + 1):
        result = run([program, "--gtest_filter=*/0"],
                     env=dict(environment, KEDGE_MODEL_SEED=str(seed), KEDGE_MODEL_EVENTS=str(events),
                              KEDGE_MODEL_REPLAYS="0"))
        found = re.search(r"event (\d+),.*\nviolated: (.*)", result.stdout)
        if found:
            return found.group(2), done + int(found.group(1))
        if result.returncode != 0:
            return "the process died", done
        done += events
    return "", done


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", help="keep the copy and its build in this folder, for the next run")
    parser.add_argument("--events", type=int, default=150_000, help="events of each seed (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=7, help="seeds 1 to this (default: %(default)s)")
    parser.add_argument("--in-place", action="store_true", help="change the work tree itself, and put it back")
    parser.add_argument("names", nargs="*", help="parts of names of mutations")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="kedge-mutations-") as temporary:
        folder = pathlib.Path(arguments.folder or temporary).resolve()
        sources = ROOT if arguments.in_place else folder
        if not arguments.in_place:
            copy_sources(sources)
        # In the same places as in the work tree, so that a compiler cache knows what was built there.
        build = sources / "build/release"
        environment = dict(os.environ, CCACHE_BASEDIR=str(sources), CCACHE_NOHASHDIR="1")
        configured = run(["cmake", "--preset", "release"], cwd=sources, env=environment)
        if configured.returncode:
            sys.exit(configured.stdout)

        for name, path, *replacements in MUTATIONS:
            mutate(name, path, (ROOT / path).read_text(), replacements)
        caught = total = wrong = 0
        print("| mutation | file | caught by | events |\n|---|---|---|---|", flush=True)
        for name, path, *replacements in ([] if arguments.names else [("none", None)]) + MUTATIONS:
            if path and arguments.names and not any(part in name for part in arguments.names):
                continue
            original = (sources / path).read_text() if path else None
            if path:
                (sources / path).write_text(mutate(name, path, original, replacements))
            try:
                built = run(["nice", "cmake", "--build", build, "-j", "2", "--target", "model_test"], env=environment)
                if built.returncode:
                    sys.exit(f"{name}: does not build\n{built.stdout[-3000:]}")
                by, after = explore(build / "tests/model/model_test", arguments.seeds, arguments.events, environment)
            finally:
                if path:
                    (sources / path).write_text(original)
            print(f"| {name} | {path or '-'} | {by or 'nothing'} | {after} |", flush=True)
            total += path is not None
            caught += path is not None and by != ""
            wrong += (by != "") != (path is not None and name not in NOT_CAUGHT)
        print(f"\n{caught} of {total} caught")
        sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
