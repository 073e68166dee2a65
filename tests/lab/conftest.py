"""Labs for the scenario tests. They need root; each test module has a lab of its own, which is gone when its last test has ended."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import scenario  # noqa: E402  pylint: disable=wrong-import-position

HANDOVER = scenario.REPOSITORY / "containerlab" / "handover"
THREE_ROUTERS = scenario.REPOSITORY / "containerlab" / "three-routers"


def lab_name(request, suffix=""):
    """Of this run and module alone: other labs may be up."""
    module = request.module.__name__.rpartition(".")[2].removeprefix("test_")
    return f"t{os.getpid()}-{module.replace('_', '-')}{suffix}"


@pytest.fixture(scope="session")
def root():
    if os.geteuid() != 0:
        pytest.skip("needs root: labs are made of namespaces")


@pytest.fixture(scope="module")
def handover_lab(root, request):
    """A scenario.Scenario of the handover topology with the daemons of the build folder (KEDGE_BUILD_DIR)."""
    with scenario.lab_up(HANDOVER, lab_name(request)) as up:
        yield up


@pytest.fixture(scope="module")
def three_routers_lab(root, request):
    """A scenario.Scenario of two mobile nodes and a mobile router between three access routers."""
    with scenario.lab_up(THREE_ROUTERS, lab_name(request)) as up:
        yield up


@pytest.fixture(scope="module")
def routers_lab(root, request, tmp_path_factory):
    """The handover topology without Kedge's daemons: links, addresses and FRR only."""
    environment = {"KEDGE_BUILD_DIR": str(tmp_path_factory.mktemp("no-daemons"))}
    with scenario.lab_up(HANDOVER, lab_name(request, "-frr"), environment) as up:
        yield up


@pytest.fixture(scope="module")
def events(lab):
    """The LM's events in the module's own `lab`."""
    followed = scenario.Events(lab)
    yield followed
    followed.close()


@pytest.fixture
def netlab():
    """Runs containerlab/netlab with arguments; returns the finished process with its output."""

    def run(*arguments, **options):
        return subprocess.run(
            [scenario.NETLAB, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL, **options
        )

    return run


class Traces:
    """What a lab of some name leaves on the machine."""

    def __init__(self, name):
        self.name = name
        self._links = self._machine_links()
        self._namespaces = set()

    @staticmethod
    def _machine_links():
        output = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
        return set(re.findall(r"^\d+: ([^:@]+)", output, re.MULTILINE))

    def remember_namespaces(self):
        """Call while the lab is up: a deleted namespace has no name any more, but lives as long as anything holds it."""
        for path in pathlib.Path("/run/netns").glob(f"{self.name}-*"):
            self._namespaces.add(path.stat().st_ino)
        return self._namespaces

    def found(self):
        traces = [str(path) for path in pathlib.Path("/run/netns").glob(f"{self.name}-*")]
        state = pathlib.Path("/run/kedge-netlab") / self.name
        traces += [str(state)] if state.exists() else []
        traces += [f"link {link}" for link in self._machine_links() - self._links if re.fullmatch(r"(eth|br|veth)\d*", link)]
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if (process / "ns" / "net").stat().st_ino in self._namespaces:
                    traces.append(f"process {process.name}: {(process / 'comm').read_text().strip()}")
                mounts = (process / "mountinfo").read_text()
            except OSError:
                continue
            held = [inode for inode in self._namespaces if f"net:[{inode}]" in mounts]
            if held or f"/{self.name}/" in mounts:
                traces.append(f"mounts of process {process.name}")
        return traces


@pytest.fixture
def traces():
    return Traces
