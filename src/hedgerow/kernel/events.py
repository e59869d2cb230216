"""What the data path's rings carry: a sample of the dropped packets, and traces.

A trace is what became of the packets of a chosen flow, step by step, as the programs of one host saw it. Whoever traces
writes the flow into the map `traced` (and its reverse, for the way back), sets ConfigFlag.TRACING in the row of `host`,
sends a packet, and reads the ring `traces`. Without the flag a packet pays one test.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from .maps import Reason
from .packing import IPAddress, unpack_address


@dataclass(frozen=True, slots=True)
class DropEvent:
    """One dropped packet, of those that the sampling lets through. `time_ns` is CLOCK_MONOTONIC; `rule` is that which
    had let the flow begin, where the reason is RULE_CHANGED.
    """

    time_ns: int
    source: IPAddress
    destination: IPAddress
    vni: int
    ifindex: int
    source_port: int
    destination_port: int
    reason: Reason
    protocol: int
    rule: int = 0

    FORMAT = "=Q16s16sII2s2sBB2xI4x"

    @classmethod
    def unpack(cls, data: bytes) -> DropEvent:
        time_ns, src, dst, vni, ifindex, sport, dport, reason, protocol, rule = struct.unpack_from(cls.FORMAT, data)
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
            rule,
        )


class Program(IntEnum):
    """Which of the programs it was: of an endpoint's link or hr-peer, of the underlay's link, of the VXLAN device."""

    CONTAINER = 1
    UNDERLAY = 2
    TUNNEL = 3


class Stage(IntEnum):
    """SEEN: the program read the packet. DELIVERED: into a container of this host. WIRE: to another agent, the fast
    way. DEVICE: to the VXLAN device, outgoing or incoming. HOST: to the host's own stack. DROPPED. ANSWERED: dropped,
    and its sender told.
    """

    SEEN = 1
    DELIVERED = 2
    WIRE = 3
    DEVICE = 4
    HOST = 5
    DROPPED = 6
    ANSWERED = 7


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """`time_ns` is CLOCK_MONOTONIC, `id` the value in `traced`, `ifindex` where the packet came in. `reason` is a
    Reason where it was dropped, else 0.
    """

    time_ns: int
    id: int
    ifindex: int
    program: Program
    stage: Stage
    reason: int

    FORMAT = "=QIIBBB5x"

    @classmethod
    def unpack(cls, data: bytes) -> TraceEvent:
        time_ns, number, ifindex, program, stage, reason = struct.unpack_from(cls.FORMAT, data)
        return cls(time_ns, number, ifindex, Program(program), Stage(stage), reason)
