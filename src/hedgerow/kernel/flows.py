"""The records of rules and of the flows that rules let begin, packed as bpf/maps.h lays them out.

A *group* is who is judged alike, numbered by each host for itself. Members of an open network have its VNI for a group
and reach each other without a row; those of a network with rules have one with GROUP_CLOSED set.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import IntFlag

from .packing import IPAddress, pack_address, unpack_address

GROUP_CLOSED = 0x80000000
"""Bit of a group: even its own members need a row in `allowed` to reach each other."""

MAX_RANGES = 16
"""Of one AllowRow; bounds the data path's search."""

DEFAULT_CONNECTIONS_EACH = 16384
"""Flows that one endpoint may have open at once where only replies may come back."""


@dataclass(frozen=True, slots=True, order=True)
class AllowKey:
    """What the first group may send to the second. Groups of open networks are their VNIs."""

    from_group: int
    to_group: int

    FORMAT = "=II"

    def pack(self) -> bytes:
        return struct.pack(self.FORMAT, self.from_group, self.to_group)

    @classmethod
    def unpack(cls, data: bytes) -> AllowKey:
        return cls(*struct.unpack(cls.FORMAT, data))


class AllowFlag(IntFlag):
    """BOTH: everything may pass, the row of the other direction says so too, and so no flow is remembered."""

    NONE = 0
    BOTH = 1


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """Destination ports of a protocol (IPPROTO_*; 0: any, ICMP: ICMPv6 too). What has no ports has the one port 0.
    `rule`: the agent's own number of the line of config.yaml, 0 for an `allow`.
    """

    protocol: int = 0
    low: int = 0
    high: int = 65535
    rule: int = 0

    FORMAT = "HHB3xI"

    def __post_init__(self) -> None:
        if self.protocol == socket.IPPROTO_ICMPV6:
            object.__setattr__(self, "protocol", socket.IPPROTO_ICMP)


@dataclass(frozen=True, slots=True)
class AllowRow:
    """What passes from one group to the other: with BOTH everything, else what a range names, first match first.
    Raises ValueError for more than MAX_RANGES.
    """

    flags: AllowFlag = AllowFlag.NONE
    ranges: tuple[Range, ...] = ()

    FORMAT = "=II" + MAX_RANGES * Range.FORMAT

    def __post_init__(self) -> None:
        if len(self.ranges) > MAX_RANGES:
            raise ValueError(f"{len(self.ranges)} ranges of ports between two groups; {MAX_RANGES} are possible")

    def pack(self) -> bytes:
        used = [value for each in self.ranges for value in (each.low, each.high, each.protocol, each.rule)]
        return struct.pack(self.FORMAT, self.flags, len(self.ranges), *used, *[0] * (4 * MAX_RANGES - len(used)))

    @classmethod
    def unpack(cls, data: bytes) -> AllowRow:
        flags, count, *values = struct.unpack(cls.FORMAT, data)
        each = [values[at : at + 4] for at in range(0, 4 * count, 4)]
        return cls(AllowFlag(flags), tuple(Range(protocol, low, high, rule) for low, high, protocol, rule in each))


ALLOW_BOTH = AllowRow(AllowFlag.BOTH)


@dataclass(frozen=True, slots=True)
class MemberRow:
    """An endpoint of a network with rules, on whatever host: its group on this one."""

    group: int

    FORMAT = "=I"

    def pack(self) -> bytes:
        return struct.pack(self.FORMAT, self.group)

    @classmethod
    def unpack(cls, data: bytes) -> MemberRow:
        return cls(*struct.unpack(cls.FORMAT, data))


@dataclass(frozen=True, slots=True)
class FlowKey:
    """A flow as its opener sees it. An ICMP echo has its identifier for both ports; what has no ports has 0. In
    `traced` 0 stands for any port.
    """

    source: IPAddress
    destination: IPAddress
    source_port: int
    destination_port: int
    protocol: int

    FORMAT = "=16s16s2s2sB3x"

    def pack(self) -> bytes:
        ports = self.source_port.to_bytes(2), self.destination_port.to_bytes(2)
        return struct.pack(
            self.FORMAT, pack_address(self.source), pack_address(self.destination), *ports, self.protocol
        )

    @classmethod
    def unpack(cls, data: bytes) -> FlowKey:
        src, dst, sport, dport, protocol = struct.unpack(cls.FORMAT, data)
        return cls(unpack_address(src), unpack_address(dst), int.from_bytes(sport), int.from_bytes(dport), protocol)

    @property
    def reversed(self) -> FlowKey:
        """The same flow as its replier sees it."""
        return FlowKey(self.destination, self.source, self.destination_port, self.source_port, self.protocol)


class ConnectionFlag(IntFlag):
    """What a remembered flow has gone through. OPENER_DONE, REPLIER_DONE: TCP, that side sent its FIN. CUT: a change of
    the rules ended it.
    """

    NONE = 0
    REPLIED = 1
    OPENER_DONE = 2
    REPLIER_DONE = 4
    RESET = 8
    CUT = 16


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """A flow that a rule let begin, or that a host opened. `seen_ns` (CLOCK_MONOTONIC) is at most 3 seconds old while
    packets come; `rule` let it begin; `from_group` and `to_group` are of its last packet, 0 a host.
    """

    seen_ns: int
    rule: int = 0
    flags: ConnectionFlag = ConnectionFlag.NONE
    from_group: int = 0
    to_group: int = 0

    FORMAT = "=QIIIII4x"

    def pack(self) -> bytes:
        return struct.pack(self.FORMAT, self.seen_ns, self.rule, self.flags, self.from_group, self.to_group, 0)

    @classmethod
    def unpack(cls, data: bytes) -> ConnectionRow:
        seen_ns, rule, flags, from_group, to_group, _ = struct.unpack(cls.FORMAT, data)
        return cls(seen_ns, rule, ConnectionFlag(flags), from_group, to_group)

    @property
    def is_closed(self) -> bool:
        """TCP: both sides are done, or one has reset it."""
        done = ConnectionFlag.OPENER_DONE | ConnectionFlag.REPLIER_DONE
        return self.flags & done == done or ConnectionFlag.RESET in self.flags


@dataclass(frozen=True, slots=True, order=True)
class ServiceKey:
    """What a network's containers may ask of hosts beside DNS and ping. Protocol and port 0: the metadata services."""

    vni: int
    protocol: int = 0
    port: int = 0

    FORMAT = "=IBx2s"

    def pack(self) -> bytes:
        return struct.pack(self.FORMAT, self.vni, self.protocol, self.port.to_bytes(2))

    @classmethod
    def unpack(cls, data: bytes) -> ServiceKey:
        vni, protocol, port = struct.unpack(cls.FORMAT, data)
        return cls(vni, protocol, int.from_bytes(port))


class ServiceFlag(IntFlag):
    """Where the service may be asked for: OWN_HOST, at any address of the container's host; CONTROLLERS, at the
    underlay address of each host with a controller.
    """

    NONE = 0
    OWN_HOST = 1
    CONTROLLERS = 2


@dataclass(frozen=True, slots=True)
class ServiceRow:
    where: ServiceFlag = ServiceFlag.OWN_HOST

    FORMAT = "=I"

    def pack(self) -> bytes:
        return struct.pack(self.FORMAT, self.where)

    @classmethod
    def unpack(cls, data: bytes) -> ServiceRow:
        return cls(ServiceFlag(*struct.unpack(cls.FORMAT, data)))
