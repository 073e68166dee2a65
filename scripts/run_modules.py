#!/usr/bin/python3
"""Runs each test module of a folder in a pytest of its own, several at a time, since scenarios mostly wait. The output of a module is printed when it
has ended.

Usage: run_modules.py --jobs N --junit FILE FOLDER

FILE gets all results in JUnit's format. SIGINT and SIGTERM are handed on as SIGINT, so that every module removes what it has made.
Exit status: 0 if all passed, 1 if not, 130 when it was interrupted.
"""

import argparse
import pathlib
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree


class Run:
    """One module's pytest."""

    def __init__(self, module, results):
        self.module = module
        self.junit = results / f"{module.stem}.xml"
        self._output = tempfile.TemporaryFile(mode="w+", encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={self.junit}", str(module)]
        # A group of its own: what the terminal sends goes to this program, which hands it on once.
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT, start_new_session=True
        )

    def show(self):
        self._output.seek(0)
        print(f"-- {self.module}\n{self._output.read()}", end="", flush=True)

    def suites(self):
        """Its results; a module that wrote none, for it crashed, is one failed case."""
        try:
            return list(xml.etree.ElementTree.parse(self.junit).getroot().iter("testsuite"))
        except (OSError, xml.etree.ElementTree.ParseError):
            suite = xml.etree.ElementTree.Element("testsuite", name=str(self.module))
            case = xml.etree.ElementTree.SubElement(suite, "testcase", classname=str(self.module), name="results")
            xml.etree.ElementTree.SubElement(case, "failure", message=f"no results; exit status {self.process.returncode}")
            return [suite]


class Interrupted(Exception):
    """By a signal."""


def interrupt(_number, _frame):
    raise Interrupted


def end(runs):
    """All modules get the chance to remove what they have made."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for run in runs:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGINT)
    for run in runs:
        run.process.wait()
        run.show()


def run_all(modules, jobs, results):
    waiting, running, ended = list(modules), [], []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(Run(waiting.pop(0), results))
            # The first to end need not be the first in the list.
            try:
                running[0].process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                pass
            for run in [run for run in running if run.process.poll() is not None]:
                run.show()
                running.remove(run)
                ended.append(run)
    except Interrupted:
        end(running)
        raise
    return ended


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--junit", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    # Long ones first, so that none is left over at the end.
    modules = sorted(arguments.folder.glob("test_*.py"), key=lambda path: -path.stat().st_size)
    if not modules:
        sys.exit(f"{arguments.folder} has no test modules")
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    with tempfile.TemporaryDirectory(prefix="kedge-results-") as folder:
        try:
            ended = run_all(modules, arguments.jobs, pathlib.Path(folder))
        except Interrupted:
            sys.exit(130)
        root = xml.etree.ElementTree.Element("testsuites")
        for run in ended:
            root.extend(run.suites())
    xml.etree.ElementTree.ElementTree(root).write(arguments.junit, encoding="utf-8")
    # 5: a module without tests.
    sys.exit(0 if all(run.process.returncode in (0, 5) for run in ended) else 1)


if __name__ == "__main__":
    main()
