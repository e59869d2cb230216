"""Prefixes: what lies behind an address. A network's subnet, our part of it, another agent's part, a host's address.

A packet for another agent's part leaves inside headers that are written here once, the template of that agent.
Ours: everything in the pinned map "prefixes".   Needs: nothing.   Missing: a network's addresses are the outside, which
the firewall refuses; another agent's part is dropped, reason no_endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, ip_network

from hedgerow.agent.objects import Kind, Local, PrefixOf, PrefixRecord
from hedgerow.kernel.maps import Maps, PrefixKind, PrefixRow, tunnel_template
from hedgerow.kernel.packing import IPAddress, IPPrefix
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
            self._prefixes.delete(ip_network(op.key.name))

    def _row(self, op: Op) -> tuple[IPPrefix, PrefixRow]:
        assert isinstance(op, Set)
        assert isinstance(op.new, PrefixRecord)
        record = op.new
        template = self._template(record.agent)
        hop = record.agent if record.on_link and isinstance(record.agent, IPv4Address) else None
        row = PrefixRow(PrefixKind(record.kind), record.vni, record.agent, template, hop, record.group)
        return ip_network(op.key.name), row

    def _record(self, row: PrefixRow) -> PrefixRecord:
        """A template of another underlay address or port makes the row one of no agent, which it is set anew for."""
        agent = row.agent
        if row.template != self._template(agent):
            agent = None
        return PrefixRecord(PrefixOf(row.kind), row.vni, agent, row.next_hop is not None, row.group)

    def _template(self, agent: IPAddress | None) -> bytes:
        """Only the fast way has one, which is IPv4's."""
        local = self._local()
        if not (isinstance(agent, IPv4Address) and isinstance(local.underlay, IPv4Address)):
            return b""
        return tunnel_template(local.underlay, agent, local.tunnel_port)


def _batches(ops: Sequence[Op]) -> Iterator[Sequence[Op]]:
    return (ops[start : start + _BATCH] for start in range(0, len(ops), _BATCH))
