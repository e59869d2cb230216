"""The one protocol behind which SQLite, etcd and a dictionary look alike.

Keys are paths (`/networks/<id>`), values bytes. Every commit has a revision one higher than the last; an entry knows
the revision that made it and the one that changed it last. Nothing else orders anything: a held lock is never trusted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from hedgerow.errors import HedgerowError

MAX_OPERATIONS = 100
MAX_VALUE_BYTES = 512 << 10


class Compacted(HedgerowError):
    """The history before some revision is gone: list again and watch from there."""

    def __init__(self, asked: int, oldest: int) -> None:
        super().__init__(f"revision {asked} is gone, the oldest kept is {oldest}", "list again and watch from there")
        self.oldest = oldest


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    value: bytes
    created: int
    modified: int


@dataclass(frozen=True, slots=True)
class Page:
    """Entries in the order of their keys, all as of `revision`. `more`: go on with `after` = the last key."""

    entries: tuple[Entry, ...]
    revision: int
    more: bool


@dataclass(frozen=True, slots=True)
class Compare:
    """The entry was last changed at `modified`; 0: there is none."""

    key: str
    modified: int


@dataclass(frozen=True, slots=True)
class Put:
    """With a lease, the entry goes when the lease ends."""

    key: str
    value: bytes
    lease: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


Operation = Put | Delete


@dataclass(frozen=True, slots=True)
class Event:
    """`value` is None when the key was deleted."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True)
class Bookmark:
    """All events up to `revision` have been sent."""

    revision: int


class Store(Protocol):
    """Keys of one revision are seen together or not at all."""

    @property
    def epoch(self) -> int: ...

    async def get(self, key: str) -> Entry | None: ...

    async def list(self, prefix: str, *, at: int | None = None, after: str = "", limit: int = 1000) -> Page:
        """Raises Compacted when `at` is older than what is kept."""
        ...

    async def commit(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> int:
        """All or nothing; the new revision once it is durable.

        Raises Conflict when a compare fails, BadInput beyond MAX_OPERATIONS or MAX_VALUE_BYTES.
        """
        ...

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[Event | Bookmark]:
        """Every event with a revision above `after`, in order, none twice. Raises Compacted."""
        ...

    async def grant(self, ttl_s: float) -> int: ...

    async def keep_alive(self, lease: int) -> None:
        """Raises NotFound when the lease has ended."""
        ...

    async def revoke(self, lease: int) -> None: ...

    async def close(self) -> None: ...
