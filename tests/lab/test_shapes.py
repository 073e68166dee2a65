"""Shapes of movement beyond one move that is left to settle: two mobile nodes between three access routers, with a numbered flow running. However
the moves follow each other, a planned move loses nothing, and at the end kernel, FRR and BGP hold what the bindings say and nothing else."""

import concurrent.futures
import time

import pytest
import scenario as scenarios
from audit import audit
from mobile import DETACHED, SETTLED, Mobile, finish, flow_to

# Milliseconds with both links: far more than an access router and the LM take, far less than BGP does.
OVERLAP = 50
TWO_ACCESS_ROUTERS = "EVENT_TYPE_TWO_ACCESS_ROUTERS"
# Of all access ports.
ROUTER_ADDRESS = "02:00:5e:00:88:18"
LAB = "three_routers_lab"


@pytest.fixture(name="mn1", scope="module")
def fixture_mn1(lab, events):
    return Mobile(lab, events, "mn1", "ar1", "2001:db8:1000:")


@pytest.fixture(name="mn2", scope="module")
def fixture_mn2(lab, events):
    return Mobile(lab, events, "mn2", "ar2", "2001:db8:2000:")


@pytest.fixture(name="at_home", autouse=True)
def fixture_at_home(lab, mn1, mn2):
    """Both mobile nodes at home and everything at rest, before each test."""
    for mobile in (mn1, mn2):
        if mobile.at() != mobile.home:
            # Whatever the test before has left of its links.
            mobile.go(mobile.home, "--gap", "0")
        mobile.wait_settled(mobile.home)
    audit(lab)


@pytest.fixture(name="alarms", autouse=True)
def fixture_alarms(events, at_home):
    """No shape of movement is an alarm, but those whose (mobile node, access router) a test puts in here."""
    since = events.count()
    expected = []
    yield expected
    assert [(e["mn_id"], e["ar"]) for e in events.all()[since:] if e["type"] == TWO_ACCESS_ROUTERS] == expected


def test_a_third_access_router_before_the_second_move_has_settled(lab, events, mn1, tmp_path, capsys, request):
    with flow_to(lab, tmp_path, mn1) as flow:
        since = events.count()
        mn1.go("ar2", "ar3", "--overlap", OVERLAP)
        mn1.wait_attached("ar3", since)
        mn1.wait_settled("ar3")
        before = [e for e in events.all()[since:] if e.get("prefix") == mn1.prefix]
        assert not any(e["type"] == SETTLED and e["ar"] == "ar2" for e in before), "the first move had settled: nothing was shown"
        audit(lab)
        assert finish(capsys, request, mn1, cn_mn1=flow) == {"cn_mn1": 0}
    assert lab.bgp_best("core", mn1.prefix) == ("2001:db8:a3::1", 101)


def test_a_tour_of_all_access_routers_without_a_rest(lab, mn1, tmp_path, capsys, request):
    with flow_to(lab, tmp_path, mn1) as flow:
        mn1.go("ar2", "ar3", "ar1", "ar3", "ar2", "ar1", "ar2", "--overlap", OVERLAP)
        mn1.wait_settled("ar2")
        audit(lab)
        assert finish(capsys, request, mn1, cn_mn1=flow) == {"cn_mn1": 0}


@pytest.mark.parametrize("overlap", [100, OVERLAP])
def test_ping_pong(lab, mn1, tmp_path, capsys, request, overlap):
    with flow_to(lab, tmp_path, mn1) as flow:
        mn1.go(*("ar2", "ar1") * 5, "ar2", "--overlap", overlap)
        mn1.wait_settled("ar2")
        audit(lab)
        assert finish(capsys, request, mn1, cn_mn1=flow) == {"cn_mn1": 0}


def test_two_mobile_nodes_in_opposite_directions_at_once(lab, mn1, mn2, tmp_path, capsys, request):
    with flow_to(lab, tmp_path, mn1) as one, flow_to(lab, tmp_path, mn2, port=9001) as two, concurrent.futures.ThreadPoolExecutor(2) as both:
        for targets in (("ar2", "ar1"), ("ar1", "ar2"), ("ar2", "ar1")):
            for done in [both.submit(mobile.move, target) for mobile, target in zip((mn1, mn2), targets)]:
                done.result()
        audit(lab)
        assert finish(capsys, request, mn1, mn2, cn_mn1=one, cn_mn2=two) == {"cn_mn1": 0, "cn_mn2": 0}


def test_two_moves_in_flight_at_once(lab, mn1, mn2, tmp_path, capsys, request):
    """To the same access router, and on before either has settled."""
    with flow_to(lab, tmp_path, mn1) as one, flow_to(lab, tmp_path, mn2, port=9001) as two, concurrent.futures.ThreadPoolExecutor(2) as both:
        tours = {mn1: ("ar3", "ar2", "ar3"), mn2: ("ar3", "ar1", "ar3")}
        for done in [both.submit(mobile.go, *tour, "--overlap", OVERLAP) for mobile, tour in tours.items()]:
            done.result()
        for mobile in (mn1, mn2):
            mobile.wait_settled("ar3")
        audit(lab)
        assert finish(capsys, request, mn1, mn2, cn_mn1=one, cn_mn2=two) == {"cn_mn1": 0, "cn_mn2": 0}


def test_mobile_node_to_mobile_node_while_one_moves(lab, mn1, mn2, tmp_path, capsys, request):
    with flow_to(lab, tmp_path, mn1, peer=mn2.name, peer_address=mn2.address) as flow:
        # ar2: where the other is at home. ar3: both away from each other. Then home.
        for target in ("ar2", "ar3", "ar1"):
            mn1.move(target)
        audit(lab)
        assert finish(capsys, request, mn1, mn2, mn2_mn1=flow) == {"mn2_mn1": 0}


def test_mobile_node_to_mobile_node_while_both_move(lab, mn1, mn2, tmp_path, capsys, request):
    with flow_to(lab, tmp_path, mn1, peer=mn2.name, peer_address=mn2.address) as flow, concurrent.futures.ThreadPoolExecutor(2) as both:
        for targets in (("ar2", "ar1"), ("ar3", "ar3"), ("ar1", "ar2")):
            for done in [both.submit(mobile.move, target) for mobile, target in zip((mn1, mn2), targets)]:
                done.result()
        audit(lab)
        assert finish(capsys, request, mn1, mn2, mn2_mn1=flow) == {"mn2_mn1": 0}


def test_attach_without_detach_moves_the_prefix_although_the_old_link_stays(lab, events, mn1, tmp_path, capsys, request):
    with flow_to(lab, tmp_path, mn1) as flow:
        since = events.count()
        moving = lab.start("mn1", "move", "ar2", "--overlap", "4000")
        committed = mn1.wait_attached("ar2", since)
        mn1.wait_settled("ar2")
        # Both links are up still, and the new one is where the prefix stays.
        assert moving.poll() is None, "the old link went before the move had settled"
        assert lab.bgp_best("core", mn1.prefix) == ("2001:db8:a2::1", 101)
        generation = lab.binding(mn1.prefix)["generation"]
        assert moving.wait(timeout=30) == 0
        # A detach at the old access router, late: it changes nothing.
        audit(lab)
        assert mn1.at() == "ar2"
        assert [e for e in events.all()[since:] if e["type"] == DETACHED and e.get("prefix") == mn1.prefix] == []
        assert generation["revision"] >= committed["generation"]["revision"]
        assert finish(capsys, request, mn1, cn_mn1=flow) == {"cn_mn1": 0}


def test_detach_without_attach_is_answered_as_unreachable_and_a_return_serves_again(lab, events, mn1, tmp_path, capsys, request):
    mn1.move("ar2")
    with flow_to(lab, tmp_path, mn1) as flow:
        since = events.count()
        lab.run("mn1", "ip", "link", "set", "eth2", "down")
        events.wait("detached", lambda e: e["type"] == DETACHED and e.get("prefix") == mn1.prefix, since=since)
        audit(lab)
        assert lab.bgp_best("core", mn1.prefix) is None
        mn1.go("ar3", "--gap", "0")
        mn1.wait_settled("ar3")
        scenarios.wait_until("it is reached again", lambda: lab.run("cn", "ping", "-6", "-c", "1", "-W", "1", mn1.address, check=False).returncode == 0)
        audit(lab)
        served = time.monotonic_ns()
        mn1.move("ar1")
        home = time.monotonic_ns()
        finish(capsys, request, cn_mn1=flow)
        whole, report = flow.report(), flow.report((served, home))
        # ICMPv6's Destination Unreachable (RFC 4443, 3.1) is type 1.
        assert any(kind.startswith("1/") for kind in whole["a"]["icmp_errors"]), whole["a"]
        assert (report["a_to_b"]["lost"], report["b_to_a"]["lost"]) == (0, 0)


def wait_alarm(events, mn_id, ar, since):
    return events.wait(f"{mn_id} at two access routers", lambda e: e["type"] == TWO_ACCESS_ROUTERS and (e["mn_id"], e["ar"]) == (mn_id, ar), since=since)


def test_the_same_mn_id_at_two_access_routers_belongs_to_the_newest(lab, events, mn1, mn2, alarms, capsys, request):
    """Another node with mn1's MAC address comes up at ar3 while mn1 is at ar1, and both go on: a clone."""
    identity = lab.output("mn1", "cat", "/sys/class/net/br0/address").strip()
    own = lab.output("mn2", "cat", "/sys/class/net/br0/address").strip()
    since = events.count()
    # mn2's link goes first, so that its own prefix is out of the game.
    lab.run("mn2", "ip", "link", "set", "eth2", "down")
    events.wait("mn2 detached", lambda e: e["type"] == DETACHED and e.get("prefix") == mn2.prefix, since=since)
    lab.run("mn2", "ip", "link", "set", "br0", "address", identity)
    # Until told otherwise mn1 says nothing, also not by itself. Its link stays up.
    lab.run("mn1", "nft", "add table netdev quiet; add chain netdev quiet out { type filter hook egress device eth1 priority 0; policy drop; }")
    try:
        mn2.go("ar3", "--gap", "0", "--wait", "2000")
        mn1.wait_attached("ar3", since)
        mn1.wait_settled("ar3")
        audit(lab)
        assert lab.bgp_best("core", mn1.prefix) == ("2001:db8:a3::1", 101)
        assert not any(e["type"] == TWO_ACCESS_ROUTERS for e in events.all()[since:]), "so far it may have left without a trace"
        # mn1 goes on sending, on the link that it has had all the time: now it is the newest, and there are two.
        since = events.count()
        lab.run("mn1", "nft", "delete table netdev quiet")
        speaking = lab.start("mn1", "ping", "-6", "-i", "0.2", "-I", mn1.address, scenarios.CN_ADDRESS)
        try:
            alarm = wait_alarm(events, identity, "ar1", since)
        finally:
            scenarios.stop_process(speaking)
        assert alarm["detail"].startswith("still at ar3, since 20")
        mn1.wait_settled("ar1")
        # The other one again, within a minute: it wins, and is not told once more.
        since = events.count()
        speaking = lab.start("mn2", "ping", "-6", "-i", "0.2", "-I", mn1.address, scenarios.CN_ADDRESS)
        try:
            mn1.wait_attached("ar3", since)
        finally:
            scenarios.stop_process(speaking)
        mn1.wait_settled("ar3")
        # mn1's link comes anew, as that of a node that comes to it.
        mn1.go("ar1", "--gap", "0")
        mn1.wait_settled("ar1")
        audit(lab)
    finally:
        lab.run("mn1", "nft", "delete table netdev quiet", check=False)
        lab.run("mn2", "ip", "link", "set", "eth3", "down")
        lab.run("mn2", "ip", "link", "set", "br0", "address", own)
    alarms.append((identity, "ar1"))
    with capsys.disabled():
        print(f"\n{request.node.name}: the newest won each time; {alarm['detail']}")


def test_a_node_that_uses_its_old_link_again_while_it_keeps_both_is_an_alarm(lab, events, mn2, alarms):
    mn_id = lab.binding(mn2.prefix)["mn_id"]
    since = events.count()
    moving = lab.start("mn2", "move", "ar3", "--overlap", "8000")
    mn2.wait_attached("ar3", since)
    mn2.wait_settled("ar3")
    # As a host would that has two interfaces: what it sends to its router leaves by the port to ar2.
    since = events.count()
    lab.run("mn2", "bridge", "fdb", "replace", ROUTER_ADDRESS, "dev", "eth2", "master", "static", "sticky")
    speaking = lab.start("mn2", "ping", "-6", "-i", "0.2", "-I", mn2.address, scenarios.CN_ADDRESS)
    try:
        alarm = wait_alarm(events, mn_id, "ar2", since)
        assert moving.poll() is None, "the old link had gone already"
        lab.run("mn2", "bridge", "fdb", "del", ROUTER_ADDRESS, "dev", "eth2", "master")
        assert moving.wait(timeout=30) == 0
        # The old link has gone, and what it sends arrives at ar3 again.
        mn2.wait_settled("ar3")
    finally:
        scenarios.stop_process(speaking)
    assert alarm["detail"].startswith("still at ar3, since 20")
    audit(lab)
    alarms.append((mn_id, "ar2"))


def test_return_home_leaves_no_host_of_the_prefix_but_home(lab, mn1, tmp_path, capsys, request):
    with flow_to(lab, tmp_path, mn1) as flow:
        for target in ("ar2", "ar3", "ar1"):
            mn1.move(target)
        audit(lab)
        assert finish(capsys, request, mn1, cn_mn1=flow) == {"cn_mn1": 0}
    assert lab.bgp_best("core", mn1.prefix) is None
    assert [h["ar"] for h in lab.binding(mn1.prefix)["holders"]] == ["ar1"]
