"""What a controller is made of, but for its sockets: the simulation runs the same."""

from __future__ import annotations

import asyncio

from hedgerow.store.base import Store

from .members import Members
from .registration import Registration
from .sessions import Sessions
from .watch import Watch


class Core:
    def __init__(self, store: Store) -> None:
        self.watch = Watch(store)
        self.members = Members(store, self.watch)
        self.registration = Registration(store, self.watch)
        self.sessions = Sessions(store, self.watch, self.registration)

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Returns when agents can be taken."""
        group.create_task(self.watch.run(), name="watch")
        await self.watch.reached(0)
        group.create_task(self.registration.keep_allotted(), name="allotment")
        group.create_task(self.members.keep(), name="members")
