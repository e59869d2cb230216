"""What the house rules look at: the files of the checkout, and its Python as syntax trees."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "hedgerow"


@cache
def files() -> tuple[Path, ...]:
    """Every file of the project, those not yet committed among them; nothing that is built or ignored."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    names = [name for name in done.stdout.decode().split("\0") if name]
    return tuple(path for name in sorted(set(names)) if (path := ROOT / name).is_file())


def modules(under: Path = SOURCE) -> list[Path]:
    return [path for path in files() if path.suffix == ".py" and path.is_relative_to(under)]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))
