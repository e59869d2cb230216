"""What every store refuses before it looks at its data."""

from __future__ import annotations

from collections.abc import Sequence

from hedgerow.errors import BadInput

from .base import MAX_OPERATIONS, MAX_VALUE_BYTES, Compare, Operation, Put


def check_commit(compares: Sequence[Compare], operations: Sequence[Operation]) -> None:
    """Raises BadInput."""
    if not operations:
        raise BadInput("a commit without operations", "change something, or read")
    if max(len(operations), len(compares)) > MAX_OPERATIONS:
        raise BadInput(
            f"a commit of {len(operations)} operations and {len(compares)} compares",
            f"at most {MAX_OPERATIONS} of each; write the rest in a second commit",
        )
    keys = [operation.key for operation in operations]
    if len(set(keys)) != len(keys):
        raise BadInput(f"a commit that changes a key twice, among {', '.join(sorted(keys))}", "change each key once")
    for operation in operations:
        check_key(operation.key)
        if isinstance(operation, Put) and len(operation.value) > MAX_VALUE_BYTES:
            raise BadInput(
                f"{len(operation.value)} bytes for {operation.key}, at most {MAX_VALUE_BYTES} are kept in one value",
                "split the record",
            )


def check_key(key: str) -> None:
    """Keys are paths. Raises BadInput."""
    if not key.startswith("/") or not key.isascii():
        raise BadInput(f"{key!r} is no key", "keys begin with / and are ASCII")


def end_of(prefix: str) -> str:
    """The first key after all that begin with `prefix`."""
    check_key(prefix)
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
