"""The built-in scheduler: looks at the world, asks placement.py what to do, and writes that to the store.

Its only side effect is a transaction per app, which holds if nothing that it was decided on has changed meanwhile:
the app, the instances it changes, the agents it places on. Whoever else wrote wins, and the next look sees it. Agents
do the rest: they start an instance only for a record that names them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from hedgerow.errors import Conflict, HedgerowError
from hedgerow.model.agent import AgentId
from hedgerow.model.app import AppId, InstanceId
from hedgerow.store.base import MAX_OPERATIONS, Bookmark, Compacted, Compare, Delete, Operation, Put, Store
from hedgerow.wire.codec import to_json

from . import world as worlds
from .placement import Dice, Forget, Kill, Rest, Settle, Start, Step, decide, next_moment_s
from .records import AGENTS, app_key, backoff_key, instance_key, status_key

log = logging.getLogger(__name__)

Connected = Callable[[], Collection[AgentId]]
"""The agents that have a connection to this controller."""

PAUSE_S = 0.05
"""Between two looks: changes come in bursts."""

RESYNC_S = 30.0
STEPS_A_TRANSACTION = MAX_OPERATIONS // 2 - 1
"""A step is at most two operations."""


def dice() -> Dice:
    return Dice(run=lambda: str(uuid.uuid4()), port=lambda: random.randint(1025, 65535))


@dataclass(frozen=True, slots=True)
class Write:
    compares: tuple[Compare, ...]
    operations: tuple[Operation, ...]


def write(reading: worlds.Reading, app: AppId, steps: list[Step]) -> Write:
    """The transaction that does as many of these steps as one can hold; the next look finds the others again."""
    compares = {key: Compare(key, reading.modified.get(key, 0)) for key in (app_key(app), backoff_key(app))}
    operations: list[Operation] = []
    for step in steps[:STEPS_A_TRANSACTION]:
        for key in _leans_on(step):
            compares[key] = Compare(key, reading.modified.get(key, 0))
        operations += _operations(step)
    return Write(tuple(compares.values()), tuple(operations))


def _leans_on(step: Step) -> tuple[str, ...]:
    match step:
        case Start(instance):
            return instance_key(instance.id), AGENTS + instance.agent
        case Kill(instance):
            return (instance_key(instance.id),)
        case Forget(id):
            return (instance_key(id),)
        case _:
            return ()


def _operations(step: Step) -> list[Operation]:
    match step:
        case Start(instance):
            return [Put(instance_key(instance.id), to_json(instance))]
        case Kill(instance):
            return [Put(instance_key(instance.id), to_json(replace(instance, kill=True)))]
        case Forget(id):
            return [Delete(instance_key(id)), Delete(status_key(id))]
        case Rest(app, None):
            return [Delete(backoff_key(app))]
        case Rest(app, backoff):
            return [Put(backoff_key(app), to_json(backoff))]
        case Settle(app):
            return [Put(app_key(app.id), to_json(replace(app, deployment=None)))]


class Scheduler:
    """`damaged`: keys of records that could not be read at the last look, and why."""

    def __init__(self, store: Store, connected: Connected, *, clock: Callable[[], float] = time.time) -> None:
        self.damaged: Mapping[str, str] = {}
        self._store = store
        self._clock = clock
        self._connected = connected
        self._silent_since: dict[AgentId, float] = {}
        self._dice = dice()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="apps watch")
            group.create_task(self._look_again_and_again(), name="apps scheduler")

    async def read(self) -> worlds.Reading:
        """The world as of now."""
        while True:
            with contextlib.suppress(Compacted):
                return await worlds.read(self._store, self._silent_s)

    def _silent_s(self, agents: Collection[AgentId]) -> dict[AgentId, float]:
        """For how long each agent has had no connection, as far as this controller has seen."""
        now_s, connected = asyncio.get_running_loop().time(), self._connected()
        self._silent_since = {each: self._silent_since.get(each, now_s) for each in agents if each not in connected}
        return {each: now_s - since_s for each, since_s in self._silent_since.items()}

    async def _watch(self) -> None:
        """Wakes the scheduler at every change that it may have to do with; what changed does not matter."""
        while True:
            page = await self._store.list(worlds.PREFIXES[0], limit=1)
            self.wake()
            try:
                async for event in self._store.watch("/", after=page.revision):
                    if not isinstance(event, Bookmark) and event.key.startswith(worlds.PREFIXES):
                        self.wake()
            except Compacted as gone:
                log.info("apps: %s", gone)

    async def _look_again_and_again(self) -> None:
        while True:
            self._wake.clear()
            pause_s = await self._look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            await asyncio.sleep(PAUSE_S)

    async def _look(self) -> float:
        """One round; for how many seconds nothing will be due unless something changes."""
        reading = await self.read()
        self.damaged = reading.damaged
        now_s = self._clock()
        await self._sweep(reading)
        for app, steps in decide(reading.world, now_s, self._dice).items():
            try:
                todo = write(reading, app, steps)
                await self._store.commit(todo.compares, todo.operations)
                for step in steps[:STEPS_A_TRANSACTION]:
                    log.info("%s", step)
                if len(steps) > STEPS_A_TRANSACTION:
                    self.wake()
            except Conflict as changed:
                log.info("app %s changed meanwhile, looking again: %s", app, changed)
                self.wake()
            except HedgerowError as error:
                log.error("app %s: %s", app, error)
        moment_s = next_moment_s(reading.world, now_s)
        return RESYNC_S if moment_s is None else min(RESYNC_S, max(0.0, moment_s - now_s))

    async def _sweep(self, reading: worlds.Reading) -> None:
        """A late report may bring back the status of an instance that is gone."""
        orphans: list[InstanceId] = [id for id in reading.world.statuses if id not in reading.world.instances]
        for id in orphans[:STEPS_A_TRANSACTION]:
            with contextlib.suppress(Conflict):
                unchanged = Compare(status_key(id), reading.modified[status_key(id)])
                await self._store.commit([unchanged, Compare(instance_key(id), 0)], [Delete(status_key(id))])
