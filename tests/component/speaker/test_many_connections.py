"""Whoever reaches the LM's port can open connections; the LM outlives more of them than it has file descriptors for."""

import contextlib
import socket
import subprocess
import time

import pytest

CONFIGURATION = """
listen: "[::1]:{port}"
insecure_plaintext: true
data_directory: {folder}/store
access_routers:
  - {{name: ar1, locator: "2001:db8:a1::1", deliver_sid: "2001:db8:a1::d", pools: ["2001:db8:1000::/48"]}}
{more}
"""


@pytest.fixture(name="lm")
def fixture_lm(programs, tmp_path, free_port):
    """Starts an LM that may have so many file descriptors; gives its port and its log."""
    started = []

    def start(descriptors, more=""):
        port, log = free_port, tmp_path / "log"
        file = tmp_path / "lm.yaml"
        file.write_text(CONFIGURATION.format(port=port, folder=tmp_path, more=more), encoding="utf-8")
        command = ["prlimit", f"--nofile={descriptors}:{descriptors}", programs["kedge-lm"], "--config", file]
        with log.open("w", encoding="utf-8") as output:
            started.append(subprocess.Popen(list(map(str, command)), stderr=output))
        wait_until(lambda: " ready " in log.read_text(encoding="utf-8"))
        return port, log

    yield start
    for process in started:
        process.terminate()
        assert process.wait(timeout=20) == 0


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def answers(programs, port):
    kedgectl = programs["kedge-lm"].parents[1] / "kedgectl" / "kedgectl"
    command = [kedgectl, "--insecure-plaintext", "--server", f"[::1]:{port}", "--timeout", "3", "status"]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False).returncode == 0


def test_the_lm_answers_again_after_more_connections_than_it_has_descriptors(lm, programs):
    port, log = lm(200)
    assert answers(programs, port)
    with contextlib.ExitStack() as connections:
        for _ in range(300):
            connection = connections.enter_context(socket.socket(socket.AF_INET6))
            connection.settimeout(2)
            with contextlib.suppress(OSError):
                connection.connect(("::1", port))
        wait_until(lambda: "connection_refused" in log.read_text(encoding="utf-8"))
    wait_until(lambda: answers(programs, port))
    assert "connections_limited" in log.read_text(encoding="utf-8")


def test_the_limits_of_the_configuration_hold(lm, programs):
    port, log = lm(4096, "limits: {connections: 10, connections_per_address: 10}")
    with contextlib.ExitStack() as connections:
        for _ in range(10):
            connections.enter_context(socket.create_connection(("::1", port), 2))
        assert not answers(programs, port)
        assert "limit=connections" in log.read_text(encoding="utf-8")
    wait_until(lambda: answers(programs, port))
