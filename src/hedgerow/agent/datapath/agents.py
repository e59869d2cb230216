"""Agents: the hosts of the cluster by their underlay addresses, this one included.

Tunnel packets of others are dropped, and to these no container may send any.
Ours: everything in the pinned map "agents".   Needs: nothing.   Missing: nothing arrives from that host.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

from hedgerow.agent.objects import Kind, KnownAgent
from hedgerow.kernel.maps import AgentRow, Maps
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Set


class Agents:
    kind = Kind.AGENT

    def __init__(self, maps: Maps) -> None:
        self._agents = maps.agents

    def read(self) -> Rows:
        return {Key(self.kind, str(address)): KnownAgent() for address, _ in self._agents.items()}

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, self._apply)

    def _apply(self, op: Op) -> None:
        address = IPv4Address(op.key.name)
        if isinstance(op, Set):
            self._agents.put(address, AgentRow())
        else:
            self._agents.delete(address)
