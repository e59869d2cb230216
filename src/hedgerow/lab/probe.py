"""Measures from inside a container's network namespace: does TCP connect, does a ping come back, and how soon.

Only the sockets are made inside; nothing runs there. Refused means that somebody said no (a reset, an ICMP error); lost
that nothing came back, which the walls never do to anybody.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from hedgerow.kernel import netns

Address = IPv4Address | IPv6Address

ECHO, ECHO_REPLY, UNREACHABLE = 8, 0, 3
ECHO6, ECHO_REPLY6, UNREACHABLE6 = 128, 129, 1
IP_HEADER_BYTES, IP6_HEADER_BYTES = 20, 40


class Answer(StrEnum):
    REACHED = "reached"
    REFUSED = "refused"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a probe got and after how many milliseconds."""

    answer: Answer
    ms: float


def family(target: Address) -> int:
    return socket.AF_INET if target.version == 4 else socket.AF_INET6


def tcp(namespace: Path, target: Address, port: int, *, timeout_s: float = 2.0) -> Outcome:
    """A TCP handshake from `namespace`."""
    with netns.open_socket(namespace, family(target), socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        start = time.perf_counter()
        try:
            client.connect((str(target), port))
            answer = Answer.REACHED
        except TimeoutError:
            answer = Answer.LOST
        except OSError:
            answer = Answer.REFUSED
        return Outcome(answer, (time.perf_counter() - start) * 1e3)


def ping(namespace: Path, target: Address, *, timeout_s: float = 2.0) -> Outcome:
    """One ICMP echo from `namespace`; an ICMP error about it is a refusal (RFC 792, RFC 4443)."""
    mark, version = os.urandom(16), target.version
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    with netns.open_socket(namespace, family(target), socket.SOCK_RAW, protocol) as raw:
        start = time.perf_counter()
        try:
            raw.sendto(echo_request(mark, version), (str(target), 0))
        except OSError:
            return Outcome(Answer.REFUSED, (time.perf_counter() - start) * 1e3)
        end = start + timeout_s
        while (left := end - time.perf_counter()) > 0:
            if not select.select([raw], [], [], left)[0]:
                break
            packet = raw.recv(1500)
            if answer := meaning(packet, mark) if version == 4 else meaning6(packet, mark):
                return Outcome(answer, (time.perf_counter() - start) * 1e3)
        return Outcome(Answer.LOST, timeout_s * 1e3)


def echo_request(mark: bytes, version: int = 4) -> bytes:
    """An ICMP echo whose identifier and sequence number are the mark's first four bytes, so that errors carry them.

    The checksum of ICMPv6 covers addresses too: the kernel fills it in.
    """
    if version == 6:
        return struct.pack("!BBH", ECHO6, 0, 0) + mark
    bare = struct.pack("!BBH", ECHO, 0, 0) + mark
    return struct.pack("!BBH", ECHO, 0, checksum(bare)) + mark


def checksum(data: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def meaning(packet: bytes, mark: bytes) -> Answer | None:
    """Of a received IPv4 packet with ICMP inside; None when it is about something else."""
    icmp = packet[(packet[0] & 0xF) * 4 :]
    if icmp[0] == ECHO_REPLY and icmp[4:].startswith(mark):
        return Answer.REACHED
    quoted = icmp[8 + IP_HEADER_BYTES :]
    if icmp[0] == UNREACHABLE and quoted[4:8] == mark[:4]:
        return Answer.REFUSED
    return None


def meaning6(icmp: bytes, mark: bytes) -> Answer | None:
    """Of a received ICMPv6 message, which comes without the packet's header (RFC 3542, 3.3)."""
    if icmp[0] == ECHO_REPLY6 and icmp[4:].startswith(mark):
        return Answer.REACHED
    quoted = icmp[8 + IP6_HEADER_BYTES :]
    if icmp[0] == UNREACHABLE6 and quoted[4:8] == mark[:4]:
        return Answer.REFUSED
    return None
