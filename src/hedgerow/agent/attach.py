"""Attachments: the only two ways into a network, attach and detach, and what belongs to them. Every engine leads here.

Each call may come again after a crash, of the agent or of the engine, and does no harm the second time: the same owner
has the same address, the same key the same record, and a repeated attach makes the link anew. What an engine is told is
on disk before. Attaching does not wait for the loop: it makes the rows of one endpoint by the loop's own operations,
under the lock of their kind, and the loop later finds nothing to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from hedgerow.errors import Conflict, HedgerowError, NotFound, Refused
from hedgerow.kernel import links, nsfs
from hedgerow.model.endpoint import Address, Endpoint, EndpointKey, mac_of, of_each_family
from hedgerow.model.network import Network
from hedgerow.model.published import PortRequest
from hedgerow.reconcile.loop import Loop
from hedgerow.reconcile.plan import Key

from . import desired, inside, objects
from .datapath.links import Links
from .desired import Wanted
from .objects import Kind, LinkRecord, Placed
from .passes import Passes
from .publish import Publisher
from .state import State
from .steps import Steps, Times

log = logging.getLogger(__name__)

LET_IN_S = 20.0
"""The loop's first round after a start takes half a second; a failing one says so."""


class Attachments:
    """`passes` say who may join a network that is for apps only: engines ask them before they create."""

    def __init__(
        self, state: State, wanted: Wanted, loop: Loop, kernel: Links, publisher: Publisher, passes: Passes
    ) -> None:
        self.passes = passes
        self._state = state
        self._wanted = wanted
        self._loop = loop
        self._kernel = kernel
        self._publisher = publisher
        self.times = Times()
        self.gone: Callable[[], None] = lambda: None
        """Called when an endpoint is no more."""

    @property
    def mtu(self) -> int:
        """In bytes, of the interfaces inside containers."""
        if self._state.snapshot is None:
            raise _no_network("any", [])
        return desired.overlay_mtu(self._state.snapshot, self._wanted.local)

    def networks(self) -> list[Network]:
        """Those that containers may be attached to."""
        snapshot = self._state.snapshot
        return list(desired.networks(snapshot).values()) if snapshot is not None else []

    def network(self, name: str) -> Network:
        """Raises NotFound, naming those that exist."""
        known = self.networks()
        for network in known:
            if network.name == name:
                return network
        raise _no_network(name, sorted(network.name for network in known))

    def endpoints(self) -> list[Endpoint]:
        return [placed.endpoint for placed in self._state.placed()]

    def reservations(self) -> list[tuple[str, Address]]:
        """Owner and address of all that are taken."""
        return self._state.addresses.reservations()

    async def reserve(self, network: Network, owner: str, address: Address | None, version: int = 4) -> Address:
        """The owner's, of one IP version, on disk. Raises Exhausted, Conflict (taken), Refused (not ours to give)."""
        blocks = [prefix.block for prefix in self._state.prefixes(network.id, version)]
        return await self._state.run(lambda: self._state.addresses.take(network, blocks, owner, address))

    async def release(self, address: Address) -> None:
        """One that nobody has is fine."""
        await self._state.run(lambda: self._state.addresses.give_back(lambda _, taken: taken == address))

    async def release_owner(self, owner: str) -> None:
        await self._state.run(lambda: self._state.addresses.give_back(lambda holder, _: holder == owner))

    async def create(
        self, key: EndpointKey, network: Network, addresses: Collection[Address], mac: bytes | None, name: str = ""
    ) -> Endpoint:
        """A record, no link. Raises Conflict when the key is on another network or address already."""
        ip, ip6 = of_each_family(addresses)
        endpoint = Endpoint(key=key, network=network.id, address=ip, address6=ip6, mac=mac or b"", name=name)
        known = self._state.find(key)
        if known is not None:
            return _same(known.endpoint, endpoint, network)
        endpoint = replace(endpoint, mac=mac or mac_of(endpoint.first_address))
        await self._state.place(lambda: Placed(endpoint))
        return endpoint

    async def attach(self, key: EndpointKey, netns: str | None, ifname: str, sandbox: str = "") -> Endpoint:
        """Link, program, the container's inside (with `netns`), and the rows: from here on packets pass.

        Without `netns` the inner end stays here as `endpoint.peer`, for the engine to move, and `sandbox` says only
        which links are of one container. Repeated: the link is made anew. Raises NotFound, BadInput or Refused for the
        namespace, HedgerowError when the kernel refuses.
        """
        steps = Steps()
        await self._let_in()
        async with self._loop.lock(Kind.LINK):
            known = self._find(key)
            anew = replace(known.endpoint, netns_inode=nsfs.inode_at(sandbox))  # it may be another one this time
            placed = replace(known, endpoint=anew, netns=netns or "", ifname=ifname)
            record = self._record(placed)
            steps.done("wait")

            def make() -> Placed:
                steps.done("thread")
                made = self._kernel.make(placed.endpoint.link, record, peer=placed.endpoint.peer, steps=steps)
                endpoint = replace(
                    placed.endpoint,
                    link_index=made.index,
                    netns_inode=made.netns_inode,
                    boot_id=self._state.boot_id,
                )
                return replace(placed, endpoint=endpoint, attached=True)

            try:
                attached = await self._state.place(make)
            except OSError as error:
                raise HedgerowError(f"{placed.endpoint.first_address} cannot be attached: {error}") from error
        steps.done("record")
        self.times.add(steps)
        log.info("attached %s %s in %s", key, attached.endpoint.first_address, steps)
        return attached.endpoint

    async def rename(self, key: EndpointKey, name: str) -> None:
        """What people call its container; unknown is fine."""

        def named() -> Placed:
            placed = self._find(key)
            return replace(placed, endpoint=replace(placed.endpoint, name=name))

        async with self._loop.lock(Kind.LINK):
            placed = self._state.find(key)
            if placed is not None and placed.endpoint.name != name:
                await self._state.place(named)

    async def publish(self, key: EndpointKey, requests: Sequence[PortRequest]) -> Endpoint:
        """As `Publisher.publish`. The endpoint is attached."""
        return await self._publisher.publish(key, requests)

    async def unpublish(self, key: EndpointKey) -> None:
        await self._publisher.unpublish(key)

    async def detach(self, key: EndpointKey) -> None:
        """No packet passes any more; the link and the record stay. Repeated or unknown is fine."""
        await self.unpublish(key)
        async with self._loop.lock(Kind.LINK):
            placed = self._state.find(key)
            if placed is None or not placed.attached:
                return

            def close() -> Placed:
                self._close(placed.endpoint)
                return replace(placed, attached=False)

            await self._state.place(close)
        log.info("detached %s %s", key, placed.endpoint.first_address)

    async def delete(self, key: EndpointKey) -> None:
        """No packet passes, no record is left, and the link goes in the background. Unknown is fine."""
        await self.unpublish(key)
        async with self._loop.lock(Kind.LINK):
            placed = self._state.find(key)
            if placed is None:
                return

            def remove() -> int:
                return self._close(placed.endpoint)

            index = await self._state.forget(key, remove)
            self._kernel.removals.add(index)
        self.gone()
        self._publisher.forget_connections(placed.endpoint.addresses)
        log.info("deleted %s %s", key, placed.endpoint.first_address)

    async def check(self, key: EndpointKey, netns: str, ifname: str) -> None:
        """Raises HedgerowError naming what is missing, inside or on the host; NotFound without any record."""
        placed = replace(self._find(key), netns=netns, ifname=ifname)
        if not placed.attached:
            raise HedgerowError(f"{key} is not attached", "start the container anew")
        record = self._record(placed)

        def missing() -> str:
            with nsfs.opened(netns) as namespace:
                assert record.inside is not None
                here = self._kernel.missing(placed.endpoint.link, record)
                return here or inside.missing(namespace, record.inside, record.addresses, record.mac)

        try:
            lacks = await self._state.run(missing)
        except OSError as error:
            raise HedgerowError(f"{key} cannot be checked: {error}") from error
        if lacks:
            raise HedgerowError(
                f"{key} lacks its {lacks}", "the agent repairs its own side; else start the container anew"
            )

    def _find(self, key: EndpointKey) -> Placed:
        placed = self._state.find(key)
        if placed is None:
            raise NotFound(f"there is no endpoint {key}", "create it first")
        return placed

    def _record(self, placed: Placed) -> LinkRecord:
        """The wanted row."""
        snapshot = self._state.snapshot
        network = desired.networks(snapshot).get(placed.endpoint.network) if snapshot is not None else None
        if snapshot is None or network is None:
            raise NotFound(f"the network of {placed.endpoint.key} is gone", "attach it to another")
        return desired.link(placed, network, self.mtu, self._wanted.groups(snapshot))

    async def _let_in(self) -> None:
        """Waits until all is there without which no container may be let in. Raises Refused while that fails, and
        when it has not come in LET_IN_S.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LET_IN_S):
                while missing := self._missing():
                    failed = self._loop.failed.get(missing[0])
                    if failed is not None:
                        raise Refused(
                            f"no container is let in while {missing[0]} fails: {failed.reason}", "see the agent's log"
                        )
                    await self._loop.rounds.changed(self._loop.rounds.generation)
                return
        lacks = ", ".join(map(str, self._missing()))
        raise Refused(f"no container is let in: {lacks} has not come in {LET_IN_S:g} s", "see the agent's log")

    def _missing(self) -> list[Key]:
        return [need for need in objects.LINK_NEEDS if need not in self._loop.present]

    def _close(self, endpoint: Endpoint) -> int:
        """The index of the link, 0 when it is gone."""
        index = links.index_of(endpoint.link)
        for each in {index, endpoint.link_index} - {0}:
            self._kernel.close(each, *endpoint.addresses)
        return index


def _same(known: Endpoint, asked: Endpoint, network: Network) -> Endpoint:
    if (known.network, known.addresses) != (asked.network, asked.addresses):
        has, wants = (" and ".join(map(str, each.addresses)) for each in (known, asked))
        raise Conflict(f"{known.key} has {has} already, not {wants} on {network.name}", "delete it first")
    return known


def _no_network(name: str, known: list[str]) -> NotFound:
    cure = f"the networks are {', '.join(known)}" if known else "this agent has not heard from a controller yet"
    return NotFound(f"there is no network {name}", cure)
