"""The loop that keeps what is as it should be: read, plan, apply, sleep until woken.

Kinds are visited in the order of creation. Under the lock of a kind it is read, what it should be is asked for only
then, and missing or different rows are set; then come the kinds after it; then, on the way back, what is too much is
removed. So whoever changes a kind elsewhere (a container that starts) holds that kind's lock and is never undone by a
round that began before. What changed does not matter to the loop, only that something may have.

A row that fails stops the rows that lean on it, and nothing else. It is tried again with growing pauses, and its fault
stays readable until it is mended.

What nobody is told of (rows of maps, pins) is seen by looking again. How often is a matter of what looking costs: the
pause is two hundred times the CPU time of the cheapest of the last rounds that found nothing to do, so that a host with
little to look at is looked at every few seconds, and one with very much spends half a percent of a CPU on it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Protocol

from .plan import Key, Op, Set, Step, plan
from .signal import Signal

log = logging.getLogger(__name__)

SHORTEST_RESYNC_S, LONGEST_RESYNC_S = 4.0, 60.0
_RESYNC_SHARE = 200
_ROUNDS_NEEDED, _ROUNDS_KEPT = 3, 10
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
_LOGGED_OPS = 200
"""Of one step; a first start with thousands of agents would drown the log."""

Rows = Mapping[Key, object]
Faults = Mapping[Key, Exception]


class Target(Protocol):
    """All objects of one kind."""

    @property
    def kind(self) -> IntEnum: ...

    async def read(self) -> Rows:
        """Only what carries our mark."""
        ...

    async def apply(self, ops: Sequence[Op]) -> Faults:
        """Repeatable. Never raises for one row: the faults of those that failed."""
        ...


class Wanted(Protocol):
    """What should be, asked for kind by kind. The first two answers come from one moment."""

    def rows(self, kind: IntEnum) -> Rows: ...

    def may_remove(self, kind: IntEnum) -> bool:
        """Whether the wanted rows of the kind are known to be all of them."""
        ...

    def needs(self, key: Key, record: object) -> Iterable[Key]:
        """The rows of earlier kinds without which this one must not be set."""
        ...


@dataclass(frozen=True, slots=True)
class Failed:
    """A row that is not as it should be. `since_s` in seconds since the epoch."""

    reason: str
    since_s: float
    tries: int = 1


def resync_pause_s(round_s: float) -> float:
    """How long to rest after rounds of which one cost no more than `round_s`."""
    return min(max(SHORTEST_RESYNC_S, _RESYNC_SHARE * round_s), LONGEST_RESYNC_S)


def one_by_one(ops: Iterable[Op], apply: Callable[[Op], None]) -> Faults:
    """For kinds without batches: every operation is tried, whatever becomes of the others."""
    faults: dict[Key, Exception] = {}
    for op in ops:
        try:
            apply(op)
        except Exception as error:
            faults[op.key] = error
    return faults


class Leaning(Exception):
    """A row was left alone, because one that it leans on failed."""


class Loop:
    """One per process. `clock` is the time of day in seconds, `spent` what the process has spent of its CPU's."""

    def __init__(
        self,
        targets: Iterable[Target],
        wanted: Wanted,
        *,
        clock: Callable[[], float] = time.time,
        spent: Callable[[], float] = time.process_time,
        before_round: Callable[[], Awaitable[None]] | None = None,
        after_round: Callable[[Mapping[Key, Failed]], None] = lambda _: None,
    ) -> None:
        self._targets = sorted(targets, key=lambda target: target.kind)
        self._wanted = wanted
        self._clock = clock
        self._spent = spent
        self._before_round = before_round
        self._after_round = after_round
        self._locks = {target.kind: asyncio.Lock() for target in self._targets}
        self._woken = asyncio.Event()
        self._cost_s: deque[float] = deque(maxlen=_ROUNDS_KEPT)
        self._did_something = False
        self.failed: dict[Key, Failed] = {}
        self.present: frozenset[Key] = frozenset()
        self.rounds = Signal()

    def wake(self) -> None:
        """Cheap, and as often as you like."""
        self._woken.set()

    def lock(self, kind: IntEnum) -> asyncio.Lock:
        return self._locks[kind]

    async def first_round(self) -> None:
        """Waits until one round has been gone through, faults or not."""
        await self.rounds.changed(0)

    async def run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            self._woken.clear()
            before_s = self._spent()
            await self.round()
            if not self._did_something:  # else it says nothing of what looking costs
                self._cost_s.append(self._spent() - before_s)
            wait_s = resync_pause_s(min(self._cost_s) if len(self._cost_s) >= _ROUNDS_NEEDED else 0.0)
            if self.failed:
                wait_s, pause_s = min(pause_s, wait_s), min(pause_s * 2, LONGEST_PAUSE_S)
                # What we do ourselves may wake us, and something that fails would keep us busy for ever.
                await asyncio.sleep(FIRST_PAUSE_S)
                wait_s -= FIRST_PAUSE_S
            else:
                pause_s = FIRST_PAUSE_S
            try:
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def round(self) -> None:
        """Every kind once. What could not be read or set is in `failed` afterwards, what is as wanted in `present`."""
        if self._before_round is not None:
            await self._before_round()
        faults: dict[Key, Exception] = {}
        wanted: set[Key] = set()
        self._did_something = False
        await self._visit(self._targets, wanted, faults)
        self.present = frozenset(wanted - faults.keys())
        self._note(faults)
        self.rounds.change()
        self._after_round(dict(self.failed))

    async def _visit(self, targets: Sequence[Target], wanted: set[Key], faults: dict[Key, Exception]) -> None:
        if not targets:
            return
        target, later = targets[0], targets[1:]
        async with self._locks[target.kind]:
            actual = await self._read(target, faults)
            desired = self._wanted.rows(target.kind)
            steps = plan(desired, actual, may_remove=self._wanted.may_remove(target.kind))
            wanted.update(desired)
            for step in steps:
                if isinstance(step.ops[0], Set):
                    await self._apply(target, step, faults)
            await self._visit(later, wanted, faults)
            for step in steps:
                if not isinstance(step.ops[0], Set):
                    await self._apply(target, step, faults)

    async def _read(self, target: Target, faults: dict[Key, Exception]) -> Rows:
        try:
            return await target.read()
        except Exception as error:
            # Not knowing what is there, everything is set anew, which is repeatable, and nothing is removed.
            log.warning("cannot read %s: %s", target.kind.name.lower(), error)
            faults[Key(target.kind, "")] = error
            return {}

    async def _apply(self, target: Target, step: Step, faults: dict[Key, Exception]) -> None:
        ops = []
        for op in step.ops:
            missing = self._missing(op, faults)
            if missing is None:
                ops.append(op)
            else:
                faults[op.key] = Leaning(f"waits for {missing}")
        if not ops:
            return
        for op in ops[:_LOGGED_OPS]:
            log.log(logging.DEBUG if op.key in self.failed else logging.INFO, "%s", op)
        if len(ops) > _LOGGED_OPS:
            log.info("and %d more of %s", len(ops) - _LOGGED_OPS, step.kind.name.lower())
        try:
            failed = await target.apply(ops)
            self._did_something |= any(op.key not in failed for op in ops)
            faults.update(failed)
        except Exception as error:
            log.exception("applying %s", step.kind.name.lower())
            faults.update({op.key: error for op in ops})

    def _missing(self, op: Op, faults: Faults) -> Key | None:
        if not isinstance(op, Set):
            return None
        return next((key for key in self._wanted.needs(op.key, op.new) if key in faults), None)

    def _note(self, faults: Faults) -> None:
        now = self._clock()
        for key, error in faults.items():
            old = self.failed.get(key)
            reason = str(error) or type(error).__name__
            if old is None or old.reason != reason:
                log.warning("%s: %s", key, reason)
            entry = replace(old, reason=reason, tries=old.tries + 1) if old else Failed(reason, now)
            self.failed[key] = entry
        for key in [key for key in self.failed if key not in faults]:
            log.info("%s: mended", key)
            del self.failed[key]
