"""A store in memory: what the simulation runs on, and the plainest reading of the protocol.

History is a list of changes with what was there before; it survives everything but the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import count

from hedgerow.errors import BadInput, Conflict, NotFound

from .base import Bookmark, Compacted, Compare, Delete, Entry, Event, Operation, Page, Put
from .check import check_commit, check_key, end_of

KEEP_REVISIONS = 10_000


@dataclass(frozen=True, slots=True)
class _Change:
    event: Event
    before: Entry | None


class MemoryStore:
    """Raises what the protocol says; `keep_revisions` is how far back `list` and `watch` can look."""

    def __init__(self, *, epoch: int = 1, keep_revisions: int = KEEP_REVISIONS) -> None:
        self.epoch = epoch
        self.revision = 0
        self._keep = keep_revisions
        self._oldest = 0
        self._entries: dict[str, Entry] = {}
        self._changes: list[_Change] = []
        self._leases: dict[int, asyncio.TimerHandle] = {}
        self._ttls: dict[int, float] = {}
        self._lease_of: dict[str, int] = {}
        self._lease_ids = count(1)
        self._grown = asyncio.Event()

    async def get(self, key: str) -> Entry | None:
        check_key(key)
        return self._entries.get(key)

    async def list(self, prefix: str, *, at: int | None = None, after: str = "", limit: int = 1000) -> Page:
        end = end_of(prefix)
        revision = self.revision if at is None else at
        if revision < self._oldest:
            raise Compacted(revision, self._oldest)
        if revision > self.revision:
            raise BadInput(f"revision {at} is yet to come, the newest is {self.revision}", "list at a known revision")
        found = [e for k, e in sorted(self._as_of(revision).items()) if prefix <= k < end and k > after]
        return Page(tuple(found[:limit]), revision, len(found) > limit)

    async def commit(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> int:
        check_commit(compares, operations)
        for compare in compares:
            entry = self._entries.get(compare.key)
            if (entry.modified if entry else 0) != compare.modified:
                raise Conflict(f"{compare.key} has changed since revision {compare.modified}", "read it again")
        for operation in operations:
            if isinstance(operation, Put) and operation.lease is not None and operation.lease not in self._leases:
                raise _no_lease(operation.lease)
        return self._apply(operations)

    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[Event | Bookmark]:
        end = end_of(prefix)
        while True:
            if after < self._oldest:
                raise Compacted(after, self._oldest)
            until, grown = self.revision, self._grown
            for event in [c.event for c in self._changes if after < c.event.revision <= until]:
                if prefix <= event.key < end:
                    yield event
            if until > after:
                after = until
                yield Bookmark(until)
            else:
                await grown.wait()

    async def grant(self, ttl_s: float) -> int:
        lease = next(self._lease_ids)
        self._ttls[lease] = ttl_s
        self._leases[lease] = asyncio.get_running_loop().call_later(ttl_s, self._end, lease)
        return lease

    async def keep_alive(self, lease: int) -> None:
        timer = self._leases.get(lease)
        if timer is None:
            raise _no_lease(lease)
        timer.cancel()
        self._leases[lease] = asyncio.get_running_loop().call_later(self._ttls[lease], self._end, lease)

    async def revoke(self, lease: int) -> None:
        timer = self._leases.get(lease)
        if timer is not None:
            timer.cancel()
            self._end(lease)

    async def close(self) -> None:
        for timer in self._leases.values():
            timer.cancel()

    def _as_of(self, revision: int) -> dict[str, Entry]:
        entries = dict(self._entries)
        for change in reversed(self._changes):
            if change.event.revision <= revision:
                break
            if change.before is None:
                entries.pop(change.event.key, None)
            else:
                entries[change.event.key] = change.before
        return entries

    def _apply(self, operations: Sequence[Operation]) -> int:
        self.revision += 1
        for operation in operations:
            key, before = operation.key, self._entries.get(operation.key)
            self._lease_of.pop(key, None)
            if isinstance(operation, Put):
                created = before.created if before else self.revision
                self._entries[key] = Entry(key, operation.value, created, self.revision)
                self._changes.append(_Change(Event(key, operation.value, self.revision), before))
                if operation.lease is not None:
                    self._lease_of[key] = operation.lease
            elif before is not None:
                del self._entries[key]
                self._changes.append(_Change(Event(key, None, self.revision), before))
        self._oldest = max(self._oldest, self.revision - self._keep)
        while self._changes and self._changes[0].event.revision <= self._oldest:
            del self._changes[0]
        self._grown.set()
        self._grown = asyncio.Event()
        return self.revision

    def _end(self, lease: int) -> None:
        del self._leases[lease], self._ttls[lease]
        gone = [Delete(key) for key, owner in self._lease_of.items() if owner == lease]
        if gone:
            self._apply(gone)


def _no_lease(lease: int) -> NotFound:
    return NotFound(f"lease {lease} has ended", "grant a new one")
