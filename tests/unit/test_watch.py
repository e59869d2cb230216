"""What agents are told: a snapshot when nothing else will do, else one delta, and only when something concerns them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from unit.controller_cases import Agent1, Cluster, agent_id, controller, new_store, put_instance, run, stored, until

from hedgerow.controller import watch as watching
from hedgerow.model.agent import Agent
from hedgerow.model.network import Network
from hedgerow.model.snapshot import Revision, Snapshot
from hedgerow.store.base import Delete, Put
from hedgerow.store.memory import MemoryStore
from hedgerow.wire.codec import pack_state, share, to_json, unpack
from hedgerow.wire.messages import Delta, State

QUIET_S = 0.2


async def change_network(store: MemoryStore, **changed: Any) -> Network:
    old = next(iter(stored(store, "/networks/", Network).values()))
    network = replace(old, spec=replace(old.spec, **changed))
    await store.commit([], [Put(f"/networks/{network.id}", to_json(network))])
    return network


async def hears_nothing(agent: Agent1) -> None:
    following = asyncio.ensure_future(agent.told())
    done, _ = await asyncio.wait([following], timeout=QUIET_S)
    assert not done, following.result()
    following.cancel()


def test_the_first_state_is_the_store(tmp_path: object) -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            other = await running.join(2)
            mine = await put_instance(store, "mine", agent_id(1))
            await put_instance(store, "theirs", agent_id(2))
            agent = await running.dial(1)
            state = await agent.greet()
            assert isinstance(state, State)
            snapshot = state.snapshot
            assert snapshot.own == agent.id
            assert snapshot.networks == stored(store, "/networks/", Network)
            assert snapshot.agents == stored(store, "/agents/", Agent)
            assert snapshot.agents == {agent.id: agent.own, other.id: other.own}
            assert snapshot.instances == {"mine": mine}
            assert snapshot.revision == Revision(store.epoch, store.revision)

    run(case())


def test_a_state_packed_in_parts_is_the_same_on_the_wire() -> None:
    async def case() -> None:
        async with controller(await new_store()) as running:
            agent = await running.join(1)
            core = running.core.watch
            own = await put_instance(running.store, "mine", agent.id)
            whole = Snapshot(
                revision=Revision(1, 9),
                own=agent.id,
                cluster=core.cluster,
                networks=core.networks,
                agents=core.agents,
                instances={own.id: own},
                members=core.members,
            )
            shared = share(core.cluster, core.networks, core.agents, core.members)
            frame = pack_state(Revision(1, 9), agent.id, shared, {own.id: own})
            assert unpack(frame) == (0, State(whole))

    run(case())


def test_who_comes_back_is_told_what_changed_since_or_that_nothing_did() -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            agent = await running.join(1)
            agent.cut()
            again = await running.dial(1)
            assert await again.greet(revision=agent.revision) == Delta(agent.revision)
            again.cut()
            one = await change_network(store, internal=True)
            two = await change_network(store, internal=False)
            mine = await put_instance(store, "mine", agent.id)
            await store.commit([], [Delete("/instances/mine")])
            told = await (await running.dial(1)).greet(revision=agent.revision)
            assert one.id == two.id
            assert told == Delta(
                Revision(store.epoch, store.revision), networks={two.id: two}, instances={mine.id: None}
            )

    run(case())


@pytest.mark.parametrize(("epoch", "number"), [(0, 3), (2, 3), (1, 10_000)])
def test_a_revision_of_another_history_gets_a_snapshot(epoch: int, number: int) -> None:
    async def case() -> None:
        async with controller(await new_store()) as running:
            assert isinstance(await (await running.dial(1)).greet(revision=Revision(epoch, number)), State)

    run(case())


def test_a_controller_that_was_started_anew_still_has_the_recent_past() -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            revision = (await running.join(1)).revision
        changed = await change_network(store, internal=True)
        await put_instance(store, "a", agent_id(1))
        await store.commit([], [Delete("/instances/a")])
        async with controller(store) as running:
            told = await (await running.dial(1)).greet(revision=revision)
            assert told.networks == {changed.id: changed}
            assert told.instances == {"a": None}

    run(case())


def test_what_the_store_has_forgotten_is_made_good_by_a_snapshot() -> None:
    async def case() -> None:
        store = await new_store(keep_revisions=3)
        async with controller(store) as running:
            revision = (await running.join(1)).revision
        for number in range(5):
            await change_network(store, internal=bool(number % 2))
        async with controller(store) as running:
            assert isinstance(await (await running.dial(1)).greet(revision=revision), State)

    run(case())


def test_a_full_window_forgets_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "WINDOW_CHANGES", 3)

    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            agent = await running.join(1)
            agent.cut()
            for number in range(5):
                await change_network(store, internal=bool(number % 2))
            await running.core.watch.reached(store.revision)
            recent = Revision(store.epoch, store.revision - 2)
            assert isinstance(await (await running.dial(1)).greet(revision=agent.revision), State)
            assert isinstance(await (await running.dial(1)).greet(revision=recent), Delta)

    run(case())


def test_others_instances_and_endpoints_are_no_news_and_count_as_applied() -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            agent = await running.join(1)
            await agent.report()
            await put_instance(store, "theirs", agent_id(2))
            await store.commit([], [Put("/apps/x", b"{}")])
            await hears_nothing(agent)
            await until(lambda: running.core.sessions.applied(agent.id) == Revision(store.epoch, store.revision))
            mine = await put_instance(store, "mine", agent.id)
            await running.core.watch.reached(store.revision)
            assert running.core.sessions.applied(agent.id) == agent.revision
            assert (await agent.told()).instances == {"mine": mine}
            await agent.report()
            await until(lambda: running.core.sessions.applied(agent.id) == Revision(store.epoch, store.revision))

    run(case())


def test_an_instance_that_moves_leaves_its_old_agent() -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            one = await running.join(1)
            other = await running.join(2)
            await one.told()
            await put_instance(store, "a", one.id)
            assert list((await one.told()).instances) == ["a"]
            moved = await put_instance(store, "a", other.id)
            assert (await one.told()).instances == {"a": None}
            assert (await other.told()).instances == {"a": moved}

    run(case())


def test_many_changes_reach_a_slow_agent_in_few_deltas() -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            agent = await running.join(1)
            for number in range(500):
                await change_network(store, internal=bool(number % 2))
            deltas = 0
            while agent.revision.number < store.revision:
                await agent.told()
                deltas += 1
            assert deltas < 20

    run(case())


def test_a_second_connection_of_an_agent_ends_the_first() -> None:
    async def case() -> None:
        async with controller(await new_store()) as running:
            first = await running.join(1)
            second = await running.join(1)
            with pytest.raises(Exception, match="closed by the other side"):
                await first.told()
            assert list(running.core.sessions.connected) == [second.id]
            await gone(running, second)

    run(case())


async def gone(running: Cluster, agent: Agent1) -> None:
    agent.cut()
    await until(lambda: not running.core.sessions.connected)
