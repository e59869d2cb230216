"""Allow: what one group may send to another; an open network's group is its VNI, and it has a row with itself.

Ours: everything in the pinned map "allowed".   Needs: nothing.   Missing: refused, reason isolated between networks and
no_rule inside one.
"""

from __future__ import annotations

from collections.abc import Sequence

from hedgerow.agent.objects import Allowed, Crowded, Kind
from hedgerow.errors import HedgerowError
from hedgerow.kernel.flows import ALLOW_BOTH, MAX_RANGES, AllowFlag, AllowKey, AllowRow
from hedgerow.kernel.flows import Range as MapRange
from hedgerow.kernel.maps import Maps
from hedgerow.policy.groups import Range, Row
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Set


class Allow:
    kind = Kind.ALLOW

    def __init__(self, maps: Maps) -> None:
        self._allowed = maps.allowed

    def read(self) -> Rows:
        return {
            Key(self.kind, f"{pair.from_group} {pair.to_group}"): _record(row) for pair, row in self._allowed.items()
        }

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, self._apply)

    def _apply(self, op: Op) -> None:
        match op:
            case Set(_, _, Allowed(row)):
                self._allowed.put(_pair(op.key), _packed(row))
            case Set(_, _, Crowded()):
                raise HedgerowError(
                    f"more than {MAX_RANGES} ranges of ports between two groups of containers: what comes last in "
                    "config.yaml stays refused",
                    "write wider ranges, or fewer rules for the same containers",
                )
            case _:
                self._allowed.delete(_pair(op.key))


def _pair(key: Key) -> AllowKey:
    one, other = map(int, key.name.split())
    return AllowKey(one, other)


def _packed(row: Row) -> AllowRow:
    if row.both:
        return ALLOW_BOTH
    return AllowRow(ranges=tuple(MapRange(one.protocol, one.low, one.high, one.rule) for one in row.ranges))


def _record(row: AllowRow) -> Allowed:
    ranges = (Range(one.protocol, one.low, one.high, one.rule) for one in row.ranges)
    return Allowed(Row(AllowFlag.BOTH in row.flags, tuple(ranges)))
