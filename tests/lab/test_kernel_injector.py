"""Prefixes that get into FRR as routes of the kernel (frr.injector: kernel), with the BGP configuration that `kedgectl frr-config` writes: nodes move
without loss, and whatever ends in between, what it left is taken over or removed."""

import subprocess
import time

import pytest
import scenario as scenarios
from audit import ANCHOR_PROTOCOL, KERNEL_METRIC_BASE, audit
from test_faults import kill_frr
from test_generated_frr import KEDGECTL, REFLECTOR, without_bgp

LAB = "kernel_lab"
CN_TO_MN, MN_TO_CN = "a_to_b", "b_to_a"


def by_kernel(nodes):
    for ar in ("ar1", "ar2"):
        speaker = nodes / ar / "speaker.yaml"
        speaker.write_text(speaker.read_text() + "frr:\n  injector: kernel\n")
        # The core's own configuration has no TTL security.
        command = [KEDGECTL, "frr-config", "--lm-config", nodes / "lm" / "lm.yaml", "--reflector", REFLECTOR, "--ar", ar, "--injector", "kernel",
                   "--hops", "0"]  # fmt: skip
        generated = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
        frr = nodes / ar / "frr.conf"
        frr.write_text(without_bgp(frr.read_text()) + generated)


@pytest.fixture(scope="module")
def kernel_lab(changed_lab):
    return changed_lab("handover", suffix="kernel", edit=by_kernel)


def anchors(lab, ar):
    """(prefix, level) of the speaker's routes in main."""
    routes = lab.json(ar, "ip", "-6", "-j", "route", "show", "table", "main", "proto", ANCHOR_PROTOCOL)
    return sorted((route["dst"], route["metric"] - KERNEL_METRIC_BASE) for route in routes)


def assert_nothing_lost(flow, window):
    report = flow.report(window)
    for direction in (CN_TO_MN, MN_TO_CN):
        assert report[direction]["sent"] >= 50 and report[direction]["lost"] == 0, f"{direction}: {report[direction]}"


def test_planned_moves_away_and_home_lose_nothing(lab, events, prefix, flow):
    windows = []
    for _ in range(3):
        away = lab.move(events, "ar2", prefix)
        assert (prefix, 1) in anchors(lab, "ar2") and prefix not in dict(anchors(lab, "ar1"))
        assert lab.bgp_best("core", prefix) == ("2001:db8:a2::1", 101)
        home = lab.move(events, "ar1", prefix)
        windows += [away["window"], home["window"]]
    flow.stop()
    for window in windows:
        assert_nothing_lost(flow, window)
    audit(lab)
    assert prefix not in dict(anchors(lab, "ar2") + anchors(lab, "ar1"))


@pytest.mark.parametrize("ar", ["ar1", "ar2"])
def test_a_killed_zebra_takes_nothing_along(lab, events, prefix, flow, ar):
    lab.move(events, "ar2", prefix)
    begin = time.monotonic_ns()
    old = lab.output(ar, "cat", "/run/frr/zebra.pid")
    kill_frr(lab, ar, "zebra")
    scenarios.wait_until("zebra runs again", lambda: lab.run(ar, "cat", "/run/frr/zebra.pid", check=False).stdout not in ("", old))
    audit(lab)
    flow.wait_for_traffic()
    end = time.monotonic_ns()
    home = lab.move(events, "ar1", prefix)
    flow.stop()
    assert_nothing_lost(flow, (begin, end))
    assert_nothing_lost(flow, home["window"])
    audit(lab)


def test_a_speaker_that_comes_back_takes_over_what_is_right_and_removes_the_rest(lab, events, prefix, flow):
    lab.move(events, "ar2", prefix)
    begin = time.monotonic_ns()
    old = lab.speaker_pid("ar2")
    stray = "2001:db8:1000:77::/64"
    # What a speaker may leave that was ended between two changes: another level of the same prefix, and one that is no longer its own.
    script = "".join(
        f"ip -6 route add blackhole {one} metric {KERNEL_METRIC_BASE + level} proto {ANCHOR_PROTOCOL} && "
        for one, level in ((prefix, 3), (stray, 2))
    )
    lab.run("ar2", "sh", "-c", f"kill -STOP {old} && {script} kill -KILL {old}")
    scenarios.wait_until("the stray is announced", lambda: lab.bgp_best("core", stray) == ("2001:db8:a2::1", 102))
    scenarios.wait_until("another speaker runs", lambda: lab.run("ar2", "pidof", "kedge-speaker", check=False).stdout.split() not in ([], [str(old)]))
    lab.wait_synced()
    audit(lab)
    assert anchors(lab, "ar2") == [(prefix, 1)]
    flow.wait_for_traffic()
    end = time.monotonic_ns()
    flow.stop()
    assert_nothing_lost(flow, (begin, end))
