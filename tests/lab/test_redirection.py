"""RFC 8818, 4.2, Figures 5 and 6: the home access router stays the anchor, and the mobile node's old address uses it in both directions."""

import re
import shutil
import subprocess

import conftest
import pytest
import scenario as scenarios
from audit import audit

CN_TO_MN, MN_TO_CN = "a_to_b", "b_to_a"
AR1, AR2 = "2001:db8:a1::1", "2001:db8:a2::1"
UPLINK_SID, DELIVER_SID = "2001:db8:a1::e", "2001:db8:a2::d"
CN = scenarios.CN_ADDRESS


@pytest.fixture(name="lab", scope="module")
def fixture_lab(root, request, tmp_path_factory):
    """The handover topology with the LM in redirection mode."""
    folder = tmp_path_factory.mktemp("redirection") / "handover"
    shutil.copytree(conftest.HANDOVER, folder)
    file = folder / "nodes" / "lm" / "lm.yaml"
    file.write_text(file.read_text().replace("mobility:\n", "mobility:\n  mode: redirect\n"))
    with scenarios.lab_up(folder, conftest.lab_name(request)) as up:
        up.wait_synced()
        yield up


@pytest.fixture(name="prefix")
def fixture_prefix(lab, events):
    """IP1's /64, with the MN at home and everything settled."""
    prefix = lab.prefix_of(lab.mn_address())
    if lab.binding(prefix)["attached_ar"] != "ar1":
        lab.move(events, "ar1", prefix)
    scenarios.wait_until("settled at home", lambda: lab.binding(prefix)["state"] == "BINDING_STATE_SETTLED")
    return prefix


@pytest.fixture(name="flow")
def fixture_flow(lab, prefix, tmp_path):
    assert prefix
    flow = scenarios.Flow(lab, tmp_path / "flow")
    yield flow
    flow.abort()


class Capture:
    """Packets on an interface of a node, as tcpdump writes them: "time text"."""

    def __init__(self, lab, folder, node, interface, expression="ip6"):
        self.file = folder / f"{node}-{interface}.pcap"
        self._process = lab.start(node, "tcpdump", "-n", "-U", "--immediate-mode", "-Z", "root", "-B", "16384", "-s", "160", "-i", interface, "-w", self.file, expression)
        while "listening on" not in (line := self._process.stderr.readline()):
            assert line, "tcpdump did not start"

    def stop(self):
        """[(seconds since 1970, text)]"""
        scenarios.stop_process(self._process)
        output = subprocess.run(["tcpdump", "-n", "-tt", "-r", str(self.file)], capture_output=True, text=True, check=True).stdout
        return [(float(time), text) for time, _, text in (line.partition(" ") for line in output.splitlines())]


def flow_packets(packets, start):
    return [time for time, text in packets if re.match(start, text)]


def plain(source, target):
    return rf"IP6 {source}\.\d+ > {target}\.\d+: UDP"


def tunnelled(outer_source, outer_target, source, target):
    return rf"IP6 {outer_source} > {outer_target}: {plain(source, target)}"


def held(lab, ar):
    return "".join(lab.output(ar, "ip", "-6", "route", "show", "table", table) for table in ("8818", "8819", "8820"))


def test_both_directions_go_through_the_old_anchor_and_a_planned_move_loses_nothing(lab, events, prefix, flow, tmp_path):
    ip1 = lab.mn_address()
    old = Capture(lab, tmp_path, "ar1", "eth1")
    new = Capture(lab, tmp_path, "ar2", "eth1")
    away = lab.move(events, "ar2", prefix)
    state = {"binding": lab.binding(prefix), "ar2": held(lab, "ar2"), "bgp": lab.bgp_best("core", prefix)}
    new_packets = new.stop()
    old_packets = old.stop()
    home = lab.move(events, "ar1", prefix)
    flow.stop()
    for move in (away, home):
        report = flow.report(move["window"])
        assert report[CN_TO_MN]["sent"] > 50 and report[MN_TO_CN]["sent"] > 50
        assert (report[CN_TO_MN]["lost"], report[MN_TO_CN]["lost"]) == (0, 0), move

    assert state["binding"]["mode"] == "MODE_REDIRECT" and not state["binding"].get("preference")
    assert state["bgp"] is None, "RFC 8818, 4.2: the old anchor still anchors; no /64 in BGP"
    assert f"default from {prefix}" in state["ar2"] and UPLINK_SID in state["ar2"]
    # Uplink: AR2 -> AR1 in the tunnel, then from AR1 as it is. Downlink: to AR1 by the aggregate, then in the tunnel to AR2.
    into = flow_packets(old_packets, tunnelled(AR2, UPLINK_SID, ip1, CN))
    on = flow_packets(old_packets, plain(ip1, CN))
    assert len(into) > 20
    assert len([time for time in on if time >= into[0]]) >= len(into) - 5
    assert len(flow_packets(old_packets, tunnelled(AR1, DELIVER_SID, CN, ip1))) > 20
    assert not [time for time in flow_packets(new_packets, plain(ip1, CN)) if time > into[0]], "left AR2 outside of the tunnel"
    assert not flow_packets(new_packets, plain(CN, ip1))


def test_the_arrows_of_figure_5(lab, events, prefix, flow, tmp_path):
    """MN -> AR2: RS; AR2 -> MN: RA(IP2, IP1); then the flow MN - AR2 = AR1 - CN."""
    ip1 = lab.mn_address()
    access = Capture(lab, tmp_path, "ar2", "eth2", "ip6")
    core = Capture(lab, tmp_path, "ar2", "eth1", "ip6")
    lab.move(events, "ar2", prefix)
    ip2 = lab.mn_address(within="2001:db8:2000:")
    on_access, in_core = access.stop(), core.stop()
    flow.stop()

    # The access router may hear the MN by another sign before its solicitation, and advertise twice then.
    solicitation = next(time for time, text in on_access if "router solicitation" in text)
    assert [time for time, text in on_access if "router advertisement" in text and time > solicitation], "RS without RA"
    first_sign = next(time for time, text in on_access if not text.startswith("IP6 fe80::1 >"))
    assert first_sign <= solicitation
    up = flow_packets(in_core, tunnelled(AR2, UPLINK_SID, ip1, CN))
    down = flow_packets(in_core, tunnelled(AR1, DELIVER_SID, CN, ip1))
    assert len(up) > 20 and len(down) > 20
    assert first_sign < up[0] and first_sign < down[0]
    # RA(IP2, IP1): both prefixes in one, the old one deprecated.
    details = subprocess.run(["tcpdump", "-n", "-tt", "-vv", "-r", str(access.file)], capture_output=True, text=True, check=True).stdout
    advertisements = re.findall(r"router advertisement.*?(?=\n\d{9,})", details, re.DOTALL)
    lifetimes = [dict(re.findall(r"prefix info option.*?: ([0-9a-f:]+/64),.*?pref\. time (\w+)", text)) for text in advertisements]
    both = next(found for found in lifetimes if len(found) == 2)
    new_prefix = lab.prefix_of(ip2)
    assert both[prefix] == "0s" and both[new_prefix] not in ("0s", "0")


def test_the_new_prefix_uses_the_new_ar_directly(lab, events, prefix, tmp_path):
    lab.move(events, "ar2", prefix)
    ip2 = lab.mn_address(within="2001:db8:2000:")
    capture = Capture(lab, tmp_path, "ar2", "eth1", "ip6")
    assert " 0% packet loss" in lab.output("mn1", "ping", "-n", "-c", "3", "-i", "0.05", "-W", "3", "-I", ip2, CN)
    packets = [text for _, text in capture.stop() if ip2 in text]
    assert len([text for text in packets if text.startswith(f"IP6 {ip2} > {CN}: ICMP6, echo request")]) == 3
    assert not [text for text in packets if AR1 in text or UPLINK_SID in text]
    # New communication prefers it (RFC 6724, rule 3).
    assert ip2 in lab.output("mn1", "ip", "-6", "route", "get", CN)


def test_the_mn_is_told_of_the_tunnels_mtu(lab, events, prefix):
    ip1 = lab.mn_address()
    lab.move(events, "ar2", prefix)
    result = lab.run("mn1", "ping", "-n", "-c", "2", "-i", "0.1", "-W", "3", "-M", "do", "-s", "1452", "-I", ip1, CN, check=False)
    assert "mtu=1460" in result.stdout + result.stderr or "mtu: 1460" in result.stdout + result.stderr
    assert " 0% packet loss" in lab.output("mn1", "ping", "-n", "-c", "3", "-i", "0.05", "-W", "3", "-M", "do", "-s", "1412", "-I", ip1, CN)


def test_nothing_is_left_after_the_return_home(lab, events, prefix, flow):
    before = held(lab, "ar1")
    moves = [lab.move(events, target, prefix) for target in ("ar2", "ar1") * 5]
    audit(lab)
    flow.stop()
    for move in moves:
        report = flow.report(move["window"])
        lost = [(direction, loss) for direction in (CN_TO_MN, MN_TO_CN) for loss in report[direction]["losses"]]
        assert not lost, (move, [(loss, report["base_ns"] + loss["last_sent_at_ms"] * 1e6) for _, loss in lost])
    scenarios.wait_until("nothing of the prefix is left at ar2", lambda: prefix not in held(lab, "ar2"))
    scenarios.wait_until("ar1 holds what it held", lambda: held(lab, "ar1") == before)
    assert [h["ar"] for h in lab.binding(prefix)["holders"]] == ["ar1"]


def test_a_speaker_that_dies_leaves_the_tunnel_and_takes_it_up_again(lab, events, prefix, flow):
    lab.move(events, "ar2", prefix)
    before = held(lab, "ar2")
    old = lab.speaker_pid("ar2")
    lab.kill("ar2", "kedge-speaker")
    scenarios.wait_until(
        "the speaker runs again", lambda: lab.run("ar2", "pidof", "kedge-speaker", check=False).stdout.split() not in ([], [str(old)])
    )
    lab.wait_synced()
    assert held(lab, "ar2") == before
    audit(lab)
    flow.stop()
    report = flow.report()
    assert (report[CN_TO_MN]["lost"], report[MN_TO_CN]["lost"]) == (0, 0)
