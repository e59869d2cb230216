"""Docker networks: one for each of ours, so that `docker run --network dev` works; and what dockerd forgot while away.

Ours: driver `hedgerow` and the label. Missing (`docker network prune`): made again as soon as Docker's events tell.
Always with a subnet, without which `--ip` is refused. One of a user's own with the same name and definition will do; of
the driver `bridge` it is in the way, and the log says so.

Runs beside the plug-in calls, none of which ever waits for Docker's API: it is not served while dockerd starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hedgerow.agent.engine_http import EngineError, EngineHttp
from hedgerow.errors import HedgerowError, Unreachable
from hedgerow.model.network import Network, NetworkName
from hedgerow.reconcile.plan import Key, Op, Set, plan

from . import docker_pools
from .docker import key_of
from .docker_leftovers import Leftovers

if TYPE_CHECKING:
    from hedgerow.agent.attach import Attachments
    from hedgerow.agent.state import State

log = logging.getLogger(__name__)

DRIVER = "hedgerow"
LABEL = "hedgerow.network"
SOCKET = "/run/docker.sock"
PAUSE_S = 0.25
"""Between looks for a Docker that is not there: a container may be started as soon as it is."""
INTERVAL_S = 15.0


class Kind(IntEnum):
    DOCKER_NETWORK = 1


@dataclass(frozen=True, slots=True)
class Definition:
    """Of a Docker network, as far as it is of one kind with another."""

    network: NetworkName
    subnets: tuple[str, ...]
    internal: bool
    ipv6: bool = False

    def __str__(self) -> str:
        return " and ".join(self.subnets) + (" internal" if self.internal else "")


def wanted(networks: Iterable[Network]) -> dict[Key, Definition]:
    return {
        Key(Kind.DOCKER_NETWORK, row.name): Definition(
            row.name, docker_pools.subnets(row), row.spec.internal, row.spec.subnet6 is not None
        )
        for row in networks
    }


def creation(definition: Definition, network: Network) -> dict[str, Any]:
    """The body of POST /networks/create. Before API 1.44 a name is checked only when asked."""
    option = {"network": definition.network}
    return {
        "Name": definition.network,
        "CheckDuplicate": True,
        "Driver": DRIVER,
        "Internal": definition.internal,
        "EnableIPv6": definition.ipv6,
        "Options": option,
        "Labels": {LABEL: network.id},
        "IPAM": {"Driver": DRIVER, "Options": option, "Config": [{"Subnet": subnet} for subnet in definition.subnets]},
    }


@dataclass(frozen=True, slots=True)
class Found:
    """A Docker network of our driver; `is_ours`: the agent made it, so it may remove it."""

    id: str
    definition: Definition
    is_ours: bool


def found(rows: Iterable[Mapping[str, Any]]) -> dict[Key, list[Found]]:
    """From GET /networks, those of our driver by name: one, or two after an agent died while making the first."""
    networks: dict[Key, list[Found]] = {}
    for row in rows:
        if row["Driver"] != DRIVER:
            continue
        subnets = tuple(config.get("Subnet", "") for config in (row.get("IPAM") or {}).get("Config") or [])
        name = NetworkName((row.get("Options") or {}).get("network", ""))
        definition = Definition(name, subnets, bool(row.get("Internal")), bool(row.get("EnableIPv6")))
        one = Found(row["Id"], definition, LABEL in (row.get("Labels") or {}))
        networks.setdefault(Key(Kind.DOCKER_NETWORK, row["Name"]), []).append(one)
    return networks


async def keep(attachments: Attachments, state: State, socket: str = SOCKET) -> None:
    """A task, whether Docker is there or not."""
    keeper = Keeper(attachments, state, EngineHttp("Docker", socket))
    try:
        while True:
            if Path(socket).exists():
                await keeper.follow()
            await asyncio.sleep(PAUSE_S)
    finally:
        await keeper.close()


class Keeper:
    def __init__(self, attachments: Attachments, state: State, docker: EngineHttp) -> None:
        self._attachments = attachments
        self._state = state
        self._docker = docker
        self._leftovers = Leftovers(attachments)
        self._faults: dict[Key, str] = {}
        self._said: dict[Key, str] = {}
        self._away = ""

    async def close(self) -> None:
        await self._docker.close()

    async def follow(self) -> None:
        """Returns when Docker does not answer, or no longer."""
        wake, since_s = asyncio.Event(), time.time()
        try:
            async with asyncio.TaskGroup() as group:
                await self.round()
                log.info("Docker answers")
                self._away = ""
                group.create_task(self._listen(since_s, wake), name="docker events")
                group.create_task(self._watch(wake), name="docker networks wanted")
                while True:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(INTERVAL_S):
                            await wake.wait()
                    wake.clear()
                    await self.round()
        except* HedgerowError as faults:
            if self._away != str(faults.exceptions[0]):
                self._away = str(faults.exceptions[0])
                log.info("%s", self._away)

    async def _listen(self, since_s: float, wake: asyncio.Event) -> None:
        """From a moment before the first round on, so that nothing is missed between the two."""
        filters = json.dumps({"type": ["network"], "event": ["create", "destroy", "remove"]})
        async for _ in self._docker.stream("GET", "/events", since=str(int(since_s)), filters=filters):
            wake.set()
        raise Unreachable("Docker ended its events", "start Docker")

    async def _watch(self, wake: asyncio.Event) -> None:
        generation = self._state.generation
        while True:
            wake.set()
            generation = await self._state.changed(generation)

    async def round(self) -> None:
        """Raises Unreachable without Docker, EngineError when it cannot even tell what it has."""
        if self._state.snapshot is None:
            await self._docker.json("GET", "/version")
            return
        there = found(await self._docker.json("GET", "/networks"))
        networks = {row.name: row for row in self._attachments.networks()}
        desired = wanted(networks.values())
        seen = {key: rows[0].definition for key, rows in there.items() if key in desired or rows[0].is_ours}
        self._said, self._faults = self._faults, {}
        for step in plan(desired, seen, may_remove=self._state.is_live):
            for op in step.ops:
                await self._try(op.key, self._apply(op, networks, there.get(op.key, [])))
        for key, rows in there.items():
            await self._try(key, self._remove(rows[1:]))
        known = await self._endpoints(there)
        await self._leftovers.forget(known.keys(), asyncio.get_running_loop().time())
        for endpoint, name in known.items():
            await self._attachments.rename(key_of(endpoint), name)

    async def _try(self, key: Key, doing: Awaitable[None]) -> None:
        """A row that fails stops no other, and is said once."""
        try:
            await doing
        except EngineError as error:
            self._faults[key] = str(error)
            if self._said.get(key) != str(error):
                log.warning("%s: %s", key, error)

    async def _apply(self, op: Op, networks: Mapping[NetworkName, Network], rows: list[Found]) -> None:
        await self._remove(rows)
        if isinstance(op, Set) and isinstance(op.new, Definition):
            body = creation(op.new, networks[op.new.network])
            await self._docker.json("POST", "/networks/create", body)
        log.info("%s", op)

    async def _remove(self, rows: Iterable[Found]) -> None:
        for row in rows:
            if not row.is_ours:
                cure = f"docker network rm {row.id[:12]}: the agent makes it again"
                raise EngineError(409, f"somebody's Docker network of this name is defined otherwise: {cure}")
            try:
                await self._docker.json("DELETE", f"/networks/{row.id}")
            except EngineError as error:
                if error.status != 404:
                    raise

    async def _endpoints(self, there: Mapping[Key, list[Found]]) -> dict[str, str]:
        """Ids of all that Docker has on networks of our driver, with their containers' names, which no plug-in call
        tells. The list of networks has neither.
        """
        known: dict[str, str] = {}
        for row in (row for rows in there.values() for row in rows):
            containers = (await self._docker.json("GET", f"/networks/{row.id}"))["Containers"] or {}
            known |= {container["EndpointID"]: container.get("Name", "") for container in containers.values()}
        return known
