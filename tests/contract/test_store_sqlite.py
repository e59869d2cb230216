"""What only the SQLite store promises: durability, one holder of the file, and an end when the disk fails."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from contract.store_cases import put, run, sqlite

from hedgerow.errors import BadInput, Conflict, HedgerowError
from hedgerow.store.base import Put
from hedgerow.store.sqlite import SqliteStore

WRITER = """
import asyncio, sys
from pathlib import Path
from hedgerow.store.base import Put
from hedgerow.store.sqlite import SqliteStore

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]), new_epoch=1)
    async def write(worker):
        for n in range(10_000):
            await store.commit([], [Put(f"/{worker}/{n}", b"")])
            print(f"/{worker}/{n}", flush=True)
    await asyncio.gather(*(write(worker) for worker in range(8)))

asyncio.run(main())
"""


def test_a_reopened_store_has_everything_under_the_same_epoch(tmp_path: Path) -> None:
    async def case() -> None:
        async with sqlite(tmp_path) as store:
            lease = await store.grant(60)
            await store.commit([], [Put("/a", b"1", lease)])
        again = await SqliteStore.open(tmp_path / "store.db", new_epoch=99)
        assert again.epoch == 7
        assert (await again.get("/a")).value == b"1"
        await again.keep_alive(lease)
        assert await put(again, "/b", b"") == 2
        await again.close()

    run(case())


def test_a_commit_that_was_given_up_before_its_turn_writes_nothing(tmp_path: Path) -> None:
    async def case() -> None:
        async with sqlite(tmp_path) as store:
            first, given_up = (asyncio.ensure_future(put(store, key, b"")) for key in ("/first", "/given-up"))
            await asyncio.sleep(0)
            given_up.cancel()
            await first
            assert await put(store, "/last", b"") == 2
            assert await store.get("/given-up") is None

    run(case())


def test_a_second_opener_is_refused(tmp_path: Path) -> None:
    async def case() -> None:
        async with sqlite(tmp_path):
            with pytest.raises(Conflict, match="in use"):
                await SqliteStore.open(tmp_path / "store.db", new_epoch=1)

    run(case())


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    async def case() -> None:
        (tmp_path / "store.db").write_bytes(b"no database" * 1000)
        with pytest.raises(BadInput, match=r"store\.db cannot be used"):
            await SqliteStore.open(tmp_path / "store.db", new_epoch=1)

    run(case())


def test_a_disk_that_fails_ends_the_store_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    async def case() -> None:
        store = await SqliteStore.open(tmp_path / "store.db", new_epoch=1)
        await put(store, "/kept", b"1")
        database = store._database
        await store._run(lambda: database._sql.execute("PRAGMA max_page_count = 20"))
        with pytest.raises(HedgerowError, match="full"):
            await store.commit([], [Put("/large", b"x" * 400_000)])
        with pytest.raises(HedgerowError, match="full"):
            await store.get("/kept")
        with pytest.raises(HedgerowError, match="full"):
            await anext(store.watch("/", after=1))
        await store.close()
        async with sqlite(tmp_path) as again:
            assert [e.key for e in (await again.list("/")).entries] == ["/kept"]

    run(case())


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    for wanted in (1, 50, 400):
        with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as writer:
            lines = iter(writer.stdout.readline, "")
            acknowledged = [next(lines).strip() for _ in range(wanted)]
            os.kill(writer.pid, signal.SIGKILL)
            acknowledged += [line.strip() for line in lines if line.endswith("\n")]
        with sqlite3.connect(path) as file:
            stored = {key for (key,) in file.execute("SELECT key FROM entries")}
        file.close()
        assert set(acknowledged) <= stored
        assert len(acknowledged) >= wanted
