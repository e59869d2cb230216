"""Endpoints: one container's attachment to one network."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from hedgerow.errors import BadInput

from .network import Network, NetworkId

LINK_MARK = "hr-"
"""Begins the name of every link of ours in a host's namespace: how an agent without memory knows it."""

PEER_MARK = "hp-"
"""The container's end, while it waits in the host's namespace for Docker to move it."""


@dataclass(frozen=True, slots=True, order=True)
class EndpointKey:
    """Who is attached: the engine, its id for the container (Docker: for the endpoint), the interface's name inside."""

    engine: str
    container: str
    ifname: str

    def __str__(self) -> str:
        return f"{self.engine}/{self.container}/{self.ifname}"

    @property
    def tag(self) -> str:
        """Eleven hex digits: with a mark of three characters the 14 of 15 that a link's name may have."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:11]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An attachment. The agent of its host is the authority for it.

    `netns_inode` and `boot_id` tell a container from a later one under the same id. `link_index` is the host's end of
    the veth pair, 0 while there is none.
    """

    key: EndpointKey
    network: NetworkId
    address: IPv4Address
    mac: bytes
    netns_inode: int = 0
    boot_id: str = ""
    link_index: int = 0
    name: str = ""

    @property
    def link(self) -> str:
        return LINK_MARK + self.key.tag

    @property
    def peer(self) -> str:
        return PEER_MARK + self.key.tag


def mac_of(address: IPv4Address) -> bytes:
    """The MAC of a container that brings none: locally administered, unique where the address is."""
    return b"\x02\x48" + address.packed


def parse_mac(text: str) -> bytes:
    """A MAC that a container brings. Raises BadInput for what is none, a group's (bit 0 of the first octet) or 0."""
    if not re.fullmatch(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}", text):
        raise BadInput(f"{text!r} is no MAC address", "write six octets in hex, as 02:48:09:00:00:02")
    mac = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if mac[0] & 1 or not any(mac):
        raise BadInput(
            f"{text!r} is not the address of one interface", "the first octet must be even, and not all zero"
        )
    return mac


Route = tuple[IPv4Network, IPv4Address | None]
"""Destination and next hop; None: on the link itself."""

EVERYWHERE = IPv4Network("0.0.0.0/0")


def routes_inside(network: Network, ifname: str) -> tuple[Route, ...]:
    """What a container needs in its namespace for an interface on `network`, in the order in which the kernel takes it.

    A container has one way out: by eth0, unless its network is internal. The subnet's own route keeps a second network
    from being left by the first one's interface.
    """
    gateway = network.gateway
    routes: list[Route] = [(IPv4Network(gateway), None)]
    if network.spec.subnet is not None:
        routes.append((network.spec.subnet, gateway))
    if ifname == "eth0" and not network.spec.internal:
        routes.append((EVERYWHERE, gateway))
    return tuple(routes)
