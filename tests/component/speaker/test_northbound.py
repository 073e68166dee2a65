"""FRR's northbound port is closed before the speaker does anything else, or it does not start. In a namespace of its own."""

import os
import subprocess

import pytest

CONFIGURATION = """
name: ar1
lm: {{address: "[::1]:1", insecure_plaintext: true}}
access: {{interfaces: [access]}}
frr: {{{keys}}}
"""
TABLE = ("nft", "list", "table", "inet", "kedge_northbound")


@pytest.fixture(name="inside")
def fixture_inside():
    """What runs a command in a network namespace of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a network namespace")
    name = f"kedge-northbound-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield ("ip", "netns", "exec", name)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture(name="speaker")
def fixture_speaker(inside, programs, tmp_path):
    """Starts a speaker with these keys of `frr`; it is ended with the test."""
    started = []

    def start(keys, *prefix):
        file = tmp_path / "speaker.yaml"
        file.write_text(CONFIGURATION.format(keys=keys), encoding="utf-8")
        command = [*inside, *prefix, str(programs["kedge-speaker"]), "--config", str(file)]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=15)


def lines_until(process, event):
    """The log up to the line of the event, or to the end."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if f" {event} " in line:
            break
    return lines


def test_the_port_is_closed_first_of_all_and_stays_so(speaker, inside):
    process = speaker("close_northbound: true")
    first = lines_until(process, "northbound_closed")
    assert len(first) == 1 and " info northbound_closed " in first[0]
    assert subprocess.run([*inside, *TABLE], check=False, capture_output=True).returncode == 0
    lines_until(process, "started")
    process.terminate()
    assert process.wait(timeout=15) == 0
    assert subprocess.run([*inside, *TABLE], check=False, capture_output=True).returncode == 0


def test_with_routes_of_the_kernel_the_port_is_nobodys_business(speaker, inside):
    process = speaker("injector: kernel, close_northbound: false")
    lines = lines_until(process, "started")
    assert " started " in lines[-1] and not [line for line in lines if "northbound" in line]
    assert subprocess.run([*inside, *TABLE], check=False, capture_output=True).returncode != 0


def test_a_port_that_is_not_seen_to_be_closed_keeps_the_speaker_from_starting(speaker):
    process = speaker("close_northbound: false")
    lines = lines_until(process, "northbound_open")
    assert process.wait(timeout=15) == 1
    assert len(lines) == 1 and " error northbound_open " in lines[0] and "frr.insecure_open_northbound: true" in lines[0]


def test_an_open_port_that_is_accepted_by_name_is_a_warning_at_each_start(speaker):
    process = speaker("close_northbound: false, insecure_open_northbound: true")
    lines = lines_until(process, "started")
    assert " warning northbound_open " in lines[0] and " started " in lines[-1]


def test_without_the_privilege_to_close_it_the_speaker_does_not_start(speaker):
    process = speaker("close_northbound: true", "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    lines = lines_until(process, "northbound_open")
    assert process.wait(timeout=15) == 1
    assert "CAP_NET_ADMIN" in lines[-1]
