"""What somebody can do who has stolen an access router's key, or an operator's: every attempt to draw traffic that is not his, tried on a lab with a
flow to the node whose traffic it is."""

import itertools
import json
import pathlib
import re

import pytest
import scenario as scenarios
from audit import audit
from mobile import Mobile, finish, flow_to
from netlab_lib.topology import PKI_FOLDER

LAB = "three_routers_lab"
BUILD = pathlib.Path(scenarios.labs.build_folder())
CALL, KEDGECTL = BUILD / "tests" / "tools" / "mobility_call", BUILD / "kedgectl" / "kedgectl"
LM = "[2001:db8:0:1::2]:8818"
SEQUENCE = 1 << 40


_invented = itertools.count(1)


def invented():
    """An MN-ID that nobody has."""
    return f"02:00:00:00:0e:{next(_invented):02x}"


class Thief:
    """Has an access router's key and speaks to the LM from another host."""

    def __init__(self, lab, ar):
        self._lab, self._ar = lab, ar
        # The LM tells an access router which run of its speaker has the session.
        refused = self.attach(invented(), incarnation="1")
        self.run = re.search(r"the last one is of run (\d+)", refused).group(1)

    def call(self, method, **request):
        """(answer, None), or (None, why not)."""
        command = [CALL, "--server", LM, "--tls", PKI_FOLDER / self._ar, method, json.dumps(request)]
        result = self._lab.run("cn", *command, check=False)
        assert result.returncode in (0, 1), result.stderr
        return (json.loads(result.stdout), None) if result.returncode == 0 else (None, result.stderr.strip())

    def refused(self, method, **request):
        """Why, or None."""
        return self.call(method, **request)[1]

    def attach(self, mn_id, **changes):
        return self.refused("Attach", **{**self.message(mn_id), **changes})

    def message(self, mn_id, sequence=SEQUENCE):
        return {
            "ar": self._ar,
            "mnId": mn_id,
            "attachment": {"interface": "eth2", "linkLayerAddress": mn_id, "linkLocal": "fe80::e01"},
            "trigger": "TRIGGER_ROUTER_SOLICITATION",
            "age": "0s",
            "incarnation": getattr(self, "run", "1"),
            "sequence": str(sequence),
        }


@pytest.fixture(name="victim")
def fixture_victim(lab, events):
    """A node at home at ar2."""
    victim = Mobile(lab, events, "mn2", "ar2", "2001:db8:2000:")
    victim.wait_settled("ar2")
    return victim


@pytest.fixture(name="watched")
def fixture_watched(lab, victim, tmp_path, capsys, request):
    """The victim, with a flow to it of which nothing is lost, whatever the test does; and nothing stays behind."""
    with flow_to(lab, tmp_path, victim) as flow:
        flow.wait_for_traffic()
        yield victim
        lost = finish(capsys, request, victim, flow=flow)
    assert lost == {"flow": 0} and victim.at() == "ar2"
    for mn_id in {binding["mn_id"] for binding in lab.bindings() if is_invented(binding)}:
        lab.run("lm", "kedgectl", "detach", mn_id, check=False)
    audit(lab)


def is_invented(binding):
    return binding["mn_id"].startswith("02:00:00:00:0e:")


def bindings_of(lab, mn_id):
    return [binding for binding in lab.bindings() if binding["mn_id"] == mn_id]


def denials(lab, rule):
    """Of the audit trail."""
    return [line for line in lab.output("lm", "kedgectl", "audit", "-o", "json").splitlines() if rule in line]


def test_an_attach_for_another_access_router(lab, watched):
    thief = Thief(lab, "ar1")
    before = len(denials(lab, "own_access_router"))
    assert "own_access_router" in thief.attach(lab.mn_id("mn2"), ar="ar3")
    assert "own_access_router" in thief.refused("Detach", ar="ar2", mnId=lab.mn_id("mn2"), reason="DETACH_REASON_UNREACHABLE")
    assert "own_access_router" in thief.refused("Describe", ar="ar2")
    assert len(denials(lab, "own_access_router")) == before + 3
    assert watched.at() == "ar2"


@pytest.mark.usefixtures("watched")
def test_an_attach_that_is_replayed(lab):
    first, second, mn = Thief(lab, "ar1"), Thief(lab, "ar3"), invented()
    assert first.attach(mn) is None
    # Said again while it is so: the same answer, and nothing happens.
    generation = [binding["generation"] for binding in bindings_of(lab, mn)]
    assert first.attach(mn) is None
    assert generation and [binding["generation"] for binding in bindings_of(lab, mn)] == generation
    assert second.attach(mn) is None
    moved = {binding["prefix"]: binding["attached_ar"] for binding in bindings_of(lab, mn)}
    assert set(moved.values()) == {"ar3"}
    # Byte by byte what ar1 said once; then an older one than its last.
    assert "FAILED_PRECONDITION: stale" in first.attach(mn)
    assert "FAILED_PRECONDITION: stale" in first.attach(mn, sequence=str(SEQUENCE - 1))
    # Of a run of the speaker that is over.
    assert "UNAVAILABLE" in first.attach(mn, incarnation="1", sequence=str(SEQUENCE + 1))
    assert {binding["prefix"]: binding["attached_ar"] for binding in bindings_of(lab, mn)} == moved


@pytest.mark.parametrize("what", ["the victim's", "::/0", "2001:db8:c0::/64", "2001:db8:2000::/48"])
def test_a_prefix_that_is_not_the_node_s_own(lab, events, watched, what):
    wanted = watched.prefix if what == "the victim's" else what
    announced = lab.announcers("core", wanted)
    thief, mn, before = Thief(lab, "ar1"), invented(), len(events.all())
    # That is how a speaker tells an LM what it serves that the LM does not know of: the one way to name a prefix. Beside one
    # that is free, and is taken up.
    free = next(text for text in (f"2001:db8:2000:{0xf00 + i:x}::/64" for i in range(256)) if text not in known(lab))
    assert thief.attach(mn, trigger="TRIGGER_RECOVERY", heldPrefixes=[wanted, free]) is None
    assert free in [binding["prefix"] for binding in bindings_of(lab, mn)]
    assert wanted not in [binding["prefix"] for binding in bindings_of(lab, mn)]
    assert watched.at() == "ar2" and lab.binding(watched.prefix)["mn_id"] == lab.mn_id("mn2")
    # What is taken up is announced by ar1; by then the other would be too.
    events.wait_for("ADVERTISED", since=before, prefix=free)
    scenarios.wait_until("the free one is announced", lambda: lab.announcers("core", free))
    assert lab.announcers("core", wanted) == announced


def known(lab):
    return {binding["prefix"] for binding in lab.bindings()}


def test_a_detach_of_a_node_that_is_elsewhere(lab, watched):
    thief = Thief(lab, "ar1")
    request = {"ar": "ar1", "mnId": lab.mn_id("mn2"), "reason": "DETACH_REASON_UNREACHABLE", "incarnation": thief.run}
    # The speaker of ar1 has to be able to speak of the node again: its numbers are small.
    assert thief.call("Detach", sequence="1", **request) == ({"stale": True}, None)
    assert watched.at() == "ar2"


def test_a_location_that_is_none_of_the_access_router_s_business(lab, watched):
    assert "NOT_FOUND" in Thief(lab, "ar1").refused("Query", prefix=watched.prefix)
    assert Thief(lab, "ar2").refused("Query", prefix=watched.prefix) is None


@pytest.mark.parametrize("prefix_text", ["::/0", "2001:db8:c0::/64", "2001:db8::/32", "2001:db8:2000:1::/80"])
def test_an_operator_s_key_injects_nothing_but_prefixes_of_pools(lab, watched, prefix_text):
    command = [KEDGECTL, "--tls", PKI_FOLDER / "operator", "--server", LM, "policy", "set", "--mn", invented()]
    result = lab.run("cn", *command, f"fixed_prefixes={prefix_text}@ar1", check=False)
    assert result.returncode == 1 and f"the server at {LM} refused" in result.stderr and prefix_text in result.stderr, result.stderr
    assert not lab.json("lm", "kedgectl", "policy", "list", "-o", "json").get("policies", [])
    assert watched.at() == "ar2"
