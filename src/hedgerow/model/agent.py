"""Agents: the hosts that run containers, and what each of them owns."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, NewType

from .network import NetworkId

if TYPE_CHECKING:
    UnderlayAddress = IPv4Address | IPv6Address
else:
    # msgspec reads no union of two types that it does not know itself: their common base stands for it.
    from ipaddress import _BaseAddress as UnderlayAddress

AgentId = NewType("AgentId", str)
"""32 hex digits, drawn once and written into the agent's certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vtep:
    """An agent's end of the tunnels. `mac` is OUI + the last three octets of `ip`, as DC/OS makes it."""

    ip: IPv4Address | None
    mac: bytes
    ip6: IPv6Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """The part of a network's subnet that one agent owns."""

    network: NetworkId
    block: IPv4Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix6:
    """The same of its IPv6 subnet."""

    network: NetworkId
    block: IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """One agent as the store knows it. `incarnation` goes up at each join and each fence.

    `addresses4` and `addresses6` are its host's, as it last said: containers elsewhere reach none of their services.
    """

    id: AgentId
    name: str
    underlay: UnderlayAddress
    incarnation: int
    vtep: Vtep
    prefixes: tuple[Prefix, ...] = ()
    prefixes6: tuple[Prefix6, ...] = ()
    addresses4: tuple[IPv4Address, ...] = ()
    addresses6: tuple[IPv6Address, ...] = ()

    @property
    def host_addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        return (*self.addresses4, *self.addresses6)

    @property
    def all_prefixes(self) -> tuple[Prefix | Prefix6, ...]:
        return (*self.prefixes, *self.prefixes6)
