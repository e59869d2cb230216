"""Who reaches whom: every place to every other of its IP version, by ping and by TCP, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

from . import probe
from .places import PORT, Place
from .probe import Answer, Outcome

AT_ONCE_MS = 100.0
"""A refusal that takes longer is a fault: whoever asks should not have to wait for a no."""


@dataclass(frozen=True, slots=True)
class Cell:
    ping: Outcome
    tcp: Outcome

    @property
    def reached(self) -> bool:
        return self.ping.answer == self.tcp.answer == Answer.REACHED

    @property
    def refused(self) -> bool:
        return self.ping.answer == self.tcp.answer == Answer.REFUSED


Matrix = Mapping[tuple[Place, Place], Cell]


def measure(places: list[Place]) -> Matrix:
    """All ordered pairs of one IP version. Sources take turns two at a time: more would measure each other."""
    with ThreadPoolExecutor(2) as pool:
        rows = pool.map(lambda source: _row(source, places), places)
        return {
            (source, target): cell for source, row in zip(places, rows, strict=True) for target, cell in row.items()
        }


def _row(source: Place, places: list[Place]) -> dict[Place, Cell]:
    same = [target for target in places if target.address.version == source.address.version]
    return {target: cell(source, target) for target in same if target != source}


def cell(source: Place, target: Place) -> Cell:
    return Cell(probe.ping(source.namespace, target.address), probe.tcp(source.namespace, target.address, PORT))


@dataclass(frozen=True, slots=True)
class Line:
    """All cells from one network to another, on one host or across hosts."""

    source: str
    target: str
    same_host: bool
    cells: tuple[Cell, ...]

    @property
    def verdict(self) -> str:
        if all(cell.reached for cell in self.cells):
            return "reached"
        return "refused" if all(cell.refused for cell in self.cells) else "mixed"

    def ms(self, protocol: str) -> tuple[float, float]:
        """Median and worst."""
        every = [getattr(cell, protocol).ms for cell in self.cells]
        return median(every), max(every)


def lines(matrix: Matrix) -> list[Line]:
    """The matrix by pairs of networks, in the order of the places."""
    rows: dict[tuple[str, str, bool], list[Cell]] = {}
    for (source, target), found in matrix.items():
        rows.setdefault((source.network, target.network, source.node == target.node), []).append(found)
    return [Line(*key, tuple(cells)) for key, cells in rows.items()]


def unexpected(matrix: Matrix, is_open: Callable[[str, str], bool]) -> list[tuple[Place, Place]]:
    """Pairs that are not as the configuration says. `is_open` takes two networks' names."""
    return [
        (source, target) for (source, target), found in matrix.items()
        if not (found.reached if is_open(source.network, target.network) else found.refused)
    ]  # fmt: skip


def settled(places: list[Place], is_open: Callable[[str, str], bool], patience_s: float) -> Matrix:
    """Measured, and what should be reached and is not measured again for a while: a web server may not listen yet.
    What should be refused and is not stays as it was seen.
    """
    matrix, deadline = dict(measure(places)), time.monotonic() + patience_s
    while time.monotonic() < deadline:
        again = [pair for pair in unexpected(matrix, is_open) if is_open(pair[0].network, pair[1].network)]
        if not again:
            break
        matrix |= {pair: cell(*pair) for pair in again}
    return matrix


def slow_refusals(matrix: Matrix) -> list[tuple[Place, Place]]:
    """Pairs that were refused, and had to wait for it longer than AT_ONCE_MS."""
    return [
        pair for pair, found in matrix.items()
        if any(each.answer == Answer.REFUSED and each.ms > AT_ONCE_MS for each in (found.ping, found.tcp))
    ]  # fmt: skip
