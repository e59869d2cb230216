"""One host's programs over maps that a test fills, with no link but loopback: packets are test runs and go nowhere.

Whatever a program decides shows in its verdict and in the packet that it leaves behind.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from bpf.packets import IPV4, UDP
from bpf.world import run
from pyroute2 import netns as namespaces

from bpf import packets as p
from hedgerow.kernel import bpf, netns
from hedgerow.kernel.maps import (
    AgentRow,
    ConfigFlag,
    EndpointRow,
    HostConfig,
    IPAddress,
    Maps,
    Port,
    PortFlag,
    PrefixKind,
    PrefixRow,
    tunnel_template,
)

LINK = 1
"""Of every endpoint: loopback is there anyway."""
HERE, THERE = IPv4Address("192.168.77.1"), IPv4Address("192.168.77.2")
MAC = b"\2\2\2\2\2\2"
REDIRECT, UNSPECIFIED = 7, 2**32 - 1


@dataclass
class Alone:
    """`sender` speaks by LINK; whom it reaches is an endpoint here, or behind a prefix of THERE."""

    name: str
    object: bpf.Object
    maps: Maps

    def configure(self, flags: ConfigFlag = ConfigFlag.FAST) -> None:
        host = HostConfig(
            tunnel_ifindex=LINK,
            underlay_ifindex=LINK,
            peer_ifindex=LINK + 1,
            host_ifindex=LINK,
            underlay=HERE,
            inner_mtu_bytes=1450,
            flags=flags,
        )
        self.maps.host.put(0, host)
        self.maps.agents.put_many({HERE: AgentRow(), THERE: AgentRow()})

    def put_here(self, address: IPAddress, vni: int, group: int = 0) -> None:
        """An endpoint that can be sent to. Its link is none that sends, or it would be the sender itself."""
        self.maps.endpoints.put(address, EndpointRow(LINK + 1, vni, MAC, PortFlag.NONE, group))

    def speak_as(self, address: IPAddress, vni: int, group: int = 0, mac: bytes = MAC) -> None:
        four, six = (address, None) if isinstance(address, IPv4Address) else (None, address)
        self.maps.ports.put(LINK, Port(vni, PortFlag.NONE, mac, four, six, group))

    def send(self, frame: bytes) -> bool:
        """Whether from_container lets it on its way."""
        verdict, after, _ = self.run("from_container", frame)
        if verdict != REDIRECT:
            return False
        inner = after[50:] if len(after) > len(frame) + 40 else after
        return addresses(inner) == addresses(frame)  # else it has become its own refusal

    def arrive(self, frame: bytes, vni: int) -> bool:
        """Whether from_underlay gives to an endpoint what THERE sends through the tunnel."""
        body = p.udp(THERE, HERE, 64000, p.vxlan(vni, frame), sport=40000)
        body = body[:6] + bytes(2) + body[8:]
        verdict, _, _ = self.run("from_underlay", p.ethernet(MAC, IPV4, p.ipv4(THERE, HERE, UDP, body)))
        return verdict == REDIRECT

    def run(self, program: str, frame: bytes, *, repeat: int = 1) -> tuple[int, bytes, int]:
        with netns.inside(netns.named(self.name)):
            return self.object.program(program).run(frame, ifindex=LINK, repeat=repeat)


def behind_there(vni: int, group: int = 0) -> PrefixRow:
    return PrefixRow(PrefixKind.REMOTE, vni, THERE, tunnel_template(HERE, THERE, 64000), THERE, group)


def addresses(frame: bytes) -> bytes:
    return frame[26:34] if frame[12:14] == struct.pack("!H", IPV4) else frame[22:54]


@contextlib.contextmanager
def alone(path: Path | None = None) -> Iterator[Alone]:
    """With the object of this checkout, or another one."""
    name = f"hra{os.urandom(3).hex()}"
    pins = Path("/run") / name
    with contextlib.ExitStack() as undo:
        pins.mkdir()
        undo.callback(pins.rmdir)
        run("mount", "-t", "bpf", "bpf", pins)
        undo.callback(run, "umount", pins)
        namespaces.create(name)
        undo.callback(namespaces.remove, name)
        loaded = bpf.Object(path or bpf.object_file(), pins / "maps")
        undo.callback(loaded.close)
        yield Alone(name, loaded, Maps.open(loaded))
