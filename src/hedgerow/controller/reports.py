"""Reports: what an agent says is so, into the store. The only way back.

Level-triggered: what the agent has said is kept, what the store has is known, and the difference is written, at most
once in WRITE_S. An agent's first report is whole, so what it no longer names goes. It can write only its own: endpoints
under its id with addresses of its own blocks, statuses of instances that the store says are its, without addresses of
other agents' blocks. What no honest agent sends ends the connection before it is written: whoever reads the store later
must be able to.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from hedgerow.errors import BadInput, Conflict
from hedgerow.model.agent import Agent, AgentId
from hedgerow.model.app import InstanceId, InstanceStatus
from hedgerow.model.endpoint import Endpoint
from hedgerow.model.snapshot import Revision
from hedgerow.store.base import MAX_OPERATIONS, Compare, Delete, Operation, Put, Store
from hedgerow.wire.codec import from_json, to_json
from hedgerow.wire.messages import Report, RowFault

from .keys import ENDPOINTS, STATUSES, endpoint_key, instance_key, read_all, status_key
from .watch import Watch

log = logging.getLogger(__name__)

WRITE_S = 0.1
MAX_ENDPOINTS = 16_384
"""Of one agent: as many as its data path holds."""
MAX_ADDRESSES = 16
"""Of one instance: several on each network that it may be on. Every agent hears of them where rules ask for apps."""


class Reports:
    """Of one agent, for the time of one connection."""

    def __init__(self, store: Store, watch: Watch, agent: AgentId) -> None:
        self.applied: Revision | None = None
        self.way = ""
        self.faults: tuple[RowFault, ...] = ()
        self._store = store
        self._watch = watch
        self._agent = agent
        self._whole = False
        self._endpoints: dict[str, bytes] = {}
        self._statuses: dict[InstanceId, InstanceStatus] = {}
        self._stored: dict[str, bytes] = {}
        self._news = asyncio.Event()

    @property
    def endpoints(self) -> int:
        return len(self._endpoints)

    def take(self, report: Report) -> None:
        """Never waits. Raises BadInput when the first report is not whole, and for times and numbers that cannot be."""
        if not (report.whole or self._whole):
            raise BadInput(f"the first report of agent {self._agent} is not whole", "send everything first")
        _check_times(report)
        if any(len(status.all_addresses) > MAX_ADDRESSES for status in report.instances):
            raise BadInput(f"agent {self._agent} reports an instance with more than {MAX_ADDRESSES} addresses")
        if report.whole:
            self._whole = True
            self._endpoints.clear()
            self._statuses.clear()
        own = self._watch.agents.get(self._agent)
        for endpoint in report.endpoints:
            if own is not None and owns(own, endpoint):
                self._endpoints[endpoint_key(self._agent, endpoint.key)] = to_json(endpoint)
            else:
                log.warning(
                    "agent %s has no right to %s: %s is ignored", self._agent, endpoint.first_address, endpoint.key
                )
        for key in report.endpoints_gone:
            self._endpoints.pop(endpoint_key(self._agent, key), None)
        if len(self._endpoints) > MAX_ENDPOINTS:
            raise BadInput(f"agent {self._agent} reports more than {MAX_ENDPOINTS} endpoints", "no host can have them")
        self._statuses |= {status.id: status for status in report.instances if status.agent == self._agent}
        self.applied = report.applied or self.applied
        self.faults, self.way = report.faults, report.way or self.way
        self._news.set()

    async def run(self) -> None:
        """Writes until cancelled; raises what the store raises."""
        await self._read_stored()
        while True:
            await self._news.wait()
            self._news.clear()
            await self._write_endpoints()
            await self._write_statuses()
            await asyncio.sleep(WRITE_S)

    async def _read_stored(self) -> None:
        found, _ = await read_all(self._store, f"{ENDPOINTS}{self._agent}/")
        self._stored = {key: value for key, (value, _) in found.items()}
        for instance in [one.id for one in self._watch.instances.values() if one.agent == self._agent]:
            entry = await self._store.get(status_key(instance))
            if entry is not None:
                self._stored[entry.key] = entry.value

    async def _write_endpoints(self) -> None:
        stored = {key for key in self._stored if key.startswith(ENDPOINTS)}
        operations: list[Operation] = [Delete(key) for key in sorted(stored - self._endpoints.keys())]
        operations += [Put(key, value) for key, value in self._endpoints.items() if self._stored.get(key) != value]
        while operations:
            batch, operations = operations[:MAX_OPERATIONS], operations[MAX_OPERATIONS:]
            await self._store.commit([], batch)
            self._note(batch)

    async def _write_statuses(self) -> None:
        """Each beside a compare of its instance's record: a status never outlives or precedes it."""
        self._forget_statuses()
        due = {status_key(status.id): self._put(status) for status in self._statuses.values()}
        for key, value in self._stored.items():
            if key.startswith(STATUSES) and key not in due and not _is_final(value):
                due[key] = Delete(key)
        changes = [one for one in due.values() if one is not None]
        while changes:
            batch, changes = changes[:MAX_OPERATIONS], changes[MAX_OPERATIONS:]
            instances = [instance_key(InstanceId(one.key.removeprefix(STATUSES))) for one in batch]
            compares = [Compare(key, self._watch.modified(key)) for key in instances]
            try:
                await self._store.commit(compares, batch)
            except Conflict:
                # An instance has just changed: once the watch has seen it, what is due is worked out anew.
                self._news.set()
                return
            self._note(batch)

    def _forget_statuses(self) -> None:
        """Who deletes an instance deletes its status with it."""
        known = self._watch.instances
        self._statuses = {identity: status for identity, status in self._statuses.items() if identity in known}
        for key in [key for key in self._stored if key.startswith(STATUSES)]:
            if InstanceId(key.removeprefix(STATUSES)) not in known:
                del self._stored[key]

    def _put(self, status: InstanceStatus) -> Operation | None:
        instance = self._watch.instances.get(status.id)
        own = replace(
            status,
            addresses=tuple(address for address in status.addresses if not self._is_foreign(address)),
            addresses6=tuple(address for address in status.addresses6 if not self._is_foreign(address)),
        )
        key, value = status_key(status.id), to_json(own)
        if instance is None or instance.agent != self._agent or instance.incarnation != status.incarnation:
            return None
        return Put(key, value) if self._stored.get(key) != value else None

    def _is_foreign(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether the address is one of our networks', and of no block of this agent."""
        own = self._watch.agents.get(self._agent)
        if own is not None and any(address in prefix.block for prefix in own.all_prefixes):
            return False
        specs = [network.spec for network in self._watch.networks.values()]
        subnets = [subnet for spec in specs for subnet in (spec.subnet, spec.subnet6)]
        return any(subnet is not None and address in subnet for subnet in subnets)

    def _note(self, written: Sequence[Operation]) -> None:
        for operation in written:
            if isinstance(operation, Put):
                self._stored[operation.key] = operation.value
            else:
                self._stored.pop(operation.key, None)


def _is_final(status: bytes) -> bool:
    """A status that cannot be read is not: it goes, and the next one takes its place."""
    try:
        return from_json(status, InstanceStatus).state.is_final
    except BadInput:
        return False


def _check_times(report: Report) -> None:
    """Raises BadInput: msgpack carries what is no number, JSON does not."""
    times = [*(fault.since_s for fault in report.faults), *(status.changed_s for status in report.instances)]
    times += [status.started_s for status in report.instances if status.started_s is not None]
    if not all(map(math.isfinite, times)):
        raise BadInput("a report with a time that is no number", "report times in seconds since the epoch")


def owns(agent: Agent, endpoint: Endpoint) -> bool:
    """Whether the endpoint's addresses lie in the agent's own parts of the endpoint's network."""
    blocks = [p.block for p in agent.all_prefixes if p.network == endpoint.network]
    return all(any(address in block for block in blocks) for address in endpoint.addresses)
