"""frr/bgpd-hold in Debian's own bgpd: its command, its option, what it writes and what it refuses."""

import os
import pathlib
import shutil
import sys

import pytest
from frr_node import FrrNode, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "lab"))

from vty import Vty, best_path_queues  # noqa: E402  pylint: disable=wrong-import-position

STOCK = 50
BGPD = "router bgp 65000\n bgp router-id 192.0.2.1\n"


def module():
    path = pathlib.Path(os.environ.get("KEDGE_BGPD_HOLD_MODULE", ROOT / "build/frr/kedge_bgpd_hold.so"))
    assert path.exists(), f"{path} is missing: run frr/build-modules.sh, or set KEDGE_BGPD_HOLD_MODULE"
    return path.resolve()


class Router:
    def __init__(self, node):
        self.node = node

    def start(self, argument=None, configuration=BGPD, file=None):
        """bgpd with the module; `argument` None: without."""
        self.node.configure("bgpd", configuration)
        self.start_again(argument, file)

    def start_again(self, argument=None, file=None):
        options = [] if argument is None else ["-M", f"{file or module()}{argument}"]
        self.node.start("bgpd", "-p", "0", *options)

    def vty(self):
        return Vty(f"/proc/{self.node.pid}/root/run/frr/bgpd.vty")

    def configure(self, *lines):
        with self.vty() as vty:
            return vty.configure(*lines)

    def holds(self):
        with self.vty() as vty:
            return [hold for hold, _ in best_path_queues(vty)]

    def kept_holds(self):
        """How many instances have a hold of their own, by what the module has in memory."""
        with self.vty() as vty:
            lines = vty.ask("show memory").splitlines()
        return sum(int(line.partition(":")[2].split()[0]) for line in lines if line.startswith("Kedge best-path hold of an instance"))

    def written(self):
        """bgpd's own configuration after `write`."""
        with self.vty() as vty:
            status, text = vty.run("write file")
        assert status == 0, text
        return self.node.run("cat", "/etc/frr/bgpd.conf")


@pytest.fixture(name="router")
def fixture_router(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root: bgpd runs in namespaces")
    node = FrrNode("router", tmp_path)
    try:
        # `write` makes a file there.
        node.run("chown", "frr:frr", "/etc/frr")
        yield Router(node)
    finally:
        node.close()


@pytest.mark.parametrize("argument", [None, "", ":"])
def test_nothing_changes_unless_it_is_asked_for(router, argument):
    router.start(argument)
    assert router.holds() == [STOCK]


@pytest.mark.parametrize("milliseconds", [0, 1, 1000])
def test_the_option_holds_for_all_instances(router, milliseconds):
    router.start(f":{milliseconds}", BGPD + "router bgp 65001 view other\n")
    assert wait_for(lambda: router.holds() == [milliseconds] * 2, "both instances have it")


def test_the_option_holds_for_an_instance_that_is_made_later(router):
    router.start(":3")
    # A neighbour makes it a state change: before anybody could hear of a route.
    assert router.configure("router bgp 65001 view later", "neighbor 2001:db8::1 remote-as 65001") == ""
    wait_for(lambda: router.holds() == [3, 3], "the new instance has it")


@pytest.mark.parametrize("argument", [":1001", ":-1", ":5ms", ":0x5", ": 5", ":99999999999999999999999"])
def test_a_bad_option_leaves_bgpd_as_it_is(router, argument):
    router.start(argument)
    assert router.holds() == [STOCK]
    assert router.configure("router bgp 65000", "bgp bestpath hold 9") == ""
    assert router.holds() == [9]


def test_the_command_takes_effect_at_once_for_its_instance(router):
    router.start("", BGPD + "router bgp 65001 view other\n")
    assert router.configure("router bgp 65000", "bgp bestpath hold 0") == ""
    assert router.holds() == [0, STOCK]
    assert router.configure("router bgp 65001 view other", "bgp bestpath hold 10") == ""
    assert router.holds() == [0, 10]
    assert router.configure("router bgp 65000", "no bgp bestpath hold") == ""
    assert router.holds() == [STOCK, 10]
    assert router.configure("router bgp 65001 view other", "no bgp bestpath hold 10") == ""
    assert router.holds() == [STOCK, STOCK]


def test_no_goes_back_to_the_option(router):
    router.start(":20", BGPD + " bgp bestpath hold 50\n")
    assert router.holds() == [50]
    assert router.configure("router bgp 65000", "no bgp bestpath hold") == ""
    assert router.holds() == [20]


@pytest.mark.parametrize("value", ["1001", "-1", "now", "", "1 2"])
def test_the_command_refuses_what_is_no_hold(router, value):
    router.start("")
    assert router.configure("router bgp 65000", f"bgp bestpath hold {value}") != ""
    assert router.holds() == [STOCK]


def test_write_saves_it_and_a_restart_reads_it(router):
    router.start("", BGPD + "router bgp 65001 view other\n")
    assert "bestpath hold" not in router.written()
    assert router.configure("router bgp 65000", "bgp bestpath hold 0") == ""
    text = router.written()
    assert text.count("bgp bestpath hold") == 1 and text.index("bgp bestpath hold 0\n") < text.index("router bgp 65001")
    router.node.kill("bgpd")
    router.start_again("")
    wait_for(lambda: router.holds() == [0, STOCK], "the written hold is there again")
    assert router.configure("router bgp 65000", "no bgp bestpath hold") == ""
    assert "bestpath hold" not in router.written()


def test_vtysh_is_not_shown_what_it_could_not_read_back(router):
    router.start("", BGPD + " bgp bestpath hold 0\n")
    assert router.holds() == [0]
    assert "bestpath hold" not in router.node.vtysh("show running-config")
    assert "process_queue" in router.node.vtysh("show work-queues bgpd")


def test_an_instance_that_is_removed_takes_its_hold_along(router):
    router.start("", BGPD + "router bgp 65001 view other\n bgp bestpath hold 5\n")
    assert router.kept_holds() == 1
    assert router.configure("no router bgp 65001 view other", "router bgp 65001 view other") == ""
    assert router.holds() == [STOCK, STOCK]
    assert router.kept_holds() == 0
    assert "bestpath hold" not in router.written()


def test_another_version_of_bgpd_runs_without_it(router, tmp_path):
    other = tmp_path / "other.so"
    shutil.copy(module(), other)
    built_for = b"8.4.4\0"
    assert other.read_bytes().count(built_for) == 1
    other.write_bytes(other.read_bytes().replace(built_for, b"8.4.5\0"))
    tmp_path.chmod(0o755)
    router.start(":0", file=other)
    assert router.holds() == [STOCK]
    assert "Unknown command" in router.configure("router bgp 65000", "bgp bestpath hold 0")
    assert router.holds() == [STOCK]
