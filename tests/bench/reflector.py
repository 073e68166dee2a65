"""Routers around a BGP route reflector, each with FRR's daemons in namespaces of its own: what the parts about convergence measure."""

import contextlib
import json
import pathlib
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(REPOSITORY / "tests" / "component" / "frr"))

from frr_node import FrrNode, wait_for  # noqa: E402  pylint: disable=wrong-import-position
from vty import Vty, best_path_queues  # noqa: E402  pylint: disable=wrong-import-position

GRPC_MODULE = REPOSITORY / "build" / "frr" / "grpc.so"
HOLD_MODULE = REPOSITORY / "build" / "frr" / "kedge_bgpd_hold.so"
_REFLECTOR = "2001:db8:c0::1"

_BGPD = """
route-map KEDGE permit 1
 match tag 1
 set local-preference 101
 set weight 0
route-map KEDGE deny 1000
ipv6 prefix-list MOBILE permit 2001:db8:1000::/48 ge 64
route-map MOBILE permit 1
 match ipv6 address prefix-list MOBILE
bgp route-map delay-timer 1
router bgp 65000
 bgp router-id 192.0.2.{number}
 no bgp default ipv4-unicast
 coalesce-time 0
 {neighbours}
 address-family ipv6 unicast
  {family}
"""


class Router(FrrNode):
    """A node with what the measurements ask of it."""

    def __init__(self, name, log_folder):
        super().__init__(name, log_folder)
        self._vty = {}

    def close(self):
        for vty in self._vty.values():
            vty.close()
        super().close()

    def vty(self, daemon):
        """A connection that is kept."""
        if daemon not in self._vty:
            self._vty[daemon] = Vty(f"/proc/{self.pid}/root/run/frr/{daemon}.vty", seconds=30)
        return self._vty[daemon]

    def hold(self, milliseconds):
        """Of bgpd, from now on; needs the module."""
        refused = self.vty("bgpd").configure("router bgp 65000", f"bgp bestpath hold {milliseconds}")
        if refused or best_path_queues(self.vty("bgpd"))[0][0] != milliseconds:
            raise RuntimeError(f"{self.name}: {refused or 'the hold has not changed'}")

    def best_path_runs(self):
        return best_path_queues(self.vty("bgpd"))[0][1]

    def table_version(self):
        """Grows by one with each change of a best path."""
        return json.loads(self.vty("bgpd").ask("show bgp ipv6 unicast summary json"))["tableVersion"]

    def neighbours(self):
        return json.loads(self.vty("bgpd").ask("show bgp ipv6 unicast summary json")).get("peers", {}).values()

    def prefixes_received(self):
        return sum(peer["pfxRcd"] for peer in self.neighbours())

    def updates_sent(self):
        neighbours = json.loads(self.vty("bgpd").ask("show bgp neighbors json")).values()
        return sum(neighbour["messageStats"]["updatesSent"] for neighbour in neighbours)

    def waits(self):
        """Whether anything stands in bgpd's queue or waits to be sent."""
        queued = [line for line in self.vty("bgpd").ask("show work-queues").splitlines() if "process_queue" in line and line.split()[0] != "0"]
        return bool(queued) or any(peer["outq"] for peer in self.neighbours())


def locator(number):
    return f"2001:db8:a{number}::1"


class Star:
    """A reflector with client routers r1, r2, ...; all sessions are up."""

    def __init__(self, stack, folder, name, clients, *, tuned, hold=None, redistribute="static route-map KEDGE"):
        """`tuned`: zebra without its wait and replacing routes in one step. `hold`: bgpd has the module, with so many ms; None: without it."""
        folder = pathlib.Path(folder) / name
        folder.mkdir()
        self._tuned, self._hold = tuned, hold
        self.reflector = stack.enter_context(contextlib.closing(Router(f"{name}-rr", folder)))
        self.clients = [stack.enter_context(contextlib.closing(Router(f"{name}-r{i}", folder))) for i in range(1, clients + 1)]
        self.reflector.run("ip", "-6", "address", "add", f"{_REFLECTOR}/128", "dev", "lo")
        for number, client in enumerate(self.clients, 1):
            net = f"2001:db8:0:{number}::"
            client.run("ip", "-6", "address", "add", f"{locator(number)}/128", "dev", "lo")
            self.reflector.connect(f"eth{number}", f"{net}1/64", client, "eth0", f"{net}2/64")
            self.reflector.run("ip", "-6", "route", "add", f"{locator(number)}/128", "via", f"{net}2")
            for other in [_REFLECTOR] + [locator(n) for n in range(1, clients + 1) if n != number]:
                client.run("ip", "-6", "route", "add", f"{other}/128", "via", f"{net}1")
            self._start(client, number + 1, [_REFLECTOR], locator(number), f"redistribute {redistribute}", "next-hop-self")
        self._start(self.reflector, 1, [locator(n) for n in range(1, clients + 1)], _REFLECTOR, "", "route-reflector-client")
        for router in self.routers():
            count = clients if router is self.reflector else 1
            up = lambda router=router, count=count: [p["state"] for p in router.neighbours()] == ["Established"] * count  # noqa: E731
            wait_for(up, f"the sessions of {router.name}", 60)

    def routers(self):
        return [self.reflector, *self.clients]

    def _start(self, router, number, neighbours, source, redistribute, kind):
        lines = [f"neighbor {n} {what}" for n in neighbours for what in ("remote-as 65000", f"update-source {source}", "timers connect 1")]
        family = [redistribute] * bool(redistribute) + [f"neighbor {n} {what}" for n in neighbours for what in ("activate", kind)]
        router.configure("bgpd", _BGPD.format(number=number, neighbours="\n ".join(lines), family="\n  ".join(family)))
        router.configure("zebra", "zebra work-queue 0\n" if self._tuned else "")
        router.start("zebra", "-P", "0", "-s", "90000000", *(["--v6-rr-semantics"] if self._tuned else []))
        module = [] if self._hold is None else ["-M", f"{HOLD_MODULE.resolve()}:{self._hold}"]
        router.start("bgpd", "-P", "0", "-p", "179", "-l", "::", *module)
