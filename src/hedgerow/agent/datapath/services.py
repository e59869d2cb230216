"""Services: what a network's containers may ask of hosts beside DNS and ping.

Ours: everything in the pinned map "host_services".   Needs: nothing.   Missing: refused, reason to_host.
"""

from __future__ import annotations

from collections.abc import Sequence

from hedgerow.agent.objects import Kind, Service
from hedgerow.kernel.flows import ServiceFlag, ServiceKey, ServiceRow
from hedgerow.kernel.maps import Maps
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Set


class Services:
    kind = Kind.HOST_SERVICE

    def __init__(self, maps: Maps) -> None:
        self._services = maps.host_services

    def read(self) -> Rows:
        return {
            Key(self.kind, f"{key.vni} {key.protocol} {key.port}"): Service(
                ServiceFlag.OWN_HOST in row.where, ServiceFlag.CONTROLLERS in row.where
            )
            for key, row in self._services.items()
        }

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, self._apply)

    def _apply(self, op: Op) -> None:
        key = ServiceKey(*map(int, op.key.name.split()))
        match op:
            case Set(_, _, Service(own_host, controllers)):
                where = ServiceFlag.OWN_HOST if own_host else ServiceFlag.NONE
                where |= ServiceFlag.CONTROLLERS if controllers else ServiceFlag.NONE
                self._services.put(key, ServiceRow(where))
            case _:
                self._services.delete(key)
