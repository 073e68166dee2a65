"""The daemons of a running lab as the machine sees them from outside: found beforehand, killed at once, their return seen, FRR's asked over
their vty sockets. No program is started for any of it, so that it fits between two stages of a move."""

import contextlib
import os
import pathlib
import signal
import socket
import time

FRR = ("zebra", "bgpd", "ospf6d", "staticd")
KEDGE = {"kedge-lm", "kedge-speaker"}
_PROC = pathlib.Path("/proc")


def pids(lab, node):
    """Name -> process id of the daemons that run in the node."""
    network = (_PROC / str(lab.lab.nodes[node].pid) / "ns" / "net").stat().st_ino
    found = {}
    for process in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name = (process / "comm").read_text().strip()
            if name in KEDGE.union(FRR) and (process / "ns" / "net").stat().st_ino == network:
                found[name] = int(process.name)
    return found


def kill(victims):
    """Returns when, in monotonic nanoseconds."""
    at = time.monotonic_ns()
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return at


def _command(vty, command):
    vty.sendall(command.encode() + b"\0")
    answer = b""
    # The end of an answer is three zeros and a status.
    while answer[-4:-1] != b"\0\0\0":
        piece = vty.recv(65536)
        if not piece:
            raise OSError("the daemon has ended")
        answer += piece
    return answer[:-4].decode()


def ask(lab, node, daemon, command, seconds=1):
    """What an FRR daemon answers to a vty command; None when it does not answer."""
    path = _PROC / str(lab.lab.nodes[node].pid) / "root" / "run" / "frr" / f"{daemon}.vty"
    with socket.socket(socket.AF_UNIX) as vty:
        vty.settimeout(seconds)
        try:
            vty.connect(str(path))
            _command(vty, "enable")
            return _command(vty, command)
        except OSError:
            return None
