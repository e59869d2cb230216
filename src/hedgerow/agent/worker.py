"""The thread in which everything that may wait is done: netlink, maps, nft, the disk. The event loop never is.

One thread, so that what it does needs no locks. Deleting links has a second one: each deletion waits some 30 ms for
RCU, and whoever starts a container should not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from hedgerow.kernel import links
from hedgerow.kernel.netlink import Channel
from hedgerow.reconcile.loop import Faults, Rows
from hedgerow.reconcile.plan import Key, Op

log = logging.getLogger(__name__)


class Plain(Protocol):
    """A kind of kernel object: as `reconcile.loop.Target`, but it waits for the kernel."""

    @property
    def kind(self) -> IntEnum: ...

    def read(self) -> Rows: ...

    def apply(self, ops: Sequence[Op]) -> Faults: ...


@dataclass(frozen=True, slots=True)
class Threaded:
    """A Target of which the work is done in `executor`, to its end, even when the loop is cancelled meanwhile."""

    plain: Plain
    executor: Executor | None

    @property
    def kind(self) -> IntEnum:
        return self.plain.kind

    async def read(self) -> Mapping[Key, object]:
        return await asyncio.get_running_loop().run_in_executor(self.executor, self.plain.read)

    async def apply(self, ops: Sequence[Op]) -> Mapping[Key, Exception]:
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self.executor, self.plain.apply, ops))


class Removals:
    """Links on their way out, one after the other."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def add(self, index: int) -> None:
        """By index, since its name may soon be a new one's. 0 is none."""
        if index:
            self._executor.submit(_remove, index)

    def do(self, work: Callable[[], None]) -> None:
        """Something else that may take its time. It raises nothing."""
        self._executor.submit(work)

    def wait(self) -> None:
        """Until all that were added are gone. Not in the event loop."""
        self._executor.submit(lambda: None).result()


def _remove(index: int) -> None:
    try:
        with Channel() as channel:
            links.remove(channel, index)
    except OSError as error:
        log.warning("link %d stays until the next round: %s", index, error)
