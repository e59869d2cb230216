"""Members: the groups of endpoints of networks with walls inside, on whatever host, by their addresses.

Only of those whom some rule tells apart; everyone else is in its network's own group, which the prefixes have.
Ours: everything in the pinned map "members".   Needs: nothing.   Missing: the endpoint is treated as one that no rule
means, so what a rule opens for it is refused, reason no_rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from hedgerow.agent.objects import Grouped, Kind
from hedgerow.kernel.flows import MemberRow
from hedgerow.kernel.maps import Maps
from hedgerow.kernel.packing import IPAddress
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Set

_BATCH = 4096


class Members:
    kind = Kind.MEMBER

    def __init__(self, maps: Maps) -> None:
        self._members = maps.members

    def read(self) -> Rows:
        return {Key(self.kind, str(address)): Grouped(row.group) for address, row in self._members.items()}

    def apply(self, ops: Sequence[Op]) -> Faults:
        faults: dict[Key, Exception] = {}
        for some in _batches(ops):
            if all(isinstance(op, Set) for op in some):
                try:
                    self._members.put_many(dict(map(_row, some)))
                    continue
                except OSError:
                    pass  # one by one, to know which
            faults.update(one_by_one(some, self._apply))
        return faults

    def _apply(self, op: Op) -> None:
        if isinstance(op, Set):
            self._members.put(*_row(op))
        else:
            self._members.delete(ip_address(op.key.name))


def _row(op: Op) -> tuple[IPAddress, MemberRow]:
    assert isinstance(op, Set)
    assert isinstance(op.new, Grouped)
    return ip_address(op.key.name), MemberRow(op.new.group)


def _batches(ops: Sequence[Op]) -> Iterator[Sequence[Op]]:
    return (ops[start : start + _BATCH] for start in range(0, len(ops), _BATCH))
