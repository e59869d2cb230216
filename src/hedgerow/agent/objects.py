"""The kinds of kernel object that an agent keeps, in the order of their creation, and the record of each.

Removal runs backwards; LINK is last, so a container's packets pass only when everything that judges them is there. Each
record says what a person would want to read in a log line. How an agent without memory knows its own:

    PIN       the files in the pin directory that are named like maps
    DEVICE    by name: hedge0, hr-host (its other end is hr-peer)
    ADDRESS   every address on hr-host
    ROUTE     protocol number 72
    SYSCTL    by name; never taken back, for others may have come to rely on them
    PROGRAM   handle 0x4852, priority 10 at the ingress of the underlay's link, hedge0 and hr-peer
    CONFIG    the pinned map "host", and the row of hr-peer in "ports"
    BARRED, AGENT, PREFIX, MEMBER, ALLOW, HOST_SERVICE   everything in the pinned maps of these names
    FIREWALL  table inet hedgerow
    DOCKER_USER   rules with the comment hedgerow in that chain of Docker's
    LINK      names that begin with hr- and a digest of the endpoint's key; rows of "ports" and "endpoints"
    PUBLISHED everything in the maps and sets of that table whose names begin with published
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from hedgerow.model.endpoint import Address, Endpoint, Route, Subnet, present
from hedgerow.policy.groups import Row
from hedgerow.reconcile.plan import Key

TUNNEL_LINK = "hedge0"
HOST_LINK = "hr-host"
HOST_PEER = "hr-peer"
TABLE = "hedgerow"

ONLINK_VIA, ONLINK_VIA6 = IPv4Address("169.254.0.1"), IPv6Address("fe80::ffff")
"""Next hop of the host's routes to its containers: one neighbour for all, answered by the data path. Nobody has it."""


class Kind(IntEnum):
    PIN = 1
    DEVICE = 2
    ADDRESS = 3
    ROUTE = 4
    SYSCTL = 5
    BARRED = 6
    PROGRAM = 7
    CONFIG = 8
    AGENT = 9
    PREFIX = 10
    MEMBER = 11
    ALLOW = 12
    HOST_SERVICE = 13
    FIREWALL = 14
    DOCKER_USER = 15
    LINK = 16
    PUBLISHED = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """What an agent must know of its own host. `subnet` is on the underlay's link. `fast`: tunnel headers in eBPF where
    the kernel can. `controllers`: the addresses of those that are written as addresses. `bridges`: the indexes of all
    bridges but the underlay's link. `addresses`: the host's own, those on bridges and on links of ours left out.
    """

    underlay: Address
    subnet: Subnet
    link: str
    mtu_bytes: int
    tunnel_port: int
    fast: bool = True
    controllers: tuple[Address, ...] = ()
    bridges: frozenset[int] = frozenset()
    addresses: tuple[Address, ...] = ()


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
class Pinned:
    """Every map has its name on bpffs, but for those that are `missing`."""

    missing: str = ""

    def __str__(self) -> str:
        return f"without {self.missing}" if self.missing else ""


@dataclass(frozen=True, slots=True)
class HostAddress:
    """On hr-host. The key has it all."""

    address: Address

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class HostRoute:
    """From the host to its own containers of a network. The data path refuses those of other hosts."""

    to: Subnet
    source: Address | None

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
    underlay: Address
    inner_mtu_bytes: int
    port: int
    fast: bool

    def __str__(self) -> str:
        way = "wire" if self.fast else "device"
        return f"{self.underlay} on {self.link}, port {self.port}, mtu {self.inner_mtu_bytes}, way {way}"


@dataclass(frozen=True, slots=True)
class HostPort:
    """The row of hr-peer in the map "ports": what the host itself may send. `address6` may ask for neighbours."""

    mac: bytes
    address6: IPv6Address | None = None

    def __str__(self) -> str:
        return f"{self.mac.hex(':')}{f' {self.address6}' if self.address6 else ''}"


@dataclass(frozen=True, slots=True)
class KnownAgent:
    """A host of the cluster; the key has its underlay address. `tunnels`: an agent runs there, its tunnel packets are
    taken. `controls`: a controller does.
    """

    tunnels: bool = True
    controls: bool = False

    def __str__(self) -> str:
        return " ".join(
            word for word, is_so in (("controller", self.controls), ("without tunnel", not self.tunnels)) if is_so
        )


class PrefixOf(IntEnum):
    """What lies behind a prefix; the values are those of `kernel.maps.PrefixKind`."""

    NETWORK = 1
    LOCAL = 2
    REMOTE = 3
    HOST = 4
    CLOSED = 5


@dataclass(frozen=True, slots=True)
class PrefixRecord:
    """`on_link`: the agent is on the underlay's link, so no packet to it needs a look at the routes. `group`: of its
    addresses, but for those that are members; 0 is the VNI.
    """

    kind: PrefixOf
    vni: int = 0
    agent: Address | None = None
    on_link: bool = False
    group: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.vni)

    def __str__(self) -> str:
        via = f" via {self.agent}{' on the link' if self.on_link else ''}" if self.agent else ""
        return f"{self.kind.name.lower()}{via} {_named(self.vni, self.group)}"


def _named(vni: int, group: int) -> str:
    return f"vni {vni}" if group == vni else f"vni {vni} group {group}"


@dataclass(frozen=True, slots=True)
class Grouped:
    """An endpoint's group in a network with walls inside. The key has its address."""

    group: int

    def __str__(self) -> str:
        return f"group {self.group}"


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may pass from the first group of the key to the second."""

    row: Row

    def __str__(self) -> str:
        if self.row.both:
            return ""
        return ", ".join(f"protocol {one.protocol} ports {one.low}-{one.high}" for one in self.row.ranges)


@dataclass(frozen=True, slots=True)
class Crowded:
    """A rule of which a part finds no room in the data path's row. The key has its name."""

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Service:
    """What a network's containers may ask of their own host, and of hosts with a controller. The key has the VNI, the
    protocol and the port; 0 and 0 are the metadata services.
    """

    own_host: bool = False
    controllers: bool = False

    def __str__(self) -> str:
        places = (("own host", self.own_host), ("controllers", self.controllers))
        return f"of {', '.join(word for word, is_so in places if is_so)}"


@dataclass(frozen=True, slots=True)
class Barrier:
    """A link that no container's packet leaves by. The key has its index."""

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The whole table, as nft reads it."""

    text: str

    def __str__(self) -> str:
        return f"{len(self.text.splitlines())} lines, {hashlib.sha256(self.text.encode()).hexdigest()[:11]}"


@dataclass(frozen=True, slots=True)
class Passed:
    """Docker's chain lets pass what our table has judged. The key is the family."""

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What a container finds beside its address."""

    ifname: str
    mtu_bytes: int
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRecord:
    """An endpoint in the kernel: veth pair, program, row of "ports", row of "endpoints".

    `group` 0 is the VNI; `container` is the same for all links of a container, 0 where that is not known; `no_hosts`:
    its host may not call it. `wrong` names what is not so of an actual one. `index` is the host end's, where it is
    known; `netns` and `inside` are what it takes to make the pair anew.
    """

    vni: int
    group: int = 0
    container: int = 0
    address: IPv4Address | None = None
    address6: IPv6Address | None = None
    mac: bytes
    internal: bool = False
    no_hosts: bool = False
    wrong: str = ""
    index: int = field(default=0, compare=False)
    netns: str = field(default="", compare=False)
    netns_inode: int = field(default=0, compare=False)
    inside: Inside | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.vni)

    @property
    def addresses(self) -> tuple[Address, ...]:
        return present(self.address, self.address6)

    def __str__(self) -> str:
        place = f"{' '.join(map(str, self.addresses))} {self.mac.hex(':')} {_named(self.vni, self.group)}"
        return ", ".join(word for word in (place, self.wrong) if word)


def container_number(netns_inode: int) -> int:
    """What the links of a namespace have in common. The kernel's numbers of namespaces have 32 bits."""
    return netns_inode & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Orphan:
    """Something with our mark that belongs to no endpoint: a link (`index`), or a row of a link that is gone."""

    index: int = 0
    addresses: tuple[Address, ...] = ()

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


def forwarding(link: str) -> tuple[str, ...]:
    """Names of the kernel parameters without which containers' packets are not forwarded; `link` is the underlay's."""
    return ("ipv4/ip_forward", *(f"ipv4/conf/{each}/forwarding" for each in (HOST_LINK, link)))


FORWARDING6 = ("ipv6/conf/all/forwarding", f"ipv6/conf/{HOST_LINK}/forwarding")
"""The same of IPv6, which is forwarded by all links or by none."""

PINS = Key(Kind.PIN, "maps")
DEVICE_TUNNEL = Key(Kind.DEVICE, TUNNEL_LINK)
DEVICE_HOST = Key(Kind.DEVICE, HOST_LINK)
CONFIG_HOST = Key(Kind.CONFIG, "host")
CONFIG_PORT = Key(Kind.CONFIG, "port of the host")
FIREWALL = Key(Kind.FIREWALL, f"inet {TABLE}")
LINK_NEEDS = (Key(Kind.PROGRAM, TUNNEL_LINK), CONFIG_HOST, FIREWALL)


def needs(key: Key, record: object) -> tuple[Key, ...]:
    """The rows without which this one must not be there."""
    match record:
        case HostRoute(source=source) if source is not None:
            return (DEVICE_HOST, Key(Kind.ADDRESS, str(source)))
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
        case _ if key.kind is Kind.PUBLISHED:
            return (FIREWALL,)
        case _:
            return ()
