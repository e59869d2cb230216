"""Which chains of nftables in this namespace may drop something at a hook: whose they are does not matter.

Told by their rules, not by trying: a chain that drops other packets is named as well. So it explains a silence, and is
no fault by itself.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

_TIMEOUT_S = 2.0
_VERDICTS = ("drop", "reject")
_LEGACY = {"ip": Path("/proc/thread-self/net/ip_tables_names"), "ip6": Path("/proc/thread-self/net/ip6_tables_names")}
_REJECTING = ("REJECT", "DROP")

ChainKey = tuple[str, str, str]


def dropping(hooks: Collection[str], *, but: str = "") -> tuple[str, ...]:
    """The base chains at these hooks that drop, in words; those of the table `but` are left out. Empty also when nft
    cannot be asked.
    """
    try:
        done = subprocess.run(
            ["nft", "-j", "list", "ruleset"], capture_output=True, timeout=_TIMEOUT_S, check=True, text=True
        )
        rows = json.loads(done.stdout)["nftables"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        rows = []
    return (*_chains(rows, hooks, but), *_legacy())


def has_table(family: str, name: str) -> bool:
    """Whether this namespace has the table; yes also when nft cannot be asked."""
    try:
        words = ["nft", "-t", "list", "table", family, name]
        done = subprocess.run(words, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return True
    return not done.returncode


def _chains(rows: list[dict[str, Any]], hooks: Collection[str], but: str) -> list[str]:
    bases = [row["chain"] for row in rows if row.get("chain", {}).get("hook") in hooks]
    rules: dict[ChainKey, list[Any]] = {}
    for row in rows:
        if "rule" in row:
            rules.setdefault(_key(row["rule"], row["rule"]["chain"]), []).append(row["rule"].get("expr", []))
    found = []
    for base in bases:
        if base["table"] == but:
            continue
        why = "policy drop" if base.get("policy") == "drop" else ""
        why = why or ("has a rule that drops" if _drops(_key(base, base["name"]), rules, set()) else "")
        if why:
            found.append(f"{base['family']} {base['table']}, chain {base['name']}: {why}")
    return found


def _key(row: Mapping[str, Any], chain: str) -> ChainKey:
    return row["family"], row["table"], chain


def _drops(chain: ChainKey, rules: Mapping[ChainKey, list[Any]], seen: set[ChainKey]) -> bool:
    if chain in seen:
        return False
    seen.add(chain)
    for expression in rules.get(chain, []):
        for statement in expression:
            if _is_drop(statement):
                return True
            target = next((statement[word]["target"] for word in ("jump", "goto") if word in statement), None)
            if target and _drops((*chain[:2], target), rules, seen):
                return True
    return False


def _is_drop(statement: Mapping[str, Any]) -> bool:
    """iptables' own program writes its targets as `xt`."""
    if any(word in statement for word in _VERDICTS):
        return True
    return isinstance(statement.get("xt"), dict) and statement["xt"].get("name") in _REJECTING


def _legacy() -> list[str]:
    """Rules of iptables-legacy are not seen by nft."""
    found = []
    for family, path in _LEGACY.items():
        try:
            tables = path.read_text().split()
        except OSError:
            continue
        found += [f"{family}tables (legacy), table {table}: its rules are not looked at" for table in tables]
    return found
