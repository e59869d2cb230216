"""Barred: the links of this host that no container's packet may leave by, other engines' bridges.

The firewall refuses the same; this holds while its table is away.
Ours: everything in the pinned map "barred".   Needs: nothing.   Missing: the firewall alone keeps containers from
Docker's own networks.
"""

from __future__ import annotations

from collections.abc import Sequence

from hedgerow.agent.objects import Barrier, Kind
from hedgerow.kernel.maps import Maps
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Set


class Barred:
    kind = Kind.BARRED

    def __init__(self, maps: Maps) -> None:
        self._barred = maps.barred

    def read(self) -> Rows:
        return {Key(self.kind, str(index)): Barrier() for index, _ in self._barred.items()}

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, self._apply)

    def _apply(self, op: Op) -> None:
        index = int(op.key.name)
        if isinstance(op, Set):
            self._barred.put(index, 1)
        else:
            self._barred.delete(index)
