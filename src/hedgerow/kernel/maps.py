"""The maps of the data path as typed tables: one record per map, packed as bpf/maps.h lays it out.

Addresses travel as 16 bytes, IPv4 v4-mapped. Who writes a row replaces it in one step: a packet meets the old row or
the new one, never half of each. Rows are written by one thread at a time; packets read them at any moment.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address

from .bpf import Map, Object, possible_cpus
from .flows import (
    DEFAULT_CONNECTIONS_EACH,
    AllowKey,
    AllowRow,
    ConnectionRow,
    FlowKey,
    MemberRow,
    ServiceKey,
    ServiceRow,
)
from .packing import (
    IPAddress,
    IPPrefix,
    pack_address,
    pack_long,
    pack_number,
    pack_prefix,
    unpack4,
    unpack6,
    unpack_address,
    unpack_long,
    unpack_number,
    unpack_optional,
    unpack_prefix,
)
from .table import Table

LAYOUT = 1
"""Number of the records' shape; part of the pin directory's name."""

GATEWAY_MAC = bytes.fromhex("024800000001")
"""Of every veth's host end and of every VXLAN device: what comes out of a tunnel is then taken for the host's own."""

TUNNEL_OVERHEAD_BYTES = 50
"""IPv4 20, UDP 8, VXLAN 8 (RFC 7348), inner Ethernet 14."""


class Reason(IntEnum):
    """Why the data path dropped a packet; docs/reference/drop-reasons.md explains each."""

    MALFORMED = 1
    NOT_IP = 2
    VLAN = 3
    SOURCE_MAC = 4
    SOURCE_ADDRESS = 5
    DESTINATION_ADDRESS = 6
    MULTICAST = 7
    LINK_LOCAL = 8
    ISOLATED = 9
    INTERNAL = 10
    NO_ENDPOINT = 11
    CLOSED = 12
    TUNNEL_PORT = 13
    TOO_BIG = 14
    UNKNOWN_AGENT = 15
    FOREIGN_TUNNEL = 16
    NOT_OWNER = 17
    WRONG_VNI = 18
    NOT_SET_UP = 19
    HELPER = 20
    UNANSWERED = 21
    NO_RULE = 22
    UNSOLICITED = 23
    RULE_CHANGED = 24
    CONNECTIONS_FULL = 25
    LOST_FRAGMENT = 26
    TO_HOST = 27
    FROM_HOST = 28
    BARRED = 29
    UNJUDGED = 30


class PrefixKind(IntEnum):
    """What a prefix is. HOST: an address of this host that a network (VNI 0: every one) reaches through the stack."""

    NETWORK = 1
    LOCAL = 2
    REMOTE = 3
    HOST = 4
    CLOSED = 5


class PortFlag(IntFlag):
    """Of `Port` and `EndpointRow`. HOST: the host's own stack behind hr-peer. INTERNAL: the network has no way out.
    NO_HOSTS: its host may not call it.
    """

    NONE = 0
    HOST = 1
    INTERNAL = 2
    NO_HOSTS = 4


class FastWay(IntFlag):
    """What of the fast way a kernel can do; what it cannot takes the VXLAN device, packet by packet."""

    NONE = 0
    SEND = 1
    RECEIVE = 2
    RECEIVE6 = 4


class ConfigFlag(IntFlag):
    """FAST: tunnel headers are put on and taken off in eBPF; without it the VXLAN device does all. TRACING: packets are
    looked up in `traced`.
    """

    NONE = 0
    FAST = 1
    TRACING = 2


class AgentFlag(IntFlag):
    """Of a host of the cluster. CONTROLLER: one runs there. NO_TUNNEL: no agent does, it sends no tunnel packets."""

    NONE = 0
    CONTROLLER = 1
    NO_TUNNEL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """What the programs must know of their host. `inner_mtu_bytes`: the largest inner IP packet in one piece.
    `host_ifindex`: hr-host; with 0 every address outside the networks counts as the host's own.
    """

    tunnel_ifindex: int
    underlay_ifindex: int
    peer_ifindex: int
    underlay: IPAddress
    inner_mtu_bytes: int
    host_ifindex: int = 0
    tunnel_port: int = 64000
    flags: ConfigFlag = ConfigFlag.FAST
    connections_each: int = DEFAULT_CONNECTIONS_EACH

    FORMAT = "=IIIIIII6s2s4x16s"

    def pack(self) -> bytes:
        return struct.pack(
            self.FORMAT,
            self.tunnel_ifindex,
            self.underlay_ifindex,
            self.peer_ifindex,
            self.host_ifindex,
            self.inner_mtu_bytes,
            self.flags,
            self.connections_each,
            GATEWAY_MAC,
            self.tunnel_port.to_bytes(2),
            pack_address(self.underlay),
        )

    @classmethod
    def unpack(cls, data: bytes) -> HostConfig:
        tunnel, link, peer, host, mtu, flags, each, _, port, underlay = struct.unpack(cls.FORMAT, data)
        return cls(
            tunnel_ifindex=tunnel,
            underlay_ifindex=link,
            peer_ifindex=peer,
            underlay=unpack_address(underlay),
            inner_mtu_bytes=mtu,
            host_ifindex=host,
            tunnel_port=int.from_bytes(port),
            flags=ConfigFlag(flags),
            connections_each=each,
        )


@dataclass(frozen=True, slots=True)
class Port:
    """An attachment by the interface index of its host end: who may send there. The HOST port has no address.

    Of this and the two below, `group` 0 means that of an open network: its VNI. `container`: a number that the ports of
    one container have in common, so that it may answer by either link what came by the other; 0 for none.
    """

    vni: int
    flags: PortFlag
    mac: bytes
    address: IPv4Address | None
    address6: IPv6Address | None = None
    group: int = 0
    container: int = 0

    FORMAT = "=III6s2xI16s16s"

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.vni)

    def pack(self) -> bytes:
        addresses = pack_address(self.address), pack_address(self.address6)
        return struct.pack(self.FORMAT, self.vni, self.flags, self.group, self.mac, self.container, *addresses)

    @classmethod
    def unpack(cls, data: bytes) -> Port:
        vni, flags, group, mac, container, address, address6 = struct.unpack(cls.FORMAT, data)
        return cls(vni, PortFlag(flags), mac, unpack4(address), unpack6(address6), group, container)


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """The same attachment by its address: where packets to it go. Only this host's."""

    ifindex: int
    vni: int
    mac: bytes
    flags: PortFlag = PortFlag.NONE
    group: int = 0
    container: int = 0

    FORMAT = "=III6s6sII"

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.vni)

    def pack(self) -> bytes:
        macs = self.mac, GATEWAY_MAC
        return struct.pack(self.FORMAT, self.ifindex, self.vni, self.group, *macs, self.flags, self.container)

    @classmethod
    def unpack(cls, data: bytes) -> EndpointRow:
        ifindex, vni, group, mac, _, flags, container = struct.unpack(cls.FORMAT, data)
        return cls(ifindex, vni, mac, PortFlag(flags), group, container)


@dataclass(frozen=True, slots=True)
class PrefixRow:
    """What lies behind a prefix. REMOTE has its agent's underlay address and, over IPv4, the tunnel headers to it.

    `next_hop` is the agent itself where it is on the underlay's link, else the router on the way; with None the data
    path asks the routes for every packet, which costs a round trip 5 %. `group`: of each address in it; with
    GROUP_CLOSED of each that `members` does not name.
    """

    kind: PrefixKind
    vni: int
    agent: IPAddress | None = None
    template: bytes = b""
    next_hop: IPv4Address | None = None
    group: int = 0

    FORMAT = f"=16sIII{TUNNEL_OVERHEAD_BYTES}s2x4s4x"

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.vni)

    def pack(self) -> bytes:
        hop = self.next_hop.packed if self.next_hop else bytes(4)
        agent = pack_address(self.agent)
        return struct.pack(self.FORMAT, agent, self.vni, self.kind, self.group, self.template, hop)

    @classmethod
    def unpack(cls, data: bytes) -> PrefixRow:
        agent, vni, kind, group, template, hop = struct.unpack(cls.FORMAT, data)
        next_hop = IPv4Address(hop) if any(hop) else None
        headers = template if any(template) else b""
        return cls(PrefixKind(kind), vni, unpack_optional(agent), headers, next_hop, group)


@dataclass(frozen=True, slots=True)
class AgentRow:
    """A host of the cluster, this one included, by its underlay address."""

    flags: AgentFlag = AgentFlag.NONE

    FORMAT = "=I"

    def pack(self) -> bytes:
        return struct.pack(self.FORMAT, self.flags)

    @classmethod
    def unpack(cls, data: bytes) -> AgentRow:
        return cls(AgentFlag(*struct.unpack(cls.FORMAT, data)))


def tunnel_template(source: IPv4Address, destination: IPv4Address, tunnel_port: int) -> bytes:
    """The headers that precede a packet to an agent: IPv4 with DF, UDP without a checksum, VXLAN, inner Ethernet.

    Lengths, source port, VNI and source MAC are left 0 for the data path, and the IPv4 checksum counts a length of 0.
    """
    ip = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0x4000, 64, socket.IPPROTO_UDP, 0, source.packed, destination.packed
    )
    total = sum(struct.unpack("!10H", ip))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + struct.pack("!H", ~total & 0xFFFF) + ip[12:]
    udp = struct.pack("!HHHH", 0, tunnel_port, 0, 0)
    return ip + udp + struct.pack("!II", 0x08000000, 0) + GATEWAY_MAC + bytes(8)


def probe_fast_way(loaded: Object) -> FastWay:
    """Tries it on a packet that goes nowhere: sending needs kernel 5.13, receiving inner IPv6 6.3."""
    frame = bytes(12) + b"\x08\x00" + struct.pack("!BBH", 0x45, 0, 100) + bytes(96)
    verdict, _, _ = loaded.program("probe_fast_way").run(frame)
    return FastWay(verdict)


@dataclass(frozen=True, slots=True)
class Maps:
    """Every map that an agent writes or reads. `host` has one row, 0. The keys of `barred` are interface indexes, the
    values say nothing. `opened` and `closed`: by opener, how many rows of `connections` the data path ever made, and
    how many of those an agent took out; the difference modulo 2^64 is held against `connections_each`.
    """

    host: Table[int, HostConfig]
    ports: Table[int, Port]
    endpoints: Table[IPAddress, EndpointRow]
    prefixes: Table[IPPrefix, PrefixRow]
    members: Table[IPAddress, MemberRow]
    agents: Table[IPAddress, AgentRow]
    allowed: Table[AllowKey, AllowRow]
    host_services: Table[ServiceKey, ServiceRow]
    barred: Table[int, int]
    connections: Table[FlowKey, ConnectionRow]
    opened: Table[IPAddress, int]
    closed: Table[IPAddress, int]
    traced: Table[FlowKey, int]
    drops: Map
    traces: Map
    _counters: Map

    @classmethod
    def open(cls, loaded: Object) -> Maps:
        number, long = (pack_number, unpack_number), (pack_long, unpack_long)
        address, flow = (pack_address, unpack_address), (FlowKey.pack, FlowKey.unpack)
        service = (ServiceKey.pack, ServiceKey.unpack, ServiceRow.pack, ServiceRow.unpack)
        return cls(
            host=Table(loaded.map("host"), *number, HostConfig.pack, HostConfig.unpack),
            ports=Table(loaded.map("ports"), *number, Port.pack, Port.unpack),
            endpoints=Table(loaded.map("endpoints"), *address, EndpointRow.pack, EndpointRow.unpack),
            prefixes=Table(loaded.map("prefixes"), pack_prefix, unpack_prefix, PrefixRow.pack, PrefixRow.unpack),
            members=Table(loaded.map("members"), *address, MemberRow.pack, MemberRow.unpack),
            agents=Table(loaded.map("agents"), *address, AgentRow.pack, AgentRow.unpack),
            allowed=Table(loaded.map("allowed"), AllowKey.pack, AllowKey.unpack, AllowRow.pack, AllowRow.unpack),
            host_services=Table(loaded.map("host_services"), *service),
            barred=Table(loaded.map("barred"), *number, *number),
            connections=Table(loaded.map("connections"), *flow, ConnectionRow.pack, ConnectionRow.unpack),
            opened=Table(loaded.map("opened"), *address, *long),
            closed=Table(loaded.map("closed"), *address, *long),
            traced=Table(loaded.map("traced"), *flow, *number),
            drops=loaded.map("drops"),
            traces=loaded.map("traces"),
            _counters=loaded.map("counters"),
        )

    def counters(self) -> dict[tuple[int, Reason], tuple[int, int]]:
        """(packets, bytes) dropped since the maps were made, by (VNI, reason). VNI 0: none, or the host's own."""
        found: dict[tuple[int, Reason], tuple[int, int]] = {}
        cpus = possible_cpus()
        for key in self._counters.all_keys():
            data = self._counters.get(key, copies=cpus)
            if data is not None:
                each = struct.unpack(f"={2 * cpus}Q", data)
                vni, reason = struct.unpack("=II", key)
                found[vni, Reason(reason)] = sum(each[0::2]), sum(each[1::2])
        return found
