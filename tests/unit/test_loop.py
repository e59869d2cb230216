from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from enum import IntEnum
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation.loop import SimulatedLoop

from hedgerow.reconcile.loop import LONGEST_RESYNC_S, SHORTEST_RESYNC_S, Loop, resync_pause_s
from hedgerow.reconcile.plan import Key, Op, Set


class Kind(IntEnum):
    FIRST = 1
    SECOND = 2
    LAST = 3


class Fake:
    """A kind in a dictionary. `broken` rows cannot be set; `seen` are the operations, in order."""

    def __init__(self, kind: Kind, seen: list[str]) -> None:
        self.kind = kind
        self.rows: dict[Key, object] = {}
        self.broken: set[str] = set()
        self.unreadable = False
        self.delay_s = 0.001
        self.seen = seen

    async def read(self) -> Mapping[Key, object]:
        await asyncio.sleep(self.delay_s)
        if self.unreadable:
            raise OSError("unreadable")
        return dict(self.rows)

    async def apply(self, ops: Sequence[Op]) -> Mapping[Key, Exception]:
        await asyncio.sleep(0.001)
        faults: dict[Key, Exception] = {}
        for op in ops:
            if op.key.name in self.broken:
                faults[op.key] = OSError("broken")
                continue
            self.seen.append(str(op))
            if isinstance(op, Set):
                self.rows[op.key] = op.new
            else:
                self.rows.pop(op.key, None)
        return faults


class Want:
    def __init__(self) -> None:
        self.all: dict[Key, object] = {}
        self.live = True
        self.leans: dict[Key, Key] = {}

    def rows(self, kind: IntEnum) -> Mapping[Key, object]:
        return {key: value for key, value in self.all.items() if key.kind is kind}

    def may_remove(self, kind: IntEnum) -> bool:
        return self.live

    def needs(self, key: Key, record: object) -> Iterable[Key]:
        return [self.leans[key]] if key in self.leans else []


class World:
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.want = Want()
        self.targets = {kind: Fake(kind, self.seen) for kind in Kind}
        self.loop = Loop(
            self.targets.values(), self.want, clock=lambda: 1000.0, spent=lambda: asyncio.get_running_loop().time()
        )

    @property
    def rows(self) -> dict[Key, object]:
        return {key: value for target in self.targets.values() for key, value in target.rows.items()}


def simulated(test: Coroutine[Any, Any, None]) -> SimulatedLoop:
    loop = SimulatedLoop(Random(1))
    try:
        loop.run_until_complete(test)
    finally:
        loop.close()
    return loop


def key(kind: Kind, name: str) -> Key:
    return Key(kind, name)


keys = st.builds(Key, st.sampled_from(Kind), st.sampled_from("abcd"))
rows = st.dictionaries(keys, st.integers(0, 3))


@given(rows, rows)
def test_any_state_becomes_any_other_in_one_round_and_then_rests(
    actual: dict[Key, object], want: dict[Key, object]
) -> None:
    async def test() -> None:
        world = World()
        for each, value in actual.items():
            world.targets[Kind(each.kind)].rows[each] = value
        world.want.all = want
        await world.loop.round()
        assert world.rows == want
        assert world.loop.present == want.keys()
        world.seen.clear()
        await world.loop.round()
        assert world.seen == []

    simulated(test())


@given(rows, rows)
def test_nothing_is_removed_that_might_be_wanted(actual: dict[Key, object], want: dict[Key, object]) -> None:
    async def test() -> None:
        world = World()
        world.want.live = False
        for each, value in actual.items():
            world.targets[Kind(each.kind)].rows[each] = value
        world.want.all = want
        await world.loop.round()
        assert world.rows == actual | want

    simulated(test())


def test_kinds_are_made_in_order_and_removed_in_reverse() -> None:
    async def test() -> None:
        world = World()
        world.want.all = {key(kind, "a"): 1 for kind in reversed(Kind)}
        await world.loop.round()
        world.want.all = {}
        await world.loop.round()
        assert world.seen == ["+ first a 1", "+ second a 1", "+ last a 1", "- last a 1", "- second a 1", "- first a 1"]

    simulated(test())


def test_a_failed_row_stops_only_what_leans_on_it() -> None:
    async def test() -> None:
        world = World()
        world.want.all = {
            key(Kind.FIRST, "a"): 1,
            key(Kind.FIRST, "b"): 1,
            key(Kind.LAST, "c"): 1,
            key(Kind.LAST, "d"): 1,
        }
        world.want.leans = {key(Kind.LAST, "c"): key(Kind.FIRST, "a")}
        world.targets[Kind.FIRST].broken = {"a"}
        await world.loop.round()
        assert world.seen == ["+ first b 1", "+ last d 1"]
        assert world.loop.failed[key(Kind.FIRST, "a")].reason == "broken"
        assert world.loop.failed[key(Kind.LAST, "c")].reason == "waits for first a"
        assert world.loop.failed[key(Kind.LAST, "c")].since_s == 1000.0
        world.targets[Kind.FIRST].broken = set()
        await world.loop.round()
        assert world.loop.failed == {}
        assert world.rows == world.want.all

    simulated(test())


def test_a_kind_that_cannot_be_read_is_set_anew_and_nothing_of_it_is_removed() -> None:
    async def test() -> None:
        world = World()
        target = world.targets[Kind.SECOND]
        target.rows = {key(Kind.SECOND, "foreign"): 1}
        target.unreadable = True
        world.want.all = {key(Kind.SECOND, "a"): 1}
        await world.loop.round()
        assert target.rows == {key(Kind.SECOND, "foreign"): 1, key(Kind.SECOND, "a"): 1}
        assert key(Kind.SECOND, "") in world.loop.failed

    simulated(test())


def test_pauses_grow_while_something_fails_up_to_the_pause_of_a_well_host() -> None:
    times: list[float] = []

    async def test() -> None:
        world = World()
        world.want.all = {key(Kind.FIRST, "a"): 1}
        world.targets[Kind.FIRST].broken = {"a"}
        await _rounds(world, 8, times)

    simulated(test())
    pauses = [round(later - sooner) for sooner, later in pairwise(times)]
    assert pauses == [1, 2, *[SHORTEST_RESYNC_S] * 5]


def test_where_a_round_is_cheap_all_is_looked_at_again_every_four_seconds() -> None:
    times: list[float] = []
    simulated(_rounds(World(), 3, times))
    assert [round(later - sooner) for sooner, later in pairwise(times)] == [SHORTEST_RESYNC_S] * 2


def test_looking_takes_half_a_percent_of_the_time_and_a_minute_is_the_longest_pause() -> None:
    pauses = [resync_pause_s(round_s) for round_s in (0.0, 0.019, 0.05, 0.2, 5.0)]
    assert pauses == [SHORTEST_RESYNC_S, SHORTEST_RESYNC_S, 10.0, 40.0, LONGEST_RESYNC_S]


def test_where_a_round_is_dear_the_pauses_are_long_from_the_third_on() -> None:
    times: list[float] = []
    world = World()
    world.targets[Kind.FIRST].delay_s = 0.1
    simulated(_rounds(world, 5, times))
    assert [round(later - sooner) for sooner, later in pairwise(times)] == [4, 4, 21, 21]


def test_a_round_that_has_something_to_do_says_nothing_of_what_looking_costs() -> None:
    times: list[float] = []

    async def test() -> None:
        world = World()
        world.targets[Kind.FIRST].delay_s = 0.1
        running = asyncio.ensure_future(_rounds(world, 6, times))
        for number in range(6):
            world.want.all = {key(Kind.FIRST, "a"): number}
            await world.loop.rounds.changed(number)
        await running

    simulated(test())
    assert [round(later - sooner) for sooner, later in pairwise(times)] == [4] * 5


def test_one_long_round_does_not_put_the_next_off() -> None:
    times: list[float] = []

    async def test() -> None:
        world = World()
        running = asyncio.ensure_future(_rounds(world, 4, times))
        await world.loop.first_round()
        world.targets[Kind.FIRST].delay_s = 3.0
        await world.loop.rounds.changed(1)
        world.targets[Kind.FIRST].delay_s = 0.001
        await running

    simulated(test())
    assert [round(later - sooner) for sooner, later in pairwise(times)] == [7, 4, 4]


async def _rounds(world: World, count: int, times: list[float]) -> None:
    running = asyncio.ensure_future(world.loop.run())
    for _ in range(count):
        await world.loop.rounds.changed(world.loop.rounds.generation)
        times.append(asyncio.get_running_loop().time())
    await _ended(running)


async def _ended(running: asyncio.Task[None]) -> None:
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_a_wake_up_during_a_round_is_not_lost() -> None:
    async def test() -> None:
        world = World()
        running = asyncio.ensure_future(world.loop.run())
        await world.loop.first_round()
        world.loop.wake()
        await asyncio.sleep(0.001)  # the second round has begun, and has read the first kind
        world.want.all = {key(Kind.FIRST, "late"): 1}
        world.loop.wake()
        await world.loop.rounds.changed(2)
        await world.loop.rounds.changed(2)
        assert asyncio.get_running_loop().time() < 1.0
        await _ended(running)

    simulated(test())


def _change_elsewhere(world: World, name: str, *, present: bool) -> Callable[[], Coroutine[Any, Any, None]]:
    """As attach and detach do it: kernel and wanted rows together, under the lock of the kind."""

    async def change() -> None:
        target, row = world.targets[Kind.LAST], key(Kind.LAST, name)
        async with world.loop.lock(Kind.LAST):
            await asyncio.sleep(0.0007)
            if present:
                target.rows[row] = 1
                await asyncio.sleep(0.0007)
                world.want.all[row] = 1
            else:
                target.rows.pop(row, None)
                await asyncio.sleep(0.0007)
                world.want.all.pop(row, None)

    return change


@pytest.mark.parametrize("seed", range(30))
def test_what_is_attached_or_detached_during_a_round_stays_so(seed: int) -> None:
    async def test() -> None:
        random = Random(seed)
        world = World()
        running = asyncio.ensure_future(world.loop.run())
        for step in range(20):
            name = f"{random.randrange(3)}"
            change = _change_elsewhere(world, name, present=bool(step % 2))
            world.loop.wake()
            await asyncio.sleep(random.uniform(0, 0.01))
            await change()
            assert world.targets[Kind.LAST].rows == world.want.rows(Kind.LAST)
        undone = [line for line in world.seen if "last" in line]
        assert undone == [], "the loop found nothing to do"
        await _ended(running)

    loop = SimulatedLoop(Random(seed))
    loop.run_until_complete(test())
    loop.close()
