"""iptables by its own program: for a chain that belongs to somebody else, in the words of its owner.

There are two kinds in the world. Over nftables a chain shows in the transactions of nft (`kernel.nft.generation`); the
old one has tables of its own, and asking for one that is not there would load its module, so it is only asked where it
is in use already.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from hedgerow.errors import HedgerowError

from . import commands

PROGRAMS = {"ip": "iptables", "ip6": "ip6tables"}
"""By the family's name in nftables."""

_NO_CHAIN = ("No chain", "does not exist", "is incompatible")
"""The last: what iptables 1.8.9 over nftables says of a chain that is not there."""

_WAIT_FOR_LOCK_S = 5


def is_legacy(family: str) -> bool:
    """Whether this host's iptables is the old one. Raises HedgerowError when the program does not run."""
    return "nf_tables" not in _run(family, "-V")


def has_program(family: str) -> bool:
    return shutil.which(PROGRAMS[family]) is not None


def has_legacy_tables(family: str) -> bool:
    """Whether anybody used the old kind in the thread's namespace."""
    names = Path(f"/proc/net/{'ip' if family == 'ip' else 'ip6'}_tables_names")
    return names.exists() and "filter" in names.read_text().split()


def rules(family: str, chain: str) -> list[str] | None:
    """The rules of a chain of the filter table, each as it would be typed after `-A CHAIN`. None: no such chain."""
    try:
        shown = _run(family, "-w", str(_WAIT_FOR_LOCK_S), "-S", chain)
    except HedgerowError as error:
        if any(words in error.message for words in _NO_CHAIN):
            return None
        raise
    mark = f"-A {chain} "
    return [line.removeprefix(mark) for line in shown.splitlines() if line.startswith(mark)]


def insert(family: str, chain: str, rule: str) -> None:
    """As the first of the chain. Raises HedgerowError."""
    _run(family, "-w", str(_WAIT_FOR_LOCK_S), "-I", chain, *shlex.split(rule))


def delete(family: str, chain: str, rule: str) -> None:
    _run(family, "-w", str(_WAIT_FOR_LOCK_S), "-D", chain, *shlex.split(rule))


def _run(family: str, *arguments: str) -> str:
    return commands.run((PROGRAMS[family], *arguments), cure="apt-get install iptables")
