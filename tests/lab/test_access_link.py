"""What an access link can do to the network: sources that are not the sender's, other nodes' prefixes, segment identifiers, and a flood of
solicitations from invented addresses, of a stranger's or its own."""

import json
import re
import textwrap
import time

import pytest
import scenario as scenarios
from audit import audit, passing_neighbours, permitted_sources
from mobile import Mobile, finish, flow_to, say

LAB = "metered_lab"
CN = scenarios.CN_ADDRESS
SOLICIT = scenarios.REPOSITORY / "tests" / "lab" / "solicit.py"
PORT = 7007
# MobilityConfig.new_nodes of the lab, and the seconds that they are counted in: the defaults.
NEW_NODES, NEW_NODES_WINDOW = 1000, 600

# Prints each sender's address until it is told to stop.
RECEIVER = """
import socket
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.bind(("::", {port}))
print("listening", flush=True)
while True:
    data, sender = server.recvfrom(100)
    print(sender[0], flush=True)
"""

# From an address that need not be one's own: IPV6_FREEBIND.
SENDER = """
import socket
out = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
out.setsockopt(socket.IPPROTO_IPV6, 78, 1)
out.bind(("{source}", 0))
for _ in range({count}):
    out.sendto(b"x", ("{target}", {port}))
"""

# IPv6 in IPv6 (RFC 2473) to a segment identifier, with a UDP packet to the mobile node inside.
TUNNELLER = """
import socket, struct
inner_source, target = (socket.inet_pton(socket.AF_INET6, text) for text in ("{inner}", "{target}"))
udp = struct.pack("!HHHH", 9, {port}, 9, 0) + b"x"
pseudo = inner_source + target + struct.pack("!II", len(udp), 17) + udp + b"\\0"
total = sum(struct.unpack(f"!{{len(pseudo) // 2}}H", pseudo))
while total >> 16:
    total = (total & 0xFFFF) + (total >> 16)
udp = udp[:6] + struct.pack("!H", ~total & 0xFFFF) + b"x"
packet = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + inner_source + target + udp
out = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 41)
out.setsockopt(socket.IPPROTO_IPV6, 78, 1)
out.bind(("{source}", 0))
for _ in range({count}):
    out.sendto(packet, ("{sid}", 0))
"""


def python(lab, node, text, **values):
    return lab.run(node, "/usr/bin/python3", "-c", textwrap.dedent(text).format(port=PORT, **values))


class Receiver:
    """Who sends to a node's port, in the order in which it comes."""

    def __init__(self, lab, node):
        self._process = lab.start(node, "/usr/bin/python3", "-c", textwrap.dedent(RECEIVER).format(port=PORT))
        assert self._process.stdout.readline().strip() == "listening"

    def next(self):
        return self._process.stdout.readline().strip()

    def close(self):
        scenarios.stop_process(self._process)


@pytest.fixture(scope="module")
def metered_lab(changed_lab):
    """The speakers' counters can be read."""
    return changed_lab("three-routers", replace={"log:\n  level: debug": 'log:\n  level: info\nmetrics:\n  listen: "[::1]:9819"'})


@pytest.fixture(name="receiver")
def fixture_receiver(lab):
    receivers = []

    def start(node):
        receivers.append(Receiver(lab, node))
        return receivers[-1]

    yield start
    for one in receivers:
        one.close()


@pytest.fixture(name="mn1")
def fixture_mn1(lab, events):
    return Mobile(lab, events, "mn1", "ar1", "2001:db8:1000:")


@pytest.fixture(name="mn2")
def fixture_mn2(lab, events):
    return Mobile(lab, events, "mn2", "ar2", "2001:db8:2000:")


def dropped(lab, ar, counter):
    found = json.loads(lab.output(ar, "nft", "-j", "list", "counters", "table", "inet", "kedge_access"))["nftables"]
    return next(item["counter"]["packets"] for item in found if item.get("counter", {}).get("name") == counter)


def metric(lab, ar, name):
    """Of a speaker; 0 when nothing has been counted."""
    text = lab.output(ar, "/usr/bin/python3", "-c", "import urllib.request as r; print(r.urlopen('http://[::1]:9819/metrics').read().decode())")
    return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))


def test_a_node_sends_from_its_own_prefix_and_from_no_other(lab, mn1, mn2, receiver, capsys, request):
    assert (mn1.at(), mn2.at()) == ("ar1", "ar2")
    heard = receiver("cn")
    before = dropped(lab, "ar1", "foreign_sources")
    # Nobody's, its neighbour's, the correspondent's own, the access router's.
    for foreign in ("2001:db8:1000:ffff::1", mn2.address, CN, "2001:db8:a1::1"):
        python(lab, "mn1", SENDER, source=foreign, target=CN, count=5)
    python(lab, "mn1", SENDER, source=mn1.address, target=CN, count=1)
    assert heard.next() == mn1.address, "what came before it was dropped"
    found = dropped(lab, "ar1", "foreign_sources") - before
    say(capsys, request, f"{found} of 20 packets dropped and counted")
    assert found == 20


def test_a_node_on_a_shared_link_does_not_get_in_with_its_neighbours_prefix(lab, mn1, receiver):
    """Another link-layer address on the same port."""
    heard = receiver("cn")
    before = dropped(lab, "ar1", "foreign_sources")
    own = lab.mn_id("mn1")
    lab.run("mn1", "ip", "link", "add", "link", "br0", "name", "second", "address", "02:00:00:00:00:99", "type", "macvlan", "mode", "private")
    try:
        lab.run("mn1", "sysctl", "-q", "-w", "net.ipv6.conf.second.disable_ipv6=0")
        lab.run("mn1", "ip", "link", "set", "second", "up")
        lab.run("mn1", "ip", "-6", "neigh", "replace", "fe80::1", "lladdr", "02:00:5e:00:88:18", "dev", "second")
        lab.run("mn1", "ip", "-6", "route", "add", f"{CN}/128", "via", "fe80::1", "dev", "second")
        python(lab, "mn1", SENDER, source=mn1.address, target=CN, count=5)
    finally:
        lab.run("mn1", "ip", "link", "del", "second")
    assert lab.mn_id("mn1") == own
    python(lab, "mn1", SENDER, source=mn1.address, target=CN, count=1)
    assert heard.next() == mn1.address
    assert dropped(lab, "ar1", "foreign_sources") - before >= 5


def test_segment_identifiers_take_what_access_routers_have_tunnelled_and_nothing_else(lab, mn1, receiver, capsys, request):
    heard = receiver("mn1")
    inside = {"inner": CN, "target": mn1.address, "sid": "2001:db8:a1::d"}
    before = dropped(lab, "ar1", "foreign_tunnels")
    # From the core, from the access link with the node's own source, and there with an access router's.
    python(lab, "cn", TUNNELLER, source=CN, count=5, **inside)
    python(lab, "mn1", TUNNELLER, source=mn1.address, count=5, **inside)
    python(lab, "mn1", TUNNELLER, source="2001:db8:a2::1", count=5, **inside)
    # From ar2: reaches a node that is attached, and nobody whose prefix is not bound, though main has a way there.
    lab.run("ar1", "ip", "-6", "route", "add", "2001:db8:1000:eeee::/64", "via", "fe80::1234", "dev", "eth2")
    out = lab.start("ar1", "tcpdump", "-n", "-i", "eth2", "-c", "1", "--immediate-mode", "ip6", "and", "dst", "net", "2001:db8:1000:eeee::/64")
    while "listening on" not in (line := out.stderr.readline()):
        assert line, "tcpdump did not start"
    try:
        python(lab, "ar2", TUNNELLER, source="2001:db8:a2::1", count=5, **{**inside, "target": "2001:db8:1000:eeee::1"})
        python(lab, "ar2", TUNNELLER, source="2001:db8:a2::1", count=1, **inside)
        assert heard.next() == CN
        assert out.poll() is None, "a prefix that is not bound was reached"
    finally:
        lab.run("ar1", "ip", "-6", "route", "del", "2001:db8:1000:eeee::/64")
        scenarios.stop_process(out)
    found = dropped(lab, "ar1", "foreign_tunnels") - before
    say(capsys, request, f"{found} of 15 packets dropped and counted")
    assert found == 15


def test_the_old_link_is_open_until_it_goes_and_closed_then(lab, mn1):
    own = (mn1.prefix, "eth2", lab.mn_id("mn1"))
    assert own in permitted_sources(lab, "ar1")
    mn1.move("ar2")
    scenarios.wait_until("closed at ar1", lambda: own not in permitted_sources(lab, "ar1"))
    assert own in permitted_sources(lab, "ar2")
    mn1.move("ar1")
    audit(lab)


def test_a_filter_that_somebody_removes_is_made_again(lab):
    before = permitted_sources(lab, "ar1")
    lab.run("ar1", "nft", "delete", "table", "inet", "kedge_access")
    scenarios.wait_until("made again", lambda: permitted_sources(lab, "ar1") == before)


def test_a_restarted_speaker_takes_over_what_was_open(lab, mn1, tmp_path, capsys, request):
    old = lab.speaker_pid("ar1")
    with flow_to(lab, tmp_path, mn1) as flow:
        lab.kill("ar1", "kedge-speaker", "TERM")
        scenarios.wait_until(
            "the speaker runs again", lambda: lab.run("ar1", "pidof", "kedge-speaker", check=False).stdout.split() not in ([], [str(old)])
        )
        lab.wait_synced()
        flow.wait_for_traffic()
        lost = finish(capsys, request, mn1, own=flow)
    assert lost == {"own": 0}
    audit(lab)


def test_a_flood_of_solicitations_starves_nobody_and_does_not_fill_the_store(lab, events, mn1, mn2, tmp_path, capsys, request):
    """On mn1's link at ar1, while mn1 has a flow there, and mn2 comes to ar1 and goes again."""
    before = len(lab.bindings())
    begin, started = events.count(), time.monotonic()
    with flow_to(lab, tmp_path, mn1) as flow, flow_to(lab, tmp_path, mn2, port=9002) as moving:
        attack = lab.start("mn1", "/usr/bin/python3", SOLICIT, "eth1", "--flood", 50_000, 10)
        events.wait_for("TOO_MANY_NEW_NODES", ar="ar1", since=begin)
        away = mn2.move("ar1")
        home = mn2.move("ar2")
        sent, errors = attack.communicate(timeout=60)
        assert sent, errors
        lost = finish(capsys, request, mn1, mn2, legitimate=flow, moving=moving)
    bindings = len(lab.bindings()) - before
    # As many at once, and as many again within the window; and mn2's prefix of ar1.
    most = 1 + NEW_NODES * (1 + (time.monotonic() - started) / NEW_NODES_WINDOW)
    counted = {name: metric(lab, "ar1", f"kedge_speaker_{name}_total") for name in ("arrivals", "arrivals_limited")}
    say(
        capsys, request,
        f"{sent.strip()}; {counted}; {bindings} more bindings; mn2's moves settled after {away['timeline']['settled']} and {home['timeline']['settled']} ms",
    )  # fmt: skip
    assert lost == {"legitimate": 0, "moving": 0}
    assert 0 < bindings <= most
    assert counted["arrivals_limited"] > counted["arrivals"]


def test_a_node_with_many_addresses_does_not_cut_its_router_off(lab, mn1, tmp_path, capsys, request):
    """The kernel keeps a neighbour for each that solicits, and of all links together not more than gc_thresh3, 1,024: then it has no room for the
    next hop of the uplink either."""
    with flow_to(lab, tmp_path, mn1) as flow:
        flow.wait_for_traffic()
        lab.run("mn1", "/usr/bin/python3", SOLICIT, "eth1", "--invent", 5000, lab.mn_id("mn1"), mn1.prefix)
        flow.wait_for_traffic()
        assert passing_neighbours(lab, "ar1") == set()
        lost = finish(capsys, request, mn1, own=flow)
    assert lost == {"own": 0}
    audit(lab)


def test_a_node_comes_to_a_link_that_is_flooded(lab, events, mn1, tmp_path, capsys, request):
    """ar2 knows nothing of mn1 yet, no more than of the invented ones on the same link. ar2 answers some of those, so that mn1's bridge learns on
    its new port where the router is: until mn1 is let in, what it sends goes there and is dropped."""
    mac = lab.mn_id("mn1")
    lab.run("mn1", "ip", "link", "set", "eth2", "down")
    attack = lab.start("mn1", "/usr/bin/python3", SOLICIT, "eth2", "--flood", 25_000, 5)
    begin = events.count()
    with flow_to(lab, tmp_path, mn1) as flow:
        flow.wait_for_traffic()
        away = mn1.move("ar2")
        flow.wait_for_traffic()
        flow.stop()
        report = flow.report()
    sent, errors = attack.communicate(timeout=60)
    assert sent, errors
    redirected = events.wait_for("REDIRECTING", ar="ar1", mn_id=mac, prefix=mn1.prefix, since=begin)
    at = scenarios.timestamp_ns(redirected["at"]) - lab.wall_offset_ns
    found = {way: report[way]["lost"] for way in ("a_to_b", "b_to_a")}
    late = [loss for way in found for loss in report[way]["losses"] if report["base_ns"] + loss["last_sent_at_ms"] * 1e6 > at]
    say(
        capsys, request,
        f"{sent.strip()}; delivered after {away['timeline']['deliver_programmed']} ms; lost {found}, of them sent after the redirect: {late}",
    )  # fmt: skip
    assert not late
