"""/etc/hedgerow/cli.yaml: which controller the command line of this machine speaks to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hedgerow.config.file import read_file
from hedgerow.config.problem import Wrong
from hedgerow.config.settings import Setting, text
from hedgerow.config.yaml import Node


def _url(node: Node) -> str:
    written = text(node)
    if not written.startswith("http://"):
        raise Wrong("not a URL", "write it as http://127.0.0.1:8080")
    return written.rstrip("/")


def _path(node: Node) -> Path | None:
    return Path(text(node))


API = Setting("api", _url, "", "URL", "The controller.")
TOKEN_FILE = Setting("token_file", _path, None, "path", "File that holds the token.")
ALL: tuple[Setting[Any], ...] = (API, TOKEN_FILE)


def read_settings(path: Path) -> tuple[str, Path | None]:
    """URL and token file. Raises ConfigProblems, BadInput when the file cannot be read."""
    section = read_file(path, ALL, needed=(API,))
    return section.get(API), section.get(TOKEN_FILE)
