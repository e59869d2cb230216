"""Listening sockets that somebody else holds.

A systemd `.socket` unit, or the lab's supervisor, opens the sockets and passes them as file descriptors from 3 on
(sd_listen_fds(3)). They outlive the process: who dials while it restarts waits instead of being refused.
"""

from __future__ import annotations

import os
import re
import resource
import socket
from collections.abc import MutableMapping

from hedgerow.errors import BadInput, Conflict

FIRST_FD = 3
BACKLOG = 512
"""Agents all come back at once after a restart of the controller."""


def held_sockets(environ: MutableMapping[str, str] = os.environ) -> dict[str, socket.socket]:
    """The passed sockets by name, empty when none are meant for this process. Takes them: a second call finds none.

    Raises BadInput when names and descriptors do not match.
    """
    pid, count, names = (environ.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    named = names.split(":")
    if len(named) != int(count) or len(set(named)) != len(named):
        raise BadInput(
            f"LISTEN_FDS={count} and LISTEN_FDNAMES={names} do not match",
            "give every passed socket a name of its own (FileDescriptorName= of the .socket unit)",
        )
    return {name: _adopt(fd, name) for fd, name in enumerate(named, FIRST_FD)}


def _adopt(fd: int, name: str) -> socket.socket:
    os.set_inheritable(fd, False)
    try:
        adopted = socket.socket(fileno=fd)
    except OSError as error:
        raise BadInput(f"descriptor {fd} ({name}) is no socket: {error}", "check the .socket unit") from error
    adopted.setblocking(False)
    return adopted


def take_all_descriptors() -> None:
    """Raises the soft limit of open files, 1,024 as a rule, to the hard one: every agent, and every caller who says
    nothing, holds a connection.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def split_address(text: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`. Raises BadInput."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise BadInput(f"{text!r} is no address", "write host:port, as 127.0.0.1:8080")
    return host.removeprefix("[").removesuffix("]"), int(port)


def bind(text: str) -> socket.socket:
    """A listening TCP socket on `host:port`. Raises BadInput for what is no address, Conflict when it is taken."""
    host, port = split_address(text)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Conflict(f"cannot listen on {text}: {error.strerror or error}", "end what listens there") from error
    listener.setblocking(False)
    return listener
