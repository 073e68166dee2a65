"""Speakers of BGP around one reflector, in network namespaces, and what the reflector's kernel has."""

import ipaddress
import json
import pathlib
import subprocess
import sys

import processes
from scenario import wait_until

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(REPOSITORY / "tests" / "component" / "frr"))

from frr_node import FrrNode  # noqa: E402  pylint: disable=wrong-import-position

GRPC_MODULE = REPOSITORY / "build" / "frr" / "grpc.so"
NORTHBOUND = "127.0.0.1:50051"
AS = 65000
ROUTE_MAP = "".join(
    f"route-map KEDGE permit {10 * level}\n match tag {level}\n set local-preference {100 + level}\n set weight 0\n" for level in (1, 2, 3)
) + "route-map KEDGE deny 1000\n"  # fmt: skip


def nth(pool, number):
    """The number-th /64 of the pool."""
    return ipaddress.IPv6Network((int(pool.network_address) + (number << 64), 64))


def _bgpd(router_id, neighbors, more=""):
    lines = [f"router bgp {AS}", f" bgp router-id {router_id}", " no bgp default ipv4-unicast", " coalesce-time 0", " bgp route-map delay-timer 1"]
    for address in neighbors:
        lines += [f" neighbor {address} remote-as {AS}", f" neighbor {address} timers connect 1"]
    lines += [" address-family ipv6 unicast"]
    for address in neighbors:
        lines += [f"  neighbor {address} activate", *(f"  neighbor {address} {word}" for word in more.split("|") if word)]
    return "\n".join(lines) + "\n"


class Lab:
    """A reflector with FRR, and a node for each name that is linked to it; what runs there is started by whoever knows it. None is the reflector's
    client, so that it burdens nobody with the routes of another."""

    def __init__(self, scratch, names):
        self.scratch = pathlib.Path(scratch)
        self._nodes = {}
        self.addresses = {name: (f"2001:db8:ffff:{i}::1", f"2001:db8:ffff:{i}::2") for i, name in enumerate(names, 1)}
        try:
            self.reflector = self._nodes["reflector"] = FrrNode("reflector", scratch)
            for name, (own, others) in self.addresses.items():
                self._nodes[name] = FrrNode(name, scratch)
                self._nodes[name].connect("core", own + "/64", self.reflector, name, others + "/64")
            self._start_frr(self.reflector, _bgpd("192.0.2.254", [own for own, _ in self.addresses.values()]))
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for node in self._nodes.values():
            node.close()

    def __getitem__(self, name):
        return self._nodes[name]

    @staticmethod
    def _start_frr(node, bgpd):
        """zebra and bgpd, configured as docs/frr.md asks for."""
        node.configure("zebra", "zebra work-queue 0\n")
        node.configure("bgpd", bgpd)
        node.start("zebra", "-s", "90000000", "--v6-rr-semantics")
        node.start("bgpd", "-p", "179", "-l", "::")

    def start_access_router(self, name):
        """FRR with staticd's northbound, as an access router of Kedge has it."""
        node, (_, reflector) = self[name], self.addresses[name]
        bgpd = _bgpd("192.0.2.1", [reflector], "next-hop-self").rstrip("\n")
        self._start_frr(node, f"{ROUTE_MAP}{bgpd}\n  redistribute static route-map KEDGE\n")
        node.start("staticd", "-M", f"{GRPC_MODULE.resolve()}:{NORTHBOUND.rpartition(':')[2]}")
        wait_until(f"the reflector's session with {name}", lambda: self.has_session(name), 60, 0.1)

    def has_session(self, name):
        own, _ = self.addresses[name]
        peers = json.loads(self.reflector.vtysh("show bgp ipv6 unicast summary json") or "{}").get("peers", {})
        return peers.get(own, {}).get("state") == "Established"

    def reflector_namespace(self):
        return f"/proc/{self.reflector.pid}/ns/net"


class Watch:
    """Sees the routes of a pool come to and leave the reflector's kernel (injector_load as a mere watcher)."""

    def __init__(self, lab, build, pool):
        command = [build / "tests/bench/injector_load", "--injector", "none", "--reflector", lab.reflector_namespace(), "--pool", pool]
        self._process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._begun = self._answer()["count"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        processes.stop(self._process)
        self._process.stdout.close()

    @property
    def count_at_begin(self):
        return self._begun

    def await_count(self, count, still=0.0, timeout=60.0):
        """Once so many routes stand there, unchanged for `still` seconds, or the time is over: their number, and all changes since the last call,
        (number of the route in the pool, there?, nanoseconds of time.monotonic_ns())."""
        self._process.stdin.write(f"{count} {still} {timeout}\n")
        self._process.stdin.flush()
        answer = self._answer()
        return answer["count"], [(number, bool(there), at) for number, there, at in answer["changes"]]

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise processes.BenchError(f"injector_load, which watches the reflector, ended with status {self._process.wait()}")
        return json.loads(line)


def injector_load(lab, build, name, pool, **options):
    """Lines that injector_load has printed, run at the access router against its northbound."""
    command = ["nsenter", "-t", lab[name].pid, "-n", build / "tests/bench/injector_load", "--northbound", NORTHBOUND,
               "--reflector", lab.reflector_namespace(), "--pool", pool]  # fmt: skip
    for option, value in options.items():
        if value is not False:
            command += [f"--{option}"] + ([] if value is True else [value])
    log = lab.scratch / "injector_load.log"
    with open(log, "a", encoding="utf-8") as errors:
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True)
    try:
        lines = [json.loads(line) for line in process.stdout]
    finally:
        processes.stop(process)
        process.stdout.close()
    if process.returncode != 0:
        last = log.read_text(encoding="utf-8").splitlines()[-1:]
        raise processes.BenchError(f"injector_load ended with status {process.returncode}: {' '.join(last)}")
    return lines
