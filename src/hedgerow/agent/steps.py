"""How long each step of an attach took: one line in the log, and the figures of /metrics."""

from __future__ import annotations

import time
from collections import deque


class Steps:
    """A stopwatch with a name for each lap. Times in milliseconds."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.laps: list[tuple[str, float]] = []

    def done(self, step: str) -> None:
        now = time.perf_counter()
        self.laps.append((step, (now - self._last) * 1e3))
        self._last = now

    @property
    def total_ms(self) -> float:
        return (self._last - self._start) * 1e3

    def __str__(self) -> str:
        return f"{self.total_ms:.2f} ms: {', '.join(f'{step} {ms:.2f}' for step, ms in self.laps)}"


class Times:
    """The last attaches, for their quantiles."""

    KEPT = 1000

    def __init__(self) -> None:
        self._totals: deque[float] = deque(maxlen=self.KEPT)
        self.count = 0
        self.sum_ms = 0.0

    def add(self, steps: Steps) -> None:
        self._totals.append(steps.total_ms)
        self.count += 1
        self.sum_ms += steps.total_ms

    def quantile_ms(self, share: float) -> float:
        """0 when there was none."""
        ordered = sorted(self._totals)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
