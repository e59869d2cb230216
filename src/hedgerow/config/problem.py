"""What is wrong with a file: every problem, each with its place and its cure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from hedgerow.errors import BadInput

SHOWN_CHARACTERS = 60
"""Of a value in a message: enough to recognise it, never a whole file."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong. `line` counts from 1, 0 when the file as a whole is meant; `path` is empty then, too."""

    file: str
    line: int
    path: str
    value: str
    message: str
    cure: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        told = f"{self.message}; {self.cure}" if self.cure else self.message
        return ": ".join(part for part in (place, self.path, shortened(self.value), told) if part)


class ConfigProblems(BadInput):
    """A file that cannot be used; `problems` are all of them, in the order of their lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Wrong(Exception):
    """Raised where a value is read; whoever knows its place makes a Problem of it."""

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure


def nearest(word: str, known: Iterable[str], closeness: float = 0.6) -> str | None:
    """The known word most like this one, when one is like it at all."""
    matches = get_close_matches(word.lower(), list(known), n=1, cutoff=closeness)
    return matches[0] if matches else None


def shortened(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 3] + "..."


def printable(text: str) -> str:
    """With nothing in it that a terminal would take for a command."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
