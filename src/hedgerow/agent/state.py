"""What an agent knows: the wanted state at its last revision, who has which address, which endpoints there are.

All of it is in memory and on disk (`disk.py`); what is written is on disk first. The snapshot may be a saved one, of
which things may be added to the kernel but nothing removed; it is live as soon as a controller has spoken to this
process. Nobody is told what changed, only that something did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from hedgerow.model.agent import Agent, AgentId, Prefix, Prefix6
from hedgerow.model.app import Instance, InstanceId
from hedgerow.model.endpoint import EndpointKey
from hedgerow.model.member import Member, MemberKey
from hedgerow.model.network import ClusterSpec, Network, NetworkId
from hedgerow.model.snapshot import Revision, Snapshot
from hedgerow.reconcile.signal import Signal
from hedgerow.wire.codec import from_json, to_json
from hedgerow.wire.messages import Delta

from .addresses import Addresses
from .disk import Disk
from .objects import Placed

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class State:
    """`executor`: the one thread in which the disk is written. `reportable` goes up when something changes that a
    controller wants to hear.
    """

    def __init__(self, path: Path | None, executor: Executor | None = None) -> None:
        self._disk = Disk(path)
        self._executor = executor
        self._wanted = Signal()
        self._placed: dict[EndpointKey, Placed] = {}
        self.addresses = Addresses(self._disk)
        self.reportable = Signal()
        self.is_live = False
        self.boot_id = BOOT_ID.read_text().strip()
        self.snapshot: Snapshot | None = None
        self._registered: Agent | None = None
        self._load()

    @property
    def generation(self) -> int:
        """Goes up at every change of the snapshot or of `is_live`; endpoints have a signal of their own."""
        return self._wanted.generation

    async def changed(self, generation: int) -> int:
        """Waits until the generation is another, and returns it."""
        return await self._wanted.changed(generation)

    @property
    def own(self) -> Agent | None:
        """Our record, None before the first registration."""
        if self.snapshot is not None and self.snapshot.own in self.snapshot.agents:
            return self.snapshot.agents[self.snapshot.own]
        return self._registered

    def prefixes(self, network: NetworkId, version: int = 4) -> list[Prefix | Prefix6]:
        """Our parts of a network, of one family."""
        every = (self.own.prefixes if version == 4 else self.own.prefixes6) if self.own else ()
        return [prefix for prefix in every if prefix.network == network]

    def placed(self) -> Iterable[Placed]:
        return list(self._placed.values())

    def find(self, key: EndpointKey) -> Placed | None:
        return self._placed.get(key)

    async def register(self, own: Agent) -> None:
        """What a Welcome said."""
        await self.run(lambda: self._disk.put_facts({"registered": to_json(own)}))
        self._registered = own

    async def replace_snapshot(self, snapshot: Snapshot) -> None:
        records = _changes(snapshot)
        records["cluster"] = to_json(snapshot.cluster)
        facts = {"revision": to_json(snapshot.revision), "own": to_json(snapshot.own)}
        await self.run(lambda: self._disk.put_wanted(records, facts, whole=True))
        self._learn(snapshot)

    async def apply_delta(self, delta: Delta) -> None:
        """Raises LookupError when there is no snapshot that it could change."""
        if self.snapshot is None:
            raise LookupError("a delta came before any snapshot")
        records = _changes(delta)
        if delta.cluster is not None:
            records["cluster"] = to_json(delta.cluster)
        facts = {"revision": to_json(delta.revision)}
        await self.run(lambda: self._disk.put_wanted(records, facts))
        old = self.snapshot
        snapshot = replace(
            old,
            revision=delta.revision,
            cluster=delta.cluster or old.cluster,
            networks=_merged(old.networks, delta.networks),
            agents=_merged(old.agents, delta.agents),
            instances=_merged(old.instances, delta.instances),
            members=_merged(old.members, delta.members),
        )
        self._learn(snapshot)

    async def place(self, work: Callable[[], Placed]) -> Placed:
        """Does the work and writes the record that it returns, in one turn of the thread; nothing when it raises."""

        def place() -> Placed:
            placed = work()
            self.put(placed)
            return placed

        return await self.run(place, self.reportable)

    async def forget(self, key: EndpointKey, work: Callable[[], T]) -> T:
        """As `place`, and the record is gone."""

        def forget() -> T:
            done = work()
            self._disk.delete_endpoint(key.tag)
            self._placed.pop(key, None)
            return done

        return await self.run(forget, self.reportable)

    def put(self, placed: Placed) -> None:
        """The record of an endpoint. In the thread that writes, only."""
        self._disk.put_endpoint(placed.endpoint.key.tag, to_json(placed))
        self._placed[placed.endpoint.key] = placed

    def relink(self, link: str, index: int) -> None:
        """A link was made anew by itself. In the thread that writes, only."""
        for key, placed in list(self._placed.items()):
            if placed.endpoint.link == link:
                self._placed[key] = replace(placed, endpoint=replace(placed.endpoint, link_index=index))
                self._disk.put_endpoint(key.tag, to_json(self._placed[key]))

    def run(self, work: Callable[[], T], then: Signal | None = None) -> Awaitable[T]:
        """In the thread that writes, in turn, and to its end, even when whoever waits for it gives up."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        if then is not None:
            future.add_done_callback(lambda _: then.change())
        return asyncio.shield(future)

    def close(self) -> None:
        self._disk.close()

    def _learn(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.is_live = True
        self._wanted.change()

    def _load(self) -> None:
        facts, records = self._disk.facts(), self._disk.wanted()
        if "registered" in facts:
            self._registered = from_json(facts["registered"], Agent)
        for record in self._disk.endpoints():
            placed = self._of_this_boot(from_json(record, Placed))
            self._placed[placed.endpoint.key] = placed
        if "revision" in facts:
            self.snapshot = Snapshot(
                revision=from_json(facts["revision"], Revision),
                own=AgentId(from_json(facts["own"], str)),
                cluster=from_json(records["cluster"], ClusterSpec),
                networks={NetworkId(id): from_json(r, Network) for id, r in _named(records, "network")},
                agents={AgentId(id): from_json(r, Agent) for id, r in _named(records, "agent")},
                instances={InstanceId(id): from_json(r, Instance) for id, r in _named(records, "instance")},
                members={MemberKey(id): from_json(r, Member) for id, r in _named(records, "member")},
            )

    def _of_this_boot(self, placed: Placed) -> Placed:
        """Links and ports went with the machine; the record stays until its engine attaches or deletes it."""
        if placed.endpoint.boot_id in ("", self.boot_id):
            return placed
        return replace(placed, endpoint=replace(placed.endpoint, link_index=0, published=()), attached=False)


def _changes(said: Snapshot | Delta) -> dict[str, bytes | None]:
    """Each record under its path on disk; None where it is gone."""
    kinds: tuple[tuple[str, Mapping[Any, object]], ...] = (
        ("network", said.networks),
        ("agent", said.agents),
        ("instance", said.instances),
        ("member", said.members),
    )
    return {
        f"{word}/{id}": None if record is None else to_json(record)
        for word, mapping in kinds
        for id, record in mapping.items()
    }


def _named(records: Mapping[str, bytes], word: str) -> Iterator[tuple[str, bytes]]:
    mark = f"{word}/"
    return ((path.removeprefix(mark), record) for path, record in records.items() if path.startswith(mark))


def _merged(old: Mapping[K, V], changes: Mapping[K, V | None]) -> dict[K, V]:
    kept = {id: record for id, record in old.items() if id not in changes}
    return kept | {id: record for id, record in changes.items() if record is not None}
