"""Connections that the kernel tracks, forgotten: of an address that goes, and of a port that is published from now on.

An address may be another container's later, and a tracked connection would carry the old one's packets to it. And a
UDP sender that called a port before it was published would call in vain for as long as it keeps trying, since
nftables' nat rules see the first packet only.

For IPv4 the kernel does it by one message (ctnetlink with a filter, Linux 5.8). Its filter compares IPv6 addresses the
wrong way round (it takes those that differ), so connections of IPv6 are listed here and deleted one by one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from enum import IntFlag

from hedgerow.model.endpoint import Address

from .netlink import attribute, attributes

_NETLINK_NETFILTER, _GET, _DELETE = 12, 1 << 8 | 1, 1 << 8 | 2
_REQUEST, _ACK, _DUMP, _ERROR, _DONE, _NESTED = 1, 4, 0x300, 2, 3, 0x8000
_ORIGINAL, _REPLY, _ID, _FILTER = 1, 2, 12, 25
_TUPLE_IP, _TUPLE_PROTOCOL, _SOURCE4, _SOURCE6 = 1, 2, 1, 3
_PROTOCOL_NUMBER, _DESTINATION_PORT = 1, 3
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_TIMEOUT_S = 5.0
_BUFFER_BYTES = 1 << 16


class _Part(IntFlag):
    """Of a tuple, what must be equal. The kernel's numbers for it (net/netfilter/nf_internals.h)."""

    SOURCE = 1 << 0
    PROTOCOL = 1 << 3
    DESTINATION_PORT = 1 << 5


def forget(address: Address) -> None:
    """Every connection that the address opened, and every one that was opened to it. Raises OSError."""
    with _channel() as channel:
        if address.version == 4:
            source = attribute(_TUPLE_IP | _NESTED, attribute(_SOURCE4, address.packed))
            for side in (_ORIGINAL, _REPLY):
                _send(channel, _filtered(4, side, source, _Part.SOURCE))
            return
        for one in list(_all(channel, 6)):
            if address.packed in (_source6(one[_ORIGINAL]), _source6(one[_REPLY])):
                body = _head(6) + attribute(_ORIGINAL | _NESTED, one[_ORIGINAL]) + attribute(_ID, one[_ID])
                with contextlib.suppress(FileNotFoundError):  # it ended meanwhile
                    _send(channel, body)


def forget_udp(version: int, port: int) -> None:
    """Every one of the IP version whose first packet was UDP to the port. Raises OSError."""
    number = attribute(_PROTOCOL_NUMBER, struct.pack("=B", socket.IPPROTO_UDP))
    parts = attribute(_TUPLE_PROTOCOL | _NESTED, number + attribute(_DESTINATION_PORT, struct.pack("!H", port)))
    with _channel() as channel:
        _send(channel, _filtered(version, _ORIGINAL, parts, _Part.PROTOCOL | _Part.DESTINATION_PORT))


def _channel() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    opened.settimeout(_TIMEOUT_S)
    return opened


def _head(version: int) -> bytes:
    """struct nfgenmsg."""
    return struct.pack("=BBH", _FAMILIES[version], 0, 0)


def _filtered(version: int, side: int, parts: bytes, flags: _Part) -> bytes:
    chosen = attribute(_FILTER | _NESTED, attribute(side, struct.pack("=I", flags)))
    return _head(version) + attribute(side | _NESTED, parts) + chosen


def _source6(one: bytes) -> bytes:
    return attributes(attributes(one).get(_TUPLE_IP, b"")).get(_SOURCE6, b"")


def _send(channel: socket.socket, body: bytes) -> None:
    """A deletion."""
    channel.send(struct.pack("=IHHII", len(body) + 16, _DELETE, _REQUEST | _ACK, 1, 0) + body)
    for kind, answer in _received(channel):
        code = struct.unpack_from("=i", answer)[0] if kind == _ERROR else 0
        if code:
            raise OSError(-code, f"tracked connections: {os.strerror(-code)}")


def _all(channel: socket.socket, version: int) -> Iterator[dict[int, bytes]]:
    body = _head(version)
    channel.send(struct.pack("=IHHII", len(body) + 16, _GET, _REQUEST | _DUMP, 1, 0) + body)
    while True:
        for kind, answer in _received(channel):
            if kind == _DONE:
                return
            if kind == _ERROR:
                code = struct.unpack_from("=i", answer)[0]
                raise OSError(-code, f"tracked connections: {os.strerror(-code)}")
            yield attributes(answer[4:])


def _received(channel: socket.socket) -> Iterator[tuple[int, bytes]]:
    data, offset = channel.recv(_BUFFER_BYTES), 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        yield kind, data[offset + 16 : offset + length]
        offset += max((length + 3) & ~3, 16)
