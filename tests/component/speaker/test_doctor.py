"""`kedgectl doctor` and the programs that it asks, where nothing runs: each of them still says what is wrong, and what to do."""

import json
import os
import subprocess

import pytest


@pytest.fixture(name="doctor")
def fixture_doctor(programs, tmp_path):
    """Runs kedgectl doctor with the built daemons and named configurations; returns the exit status and the findings by check."""

    def run(*arguments):
        build = programs["kedge-lm"].parents[1]
        environment = {**os.environ, "PATH": f"{build / 'speaker'}:{build / 'lm-server'}:{os.environ['PATH']}"}
        command = [build / "kedgectl" / "kedgectl", "doctor", "-o", "json", *arguments]
        result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=60, env=environment)
        return result.returncode, {finding["check"]: finding for finding in json.loads(result.stdout)["findings"]}

    run.folder = tmp_path
    return run


def write(folder, name, text):
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_a_configuration_that_is_not_taken_is_the_finding(doctor):
    file = write(doctor.folder, "speaker.yaml", "name: ar1\nno_such_key: 1\n")
    status, findings = doctor("--speaker-config", file)
    assert status == 1
    assert set(findings) == {"configuration"}
    assert "no_such_key: unknown key" in findings["configuration"]["text"] and str(file) in findings["configuration"]["text"]


def test_an_access_router_on_which_nothing_runs(doctor, good):
    file = write(doctor.folder, "speaker.yaml", good["kedge-speaker"] + f"frr: {{vty_directory: {doctor.folder}, northbound: '127.0.0.1:47'}}\n")
    status, findings = doctor("--speaker-config", file)
    assert status == 1
    assert findings["configuration"]["result"] == "RESULT_OK"
    assert findings["certificate"]["result"] == "RESULT_WARNING" and "insecure_plaintext" in findings["certificate"]["text"]
    for check in ("process", "LM", "northbound port", "zebra", "staticd", "bgpd"):
        assert findings[check]["result"] == "RESULT_PROBLEM", check
        assert findings[check]["remedy"], check
    assert all(finding["part"] == "kedge-speaker" for finding in findings.values())


def test_with_routes_of_the_kernel_neither_staticd_nor_its_port_is_asked_for(doctor, good):
    file = write(doctor.folder, "speaker.yaml", good["kedge-speaker"] + f"frr: {{vty_directory: {doctor.folder}, injector: kernel}}\n")
    status, findings = doctor("--speaker-config", file)
    assert status == 1
    assert not {"northbound port", "staticd"} & set(findings)
    for check in ("zebra", "bgpd", "zebra and the kernel's routes"):
        assert findings[check]["result"] == "RESULT_PROBLEM", check
        assert findings[check]["remedy"], check


def test_a_host_of_an_lm_on_which_nothing_runs(doctor, good):
    text = good["kedge-lm"].replace("/var/lib/kedge/lm", str(doctor.folder / "store")).replace("[2001:db8:0:1::2]:8818", "[::1]:47")
    status, findings = doctor("--lm-config", write(doctor.folder, "lm.yaml", text + 'metrics: {listen: "[::]:9818"}\n'))
    assert status == 1
    assert findings["store"]["result"] == "RESULT_WARNING"
    assert findings["metrics"]["result"] == "RESULT_WARNING" and "open to other hosts" in findings["metrics"]["text"]
    for check in ("process", "port"):
        assert findings[check]["result"] == "RESULT_PROBLEM", check


@pytest.fixture(name="pki")
def fixture_pki(programs, tmp_path):
    """Makes a certificate of an identity; returns its folder."""
    kedgectl = programs["kedge-lm"].parents[1] / "kedgectl" / "kedgectl"
    authority = tmp_path / "authority"
    subprocess.run([kedgectl, "pki", "init", "--authority", authority], check=True, capture_output=True)

    def issue(identity, days=365):
        folder = tmp_path / identity.replace("/", "-")
        command = [kedgectl, "pki", "issue", identity, "--authority", authority, "--out", folder, "--days", str(days), "--force"]
        subprocess.run(command, check=True, capture_output=True)
        return folder

    return issue


def certificate_finding(doctor, good, folder):
    tls = f"tls: {{ca: {folder}/ca.pem, certificate: {folder}/certificate.pem, key: {folder}/key.pem}}"
    text = good["kedge-speaker"].replace("insecure_plaintext: true", tls)
    return doctor("--speaker-config", write(doctor.folder, "speaker.yaml", text))[1]["certificate"]


def test_the_certificate_s_owner_and_modes_are_looked_at(doctor, good, pki):
    assert certificate_finding(doctor, good, pki("speaker/ar1"))["result"] == "RESULT_OK"
    foreign = certificate_finding(doctor, good, pki("speaker/ar2"))
    assert foreign["result"] == "RESULT_PROBLEM" and "is of kedge://speaker/ar2 and not of kedge://speaker/ar1" in foreign["text"]
    folder = pki("speaker/ar1")
    (folder / "key.pem").chmod(0o644)
    readable = certificate_finding(doctor, good, folder)
    assert readable["result"] == "RESULT_PROBLEM" and "others may read" in readable["text"]


def test_without_any_configuration_it_says_which_to_name(doctor):
    if os.path.exists("/etc/kedge"):
        pytest.skip("this host has a configuration of Kedge")
    status, findings = doctor()
    assert status == 1
    assert "--speaker-config" in findings["configuration"]["remedy"]


def test_the_table_has_one_line_for_each_finding(programs, tmp_path, good):
    build = programs["kedge-lm"].parents[1]
    environment = {**os.environ, "PATH": f"{build / 'lm-server'}:{os.environ['PATH']}"}
    file = write(tmp_path, "lm.yaml", good["kedge-lm"].replace("/var/lib/kedge/lm", str(tmp_path)))
    command = [str(build / "kedgectl" / "kedgectl"), "doctor", "--lm-config", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment).stdout.splitlines()
    assert lines[0].split() == ["RESULT", "PART", "CHECK", "FINDING", "WHAT", "TO", "DO"]
    assert [line.split()[0] for line in lines[1:]].count("ok") >= 1
    assert all(line.split()[:2][1] == "kedge-lm" for line in lines[1:])
