"""DOCKER-USER: where Docker lets others say what passes before its own rules, and before its FORWARD policy DROP.

What our table has judged carries its mark; two rules let that pass, by hr-host in and out. Without our table nothing
carries it, and Docker's own rules hold for our containers as for anybody. Where Docker made no such chain (it is not
there, or works with nftables itself and drops nothing of others) there is nothing to do.
Ours: rules with the comment hedgerow.   Needs: nothing.   Missing: where Docker set the policy DROP, containers reach
no outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hedgerow.agent.objects import HOST_LINK, Kind, Passed
from hedgerow.kernel import iptables, nft
from hedgerow.policy.firewall import JUDGED_MARK
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Set

CHAIN = "DOCKER-USER"
_COMMENT = "--comment hedgerow "
_MARK = f"{JUDGED_MARK:#x}/{JUDGED_MARK:#x}"


def _rule(way: Literal["-i", "-o"]) -> str:
    """As iptables prints it."""
    return f"{way} {HOST_LINK} -m mark --mark {_MARK} -m comment {_COMMENT}-j ACCEPT"


RULES = (_rule("-i"), _rule("-o"))


class DockerUser:
    kind = Kind.DOCKER_USER

    def __init__(self) -> None:
        self._is_legacy: dict[str, bool] = {}
        self._met_at: dict[str, int] = {}

    def read(self) -> Rows:
        return {Key(self.kind, family): Passed() for family in iptables.PROGRAMS if self._is_met(family)}

    def _is_met(self, family: str) -> bool:
        """Over nftables only when something changed since it was so."""
        if not iptables.has_program(family):
            return True
        if family not in self._is_legacy:
            self._is_legacy[family] = iptables.is_legacy(family)
        if self._is_legacy[family]:
            return not iptables.has_legacy_tables(family) or _has_rules(family)
        now = nft.generation()
        if self._met_at.get(family) == now:
            return True
        is_met = _has_rules(family)
        if is_met:
            self._met_at[family] = now
        return is_met

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, _apply)


def _has_rules(family: str) -> bool:
    rules = iptables.rules(family, CHAIN)
    return rules is None or sorted(rule for rule in rules if _COMMENT in rule) == sorted(RULES)


def _apply(op: Op) -> None:
    family = op.key.name
    if not iptables.has_program(family):
        return
    present = iptables.rules(family, CHAIN)
    if present is None:
        return
    missing = list(RULES) if isinstance(op, Set) else []
    for rule in present:
        if rule in missing:
            missing.remove(rule)
        elif _COMMENT in rule:
            iptables.delete(family, CHAIN, rule)
    for rule in missing:
        iptables.insert(family, CHAIN, rule)
