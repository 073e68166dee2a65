"""SIGHUP reads the log level anew; the speaker goes on, also with a file that it must not take."""

import signal
import subprocess

import pytest
from test_purge import CONFIGURATION, fixture_namespace, wait_until  # noqa: F401  (a fixture)


@pytest.fixture(name="speaker")
def fixture_speaker(namespace, programs, tmp_path):
    file = tmp_path / "speaker.yaml"
    file.write_text(CONFIGURATION, encoding="utf-8")
    log = tmp_path / "speaker.log"
    with log.open("wb") as output:
        process = subprocess.Popen([*namespace.prefix, programs["kedge-speaker"], "--config", file], stdout=output, stderr=output)
    try:
        wait_until("the speaker's start", lambda: " started " in log.read_text(encoding="utf-8") or process.poll() is not None)
        yield process, file, log
    finally:
        process.kill()
        process.wait(timeout=15)


def test_sighup_takes_over_the_log_level(speaker):
    process, file, log = speaker
    file.write_text(CONFIGURATION + "log: {level: debug}\n", encoding="utf-8")
    process.send_signal(signal.SIGHUP)
    wait_until("the new level", lambda: " reloaded log_level=debug" in log.read_text(encoding="utf-8") or process.poll() is not None)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=15) == 0


def test_sighup_with_a_bad_file_changes_nothing(speaker):
    process, file, log = speaker
    file.write_text(CONFIGURATION + "log: {level: loud}\n", encoding="utf-8")
    process.send_signal(signal.SIGHUP)
    wait_until("the refusal", lambda: " reload_failed " in log.read_text(encoding="utf-8") or process.poll() is not None)
    assert process.poll() is None
    assert "log.level: one of" in log.read_text(encoding="utf-8")
