"""Endpoints: one container's attachment to one network."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hedgerow.errors import BadInput

from .network import Network, NetworkId
from .published import MAX_PUBLISHED, PublishedPort

LINK_MARK = "hr-"
"""Begins the name of every link of ours in a host's namespace: how an agent without memory knows it."""

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network

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
    """An attachment. The agent of its host is the authority for it. It has an address of each family of its network.

    `netns_inode` and `boot_id` tell a container from a later one under the same id. `link_index` is the host's end of
    the veth pair, 0 while there is none.
    """

    key: EndpointKey
    network: NetworkId
    address: IPv4Address | None = None
    address6: IPv6Address | None = None
    mac: bytes
    netns_inode: int = 0
    boot_id: str = ""
    link_index: int = 0
    name: str = ""
    published: tuple[PublishedPort, ...] = ()

    def __post_init__(self) -> None:
        if not self.addresses:
            raise ValueError(f"endpoint {self.key} has no address")
        if len(self.published) > MAX_PUBLISHED:
            raise ValueError(f"endpoint {self.key} has {len(self.published)} published ports")

    @property
    def addresses(self) -> tuple[Address, ...]:
        """IPv4 first; at least one."""
        return present(self.address, self.address6)

    @property
    def first_address(self) -> Address:
        """The one to name the endpoint by, where one must do."""
        return self.addresses[0]

    @property
    def link(self) -> str:
        return LINK_MARK + self.key.tag

    @property
    def peer(self) -> str:
        return PEER_MARK + self.key.tag


def of_each_family(addresses: Iterable[Address]) -> tuple[IPv4Address | None, IPv6Address | None]:
    """The first of each; None where there is none."""
    known = list(addresses)
    ip = next((each for each in known if isinstance(each, IPv4Address)), None)
    return ip, next((each for each in known if isinstance(each, IPv6Address)), None)


def present(*addresses: Address | None) -> tuple[Address, ...]:
    return tuple(address for address in addresses if address is not None)


def mac_of(address: Address) -> bytes:
    """The MAC of a container that brings none: locally administered, unique where the address is.

    Of an IPv6 address as good as unique, which is all that a link with two ends needs.
    """
    if isinstance(address, IPv4Address):
        return b"\x02\x48" + address.packed
    return b"\x02\x49" + hashlib.sha256(address.packed).digest()[:4]


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


Route = tuple[Subnet, Address | None]
"""Destination and next hop; None: on the link itself."""

EVERYWHERE = IPv4Network("0.0.0.0/0")
EVERYWHERE6 = IPv6Network("::/0")


def routes_inside(network: Network, ifname: str, addresses: Collection[Address]) -> tuple[Route, ...]:
    """What a container needs in its namespace for an interface on `network`, in the order in which the kernel takes it.

    `addresses` are the interface's own: a family of which it has none needs no routes. All but the subnet leads by
    eth0, on an internal network too: it may talk to others, and the data path refuses it the outside. The subnet's own
    route keeps a second network from being left by the first one's interface.
    """
    is_first = ifname == "eth0"
    routes: list[Route] = []
    versions = {address.version for address in addresses}
    if network.spec.subnet is not None and 4 in versions:
        routes += [(IPv4Network(network.gateway), None), (network.spec.subnet, network.gateway)]
        routes += [(EVERYWHERE, network.gateway)] if is_first else []
    if network.spec.subnet6 is not None and 6 in versions:
        routes += [(IPv6Network(network.gateway6), None), (network.spec.subnet6, network.gateway6)]
        routes += [(EVERYWHERE6, network.gateway6)] if is_first else []
    return tuple(routes)
