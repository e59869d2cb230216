"""What others do to the kernel wakes the loop: somebody deleted a link, a route, a program, a table of ours.

Only the wake-up: what happened is found by looking. Our own work makes the same events, so only those count that take
away what is wanted; a link that comes or goes with its container is none. What has no events (rows of maps, pins) is
seen by the loop's regular round. The kernel says who changed rules: that goes to the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Collection, Iterator

from hedgerow.kernel import commands, links, netlink, nft
from hedgerow.kernel.elements import is_own_change

from .datapath.docker_user import CHAIN
from .objects import HOST_LINK, HOST_PEER, TABLE, TUNNEL_LINK, Local
from .state import State

log = logging.getLogger(__name__)

_BUFFER_BYTES = 1 << 16
_SETTLE_S = 0.1
"""Events come in swarms; what has come of one is answered, then comes a pause."""


async def watch_links(state: State, local: Callable[[], Local], wake: Callable[[], None]) -> None:
    """Never returns."""

    def concerns(data: bytes) -> bool:
        names = {TUNNEL_LINK, HOST_LINK, HOST_PEER, local().link}
        indexes = {placed.endpoint.link_index for placed in state.placed() if placed.attached}
        indexes |= {links.index_of(name) for name in names}
        bridges = local().bridges
        return any(
            _takes_away(event, names, indexes) or _is_new_bridge(event, bridges) for event in netlink.messages(data)
        )

    await _watch(links.events(), concerns, wake)


async def watch_tables(own_port: int, wake: Callable[[], None]) -> None:
    """Never returns. Docker's chain counts too: in it stand two rules of ours. `own_port` is that of the socket by
    which ports are published, which is no news.
    """
    names = [name.encode() + b"\0" for name in (TABLE, CHAIN)]
    ours = False

    def concerns(data: bytes) -> bool:
        nonlocal ours
        if is_own_change(data, own_port):
            return False
        change = nft.change(data)
        found = any(name in data for name in names)
        ours = ours or found
        if change.program:  # the end of a transaction
            if ours and not commands.is_own(change.pid):
                log.info("%s (pid %d) changed rules of ours", change.program, change.pid)
            ours = False
        return found

    await _watch(nft.events(), concerns, wake)


def _takes_away(event: netlink.Event, names: set[str], indexes: set[int]) -> bool:
    match event.kind:
        case netlink.NEWLINK | netlink.DELLINK:
            down = event.kind == netlink.DELLINK or not event.is_up
            return event.link in names or (down and event.index in indexes)
        case netlink.NEWADDR | netlink.DELADDR:
            # Every link of others gets some of IPv6, and each advertisement of a router renews those of the LAN.
            return not event.is_ipv6 or (event.kind == netlink.DELADDR and event.index in indexes)
        case netlink.DELROUTE:
            return event.protocol == netlink.PROTO_OURS
        case netlink.DELQDISC | netlink.DELTFILTER:
            return event.index in indexes
        case netlink.NEWNETCONF:
            return not event.is_up and (event.index in indexes or event.index == netlink.ALL_LINKS)
        case _:
            return False


def _is_new_bridge(event: netlink.Event, known: Collection[int]) -> bool:
    """No container's packet may leave by it."""
    return event.kind == netlink.NEWLINK and event.is_bridge and event.index not in known


async def _watch(channel: socket.socket, concerns: Callable[[bytes], bool], wake: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    with channel:
        while True:
            try:
                swarm = [await loop.sock_recv(channel, _BUFFER_BYTES), *_waiting(channel)]
            except OSError as error:
                log.debug("events were lost: %s", error)  # ENOBUFS: too many at once
                swarm = []
            known = [concerns(data) for data in swarm]  # each is looked at: some say what the others are about
            if not swarm or any(known):
                wake()
                await asyncio.sleep(_SETTLE_S)


def _waiting(channel: socket.socket) -> Iterator[bytes]:
    """What has come already. A table that is written makes a dozen datagrams."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield channel.recv(_BUFFER_BYTES)
