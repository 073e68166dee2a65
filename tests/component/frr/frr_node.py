"""A router with FRR's daemons in namespaces of its own (network, mount, PID), which all end with it."""

import json
import os
import pathlib
import signal
import subprocess
import time

DAEMONS = pathlib.Path("/usr/lib/frr")
WAIT_SECONDS = 30


def wait_for(condition, what, seconds=WAIT_SECONDS):
    """The first true value of condition(); an AssertionError names `what` when there is none in time."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.005)


class FrrNode:
    def __init__(self, name, log_folder):
        self.name = name
        self.log_folder = pathlib.Path(log_folder)
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
             "sh", "-c",
             # FRR's daemons drop their privileges and want these folders; Debian's own stay out of sight.
             "mount -t tmpfs -o mode=755 tmpfs /var/run/frr && chown frr:frr /var/run/frr &&"
             "mount -t tmpfs -o mode=755 tmpfs /etc/frr && touch /etc/frr/vtysh.conf && ip link set lo up &&"
             "echo ready && exec sleep infinity"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout.readline() == "ready\n", f"no namespaces for {name}: this needs root"
        children = pathlib.Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        self.pid = int(children.read_text().split()[0])
        self._daemons = {}

    def close(self):
        """Ends the PID namespace and with it all that runs in it."""
        self._holder.kill()
        self._holder.wait()
        self._holder.stdout.close()
        for daemon in self._daemons.values():
            # nsenter stops when its child does.
            daemon.kill()
            daemon.wait()

    def command(self, *words):
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "-p", *words]

    def run(self, *words):
        result = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, f"{self.name}: {' '.join(words)}: {result.stdout}{result.stderr}"
        return result.stdout

    def connect(self, interface, address, other, other_interface, other_address):
        subprocess.run(["nsenter", "-t", str(self.pid), "-n", "ip", "link", "add", interface, "type", "veth", "peer", "name",
                        other_interface, "netns", str(other.pid)], check=True)
        for node, name, own in ((self, interface, address), (other, other_interface, other_address)):
            node.run("ip", "-6", "address", "add", own, "dev", name, "nodad")
            node.run("ip", "link", "set", name, "up")

    def configure(self, daemon, text):
        path = f"/etc/frr/{daemon}.conf"
        subprocess.run(self.command("tee", path), input=text, text=True, check=True, stdout=subprocess.DEVNULL)
        self.run("chown", "frr:frr", path)

    def start(self, daemon, *options):
        log = open(self.log_folder / f"{self.name}.{daemon}.log", "a", encoding="utf-8")
        with log:
            process = subprocess.Popen(
                self.command(str(DAEMONS / daemon), "--log", "stdout", *options),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self._daemons[daemon] = process
        wait_for(lambda: self.answers(daemon) or process.poll() is not None, f"{daemon} answers")
        assert process.poll() is None, f"{daemon} ended: see {log.name}"

    def answers(self, daemon):
        return subprocess.run(self.command("vtysh", "-d", daemon, "-c", "show version"), capture_output=True,
                              check=False).returncode == 0

    def daemon_pid(self, daemon):
        return int(self.run("cat", f"/var/run/frr/{daemon}.pid"))

    def host_pid(self, daemon):
        """As the machine sees it."""
        nsenter = self._daemons[daemon].pid
        return int(pathlib.Path(f"/proc/{nsenter}/task/{nsenter}/children").read_text().split()[0])

    def signal(self, daemon, number):
        """By the PID file, which holds the PID inside."""
        self.run("kill", f"-{int(number)}", str(self.daemon_pid(daemon)))

    def kill(self, daemon):
        self.signal(daemon, signal.SIGKILL)
        self._daemons.pop(daemon).wait()

    def vtysh(self, *commands):
        words = ["vtysh"]
        for command in commands:
            words += ["-c", command]
        return self.run(*words)

    def best_path(self, prefix):
        """bgpd's best path as its JSON has it, or None."""
        answer = json.loads(self.vtysh(f"show bgp ipv6 unicast {prefix} json") or "{}")
        return next((path for path in answer.get("paths", []) if path.get("bestpath", {}).get("overall")), None)

    def follow_routes(self):
        """Collects the kernel's notices of IPv6 routes from now on, in a file; gives a function that ends it and returns the lines."""
        path = self.log_folder / f"{self.name}.routes"
        with open(path, "w", encoding="utf-8") as output:
            # In this PID namespace, so that the signal reaches it and not nsenter alone.
            process = subprocess.Popen(["nsenter", "-t", str(self.pid), "-n", "ip", "-6", "-o", "monitor", "route"], stdout=output)
        wait_for(lambda: self._listens_to_routes(process.pid), "ip monitor listens")

        def stop():
            process.terminate()
            process.wait()
            return path.read_text().splitlines()
        return stop

    @staticmethod
    def _listens_to_routes(pid):
        lines = pathlib.Path(f"/proc/{pid}/net/netlink").read_text(encoding="utf-8").splitlines()
        return any(words[1] == "0" and words[2] == str(pid) and int(words[3], 16) & 0x400 for words in map(str.split, lines[1:]))

    def preference(self, prefix):
        path = self.best_path(prefix)
        return path["locPrf"] if path else None


class Driver:
    """anchoring_plane_driver in a node's namespaces, and what it has told."""

    def __init__(self, node, binary, log, northbound="127.0.0.1:50051"):
        self._log = open(log, "a", encoding="utf-8")
        self._process = subprocess.Popen(node.command(str(binary), northbound), stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=self._log)
        os.set_blocking(self._process.stdout.fileno(), False)
        self._rest = b""
        # (seconds of time.monotonic(), "committed 2001:db8::/64 1")
        self.events = []

    def close(self):
        self._process.stdin.close()
        try:
            assert self._process.wait(WAIT_SECONDS) == 0
        finally:
            self._process.kill()
            self._process.stdout.close()
            self._log.close()

    def tell(self, command):
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()

    def _read(self):
        lines = (self._rest + (self._process.stdout.read() or b"")).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            microseconds, event = line.decode().split(" ", 1)
            self.events.append((int(microseconds) / 1e6, event))

    def expect(self, start, after=0.0, seconds=WAIT_SECONDS):
        """The first event that begins so and came after that time; (time, event)."""
        def find():
            self._read()
            return next((event for event in self.events if event[0] > after and event[1].startswith(start)), None)
        try:
            return wait_for(find, start, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; events: {self.events[-10:]}") from None
