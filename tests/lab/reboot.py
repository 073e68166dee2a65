"""A node of a running lab ends and starts as a machine does that loses its power: all processes are gone at once, the kernel has forgotten what it
was told, the links go down and come up again. Its files are as in the topology, but for those that are given."""

import dataclasses
import os
import pathlib
import signal
import subprocess

import scenario as scenarios
from netlab_lib import namespaces, topology

KEDGE_TABLES = ("8818", "8819", "8820")


def _ip(netns, *arguments, check=True):
    subprocess.run(["ip", "-n", netns, "-6", *arguments], check=check, capture_output=True, text=True)


def _interfaces(netns):
    folder = subprocess.run(["ip", "netns", "exec", netns, "ls", "/sys/class/net"], check=True, capture_output=True, text=True)
    return [name for name in folder.stdout.split() if name.startswith("eth")]


def _forget(netns):
    for interface in _interfaces(netns):
        _ip(netns, "link", "set", interface, "down")
    _ip(netns, "link", "delete", "kx0", check=False)
    # All but the one for the local table.
    _ip(netns, "rule", "flush")
    _ip(netns, "rule", "add", "priority", "32766", "lookup", "main")
    for table in ("main", *KEDGE_TABLES):
        _ip(netns, "route", "flush", "table", table, check=False)
    _ip(netns, "nexthop", "flush")
    _ip(netns, "address", "flush", "scope", "global")
    _ip(netns, "sr", "tunsrc", "set", "::")
    subprocess.run(["ip", "netns", "exec", netns, "nft", "flush", "ruleset"], check=True)


def _node(lab, name, replaced):
    """As the topology has it, with other files bound, and writable, where `replaced` says so."""
    node = topology.load(lab.lab.topology_file).nodes[name]
    binds = [
        dataclasses.replace(bind, source=pathlib.Path(replaced[bind.target]), read_only=False) if bind.target in replaced else bind
        for bind in node.binds
    ]
    return dataclasses.replace(node, binds=binds)


def reboot(lab, name, replaced=None):
    """`replaced`: path in the node -> file on this machine. Returns once the node is ready."""
    running = lab.lab.nodes[name]
    node = _node(lab, name, replaced or {})
    os.kill(running.pid, signal.SIGKILL)
    scenarios.wait_until(f"all processes of {name} are gone", lambda: not namespaces.processes_in(running.netns))
    _forget(running.netns)

    folder = lab.lab.node_folder(name)
    (folder / "mounted-run").rmdir()
    for state in ("started", "ready", "failed"):
        (folder / "run" / state).unlink(missing_ok=True)
    lab.lab.start_first_process(node)
    scenarios.wait_until(f"{name} has started", (folder / "run" / "started").exists)
    for interface in _interfaces(running.netns):
        _ip(running.netns, "link", "set", interface, "up")
    scenarios.wait_until(f"{name} is ready", (folder / "run" / "ready").exists, seconds=60)
