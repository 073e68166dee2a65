"""The speaker's anchoring plane against FRR's own daemons: zebra, staticd with the gRPC module, bgpd."""

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
route-map KEDGE permit 1
 match tag 1
 set local-preference 101
 set weight 0
route-map KEDGE permit 2
 match tag 2
 set local-preference 102
 set weight 0
route-map KEDGE permit 3
 match tag 3
 set local-preference 103
 set weight 0
route-map KEDGE deny 1000
router bgp 65000
 bgp router-id {router_id}
 no bgp default ipv4-unicast
 coalesce-time 0
 bgp route-map delay-timer 1
 neighbor {neighbor} remote-as 65000
 neighbor {neighbor} timers connect 1
 address-family ipv6 unicast
  redistribute static route-map KEDGE
  neighbor {neighbor} activate
  neighbor {neighbor} next-hop-self
  {more}
"""


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


def start_staticd(node, module=True):
    node.start("staticd", *(["-M", f"{grpc_module()}:50051"] if module else []))


@pytest.fixture(name="ar")
def fixture_ar(tmp_path):
    node = FrrNode("ar", tmp_path)
    try:
        node.run("ip", "-6", "address", "add", AR + "/128", "dev", "lo")
        node.configure("bgpd", BGPD.format(router_id="192.0.2.1", neighbor=REFLECTOR, more=""))
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
        node.configure("bgpd", BGPD.format(router_id="192.0.2.2", neighbor=AR,
                                           more=f"neighbor {AR} route-reflector-client"))
        node.start("zebra")
        node.start("bgpd", "-p", "179", "-l", "::")
        node.start("staticd")
        yield node
    finally:
        node.close()


@pytest.fixture(name="driver")
def fixture_driver(ar, tmp_path):
    driver = Driver(ar, driver_binary(), tmp_path / "driver.log")
    try:
        yield driver
    finally:
        driver.close()


def statics(node):
    """Prefix to the rest of the line, of the configuration that staticd shows."""
    lines = node.vtysh("show running-config staticd").splitlines()
    return {line.split()[2]: " ".join(line.split()[3:]) for line in lines if line.startswith("ipv6 route ")}


def test_injects_retags_and_withdraws(ar, driver):
    start_staticd(ar)
    driver.tell("replace")
    driver.expect("state synced")
    for level in (1, 3, 2):
        driver.tell(f"set {P1} {level}")
        driver.expect(f"committed {P1} {level}")
        wait_for(lambda: ar.preference(P1) == 100 + level, f"local-preference {100 + level}")
        assert statics(ar) == {P1: f"blackhole tag {level}"}
    driver.tell(f"set {P1} 0")
    driver.expect(f"committed {P1} 0")
    wait_for(lambda: ar.best_path(P1) is None, "the withdrawal")
    assert statics(ar) == {}
    # vtysh can still take away what came by gRPC.
    driver.tell(f"set {P2} 1")
    driver.expect(f"committed {P2} 1")
    ar.vtysh("configure terminal", f"no ipv6 route {P2} blackhole tag 1")
    assert statics(ar) == {}


def test_resyncs_after_staticd_is_killed(ar, driver, record_testsuite_property):
    start_staticd(ar)
    driver.tell(f"replace {P1} 1 {P2} 2")
    driver.expect(f"committed {P2} 2")
    driver.expect("state synced")
    wait_for(lambda: ar.preference(P1) == 101, "the announcement")
    killed = time.monotonic()
    ar.kill("staticd")
    driver.expect("state awaiting", after=killed)
    driver.tell(f"set {P2} 0")
    driver.tell(f"set {P3} 3")
    driver.expect(f"accepted set {P3} 3")
    assert "-M <path>/grpc.so:50051" in driver.expect("state awaiting FRR's northbound at 127.0.0.1:50051 refuses",
                                                              after=killed)[1]
    started = time.monotonic()
    start_staticd(ar)
    synced, _ = driver.expect("state synced", after=started)
    record_testsuite_property("staticd_start_to_synced_ms", round((synced - started) * 1000, 1))
    assert statics(ar) == {P1: "blackhole tag 1", P3: "blackhole tag 3"}
    for event in (f"committed {P1} 1", f"committed {P2} 0", f"committed {P3} 3"):
        driver.expect(event, after=started)
    wait_for(lambda: ar.preference(P3) == 103, "the announcement")


def test_purges_leftovers_but_nothing_of_the_operators(ar, driver):
    start_staticd(ar)
    ar.vtysh("configure terminal", f"ipv6 route {P1} blackhole tag 1", f"ipv6 route {P2} blackhole tag 8",
             f"ipv6 route {P3} blackhole tag 9", "ipv6 route 2001:db8:2::/64 lo tag 1",
             "ipv6 route 2001:db8:3::/64 blackhole", "ip route 192.0.2.128/25 blackhole tag 1")
    driver.tell(f"replace {P1} 2")
    driver.expect("state synced")
    driver.expect(f"committed {P2} 0")
    assert statics(ar) == {P1: "blackhole tag 2", P3: "blackhole tag 9", "2001:db8:2::/64": "lo tag 1",
                           "2001:db8:3::/64": "blackhole"}
    assert "ip route 192.0.2.128/25 blackhole tag 1" in ar.vtysh("show running-config staticd")


def test_waits_until_the_operators_static_is_gone(ar, driver):
    start_staticd(ar)
    ar.vtysh("configure terminal", f"ipv6 route {P1} lo")
    driver.tell(f"replace {P1} 1 {P2} 1")
    driver.expect(f"committed {P2} 1")
    _, text = driver.expect("state synced synced; FRR's configuration has another static route")
    assert f"{P1} (via lo)" in text
    assert statics(ar)[P1] == "lo"
    ar.vtysh("configure terminal", f"no ipv6 route {P1} lo")
    driver.expect(f"committed {P1} 1")
    assert statics(ar) == {P1: "blackhole tag 1", P2: "blackhole tag 1"}


def test_keeps_an_operators_second_path(ar, driver):
    start_staticd(ar)
    ar.vtysh("configure terminal", f"ipv6 route {P1} blackhole tag 1", f"ipv6 route {P1} lo 250")
    driver.tell(f"replace {P1} 2")
    driver.expect(f"committed {P1} 2")
    lines = ar.vtysh("show running-config staticd")
    assert f"ipv6 route {P1} blackhole tag 2\n" in lines and f"ipv6 route {P1} lo 250\n" in lines
    driver.tell(f"set {P1} 0")
    driver.expect(f"committed {P1} 0")
    assert statics(ar) == {P1: "lo 250"}


def test_awaits_a_staticd_without_the_module_and_recovers(ar, driver):
    start_staticd(ar, module=False)
    driver.tell(f"replace {P1} 1")
    _, text = driver.expect("state awaiting")
    assert "127.0.0.1:50051 refuses connections: start staticd with '-M <path>/grpc.so:50051'" in text
    ar.kill("staticd")
    start_staticd(ar)
    driver.expect(f"committed {P1} 1")
    driver.expect("state synced")


def test_waits_for_a_daemon_that_stands_still(ar, driver):
    start_staticd(ar)
    driver.tell("replace")
    driver.expect("state synced")
    ar.signal("staticd", signal.SIGSTOP)
    driver.tell(f"set {P1} 1")
    driver.expect("state synced FRR's staticd has not answered CreateCandidate for 10 s")
    ar.signal("staticd", signal.SIGCONT)
    driver.expect(f"committed {P1} 1")
    driver.expect("state synced synced", after=driver.expect(f"committed {P1} 1")[0])


def test_commits_a_burst_in_few_rounds(ar, driver, record_testsuite_property):
    start_staticd(ar)
    driver.tell("replace")
    driver.expect("state synced")
    driver.tell("burst 2001:db8:4000::/48 5000 1")
    told, _ = driver.expect("accepted burst")
    done, _ = driver.expect("committed 2001:db8:4000:1387::/64 1")
    record_testsuite_property("burst_of_5000_ms", round((done - told) * 1000, 1))
    singles = []
    for i in range(20):
        driver.tell(f"set 2001:db8:5000:{i}::/64 1")
        told, _ = driver.expect(f"accepted set 2001:db8:5000:{i}::/64")
        done, _ = driver.expect(f"committed 2001:db8:5000:{i}::/64 1") if i else driver.expect("committed 2001:db8:5000::/64 1")
        singles.append((done - told) * 1000)
    record_testsuite_property("single_onto_5000_ms", round(statistics.median(singles), 1))
    driver.tell("replace")
    driver.expect("committed 2001:db8:4000:1387::/64 0")
    assert statics(ar) == {}


def test_measures_single_changes(ar, driver, record_testsuite_property):
    start_staticd(ar)
    driver.tell("replace")
    driver.expect("state synced")
    took = []
    for i in range(1, 41):
        driver.tell(f"set 2001:db8:5000:{i}::/64 1")
        told, _ = driver.expect(f"accepted set 2001:db8:5000:{i}::/64")
        done, _ = driver.expect(f"committed 2001:db8:5000:{i}::/64 1")
        took.append((done - told) * 1000)
    record_testsuite_property("set_to_committed_median_ms", round(statistics.median(took), 2))
    record_testsuite_property("set_to_committed_max_ms", round(max(took), 2))
    assert len(statics(ar)) == 40


def test_sees_that_another_anchor_is_preferred(ar, reflector, driver, record_testsuite_property):
    start_staticd(ar)
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
    record_testsuite_property("static_at_reflector_to_superseded_ms", round((seen - told) * 1000, 1))
    assert ar.preference(P1) == 102
    reflector.vtysh("configure terminal", f"ipv6 route {P2} blackhole tag 2")
    driver.expect(f"superseded {P2}")
    assert not [event for _, event in driver.events if event.startswith(f"superseded {P3}")]
    driver.tell(f"set {P1} 0")
    driver.expect(f"committed {P1} 0")
    assert ar.preference(P1) == 102


def test_sees_a_withdrawal_when_bgpd_has_heard_of_it_and_not_before(ar, reflector, driver, record_testsuite_property):
    start_staticd(ar)
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
    record_testsuite_property("committed_to_withdrawn_ms", round((told - committed) * 1000, 1))


def test_a_bgpd_that_was_restarted_has_withdrawn_once_its_neighbours_know(ar, reflector, driver):
    graceful = "".join(f" bgp graceful-restart{more}\n" for more in ("", " preserve-fw-state", " restart-time 60", " select-defer-time 5"))
    configuration = BGPD.format(router_id="192.0.2.1", neighbor=REFLECTOR, more="")
    ar.configure("bgpd", configuration.replace(" coalesce-time 0\n", " coalesce-time 0\n" + graceful))
    ar.kill("bgpd")
    ar.start("bgpd", "-p", "179", "-l", "::")
    start_staticd(ar)
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


def test_tells_when_bgpd_cannot_be_asked(ar, driver):
    start_staticd(ar)
    driver.expect("health OK")
    ar.kill("bgpd")
    down, text = driver.expect("health bgpd ")
    assert "start it" in text
    ar.start("bgpd", "-p", "179", "-l", "::")
    driver.expect("health OK", after=down)
