"""Policies on a running network: for each mobile node and each prefix, changed at run time, with numbered flows while it matters."""

import time

import pytest
import scenario as scenarios
from audit import audit
from mobile import Mobile, another_mn, finish, flow_to, say
from packets import ANNOUNCED, RA, UDP_PACKET, Captures

LAB = "three_routers_lab"
CN = scenarios.CN_ADDRESS
SOLICIT = scenarios.REPOSITORY / "tests" / "lab" / "solicit.py"
REDIRECT, RELOCATE = "MODE_REDIRECT", "MODE_RELOCATE"


@pytest.fixture(name="mn1")
def fixture_mn1(lab, events, prefix):
    """At home, without any policy, before and after."""
    assert prefix
    audit(lab)
    yield Mobile(lab, events, "mn1", "ar1", "2001:db8:1000:")
    lab.clear_policies()


def state(lab, prefix):
    binding = lab.binding(prefix)
    return binding["mode"], binding["state"], lab.bgp_best("core", prefix)


def wait_state(lab, prefix, mode, best):
    """Settled in a mode, with this in BGP at the core."""
    wanted = (mode, "BINDING_STATE_SETTLED", best)
    scenarios.wait_until(f"{prefix} is {wanted}, is {state(lab, prefix)}", lambda: state(lab, prefix) == wanted)


def test_several_prefixes_of_one_node_each_by_its_own_policy(lab, events, mn1, tmp_path, capsys, request):
    redirected, relocated = "2001:db8:1000:f0::/64", "2001:db8:1000:f1::/64"
    lab.set_policy("--mn", lab.mn_id(), fixed_prefixes=f"{redirected}@ar1@redirect,{relocated}@ar1@relocate")
    addresses = {
        "pool": mn1.address,
        "redirected": lab.mn_address(within="2001:db8:1000:f0:"),
        "relocated": lab.mn_address(within="2001:db8:1000:f1:"),
    }
    flows = {
        name: scenarios.Flow(lab, tmp_path / name, mn_address=address, port=port, rate=300)
        for port, (name, address) in enumerate(addresses.items(), start=9000)
    }
    try:
        mn1.move("ar2")
        mn1.move("ar3")
        at_ar3 = ("2001:db8:a3::1", 101)
        for one, mode, best in ((mn1.prefix, RELOCATE, at_ar3), (redirected, REDIRECT, None), (relocated, RELOCATE, at_ar3)):
            wait_state(lab, one, mode, best)
        audit(lab)
        mn1.move("ar1")
        lost = finish(capsys, request, mn1, **flows)
    finally:
        for flow in flows.values():
            flow.abort()
    assert lost == dict.fromkeys(flows, 0)
    audit(lab)


def test_redirect_and_relocate_take_turns_under_a_flow_and_nomadic_ends_it(lab, events, mn1, tmp_path, capsys, request):
    mn1.move("ar2")
    mn = lab.mn_id()
    with flow_to(lab, tmp_path, mn1) as flow:
        wait_state(lab, mn1.prefix, RELOCATE, ("2001:db8:a2::1", 101))
        lab.set_policy("--mn", mn, mode="redirect")
        wait_state(lab, mn1.prefix, REDIRECT, None)
        audit(lab)
        lab.set_policy("--mn", mn, mode="relocate")
        wait_state(lab, mn1.prefix, RELOCATE, ("2001:db8:a2::1", 101))
        audit(lab)
        assert finish(capsys, request, mn1, cn_mn1=flow) == {"cn_mn1": 0}
    with flow_to(lab, tmp_path, mn1, port=9001) as flow:
        flow.wait_for_traffic()
        since = events.count()
        lab.set_policy("--mn", mn, mode="nomadic")
        assert "nomadic" in events.wait_for("PREFIX_RELEASED", since=since, prefix=mn1.prefix)["detail"]
        events.wait_for("UNREACHABLE", since=since, prefix=mn1.prefix, ar="ar2")
        audit(lab)
        flow.stop()
        errors = {end: flow.report()[end]["icmp_errors"] for end in "ab"}
    say(capsys, request, f"nomadic: errors heard by CN {errors['a']}, MN {errors['b']}")
    assert "1/1" in errors["a"] and "1/1" in errors["b"]
    assert lab.bgp_best("core", mn1.prefix) is None
    assert lab.mn_addresses()[0].startswith("2001:db8:2000:")


def test_an_mn_is_served_at_allowed_access_routers_only(lab, events, mn1):
    mn = lab.mn_id()
    lab.set_policy("--mn", mn, allowed_ars="ar1,ar3")
    since = events.count()
    (step,) = mn1.go("ar2", "--gap", "0", "--wait", "500")
    refused = events.wait_for("ATTACH_REFUSED", since=since, mn_id=mn, ar="ar2")
    assert "allowed_ars" in refused["detail"] and "ar1, ar3" in refused["detail"]
    assert step["ra_ns"] is None, "it was told a prefix"
    assert not events.since(since, "ATTACH_COMMITTED", mn_id=mn, ar="ar2")
    lab.set_policy("--mn", mn, allowed_ars="ar1,ar2,ar3")
    mn1.go("ar2", "--gap", "0")
    mn1.wait_settled("ar2")
    audit(lab)


def test_without_a_profile_nobody_is_served_when_the_default_says_so(lab, events, mn1, tmp_path):
    stranger = "02:00:00:00:bb:01"
    lab.set_policy("--default", serve_unknown="false")
    since = events.count()
    captures = Captures(lab, tmp_path, access=("ar1", "eth2"))
    lab.run("mn1", "/usr/bin/python3", SOLICIT, "eth1", stranger)
    assert "no profile" in events.wait_for("ATTACH_REFUSED", since=since, mn_id=stranger, ar="ar1")["detail"]
    # One that has a binding is refused as well, at its next attachment.
    (step,) = mn1.go("ar3", "--gap", "0", "--wait", "500")
    events.wait_for("ATTACH_REFUSED", since=since, mn_id=lab.mn_id(), ar="ar3")
    assert step["ra_ns"] is None
    assert not [p for p in captures.stop()["access"] if p.kind == RA and p.target == "fe80::ff:fe00:bb01" and p.prefixes]
    assert not [b for b in lab.bindings() if b["mn_id"] == stranger]
    # With a profile they are known.
    lab.set_policy("--mn", lab.mn_id(), mode="relocate")
    mn1.go("ar3", "--gap", "0")
    mn1.wait_settled("ar3")


def test_who_passes_through_is_not_relocated(lab, events, mn1, tmp_path, capsys, request):
    lab.set_policy("--default", relocate_after="3s")
    with flow_to(lab, tmp_path, mn1) as flow:
        since = events.count()
        for target in ("ar2", "ar3"):
            mn1.go(target)
            mn1.wait_settled(target)
            assert state(lab, mn1.prefix) == (REDIRECT, "BINDING_STATE_SETTLED", None)
        events.wait_for("MODE_CHANGED", since=since, prefix=mn1.prefix, ar="ar3")
        wait_state(lab, mn1.prefix, RELOCATE, ("2001:db8:a3::1", 101))
        assert not events.since(since, "ADVERTISED", prefix=mn1.prefix, ar="ar2")
        audit(lab)
        assert finish(capsys, request, mn1, cn_mn1=flow) == {"cn_mn1": 0}


def test_a_graceful_replacement_is_redirected_for_its_time_and_then_unreachable(lab, events, mn1, tmp_path, capsys, request):
    lab.set_policy("--mn", lab.mn_id(), prefix_type="graceful_replacement", replacement_time="3s")
    with flow_to(lab, tmp_path, mn1) as flow:
        begin, since = time.monotonic_ns(), events.count()
        mn1.go("ar2")
        mn1.wait_settled("ar2")
        assert state(lab, mn1.prefix) == (REDIRECT, "BINDING_STATE_SETTLED", None)
        released = events.wait_for("PREFIX_RELEASED", since=since, prefix=mn1.prefix)
        end = scenarios.timestamp_ns(released["at"]) - lab.wall_offset_ns
        for ar in ("ar1", "ar2"):
            events.wait_for("UNREACHABLE", since=since, prefix=mn1.prefix, ar=ar)
        audit(lab)
        flow.stop()
        # What was sent in the last moment before the end was still under way.
        until_then, whole = flow.report((begin, end - 5_000_000)), flow.report()
    lost = [until_then[way]["lost"] for way in ("a_to_b", "b_to_a")]
    sent = [until_then[way]["sent"] for way in ("a_to_b", "b_to_a")]
    errors = {end: whole[end]["icmp_errors"] for end in "ab"}
    say(capsys, request, f"until the end lost {lost} of {sent}; then errors heard by CN {errors['a']}, MN {errors['b']}")
    assert "replacement time" in released["detail"]
    assert min(sent) > 50 and lost == [0, 0]
    assert "1/1" in errors["a"] and "1/1" in errors["b"]


def test_the_uplink_of_a_redirected_prefix_is_direct_when_the_policy_says_so(lab, events, mn1, tmp_path, capsys, request):
    mn = lab.mn_id()
    lab.set_policy("--mn", mn, mode="redirect")
    mn1.move("ar2")
    with flow_to(lab, tmp_path, mn1) as flow:
        flow.wait_for_traffic()
        lab.set_policy("--mn", mn, direct_uplink="true")
        audit(lab)
        captures = Captures(lab, tmp_path, core=("ar2", "eth1"))
        flow.wait_for_traffic()
        up = [p for p in captures.stop()["core"] if p.kind == UDP_PACKET and (p.source, p.target) == (mn1.address, CN)]
        lab.set_policy("--mn", mn, direct_uplink="false")
        audit(lab)
        assert finish(capsys, request, mn1, cn_mn1=flow) == {"cn_mn1": 0}
    assert len(up) > 50 and not [p for p in up if p.tunnel]


def test_policies_survive_a_restart_of_the_lm(lab, events, mn1, tmp_path, capsys, request):
    lab.set_policy("--mn", lab.mn_id(), mode="redirect", fixed_prefixes="2001:db8:1000:f2::/64@ar1")
    lab.set_policy("--ar", "ar3", direct_uplink="true")
    lab.set_policy("--default", relocate_after="30s")
    listed = lab.json("lm", "kedgectl", "policy", "list", "-o", "json")
    with flow_to(lab, tmp_path, mn1) as flow:
        lab.kill("lm", "kedge-lm")
        lab.wait_synced()
        assert lab.json("lm", "kedgectl", "policy", "list", "-o", "json") == listed
        mn1.go("ar2")
        mn1.wait_settled("ar2")
        assert lab.binding(mn1.prefix)["mode"] == REDIRECT and not lab.binding(mn1.prefix).get("relocate_at")
        audit(lab)
        assert finish(capsys, request, mn1, cn_mn1=flow) == {"cn_mn1": 0}


# Short times, and a pool that is soon used up: a lab of their own.

TINY_POOL = "2001:db8:3000::/62"


@pytest.fixture(name="short", scope="module")
def fixture_short(changed_lab):
    return changed_lab(
        "three-routers", "short",
        mobility={"flap_window": "4s", "idle_after": "10s", "prefix_quarantine": "3s", "detach_grace": "500ms"},
        # Strangers that answer no probe stay.
        speaker={"probe_after": "10m"},
        replace={"2001:db8:3000::/48": TINY_POOL},
    )  # fmt: skip


@pytest.fixture(name="short_events", scope="module")
def fixture_short_events(short):
    events = scenarios.Events(short)
    yield events
    events.close()


@pytest.fixture(name="mobile")
def fixture_mobile(short, short_events, request):
    """An MN that nobody has seen before, at ar1."""
    number = request.session.items.index(request.node) % 256
    another_mn(short, "mn1", f"02:00:00:00:01:{number:02x}")
    short.run("mn1", "move", "ar1", "--gap", "0")
    mobile = Mobile(short, short_events, "mn1", "ar1", "2001:db8:1000:")
    mobile.wait_settled("ar1")
    yield mobile
    short.clear_policies()


def test_a_node_that_flaps_stays_in_redirection_until_it_is_quiet(short, short_events, mobile, tmp_path, capsys, request):
    mn = short.mn_id()
    with flow_to(short, tmp_path, mobile) as flow:
        captures = Captures(short, tmp_path, ar1=("ar1", "eth1"), ar2=("ar2", "eth1"))
        since = short_events.count()
        mobile.go("ar2", "ar1", "ar2", "ar1", "ar2", "--overlap", "50")
        flapping = short_events.wait_for("FLAPPING", since=since, mn_id=mn)
        settled = short_events.wait_for("SETTLED", since=short_events.all().index(flapping), prefix=mobile.prefix, ar="ar2")
        binding = short.binding(mobile.prefix)
        assert (binding["mode"], binding.get("flapping")) == (REDIRECT, True)
        quiet = short_events.wait_for("FLAPPING_ENDED", since=since, mn_id=mn)
        wait_state(short, mobile.prefix, RELOCATE, ("2001:db8:a2::1", 101))
        captured = captures.stop()
        lost = finish(capsys, request, mobile, cn_mn1=flow)
    assert lost == {"cn_mn1": 0}
    begin, end = (scenarios.timestamp_ns(event["at"]) / 1e9 for event in (settled, quiet))
    updates = [
        p.at for ar, locator in (("ar1", "2001:db8:a1::1"), ("ar2", "2001:db8:a2::1"))
        for p in captured[ar] if (p.kind, p.source, p.prefix) == (ANNOUNCED, locator, mobile.prefix)
    ]  # fmt: skip
    assert not [at for at in updates if begin < at < end], (begin, end, updates)
    assert [at for at in updates if at >= end]


def test_at_the_cap_only_a_prefix_that_is_idle_makes_room(short, short_events, mobile):
    mn = short.mn_id()

    def prefixes():
        return {b["home_ar"]: b["prefix"] for b in short.bindings() if b["mn_id"] == mn and b["attached_ar"]}

    short.set_policy("--mn", mn, max_prefixes="2")
    since = short_events.count()
    mobile.go("ar2")
    mobile.wait_settled("ar2")
    assert set(prefixes()) == {"ar1", "ar2"}
    mobile.go("ar3")
    mobile.wait_settled("ar3")
    assert set(prefixes()) == {"ar1", "ar2"}
    # It was away first.
    released = short_events.wait_for("PREFIX_RELEASED", since=since, mn_id=mn)
    assert released["prefix"] == mobile.prefix and "idle" in released["detail"]
    assigned = short_events.wait_for("PREFIX_ASSIGNED", since=short_events.all().index(released), mn_id=mn)
    assert assigned["ar"] == "ar3"
    scenarios.wait_until("it has one of ar3", lambda: "ar3" in prefixes())
    audit(short)


class Radio:
    """mn2's port at an access router, on which any number of nodes ask for a router."""

    def __init__(self, lab, ar, port):
        self._lab, self._ar, self._port = lab, ar, port
        lab.run("mn2", "ip", "link", "set", "br0", "down")
        lab.run("mn2", "ip", "link", "set", "eth2", "down")
        lab.run("mn2", "ip", "link", "set", port, "up")

    def solicit(self, events, number):
        """(MN-ID, whether it is attached now, the event)"""
        mn = f"02:00:00:00:dd:{number:02x}"
        since = events.count()
        self._lab.run("mn2", "/usr/bin/python3", SOLICIT, self._port, mn)
        event = events.wait(
            f"answer to {mn}",
            lambda e: e.get("mn_id") == mn and e.get("ar") == self._ar and e["type"] in ("EVENT_TYPE_ATTACH_COMMITTED", "EVENT_TYPE_ATTACH_REFUSED"),
            since=since,
        )  # fmt: skip
        return mn, event["type"] == "EVENT_TYPE_ATTACH_COMMITTED", event


def test_an_exhausted_pool_is_named_and_who_brings_a_prefix_along_is_served(short, short_events, mobile, tmp_path, capsys, request):
    radio = Radio(short, "ar3", "eth3")
    since = short_events.count()
    strangers = []
    for number in range(1, 6):
        mn, attached, event = radio.solicit(short_events, number)
        if not attached:
            break
        strangers.append(mn)
    assert strangers and not attached
    assert TINY_POOL in event["detail"] and "add a pool" in event["detail"]
    exhausted = short_events.wait_for("POOL_EXHAUSTED", since=since, ar="ar3")
    assert exhausted["detail"] == TINY_POOL
    _, attached, _ = radio.solicit(short_events, 16)
    assert not attached and len(short_events.since(since, "POOL_EXHAUSTED")) == 1, "told once"

    # One leaves, before the others are missed. Until the last advertised lifetime is over its prefix goes to nobody else.
    gone = next(b["prefix"] for b in short.bindings() if b["mn_id"] == strangers[0])
    since = short_events.count()
    short.run("lm", "kedgectl", "detach", strangers[0])
    scenarios.wait_until("detached", lambda: short.binding(gone)["state"] == "BINDING_STATE_DETACHED")
    _, attached, _ = radio.solicit(short_events, 17)
    assert not attached, "in quarantine"
    freed = short_events.wait_for("PREFIX_FREED", since=since, prefix=gone)
    heir, attached, _ = radio.solicit(short_events, 18)
    assert attached
    # On a slow machine others have been missed by now, and theirs are free too.
    free = {event["prefix"] for event in short_events.since(since, "PREFIX_FREED")}
    given = {b["prefix"] for b in short.bindings() if b["mn_id"] == heir}
    assert given and given <= free
    ended = short_events.wait_for("DETACHED", since=since, prefix=gone)
    assert scenarios.timestamp_ns(freed["at"]) - scenarios.timestamp_ns(ended["at"]) >= 3_000_000_000

    with flow_to(short, tmp_path, mobile) as flow:
        mobile.move("ar3")
        audit(short)
        mobile.move("ar1")
        assert finish(capsys, request, mobile, cn_mn1=flow) == {"cn_mn1": 0}
