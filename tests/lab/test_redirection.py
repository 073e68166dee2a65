"""RFC 8818, 4.2, Figures 5 and 6: the home access router stays the anchor, and the mobile node's old address uses it in both directions."""

import pytest
import scenario as scenarios
from audit import audit
from mobile import Mobile, finish, say
from packets import RA, RS, UDP_PACKET, CallFlow, Captures

LAB = "three_routers_lab"
CN_TO_MN, MN_TO_CN = "a_to_b", "b_to_a"
AR1, AR2 = "2001:db8:a1::1", "2001:db8:a2::1"
UPLINK_SID, DELIVER_SID = "2001:db8:a1::e", "2001:db8:a2::d"
CN = scenarios.CN_ADDRESS
CN_AT_OLD_AR, CN_AT_NEW_AR = "2001:db8:a1:0:c::2", "2001:db8:a2:0:c::2"


@pytest.fixture(name="lab", scope="module")
def fixture_lab(lab):
    """In redirection mode."""
    lab.set_policy("--default", mode="redirect")
    return lab


def udp(packets, source, target, tunnel=None):
    return [p for p in packets if p.kind == UDP_PACKET and (p.source, p.target, p.tunnel) == (source, target, tunnel)]


def held(lab, ar, prefix=""):
    """Lines of Kedge's tables at an access router, those that name the prefix."""
    text = "".join(lab.output(ar, "ip", "-6", "route", "show", "table", table) for table in ("8818", "8819", "8820", "8821"))
    return [" ".join(line.split()) for line in text.splitlines() if prefix in line]


def no_loss(flow, *moves):
    for move in moves:
        report = flow.report(move["window"])
        assert report[CN_TO_MN]["sent"] > 50 and report[MN_TO_CN]["sent"] > 50
        assert (report[CN_TO_MN]["lost"], report[MN_TO_CN]["lost"]) == (0, 0), (move, report[CN_TO_MN]["losses"], report[MN_TO_CN]["losses"])


def test_both_directions_go_through_the_old_anchor_and_a_planned_move_loses_nothing(lab, events, prefix, flow, tmp_path):
    ip1 = lab.mn_address()
    captures = Captures(lab, tmp_path, old=("ar1", "eth1"), new=("ar2", "eth1"))
    away = lab.move(events, "ar2", prefix)
    state = {"binding": lab.binding(prefix), "ar2": "\n".join(held(lab, "ar2")), "bgp": lab.bgp_best("core", prefix)}
    captured = captures.stop()
    home = lab.move(events, "ar1", prefix)
    flow.stop()
    no_loss(flow, away, home)

    assert state["binding"]["mode"] == "MODE_REDIRECT" and not state["binding"].get("preference")
    assert state["bgp"] is None, "RFC 8818, 4.2: the old anchor still anchors; no /64 in BGP"
    assert f"default from {prefix}" in state["ar2"] and UPLINK_SID in state["ar2"]
    # Uplink: AR2 -> AR1 in the tunnel, then from AR1 as it is. Downlink: to AR1 by the aggregate, then in the tunnel to AR2.
    into = udp(captured["old"], ip1, CN, (AR2, UPLINK_SID))
    on = udp(captured["old"], ip1, CN)
    assert len(into) > 20
    assert len([p for p in on if p.at >= into[0].at]) >= len(into) - 5
    assert len(udp(captured["old"], CN, ip1, (AR1, DELIVER_SID))) > 20
    assert not [p for p in udp(captured["new"], ip1, CN) if p.at > into[0].at], "left AR2 outside of the tunnel"
    assert not udp(captured["new"], CN, ip1)


def test_the_arrows_of_figure_5(lab, events, prefix, tmp_path, capsys, request):
    mobile = Mobile(lab, events, "mn1", "ar1", "2001:db8:1000:")
    captures = Captures(lab, tmp_path, ar1=("ar1", "eth2"), ar2=("ar2", "eth2"), core=("ar2", "eth1"), cn=("cn", "eth1"))
    mobile.go("ar1", "--gap", "0")
    mobile.wait_settled("ar1")
    flow = scenarios.Flow(lab, tmp_path / "flow", mn_address=mobile.address)
    try:
        mobile.move("ar2")
        ip1, ip2 = mobile.address, lab.mn_address(within="2001:db8:2000:")
        lost = finish(capsys, request, mobile, flow_of_ip1=flow)
        new = scenarios.Flow(lab, tmp_path / "new", mn_address=ip2, port=9001)
        new.wait_for_traffic()
        new.stop()
    finally:
        flow.abort()
    captured = captures.stop()

    figure = CallFlow(captured)
    figure.arrow("MN -> AR1  RS", "ar1", lambda p: p.kind == RS)
    figure.arrow("AR1 -> MN  RA(IP1)", "ar1", lambda p: p.kind == RA and p.prefixes.get(prefix, (0, 0))[0] > 0)
    figure.arrow("MN -> CN   flow(IP1, IPcn)", "ar1", lambda p: p in udp([p], ip1, CN))
    figure.arrow("CN -> MN   flow(IP1, IPcn)", "ar1", lambda p: p in udp([p], CN, ip1))
    solicitation = figure.arrow("MN -> AR2  RS", "ar2", lambda p: p.kind == RS)
    # RA(IP2, IP1): both in one, the old one deprecated.
    both = figure.arrow("AR2 -> MN  RA(IP2, IP1)", "ar2", lambda p: p.kind == RA and len(p.prefixes) == 2)
    assert both.prefixes[prefix][0] == 0 and both.prefixes[lab.prefix_of(ip2)][0] > 0
    figure.arrow("AR1 => AR2 flow(IP1, IPcn) in the tunnel", "core", lambda p: p in udp([p], CN, ip1, (AR1, DELIVER_SID)))
    figure.arrow("AR2 -> MN  flow(IP1, IPcn)", "ar2", lambda p: p in udp([p], CN, ip1))
    figure.arrow("MN -> AR2  flow(IP1, IPcn)", "ar2", lambda p: p in udp([p], ip1, CN))
    figure.arrow("AR2 => AR1 flow(IP1, IPcn) in the tunnel", "core", lambda p: p in udp([p], ip1, CN, (AR2, UPLINK_SID)))
    figure.arrow("AR1 -> CN  flow(IP1, IPcn)", "cn", lambda p: p in udp([p], ip1, CN))
    figure.arrow("MN -> CN   new flow(IP2, IPcn), without a tunnel", "core", lambda p: p in udp([p], ip2, CN))
    figure.arrow("CN -> MN   new flow(IP2, IPcn), without a tunnel", "ar2", lambda p: p in udp([p], CN, ip2))
    say(capsys, request, f"\n{figure}")
    assert lost == {"flow_of_ip1": 0}
    # The access router may hear the MN by another sign before its solicitation; nothing is sent there before.
    first_sign = next(p.at for p in captured["ar2"] if p.source != "fe80::1")
    assert first_sign <= solicitation.at
    assert not [p for p in captured["core"] if p.tunnel and p.at < first_sign]


def test_the_tables_of_figure_6(lab, events, prefix):
    """AR1 anchors IP1, FM: IP1 via IPa2. AR2 anchors IP2, FM: IP1 via IPa1."""
    lab.move(events, "ar2", prefix)
    ip2_prefix = lab.prefix_of(lab.mn_address(within="2001:db8:2000:"))
    binding = lab.binding(prefix)
    assert (binding["home_ar"], binding["attached_ar"], binding["mode"]) == ("ar1", "ar2", "MODE_REDIRECT")
    assert lab.binding(ip2_prefix)["home_ar"] == "ar2"
    # Both anchor by their aggregates alone.
    for one in (prefix, ip2_prefix):
        assert lab.bgp_best("core", one) is None
    assert lab.bgp_best("core", "2001:db8:1000::/48") == (AR1, 100)
    assert lab.bgp_best("core", "2001:db8:2000::/48") == (AR2, 100)
    assert any(line.startswith(f"{prefix} encap") and DELIVER_SID in line for line in held(lab, "ar1", prefix))
    assert any(line.startswith(f"default from {prefix} encap") and UPLINK_SID in line for line in held(lab, "ar2", prefix))
    assert any(line.startswith(f"{prefix} via") and "dev eth2" in line for line in held(lab, "ar2", prefix))
    audit(lab)


def test_both_directions_wherever_the_correspondent_is(lab, events, prefix, tmp_path, capsys, request):
    """In the core, at the old access router, at the new one, and another mobile node that is at home at the old one."""
    mobile = Mobile(lab, events, "mn1", "ar1", "2001:db8:1000:")
    lab.move(events, "ar1", lab.prefix_of(lab.mn_address("mn2", "2001:db8:2000:")), mn="mn2")
    neighbour = lab.mn_address("mn2", "2001:db8:1000:")
    peers = {"cn": CN, "cn1": CN_AT_OLD_AR, "cn2": CN_AT_NEW_AR, "mn2": neighbour}
    flows = {}
    try:
        for port, (peer, address) in enumerate(peers.items(), start=9000):
            flows[peer] = scenarios.Flow(
                lab, tmp_path / peer, mn_address=mobile.address, rate=300, port=port, peer=peer, peer_address=address
            )  # fmt: skip
        mobile.move("ar2")
        captures = Captures(lab, tmp_path, new=("ar2", "eth1"))
        for flow in flows.values():
            flow.wait_for_traffic()
        captured = captures.stop()["new"]
        mobile.move("ar1")
        lost = finish(capsys, request, mobile, **flows)
    finally:
        for flow in flows.values():
            flow.abort()
        lab.run("mn2", "move", "ar2")
    assert lost == dict.fromkeys(peers, 0)
    for peer, address in peers.items():
        down = udp(captured, address, mobile.address, (AR1, DELIVER_SID))
        # What begins at the new access router is delivered there, without the detour.
        assert len(down) > 20 if peer != "cn2" else not down, f"{peer} to the MN"
        assert len(udp(captured, mobile.address, address, (AR2, UPLINK_SID))) > 20, f"the MN to {peer}"


def test_the_new_prefix_uses_the_new_ar_directly(lab, events, prefix, tmp_path):
    lab.move(events, "ar2", prefix)
    ip2 = lab.mn_address(within="2001:db8:2000:")
    captures = Captures(lab, tmp_path, core=("ar2", "eth1"))
    assert " 0% packet loss" in lab.output("mn1", "ping", "-n", "-c", "3", "-i", "0.05", "-W", "3", "-I", ip2, CN)
    packets = [p for p in captures.stop()["core"] if ip2 in (p.source, p.target)]
    assert len([p for p in packets if (p.source, p.target, p.tunnel) == (ip2, CN, None)]) == 3
    assert not [p for p in packets if p.tunnel]
    # New communication prefers it (RFC 6724, rule 3).
    assert ip2 in lab.output("mn1", "ip", "-6", "route", "get", CN)


def test_the_mn_is_told_of_the_tunnels_mtu(lab, events, prefix):
    ip1 = lab.mn_address()
    lab.move(events, "ar2", prefix)
    result = lab.run("mn1", "ping", "-n", "-c", "2", "-i", "0.1", "-W", "3", "-M", "do", "-s", "1452", "-I", ip1, CN, check=False)
    assert "mtu=1460" in result.stdout + result.stderr or "mtu: 1460" in result.stdout + result.stderr
    assert " 0% packet loss" in lab.output("mn1", "ping", "-n", "-c", "3", "-i", "0.05", "-W", "3", "-M", "do", "-s", "1412", "-I", ip1, CN)


def test_nothing_is_left_after_the_return_home(lab, events, prefix, flow):
    before = held(lab, "ar1", prefix)
    moves = [lab.move(events, target, prefix) for target in ("ar2", "ar1") * 3]
    audit(lab)
    flow.stop()
    no_loss(flow, *moves)
    scenarios.wait_until("nothing of the prefix is left at ar2", lambda: not held(lab, "ar2", prefix))
    # Only of the prefix: at ar2 the node has got another one, which ar1 serves now.
    scenarios.wait_until("ar1 holds what it held", lambda: held(lab, "ar1", prefix) == before)
    assert [h["ar"] for h in lab.binding(prefix)["holders"]] == ["ar1"]


def test_a_speaker_that_dies_leaves_the_tunnel_and_takes_it_up_again(lab, events, prefix, flow):
    lab.move(events, "ar2", prefix)
    before = held(lab, "ar2")
    old = lab.speaker_pid("ar2")
    lab.kill("ar2", "kedge-speaker")
    scenarios.wait_until(
        "the speaker runs again", lambda: lab.run("ar2", "pidof", "kedge-speaker", check=False).stdout.split() not in ([], [str(old)])
    )
    lab.wait_synced()
    assert held(lab, "ar2") == before
    audit(lab)
    flow.stop()
    report = flow.report()
    assert (report[CN_TO_MN]["lost"], report[MN_TO_CN]["lost"]) == (0, 0)
