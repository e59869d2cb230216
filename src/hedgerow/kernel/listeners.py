"""Who waits for a connection or a datagram in a namespace, and which process that is (sock_diag(7), proc(5)).

sock_diag lists those that wait alone; /proc/net/tcp has every connection of the host. Whose a socket is takes a walk
through /proc, so it is asked only when there is something to tell of.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from . import netlink

_SOCK_DIAG_BY_FAMILY, _NETLINK_SOCK_DIAG = 20, 4
_REQUEST_DUMP = 0x301
_DONE, _ERROR = 3, 2
_LISTEN, _UNCONNECTED = 1 << 10, 1 << 7
_STATES = {"tcp": (socket.IPPROTO_TCP, _LISTEN), "udp": (socket.IPPROTO_UDP, _UNCONNECTED)}
_SKV6ONLY = 11
_MESSAGE_BYTES = 72
_BUFFER_BYTES = 1 << 17
_TIMEOUT_S = 5.0
_PROC = Path("/proc")

STATES = {"T": "stopped", "t": "stopped by a debugger", "Z": "dead", "D": "stuck in the kernel"}
"""Process states of proc(5) in which nobody answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """`waiting` of at most `backlog` connections wait to be accepted (TCP). `takes4`: a socket of IPv6 that hears IPv4
    as well. `process` and `state` are empty where no process of the namespace has the socket.
    """

    protocol: str
    address: str
    port: int
    waiting: int = 0
    backlog: int = 0
    takes4: bool = False
    process: str = ""
    pid: int = 0
    state: str = ""
    inode: int = 0

    def hears(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether it gets what is sent to that address of its host."""
        bound = ip_address(self.address)
        if bound == address:
            return True
        if isinstance(bound, IPv4Address):
            return bound.is_unspecified and isinstance(address, IPv4Address)
        return bound.is_unspecified and (self.takes4 or isinstance(address, IPv6Address))


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that has a socket. `command` are its arguments."""

    pid: int
    name: str
    command: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def owner(inode: int) -> Owner | None:
    """Of a socket, by its inode. None when no process has it, or that one cannot be looked at."""
    for pid in _pids():
        if inode in _sockets(pid):
            with contextlib.suppress(OSError):  # it ended meanwhile
                command = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
                name = (_PROC / str(pid) / "comm").read_text(errors="replace").strip()
                return Owner(pid, name, tuple(command))
    return None


def has_address(address: IPv4Address | IPv6Address) -> bool:
    """Whether one could listen at it: whether this host has it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        try:
            one.bind((str(address), 0))
        except OSError:
            return False
    return True


def listeners(protocol: str) -> list[Listener]:
    """`tcp` or `udp`, of the namespace that the thread is in. Raises OSError where the kernel has no sock_diag."""
    number, states = _STATES[protocol]
    found: list[Listener] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        body = struct.pack("=BBBBI48x", family, number, 0, 0, states)
        found += [_listener(protocol, answer) for answer in _dump(body)]
    return found


def with_processes(found: list[Listener], namespace: int) -> list[Listener]:
    """The same with the process that has each; `namespace` is the inode of the network namespace."""
    wanted = {one.inode for one in found}
    holders = {inode: pid for pid in processes(namespace) for inode in _sockets(pid) & wanted}
    return [_with_process(one, holders[one.inode]) if one.inode in holders else one for one in found]


def processes(namespace: int) -> Iterator[int]:
    """Of a network namespace, by its inode; those that we may look at."""
    for pid in _pids():
        with contextlib.suppress(OSError):
            if (_PROC / str(pid) / "ns/net").stat().st_ino == namespace:
                yield pid


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def _sockets(pid: int) -> set[int]:
    found = set()
    with contextlib.suppress(OSError):
        for entry in (_PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError, ValueError):
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    found.add(int(target[8:-1]))
    return found


def _with_process(listener: Listener, pid: int) -> Listener:
    try:
        line = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return replace(listener, pid=pid)
    name, _, rest = line.partition("(")[2].rpartition(")")
    return replace(listener, pid=pid, process=name, state=STATES.get(rest.split()[0], ""))


def _listener(protocol: str, body: bytes) -> Listener:
    """struct inet_diag_msg."""
    family = body[0]
    port = int.from_bytes(body[4:6])
    packed = body[8:12] if family == socket.AF_INET else body[8:24]
    waiting, backlog, _, inode = struct.unpack_from("=IIII", body, 56)
    only6 = netlink.attributes(body[_MESSAGE_BYTES:]).get(_SKV6ONLY, b"\0")[:1] == b"\1"
    return Listener(
        protocol=protocol,
        address=str(ip_address(packed)),
        port=port,
        waiting=waiting if protocol == "tcp" else 0,
        backlog=backlog if protocol == "tcp" else 0,
        takes4=family == socket.AF_INET6 and not only6,
        inode=inode,
    )


def _dump(body: bytes) -> Iterator[bytes]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as channel:
        channel.settimeout(_TIMEOUT_S)
        channel.send(struct.pack("=IHHII", len(body) + 16, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + body)
        while True:
            data, offset = channel.recv(_BUFFER_BYTES), 0
            while offset < len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", data, offset + 16)
                    raise OSError(-code, "sock_diag")
                yield data[offset + 16 : offset + length]
                offset += (length + 3) & ~3
