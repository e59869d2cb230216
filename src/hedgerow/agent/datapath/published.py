"""Published ports: where what comes to a port of the host goes, and what of that the forward chain lets in.

The rules that read these are part of the table, but the rows are not: a container that starts adds its own by netlink,
without a start of nft, and whoever writes the whole table anew writes them along.
Ours: everything in the table's maps and sets whose names begin with published.   Needs: the table.
Missing: nobody reaches the port.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from hedgerow.agent.forwards import Forwarded, LetIn, Row, key_of
from hedgerow.agent.objects import TABLE, Kind
from hedgerow.kernel.elements import Element, Elements, joined
from hedgerow.model.endpoint import Address
from hedgerow.policy.firewall import PUBLISHED, PUBLISHED_AT, PUBLISHED_TO
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Remove, Set

_NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_WORDS = {number: word for word, number in _NUMBERS.items()}
_PROTOCOL_BYTES = 4
"""With its padding."""


@dataclass(frozen=True, slots=True)
class Stray:
    """One that we never write, as of a protocol that is not published."""

    element: Element

    def __str__(self) -> str:
        return "is nobody's"


class Published:
    kind = Kind.PUBLISHED

    def __init__(self, elements: Elements) -> None:
        self._elements = elements
        self.own_port = elements.port

    def read(self) -> Rows:
        """Without the table there is nothing."""
        found: dict[Key, object] = {}
        with contextlib.suppress(FileNotFoundError):
            for version in (4, 6):
                for name in (PUBLISHED, PUBLISHED_AT, PUBLISHED_TO):
                    found |= dict(_row(name, version, row) for row in self._elements.all(f"{name}{version}"))
        return found

    def apply(self, ops: Sequence[Op]) -> Faults:
        if all(isinstance(op, Set) and op.old is None for op in ops):
            with contextlib.suppress(OSError):  # one by one, to know which
                self.put(op.new for op in ops if isinstance(op, Set) and isinstance(op.new, Row))
                return {}
        return one_by_one(ops, self._apply)

    def _apply(self, op: Op) -> None:
        match op:
            case Set(_, Forwarded() | LetIn() as old, Forwarded() | LetIn() as new):
                self._elements.replace(_element(old), _element(new))
            case Set(_, _, Forwarded() | LetIn() as new):
                self.put([new])
            case Remove(_, Forwarded() | LetIn() as old):
                self.delete([old])
            case Remove(_, Stray(element)):
                self._elements.delete([element])

    def put(self, rows: Iterable[Row]) -> None:
        """Raises OSError."""
        self._elements.put([_element(row) for row in rows])

    def delete(self, rows: Iterable[Row]) -> None:
        """What is gone is deleted. Raises OSError."""
        elements = [_element(row) for row in rows]
        try:
            self._elements.delete(elements)
        except FileNotFoundError:
            for element in elements:
                with contextlib.suppress(FileNotFoundError):
                    self._elements.delete([element])


def written(rows: Mapping[Key, object]) -> str:
    """The rows as lines for `nft`, to be written along with the table. Empty without any."""
    lines = []
    for row in rows.values():
        match row:
            case Forwarded(protocol, bind, host_port, address, port):
                at = "" if bind.is_unspecified else f"{bind} . "
                name = PUBLISHED if bind.is_unspecified else PUBLISHED_AT
                lines.append(f"{name}{bind.version} {{ {at}{protocol} . {host_port} : {address} . {port} }}")
            case LetIn(protocol, address, port):
                lines.append(f"{PUBLISHED_TO}{address.version} {{ {address} . {protocol} . {port} }}")
    return "".join(f"add element inet {TABLE} {line}\n" for line in lines)


def _element(row: Row) -> Element:
    protocol = struct.pack("=B", _NUMBERS[row.protocol])
    target = row.address.packed, struct.pack("!H", row.port)
    if isinstance(row, LetIn):
        return Element(f"{PUBLISHED_TO}{row.address.version}", joined(target[0], protocol, target[1]))
    port = struct.pack("!H", row.host_port)
    if row.bind.is_unspecified:
        return Element(f"{PUBLISHED}{row.bind.version}", joined(protocol, port), joined(*target))
    return Element(f"{PUBLISHED_AT}{row.bind.version}", joined(row.bind.packed, protocol, port), joined(*target))


def _row(name: str, version: int, element: Element) -> tuple[Key, Row | Stray]:
    size = 4 if version == 4 else 16
    key, value = element.key, element.value
    first = 0 if name == PUBLISHED else size
    protocol = _WORDS.get(key[first])
    (port,) = struct.unpack_from("!H", key, first + _PROTOCOL_BYTES)
    if protocol is None:
        return Key(Kind.PUBLISHED, f"stray {element.set} {key.hex()}"), Stray(element)
    row: Row
    if name == PUBLISHED_TO:
        row = LetIn(protocol, _address(key[:size]), port)
    else:
        bind = _address(bytes(size) if name == PUBLISHED else key[:size])
        (to,) = struct.unpack_from("!H", value, size)
        row = Forwarded(protocol, bind, port, _address(value[:size]), to)
    return key_of(row), row


def _address(packed: bytes) -> Address:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
