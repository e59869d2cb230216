"""Elements of nftables' sets and maps, changed by netlink packed by hand.

For the path where a container waits: one transaction takes 0.2 ms, a start of `nft` 16. Tables, chains and rules are
written by `nft` (nft.py). Keys and values are concatenations as the kernel has them: each part in network byte order,
padded to four bytes (linux/netfilter/nf_tables.h, nfnetlink.h).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .netlink import attribute, attributes, text

_NETLINK_NETFILTER, _NFTABLES, _INET = 12, 10, 1
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEW, _GET, _DELETE = (_NFTABLES << 8 | message for message in (12, 13, 14))
_TABLE, _SET, _ELEMENTS, _ELEMENT, _KEY, _DATA, _VALUE, _NESTED = 1, 2, 3, 1, 1, 2, 1, 0x8000
_REQUEST, _ACK, _DUMP, _CREATE, _DUMP_INTR = 1, 4, 0x300, 0x400, 0x10
_ERROR, _DONE = 2, 3
_TRIES = 10
_TIMEOUT_S = 5.0
_BUFFER_BYTES = 1 << 16
_AT_ONCE = 200
"""Changes in one transaction: what is sent must fit into the socket's buffer, and so must the answers."""


@dataclass(frozen=True, slots=True)
class Element:
    """`value` is empty in a set, which only has keys."""

    set: str
    key: bytes
    value: bytes = b""


def joined(*parts: bytes) -> bytes:
    """A concatenation."""
    return b"".join(part + bytes(-len(part) % 4) for part in parts)


class Elements:
    """Of one table of the family inet, in the namespace that the thread is in when this is made. One thread uses it at
    a time.
    """

    def __init__(self, table: str) -> None:
        self._table = table
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.settimeout(_TIMEOUT_S)
        self.port: int = self._socket.getsockname()[0]
        """The socket's, by which events tell our own changes from others'."""

    def close(self) -> None:
        self._socket.close()

    def put(self, elements: Iterable[Element]) -> None:
        """All of them or none. One that is there is fine. Raises OSError: FileNotFoundError without the table, EBUSY
        for a key that has another value.
        """
        self._change([(_NEW, _CREATE, element) for element in elements])

    def delete(self, elements: Iterable[Element]) -> None:
        """All of them or none. Raises OSError: FileNotFoundError for one that is gone."""
        self._change([(_DELETE, 0, element) for element in elements])

    def replace(self, old: Element, new: Element) -> None:
        """The value of a key, in one step."""
        self._change([(_DELETE, 0, old), (_NEW, _CREATE, new)])

    def all(self, name: str) -> list[Element]:
        """Raises OSError: FileNotFoundError without the table or the set."""
        for _ in range(_TRIES):
            found, is_whole = self._dump(name)
            if is_whole:
                return found
        raise InterruptedError(f"{name} changed while it was read, {_TRIES} times")

    def _change(self, changes: Sequence[tuple[int, int, Element]]) -> None:
        for start in range(0, len(changes), _AT_ONCE):
            self._transact(changes[start : start + _AT_ONCE])

    def _transact(self, changes: Sequence[tuple[int, int, Element]]) -> None:
        frames = [self._frame(_BATCH_BEGIN, 0, b"", _NFTABLES)]
        first = self._sequence + 1
        frames += [self._frame(kind, flags | _ACK, self._body(element)) for kind, flags, element in changes]
        last = self._sequence
        frames.append(self._frame(_BATCH_END, 0, b"", _NFTABLES))
        self._socket.send(b"".join(frames))
        waiting = set(range(first, last + 1))
        fault: OSError | None = None
        while waiting:
            for kind, _, sequence, payload in self._receive():
                if kind != _ERROR or sequence not in range(first - 1, last + 2):
                    continue
                (code,) = struct.unpack_from("=i", payload)
                if code and sequence not in waiting:
                    raise OSError(-code, f"nftables: {os.strerror(-code)}")  # the transaction as a whole
                waiting.discard(sequence)
                fault = fault or (OSError(-code, f"{self._table}: {os.strerror(-code)}") if code else None)
        if fault:
            raise fault

    def _body(self, element: Element) -> bytes:
        inner = attribute(_KEY | _NESTED, attribute(_VALUE, element.key))
        if element.value:
            inner += attribute(_DATA | _NESTED, attribute(_VALUE, element.value))
        listed = attribute(_ELEMENTS | _NESTED, attribute(_ELEMENT | _NESTED, inner))
        return text(_TABLE, self._table) + text(_SET, element.set) + listed

    def _dump(self, name: str) -> tuple[list[Element], bool]:
        self._socket.send(self._frame(_GET, _DUMP, text(_TABLE, self._table) + text(_SET, name)))
        found: list[Element] = []
        is_whole = True
        while True:
            for kind, flags, sequence, payload in self._receive():
                if sequence != self._sequence:
                    continue
                is_whole = is_whole and not flags & _DUMP_INTR
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", payload)
                    raise OSError(-code, f"{self._table} {name}: {os.strerror(-code)}")
                if kind == _DONE:
                    return found, is_whole
                found += _elements(name, attributes(payload[4:]).get(_ELEMENTS, b""))

    def _frame(self, kind: int, flags: int, body: bytes, resource: int = 0) -> bytes:
        """struct nlmsghdr and struct nfgenmsg."""
        self._sequence += 1
        family = 0 if resource else _INET
        body = struct.pack("=BBH", family, 0, socket.htons(resource)) + body
        return struct.pack("=IHHII", len(body) + 16, kind, flags | _REQUEST, self._sequence, 0) + body

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data, offset = self._socket.recv(_BUFFER_BYTES), 0
        while offset + 16 <= len(data):
            length, kind, flags, sequence = struct.unpack_from("=IHHI", data, offset)
            yield kind, flags, sequence, data[offset + 16 : offset + length]
            offset += max((length + 3) & ~3, 16)


def _elements(name: str, data: bytes) -> Iterator[Element]:
    offset = 0
    while offset + 4 <= len(data):
        (length,) = struct.unpack_from("=H", data, offset)
        parts = attributes(data[offset + 4 : offset + length])
        key, value = (attributes(parts.get(part, b"")).get(_VALUE, b"") for part in (_KEY, _DATA))
        yield Element(name, key, value)
        offset += max((length + 3) & ~3, 4)


def is_own_change(data: bytes, port: int) -> bool:
    """Whether all that an event tells are elements that the socket of this port changed (each transaction ends with a
    message of its own kind, of the same sender).
    """
    offset, generation = 0, _NFTABLES << 8 | 15
    while offset + 16 <= len(data):
        length, kind, _, _, sender = struct.unpack_from("=IHHII", data, offset)
        if sender != port or kind not in (_NEW, _DELETE, generation):
            return False
        offset += max((length + 3) & ~3, 16)
    return True
