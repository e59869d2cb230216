"""Samples: dropped packets one by one, of those that the data path lets through to its ring (100 a second and CPU).

Read a moment after they happen, merged where they are alike, and kept for a while for whoever asks. The ring has one
reader, this one. What the firewall refuses is only counted: nftables has no ring that costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from hedgerow.errors import BadInput
from hedgerow.kernel.bpf import Ring
from hedgerow.kernel.events import DropEvent
from hedgerow.kernel.maps import Maps
from hedgerow.reconcile.signal import Signal
from hedgerow.wire.codec import to_json

log = logging.getLogger(__name__)

KEPT_S = 600.0
MAX_KEPT = 4096
PAUSE_S = 0.1
"""Between two looks at the ring: what is alike within it becomes one sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`time_s` since the epoch. `packets` of these were in the ring within PAUSE_S; the source port is the first one's.
    `network` is the sender's, empty where it has none.
    """

    time_s: float
    reason: str
    network: str
    source: str
    destination: str
    source_port: int
    destination_port: int
    protocol: int
    packets: int = 1


class Samples:
    """`names`: networks by VNI, as of now."""

    def __init__(self, names: Callable[[], dict[int, str]]) -> None:
        self._names = names
        self._kept: deque[tuple[int, Sample]] = deque(maxlen=MAX_KEPT)
        self._last = 0
        self._news = Signal()

    async def read(self, maps: Maps) -> None:
        """Does not end."""
        loop, events, readable = asyncio.get_running_loop(), list[bytes](), asyncio.Event()
        ring = Ring(maps.drops, events.append)
        loop.add_reader(ring.fd, readable.set)
        try:
            while True:
                await readable.wait()
                readable.clear()
                ring.consume()
                self.take(events, time.time() - time.monotonic())
                events.clear()
                # The descriptor stays readable while packets come, and would wake the loop for each.
                loop.remove_reader(ring.fd)
                await asyncio.sleep(PAUSE_S)
                loop.add_reader(ring.fd, readable.set)
        finally:
            loop.remove_reader(ring.fd)
            ring.close()

    def take(self, events: Iterable[bytes], boot_s: float) -> None:
        """Keeps events of the ring. `boot_s`: when CLOCK_MONOTONIC was 0, in seconds since the epoch."""
        found: dict[tuple[object, ...], Sample] = {}
        names = self._names()
        for event in _readable(events):
            sample = _sample(event, names, boot_s)
            key = (
                sample.reason,
                sample.network,
                sample.source,
                sample.destination,
                sample.destination_port,
                event.protocol,
            )
            known = found.get(key)
            found[key] = replace(known, packets=known.packets + 1) if known else sample
        for sample in found.values():
            self._last += 1
            self._kept.append((self._last, sample))
        if found:
            self._news.change()

    def since(self, age_s: float, after: int = 0) -> list[tuple[int, Sample]]:
        """Those that are no older, and have a greater number than `after`; oldest first."""
        oldest_s = time.time() - min(age_s, KEPT_S)
        while self._kept and self._kept[0][1].time_s < time.time() - KEPT_S:
            self._kept.popleft()
        return [(number, one) for number, one in self._kept if number > after and one.time_s >= oldest_s]

    async def call(self, arguments: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """The call `samples`: `{"since_s": seconds, "follow": bool}`; one JSON object a line."""
        match arguments:
            case {"since_s": int() | float() as since_s, "follow": bool(follow)} if since_s >= 0:
                pass
            case _:
                raise BadInput(f"samples of {arguments!r}", 'ask with {"since_s": 60, "follow": false}')
        last = 0
        while True:
            seen = self._news.generation
            found = self.since(since_s, last)
            if found:
                last = found[-1][0]
                yield b"".join(to_json(sample) + b"\n" for _, sample in found)
            if not follow:
                return
            await self._news.changed(seen)
            since_s = KEPT_S


def _readable(events: Iterable[bytes]) -> Iterator[DropEvent]:
    for data in events:
        try:
            yield DropEvent.unpack(data)
        except ValueError as error:  # a reason of a newer data path
            log.debug("an event of the ring cannot be read: %s", error)


def _sample(event: DropEvent, names: dict[int, str], boot_s: float) -> Sample:
    return Sample(
        time_s=round(boot_s + event.time_ns / 1e9, 3),
        reason=event.reason.name.lower(),
        network=names.get(event.vni, f"vni {event.vni}"),
        source=str(event.source),
        destination=str(event.destination),
        source_port=event.source_port,
        destination_port=event.destination_port,
        protocol=event.protocol,
    )
