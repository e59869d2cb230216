"""The one error form of the project: what is wrong, and what to do about it."""

from __future__ import annotations


class HedgerowError(Exception):
    """Something a person can put right.

    `message` says what is wrong and names the offending value; `cure` is one sentence or one command that mends it.
    `exit_code` is what the command line ends with (0 fine, 1 failed, 2 wrong use or bad file, 3 found trouble,
    4 not reachable, 5 refused).
    """

    exit_code = 1

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.message}: {self.cure}" if self.cure else self.message


class BadInput(HedgerowError):
    """A file, a body or an argument that cannot be used as it is."""

    exit_code = 2


class NotFound(HedgerowError):
    """A name or an id that nobody has; the cure names those that exist, or the nearest."""


class Unreachable(HedgerowError):
    """Another part does not answer."""

    exit_code = 4


class Refused(HedgerowError):
    """Understood, and not done: a rule, a right or the state of things is against it."""

    exit_code = 5


class Exhausted(Refused):
    """A pool is empty or a limit is reached; the message names the pool and its size."""


class Conflict(Refused):
    """Somebody else was first: the thing is taken, or has changed since it was read."""
