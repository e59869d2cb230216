"""A connection between controller and agent: whole messages, in order, never more in memory than the peer has taken.

A frame is written in pieces and the writer waits while the peer does not read, so a slow peer costs one frame; one
that takes nothing for IDLE_S is cut off. Silence counts as death: the agent pings, the controller answers, and who
hears nothing for IDLE_S closes. The bytes go through a pipe: TLS, or memory for the simulation.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from hedgerow.errors import HedgerowError, Unreachable

from .codec import pack, unpack
from .messages import MAX_FRAME_BYTES, STATE_CHANNEL, Message, Ping, Pong
from .tls import CONTROLLER

log = logging.getLogger(__name__)

PING_S = 10.0
IDLE_S = 30.0
DIAL_S = 10.0
CLOSE_S = 1.0
"""For the last bytes and TLS' own goodbye, which a peer that does not read would hold for ever."""
PIECE_BYTES = 64 << 10

Accept = Callable[["Stream"], Coroutine[Any, Any, None]]


class Closed(Unreachable):
    """The connection is over."""


class Pipe(Protocol):
    """Frames as bytes. Both calls raise OSError or EOFError when the connection is over."""

    async def write(self, frame: bytes) -> None: ...

    async def read(self) -> bytes: ...

    async def close(self) -> None: ...


class Stream:
    """`identity` is the subject CN of the peer's certificate, `peer` its address for log lines."""

    def __init__(self, pipe: Pipe, *, identity: str, peer: str) -> None:
        self.identity = identity
        self.peer = peer
        self._pipe = pipe
        self._sending = asyncio.Lock()

    async def send(self, channel: int, message: Message) -> None:
        """Waits while the peer is slow. Raises Closed."""
        await self.send_packed(pack(channel, message))

    async def send_packed(self, frame: bytes) -> None:
        """For a frame that goes to many: packed once. Raises Closed."""
        async with self._sending:
            try:
                await self._pipe.write(frame)
            except (OSError, EOFError) as error:
                await self._pipe.close()
                raise Closed(f"the connection to {self.peer} broke: {_why(error)}") from error

    async def receive(self) -> tuple[int, Message]:
        """The next message but pings, which are answered here. Raises Closed, BadInput for a frame that is none."""
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    frame = await self._pipe.read()
            except (OSError, EOFError) as error:
                await self._pipe.close()
                raise Closed(f"the connection to {self.peer} is over: {_why(error)}") from error
            channel, message = unpack(frame)
            match message:
                case Ping():
                    # While something is being sent the peer hears from us anyway.
                    if not self._sending.locked():
                        await self.send(STATE_CHANNEL, Pong())
                case Pong():
                    pass
                case _:
                    return channel, message

    async def keep_alive(self) -> None:
        """Pings until the connection is over; whoever dialled runs it. Raises Closed."""
        while True:
            await asyncio.sleep(PING_S)
            await self.send(STATE_CHANNEL, Ping())

    async def close(self) -> None:
        """What was sent is on its way; repeatable."""
        await self._pipe.close()


def _why(error: Exception) -> str:
    match error:
        case TimeoutError():
            return f"silent for {IDLE_S:g} s"
        case asyncio.IncompleteReadError() | EOFError():
            return "closed by the other side"
        case _:
            return str(error) or type(error).__name__


class _SocketPipe:
    """A frame: its length (32 bits, network byte order), then its bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=4 * PIECE_BYTES)

    async def write(self, frame: bytes) -> None:
        view, at = memoryview(frame), 0
        head = struct.pack("!I", len(frame))
        try:
            while at < len(frame):
                if self._writer.is_closing():
                    raise ConnectionResetError("closed")
                self._writer.write(head + view[at : at + PIECE_BYTES])
                at, head = at + PIECE_BYTES, b""
                async with asyncio.timeout(IDLE_S):
                    await self._writer.drain()
        finally:
            # Who sends may be cancelled; half a frame would garble all that follows.
            if 0 < at < len(frame) and not self._writer.is_closing():
                self._writer.transport.abort()

    async def read(self) -> bytes:
        (length,) = struct.unpack("!I", await self._reader.readexactly(4))
        if length > MAX_FRAME_BYTES:
            raise ConnectionAbortedError(f"a frame of {length} bytes, at most {MAX_FRAME_BYTES} are taken")
        return await self._reader.readexactly(length)

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def dial(host: str, port: int, context: ssl.SSLContext) -> Stream:
    """Connect to a controller. Raises Unreachable."""
    try:
        async with asyncio.timeout(DIAL_S):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname=CONTROLLER, ssl_shutdown_timeout=CLOSE_S
            )
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that no resolver can be asked for
        reason = str(error) or f"no answer in {DIAL_S:g} s"
        raise Unreachable(f"controller {host}:{port} cannot be reached: {reason}") from error
    return _over(reader, writer)


async def serve(
    listener: socket.socket, context: ssl.SSLContext, accept: Accept, group: asyncio.TaskGroup
) -> asyncio.Server:
    """Hand every connection to `accept`, a task of `group` each. What goes wrong in one is logged and ends only it.

    Close the server before the group ends: a group that is ending would wait for who connects meanwhile.
    """

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not server.is_serving():
            writer.transport.abort()
            return
        stream = _over(reader, writer)
        group.create_task(attend(stream, accept), name=f"connection {stream.peer}")

    server = await asyncio.start_server(
        connected, sock=listener, ssl=context, ssl_handshake_timeout=DIAL_S, ssl_shutdown_timeout=CLOSE_S
    )
    return server


async def attend(stream: Stream, accept: Accept) -> None:
    """Run `accept` and close the stream, whatever happens to it."""
    try:
        await accept(stream)
    except HedgerowError as error:
        log.info("%s: %s", stream.peer, error)
    except Exception:
        log.exception("%s: connection ended by a fault of ours", stream.peer)
    finally:
        await stream.close()


def _over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Stream:
    certificate = writer.get_extra_info("ssl_object").getpeercert() or {}
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    host, port = writer.get_extra_info("peername")[:2]
    return Stream(_SocketPipe(reader, writer), identity=names[0] if names else "", peer=f"{host}:{port}")
