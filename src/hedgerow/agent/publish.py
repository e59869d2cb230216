"""Publishing: which ports of the host lead to which container, decided, kept on disk and programmed.

A port is given once: conflicts are looked for among the endpoints of this host, which have it until they go, and among
the sockets that listen on the host, since packets would no longer reach those. Who has it is named. What an engine left
open is drawn here. The record comes with the endpoint's own; its rows are made by the loop's operations, under the lock
of their kind, and the loop puts back what is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from random import Random
from typing import Protocol

from hedgerow.errors import Conflict, Exhausted, HedgerowError, NotFound, Refused
from hedgerow.kernel import conntrack, links, listeners
from hedgerow.kernel.listeners import Listener
from hedgerow.model.endpoint import Address, Endpoint, EndpointKey
from hedgerow.model.published import MAX_PUBLISHED, PROTOCOLS, PortRequest, PublishedPort, where
from hedgerow.reconcile.loop import Loop

from .datapath.published import Published
from .forwards import Row, rows_of
from .objects import Kind, Placed
from .state import State

log = logging.getLogger(__name__)

DRAWN = range(20000, 31000)
"""Ports that nobody chose: above what services have by habit, below Linux's own for clients (ip_local_port_range), and
none of those that Marathon's apps draw.
"""
DRAWS = 200
"""Tries for one port."""

Objection = Callable[[PublishedPort], HedgerowError | None]
"""Why a port cannot be given; None when it can."""


class Background(Protocol):
    """Where things are done that nobody waits for."""

    def do(self, work: Callable[[], None]) -> None: ...


class Publisher:
    """`tunnel_port` is the host's own."""

    def __init__(
        self, state: State, loop: Loop, kernel: Published, background: Background, tunnel_port: Callable[[], int]
    ) -> None:
        self._state = state
        self._loop = loop
        self._kernel = kernel
        self._background = background
        self._tunnel_port = tunnel_port
        self._random = Random()

    async def publish(self, key: EndpointKey, requests: Sequence[PortRequest]) -> Endpoint:
        """All that the endpoint has published from now on. Repeated: what was drawn before stays.

        Raises Conflict naming the owner of a port, Refused for what this host cannot do, Exhausted when all of a range
        are taken, NotFound without the endpoint.
        """
        if len(requests) > MAX_PUBLISHED:
            raise Refused(f"{len(requests)} published ports for one container", f"it can have {MAX_PUBLISHED}")
        async with self._loop.lock(Kind.PUBLISHED):
            try:
                placed = await self._state.place(lambda: self._publish(key, requests))
            except OSError as error:
                raise HedgerowError(f"the ports of {key} cannot be published: {error}") from error
        endpoint = placed.endpoint
        if endpoint.published:
            log.info("published %s for %s %s", ", ".join(map(str, endpoint.published)), key, endpoint.first_address)
        return endpoint

    async def unpublish(self, key: EndpointKey) -> None:
        """From here on nobody reaches it by this host. Repeated, unknown or never published is fine."""
        placed = self._state.find(key)
        if placed is None or not placed.endpoint.published:
            return
        async with self._loop.lock(Kind.PUBLISHED):
            await self._state.place(lambda: self._unpublish(self._find(key)))
        self.forget_connections(placed.endpoint.addresses)

    def forget_connections(self, addresses: Iterable[Address]) -> None:
        """Those that the host tracks, in a moment: the addresses may soon be another's."""
        self._background.do(lambda: _forget(tuple(addresses)))

    def _publish(self, key: EndpointKey, requests: Sequence[PortRequest]) -> Placed:
        """In the thread that writes."""
        placed = self._find(key)
        endpoint = placed.endpoint
        without: set[EndpointKey] = set()
        ports = choose(requests, endpoint.published, self._objection(endpoint, without), self._random)
        for other in without:
            self._state.put(self._unpublish(self._find(other)))
        new = replace(endpoint, published=ports)
        old_rows, rows = rows_of(endpoint).values(), rows_of(new).values()
        try:
            self._kernel.put(row for row in rows if row not in old_rows)
        except FileNotFoundError:
            log.warning("there is no table to publish the ports of %s in: the loop brings both", key)
            self._loop.wake()
        except OSError:
            self._take_away(row for row in rows if row not in old_rows)
            raise
        self._take_away(row for row in old_rows if row not in rows)
        _heed_senders(port for port in ports if port not in endpoint.published)
        return replace(placed, endpoint=new)

    def _unpublish(self, placed: Placed) -> Placed:
        self._take_away(rows_of(placed.endpoint).values())
        return replace(placed, endpoint=replace(placed.endpoint, published=()))

    def _take_away(self, rows: Iterable[Row]) -> None:
        try:
            self._kernel.delete(rows)
        except OSError as error:
            log.warning("published ports stay until the next round: %s", error)
            self._loop.wake()

    def _find(self, key: EndpointKey) -> Placed:
        placed = self._state.find(key)
        if placed is None:
            raise NotFound(f"there is no endpoint {key}", "create it first")
        return placed

    def _objection(self, endpoint: Endpoint, without: set[EndpointKey]) -> Objection:
        """`without` comes to hold owners that lose their ports: those whose link went with their container (the engine
        has not said so yet, and may not for a while), and other endpoints of the same container.
        """
        others: dict[int, list[Endpoint]] = {}
        for placed in self._state.placed():
            if placed.attached and placed.endpoint.key != endpoint.key:
                for port in placed.endpoint.published:
                    others.setdefault(port.host_port, []).append(placed.endpoint)
        heard = {protocol: listeners.listeners(protocol) for protocol in PROTOCOLS}
        snapshot = self._state.snapshot
        network = snapshot.networks.get(endpoint.network) if snapshot is not None else None

        def objection(port: PublishedPort) -> HedgerowError | None:
            if network is not None and network.spec.internal:
                return Refused(
                    f"port {port.at}/{port.protocol} for a container on {network.name}, which is internal",
                    "publish it on a network that has a way out",
                )
            cannot = _impossible(port, endpoint, self._tunnel_port())
            if cannot is None:
                having = others.get(port.host_port, [])
                owners = [other for other in having if any(port.overlaps(its) for its in other.published)]
                lasting = [owner for owner in owners if _lasts(owner, endpoint)]
                without.update(owner.key for owner in owners if owner not in lasting)
                cannot = _taken_by_endpoint(port, lasting) or _taken_by_socket(port, endpoint, heard[port.protocol])
            return cannot

        return objection


def choose(
    requests: Sequence[PortRequest], had: Sequence[PublishedPort], objection: Objection, random: Random
) -> tuple[PublishedPort, ...]:
    """A port for each request, in their order. Those that leave no choice come first, so that nothing that is drawn is
    in their way.
    """
    found: dict[int, PublishedPort] = {}

    def free(port: PublishedPort) -> HedgerowError | None:
        if any(port.overlaps(other) for other in found.values()):
            return Conflict(f"port {port.at}/{port.protocol} of this host is asked for twice", "leave out one of them")
        return None if port in had else objection(port)

    def choice(each: tuple[int, PortRequest]) -> tuple[bool, int]:
        return each[1].low == 0, each[1].high - each[1].low

    for place, request in sorted(enumerate(requests), key=choice):
        kept = [port for port in had if request.is_met_by(port) and port not in found.values()]
        found[place] = kept[0] if kept else _first(request, free, random)
    return tuple(found[place] for place in range(len(requests)))


def _first(request: PortRequest, free: Objection, random: Random) -> PublishedPort:
    start = random.randrange(len(DRAWN))
    drawn = [DRAWN[(start + step) % len(DRAWN)] for step in range(DRAWS)]
    numbers: Sequence[int] = range(request.low, request.high + 1) if request.low else drawn
    reason: HedgerowError | None = None
    for number in numbers:
        port = request.at_port(number)
        reason = free(port)
        if reason is None:
            return port
        if not isinstance(reason, Conflict):
            raise reason
    assert reason is not None
    if request.low and request.low == request.high:
        raise reason
    what = f"ports {request.low} to {request.high}" if request.low else f"ports that were drawn ({DRAWS})"
    raise Exhausted(f"none of the {what} is free; the last: {reason.message}", reason.cure)


def _impossible(port: PublishedPort, endpoint: Endpoint, tunnel_port: int) -> HedgerowError | None:
    if (port.protocol, port.host_port) == ("udp", tunnel_port):
        return Refused(f"port {tunnel_port}/udp of this host is that of the tunnels", "publish another port")
    if not port.bind:
        return None
    bind = ip_address(port.bind)
    if all(bind.version != address.version for address in endpoint.addresses):
        return Refused(
            f"a port at {bind} for a container that has no IPv{bind.version} address",
            "publish at an address of the other family, or give its network a subnet of this one",
        )
    if not bind.is_unspecified and not listeners.has_address(bind):
        return Refused(f"this host has no address {bind}", "publish at one that it has: ip address")
    return None


def _lasts(owner: Endpoint, asking: Endpoint) -> bool:
    is_same_container = owner.netns_inode == asking.netns_inode != 0
    return not is_same_container and links.index_of(owner.link) != 0


def _taken_by_endpoint(port: PublishedPort, others: Iterable[Endpoint]) -> HedgerowError | None:
    for other in others:
        for its in other.published:
            if port.overlaps(its):
                inside = where(str(other.first_address), its.container_port)
                owner = f"{other.name or other.key.engine + ' endpoint ' + other.key.container[:12]} ({inside})"
                return _taken(port, owner, f"hedgerow endpoint show {other.first_address}")
    return None


def _taken_by_socket(port: PublishedPort, endpoint: Endpoint, heard: Iterable[Listener]) -> HedgerowError | None:
    """What listens at a loopback address loses nothing. And Podman's monitor listens on the ports of its own container,
    so that nobody else does: that is no conflict either.
    """
    for found in heard:
        address = ip_address(found.address)
        if found.port != port.host_port or address.is_loopback:
            continue
        theirs = PublishedPort(
            protocol=port.protocol,
            host_port=port.host_port,
            container_port=port.container_port,
            bind="" if found.takes4 and address.is_unspecified else found.address,
        )
        if not port.overlaps(theirs):
            continue
        owner = listeners.owner(found.inode)
        if owner is None or endpoint.key.container not in owner.command:
            who = str(owner) if owner else "a process that cannot be looked at"
            return _taken(port, f"{who}, which listens on {where(found.address, port.host_port)}", "end it")
    return None


def _taken(port: PublishedPort, owner: str, cure: str) -> Conflict:
    return Conflict(
        f"port {port.at}/{port.protocol} of this host is taken by {owner}", f"publish another port, or {cure}"
    )


def _heed_senders(ports: Iterable[PublishedPort]) -> None:
    """Of UDP, those that called before the port was published. At once: later it would be the wrong ones as well."""
    for port in ports:
        if port.protocol == "udp":
            for bind in port.binds():
                try:
                    conntrack.forget_udp(bind.version, port.host_port)
                except OSError as error:
                    log.warning("who called port %s before may have to wait: %s", port.at, error)


def _forget(addresses: Iterable[Address]) -> None:
    for address in addresses:
        try:
            conntrack.forget(address)
        except OSError as error:
            log.warning("connections of %s stay tracked until they end: %s", address, error)
