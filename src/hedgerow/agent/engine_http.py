"""An engine's HTTP API over its unix socket: Docker's, and Podman's that speaks the same and its own.

A request per call, a bound on every wait, and the engine's own sentence in what is raised.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hedgerow.errors import HedgerowError, Unreachable

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

ANSWER_S = 30.0
"""Creating and starting a container takes under a second; with the disk at its limit, many."""


class EngineError(HedgerowError):
    """What the engine answered instead. `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class EngineHttp:
    """`name` is the engine's for people, `socket` a path. The session is made when it is first needed: importing
    aiohttp takes a third of a second, and an agent must be ready before that.
    """

    def __init__(self, name: str, socket: str) -> None:
        self.name = name
        self._socket = socket
        self._session: ClientSession | None = None

    async def json(
        self, method: str, path: str, body: object = None, *, within_s: float = ANSWER_S, **query: str
    ) -> Any:
        """The answer's JSON, None when it has no body. Raises EngineError from status 400 on, and Unreachable."""
        async with self._request(method, path, body, within_s, query) as response:
            text = await response.read()
            return json.loads(text) if text.strip() else None

    async def stream(self, method: str, path: str, **query: str) -> AsyncGenerator[bytes, None]:
        """The body as it comes, without an end if the engine gives it none."""
        async with self._request(method, path, None, None, query) as response:
            async for piece in response.content.iter_any():
                yield piece

    async def close(self) -> None:
        """The next request opens it again: a task that failed is started once more."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, body: object, within_s: float | None, query: dict[str, str]
    ) -> AsyncIterator[ClientResponse]:
        await asyncio.to_thread(import_module, "aiohttp")  # half a second of CPU; engines' calls must not wait for it
        from aiohttp import ClientError, ClientSession, ClientTimeout, UnixConnector

        if self._session is None:
            self._session = ClientSession(connector=UnixConnector(self._socket, limit=0))
        timeout = ClientTimeout(total=within_s, connect=5)
        url = f"http://engine{path}"
        try:
            async with self._session.request(method, url, json=body, params=query, timeout=timeout) as response:
                if response.status >= 400:
                    raise EngineError(response.status, _sentence(await response.read()))
                yield response
        except TimeoutError as error:
            raise Unreachable(f"{self.name} did not answer {method} {path}", f"see {self.name}'s log") from error
        except (ClientError, OSError) as error:
            raise Unreachable(f"{self.name} does not answer: {error}", f"start {self.name}") from error


def _sentence(body: bytes) -> str:
    """Docker says `message`; Podman says it twice, and the root cause in `cause`."""
    try:
        return str(json.loads(body)["message"]).strip()
    except (ValueError, LookupError, TypeError):
        return body.decode(errors="replace").strip() or "no reason given"
