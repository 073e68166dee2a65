"""What somebody can do who has stolen an access router's key, or an operator's: every attempt to draw traffic that is not his, tried on a lab with a
flow to the node whose traffic it is."""

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
INVENTED = "02:00:00:00:0e:01"
SEQUENCE = 1 << 40


class Thief:
    """Has an access router's key and speaks to the LM from another host."""

    def __init__(self, lab, ar):
        self._lab, self._ar = lab, ar
        # The LM tells an access router which run of its speaker has the session.
        refused = self.attach(INVENTED, incarnation="1")
        self.run = re.search(r"the last one is of run (\d+)", refused).group(1)

    def call(self, method, **request):
        """None when it was answered, else why not."""
        command = [CALL, "--server", LM, "--tls", PKI_FOLDER / self._ar, method, json.dumps(request)]
        result = self._lab.run("cn", *command, check=False)
        assert result.returncode in (0, 1), result.stderr
        return None if result.returncode == 0 else result.stderr.strip()

    def attach(self, mn_id, **changes):
        return self.call("Attach", **{**self.message(mn_id), **changes})

    def message(self, mn_id, sequence=SEQUENCE):
        return {
            "ar": self._ar,
            "mnId": mn_id,
            "attachment": {"interface": "mn1", "linkLayerAddress": mn_id, "linkLocal": "fe80::e01"},
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
    forget_invented(lab)
    audit(lab)


def bindings_of(lab, mn_id):
    return [binding for binding in lab.bindings() if binding["mn_id"] == mn_id]


def forget_invented(lab):
    lab.run("lm", "kedgectl", "detach", INVENTED, check=False)


def denials(lab, rule):
    """Of the audit trail."""
    return [line for line in lab.output("lm", "kedgectl", "audit", "-o", "json").splitlines() if rule in line]


def test_an_attach_for_another_access_router(lab, watched):
    thief = Thief(lab, "ar1")
    before = len(denials(lab, "own_access_router"))
    assert "own_access_router" in thief.attach(lab.mn_id("mn2"), ar="ar3")
    assert "own_access_router" in thief.call("Detach", ar="ar2", mnId=lab.mn_id("mn2"), reason="DETACH_REASON_UNREACHABLE")
    assert "own_access_router" in thief.call("Describe", ar="ar2")
    assert len(denials(lab, "own_access_router")) == before + 3
    assert watched.at() == "ar2"


@pytest.mark.usefixtures("watched")
def test_an_attach_that_is_replayed(lab):
    first, second = Thief(lab, "ar1"), Thief(lab, "ar3")
    assert first.attach(INVENTED) is None
    # Said again while it is so: the same answer, and nothing happens.
    generation = [binding["generation"] for binding in bindings_of(lab, INVENTED)]
    assert first.attach(INVENTED) is None
    assert [binding["generation"] for binding in bindings_of(lab, INVENTED)] == generation
    assert second.attach(INVENTED) is None
    moved = {binding["prefix"]: binding["attached_ar"] for binding in bindings_of(lab, INVENTED)}
    assert set(moved.values()) == {"ar3"}
    # Byte by byte what ar1 said once; then with a younger number than ar3's, but an older one than ar1's last.
    assert "FAILED_PRECONDITION: stale" in first.attach(INVENTED)
    assert "FAILED_PRECONDITION: stale" in first.attach(INVENTED, sequence=str(SEQUENCE - 1))
    # Of a run of the speaker that is over.
    assert "UNAVAILABLE" in first.attach(INVENTED, incarnation="1", sequence=str(SEQUENCE + 1))
    assert {binding["prefix"]: binding["attached_ar"] for binding in bindings_of(lab, INVENTED)} == moved


@pytest.mark.parametrize("what", ["the victim's", "::/0", "2001:db8:c0::/64", "2001:db8:2000::/48"])
def test_a_prefix_that_is_not_the_node_s_own(lab, watched, what):
    wanted = watched.prefix if what == "the victim's" else what
    before = others(lab)
    announced = at_reflector(lab, wanted)
    # That is how a speaker tells a restored LM what it serves: the one way to name a prefix.
    Thief(lab, "ar1").attach(INVENTED, trigger="TRIGGER_RECOVERY", heldPrefixes=[wanted])
    assert others(lab) == before
    assert wanted not in [binding["prefix"] for binding in bindings_of(lab, INVENTED)]
    assert at_reflector(lab, wanted) == announced


def others(lab):
    """Prefix -> MN-ID of all real nodes."""
    return {binding["prefix"]: binding["mn_id"] for binding in lab.bindings() if binding["mn_id"] != INVENTED}


def at_reflector(lab, prefix):
    """Who announces exactly this prefix."""
    table = lab.json("core", "vtysh", "-c", "show bgp ipv6 unicast json")
    return {path["peerId"] for path in table["routes"].get(prefix, [])}


def test_a_detach_of_a_node_that_is_elsewhere(lab, watched):
    thief = Thief(lab, "ar1")
    thief.call("Detach", ar="ar1", mnId=lab.mn_id("mn2"), reason="DETACH_REASON_UNREACHABLE", incarnation=thief.run, sequence=str(SEQUENCE))
    assert watched.at() == "ar2"


def test_a_location_that_is_none_of_the_access_router_s_business(lab, watched):
    assert "NOT_FOUND" in Thief(lab, "ar1").call("Query", prefix=watched.prefix)
    assert Thief(lab, "ar2").call("Query", prefix=watched.prefix) is None


@pytest.mark.parametrize("prefix_text", ["::/0", "2001:db8:c0::/64", "2001:db8::/32", "2001:db8:2000:1::/80"])
def test_an_operator_s_key_injects_nothing_but_prefixes_of_pools(lab, watched, prefix_text):
    command = [KEDGECTL, "--tls", PKI_FOLDER / "operator", "--server", LM, "policy", "set", "--mn", INVENTED]
    result = lab.run("cn", *command, f"fixed_prefixes={prefix_text}@ar1", check=False)
    assert result.returncode != 0 and prefix_text in result.stderr, result.stdout + result.stderr
    assert watched.at() == "ar2"
