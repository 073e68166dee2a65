"""How attachments and prefixes end: by carrier, by neighbour unreachability, by the operator, for being idle; grace time and quarantine."""

import json
import time

import pytest
import scenario as scenarios
from audit import audit
from mobile import Mobile, finish, flow_to, say
from packets import NS, Captures

# Seconds; short ones, so that nobody waits for long. The grace time is longer than a loaded machine takes to set a link up.
GRACE, QUARANTINE, IDLE, PROBE_AFTER, PROBE_INTERVAL, PROBES = 3, 3, 4, 0.5, 0.2, 3
FIXED = "2001:db8:1000:f0::/64"
SILENCE = """
table inet silent {
    chain output { type filter hook output priority 0; policy drop; }
    chain input { type filter hook input priority 0; policy drop; }
}
"""
DEAF = """
table inet deaf {
    chain input { type filter hook input priority 0; ip6 saddr %s drop; }
}
"""


@pytest.fixture(name="lab", scope="module")
def fixture_lab(changed_lab):
    return changed_lab(
        "handover",
        mobility={"detach_grace": f"{GRACE}s", "prefix_quarantine": f"{QUARANTINE}s", "idle_after": f"{IDLE}s"},
        speaker={"probe_after": f"{round(1000 * PROBE_AFTER)}ms", "probe_interval": f"{round(1000 * PROBE_INTERVAL)}ms"},
    )


@pytest.fixture(name="mobile")
def fixture_mobile(lab, events):
    """mn1 at ar1, with a prefix of it."""
    since = events.count()
    if not [b for b in lab.bindings() if b["attached_ar"] == "ar1" and b["mn_id"] == lab.mn_id()]:
        lab.run("mn1", "move", "ar1", "--gap", "0")
        events.wait_for("SETTLED", since=since, ar="ar1")
    mobile = Mobile(lab, events, "mn1", "ar1", "2001:db8:1000:")
    mobile.wait_settled("ar1")
    return mobile


def seconds_between(first, last):
    return (scenarios.timestamp_ns(last["at"]) - scenarios.timestamp_ns(first["at"])) / 1e9


def test_a_link_that_goes_ends_the_attachment_after_the_grace_and_the_prefix_after_the_quarantine(lab, events, mobile, tmp_path, capsys, request):
    lab.set_policy("--mn", lab.mn_id(), fixed_prefixes=f"{FIXED}@ar1")
    scenarios.wait_until("the fixed prefix is there", lambda: lab.run("lm", "kedgectl", "binding", FIXED, check=False).returncode == 0)
    since = events.count()
    with flow_to(lab, tmp_path, mobile) as flow:
        flow.wait_for_traffic()
        lab.run("mn1", "ip", "link", "set", "eth1", "down")
        detached = events.wait_for("DETACHED", since=since, prefix=mobile.prefix)
        assert (detached["ar"], detached["detail"]) == ("ar1", "link_down")
        assert lab.binding(mobile.prefix)["state"] == "BINDING_STATE_DETACHED_GRACE"
        unreachable = events.wait_for("UNREACHABLE", since=since, prefix=mobile.prefix, ar="ar1")
        flow.stop()
        errors = flow.report()["a"]["icmp_errors"]
    held = lab.binding(FIXED)
    freed = events.wait_for("PREFIX_FREED", since=since, prefix=mobile.prefix)
    say(capsys, request, f"unreachable {seconds_between(detached, unreachable):.2f} s after the detach; errors heard by CN {errors}; "
        f"free {seconds_between(unreachable, freed):.2f} s later")  # fmt: skip
    # All of its prefixes have left at once, those that the policy has made later too.
    both = [event for event in events.since(since, "DETACHED", mn_id=lab.mn_id()) if event["prefix"] in (mobile.prefix, FIXED)]
    assert both[0]["generation"] == both[1]["generation"]
    # It may come back: no error that a host takes as final (docs/forwarding.md).
    assert "1/0" in errors and "1/1" not in errors
    assert seconds_between(detached, unreachable) >= GRACE and seconds_between(detached, freed) >= GRACE + QUARANTINE
    assert lab.run("lm", "kedgectl", "binding", mobile.prefix, check=False).returncode == 4, "not found"
    # RFC 8653, fixed: the prefix is the MN's for as long as the profile says so.
    assert held["state"] in ("BINDING_STATE_DETACHED_GRACE", "BINDING_STATE_DETACHED") and not held.get("free_at")
    scenarios.wait_until("the fixed one is answered for", lambda: lab.binding(FIXED)["state"] == "BINDING_STATE_DETACHED")
    audit(lab)
    lab.run("mn1", "move", "ar1", "--gap", "0")
    scenarios.wait_until("the fixed one is served again", lambda: lab.binding(FIXED)["state"] == "BINDING_STATE_SETTLED")
    audit(lab)


def test_a_return_within_the_grace_keeps_everything(lab, events, mobile, tmp_path, capsys, request):
    since = events.count()
    with flow_to(lab, tmp_path, mobile) as flow:
        flow.wait_for_traffic()
        mobile.go("ar1", "--gap", "300")
        mobile.wait_settled("ar1")
        events.wait_for("DETACHED", since=since, prefix=mobile.prefix)
        back = time.monotonic_ns()
        audit(lab)
        flow.wait_for_traffic()
        end = time.monotonic_ns()
        flow.stop()
        whole, after = flow.report(), flow.report((back, end))
    lost, lost_after = ([report[way]["lost"] for way in ("a_to_b", "b_to_a")] for report in (whole, after))
    say(capsys, request, f"link gone for 300 ms: lost {lost}, after the return {lost_after}")
    assert lost_after == [0, 0]
    # 1/4: the flow's own end was not there yet.
    assert set(whole["a"]["icmp_errors"]) <= {"1/4"}, "the CN was told that it is gone"
    assert not events.since(since, "UNREACHABLE", prefix=mobile.prefix)


def test_a_node_that_falls_silent_is_probed_three_times_and_taken_for_gone(lab, events, mobile, tmp_path, capsys, request):
    """Its link stays up: only that it does not answer tells (RFC 4861, 7.3.3)."""
    captures = Captures(lab, tmp_path, access=("ar1", "eth2"))
    since = events.count()
    (tmp_path / "silence").write_text(SILENCE)
    # So that it is known when it was heard last.
    lab.run("mn1", "ping", "-c", "1", "-W", "5", scenarios.CN_ADDRESS)
    lab.run("mn1", "nft", "-f", tmp_path / "silence")
    try:
        gone = events.wait_for("DETACHED", since=since, prefix=mobile.prefix)
        assert gone["detail"] == "unreachable"
        packets = captures.stop()["access"]
        assert lab.output("mn1", "cat", "/sys/class/net/eth1/operstate").strip() == "up"
    finally:
        lab.run("mn1", "nft", "delete", "table", "inet", "silent")
    heard = [p.at for p in packets if p.source == mobile.address or (p.source.startswith("fe80") and p.source != "fe80::1")]
    probes = [p.at for p in packets if p.kind == NS and p.source == "fe80::1" and p.at > heard[-1]]
    at = scenarios.timestamp_ns(gone["recorded_at"]) / 1e9
    say(capsys, request, f"{len(probes)} probes, {', '.join(f'{1000 * (probe - heard[-1]):.0f}' for probe in probes)} ms after it was last heard; "
        f"detached after {1000 * (at - heard[-1]):.0f} ms")  # fmt: skip
    assert len(probes) == PROBES
    assert probes[0] - heard[-1] >= PROBE_AFTER and at - probes[-1] >= PROBE_INTERVAL
    # Any frame of a known node brings it back.
    lab.run("mn1", "ping", "-c", "1", "-W", "1", "-I", mobile.address, scenarios.CN_ADDRESS, check=False)
    mobile.wait_settled("ar1")
    audit(lab)


def test_a_detach_by_the_operator_costs_a_node_that_is_there_nothing(lab, events, mobile, tmp_path, capsys, request):
    with flow_to(lab, tmp_path, mobile) as flow:
        flow.wait_for_traffic()
        since = events.count()
        lab.run("lm", "kedgectl", "detach", lab.mn_id())
        assert events.wait_for("DETACHED", since=since, prefix=mobile.prefix)["detail"] == "operator"
        events.wait_for("ATTACH_COMMITTED", since=since, prefix=mobile.prefix, ar="ar1")
        mobile.wait_settled("ar1")
        flow.wait_for_traffic()
        audit(lab)
        assert finish(capsys, request, mobile, cn_mn1=flow) == {"cn_mn1": 0}


def watched(lab, ar):
    """Prefixes of which the access router's kernel keeps in mind when they were used."""
    answer = lab.run(ar, "nft", "-j", "list", "set", "inet", "kedge_activity", "watched", check=False)
    if answer.returncode != 0:
        return set()
    (found,) = [item["set"] for item in json.loads(answer.stdout)["nftables"] if "set" in item]
    return {f"{element['elem']['val']}/64" for element in found.get("elem", [])}


def test_an_away_prefix_ends_when_nothing_uses_it_and_not_before(lab, events, mobile, tmp_path, capsys, request):
    # What is fixed does not end for being idle.
    lab.clear_policies()
    scenarios.wait_until("it is not fixed", lambda: lab.binding(mobile.prefix)["prefix_type"] == "PREFIX_TYPE_SESSION_LASTING")
    since = events.count()
    mobile.move("ar2")
    own = lab.prefix_of(lab.mn_address("mn1", "2001:db8:2000:"))
    scenarios.wait_until("the kernel watches it", lambda: watched(lab, "ar2") == {mobile.prefix})
    # In one direction at a time: nobody has the address, and what comes from the MN is not answered.
    (tmp_path / "deaf").write_text(DEAF % mobile.address)
    lab.run("cn", "nft", "-f", tmp_path / "deaf")
    ping = ["ping", "-n", "-q", "-i", "0.2"]
    downlink, uplink = [*ping, mobile.prefix.replace("::/64", "::dead")], [*ping, "-I", mobile.address, scenarios.CN_ADDRESS]
    try:
        for node, command in (("cn", downlink), ("mn1", uplink)):
            begin = time.time()
            flow = lab.start(node, *command)
            try:
                scenarios.wait_until(
                    f"the LM knows that {' '.join(command)} has used it for {3 * IDLE} s",
                    lambda: scenarios.timestamp_ns(lab.binding(mobile.prefix).get("idle_since", "1970-01-01T00:00:00Z")) / 1e9 > begin + 3 * IDLE,
                    seconds=6 * IDLE, interval=0.2,
                )  # fmt: skip
            finally:
                scenarios.stop_process(flow)
            assert not events.since(since, "PREFIX_RELEASED", mn_id=lab.mn_id())
            assert (mobile.at(), mobile.settled()) == ("ar2", True)
    finally:
        lab.run("cn", "nft", "delete", "table", "inet", "deaf")
    released = events.wait_for("PREFIX_RELEASED", since=since, prefix=mobile.prefix)
    say(capsys, request, f"ended: {released['detail']}")
    assert int(released["detail"].removeprefix("idle for ").removesuffix(" s")) >= IDLE
    scenarios.wait_until("nothing is watched any more", lambda: not watched(lab, "ar2"))
    audit(lab)
    # At home, it stays though nothing uses it.
    assert lab.binding(own)["state"] == "BINDING_STATE_SETTLED"
    assert not events.since(since, "PREFIX_RELEASED", prefix=own)
    lab.run("mn1", "move", "ar1", "--gap", "0")
    events.wait_for("SETTLED", since=since, ar="ar1")
    audit(lab)
