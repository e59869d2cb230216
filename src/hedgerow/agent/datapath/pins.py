"""Pins: the names on bpffs by which the next agent finds the maps, with all that is in them.

Programs hold their maps, so packets do not mind. Somebody who clears /run, or unmounts the file system, takes only the
names away; this process still has the maps, and gives them back.
The directory of another layout, whose maps were taken over at the start, goes last of all that goes.
Ours: every file in the pin directory that is named like a map, and such directories.   Needs: nothing.   Missing: an
agent that starts makes empty maps, and fills them: its counters and open connections begin anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hedgerow.agent.objects import PINS, Kind, Pinned
from hedgerow.kernel import bpffs, layouts, pins
from hedgerow.kernel.bpf import Map
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Set


class Pins:
    """`maps` by their names, in `directory` of the bpf file system that is mounted at `mount`."""

    kind = Kind.PIN

    def __init__(self, maps: Mapping[str, Map], mount: Path, directory: Path) -> None:
        self._maps = maps
        self._ids = {name: pins.map_id(map.fd) for name, map in maps.items()}
        self._mount = mount
        self._directory = directory

    def read(self) -> Rows:
        others = layouts.others(self._mount, self._directory)
        found: dict[Key, object] = {Key(self.kind, path.name): Pinned() for path in others}
        return found | {PINS: Pinned(", ".join(self._missing()))}

    def _missing(self) -> list[str]:
        return [name for name, id in self._ids.items() if pins.pinned_id(self._directory / name) != id]

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, self._apply)

    def _apply(self, op: Op) -> None:
        if op.key != PINS:
            layouts.follow(self._maps, self._mount / op.key.name)
            layouts.remove(self._mount / op.key.name)
        elif isinstance(op, Set):
            bpffs.ensure_mounted(self._mount)
            for name in self._missing():
                pins.pin(self._maps[name].fd, self._directory / name)
