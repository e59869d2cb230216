"""Layouts: how programs of another release find what those before them left in the maps.

The pin directory carries the layout's number. A release that changed a record makes a directory of its own: maps whose
shape is still the same are taken over as they are, so that packets go on in them whichever program they meet; of the
others the rows are copied, as far as both records go. That is right in both directions as long as records change by one
rule: a record grows at its end, a zero there means what its absence meant, and keys stay as they are.

Only then are the programs replaced, link by link, and last the old names removed. A release that is put back does the
same again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from . import bpf, pins
from .bpf import Map

FLOWS = "connections"
"""The one map with rows that only the data path writes and that are worth keeping."""

_COPIED = {1, 2, 11}  # BPF_MAP_TYPE_HASH, _ARRAY, _LPM_TRIE: what an agent writes, and flows


def others(mount: Path, own: Path) -> list[Path]:
    """Pin directories of other layouts, or of an unfinished change."""
    found = [path for path in mount.glob("v*") if path != own and path.is_dir()]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def adopt(mount: Path, own: Path, source: Path) -> None:
    """Makes the pin directory of this layout out of that of another, if there is one and not yet the own. `source` is
    the object file. A process that dies on the way leaves nothing that the next one would take for finished. Raises
    HedgerowError, OSError.
    """
    unfinished = mount / f"{own.name}-new"
    if unfinished.exists():
        remove(unfinished)
    found = [path for path in others(mount, own) if path.name[1:].isdigit()]
    if own.exists() or not found:
        return
    loaded = bpf.Object(source, unfinished)
    try:
        for name, fresh in loaded.pinned_maps().items():
            _take_over(found[-1] / name, fresh, unfinished / name)
    finally:
        loaded.close()
    unfinished.rename(own)


def follow(maps: Mapping[str, Map], other: Path) -> None:
    """Copies the flows that began while programs of both layouts were at work. Raises OSError."""
    with _opened(other / FLOWS) as old:
        if old is not None and pins.map_id(old.fd) != pins.map_id(maps[FLOWS].fd):
            _copy(old, maps[FLOWS], but={key for key, _ in maps[FLOWS].items()})


def remove(directory: Path) -> None:
    """Of names only: programs hold their maps. Raises OSError."""
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def _take_over(path: Path, fresh: Map, new: Path) -> None:
    with _opened(path) as old:
        if old is None:
            return
        if _shape(old.fd) == _shape(fresh.fd):
            pins.pin(old.fd, new)
        elif int(_shape(fresh.fd)["map_type"]) in _COPIED and old.key_size == fresh.key_size:
            _copy(old, fresh, but=())


def _copy(old: Map, new: Map, *, but: Collection[bytes]) -> None:
    size = new.value_size
    new.put_many({key: value[:size].ljust(size, b"\0") for key, value in old.items() if key not in but})


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Map | None]:
    """A pinned map, None where there is none."""
    fd = pins.open_pinned(path)
    if fd is None:
        yield None
        return
    try:
        shape = _shape(fd)
        yield Map(fd, int(shape["key_size"]), int(shape["value_size"]))
    finally:
        os.close(fd)


def _shape(fd: int) -> dict[str, str]:
    """What libbpf compares before it takes a pinned map over, of proc(5), fdinfo."""
    pairs = (line.split(":\t") for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines())
    known = {"map_type", "key_size", "value_size", "max_entries", "map_flags"}
    return {pair[0]: pair[1] for pair in pairs if pair[0] in known}
