"""Who listens on the ports of this host: the kernel's list of sockets, and /proc for the process.

By sock_diag(7), which lists those that listen alone; /proc/net/tcp has every connection of the host. Whose a socket is
takes a walk through /proc, so it is asked only when there is something to complain of.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from .netlink import attributes

_SOCK_DIAG, _BY_FAMILY = 4, 20
_REQUEST, _DUMP, _ERROR, _DONE = 1, 0x300, 2, 3
_V6ONLY = 11
_LISTEN, _UNCONNECTED = 1 << 10, 1 << 7
_STATES = {"tcp": (socket.IPPROTO_TCP, _LISTEN), "udp": (socket.IPPROTO_UDP, _UNCONNECTED)}
_BUFFER_BYTES = 1 << 16
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Listening:
    """`both`: at every IPv4 address too (a socket of `::` without IPV6_V6ONLY)."""

    address: IPv4Address | IPv6Address
    port: int
    inode: int
    both: bool = False


@dataclass(frozen=True, slots=True)
class Owner:
    """`command` are the process' arguments."""

    pid: int
    name: str
    command: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def listening(protocol: str) -> list[Listening]:
    """Sockets of this namespace that take what comes to a port of theirs. `protocol` is tcp or udp. Raises OSError."""
    return [found for family in (socket.AF_INET, socket.AF_INET6) for found in _listening(family, protocol)]


def _listening(family: int, protocol: str) -> Iterator[Listening]:
    number, states = _STATES[protocol]
    asked = struct.pack("=BBBBI", family, number, 0, 0, states) + bytes(48)  # struct inet_diag_req_v2, any address
    head = struct.pack("=IHHII", len(asked) + 16, _BY_FAMILY, _REQUEST | _DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as channel:
        channel.settimeout(_TIMEOUT_S)
        channel.send(head + asked)
        while True:
            data, offset = channel.recv(_BUFFER_BYTES), 0
            while offset + 16 <= len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                body = data[offset + 16 : offset + length]
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", body)
                    raise OSError(-code, f"list of sockets: {os.strerror(-code)}")
                yield _found(body)
                offset += max((length + 3) & ~3, 16)


def _found(body: bytes) -> Listening:
    """struct inet_diag_msg."""
    (port,), (inode,) = struct.unpack_from("!H", body, 4), struct.unpack_from("=I", body, 68)
    if body[0] == socket.AF_INET:
        return Listening(IPv4Address(body[8:12]), port, inode)
    address = IPv6Address(body[8:24])
    return Listening(address, port, inode, both=address.is_unspecified and attributes(body[72:]).get(_V6ONLY) == b"\0")


def owner(inode: int) -> Owner | None:
    """None for a socket that no process has, or whose process cannot be looked at."""
    wanted = f"socket:[{inode}]"
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile
            if any(str(entry.readlink()) == wanted for entry in (process / "fd").iterdir()):
                command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                return Owner(int(process.name), (process / "comm").read_text(errors="replace").strip(), tuple(command))
    return None


def has_address(address: IPv4Address | IPv6Address) -> bool:
    """Whether this host has it: whether a socket can be bound to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        try:
            one.bind((str(address), 0))
        except OSError:
            return False
    return True
