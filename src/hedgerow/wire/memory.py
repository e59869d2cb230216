"""A connection without a network, for the simulation: both ends in one loop, delays, cables to cut."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from .stream import IDLE_S, Stream
from .tls import CONTROLLER

MEMORY_FRAMES = 64
"""What is under way or unread before the sender waits."""


class MemoryPipe:
    """One end of a pair. Frames arrive in order, each `delay()` seconds after it was written, or never."""

    def __init__(self, delay: Callable[[], float]) -> None:
        self.other: MemoryPipe = self
        self._delay = delay
        self._under_way: deque[bytes] = deque()
        self._arrived: deque[bytes] = deque()
        self._last_s = 0.0
        self._closed = False
        self._changed = asyncio.Event()

    async def write(self, frame: bytes) -> None:
        to = self.other
        async with asyncio.timeout(IDLE_S):
            while not self._closed and len(to._under_way) + len(to._arrived) >= MEMORY_FRAMES:
                await self._wait()
        if self._closed:
            raise ConnectionResetError("closed")
        loop = asyncio.get_running_loop()
        self._last_s = max(self._last_s, loop.time() + self._delay())
        to._under_way.append(frame)
        loop.call_at(self._last_s, to._arrive)

    async def read(self) -> bytes:
        while not self._arrived:
            if self._closed and not self._under_way:
                raise EOFError
            await self._wait()
        frame = self._arrived.popleft()
        self.other._changed.set()
        return frame

    async def close(self) -> None:
        for end in (self, self.other):
            end._closed = True
            end._changed.set()

    def cut(self) -> None:
        """Both ends are closed and what is under way is lost."""
        for end in (self, self.other):
            end._closed = True
            end._under_way.clear()
            end._changed.set()

    def _arrive(self) -> None:
        if self._under_way:
            self._arrived.append(self._under_way.popleft())
        self._changed.set()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def memory_pair(agent: str, delay: Callable[[], float] = lambda: 0.0) -> tuple[Stream, Stream, Callable[[], None]]:
    """The agent's end, the controller's, and what cuts the cable. `agent` is the id in the agent's certificate."""
    left, right = MemoryPipe(delay), MemoryPipe(delay)
    left.other, right.other = right, left
    ends = Stream(left, identity=CONTROLLER, peer="controller"), Stream(right, identity=agent, peer=agent)
    return *ends, left.cut
