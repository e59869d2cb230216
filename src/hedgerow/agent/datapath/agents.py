"""Agents: the hosts of the cluster by their underlay addresses, this one included, and those of controllers.

Tunnel packets of others than agents are dropped, to none of these may a container send any, and of their services it
may reach no more than `host_services` says.
Ours: everything in the pinned map "agents".   Needs: nothing.   Missing: nothing arrives from that host.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from hedgerow.agent.objects import Kind, KnownAgent
from hedgerow.kernel.maps import AgentFlag, AgentRow, Maps
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Set


class Agents:
    kind = Kind.AGENT

    def __init__(self, maps: Maps) -> None:
        self._agents = maps.agents

    def read(self) -> Rows:
        return {Key(self.kind, str(address)): _record(row) for address, row in self._agents.items()}

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, self._apply)

    def _apply(self, op: Op) -> None:
        address = ip_address(op.key.name)
        match op:
            case Set(_, _, KnownAgent(tunnels, controls)):
                flags = AgentFlag.NONE if tunnels else AgentFlag.NO_TUNNEL
                self._agents.put(address, AgentRow(flags | (AgentFlag.CONTROLLER if controls else AgentFlag.NONE)))
            case _:
                self._agents.delete(address)


def _record(row: AgentRow) -> KnownAgent:
    return KnownAgent(AgentFlag.NO_TUNNEL not in row.flags, AgentFlag.CONTROLLER in row.flags)
