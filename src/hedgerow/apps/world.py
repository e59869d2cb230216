"""Reads from the store what the scheduler and the API look at, all of it as of one revision.

Also which revision changed each record last: every write of the scheduler compares with that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from hedgerow.model.agent import Agent, AgentId
from hedgerow.model.app import AppId, Instance, InstanceStatus
from hedgerow.model.network import Network
from hedgerow.store.base import Entry, Store
from hedgerow.wire.codec import readable

from .placement import World
from .records import AGENTS, APPS, BACKOFFS, INSTANCES, NETWORKS, STATUSES, App, Backoff

T = TypeVar("T")
PREFIXES = (APPS + "/", INSTANCES, STATUSES, BACKOFFS + "/", AGENTS, NETWORKS)


@dataclass(frozen=True, slots=True)
class Reading:
    """`modified`: of each key that was read, the revision that changed it last. `damaged`: keys of records that could
    not be read, and why.
    """

    world: World
    modified: Mapping[str, int]
    revision: int
    damaged: Mapping[str, str]


async def entries(store: Store, prefix: str, at: int | None = None) -> tuple[list[Entry], int]:
    """All entries under the prefix, and the revision of that moment. Raises Compacted."""
    found: list[Entry] = []
    more = True
    while more:
        page = await store.list(prefix, at=at, after=found[-1].key if found else "")
        found += page.entries
        at, more = page.revision, page.more
    return found, at or 0


async def read(store: Store, silent_s: Callable[[Collection[AgentId]], Mapping[AgentId, float]]) -> Reading:
    """Raises Compacted when the store was too busy meanwhile; then read again."""
    rows: dict[str, list[Entry]] = {}
    revision: int | None = None
    for prefix in PREFIXES:
        rows[prefix], revision = await entries(store, prefix, revision)

    damaged: dict[str, str] = {}

    def records(prefix: str, kind: type[T]) -> dict[str, T]:
        found, unreadable = readable({entry.key: entry.value for entry in rows[prefix]}, kind)
        damaged.update(unreadable)
        return found

    agents = {each.id: each for each in records(AGENTS, Agent).values()}
    world = World(
        apps={each.id: each for each in records(APPS + "/", App).values()},
        instances={each.id: each for each in records(INSTANCES, Instance).values()},
        statuses={each.id: each for each in records(STATUSES, InstanceStatus).values()},
        backoffs={AppId(key.removeprefix(BACKOFFS)): each for key, each in records(BACKOFFS + "/", Backoff).items()},
        agents=agents,
        networks={each.name: each.spec for each in records(NETWORKS, Network).values()},
        silent_s=silent_s(agents),
        damaged=damaged.keys(),
    )
    modified = {entry.key: entry.modified for page in rows.values() for entry in page}
    return Reading(world, modified, revision or 0, damaged)
