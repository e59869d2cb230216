"""Ends a lab, from whatever state it is in: processes, then control groups, then its directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hedgerow.errors import BadInput, Conflict, HedgerowError, Refused

from . import cgroups, processes
from .state import check_name, read
from .topology import STATE


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """One command at a time changes a lab. Raises Conflict while another does. The lock ends with its process."""
    path = STATE / f".{name}.lock"
    descriptor = _lock(path, name)
    try:
        yield
    finally:
        if not (STATE / name).exists():
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                STATE.rmdir()
        os.close(descriptor)


def _lock(path: Path, name: str) -> int:
    while True:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        except PermissionError as error:
            raise Refused(f"{path} is for root only", "run the command with sudo") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise Conflict(f"lab {name!r} is being brought up or down by another command", "wait for it") from error
        if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
        os.close(descriptor)  # somebody removed the lab, and the file with it, in between


def remove(name: str) -> bool:
    """Under the lab's lock. Returns whether there was anything. Raises HedgerowError naming what stays."""
    directory = STATE / name
    was = directory.exists() or bool(processes.supervisors(directory))
    processes.end(directory)
    if left := cgroups.remove(_groups(name)):
        raise HedgerowError(f"control groups stay: {', '.join(map(str, left))}", "end the processes in them")
    if directory.exists():
        shutil.rmtree(directory)
    return was


def _groups(name: str) -> list[Path]:
    """The lab's control groups, as `up` wrote them down; where that cannot be read, those it would make now."""
    try:
        record = read(name)
    except BadInput:
        return [cgroups.group_of(hierarchy, name) for hierarchy in cgroups.mounted()]
    return [Path(group) for group in record.groups] if record else []


def down(name: str) -> bool:
    """Ends a lab; for one that does not exist it does nothing and returns False. Raises BadInput for no lab's name."""
    check_name(name)
    with locked(name):
        return remove(name)
