"""Prefixes: what lies behind an address. A network's subnet, our part of it, another agent's part, a host's address.

A packet for another agent's part leaves inside headers that are written here once, the template of that agent.
Ours: everything in the pinned map "prefixes".   Needs: nothing.   Missing: a network's addresses are the outside, which
the firewall refuses; another agent's part is dropped, reason no_endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Network

from hedgerow.agent.objects import Kind, Local, PrefixOf, PrefixRecord
from hedgerow.kernel.maps import IPPrefix, Maps, PrefixKind, PrefixRow, tunnel_template
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Set

_BATCH = 4096


class Prefixes:
    """`local` is this host, as of now."""

    kind = Kind.PREFIX

    def __init__(self, maps: Maps, local: Callable[[], Local]) -> None:
        self._prefixes = maps.prefixes
        self._local = local

    def read(self) -> Rows:
        return {Key(self.kind, str(prefix)): self._record(row) for prefix, row in self._prefixes.items()}

    def apply(self, ops: Sequence[Op]) -> Faults:
        faults: dict[Key, Exception] = {}
        for some in _batches(ops):
            if all(isinstance(op, Set) for op in some):
                try:
                    self._prefixes.put_many(dict(map(self._row, some)))
                    continue
                except OSError:
                    pass  # one by one, to know which
            faults.update(one_by_one(some, self._apply))
        return faults

    def _apply(self, op: Op) -> None:
        if isinstance(op, Set):
            self._prefixes.put(*self._row(op))
        else:
            self._prefixes.delete(IPv4Network(op.key.name))

    def _row(self, op: Op) -> tuple[IPPrefix, PrefixRow]:
        assert isinstance(op, Set)
        assert isinstance(op.new, PrefixRecord)
        record, template = op.new, b""
        if record.agent is not None:
            template = tunnel_template(self._local().underlay, record.agent, self._local().tunnel_port)
        hop = record.agent if record.on_link else None
        return IPv4Network(op.key.name), PrefixRow(PrefixKind(record.kind), record.vni, record.agent, template, hop)

    def _record(self, row: PrefixRow) -> PrefixRecord:
        """A template of another underlay address or port makes the row one of no agent, which it is set anew for."""
        agent = row.agent
        if agent is not None:
            right = tunnel_template(self._local().underlay, agent, self._local().tunnel_port)
            agent = agent if row.template == right else None
        return PrefixRecord(PrefixOf(row.kind), row.vni, agent, on_link=row.next_hop is not None)


def _batches(ops: Sequence[Op]) -> Iterator[Sequence[Op]]:
    return (ops[start : start + _BATCH] for start in range(0, len(ops), _BATCH))
