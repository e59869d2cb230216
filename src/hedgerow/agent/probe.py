"""A probe: one packet of the flow that is asked about, sent from the source's own namespace.

A TCP connection is opened and at once closed with a reset, an ICMP echo is answered by the destination's kernel, a UDP
datagram is empty. Large pings from host to host show whether the underlay carries a full tunnel packet.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from hedgerow.kernel import netns
from hedgerow.kernel.flows import FlowKey
from hedgerow.why.facts import Question

TIMEOUT_S = 1.2
"""Of TCP: long enough for the kernel's second try."""
UDP_TIMEOUT_S = 0.4
PING_TIMEOUT_S = 0.5
PINGS = 2
_ECHO, _REPLY, _ECHO6, _REPLY6 = 8, 0, 128, 129
_MTU_DISCOVER, _PROBE = 10, 3  # IP_MTU_DISCOVER; DF whatever is known of the path
_MTU_DISCOVER6 = 23  # IPV6_MTU_DISCOVER
_REFUSED = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EACCES, errno.EHOSTDOWN, errno.ECONNRESET, errno.EMSGSIZE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`word`: answered, refused, silent or unsent; `error` is the kernel's own word."""

    word: str
    error: str = ""
    took_ms: float = 0.0


def flow_of(question: Question) -> FlowKey:
    """What the probe will look like to the data path."""
    source, destination = ip_address(question.source), ip_address(question.destination)
    protocol = _KINDS[question.protocol][1]
    if question.protocol == "icmp":
        number = question.source_port
        protocol = socket.IPPROTO_ICMP if source.version == 4 else socket.IPPROTO_ICMPV6
        return FlowKey(source, destination, number, number, protocol)
    return FlowKey(source, destination, question.source_port, question.port, protocol)


class Packet:
    """One probe, ready to be sent."""

    def __init__(self, question: Question, namespace: Path | str) -> None:
        """Raises OSError when the source has not its address, or its port is taken."""
        self._question = question
        self._family = socket.AF_INET if ip_address(question.source).version == 4 else socket.AF_INET6
        kind, protocol = _KINDS[question.protocol][0], flow_of(question).protocol
        self._socket = netns.open_socket(namespace, self._family, kind | socket.SOCK_CLOEXEC, protocol)
        try:
            self._socket.setblocking(False)
            port = 0 if question.protocol == "icmp" else question.source_port
            self._socket.bind((question.source, port))
        except OSError:
            self._socket.close()
            raise

    async def send(self) -> Outcome:
        """Waits for the answer, or until there will be none."""
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(UDP_TIMEOUT_S if self._question.protocol == "udp" else TIMEOUT_S):
                await self._talk()
            word, error = "answered", ""
        except TimeoutError:
            word, error = "silent", ""
        except OSError as fault:
            word = "refused" if fault.errno in _REFUSED else "unsent"
            error = os.strerror(fault.errno or 0)
        return Outcome(word, error, round((time.monotonic() - began_s) * 1e3, 1))

    def close(self) -> None:
        if self._question.protocol == "tcp":  # the other end forgets it at once, too
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        self._socket.close()

    async def _talk(self) -> None:
        loop, to = asyncio.get_running_loop(), (self._question.destination, self._question.port)
        if self._question.protocol != "icmp":
            await loop.sock_connect(self._socket, to)
            if self._question.protocol == "udp":
                self._socket.send(b"")
                await loop.sock_recv(self._socket, 1)
            return
        await loop.sock_connect(self._socket, (self._question.destination, 0))
        await _ping(self._socket, self._question.source_port, 16)


_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "icmp": (socket.SOCK_RAW, socket.IPPROTO_ICMP),
}


async def _ping(raw: socket.socket, number: int, payload_bytes: int) -> None:
    """Returns at the reply. Raises OSError for a refusal, TimeoutError by the caller's limit."""
    loop, is4 = asyncio.get_running_loop(), raw.family == socket.AF_INET
    echo = struct.pack("!BBHHH", _ECHO if is4 else _ECHO6, 0, 0, number, 1) + bytes(payload_bytes)
    if is4:
        echo = echo[:2] + struct.pack("!H", _checksum(echo)) + echo[4:]
    raw.send(echo)
    while True:
        data = await loop.sock_recv(raw, 65536)
        message = data[(data[0] & 15) * 4 :] if is4 else data
        kind, _, _, id = struct.unpack_from("!BBHH", message.ljust(8, b"\0"))
        if kind == (_REPLY if is4 else _REPLY6) and id == number:
            return
        for refused in _errors(message, is4, number):
            raise refused


def _errors(message: bytes, is4: bool, number: int) -> Iterator[OSError]:
    """An ICMP error that quotes our echo."""
    unreachable, quoted = (3, message[8 + 20 :]) if is4 else (1, message[8 + 40 :])
    if message and message[0] == unreachable and len(quoted) >= 6 and struct.unpack_from("!H", quoted, 4)[0] == number:
        code = message[1]
        filtered = code in ((9, 10, 13) if is4 else (1,))
        yield OSError(errno.EACCES if filtered else errno.EHOSTUNREACH, "")


def _checksum(data: bytes) -> int:
    even = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(even) // 2}H", even))
    total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - (total + (total >> 16) & 0xFFFF)


async def reaches(source: str, peer: str, size_bytes: int) -> bool:
    """Whether a ping of one IP packet of that size comes back from another host; tried twice."""
    family = socket.AF_INET if ip_address(peer).version == 4 else socket.AF_INET6
    is4 = family == socket.AF_INET
    protocol = socket.IPPROTO_ICMP if is4 else socket.IPPROTO_ICMPV6
    header = 28 if is4 else 48
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as raw:
        raw.setblocking(False)
        try:
            raw.setsockopt(
                *((socket.IPPROTO_IP, _MTU_DISCOVER) if is4 else (socket.IPPROTO_IPV6, _MTU_DISCOVER6)), _PROBE
            )
            raw.bind((source, 0))
            await asyncio.get_running_loop().sock_connect(raw, (peer, 0))
        except OSError:
            return False
        for _ in range(PINGS):
            try:
                async with asyncio.timeout(PING_TIMEOUT_S):
                    await _ping(raw, secrets.randbelow(0xFFFF) + 1, max(0, size_bytes - header))
                return True
            except (TimeoutError, OSError):
                continue
    return False
