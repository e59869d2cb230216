"""The processes of a lab, found by what they are and not by what was written down: `up` may be killed at any line."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from hedgerow.errors import HedgerowError, NotFound

from .topology import LAB_RUN

MODULE = "hedgerow.lab.supervisor"


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def is_a_node(status: str) -> bool:
    """Of a process's status (proc(5)): root's, and the first of a PID namespace. Any user can give a process the words
    of a supervisor and, in a user namespace, make it the first of one; root must not enter the mounts of that.
    """
    fields = {name: value.split() for name, _, value in (row.partition(":") for row in status.splitlines())}
    seen_as = fields.get("NSpid", [])
    return set(fields.get("Uid", [])) == {"0"} and len(seen_as) > 1 and seen_as[-1] == "1"


def supervisors(directory: Path) -> dict[str, int]:
    """Member -> pid of its supervisor (the first process of its PID namespace), for all of a lab's that live."""
    return {name: pid for name, pid in _all(directory) if is_a_node(_status(pid))}


def _all(directory: Path) -> list[tuple[str, int]]:
    """Also those that have not made their namespaces yet."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        words = _words(int(entry.name))
        if MODULE in words and Path(words[-1]).parent == directory:
            found.append((Path(words[-1]).name, int(entry.name)))
    return found


def supervisor(directory: Path, member: str) -> int:
    """Raises NotFound naming the members that live."""
    alive = supervisors(directory)
    if member not in alive:
        raise NotFound(f"no node {member!r} is up (there: {', '.join(sorted(alive)) or 'none'})", "hedgerow lab status")
    return alive[member]


def end(directory: Path, *, within_s: float = 20) -> None:
    """Kills all supervisors of a lab, and with each the whole of its PID namespace; returns when they are gone.

    Nothing of a lab is worth a gentle end: its engines' data is thrown away with it.
    """
    deadline = time.monotonic() + within_s
    while found := _all(directory):
        for _, pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            left = ", ".join(f"{name} ({pid})" for name, pid in found)
            raise HedgerowError(f"these supervisors do not end: {left}", "look at them with ps and at the kernel's log")
        time.sleep(0.01)


def children(supervisor_pid: int) -> dict[str, int]:
    """Child -> its pid as the node sees it. One that is just being started again shows its last pid."""
    pids = Path(f"/proc/{supervisor_pid}/root{LAB_RUN}/pids")
    try:
        return {file.name: int(file.read_text()) for file in pids.iterdir()}
    except (OSError, ValueError):
        return {}


def alive(supervisor_pid: int, pid: int) -> bool:
    """Whether a node's process runs; `pid` as the node sees it."""
    try:
        text = Path(f"/proc/{supervisor_pid}/root/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"
