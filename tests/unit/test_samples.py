"""Samples of dropped packets on the agent: what is alike is one, what is old is gone, who follows hears of new ones."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from ipaddress import IPv4Address

import pytest

from hedgerow.agent.samples import KEPT_S, Samples
from hedgerow.errors import BadInput
from hedgerow.kernel.events import DropEvent
from hedgerow.kernel.maps import Reason
from hedgerow.kernel.packing import pack_address

WEB, DB, NEW = IPv4Address("10.64.0.2"), IPv4Address("10.65.0.2"), IPv4Address("10.64.0.3")
SECOND_NS = 10**9


def event(source: IPv4Address = WEB, at_s: float = 1.0, reason: int = Reason.ISOLATED, sport: int = 40000) -> bytes:
    """As the data path writes it."""
    return struct.pack(
        DropEvent.FORMAT,
        int(at_s * SECOND_NS),
        pack_address(source),
        pack_address(DB),
        5000,
        7,
        sport.to_bytes(2),
        (80).to_bytes(2),
        reason,
        6,
        0,
    )


def samples() -> Samples:
    return Samples(lambda: {5000: "dev"})


def test_what_is_alike_within_a_moment_is_one_sample() -> None:
    kept = samples()
    kept.take([event(), event(sport=40001), event(NEW), event(reason=Reason.TOO_BIG)], boot_s=time.time() - 1)
    assert [(one.source, one.reason, one.packets, one.source_port) for _, one in kept.since(60)] == [
        ("10.64.0.2", "isolated", 2, 40000),
        ("10.64.0.3", "isolated", 1, 40000),
        ("10.64.0.2", "too_big", 1, 40000),
    ]
    assert {one.network for _, one in kept.since(60)} == {"dev"}


def test_times_are_those_of_a_clock() -> None:
    kept = samples()
    kept.take([event(at_s=100.25)], boot_s=time.time() - 100)
    ((_, one),) = kept.since(60)
    assert one.time_s == pytest.approx(time.time() + 0.25, abs=2)


def test_old_ones_are_forgotten() -> None:
    kept = samples()
    kept.take([event(at_s=1.0)], boot_s=time.time() - KEPT_S - 10)
    kept.take([event(NEW, at_s=1.0)], boot_s=time.time() - 100)
    assert [one.source for _, one in kept.since(KEPT_S)] == ["10.64.0.3"]
    assert kept.since(10) == []


def test_an_event_of_a_newer_data_path_is_left_out() -> None:
    kept = samples()
    kept.take([event(reason=250), event()], boot_s=time.time() - 1)
    assert len(kept.since(60)) == 1


def test_who_asks_gets_a_line_each_and_an_end() -> None:
    async def case() -> list[bytes]:
        kept = samples()
        kept.take([event(), event(NEW)], boot_s=time.time() - 1)
        return [piece async for piece in kept.call({"since_s": 60, "follow": False})]

    lines = b"".join(asyncio.run(case())).splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["10.64.0.2", "10.64.0.3"]


def test_who_follows_hears_of_what_comes_and_of_nothing_twice() -> None:
    async def case() -> None:
        kept = samples()
        kept.take([event()], boot_s=time.time() - 1)
        heard = kept.call({"since_s": 60, "follow": True})
        assert b"10.64.0.2" in await anext(heard)
        waiting = asyncio.ensure_future(anext(heard))
        await asyncio.sleep(0)
        kept.take([event(NEW)], boot_s=time.time() - 1)
        piece = await waiting
        assert b"10.64.0.3" in piece
        assert piece.count(b"\n") == 1
        await heard.aclose()

    asyncio.run(case())


@pytest.mark.parametrize("arguments", [{}, {"since_s": -1, "follow": False}, {"since_s": "1", "follow": True}])
def test_a_question_that_is_none_is_refused(arguments: dict[str, object]) -> None:
    async def case() -> None:
        with pytest.raises(BadInput):
            await anext(samples().call(arguments))

    asyncio.run(case())
