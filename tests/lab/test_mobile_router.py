"""A mobile router (RFC 8818, 2): the prefix of the network behind it moves with its own prefixes in one commit, so that the nodes there, which know
nothing of mobility, keep their flows."""

import contextlib
import ipaddress

import pytest
import scenario as scenarios
from audit import audit

MR1, LFN1 = "02:00:00:00:00:21", "2001:db8:1000:f00::2"
NETWORK = "2001:db8:1000:f00::/56"
LOCATORS = {"ar1": "2001:db8:a1::1", "ar2": "2001:db8:a2::1", "ar3": "2001:db8:a3::1"}
UPLINK_SID = "2001:db8:a1::e"
CN = scenarios.CN_ADDRESS
CN_TO_MN, MN_TO_CN = "a_to_b", "b_to_a"
COMMITTED, REDIRECTING = "EVENT_TYPE_ATTACH_COMMITTED", "EVENT_TYPE_REDIRECTING"


@pytest.fixture(name="lab", scope="module")
def fixture_lab(three_routers_lab):
    three_routers_lab.wait_synced()
    return three_routers_lab


def set_networks(lab, *networks):
    """Each PREFIX@HOME or PREFIX@HOME@MODE; none: mr1 is no mobile router any more."""
    lab.run("lm", "kedgectl", "policy", "set", "--mn", MR1, f"mobile_network_prefixes={','.join(networks)}")


def pings(lab, target, source="cn"):
    return lab.run(source, "ping", "-n", "-6", "-c", "1", "-W", "1", target, check=False)


def generation(event_or_binding, key="generation"):
    return tuple(int(event_or_binding[key][part]) for part in ("epoch", "revision"))


class Router:
    """mr1, with the prefix of its own that it has from ar1."""

    def __init__(self, lab, events):
        self.lab, self.events = lab, events
        # The profile comes first: the network is there from the first attachment on.
        set_networks(lab, f"{NETWORK}@ar1")
        lab.run("mr1", "move", "ar1", "--gap", "0")
        self.address = lab.mn_address("mr1", "2001:db8:1000:")
        self.prefix = lab.prefix_of(self.address)

    def bindings(self):
        found = [b for b in self.lab.bindings() if b["mn_id"] == MR1]
        return {b["prefix"]: b for b in found}

    def wait_settled(self, at):
        def settled():
            # What its profile has lost stays where it is.
            present = [b for b in self.bindings().values() if not b.get("released")]
            return all(b["attached_ar"] == at and b["state"] == "BINDING_STATE_SETTLED" for b in present)

        scenarios.wait_until(f"all prefixes of mr1 settled at {at}", settled, seconds=30)

    def move(self, target, gap_ms=None):
        """Until all its prefixes have settled. Gives what Scenario.move() says of its own prefix, with `commits`: prefix -> generation, of each
        prefix that this move attached."""
        since = self.events.count()
        move = self.lab.move(self.events, target, self.prefix, gap_ms=gap_ms, mn="mr1")
        self.wait_settled(target)
        committed = [e for e in self.events.all()[since:] if e["type"] == COMMITTED and e["mn_id"] == MR1]
        return {**move, "commits": {e["prefix"]: generation(e) for e in committed}, "redirected": self._redirects(since)}

    def _redirects(self, since):
        """Prefix -> when ar1 redirected it, in the machine's monotonic nanoseconds."""
        return {
            e["prefix"]: scenarios.timestamp_ns(e["at"]) - self.lab.wall_offset_ns
            for e in self.events.all()[since:] if e["type"] == REDIRECTING and e["ar"] == "ar1" and e["mn_id"] == MR1
        }  # fmt: skip


@pytest.fixture(name="router", scope="module")
def fixture_router(lab, events):
    return Router(lab, events)


@pytest.fixture(name="at_home", autouse=True)
def fixture_at_home(lab, router):
    """mr1 at ar1 with its one network and everything at rest, before each test."""
    set_networks(lab, f"{NETWORK}@ar1")
    if lab.binding(router.prefix)["attached_ar"] != "ar1":
        lab.run("mr1", "move", "ar1", "--gap", "0")
    router.wait_settled("ar1")
    audit(lab)


@contextlib.contextmanager
def flows(lab, router, folder, **ends):
    """Numbered flows between cn and `ends`, name -> (node, address); unless told, the node behind mr1 and mr1 itself."""
    ends = ends or {"lfn1": ("lfn1", LFN1), "mr1": ("mr1", router.address)}
    running = {}
    try:
        for number, (name, (node, address)) in enumerate(ends.items()):
            running[name] = scenarios.Flow(lab, folder / name, mn=node, mn_address=address, port=9000 + number)
        yield running
    finally:
        for flow in running.values():
            flow.abort()


def stop(capsys, request, running):
    """Stops the flows, prints a line, and gives the report of each."""
    reports, texts = {}, []
    for flow in running.values():
        flow.stop()
    for name, flow in running.items():
        reports[name] = report = flow.report()
        down, up = report[CN_TO_MN], report[MN_TO_CN]
        assert down["sent"] > 50 and up["sent"] > 50
        gap, pause = (max(down[of], up[of]) for of in ("longest_gap_ms", "longest_send_gap_ms"))
        texts.append(
            f"{name} lost {down['lost']} of {down['sent']} and {up['lost']} of {up['sent']}, longest gap {gap:.1f} ms (sender's own {pause:.1f} ms)"
        )
    with capsys.disabled():
        print(f"\n{request.node.name}: {'; '.join(texts)}")
    return reports


def lost(reports):
    return {name: (report[CN_TO_MN]["lost"], report[MN_TO_CN]["lost"]) for name, report in reports.items()}


def test_the_network_is_found_by_any_address_and_reached_through_its_router(lab, router):
    assert router.bindings()[NETWORK]["mobile_network"] and not router.bindings()[router.prefix].get("mobile_network")
    # At home the aggregate attracts its traffic.
    assert lab.bgp_best("core", NETWORK) is None
    assert " 0% packet loss" in pings(lab, LFN1).stdout
    for inside in (LFN1, "2001:db8:1000:fff::1", "2001:db8:1000:f80::/57"):
        assert lab.binding(inside)["prefix"] == NETWORK
    assert f"{NETWORK}  MNP" in lab.output("lm", "kedgectl", "bindings")


def test_planned_moves_lose_nothing_behind_the_router_nor_to_it(lab, router, tmp_path, capsys, request):
    with flows(lab, router, tmp_path) as running:
        for target in ("ar2", "ar3", "ar1"):
            move = router.move(target)
            bindings = router.bindings()
            assert {router.prefix, NETWORK} <= move["commits"].keys()
            assert len(set(move["commits"].values())) == 1, "all of its prefixes move by one commit"
            commit = move["commits"][NETWORK]
            for prefix in (router.prefix, NETWORK):
                assert generation(bindings[prefix], "attachment_generation") == commit
                expected = None if target == "ar1" else (LOCATORS[target], 101)
                scenarios.wait_until(f"BGP's route for {prefix}", lambda p=prefix, e=expected: lab.bgp_best("core", p) == e)
        audit(lab)
        assert lost(stop(capsys, request, running)) == {"lfn1": (0, 0), "mr1": (0, 0)}
    for prefix in (router.prefix, NETWORK):
        assert [h["ar"] for h in lab.binding(prefix)["holders"]] == ["ar1"], "nothing is left elsewhere"


def test_a_mode_of_its_own_sends_both_directions_through_the_home(lab, router, tmp_path, capsys, request):
    set_networks(lab, f"{NETWORK}@ar1@redirect")
    with flows(lab, router, tmp_path) as running:
        router.move("ar2")
        network = router.bindings()[NETWORK]
        assert network["mode"] == "MODE_REDIRECT" and router.bindings()[router.prefix]["mode"] == "MODE_RELOCATE"
        assert lab.bgp_best("core", NETWORK) is None and lab.bgp_best("core", router.prefix) == (LOCATORS["ar2"], 101)
        # RFC 8818, 4.2, Figure 6: what comes from the network goes back to its home in the tunnel.
        tunnel = lab.output("ar2", "timeout", "20", "tcpdump", "-n", "-c", "40", "-i", "eth1", f"dst host {UPLINK_SID}")
        assert tunnel.count(f"IP6 {LOCATORS['ar2']} > {UPLINK_SID}: IP6 {LFN1}.9000 > {CN}.9000: UDP") >= 40
        audit(lab)
        router.move("ar3")
        router.move("ar1")
        audit(lab)
        assert lost(stop(capsys, request, running)) == {"lfn1": (0, 0), "mr1": (0, 0)}


def test_break_before_make_loses_nothing_once_the_old_anchor_redirects(lab, router, tmp_path, capsys, request):
    with flows(lab, router, tmp_path) as running:
        move = router.move("ar2", gap_ms=0)
        reports = stop(capsys, request, running)
        for name, prefix in (("lfn1", NETWORK), ("mr1", router.prefix)):
            report, redirected = reports[name], move["redirected"][prefix]
            late = [loss for loss in report[CN_TO_MN]["losses"] if report["base_ns"] + loss["last_sent_at_ms"] * 1e6 > redirected]
            assert not late, f"{name}: lost although sent after {prefix} was redirected: {late}"
        audit(lab)


def packets_sent(lab, node, interface):
    return lab.json(node, "ip", "-j", "-s", "link", "show", "dev", interface)[0]["stats64"]["tx"]["packets"]


def test_what_is_not_there_is_answered_and_does_not_go_to_and_fro(lab, router):
    router.move("ar2")
    # Linux answers a host with no more than six errors at once.
    for node in ("mr1", "ar1", "ar2"):
        lab.run(node, "sysctl", "-qw", "net.ipv6.icmp.ratelimit=0")
    before = packets_sent(lab, "ar2", "eth5")
    for target in ("2001:db8:1000:f77::1", str(ipaddress.ip_network(router.prefix)[0x77])):
        for _ in range(5):
            assert "Destination unreachable" in pings(lab, target).stdout
    # Each would have come by 30 times, until its hop limit was used up.
    assert packets_sent(lab, "ar2", "eth5") - before < 100


def test_the_profile_gives_and_takes_the_network_wherever_its_router_is(lab, router):
    router.move("ar2")
    set_networks(lab)
    audit(lab)
    ended = lab.binding(NETWORK)
    assert ended["released"] and ended["state"] == "BINDING_STATE_DETACHED"
    assert lab.bgp_best("core", NETWORK) is None and lab.bgp_best("core", router.prefix) == (LOCATORS["ar2"], 101)
    assert "Destination unreachable" in pings(lab, LFN1).stdout
    # At home too there is nothing behind it any more.
    lab.run("mr1", "move", "ar1")
    scenarios.wait_until("settled", lambda: lab.binding(router.prefix)["state"] == "BINDING_STATE_SETTLED")
    audit(lab)
    assert "Destination unreachable" in pings(lab, LFN1).stdout
    lab.run("mr1", "move", "ar2")
    set_networks(lab, f"{NETWORK}@ar1")
    router.wait_settled("ar2")
    audit(lab)
    assert " 0% packet loss" in pings(lab, LFN1).stdout


def test_a_router_that_has_left_is_missed_at_home_and_served_again_with_its_network(lab, router, events):
    router.move("ar2")
    since = events.count()
    lab.run("mr1", "ip", "link", "set", "eth2", "down")
    events.wait("the network has left too", lambda e: e["type"] == "EVENT_TYPE_DETACHED" and e.get("prefix") == NETWORK, since=since)
    audit(lab)
    assert "Destination unreachable" in pings(lab, LFN1).stdout
    lab.run("mr1", "move", "ar3", "--gap", "0")
    router.wait_settled("ar3")
    assert " 0% packet loss" in pings(lab, LFN1).stdout


def add_pool(lab):
    """A /48 that is a pool of ar1 and can be one network as a whole; docs/mobility.md says why the aggregate is shorter."""
    pools = r's|pools: ."2001:db8:1000::/48".|pools: ["2001:db8:1000::/48", "2001:db8:1f00::/48"]|'
    lab.run("lm", "sh", "-c", f"sed '{pools}' /etc/kedge/lm.yaml >/run/kedge/lm.yaml")
    lab.kill("lm", "kedge-lm", "TERM")
    lab.run("ar1", "ip", "-6", "route", "add", "unreachable", "2001:db8:1f00::/47")
    network = ("configure terminal", "router bgp 65000", "address-family ipv6 unicast", "network 2001:db8:1f00::/47")
    lab.run("ar1", "vtysh", *(word for command in network for word in ("-c", command)))
    scenarios.wait_until("the LM has the pool", lambda: lab.run("lm", "kedgectl", "status", check=False).returncode == 0)
    lab.wait_synced()


def number(lab, *networks):
    """mr1 and lfn1 get the first two addresses of each network's first /64 on the link between them."""
    for network in networks:
        first = ipaddress.ip_network(network)[0]
        lab.run("mr1", "ip", "-6", "address", "add", f"{first + 1}/64", "dev", "eth4")
        lab.run("lfn1", "ip", "-6", "address", "add", f"{first + 2}/64", "dev", "eth1")


def test_networks_of_every_length_move_and_outlive_the_lm(lab, router, tmp_path, capsys, request):
    large, small = "2001:db8:1f00::/48", "2001:db8:2000:f00::/64"
    add_pool(lab)
    number(lab, large, small)
    set_networks(lab, f"{NETWORK}@ar1", f"{large}@ar1", f"{small}@ar2")
    router.wait_settled("ar1")
    ends = {"p48": ("lfn1", "2001:db8:1f00::2"), "p56": ("lfn1", LFN1), "p64": ("lfn1", "2001:db8:2000:f00::2"), "mr1": ("mr1", router.address)}
    with flows(lab, router, tmp_path, **ends) as running:
        for target in ("ar2", "ar3", "ar1"):
            move = router.move(target)
            assert {router.prefix, NETWORK, large, small} <= move["commits"].keys()
            assert len(set(move["commits"].values())) == 1
            audit(lab)
            lab.kill("lm", "kedge-lm")
            scenarios.wait_until("the LM is back", lambda: lab.run("lm", "kedgectl", "status", check=False).returncode == 0)
            lab.wait_synced()
            router.wait_settled(target)
            audit(lab)
        assert lost(stop(capsys, request, running)) == {name: (0, 0) for name in ends}
    # A /64 in an RA would have become an address of mr1 on its access link.
    assert not [a for a in lab.mn_addresses("mr1") if ipaddress.ip_address(a) in ipaddress.ip_network(small)]
