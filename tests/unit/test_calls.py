"""Calls between two ends in memory: answers, credit, deadlines, and every way in which a call may end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from hedgerow.errors import BadInput, HedgerowError, NotFound, Unreachable
from hedgerow.wire.calls import AGENTS_FIRST_CHANNEL, CONTROLLERS_FIRST_CHANNEL, CREDIT_BYTES, MAX_SERVED, Calls, Served
from hedgerow.wire.memory import memory_pair
from hedgerow.wire.messages import Call, Chunk
from hedgerow.wire.stream import Closed, Stream


class Far:
    """The serving end; what it did is written down."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.ended = asyncio.Event()

    async def echo(self, arguments: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        for piece in arguments["pieces"]:
            yield piece.encode()

    async def endless(self, arguments: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                self.sent_bytes += 1000
                yield bytes(1000)
                await asyncio.sleep(0)
        finally:
            self.ended.set()

    async def silent(self, arguments: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        yield b""

    async def refuses(self, arguments: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        yield b"some"
        raise NotFound("no instance is called x", "look again")

    async def broken(self, arguments: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        raise ZeroDivisionError("oh")
        yield b""

    def served(self) -> dict[str, Served]:
        names = ("echo", "endless", "silent", "refuses", "broken")
        return {name: getattr(self, name) for name in names}


async def pump(stream: Stream, calls: Calls) -> None:
    try:
        while True:
            calls.take(*await stream.receive())
    except Closed:
        calls.close()


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Calls, Calls, Far, Any]]:
    """The controller's calls, the agent's, the agent's handlers, and what cuts the cable."""
    far = Far()
    agent, controller, cut = memory_pair("a")
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        ours = Calls(controller, group, {}, first_channel=CONTROLLERS_FIRST_CHANNEL)
        theirs = Calls(agent, group, far.served(), first_channel=AGENTS_FIRST_CHANNEL)
        pumps = [group.create_task(pump(controller, ours)), group.create_task(pump(agent, theirs))]
        yield ours, theirs, far, cut
        cut()
        await asyncio.wait(pumps)


async def answer(calls: Calls, method: str, deadline_s: float = 5.0, **arguments: Any) -> bytes:
    return b"".join([piece async for piece in calls.call(method, arguments, deadline_s=deadline_s)])


def test_answers_come_back_to_whoever_asked() -> None:
    async def case() -> None:
        async with pair() as (ours, _, _, _):
            asked = [[f"{n}-{m}" for m in range(n)] for n in range(20)]
            answers = await asyncio.gather(*(answer(ours, "echo", pieces=pieces) for pieces in asked))
            assert answers == ["".join(pieces).encode() for pieces in asked]

    asyncio.run(case())


def test_a_piece_of_any_size_is_cut_into_chunks() -> None:
    async def case() -> None:
        async with pair() as (ours, _, _, _):
            assert len(await answer(ours, "echo", pieces=["x" * 1_000_000])) == 1_000_000

    asyncio.run(case())


def test_a_slow_reader_stops_the_far_end_at_the_credit() -> None:
    async def case() -> None:
        async with pair() as (ours, _, far, _):
            async with aclosing(ours.call("endless", {}, deadline_s=20)) as pieces:
                await anext(pieces)
                before = -1
                while before != far.sent_bytes:
                    before = far.sent_bytes
                    await asyncio.sleep(0.05)
                assert far.sent_bytes <= CREDIT_BYTES + 100_000
                read = 0
                async for piece in pieces:
                    read += len(piece)
                    if read > 2 * CREDIT_BYTES:
                        break
            await far.ended.wait()

    asyncio.run(case())


def test_what_the_far_end_raises_comes_with_its_cure() -> None:
    async def case() -> None:
        async with pair() as (ours, _, _, _):
            with pytest.raises(HedgerowError, match="no instance is called x") as told:
                await answer(ours, "refuses")
            assert told.value.cure == "look again"
            with pytest.raises(HedgerowError, match="broken failed: oh"):
                await answer(ours, "broken")
            with pytest.raises(HedgerowError, match="no call is named 'none'") as told:
                await answer(ours, "none")
            assert "echo" in told.value.cure

    asyncio.run(case())


def test_a_call_ends_by_its_deadline_on_both_ends() -> None:
    async def case() -> None:
        async with pair() as (ours, _, far, _):
            with pytest.raises(HedgerowError, match=r"silent"):
                await answer(ours, "silent", deadline_s=0.1)
            await far.ended.wait()

    asyncio.run(case())


def test_a_cut_cable_ends_calls_on_both_ends() -> None:
    async def case() -> None:
        async with pair() as (ours, _, far, cut):
            async with aclosing(ours.call("endless", {}, deadline_s=20)) as pieces:
                await anext(pieces)
                cut()
                with pytest.raises((HedgerowError, Unreachable), match=r"over|broke"):
                    async for _ in pieces:
                        pass
            await far.ended.wait()

    asyncio.run(case())


def test_either_side_may_call() -> None:
    async def case() -> None:
        async with pair() as (_, theirs, _, _):
            with pytest.raises(HedgerowError, match="no call is named 'echo'"):
                await answer(theirs, "echo", pieces=[])

    asyncio.run(case())


@pytest.mark.parametrize("chunk", [bytes(CREDIT_BYTES + 1), b""])
def test_who_sends_what_it_has_no_credit_for_is_cut_off(chunk: bytes) -> None:
    async def case() -> None:
        async with pair() as (ours, _, _, _), aclosing(ours.call("endless", {}, deadline_s=20)) as pieces:
            await anext(pieces)
            with pytest.raises(BadInput, match="more than it had credit for"):
                ours.take(CONTROLLERS_FIRST_CHANNEL, Chunk(chunk))

    asyncio.run(case())


def test_who_opens_calls_without_end_is_cut_off() -> None:
    async def case() -> None:
        async with pair() as (ours, _, _, _):
            for channel in range(MAX_SERVED):
                ours.take(AGENTS_FIRST_CHANNEL + 2 * channel, Call("none", b"{}", 1.0))
            with pytest.raises(BadInput, match="calls at once"):
                ours.take(AGENTS_FIRST_CHANNEL + 2 * MAX_SERVED, Call("none", b"{}", 1.0))

    asyncio.run(case())


def test_a_call_may_fail_while_its_connection_ends() -> None:
    """Its task group takes no more tasks then, and nobody is left who would hear the end of the call."""

    async def case() -> None:
        near, _, cut = memory_pair("agent")
        lingers, ended, made = asyncio.Event(), asyncio.Event(), asyncio.Queue[Calls]()

        async def linger() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                lingers.set()
                await ended.wait()

        async def connection() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(linger(), name="linger")
                made.put_nowait(Calls(near, group, {}, first_channel=CONTROLLERS_FIRST_CHANNEL))
                await asyncio.sleep(0)
                raise Closed("the connection broke")

        async with asyncio.TaskGroup() as outer:
            running = outer.create_task(_swallowed(connection()), name="connection")
            ours = await made.get()
            await lingers.wait()
            cut()
            try:
                with pytest.raises(Closed):
                    await answer(ours, "echo", pieces=[])
            finally:
                ended.set()
            await running

    asyncio.run(case())


async def _swallowed(work: Any) -> None:
    with pytest.raises(ExceptionGroup):
        await work


def test_a_reader_may_give_up_after_the_connection_has_ended() -> None:
    async def case() -> None:
        async with pair() as (ours, _, _, cut):
            pieces = ours.call("endless", {}, deadline_s=20)
            await anext(pieces)
            cut()
        await pieces.aclose()

    asyncio.run(case())
