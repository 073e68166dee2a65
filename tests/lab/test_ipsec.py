"""`kedgectl ipsec-config` with real strongSwan: its configuration is taken, and access routers and LM make their IKE SAs by Kedge's certificates.
Whether packets are then carried in ESP needs a kernel that has ESP; where it has not, the test says so."""

import re
import subprocess
import warnings

import pytest

import scenario

CHARON = "/usr/sbin/charon-systemd"
PKI = scenario.REPOSITORY / "containerlab" / "pki"
LM_CONFIG = scenario.REPOSITORY / "containerlab" / "handover" / "nodes" / "lm" / "lm.yaml"
KEDGECTL = scenario.labs.build_folder() / "kedgectl" / "kedgectl"

STRONGSWAN_CONF = """
charon-systemd {{
  filelog {{ log {{ path = {folder}/log
    flush_line = yes
    default = 1 }} }}
  plugins {{ include /etc/strongswan.d/charon/*.conf
    vici {{ socket = unix://{folder}/vici }} }}
}}
"""


class StrongSwan:
    """charon in a node of the lab, with what kedgectl writes for the node, but for another certificate and name where they are given."""

    def __init__(self, lab, node, folder, pki=None, subject=None):
        self.lab, self.node, self.folder = lab, node, folder
        for sub in ("conf.d", "private", "x509", "x509ca", "x509crl"):
            (folder / sub).mkdir(parents=True)
        pki = pki or PKI / node
        (folder / "private" / "kedge.pem").symlink_to(pki / "key.pem")
        (folder / "x509ca" / "kedge.pem").symlink_to(pki / "ca.pem")
        who = [] if node == "lm" else ["--ar", node]
        text = subprocess.run(
            [KEDGECTL, "ipsec-config", "--lm-config", LM_CONFIG, "--pki", pki, *who], check=True, capture_output=True, text=True
        ).stdout
        (folder / "swanctl.conf").write_text(text.replace(f"CN=speaker {node}", subject) if subject else text)
        (folder / "strongswan.conf").write_text(STRONGSWAN_CONF.format(folder=folder))
        self.process = lab.start(node, "env", f"STRONGSWAN_CONF={folder}/strongswan.conf", CHARON)
        scenario.wait_until(f"charon answers in {node}", lambda: self.swanctl("--stats", check=False).returncode == 0)

    def swanctl(self, *arguments, check=True):
        return self.lab.run(self.node, "env", f"SWANCTL_DIR={self.folder}", "swanctl", *arguments, "--uri", f"unix://{self.folder}/vici", check=check)

    def load(self):
        return self.swanctl("--load-all", "--noprompt").stdout

    def sas(self):
        """Connection -> its IKE SA as swanctl lists it."""
        blocks = re.split(r"^(?=\S)", self.swanctl("--list-sas").stdout, flags=re.MULTILINE)
        return {block.partition(":")[0]: block for block in blocks if block}

    def established(self, connection):
        return "ESTABLISHED" in self.sas().get(connection, "")

    def log(self):
        return (self.folder / "log").read_text()

    def stop(self):
        scenario.stop_process(self.process)


@pytest.fixture
def strongswan(routers_lab, tmp_path):
    running = []

    def start(node, **options):
        running.append(StrongSwan(routers_lab, node, tmp_path / f"{node}-{len(running)}", **options))
        return running[-1]

    yield start
    for one in running:
        one.stop()


def kernel_has_esp(lab, node):
    state = ["ip", "xfrm", "state"]
    identity = ["src", "2001:db8::1", "dst", "2001:db8::2", "proto", "esp", "spi", "0x100"]
    added = lab.run(node, *state, "add", *identity, "mode", "transport", "aead", "rfc4106(gcm(aes))", "0x" + "00" * 20, "128", check=False)
    if added.returncode == 0:
        lab.run(node, *state, "delete", *identity)
    return added.returncode == 0


def test_access_routers_and_lm_know_each_other_by_their_certificates(routers_lab, strongswan):
    nodes = {node: strongswan(node) for node in ("lm", "ar1", "ar2")}
    for node in nodes.values():
        assert "loaded" in node.load()
    for ar, other in (("ar1", "ar2"), ("ar2", "ar1")):
        scenario.wait_until(f"{ar} has an IKE SA with the LM", lambda ar=ar: nodes[ar].established("kedge-lm"))
        sa = nodes[ar].sas()["kedge-lm"]
        assert f"local  'CN=speaker {ar}'" in sa and "remote 'CN=lm lm'" in sa, sa
        assert "AES_GCM_16-256" in sa, sa
        scenario.wait_until(f"the LM has an IKE SA with {ar}", lambda ar=ar: nodes["lm"].established(f"kedge-{ar}"))
        scenario.wait_until(f"{ar} has an IKE SA with {other}", lambda ar=ar, other=other: nodes[ar].established(f"kedge-{other}"))
    if kernel_has_esp(routers_lab, "ar1"):
        scenario.wait_until("ESP stands between ar1 and the LM", lambda: "INSTALLED" in nodes["ar1"].sas()["kedge-lm"])
        scenario.wait_until("ESP stands between the access routers", lambda: "INSTALLED" in nodes["ar1"].sas()["kedge-ar2"])
    else:
        warnings.warn("this kernel has no ESP (ip xfrm state add ... proto esp is refused): IKE SAs only", stacklevel=1)


@pytest.fixture
def other_authority(tmp_path):
    """A certificate of speaker/ar1 that another authority has signed."""
    authority, folder = tmp_path / "authority", tmp_path / "forged"
    for arguments in (["init"], ["issue", "speaker/ar1", "--out", folder]):
        subprocess.run([KEDGECTL, "pki", *arguments, "--authority", authority], check=True, capture_output=True)
    return folder


def test_nobody_is_taken_for_an_access_router_that_he_is_not(routers_lab, strongswan, other_authority):
    lm = strongswan("lm")
    lm.load()
    operator = strongswan("ar1", pki=PKI / "operator", subject="CN=operator lab")
    forged = strongswan("ar2", pki=other_authority, subject="CN=speaker ar1")
    for forger in (operator, forged):
        forger.load()
        scenario.wait_until("the LM has refused", lambda forger=forger: "received AUTHENTICATION_FAILED notify" in forger.log())
        assert not forger.established("kedge-lm")
    assert not lm.sas()
