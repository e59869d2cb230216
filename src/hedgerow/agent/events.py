"""What others do to the kernel wakes the loop: somebody deleted a link, a route, a program, a table of ours.

Only the wake-up: what happened is found by looking. Our own work makes the same events, so only those count that take
away what is wanted; a link that comes or goes with its container is none. What has no events (rows of maps) is seen by
the loop's regular round.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from hedgerow.kernel import links, netlink, nft

from .objects import HOST_LINK, HOST_PEER, TABLE, TUNNEL_LINK, Local
from .state import State

log = logging.getLogger(__name__)

_BUFFER_BYTES = 1 << 16
_SETTLE_S = 0.1
"""Events come in swarms; the first of one is answered, then comes a pause."""


async def watch_links(state: State, local: Callable[[], Local], wake: Callable[[], None]) -> None:
    """Never returns."""

    def concerns(data: bytes) -> bool:
        names = {TUNNEL_LINK, HOST_LINK, HOST_PEER, local().link}
        indexes = {placed.endpoint.link_index for placed in state.placed() if placed.attached}
        indexes |= {links.index_of(name) for name in names}
        return any(_takes_away(event, names, indexes) for event in netlink.messages(data))

    await _watch(links.events(), concerns, wake)


async def watch_tables(wake: Callable[[], None]) -> None:
    """Never returns."""
    name = TABLE.encode() + b"\0"
    await _watch(nft.events(), lambda data: name in data, wake)


def _takes_away(event: netlink.Event, names: set[str], indexes: set[int]) -> bool:
    match event.kind:
        case netlink.NEWLINK | netlink.DELLINK:
            down = event.kind == netlink.DELLINK or not event.is_up
            return event.link in names or (down and event.index in indexes)
        case netlink.NEWADDR | netlink.DELADDR:
            return True
        case netlink.DELROUTE:
            return event.protocol == netlink.PROTO_OURS
        case netlink.DELQDISC | netlink.DELTFILTER:
            return event.index in indexes
        case _:
            return False


async def _watch(channel: socket.socket, concerns: Callable[[bytes], bool], wake: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    with channel:
        while True:
            try:
                data = await loop.sock_recv(channel, _BUFFER_BYTES)
            except OSError as error:
                log.debug("events were lost: %s", error)  # ENOBUFS: too many at once
                wake()
                await asyncio.sleep(_SETTLE_S)
                continue
            if concerns(data):
                wake()
                await asyncio.sleep(_SETTLE_S)
