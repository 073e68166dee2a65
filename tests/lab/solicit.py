#!/usr/bin/python3 -IS
"""Sends one router solicitation on a port, as a mobile node of any link-layer address would, right or wrong in one way; or a flood of right ones
from link-layer addresses drawn by lot, at an even rate, and prints how many have left. While the port is down, none leaves. Or has one mobile node
solicit routers and the router fe80::1, as a neighbour, from so many invented addresses, link-local ones and ones of its prefix's, and send a packet
from its own prefix, by the router, to each invented link-local one.

  solicit.py PORT MAC [FAULT]
  solicit.py PORT --flood COUNT SECONDS
  solicit.py PORT --invent COUNT MAC PREFIX

FAULT: hop-limit, checksum, option-zero, option-beyond, global-source, code, short.
"""

import random
import socket
import struct
import sys
import time

ALL_ROUTERS = socket.inet_pton(socket.AF_INET6, "ff02::2")
ROUTER_MAC = bytes.fromhex("02005e008818")
ROUTER = socket.inet_pton(socket.AF_INET6, "fe80::1")
SOLICITED_NODE = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:1")
ICMPV6, ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION = 58, 133, 135


def checksum(source, destination, message):
    data = source + destination + struct.pack("!II", len(message), ICMPV6) + message
    total = sum(struct.unpack(f"!{len(data + bytes(len(data) % 2)) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(mac, fault):
    interface = bytes([mac[0] ^ 2, mac[1], mac[2], 0xFF, 0xFE, mac[3], mac[4], mac[5]])
    source = socket.inet_pton(socket.AF_INET6, "2001:db8:1000::" if fault == "global-source" else "fe80::")[:8] + interface
    option = bytes([1, {"option-zero": 0, "option-beyond": 9}.get(fault, 1)]) + mac
    message = struct.pack("!BBHI", ROUTER_SOLICITATION, 1 if fault == "code" else 0, 0, 0) + option
    if fault == "short":
        message = message[:6]
    return icmpv6(mac, source, ALL_ROUTERS, message, 64 if fault == "hop-limit" else 255, 0x0101 if fault == "checksum" else 0)


def icmpv6(mac, source, destination, message, hop_limit=255, wrong_by=0):
    """To a group. The message's checksum is put in; `wrong_by` is bits of it that are turned over."""
    message = message[:2] + struct.pack("!H", checksum(source, destination, message) ^ wrong_by) + message[4:]
    header = struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, hop_limit)
    return b"\x33\x33" + destination[12:] + mac + struct.pack("!H", 0x86DD) + header + source + destination + message


def invent(port, count, mac, prefix):
    networks = [socket.inet_pton(socket.AF_INET6, text)[:8] for text in ("fe80::", prefix.split("/")[0])]
    option = b"\x01\x01" + mac
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
        out.bind((port, 0))
        for number in range(count):
            source = networks[number % 2] + random.randbytes(8)
            out.send(icmpv6(mac, source, SOLICITED_NODE, struct.pack("!BBHI", NEIGHBOUR_SOLICITATION, 0, 0, 0) + ROUTER + option))
            out.send(icmpv6(mac, source, ALL_ROUTERS, struct.pack("!BBHI", ROUTER_SOLICITATION, 0, 0, 0) + option))
            # No Next Header (RFC 8200, 4.7).
            addresses = networks[1] + random.randbytes(8) + networks[0] + random.randbytes(8)
            out.send(ROUTER_MAC + mac + struct.pack("!H", 0x86DD) + struct.pack("!IHBB", 6 << 28, 0, 59, 64) + addresses)


def flood(port, count, seconds):
    sent = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
        out.bind((port, 0))
        begin = time.monotonic()
        for number in range(count):
            late = time.monotonic() - begin - number * seconds / count
            if late < 0:
                time.sleep(-late)
            try:
                # Locally administered, unicast.
                out.send(frame(b"\x02\xff" + random.randbytes(4), None))
                sent += 1
            except OSError:
                continue
        took = time.monotonic() - begin
    print(f"{sent} sent in {took:.1f} s", flush=True)


def main():
    if sys.argv[2] == "--flood":
        flood(sys.argv[1], int(sys.argv[3]), float(sys.argv[4]))
        return
    if sys.argv[2] == "--invent":
        invent(sys.argv[1], int(sys.argv[3]), bytes.fromhex(sys.argv[4].replace(":", "")), sys.argv[5])
        return
    port, mac, fault = sys.argv[1], bytes.fromhex(sys.argv[2].replace(":", "")), (sys.argv[3:] or [None])[0]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
        out.bind((port, 0))
        out.send(frame(mac, fault))


main()
