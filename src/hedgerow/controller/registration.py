"""Registration: an agent says hello and has its record in the store before it is welcomed.

What is free is read from the watch; the commit compares the guard that every allotment writes, so a record made from an
old view is refused and made anew. A controller that dies after the commit loses nothing: the agent asks again and gets
the same answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from hedgerow.errors import Conflict
from hedgerow.model.agent import Agent, AgentId
from hedgerow.model.network import Network, NetworkId
from hedgerow.store.base import MAX_OPERATIONS, Compare, Put, Store
from hedgerow.wire.codec import to_json
from hedgerow.wire.messages import Hello

from .allotment import Rejected, is_full, lacking, registered, with_prefixes
from .keys import AGENTS, ALLOTMENT, NETWORKS, agent_key
from .watch import Watch

log = logging.getLogger(__name__)

AT_ONCE = MAX_OPERATIONS - 1
"""Agents that one commit can give a new network's blocks, beside the guard."""


class Registration:
    """One at a time within a controller; between controllers the store decides."""

    def __init__(self, store: Store, watch: Watch) -> None:
        self._store = store
        self._watch = watch
        self._turn = asyncio.Lock()

    async def register(self, hello: Hello) -> Agent:
        """The agent's record, durable. Raises Rejected."""
        async with self._turn:
            while True:
                known = self._watch.agents.get(hello.agent)
                agent = registered(
                    hello, known, self._others(hello.agent), self._watch.networks.values(), self._watch.cluster
                )
                if agent == known:
                    return agent
                if damaged := self._damaged():
                    raise Rejected(
                        "damaged",
                        f"nothing is given out while {damaged} cannot be read: somebody may have it already",
                        "restore the store, or start the release that wrote it: hedgerow status",
                    )
                if await self._commit({agent.id: agent}):
                    break
        if known is None:
            log.info("agent %s (%s) at %s: registered", agent.name, agent.id, agent.underlay)
        for network in lacking(agent, self._watch.networks.values(), self._watch.cluster):
            log.warning("agent %s gets no addresses: %s", agent.name, is_full(network))
        return agent

    async def keep_allotted(self) -> None:
        """Gives the agents that are known already their blocks of networks that come later."""
        await self._watch.reached(0)
        seen: dict[NetworkId, Network] = {}
        while True:
            newest = self._watch.newest
            if seen != self._watch.networks:
                seen = dict(self._watch.networks)
                async with self._turn:
                    while due := self._due():
                        await self._commit(due)
            await self._watch.news(newest)

    def _damaged(self) -> str:
        """The key of a record that may say what is taken already, and does not."""
        return next((key for key in self._watch.unreadable if key.startswith((AGENTS, NETWORKS))), "")

    def _due(self) -> dict[AgentId, Agent]:
        agents = dict(self._watch.agents)
        due: dict[AgentId, Agent] = {}
        if self._damaged():
            return due
        for agent in self._watch.agents.values():
            if len(due) < AT_ONCE and lacking(agent, self._watch.networks.values(), self._watch.cluster):
                others = [other for other in agents.values() if other.id != agent.id]
                fresh = with_prefixes(agent, others, self._watch.networks.values())
                if fresh != agent:
                    due[agent.id] = agents[agent.id] = fresh
        return due

    def _others(self, agent: AgentId) -> list[Agent]:
        return [other for other in self._watch.agents.values() if other.id != agent]

    async def _commit(self, agents: Mapping[AgentId, Agent]) -> bool:
        """False when the view was old; it is up to date afterwards in either case."""
        guard = Compare(ALLOTMENT, self._watch.modified(ALLOTMENT))
        compares = [guard, *(Compare(agent_key(agent), self._watch.modified(agent_key(agent))) for agent in agents)]
        puts = [Put(agent_key(agent.id), to_json(agent)) for agent in agents.values()]
        try:
            number = await self._store.commit(compares, [*puts, Put(ALLOTMENT, b"{}")])
        except Conflict:
            newest = await self._store.list(ALLOTMENT)
            await self._watch.reached(newest.revision)
            return False
        await self._watch.reached(number)
        return True
