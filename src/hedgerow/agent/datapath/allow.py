"""Allow: the pairs of networks that may talk, each network with itself among them.

Ours: everything in the pinned map "allowed".   Needs: nothing.   Missing: refused, reason isolated.
"""

from __future__ import annotations

from collections.abc import Sequence

from hedgerow.agent.objects import Allowed, Kind
from hedgerow.kernel.maps import AllowKey, Maps
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Set


class Allow:
    kind = Kind.ALLOW

    def __init__(self, maps: Maps) -> None:
        self._allowed = maps.allowed

    def read(self) -> Rows:
        return {Key(self.kind, f"{pair.from_vni} {pair.to_vni}"): Allowed() for pair, _ in self._allowed.items()}

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, self._apply)

    def _apply(self, op: Op) -> None:
        one, other = map(int, op.key.name.split())
        if isinstance(op, Set):
            self._allowed.put(AllowKey(one, other), 1)
        else:
            self._allowed.delete(AllowKey(one, other))
