"""Configurations that a daemon must not start with: exit status 2, and one line that names the file and the key, and where the text itself
is wrong the line and column too."""

import pytest

AR2_POOL = "2001:db8:2000::/48"

# What is replaced (None: added at the end), by what, what the error has after the file's name.
LM = {
    "overlapping pools": (AR2_POOL, "2001:db8:1000:8000::/49", ': access_routers[1].pools[0]: pool 2001:db8:1000:8000::/49 of access router "ar2" overlaps'),
    "the same pool twice": (AR2_POOL, "2001:db8:1000::/48", ": access_routers[1].pools[0]: "),
    "a pool that is too large": (AR2_POOL, "2001:db8::/47", ": access_routers[1].pools[0]: 2001:db8::/47 is not /48 to /64"),
    "a pool that is too small": (AR2_POOL, "2001:db8:2000::/65", ": access_routers[1].pools[0]: 2001:db8:2000::/65 is not /48 to /64"),
    "a pool that is no prefix": (AR2_POOL, "fish", ": access_routers[1].pools[0]: 'fish' is no IPv6 prefix"),
    "a pool with host bits": (AR2_POOL, "2001:db8:2000::1/48", "did you mean 2001:db8:2000::/48?"),
    "no pool": (f'["{AR2_POOL}"]', "[]", ': access_routers[1].pools: access router "ar2" has no pool'),
    "a name twice": ("name: ar2", "name: ar1", ": access_routers[1].name: "),
    "a SID twice": ("2001:db8:a2::d", "2001:db8:a1::d", ": access_routers[1].deliver_sid: "),
    "a locator that is link-local": ("locator: 2001:db8:a2::1", "locator: fe80::1", ": access_routers[1].locator: "),
    "an unknown key": (None, "listn: x\n", ":17:1: listn: unknown key; did you mean 'listen'"),
    "an unknown key within": ("locator: 2001:db8:a1::1", "locater: 2001:db8:a1::1", ":6:5: access_routers[0].locater: unknown key; did you mean 'locator'?"),
    "a key twice": (None, 'listen: "[::1]:1"\n', ":17:1: listen: this key is given twice"),
    "a wrong type": ("insecure_plaintext: true", "insecure_plaintext: perhaps", ":2:21: insecure_plaintext: true or false"),
    "no certificate": ("insecure_plaintext: true", "tls: {certificate: /nonexistent/c.pem}", ": tls: /nonexistent/c.pem: cannot be read"),
    "a certificate that is none": ("insecure_plaintext: true", "tls: {certificate: /dev/null}", ": tls: /dev/null: is no certificate in PEM"),
    "no data directory": ("data_directory: /var/lib/kedge/lm\n", "", ": data_directory: is missing"),
    "an unknown mode": (None, "mobility: {mode: fly}\n", ': mobility.mode: "fly" is unknown; use nomadic, redirect or relocate'),
    "a duration without a unit": (None, "mobility: {detach_grace: 10}\n", ":17:26: mobility.detach_grace: a duration with its unit"),
    "a duration out of range": (None, "mobility: {detach_grace: 11m}\n", ": mobility.detach_grace: must be 0s to 10m"),
    "an unknown log level": ("level: debug", "level: loud", ": log.level: "),
    "an address to listen on without a port": ('listen: "[2001:db8:0:1::2]:8818"', 'listen: "2001:db8:0:1::2"', ": listen: "),
    "no connection at all": (None, "limits: {connections: 100001}\n", ": limits.connections: 100001 is not 1 to 100000"),
    "messages too small to be of use": (None, "limits: {message_bytes: 1000}\n", ": limits.message_bytes: 1000 is not 65536 to 67108864"),
    "no time for a handshake": (None, "limits: {handshake_timeout: 100ms}\n", ": limits.handshake_timeout: must be 1s to 2m"),
    "no YAML": (None, "mobility: [\n", "not valid YAML"),
}  # fmt: skip

SPEAKER = {
    "an unknown key": ("interfaces: [eth2]", "interface: eth2", ":6:3: access.interface: unknown key; did you mean 'interfaces'?"),
    "no name": ("name: ar1\n", "", ": name: "),
    "no LM": ('  address: "[2001:db8:0:1::2]:8818"\n', "", ": lm.address: "),
    "an LM without a port": ('"[2001:db8:0:1::2]:8818"', '"2001:db8:0:1::2"', ": lm.address: "),
    "no certificate": ("insecure_plaintext: true", "tls: {certificate: /nonexistent/c.pem}", ": lm.tls: /nonexistent/c.pem: cannot be read"),
    "no interface": ("[eth2]", "[]", ": access.interfaces: name at least one"),
    "an interface twice": ("[eth2]", "[eth2, eth2]", ": access.interfaces: 'eth2' is given twice"),
    "an interface that can have no such name": ("[eth2]", "[a-name-that-is-too-long]", ": access.interfaces: "),
    "a global address as link-local": ("[eth2]", "[eth2]\n  link_local: 2001:db8::1", ": access.link_local: "),
    "a multicast link-layer address": ("[eth2]", "[eth2]\n  link_layer_address: 01:00:5e:00:00:01", ": access.link_layer_address: "),
    "lifetimes beyond two hours": ("[eth2]", "[eth2]\n  valid_lifetime: 3h", ": access.valid_lifetime: "),
    "a duration that is none": ("[eth2]", "[eth2]\n  probe_after: soon", ":7:16: access.probe_after: a duration with its unit"),
    "a northbound on another machine": (None, 'frr: {northbound: "192.0.2.1:50051"}\n', ": frr.northbound: "),
    "a northbound without a port": (None, 'frr: {northbound: "127.0.0.1"}\n', ": frr.northbound: "),
    "a word for closing the port": (None, "frr: {close_northbound: perhaps}\n", ":9:25: frr.close_northbound: true or false"),
    "a table of the kernel's own": (None, "kernel: {mobile_table: 254}\n", ": kernel.mobile_table: "),
    "one table for two purposes": (None, "kernel: {mobile_table: 8819}\n", ": kernel.mobile_table: the four tables must differ"),
    "a table below zero": (None, "kernel: {mobile_table: -1}\n", ":9:24: kernel.mobile_table: "),
    "an injector that there is not": (None, "frr: {injector: netlink}\n", ": frr.injector: one of northbound, kernel"),
    "a protocol number of FRR's for its routes": (None, "frr: {kernel_protocol: 196}\n", ": frr.kernel_protocol: "),
    "one protocol number for all routes": (None, "frr: {kernel_protocol: 88}\n", ": frr.kernel_protocol: must differ from kernel.route_protocol"),
    "a protocol number of FRR's": (None, "kernel: {route_protocol: 186}\n", ": kernel.route_protocol: "),
    "an MTU too small for the tunnel": (None, "kernel: {access_mtu: 1300}\n", ": kernel.access_mtu: "),
    "an unknown log level": ("level: debug", "level: loud", ": log.level: "),
}  # fmt: skip


def assert_refused(check, daemon, good, change):
    old, new, part = change
    assert old is None or old in good, "the case does not change anything"
    text = good + new if old is None else good.replace(old, new, 1)
    file, result = check(daemon, text)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert str(file) in result.stderr and part in result.stderr


@pytest.mark.parametrize("case", LM)
def test_the_lm_refuses(check, good, case):
    assert_refused(check, "kedge-lm", good["kedge-lm"], LM[case])


@pytest.mark.parametrize("case", SPEAKER)
def test_the_speaker_refuses(check, good, case):
    assert_refused(check, "kedge-speaker", good["kedge-speaker"], SPEAKER[case])


@pytest.mark.parametrize("daemon", ["kedge-lm", "kedge-speaker"])
@pytest.mark.parametrize("text", ["", "- a list\n", "a word\n", "\x00"])
def test_what_is_no_configuration_at_all_is_refused(check, daemon, text):
    file, result = check(daemon, text)
    assert result.returncode == 2
    assert str(file) in result.stderr


@pytest.mark.parametrize("daemon", ["kedge-lm", "kedge-speaker"])
def test_it_does_not_start_either(run, good, tmp_path, daemon):
    file = tmp_path / "bad.yaml"
    file.write_text(good[daemon] + "no_such_key: 1\n", encoding="utf-8")
    result = run(daemon, "--config", file)
    assert result.returncode == 2
    assert f"{file}:" in result.stderr and "no_such_key: unknown key" in result.stderr
