"""Runs the instances that name this agent, on Docker and Podman.

Level-triggered, like the data path: look at what the engines have, compare with what is wanted, do the steps. A change
of the wanted state and every event of an engine only wake it. An agent without memory knows its containers by their
labels and goes on with them. Steps of different instances run side by side, for stopping takes its time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol

from hedgerow.errors import BadInput, HedgerowError, NotFound, Refused, Unreachable
from hedgerow.model.agent import Agent
from hedgerow.model.app import Engine, Instance, InstanceId, InstanceStatus
from hedgerow.model.endpoint import Address
from hedgerow.model.network import Network
from hedgerow.model.snapshot import Snapshot

from .containers import Containers
from .engine_http import EngineHttp
from .instances import (
    Container,
    Fault,
    Launch,
    Phase,
    Remove,
    Step,
    engine_of,
    own_instances,
    say_the_same,
    status_of,
    steps,
)
from .launches import docker_body, host_body, podman_body
from .seccomp import write_profile

log = logging.getLogger(__name__)

SOCKETS = {Engine.DOCKER: "/run/docker.sock", Engine.PODMAN: "/run/podman/podman.sock"}
RESYNC_S = 10.0
RETRY_S = 1.0
AT_ONCE = 4
"""Launches side by side: engines take a CPU each."""


class Settings(Protocol):
    """What the runner reads of agent.yaml."""

    @property
    def name(self) -> str: ...
    @property
    def engines(self) -> Collection[str]: ...
    @property
    def host_rootfs(self) -> bool: ...
    @property
    def state(self) -> Path: ...
    @property
    def certificates(self) -> Path: ...


class Wanted(Protocol):
    """What the runner needs of the agent's state."""

    @property
    def snapshot(self) -> Snapshot | None: ...
    @property
    def own(self) -> Agent | None: ...
    @property
    def is_live(self) -> bool: ...
    @property
    def generation(self) -> int: ...

    async def changed(self, generation: int) -> int: ...


class Networks(Protocol):
    def network(self, name: str) -> Network:
        """Raises NotFound."""
        ...


class Runner:
    """`changed` is called whenever `statuses` would answer otherwise than before. `driver_options` are what an
    instance's container shows to our network driver on Docker.
    """

    def __init__(
        self,
        attachments: Networks,
        state: Wanted,
        settings: Settings,
        changed: Callable[[], None],
        driver_options: Callable[[Instance], Mapping[str, str]] = lambda _: {},
    ) -> None:
        self._driver_options = driver_options
        self._attachments = attachments
        self._state = state
        self._settings = settings
        self._changed = changed
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._faults: dict[InstanceId, Fault] = {}
        self._containers: dict[InstanceId, Container] = {}
        self._statuses: dict[InstanceId, InstanceStatus] = {}
        self._busy: set[InstanceId] = set()
        self._swept = False
        self._engines = {
            engine: Containers(
                engine,
                EngineHttp(engine.value.capitalize(), socket),
                self._podman_body if engine is Engine.PODMAN else self._docker_body,
            )
            for engine, socket in SOCKETS.items()
            if engine.value in settings.engines
        }

    def statuses(self) -> tuple[InstanceStatus, ...]:
        return tuple(self._statuses.values())

    def claimed(self) -> frozenset[Address] | None:
        """The addresses that containers of instances have; None until every engine has been asked once."""
        if not self._swept:
            return None
        found: set[Address] = set()
        for container in self._containers.values():
            found.update(container.addresses, container.addresses6)
        return frozenset(found)

    async def run(self) -> None:
        """Does not end."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch_state(), name="runner state")
                for engine in self._engines.values():
                    group.create_task(self._watch_engine(engine), name=f"runner {engine.engine}")
                while True:
                    self._wake.clear()
                    await self._look(group)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(RESYNC_S):
                            await self._wake.wait()
        finally:
            for engine in self._engines.values():
                await engine.close()

    async def logs(self, arguments: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """The call `logs`: `{"instance": id, "follow": bool, "tail": lines or null}`."""
        match arguments:
            case {"instance": str(id), "follow": bool(follow), "tail": int() | None as tail}:
                pass
            case _:
                raise BadInput("logs needs instance, follow and tail")
        container = self._containers.get(InstanceId(id))
        if container is None:
            fault = self._faults.get(InstanceId(id))
            raise NotFound(fault.message if fault else f"{id} has not been started yet on {self._settings.name}")
        async with aclosing(self._engines[container.engine].logs(container, follow=follow, tail=tail)) as pieces:
            async for piece in pieces:
                yield piece

    async def _watch_state(self) -> None:
        generation = self._state.generation
        while True:
            generation = await self._state.changed(generation)
            self._wake.set()

    async def _watch_engine(self, engine: Containers) -> None:
        """An engine that is away is asked again, each second; nobody needs it until there are instances."""
        while True:
            with contextlib.suppress(HedgerowError):
                if not self._wanted() and not self._containers:
                    await asyncio.sleep(RETRY_S)
                    continue
                self._wake.set()
                async with aclosing(engine.events()) as events:
                    async for _ in events:
                        self._wake.set()
            await asyncio.sleep(RETRY_S)

    def _wanted(self) -> dict[InstanceId, Instance]:
        snapshot, own = self._state.snapshot, self._state.own
        return own_instances(snapshot, own) if snapshot and own else {}

    async def _look(self, group: asyncio.TaskGroup) -> None:
        if self._state.snapshot is None:
            return
        may_remove = self._state.is_live
        # What a step was at work on before we looked may look otherwise by now: those wait for the next look.
        busy = frozenset(self._busy)
        wanted = self._wanted()
        if self._swept and not (wanted or self._containers or busy):
            # Nothing to run and nothing left over: an engine that starts when it is asked may sleep on.
            self._say(wanted, busy)
            return
        answering = [engine for engine in self._engines if await self._list(engine, busy)]
        self._swept |= may_remove and len(answering) == len(self._engines)
        wanted = self._wanted()
        self._forget(wanted)
        for step in steps(wanted, self._containers, self._faults, may_remove=may_remove):
            id = step.instance.id if isinstance(step, Launch) else step.container.instance
            engine = engine_of(step.instance) if isinstance(step, Launch) else step.container.engine
            if engine not in self._engines and isinstance(step, Launch):
                self._faults[id] = Fault(f"{self._settings.name} has no {engine.value.capitalize()}", time.time())
            elif engine in answering and id not in busy:
                self._busy.add(id)
                group.create_task(self._do(id, step), name=str(step))
        self._say(wanted, busy | self._busy)

    async def _list(self, engine: Engine, busy: frozenset[InstanceId]) -> bool:
        """Whether the engine answered. What vanished without us is a fault of its instance."""
        try:
            found = await self._engines[engine].all()
        except HedgerowError as error:
            log.info("%s", error)
            return False
        wanted = self._wanted()
        for id, old in list(self._containers.items()):
            if old.engine is engine and id not in found:
                del self._containers[id]
                if id not in busy and id in wanted and not wanted[id].kill:
                    self._faults.setdefault(id, Fault("its container was removed by somebody else", time.time()))
        self._containers |= found
        return True

    def _forget(self, wanted: dict[InstanceId, Instance]) -> None:
        self._faults = {id: fault for id, fault in self._faults.items() if id in wanted}

    async def _do(self, id: InstanceId, step: Step) -> None:
        """One step. What cannot be launched is a fault of its instance; what cannot be removed is tried again."""
        try:
            log.info("%s", step)
            await self._step(step)
        except Unreachable as error:
            log.info("%s: %s", step, error)
            await asyncio.sleep(RETRY_S)
        except HedgerowError as error:
            log.warning("%s: %s", step, error)
            if isinstance(step, Launch):
                self._faults[id] = Fault(str(error), time.time())
            else:
                await asyncio.sleep(RETRY_S)
        finally:
            self._busy.discard(id)
            self._wake.set()

    async def _step(self, step: Step) -> None:
        match step:
            case Launch(instance):
                if instance.launch.network is not None:
                    self._attachments.network(instance.launch.network)
                async with self._slots:
                    await self._engines[engine_of(instance)].launch(instance)
            case Remove(container, grace_s):
                if container.phase is Phase.RUNNING:
                    await self._engines[container.engine].stop(container, grace_s)
                await self._engines[container.engine].remove(container)

    def _docker_body(self, instance: Instance) -> dict[str, Any]:
        return docker_body(instance, self._driver_options(instance))

    def _podman_body(self, instance: Instance) -> dict[str, Any]:
        if instance.launch.engine is Engine.PODMAN:
            return podman_body(instance)
        if not self._settings.host_rootfs:
            raise Refused(
                f"{self._settings.name} runs no app without an image",
                "give the app an image, or set host_rootfs: true in that host's agent.yaml",
            )
        hidden = (self._settings.state, self._settings.certificates)
        return host_body(instance, hidden, write_profile(self._settings.state))

    def _say(self, wanted: dict[InstanceId, Instance], busy: frozenset[InstanceId]) -> None:
        now_s, said = time.time(), {}
        for id, instance in wanted.items():
            new = status_of(instance, self._containers.get(id), self._faults.get(id), now_s)
            old = self._statuses.get(id)
            # While a step is under way what was said last stands: a launch may still succeed that is to be killed.
            stands = old is not None and (id in busy or say_the_same(old, new))
            said[id] = old if old is not None and stands else new
        if said != self._statuses:
            self._statuses = said
            self._changed()
