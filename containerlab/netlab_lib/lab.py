"""A running lab: its state on disk, bringing it up, finding it again, taking it down."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import time

from netlab_lib import namespaces
from netlab_lib.topology import PKI_FOLDER, REPOSITORY

STATE_FOLDER = pathlib.Path("/run/kedge-netlab")
IMAGE_FOLDER = REPOSITORY / "containerlab" / "image"
ENTRY_POINT = ["/opt/kedge/start.sh"]
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUILD_SUBFOLDERS = ("lm-server", "speaker", "kedgectl", "tests/tools")
LOG_LINES = 15
# By its path: the command is looked for on the node's PATH.
NSENTER = "/usr/bin/nsenter"
FIRST_INTERFACE_INDEX = 100


class LabError(Exception):
    """Why a lab could not be brought up, found or taken down, and what to do."""


def build_folder():
    return pathlib.Path(os.environ.get("KEDGE_BUILD_DIR") or REPOSITORY / "build" / "release").resolve()


def frr_module(variable, name):
    """A module for FRR: what the environment variable names, or the newest that has been built; '' when there is none."""
    if os.environ.get(variable):
        return os.path.abspath(os.environ[variable])
    modules = [module for folder in (build_folder(), REPOSITORY / "build") for module in (folder / "frr").glob(f"*/{name}")]
    return str(max(modules, key=lambda module: module.stat().st_mtime)) if modules else ""


def program_binds():
    """Pairs of a folder with programs and where nodes see it: the daemons' user need not be able to reach the repository."""
    folders = [build_folder() / folder for folder in BUILD_SUBFOLDERS] + [REPOSITORY / "frr"]
    return [(folder, f"/opt/kedge-programs/{folder.name}") for folder in folders if folder.is_dir()]


def make_pki(topology):
    """The certificates that the topology binds, where there are none yet."""
    if not any(PKI_FOLDER in bind.source.parents for node in topology.nodes.values() for bind in node.binds):
        return
    result = subprocess.run([REPOSITORY / "containerlab" / "make-pki"], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise LabError(f"the labs' certificates cannot be made: {result.stderr.strip()}")


@dataclasses.dataclass
class RunningNode:
    netns: str
    env: dict
    pid: int = 0
    start_time: int = 0

    def alive(self):
        return self.pid != 0 and namespaces.start_time(self.pid) == self.start_time


class Lab:
    """A lab that is up, coming up, or left half made: all that is needed to use it and to remove it stands in its folder."""

    def __init__(self, name):
        self.name = name
        self.folder = STATE_FOLDER / name
        self.topology_file = ""
        self.nodes = {}

    # State

    def save(self):
        state = {
            "name": self.name,
            "topology": str(self.topology_file),
            "nodes": {name: dataclasses.asdict(node) for name, node in self.nodes.items()},
        }
        new = self.folder / "state.json.new"
        new.write_text(json.dumps(state, indent=1), encoding="utf-8")
        new.replace(self.folder / "state.json")

    @classmethod
    def read(cls, name):
        lab = cls(name)
        # A lab that was interrupted before it wrote its first state has made nothing else.
        with contextlib.suppress(FileNotFoundError):
            state = json.loads((lab.folder / "state.json").read_text(encoding="utf-8"))
            lab.topology_file = state["topology"]
            lab.nodes = {node: RunningNode(**content) for node, content in state["nodes"].items()}
        return lab

    def node_folder(self, node):
        return self.folder / "nodes" / node

    def node_state(self, node):
        """dead, failed, ready, starting."""
        run = self.node_folder(node) / "run"
        if not self.nodes[node].alive():
            return "dead"
        for state in ("failed", "ready"):
            if (run / state).exists():
                return state
        return "starting"

    # Up

    def make(self, topology, timeout, report):
        """Brings the lab up and waits until all nodes are ready. On any error everything made is removed before it is raised."""
        STATE_FOLDER.mkdir(parents=True, exist_ok=True)
        try:
            self.folder.mkdir()
        except FileExistsError:
            raise LabError(f"lab {self.name} is up already, or was left behind; run: netlab down {self.name}") from None
        try:
            self.topology_file = topology.file
            self.nodes = {name: self._running_node(node) for name, node in topology.nodes.items()}
            self.save()
            deadline = time.monotonic() + timeout
            for name in start_order(topology.nodes):
                with signals_deferred():
                    self._start(topology.nodes[name])
            self._wait_for("started", deadline)
            with signals_deferred():
                self._make_links(topology.links)
            report(f"{len(self.nodes)} nodes and {len(topology.links)} links are there, waiting until the nodes are ready")
            self._wait_for("ready", deadline)
            self._run_commands(topology.nodes)
        except BaseException:
            with signals_ignored():
                self.remove()
            raise

    def _running_node(self, node):
        folders = [target for _, target in program_binds()]
        env = {
            "PATH": ":".join(["/opt/kedge/bin", *folders, SYSTEM_PATH]),
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "KEDGE_GRPC_MODULE": frr_module("KEDGE_GRPC_MODULE", "grpc.so"),
            "KEDGE_BGPD_HOLD_MODULE": frr_module("KEDGE_BGPD_HOLD_MODULE", "kedge_bgpd_hold.so"),
            "KEDGE_BGPD_HOLD": os.environ.get("KEDGE_BGPD_HOLD", ""),
            # Where sanitizers report to, and what the allocator tells of the heap.
            **{name: os.environ[name] for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "MALLOC_CONF") if name in os.environ},
            **node.env,
        }
        return RunningNode(f"{self.name}-{node.name}", env)

    def _start(self, node):
        running = self.nodes[node.name]
        folder = self.node_folder(node.name)
        (folder / "log").mkdir(parents=True)
        (folder / "run").mkdir()
        ip("netns", "add", running.netns)
        self.start_first_process(node)

    def start_first_process(self, node):
        """Of a node of the topology whose network namespace and folder are there."""
        running = self.nodes[node.name]
        binds = [(IMAGE_FOLDER, "/opt/kedge", True)] + [(source, target, True) for source, target in program_binds()]
        binds += [(bind.source, bind.target, bind.read_only) for bind in node.binds]
        folder = self.node_folder(node.name)
        running.pid = namespaces.start_node(running.netns, node.name, folder, binds, running.env, ENTRY_POINT)
        running.start_time = namespaces.start_time(running.pid) or 0
        self.save()

    def _make_links(self, links):
        for number, link in enumerate(links):
            (node, interface), (peer, peer_interface) = link.ends
            netns, peer_netns = self.nodes[node].netns, self.nodes[peer].netns
            # The kernel takes a veth whose ends have the same index for a device without a lower one, and lets up to a second pass before it
            # acts on a change of its carrier. Made in their own namespaces, ends would often have the same index.
            index = FIRST_INTERFACE_INDEX + 2 * number
            # Straight in their namespaces: nothing of the lab is ever seen in the machine's own.
            ip("link", "add", "name", interface, "index", str(index), "netns", netns, "mtu", str(link.mtu), "type", "veth",
               "peer", "name", peer_interface, "index", str(index + 1), "netns", peer_netns, "mtu", str(link.mtu))  # fmt: skip
            ip("-n", netns, "link", "set", interface, "up")
            ip("-n", peer_netns, "link", "set", peer_interface, "up")

    def _wait_for(self, what, deadline):
        while True:
            waiting = []
            for name in self.nodes:
                state = self.node_state(name)
                if state in ("failed", "dead"):
                    raise LabError(self._what_went_wrong(name, state))
                if not (self.node_folder(name) / "run" / what).exists():
                    waiting.append(name)
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise LabError("\n".join(self._what_went_wrong(name, f"not {what} in time") for name in waiting))
            time.sleep(0.02)

    def _what_went_wrong(self, name, state):
        folder = self.node_folder(name)
        lines = [f"node {name}: {state}"]
        with contextlib.suppress(FileNotFoundError):
            lines[0] += f": {(folder / 'run' / 'failed').read_text(encoding='utf-8').strip()}"
        for log in sorted((folder / "log").rglob("*.log")):
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
            lines += [f"  {log.relative_to(folder / 'log')}: {line}" for line in tail]
        return "\n".join(lines)

    def _run_commands(self, nodes):
        for name, node in nodes.items():
            for command in node.exec:
                result = self.run(name, shlex.split(command))
                if result.returncode != 0:
                    raise LabError(f"node {name}: exec '{command}' ended with status {result.returncode}: {result.stderr.strip()}")

    # Use

    def run(self, name, command, **options):
        """Runs a command in a node; like subprocess.run with text and captured output. As `netlab exec`, but for what happens to the command
        when this process is interrupted; `exec` takes 100 ms to start."""
        node = self._alive(name)
        return subprocess.run(
            [NSENTER, "-t", str(node.pid), "-n", "-u", "-i", "-p", "-m", "--", *command],
            env=node.env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **options
        )  # fmt: skip

    def execute(self, name, command):
        """Runs a command in a node in place of this process's own work; returns its exit status."""
        node = self._alive(name)
        env = dict(node.env)
        if "TERM" in os.environ:
            env["TERM"] = os.environ["TERM"]
        os.environ["PATH"] = env["PATH"]
        return namespaces.run_in_node(node.pid, env, command)

    def _alive(self, name):
        if name not in self.nodes:
            raise LabError(f"lab {self.name} has no node {name}; it has {', '.join(self.nodes)}")
        node = self.nodes[name]
        if not node.alive():
            raise LabError(f"node {name} of lab {self.name} does not run; run: netlab down {self.name}")
        return node

    # Down

    def remove(self):
        """Removes everything that was made, however far it had come. Safe to repeat."""
        for node in self.nodes.values():
            if node.alive():
                kill(node.pid)
        deadline = time.monotonic() + 10
        for node in self.nodes.values():
            if not (namespaces.NETNS_FOLDER / node.netns).exists():
                continue
            # Its first process takes all others of its process namespace along; others may have been brought in by `ip netns exec`.
            while pids := namespaces.processes_in(node.netns):
                for pid in pids:
                    kill(pid)
                if time.monotonic() > deadline:
                    raise LabError(f"processes {pids} in network namespace {node.netns} do not end")
                time.sleep(0.01)
            ip("netns", "delete", node.netns)
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            STATE_FOLDER.rmdir()


def ip(*arguments):
    result = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise LabError(f"ip {' '.join(arguments)}: {result.stderr.strip()}")


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def signals_deferred():
    """An interruption takes effect at the end: a program that is being started in that moment would go on and make something unseen."""
    pending = []
    before = {number: signal.signal(number, lambda number, _frame: pending.append(number)) for number in INTERRUPTIONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if pending:
            os.kill(os.getpid(), pending[0])


@contextlib.contextmanager
def signals_ignored():
    """A second Ctrl-C does not stop the cleaning up."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in INTERRUPTIONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_order(nodes):
    """Names of the nodes, each after those that it waits for. There are no circles: the topology has been checked."""
    order = []

    def visit(name):
        for other in nodes[name].after:
            visit(other)
        if name not in order:
            order.append(name)

    for name in nodes:
        visit(name)
    return order


def running_labs():
    """Names of the labs that are up or were left behind."""
    return sorted(folder.name for folder in STATE_FOLDER.iterdir()) if STATE_FOLDER.is_dir() else []


def find(target):
    """The lab meant by a name, a topology file or folder, or None: the only one there is. Raises LabError."""
    names = running_labs()
    if target is None:
        found = names
    elif target in names:
        found = [target]
    else:
        path = pathlib.Path(target).resolve()
        files = {name: pathlib.Path(Lab.read(name).topology_file) for name in names}
        found = [name for name, file in files.items() if path in (file, file.parent)]
    if len(found) == 1:
        return Lab.read(found[0])
    if not found:
        raise LabError("no lab is up" if target is None else f"no lab {target} is up")
    raise LabError(f"several labs are up: {', '.join(found)}; name one of them with -t")
