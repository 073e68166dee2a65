"""The units of systemd: it understands them, and they leave the daemons no more than they need."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ.get("KEDGE_BUILD_DIR") or REPOSITORY / "build" / "release").resolve()
# How exposed systemd finds them, from 0 to 100: the speaker keeps what it needs for routes and frames.
EXPOSURE = {"kedge-lm": 15, "kedge-speaker": 25}
PROGRAMS = {"kedge-lm": BUILD / "lm-server" / "kedge-lm", "kedge-speaker": BUILD / "speaker" / "kedge-speaker"}


@pytest.fixture(name="analyze")
def fixture_analyze():
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed (package systemd)")

    def run(*arguments):
        return subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)

    return run


@pytest.fixture(name="unit")
def fixture_unit(tmp_path):
    """Writes a unit as it is installed, with the program of the build folder; returns its path."""

    def write(name):
        text = (BUILD / "packaging" / "systemd" / f"{name}.service").read_text(encoding="utf-8")
        text, count = re.subn(rf"^ExecStart=\S*/{name} ", f"ExecStart={PROGRAMS[name]} ", text, flags=re.MULTILINE)
        assert count == 1
        file = tmp_path / f"{name}.service"
        file.write_text(text, encoding="utf-8")
        return file

    return write


@pytest.mark.parametrize("name", EXPOSURE)
def test_systemd_understands_the_unit(analyze, unit, name):
    result = analyze("verify", unit(name))
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@pytest.mark.parametrize("name", EXPOSURE)
def test_a_unit_is_sandboxed(analyze, unit, name):
    result = analyze("security", "--no-pager", "--offline=yes", f"--threshold={EXPOSURE[name]}", unit(name))
    if "unrecognized option" in result.stderr:
        pytest.skip("this systemd-analyze cannot look at a file: --offline= came with version 250")
    assert result.returncode == 0, result.stdout.splitlines()[-1]


def test_the_speaker_is_there_before_frr(unit):
    lines = unit("kedge-speaker").read_text(encoding="utf-8").splitlines()
    assert {"Type=notify", "Before=frr.service", "After=network.target nftables.service"} <= set(lines)


def test_what_closes_the_port_before_frr_is_the_table_that_the_speaker_makes(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a network namespace")
    name = f"kedge-units-{os.getpid()}"
    text = (REPOSITORY / "packaging" / "nftables" / "northbound.nft").read_text(encoding="utf-8")
    # The user kedge need not exist here.
    rules = tmp_path / "northbound.nft"
    rules.write_text(text.replace("{ root, kedge }", "{ root, nobody }"), encoding="utf-8")
    speaker = tmp_path / "speaker.yaml"
    speaker.write_text('name: ar1\nlm: {address: "[::1]:1", insecure_plaintext: true}\naccess: {interfaces: [access]}\n', encoding="utf-8")
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:

        def table():
            text = subprocess.run(["ip", "netns", "exec", name, "nft", "-n", "list", "table", "inet", "kedge_northbound"],
                                  check=True, capture_output=True, text=True).stdout  # fmt: skip
            return re.sub(r"meta skuid != .*? reject", "meta skuid != USERS reject", text)

        subprocess.run(["ip", "netns", "exec", name, "nft", "-f", rules], check=True)
        early = table()
        with subprocess.Popen(
            ["ip", "netns", "exec", name, PROGRAMS["kedge-speaker"], "--config", speaker], stderr=subprocess.PIPE, text=True
        ) as process:
            assert " northbound_closed " in process.stderr.readline()
            late = table()
            process.terminate()
            process.communicate(timeout=15)
        assert early == late and "USERS" in late
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
