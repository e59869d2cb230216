"""Members: who has which address in a network whose rules tell containers apart, as the controller vouches for it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NewType

from .app import AppId
from .network import NetworkId

MemberKey = NewType("MemberKey", str)
"""`<network id>/<address>`."""

Labels = tuple[tuple[str, str], ...]
"""Of an app, in the order of their keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An address of an instance. Exactly one of `address` and `address6` is given.

    App and labels are those of the instance that the controller assigned to the agent which reports the address: no
    container can say of itself what it is. Only labels that some rule names are among them.
    """

    network: NetworkId
    address: IPv4Address | None = None
    address6: IPv6Address | None = None
    app: AppId
    labels: Labels = ()

    def __post_init__(self) -> None:
        if (self.address is None) == (self.address6 is None):
            raise ValueError(f"a member of {self.network} needs one address")

    @property
    def at(self) -> IPv4Address | IPv6Address:
        at = self.address or self.address6
        assert at is not None
        return at

    @property
    def key(self) -> MemberKey:
        return MemberKey(f"{self.network}/{self.at}")
