"""The cluster as `/v1` shows it: the watch's records, what the sessions know, and endpoints out of the store."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from ipaddress import ip_address
from pathlib import Path

from hedgerow.controller.allotment import is_full, lacking
from hedgerow.controller.keys import ENDPOINTS, read_endpoints
from hedgerow.controller.networks import drift
from hedgerow.controller.sessions import Sessions
from hedgerow.controller.watch import Watch
from hedgerow.errors import HedgerowError, NotFound
from hedgerow.model.agent import Agent, AgentId
from hedgerow.model.endpoint import Endpoint
from hedgerow.model.network import NetworkId
from hedgerow.model.snapshot import Revision
from hedgerow.store.base import Store

from . import shapes
from .render import agent_shape, endpoint_shape, network_shape

DROPS_S = 3.0
MAX_DROPS_BYTES = 4 << 20
"""Of one agent's answer: several times what all counters of a data path come to."""
SHORT_ID_CHARACTERS = 8
"""Of a container's id: fewer could be of another."""


class View:
    """`config` is the file that the running configuration is compared with. `damaged` names records of others than the
    watch that cannot be read, and why.
    """

    def __init__(
        self,
        store: Store,
        watch: Watch,
        sessions: Sessions,
        config: Path,
        damaged: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.store = store
        self.watch = watch
        self.sessions = sessions
        self.config = config
        self._damaged = damaged

    @property
    def revision(self) -> str:
        return str(self.watch.revision)

    async def networks(self) -> list[shapes.NetworkShape]:
        counts = Counter(endpoint.network for _, endpoint in await self._endpoints())
        ordered = sorted(self.watch.networks.values(), key=lambda network: network.name)
        agents = self.ordered()
        specs = [network.spec for network in ordered]
        return [network_shape(network, agents, counts[network.id], specs) for network in ordered]

    async def network(self, name: str) -> shapes.NetworkShape:
        """Raises NotFound."""
        found = {network.name: network for network in await self.networks()}
        if name not in found:
            raise missing("network", name, found)
        return found[name]

    async def agents(self) -> list[shapes.AgentShape]:
        counts = Counter(agent for agent, _ in await self._endpoints())
        networks, connected = self.watch.networks, self.sessions.connected
        return [agent_shape(agent, networks, connected.get(agent.id), counts[agent.id]) for agent in self.ordered()]

    async def agent(self, name: str) -> shapes.AgentShape:
        """By name or id. Raises NotFound."""
        for agent in await self.agents():
            if name in (agent.name, agent.id):
                return agent
        raise missing("agent", name, [agent.name for agent in self.watch.agents.values()])

    async def endpoints(self) -> list[shapes.EndpointShape]:
        ordered = sorted(
            await self._endpoints(), key=lambda item: (item[1].first_address.version, int(item[1].first_address))
        )
        return [self._shape(agent, endpoint) for agent, endpoint in ordered]

    async def endpoint(self, which: str) -> shapes.EndpointShape:
        """By address, id, name, link or container. Raises NotFound, also when a container has several."""
        which = _written(which)
        found = [(agent, one) for agent, one in await self._endpoints(_holders(self, which)) if _is(one, which)]
        if len(found) == 1:
            return self._shape(*found[0])
        if found:
            ids = ", ".join(str(endpoint.key) for _, endpoint in found)
            raise NotFound(f"{which} has {len(found)} endpoints", f"name one of {ids}")
        raise NotFound(f"no endpoint is {which}", "hedgerow endpoint ls")

    async def drops(self) -> tuple[list[shapes.Drop], list[str]]:
        """What every agent has dropped, and the names of those that did not say."""
        agents = self.ordered()
        answers = await asyncio.gather(*(self._drops_of(agent) for agent in agents))
        drops = [drop for answer in answers for drop in answer or []]
        return drops, [agent.name for agent, answer in zip(agents, answers, strict=True) if answer is None]

    async def status(self) -> shapes.Status:
        troubles = [*await self._config_troubles(), *self._agent_troubles(), *self._network_troubles()]
        troubles += await self._store_troubles()
        return shapes.Status(
            revision=self.revision,
            ok=not troubles,
            agents=len(self.watch.agents),
            connected=len(self.sessions.connected),
            networks=len(self.watch.networks),
            endpoints=len(await self._endpoints()),
            troubles=troubles,
        )

    async def wait_applied(self, number: int, limit_s: float, agent: AgentId | None = None) -> bool:
        """Until one agent or all have applied revision `number`, or for `limit_s`; whether they have."""
        wanted = Revision(self.store.epoch, number)
        try:
            async with asyncio.timeout(limit_s):
                await self.watch.reached(number)
                while not all(self._has_applied(one, wanted) for one in self.watch.agents if agent in (None, one)):
                    await self.sessions.progress()
        except TimeoutError:
            return False
        return True

    def ordered(self) -> list[Agent]:
        return sorted(self.watch.agents.values(), key=lambda agent: agent.name)

    def _has_applied(self, agent: AgentId, wanted: Revision) -> bool:
        applied = self.sessions.applied(agent)
        return applied is not None and applied.epoch == wanted.epoch and applied.number >= wanted.number

    def _shape(self, agent: AgentId, endpoint: Endpoint) -> shapes.EndpointShape:
        return endpoint_shape(endpoint, self.watch.agents[agent], self.watch.networks[endpoint.network])

    async def _endpoints(self, agents: Iterable[Agent] | None = None) -> list[tuple[AgentId, Endpoint]]:
        """All, or those of some agents; of agents and networks that are known."""
        prefixes = [ENDPOINTS] if agents is None else [f"{ENDPOINTS}{agent.id}/" for agent in agents]
        found: list[tuple[AgentId, Endpoint]] = []
        for prefix in prefixes:
            records, _ = await read_endpoints(self.store, prefix)
            for key, endpoint in records.items():
                agent = AgentId(key.split("/")[2])
                if agent in self.watch.agents and endpoint.network in self.watch.networks:
                    found.append((agent, endpoint))
        return found

    async def _drops_of(self, agent: Agent) -> list[shapes.Drop] | None:
        """None also for an answer that is none: one agent must not spoil what the others say."""
        answer = bytearray()
        try:
            async with aclosing(self.sessions.call(agent.id, "drops", {}, DROPS_S)) as pieces:
                async for piece in pieces:
                    answer += piece
                    if len(answer) > MAX_DROPS_BYTES:
                        return None
            return [shapes.Drop(**{**row, "agent": agent.name}) for row in json.loads(answer)]
        except (HedgerowError, ValueError, TypeError, RecursionError):
            return None

    async def _config_troubles(self) -> list[shapes.Trouble]:
        differs = await drift(self.store, self.config)
        return [shapes.Trouble(subject="config", message=differs.message, next=differs.cure)] if differs else []

    async def _store_troubles(self) -> list[shapes.Trouble]:
        """Records that cannot be read, of whatever kind."""
        _, endpoints = await read_endpoints(self.store, ENDPOINTS)
        damaged = {**self.watch.unreadable, **self._damaged(), **endpoints}
        cure = "restore the store from a backup, or start the release that wrote it"
        return [
            shapes.Trouble(subject=f"store {key}", message=f"left out: {why}", next=cure)
            for key, why in sorted(damaged.items())
        ]

    def _agent_troubles(self) -> list[shapes.Trouble]:
        troubles = []
        for agent in self.ordered():
            session = self.sessions.connected.get(agent.id)
            faults = [f"{one.row}: {one.reason}" for one in session.reports.faults] if session else ["is not connected"]
            subject, look = f"agent {agent.name}", f"hedgerow agent show {agent.name}"
            troubles += [shapes.Trouble(subject=subject, message=fault, next=look) for fault in faults]
        return troubles

    def _network_troubles(self) -> list[shapes.Trouble]:
        agents, networks = self.ordered(), self.watch.networks.values()
        short: dict[NetworkId, list[str]] = {}
        for agent in agents:
            for network in lacking(agent, networks, self.watch.cluster):
                short.setdefault(network.id, []).append(agent.name)
        return [
            shapes.Trouble(
                subject=f"network {network.name}",
                message=f"{is_full(network)}; without addresses: {', '.join(short[network.id])}",
                next=f"run its containers on other agents: hedgerow network show {network.name}",
            )
            for network in networks
            if network.id in short
        ]


def missing(kind: str, name: str, known: Iterable[str]) -> NotFound:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, 1)
    cure = f"did you mean {near[0]}?" if near else f"known: {', '.join(names) or 'none'}"
    return NotFound(f"no {kind} is called {name}", cure)


def _holders(view: View, which: str) -> list[Agent] | None:
    """Whose endpoints need to be read: for an address the one agent that owns it, else all."""
    try:
        address = ip_address(which)
    except ValueError:
        return None
    return [one for one in view.watch.agents.values() if any(address in prefix.block for prefix in one.all_prefixes)]


def _written(which: str) -> str:
    """An address as we write it, for one of IPv6 has many forms (RFC 5952); anything else as it is."""
    try:
        return str(ip_address(which))
    except ValueError:
        return which


def _is(endpoint: Endpoint, which: str) -> bool:
    names = (str(endpoint.key), endpoint.key.tag, endpoint.link, endpoint.name)
    if which in (*names, *map(str, endpoint.addresses)):
        return True
    return len(which) >= SHORT_ID_CHARACTERS and endpoint.key.container.startswith(which)
