"""netlab: labs come up, are used, and go without a trace; the handover lab's routers do what the daemons build on."""

import json
import os
import pathlib
import signal
import subprocess
import textwrap
import threading

import pytest
import scenario
from conftest import lab_name

wait_until = scenario.wait_until
FAKE_ROUTER = pathlib.Path(__file__).resolve().parent / "fake_router.py"


def make_pair(folder):
    """The file of a small topology: two hosts and a link."""
    for name, number in (("a", 1), ("b", 2)):
        (folder / f"{name}.ip").write_text(f"address add 2001:db8:0:1::{number}/64 dev eth1\n")
    file = folder / "pair.clab.yml"
    file.write_text(
        textwrap.dedent(
            """
            name: pair
            topology:
              defaults: {kind: linux, image: kedge-node, network-mode: none, env: {KEDGE_ROLE: host}}
              nodes:
                a: {binds: ["a.ip:/etc/kedge/network.ip:ro"]}
                b: {binds: ["b.ip:/etc/kedge/network.ip:ro"]}
              links:
                - endpoints: ["a:eth1", "b:eth1"]
            """
        )
    )
    return file


@pytest.fixture
def pair(tmp_path):
    return make_pair(tmp_path)


@pytest.fixture
def name(root, request, netlab):
    """A name for a lab that is taken down whatever the test did."""
    unique = lab_name(request, "-one")
    yield unique
    for lab in (unique, f"{unique}-two"):
        if (pathlib.Path("/run/kedge-netlab") / lab).exists():
            netlab("down", lab)


def ping(netlab, lab, node, address):
    return netlab("exec", "-t", lab, node, "--", "ping", "-c1", "-W2", address)


# Labs come and go


def test_a_lab_comes_up_and_goes_without_a_trace(netlab, traces, pair, name):
    left = traces(name)
    result = netlab("up", pair, "--name", name)
    assert result.returncode == 0, result.stderr
    assert len(left.remember_namespaces()) == 2
    assert ping(netlab, name, "a", "2001:db8:0:1::2").returncode == 0
    # Also what somebody has started in a node and left running.
    netlab("exec", "-t", name, "a", "--", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")
    result = netlab("down", name)
    assert result.returncode == 0, result.stderr
    wait_until("no trace of the lab", lambda: not left.found())


def test_two_labs_run_side_by_side(netlab, traces, pair, name):
    other = f"{name}-two"
    left = traces(other)
    assert netlab("up", pair, "--name", name).returncode == 0
    assert netlab("up", pair, "--name", other).returncode == 0
    left.remember_namespaces()
    ambiguous = netlab("exec", "-t", pair.parent, "a", "--", "true")
    assert ambiguous.returncode == 1 and "several labs are up" in ambiguous.stderr
    assert netlab("down", other).returncode == 0
    wait_until("no trace of the second lab", lambda: not left.found())
    assert ping(netlab, name, "b", "2001:db8:0:1::1").returncode == 0


def test_a_lab_that_is_up_is_not_made_again(netlab, pair, name):
    assert netlab("up", pair, "--name", name).returncode == 0
    again = netlab("up", pair, "--name", name)
    assert again.returncode == 1
    assert f"lab {name} is up already" in again.stderr and f"netlab down {name}" in again.stderr
    assert ping(netlab, name, "a", "2001:db8:0:1::2").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["first namespace", "links are there"])
def test_an_interrupted_up_leaves_no_trace(traces, pair, name, moment, number):
    left = traces(name)
    if moment == "links are there":
        # A node that never becomes ready: its interface is in no link.
        (pair.parent / "b.ip").write_text("address add 2001:db8::1/64 dev eth7\n")
    process = start_up(pair, name)
    if moment == "links are there":
        wait_for_links(process)
        left.remember_namespaces()
    else:
        wait_until("a first namespace", lambda: process.poll() is not None or left.found(), interval=0.001)
    process.send_signal(number)
    assert process.wait(timeout=30) != 0
    process.stderr.close()
    wait_until("no trace of the lab", lambda: not left.found())


def wait_for_links(process):
    assert any("links are there" in line for line in process.stderr)


def start_up(topology, name):
    command = [scenario.NETLAB, "up", topology, "--name", name]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)


def test_what_a_killed_netlab_left_is_removed_by_down(netlab, traces, pair, name):
    left = traces(name)
    (pair.parent / "b.ip").write_text("address add 2001:db8::1/64 dev eth7\n")
    process = start_up(pair, name)
    wait_for_links(process)
    process.kill()
    process.wait(timeout=30)
    process.stderr.close()
    left.remember_namespaces()
    assert left.found()
    assert netlab("down", name).returncode == 0
    wait_until("no trace of the lab", lambda: not left.found())


def test_a_node_that_fails_is_named_with_its_reason(netlab, traces, pair, name):
    left = traces(name)
    (pair.parent / "b.ip").write_text("address add 2001:db8::1/64 dev eth1\nroute add nonsense\n")
    result = netlab("up", pair, "--name", name)
    assert result.returncode == 1
    assert "node b: failed: ip cannot apply /etc/kedge/network.ip" in result.stderr and "nonsense" in result.stderr
    wait_until("no trace of the lab", lambda: not left.found())


def test_a_node_that_is_not_ready_in_time_is_named(netlab, pair, name):
    (pair.parent / "b.ip").write_text("address add 2001:db8::1/64 dev eth7\n")
    result = netlab("up", pair, "--name", name, "--timeout", "2")
    assert result.returncode == 1
    assert "node b: not ready in time" in result.stderr and "node a" not in result.stderr


def test_without_root_netlab_says_that_it_needs_it(root):
    command = ["setpriv", "--reuid=65534", "--clear-groups", scenario.NETLAB, "status"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "needs root" in result.stderr and "sudo" in result.stderr


def test_commands_after_the_start_run_in_their_node(netlab, pair, name):
    pair.write_text(pair.read_text().replace("a: {", 'a: {exec: ["touch /run/kedge/was-here", "ping -c1 -W2 2001:db8:0:1::2"], '))
    result = netlab("up", pair, "--name", name)
    assert result.returncode == 0, result.stderr
    assert netlab("exec", "-t", name, "a", "--", "test", "-e", "/run/kedge/was-here").returncode == 0
    assert netlab("exec", "-t", name, "b", "--", "test", "-e", "/run/kedge/was-here").returncode == 1


# Commands in nodes


@pytest.fixture(scope="module")
def pair_lab(root, request, tmp_path_factory):
    file = make_pair(tmp_path_factory.mktemp("pair"))
    with scenario.lab_up(file, lab_name(request, "-pair")) as up:
        yield up


@pytest.mark.parametrize(
    "script, status", [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + signal.SIGTERM), ("exec /nonexistent", 127)]
)
def test_exec_gives_the_commands_own_status(netlab, pair_lab, script, status):
    assert netlab("exec", "-t", pair_lab.lab.name, "a", "--", "sh", "-c", script).returncode == status


def test_exec_of_an_unknown_command_or_node_says_so(netlab, pair_lab):
    result = netlab("exec", "-t", pair_lab.lab.name, "a", "--", "no-such-command")
    assert result.returncode == 127 and "no-such-command" in result.stderr
    result = netlab("exec", "-t", pair_lab.lab.name, "z", "--", "true")
    assert result.returncode == 1 and "has no node z; it has a, b" in result.stderr


def test_exec_passes_signals_on_and_leaves_no_command_behind(pair_lab):
    marker = "86399"
    for number, status in ((signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 128 + signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL)):
        process = pair_lab.start("a", "sleep", marker)
        wait_until("the command runs", lambda: pair_lab.run("a", "pgrep", "-f", f"sleep {marker}", check=False).returncode == 0)
        process.send_signal(number)
        assert process.wait(timeout=10) == status
        wait_until("the command is gone", lambda: pair_lab.run("a", "pgrep", "-f", f"sleep {marker}", check=False).returncode == 1)


def test_what_a_node_writes_to_its_own_folders_stays_there(pair_lab):
    for folder in ("/etc", "/run", "/var/log", "/var/lib/kedge"):
        mark = f"{folder}/{pair_lab.lab.name}"
        pair_lab.run("a", "touch", mark)
        assert not os.path.exists(mark)
        assert pair_lab.run("b", "test", "-e", mark, check=False).returncode == 1


def test_a_node_sees_only_its_own_processes_and_its_name(pair_lab):
    assert pair_lab.output("b", "hostname").strip() == "b"
    assert "start.sh" in pair_lab.output("b", "cat", "/proc/1/cmdline")


def test_the_ends_of_a_link_have_different_indexes(pair_lab):
    """With equal ones the kernel may act on a change of the link up to a second late."""
    ends = [json.loads(pair_lab.output(node, "ip", "-j", "link", "show", "eth1"))[0] for node in ("a", "b")]
    assert ends[0]["ifindex"] != ends[1]["ifindex"] and ends[0]["link_index"] == ends[1]["ifindex"]


def test_status_lists_every_node(netlab, pair_lab):
    result = netlab("status", "-t", pair_lab.lab.name, "-o", "json")
    assert result.returncode == 0
    assert [(row["node"], row["state"]) for row in json.loads(result.stdout)] == [("a", "ready"), ("b", "ready")]


# The routers of the handover lab


@pytest.mark.parametrize("pool, locator", [("2001:db8:1000::/48", "2001:db8:a1::1"), ("2001:db8:2000::/48", "2001:db8:a2::1")])
def test_the_core_has_each_home_pool_with_the_locator_as_next_hop(routers_lab, pool, locator):
    assert routers_lab.bgp_best("core", pool) == (locator, 100)


@pytest.mark.parametrize("tag", [1, 8])
def test_a_tag_becomes_a_local_preference(routers_lab, tag):
    prefix = f"2001:db8:1000:{tag}::/64"
    routers_lab.run("ar2", "vtysh", "-c", "configure terminal", "-c", f"ipv6 route {prefix} blackhole tag {tag}")
    best = wait_until(f"{prefix} at the core", lambda: routers_lab.bgp_best("core", prefix))
    assert best == ("2001:db8:a2::1", 100 + tag)
    routers_lab.run("ar2", "vtysh", "-c", "configure terminal", "-c", f"no ipv6 route {prefix} blackhole tag {tag}")
    wait_until(f"{prefix} has gone from the core", lambda: not routers_lab.bgp_best("core", prefix))


def test_a_static_with_a_foreign_tag_is_not_announced(routers_lab):
    routers_lab.run(
        "ar2", "vtysh", "-c", "configure terminal", "-c", "ipv6 route 2001:db8:1000:f::/64 blackhole tag 9",
        "-c", "ipv6 route 2001:db8:1000:e::/64 blackhole tag 1",
    )  # fmt: skip
    # What was configured later has arrived, so the other would have, too.
    wait_until("the tagged route", lambda: routers_lab.bgp_best("core", "2001:db8:1000:e::/64"))
    assert routers_lab.bgp_best("core", "2001:db8:1000:f::/64") is None


def test_an_address_of_the_pool_that_nobody_has_is_unreachable_and_does_not_loop(routers_lab):
    result = routers_lab.run("cn", "ping", "-c1", "-W5", "2001:db8:1000:ffff::1", check=False)
    assert "Destination unreachable" in result.stdout and "From 2001:db8:0:2::2" in result.stdout


@pytest.mark.parametrize("node, daemon", [("ar1", "bgpd"), ("ar1", "staticd"), ("ar1", "zebra"), ("ar1", "ospf6d"), ("core", "zebra")])
def test_the_home_pool_stays_in_the_cores_kernel_when_a_daemon_dies(routers_lab, node, daemon):
    def established():
        return routers_lab.bgp_best("core", "2001:db8:1000::/48") is not None and routers_lab.output(node, "pidof", daemon).strip()

    wait_until("BGP as before", established, 30)
    old = routers_lab.output(node, "pidof", daemon).strip()
    monitor = routers_lab.start("core", "ip", "-6", "monitor", "route")
    changes = []
    reader = threading.Thread(target=lambda: changes.extend(monitor.stdout))
    reader.start()
    routers_lab.kill(node, daemon)
    wait_until(f"{daemon} runs again", lambda: routers_lab.run(node, "pidof", daemon, check=False).stdout.strip() not in ("", old), 30)
    routers_lab.run(node, "wait-ready", "router", "30")
    # Past the time for which routes of a restarting neighbour are kept.
    vtysh = ["vtysh", "-c", "show bgp ipv6 unicast 2001:db8:1000::/48 json"]
    wait_until("no stale path", lambda: "stale" not in routers_lab.output("core", *vtysh), 30)
    scenario.stop_process(monitor)
    reader.join(timeout=10)
    assert not [line for line in changes if line.startswith("Deleted 2001:db8:1000::/48")]


# Moves


def ports_up(lab):
    return [name for name in ("eth1", "eth2") if "UP" in json.loads(lab.output("mn1", "ip", "-j", "link", "show", name))[0]["flags"]]


@pytest.fixture
def routers(routers_lab):
    """Something that advertises itself at both access routers; the mobile node is at ar1."""
    processes = []
    for ar in ("ar1", "ar2"):
        # The ports have no address before a speaker gives them one.
        routers_lab.run(ar, "ip", "address", "replace", "fe80::1/64", "dev", "eth2", "nodad")
        process = routers_lab.start(ar, "/usr/bin/python3", str(FAKE_ROUTER), "eth2")
        assert process.stdout.readline() == "listening\n"
        processes.append(process)
    if ports_up(routers_lab) != ["eth1"]:
        routers_lab.run("mn1", "move", "ar1", "--gap", "0", "--wait", "0")
    yield routers_lab
    for process in processes:
        scenario.stop_process(process)


def move(lab, *arguments):
    done = json.loads(lab.output("mn1", "move", *arguments))
    return done, {(event["event"], event["ar"]): event["ns"] for event in done["events"]}


def test_a_planned_move_keeps_the_old_link_until_the_new_router_was_heard(routers):
    done, at = move(routers, "ar2", "--overlap", "30")
    assert done["from"] == ["ar1"] and done["planned"]
    assert at["link_up", "ar2"] < at["link_up_done", "ar2"] < at["rs_sent", "ar2"] < done["ra_ns"]
    assert at["link_down", "ar1"] - done["ra_ns"] >= 30e6
    assert ports_up(routers) == ["eth2"]


def test_a_planned_move_asks_for_a_router_on_the_new_link_alone(routers):
    done, at = move(routers, "ar2", "--overlap", "0")
    assert ("rs_sent", "ar1") not in at and ("ra_heard", "ar2") in at


def test_break_before_make_has_no_link_for_the_gap(routers):
    done, at = move(routers, "ar2", "--gap", "30")
    assert at["link_up", "ar2"] - at["link_down_done", "ar1"] >= 30e6
    assert not done["planned"] and done["ra_ns"]
    assert ports_up(routers) == ["eth2"]


def test_without_an_answer_the_move_is_made_all_the_same(routers_lab):
    routers_lab.run("mn1", "move", "ar1", "--gap", "0", "--wait", "0")
    done, at = move(routers_lab, "ar2", "--wait", "50", "--no-rs", "--overlap", "0")
    assert done["ra_ns"] is None and ("rs_sent", "ar2") not in at
    assert ports_up(routers_lab) == ["eth2"]


def test_with_a_gap_the_link_to_the_same_router_goes_and_comes_back(routers):
    done, at = move(routers, "ar1", "--gap", "5")
    assert at["link_down", "ar1"] < at["link_up", "ar1"] and ports_up(routers) == ["eth1"]


@pytest.mark.parametrize(
    "arguments, message", [(["ar3"], "there is no port to ar3"), (["ar1"], "is at ar1 already"), (["ar2", "--gap", "-1"], "must not be negative")]
)
def test_a_move_that_cannot_be_changes_nothing(routers, arguments, message):
    result = routers.run("mn1", "move", *arguments, check=False)
    assert result.returncode != 0 and message in result.stderr
    assert ports_up(routers) == ["eth1"]


def test_the_mobile_node_is_heard_as_one_host(routers):
    """The ports of its bridge have no addresses of their own that an access router would take for other nodes."""
    addresses = json.loads(routers.output("mn1", "ip", "-j", "-6", "address", "show", "scope", "link"))
    assert [entry["ifname"] for entry in addresses if entry.get("addr_info")] == ["br0"]
    assert addresses[-1]["addr_info"][0]["local"] == "fe80::ff:fe00:11"
