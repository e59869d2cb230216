"""Published ports: what of a container is reached at addresses of its host, and what an engine asks for.

A port is published at one address of the host, at every IPv4 or every IPv6 address (`0.0.0.0`, `::`), or at every
address of both. Never at a loopback address: packets to 127.0.0.1 that are sent on to a container would need the
kernel's route_localnet, which opens 127.0.0.1 to neighbours (CVE-2020-8558), and without it their answers are martians.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from hedgerow.errors import BadInput, Refused

from .network import LAST_PORT

PROTOCOLS = ("tcp", "udp")
_PORTS = range(1, LAST_PORT + 1)
MAX_PUBLISHED = 1024
"""Of one endpoint. Each is four elements of the host's maps and sets, and a record that the controller keeps."""

Address = IPv4Address | IPv6Address
EVERY4, EVERY6 = IPv4Address("0.0.0.0"), IPv6Address("::")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPort:
    """`bind`: the text of the host's address, empty for every address of both families."""

    protocol: str
    host_port: int
    container_port: int
    bind: str = ""

    def __post_init__(self) -> None:
        ports = (self.host_port, self.container_port)
        if self.protocol not in PROTOCOLS or any(port not in _PORTS for port in ports):
            raise ValueError(f"{ports[0]} to {ports[1]}/{self.protocol} is no published port")
        self.binds()

    def __str__(self) -> str:
        return f"{self.at}->{self.container_port}/{self.protocol}"

    @property
    def at(self) -> str:
        """Where the host is called, as `8080`, `192.0.2.1:8080` or `[::]:8080`."""
        return where(self.bind, self.host_port)

    def binds(self) -> tuple[Address, ...]:
        """One a family; the family's unspecified address stands for all of them."""
        return (ip_address(self.bind),) if self.bind else (EVERY4, EVERY6)

    def overlaps(self, other: PublishedPort) -> bool:
        """Whether some packet would be for both."""
        if (self.protocol, self.host_port) != (other.protocol, other.host_port):
            return False
        return any(
            one.version == two.version and (one == two or one.is_unspecified or two.is_unspecified)
            for one in self.binds()
            for two in other.binds()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRequest:
    """`low` to `high` are the host's ports to choose from; both 0: the agent draws one."""

    protocol: str
    container_port: int
    low: int = 0
    high: int = 0
    bind: str = ""

    def at_port(self, host_port: int) -> PublishedPort:
        return PublishedPort(
            protocol=self.protocol, host_port=host_port, container_port=self.container_port, bind=self.bind
        )

    def is_met_by(self, port: PublishedPort) -> bool:
        in_range = self.low == 0 or self.low <= port.host_port <= self.high
        return in_range and self.at_port(port.host_port) == port


def where(bind: str, port: int) -> str:
    """
    >>> where("", 80), where("192.0.2.1", 80), where("2001:db8::1", 80)
    ('80', '192.0.2.1:80', '[2001:db8::1]:80')
    """
    if not bind:
        return str(port)
    return f"[{bind}]:{port}" if ":" in bind else f"{bind}:{port}"


def request(protocol: str, container_port: int, low: int = 0, high: int = 0, bind: str = "") -> PortRequest:
    """What an engine asks for, checked. Raises BadInput for what is no port or address, Refused for what is one and
    cannot be published.
    """
    if protocol not in PROTOCOLS:
        raise Refused(f"a published port of protocol {protocol}", "tcp and udp can be published")
    if container_port not in _PORTS:
        raise BadInput(f"container port {container_port}", f"a port is a number from 1 to {LAST_PORT}")
    high = high or low
    if (low, high) != (0, 0) and not (low in _PORTS and low <= high <= LAST_PORT):
        raise BadInput(f"host ports {low} to {high}", f"a port is a number from 1 to {LAST_PORT}")
    return PortRequest(protocol=protocol, container_port=container_port, low=low, high=high, bind=_bind(bind))


def _bind(text: str) -> str:
    if not text:
        return ""
    try:
        address = ip_address(text)
    except ValueError as error:
        raise BadInput(f"bind address {text!r}", "write an address of this host") from error
    if isinstance(address, IPv6Address) and address.scope_id:
        raise BadInput(f"bind address {text!r}", f"leave out %{address.scope_id}")
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_loopback:
        raise Refused(
            f"a port cannot be published at {address}",
            "this host reaches the container at its own address; for others, publish at an address that they reach",
        )
    if address.is_multicast or address.is_link_local:
        raise Refused(f"a port cannot be published at {address}", "bind it to another address of this host")
    return str(address)
