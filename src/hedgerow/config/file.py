"""Files of ours that are one flat mapping, such as agent.yaml: read whole, or every problem with its line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hedgerow.errors import BadInput

from . import yaml
from .problem import ConfigProblems
from .settings import Notes, Section, Setting, read_section


def read_file(path: Path, settings: Sequence[Setting[Any]], needed: Sequence[Setting[Any]]) -> Section:
    """Every one of the `needed` settings is in it. Raises ConfigProblems, and BadInput when it cannot be read."""
    notes = Notes(str(path))
    document = yaml.parse(read_text(path))
    for fault in document.faults:
        notes.wrong(fault.line, fault.path, fault.value, fault.message, fault.cure)
    if not isinstance(document.root, yaml.Mapping):
        if not notes.problems:
            notes.wrong(1, "", "", "keys and values are needed", f"write {needed[0].key}: at least")
        raise ConfigProblems(notes.problems)
    section = read_section(document.root, "", settings, notes)
    for setting in needed:
        if not section.has(setting):
            told = f"{setting.key} is missing"
            notes.wrong(document.root.line, "", "", told, f"write {setting.key}: and {setting.takes}")
    if notes.problems:
        raise ConfigProblems(notes.problems)
    return section


def read_text(path: Path) -> str:
    """At most one byte more than may be in it, so that a file without end is not read to the end."""
    try:
        with path.open("rb") as stream:
            return stream.read(yaml.MAX_BYTES + 1).decode("utf-8-sig")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}", "name a file that exists and may be read") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        told = f"{path}:{line}: byte {error.object[error.start]:#04x} is no UTF-8"
        raise BadInput(told, "save it as UTF-8") from error
