"""Pins: names on bpffs by which the next process finds a map. The map itself lives as long as somebody holds it.

By bpf(2) itself, since libbpf only pins what it does not believe to be pinned already.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from functools import cache
from pathlib import Path

_OBJ_PIN, _OBJ_GET = 6, 7  # enum bpf_cmd
_SYS_BPF = {"x86_64": 321, "aarch64": 280}


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(command: int, path: Path, fd: int) -> int:
    name = ctypes.create_string_buffer(os.fsencode(path))
    attr = ctypes.create_string_buffer(struct.pack("=QII", ctypes.addressof(name), fd, 0), 16)
    result = int(_libc().syscall(_SYS_BPF[os.uname().machine], command, attr, len(attr)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{path}: {os.strerror(number)}")
    return result


def map_id(fd: int) -> int:
    """The kernel's own number of a map."""
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("map_id:"))


def open_pinned(path: Path) -> int | None:
    """A descriptor of what is pinned there, None where nothing is. Raises OSError."""
    try:
        return _call(_OBJ_GET, path, 0)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def pinned_id(path: Path) -> int:
    """The number of the map that is pinned there; 0: none. Raises OSError."""
    fd = open_pinned(path)
    if fd is None:
        return 0
    try:
        return map_id(fd)
    except StopIteration:  # a program or a link
        return 0
    finally:
        os.close(fd)


def pin(fd: int, path: Path) -> None:
    """In place of what is there. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    _call(_OBJ_PIN, path, fd)
