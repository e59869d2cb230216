"""Reports: the only way back. What is applied, what fails, which endpoints and instances there are.

A report says what differs from the one before on the same connection; the first says all. So whoever reports needs no
history: only what it said last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from hedgerow.model.app import InstanceStatus
from hedgerow.model.endpoint import Endpoint, EndpointKey
from hedgerow.model.snapshot import Revision
from hedgerow.reconcile.loop import Failed
from hedgerow.reconcile.plan import Key
from hedgerow.wire.messages import Report, RowFault

from .objects import Kind
from .state import State


@dataclass(slots=True)
class Said:
    """What one connection has been told."""

    whole: bool = False
    endpoints: dict[EndpointKey, Endpoint] = field(default_factory=dict)
    rest: tuple[object, ...] = ()


class Reports:
    """`way` is that of the data path; `instances` gives all of now."""

    def __init__(
        self,
        state: State,
        *,
        way: Callable[[], str],
        instances: Callable[[], Iterable[InstanceStatus]] = tuple,
    ) -> None:
        self._state = state
        self.failed: Mapping[Key, Failed] = {}
        self._way = way
        self.instances = instances
        self.applied: Revision | None = None
        self._aimed: Revision | None = None

    def round_begins(self) -> None:
        """The loop's next rows are those of the snapshot that there is now."""
        snapshot = self._state.snapshot
        self._aimed = snapshot.revision if snapshot is not None and self._state.is_live else None

    def round_done(self, failed: Mapping[Key, Failed]) -> None:
        """A revision is applied when everything is that follows from it; an endpoint's link is another matter."""
        self.failed = failed
        if all(key.kind is Kind.LINK for key in failed) and self._aimed is not None:
            self.applied = self._aimed
        self._state.reportable.change()

    def next(self, said: Said) -> Report | None:
        """What to tell a connection that was told `said`, which is brought up to date. None: nothing new."""
        endpoints = {endpoint.key: endpoint for endpoint in (placed.endpoint for placed in self._state.placed())}
        changed = tuple(endpoint for key, endpoint in endpoints.items() if said.endpoints.get(key) != endpoint)
        gone = tuple(key for key in said.endpoints if key not in endpoints)
        faults = tuple(
            RowFault(row=str(key), reason=failed.reason, since_s=failed.since_s) for key, failed in self.failed.items()
        )
        instances = tuple(self.instances())
        rest = (self.applied, faults, instances, self._way())
        if said.whole and not changed and not gone and rest == said.rest:
            return None
        report = Report(
            applied=self.applied,
            faults=faults,
            whole=not said.whole,
            endpoints=changed,
            endpoints_gone=gone,
            instances=instances,
            way=self._way(),
        )
        said.whole, said.endpoints, said.rest = True, endpoints, rest
        return report
