"""IPv6 routes of a network namespace's kernel by rtnetlink, without starting a program: changes seen as they come, and made at a given pace."""

import contextlib
import ctypes
import ipaddress
import os
import socket
import struct
import time

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_NLMSG_ERROR, _RTM_NEWROUTE, _RTM_DELROUTE, _GROUP_IPV6_ROUTE = 2, 24, 25, 11
_SOL_NETLINK, _ADD_MEMBERSHIP, _RECEIVE_BUFFER_FORCE = 270, 1, 33
_RTA_DST, _RTA_OIF = 1, 4
_REQUEST, _CREATE_OR_REPLACE = 1, 0x500
_TABLE_MAIN, _UNICAST = 254, 1
# Of no other program: nothing takes these routes for its own.
_PROTOCOL = 99
_HEADER, _ROUTE, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=8BI"), struct.Struct("=HH")


def _enter(namespace):
    if _LIBC.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _socket_in(pid):
    """A netlink socket of the network namespace of a process; it stays there, this process does not."""
    with open("/proc/thread-self/ns/net", "rb") as own, open(f"/proc/{pid}/ns/net", "rb") as other:
        _enter(other)
        try:
            made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            made.bind((0, 0))
            return made
        finally:
            _enter(own)


def _packed(prefix):
    network = ipaddress.IPv6Network(prefix)
    return network.network_address.packed, network.prefixlen


class RouteMonitor:
    """Changes of the main table, to be waited for with select(). The kernel keeps up to 64 MiB of them."""

    def __init__(self, pid):
        self._socket = _socket_in(pid)
        self._socket.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, 64 << 20)
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_IPV6_ROUTE)
        self._socket.setblocking(False)

    def fileno(self):
        return self._socket.fileno()

    def close(self):
        self._socket.close()

    def read(self):
        """(prefix, whether it was added or replaced) of all that has come."""
        while True:
            try:
                data = self._socket.recv(1 << 20)
            except BlockingIOError:
                return
            while len(data) >= _HEADER.size:
                length, kind, *_ = _HEADER.unpack_from(data)
                found = self._parse(kind, data[_HEADER.size : length])
                if found:
                    yield found
                data = data[(length + 3) & ~3 :]

    @staticmethod
    def _parse(kind, data):
        if kind not in (_RTM_NEWROUTE, _RTM_DELROUTE):
            return None
        family, bits, _, _, table, *_ = _ROUTE.unpack_from(data)
        if family != socket.AF_INET6 or table != _TABLE_MAIN:
            return None
        at = _ROUTE.size
        while at + _ATTRIBUTE.size <= len(data):
            length, attribute = _ATTRIBUTE.unpack_from(data, at)
            if attribute == _RTA_DST:
                address = socket.inet_ntop(socket.AF_INET6, data[at + _ATTRIBUTE.size : at + length])
                return f"{address}/{bits}", kind == _RTM_NEWROUTE
            at += (length + 3) & ~3
        return None


class RouteWriter:
    """Adds and removes unicast routes of one interface, without waiting for the kernel's answers."""

    def __init__(self, pid, interface_index):
        self._socket = _socket_in(pid)
        self._socket.setblocking(False)
        self._interface = _ATTRIBUTE.pack(8, _RTA_OIF) + struct.pack("=I", interface_index)

    def close(self):
        self._socket.close()

    def write(self, prefix, add):
        address, bits = _packed(prefix)
        kind, flags = (_RTM_NEWROUTE, _REQUEST | _CREATE_OR_REPLACE) if add else (_RTM_DELROUTE, _REQUEST)
        body = _ROUTE.pack(socket.AF_INET6, bits, 0, 0, _TABLE_MAIN, _PROTOCOL if add else 0, 0, _UNICAST if add else 0, 0)
        body += _ATTRIBUTE.pack(20, _RTA_DST) + address + self._interface
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body)

    def check(self):
        """Raises OSError when the kernel has refused anything."""
        with contextlib.suppress(BlockingIOError):
            data = self._socket.recv(1 << 16)
            _, kind, *_ = _HEADER.unpack_from(data)
            (error,) = struct.unpack_from("=i", data, _HEADER.size)
            if kind == _NLMSG_ERROR and error:
                raise OSError(-error, f"the kernel refuses a route: {os.strerror(-error)}")


def cpu_seconds(pid):
    """What all threads of a process have had of the CPUs."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1e9


def now_ms():
    return time.monotonic_ns() / 1e6
