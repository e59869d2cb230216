from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from unit.agent_records import DCOS, SNAPSHOT, placed

from hedgerow.agent.objects import FIREWALL, Kind
from hedgerow.agent.reports import Reports, Said
from hedgerow.agent.state import State
from hedgerow.model.snapshot import Revision
from hedgerow.reconcile.loop import Failed
from hedgerow.reconcile.plan import Key


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_a_revision_is_applied_when_a_round_that_began_with_it_ends_well() -> None:
    async def test() -> None:
        state = State(None)
        reports = Reports(state, way=lambda: "wire")
        reports.round_begins()
        await state.replace_snapshot(SNAPSHOT)
        reports.round_done({})
        assert reports.applied is None, "the round began before"
        reports.round_begins()
        await state.replace_snapshot(replace(SNAPSHOT, revision=Revision(1, 8)))
        reports.round_done({})
        assert reports.applied == Revision(1, 7)

    run(test())


def test_what_fails_is_told_and_holds_the_revision_back_unless_it_is_one_endpoint() -> None:
    async def test() -> None:
        state = State(None)
        reports = Reports(state, way=lambda: "wire")
        await state.replace_snapshot(SNAPSHOT)
        reports.round_begins()
        reports.round_done({FIREWALL: Failed("no nft", 5.0)})
        report = reports.next(Said())
        assert report is not None
        assert (report.applied, [fault.row for fault in report.faults]) == (None, ["firewall inet hedgerow"])
        reports.round_begins()
        reports.round_done({Key(Kind.LINK, "hr-1"): Failed("its link is gone", 5.0)})
        assert reports.applied == SNAPSHOT.revision

    run(test())


def test_nothing_new_is_not_reported() -> None:
    async def test() -> None:
        state = State(None)
        reports, said = Reports(state, way=lambda: "device"), Said()
        first = reports.next(said)
        assert first is not None
        assert (first.whole, first.way) == (True, "device")
        assert reports.next(said) is None
        await state.place(lambda: placed("c1", DCOS, "9.0.1.1"))
        assert reports.next(said) is not None
        assert reports.next(said) is None

    run(test())
