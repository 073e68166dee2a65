"""RFC 8818, 4.3, Figure 7: "LM: IP1 at IPa1 changes to IP1 at IPa2", and AR2 anchors IP1, make before break. As a call flow: the RFC shows the states
before and after only."""

import pytest
import scenario as scenarios
from audit import audit
from mobile import Mobile, finish, flow_to, say
from packets import ANNOUNCED, CallFlow, Captures, NS, OTHER, RA, RS, UDP_PACKET, WITHDRAWN

LAB = "three_routers_lab"
CN, CORE = scenarios.CN_ADDRESS, "2001:db8:c0::1"
LOCATOR = {ar: f"2001:db8:a{ar[-1]}::1" for ar in ("ar1", "ar2", "ar3")}
# Of every access router's access ports.
ROUTER = "fe80::1"
DELIVER_SID = {ar: f"2001:db8:a{ar[-1]}::d" for ar in LOCATOR}


@pytest.fixture(name="mobile")
def fixture_mobile(lab, events, prefix):
    """mn1, at home."""
    assert prefix
    return Mobile(lab, events, "mn1", "ar1", "2001:db8:1000:")


def bgp(kind, source, target, prefix, preference=None):
    wanted = (kind, LOCATOR.get(source, source), LOCATOR.get(target, target), prefix, preference)
    return lambda p: (p.kind, p.source, p.target, p.prefix, p.local_preference) == wanted


def flow(source, target, tunnel=None):
    return lambda p: p.kind == UDP_PACKET and (p.source, p.target, p.tunnel) == (source, target, tunnel)


def moments(captured, condition):
    return [p.at for p in captured if condition(p)]


def committed(events, since, mobile, ar):
    """When the LM changed the entry, in seconds since 1970."""
    event = events.wait_for("ATTACH_COMMITTED", since=since, prefix=mobile.prefix, ar=ar)
    return scenarios.timestamp_ns(event["at"]) / 1e9


def test_the_arrows_of_figure_7(lab, events, mobile, tmp_path, capsys, request):
    """From AR2, which anchors it by a /64 already, to AR3."""
    mobile.move("ar2")
    audit(lab)
    since = events.count()
    with flow_to(lab, tmp_path, mobile) as running:
        captures = Captures(lab, tmp_path, mn=("ar3", "eth2"), ar3=("ar3", "eth1"), ar2=("ar2", "eth1"))
        mobile.move("ar3")
        running.wait_for_traffic()
        captured = captures.stop()
        lost = finish(capsys, request, mobile, flow_of_ip1=running)
    ip1, prefix = mobile.address, mobile.prefix

    figure = CallFlow(captured)
    # The access router asks who is there when the link comes up; the answer may come before the RS.
    assert any(p.kind == RS for p in captured["mn"])
    figure.arrow("MN -> AR3  RS", "mn", lambda p: p.source != ROUTER and p.kind in (RS, NS, OTHER))
    figure.event("LM         IP1 at IPa2 changes to IP1 at IPa3", committed(events, since, mobile, "ar3"))
    advertisement = figure.arrow("AR3 -> MN  RA(IP3, IP2, IP1)", "mn", lambda p: p.kind == RA and len(p.prefixes) == 3)
    figure.arrow("AR2 => AR3 flow(IP1, IPcn) in the tunnel", "ar3", flow(CN, ip1, (LOCATOR["ar2"], DELIVER_SID["ar3"])))
    new = figure.arrow("AR3 -> RR  BGP update IP1, local preference 102", "ar3", bgp(ANNOUNCED, "ar3", CORE, prefix, 102))
    figure.arrow("RR -> AR2  BGP update IP1, local preference 102", "ar2", bgp(ANNOUNCED, CORE, "ar2", prefix, 102))
    old = figure.arrow("AR2 -> RR  BGP withdraw IP1", "ar2", bgp(WITHDRAWN, "ar2", CORE, prefix))
    figure.arrow("AR3 -> RR  BGP update IP1, local preference 101", "ar3", bgp(ANNOUNCED, "ar3", CORE, prefix, 101))
    figure.arrow("CN -> MN   flow(IP1, IPcn), without a tunnel", "ar3", flow(CN, ip1))
    say(capsys, request, f"\n{figure}")

    assert lost == {"flow_of_ip1": 0}
    preferred = {one: lifetimes[0] for one, lifetimes in advertisement.prefixes.items()}
    assert preferred[prefix] == 0 and sorted(value > 0 for value in preferred.values()) == [False, False, True]
    # Make before break: nothing of the old anchor's goes before the new one's is there, nor did the core ever lose it.
    assert moments(captured["ar3"], bgp(ANNOUNCED, "ar3", CORE, prefix, 102))[0] == new.at
    assert moments(captured["ar2"], bgp(WITHDRAWN, "ar2", CORE, prefix))[0] == old.at
    assert not moments(captured["ar2"], bgp(WITHDRAWN, CORE, "ar2", prefix))
    binding = lab.binding(prefix)
    assert (binding["home_ar"], binding["attached_ar"], binding["mode"]) == ("ar1", "ar3", "MODE_RELOCATE")
    assert lab.bgp_best("core", prefix) == (LOCATOR["ar3"], 101)
    audit(lab)


def test_a_return_home_is_announced_there_and_withdrawn_last(lab, events, mobile, tmp_path, capsys, request):
    mobile.move("ar2")
    with flow_to(lab, tmp_path, mobile) as running:
        captures = Captures(lab, tmp_path, ar1=("ar1", "eth1"), ar2=("ar2", "eth1"))
        mobile.move("ar1")
        captured = captures.stop()
        lost = finish(capsys, request, mobile, flow_of_ip1=running)
    prefix = mobile.prefix
    figure = CallFlow(captured)
    figure.arrow("AR2 => AR1 flow(IP1, IPcn) in the tunnel", "ar1", flow(CN, mobile.address, (LOCATOR["ar2"], DELIVER_SID["ar1"])))
    figure.arrow("AR1 -> RR  BGP update IP1, local preference 102", "ar1", bgp(ANNOUNCED, "ar1", CORE, prefix, 102))
    figure.arrow("AR2 -> RR  BGP withdraw IP1", "ar2", bgp(WITHDRAWN, "ar2", CORE, prefix))
    figure.arrow("AR1 -> RR  BGP withdraw IP1", "ar1", bgp(WITHDRAWN, "ar1", CORE, prefix))
    say(capsys, request, f"\n{figure}")
    assert lost == {"flow_of_ip1": 0}
    assert len(moments(captured["ar1"], bgp(WITHDRAWN, "ar1", CORE, prefix))) == 1
    assert lab.bgp_best("core", prefix) is None, "at home the aggregate is enough"
    audit(lab)
