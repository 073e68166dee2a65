"""A TCP port scan by connecting: which ports of an address accept, and from which nothing comes back. Runs in a lab's node.

Usage: scan.py ADDRESS[%INTERFACE] FIRST LAST

Prints JSON: {"open": [...], "silent": [...]}; all other ports were refused.
"""

import errno
import json
import select
import socket
import sys

AT_A_TIME = 400
# Of ports that have not answered after all others have.
PATIENCE_MS = 1500
RETRIES = 2


def probe(address, ports):
    """(accepted, unanswered) of the ports, tried at once."""
    poller = select.poll()
    waiting = {}
    accepted = []
    for port in ports:
        one = socket.socket(socket.AF_INET6)
        one.setblocking(False)
        error = one.connect_ex((*address[:1], port, *address[2:]))
        if error == errno.EINPROGRESS:
            waiting[one.fileno()] = (port, one)
            poller.register(one, select.POLLOUT)
            continue
        if error == 0:
            accepted.append(port)
        one.close()
    while waiting and (events := poller.poll(PATIENCE_MS)):
        for number, _ in events:
            port, one = waiting.pop(number)
            poller.unregister(number)
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                accepted.append(port)
            one.close()
    for _, one in waiting.values():
        one.close()
    return accepted, [port for port, _ in waiting.values()]


def main():
    address = socket.getaddrinfo(sys.argv[1], 0, socket.AF_INET6)[0][4]
    ports = list(range(int(sys.argv[2]), int(sys.argv[3]) + 1))
    accepted = []
    for _ in range(1 + RETRIES):
        # The kernel limits how many refusals it sends in a second.
        silent = []
        for begin in range(0, len(ports), AT_A_TIME):
            some, none = probe(address, ports[begin : begin + AT_A_TIME])
            accepted += some
            silent += none
        ports = silent
    print(json.dumps({"open": sorted(accepted), "silent": sorted(ports)}))


main()
