"""The daemons of a running lab as the machine sees them from outside: found beforehand, killed at once, their return seen, FRR's asked over
their vty sockets. No program is started for any of it, so that it fits between two stages of a move."""

import contextlib
import os
import pathlib
import signal
import time

from vty import Vty

FRR = ("zebra", "bgpd", "ospf6d", "staticd")
KEDGE = {"kedge-lm", "kedge-speaker"}
_PROC = pathlib.Path("/proc")


def pids(lab, node, names=KEDGE.union(FRR)):
    """Name -> process id of the daemons, or other programs, that run in the node."""
    network = (_PROC / str(lab.lab.nodes[node].pid) / "ns" / "net").stat().st_ino
    found = {}
    for process in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name = (process / "comm").read_text().strip()
            if name in names and (process / "ns" / "net").stat().st_ino == network:
                found[name] = int(process.name)
    return found


def kill(victims):
    """Returns when, in monotonic nanoseconds."""
    at = time.monotonic_ns()
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return at


def socket_of(lab, node, daemon):
    """Of the daemon's vty."""
    return _PROC / str(lab.lab.nodes[node].pid) / "root" / "run" / "frr" / f"{daemon}.vty"


def ask(lab, node, daemon, command, seconds=1):
    """What an FRR daemon answers to a vty command; None when it does not answer."""
    try:
        with Vty(socket_of(lab, node, daemon), seconds) as vty:
            return vty.ask(command)
    except OSError:
        return None
