#!/usr/bin/python3
"""Adds up test results in JUnit's format, as CTest, pytest and scripts/fuzz.sh write them.

Usage: junit_totals.py STAGE=EXIT_STATUS=FILE...

A stage is one program that ran tests: its name, its exit status and the file that it wrote. Each test case counts once. A stage that failed
without naming a failed case (it crashed, it was stopped, it ran no test at all) counts as one failed case, so that nothing is lost silently.
The failed cases and each stage's totals are printed, then one last line: "N passed, N failed", and ", N skipped" where there are any.
Exit status: 0 if nothing failed, else 1.
"""

import dataclasses
import sys
import xml.etree.ElementTree


@dataclasses.dataclass
class Totals:
    passed: int = 0
    skipped: int = 0
    failed: list = dataclasses.field(default_factory=list)

    def __str__(self):
        text = f"{self.passed} passed, {len(self.failed)} failed"
        return f"{text}, {self.skipped} skipped" if self.skipped else text


def verdict(case):
    """'passed', 'failed' or 'skipped' for one <testcase>."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    if case.get("status") == "disabled":
        return "skipped"
    skipped = case.find("skipped")
    if skipped is None:
        return "passed"
    # CTest also calls a test skipped whose program is missing or could not be started.
    if case.get("status") == "notrun" and not skipped.get("message", "").startswith("SKIP_"):
        return "failed"
    return "skipped"


def full_name(case):
    """CTest gives the same name twice, pytest a module and a function."""
    name, group = case.get("name"), case.get("classname")
    return name if group in (None, "", name) else f"{group}.{name}"


def stage_totals(name, exit_status, path):
    totals = Totals()
    try:
        cases = xml.etree.ElementTree.parse(path).getroot().iter("testcase")
    except (OSError, xml.etree.ElementTree.ParseError):
        cases = ()
    for case in cases:
        kind = verdict(case)
        if kind == "passed":
            totals.passed += 1
        elif kind == "skipped":
            totals.skipped += 1
        else:
            totals.failed.append(f"{name}: {full_name(case)}")
    if not totals.failed and (exit_status != 0 or totals.passed + totals.skipped == 0):
        reason = f"ended with status {exit_status}" if exit_status else "ran no test"
        totals.failed.append(f"{name}: the stage itself {reason}")
    return totals


def main(arguments):
    everything = Totals()
    for argument in arguments:
        name, exit_status, path = argument.split("=", 2)
        totals = stage_totals(name, int(exit_status), path)
        print(f"{name}: {totals}")
        everything.passed += totals.passed
        everything.skipped += totals.skipped
        everything.failed += totals.failed
    for failed in everything.failed:
        print(f"failed: {failed}")
    print(everything)
    return 1 if everything.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
