"""Leftovers: endpoints that Docker no longer knows, and addresses that it took and never used.

dockerd does not repeat what it could not say: a call that was under way when it was killed is dropped by the relay, and
a container that ended with nobody to listen is forgotten. What only our records have, for longer than a call can take
to come through, belongs to nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Hashable, Set
from typing import TYPE_CHECKING, Generic, TypeVar

from hedgerow.model.endpoint import EndpointKey

from .docker import ENGINE, owner_of

if TYPE_CHECKING:
    from hedgerow.agent.attach import Attachments

log = logging.getLogger(__name__)

GRACE_S = 30.0
"""A call of dockerd's waits in the relay for the next agent, a second or two, before Docker has the endpoint too."""

T = TypeVar("T", bound=Hashable)


class Overdue(Generic[T]):
    """Which of the things seen have been seen each time for GRACE_S."""

    def __init__(self) -> None:
        self._since_s: dict[T, float] = {}

    def among(self, seen: Collection[T], now_s: float) -> list[T]:
        self._since_s = {thing: self._since_s.get(thing, now_s) for thing in seen}
        return [thing for thing, since_s in self._since_s.items() if now_s - since_s >= GRACE_S]


class Leftovers:
    def __init__(self, attachments: Attachments) -> None:
        self._attachments = attachments
        self._endpoints: Overdue[EndpointKey] = Overdue()
        self._owners: Overdue[str] = Overdue()

    async def forget(self, known: Set[str], now_s: float) -> None:
        """`known`: the ids of all endpoints that Docker has now."""
        endpoints = {row.key: row for row in self._attachments.endpoints()}
        unknown = [key for key in endpoints if key.engine == ENGINE and key.container not in known]
        for key in self._endpoints.among(unknown, now_s):
            log.warning("Docker no longer knows %s, %s: removed", key, endpoints[key].first_address)
            await self._attachments.delete(key)
            for address in endpoints[key].addresses:
                await self._attachments.release(address)
        bound = {address for row in endpoints.values() for address in row.addresses}
        unused = [
            owner
            for owner, address in self._attachments.reservations()
            if owner.startswith(owner_of("")) and address not in bound
        ]
        for owner in self._owners.among(unused, now_s):
            log.warning("Docker took an address by %s and never used it: freed", owner)
            await self._attachments.release_owner(owner)
