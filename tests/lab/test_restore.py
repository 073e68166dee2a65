"""The LM gone for a while, and its store restored from a backup that is older than what the network does: two mobile nodes between three access
routers, with numbered flows running. Wherever they were at the backup and whatever they did since, they keep their addresses, nothing freezes, and at
the end kernel, FRR and BGP hold what the bindings say and nothing else."""

import contextlib
import json
import time

import pytest
import scenario as scenarios
from audit import audit

BACKUP = "/var/lib/kedge/backup"
CONFIGURATION = "/etc/kedge/lm.yaml"
COMMITTED, RESTORED = "EVENT_TYPE_ATTACH_COMMITTED", "EVENT_TYPE_STORE_RESTORED"
# Packets that have to be sent in each direction for a flow to tell anything.
ENOUGH = 200
# The LM waits for a minute before it takes a mobile node for gone that nobody has told of since the restore.
RECOVERY_SECONDS = 60


@pytest.fixture(name="lab", scope="module")
def fixture_lab(three_routers_lab):
    three_routers_lab.wait_synced()
    return three_routers_lab


@contextlib.contextmanager
def lm_stopped(lab):
    """The LM's process does not run, and nobody starts it."""
    pid = lab.output("lm", "pidof", "kedge-lm").strip()
    supervisor = lab.output("lm", "cut", "-d", " ", "-f", "4", f"/proc/{pid}/stat").strip()
    lab.run("lm", "kill", "-STOP", supervisor)
    try:
        lab.run("lm", "kill", pid)
        # Its supervisor, which stands still, has not fetched its status.
        scenarios.wait_until("the LM has ended", lambda: lab.output("lm", "cut", "-d", " ", "-f", "3", f"/proc/{pid}/stat").strip() == "Z")
        yield
    finally:
        lab.run("lm", "kill", "-CONT", supervisor)


def back_up(lab):
    lab.run("lm", "kedgectl", "backup", BACKUP, "--force")
    # Readable for its owner alone, and restored by the LM's user.
    lab.run("lm", "chown", "kedge", BACKUP)


def restore(lab):
    return lab.output("lm", "as-kedge", "--", "kedge-lm", "--config", CONFIGURATION, "--restore", BACKUP, "--force")


def wait_at(lab, target, prefix):
    def there():
        answer = lab.run("lm", "kedgectl", "binding", prefix, "-o", "json", check=False)
        if answer.returncode != 0:
            return False
        binding = json.loads(answer.stdout)
        return (binding.get("attached_ar"), binding["state"]) == (target, "BINDING_STATE_SETTLED")

    scenarios.wait_until(f"{prefix} settled at {target}", there, seconds=45)


def become_another(lab, mn, number):
    """A mobile node with another link-layer address is one that the LM has never heard of. Gives its MN-ID."""
    mn_id = f"02:00:00:00:0e:{number:02x}"
    lab.run(mn, "sh", "-c", f"ip link set br0 down; ip link set br0 address {mn_id}; ip link set br0 up")
    return mn_id


def bindings_of(lab, mn_id):
    return [binding for binding in lab.bindings() if binding["mn_id"] == mn_id]


def restorations(events):
    return sum(event["type"] == RESTORED for event in events.all())


class Flows:
    """One with each mobile node, from the correspondent in the core."""

    def __init__(self, lab, folder, **addresses):
        self.flows = {
            mn: scenarios.Flow(lab, folder / mn, mn=mn, mn_address=address, port=9000 + number)
            for number, (mn, address) in enumerate(addresses.items())
        }

    def stop(self):
        for flow in self.flows.values():
            flow.stop()

    def abort(self):
        for flow in self.flows.values():
            flow.abort()

    def lost(self, begin, end):
        """Packets lost of those sent between two times, by mobile node and direction; and a text for people."""
        found, texts = {}, []
        for mn, flow in self.flows.items():
            report = flow.report((begin, end))
            for direction, name in (("a_to_b", "down"), ("b_to_a", "up")):
                assert report[direction]["sent"] >= ENOUGH
                found[mn, name] = report[direction]["lost"]
                texts.append(f"{mn} {name}: {report[direction]['lost']} of {report[direction]['sent']} lost, "
                             f"longest gap {report[direction]['longest_gap_ms']} ms")  # fmt: skip
        return found, "; ".join(texts)


@pytest.fixture(name="flows")
def fixture_flows(lab, tmp_path):
    running = []

    def start(**addresses):
        running.append(Flows(lab, tmp_path, **addresses))
        return running[-1]

    yield start
    for flows in running:
        flows.abort()


@pytest.fixture(name="tell")
def fixture_tell(capsys, request):
    def tell(text):
        with capsys.disabled():
            print(f"\n  {request.node.name}: {text}", flush=True)

    return tell


class Nodes:
    """mn1, which the backup has, at ar2 by then; and mn2, which comes after it."""

    def __init__(self, lab, events, number):
        self.address = lab.mn_address("mn1", "2001:db8:1000:")
        self.prefix = lab.prefix_of(self.address)
        if lab.binding(self.prefix)["attached_ar"] != "ar2":
            lab.move(events, "ar2", self.prefix)
        back_up(lab)
        self.mn_id = become_another(lab, "mn2", number)
        home = lab.access_routers("mn2")[0]
        lab.run("mn2", "move", home, "--gap", "0")
        scenarios.wait_until("the new node has a prefix", lambda: bindings_of(lab, self.mn_id))
        self.new_prefix = bindings_of(lab, self.mn_id)[0]["prefix"]
        within = self.new_prefix.removesuffix("::/64")
        self.new_address = lab.mn_address("mn2", within + ":")
        wait_at(lab, home, self.new_prefix)


def test_what_happened_since_the_backup_is_learnt_again_and_nothing_is_lost(lab, events, flows, tell):
    nodes = Nodes(lab, events, 1)
    lab.move(events, "ar3", nodes.prefix)
    lab.move(events, "ar2", nodes.new_prefix, mn="mn2")
    told = restorations(events)
    running = flows(mn1=nodes.address, mn2=nodes.new_address)
    begin = time.monotonic_ns()
    with lm_stopped(lab):
        output = restore(lab)
    assert "restored from" in output and "before-restore" in output
    wait_at(lab, "ar3", nodes.prefix)
    wait_at(lab, "ar2", nodes.new_prefix)
    scenarios.wait_until("the restore is told", lambda: restorations(events) == told + 1)
    recovered = time.monotonic_ns()
    # Moves go on.
    lab.move(events, "ar1", nodes.prefix)
    lab.move(events, "ar3", nodes.new_prefix, mn="mn2")
    end = time.monotonic_ns()
    assert nodes.address in lab.mn_addresses("mn1")
    assert nodes.new_address in lab.mn_addresses("mn2")
    running.stop()
    lost, text = running.lost(begin, recovered)
    tell(f"from the LM's end to all settled, {(recovered - begin) / 1e9:.1f} s: {text}")
    assert not any(lost.values())
    lost, text = running.lost(recovered, end)
    tell(f"moves after it: {text}")
    assert not any(lost.values())
    audit(lab, seconds=RECOVERY_SECONDS + 30)


def test_moves_while_the_lm_is_away_and_its_store_is_restored_are_made_good(lab, events, flows, tell):
    nodes = Nodes(lab, events, 2)
    running = flows(mn1=nodes.address, mn2=nodes.new_address)
    with lm_stopped(lab):
        # Both leave for good the only access routers that know what they have.
        lab.run("mn1", "move", "ar3", "--gap", "0", "--wait", "300")
        lab.run("mn2", "move", "ar3", "--gap", "0", "--wait", "300")
        restore(lab)
        begin = time.monotonic_ns()
    wait_at(lab, "ar3", nodes.prefix)
    wait_at(lab, "ar3", nodes.new_prefix)
    end = time.monotonic_ns()
    lab.move(events, "ar1", nodes.prefix)
    lab.move(events, "ar2", nodes.new_prefix, mn="mn2")
    after = time.monotonic_ns()
    assert nodes.address in lab.mn_addresses("mn1")
    assert nodes.new_address in lab.mn_addresses("mn2")
    running.stop()
    _, text = running.lost(begin, end)
    tell(f"from the LM's start to all settled, {(end - begin) / 1e9:.1f} s: {text}")
    lost, text = running.lost(end, after)
    tell(f"moves after it: {text}")
    assert not any(lost.values())
    audit(lab, seconds=RECOVERY_SECONDS + 30)


def test_the_last_of_several_moves_counts_when_the_lm_can_be_reached_again(lab, events, flows, tell):
    address = lab.mn_address("mn1", "2001:db8:1000:")
    prefix = lab.prefix_of(address)
    if lab.binding(prefix)["attached_ar"] != "ar1":
        lab.move(events, "ar1", prefix)
    since = events.count()
    running = flows(mn1=address)
    # What is under way is neither answered nor refused, as when a cable is cut somewhere.
    lab.run("lm", "nft", "table inet test_outage { chain input { type filter hook input priority -10; iifname eth1 drop; }; }")
    try:
        for target in ("ar2", "ar3", "ar2", "ar3"):
            lab.run("mn1", "move", target, "--gap", "0", "--wait", "1500")
    finally:
        begin = time.monotonic_ns()
        lab.run("lm", "nft", "delete table inet test_outage")
    wait_at(lab, "ar3", prefix)
    end = time.monotonic_ns()
    lab.move(events, "ar1", prefix)
    running.stop()
    _, text = running.lost(begin, end)
    tell(f"from the end of the outage to settled, {(end - begin) / 1e9:.1f} s: {text}")
    attached = [event["ar"] for event in events.all()[since:] if event["type"] == COMMITTED and event.get("prefix") == prefix]
    # It passed ar2 and does not answer there any more.
    assert attached == ["ar3", "ar1"]
    audit(lab)
