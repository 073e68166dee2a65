"""A node's namespaces: making them with a first process in them, and running commands in them."""

import ctypes
import ctypes.util
import errno
import os
import pathlib
import signal
import subprocess
import sys

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID = 0x20000, 0x4000000, 0x8000000, 0x20000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC, MS_SLAVE = 1, 32, 4096, 8192, 16384, 1 << 19
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
NETNS_FOLDER = pathlib.Path("/run/netns")
# Copies of these folders, private to the node; what is written there is gone with it.
COPIED_FOLDERS = ("/etc", "/opt", "/var/lib")

_libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)


def _call(function, *arguments):
    if function(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{function.__name__}{arguments}: {os.strerror(error)}")


def _mount(source, target, kind=None, flags=0, data=None):
    encoded = [None if text is None else str(text).encode() for text in (source, target, kind)]
    _call(_libc.mount, *encoded, ctypes.c_ulong(flags), None if data is None else data.encode())


def _set_namespace(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call(_libc.setns, descriptor, 0)
    finally:
        os.close(descriptor)


def _hide_namespaces_of_others():
    """A copy of another lab's network namespace, held by this node's mounts, would keep it alive after that lab has ended."""
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        below = [line.split()[4] for line in mounts]
    for path in reversed([path for path in below if path == str(NETNS_FOLDER) or path.startswith(f"{NETNS_FOLDER}/")]):
        try:
            _call(_libc.umount2, path.encode(), MNT_DETACH)
        except OSError as error:
            # That lab has just removed it.
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise


def _bind(source, target, read_only):
    target = pathlib.Path(target)
    if pathlib.Path(source).is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(source, target, flags=MS_BIND | MS_REC)
    if read_only:
        _mount(None, target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def _arrange_mounts(folder, binds):
    _mount(None, "/", flags=MS_REC | MS_SLAVE)
    _hide_namespaces_of_others()
    _mount("proc", "/proc", "proc")
    _mount("sysfs", "/sys", "sysfs")
    # The node's /run is put together beside the state folder, which lies in the machine's /run, and then takes its place.
    run = folder / "mounted-run"
    run.mkdir()
    _mount("tmpfs", run, "tmpfs", data="mode=755")
    _bind(folder / "run", run / "kedge", False)
    for copied in COPIED_FOLDERS:
        upper, work = (run / "netlab" / copied.strip("/").replace("/", "-") / part for part in ("upper", "work"))
        upper.mkdir(parents=True)
        work.mkdir()
        _mount("overlay", copied, "overlay", data=f"lowerdir={copied},upperdir={upper},workdir={work}")
    _mount(folder / "log", "/var/log", flags=MS_BIND)
    for source, target, read_only in binds:
        _bind(source, target, read_only)
    _mount(run, "/run", flags=MS_MOVE)


def _first_process(name, folder, binds, env, command):
    os.setsid()
    output = os.open(folder / "log" / "netlab.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _arrange_mounts(folder, binds)
    _call(_libc.sethostname, name.encode(), len(name))
    os.chdir("/")
    os.execvpe(command[0], command, env)


def start_node(netns, name, folder, binds, env, command):
    """Starts the node's first process, in new mount, process, host name and IPC namespaces and in the network namespace `netns`.

    `folder` holds the node's folders `run` and `log`, seen by the node as /run/kedge and /var/log. Returns the process's id. Whatever
    goes wrong inside stands in log/netlab.log.
    """
    reader, writer = os.pipe()
    helper = os.fork()
    if helper == 0:
        try:
            _set_namespace(NETNS_FOLDER / netns)
            _call(_libc.unshare, CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID)
            first = os.fork()
            if first == 0:
                os.close(writer)
                _first_process(name, folder, binds, env, command)
            os.write(writer, str(first).encode())
            os._exit(0)
        except BaseException as error:  # pylint: disable=broad-except
            print(f"netlab: node {name}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(helper, 0)
    if not answer:
        raise OSError(f"node {name}: its namespaces cannot be made")
    return int(answer)


def start_time(pid):
    """When the process was started, in clock ticks since boot; None if there is none. Tells it from a later one with the same id."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def processes_in(netns):
    """Process ids in a network namespace, as this process sees them."""
    result = subprocess.run(["ip", "netns", "pids", netns], capture_output=True, text=True, check=False)
    return [int(pid) for pid in result.stdout.split()]


def _forward_signals(child):
    def forward(number, _frame):
        # Ctrl-C at a terminal reaches the command by itself.
        at_terminal = number == signal.SIGINT and os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
        if not at_terminal:
            os.kill(child, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, forward)


def run_in_node(pid, env, command):
    """Runs a command in the namespaces of a node whose first process is `pid`; returns its exit status as a shell would.

    Signals are passed on, and the command dies with this process. Ends this process's life outside the node.
    """
    here = os.getcwd()
    descriptors = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("net", "uts", "ipc", "pid", "mnt")]
    for descriptor in descriptors:
        _call(_libc.setns, descriptor, 0)
    blocked = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    child = os.fork()
    if child == 0:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
        try:
            os.chdir(here if os.path.isdir(here) else "/")
            os.execvpe(command[0], command, env)
        except OSError as error:
            print(f"netlab: {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
            os._exit(127 if isinstance(error, FileNotFoundError) else 126)
    _forward_signals(child)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return 128 - code if code < 0 else code
