"""The speaker's anchoring plane against FRR's own daemons: zebra, staticd with the gRPC module, bgpd. Each injector passes the same tests, and
some that are of its way only."""

import json
import os
import pathlib
import signal
import statistics
import time

import pytest
from frr_node import Driver, FrrNode, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[3]
# P2 as of a mobile network.
P1, P2, P3 = "2001:db8:1:1::/64", "2001:db8:1:200::/56", "2001:db8:1:3::/64"
AR, REFLECTOR = "2001:db8:ffff::1", "2001:db8:ffff::2"

BGPD = """
{levels}
route-map KEDGE deny 1000
router bgp 65000
 bgp router-id {router_id}
 no bgp default ipv4-unicast
 coalesce-time 0
 bgp route-map delay-timer 1
 neighbor {neighbor} remote-as 65000
 neighbor {neighbor} timers connect 1
 address-family ipv6 unicast
  redistribute {redistributed} route-map KEDGE
  neighbor {neighbor} activate
  neighbor {neighbor} next-hop-self
  {more}
"""
# Of the kernel's routes that the speaker makes.
PROTOCOL, METRIC = 89, 881800


def grpc_module():
    path = pathlib.Path(os.environ.get("KEDGE_GRPC_MODULE", ROOT / "build/frr/grpc.so"))
    assert path.exists(), f"{path} is missing: run frr/build-modules.sh, or set KEDGE_GRPC_MODULE"
    return path.resolve()


def driver_binary():
    if "KEDGE_BUILD_DIR" in os.environ:
        folders = [pathlib.Path(os.environ["KEDGE_BUILD_DIR"])]
    else:
        folders = [ROOT / "build" / preset for preset in ("release", "dev", "asan", "tsan")]
    found = [binary for folder in folders
             if (binary := folder / "tests/component/frr/anchoring_plane_driver").exists()]
    assert found, f"anchoring_plane_driver is missing below {', '.join(map(str, folders))}: run make build"
    return found[0]


class Northbound:
    """Statics of staticd, by gRPC."""

    name, argument, redistributed, daemon = "northbound", "127.0.0.1:50051", "static", "staticd"
    away = "FRR's northbound at 127.0.0.1:50051 refuses"

    def level(self, number):
        return f"route-map KEDGE permit {number}\n match tag {number}\n set local-preference {100 + number}\n set weight 0"

    def start(self, node, module=True):
        node.start("staticd", *(["-M", f"{grpc_module()}:50051"] if module else []))

    restart = start

    def held(self, node):
        """Prefix to level."""
        return {prefix: int(rest.split()[-1]) for prefix, rest in statics(node).items() if rest.startswith("blackhole tag ")}


class Kernel:
    """Routes of the kernel, which zebra reads."""

    name, argument, redistributed, daemon = "kernel", "kernel", "kernel", "zebra"
    away = "zebra cannot be asked at /var/run/frr/zebra.vty"

    def level(self, number):
        return (f"route-map KEDGE permit {number}\n match metric {METRIC + number}\n set local-preference {100 + number}\n set weight 0\n"
                f" set tag {number}\n set metric 0")

    def start(self, node):
        """zebra runs already."""

    def restart(self, node, *options):
        """bgpd is started anew with zebra, as watchfrr does it: it does not hear of a new zebra's routes."""
        node.start("zebra", *(options or ("-s", "90000000")))
        node.kill("bgpd")
        node.start("bgpd", "-p", "179", "-l", "::")

    def held(self, node):
        routes = json.loads(node.run("ip", "-6", "-j", "route", "show", "table", "main", "proto", str(PROTOCOL)) or "[]")
        assert len({route["dst"] for route in routes}) == len(routes), "two routes for one prefix"
        return {route["dst"]: route["metric"] - METRIC for route in routes}


NORTHBOUND, KERNEL = Northbound(), Kernel()


def only(injector):
    return pytest.mark.parametrize("injector", [injector], indirect=True, ids=[injector.name])


@pytest.fixture(name="injector", params=[NORTHBOUND, KERNEL], ids=["northbound", "kernel"])
def fixture_injector(request):
    return request.param


def bgpd(injector, **keys):
    return BGPD.format(levels="\n".join(map(injector.level, (1, 2, 3))), redistributed=injector.redistributed, **keys)


@pytest.fixture(name="ar")
def fixture_ar(tmp_path, injector):
    node = FrrNode("ar", tmp_path)
    try:
        node.run("ip", "-6", "address", "add", AR + "/128", "dev", "lo")
        node.configure("bgpd", bgpd(injector, router_id="192.0.2.1", neighbor=REFLECTOR, more=""))
        node.start("zebra", "-s", "90000000")
        node.start("bgpd", "-p", "179", "-l", "::")
        yield node
    finally:
        node.close()


@pytest.fixture(name="reflector")
def fixture_reflector(tmp_path, ar):
    node = FrrNode("reflector", tmp_path)
    try:
        ar.run("ip", "-6", "address", "del", AR + "/128", "dev", "lo")
        ar.connect("core", AR + "/64", node, "ar", REFLECTOR + "/64")
        node.configure("bgpd", bgpd(NORTHBOUND, router_id="192.0.2.2", neighbor=AR, more=f"neighbor {AR} route-reflector-client"))
        # Replaces routes in one step.
        node.start("zebra", "-s", "90000000", "--v6-rr-semantics")
        node.start("bgpd", "-p", "179", "-l", "::")
        node.start("staticd")
        yield node
    finally:
        node.close()


@pytest.fixture(name="driver")
def fixture_driver(ar, injector, tmp_path):
    driver = Driver(ar, driver_binary(), tmp_path / "driver.log", injector.argument)
    try:
        yield driver
    finally:
        driver.close()


def statics(node):
    """Prefix to the rest of the line, of the configuration that staticd shows."""
    lines = node.vtysh("show running-config staticd").splitlines()
    return {line.split()[2]: " ".join(line.split()[3:]) for line in lines if line.startswith("ipv6 route ")}


def test_injects_retags_and_withdraws(ar, injector, driver):
    injector.start(ar)
    driver.tell("replace")
    driver.expect("state synced")
    for level in (1, 3, 2):
        driver.tell(f"set {P1} {level}")
        driver.expect(f"committed {P1} {level}")
        wait_for(lambda: ar.preference(P1) == 100 + level, f"local-preference {100 + level}")
        assert injector.held(ar) == {P1: level}
        # By this the speaker knows its own path.
        assert ar.best_path(P1)["tag"] == level
    driver.tell(f"set {P1} 0")
    driver.expect(f"committed {P1} 0")
    wait_for(lambda: ar.best_path(P1) is None, "the withdrawal")
    assert injector.held(ar) == {}


@only(NORTHBOUND)
def test_vtysh_can_take_away_what_came_by_grpc(ar, injector, driver):
    injector.start(ar)
    driver.tell(f"replace {P2} 1")
    driver.expect(f"committed {P2} 1")
    # In one session: the injector soon reads FRR again, and writes it anew.
    shown = ar.vtysh("configure terminal", f"no ipv6 route {P2} blackhole tag 1", "end", "show running-config staticd")
    assert P2 not in shown


def test_resyncs_after_its_daemon_is_killed(ar, injector, driver, record_testsuite_property):
    injector.start(ar)
    driver.tell(f"replace {P1} 1 {P2} 2")
    driver.expect(f"committed {P2} 2")
    driver.expect("state synced")
    wait_for(lambda: ar.preference(P1) == 101, "the announcement")
    killed = time.monotonic()
    ar.kill(injector.daemon)
    driver.expect("state awaiting", after=killed)
    driver.tell(f"set {P2} 0")
    driver.tell(f"set {P3} 3")
    driver.expect(f"accepted set {P3} 3")
    driver.expect(f"state awaiting {injector.away}", after=killed)
    started = time.monotonic()
    injector.restart(ar)
    synced, _ = driver.expect("state synced", after=started)
    record_testsuite_property(f"{injector.daemon}_start_to_synced_ms", round((synced - started) * 1000, 1))
    assert injector.held(ar) == {P1: 1, P3: 3}
    for event in (f"committed {P1} 1", f"committed {P2} 0", f"committed {P3} 3"):
        driver.expect(event, after=started)
    wait_for(lambda: ar.preference(P1) == 101 and ar.preference(P3) == 103, "the announcements")
    assert ar.best_path(P2) is None


@only(NORTHBOUND)
def test_purges_leftovers_but_nothing_of_the_operators(ar, injector, driver):
    injector.start(ar)
    ar.vtysh("configure terminal", f"ipv6 route {P1} blackhole tag 1", f"ipv6 route {P2} blackhole tag 8",
             f"ipv6 route {P3} blackhole tag 9", "ipv6 route 2001:db8:2::/64 lo tag 1",
             "ipv6 route 2001:db8:3::/64 blackhole", "ip route 192.0.2.128/25 blackhole tag 1")
    driver.tell(f"replace {P1} 2")
    driver.expect("state synced")
    driver.expect(f"committed {P2} 0")
    assert statics(ar) == {P1: "blackhole tag 2", P3: "blackhole tag 9", "2001:db8:2::/64": "lo tag 1",
                           "2001:db8:3::/64": "blackhole"}
    assert "ip route 192.0.2.128/25 blackhole tag 1" in ar.vtysh("show running-config staticd")


def kernel_route(node, action, prefix, metric, *more, protocol=PROTOCOL):
    node.run("ip", "-6", "route", action, "blackhole", prefix, "metric", str(metric), "proto", str(protocol), *more)


@only(KERNEL)
def test_purges_routes_of_an_earlier_speaker_but_nothing_of_the_operators(ar, injector, driver):
    # Ended between the two halves of a change; a level that is no more; what is to be announced as it is.
    for prefix, level in ((P1, 1), (P1, 3), (P2, 8), (P2, 9), (P3, 2)):
        kernel_route(ar, "add", prefix, METRIC + level)
    kernel_route(ar, "add", "2001:db8:2::/64", METRIC + 1, protocol=4)
    ar.run("ip", "route", "add", "blackhole", "192.0.2.128/25", "metric", str(METRIC + 1), "proto", str(PROTOCOL))
    driver.tell(f"replace {P1} 2 {P3} 2")
    driver.expect("state synced")
    for event in (f"committed {P1} 2", f"committed {P2} 0", f"committed {P3} 2"):
        driver.expect(event)
    wait_for(lambda: injector.held(ar) == {P1: 2, P3: 2}, "nothing else is left")
    assert "2001:db8:2::/64" in ar.run("ip", "-6", "route") and "192.0.2.128/25" in ar.run("ip", "route")
    wait_for(lambda: ar.preference(P1) == 102 and ar.preference(P3) == 102 and ar.best_path(P2) is None, "the announcements")


def test_waits_until_the_operators_static_is_gone(ar, injector, driver):
    injector.start(ar)
    if injector is KERNEL:
        ar.start("staticd")
    ar.vtysh("configure terminal", f"ipv6 route {P1} lo")
    wait_for(lambda: P1 in ar.run("ip", "-6", "route"), "the operator's static is installed")
    driver.tell(f"replace {P1} 1 {P2} 1")
    driver.expect(f"committed {P2} 1")
    _, text = driver.expect("state synced synced; ")
    assert f"another static route for {P1} (via lo)" in text or f"another route for {P1} (a static of FRR's)" in text
    assert statics(ar)[P1] == "lo" and injector.held(ar) == {P2: 1}
    ar.vtysh("configure terminal", f"no ipv6 route {P1} lo")
    driver.expect(f"committed {P1} 1")
    assert injector.held(ar) == {P1: 1, P2: 1}
    wait_for(lambda: ar.preference(P1) == 101, "the announcement")


@only(NORTHBOUND)
def test_keeps_an_operators_second_path(ar, injector, driver):
    injector.start(ar)
    ar.vtysh("configure terminal", f"ipv6 route {P1} blackhole tag 1", f"ipv6 route {P1} lo 250")
    driver.tell(f"replace {P1} 2")
    driver.expect(f"committed {P1} 2")
    lines = ar.vtysh("show running-config staticd")
    assert f"ipv6 route {P1} blackhole tag 2\n" in lines and f"ipv6 route {P1} lo 250\n" in lines
    driver.tell(f"set {P1} 0")
    driver.expect(f"committed {P1} 0")
    assert statics(ar) == {P1: "lo 250"}


@only(NORTHBOUND)
def test_awaits_a_staticd_without_the_module_and_recovers(ar, injector, driver):
    injector.start(ar, module=False)
    driver.tell(f"replace {P1} 1")
    _, text = driver.expect("state awaiting")
    assert "127.0.0.1:50051 refuses connections: start staticd with '-M <path>/grpc.so:50051'" in text
    ar.kill("staticd")
    injector.start(ar)
    driver.expect(f"committed {P1} 1")
    driver.expect("state synced")


@only(NORTHBOUND)
def test_waits_for_a_daemon_that_stands_still(ar, injector, driver):
    injector.start(ar)
    driver.tell("replace")
    driver.expect("state synced")
    ar.signal("staticd", signal.SIGSTOP)
    driver.tell(f"set {P1} 1")
    driver.expect("state synced FRR's staticd has not answered CreateCandidate for 10 s")
    ar.signal("staticd", signal.SIGCONT)
    driver.expect(f"committed {P1} 1")
    driver.expect("state synced synced", after=driver.expect(f"committed {P1} 1")[0])


@only(KERNEL)
def test_does_not_write_more_than_a_zebra_that_stands_still_can_take(ar, reflector, injector, driver):
    driver.tell("replace")
    driver.expect("state synced")
    ar.signal("zebra", signal.SIGSTOP)
    driver.tell("burst 2001:db8:4000::/48 5000 1")
    driver.expect("state synced zebra does not read the kernel's notices")
    assert len(injector.held(ar)) < 1000 and zebra_drops(ar) == 0
    ar.signal("zebra", signal.SIGCONT)
    done, _ = driver.expect("committed 2001:db8:4000:1387::/64 1")
    driver.expect("state synced synced", after=done)
    wait_for(lambda: received(reflector) == 5000, "all are at the reflector")


def zebra_drops(node):
    """Notices that the kernel could not give to zebra."""
    listeners = [line.split() for line in node.run("cat", "/proc/self/net/netlink").splitlines()[1:]]
    (drops,) = [int(words[8]) for words in listeners if words[1] == "0" and int(words[3], 16) & 0x20]
    return drops


def received(reflector):
    """How many prefixes the reflector has from the access router."""
    peer = json.loads(reflector.vtysh("show bgp ipv6 unicast summary json"))["peers"][AR]
    return peer.get("pfxRcd")


@only(KERNEL)
def test_what_zebra_has_missed_is_told_again(ar, reflector, injector, driver, tmp_path):
    ar.kill("zebra")
    # Room for about 90 notices.
    injector.restart(ar, "-s", "60000")
    driver.tell(f"replace {P1} 1 {P2} 1")
    driver.expect("state synced")
    wait_for(lambda: received(reflector) == 2, "the announcements at the reflector")
    ar.signal("zebra", signal.SIGSTOP)
    # Others fill its buffer.
    batch = tmp_path / "batch"
    batch.write_text("".join(f"route add blackhole 2001:db8:6000:{i:x}::/64 proto static\n" for i in range(400)))
    ar.run("ip", "-6", "-batch", str(batch))
    filled = zebra_drops(ar)
    assert filled > 0
    # What is asked for after a loss waits until that is made good.
    driver.tell(f"set {P2} 3")
    wait_for(lambda: zebra_drops(ar) >= filled + 2, "both notices of this are lost")
    driver.tell(f"set {P1} 0")
    driver.tell(f"set {P3} 2")
    driver.expect(f"accepted set {P3} 2")
    told = time.monotonic()
    assert not [event for _, event in driver.events if event in (f"committed {P1} 0", f"committed {P2} 3", f"committed {P3} 2")]
    ar.signal("zebra", signal.SIGCONT)
    for event in (f"committed {P1} 0", f"committed {P2} 3", f"committed {P3} 2"):
        driver.expect(event, after=told)
    wait_for(lambda: reflector.best_path(P1) is None and reflector.preference(P2) == 103 and reflector.preference(P3) == 102, "BGP has it")
    assert injector.held(ar) == {P2: 3, P3: 2} and received(reflector) == 2


@only(KERNEL)
def test_routes_that_others_remove_come_back(ar, injector, driver):
    begun = time.monotonic()
    driver.tell(f"replace {P1} 1 {P2} 2")
    driver.expect("state synced")
    for event in (f"committed {P1} 1", f"committed {P2} 2"):
        driver.expect(event, after=begun)
    flushed = time.monotonic()
    ar.run("ip", "-6", "route", "flush", "table", "main", "proto", str(PROTOCOL))
    for event in (f"committed {P1} 1", f"committed {P2} 2"):
        driver.expect(event, after=flushed)
    assert injector.held(ar) == {P1: 1, P2: 2}
    # And what others add under the speaker's number goes.
    kernel_route(ar, "add", P3, METRIC + 1)
    driver.expect(f"committed {P3} 0")
    assert injector.held(ar) == {P1: 1, P2: 2}
    wait_for(lambda: ar.preference(P1) == 101 and ar.preference(P2) == 102 and ar.best_path(P3) is None, "the announcements")


@only(KERNEL)
def test_a_change_of_the_level_never_leaves_the_reflector_without_a_route(ar, reflector, driver):
    driver.tell(f"replace {P1} 1")
    driver.expect("state synced")
    wait_for(lambda: reflector.preference(P1) == 101, "the announcement at the reflector")
    seen = reflector.follow_routes()
    try:
        for level in (2, 3, 1, 3, 1) * 4:
            driver.tell(f"set {P1} {level}")
            wait_for(lambda: reflector.preference(P1) == 100 + level, f"level {level} at the reflector")
    finally:
        lines = seen()
    assert not [line for line in lines if line.startswith("Deleted") and P1 in line]


@only(KERNEL)
def test_a_burst_of_20000_is_at_the_reflector_to_the_last_one(ar, reflector, driver):
    driver.tell("replace")
    driver.expect("state synced")
    driver.tell("burst 2001:db8:4000::/48 20000 1")
    driver.expect("committed 2001:db8:4000:4e1f::/64 1")
    wait_for(lambda: received(reflector) == 20000, "all are at the reflector")
    driver.tell("replace")
    driver.expect("committed 2001:db8:4000:4e1f::/64 0")
    wait_for(lambda: received(reflector) == 0, "none is left at the reflector")
    assert zebra_drops(ar) == 0


def test_commits_a_burst_in_few_rounds(ar, injector, driver, record_testsuite_property):
    injector.start(ar)
    driver.tell("replace")
    driver.expect("state synced")
    driver.tell("burst 2001:db8:4000::/48 5000 1")
    told, _ = driver.expect("accepted burst")
    done, _ = driver.expect("committed 2001:db8:4000:1387::/64 1")
    record_testsuite_property(f"{injector.name}_burst_of_5000_ms", round((done - told) * 1000, 1))
    singles = []
    for i in range(20):
        driver.tell(f"set 2001:db8:5000:{i}::/64 1")
        told, _ = driver.expect(f"accepted set 2001:db8:5000:{i}::/64")
        done, _ = driver.expect(f"committed 2001:db8:5000:{i}::/64 1") if i else driver.expect("committed 2001:db8:5000::/64 1")
        singles.append((done - told) * 1000)
    record_testsuite_property(f"{injector.name}_single_onto_5000_ms", round(statistics.median(singles), 1))
    driver.tell("replace")
    driver.expect("committed 2001:db8:4000:1387::/64 0")
    wait_for(lambda: injector.held(ar) == {}, "nothing is left")


def test_measures_single_changes(ar, injector, driver, record_testsuite_property):
    injector.start(ar)
    driver.tell("replace")
    driver.expect("state synced")
    took = []
    for i in range(1, 41):
        driver.tell(f"set 2001:db8:5000:{i}::/64 1")
        told, _ = driver.expect(f"accepted set 2001:db8:5000:{i}::/64")
        done, _ = driver.expect(f"committed 2001:db8:5000:{i}::/64 1")
        took.append((done - told) * 1000)
    record_testsuite_property(f"{injector.name}_set_to_committed_median_ms", round(statistics.median(took), 2))
    record_testsuite_property(f"{injector.name}_set_to_committed_max_ms", round(max(took), 2))
    assert len(injector.held(ar)) == 40


def test_sees_that_another_anchor_is_preferred(ar, reflector, injector, driver, record_testsuite_property):
    injector.start(ar)
    driver.tell(f"replace {P1} 1")
    driver.expect(f"committed {P1} 1")
    wait_for(lambda: reflector.preference(P1) == 101, "the announcement at the reflector")
    # The own static hides BGP's route from the kernel; a preference that is too low and another next hop do not count.
    driver.tell(f"watch {P1} {REFLECTOR} 102")
    driver.tell(f"watch {P2} {REFLECTOR} 102")
    driver.tell(f"watch {P3} 2001:db8:ffff::9 102")
    driver.expect(f"accepted watch {P3}")
    for prefix, tag in ((P2, 1), (P3, 3)):
        reflector.vtysh("configure terminal", f"ipv6 route {prefix} blackhole tag {tag}")
        wait_for(lambda: ar.preference(prefix) == 100 + tag, "BGP's route")
    told = time.monotonic()
    reflector.vtysh("configure terminal", f"ipv6 route {P1} blackhole tag 2")
    seen, _ = driver.expect(f"superseded {P1}")
    record_testsuite_property(f"{injector.name}_static_at_reflector_to_superseded_ms", round((seen - told) * 1000, 1))
    assert ar.preference(P1) == 102
    reflector.vtysh("configure terminal", f"ipv6 route {P2} blackhole tag 2")
    driver.expect(f"superseded {P2}")
    assert not [event for _, event in driver.events if event.startswith(f"superseded {P3}")]
    driver.tell(f"set {P1} 0")
    driver.expect(f"committed {P1} 0")
    assert ar.preference(P1) == 102


def test_sees_a_withdrawal_when_bgpd_has_heard_of_it_and_not_before(ar, reflector, injector, driver, record_testsuite_property):
    injector.start(ar)
    driver.tell(f"replace {P1} 1 {P2} 1")
    driver.expect(f"committed {P2} 1")
    wait_for(lambda: reflector.preference(P1) == 101 and reflector.preference(P2) == 101, "the announcements at the reflector")
    # bgpd has asked zebra for the next hop before zebra stops.
    reflector.vtysh("configure terminal", f"ipv6 route {P3} blackhole tag 1")
    wait_for(lambda: ar.preference(P3) == 101, "a route of the reflector's")
    ar.signal("zebra", signal.SIGSTOP)
    driver.tell(f"set {P1} 0")
    committed, _ = driver.expect(f"committed {P1} 0")
    driver.tell(f"await {P1} 3")
    # What bgpd goes on announcing is asked for until it does not.
    driver.tell(f"watch {P2} {REFLECTOR} 102")
    reflector.vtysh("configure terminal", f"ipv6 route {P2} blackhole tag 2")
    driver.expect(f"superseded {P2}", after=committed)
    assert reflector.preference(P1) == 101
    assert not [event for _, event in driver.events if event.startswith("withdrawn")]
    ar.signal("zebra", signal.SIGCONT)
    told, _ = driver.expect(f"withdrawn {P1}")
    wait_for(lambda: reflector.preference(P1) is None, "the withdrawal at the reflector")
    # The usual case.
    driver.tell(f"set {P2} 0")
    committed, _ = driver.expect(f"committed {P2} 0", after=told)
    driver.tell(f"await {P2} 3")
    told, _ = driver.expect(f"withdrawn {P2}")
    record_testsuite_property(f"{injector.name}_committed_to_withdrawn_ms", round((told - committed) * 1000, 1))


def test_a_bgpd_that_was_restarted_has_withdrawn_once_its_neighbours_know(ar, reflector, injector, driver):
    graceful = "".join(f" bgp graceful-restart{more}\n" for more in ("", " preserve-fw-state", " restart-time 60", " select-defer-time 5"))
    configuration = bgpd(injector, router_id="192.0.2.1", neighbor=REFLECTOR, more="")
    ar.configure("bgpd", configuration.replace(" coalesce-time 0\n", " coalesce-time 0\n" + graceful))
    ar.kill("bgpd")
    ar.start("bgpd", "-p", "179", "-l", "::")
    injector.start(ar)
    driver.tell(f"replace {P1} 1")
    driver.expect(f"committed {P1} 1")
    wait_for(lambda: reflector.preference(P1) == 101, "the announcement at the reflector")
    ar.kill("bgpd")
    driver.tell(f"set {P1} 0")
    driver.expect(f"committed {P1} 0")
    driver.tell(f"await {P1} 3")
    driver.expect("health bgpd ")
    assert reflector.preference(P1) == 101
    ar.start("bgpd", "-p", "179", "-l", "::")
    driver.expect(f"withdrawn {P1}")
    wait_for(lambda: reflector.preference(P1) is None, "the withdrawal at the reflector", seconds=5)


def test_tells_when_bgpd_cannot_be_asked(ar, injector, driver):
    injector.start(ar)
    driver.expect("health OK")
    ar.kill("bgpd")
    down, text = driver.expect("health bgpd ")
    assert "start it" in text
    ar.start("bgpd", "-p", "179", "-l", "::")
    driver.expect("health OK", after=down)
