"""The file system that holds pinned maps. Without it they would go with the process that made them."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from hedgerow.errors import HedgerowError


def is_mounted(path: Path) -> bool:
    """Whether the last thing mounted exactly there is a bpf file system."""
    return kind_at(Path("/proc/self/mountinfo").read_bytes(), path) == "bpf"


def kind_at(mountinfo: bytes, path: Path) -> str:
    """Of the last file system mounted there, empty when none is (proc(5), mountinfo). A mount's path may hold any bytes
    but blanks and ends of lines, and users choose those of theirs.
    """
    kind = b""
    for line in mountinfo.split(b"\n"):
        before, _, after = line.partition(b" - ")
        fields = before.split(b" ")
        if len(fields) > 4 and fields[4] == os.fsencode(path):
            kind = after.partition(b" ")[0]
    return kind.decode(errors="replace")


def ensure_mounted(path: Path) -> None:
    """Raises HedgerowError."""
    if is_mounted(path):
        return
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", os.fsencode(path), b"bpf", 0, b"mode=0700") < 0:
        reason = os.strerror(ctypes.get_errno())
        raise HedgerowError(f"no bpf file system can be mounted on {path}: {reason}", "run the agent as root")
