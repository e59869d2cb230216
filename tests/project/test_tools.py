"""Other people's judges, as tests: types, style, layers. And how quickly the command line is there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path

from project.conftest import ROOT

BIN = Path(sys.executable).parent
START_S = 0.4
"""CPU seconds of `hedgerow --version`: 0.08 here; with pydantic or fastapi it would be 0.2 to 0.6."""


def run(tool: str, *words: str) -> str:
    """What the tool says; empty when it is content."""
    done = subprocess.run([str(BIN / tool), *words], cwd=ROOT, text=True, capture_output=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


@contextmanager
def alone(name: str) -> Iterator[Path]:
    """A cache under build/, and nobody else in it: two runs at once would read each other's half-written files."""
    cache = ROOT / "build" / name
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield cache


def test_types_hold() -> None:
    with alone("mypy") as cache:
        assert run("mypy", "--cache-dir", str(cache)) == ""


def test_style_holds() -> None:
    assert run("ruff", "check", "--no-cache", "--quiet") == ""


def test_formatting_holds() -> None:
    assert run("ruff", "format", "--check", "--no-cache", "--quiet") == ""


def test_imports_point_down() -> None:
    assert run("lint-imports", "--no-cache") == ""


def test_the_command_line_starts_quickly() -> None:
    spent = []
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-m", "hedgerow.cli.main", "--version"], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        spent.append(used.ru_utime + used.ru_stime)
    assert min(spent) < START_S
