"""All of `apps/` in one object, for the controller to mount. Nothing else imports this package."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from starlette.routing import BaseRoute

from hedgerow.store.base import Store

from .api import Marathon
from .logs import CallAgent, Logs
from .scheduler import Connected, Scheduler


@dataclass(frozen=True, slots=True)
class Apps:
    """`routes`: Marathon's `/v2`, and the logs of apps under `/v1/apps`."""

    routes: Sequence[BaseRoute]
    scheduler: Scheduler

    async def run(self) -> None:
        """The scheduler. Does not end."""
        await self.scheduler.run()

    def damaged(self) -> Mapping[str, str]:
        """Keys of records that could not be read, and why."""
        return self.scheduler.damaged

    def wake(self) -> None:
        """An agent has come or gone."""
        self.scheduler.wake()


def build(store: Store, call: CallAgent, connected: Connected, clock: Callable[[], float] = time.time) -> Apps:
    scheduler = Scheduler(store, connected, clock=clock)
    return Apps([*Marathon(store, scheduler, clock).routes(), *Logs(scheduler, call).routes()], scheduler)
