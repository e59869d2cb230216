"""Frames, made by hand: as they should be, and as they should not."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from hedgerow.kernel.maps import GATEWAY_MAC, IPAddress

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
MARK = b"hedgerow-test-mark"
"""Payload by which a frame is known again where it arrives."""


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(source: bytes, kind: int, payload: bytes, to: bytes = GATEWAY_MAC) -> bytes:
    return to + source + struct.pack("!H", kind) + payload


def ipv4(
    source: IPAddress,
    to: IPAddress,
    protocol: int,
    payload: bytes,
    *,
    options: bytes = b"",
    fragment: int = 0,
    first: int | None = None,
    length: int | None = None,
) -> bytes:
    """`fragment`: flags and offset as they stand in the header. `first` (version and IHL) and `length` may lie."""
    begin = 0x45 + len(options) // 4 if first is None else first
    total = 20 + len(options) + len(payload) if length is None else length
    addresses = source.packed + to.packed
    head = struct.pack("!BBHHHBBH", begin, 0, total, 7, fragment, 64, protocol, 0) + addresses + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(source: IPAddress, to: IPAddress, protocol: int, payload: bytes, *, version: int = 6,
         length: int | None = None, hops: int = 64) -> bytes:  # fmt: skip
    size = len(payload) if length is None else length
    return struct.pack("!IHBB", version << 28, size, protocol, hops) + source.packed + to.packed + payload


def pseudo_header(source: IPAddress, to: IPAddress, protocol: int, length: int) -> bytes:
    return source.packed + to.packed + struct.pack("!II" if source.version == 6 else "!HH", protocol, length)


def udp(source: IPAddress, to: IPAddress, port: int, payload: bytes = MARK, *, sport: int = 4321) -> bytes:
    head = struct.pack("!HHHH", sport, port, 8 + len(payload), 0)
    total = checksum(pseudo_header(source, to, UDP, len(head) + len(payload)) + head + payload)
    return head[:6] + struct.pack("!H", total or 0xFFFF) + payload


FIN, SYN, RST, ACK = 1, 2, 4, 16


def tcp(source: IPAddress, to: IPAddress, port: int, *, flags: int = SYN, sequence: int = 999,
        options: bytes = b"", sport: int = 4321) -> bytes:  # fmt: skip
    """Without data."""
    words = (20 + len(options)) // 4
    head = struct.pack("!HHIIBBHHH", sport, port, sequence, 0, words << 4, flags, 1000, 0, 0) + options
    total = checksum(pseudo_header(source, to, TCP, len(head)) + head)
    return head[:16] + struct.pack("!H", total) + head[18:]


def segment(source: Any, to: Any, sport: int, port: int, *, flags: int, version: int = 4) -> bytes:
    """A frame of TCP between two endpoints, with MARK for its data."""
    mine, theirs = source.of(version), to.of(version)
    head = struct.pack("!HHIIBBHHH", sport, port, 1000, 1, 0x50, flags, 1000, 0, 0)
    total = checksum(pseudo_header(mine, theirs, TCP, len(head) + len(MARK)) + head + MARK)
    return frame(source.mac, ip(mine, theirs, TCP, head[:16] + struct.pack("!H", total) + head[18:] + MARK))


def icmp(kind: int, code: int, body: bytes = MARK, *, number: int = 0) -> bytes:
    """Of IPv4. An error's body is the packet that it is about; an echo has a number."""
    head = struct.pack("!BBHHH", kind, code, 0, number, 0) + body + MARK
    return head[:2] + struct.pack("!H", checksum(head)) + head[4:]


def sctp(sport: int, port: int) -> bytes:
    """The common header and an INIT chunk (RFC 9260, 3), its checksum left out."""
    return struct.pack("!HHII", sport, port, 0, 0) + struct.pack("!BBHIIHHI", 1, 0, 20, 1, 1500, 1, 1, 1) + MARK


def echo_request(source: IPAddress, to: IPAddress) -> bytes:
    body = struct.pack("!BBHHH", 128 if source.version == 6 else 8, 0, 0, 7, 7) + MARK
    extra = pseudo_header(source, to, ICMP6, len(body)) if source.version == 6 else b""
    return body[:2] + struct.pack("!H", checksum(extra + body)) + body[4:]


def ip(source: IPAddress, to: IPAddress, protocol: int, payload: bytes) -> bytes:
    return (ipv4 if source.version == 4 else ipv6)(source, to, protocol, payload)


def frame(mac: bytes, packet: bytes) -> bytes:
    """The Ethernet header that fits the packet's version."""
    return ethernet(mac, IPV6 if packet[0] >> 4 == 6 else IPV4, packet)


def ping(mac: bytes, source: IPAddress, to: IPAddress) -> bytes:
    protocol = ICMP6 if source.version == 6 else ICMP
    return frame(mac, ip(source, to, protocol, echo_request(source, to)))


def datagram(mac: bytes, source: IPAddress, to: IPAddress, port: int) -> bytes:
    return frame(mac, ip(source, to, UDP, udp(source, to, port)))


def syn(mac: bytes, source: IPAddress, to: IPAddress, port: int, options: bytes = b"") -> bytes:
    return frame(mac, ip(source, to, TCP, tcp(source, to, port, options=options)))


def arp(operation: int, mac: bytes, source: IPv4Address, to: IPv4Address) -> bytes:
    body = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation) + mac + source.packed + bytes(6) + to.packed
    return ethernet(mac, ARP, body, to=b"\xff" * 6)


def extension(following: int, *, units: int = 0) -> bytes:
    """An IPv6 header of padding: hop-by-hop, routing or destination options alike (RFC 8200 4.3)."""
    return struct.pack("!BB", following, units) + b"\1\4" + bytes(4 + 8 * units)


def fragment_header(following: int, *, offset: int = 0, more: bool = False) -> bytes:
    return struct.pack("!BBHI", following, 0, offset << 3 | more, 77)


def vlan(tag: int, inner: bytes, kind: int = 0x8100) -> bytes:
    """The frame with a tag put in."""
    return inner[:12] + struct.pack("!HH", kind, tag) + inner[12:]


def vxlan(vni: int, inner: bytes, *, flags: int = 0x08000000) -> bytes:
    """RFC 7348, 5."""
    return struct.pack("!II", flags, vni << 8) + inner


def mapped(address: IPv4Address) -> IPv6Address:
    return IPv6Address(bytes(10) + b"\xff\xff" + address.packed)
