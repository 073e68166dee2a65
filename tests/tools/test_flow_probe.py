#!/usr/bin/python3
"""The flow probe measured against truths that are not its own: counters of packet filters, and a relay that does known
things to known packets. Needs root. Makes namespaces a, r (router) and b with links a-r and r-b, named fp-<pid>-*.

The binary is $KEDGE_BUILD_DIR/tests/tools/flow_probe; the default build folder is build/release in the repository.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import random
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("KEDGE_BUILD_DIR", REPOSITORY / "build" / "release"))
PROBE = BUILD / "tests" / "tools" / "flow_probe"

A, R_A = "2001:db8:a::1", "2001:db8:a::ff"
R_B, B = "2001:db8:b::1", "2001:db8:b::ff"
PORT = 9000
BOUND = 30

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
    pytest.mark.skipif(not PROBE.exists(), reason=f"{PROBE} is not built; set KEDGE_BUILD_DIR"),
]


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, **options).stdout


def wait_until(condition, what):
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, f"not within {BOUND} s: {what}"
        time.sleep(0.005)


class End:
    """One running probe."""

    def __init__(self, lab, namespace, arguments, report):
        self.report = report
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", lab.name(namespace), str(PROBE), "run", *map(str, arguments), "--report", str(report)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lab.processes.append(self.process)

    def wait_started(self):
        ready, _, _ = select.select([self.process.stdout], [], [], BOUND)
        line = self.process.stdout.readline() if ready else ""
        if not line.startswith("flow_started "):
            self.process.kill()
            pytest.fail("the flow did not start: " + self.process.communicate()[1])

    def wait(self):
        _, errors = self.process.communicate(timeout=BOUND)
        assert self.process.returncode == 0, errors

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.wait()


class Lab:
    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        self.names = []

    def name(self, namespace):
        return f"fp-{os.getpid()}-{namespace}"

    def build(self):
        for namespace in "arb":
            run("ip", "netns", "add", self.name(namespace))
            self.names.append(self.name(namespace))
            self.ip(namespace, "link", "set", "lo", "up")
            self.sysctl(namespace, "net.ipv6.conf.default.keep_addr_on_down", 1)
            self.sysctl(namespace, "net.ipv6.conf.all.keep_addr_on_down", 1)
            # A router with a tentative link-local address resolves no neighbour.
            self.sysctl(namespace, "net.ipv6.conf.default.accept_dad", 0)
        self.sysctl("r", "net.ipv6.conf.all.forwarding", 1)
        for end, near, far in (("a", R_A, A), ("b", R_B, B)):
            self.ip("r", "link", "add", f"to-{end}", "type", "veth", "peer", "name", "to-r", "netns", self.name(end))
            self.ip("r", "address", "add", f"{near}/64", "dev", f"to-{end}", "nodad")
            self.ip("r", "link", "set", f"to-{end}", "up")
            self.ip(end, "address", "add", f"{far}/64", "dev", "to-r", "nodad")
            self.ip(end, "link", "set", "to-r", "up")
            self.default_route("add", end)

    def remove(self):
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.communicate()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False)

    def exec(self, namespace, *command, **options):
        return run("ip", "netns", "exec", self.name(namespace), *command, **options)

    def ip(self, namespace, *arguments):
        return run("ip", "-n", self.name(namespace), *arguments)

    def sysctl(self, namespace, key, value):
        self.exec(namespace, "sysctl", "-q", "-w", f"{key}={value}")

    def default_route(self, verb, end):
        self.ip(end, "-6", "route", verb, "default", "via", R_A if end == "a" else R_B, "dev", "to-r")

    def filter(self, namespace, hook, rule):
        """`rule` on the data packets of a to b, where `truth` is a counter that truth() reads."""
        data_packets = f"ip6 daddr {B} udp dport {PORT} @th,96,8 1"
        self.exec(namespace, "nft", "-f", "-", input=f"""
            table ip6 fp {{
                counter truth {{ }}
                chain watched {{
                    type filter hook {hook} priority 0;
                    {data_packets} {rule}
                }}
            }}""")

    def unfilter(self, namespace):
        self.exec(namespace, "nft", "flush", "chain", "ip6", "fp", "watched")

    def truth(self, namespace):
        listing = json.loads(self.exec(namespace, "nft", "-j", "list", "counter", "ip6", "fp", "truth"))
        return next(entry["counter"]["packets"] for entry in listing["nftables"] if "counter" in entry)

    def start(self, namespace, local, remote, *arguments):
        report = self.folder / f"{namespace}.json"
        return End(self, namespace, ["--local", local, "--remote", remote, "--port", PORT, "--name", namespace, *arguments],
                   report)

    def start_both(self, rate, a_arguments=(), b_arguments=(), a_remote=B, b_remote=A):
        b = self.start("b", B, b_remote, "--rate", rate, *b_arguments)
        a = self.start("a", A, a_remote, "--rate", rate, *a_arguments)
        a.wait_started()
        b.wait_started()
        return a, b

    def report(self, *arguments):
        output = self.folder / "report.json"
        run(PROBE, "report", "--a", self.folder / "a.json", "--b", self.folder / "b.json", "-o", output, *arguments)
        return json.loads(output.read_text())


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path)
    try:
        made.build()
        yield made
    finally:
        made.remove()


@contextlib.contextmanager
def flow(lab, rate, **options):
    """A flow for the time of the block. End a stops first, so every packet of a is judged."""
    a, b = lab.start_both(rate, **options)
    yield a, b
    a.stop()
    b.stop()


def sent_so_far(lab, count):
    """Waits until `count` more packets have left a."""
    def packets():
        return int(lab.exec("a", "cat", "/sys/class/net/to-r/statistics/tx_packets"))
    target = packets() + count
    wait_until(lambda: packets() >= target, f"{count} packets sent")


def assert_clean(direction):
    assert {key: direction[key] for key in ("lost", "duplicated", "reordered", "send_failed", "impossible", "stray")} == {
        "lost": 0, "duplicated": 0, "reordered": 0, "send_failed": 0, "impossible": 0, "stray": 0}
    assert direction["losses"] == [] and direction["longest_loss_run"] == 0
    assert direction["received"] == direction["sent"] > 0


def assert_gap_matches_loss(direction):
    """The gap spans the lost packets and one more interval, give or take the pauses of the sender and the delays."""
    [loss] = direction["losses"]
    lost_for = loss["last_sent_at_ms"] - loss["sent_at_ms"]
    spread = direction["delay_ms"]["max"] - direction["delay_ms"]["min"]
    assert direction["longest_gap"]["after_sequence"] == loss["first_sequence"] - 1
    assert direction["longest_gap"]["before_sequence"] == loss["last_sequence"] + 1
    assert lost_for - spread <= direction["longest_gap_ms"]
    assert direction["longest_gap_ms"] <= lost_for + 2 * direction["longest_send_gap_ms"] + spread


@pytest.mark.parametrize("rate", [1, 1000, 20000])
def test_reports_no_loss_where_there_is_none(lab, rate):
    seconds = 2
    a, b = lab.start_both(rate, ["--duration", seconds], ["--duration", seconds])
    a.wait()
    b.wait()
    report = lab.report()
    assert report["shared_clock"]
    for key, end in (("a_to_b", "a"), ("b_to_a", "b")):
        direction = report[key]
        assert_clean(direction)
        assert direction["sent"] + direction["not_judged"] + report[end]["skipped_slots"] == rate * seconds
        assert direction["receiver_local_drops"] == 0
        assert direction["delay_ms"]["min"] <= direction["delay_ms"]["median"] <= direction["delay_ms"]["max"]
        assert report[end]["timestamp_fallbacks"] == 0
        assert report[end]["rejected"] == {}


def test_reports_every_hundredth_packet_dropped(lab):
    lab.filter("r", "prerouting", "numgen inc mod 100 0 counter name truth drop")
    with flow(lab, 2000):
        wait_until(lambda: lab.truth("r") >= 20, "20 packets dropped")
    report = lab.report()
    direction = report["a_to_b"]
    dropped = lab.truth("r")
    assert direction["lost"] == dropped
    assert direction["sent"] == direction["received"] + dropped
    assert direction["not_judged"] == 0
    assert direction["longest_loss_run"] == 1
    first = direction["losses"][0]["first_sequence"]
    assert [loss["first_sequence"] for loss in direction["losses"]] == [first + 100 * i for i in range(dropped)]
    assert_clean(report["b_to_a"])


def test_reports_a_burst_of_losses_in_its_window_only(lab):
    with flow(lab, 1000):
        sent_so_far(lab, 100)
        before = time.monotonic_ns()
        lab.filter("r", "prerouting", "counter name truth drop")
        wait_until(lambda: lab.truth("r") >= 300, "300 packets dropped")
        lab.unfilter("r")
        after = time.monotonic_ns()
        sent_so_far(lab, 100)
    dropped = lab.truth("r")
    whole = lab.report()["a_to_b"]
    assert whole["lost"] == whole["longest_loss_run"] == dropped
    assert [loss["count"] for loss in whole["losses"]] == [dropped]
    assert_gap_matches_loss(whole)

    windows = [lab.report(*arguments)["a_to_b"] for arguments in (
        ["--to", before], ["--from", before, "--to", after], ["--from", after])]
    assert [window["lost"] for window in windows] == [0, dropped, 0]
    assert sum(window["sent"] for window in windows) == whole["sent"]
    assert sum(window["received"] for window in windows) == whole["received"]
    assert_clean(lab.report("--from", before, "--to", after)["b_to_a"])


def test_reports_a_link_that_is_down_for_a_while(lab):
    """The truth: what reached the router less what reached b."""
    lab.filter("r", "prerouting", "counter name truth")
    lab.filter("b", "input", "counter name truth")
    with flow(lab, 1000) as (a, _):
        sent_so_far(lab, 100)
        down = [time.monotonic_ns()]
        lab.ip("r", "link", "set", "to-b", "down")
        down.append(time.monotonic_ns())
        sent_so_far(lab, 500)
        up = [time.monotonic_ns()]
        lab.ip("r", "link", "set", "to-b", "up")
        # The router's route to b and b's default route come back with the link.
        received = lab.truth("b")
        wait_until(lambda: lab.truth("b") > received, "b receives again")
        up.append(time.monotonic_ns())
        sent_so_far(lab, 100)
    report = lab.report()
    direction = report["a_to_b"]
    assert direction["lost"] == lab.truth("r") - lab.truth("b")
    assert direction["lost"] >= lab.report("--from", down[1], "--to", up[0])["a_to_b"]["sent"] >= 450
    assert direction["lost"] <= lab.report("--from", down[0], "--to", up[1])["a_to_b"]["sent"]
    assert (up[0] - down[1]) / 1e6 <= direction["longest_gap_ms"]
    assert direction["longest_gap"]["send_gap_ms"] < direction["longest_gap_ms"]
    assert direction["longest_gap_ms"] <= (up[1] - down[0]) / 1e6 + 2 * direction["longest_send_gap_ms"] + \
        direction["delay_ms"]["max"]
    # The router said that there is no route, and the probe went on.
    assert sum(report["a"]["icmp_errors"].values()) > 0
    assert direction["send_failed"] == 0


def test_counts_packets_that_the_kernel_refuses_as_sent_and_lost(lab):
    with flow(lab, 1000):
        sent_so_far(lab, 100)
        lab.default_route("del", "a")
        refused = time.monotonic_ns()
        wait_until(lambda: time.monotonic_ns() - refused > 200_000_000, "packets refused")
        lab.default_route("add", "a")
        sent_so_far(lab, 100)
    report = lab.report()
    direction = report["a_to_b"]
    assert direction["lost"] == direction["send_failed"] == direction["longest_loss_run"] > 0
    assert report["a"]["send_errors"] == {"ENETUNREACH": direction["lost"]}
    assert direction["sent"] == report["a"]["packets_sent"]


def test_counts_packets_that_a_local_filter_forbids(lab):
    lab.filter("a", "output", "numgen inc mod 50 0 counter name truth drop")
    with flow(lab, 1000):
        wait_until(lambda: lab.truth("a") >= 5, "5 packets forbidden")
    report = lab.report()
    assert report["a"]["send_errors"] == {"EPERM": lab.truth("a")}
    assert report["a_to_b"]["lost"] == lab.truth("a")


def test_icmp_errors_cost_no_packet_and_do_not_end_the_flow(lab):
    lab.filter("r", "forward", "numgen inc mod 10 0 counter name truth reject with icmpv6 type admin-prohibited")
    with flow(lab, 1000):
        wait_until(lambda: lab.truth("r") >= 50, "50 packets rejected")
    report = lab.report()
    direction = report["a_to_b"]
    assert report["a"]["icmp_errors"]["1/1"] > 0
    assert direction["lost"] == lab.truth("r")
    assert direction["longest_loss_run"] == 1
    assert direction["send_failed"] == 0


def test_tells_a_full_socket_buffer_from_loss_in_the_network(lab):
    def drops():
        rows = lab.exec("b", "cat", "/proc/net/udp6").splitlines()[1:]
        return sum(int(row.split()[12]) for row in rows)

    with flow(lab, 1000, b_arguments=["--receive-buffer", 65536]) as (_, b):
        sent_so_far(lab, 100)
        b.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: drops() >= 50, "50 packets dropped at the socket")
        b.process.send_signal(signal.SIGCONT)
        sent_so_far(lab, 100)
    report = lab.report()
    direction = report["a_to_b"]
    assert direction["lost"] == direction["receiver_local_drops"] >= 50
    # Stopped as it was, b also sent nothing; that is no loss either.
    backward = report["b_to_a"]
    assert backward["lost"] == 0
    assert report["b"]["skipped_slots"] > 0
    assert backward["longest_gap"]["send_gap_ms"] == pytest.approx(backward["longest_gap_ms"], abs=backward["delay_ms"]["max"])


def test_finds_a_pause_of_its_own_sender(lab):
    with flow(lab, 1000) as (_, b):
        sent_so_far(lab, 100)
        b.process.send_signal(signal.SIGSTOP)
        sent_so_far(lab, 300)
        b.process.send_signal(signal.SIGCONT)
        sent_so_far(lab, 100)
    report = lab.report()
    assert report["a_to_b"]["lost"] == report["b_to_a"]["lost"] == 0
    assert report["b"]["max_send_jitter_ms"] > 200
    assert report["b"]["longest_send_gap_ms"] > 200
    # The kernel stamped what arrived meanwhile: nothing is seen of the pause in the other direction.
    assert report["a_to_b"]["longest_gap_ms"] < report["b"]["longest_send_gap_ms"]


class Relay(threading.Thread):
    """Stands between a and b with an address of its own on each side, and treats a's packets by their numbers."""

    def __init__(self, lab, drop=(), copy=(), hold=None, inject=()):
        super().__init__(daemon=True)
        self.drop, self.copy, self.hold, self.inject = set(drop), dict(copy), dict(hold or {}), dict(inject)
        self.held = {}
        self.ended = threading.Event()
        self.highest = -1
        self.side_a, self.side_b = self.sockets(lab)

    @staticmethod
    def sockets(lab):
        made = []

        def make():
            with open(f"/run/netns/{lab.name('r')}") as namespace:
                # Only this thread enters the namespace; a socket stays in the one where it was made.
                assert ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0x40000000) == 0
            for address in (R_A, R_B):
                made.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
                made[-1].bind((address, PORT))
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made

    def run(self):
        while not self.ended.is_set():
            for ready in select.select([self.side_a, self.side_b], [], [], 0.05)[0]:
                payload = ready.recv(65536)
                if ready is self.side_b:
                    self.side_a.sendto(payload, (A, PORT))
                elif payload[4] == 0:
                    self.side_b.sendto(payload, (B, PORT))
                else:
                    self.forward(payload)

    def forward(self, payload):
        sequence = struct.unpack_from(">Q", payload, 16)[0]
        self.highest = sequence
        if sequence in self.hold:
            self.held[self.hold[sequence]] = payload
        elif sequence not in self.drop:
            for _ in range(1 + self.copy.get(sequence, 0)):
                self.side_b.sendto(payload, (B, PORT))
        if sequence in self.held:
            self.side_b.sendto(self.held.pop(sequence), (B, PORT))
        for extra in self.inject.get(sequence, ()):
            self.side_b.sendto(extra(payload), (B, PORT))

    def end(self):
        self.ended.set()
        self.join()
        self.side_a.close()
        self.side_b.close()


@contextlib.contextmanager
def relayed_flow(lab, last, **treatment):
    relay = Relay(lab, **treatment)
    relay.start()
    try:
        with flow(lab, 500, a_remote=R_A, b_remote=R_B):
            wait_until(lambda: relay.highest >= last, f"packet {last} relayed")
            yield
    finally:
        relay.end()


def test_reports_exactly_what_a_relay_drops(lab):
    dropped = {0, 3, 10, 11, 12, 100} | set(random.Random(8818).sample(range(101, 300), 40))
    with relayed_flow(lab, 320, drop=dropped):
        pass
    report = lab.report()
    direction = report["a_to_b"]
    lost = {sequence for loss in direction["losses"]
            for sequence in range(loss["first_sequence"], loss["last_sequence"] + 1)}
    assert lost == dropped
    assert direction["lost"] == len(dropped)
    assert sum(loss["count"] for loss in direction["losses"]) == len(dropped)
    assert direction["duplicated"] == direction["reordered"] == 0
    assert_clean(report["b_to_a"])


def test_reports_exactly_what_a_relay_copies(lab):
    with relayed_flow(lab, 120, copy={5: 1, 6: 1, 50: 3, 100: 1}):
        pass
    direction = lab.report()["a_to_b"]
    assert direction["duplicated"] == 6
    assert direction["lost"] == direction["reordered"] == 0
    assert direction["received"] == direction["sent"]


def test_reports_exactly_what_a_relay_reorders(lab):
    """Packets 10, 30, 31 and 50 are sent on after 12, 35, 40 and 51: each is late once."""
    with relayed_flow(lab, 120, hold={10: 12, 30: 35, 31: 40, 50: 51}):
        pass
    direction = lab.report()["a_to_b"]
    assert direction["reordered"] == 4
    assert direction["lost"] == direction["duplicated"] == 0


def test_believes_no_packet_that_is_not_of_this_flow(lab):
    def of_another_run(payload):
        return payload[:8] + b"\xaa" * 8 + payload[16:]

    def reflected(payload):
        return payload[:5] + bytes([1 - payload[5]]) + payload[6:]

    inject = {20: [of_another_run, of_another_run, reflected], 40: [lambda payload: b"hello", lambda payload: payload[:-1]],
              60: [lambda payload: payload + b"\0", lambda payload: b""]}
    # A stray with the number of a lost packet must not hide the loss.
    with relayed_flow(lab, 120, drop={20}, inject=inject):
        pass
    report = lab.report()
    assert report["a_to_b"]["lost"] == 1
    assert report["a_to_b"]["stray"] == 2
    assert report["b"]["rejected"] == {"malformed": 4, "own_direction": 1}


def test_a_stopped_end_makes_no_losses_of_the_other(lab):
    """End a is gone long before b: what b sent after that is not judged."""
    a, b = lab.start_both(1000, ["--duration", 0.5, "--drain-ms", 100])
    a.wait()
    sent_before = int(lab.exec("b", "cat", "/sys/class/net/to-r/statistics/tx_packets"))
    wait_until(lambda: int(lab.exec("b", "cat", "/sys/class/net/to-r/statistics/tx_packets")) > sent_before + 200,
               "b sends on")
    b.stop()
    report = lab.report()
    assert_clean(report["b_to_a"])
    assert report["b_to_a"]["not_judged"] > 200
    assert report["b_to_a"]["sent"] + report["b_to_a"]["not_judged"] == report["b"]["packets_sent"]


def test_waits_for_an_address_that_comes_later(lab):
    late = "2001:db8:a::2"
    b = lab.start("b", B, late, "--rate", 100, "--duration", 0.2)
    a = lab.start("a", late, B, "--rate", 100, "--duration", 0.2, "--wait-address", BOUND)
    # With duplicate address detection, so it is tentative at first.
    lab.sysctl("a", "net.ipv6.conf.to-r.accept_dad", 1)
    lab.ip("a", "address", "add", f"{late}/64", "dev", "to-r")
    a.wait()
    b.wait()
    assert_clean(lab.report()["a_to_b"])


def failed_run(lab, *arguments):
    command = ["ip", "netns", "exec", lab.name("a"), PROBE, "run", "--report", lab.folder / "x.json", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=BOUND, check=False)


def test_says_that_the_local_address_is_absent(lab):
    arguments = ["--local", "2001:db8:a::3", "--remote", B, "--port", PORT, "--rate", 10]
    at_once = failed_run(lab, *arguments)
    assert at_once.returncode == 1 and "--wait-address" in at_once.stderr
    waited = failed_run(lab, *arguments, "--wait-address", 0.1)
    assert waited.returncode == 1 and "after 100 ms" in waited.stderr


def test_says_that_the_peer_is_not_heard(lab):
    result = failed_run(lab, "--local", A, "--remote", B, "--port", PORT, "--rate", 10, "--wait-peer", 0.1)
    assert result.returncode == 1 and f"nothing heard from {B}" in result.stderr
    assert not (lab.folder / "x.json").exists()


def test_sends_into_the_void_when_told_not_to_wait(lab):
    result = failed_run(lab, "--local", A, "--remote", B, "--port", PORT, "--rate", 100, "--wait-peer", 0,
                        "--duration", 0.2, "--drain-ms", 0)
    assert result.returncode == 0, result.stderr
    record = json.loads((lab.folder / "x.json").read_text())
    assert record["packets_sent"] + record["skipped_slots"] == 20 and record["packets_received"] == 0
    assert record["icmp_errors"].keys() == {"1/4"}


GOOD = {"--local": A, "--remote": B, "--port": PORT, "--rate": 1000, "--report": "x.json"}


@pytest.mark.parametrize("change, complaint", [
    ({"--local": None}, "--local"), ({"--remote": None}, "--remote"), ({"--rate": None}, "--rate"),
    ({"--report": None}, "--report"), ({"--port": None}, "--port"),
    ({"--local": "2001:db8::zz"}, "no IPv6 address"), ({"--remote": "192.0.2.1"}, "no IPv6 address"),
    ({"--remote": "ff02::1"}, "no unicast"), ({"--remote": "::"}, "no unicast"), ({"--local": "fe80::1"}, "fe80::1%"),
    ({"--remote": A}, "must not be the local address"),
    ({"--port": 0}, "--port"), ({"--port": 65536}, "--port"), ({"--rate": 0}, "--rate"), ({"--rate": "fast"}, "--rate"),
    ({"--rate": 100001}, "--rate"), ({"--size": 39}, "--size"), ({"--size": 65528}, "--size"),
    ({"--duration": -1}, "--duration"), ({"--drain-ms": -1}, "--drain-ms"), ({"--frequency": 3}, "--frequency"),
])
def test_refuses_wrong_arguments(change, complaint, tmp_path):
    arguments = {**GOOD, "--report": tmp_path / "x.json", **change}
    command = [str(PROBE), "run"]
    for option, value in arguments.items():
        command += [] if value is None else [option, str(value)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)
    assert result.returncode == 2
    assert re.search(re.escape(complaint), result.stderr + result.stdout), result.stderr


@pytest.mark.parametrize("arguments, code, complaint", [
    ([], 2, "subcommand"), (["report"], 2, "--a"), (["report", "--a", "{absent}", "--b", "{empty}"], 2, "absent"),
    (["report", "--a", "{empty}", "--b", "{empty}"], 1, "flow_probe run"),
    (["report", "--a", "{empty}", "--b", "{empty}", "--from", "7", "--to", "7"], 2, "--to"),
    (["report", "--a", "{empty}", "--b", "{empty}", "--from", "noon"], 2, "--from"),
])
def test_refuses_what_it_cannot_report(arguments, code, complaint, tmp_path):
    (tmp_path / "empty").touch()
    places = {"absent": tmp_path / "absent", "empty": tmp_path / "empty"}
    command = [str(PROBE), *(argument.format(**places) for argument in arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)
    assert result.returncode == code
    assert complaint in result.stderr + result.stdout
