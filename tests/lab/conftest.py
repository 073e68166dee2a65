"""Labs for the scenario tests. They need root; each test module has a lab of its own, which is gone when its last test has ended."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import scenario  # noqa: E402  pylint: disable=wrong-import-position

TOPOLOGIES = scenario.REPOSITORY / "containerlab"
HANDOVER = TOPOLOGIES / "handover"
THREE_ROUTERS = TOPOLOGIES / "three-routers"


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


def changed_topology(folder, name, mobility=None, speaker=None, replace=None, edit=None):
    """A copy of a topology: with other keys of `mobility` in the LM's configuration and of `access` in the speakers', with texts that
    are replaced in all files of its nodes, and with what `edit` makes of the folder of its nodes."""
    for one in {"handover", name}:
        shutil.copytree(TOPOLOGIES / one, folder / one)
    # The certificates are the same.
    (folder / "pki").symlink_to(TOPOLOGIES / "pki")
    for file in (folder / name / "nodes").glob("*/*.yaml"):
        text = file.read_text()
        changes, above = (mobility, "mobility:") if file.name == "lm.yaml" else (speaker, "access:")
        for key, value in (changes or {}).items():
            text = re.sub(rf"^  {key}: .*\n", "", text, flags=re.MULTILINE).replace(f"{above}\n", f"{above}\n  {key}: {value}\n")
        file.write_text(text)
    for file in filter(pathlib.Path.is_file, (folder / name / "nodes").glob("*/*")):
        text = file.read_text()
        for before, after in (replace or {}).items():
            text = text.replace(before, after)
        file.write_text(text)
    if edit:
        edit(folder / name / "nodes")
    return folder / name


@pytest.fixture(scope="module")
def changed_lab(root, request, tmp_path_factory):
    """Brings up labs with changed_topology()'s arguments; they are gone when the module's last test has ended."""
    with contextlib.ExitStack() as labs:

        def up(name, suffix="changed", **changes):
            topology = changed_topology(tmp_path_factory.mktemp(suffix), name, **changes)
            running = labs.enter_context(scenario.lab_up(topology, lab_name(request, f"-{suffix}")))
            running.wait_synced()
            return running

        yield up


@pytest.fixture(scope="module")
def lab(request):
    """The module's lab with all speakers synced: that of the handover topology, unless LAB in the module names another fixture."""
    up = request.getfixturevalue(getattr(request.module, "LAB", "handover_lab"))
    up.wait_synced()
    return up


@pytest.fixture
def prefix(lab, events):
    """mn1's /64 of ar1, with mn1 at home and everything settled."""
    found = lab.prefix_of(lab.mn_address())
    if lab.binding(found)["attached_ar"] != "ar1":
        lab.move(events, "ar1", found)
    scenario.wait_until("settled at home", lambda: lab.binding(found)["state"] == "BINDING_STATE_SETTLED")
    return found


@pytest.fixture
def flow(lab, prefix, tmp_path):
    """Between cn and mn1's address from the prefix."""
    assert prefix
    running = scenario.Flow(lab, tmp_path / "flow")
    yield running
    running.abort()


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
