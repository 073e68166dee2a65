"""What of an access router and of the LM is open to whom: ports, identities, local users; and that the daemons do their work without more
privileges than they need."""

import json
import pathlib
import re
import subprocess

import pytest
import scenario as scenarios
from netlab_lib.topology import PKI_FOLDER

SCAN = scenarios.REPOSITORY / "tests" / "lab" / "scan.py"
KEDGECTL = pathlib.Path(scenarios.labs.build_folder()) / "kedgectl" / "kedgectl"
NORTHBOUND = 50051
LM = "[2001:db8:0:1::2]:8818"
LOCATOR, UPLINK = "2001:db8:a1::1", "2001:db8:0:2::2"
TABLE = ("nft", "list", "table", "inet", "kedge_northbound")
# linux/capability.h
NET_ADMIN, NET_RAW = 1 << 12, 1 << 13
CONNECT = "import socket; socket.create_connection(('{}', 50051), 1)"


@pytest.fixture(name="northbound", scope="module")
def fixture_northbound(lab):
    """Skips where FRR's gRPC module is not there: then no port is open that has to be closed."""
    if not lab.lab.nodes["ar1"].env["KEDGE_GRPC_MODULE"]:
        pytest.skip("FRR's gRPC module has not been built; run: make setup")


def connects(lab, node, address, *user):
    """None, or why not."""
    result = lab.run(node, *user, "/usr/bin/python3", "-c", CONNECT.format(address), check=False)
    return None if result.returncode == 0 else result.stderr.strip().splitlines()[-1]


def log_of(lab, node, name):
    return (lab.lab.node_folder(node) / "log" / "kedge" / f"{name}.log").read_text(encoding="utf-8")


# FRR's northbound


@pytest.mark.usefixtures("northbound")
def test_nobody_but_the_speaker_s_user_and_root_reaches_frr_s_northbound(lab):
    scenarios.wait_until("staticd listens", lambda: connects(lab, "ar1", "127.0.0.1") is None)
    for address in ("::1", LOCATOR, UPLINK):
        assert connects(lab, "ar1", address) is None
        assert connects(lab, "ar1", address, "setpriv", "--reuid=kedge", "--clear-groups") is None
        assert "refused" in connects(lab, "ar1", address, "setpriv", "--reuid=nobody", "--clear-groups")
    for node, address in (("core", UPLINK), ("core", LOCATOR), ("cn", LOCATOR), ("mn1", LOCATOR), ("mn1", "fe80::1%br0")):
        assert "timed out" in connects(lab, node, address), f"{node} -> {address}"


@pytest.mark.usefixtures("northbound")
def test_a_table_that_is_removed_is_back_at_once_and_moves_go_on(lab, events, prefix):
    made = lab.output("ar1", *TABLE)
    lab.run("ar1", "nft", "flush", "ruleset")
    scenarios.wait_until("the table is back", lambda: lab.run("ar1", *TABLE, check=False).stdout == made)
    assert "timed out" in connects(lab, "core", UPLINK)
    assert "northbound_closed_again" in log_of(lab, "ar1", "kedge-speaker")
    lab.move(events, "ar2", prefix)
    lab.move(events, "ar1", prefix)


# Ports


def scan(lab, node, address, first=1, last=65535):
    return json.loads(lab.run(node, "/usr/bin/python3", SCAN, address, first, last, timeout=300).stdout)


def test_a_port_scan_finds_nothing_open_but_what_has_to_be(lab, prefix, capsys):
    assert prefix
    found = []
    for where, node, target, address, wanted in (
        ("core", "core", "ar1, locator", LOCATOR, []),
        ("core", "core", "ar1, uplink", UPLINK, []),
        ("access link", "mn1", "ar1, link-local", "fe80::1%br0", []),
        ("access link", "mn1", "ar1, locator", LOCATOR, []),
        ("access link", "mn1", "lm", "2001:db8:0:1::2", [8818]),
        ("core", "core", "lm", "2001:db8:0:1::2", [8818]),
    ):
        found.append((where, target, scan(lab, node, address), wanted))
    with capsys.disabled():
        print(f"\n{'from':<12} {'to':<16} {'open':<10} {'no answer':<10} refused")
        for where, target, ports, _ in found:
            texts = [" ".join(map(str, ports[key])) or "-" for key in ("open", "silent")]
            print(f"{where:<12} {target:<16} {texts[0]:<10} {texts[1]:<10} {65535 - len(ports['open']) - len(ports['silent'])}")
    for where, target, ports, wanted in found:
        assert ports["open"] == wanted, f"{where} -> {target}"
        assert ports["silent"] == ([NORTHBOUND] if target.startswith("ar1") else []), f"{where} -> {target}"


def test_what_listens_on_an_access_router_is_known(lab):
    listening = re.findall(r"^LISTEN +\d+ +\d+ +(\S+)", lab.output("ar1", "ss", "-Hltn").replace("%lo", ""), re.MULTILINE)
    assert sorted(listening) == ([f"*:{NORTHBOUND}"] if lab.lab.nodes["ar1"].env["KEDGE_GRPC_MODULE"] else [])


# Identities


@pytest.fixture(name="identities", scope="module")
def fixture_identities(tmp_path_factory):
    """Name -> folder with the certificate and key that somebody has; None: none at all."""
    folder = tmp_path_factory.mktemp("identities")

    def issue(authority, identity, name):
        subprocess.run(
            [KEDGECTL, "pki", "issue", identity, "--authority", authority, "--out", folder / name], check=True, capture_output=True
        )  # fmt: skip
        # The LM's authority is known to all.
        with (folder / name / "ca.pem").open("a", encoding="utf-8") as authorities:
            authorities.write((PKI_FOLDER / "authority" / "ca.pem").read_text(encoding="utf-8"))
        return folder / name

    other = folder / "authority"
    subprocess.run([KEDGECTL, "pki", "init", "--authority", other], check=True, capture_output=True)
    found = {
        "none, plaintext": None,
        "operator, wrong authority": issue(other, "operator/mallory", "wrong"),
        "operator, expired": expire(issue(PKI_FOLDER / "authority", "operator/past", "expired")),
        "speaker/ar2": PKI_FOLDER / "ar2",
        "viewer": PKI_FOLDER / "viewer",
        "operator": PKI_FOLDER / "operator",
    }
    return found


def expire(folder):
    """A certificate for the folder's key and identity whose time was over yesterday."""
    identity = json.loads(subprocess.run([KEDGECTL, "pki", "show", folder, "-o", "json"], check=True, capture_output=True, text=True).stdout)
    extensions = folder / "extensions"
    extensions.write_text(
        f"subjectAltName=URI:{identity['identity']}\nextendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\nbasicConstraints=CA:false\n",
        encoding="utf-8",
    )
    authority = PKI_FOLDER / "authority"
    request = subprocess.run(
        ["openssl", "req", "-new", "-key", folder / "key.pem", "-subj", "/CN=past"], check=True, capture_output=True
    ).stdout  # fmt: skip
    subprocess.run(
        ["openssl", "x509", "-req", "-CA", authority / "ca.pem", "-CAkey", authority / "ca-key.pem", "-days", "-1", "-set_serial", "1",
         "-extfile", extensions, "-out", folder / "certificate.pem"],
        input=request, check=True, capture_output=True,
    )  # fmt: skip
    return folder


def asks(lab, folder, server, *command):
    tls = ["--insecure-plaintext"] if folder is None else ["--tls", folder]
    return lab.run("cn", KEDGECTL, *tls, "--server", server, "--timeout", "5", *(command or ("status",)), check=False)


def shortened(result):
    """What kedgectl said, in a few words."""
    if result.returncode == 0:
        return "ok"
    return "no connection" if result.returncode == 3 else re.sub(r"^kedgectl: (the server at \S+ refused: )?", "", result.stderr.splitlines()[0])[:32]


EXPECTED = {
    # Identity: (exit status, part of the message) of reading the LM's state, then of changing it.
    "none, plaintext": ((3, "cannot reach the server"), (3, "cannot reach the server")),
    "operator, wrong authority": ((3, "cannot reach the server"), (3, "cannot reach the server")),
    "operator, expired": ((3, "cannot reach the server"), (3, "cannot reach the server")),
    "speaker/ar2": ((1, "role: role speaker may not call"), (1, "role: role speaker may not call")),
    "viewer": ((0, ""), (1, "role: role viewer may not call")),
    "operator": ((0, ""), (0, "")),
}


def test_each_port_gives_each_identity_what_it_may_have(lab, identities, capsys):
    rows = []
    for name, folder in identities.items():
        read, change = asks(lab, folder, LM), asks(lab, folder, LM, "node", "undrain", "ar1")
        # Of an access router: the northbound, FRR's vty by TCP, the metrics.
        others = {port: asks(lab, folder, f"[{LOCATOR}]:{port}") for port in (NORTHBOUND, 2601, 2605, 2616, 9819)}
        rows.append((name, read, change, others))
    with capsys.disabled():
        print(f"\n{'who':<28} {'LM, read':<34} {'LM, change':<34} an access router's ports")
        for name, read, change, others in rows:
            texts = [shortened(result) for result in (read, change)]
            print(f"{name:<28} {texts[0]:<34} {texts[1]:<34} {' '.join(f'{port}: {shortened(r)}' for port, r in others.items())}")
    for name, read, change, others in rows:
        for result, (status, part) in zip((read, change), EXPECTED[name]):
            assert result.returncode == status and part in result.stderr, f"{name}: {result.stderr}"
        assert all(result.returncode == 3 for result in others.values()), f"{name}: {others}"


# Privileges


def status_of(lab, node, name):
    pid = lab.output(node, "pidof", name).strip()
    return dict(line.split(":\t", 1) for line in lab.output(node, "cat", f"/proc/{pid}/status").splitlines() if ":\t" in line)


@pytest.mark.parametrize("node, name, capabilities", [("ar1", "kedge-speaker", NET_ADMIN | NET_RAW), ("lm", "kedge-lm", 0)])
def test_a_daemon_has_no_more_privileges_than_it_needs(lab, node, name, capabilities):
    status = status_of(lab, node, name)
    assert set(status["Uid"].split()) == {lab.output(node, "id", "-u", "kedge").strip()}
    assert {kind: int(status[kind], 16) for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == dict.fromkeys(
        ("CapEff", "CapPrm", "CapInh", "CapAmb"), capabilities
    )
    assert status["NoNewPrivs"].strip() == "1"
    log = log_of(lab, node, name)
    assert "more_privileges_than_needed" not in log
    # Its filter was loaded before the capability for it was given up.
    assert "access_data_frames_unheard" not in log


def test_a_daemon_that_has_more_says_so(lab, tmp_path):
    file = tmp_path / "lm.yaml"
    file.write_text(
        f'listen: "[::1]:8819"\ninsecure_plaintext: true\ndata_directory: {tmp_path}/store\naccess_routers:\n'
        '  - {name: ar1, locator: "2001:db8:a1::1", deliver_sid: "2001:db8:a1::d", pools: ["2001:db8:1000::/48"]}\n', encoding="utf-8",
    )  # fmt: skip
    root = lab.start("cn", "kedge-lm", "--config", str(file))
    try:
        assert any(" more_privileges_than_needed " in line and "user root" in line for line in iter(root.stderr.readline, ""))
    finally:
        scenarios.stop_process(root)


# Doctor


def doctor(lab, node):
    result = lab.run(node, "kedgectl", "doctor", "-o", "json", check=False, timeout=60)
    return result.returncode, {finding["check"]: finding for finding in json.loads(result.stdout)["findings"]}


@pytest.mark.usefixtures("northbound")
def test_the_doctor_finds_nothing_on_a_lab_that_is_well(lab, prefix, capsys):
    assert prefix
    for node in ("ar1", "lm"):
        status, findings = doctor(lab, node)
        wrong = [finding for finding in findings.values() if finding["result"] != "RESULT_OK"]
        assert (status, wrong) == (0, []), node
    with capsys.disabled():
        print("\n" + lab.output("ar1", "kedgectl", "doctor"))


@pytest.mark.usefixtures("northbound")
@pytest.mark.parametrize(
    "breaks, mends, check, part",
    [
        ("ip link set eth2 down", "ip link set eth2 up", "access interface eth2", "is down"),
        ("vtysh -c 'configure terminal' -c 'no route-map KEDGE permit 80'",
         "vtysh -c 'configure terminal' -c 'route-map KEDGE permit 80' -c 'match tag 8' -c 'set local-preference 108' -c 'set weight 0'",
         "route-map KEDGE", "levels 1 to 7"),
        ("vtysh -c 'configure terminal' -c 'router bgp 65000' -c 'neighbor 2001:db8:c0::1 shutdown'",
         "vtysh -c 'configure terminal' -c 'router bgp 65000' -c 'no neighbor 2001:db8:c0::1 shutdown'", "BGP sessions", "0 of 1 are up"),
        ("nft 'table inet test_doctor { chain o { type filter hook output priority -1; tcp dport 8818 reject; }; }'",
         "nft delete table inet test_doctor", "LM", "8818"),
    ],
    ids=["access interface", "route-map", "BGP", "LM"],
)  # fmt: skip
def test_the_doctor_names_what_is_broken_and_what_to_do(lab, prefix, breaks, mends, check, part):
    assert prefix
    lab.run("ar2", "sh", "-c", breaks)
    try:
        def finding():
            status, findings = doctor(lab, "ar2")
            found = findings.get(check, {})
            return found if status == 1 and found.get("result") == "RESULT_PROBLEM" else None

        found = scenarios.wait_until(f"the doctor sees that {check} is broken", finding, seconds=30)
        assert part in found["text"] and found["remedy"]
    finally:
        lab.run("ar2", "sh", "-c", mends)
    scenarios.wait_until("all is well again", lambda: doctor(lab, "ar2")[0] == 0, seconds=60, interval=0.5)
