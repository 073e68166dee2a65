"""What scripts/junit_totals.py makes of the results of CTest, pytest and a stage that went wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("junit_totals.py")

CTEST = """<testsuite>
  <testcase name="A.Passes" classname="A.Passes" status="run"/>
  <testcase name="A.Fails" classname="A.Fails" status="fail"><failure message=""/></testcase>
  <testcase name="A.Skips" classname="A.Skips" status="notrun"><skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/></testcase>
  <testcase name="A.Off" classname="A.Off" status="disabled"/>
  <testcase name="b_NOT_BUILT" classname="b_NOT_BUILT" status="notrun"><skipped message="Unable to find executable"/></testcase>
</testsuite>"""

PYTEST = """<testsuites><testsuite>
  <testcase classname="test_a" name="test_passes"/>
  <testcase classname="test_a" name="test_skips"><skipped type="pytest.skip" message="needs root"/></testcase>
  <testcase classname="test_a" name="test_set_up_fails"><error message="fixture"/></testcase>
</testsuite></testsuites>"""

ONE_PASSED = '<testsuite><testcase name="a"/></testsuite>'


@pytest.fixture
def totals(tmp_path):
    """Runs the script on stages of (exit status, file content or None) and returns (exit status, lines)."""

    def run(*stages):
        arguments = []
        for number, (exit_status, content) in enumerate(stages):
            path = tmp_path / f"{number}.xml"
            if content is not None:
                path.write_text(content)
            arguments.append(f"stage{number}={exit_status}={path}")
        done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines()

    return run


def test_counts_each_case_of_ctest_and_a_missing_program_as_failed(totals):
    exit_status, lines = totals((8, CTEST))
    assert lines[-1] == "1 passed, 2 failed, 2 skipped"
    assert "failed: stage0: b_NOT_BUILT" in lines
    assert exit_status == 1


def test_adds_the_stages_up(totals):
    exit_status, lines = totals((8, CTEST), (1, PYTEST))
    assert lines[-1] == "2 passed, 3 failed, 3 skipped"
    assert exit_status == 1


def test_success_names_no_skipped_cases_when_there_are_none(totals):
    assert totals((0, ONE_PASSED), (0, ONE_PASSED)) == (
        0,
        ["stage0: 1 passed, 0 failed", "stage1: 1 passed, 0 failed", "2 passed, 0 failed"],
    )


@pytest.mark.parametrize("stage", [(124, None), (0, None), (2, "<testsuite/>"), (0, "<testsuite/>"), (1, ONE_PASSED), (1, "<testsui")])
def test_a_stage_that_went_wrong_without_a_failed_case_counts_as_one(totals, stage):
    exit_status, lines = totals((0, ONE_PASSED), stage)
    assert lines[-1].split(", ")[1] == "1 failed"
    assert exit_status == 1
