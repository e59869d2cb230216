"""Drops: how many packets were refused, why and on which network, by the data path and by the firewall."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from hedgerow.errors import HedgerowError
from hedgerow.kernel import nft
from hedgerow.kernel.maps import Maps

from .objects import TABLE
from .state import State

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Drop:
    """`network` is empty where the packet belongs to none, or the firewall cannot tell."""

    network: str
    reason: str
    packets: int
    bytes: int


class Drops:
    def __init__(self, state: State, maps: Maps) -> None:
        self._state = state
        self._maps = maps

    async def read(self) -> list[Drop]:
        """Since the maps were made; the firewall's since its table was last written."""
        counted = await self._state.run(self._maps.counters)
        try:
            refused = await asyncio.to_thread(nft.counters, "inet", TABLE)
        except HedgerowError as error:
            log.debug("no counters of the firewall: %s", error)  # its table is not there yet
            refused = {}
        names = self.names()
        found = [
            Drop(names.get(vni, f"vni {vni}"), reason.name.lower(), packets, size)
            for (vni, reason), (packets, size) in sorted(counted.items())
        ]
        found += [Drop("", reason, packets, size) for reason, (packets, size) in sorted(refused.items())]
        return [drop for drop in found if drop.packets]

    async def call(self, arguments: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """For a controller: one JSON list."""
        rows = [
            {"network": drop.network, "reason": drop.reason, "packets": drop.packets, "bytes": drop.bytes}
            for drop in await self.read()
        ]
        yield json.dumps(rows).encode()

    def names(self) -> dict[int, str]:
        """Networks by VNI; 0 is none."""
        snapshot = self._state.snapshot
        networks = snapshot.networks.values() if snapshot is not None else ()
        return {0: "", **{network.vni: network.name for network in networks}}
