"""From desired and actual to the operations that make one the other. Pure.

A kernel object (or a Docker network, a conflist, an instance) is a row: a key and a record that can be compared and
printed. The same operations serve the loop and the moment when a container starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """`kind` is a member of an IntEnum whose order is the order of creation."""

    kind: IntEnum
    name: str

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} {self.name}"


@dataclass(frozen=True, slots=True)
class Set:
    """Make it so: an addition when `old` is None, else a change. Repeatable."""

    key: Key
    old: object | None
    new: object

    def __str__(self) -> str:
        return f"{'+' if self.old is None else '~'} {self.key} {self.new}".rstrip()


@dataclass(frozen=True, slots=True)
class Remove:
    """Repeatable: what is gone already is removed."""

    key: Key
    old: object

    def __str__(self) -> str:
        return f"- {self.key} {self.old}".rstrip()


Op = Set | Remove


@dataclass(frozen=True, slots=True)
class Step:
    """Operations on one kind that may be done in one go."""

    kind: IntEnum
    ops: tuple[Op, ...]


def plan(desired: Mapping[Key, object], actual: Mapping[Key, object], *, may_remove: bool) -> list[Step]:
    """The shortest list of steps that turns `actual` into `desired`, in an order the kernel accepts.

    Additions and changes first, in order of creation; removals after them, in reverse. Without `may_remove` (a saved
    snapshot may be old) nothing is removed.
    """
    sets = sorted((Set(k, actual.get(k), v) for k, v in desired.items() if actual.get(k) != v), key=lambda op: op.key)
    gone = sorted((Remove(k, v) for k, v in actual.items() if k not in desired), key=lambda op: op.key, reverse=True)
    ordered: list[Op] = [*sets, *(gone if may_remove else ())]
    return [Step(kind, tuple(ops)) for (kind, _), ops in groupby(ordered, key=lambda op: (op.key.kind, type(op)))]
