"""What an operator would use in the place of Kedge's route injectors. Each tells BGP of routes of one pool and takes them back:

    change(numbers, present, seconds): the pool's /64s of these numbers are to be there or not. Returns when all has been handed over, or when the
    time is over. Whether and when it has come into effect is seen at the reflector."""

import contextlib
import importlib
import os
import queue
import subprocess
import sys
import time

import bgp_lab
import grpc
import processes
from google.protobuf import any_pb2, empty_pb2

PREFERENCE = 101


class Vtysh:
    """One vtysh for each route, at an access router's FRR."""

    def __init__(self, node, pool):
        self._node, self._pool = node, pool

    def change(self, numbers, present, seconds):
        end = time.monotonic() + seconds
        for number in numbers:
            left = end - time.monotonic()
            if left <= 0:
                return
            line = f"{'' if present else 'no '}ipv6 route {bgp_lab.nth(self._pool, number)} blackhole tag 1"
            _run(self._node, left, "vtysh", "-c", "configure terminal", "-c", line)


class Reload:
    """The whole configuration with frr-reload.py, at an access router's FRR."""

    def __init__(self, node, pool, scratch):
        self._node, self._pool, self._file = node, pool, scratch / "reload.conf"

    def change(self, numbers, present, seconds):
        _run(self._node, seconds, "/usr/lib/frr/frr-reload.py", "--reload", "--stdout", "--log-level", "error", self._file)

    def prepare(self, numbers, present):
        """Writes the configuration as it is to be: an operator would have it."""
        head, _, configuration = self._node.vtysh("show running-config").partition("frr version")
        assert head.startswith("Building configuration"), head
        lines = ("frr version" + configuration).splitlines()
        changed = [f"ipv6 route {bgp_lab.nth(self._pool, number)} blackhole tag 1" for number in numbers]
        if present:
            at = lines.index("!", 2)
            lines[at:at] = changed
        else:
            gone = set(changed)
            lines = [line for line in lines if line not in gone]
        self._file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _run(node, seconds, *words):
    """In the node, ended when it takes longer; of what it has begun some may still happen."""
    command = node.command("timeout", "-k", "1", f"{seconds:.3f}", *map(str, words))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 124, 137):
        raise processes.BenchError(f"{words[0]} ended with status {done.returncode}: {(done.stdout + done.stderr).strip()[-300:]}")


class GoBgp:
    """gobgpd as a neighbour of the reflector, by its gRPC: single routes by AddPath and DeletePath, more by one AddPathStream."""

    def __init__(self, lab, name, pool):
        self._pool, (self._own, reflector) = pool, lab.addresses[name]
        self._has_session = lambda: lab.has_session(name)
        subprocess.run(["protoc", "-I", bgp_lab.REPOSITORY / "tests/bench", f"--python_out={lab.scratch}", "gobgp_api.proto"], check=True)
        sys.path.append(str(lab.scratch))
        try:
            self._api = importlib.import_module("gobgp_api_pb2")
        finally:
            sys.path.remove(str(lab.scratch))
        configuration = lab.scratch / "gobgpd.toml"
        configuration.write_text(
            f'[global.config]\n as = {bgp_lab.AS}\n router-id = "192.0.2.2"\n port = 179\n local-address-list = ["{self._own}"]\n'
            f'[[neighbors]]\n [neighbors.config]\n  neighbor-address = "{reflector}"\n  peer-as = {bgp_lab.AS}\n'
            '[[neighbors.afi-safis]]\n [neighbors.afi-safis.config]\n  afi-safi-name = "ipv6-unicast"\n',
            encoding="utf-8")  # fmt: skip
        self._socket = lab.scratch / "gobgpd.sock"
        self._command = lab[name].command("/usr/bin/gobgpd", "-f", str(configuration), "-l", "error", "--pprof-disable", "--api-hosts", f"unix://{self._socket}")
        self._log = lab.scratch / "gobgpd.log"
        self._family = self._api.Family(afi=2, safi=1)
        self._requests = queue.SimpleQueue()

    @contextlib.contextmanager
    def running(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(processes.running(self._command, self._log, self._has_session))
            channel = stack.enter_context(grpc.insecure_channel(f"unix://{self._socket}"))
            grpc.channel_ready_future(channel).result(timeout=30)
            api, path = self._api, "/apipb.GobgpApi/"
            self._add = channel.unary_unary(path + "AddPath", api.AddPathRequest.SerializeToString, api.AddPathResponse.FromString)
            self._delete = channel.unary_unary(path + "DeletePath", api.DeletePathRequest.SerializeToString, empty_pb2.Empty.FromString)
            stream = channel.stream_unary(path + "AddPathStream", api.AddPathStreamRequest.SerializeToString, empty_pb2.Empty.FromString)
            call = stream.future(iter(self._requests.get, None))
            # Ends the thread that waits for requests, also when gobgpd has gone.
            stack.callback(self._requests.put, None)
            yield self
            self._requests.put(None)
            call.result(timeout=10)

    def change(self, numbers, present, seconds):
        del seconds
        paths = [self._path(number, present) for number in numbers]
        if len(paths) != 1:
            # Requests of 1,000 are well below gRPC's 4 MiB.
            for begin in range(0, len(paths), 1000):
                self._requests.put(self._api.AddPathStreamRequest(paths=paths[begin : begin + 1000]))
        elif present:
            self._add(self._api.AddPathRequest(path=paths[0]))
        else:
            self._delete(self._api.DeletePathRequest(path=paths[0], family=self._family))

    def _path(self, number, present):
        api, nlri = self._api, any_pb2.Any()
        nlri.Pack(api.IPAddressPrefix(prefix_len=64, prefix=str(bgp_lab.nth(self._pool, number).network_address)))
        path = api.Path(nlri=nlri, is_withdraw=not present, family=self._family)
        for attribute in (
            api.OriginAttribute(origin=0),
            api.MpReachNLRIAttribute(family=self._family, next_hops=[self._own], nlris=[nlri]),
            api.LocalPrefAttribute(local_pref=PREFERENCE),
        ):
            path.pattrs.add().Pack(attribute)
        return path


class ExaBgp:
    """exabgp as a neighbour of the reflector, by lines of text from a process that it runs."""

    def __init__(self, lab, name, pool):
        self._pool, (self._own, reflector) = pool, lab.addresses[name]
        self._has_session = lambda: lab.has_session(name)
        self._pipe = lab.scratch / "exabgp.pipe"
        os.mkfifo(self._pipe)
        configuration = lab.scratch / "exabgp.conf"
        configuration.write_text(
            f"process inject {{\n run /bin/cat {self._pipe};\n encoder text;\n}}\n"
            f"neighbor {reflector} {{\n router-id 192.0.2.3;\n local-address {self._own};\n local-as {bgp_lab.AS};\n peer-as {bgp_lab.AS};\n"
            " family {\n  ipv6 unicast;\n }\n api {\n  processes [ inject ];\n }\n}\n",
            encoding="utf-8")  # fmt: skip
        # Without answers, which nobody would read.
        settings = ("exabgp.api.ack=false", "exabgp.daemon.user=root", "exabgp.log.level=ERR", "exabgp.log.destination=stderr")
        self._command = lab[name].command("env", *settings, "exabgp", str(configuration))
        self._log = lab.scratch / "exabgp.log"

    @contextlib.contextmanager
    def running(self):
        # Open to be read as well, so that opening it does not wait for exabgp.
        descriptor = os.open(self._pipe, os.O_RDWR)
        with os.fdopen(descriptor, "r+b", buffering=0) as self._lines, processes.running(self._command, self._log, self._has_session):
            yield self

    def change(self, numbers, present, seconds):
        del seconds
        word, more = ("announce", f" local-preference {PREFERENCE}") if present else ("withdraw", "")
        text = "".join(f"{word} route {bgp_lab.nth(self._pool, number)} next-hop {self._own}{more}\n" for number in numbers).encode()
        while text:
            text = text[self._lines.write(text) :]
