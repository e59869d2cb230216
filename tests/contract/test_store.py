"""One suite for every store: what the parts above may rely on, whichever it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from contract.store_cases import STORES, events_until, put, run

from hedgerow.errors import BadInput, Conflict, NotFound
from hedgerow.store.base import MAX_OPERATIONS, MAX_VALUE_BYTES, Bookmark, Compacted, Compare, Delete, Event, Put


@pytest.fixture(params=sorted(STORES))
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return lambda **options: STORES[request.param](tmp_path, **options)


def test_every_commit_raises_the_revision_by_one(opened: Any) -> None:
    async def case() -> None:
        async with opened() as store:
            assert [await put(store, f"/{n}", b"") for n in range(3)] == [1, 2, 3]
            assert await store.commit([], [Delete("/nothing")]) == 4

    run(case())


def test_an_entry_knows_what_made_and_what_changed_it(opened: Any) -> None:
    async def case() -> None:
        async with opened() as store:
            await put(store, "/a", b"1")
            await put(store, "/b", b"1")
            await put(store, "/a", b"2")
            entry = await store.get("/a")
            assert (entry.value, entry.created, entry.modified) == (b"2", 1, 3)
            await store.commit([], [Delete("/a")])
            assert await store.get("/a") is None
            await put(store, "/a", b"3")
            assert (await store.get("/a")).created == 5

    run(case())


def test_a_commit_is_all_or_nothing(opened: Any) -> None:
    async def case() -> None:
        async with opened() as store:
            await put(store, "/a", b"1")
            with pytest.raises(Conflict, match="/a has changed"):
                await store.commit([Compare("/a", 0)], [Put("/a", b"2"), Put("/b", b"2")])
            with pytest.raises(Conflict):
                await store.commit([Compare("/none", 1)], [Put("/b", b"2")])
            assert await store.get("/b") is None
            assert await store.commit([Compare("/a", 1), Compare("/b", 0)], [Delete("/a"), Put("/b", b"2")]) == 2

    run(case())


def test_of_a_hundred_that_compare_the_same_entry_one_wins(opened: Any) -> None:
    async def case() -> None:
        async with opened() as store:
            tries = (store.commit([Compare("/a", 0)], [Put("/a", b"%d" % n)]) for n in range(100))
            results = await asyncio.gather(*tries, return_exceptions=True)
            assert [r for r in results if not isinstance(r, Conflict)] == [1]

    run(case())


def test_limits_are_refused_before_anything_is_written(opened: Any) -> None:
    async def case() -> None:
        async with opened() as store:
            for operations in (
                [],
                [Put(f"/{n}", b"") for n in range(MAX_OPERATIONS + 1)],
                [Put("/a", b"x" * (MAX_VALUE_BYTES + 1))],
                [Put("/a", b""), Delete("/a")],
                [Put("a", b"")],
                [Put("/ä", b"")],
            ):
                with pytest.raises(BadInput):
                    await store.commit([], operations)
            assert (await store.list("/")).revision == 0
            await store.commit([], [Put(f"/{n}", b"x" * MAX_VALUE_BYTES) for n in range(MAX_OPERATIONS)])

    run(case())


def test_a_list_is_in_order_of_keys_and_pages_see_one_revision(opened: Any) -> None:
    async def case() -> None:
        async with opened() as store:
            for n in (3, 1, 2, 5, 4):
                await put(store, f"/n/{n}", b"old")
            await put(store, "/m", b"")
            await put(store, "/n0", b"")
            first = await store.list("/n/", limit=2)
            assert [e.key for e in first.entries] == ["/n/1", "/n/2"]
            assert first.more
            await store.commit([], [Delete("/n/3"), Put("/n/4", b"new"), Put("/n/35", b"new")])
            await put(store, "/n/3", b"again")
            rest = await store.list("/n/", at=first.revision, after="/n/2")
            assert [(e.key, e.value) for e in rest.entries] == [("/n/3", b"old"), ("/n/4", b"old"), ("/n/5", b"old")]
            assert (rest.more, rest.revision) == (False, first.revision)
            now = await store.list("/n/")
            assert [e.value for e in now.entries] == [b"old", b"old", b"again", b"new", b"new", b"old"]

    run(case())


def test_a_list_of_a_revision_to_come_is_refused(opened: Any) -> None:
    async def case() -> None:
        async with opened() as store:
            await put(store, "/a", b"")
            with pytest.raises(BadInput, match="yet to come"):
                await store.list("/", at=2)

    run(case())


def test_a_watch_resumes_after_the_last_revision_seen(opened: Any) -> None:
    async def case() -> None:
        async with opened() as store:
            await store.commit([], [Put("/a/1", b"1"), Put("/a/2", b"1"), Put("/b", b"1")])
            await store.commit([], [Delete("/a/1"), Delete("/a/none")])
            last = await put(store, "/a/2", b"2")
            changes = [Event("/a/1", b"1", 1), Event("/a/2", b"1", 1), Event("/a/1", None, 2), Event("/a/2", b"2", 3)]
            for after in range(4):
                expected = [event for event in changes if event.revision > after]
                if after < last:
                    assert await events_until(store, "/a/", after, last) == expected

    run(case())


def test_a_watch_sees_what_is_committed_later_and_bookmarks_the_rest(opened: Any) -> None:
    async def case() -> None:
        async with opened() as store:
            watch = store.watch("/a/", after=0)
            following = asyncio.ensure_future(anext(watch))
            await put(store, "/b", b"")
            assert await following == Bookmark(1)
            following = asyncio.ensure_future(anext(watch))
            await put(store, "/a/1", b"x")
            assert await following == Event("/a/1", b"x", 2)
            assert await anext(watch) == Bookmark(2)
            await watch.aclose()

    run(case())


def test_a_watch_from_a_revision_to_come_begins_there(opened: Any) -> None:
    async def case() -> None:
        async with opened() as store:
            watch = store.watch("/", after=2)
            following = asyncio.ensure_future(anext(watch))
            for n in range(3):
                await put(store, f"/{n}", b"")
            assert await following == Event("/2", b"", 3)
            await watch.aclose()

    run(case())


def test_a_watch_delivers_thousands_of_events_once_each(opened: Any) -> None:
    async def case() -> None:
        async with opened() as store:
            for n in range(25):
                await store.commit([], [Put(f"/{n:02}/{m:02}", b"") for m in range(99)])
            seen = await events_until(store, "/", 0, 25)
            assert [e.key for e in seen] == [f"/{n:02}/{m:02}" for n in range(25) for m in range(99)]

    run(case())


def test_history_that_is_gone_is_named(opened: Any) -> None:
    async def case() -> None:
        async with opened(keep_revisions=10) as store:
            for n in range(600):
                await put(store, "/a", b"%d" % n)
            with pytest.raises(Compacted) as error:
                await anext(store.watch("/", after=5))
            with pytest.raises(Compacted):
                await store.list("/", at=5)
            oldest = error.value.oldest
            assert oldest >= 256
            assert len(await events_until(store, "/", oldest, 600)) == 600 - oldest
            assert (await store.list("/", at=oldest)).entries[0].modified == oldest

    run(case())


def test_what_leans_on_a_lease_goes_with_it(opened: Any) -> None:
    async def case() -> None:
        async with opened() as store:
            lease = await store.grant(60)
            await store.commit([], [Put("/leased", b"", lease), Put("/free", b"")])
            await store.commit([], [Put("/kept", b"", lease)])
            await put(store, "/kept", b"no lease now")
            await store.keep_alive(lease)
            await store.revoke(lease)
            assert [e.key for e in (await store.list("/")).entries] == ["/free", "/kept"]
            await store.revoke(lease)
            with pytest.raises(NotFound):
                await store.keep_alive(lease)
            with pytest.raises(NotFound):
                await store.commit([], [Put("/late", b"", lease)])

    run(case())


def test_a_lease_that_nobody_keeps_ends(opened: Any) -> None:
    async def case() -> None:
        async with opened() as store:
            lease = await store.grant(0.05)
            made = await store.commit([], [Put("/leased", b"", lease)])
            events = await events_until(store, "/leased", made, made + 1)
            assert events == [Event("/leased", None, made + 1)]

    run(case())
