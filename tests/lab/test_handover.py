"""The whole journey on real FRR and the kernel: a mobile node with a running flow moves between two access routers."""

import json
import pathlib
import textwrap
import time

import order
import pytest
import scenario as scenarios

TOPOLOGY = scenarios.REPOSITORY / "containerlab" / "handover"
CN_TO_MN, MN_TO_CN = "a_to_b", "b_to_a"
FOREIGN = "2001:db8:ffff::/64"


def routes(lab, ar, table):
    return lab.output(ar, "ip", "-6", "route", "show", "table", str(table))


def tagged_statics(lab, ar):
    return [line for line in lab.output(ar, "vtysh", "-c", "show running-config").splitlines() if " tag " in line and "ipv6 route" in line]


def redirected_at(lab, events, move):
    """Monotonic nanoseconds at which the old AR's kernel had taken the redirect."""
    found = [
        scenarios.timestamp_ns(e["at"]) - lab.wall_offset_ns
        for e in events.all()
        if e["type"] == "EVENT_TYPE_REDIRECTING" and e["generation"] == move["generation"]
    ]
    assert found, "no redirect was programmed"
    return max(found)


def lost(report, direction):
    return report[direction]["lost"]


def test_planned_move_away_and_home_lose_nothing(lab, events, prefix, flow):
    away = lab.move(events, "ar2", prefix)
    home = lab.move(events, "ar1", prefix)
    flow.stop()
    for move in (away, home):
        report = flow.report(move["window"])
        assert report[CN_TO_MN]["sent"] > 50 and report[MN_TO_CN]["sent"] > 50
        assert (lost(report, CN_TO_MN), lost(report, MN_TO_CN)) == (0, 0), move
        assert report[CN_TO_MN]["duplicated"] == 0


def test_break_before_make_loses_nothing_once_the_old_anchor_redirects(lab, events, prefix, flow):
    move = lab.move(events, "ar2", prefix, gap_ms=0)
    flow.stop()
    report = flow.report(move["window"])
    redirect = redirected_at(lab, events, move)
    late = [loss for loss in report[CN_TO_MN]["losses"] if report["base_ns"] + loss["last_sent_at_ms"] * 1e6 > redirect]
    assert not late, f"lost although sent after the redirect was programmed: {late}"
    # BGP came later: what arrived in between came by the tunnel.
    assert move["timeline"]["redirect_programmed"] < move["timeline"]["best_path_changed"]


def test_zebra_takes_up_no_route_of_the_speaker_s_tables(lab, events, prefix):
    # What it knows of it has to look up the next hop of, among those of all mobile nodes.
    lab.move(events, "ar2", prefix)
    for ar, tables in (("ar1", (8818, 8819)), ("ar2", (8818, 8820))):
        for table in tables:
            assert prefix in routes(lab, ar, table)
            foreign = ("unreachable", FOREIGN, "table", table, "proto", "99")
            lab.run(ar, "ip", "-6", "route", "add", *foreign)
            try:
                command = (ar, "vtysh", "-c", f"show ipv6 route table {table}")
                scenarios.wait_until("zebra has taken up another's route", lambda command=command: FOREIGN in lab.output(*command))
                assert prefix not in lab.output(*command)
            finally:
                lab.run(ar, "ip", "-6", "route", "delete", *foreign)


def test_a_move_leaves_the_states_that_it_should(lab, events, prefix):
    lab.move(events, "ar2", prefix)
    assert f"{prefix} via" in routes(lab, "ar2", 8818) and "dev eth2" in routes(lab, "ar2", 8818)
    # RFC 8818, 4.2: the home AR goes on forwarding to the new location while the prefix is away.
    assert f"{prefix} via" in routes(lab, "ar1", 8818) and "dev kx0" in routes(lab, "ar1", 8818)
    assert "2001:db8:a2::d" in routes(lab, "ar1", 8819)
    assert lab.bgp_best("core", prefix) == ("2001:db8:a2::1", 101)
    assert any(prefix in line for line in tagged_statics(lab, "ar2"))

    lab.move(events, "ar1", prefix)
    assert prefix not in routes(lab, "ar2", 8818)
    # Packets already between kx0 and kx1 may still need these for a moment.
    scenarios.wait_until("no encapsulation is left", lambda: all(prefix not in routes(lab, ar, 8819) for ar in ("ar1", "ar2")))
    assert "dev eth2" in routes(lab, "ar1", 8818)
    scenarios.wait_until("core has no /64 any more", lambda: lab.bgp_best("core", prefix) is None)
    for ar in ("ar1", "ar2"):
        assert not any(prefix in line for line in tagged_statics(lab, ar))
    assert [h["ar"] for h in lab.binding(prefix)["holders"]] == ["ar1"]


def test_the_mn_keeps_its_address_and_gets_one_of_the_new_ar(lab, events, prefix):
    before = lab.mn_address()
    lab.move(events, "ar2", prefix)
    new = lab.mn_address(within="2001:db8:2000:")
    state = json.loads(lab.output("mn1", "ip", "-j", "-6", "address", "show", "dev", "br0", "scope", "global"))
    flags = {a["local"]: a for link in state for a in link.get("addr_info", []) if "local" in a}
    assert before in flags and flags[before].get("deprecated"), "RFC 8818, Figure 5: RA(IP2, IP1) with IP1 deprecated"
    assert not flags[new].get("deprecated")
    # New communication prefers the new address (RFC 6724, rule 3).
    assert new in lab.output("mn1", "ip", "-6", "route", "get", scenarios.CN_ADDRESS)


def test_no_redirect_before_its_target_delivers(lab, events, prefix):
    for target in ("ar2", "ar1") * 5:
        lab.move(events, target, prefix)
    order.check_order(events.all(), prefix)


RECEIVER = """
import hashlib, socket
server = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
server.bind(("{address}", 9100)); server.listen(1)
print("listening", flush=True)
connection, _ = server.accept()
digest, total = hashlib.sha256(), 0
while data := connection.recv(65536):
    if total < 1000000 <= total + len(data):
        print("receiving", flush=True)
    digest.update(data); total += len(data)
print(total, digest.hexdigest(), flush=True)
"""

SENDER = """
import hashlib, pathlib, socket
connection = socket.create_connection(("{address}", 9100), timeout=20)
digest, total, block = hashlib.sha256(), 0, bytes(range(256)) * 256
stop = pathlib.Path("/run/kedge/stop-sending")
while not stop.exists():
    connection.sendall(block); digest.update(block); total += len(block)
connection.close()
print(total, digest.hexdigest(), flush=True)
"""


def packets_too_big(lab):
    counters = dict(line.split() for line in lab.output("cn", "cat", "/proc/net/snmp6").splitlines())
    return int(counters["Icmp6InPktTooBigs"])


def test_a_bulk_tcp_transfer_of_full_packets_goes_on_through_a_move(lab, events, prefix):
    address = lab.mn_address()
    lab.run("cn", "rm", "-f", "/run/kedge/stop-sending")
    before = packets_too_big(lab)
    receiver = lab.start("mn1", "/usr/bin/python3", "-c", textwrap.dedent(RECEIVER).format(address=address))
    assert receiver.stdout.readline().strip() == "listening"
    sender = lab.start("cn", "/usr/bin/python3", "-c", textwrap.dedent(SENDER).format(address=address))
    assert receiver.stdout.readline().strip() == "receiving"
    lab.move(events, "ar2", prefix)
    lab.run("cn", "touch", "/run/kedge/stop-sending")
    sent, errors = sender.communicate(timeout=60)
    received, _ = receiver.communicate(timeout=60)
    assert sent and sent == received, errors
    # The tunnel's MTU is 40 less; the sender itself must have been told (RFC 4443, 3.2).
    assert packets_too_big(lab) > before


def test_killing_the_lm_during_a_flow_loses_neither_packet_nor_binding(lab, events, prefix, flow):
    lab.move(events, "ar2", prefix)
    before = {b["prefix"]: b for b in lab.bindings()}
    begin = time.monotonic_ns()
    lab.kill("lm", "kedge-lm")
    scenarios.wait_until("the LM is back with both speakers", lab.synced)
    end = time.monotonic_ns()
    after = {b["prefix"]: b for b in lab.bindings()}
    assert {p: (b["attached_ar"], b["home_ar"], b["mn_id"]) for p, b in before.items()} == {
        p: (b["attached_ar"], b["home_ar"], b["mn_id"]) for p, b in after.items()
    }
    flow.stop()
    report = flow.report((begin, end))
    assert (lost(report, CN_TO_MN), lost(report, MN_TO_CN)) == (0, 0)


@pytest.mark.parametrize("ar", ["ar1", "ar2"])
def test_killing_a_speaker_during_a_flow_loses_neither_packet_nor_binding(lab, events, prefix, flow, ar):
    lab.move(events, "ar2", prefix)
    begin = time.monotonic_ns()
    old = lab.speaker_pid(ar)
    lab.kill(ar, "kedge-speaker")
    scenarios.wait_until("the speaker runs again", lambda: lab.run(ar, "pidof", "kedge-speaker", check=False).stdout.split() not in ([], [str(old)]))
    lab.wait_synced()
    end = time.monotonic_ns()
    assert lab.binding(prefix)["attached_ar"] == "ar2"
    # It goes on working.
    home = lab.move(events, "ar1", prefix)
    flow.stop()
    for window in ((begin, end), home["window"]):
        report = flow.report(window)
        assert (lost(report, CN_TO_MN), lost(report, MN_TO_CN)) == (0, 0)


def test_a_move_while_the_lm_is_away_is_made_good_when_it_is_back(lab, events, prefix):
    lab.run("lm", "pkill", "-STOP", "-x", "kedge-lm")
    try:
        lab.run("mn1", "move", "ar2", "--gap", "0", "--wait", "300")
    finally:
        lab.run("lm", "pkill", "-CONT", "-x", "kedge-lm")
    scenarios.wait_until("attached to ar2", lambda: lab.binding(prefix)["attached_ar"] == "ar2")
    scenarios.wait_until("settled", lambda: lab.binding(prefix)["state"] == "BINDING_STATE_SETTLED", seconds=30)


def test_an_frr_that_comes_back_is_repaired(lab, events, prefix):
    lab.move(events, "ar2", prefix)
    lab.kill("ar2", "staticd")
    scenarios.wait_until("the reflector has lost the /64", lambda: lab.bgp_best("core", prefix) is None)
    scenarios.wait_until("the reflector has it again", lambda: lab.bgp_best("core", prefix) == ("2001:db8:a2::1", 101), seconds=30)
    lab.wait_synced()


def test_the_lm_refuses_a_bad_configuration_and_says_where(lab, tmp_path):
    good = (TOPOLOGY / "nodes" / "lm" / "lm.yaml").read_text()
    bad = {
        good + "\nlistn: x\n": "listn: unknown key; did you mean 'listen'",
        good.replace("2001:db8:2000::/48", "2001:db8::/32"): "2001:db8::/32",
        good.replace("2001:db8:2000::/48", "2001:db8:1000:8000::/49"): "2001:db8:1000::/48",
    }
    for number, (text, part) in enumerate(bad.items()):
        file = pathlib.Path(tmp_path) / f"{number}.yaml"
        file.write_text(text)
        result = lab.run("lm", "kedge-lm", "--config", file, "--check", check=False)
        assert result.returncode == 2
        assert part in result.stderr + result.stdout and str(file) in result.stderr + result.stdout
