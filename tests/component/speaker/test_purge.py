"""`kedge-speaker --purge` removes from the kernel what a speaker has put there, and nothing else. In a namespace of its own."""

import json
import os
import re
import signal
import subprocess
import time

import pytest

CONFIGURATION = """
name: ar1
lm: {address: "[::1]:1", insecure_plaintext: true}
access: {interfaces: [access]}
"""


OWN_TABLES = ("8818", "8819", "8820", "8821")


class Namespace:
    def __init__(self, name):
        self.name = name
        self.prefix = ("ip", "netns", "exec", name)

    def run(self, *command, check=True):
        return subprocess.run([*self.prefix, *map(str, command)], capture_output=True, text=True, check=check, timeout=30)

    def ip(self, *arguments):
        answer = self.run("ip", "-6", "-j", *arguments, check=False)
        return json.loads(answer.stdout or "[]")

    def own_objects(self):
        return {
            "links": sorted(link["ifname"] for link in self.ip("link", "show") if link["ifname"] in ("kx0", "kx1")),
            "rules": [rule for rule in self.ip("rule", "show") if str(rule.get("protocol")) == "88"],
            "routes": [
                route
                for route in self.ip("route", "show", "table", "all")
                if str(route.get("protocol")) in ("88", "89") or str(route.get("table")) in OWN_TABLES
            ],
            "tables": sorted(re.findall(r"kedge_\w+", self.run("nft", "list", "tables").stdout)),
        }


@pytest.fixture(name="namespace")
def fixture_namespace():
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a network namespace")
    name = f"kedge-purge-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        space = Namespace(name)
        space.run("ip", "link", "set", "lo", "up")
        space.run("ip", "link", "add", "access", "type", "veth", "peer", "name", "mn")
        space.run("ip", "link", "set", "access", "up")
        space.run("ip", "link", "set", "mn", "up")
        yield space
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def wait_until(what, condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.02)


def add_route_of_kernel_injector(namespace):
    namespace.run("ip", "-6", "route", "add", "blackhole", "2001:db8:1000:2::/64", "metric", 881801, "protocol", 89)


def test_purge_leaves_nothing_of_kedge_and_everything_else(namespace, programs, run, tmp_path):
    file = tmp_path / "speaker.yaml"
    file.write_text(CONFIGURATION, encoding="utf-8")
    namespace.run("ip", "-6", "route", "add", "2001:db8:77::/64", "dev", "lo")
    namespace.run("nft", "add", "table", "inet", "operator")
    # In FRR's eyes it would come before a static of the northbound injector, which is the default.
    add_route_of_kernel_injector(namespace)
    log = tmp_path / "log"
    with log.open("w", encoding="utf-8") as output:
        speaker = subprocess.Popen([*namespace.prefix, programs["kedge-speaker"], "--config", file], stdout=output, stderr=output)
    try:
        wait_until("the speaker has started", lambda: " started " in log.read_text(encoding="utf-8") or speaker.poll() is not None)
    finally:
        speaker.send_signal(signal.SIGTERM)
        assert speaker.wait(timeout=15) == 0
    assert not [route for route in namespace.own_objects()["routes"] if str(route["protocol"]) == "89"]
    add_route_of_kernel_injector(namespace)
    # As bindings leave them: routes in each of the tables. Earlier versions gave them the number of the rules.
    for table in OWN_TABLES:
        for number, protocol in enumerate(("kernel", "88"), 1):
            namespace.run("ip", "-6", "route", "add", "unreachable", f"2001:db8:1000:{number}::/64", "table", table, "protocol", protocol)
    namespace.run("nft", "add", "table", "inet", "kedge_activity")
    before = namespace.own_objects()
    assert before["links"] == ["kx0", "kx1"] and before["rules"] and len(before["routes"]) >= 8
    assert before["tables"] == ["kedge_access", "kedge_activity", "kedge_northbound"]

    result = run("kedge-speaker", "--config", file, "--purge", prefix=namespace.prefix)
    assert result.returncode == 0, result.stderr
    assert namespace.own_objects() == {"links": [], "rules": [], "routes": [], "tables": []}
    assert "operator" in namespace.run("nft", "list", "tables").stdout
    assert any(route["dst"] == "2001:db8:77::/64" for route in namespace.ip("route", "show"))
    assert {"access", "mn"} <= {link["ifname"] for link in namespace.ip("link", "show")}

    again = run("kedge-speaker", "--config", file, "--purge", prefix=namespace.prefix)
    assert again.returncode == 0, again.stderr
