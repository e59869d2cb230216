"""The firewall: one nftables table for what needs the state of a connection: masquerade, host services, the tunnel.

nft shows rules in words of its own, so what it showed after we wrote is remembered; anything else is not ours any more.
An agent that starts writes the table once, since it cannot know what wrote the one that is there. While the kernel's
number of the last transaction is the same, nothing was changed, and nft is not asked.
Ours: table inet hedgerow.   Needs: nothing.   Missing: nothing comes into containers from the host's stack, for want of
its mark, and nothing gets out masqueraded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hedgerow.agent.objects import FIREWALL, TABLE, Kind, Ruleset
from hedgerow.errors import HedgerowError
from hedgerow.kernel import nft
from hedgerow.policy.firewall import NOT_OF_THE_TEXT
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Op, Set

_TRIES = 5


class Firewall:
    """`along`: the rows of other kinds that are lost with the table and are written back in the same transaction."""

    kind = Kind.FIREWALL

    def __init__(self, along: Callable[[], str]) -> None:
        self._along = along
        self._written = Ruleset("")
        self._shown: str | None = None
        self._seen = -1

    def read(self) -> Rows:
        now = nft.generation()
        if now == self._seen:
            return {FIREWALL: self._written}
        shown = nft.listing("inet", TABLE, without=NOT_OF_THE_TEXT)
        if shown is None:
            return {}
        if shown != self._shown:
            return {FIREWALL: Ruleset("")}
        self._seen = now  # what came in between shows in the next number
        return {FIREWALL: self._written}

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, self._apply)

    def _apply(self, op: Op) -> None:
        match op:
            case Set(_, _, Ruleset(text) as wanted):
                self._seen, self._shown = -1, None
                for _ in range(_TRIES):
                    if self._write(text):
                        self._written = wanted
                        return
                raise HedgerowError("somebody else changes rules again and again", "see this agent's log for who")
            case _:
                nft.delete_table("inet", TABLE)

    def _write(self, text: str) -> bool:
        """Whether nobody else changed anything from before it was written until it was looked at: only then is what nft
        shows what was written.
        """
        before = nft.generation()
        nft.load(text + self._along())
        shown = nft.listing("inet", TABLE, without=NOT_OF_THE_TEXT)
        if nft.generation() != before + 1:
            return False
        self._shown = shown
        return True
