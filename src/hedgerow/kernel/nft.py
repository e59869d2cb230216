"""nftables by its own program: the whole table in one transaction, at start and for repair.

The library is not used in process (GPL-2.0), and one start of `nft` costs 16 ms, so nobody who makes an endpoint waits
for it. A transaction is all or nothing: the table is never missing and never half there.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess

from hedgerow.errors import HedgerowError

_TIMEOUT_S = 10.0
_NETLINK_NETFILTER, _GROUP_NFTABLES = 12, 7


def load(ruleset: str) -> None:
    """Raises HedgerowError with the words of nft."""
    _nft(("-f", "-"), ruleset)


def delete_table(family: str, name: str) -> None:
    """What is gone already is deleted."""
    _nft(("-f", "-"), f"table {family} {name}\ndelete table {family} {name}\n")


def listing(family: str, name: str) -> str | None:
    """What the kernel has, in words that are the same when the rules are: no handles, no counters. None: no table."""
    try:
        return _nft(("--stateless", "list", "table", family, name))
    except HedgerowError as error:
        if os.strerror(errno.ENOENT) in error.message:
            return None
        raise


def _nft(arguments: tuple[str, ...], text: str = "") -> str:
    words = " ".join(("nft", *arguments))
    try:
        done = subprocess.run(
            ["nft", *arguments], input=text, text=True, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise HedgerowError("there is no nft on the PATH", "apt-get install nftables") from error
    except subprocess.TimeoutExpired as error:
        raise HedgerowError(f"{words} did not answer within {_TIMEOUT_S:g} s") from error
    if done.returncode:
        raise HedgerowError(f"{words}: {done.stderr.strip()}")
    return done.stdout


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
