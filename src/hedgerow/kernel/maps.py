"""The maps of the data path as typed tables: one record per map, packed as bpf/maps.h lays it out.

Addresses travel as 16 bytes, IPv4 v4-mapped. Who writes a row replaces it in one step: a packet meets the old row or
the new one, never half of each. Rows are written by one thread at a time; packets read them at any moment.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from .bpf import Map, Object, possible_cpus
from .table import Table

IPAddress = IPv4Address | IPv6Address
IPPrefix = IPv4Network | IPv6Network

LAYOUT = 1
"""Number of the records' shape; part of the pin directory's name."""

GATEWAY_MAC = bytes.fromhex("024800000001")
"""Of every veth's host end and of every VXLAN device: what comes out of a tunnel is then taken for the host's own."""

TUNNEL_OVERHEAD_BYTES = 50
"""IPv4 20, UDP 8, VXLAN 8 (RFC 7348), inner Ethernet 14."""

_MAPPED = bytes(10) + b"\xff\xff"
_NO_ADDRESS = bytes(16)


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


class PrefixKind(IntEnum):
    """What a prefix is. HOST: an address of this host that a network (VNI 0: every one) reaches through the stack."""

    NETWORK = 1
    LOCAL = 2
    REMOTE = 3
    HOST = 4
    CLOSED = 5


class PortFlag(IntFlag):
    """Of `Port` and `EndpointRow`. HOST: the host's own stack behind hr-peer. INTERNAL: the network has no way out."""

    NONE = 0
    HOST = 1
    INTERNAL = 2


class FastWay(IntFlag):
    """What of the fast way a kernel can do; what it cannot takes the VXLAN device, packet by packet."""

    NONE = 0
    SEND = 1
    RECEIVE = 2
    RECEIVE6 = 4


class ConfigFlag(IntFlag):
    """FAST: tunnel headers are put on and taken off in eBPF; without it the VXLAN device does all."""

    NONE = 0
    FAST = 1


def pack_address(address: IPAddress | None) -> bytes:
    if address is None:
        return _NO_ADDRESS
    return _MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed


def unpack_address(data: bytes) -> IPAddress:
    return IPv4Address(data[12:]) if data[:12] == _MAPPED else IPv6Address(data)


def _unpack4(data: bytes) -> IPv4Address | None:
    return None if data == _NO_ADDRESS else IPv4Address(data[12:])


def _unpack6(data: bytes) -> IPv6Address | None:
    return None if data == _NO_ADDRESS else IPv6Address(data)


def pack_prefix(prefix: IPPrefix) -> bytes:
    bits = prefix.prefixlen + (96 if isinstance(prefix, IPv4Network) else 0)
    return struct.pack("=I", bits) + pack_address(prefix.network_address)


def unpack_prefix(data: bytes) -> IPPrefix:
    (bits,) = struct.unpack_from("=I", data)
    address = unpack_address(data[4:])
    return IPv4Network((address, bits - 96)) if isinstance(address, IPv4Address) else IPv6Network((address, bits))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """What the programs must know of their host. `inner_mtu_bytes`: the largest inner IP packet in one piece."""

    tunnel_ifindex: int
    underlay_ifindex: int
    peer_ifindex: int
    underlay: IPv4Address
    inner_mtu_bytes: int
    tunnel_port: int = 64000
    flags: ConfigFlag = ConfigFlag.FAST

    FORMAT = "=IIIII6s2s4x16s"

    def pack(self) -> bytes:
        return struct.pack(
            self.FORMAT,
            self.tunnel_ifindex,
            self.underlay_ifindex,
            self.peer_ifindex,
            self.inner_mtu_bytes,
            self.flags,
            GATEWAY_MAC,
            struct.pack("!H", self.tunnel_port),
            pack_address(self.underlay),
        )

    @classmethod
    def unpack(cls, data: bytes) -> HostConfig:
        tunnel, underlay_ifindex, peer, mtu, flags, _, port, underlay = struct.unpack(cls.FORMAT, data)
        return cls(
            tunnel_ifindex=tunnel,
            underlay_ifindex=underlay_ifindex,
            peer_ifindex=peer,
            underlay=IPv4Address(underlay[12:]),
            inner_mtu_bytes=mtu,
            tunnel_port=struct.unpack("!H", port)[0],
            flags=ConfigFlag(flags),
        )


@dataclass(frozen=True, slots=True)
class Port:
    """An attachment by the interface index of its host end: who may send there. The HOST port has no address."""

    vni: int
    flags: PortFlag
    mac: bytes
    address: IPv4Address | None
    address6: IPv6Address | None = None

    FORMAT = "=II6s2x16s16s"

    def pack(self) -> bytes:
        return struct.pack(
            self.FORMAT, self.vni, self.flags, self.mac, pack_address(self.address), pack_address(self.address6)
        )

    @classmethod
    def unpack(cls, data: bytes) -> Port:
        vni, flags, mac, address, address6 = struct.unpack(cls.FORMAT, data)
        return cls(vni, PortFlag(flags), mac, _unpack4(address), _unpack6(address6))


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """The same attachment by its address: where packets to it go. Only this host's."""

    ifindex: int
    vni: int
    mac: bytes
    flags: PortFlag = PortFlag.NONE

    FORMAT = "=II6s6sI"

    def pack(self) -> bytes:
        return struct.pack(self.FORMAT, self.ifindex, self.vni, self.mac, GATEWAY_MAC, self.flags)

    @classmethod
    def unpack(cls, data: bytes) -> EndpointRow:
        ifindex, vni, mac, _, flags = struct.unpack(cls.FORMAT, data)
        return cls(ifindex, vni, mac, PortFlag(flags))


@dataclass(frozen=True, slots=True)
class PrefixRow:
    """What lies behind a prefix. REMOTE has its agent's underlay address and the tunnel headers to it.

    `next_hop` is the agent itself where it is on the underlay's link, else the router on the way; with None the data
    path asks the routes for every packet, which costs a round trip 5 %.
    """

    kind: PrefixKind
    vni: int
    agent: IPv4Address | None = None
    template: bytes = b""
    next_hop: IPv4Address | None = None

    FORMAT = f"=16sII{TUNNEL_OVERHEAD_BYTES}s2x4s"

    def pack(self) -> bytes:
        hop = self.next_hop.packed if self.next_hop else bytes(4)
        return struct.pack(self.FORMAT, pack_address(self.agent), self.vni, self.kind, self.template, hop)

    @classmethod
    def unpack(cls, data: bytes) -> PrefixRow:
        agent, vni, kind, template, hop = struct.unpack(cls.FORMAT, data)
        next_hop = IPv4Address(hop) if any(hop) else None
        return cls(PrefixKind(kind), vni, _unpack4(agent), template if any(template) else b"", next_hop)


@dataclass(frozen=True, slots=True, order=True)
class AllowKey:
    """Two networks that may talk; a pair is entered in both orders."""

    from_vni: int
    to_vni: int

    FORMAT = "=II"

    def pack(self) -> bytes:
        return struct.pack(self.FORMAT, self.from_vni, self.to_vni)

    @classmethod
    def unpack(cls, data: bytes) -> AllowKey:
        return cls(*struct.unpack(cls.FORMAT, data))


@dataclass(frozen=True, slots=True)
class AgentRow:
    """A host of the cluster, this one included, by its underlay address: a sender that the tunnels accept."""

    flags: int = 0

    FORMAT = "=I"

    def pack(self) -> bytes:
        return struct.pack(self.FORMAT, self.flags)

    @classmethod
    def unpack(cls, data: bytes) -> AgentRow:
        return cls(*struct.unpack(cls.FORMAT, data))


@dataclass(frozen=True, slots=True)
class DropEvent:
    """One dropped packet, of those that the sampling lets through. `time_ns` is CLOCK_MONOTONIC."""

    time_ns: int
    source: IPAddress
    destination: IPAddress
    vni: int
    ifindex: int
    source_port: int
    destination_port: int
    reason: Reason
    protocol: int

    FORMAT = "=Q16s16sII2s2sBB2x"

    @classmethod
    def unpack(cls, data: bytes) -> DropEvent:
        time_ns, src, dst, vni, ifindex, sport, dport, reason, protocol = struct.unpack_from(cls.FORMAT, data)
        return cls(
            time_ns,
            unpack_address(src),
            unpack_address(dst),
            vni,
            ifindex,
            int.from_bytes(sport),
            int.from_bytes(dport),
            Reason(reason),
            protocol,
        )


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


def _pack_number(value: int) -> bytes:
    return struct.pack("=I", value)


def _unpack_number(data: bytes) -> int:
    return int(struct.unpack("=I", data)[0])


@dataclass(frozen=True, slots=True)
class Maps:
    """Every map that an agent writes or reads. `host` has one row, 0; the values of `allowed` say nothing."""

    host: Table[int, HostConfig]
    ports: Table[int, Port]
    endpoints: Table[IPAddress, EndpointRow]
    prefixes: Table[IPPrefix, PrefixRow]
    agents: Table[IPAddress, AgentRow]
    allowed: Table[AllowKey, int]
    drops: Map
    _counters: Map

    @classmethod
    def open(cls, loaded: Object) -> Maps:
        number = (_pack_number, _unpack_number)
        address = (pack_address, unpack_address)
        return cls(
            host=Table(loaded.map("host"), *number, HostConfig.pack, HostConfig.unpack),
            ports=Table(loaded.map("ports"), *number, Port.pack, Port.unpack),
            endpoints=Table(loaded.map("endpoints"), *address, EndpointRow.pack, EndpointRow.unpack),
            prefixes=Table(loaded.map("prefixes"), pack_prefix, unpack_prefix, PrefixRow.pack, PrefixRow.unpack),
            agents=Table(loaded.map("agents"), *address, AgentRow.pack, AgentRow.unpack),
            allowed=Table(loaded.map("allowed"), AllowKey.pack, AllowKey.unpack, *number),
            drops=loaded.map("drops"),
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
