"""The few system calls that the lab needs and Python 3.11's os module lacks. Standard library only."""

from __future__ import annotations

import ctypes
import os
from enum import IntFlag

_libc = ctypes.CDLL(None, use_errno=True)


class Clone(IntFlag):
    """Kinds of namespace, as unshare(2) and setns(2) name them."""

    MOUNT = 0x00020000
    CGROUP = 0x02000000
    UTS = 0x04000000
    PID = 0x20000000
    NET = 0x40000000


class Mount(IntFlag):
    """Flags of mount(2)."""

    NONE = 0
    READ_ONLY = 0x1
    NOSUID = 0x2
    NODEV = 0x4
    NOEXEC = 0x8
    REMOUNT = 0x20
    BIND = 0x1000
    RECURSIVE = 0x4000
    PRIVATE = 0x40000


def _check(answer: int, what: str) -> None:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(kinds: Clone) -> None:
    """Moves this process into new namespaces; with PID it is the next child that is the first in the new one."""
    _check(_libc.unshare(int(kinds)), f"unshare {kinds!r}")


def mount(source: str, target: str, kind: str = "", *, flags: Mount = Mount.NONE, options: str = "") -> None:
    """mount(2). Raises OSError naming source and target."""
    answer = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    )
    _check(answer, f"mount {source} on {target}")


def bind(source: str, target: str, *, read_only: bool | None = None) -> None:
    """Makes `source` appear at `target`, without what is mounted below it; writable as `source` is, or as told."""
    mount(source, target, flags=Mount.BIND)
    if read_only is not None:
        mount("none", target, flags=Mount.BIND | Mount.REMOUNT | (Mount.READ_ONLY if read_only else Mount.NONE))
