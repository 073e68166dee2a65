"""Labs whose bgpd has frr/bgpd-hold: only where it is asked for, it is there again after a restart, and best-path selection does wait as long as
it says. What its command takes and writes: tests/component/frr/test_bgpd_hold.py."""

import json
import os

import daemons
import pytest
import scenario as scenarios
from vty import Vty, best_path_queues

ROUTERS = ("ar1", "core", "ar2")
STOCK = 50
LONG = 1000
PREFIX, OTHER = "2001:db8:1000:77::/64", "2001:db8:2000:77::/64"


def bgpd(lab, node):
    return Vty(daemons.socket_of(lab, node, "bgpd"))


def holds(lab, node):
    try:
        with bgpd(lab, node) as vty:
            return [hold for hold, _ in best_path_queues(vty)]
    except OSError:
        return None


@pytest.fixture(name="held_lab", scope="module")
def fixture_held_lab(root, request, tmp_path_factory):
    """The routers of the handover lab, without Kedge's daemons, and with the module."""
    from conftest import HANDOVER, lab_name

    environment = {"KEDGE_BUILD_DIR": str(tmp_path_factory.mktemp("no-daemons")), "KEDGE_BGPD_HOLD": "0"}
    with scenarios.lab_up(HANDOVER, lab_name(request, "-held"), environment) as up:
        yield up


def configure(lab, node, *lines):
    with bgpd(lab, node) as vty:
        assert vty.configure("router bgp 65000", *lines) == ""


@pytest.fixture(name="core")
def fixture_core(held_lab):
    """Configures the reflector's hold; afterwards it is as the lab has it."""
    yield lambda *lines: configure(held_lab, "core", *lines)
    configure(held_lab, "core", "no bgp bestpath hold")


@pytest.fixture(name="stock_ar2")
def fixture_stock_ar2(held_lab):
    """With bgpd's own hold."""
    configure(held_lab, "ar2", f"bgp bestpath hold {STOCK}")
    yield
    configure(held_lab, "ar2", "no bgp bestpath hold")


class Route:
    """A prefix that an access router may announce."""

    def __init__(self, lab, node, prefix):
        self._lab, self._node, self._prefix = lab, node, prefix

    def _change(self, command):
        self._lab.run(self._node, "vtysh", "-c", "configure terminal", "-c", f"{command} {self._prefix} blackhole tag 1")

    def add(self):
        self._change("ipv6 route")

    def remove(self):
        self._change("no ipv6 route")
        scenarios.wait_until("all have forgotten the prefix", lambda: not any(self.paths(router) for router in ROUTERS))

    def paths(self, router):
        """Whether each path of the router's bgpd is the best one."""
        table = json.loads(daemons.ask(self._lab, router, "bgpd", f"show bgp ipv6 unicast {self._prefix} json") or "{}")
        return [path.get("bestpath", {}).get("overall", False) for path in table.get("paths", [])] if table.get("prefix") == self._prefix else []

    def wait_chosen(self, router):
        scenarios.wait_until(f"{router} has chosen", lambda: self.paths(router) == [True], interval=0.001)


@pytest.fixture(name="route")
def fixture_route(held_lab):
    made = Route(held_lab, "ar1", PREFIX)
    yield made
    made.remove()


@pytest.fixture(name="other")
def fixture_other(held_lab):
    made = Route(held_lab, "ar2", OTHER)
    yield made
    made.remove()


def test_labs_have_bgpd_as_it_comes(routers_lab):
    for router in ROUTERS:
        assert holds(routers_lab, router) == [STOCK]
        assert "kedge_bgpd_hold" not in routers_lab.output(router, "vtysh", "-c", "show modules")


def test_a_lab_that_asks_for_it_has_it_on_every_router(held_lab):
    for router in ROUTERS:
        assert holds(held_lab, router) == [0]
        assert "kedge_bgpd_hold" in held_lab.output(router, "vtysh", "-c", "show modules")


def test_selection_waits_longer_than_bgpd_itself_would(held_lab, core, stock_ar2, route, other):
    core(f"bgp bestpath hold {LONG}")

    def is_outlasted():
        """Whether ar2, with bgpd's own hold, chooses a later route before the reflector has chosen the earlier one."""
        route.add()
        scenarios.wait_until("the reflector has the path", lambda: route.paths("core"), interval=0.001)
        other.add()
        other.wait_chosen("ar2")
        waits = route.paths("core") == [False] and route.paths("ar2") == []
        route.wait_chosen("ar2")
        route.remove()
        other.remove()
        return waits

    # More than one, for a machine that is busy that long.
    assert any(is_outlasted() for _ in range(5))


def test_routes_arrive_with_no_wait_at_all(route):
    route.add()
    for router in ROUTERS:
        route.wait_chosen(router)


def test_a_restart_brings_the_labs_hold_back(held_lab, core):
    core(f"bgp bestpath hold {LONG}")
    assert holds(held_lab, "core") == [LONG]
    # What `write` in vtysh saves in frr.conf: vtysh could not read the line back.
    assert "bestpath hold" not in held_lab.output("core", "vtysh", "-c", "show running-config")
    old = daemons.pids(held_lab, "core")["bgpd"]
    daemons.kill([old])
    scenarios.wait_until("another bgpd runs", lambda: daemons.pids(held_lab, "core").get("bgpd") not in (None, old))
    # Of -M, and not of the command.
    scenarios.wait_until("it has the lab's hold", lambda: holds(held_lab, "core") == [0])
    for router in ("ar1", "ar2"):
        scenarios.wait_until(f"{router} has its session again", lambda router=router: established(held_lab, router))


def established(lab, router):
    peers = json.loads(daemons.ask(lab, router, "bgpd", "show bgp ipv6 unicast summary json") or "{}").get("peers", {})
    return bool(peers) and all(peer["state"] == "Established" for peer in peers.values())


def test_a_lab_that_asks_for_it_without_the_module_says_so(netlab, root, request, tmp_path):
    from conftest import HANDOVER, lab_name

    environment = {**os.environ, "KEDGE_BUILD_DIR": str(tmp_path), "KEDGE_BGPD_HOLD": "0", "KEDGE_BGPD_HOLD_MODULE": str(tmp_path / "none.so")}
    result = netlab("up", HANDOVER, "--name", lab_name(request, "-none"), env=environment)
    assert result.returncode == 1
    assert "no module" in result.stderr and "make setup" in result.stderr
