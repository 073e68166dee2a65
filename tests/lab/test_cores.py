"""Planned moves behind two core routers that forward on BGP's routes: what docs/cores.md says that a core needs keeps them without loss."""

import pytest
import scenario as scenarios
from audit import audit

CN2_ADDRESS = "2001:db8:0:5::2"


@pytest.fixture(name="lab", scope="module", params=["two-cores-path", "two-cores-tunnels"])
def fixture_lab(root, request):
    from conftest import lab_name

    with scenarios.lab_up(scenarios.REPOSITORY / "containerlab" / request.param, lab_name(request)) as up:
        up.wait_synced()
        yield up


@pytest.mark.parametrize("peer, address", [("cn", scenarios.CN_ADDRESS), ("cn2", CN2_ADDRESS)])
def test_planned_moves_lose_nothing(lab, tmp_path, peer, address):
    events = scenarios.Events(lab)
    prefix = lab.prefix_of(lab.mn_address())
    flow = scenarios.Flow(lab, tmp_path, peer=peer, peer_address=address)
    try:
        moves = [lab.move(events, target, prefix) for target in ("ar2", "ar1") * 2]
        for core in ("core1", "core2"):
            audit(lab, core=core)
        flow.stop()
    finally:
        flow.abort()
        events.close()
    report = flow.report((moves[0]["window"][0], moves[-1]["window"][1]))
    assert report["a_to_b"]["sent"] > 50 and report["b_to_a"]["sent"] > 50
    assert (report["a_to_b"]["lost"], report["b_to_a"]["lost"]) == (0, 0), [move["timeline"] for move in moves]
