"""The file system that holds pinned maps. Without it they would go with the process that made them."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from hedgerow.errors import HedgerowError


def is_mounted(path: Path) -> bool:
    """Whether the last thing mounted exactly there is a bpf file system (proc(5), mountinfo)."""
    kind = ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[4] == str(path):
            kind = after.split()[0]
    return kind == "bpf"


def ensure_mounted(path: Path) -> None:
    """Raises HedgerowError."""
    if is_mounted(path):
        return
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", os.fsencode(path), b"bpf", 0, b"mode=0700") < 0:
        reason = os.strerror(ctypes.get_errno())
        raise HedgerowError(f"no bpf file system can be mounted on {path}: {reason}", "run the agent as root")
