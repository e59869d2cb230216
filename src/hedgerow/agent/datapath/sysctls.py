"""Kernel parameters: the host forwards.

Ours: by name; never taken back, for others may have come to rely on them.   Needs: nothing.
Missing: containers cannot reach the outside.
"""

from __future__ import annotations

from collections.abc import Sequence

from hedgerow.agent.objects import Kind, Sysctl
from hedgerow.kernel import sysctl
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Set

NAMES = ("ipv4/ip_forward",)


class Sysctls:
    kind = Kind.SYSCTL

    def read(self) -> Rows:
        values = {name: sysctl.read(name) for name in NAMES}
        return {Key(self.kind, name): Sysctl(value) for name, value in values.items() if value is not None}

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, _apply)


def _apply(op: Op) -> None:
    match op:
        case Set(Key(_, name), _, Sysctl(value)):
            sysctl.write(name, value)
