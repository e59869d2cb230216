"""An event loop without a clock and without chance: time jumps to the next timer, and which of the callbacks that are
ready runs next is drawn from a seeded generator. Real asyncio code runs in it unchanged, a minute in milliseconds.

"Threads" (run_in_executor) are callbacks too: each executor does its jobs in turn, somewhat later. A `Thread` that is
killed does none of those that wait, as a process that is killed would not.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from itertools import count
from random import Random
from typing import Any


class Thread(Executor):
    def __init__(self) -> None:
        self.jobs: deque[tuple[asyncio.Future[Any], Callable[[], Any]]] = deque()
        self.is_dead = False


class Deadlock(AssertionError):
    pass


class NumberedTask(asyncio.Task[Any]):
    """Task groups keep their tasks in sets, and what is cancelled first must not depend on addresses in memory."""

    def __init__(self, number: int, coro: Any, **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class SimulatedLoop(asyncio.BaseEventLoop):
    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random
        self._now = 0.0
        self._others = Thread()
        self.steps = 0
        numbers = count()
        self.set_task_factory(lambda loop, coro, **options: NumberedTask(next(numbers), coro, loop=loop, **options))

    def time(self) -> float:
        return self._now

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> Any:
        thread = executor if isinstance(executor, Thread) else self._others
        future = self.create_future()
        thread.jobs.append((future, lambda: func(*args)))
        self.call_later(self._random.uniform(0.0, 0.004), self._work, thread)
        return future

    def _work(self, thread: Thread) -> None:
        if thread.is_dead:
            return
        future, job = thread.jobs.popleft()
        try:
            result = job()
        except Exception as error:
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)

    def _run_once(self) -> None:
        while self._scheduled and self._scheduled[0]._cancelled:
            self._forget(heapq.heappop(self._scheduled))
        if not self._ready:
            if not self._scheduled:
                raise Deadlock(f"nothing will ever happen again after {self._now:.3f} s")
            self._now = max(self._now, self._scheduled[0]._when)
        while self._scheduled and (self._scheduled[0]._when <= self._now or self._scheduled[0]._cancelled):
            timer = heapq.heappop(self._scheduled)
            self._forget(timer)
            self._ready.append(timer)
        if self._ready:
            self._ready.rotate(-self._random.randrange(len(self._ready)))
            handle = self._ready.popleft()
            if not handle._cancelled:
                self.steps += 1
                handle._run()

    def _forget(self, timer: asyncio.TimerHandle) -> None:
        timer._scheduled = False
        if timer._cancelled:
            self._timer_cancelled_count -= 1

    def _process_events(self, event_list: object) -> None:
        raise NotImplementedError("there is no selector")

    def _write_to_self(self) -> None:
        pass
