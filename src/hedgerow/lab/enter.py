"""Commands inside a node: in its namespaces and in its control groups, as if its supervisor had started them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import NoReturn

from .cgroups import groups_of
from .processes import supervisor
from .state import Record
from .supervisor import ENVIRONMENT
from .topology import STATE

KEPT = ("TERM", "COLORTERM", "LANG", "NO_COLOR")
JOIN = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit; shift; done; shift; exec nsenter "$@"'


def words(pid: int, command: Sequence[str]) -> list[str]:
    """The command as run from the machine: in all that is the node's whose supervisor has this pid."""
    namespaces = ["--target", str(pid), "--mount", "--net", "--uts", "--pid", "--cgroup", "--wd=/"]
    return ["sh", "-c", JOIN, "sh", *map(str, groups_of(pid)), "--", *namespaces, "--", *command]


def environment() -> dict[str, str]:
    return {key: os.environ[key] for key in KEPT if key in os.environ} | ENVIRONMENT


def replace_with(record: Record, member: str, command: Sequence[str]) -> NoReturn:
    """`lab exec`: this process becomes the command. Raises NotFound for a node that is not up."""
    os.execvpe("sh", words(supervisor(STATE / record.name, member), command), environment())


def run(pid: int, *command: str, timeout_s: float = 60, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command in a node to its end and returns both outputs; an exit status is no error here."""
    return subprocess.run(
        words(pid, command),
        input=text,
        text=True,
        capture_output=True,
        timeout=timeout_s,
        env=environment(),
        check=False,
    )
