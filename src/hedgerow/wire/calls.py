"""Calls: short-lived channels beside the state, opened by either side of a connection.

The caller grants credit in bytes and grants more as it reads, so a slow reader stops the far end instead of filling
memory. A call ends by its deadline, by either side's End, or with the connection. Channels opened by a controller are
odd, an agent's even: both can open one without asking.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from hedgerow.errors import BadInput, HedgerowError, NotFound, Unreachable

from .messages import Call, Chunk, Credit, End, Message
from .stream import Closed, Stream

log = logging.getLogger(__name__)

CONTROLLERS_FIRST_CHANNEL = 1
AGENTS_FIRST_CHANNEL = 2
CREDIT_BYTES = 256 << 10
CHUNK_BYTES = 32 << 10
DEADLINE_S = 10.0
MAX_SERVED = 1000
"""Calls of one peer at a time; each is a task."""

Served = Callable[[dict[str, Any]], AsyncGenerator[bytes, None]]
"""Answers a call: an async generator of bytes. What it raises as HedgerowError, the caller reads."""


class _Account:
    """What may still be sent on one channel."""

    def __init__(self, credit_bytes: int) -> None:
        self._left = credit_bytes
        self._more = asyncio.Event()

    def add(self, more_bytes: int) -> None:
        self._left += more_bytes
        self._more.set()

    async def take(self, wanted: int) -> int:
        """At least one byte of credit, as soon as there is some."""
        while self._left <= 0:
            self._more.clear()
            await self._more.wait()
        taken = min(wanted, self._left)
        self._left -= taken
        return taken


class _Answer:
    """What has come on one channel, never more of it than there was credit for."""

    def __init__(self) -> None:
        self._left = CREDIT_BYTES
        self.come: asyncio.Queue[Chunk | End] = asyncio.Queue()

    def put(self, message: Chunk | End) -> bool:
        """Whether the sender has kept to its credit. An empty chunk costs none, and there is no use for it."""
        if isinstance(message, Chunk):
            self._left -= len(message.data)
            if self._left < 0 or not message.data:
                return False
        self.come.put_nowait(message)
        return True

    def grant(self, more_bytes: int) -> None:
        self._left += more_bytes


class Calls:
    """All calls of one connection. Whoever reads the stream gives every message of another channel than 0 to `take`."""

    def __init__(
        self, stream: Stream, group: asyncio.TaskGroup, served: Mapping[str, Served], *, first_channel: int
    ) -> None:
        self._stream = stream
        self._group = group
        self._served = served
        self._channels = itertools.count(first_channel, 2)
        self._answers: dict[int, _Answer] = {}
        self._serving: dict[int, tuple[asyncio.Task[None], _Account]] = {}
        self._is_over = False

    def take(self, channel: int, message: Message) -> None:
        """Never waits. What belongs to no open channel is late, and dropped.

        Raises BadInput, which ends the connection, for a peer that keeps to no limit.
        """
        match message:
            case Call() if channel not in self._serving and len(self._serving) >= MAX_SERVED:
                raise BadInput(
                    f"{self._stream.peer} opened more than {MAX_SERVED} calls at once", "wait for some to end"
                )
            case Call() if channel not in self._serving:
                account = _Account(message.credit_bytes)
                task = self._group.create_task(
                    self._serve(channel, message, account), name=f"{message.method} for {self._stream.peer}"
                )
                self._serving[channel] = task, account
            case Credit() if channel in self._serving:
                self._serving[channel][1].add(message.more_bytes)
            case Chunk() | End() if channel in self._answers:
                if not self._answers[channel].put(message):
                    raise BadInput(f"{self._stream.peer} sent more than it had credit for", "heed Credit")
            case End() if channel in self._serving:
                self._serving[channel][0].cancel()
            case _:
                log.debug("%s: %s on channel %d is late", self._stream.peer, type(message).__name__, channel)

    async def call(
        self, method: str, arguments: Mapping[str, Any], *, deadline_s: float = DEADLINE_S
    ) -> AsyncGenerator[bytes, None]:
        """The answer, piece by piece. Raises Unreachable after `deadline_s` or when the connection ends; what the far
        end raised comes as HedgerowError. Close the iterator to end the call early (`contextlib.aclosing`).
        """
        channel = next(self._channels)
        answer = self._answers[channel] = _Answer()
        ended = False
        try:
            async with asyncio.timeout(deadline_s) as limit:
                await self._stream.send(channel, Call(method, json.dumps(arguments).encode(), deadline_s, CREDIT_BYTES))
            while not ended:
                async with asyncio.timeout_at(limit.when()):
                    message = await answer.come.get()
                    match message:
                        case Chunk(data):
                            answer.grant(len(data))
                            await self._stream.send(channel, Credit(len(data)))
                        case End(fault, cure):
                            ended = True
                            if fault:
                                raise HedgerowError(fault, cure)
                            return
                yield message.data
        except TimeoutError as error:
            raise Unreachable(f"{self._stream.peer} did not answer {method} in {deadline_s:g} s") from error
        finally:
            del self._answers[channel]
            if not ended:
                self._end(channel)

    def close(self) -> None:
        """The connection is over: every open call ends, every call being served is cancelled."""
        self._is_over = True
        for answer in self._answers.values():
            answer.put(End(f"the connection to {self._stream.peer} is over", "ask again"))
        for task, _ in self._serving.values():
            task.cancel()

    def _end(self, channel: int) -> None:
        if self._is_over:
            return  # nobody hears it, and the group has ended

        async def say() -> None:
            try:
                await self._stream.send(channel, End())
            except Closed:
                log.debug("%s: gone before its call %d ended", self._stream.peer, channel)

        saying = say()
        try:
            self._group.create_task(saying, name=f"end of call {channel} to {self._stream.peer}")
        except RuntimeError:  # the group is ending already, and the connection with it
            saying.close()

    async def _serve(self, channel: int, call: Call, account: _Account) -> None:
        try:
            end = await self._answer(channel, call, account)
            await self._stream.send(channel, end)
        except Closed:
            log.debug("%s: gone while %s was answered", self._stream.peer, call.method)
        finally:
            del self._serving[channel]

    async def _answer(self, channel: int, call: Call, account: _Account) -> End:
        try:
            served = self._served.get(call.method)
            if served is None:
                raise NotFound(f"no call is named {call.method!r}", f"known: {', '.join(sorted(self._served))}")
            arguments = json.loads(call.arguments)
            async with asyncio.timeout(call.deadline_s), aclosing(served(arguments)) as answer:
                async for piece in answer:
                    await self._send(channel, piece, account)
        except Closed:
            raise
        except TimeoutError:
            return End(f"{call.method} took longer than {call.deadline_s:g} s")
        except HedgerowError as error:
            return End(error.message, error.cure)
        except Exception as error:
            log.exception("%s: %s failed", self._stream.peer, call.method)
            return End(f"{call.method} failed: {error}")
        return End()

    async def _send(self, channel: int, data: bytes, account: _Account) -> None:
        while data:
            length = await account.take(min(len(data), CHUNK_BYTES))
            await self._stream.send(channel, Chunk(data[:length]))
            data = data[length:]
