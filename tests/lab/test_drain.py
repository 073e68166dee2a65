"""`kedgectl node drain`: an access router is emptied without loss until nothing needs it, and then it goes."""

import contextlib

import scenario as scenarios
from audit import audit
from mobile import Mobile, finish, flow_to, say

LAB = "three_routers_lab"
SOLICIT = scenarios.REPOSITORY / "tests" / "lab" / "solicit.py"
AT_AR2 = ("2001:db8:a2::1", 101)


def progress(lab):
    node = lab.node("ar1")
    return node.get("draining", False), int(node.get("drain_remaining", 0))


def wait_progress(lab, wanted):
    scenarios.wait_until(f"draining and remaining of ar1 are {wanted}, are {progress(lab)}", lambda: progress(lab) == wanted)


def refused_at_ar1(lab, events, mn):
    since = events.count()
    lab.run("mn2", "/usr/bin/python3", SOLICIT, "eth1", mn)
    refused = events.wait_for("ATTACH_REFUSED", since=since, mn_id=mn, ar="ar1")
    return "draining" in refused["detail"] and "undrain ar1" in refused["detail"]


@contextlib.contextmanager
def without_router(lab):
    """ar1 is out of service: FRR is stopped, the speaker stands still, its uplink is down."""
    lab.run("ar1", "/usr/lib/frr/frrinit.sh", "stop")
    lab.kill("ar1", "kedge-speaker", "STOP")
    lab.run("core", "ip", "link", "set", "eth2", "down")
    try:
        yield
    finally:
        lab.run("core", "ip", "link", "set", "eth2", "up")
        lab.kill("ar1", "kedge-speaker", "CONT")
        lab.run("ar1", "/usr/lib/frr/frrinit.sh", "start")


def test_a_drained_access_router_can_go_and_come_back(lab, events, prefix, tmp_path, capsys, request):
    """mn1 is away from its home ar1 in redirection, mn2 is a guest at ar1."""
    lab.set_policy("--default", mode="redirect")
    mn1, mn2 = Mobile(lab, events, "mn1", "ar1", "2001:db8:1000:"), Mobile(lab, events, "mn2", "ar2", "2001:db8:2000:")
    assert mn1.prefix == prefix
    mn1.move("ar2")
    mn2.move("ar1")
    guests = len([b for b in lab.bindings() if b["attached_ar"] == "ar1"])
    with flow_to(lab, tmp_path, mn1) as one, flow_to(lab, tmp_path, mn2, port=9001) as two:
        lab.run("lm", "kedgectl", "node", "drain", "ar1")
        # What is away is relocated, whatever the policy says; what is there stays and is waited for.
        scenarios.wait_until("relocated", lambda: lab.bgp_best("core", prefix) == AT_AR2)
        mn1.wait_settled("ar2")
        assert lab.binding(prefix)["mode"] == "MODE_RELOCATE"
        wait_progress(lab, (True, guests))
        assert refused_at_ar1(lab, events, "02:00:00:00:bb:11")
        lab.kill("lm", "kedge-lm")
        lab.wait_synced()
        wait_progress(lab, (True, guests))
        assert refused_at_ar1(lab, events, "02:00:00:00:bb:12")
        assert (mn2.at(), mn2.settled()) == ("ar1", True)
        mn2.move("ar3")
        scenarios.wait_until("mn2 has taken its prefix of ar1 along", lambda: progress(lab) == (True, 0))
        audit(lab)

        with without_router(lab):
            assert not lab.output("core", "ip", "-6", "route", "show", "dev", "eth2"), "the core has another way"
            one.wait_for_traffic()
            two.wait_for_traffic()
        lab.wait_synced()
        audit(lab)
        assert progress(lab) == (True, 0)

        lab.run("lm", "kedgectl", "node", "undrain", "ar1")
        scenarios.wait_until("redirected again", lambda: lab.bgp_best("core", prefix) is None)
        mn1.wait_settled("ar2")
        mn2.move("ar1")
        mn1.move("ar1")
        audit(lab)
        assert progress(lab) == (False, 0)
        lost = finish(capsys, request, mn1, mn2, cn_mn1=one, cn_mn2=two)
    say(capsys, request, f"{guests} prefixes of guests were waited for")
    assert lost == {"cn_mn1": 0, "cn_mn2": 0}
