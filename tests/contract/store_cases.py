"""What the store suites share: the stores under test, and a few short forms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hedgerow.store.base import Bookmark, Event, Put, Store
from hedgerow.store.memory import MemoryStore
from hedgerow.store.sqlite import SqliteStore

WAIT_S = 20.0


@asynccontextmanager
async def memory(_: Path, keep_revisions: int = 1000) -> AsyncIterator[Store]:
    store = MemoryStore(epoch=7, keep_revisions=keep_revisions)
    yield store
    await store.close()


@asynccontextmanager
async def sqlite(directory: Path, keep_revisions: int = 1000) -> AsyncIterator[Store]:
    store = await SqliteStore.open(directory / "store.db", new_epoch=7, keep_revisions=keep_revisions)
    try:
        yield store
    finally:
        await store.close()


STORES: dict[str, Callable[..., Any]] = {"memory": memory, "sqlite": sqlite}


def run(case: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(WAIT_S):
            await case

    asyncio.run(limited())


async def put(store: Store, key: str, value: bytes) -> int:
    return await store.commit([], [Put(key, value)])


async def events_until(store: Store, prefix: str, after: int, revision: int) -> list[Event]:
    """All events of a watch up to the bookmark at `revision` or later."""
    seen: list[Event] = []
    async for item in store.watch(prefix, after=after):
        if isinstance(item, Event):
            seen.append(item)
        elif isinstance(item, Bookmark) and item.revision >= revision:
            return seen
    raise AssertionError("a watch ended by itself")
