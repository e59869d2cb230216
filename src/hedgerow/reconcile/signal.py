"""A number that goes up, and those who wait for it. What changed is not said, only that something did."""

from __future__ import annotations

import asyncio


class Signal:
    def __init__(self) -> None:
        self.generation = 0
        self._changed = asyncio.Event()

    def change(self) -> None:
        self.generation += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, generation: int) -> int:
        """Waits until the generation is another than this one, and returns it."""
        while self.generation == generation:
            await self._changed.wait()
        return self.generation
