"""What can break beside and inside Kedge, on real FRR and the kernel: it is told, traffic goes on, and when the cause is gone everything is as the
bindings say again, by itself."""

import contextlib
import os
import time

import kill_table
import pytest
import scenario as scenarios
from audit import audit
from reboot import reboot

HANDOVER = scenarios.REPOSITORY / "containerlab" / "handover"
CN_TO_MN, MN_TO_CN = "a_to_b", "b_to_a"
AWAY = "2001:db8:a2::1"
# Packets that have to be sent, and so at 1,000/s arrive, before something counts as going on.
ENOUGH = 200


@pytest.fixture(name="prefix")
def fixture_prefix(lab, prefix):
    """conftest's, with everything as it should be."""
    audit(lab)
    return prefix


@pytest.fixture(name="away")
def fixture_away(lab, events, prefix):
    """The same, with the MN at ar2."""
    lab.move(events, "ar2", prefix)
    audit(lab)
    return prefix


def last_id(events):
    return max((int(event["id"]) for event in events.all()), default=0)


def start_move(lab, events, target, prefix):
    """A planned move, waited for until the old AR's kernel redirects. Returns the generation and when that was, in monotonic nanoseconds."""
    begin = last_id(events)
    lab.run("mn1", "move", target)

    def fresh(event, kind):
        return int(event["id"]) > begin and event.get("prefix") == prefix and event["type"] == kind

    committed = events.wait("attachment", lambda e: fresh(e, "EVENT_TYPE_ATTACH_COMMITTED") and e["ar"] == target)
    generation = committed["generation"]
    redirect = events.wait("redirection", lambda e: fresh(e, "EVENT_TYPE_REDIRECTING") and e["generation"] == generation)
    return generation, scenarios.timestamp_ns(redirect["at"]) - lab.wall_offset_ns


def wait_settled(events, prefix, generation, seconds=45):
    events.wait(
        f"{prefix} settled",
        lambda e: e["type"] == "EVENT_TYPE_SETTLED" and e.get("prefix") == prefix and e["generation"] == generation, seconds,
    )  # fmt: skip


def assert_nothing_lost(flow, begin, end):
    report = flow.report((begin, end))
    for direction in (CN_TO_MN, MN_TO_CN):
        assert report[direction]["sent"] >= ENOUGH
        assert report[direction]["lost"] == 0, f"{direction}: {report[direction]}"


def frr_health(lab, ar):
    nodes = lab.json("lm", "kedgectl", "nodes", "-o", "json")["nodes"]
    return next(node["health"]["frr"] for node in nodes if node["info"]["name"] == ar)


def wait_for_health(lab, ar, *parts, seconds=20):
    return scenarios.wait_until(
        f"health of {ar} has {parts}, is '{frr_health(lab, ar)}'", lambda: all(part in frr_health(lab, ar) for part in parts), seconds
    )


# FRR


def kill_frr(lab, ar, daemon):
    # The one that was killed last may not have been started again yet.
    kill = f"kill -9 $(cat /run/frr/{daemon}.pid)"
    scenarios.wait_until(f"{daemon} of {ar} is killed", lambda: lab.run(ar, "sh", "-c", kill, check=False).returncode == 0)


def stop_watchfrr(lab, ar):
    lab.run(ar, "sh", "-c", "pid=$(cat /run/frr/watchfrr.pid); kill $pid; while kill -0 $pid 2>/dev/null; do sleep 0.01; done")


def start_frr(lab, ar):
    """Daemons that run are left alone."""
    lab.run(ar, "/usr/lib/frr/frrinit.sh", "start")


@contextlib.contextmanager
def without_staticd(lab, ar):
    stop_watchfrr(lab, ar)
    kill_frr(lab, ar, "staticd")
    try:
        yield
    finally:
        start_frr(lab, ar)


@contextlib.contextmanager
def without_module(lab, ar):
    lab.run(ar, "sed", "-i.saved", "s/ -M [^\"]*//", "/etc/frr/daemons")
    kill_frr(lab, ar, "staticd")
    try:
        yield
    finally:
        lab.run(ar, "mv", "/etc/frr/daemons.saved", "/etc/frr/daemons")
        scenarios.wait_until("staticd runs", lambda: lab.run(ar, "pidof", "staticd", check=False).returncode == 0)
        kill_frr(lab, ar, "staticd")


@contextlib.contextmanager
def port_closed(lab, ar, verdict, staticd_too=True):
    rules = f"table inet test_fault {{ chain input {{ type filter hook input priority -10; iifname lo tcp dport 50051 {verdict}; }}; }}"
    lab.run(ar, "nft", rules)
    if staticd_too:
        kill_frr(lab, ar, "staticd")
    try:
        yield
    finally:
        lab.run(ar, "nft", "delete table inet test_fault")


FAULTS = {
    "staticd-absent": (without_staticd, ("refuses connections", "start staticd with '-M")),
    "module-absent": (without_module, ("refuses connections", "start staticd with '-M")),
    "port-rejected": (lambda lab, ar: port_closed(lab, ar, "reject with tcp reset"), ("refuses connections", "start staticd with '-M")),
    "port-dropped": (lambda lab, ar: port_closed(lab, ar, "drop"), ("does not answer", "TCP port 50051 in its packet filter")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_move_without_frr_s_northbound_redirects_and_is_announced_when_it_is_back(lab, events, prefix, flow, fault):
    breaking, told = FAULTS[fault]
    begin = time.monotonic_ns()
    with breaking(lab, "ar2"):
        wait_for_health(lab, "ar2", *told)
        generation, _ = start_move(lab, events, "ar2", prefix)
        flow.wait_for_traffic(ENOUGH)
        assert lab.binding(prefix)["state"] == "BINDING_STATE_MOVING"
        assert lab.bgp_best("core", prefix) is None
    wait_settled(events, prefix, generation)
    assert lab.bgp_best("core", prefix) == (AWAY, 101)
    end = time.monotonic_ns()
    flow.stop()
    assert_nothing_lost(flow, begin, end)
    audit(lab)


def test_a_northbound_that_stops_answering_is_told_and_makes_good_what_waited(lab, events, prefix, flow):
    begin = time.monotonic_ns()
    with port_closed(lab, "ar2", "drop", staticd_too=False):
        generation, _ = start_move(lab, events, "ar2", prefix)
        wait_for_health(lab, "ar2", "has not answered", "restart staticd")
    wait_settled(events, prefix, generation)
    end = time.monotonic_ns()
    flow.stop()
    assert_nothing_lost(flow, begin, end)
    audit(lab)


def test_staticd_ends_when_it_is_asked_to(lab, prefix):
    assert prefix
    pid = lab.output("ar2", "cat", "/run/frr/staticd.pid").strip()
    lab.run("ar2", "kill", "-INT", pid)
    # gRPC's server waits 20 s for a client that does not go.
    scenarios.wait_until("staticd has ended", lambda: lab.run("ar2", "kill", "-0", pid, check=False).returncode != 0, seconds=10)
    audit(lab)


@pytest.mark.parametrize("daemon", ["bgpd", "staticd"])
def test_when_the_anchor_s_daemon_is_gone_traffic_falls_back_on_the_home_ar(lab, away, flow, daemon):
    begin = time.monotonic_ns()
    stop_watchfrr(lab, "ar2")
    try:
        kill_frr(lab, "ar2", daemon)
        scenarios.wait_until("the core has given the /64 up", lambda: lab.bgp_best("core", away) is None)
        flow.wait_for_traffic(ENOUGH)
    finally:
        start_frr(lab, "ar2")
    scenarios.wait_until("announced again", lambda: lab.bgp_best("core", away) == (AWAY, 101), seconds=30)
    flow.wait_for_traffic(ENOUGH)
    end = time.monotonic_ns()
    flow.stop()
    assert_nothing_lost(flow, begin, end)
    audit(lab)


def test_a_move_while_the_old_ar_has_no_bgpd_settles_when_it_is_back(lab, events, prefix, flow):
    begin = time.monotonic_ns()
    stop_watchfrr(lab, "ar1")
    try:
        kill_frr(lab, "ar1", "bgpd")
        generation, _ = start_move(lab, events, "ar2", prefix)
        scenarios.wait_until("announced", lambda: lab.bgp_best("core", prefix) == (AWAY, 101))
        flow.wait_for_traffic(ENOUGH)
        # Nobody can tell yet whether ar1 itself would follow BGP.
        assert lab.binding(prefix)["state"] == "BINDING_STATE_MOVING"
    finally:
        start_frr(lab, "ar1")
    wait_settled(events, prefix, generation)
    end = time.monotonic_ns()
    flow.stop()
    assert_nothing_lost(flow, begin, end)
    audit(lab)


@pytest.mark.parametrize("ar", ["ar1", "ar2"])
def test_a_killed_zebra_takes_nothing_along(lab, events, away, flow, ar):
    begin = time.monotonic_ns()
    old = lab.output(ar, "cat", "/run/frr/zebra.pid")
    kill_frr(lab, ar, "zebra")
    scenarios.wait_until("zebra runs again", lambda: lab.output(ar, "cat", "/run/frr/zebra.pid") != old)
    audit(lab)
    flow.wait_for_traffic(ENOUGH)
    end = time.monotonic_ns()
    flow.stop()
    assert_nothing_lost(flow, begin, end)
    lab.move(events, "ar1", away)
    audit(lab)


@pytest.mark.parametrize("ar", ["ar1", "ar2"])
def test_a_restart_of_all_frr_takes_nothing_along(lab, events, away, flow, ar):
    begin = time.monotonic_ns()
    lab.run(ar, "/usr/lib/frr/frrinit.sh", "restart")
    audit(lab)
    flow.wait_for_traffic(ENOUGH)
    end = time.monotonic_ns()
    flow.stop()
    assert_nothing_lost(flow, begin, end)
    lab.move(events, "ar1", away)
    audit(lab)


# Daemons in the middle of a move


@pytest.fixture(name="aim", scope="module")
def fixture_aim(lab, events):
    prefix = lab.prefix_of(lab.mn_address())
    if lab.binding(prefix)["attached_ar"] != "ar1":
        lab.move(events, "ar1", prefix)
    aim = kill_table.Aim(seed=1)
    for direction in kill_table.DIRECTIONS:
        aim.learn(direction, kill_table.unharmed_move(lab, prefix, direction))
    return aim


# One kill of each; tests/lab/kill_table.py has all stages of both directions.
KILLS = [
    ("kedge-lm", "away", "attach committed"),
    ("kedge-speaker, old AR", "away", "new AR delivers"),
    ("kedge-speaker, new AR", "away", "RA sent"),
    ("staticd, new AR", "away", "FRR committed the /64"),
    ("bgpd, new AR", "away", "FRR committed the /64"),
    ("zebra, new AR", "away", "FRR committed the /64"),
    ("all of FRR, new AR", "away", "settled"),
    ("staticd, old AR", "home", "FRR committed the /64"),
    ("bgpd, old AR", "home", "FRR committed the /64"),
    ("zebra, old AR", "home", "old AR redirects"),
    ("all of FRR, old AR", "home", "MN heard"),
    ("all of FRR, new AR", "home", "old AR's bgpd prefers"),
    ("bgpd, reflector", "home", "FRR committed the /64"),
]


@pytest.mark.parametrize("name, direction, stage", KILLS)
def test_a_daemon_killed_in_the_middle_of_a_planned_move_takes_nothing_along(
    lab, events, aim, prefix, flow, record_property, name, direction, stage
):
    if direction == "home":
        lab.move(events, "ar2", prefix)
        audit(lab)
    kill = kill_table.kill_during_move(lab, prefix, kill_table.VICTIMS[name], direction, aim.delay_ms(direction, stage))
    # On a loaded machine another one than was aimed at.
    record_property("stage", kill.stage)
    assert kill.repair.wrong == []
    audit(lab)
    flow.stop()
    assert_nothing_lost(flow, *kill.window)


# Links, whole access routers, the way to the LM


@contextlib.contextmanager
def without_uplink(lab, ar):
    lab.run(ar, "ip", "link", "set", "eth1", "down")
    try:
        yield
    finally:
        lab.run(ar, "ip", "link", "set", "eth1", "up")
        # Its addresses and routes went with it, and come back with it as an interface manager would have it.
        lab.run(ar, "sh", "-c", "grep -w eth1 /etc/kedge/network.ip | ip -6 -force -batch -", check=False)


@pytest.mark.parametrize("ar, lossless", [("ar1", True), ("ar2", False)])
def test_an_access_router_s_uplink_goes_and_comes_back(lab, events, away, flow, ar, lossless):
    """Of the home AR while the prefix is away: its traffic does not pass there. Of the anchor: it is cut off for as long as the link is down."""
    begin, locator = time.monotonic_ns(), {"ar1": "2001:db8:a1::1", "ar2": AWAY}[ar]
    pool = {"ar1": "2001:db8:1000::/48", "ar2": "2001:db8:2000::/48"}[ar]
    with without_uplink(lab, ar):
        scenarios.wait_until(f"the core has no way to {locator}", lambda: lab.bgp_best("core", pool) is None, seconds=30)
        if lossless:
            flow.wait_for_traffic(ENOUGH)
    audit(lab, seconds=60)
    flow.wait_for_traffic(ENOUGH)
    end = time.monotonic_ns()
    flow.wait_for_traffic(ENOUGH)
    after = time.monotonic_ns()
    flow.stop()
    assert_nothing_lost(flow, begin if lossless else end, after)
    lab.move(events, "ar1", away)
    audit(lab)


@contextlib.contextmanager
def writable_frr_configuration(lab, ar):
    """So that `write` works: in the topology the file is bound from outside, to be read only."""
    lab.run(ar, "sh", "-c", "cp /etc/frr/frr.conf /run/frr.conf && umount /etc/frr/frr.conf && cp /run/frr.conf /etc/frr/frr.conf")
    try:
        yield
    finally:
        lab.run(ar, "sh", "-c", "mount --bind /run/frr.conf /etc/frr/frr.conf", check=False)


def test_a_rebooted_access_router_announces_none_of_the_statics_that_its_configuration_has_saved(lab, events, away, flow, tmp_path):
    with writable_frr_configuration(lab, "ar2"):
        lab.run("ar2", "vtysh", "-c", "write")
        saved = lab.output("ar2", "cat", "/etc/frr/frr.conf")
    assert f"ipv6 route {away} blackhole tag 1\n" in saved
    (tmp_path / "frr.conf").write_text(saved, encoding="utf-8")
    lab.move(events, "ar1", away)
    audit(lab)
    file = tmp_path / "routes"
    heard = lab.start("core", "sh", "-c", f"exec stdbuf -oL ip -6 monitor route >{file}")

    def seen(mark):
        """All changes of routes in the core up to now are in the file. The mark is a route that comes and goes."""
        for verb in ("add", "del"):
            lab.run("core", "ip", "-6", "route", verb, "blackhole", mark)
        return file.exists() and mark in file.read_text()

    scenarios.wait_until("the core's routes are watched", lambda: seen("2001:db8:ffff:1::/64"))
    begin = time.monotonic_ns()
    reboot(lab, "ar2", {"/etc/frr/frr.conf": tmp_path / "frr.conf"})
    audit(lab, seconds=60)
    end = time.monotonic_ns()
    scenarios.wait_until("all changes have been written", lambda: seen("2001:db8:ffff:2::/64"))
    scenarios.stop_process(heard)
    assert [route for route in file.read_text().splitlines() if away in route] == []
    flow.stop()
    assert_nothing_lost(flow, begin, end)
    assert "blackhole" not in lab.output("ar2", "cat", "/etc/frr/frr.conf")
    lab.move(events, "ar2", away)
    audit(lab)


def test_an_access_router_that_reboots_serves_its_mobile_nodes_again(lab, prefix, flow):
    assert lab.binding(prefix)["attached_ar"] == "ar1"
    reboot(lab, "ar1")
    audit(lab, seconds=60)
    flow.wait_for_traffic(ENOUGH)
    begin = time.monotonic_ns()
    flow.wait_for_traffic(ENOUGH)
    end = time.monotonic_ns()
    flow.stop()
    assert_nothing_lost(flow, begin, end)


@contextlib.contextmanager
def lm_unreachable(lab, verdict):
    rules = f"table inet test_fault {{ chain input {{ type filter hook input priority -10; iifname eth1 tcp dport 8818 {verdict}; }}; }}"
    lab.run("lm", "nft", rules)
    try:
        yield
    finally:
        lab.run("lm", "nft", "delete table inet test_fault")


# How long, and whether the way to the LM answers or is silent. KEDGE_LONG_TESTS adds the minute.
OUTAGES = [(1, "reject with tcp reset")] + ([(60, "drop")] if os.environ.get("KEDGE_LONG_TESTS") else [])


@pytest.mark.parametrize("seconds, verdict", OUTAGES)
def test_moves_while_the_lm_is_unreachable_are_made_good_afterwards(lab, events, prefix, flow, seconds, verdict):
    begin = time.monotonic_ns()
    with lm_unreachable(lab, verdict):
        flow.wait_for_traffic(ENOUGH)
        unmoved = time.monotonic_ns()
        until = time.monotonic() + seconds
        moves = 0
        while moves < 3 or time.monotonic() < until:
            for target in ("ar2", "ar1"):
                lab.run("mn1", "move", target, "--wait", "100", "--overlap", "0")
            moves += 2
        lab.run("mn1", "move", "ar2", "--wait", "100", "--overlap", "0")
        assert lab.binding(prefix)["attached_ar"] == "ar1"
    scenarios.wait_until("attached where the node is", lambda: lab.binding(prefix)["attached_ar"] == "ar2", seconds=30)
    audit(lab)
    flow.wait_for_traffic(ENOUGH)
    end = time.monotonic_ns()
    flow.wait_for_traffic(ENOUGH)
    after = time.monotonic_ns()
    flow.stop()
    # Speakers forward without the LM; a node that has left its access router is reached again once the LM is.
    assert_nothing_lost(flow, begin, unmoved)
    assert_nothing_lost(flow, end, after)
    assert lab.bgp_best("core", prefix) == (AWAY, 101)


# Mobile nodes and configurations


def wait_restarted(lab, node, name, old):
    scenarios.wait_until(f"{name} of {node} runs again", lambda: lab.run(node, "pidof", name, check=False).stdout.strip() not in ("", old))


SOLICIT = scenarios.REPOSITORY / "tests" / "lab" / "solicit.py"


def configure(lab, node, name, change):
    """Changes a daemon's configuration by a function of its text and restarts the daemon."""
    file = {"kedge-lm": "lm.yaml", "kedge-speaker": "speaker.yaml"}[name]
    text = change(lab.output(node, "cat", f"/etc/kedge/{file}"))
    # In the node's own folder, seen from outside.
    (lab.lab.node_folder(node) / "run" / file).write_text(text, encoding="utf-8")
    old = lab.output(node, "pidof", name).strip()
    lab.run(node, "kill", old)
    wait_restarted(lab, node, name, old)


@pytest.fixture(name="quick", scope="module")
def fixture_quick(root):
    """A lab of its own in which mobile nodes that are gone are missed soon."""
    assert root is None
    with scenarios.lab_up(HANDOVER, f"t{os.getpid()}-faults-quick") as up:
        configure(up, "lm", "kedge-lm", lambda text: text.replace("mobility:\n", "mobility:\n  detach_grace: 1s\n"))
        for ar in ("ar1", "ar2"):
            configure(up, ar, "kedge-speaker", lambda text: text.replace("[eth2]", "[eth2]\n  probe_after: 1s\n  probe_interval: 200ms"))
        up.wait_synced()
        scenarios.wait_until("the mobile node has settled", lambda: any(b["state"] == "BINDING_STATE_SETTLED" for b in up.bindings()))
        yield up


def binding_of(lab, mn):
    return next((binding for binding in lab.bindings() if binding["mn_id"] == mn), None)


def solicit(lab, port, mn, *fault):
    lab.run("mn1", "/usr/bin/python3", SOLICIT, port, mn, *fault)


BAD_SOLICITATIONS = ["hop-limit", "checksum", "option-zero", "option-beyond", "global-source", "code", "short"]


@pytest.mark.parametrize("fault", BAD_SOLICITATIONS)
def test_a_bad_router_solicitation_attaches_nobody_and_a_good_one_still_does(quick, fault):
    number = BAD_SOLICITATIONS.index(fault)
    bad, good = f"02:00:00:00:ee:{number:02x}", f"02:00:00:00:dd:{number:02x}"
    speaker = quick.speaker_pid("ar1")
    for _ in range(3):
        solicit(quick, "eth1", bad, fault)
    # What came in after the bad one has been done, so the bad one has been looked at.
    solicit(quick, "eth1", good)
    scenarios.wait_until("the good one is attached", lambda: binding_of(quick, good))
    assert binding_of(quick, bad) is None
    solicit(quick, "eth1", bad)
    scenarios.wait_until("the other is attached once it asks as it should", lambda: binding_of(quick, bad))
    assert quick.speaker_pid("ar1") == speaker


def test_mobile_nodes_that_never_answer_are_detached(quick):
    mn = "02:00:00:00:cc:01"
    solicit(quick, "eth1", mn)
    scenarios.wait_until("attached", lambda: binding_of(quick, mn))
    scenarios.wait_until("detached", lambda: binding_of(quick, mn)["state"] == "BINDING_STATE_DETACHED", seconds=30)
    audit(quick)


def unreachable_heard(lab):
    lines = (line.split() for line in lab.output("cn", "cat", "/proc/net/snmp6").splitlines())
    return int(dict(lines)["Icmp6InDestUnreachs"])


def test_a_mobile_node_that_vanished_is_answered_for_and_gets_its_prefixes_again(quick):
    events = scenarios.Events(quick)
    address = quick.mn_address()
    prefix = quick.prefix_of(address)
    quick.move(events, "ar2", prefix)
    events.close()
    before = {b["prefix"]: b["home_ar"] for b in quick.bindings() if b["mn_id"] == "02:00:00:00:00:11"}
    assert len(before) == 2
    quick.run("mn1", "ip", "link", "set", "eth1", "down")
    quick.run("mn1", "ip", "link", "set", "eth2", "down")
    scenarios.wait_until("detached", lambda: all(quick.binding(p)["state"] == "BINDING_STATE_DETACHED" for p in before))
    # Its home answers, and the other access router has let go: neither route nor announcement.
    audit(quick)
    assert [holder["ar"] for holder in quick.binding(prefix)["holders"]] == ["ar1"]
    heard = unreachable_heard(quick)
    quick.run("cn", "ping", "-c", "3", "-i", "0.2", "-W", "1", address, check=False)
    assert unreachable_heard(quick) >= heard + 1

    quick.run("mn1", "move", "ar1", "--gap", "0")
    scenarios.wait_until("settled again", lambda: quick.binding(prefix)["state"] == "BINDING_STATE_SETTLED")
    audit(quick)
    assert {b["prefix"]: b["home_ar"] for b in quick.bindings() if b["mn_id"] == "02:00:00:00:00:11"} == before
    assert quick.binding(prefix)["attached_ar"] == "ar1"
    assert quick.run("cn", "ping", "-c", "1", "-W", "5", address).returncode == 0


def test_an_access_router_that_the_lm_does_not_know_goes_on_trying_until_it_does(root):
    assert root is None
    mn = "02:00:00:00:bb:01"
    with scenarios.lab_up(HANDOVER, f"t{os.getpid()}-faults-unknown") as lab:
        lab.wait_synced()
        speaker = lab.speaker_pid("ar2")
        configure(lab, "lm", "kedge-lm", lambda text: text.replace("name: ar2", "name: ar9"))

        def told():
            log = lab.output("ar2", "cat", "/var/log/kedge/kedge-speaker.log").replace("\\", "")
            return 'access router "ar2" is unknown; the LM\'s configuration has ar1, ar9' in log

        scenarios.wait_until("the log says what is wrong", told)
        lab.run("mn1", "ip", "link", "set", "eth2", "up")
        solicit(lab, "eth2", mn)
        # The other one is served meanwhile.
        other = "02:00:00:00:bb:02"
        solicit(lab, "eth1", other)
        scenarios.wait_until("attached at ar1", lambda: binding_of(lab, other))
        assert binding_of(lab, mn) is None

        configure(lab, "lm", "kedge-lm", lambda text: text.replace("name: ar9", "name: ar2"))
        lab.wait_synced()
        solicit(lab, "eth2", mn)
        scenarios.wait_until("attached at ar2", lambda: (binding_of(lab, mn) or {}).get("attached_ar") == "ar2")
        assert lab.speaker_pid("ar2") == speaker
