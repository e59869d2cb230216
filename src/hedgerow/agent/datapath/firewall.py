"""The firewall: one nftables table for what needs the state of a connection: masquerade, host services, the tunnel.

nft shows rules in words of its own, so what it showed after we wrote is remembered; anything else is not ours any more.
An agent that starts writes the table once, since it cannot know what wrote the one that is there.
Ours: table inet hedgerow.   Needs: nothing.   Missing: containers reach the host's services, and no outside.
"""

from __future__ import annotations

from collections.abc import Sequence

from hedgerow.agent.objects import FIREWALL, TABLE, Kind, Ruleset
from hedgerow.kernel import nft
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Op, Set


class Firewall:
    kind = Kind.FIREWALL

    def __init__(self) -> None:
        self._written = Ruleset("")
        self._shown: str | None = None

    def read(self) -> Rows:
        shown = nft.listing("inet", TABLE)
        if shown is None:
            return {}
        return {FIREWALL: self._written if shown == self._shown else Ruleset("")}

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, self._apply)

    def _apply(self, op: Op) -> None:
        match op:
            case Set(_, _, Ruleset(text) as wanted):
                nft.load(text)
                self._written, self._shown = wanted, nft.listing("inet", TABLE)
            case _:
                nft.delete_table("inet", TABLE)
