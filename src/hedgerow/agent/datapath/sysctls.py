"""Kernel parameters: the host forwards, by the links that containers' packets take.

Writing the one of all links sets each, and each can be turned off by itself. What rp_filter is does not matter, for
containers' packets come and go by one link. A host that forwards IPv6 no longer listens to the routers of its own LAN,
from which it may have its way out: links that do so now are told to go on first.
Ours: by name; never taken back, for others may have come to rely on them.   Needs: nothing.
Missing: containers cannot reach the outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hedgerow.agent.objects import FORWARDING6, HOST_LINK, Kind, Sysctl
from hedgerow.kernel import sysctl
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Set


class Sysctls:
    """`names` of those that are wanted, as of now."""

    kind = Kind.SYSCTL

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self._names = names

    def read(self) -> Rows:
        values = {name: sysctl.read(name) for name in self._names()}
        return {Key(self.kind, name): Sysctl(value) for name, value in values.items() if value is not None}

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, _apply)


def _apply(op: Op) -> None:
    match op:
        case Set(Key(_, name), _, Sysctl(value)):
            if name in FORWARDING6:
                sysctl.check_ipv6(HOST_LINK)
                sysctl.keep_listening_to_routers()
            sysctl.write(name, value)
