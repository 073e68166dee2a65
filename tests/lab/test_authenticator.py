"""Mobile nodes whose policy has require_authentication: real 802.1X between hostapd on the access router and wpa_supplicant on the node, told to
the speaker by hostapd-action."""

import contextlib
import re

import pytest
import scenario as scenarios
from audit import audit
from mobile import Mobile, finish, flow_to

LAB = "authenticated_lab"
SOLICIT = scenarios.REPOSITORY / "tests" / "lab" / "solicit.py"
ACTION = scenarios.REPOSITORY / "speaker" / "authenticator" / "hostapd-action"
SOCKET = "/run/kedge-speaker/authenticator.sock"
PORT = "eth2"

HOSTAPD_CONF = f"""interface={PORT}
driver=wired
ctrl_interface={{folder}}/hostapd
ieee8021x=1
eap_server=1
eap_user_file={{folder}}/users
"""
USERS = '"alice" MD5 "secret"\n'
WPA_CONF = """ap_scan=0
ctrl_interface={folder}/wpa
network={{
  key_mgmt=IEEE8021X
  eap=MD5
  identity="alice"
  password="{password}"
  eapol_flags=0
}}
"""


@pytest.fixture(scope="module")
def authenticated_lab(changed_lab):
    return changed_lab("three-routers", suffix="eap", speaker={"authenticator_socket": SOCKET})


@pytest.fixture(name="mn1")
def fixture_mn1(lab, events, prefix):
    """At home at ar1, and nowhere else without authentication."""
    assert prefix
    lab.set_policy("--mn", lab.mn_id(), require_authentication="true")
    yield Mobile(lab, events, "mn1", "ar1", "2001:db8:1000:")
    lab.clear_policies()


@pytest.fixture
def hostapd(lab, tmp_path):
    """hostapd at ar2's access port, with an EAP server of its own, and hostapd_cli that tells the speaker."""
    (tmp_path / "users").write_text(USERS)
    (tmp_path / "hostapd.conf").write_text(HOSTAPD_CONF.format(folder=tmp_path))
    started = [lab.start("ar2", "hostapd", "-t", "-f", tmp_path / "hostapd.log", tmp_path / "hostapd.conf")]
    ask = ["hostapd_cli", "-p", tmp_path / "hostapd", "-i", PORT]
    scenarios.wait_until("hostapd answers", lambda: "PONG" in lab.run("ar2", *ask, "ping", check=False).stdout)
    started.append(lab.start("ar2", "env", f"HOSTAPD_CTRL={tmp_path}/hostapd", f"KEDGECTL_AUTHENTICATOR={SOCKET}", *ask, "-a", ACTION))
    yield lambda *command: lab.output("ar2", *ask, *command)
    for process in started:
        scenarios.stop_process(process)


@contextlib.contextmanager
def supplicant(lab, folder, password):
    folder.mkdir()
    (folder / "wpa.conf").write_text(WPA_CONF.format(folder=folder, password=password))
    process = lab.start("mn1", "wpa_supplicant", "-D", "wired", "-i", "br0", "-c", folder / "wpa.conf", "-f", folder / "log")
    try:
        yield lambda: (folder / "log").read_text() if (folder / "log").exists() else ""
    finally:
        scenarios.stop_process(process)


def stations(lab):
    return lab.json("ar2", "kedgectl", "station", "list", "--socket", SOCKET, "-o", "json").get("stations", [])


def refused(events, mobile, since):
    event = events.wait_for("ATTACH_REFUSED", since=since, mn_id=mobile.lab.mn_id(), ar="ar2")
    assert "require_authentication" in event["detail"]
    return event


def test_a_forged_link_layer_address_takes_nothing_from_the_node(lab, events, mn1, tmp_path, capsys, request):
    with flow_to(lab, tmp_path, mn1) as flow:
        flow.wait_for_traffic()
        since = events.count()
        lab.run("mn2", "/usr/bin/python3", SOLICIT, PORT, lab.mn_id())
        refused(events, mn1, since)
        flow.wait_for_traffic()
        assert finish(capsys, request, mn1, flow=flow) == {"flow": 0}
    assert mn1.at() == "ar1"
    audit(lab)


def test_a_node_gets_in_by_8021x_and_out_when_the_authenticator_says_so(lab, events, mn1, hostapd, tmp_path):
    since = events.count()
    mn1.go("ar2")
    refused(events, mn1, since)
    with supplicant(lab, tmp_path / "wrong", "guess") as log:
        scenarios.wait_until("the wrong password is refused", lambda: re.search("CTRL-EVENT-EAP-FAILURE", log()), seconds=30)
    assert stations(lab) == []
    assert mn1.at() != "ar2"
    since = events.count()
    with supplicant(lab, tmp_path / "right", "secret"):
        mn1.wait_attached("ar2", since, seconds=60)
        (station,) = stations(lab)
        assert (station["interface"], station["link_layer_address"], station["identity"]) == (PORT, lab.mn_id(), "alice")
        mn1.wait_settled("ar2")
        audit(lab)
        since = events.count()
        hostapd("disassociate", lab.mn_id())
        event = events.wait_for("DETACHED", since=since, mn_id=lab.mn_id(), ar="ar2")
        assert "unauthenticated" in event["detail"]
    assert stations(lab) == []
