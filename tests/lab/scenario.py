"""What scenarios on a running lab need: commands in nodes, a numbered flow between two of them, the LM's events, and moves with their time
lines. Used by the scenario tests and by the demo."""

import calendar
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "containerlab"))

from netlab_lib import lab as labs  # noqa: E402  pylint: disable=wrong-import-position

NETLAB = REPOSITORY / "containerlab" / "netlab"
CN_ADDRESS = "2001:db8:0:4::2"
# Stage of a move -> type of the LM's event that tells of it.
STAGES = {
    "rs_seen": "EVENT_TYPE_ARRIVAL_SEEN",
    "attach_committed": "EVENT_TYPE_ATTACH_COMMITTED",
    "deliver_programmed": "EVENT_TYPE_DELIVERING",
    "ra_sent": "EVENT_TYPE_RA_SENT",
    "redirect_programmed": "EVENT_TYPE_REDIRECTING",
    "frr_committed": "EVENT_TYPE_ADVERTISED",
    "best_path_changed": "EVENT_TYPE_SUPERSEDED",
    "withdrawn": "EVENT_TYPE_WITHDRAWN",
    "settled": "EVENT_TYPE_SETTLED",
}

# In words.
STAGE_LABELS = {
    "rs_seen": "MN heard by the new AR",
    "attach_committed": "attachment on the LM's disk",
    "deliver_programmed": "new AR's kernel delivers",
    "ra_sent": "RA sent to the MN",
    "redirect_programmed": "old AR's kernel redirects",
    "frr_committed": "new AR's FRR has committed the /64",
    "best_path_changed": "old AR's bgpd prefers the new AR",
    "withdrawn": "old AR has withdrawn its /64",
    "settled": "nothing left to do",
}


class ScenarioError(Exception):
    """What did not happen in time, with what is known of why."""


def wait_until(what, condition, seconds=15, interval=0.02):
    """Returns the condition's first true value; raises ScenarioError when there was none in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise ScenarioError(f"{what}: not within {seconds} s")
        time.sleep(interval)


def timestamp_ns(text):
    """Nanoseconds since 1970 of a timestamp in Protobuf's JSON form."""
    seconds, _, fraction = text.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(seconds, "%Y-%m-%dT%H:%M:%S")) * 10**9 + int((fraction or "0").ljust(9, "0"))


class Events:
    """The LM's events as they come, by `kedgectl watch`. Goes on by itself when the LM was restarted."""

    def __init__(self, scenario, node="lm"):
        self._list = []
        self._changed = threading.Condition()
        self._process = scenario.start(node, "kedgectl", "watch", "--follow", "--from-start", "-o", "json")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            with contextlib.suppress(ValueError), self._changed:
                self._list.append(json.loads(line))
                self._changed.notify_all()

    def all(self):
        with self._changed:
            return list(self._list)

    def count(self):
        with self._changed:
            return len(self._list)

    def wait(self, what, condition, seconds=30, since=0):
        """Returns the first event for which the condition holds, without the first `since` events."""
        deadline = time.monotonic() + seconds
        with self._changed:
            seen = since
            while True:
                for event in self._list[seen:]:
                    if condition(event):
                        return event
                seen = len(self._list)
                if not self._changed.wait(timeout=max(0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    last = "; ".join(f"{e['type']} {e.get('ar', '')} {e.get('prefix', '')}" for e in self._list[-6:])
                    raise ScenarioError(f"{what}: no such event within {seconds} s; the last were: {last}")

    def wait_for(self, kind, seconds=30, since=0, **fields):
        """The first event of a kind, such as SETTLED, with these fields, without the first `since` events."""
        return self.wait(
            f"{kind} {fields}",
            lambda e: e["type"] == f"EVENT_TYPE_{kind}" and all(e.get(key) == value for key, value in fields.items()), seconds, since,
        )  # fmt: skip

    def since(self, begin, kind, **fields):
        """All of a kind with these fields, without the first `begin` events."""
        return [
            e for e in self.all()[begin:]
            if e["type"] == f"EVENT_TYPE_{kind}" and all(e.get(key) == value for key, value in fields.items())
        ]  # fmt: skip

    def close(self):
        stop_process(self._process)
        self._reader.join(timeout=5)


def stop_process(process, number=signal.SIGTERM):
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    try:
        return process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


class Flow:
    """A numbered flow in both directions between a peer, the node cn unless told, and a mobile node's address. In reports `a` is the peer."""

    def __init__(self, scenario, folder, mn="mn1", mn_address=None, rate=1000, port=9000, size=200, peer="cn", peer_address=CN_ADDRESS):
        self._scenario, self._nodes = scenario, (peer, mn)
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.files = {"cn": self.folder / "cn.json", "mn": self.folder / "mn.json"}
        address = mn_address or scenario.mn_address(mn)
        common = ["--rate", str(rate), "--port", str(port), "--size", str(size)]
        self._ends = {
            "cn": scenario.start(peer, "flow_probe", "run", "--local", peer_address, "--remote", address, *common,
                                 "--name", "cn", "--report", str(self.files["cn"])),
            "mn": scenario.start(mn, "flow_probe", "run", "--local", address, "--remote", peer_address, *common,
                                 "--name", "mn", "--report", str(self.files["mn"])),
        }  # fmt: skip
        for name, end in self._ends.items():
            line = end.stdout.readline()
            if "flow_started" not in line:
                raise ScenarioError(f"the flow's end at {name} did not start: {end.stderr.read()}")

    def _received(self, node):
        lines = (line.split() for line in self._scenario.output(node, "cat", "/proc/net/snmp6").splitlines())
        return int(dict(lines)["Udp6InDatagrams"])

    def wait_for_traffic(self, packets=200, seconds=15):
        """Until so many have arrived at each of the two nodes, of this flow and all others there."""
        before = {node: self._received(node) for node in self._nodes}
        for node in self._nodes:
            wait_until(f"packets arrive at {node}", lambda node=node: self._received(node) >= before[node] + packets, seconds)

    def stop(self):
        for end in self._ends.values():
            end.send_signal(signal.SIGTERM)
        for name, end in self._ends.items():
            if end.wait(timeout=30) != 0:
                raise ScenarioError(f"the flow's end at {name} failed: {end.stderr.read()}")

    def abort(self):
        for end in self._ends.values():
            stop_process(end, signal.SIGKILL)

    def report(self, window=None):
        """Of the whole flow, or of the packets sent in a window of monotonic nanoseconds."""
        command = [labs.build_folder() / "tests" / "tools" / "flow_probe", "report", "--a", self.files["cn"], "--b", self.files["mn"]]
        if window:
            command += ["--from", str(window[0]), "--to", str(window[1])]
        output = self.folder / "report.json"
        subprocess.run([*map(str, command), "-o", str(output)], check=True)
        return json.loads(output.read_text())


class Scenario:
    """A running lab and what has been started in it."""

    def __init__(self, lab_name):
        self.lab = labs.find(lab_name)
        self._processes = []
        # The machine's clocks: events carry wall-clock times, flows monotonic ones.
        self.wall_offset_ns = time.time_ns() - time.monotonic_ns()

    def nodes(self):
        return list(self.lab.nodes)

    def run(self, node, *command, check=True, timeout=60):
        result = self.lab.run(node, [str(word) for word in command], timeout=timeout)
        if check and result.returncode != 0:
            raise ScenarioError(f"{node}: {' '.join(map(str, command))}: status {result.returncode}: {result.stdout}{result.stderr}")
        return result

    def output(self, node, *command):
        return self.run(node, *command).stdout

    def json(self, node, *command):
        return json.loads(self.output(node, *command))

    def start(self, node, *command):
        process = subprocess.Popen(
            [NETLAB, "exec", "-t", self.lab.name, node, "--", *map(str, command)], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self._processes.append(process)
        return process

    def close(self):
        for process in self._processes:
            if process.poll() is None:
                stop_process(process, signal.SIGKILL)

    # What is there

    def mn_addresses(self, mn="mn1", interface="br0"):
        """Global addresses that are ready to be used, the preferred ones first."""
        found = json.loads(self.output(mn, "ip", "-j", "-6", "address", "show", "dev", interface, "scope", "global"))
        entries = [a for link in found for a in link.get("addr_info", []) if "local" in a and not a.get("tentative")]
        entries.sort(key=lambda a: a.get("deprecated", False))
        return [a["local"] for a in entries]

    def mn_address(self, mn="mn1", within="2001:db8:1000:"):
        return wait_until(
            f"{mn} has an address from {within}",
            lambda: next((a for a in self.mn_addresses(mn) if a.startswith(within)), None),
        )

    def synced(self):
        """All speakers have their session with the LM, and kernel and FRR hold what they should."""
        result = self.run("lm", "kedgectl", "nodes", "-o", "json", check=False)
        if result.returncode == 127:
            raise ScenarioError(f"kedgectl is not in {labs.build_folder()}; run: make build")
        if result.returncode != 0:
            return False
        nodes = json.loads(result.stdout)["nodes"]
        return bool(nodes) and all(
            node["connected"] and node["health"]["frr"] == "synced" and node["health"]["kernel"] == "synced" for node in nodes
        )

    def wait_synced(self, seconds=30):
        wait_until("all speakers are synced", self.synced, seconds)

    def binding(self, prefix):
        return self.json("lm", "kedgectl", "binding", prefix, "-o", "json")

    def bindings(self):
        return self.json("lm", "kedgectl", "bindings", "-o", "json")["bindings"]

    def node(self, ar):
        nodes = self.json("lm", "kedgectl", "nodes", "-o", "json")["nodes"]
        return next(node for node in nodes if node["info"]["name"] == ar)

    def set_policy(self, *scope, **fields):
        """set_policy("--mn", mn_id, mode="redirect"); an empty value: inherited again."""
        self.run("lm", "kedgectl", "policy", "set", *scope, *(f"{key}={value}" for key, value in fields.items()))

    def clear_policies(self):
        for policy in self.json("lm", "kedgectl", "policy", "list", "-o", "json").get("policies", []):
            (kind, value) = next(iter(policy["scope"].items()))
            scope = {"mn_id": ["--mn", value], "ar": ["--ar", value], "defaults": ["--default"]}[kind]
            self.run("lm", "kedgectl", "policy", "delete", *scope)

    def mn_id(self, mn="mn1"):
        return self.output(mn, "cat", "/sys/class/net/br0/address").strip()

    def speaker_pid(self, ar):
        pids = self.run(ar, "pidof", "kedge-speaker", check=False).stdout.split()
        return int(pids[0]) if pids else 0

    def restart_speakers(self, addition=""):
        """All speakers start again, with this YAML below their configuration, and have synced."""
        for ar in self.access_routers():
            old = self.speaker_pid(ar)
            command = '{ cat /etc/kedge/speaker.yaml; printf %s "$1"; } >/run/kedge/speaker.yaml'
            self.run(ar, "sh", "-c", command, "sh", addition)
            self.run(ar, "kill", old)
            wait_until(f"the speaker of {ar} has started again", lambda ar=ar, old=old: self.speaker_pid(ar) not in (0, old))
        self.wait_synced()

    def kill(self, node, name, number="KILL"):
        self.run(node, "pkill", f"-{number}", "-x", name)

    def bgp_best(self, node, prefix):
        """(next hop, local preference) of the best path, or None."""
        table = json.loads(self.output(node, "vtysh", "-c", f"show bgp ipv6 unicast {prefix} json") or "{}")
        if table.get("prefix") not in (None, prefix):
            return None
        for path in table.get("paths", []):
            if path.get("bestpath", {}).get("overall"):
                hops = [hop["ip"] for hop in path["nexthops"] if hop.get("scope") == "global"]
                return (hops[0] if hops else None, path.get("locPrf"))
        return None

    def announcers(self, node, prefix):
        """Neighbours that have announced exactly this prefix to the node."""
        table = self.json(node, "vtysh", "-c", "show bgp ipv6 unicast json")
        return {path["peerId"] for path in table["routes"].get(prefix, [])}

    # Moves

    def prefix_of(self, address):
        return self.json("lm", "kedgectl", "binding", address, "-o", "json")["prefix"]

    def access_routers(self, mn="mn1"):
        """Those that the mobile node has a port to."""
        lines = (line.split("#")[0].split() for line in self.output(mn, "cat", "/etc/kedge/ports").splitlines())
        return [words[0] for words in lines if words]

    def move(self, events, target, prefix, gap_ms=None, mn="mn1", seconds=60):
        """Moves the mobile node and waits until the prefix's binding has settled. Returns what happened, with `window`: from before
        the move until it had settled, in monotonic nanoseconds, and `timeline` in milliseconds after the first link change."""
        # By position: a restarted LM counts its events anew.
        since = events.count()
        begin = time.monotonic_ns()
        command = ["move", target] + ([] if gap_ms is None else ["--gap", str(gap_ms)])
        done = json.loads(self.output(mn, *command))

        def of_prefix(event, kind):
            return event.get("prefix") == prefix and event["type"] == kind

        committed = events.wait(
            f"attachment of {prefix} at {target}",
            lambda e: of_prefix(e, "EVENT_TYPE_ATTACH_COMMITTED") and e["ar"] == target, seconds, since,
        )  # fmt: skip
        generation = committed["generation"]
        events.wait(
            f"{prefix} settled at {target}",
            lambda e: of_prefix(e, "EVENT_TYPE_SETTLED") and e["generation"] == generation, seconds, since,
        )  # fmt: skip
        end = time.monotonic_ns()
        return {
            "planned": gap_ms is None,
            "gap_ms": gap_ms,
            "window": (begin, end),
            "generation": generation,
            "events": done["events"],
            "timeline": self.timeline(
                [e for e in events.all()[since:] if e.get("prefix") == prefix and e.get("generation") == generation],
                done["events"][0]["ns"] + done["wall_clock_offset_ns"],
            ),
        }

    @staticmethod
    def timeline(events, origin_ns):
        """Stage -> milliseconds after the origin (nanoseconds since 1970), of the first event of each stage."""
        found = {}
        for event in events:
            for stage, kind in STAGES.items():
                if event["type"] == kind and stage not in found:
                    found[stage] = round((timestamp_ns(event["at"]) - origin_ns) / 1e6, 3)
        return {stage: found.get(stage) for stage in STAGES}


@contextlib.contextmanager
def lab_up(topology, name=None, environment=None):
    """Brings a lab up, gives the scenario, and takes the lab down again whatever happens."""
    command = [NETLAB, "up", str(topology)] + (["--name", name] if name else [])
    environment = {**os.environ, **(environment or {})}
    subprocess.run(list(map(str, command)), check=True, env=environment, stdin=subprocess.DEVNULL)
    scenario = Scenario(name or pathlib.Path(topology).name)
    try:
        yield scenario
    finally:
        with labs.signals_ignored():
            scenario.close()
            subprocess.run([str(NETLAB), "down", scenario.lab.name], check=False, stdin=subprocess.DEVNULL)
