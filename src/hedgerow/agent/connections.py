"""Connections: what the data path remembers of flows that a rule let begin, swept, and those that a change cut.

The data path adds entries and refuses one too many; who takes them out is this sweep, so that nobody's flows ever make
room for somebody else's. It goes over all of them, and rests for twenty times the CPU time that took. An endpoint that
goes takes its flows along at once: its address may be another's soon.

The data path judges every packet anew. Of a flow that the rules do not permit any more it refuses the next packet, and
marks the entry: that is an event, with the name of the rule that had let it begin.

How many entries an opener has is the difference of two counts, one written by the data path and one here, so that none
is lost between them (bpf/maps.h).
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from socket import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP

from hedgerow.kernel.flows import ConnectionFlag, FlowKey
from hedgerow.kernel.maps import Maps
from hedgerow.kernel.packing import unpack_address
from hedgerow.model.endpoint import Address

log = logging.getLogger(__name__)

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
_REST = 20

TCP_CLOSED_S, TCP_UNANSWERED_S, TCP_S = 10.0, 120.0, 7200.0
ICMP_S, CUT_S, OTHER_S = 30.0, 60.0, 180.0
_DONE = ConnectionFlag.OPENER_DONE | ConnectionFlag.REPLIER_DONE
_STATE = struct.Struct("=QII")
"""When a packet was last seen, rule, flags: how a ConnectionRow begins."""
_WRAP = 1 << 64
_LOGGED_CUTS = 50
"""Of one sweep; a change may cut thousands."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A flow that a change of the rules ended. `rule` names the one that had let it begin."""

    flow: FlowKey
    rule: str

    def __str__(self) -> str:
        flow = self.flow
        ends = f"{_end(flow.source, flow.source_port)} to {_end(flow.destination, flow.destination_port)}"
        return f"cut: {ends}, protocol {flow.protocol}, which {self.rule} had let begin"


def _end(address: Address, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def idle_ns(protocol: int, flags: int) -> int:
    """For how long an entry of these ConnectionFlags may rest without a packet."""
    if flags & ConnectionFlag.CUT:
        seconds = CUT_S
    elif protocol == IPPROTO_TCP:
        answered = TCP_S if flags & ConnectionFlag.REPLIED else TCP_UNANSWERED_S
        seconds = TCP_CLOSED_S if flags & ConnectionFlag.RESET or flags & _DONE == _DONE else answered
    else:
        seconds = ICMP_S if protocol in (IPPROTO_ICMP, IPPROTO_ICMPV6) else OTHER_S
    return int(seconds * 1e9)


class _Memory(dict[bytes, bool]):
    """What is so of an address that is packed as in the maps, found out once."""

    def __init__(self, is_so: Callable[[Address], bool]) -> None:
        super().__init__()
        self._is_so = is_so

    def __missing__(self, packed: bytes) -> bool:
        self[packed] = found = self._is_so(unpack_address(packed))
        return found


class Connections:
    """`here` are the addresses of this host's endpoints, `is_local` whether one lies in this host's blocks; `rules` are
    the names of the numbers that rules have and had.
    """

    def __init__(
        self,
        maps: Maps,
        *,
        here: Callable[[], Collection[Address]],
        is_local: Callable[[Address], bool],
        rules: Mapping[int, str],
    ) -> None:
        self._maps = maps
        self._here = here
        self._is_local = is_local
        self._rules = rules
        self._known_cuts: frozenset[FlowKey] = frozenset()
        self._woken = asyncio.Event()
        self.count = 0
        self.cuts: Counter[str] = Counter()
        """Of each rule, since this process began."""

    def endpoint_gone(self) -> None:
        """Its flows are to go now. Only in the event loop."""
        self._woken.set()

    async def keep(self) -> None:
        """Never returns."""
        while True:
            self._woken.clear()
            here, before_s = frozenset(self._here()), time.process_time()
            cuts = await asyncio.to_thread(self.sweep, here, time.clock_gettime_ns(time.CLOCK_MONOTONIC))
            self._tell(cuts)
            spent_s = time.process_time() - before_s
            pause_s = min(max(SHORTEST_PAUSE_S, _REST * spent_s), LONGEST_PAUSE_S)
            await asyncio.sleep(min(spent_s, SHORTEST_PAUSE_S / 2))  # where endpoints come and go all the time
            try:
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()
            except TimeoutError:
                continue

    def sweep(self, here: Collection[Address], now_ns: int) -> list[Cut]:
        """Takes out what is over, and returns the cuts that were not known yet. Raises OSError."""
        # Counts first: of what begins meanwhile there is then one too many, and never one too few.
        opened, connections = dict(self._maps.opened.items()), self._maps.connections
        is_gone = _Memory(lambda address: self._is_local(address) and address not in here)
        remaining: Counter[bytes] = Counter()
        over: list[bytes] = []
        cut: dict[FlowKey, int] = {}
        # As bytes, for there may be a quarter of a million.
        for key, value in connections.raw.items():
            source, destination, protocol = key[:16], key[16:32], key[36]
            seen_ns, rule, flags = _STATE.unpack_from(value)
            if now_ns - seen_ns > idle_ns(protocol, flags) or is_gone[source] or is_gone[destination]:
                over.append(key)
                continue
            remaining[source] += 1
            if flags & ConnectionFlag.CUT:
                cut[connections.unpack_key(key)] = rule
        for key in over:
            connections.raw.delete(key)
        self._count(opened, {unpack_address(opener): left for opener, left in remaining.items()})
        fresh = [flow for flow in cut if flow not in self._known_cuts]
        self._known_cuts, self.count = frozenset(cut), remaining.total()
        return [Cut(flow, self._rules.get(cut[flow], "a rule of long ago")) for flow in fresh]

    def _count(self, opened: Mapping[Address, int], remaining: Mapping[Address, int]) -> None:
        for opener, made in opened.items():
            left = remaining.get(opener, 0)
            if left:
                self._maps.closed.put(opener, (made - left) % _WRAP)
            else:
                self._maps.closed.delete(opener)
                self._maps.opened.delete(opener)

    def _tell(self, cuts: Iterable[Cut]) -> None:
        known = list(cuts)
        self.cuts.update(cut.rule for cut in known)
        for cut in known[:_LOGGED_CUTS]:
            log.info("%s", cut)
        if len(known) > _LOGGED_CUTS:
            log.info("and %d more flows", len(known) - _LOGGED_CUTS)
