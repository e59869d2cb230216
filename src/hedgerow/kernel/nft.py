"""nftables by its own program: the whole table in one transaction, at start and for repair.

The library is not used in process (GPL-2.0), and one start of `nft` costs 16 ms, so nobody who makes an endpoint waits
for it. A transaction is all or nothing: the table is never missing and never half there.

Each transaction of a namespace has a number. While that is the same nobody changed anything, so no process has to be
started to look; and the kernel tells with each who it was.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from hedgerow.errors import HedgerowError

from . import commands, netlink

_NETLINK_NETFILTER, _GROUP_NFTABLES = 12, 7
_NEWGEN, _GETGEN = 10 << 8 | 15, 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, linux/netfilter/nf_tables.h
_GEN_ID, _GEN_PID, _GEN_NAME = 1, 2, 3
_HEADERS_BYTES = 20  # struct nlmsghdr and struct nfgenmsg
_REQUEST = 1


def load(ruleset: str) -> None:
    """Raises HedgerowError with the words of nft."""
    _nft(("-f", "-"), ruleset)


def delete_table(family: str, name: str) -> None:
    """What is gone already is deleted."""
    _nft(("-f", "-"), f"table {family} {name}\ndelete table {family} {name}\n")


def listing(family: str, name: str, *, without: Collection[str] = ()) -> str | None:
    """What the kernel has, in words that are the same when the rules are: no handles, no counters, and no elements of
    maps and sets whose names begin with one of `without`. None: no table.
    """
    elements = rf"((?:map|set) (?:{'|'.join(without) or '-'})\w* \{{\n[^}}]*?)\n\t\telements = \{{[^}}]*\}}"
    try:
        return re.sub(elements, r"\1", _nft(("--stateless", "list", "table", family, name)))
    except HedgerowError as error:
        if os.strerror(errno.ENOENT) in error.message:
            return None
        raise


def _nft(arguments: tuple[str, ...], text: str = "") -> str:
    return commands.run(("nft", *arguments), text, cure="apt-get install nftables")


@dataclass(frozen=True, slots=True)
class Change:
    """What a datagram of `events` says: a part of a transaction, in the kernel's bytes, and who made it, where the part
    has its end (NFT_MSG_NEWGEN).
    """

    data: bytes
    program: str = ""
    pid: int = 0


def generation() -> int:
    """The number of the last transaction of the thread's namespace. Raises OSError."""
    request = struct.pack("=IHHIIBBH", _HEADERS_BYTES, _GETGEN, _REQUEST, 1, 0, 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as channel:
        channel.settimeout(commands.TIMEOUT_S)
        channel.send(request)
        answer = channel.recv(4096)
    (kind,) = struct.unpack_from("=H", answer, 4)
    number = netlink.attributes(answer[_HEADERS_BYTES:]).get(_GEN_ID)
    if kind != _NEWGEN or number is None:
        raise OSError(errno.EPROTO, "the kernel does not tell the generation of its tables")
    return int.from_bytes(number)


def change(data: bytes) -> Change:
    for kind, body in _messages(data):
        if kind == _NEWGEN:
            found = netlink.attributes(body)
            program = found.get(_GEN_NAME, b"").rstrip(b"\0").decode(errors="replace")
            return Change(data, program, int.from_bytes(found.get(_GEN_PID, b"")))
    return Change(data)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _HEADERS_BYTES <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        yield kind, data[offset + _HEADERS_BYTES : offset + length]
        offset += max((length + 3) & ~3, _HEADERS_BYTES)


def events() -> socket.socket:
    """Readable when some table of this namespace changes; each message of ours names the table."""
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    channel.bind((0, 1 << (_GROUP_NFTABLES - 1)))
    channel.setblocking(False)
    return channel


def counters(family: str, table: str) -> dict[str, tuple[int, int]]:
    """(packets, bytes) of each named counter."""
    found = json.loads(_nft(("-j", "list", "counters", "table", family, table)))
    rows = [row["counter"] for row in found["nftables"] if "counter" in row]
    return {row["name"]: (row["packets"], row["bytes"]) for row in rows}
