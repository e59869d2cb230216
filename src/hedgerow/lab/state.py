"""What is known of a lab between commands: one file in its directory, written by rename. Readable by root only."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field

from hedgerow.errors import BadInput, NotFound, Refused

from .topology import STATE

DEFAULT_NAME = "lab"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A lab as `up` wrote it down. `complete` is false while `up` runs, and stays so when it was interrupted."""

    name: str
    complete: bool = False
    api: str = ""
    token: str = ""
    members: dict[str, str] = field(default_factory=dict)
    """Name -> underlay address."""
    engines: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    """The lab's control groups, one in each hierarchy."""
    config: str = ""
    """config.yaml as it was given."""
    took_s: dict[str, float] = field(default_factory=dict)


def check_name(name: str) -> None:
    """Before anything is made or removed under a name: it is a directory's too. Raises BadInput."""
    if not name.replace("-", "").isalnum() or not name.isascii() or len(name) > 32:
        raise BadInput(f"{name!r} is no name for a lab", "letters, digits and -, at most 32")


def write(record: Record) -> None:
    directory = STATE / record.name
    fresh = directory / ".lab.json"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(record), file, indent=1)
    fresh.replace(directory / "lab.json")


def read(name: str) -> Record | None:
    """None when there is no such lab, or `up` was interrupted before it wrote anything down.

    Raises BadInput for a record of another version, or one that a loss of power cut short.
    """
    path = STATE / name / "lab.json"
    try:
        fields = json.loads(path.read_text())
        return Record(**(fields | {"engines": tuple(fields["engines"]), "groups": tuple(fields["groups"])}))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{path} is no record of this version: {error}", f"hedgerow lab down --name {name}") from error
    except PermissionError as error:
        raise Refused(f"{STATE} is readable by root only", "run the command with sudo") from error


def names() -> list[str]:
    """Of all labs on this machine, interrupted ones too."""
    try:
        return sorted(entry.name for entry in STATE.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise Refused(f"{STATE} is readable by root only", "run the command with sudo") from error


def running(name: str | None = None) -> Record | None:
    """The lab of that name; without a name the default one, or the only one there is. None when there is none."""
    if name is None:
        every = names()
        name = every[0] if len(every) == 1 else DEFAULT_NAME
    record = read(name)
    return record if record and record.complete else None


def require(name: str | None) -> Record:
    """As `running`; raises NotFound that names the labs there are."""
    record = running(name)
    if record is None:
        others = ", ".join(names()) or "none"
        raise NotFound(f"no lab {name or DEFAULT_NAME!r} is up (there: {others})", "bring one up: hedgerow lab up")
    return record
