"""The embedded store: one thread, one file, one fsync for all commits that wait.

While a batch is being written the next one gathers, so many small commits cost little more than one. A commit returns
when it is durable. When the file cannot be written, nothing after it can be trusted: from then on every call raises,
the process ends, and the next one finds what was acknowledged.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from hedgerow.errors import HedgerowError

from .base import Bookmark, Compare, Entry, Event, Operation, Page
from .database import Database, Write

T = TypeVar("T")
Results = list[int | HedgerowError]
Numbered = list[tuple[int, Event]]
Waiters = Sequence[asyncio.Future[int]]
KEEP_REVISIONS = 10_000
"""How far back an agent can be and still get deltas instead of a snapshot."""
EVENTS_AT_ONCE = 1000


class SqliteStore:
    """Open it with `open`."""

    def __init__(self, path: Path, database: Database, thread: ThreadPoolExecutor) -> None:
        self._path = path
        self._database = database
        self._thread = thread
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Write, asyncio.Future[int]]] = []
        self._writing: asyncio.Future[Results] | None = None
        self._leases: dict[int, asyncio.TimerHandle] = {}
        self._ttls: dict[int, float] = {}
        self._grown = asyncio.Event()
        self._broken: HedgerowError | None = None
        self.epoch = database.epoch

    @classmethod
    async def open(cls, path: Path, *, new_epoch: int, keep_revisions: int = KEEP_REVISIONS) -> SqliteStore:
        """The store in `path`; a new one begins with `new_epoch`, which must never have been used (seconds since 1970).

        Leases start anew: nobody could keep them alive while the store was closed. Raises Conflict when another process
        has the file, BadInput when it is damaged.
        """
        thread = ThreadPoolExecutor(1, "store")
        loop = asyncio.get_running_loop()
        try:
            database = await loop.run_in_executor(
                thread, partial(Database, path, new_epoch=new_epoch, keep_revisions=keep_revisions)
            )
        except BaseException:
            thread.shutdown(wait=False)
            raise
        store = cls(path, database, thread)
        for lease, ttl_s in (await store._run(database.leases)).items():
            store._start(lease, ttl_s)
        return store

    async def get(self, key: str) -> Entry | None:
        return await self._run(partial(self._database.get, key))

    async def list(self, prefix: str, *, at: int | None = None, after: str = "", limit: int = 1000) -> Page:
        return await self._run(partial(self._database.page, prefix, at, after, limit))

    async def commit(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> int:
        compares, operations = tuple(compares), tuple(operations)
        return await self._write(lambda database: database.commit(compares, operations))

    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[Event | Bookmark]:
        after_id = 0
        while True:
            grown = self._grown
            events, newest = await self._run(partial(self._read, prefix, after, after_id))
            for _, event in events:
                yield event
            if len(events) == EVENTS_AT_ONCE:
                # Perhaps in the middle of a revision: go on behind this very change.
                after_id, last = events[-1]
                after = last.revision - 1
            elif newest > after:
                after, after_id = newest, 0
                yield Bookmark(newest)
            else:
                await grown.wait()

    async def grant(self, ttl_s: float) -> int:
        lease = await self._write(lambda database: database.grant(ttl_s))
        self._start(lease, ttl_s)
        return lease

    async def keep_alive(self, lease: int) -> None:
        await self._run(partial(self._database.check_lease, lease))
        if lease in self._ttls:
            self._start(lease, self._ttls[lease])

    async def revoke(self, lease: int) -> None:
        self._stop(lease)
        await self._write(lambda database: database.end_lease(lease))

    async def close(self) -> None:
        """What waits is written first."""
        for lease in list(self._leases):
            self._stop(lease)
        while self._writing is not None:
            await asyncio.wait([self._writing])
        if self._broken is None:
            self._broken = HedgerowError(f"the store {self._path} is closed")
            await self._loop.run_in_executor(self._thread, self._database.close)
        self._thread.shutdown()

    def _read(self, prefix: str, after: int, after_id: int) -> tuple[Numbered, int]:
        return self._database.events(prefix, after, after_id, EVENTS_AT_ONCE), self._database.revision

    async def _run(self, read: Callable[[], T]) -> T:
        if self._broken is not None:
            raise self._broken
        return await self._loop.run_in_executor(self._thread, read)

    async def _write(self, transaction: Write) -> int:
        if self._broken is not None:
            raise self._broken
        future: asyncio.Future[int] = self._loop.create_future()
        self._waiting.append((transaction, future))
        self._begin()
        return await future

    def _begin(self) -> None:
        if self._writing is not None or not self._waiting:
            return
        # Who gave up before its turn writes nothing: what comes after it may have read the store already.
        batch, self._waiting = [each for each in self._waiting if not each[1].done()], []
        if not batch:
            return
        self._writing = self._loop.run_in_executor(self._thread, self._database.write, [write for write, _ in batch])
        self._writing.add_done_callback(partial(self._written, [future for _, future in batch]))

    def _written(self, waiters: Waiters, done: asyncio.Future[Results]) -> None:
        self._writing = None
        error = done.exception()
        if error is not None:
            self._break(error, waiters)
        else:
            for waiter, result in zip(waiters, done.result(), strict=True):
                if waiter.done():
                    continue
                if isinstance(result, HedgerowError):
                    waiter.set_exception(result)
                else:
                    waiter.set_result(result)
        self._grown.set()
        self._grown = asyncio.Event()
        self._begin()

    def _break(self, error: BaseException, waiters: Waiters) -> None:
        reason = error if isinstance(error, sqlite3.Error) else repr(error)
        self._broken = HedgerowError(
            f"the store {self._path} cannot be written: {reason}",
            "see that its disk has room and works, then start again",
        )
        for waiter in [*waiters, *(future for _, future in self._waiting)]:
            if not waiter.done():
                waiter.set_exception(self._broken)
        self._waiting = []
        self._thread.submit(self._database.close)

    def _start(self, lease: int, ttl_s: float) -> None:
        self._stop(lease)
        self._ttls[lease] = ttl_s
        self._leases[lease] = self._loop.call_later(ttl_s, self._expire, lease)

    def _stop(self, lease: int) -> None:
        timer = self._leases.pop(lease, None)
        if timer is not None:
            timer.cancel()
        self._ttls.pop(lease, None)

    def _expire(self, lease: int) -> None:
        self._stop(lease)
        if self._broken is None:
            self._waiting.append((lambda database: database.end_lease(lease), self._loop.create_future()))
            self._begin()
