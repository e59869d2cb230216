"""Whether a path is a network namespace, asked of the kernel (ioctl_ns(2)), and which one it is."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from hedgerow.errors import BadInput, HedgerowError, NotFound, Refused

from . import netns

_NS_GET_NSTYPE = 0xB703
_CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """A descriptor of a container's network namespace.

    Raises NotFound when there is nothing at the path, BadInput for anything but a network namespace, Refused for the
    one that we are in: an engine that hands that over would have its host's links changed.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFound(f"there is no network namespace {path}", "is the container still running?") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be opened: {error.strerror}", "name a network namespace") from error
    try:
        if not _is_network_namespace(fd):
            raise BadInput(f"{path} is no network namespace", "name one, as /run/netns/NAME or /proc/PID/ns/net")
        if inode(fd) == netns.OWN.stat().st_ino:
            raise Refused(f"{path} is the host's own network namespace", "start the container with one of its own")
        yield fd
    finally:
        os.close(fd)


def inode(fd: int) -> int:
    """Tells a namespace from a later one at the same path, as long as the machine is up."""
    return os.fstat(fd).st_ino


def inode_at(path: str) -> int:
    """That of the network namespace at the path; 0 where there is none."""
    if not path:
        return 0
    with contextlib.suppress(HedgerowError), opened(path) as fd:
        return inode(fd)
    return 0


def _is_network_namespace(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False
