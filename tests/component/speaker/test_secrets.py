"""No private key and no secret of BGP is ever logged or printed, not even of a file that is given in the wrong place."""

import os
import subprocess
import time

import pytest

SECRET = "Xq7-Not-For-Logs"
LM = """
listen: "[::1]:{port}"
data_directory: {folder}/store
tls: {{ca: {pki}/ca.pem, certificate: {pki}/certificate.pem, key: {pki}/key.pem}}
access_routers:
  - {{name: ar1, locator: "2001:db8:a1::1", deliver_sid: "2001:db8:a1::d", pools: ["2001:db8:1000::/48"]}}
log: {{level: trace}}
"""


@pytest.fixture(name="kedgectl")
def fixture_kedgectl(programs):
    program = programs["kedge-lm"].parents[1] / "kedgectl" / "kedgectl"

    def run(*arguments):
        return subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)

    return run


@pytest.fixture(name="pki")
def fixture_pki(kedgectl, tmp_path):
    """Folder with the certificates `lm` and `operator`."""
    assert kedgectl("pki", "init", "--authority", tmp_path / "authority").returncode == 0
    for identity, name in (("lm/lm1", "lm"), ("operator/alice", "operator")):
        assert kedgectl("pki", "issue", identity, "--authority", tmp_path / "authority", "--out", tmp_path / name).returncode == 0
    return tmp_path


def secrets_of(pki):
    """The lines of all private keys."""
    keys = [*pki.glob("*/key.pem"), *pki.glob("authority/ca-key.pem")]
    assert len(keys) >= 3
    return [line for key in keys for line in key.read_text(encoding="utf-8").splitlines() if line and not line.startswith("-----")]


def assert_silent(text, secrets):
    assert not [secret for secret in secrets if secret in text]


def test_daemons_and_operators_that_work_and_fail_say_nothing_of_their_keys(programs, kedgectl, pki, tmp_path, free_port):
    port, file, log = free_port, tmp_path / "lm.yaml", tmp_path / "log"
    file.write_text(LM.format(port=port, folder=tmp_path, pki=pki / "lm"), encoding="utf-8")
    environment = {**os.environ, "GRPC_VERBOSITY": "DEBUG"}
    with log.open("w", encoding="utf-8") as output, subprocess.Popen([programs["kedge-lm"], "--config", file], stderr=output, env=environment) as lm:
        deadline = time.monotonic() + 20
        while " ready " not in log.read_text(encoding="utf-8"):
            assert time.monotonic() < deadline and lm.poll() is None
            time.sleep(0.02)
        said = [kedgectl("-v", "--tls", pki / "operator", "--server", f"[::1]:{port}", "status")]
        assert said[0].returncode == 0
        said.append(kedgectl("-v", "--insecure-plaintext", "--server", f"[::1]:{port}", "status"))
        said.append(kedgectl("pki", "renew", pki / "lm", "--authority", pki / "authority"))
        lm.terminate()
        assert lm.wait(timeout=20) == 0
    assert_silent(log.read_text(encoding="utf-8") + "".join(one.stdout + one.stderr for one in said), secrets_of(pki))


@pytest.mark.parametrize("key", ["ca", "certificate"])
def test_a_key_in_the_place_of_a_certificate_is_not_shown(run, pki, tmp_path, key):
    file = tmp_path / "lm.yaml"
    text = LM.format(port=1, folder=tmp_path, pki=pki / "lm")
    wrong = {"ca": "ca.pem", "certificate": "certificate.pem"}[key]
    file.write_text(text.replace(f"{key}: {pki / 'lm'}/{wrong}", f"{key}: {pki / 'lm'}/key.pem"), encoding="utf-8")
    for option in ("--check", "--doctor"):
        result = run("kedge-lm", "--config", file, option)
        assert "key.pem" in result.stdout + result.stderr
        assert_silent(result.stdout + result.stderr, secrets_of(pki))


@pytest.mark.parametrize("daemon", ["kedge-lm", "kedge-speaker"])
def test_a_key_in_the_place_of_a_configuration_is_not_shown(run, pki, daemon):
    result = run(daemon, "--config", pki / "lm" / "key.pem", "--check")
    assert result.returncode == 2
    assert_silent(result.stdout + result.stderr, secrets_of(pki))


@pytest.mark.parametrize("text", [f"{SECRET} with a space", SECRET * 10, f"{SECRET}\x07"])
def test_a_secret_of_bgp_that_cannot_be_used_is_not_shown(kedgectl, good, tmp_path, text):
    secret, file = tmp_path / "secret", tmp_path / "lm.yaml"
    secret.write_text(text, encoding="utf-8")
    file.write_text(good["kedge-lm"], encoding="utf-8")
    result = kedgectl("-v", "frr-config", "--lm-config", file, "--ar", "ar1", "--reflector", "2001:db8:c0::1", "--password-file", secret)
    assert result.returncode == 1 and str(secret) in result.stderr
    assert_silent(result.stdout + result.stderr, [SECRET])
