"""netlab check: each mistake in a topology is told in its own words, and nothing else is."""

import copy
import os
import pathlib

import pytest
import scenario
import yaml

HANDOVER = scenario.REPOSITORY / "containerlab" / "handover"
GOOD = {
    "name": "small",
    "topology": {
        "nodes": {
            name: {"kind": "linux", "image": "kedge-node", "network-mode": "none", "binds": ["network.ip:/etc/kedge/network.ip:ro"]}
            for name in ("a", "b", "c")
        },
        "links": [{"endpoints": ["a:eth1", "b:eth1"]}, {"endpoints": ["b:eth2", "c:eth1"]}],
    },
}


def schema_path():
    return pathlib.Path(os.environ.get("CLAB_SCHEMA") or scenario.REPOSITORY.parent / "shared" / "clab.schema.json")


@pytest.fixture
def check(netlab, tmp_path):
    """Checks a topology given as data or as text. Without containerlab's schema unless asked for."""

    def run(topology, schema="/nonexistent"):
        (tmp_path / "network.ip").touch()
        file = tmp_path / "small.clab.yml"
        file.write_text(topology if isinstance(topology, str) else yaml.safe_dump(topology))
        return netlab("check", file, env={**os.environ, "CLAB_SCHEMA": str(schema)})

    return run


def changed(change):
    topology = copy.deepcopy(GOOD)
    change(topology)
    return topology


def node(topology, name):
    return topology["topology"]["nodes"][name]


def wait_for(topology, name, other):
    node(topology, name)["stages"] = {"create": {"wait-for": [{"node": other, "stage": "create"}]}}


def link(topology, *endpoints):
    topology["topology"]["links"].append({"endpoints": list(endpoints)})


def circle(topology):
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        wait_for(topology, name, other)


MISTAKES = {
    "link to an unknown node": (lambda t: link(t, "a:eth2", "d:eth1"), "link 3: endpoint 'd:eth1': there is no node d"),
    "interface used twice": (lambda t: link(t, "a:eth1", "c:eth2"), "link 3: a:eth1 is used twice, first by link 1"),
    "interface at both ends": (lambda t: link(t, "a:eth2", "a:eth2"), "link 3: a:eth2 is used twice, first by link 3"),
    "eth0": (lambda t: link(t, "a:eth0", "c:eth2"), "endpoint 'a:eth0': eth0 is the management interface"),
    "long interface name": (lambda t: link(t, "a:ethernet-to-core", "c:eth2"), "at most 15 characters, not 16"),
    "one endpoint": (lambda t: link(t, "a:eth2"), "link 3: must have 2 endpoints, not 1"),
    "three endpoints": (lambda t: link(t, "a:eth2", "b:eth3", "c:eth2"), "link 3: must have 2 endpoints, not 3"),
    "endpoint without interface": (lambda t: link(t, "a", "c:eth2"), "endpoint 'a' must be written \"NODE:INTERFACE\""),
    "bind that does not exist": (
        lambda t: node(t, "a")["binds"].append("nodes/a/frr.conf:/etc/frr/frr.conf"),
        "node a: bind 'nodes/a/frr.conf:/etc/frr/frr.conf':",
    ),
    "bind without target": (lambda t: node(t, "a")["binds"].append("network.ip"), "node a: bind 'network.ip' must be SOURCE:TARGET"),
    "bind over the system": (lambda t: node(t, "a")["binds"].append("network.ip:/usr/bin/ip"), "netlab can bind only below /etc"),
    "circular wait": (circle, "circular wait: a waits for b waits for c waits for a"),
    "waits for itself": (lambda t: wait_for(t, "b", "b"), "circular wait: b waits for b"),
    "waits for an unknown node": (lambda t: wait_for(t, "a", "z"), "node a: waits for node z, which does not exist"),
    "another kind": (lambda t: node(t, "a").update(kind="nokia_srlinux"), "node a: netlab implements kind linux only, not nokia_srlinux"),
    "another image": (lambda t: node(t, "a").update(image="alpine"), "node a: netlab stands in for image kedge-node only, not alpine"),
    "a key that netlab lacks": (lambda t: node(t, "a").update(ports=["80:80"]), "node a: netlab does not implement 'ports'"),
    "no node": (lambda t: t["topology"].update(nodes={}, links=[]), "topology.nodes: there is no node"),
    "links are no list": (lambda t: t["topology"].update(links="a:eth1"), "topology.links: must be a list"),
    "no name": (lambda t: t.pop("name"), "name: must be a word"),
    "mtu below IPv6's least": (lambda t: t["topology"]["links"][0].update(mtu=1000), "mtu must be a number from 1280"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_named(check, mistake):
    change, message = MISTAKES[mistake]
    result = check(changed(change))
    assert result.returncode == 2
    assert message in result.stderr


def test_a_bind_that_does_not_exist_is_named_by_its_path(check, tmp_path):
    result = check(changed(lambda t: node(t, "a")["binds"].append("gone.conf:/etc/frr/frr.conf")))
    assert f"{tmp_path}/gone.conf does not exist" in result.stderr


def test_all_mistakes_are_told_at_once(check):
    def change(topology):
        link(topology, "a:eth0", "d:eth1")
        circle(topology)

    errors = check(changed(change)).stderr
    assert "eth0" in errors and "no node d" in errors and "circular wait" in errors


def test_a_key_that_stands_twice_is_an_error(check):
    result = check("name: small\nname: other\ntopology: {nodes: {}}\n")
    assert result.returncode == 2
    assert "key 'name' stands twice" in result.stderr and "line 2" in result.stderr


@pytest.mark.parametrize("text", ["", "- a list", "name: [", "\x00"])
def test_what_is_no_topology_is_an_error_and_no_crash(check, text):
    result = check(text)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_a_folder_without_a_topology_is_an_error(netlab, tmp_path):
    result = netlab("check", tmp_path)
    assert result.returncode == 2
    assert "holds no *.clab.yml" in result.stderr


def test_a_good_topology_has_no_errors(check):
    result = check(GOOD)
    assert result.returncode == 0, result.stderr
    assert "3 nodes, 2 links" in result.stdout


def test_waiting_without_a_circle_is_no_error(check):
    def change(topology):
        wait_for(topology, "a", "b")
        wait_for(topology, "c", "b")

    assert check(changed(change)).returncode == 0


@pytest.mark.parametrize("name", ["handover", "three-routers", "two-cores", "two-cores-path", "two-cores-tunnels"])
def test_the_labs_have_no_errors(netlab, name):
    result = netlab("check", HANDOVER.parent / name)
    assert result.returncode == 0, result.stderr


def test_containerlabs_schema_is_applied(check):
    if not schema_path().is_file():
        pytest.skip(f"containerlab's schema is not at hand at {schema_path()}; set CLAB_SCHEMA to it")
    assert check(GOOD, schema_path()).returncode == 0
    result = check(changed(lambda t: node(t, "a").update({"startup-delay": "soon"})), schema_path())
    assert result.returncode == 2
    assert "schema: topology.nodes.a.startup-delay: 'soon' is not of type 'integer'" in result.stderr
