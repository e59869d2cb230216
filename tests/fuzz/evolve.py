"""A fuzz loop that is led by coverage: what reaches a line of the project that nothing reached before is kept, and
changed further. Without threads or chance of its own: a seed and a count say everything, so a fault comes again.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

SOURCE = str(Path(__file__).resolve().parents[2] / "src" / "hedgerow")
LONGEST_BYTES = 1 << 16
DEEP = 5000
"""How often a piece is repeated at most: more brackets than any stack has room for."""

LONGEST_S = 5.0
"""Of CPU, for one input; being watched makes it some ten times slower."""

Lines = set[tuple[CodeType, int]]


@contextmanager
def covering(reached: Lines) -> Iterator[None]:
    """Notes the project's lines that the block reaches. No other thread's."""

    def line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            reached.add((frame.f_code, frame.f_lineno))
        return line

    def call(frame: FrameType, event: str, _: Any) -> Any:
        return line if frame.f_code.co_filename.startswith(SOURCE) else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        yield
    finally:
        sys.settrace(before)


def _cut(data: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + chance.choice((0, 1, 1, 2, 4, 16, 64)))


def changed(data: bytes, others: Sequence[bytes], words: Sequence[bytes], chance: random.Random) -> bytes:
    """One to four small changes."""
    for _ in range(chance.randint(1, 4)):
        start, end = _cut(data, chance)
        piece = data[start:end]
        match chance.randrange(8):
            case 0:
                new = b""
            case 1:
                new = bytes(chance.randrange(256) for _ in range(chance.randint(1, 4)))
            case 2 | 3:
                new = chance.choice(words)
            case 4:
                new = piece + chance.choice(words)
            case 5:
                other = chance.choice(others)
                new = other[slice(*_cut(other, chance))]
            case 6:
                new = bytes(byte ^ 1 << chance.randrange(8) for byte in piece)
            case _:
                new = (piece or chance.choice(words)) * chance.choice((2, 3, 8, DEEP))
        data = (data[:start] + new + data[end:])[:LONGEST_BYTES]
    return data


def evolve(
    read: Callable[[bytes], object], seeds: Sequence[bytes], words: Sequence[bytes], count: int, seed: int
) -> int:
    """Gives `read` the seeds and what becomes of them, `count` in all; how many reached something new.

    What `read` raises is a fault; the input is named.
    """
    chance, reached, kept = random.Random(seed), Lines(), list(seeds)
    for number in range(count):
        data = seeds[number] if number < len(seeds) else changed(chance.choice(kept), kept, words, chance)
        before, begun = len(reached), time.process_time()
        try:
            with covering(reached):
                read(data)
            assert time.process_time() - begun < LONGEST_S, "it takes too long"
        except Exception as error:
            raise AssertionError(f"seed {seed}, input {number}: {data[:2000]!r}") from error
        if len(reached) > before and number >= len(seeds):
            kept.append(data)
    return len(kept) - len(seeds)
