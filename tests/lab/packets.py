"""What passes an interface of a lab, decoded as far as RFC 8818's figures need it: router discovery, the numbered flows in and out of tunnels,
ICMPv6 errors, and what BGP announces and withdraws.

Standards: RFC 8200, RFC 2473, RFC 4443, RFC 4861, RFC 4271, RFC 4760."""

import dataclasses
import ipaddress
import struct

import scenario as scenarios

ETHERNET, IPV6_FRAME = 14, 0x86DD
TCP, UDP, IPV6, ICMPV6 = 6, 17, 41, 58
BGP = 179
RS, RA, NS, UDP_PACKET, ERROR, ANNOUNCED, WITHDRAWN, OTHER = "RS", "RA", "NS", "UDP", "ICMPv6 error", "BGP update", "BGP withdraw", "other"


@dataclasses.dataclass
class Packet:
    # Seconds since 1970.
    at: float
    kind: str
    # Of the packet itself; of one in a tunnel, of the inner one.
    source: str
    target: str
    # (source, target) of the outer packet.
    tunnel: tuple | None = None
    # Of UDP.
    ports: tuple | None = None
    # Of a router advertisement: prefix -> (preferred, valid) lifetime in seconds.
    prefixes: dict = dataclasses.field(default_factory=dict)
    # Of an ICMPv6 error: (type, code), and (source, target) of the packet that it is about.
    code: tuple | None = None
    about: tuple | None = None
    # Of BGP.
    prefix: str | None = None
    local_preference: int | None = None


def text(address):
    return str(ipaddress.IPv6Address(address))


def addresses(header):
    return text(header[8:24]), text(header[24:40])


def decode_icmpv6(packet, body):
    packet.kind = {133: RS, 134: RA, 135: NS}.get(body[0], ERROR if body[0] < 128 else OTHER)
    if packet.kind == ERROR:
        packet.code = (body[0], body[1])
        if len(body) >= 8 + 40:
            packet.about = addresses(body[8:])
    if packet.kind == RA:
        options = body[16:]
        while len(options) >= 2 and options[1] > 0:
            if options[0] == 3 and len(options) >= 32:
                valid, preferred = struct.unpack("!II", options[4:12])
                packet.prefixes[f"{text(options[16:32])}/{options[2]}"] = (preferred, valid)
            options = options[8 * options[1] :]


def prefixes_of(nlri):
    while nlri:
        size = (nlri[0] + 7) // 8
        yield f"{text(nlri[1 : 1 + size].ljust(16, bytes(1)))}/{nlri[0]}"
        nlri = nlri[1 + size :]


class BgpStream:
    """One direction of a BGP session. Captures begin somewhere in it; each message begins with 16 octets of ones."""

    def __init__(self):
        self._rest = b""
        self._next = None

    def take(self, sequence, data, template):
        """Packets for what the messages that are complete now announce and withdraw."""
        # What was sent again; after a piece that was not captured it is a new beginning.
        behind = 0 if self._next is None else (self._next - sequence) % 2**32
        if behind >= 2**31:
            self._rest, behind = b"", 0
        data = data[behind:]
        if not data:
            return
        self._next = (sequence + behind + len(data)) % 2**32
        self._rest += data
        while (start := self._rest.find(b"\xff" * 16)) >= 0 and len(self._rest) >= start + 19:
            size, kind = struct.unpack_from("!HB", self._rest, start + 16)
            if len(self._rest) < start + size:
                return
            message, self._rest = self._rest[start + 19 : start + size], self._rest[start + size :]
            if kind == 2:
                yield from self._update(message, template)

    @staticmethod
    def _update(message, template):
        withdrawn = struct.unpack_from("!H", message)[0]
        size = struct.unpack_from("!H", message, 2 + withdrawn)[0]
        attributes = message[4 + withdrawn : 4 + withdrawn + size]
        preference, found = None, []
        while attributes:
            extended = attributes[0] & 0x10
            length = struct.unpack_from("!H" if extended else "!B", attributes, 2)[0]
            value = attributes[4 if extended else 3 :][:length]
            if attributes[1] == 5:
                preference = struct.unpack("!I", value)[0]
            if attributes[1] == 14:
                # RFC 4760, 3: AFI, SAFI, next hop's length, next hop, reserved, NLRI.
                found += [(ANNOUNCED, prefix) for prefix in prefixes_of(value[5 + value[3] :])]
            if attributes[1] == 15:
                found += [(WITHDRAWN, prefix) for prefix in prefixes_of(value[3:])]
            attributes = attributes[(4 if extended else 3) + length :]
        for kind, prefix in found:
            yield dataclasses.replace(template, kind=kind, prefix=prefix, local_preference=preference if kind == ANNOUNCED else None)


def decode(at, frame, streams):
    """Packets of one frame; none of what is not IPv6."""
    if len(frame) < ETHERNET + 40 or struct.unpack_from("!H", frame, 12)[0] != IPV6_FRAME:
        return []
    header = frame[ETHERNET:]
    packet = Packet(at, OTHER, *addresses(header))
    if header[6] == IPV6 and len(header) >= 80:
        packet.tunnel = (packet.source, packet.target)
        header = header[40:]
        packet.source, packet.target = addresses(header)
    body = header[40 : 40 + struct.unpack_from("!H", header, 4)[0]]
    if header[6] == UDP and len(body) >= 8:
        packet.kind, packet.ports = UDP_PACKET, struct.unpack_from("!HH", body)
    elif header[6] == ICMPV6 and len(body) >= 8:
        decode_icmpv6(packet, body)
    elif header[6] == TCP and len(body) >= 20:
        ports = struct.unpack_from("!HH", body)
        if BGP in ports:
            sequence, data = struct.unpack_from("!I", body, 4)[0], body[4 * (body[12] >> 4) :]
            stream = streams.setdefault((packet.source, packet.target, ports), BgpStream())
            return list(stream.take(sequence, data, packet))
    return [packet]


def read(file):
    """Packets of a file in tcpdump's format."""
    content = file.read_bytes()
    order = "<" if content[:4] == b"\xd4\xc3\xb2\xa1" else ">"
    found, streams, at = [], {}, 24
    while at + 16 <= len(content):
        seconds, microseconds, size, _ = struct.unpack_from(order + "IIII", content, at)
        if at + 16 + size > len(content):
            break
        found += decode(seconds + microseconds / 1e6, content[at + 16 : at + 16 + size], streams)
        at += 16 + size
    return found


class Capture:
    """Packets on an interface of a node, from the capture's making until it is stopped."""

    def __init__(self, lab, folder, node, interface, expression="ip6"):
        self._file = folder / f"{node}-{interface}.pcap"
        self._process = lab.start(
            node, "tcpdump", "-n", "-U", "--immediate-mode", "-Z", "root", "-B", "16384", "-s", "1600", "-i", interface, "-w", self._file, expression
        )
        while "listening on" not in (line := self._process.stderr.readline()):
            assert line, "tcpdump did not start"

    def stop(self):
        scenarios.stop_process(self._process)
        return read(self._file)


class Captures:
    """Several at once, by name: Captures(lab, folder, access=("ar2", "eth2"), ...)."""

    def __init__(self, lab, folder, **places):
        self._captures = {name: Capture(lab, folder, *place) for name, place in places.items()}

    def stop(self):
        return {name: capture.stop() for name, capture in self._captures.items()}


class CallFlow:
    """The arrows of a figure, each looked for in what was captured at one place, from the moment of the one before it on."""

    def __init__(self, captured):
        self._captured = captured
        self._at = 0
        self._lines = []

    def arrow(self, name, place, condition):
        """The first such packet."""
        for packet in self._captured[place]:
            if packet.at >= self._at and condition(packet):
                return self._took(name, packet.at, packet)
        raise AssertionError(f"no '{name}' at {place} after:\n{self}")

    def event(self, name, at):
        """Something that was no packet, by the clock of the machine in seconds."""
        # Captures are cut off to microseconds.
        assert at >= self._at - 1e-6, f"'{name}' was {1000 * (self._at - at):.3f} ms earlier than the last of:\n{self}"
        return self._took(name, at, None)

    def _took(self, name, at, packet):
        self._at = at
        self._lines.append((at, name))
        return packet

    def __str__(self):
        begin = self._lines[0][0] if self._lines else 0
        return "\n".join(f"  {1000 * (at - begin):8.1f} ms  {name}" for at, name in self._lines)
