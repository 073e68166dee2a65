"""What holds whatever goes wrong: a loop between access routers ends by itself, and what the LM has acknowledged survives its death."""

import pytest
import scenario as scenarios
from audit import audit

SOLICIT = scenarios.REPOSITORY / "tests" / "lab" / "solicit.py"
# In the pool of ar1, so that the core sends it there; of no binding.
LOOPED = "2001:db8:1000:ffff::/64"
DELIVER_SID = {"ar1": "2001:db8:a1::d", "ar2": "2001:db8:a2::d"}
HOP_LIMITS = (16, 64, 255)

SEND_ONE = """
import socket, sys
out = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, int(sys.argv[2]))
out.sendto(b"x", (sys.argv[1], 9))
"""


def packets(lab):
    """Packets that the access routers have tunnelled so far."""
    return sum(int(lab.output(ar, "cat", "/sys/class/net/kx0/statistics/tx_packets")) for ar in ("ar1", "ar2"))


def expired(lab):
    """Packets that routers have dropped so far because their hop limit was used up."""
    counters = [dict(line.split() for line in lab.output(node, "cat", "/proc/net/snmp6").splitlines()) for node in ("core", "ar1", "ar2")]
    return sum(int(node["Ip6InHdrErrors"]) for node in counters)


@pytest.fixture(name="pair_address", scope="module")
def fixture_pair_address(lab):
    """The link-local behind the pair: next hop of every redirection."""
    neighbours = [line.split() for line in lab.output("ar1", "ip", "-6", "neigh", "show", "dev", "kx0").splitlines()]
    permanent = [words[0] for words in neighbours if "PERMANENT" in words]
    assert len(permanent) == 1, neighbours
    return permanent[0]


@pytest.fixture(name="loop")
def fixture_loop(lab, pair_address):
    """Each access router redirects the prefix to the other one. Kedge never lets it come to that, so it is made by hand."""
    routes = []
    for ar, other in (("ar1", "ar2"), ("ar2", "ar1")):
        routes.append((ar, [LOOPED, "encap", "seg6", "mode", "encap.red", "segs", DELIVER_SID[other], "dev", "kx0", "table", "8819"]))
        routes.append((ar, [LOOPED, "via", pair_address, "dev", "kx0", "table", "8818"]))
    try:
        for ar, route in routes:
            lab.run(ar, "ip", "-6", "route", "add", *route)
        yield
    finally:
        for ar, route in reversed(routes):
            lab.run(ar, "ip", "-6", "route", "del", route[0], "table", route[-1], check=False)


def test_a_loop_of_two_redirections_dies_by_hop_limit(lab, loop):
    assert loop is None
    tunnelled = {}
    for hop_limit in HOP_LIMITS:
        before, dead = packets(lab), expired(lab)
        lab.run("cn", "/usr/bin/python3", "-c", SEND_ONE, "2001:db8:1000:ffff::1", hop_limit)
        scenarios.wait_until("it dies", lambda dead=dead: expired(lab) > dead)
        tunnelled[hop_limit] = packets(lab) - before
        # It was one packet all the time.
        assert expired(lab) == dead + 1
    # At least one hop for each round through a pair, and no packet becomes two.
    for hop_limit, count in tunnelled.items():
        assert 2 <= count < hop_limit, tunnelled
    assert tunnelled[16] < tunnelled[64] < tunnelled[255], tunnelled
    still = packets(lab)
    lab.run("cn", "ping", "-c", "1", "-W", "5", "2001:db8:a1::1")
    assert packets(lab) == still


def test_with_the_loop_gone_all_is_as_the_bindings_say(lab):
    audit(lab)


# The LM's death


def bindings(lab):
    return {binding["prefix"]: binding for binding in lab.bindings()}


def order(binding):
    return int(binding["generation"]["epoch"]), int(binding["generation"]["revision"])


def attach_another(lab, number):
    """A mobile node never seen before comes to ar1. Returns its binding, which the LM shows only once it is on disk."""
    mn = f"02:00:00:00:aa:{number:02x}"
    lab.run("mn1", "/usr/bin/python3", SOLICIT, "eth1", mn)
    return scenarios.wait_until(f"{mn} is attached", lambda: next((b for b in lab.bindings() if b["mn_id"] == mn and b["attached_ar"]), None))


def kill_lm(lab):
    old = lab.output("lm", "pidof", "kedge-lm").strip()
    lab.kill("lm", "kedge-lm")
    scenarios.wait_until("the LM runs again", lambda: lab.run("lm", "pidof", "kedge-lm", check=False).stdout.strip() not in ("", old))
    scenarios.wait_until("the LM answers", lambda: lab.run("lm", "kedgectl", "status", check=False).returncode == 0)


def test_killing_the_lm_among_attachments_and_detachments_loses_no_acknowledged_one(lab):
    acknowledged = {}
    for cycle in range(20):
        detaching = cycle % 5 == 4
        if detaching:
            # All that are there leave, and their own mobile node comes back by its next solicitation.
            lab.run("mn1", "ip", "link", "set", "eth1", "down")
            scenarios.wait_until("all are detached", lambda: all(not b["attached_ar"] for b in lab.bindings()))
            acknowledged = bindings(lab)
        else:
            new = attach_another(lab, cycle)
            acknowledged = {**bindings(lab), new["prefix"]: new}
        if cycle % 3 == 2 or detaching:
            kill_lm(lab)
            after = bindings(lab)
            assert acknowledged.keys() <= after.keys()
            for prefix, before in acknowledged.items():
                now = after[prefix]
                assert (now["mn_id"], now["home_ar"]) == (before["mn_id"], before["home_ar"])
                assert order(now) >= order(before)
                if order(now) == order(before):
                    assert now["attached_ar"] == before["attached_ar"]
        if detaching:
            lab.run("mn1", "move", "ar1", "--gap", "0")
    assert len(acknowledged) == 17
    audit(lab, seconds=60)
