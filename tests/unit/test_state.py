from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from unit.agent_records import DCOS, DEV, OTHER, OWN, SNAPSHOT, placed
from unit.test_session import SETTINGS

from hedgerow.agent.main import identity
from hedgerow.agent.state import State
from hedgerow.errors import BadInput, Conflict, Exhausted, HedgerowError, Refused
from hedgerow.model.snapshot import Revision
from hedgerow.wire import pki
from hedgerow.wire.messages import Delta

BLOCK = (IPv4Network("9.0.1.0/29"),)


def run(path: Path | None, test: Callable[[State], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        with ThreadPoolExecutor(1) as executor:
            state = State(path, executor)
            try:
                await test(state)
            finally:
                state.close()

    asyncio.run(whole())


async def take(state: State, owner: str, asked: str | None = None) -> IPv4Address:
    address = IPv4Address(asked) if asked else None
    return await state.run(lambda: state.addresses.take(DCOS, BLOCK, owner, address))


def test_what_the_controller_said_is_known_after_a_restart_but_is_not_live(tmp_path: Path) -> None:
    async def first(state: State) -> None:
        assert state.snapshot is None
        await state.replace_snapshot(SNAPSHOT)
        assert state.is_live

    async def second(state: State) -> None:
        assert state.snapshot == SNAPSHOT
        assert not state.is_live
        assert state.own == SNAPSHOT.agents[OWN]

    run(tmp_path / "state.db", first)
    run(tmp_path / "state.db", second)


def test_deltas_change_what_they_name_and_nothing_else(tmp_path: Path) -> None:
    renamed = replace(DEV, spec=replace(DEV.spec, internal=True))
    delta = Delta(Revision(1, 8), networks={DCOS.id: None, DEV.id: renamed}, agents={OTHER: None})

    async def first(state: State) -> None:
        await state.replace_snapshot(SNAPSHOT)
        await state.apply_delta(delta)

    async def second(state: State) -> None:
        snapshot = state.snapshot
        assert snapshot is not None
        assert snapshot.revision == Revision(1, 8)
        assert DCOS.id not in snapshot.networks
        assert snapshot.networks[DEV.id] == renamed
        assert list(snapshot.agents) == [OWN]
        assert snapshot.cluster == SNAPSHOT.cluster

    run(tmp_path / "state.db", first)
    run(tmp_path / "state.db", second)


def test_an_empty_delta_makes_a_saved_snapshot_live(tmp_path: Path) -> None:
    async def first(state: State) -> None:
        await state.replace_snapshot(SNAPSHOT)

    async def second(state: State) -> None:
        seen = state.generation
        await state.apply_delta(Delta(SNAPSHOT.revision))
        assert state.is_live
        assert await state.changed(seen) != seen

    run(tmp_path / "state.db", first)
    run(tmp_path / "state.db", second)


def test_a_delta_before_any_snapshot_is_a_fault() -> None:
    async def test(state: State) -> None:
        with pytest.raises(LookupError):
            await state.apply_delta(Delta(Revision(1, 1)))

    run(None, test)


def test_an_owner_keeps_its_address_over_a_restart(tmp_path: Path) -> None:
    async def first(state: State) -> None:
        assert await take(state, "one") == IPv4Address("9.0.1.1")
        assert await take(state, "other") == IPv4Address("9.0.1.2")

    async def second(state: State) -> None:
        assert await take(state, "other") == IPv4Address("9.0.1.2")
        assert await take(state, "third") == IPv4Address("9.0.1.3")
        assert sorted(state.addresses.reservations())[0] == ("one", IPv4Address("9.0.1.1"))

    run(tmp_path / "state.db", first)
    run(tmp_path / "state.db", second)


def test_the_order_in_which_addresses_were_freed_outlives_a_restart(tmp_path: Path) -> None:
    async def first(state: State) -> None:
        for number in range(7):
            await take(state, f"{number}")
        for owner in ("4", "1", "2"):
            await state.run(lambda owner=owner: state.addresses.give_back(lambda held, _: held == owner))

    async def second(state: State) -> None:
        given = [str(await take(state, name)) for name in ("x", "y", "z")]
        assert given == ["9.0.1.5", "9.0.1.2", "9.0.1.3"]
        with pytest.raises(Exhausted):
            await take(state, "too many")

    run(tmp_path / "state.db", first)
    run(tmp_path / "state.db", second)


def test_an_address_is_taken_or_refused_and_nothing_is_written_then(tmp_path: Path) -> None:
    async def test(state: State) -> None:
        await take(state, "one", "9.0.1.5")
        with pytest.raises(Conflict):
            await take(state, "other", "9.0.1.5")
        with pytest.raises(Refused):
            await take(state, "other", "9.0.2.5")
        assert state.addresses.reservations() == [("one", IPv4Address("9.0.1.5"))]

    run(tmp_path / "state.db", test)


def test_without_a_block_the_cure_is_named() -> None:
    async def test(state: State) -> None:
        with pytest.raises(Exhausted, match="this host has no part of dcos-1"):
            await state.run(lambda: state.addresses.take(DCOS, (), "one", None))

    run(None, test)


def test_a_second_block_makes_room(tmp_path: Path) -> None:
    async def test(state: State) -> None:
        for number in range(7):
            await take(state, f"{number}")
        more = (*BLOCK, IPv4Network("9.0.9.0/29"))
        address = await state.run(lambda: state.addresses.take(DCOS, more, "late", None))
        assert address == IPv4Address("9.0.9.1")

    run(tmp_path / "state.db", test)


def test_each_family_of_a_network_has_a_pool_of_its_own_and_both_outlive_a_restart(tmp_path: Path) -> None:
    block6 = (IPv6Network("fd00:1::/120"),)

    async def take6(state: State, owner: str) -> str:
        return str(await state.run(lambda: state.addresses.take(DCOS, block6, owner, None)))

    async def first(state: State) -> None:
        assert await take(state, "one") == IPv4Address("9.0.1.1")
        assert [await take6(state, "one"), await take6(state, "other")] == ["fd00:1::1", "fd00:1::2"]
        await state.run(lambda: state.addresses.give_back(lambda _, address: str(address) == "fd00:1::1"))

    async def second(state: State) -> None:
        assert await take(state, "one") == IPv4Address("9.0.1.1"), "giving one back leaves the other"
        assert [await take6(state, "other"), await take6(state, "third")] == ["fd00:1::2", "fd00:1::3"]

    run(tmp_path / "state.db", first)
    run(tmp_path / "state.db", second)


def test_endpoints_outlive_a_restart_and_a_forgotten_one_does_not(tmp_path: Path) -> None:
    one, other = placed("c1", DCOS, "9.0.1.1"), placed("c2", DCOS, "9.0.1.2", attached=False)

    async def first(state: State) -> None:
        for each in (one, other, placed("c3", DCOS, "9.0.1.3")):
            await state.place(lambda each=each: each)
        await state.forget(placed("c3", DCOS, "9.0.1.3").endpoint.key, lambda: None)

    async def second(state: State) -> None:
        assert sorted(state.placed(), key=lambda each: each.endpoint.key) == [one, other]
        assert state.find(one.endpoint.key) == one

    run(tmp_path / "state.db", first)
    run(tmp_path / "state.db", second)


def test_an_endpoint_of_an_earlier_boot_is_known_and_not_attached(tmp_path: Path) -> None:
    here, earlier = placed("c1", DCOS, "9.0.1.1"), placed("c2", DCOS, "9.0.1.2")

    async def first(state: State) -> None:
        for each, boot_id in ((here, state.boot_id), (earlier, "another")):
            booted = replace(each, endpoint=replace(each.endpoint, boot_id=boot_id))
            await state.place(lambda booted=booted: booted)

    async def second(state: State) -> None:
        attached = {each.endpoint.key.container: (each.attached, each.endpoint.link_index) for each in state.placed()}
        assert attached == {"c1": (True, 7), "c2": (False, 0)}

    run(tmp_path / "state.db", first)
    run(tmp_path / "state.db", second)


def test_nothing_is_recorded_when_the_work_fails() -> None:
    def fail() -> Any:
        raise OSError("no link")

    async def test(state: State) -> None:
        with pytest.raises(OSError, match="no link"):
            await state.place(fail)
        assert list(state.placed()) == []

    run(None, test)


def test_work_that_nobody_waits_for_any_more_is_done_and_reported() -> None:
    async def test(state: State) -> None:
        seen = state.reportable.generation
        waiting = asyncio.ensure_future(state.place(lambda: placed("c1", DCOS, "9.0.1.1")))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await state.reportable.changed(seen)
        assert [each.endpoint.key.container for each in state.placed()] == ["c1"]

    run(None, test)


def test_a_full_disk_is_named_and_what_fits_again_is_written(tmp_path: Path) -> None:
    async def test(state: State) -> None:
        database = state._disk._database
        await take(state, "c1")
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(HedgerowError, match=r"state\.db cannot be written: database or disk is full"):
            await state.place(lambda: placed("c" * 100_000, DCOS, "9.0.1.1"))
        assert not state.placed()
        database.execute("PRAGMA max_page_count = 1000000")
        assert await take(state, "c2") == IPv4Address("9.0.1.2")

    run(tmp_path / "state.db", test)


def test_a_commit_that_fails_leaves_no_transaction_behind(tmp_path: Path) -> None:
    class Failing:
        """A connection of which one COMMIT fails, as one does on a full disk."""

        def __init__(self, database: sqlite3.Connection) -> None:
            self._database = database
            self.fails = True

        def execute(self, statement: str, *arguments: Any) -> Any:
            if statement == "COMMIT" and self.fails:
                self.fails = False
                raise sqlite3.OperationalError("disk I/O error")
            return self._database.execute(statement, *arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._database, name)

    async def test(state: State) -> None:
        state._disk._database = Failing(state._disk._database)  # type: ignore[assignment]
        with pytest.raises(HedgerowError, match="disk I/O error"):
            await take(state, "c1")
        assert await take(state, "c2")
        assert [row.owner for row in state._disk.addresses()] == ["c2"]

    run(tmp_path / "state.db", test)


def test_a_memory_of_another_agent_is_refused(tmp_path: Path) -> None:
    authority = pki.make_authority(tmp_path / "ca")
    pki.issue(tmp_path / "own", authority, OWN)
    pki.issue(tmp_path / "clone", authority, OTHER)
    settings = replace(SETTINGS, state=tmp_path, certificates=tmp_path / "own")

    async def test(state: State) -> None:
        assert identity(settings, state) == OWN
        await state.register(SNAPSHOT.agents[OWN])
        assert identity(settings, state) == OWN
        with pytest.raises(BadInput, match=f"the memory of agent {OWN}.* is of agent {OTHER}"):
            identity(replace(settings, certificates=tmp_path / "clone"), state)

    run(None, test)


def test_a_file_of_another_release_is_refused(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "state.db")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(BadInput, match="layout 99"):
        State(tmp_path / "state.db")
