"""What scripts/run_modules.py makes of modules that pass, fail, crash and are interrupted."""

import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("run_modules.py")


@pytest.fixture(name="folder")
def folder_fixture(tmp_path):
    (tmp_path / "modules").mkdir()
    return tmp_path / "modules"


def command(folder, jobs=2):
    return [sys.executable, SCRIPT, "--jobs", str(jobs), "--junit", folder.parent / "all.xml", folder]


def cases(folder):
    root = xml.etree.ElementTree.parse(folder.parent / "all.xml").getroot()
    return {case.get("name"): [child.tag for child in case] for case in root.iter("testcase")}


def test_results_of_all_modules_are_in_one_file(folder):
    (folder / "test_a.py").write_text("def test_passes(): pass\n")
    (folder / "test_b.py").write_text("def test_fails(): assert False\n")
    done = subprocess.run(command(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert cases(folder) == {"test_passes": [], "test_fails": ["failure"]}
    assert "test_a.py" in done.stdout and "assert False" in done.stdout


def test_a_module_that_crashes_counts_as_a_failed_case(folder):
    (folder / "test_a.py").write_text("import os\ndef test_crashes(): os._exit(3)\n")
    assert subprocess.run(command(folder), capture_output=True, check=False).returncode == 1
    assert cases(folder) == {"results": ["failure"]}


def test_modules_run_side_by_side(folder):
    # Each waits for the other.
    text = """
import pathlib, time
def test_meets():
    here = pathlib.Path(__file__)
    here.with_suffix(".there").touch()
    deadline = time.monotonic() + 30
    while len(list(here.parent.glob("*.there"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
"""
    for name in "ab":
        (folder / f"test_{name}.py").write_text(text)
    assert subprocess.run(command(folder), capture_output=True, check=False).returncode == 0
    assert subprocess.run(command(folder, jobs=1), capture_output=True, check=False).returncode == 0


def test_all_modules_clean_up_when_it_is_interrupted(folder):
    text = """
import pathlib, time, pytest
@pytest.fixture
def made():
    file = pathlib.Path(__file__).with_suffix(".made")
    file.touch()
    yield
    file.rename(file.with_suffix(".removed"))
def test_waits(made):
    time.sleep(600)
"""
    for name in "ab":
        (folder / f"test_{name}.py").write_text(text)
    running = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while len(list(folder.glob("*.made"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=30) == 130
    assert len(list(folder.glob("*.removed"))) == 2
