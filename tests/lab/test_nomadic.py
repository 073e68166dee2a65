"""RFC 8818, 4.1, Figures 3 and 4: a new prefix at each access router. The old one is deprecated and answered as unreachable in both directions, so
that applications fail at once and not by timeout."""

import errno

import pytest
import scenario as scenarios
from audit import audit
from mobile import Mobile, another_mn, finish, flow_to, say
from packets import ERROR, RA, RS, UDP_PACKET, CallFlow, Captures

CN = scenarios.CN_ADDRESS
# RFC 4443, 3.1: communication with destination administratively prohibited. Hosts take it as final, unlike "no route to destination".
PROHIBITED = (1, 1)

# Sends from one address to another until an error comes back, as an application would learn of it; prints its number.
UNTIL_ERROR = """
import socket, sys, time
out = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
out.bind((sys.argv[1], 0))
out.connect((sys.argv[2], 9))
for _ in range(200):
    try:
        out.send(b"x")
    except OSError as error:
        print(error.errno)
        break
    time.sleep(0.02)
"""


@pytest.fixture(name="lab", scope="module")
def fixture_lab(changed_lab):
    up = changed_lab("handover", mobility={"detach_grace": "1s"})
    up.set_policy("--default", mode="nomadic")
    return up


def bindings_of(lab, mac):
    return {b["home_ar"]: b for b in lab.bindings() if b["mn_id"] == mac}


def error_of(lab, node, source, target):
    """Number of the error with which an application fails; 0 when it does not."""
    return int(lab.output(node, "/usr/bin/python3", "-c", UNTIL_ERROR, source, target) or 0)


def flows(source, target):
    return lambda p: p.kind == UDP_PACKET and (p.source, p.target) == (source, target)


def answers(code, source, target):
    return lambda p: p.kind == ERROR and p.code == code and p.about == (source, target)


def test_the_arrows_of_figure_4(lab, events, tmp_path, capsys, request):
    mac = another_mn(lab, "mn1", "02:00:00:00:00:41")
    captures = Captures(
        lab, tmp_path, ar1=("ar1", "eth2"), ar2=("ar2", "eth2"), core=("ar2", "eth1"), cn=("cn", "eth1")
    )  # fmt: skip
    lab.run("mn1", "move", "ar1", "--gap", "0")
    mobile = Mobile(lab, events, "mn1", "ar1", "2001:db8:1000:")
    mobile.wait_settled("ar1")
    with flow_to(lab, tmp_path, mobile) as old:
        old.wait_for_traffic()
        mobile.go("ar2", "--gap", "0")
        ip1, ip2 = mobile.address, lab.mn_address(within="2001:db8:2000:")
        events.wait_for("UNREACHABLE", ar="ar2", prefix=mobile.prefix)
        with flow_to(lab, tmp_path, mobile, port=9001, mn_address=ip2) as new:
            new.wait_for_traffic()
            lost = finish(capsys, request, mobile, new_flow_of_ip2=new)
        old.stop()
        ended = old.report()
    captured = captures.stop()
    prefix1, prefix2 = mobile.prefix, lab.prefix_of(ip2)

    figure = CallFlow(captured)
    figure.arrow("MN -> AR1  RS", "ar1", lambda p: p.kind == RS)
    figure.arrow("AR1 -> MN  RA(IP1)", "ar1", lambda p: p.kind == RA and p.prefixes.get(prefix1, (0, 0))[0] > 0)
    figure.arrow("MN -> CN   flow(IP1, IPcn)", "cn", flows(ip1, CN))
    figure.arrow("CN -> MN   flow(IP1, IPcn)", "ar1", flows(CN, ip1))
    figure.arrow("MN -> AR2  RS", "ar2", lambda p: p.kind == RS)
    first = figure.arrow("AR2 -> MN  RA(IP2)", "ar2", lambda p: p.kind == RA and p.prefixes.get(prefix2, (0, 0))[0] > 0)
    figure.arrow("AR2 -> MN  unreachable, prohibited: flow(IP1, IPcn)", "ar2", answers(PROHIBITED, ip1, CN))
    figure.arrow("AR1 -> CN  unreachable, prohibited: flow(IPcn, IP1)", "cn", answers(PROHIBITED, CN, ip1))
    figure.arrow("MN -> CN   new flow(IP2, IPcn)", "cn", flows(ip2, CN))
    figure.arrow("CN -> MN   new flow(IP2, IPcn)", "ar2", flows(CN, ip2))
    say(capsys, request, f"\n{figure}\n  errors heard by MN {ended['b']['icmp_errors']}, CN {ended['a']['icmp_errors']}")
    assert lost == {"new_flow_of_ip2": 0}
    # IP1 is in it to be deprecated only; its valid lifetime runs out (RFC 4862, 5.5.3, e).
    assert first.prefixes[prefix1] == (0, 0)
    assert not [p for p in captured["core"] if p.tunnel], "RFC 8818, 4.1: no mobility support"
    assert lab.mn_addresses()[0] == ip2
    assert mac == lab.mn_id()


def test_figure_3_and_what_each_end_is_told(lab, events, capsys, request):
    """MN(IP1) at AR1, which anchors IP1; then MN(IP2) at AR2, which anchors IP2."""
    mac = another_mn(lab, "mn1", "02:00:00:00:00:42")
    lab.run("mn1", "move", "ar1", "--gap", "0")
    mobile = Mobile(lab, events, "mn1", "ar1", "2001:db8:1000:")
    mobile.go("ar2")
    ip1, ip2 = mobile.address, lab.mn_address(within="2001:db8:2000:")
    audit(lab)
    held = bindings_of(lab, mac)
    assert (held["ar1"]["state"], held["ar1"]["released"]) == ("BINDING_STATE_DETACHED", True)
    assert (held["ar2"]["state"], held["ar2"]["attached_ar"]) == ("BINDING_STATE_SETTLED", "ar2")
    for one in (mobile.prefix, held["ar2"]["prefix"]):
        assert lab.bgp_best("core", one) is None, "only aggregates are in BGP"

    failures = {
        "MN from IP1 to the CN": error_of(lab, "mn1", ip1, CN),
        "CN to IP1": error_of(lab, "cn", CN, ip1),
        "MN from IP2 to the CN": error_of(lab, "mn1", ip2, CN),
        "CN to IP2": error_of(lab, "cn", CN, ip2),
    }
    say(capsys, request, ", ".join(f"{what}: {errno.errorcode.get(number, 'none')}" for what, number in failures.items()))
    # Nobody listens at IP2 and at the CN: that is another error (RFC 4443, 3.1, code 4), from the host itself.
    assert list(failures.values()) == [errno.EACCES, errno.EACCES, errno.ECONNREFUSED, errno.ECONNREFUSED]

    # At home the prefix begins again, and the one of ar2 has ended.
    mobile.move("ar1")
    audit(lab)
    assert lab.mn_addresses()[0] == ip1
    assert error_of(lab, "mn1", ip1, CN) == errno.ECONNREFUSED
    assert error_of(lab, "mn1", ip2, CN) == errno.EACCES


def test_an_ended_prefix_leaves_nothing_where_its_node_has_been(lab, events):
    mac = another_mn(lab, "mn1", "02:00:00:00:00:43")
    for target in ("ar1", "ar2"):
        lab.run("mn1", "move", target, "--gap", "0")
        events.wait_for("SETTLED", ar=target, mn_id=mac)
    ended = bindings_of(lab, mac)["ar1"]["prefix"]
    scenarios.wait_until("refused at ar2", lambda: {h["ar"] for h in lab.binding(ended)["holders"]} == {"ar1", "ar2"})
    lab.run("mn1", "ip", "link", "set", "eth2", "down")
    scenarios.wait_until("only home answers", lambda: {h["ar"] for h in lab.binding(ended)["holders"]} == {"ar1"})
    audit(lab)
