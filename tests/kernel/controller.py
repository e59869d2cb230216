"""A controller that says what it is told to say."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path

from hedgerow.model.snapshot import Snapshot
from hedgerow.wire import tls
from hedgerow.wire.messages import STATE_CHANNEL, Hello, Message, Report, State, Welcome
from hedgerow.wire.stream import Closed, Stream, serve

WAIT_S = 15.0


@dataclass
class Controller:
    """Welcomes the agent and sends it what `snapshot` is; keeps what it reports."""

    snapshot: Snapshot
    reports: list[Report] = field(default_factory=list)
    hellos: list[Hello] = field(default_factory=list)

    def start(self, listener: socket.socket, keys: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._streams: list[Stream] = []
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(listener, keys),))
        self._thread.start()

    async def _run(self, listener: socket.socket, keys: Path) -> None:
        self._ended = asyncio.Event()
        with contextlib.suppress(asyncio.CancelledError):
            async with asyncio.TaskGroup() as group:
                server = await serve(listener, tls.server_context(keys), self._accept, group)
                await self._ended.wait()
                server.close()
                for stream in self._streams:
                    await stream.close()
                raise asyncio.CancelledError

    async def _accept(self, stream: Stream) -> None:
        _, hello = await stream.receive()
        assert isinstance(hello, Hello)
        self.hellos.append(hello)
        await stream.send(STATE_CHANNEL, Welcome(1, self.snapshot.agents[self.snapshot.own]))
        await stream.send(STATE_CHANNEL, State(self.snapshot))
        self._streams.append(stream)
        with contextlib.suppress(Closed):
            while True:
                _, message = await stream.receive()
                if isinstance(message, Report):
                    self.reports.append(message)

    def say(self, message: Message) -> None:
        """To every agent that is connected."""

        async def say() -> None:
            for stream in self._streams:
                with contextlib.suppress(Closed):
                    await stream.send(STATE_CHANNEL, message)

        asyncio.run_coroutine_threadsafe(say(), self._loop).result(WAIT_S)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(WAIT_S)
        self._loop.close()
