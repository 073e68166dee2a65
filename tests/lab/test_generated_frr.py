"""What `kedgectl frr-config` writes, on real FRR in place of the lab's own BGP configuration: sessions with TCP MD5 and TTL security come up, nodes
move without loss, and an access router cannot announce what is not its own."""

import re
import subprocess

import pytest
import scenario as scenarios
from audit import audit
from mobile import Mobile, finish, flow_to

LAB = "generated_lab"
REFLECTOR = "2001:db8:c0::1"
SECRET = "a-secret-of-the-lab"
KEDGECTL = scenarios.labs.build_folder() / "kedgectl" / "kedgectl"


def without_bgp(text):
    """Interfaces, IGP and the like stay."""
    text = re.sub(r"^route-map KEDGE .*?^exit\n", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^router bgp .*?^exit\n", "", text, flags=re.MULTILINE | re.DOTALL)
    return text.replace("bgp route-map delay-timer 1\n", "")


def generate(nodes):
    secret = nodes / "secret"
    secret.write_text(SECRET + "\n")
    for node, who in (("ar1", ["--ar", "ar1"]), ("ar2", ["--ar", "ar2"]), ("core", [])):
        command = [KEDGECTL, "frr-config", "--lm-config", nodes / "lm" / "lm.yaml", "--reflector", REFLECTOR, "--password-file", secret, *who]
        generated = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        file = nodes / node / "frr.conf"
        file.write_text(without_bgp(file.read_text()) + generated)


@pytest.fixture(scope="module")
def generated_lab(changed_lab):
    return changed_lab("handover", suffix="generated", edit=generate)


def configure(lab, node, *lines):
    lab.run(node, "vtysh", *(word for line in ("configure terminal", *lines) for word in ("-c", line)))


def session(lab, ar):
    """State of the reflector's session with an access router."""
    table = lab.json("core", "vtysh", "-c", "show bgp ipv6 unicast summary json")
    return table["peers"][{"ar1": "2001:db8:a1::1", "ar2": "2001:db8:a2::1"}[ar]]["state"]


def test_nodes_move_without_loss(lab, events, prefix, tmp_path, capsys, request):
    mn1 = Mobile(lab, events, "mn1", "ar1", "2001:db8:1000:")
    with flow_to(lab, tmp_path, mn1) as flow:
        flow.wait_for_traffic()
        for target in ("ar2", "ar1"):
            mn1.move(target)
        assert finish(capsys, request, mn1, flow=flow) == {"flow": 0}
    audit(lab)


def test_a_session_without_the_secret_or_from_farther_away_does_not_come_up(lab):
    assert session(lab, "ar2") == "Established"
    for wrong, right in (
        (f"neighbor {REFLECTOR} password another", f"neighbor {REFLECTOR} password {SECRET}"),
        (f"no neighbor {REFLECTOR} password", f"neighbor {REFLECTOR} password {SECRET}"),
    ):
        configure(lab, "ar2", "router bgp 65000", wrong, "end")
        scenarios.wait_until("the session is lost", lambda: session(lab, "ar2") != "Established", seconds=30)
        configure(lab, "ar2", "router bgp 65000", right, "end")
        scenarios.wait_until("the session is back", lambda: session(lab, "ar2") == "Established", seconds=30)
    # What comes with a hop limit under 255 has passed a router (RFC 5082).
    lab.run("ar2", "nft", "add table inet farther; add chain inet farther out { type filter hook output priority mangle; }; "
            "add rule inet farther out meta l4proto tcp th dport 179 ip6 hoplimit set 254; "
            "add rule inet farther out meta l4proto tcp th sport 179 ip6 hoplimit set 254")  # fmt: skip
    try:
        scenarios.wait_until("packets from farther away keep no session", lambda: session(lab, "ar2") != "Established", seconds=30)
    finally:
        lab.run("ar2", "nft", "delete table inet farther")
    scenarios.wait_until("the session is back", lambda: session(lab, "ar2") == "Established", seconds=30)


@pytest.mark.parametrize(
    ("what", "prefix_text"),
    [
        ("the default route", "::/0"),
        ("an infrastructure prefix", "2001:db8:c0::/64"),
        ("another access router's aggregate", "2001:db8:2000::/48"),
        ("less than its own aggregate", "2001:db8::/32"),
        ("more than a /64 of a pool", "2001:db8:2000:1::/80"),
    ],
)
def test_an_access_router_gets_nothing_past_the_reflector_that_is_not_its_own(lab, what, prefix_text):
    # Its own filter is gone, as with a stolen router.
    open_up = [f"no neighbor {REFLECTOR} prefix-list KEDGE-OUT out", f"network {prefix_text}", "network 2001:db8:1000:77::/64"]
    shut = [f"no network {prefix_text}", "no network 2001:db8:1000:77::/64", f"neighbor {REFLECTOR} prefix-list KEDGE-OUT out"]
    configure(lab, "ar1", "router bgp 65000", "address-family ipv6 unicast", *open_up, "end")
    try:
        # A /64 of a pool is what it may announce; sent after the other, or with it.
        scenarios.wait_until("what it may announce has come", lambda: "2001:db8:a1::1" in lab.announcers("core", "2001:db8:1000:77::/64"))
        sent = lab.json("ar1", "vtysh", "-c", f"show bgp ipv6 unicast neighbors {REFLECTOR} advertised-routes json")
        assert prefix_text in sent["advertisedRoutes"], "it has not even been tried"
        assert "2001:db8:a1::1" not in lab.announcers("core", prefix_text), what
    finally:
        configure(lab, "ar1", "router bgp 65000", "address-family ipv6 unicast", *shut, "end")
    scenarios.wait_until("that is withdrawn", lambda: not lab.announcers("core", "2001:db8:1000:77::/64"))


def test_a_static_with_a_tag_of_kedge_is_announced_inside_of_a_pool_only(lab):
    inside, outside = "2001:db8:1000:78::/64", "2001:db8:c1::/64"
    configure(lab, "ar2", *(f"ipv6 route {one} blackhole tag 1" for one in (outside, inside)), "end")
    try:
        scenarios.wait_until("the one inside of a pool has come", lambda: lab.announcers("core", inside))
        assert not lab.announcers("core", outside)
    finally:
        configure(lab, "ar2", *(f"no ipv6 route {one} blackhole tag 1" for one in (outside, inside)), "end")
    scenarios.wait_until("that is withdrawn", lambda: not lab.announcers("core", inside))
