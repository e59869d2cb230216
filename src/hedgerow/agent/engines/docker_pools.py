"""Docker's pools: what dockerd must be told of a network's addresses. Pure.

A pool is a subnet with a gateway, one for each IP version. dockerd cannot do without one of IPv4 (before Docker 27;
later ones unless told): for a network that has none there is a stand-in, of one link-local address that all containers
get, to which no route leads and with which the data path lets nothing pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Network

from hedgerow.model.endpoint import Address, Route, routes_inside
from hedgerow.model.network import Network, NetworkId

_MARK6 = "/6"
_HALVES = (IPv6Network("::/1"), IPv6Network("8000::/1"))


@dataclass(frozen=True, slots=True)
class DockerPool:
    """`gateway` with its length. `stands_in`: there are no addresses of this version."""

    network: NetworkId
    version: int
    subnet: str
    gateway: str
    stands_in: bool = False

    @property
    def id(self) -> str:
        return self.network if self.version == 4 else f"{self.network}{_MARK6}"


def pools(network: Network) -> dict[int, DockerPool]:
    """By IP version: always one of IPv4."""
    spec, gateway = network.spec, f"{network.gateway}/32"
    stands_in = spec.subnet is None
    found = {4: DockerPool(network.id, 4, gateway if stands_in else str(spec.subnet), gateway, stands_in)}
    if spec.subnet6 is not None:
        found[6] = DockerPool(network.id, 6, str(spec.subnet6), f"{network.gateway6}/128")
    return found


def named(pool: str) -> tuple[NetworkId, int]:
    """Which network's a pool is, and its IP version."""
    return NetworkId(pool.removesuffix(_MARK6)), 6 if pool.endswith(_MARK6) else 4


def stand_in(network: Network) -> IPv4Address | None:
    """The address that stands for none."""
    return network.gateway if network.spec.subnet is None else None


def subnets(network: Network) -> tuple[str, ...]:
    return tuple(pool.subnet for pool in pools(network).values())


def routes(network: Network, ifname: str, addresses: tuple[Address, ...]) -> list[Route]:
    """Those that dockerd must be told. The way out is the gateway's affair; but dockerd sets only the gateways of an
    endpoint that has one of IPv4. Two halves of everything are no default route, of which a container has but one.
    """
    found = list(routes_inside(network, ifname, addresses))
    if network.spec.subnet is None:
        found += [(half, network.gateway6) for half in _HALVES]
    return found
