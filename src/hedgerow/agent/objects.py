"""The kinds of kernel object that an agent keeps, in the order of their creation, and the record of each.

Removal runs backwards; LINK is last, so a container's packets pass only when everything that judges them is there. Each
record says what a person would want to read in a log line. How an agent without memory knows its own:

    DEVICE    by name: hedge0, hr-host (its other end is hr-peer)
    ADDRESS   every address on hr-host
    ROUTE     protocol number 72
    SYSCTL    by name; never taken back, for others may have come to rely on them
    PROGRAM   handle 0x4852, priority 10 at the ingress of the underlay's link, hedge0 and hr-peer
    CONFIG    the pinned map "host", and the row of hr-peer in "ports"
    AGENT, PREFIX, ALLOW   everything in the pinned maps of these names
    FIREWALL  table inet hedgerow
    LINK      names that begin with hr- and a digest of the endpoint's key; rows of "ports" and "endpoints"
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network

from hedgerow.model.endpoint import Endpoint, Route
from hedgerow.reconcile.plan import Key

TUNNEL_LINK = "hedge0"
HOST_LINK = "hr-host"
HOST_PEER = "hr-peer"
TABLE = "hedgerow"

ONLINK_VIA = IPv4Address("169.254.0.1")
"""Next hop of the host's routes to its containers: one neighbour for all, answered by the data path. Nobody has it."""


class Kind(IntEnum):
    DEVICE = 1
    ADDRESS = 2
    ROUTE = 3
    SYSCTL = 4
    PROGRAM = 5
    CONFIG = 6
    AGENT = 7
    PREFIX = 8
    ALLOW = 9
    FIREWALL = 10
    LINK = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """What an agent must know of its own host. `subnet` is on the underlay's link. `fast`: tunnel headers in eBPF where
    the kernel can. `controllers`: the addresses of those that are written as addresses.
    """

    underlay: IPv4Address
    subnet: IPv4Network
    link: str
    mtu_bytes: int
    tunnel_port: int
    fast: bool = True
    controllers: tuple[IPv4Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """`port` is the tunnel's, None for the pair hr-host and hr-peer."""

    mac: bytes
    mtu_bytes: int
    port: int | None = None
    is_up: bool = True

    def __str__(self) -> str:
        port = "" if self.port is None else f" port {self.port}"
        return f"{self.mac.hex(':')} mtu {self.mtu_bytes}{port}{'' if self.is_up else ' down'}"


@dataclass(frozen=True, slots=True)
class HostAddress:
    """On hr-host. The key has it all."""

    address: IPv4Address

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class HostRoute:
    """From the host to its own containers of a network. The data path refuses those of other hosts."""

    to: IPv4Network
    source: IPv4Address | None

    def __str__(self) -> str:
        return f"src {self.source}" if self.source else ""


@dataclass(frozen=True, slots=True)
class Sysctl:
    value: str

    def __str__(self) -> str:
        return f"= {self.value}"


@dataclass(frozen=True, slots=True)
class Attached:
    """A program at a link's ingress. `is_current`: it is the one that this process loaded."""

    program: str
    is_current: bool = True

    def __str__(self) -> str:
        return self.program if self.is_current else f"{self.program} of an earlier agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """The row of the map "host", with names where it has indexes: a link made anew has a new one."""

    tunnel_link: str
    peer_link: str
    link: str
    underlay: IPv4Address
    inner_mtu_bytes: int
    port: int
    fast: bool

    def __str__(self) -> str:
        way = "wire" if self.fast else "device"
        return f"{self.underlay} on {self.link}, port {self.port}, mtu {self.inner_mtu_bytes}, way {way}"


@dataclass(frozen=True, slots=True)
class HostPort:
    """The row of hr-peer in the map "ports": what the host itself may send."""

    mac: bytes

    def __str__(self) -> str:
        return self.mac.hex(":")


@dataclass(frozen=True, slots=True)
class KnownAgent:
    """A host whose tunnel packets are taken. The key has its underlay address."""

    def __str__(self) -> str:
        return ""


class PrefixOf(IntEnum):
    """What lies behind a prefix; the values are those of `kernel.maps.PrefixKind`."""

    NETWORK = 1
    LOCAL = 2
    REMOTE = 3
    HOST = 4
    CLOSED = 5


@dataclass(frozen=True, slots=True)
class PrefixRecord:
    """`on_link`: the agent is on the underlay's link, so no packet to it needs a look at the routes."""

    kind: PrefixOf
    vni: int = 0
    agent: IPv4Address | None = None
    on_link: bool = False

    def __str__(self) -> str:
        via = f" via {self.agent}{' on the link' if self.on_link else ''}" if self.agent else ""
        return f"{self.kind.name.lower()}{via} vni {self.vni}"


@dataclass(frozen=True, slots=True)
class Allowed:
    """The key has both VNIs."""

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The whole table, as nft reads it."""

    text: str

    def __str__(self) -> str:
        return f"{len(self.text.splitlines())} lines, {hashlib.sha256(self.text.encode()).hexdigest()[:11]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What a container finds beside its address."""

    ifname: str
    mtu_bytes: int
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRecord:
    """An endpoint in the kernel: veth pair, program, row of "ports", row of "endpoints".

    `wrong` names what is not so of an actual one. `index` is the host end's, where it is known; `netns` and `inside`
    are what it takes to make the pair anew.
    """

    vni: int
    address: IPv4Address
    mac: bytes
    internal: bool = False
    wrong: str = ""
    index: int = field(default=0, compare=False)
    netns: str = field(default="", compare=False)
    netns_inode: int = field(default=0, compare=False)
    inside: Inside | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.address} {self.mac.hex(':')} vni {self.vni}{', ' if self.wrong else ''}{self.wrong}"


@dataclass(frozen=True, slots=True)
class Orphan:
    """Something with our mark that belongs to no endpoint: a link (`index`), or a row of a link that is gone."""

    index: int = 0
    address: IPv4Address | None = None

    def __str__(self) -> str:
        return "belongs to no endpoint"


@dataclass(frozen=True, slots=True)
class Placed:
    """An endpoint and where its inner end is: the namespace's path when the agent put it there itself, else empty.

    Not `attached`: there is a record, and no packet passes.
    """

    endpoint: Endpoint
    netns: str = ""
    ifname: str = ""
    attached: bool = False


DEVICE_TUNNEL = Key(Kind.DEVICE, TUNNEL_LINK)
DEVICE_HOST = Key(Kind.DEVICE, HOST_LINK)
CONFIG_HOST = Key(Kind.CONFIG, "host")
CONFIG_PORT = Key(Kind.CONFIG, "port of the host")
FIREWALL = Key(Kind.FIREWALL, f"inet {TABLE}")
LINK_NEEDS = (Key(Kind.PROGRAM, TUNNEL_LINK), CONFIG_HOST, FIREWALL)


def needs(key: Key, record: object) -> tuple[Key, ...]:
    """The rows without which this one must not be there."""
    match record:
        case HostAddress() | HostRoute() | HostPort():
            return (DEVICE_HOST,)
        case Attached() if key.name == TUNNEL_LINK:
            return (DEVICE_TUNNEL,)
        case Attached() if key.name == HOST_PEER:
            return (DEVICE_HOST,)
        case HostSettings():
            return (DEVICE_TUNNEL, DEVICE_HOST)
        case LinkRecord():
            return LINK_NEEDS
        case _:
            return ()
