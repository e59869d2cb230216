"""Watch: what agents need of the store, in memory, kept up by the store's own watch.

Changes are taken over a revision at a time, so what is read here is always one state of the store. The last ones stay
in a window. An agent whose revision lies in it gets one delta with all that changed since, merged, whenever it can take
one; any other gets a snapshot. So nothing is queued for an agent, however slow it is. Revisions that concern no agent
(endpoints, statuses, apps) pass silently.

A record that cannot be read is left out and named in `unreadable`; one that could be read before stays as it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from hedgerow.errors import BadInput, HedgerowError
from hedgerow.model.agent import Agent, AgentId
from hedgerow.model.app import Instance, InstanceId, InstanceStatus
from hedgerow.model.member import Member, MemberKey
from hedgerow.model.network import ClusterSpec, Network, NetworkId
from hedgerow.model.snapshot import Revision
from hedgerow.store.base import Compacted, Event, Store
from hedgerow.wire.codec import Shared, from_json, pack_state, share
from hedgerow.wire.messages import Delta

from .keys import AGENTS, ALLOTMENT, CLUSTER, INSTANCES, MEMBERS, NETWORKS, STATUSES, Applied, read_all

log = logging.getLogger(__name__)

HISTORY_REVISIONS = 8000
"""How far the window reaches back at start; less than what the store keeps."""
WINDOW_CHANGES = 20_000

Record = ClusterSpec | Network | Agent | Instance | Member | InstanceStatus


@dataclass(frozen=True, slots=True)
class _Change:
    """`record` is None when it is gone. It concerns `agents`; None: all, as everything does but an instance whose agent
    before the change is known, and a status, which concerns none.
    """

    revision: int
    section: str
    identity: str
    record: Record | None
    agents: tuple[AgentId, ...] | None = None


class Watch:
    """`networks`, `agents`, `instances`, `members` and `statuses` are as of revision `number`; read them, never change
    them. `newest` is the last revision that changed what an agent may have to know.
    """

    def __init__(self, store: Store) -> None:
        self.networks: dict[NetworkId, Network] = {}
        self.agents: dict[AgentId, Agent] = {}
        self.instances: dict[InstanceId, Instance] = {}
        self.members: dict[MemberKey, Member] = {}
        self.statuses: dict[InstanceId, InstanceStatus] = {}
        self.unreadable: dict[str, str] = {}
        self.number = 0
        self.newest = 0
        self._store = store
        self._cluster: ClusterSpec | None = None
        self._modified: dict[str, int] = {}
        self._window: deque[_Change] = deque()
        self._floor = 0
        self._complete = False
        self._touched = 0
        self._shared: Shared | None = None
        self._moved = asyncio.Event()
        self._changed = asyncio.Event()

    @property
    def revision(self) -> Revision:
        return Revision(self._store.epoch, self.number)

    @property
    def cluster(self) -> ClusterSpec:
        """Raises HedgerowError before the configuration is in the store."""
        if self._cluster is None:
            raise HedgerowError("the store holds no configuration", "start a controller with --config")
        return self._cluster

    def modified(self, key: str) -> int:
        """The revision that changed the entry last, 0 when there is none: for a compare."""
        return self._modified.get(key, 0)

    async def run(self) -> None:
        """Follows the store; ends with an error only."""
        await self._load()
        after = max(0, self.number - HISTORY_REVISIONS)
        while True:
            try:
                await self._follow(after)
            except Compacted as gone:
                if gone.oldest > self.number:
                    log.warning("the store has forgotten what changed since revision %d: all is read anew", self.number)
                    await self._load()
                after = gone.oldest

    async def reached(self, number: int) -> None:
        """Waits until all changes up to that revision are seen here, and deltas can be made."""
        while not self._complete or self.number < number:
            await self._moved.wait()

    async def news(self, after: int) -> int:
        """Waits for a change that an agent may have to know above revision `after`; the newest one's revision."""
        while self.newest <= after:
            await self._changed.wait()
        return self.newest

    async def touched(self, after: int) -> int:
        """Waits for a change of anything that is kept here above revision `after`; the newest one's revision."""
        while self._touched <= after:
            await self._moved.wait()
        return self._touched

    def concerns(self, agent: AgentId, after: int) -> bool:
        """Whether anything that `agent` must know has changed since."""
        return any(change.agents is None or agent in change.agents for change in self._since(after))

    def delta(self, agent: AgentId, since: Revision | None) -> Delta | None:
        """From `since` to now, perhaps empty; None when only a snapshot will do."""
        if since is None or since.epoch != self._store.epoch or not self._complete:
            return None
        if not self._floor <= since.number <= self.number:
            return None
        sections: dict[str, dict[Any, Any]] = {CLUSTER: {}, NETWORKS: {}, AGENTS: {}, INSTANCES: {}, MEMBERS: {}}
        for change in reversed(self._since(since.number)):
            if change.agents is None or agent in change.agents:
                record = change.record
                foreign = isinstance(record, Instance) and record.agent != agent
                sections[change.section][change.identity] = None if foreign else record
        cluster, networks, agents, instances, members = sections.values()
        return Delta(self.revision, cluster.get(""), networks, agents, instances, members)

    def snapshot(self, agent: AgentId) -> bytes:
        """The frame of everything that `agent` must know. What is the same for all is packed once."""
        if self._shared is None:
            self._shared = share(self.cluster, self.networks, self.agents, self.members)
        own = {identity: instance for identity, instance in self.instances.items() if instance.agent == agent}
        return pack_state(self.revision, agent, self._shared, own)

    async def _load(self) -> None:
        found, number = await read_all(self._store, "/")
        self._cluster = self._shared = None
        self.networks, self.agents, self.instances, self._modified = {}, {}, {}, {}
        self.members, self.statuses, self.unreadable = {}, {}, {}
        for key, (value, modified) in found.items():
            self._take(Event(key, value, modified))
        self.number = self.newest = self._touched = number

    async def _follow(self, after: int) -> None:
        loaded = self.number
        self._window.clear()
        self._floor, self._complete = after, after == loaded
        pending: list[Event] = []
        self._wake(changed=True)
        async for item in self._store.watch("/", after=after):
            if isinstance(item, Event):
                pending.append(item)
                continue
            changes = [self._take(event) if event.revision > loaded else self._change(event) for event in pending]
            pending.clear()
            kept = [change for change in changes if change is not None]
            concerning = [change for change in kept if change.agents != ()]
            self._window.extend(concerning)
            while len(self._window) > WINDOW_CHANGES:
                self._floor = self._window.popleft().revision
            self.number = max(self.number, item.revision)
            self._complete = self._complete or item.revision >= loaded
            if kept:
                self._touched = max(self._touched, kept[-1].revision)
            if concerning:
                self.newest = max(self.newest, concerning[-1].revision)
            self._wake(changed=bool(concerning))

    def _wake(self, *, changed: bool) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
        if changed:
            self._changed.set()
            self._changed = asyncio.Event()

    def _since(self, after: int) -> list[_Change]:
        """The newest first."""
        return list(takewhile(lambda change: change.revision > after, reversed(self._window)))

    def _take(self, event: Event) -> _Change | None:
        """Into memory; what changed, if it was anything that is kept here."""
        change = self._change(event)
        if event.value is None:
            self._modified.pop(event.key, None)
        elif change is not None or event.key == ALLOTMENT or event.key in self.unreadable:
            self._modified[event.key] = event.revision
        if change is None:
            return None
        if change.section == INSTANCES:
            return self._take_instance(change)
        if change.section == STATUSES:
            _set(self.statuses, change)
            return change
        if change.section == CLUSTER:
            self._cluster = change.record if isinstance(change.record, ClusterSpec) else None
        else:
            sections: dict[str, dict[Any, Any]] = {NETWORKS: self.networks, AGENTS: self.agents, MEMBERS: self.members}
            _set(sections[change.section], change)
        self._shared = None
        return change

    def _take_instance(self, change: _Change) -> _Change:
        records = self.instances.get(InstanceId(change.identity)), change.record
        _set(self.instances, change)
        return replace(change, agents=tuple({record.agent for record in records if isinstance(record, Instance)}))

    def _change(self, event: Event) -> _Change | None:
        """None for what is not kept here, and for what cannot be read."""
        self.unreadable.pop(event.key, None)
        try:
            return _change(event)
        except BadInput as error:
            log.warning("%s of revision %d is left out: %s", event.key, event.revision, error)
            self.unreadable[event.key] = error.message
            return None


def _set(mapping: dict[Any, Any], change: _Change) -> None:
    if change.record is None:
        mapping.pop(change.identity, None)
    else:
        mapping[change.identity] = change.record


def _change(event: Event) -> _Change | None:
    """Raises BadInput."""
    for section, kind in _KINDS.items():
        if event.key.startswith(section):
            record = from_json(event.value, kind) if event.value is not None else None
            spec = record.spec if isinstance(record, Applied) else record
            concerned = () if section == STATUSES else None
            return _Change(event.revision, section, event.key.removeprefix(section), spec, concerned)
    return None


_KINDS: dict[str, Any] = {
    **{CLUSTER: Applied, NETWORKS: Network, AGENTS: Agent},
    **{INSTANCES: Instance, MEMBERS: Member, STATUSES: InstanceStatus},
}
