import os
import pathlib
import re
import socket
import subprocess

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ.get("KEDGE_BUILD_DIR") or REPOSITORY / "build" / "release").resolve()
PROGRAMS = {"kedge-speaker": BUILD / "speaker" / "kedge-speaker", "kedge-lm": BUILD / "lm-server" / "kedge-lm"}
NODES = REPOSITORY / "containerlab" / "handover" / "nodes"
GOOD = {"kedge-speaker": NODES / "ar1" / "speaker.yaml", "kedge-lm": NODES / "lm" / "lm.yaml"}


@pytest.fixture(scope="session")
def good():
    """Program -> text of a configuration that it takes."""
    texts = {name: path.read_text(encoding="utf-8") for name, path in GOOD.items()}
    # The labs' certificates are not here.
    texts["kedge-lm"] = texts["kedge-lm"].replace("tls:\n  crl_directory: /etc/kedge/crl\n", "insecure_plaintext: true\n")
    texts["kedge-speaker"] = re.sub(r"^(  address: .*\n)", r"\1  insecure_plaintext: true\n", texts["kedge-speaker"], flags=re.MULTILINE)
    # Cases bring groups of their own.
    texts["kedge-lm"] = re.sub(r"^mobility:\n(  .*\n)+", "", texts["kedge-lm"], flags=re.MULTILINE)
    return texts


@pytest.fixture(scope="session")
def programs():
    return PROGRAMS


@pytest.fixture
def free_port():
    """A TCP port of [::1] that nobody listens at."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def run():
    """Runs a daemon's program to its end; it must end within a bound."""

    def call(name, *arguments, prefix=()):
        assert PROGRAMS[name].exists(), f"{PROGRAMS[name]} is not built; run: make build"
        command = [*prefix, PROGRAMS[name], *arguments]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=30, stdin=subprocess.DEVNULL)

    return call


@pytest.fixture
def check(run, tmp_path):
    """Writes a configuration, checks it with the program and gives the file and the result."""

    def call(name, text):
        file = tmp_path / "configuration.yaml"
        file.write_text(text, encoding="utf-8")
        return file, run(name, "--config", file, "--check")

    return call
