#!/usr/bin/python3 -I
"""Answers every router solicitation on an interface with a router advertisement to all nodes, with a prefix. Prints a line once it listens.

Usage: fake_router.py INTERFACE
"""

import socket
import struct
import sys

ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT = 133, 134

interface = sys.argv[1]
index = socket.if_nametoindex(interface)
icmp = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
icmp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, "ff02::2") + struct.pack("@I", index))
icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
print("listening", flush=True)
while True:
    message, source = icmp.recvfrom(2048)
    if message[0] == ROUTER_SOLICITATION:
        # RFC 4861, 4.2: hop limit, flags, router lifetime, reachable time, retransmission timer.
        header = struct.pack("!BBHBBHII", ROUTER_ADVERTISEMENT, 0, 0, 64, 0, 1800, 0, 0)
        # 4.6.2: on link, for no addresses.
        option = struct.pack("!BBBBIII16s", 3, 4, 64, 0x80, 7200, 1800, 0, socket.inet_pton(socket.AF_INET6, "2001:db8:ffff::"))
        icmp.sendto(header + option, ("ff02::1", 0, 0, index))
        print(f"answered {source[0]}", flush=True)
