"""The rows of published ports: where what comes to a port of the host goes, and what of it is let in. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hedgerow.model.endpoint import Address, Endpoint
from hedgerow.model.published import where
from hedgerow.reconcile.plan import Key

from .objects import Kind


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What comes to `bind`, or to any address of its family when it is the unspecified one, goes to a container's port.
    The key has the host's side.
    """

    protocol: str
    bind: Address
    host_port: int
    address: Address
    port: int

    def __str__(self) -> str:
        return f"to {where(str(self.address), self.port)}"


@dataclass(frozen=True, slots=True)
class LetIn:
    """A container's port that packets of outside may reach, after their destination was changed. The key has it."""

    protocol: str
    address: Address
    port: int

    def __str__(self) -> str:
        return ""


Row = Forwarded | LetIn


def key_of(row: Row) -> Key:
    """By which no two rows are one element of a map or a set."""
    if isinstance(row, Forwarded):
        return Key(Kind.PUBLISHED, f"{where(str(row.bind), row.host_port)}/{row.protocol}")
    return Key(Kind.PUBLISHED, f"to {where(str(row.address), row.port)}/{row.protocol}")


def rows_of(endpoint: Endpoint) -> dict[Key, Row]:
    """A port of one family needs an address of that family inside: nothing turns IPv6 into IPv4."""
    found: dict[Key, Row] = {}
    inside = {address.version: address for address in endpoint.addresses}
    for port in endpoint.published:
        for bind in port.binds():
            address = inside.get(bind.version)
            if address is not None:
                forwarded = Forwarded(port.protocol, bind, port.host_port, address, port.container_port)
                let_in = LetIn(port.protocol, address, port.container_port)
                found |= {key_of(row): row for row in (forwarded, let_in)}
    return found
