"""CNI: what the shim sends becomes an attachment. Podman 4, Mesos, containerd, CRI-O and Nomad come in here.

Calls are worked off one at a time, in the order in which they came: a DEL and the ADD after it, of one container that
restarts, must not overtake each other. For the same reason a call is left alone when its shim has given up (it says
until when it waits), and DELs that shims had to queue come before any ADD.

An attachment is known by container id and interface name (CNI 1.0.0, "Attachment Parameters"); both together also own
the address, so a DEL finds it when the agent died between taking it and noting whose it is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from hedgerow.errors import HedgerowError
from hedgerow.model.endpoint import Endpoint, EndpointKey

from . import cni_protocol
from .cni_protocol import CniError, Code, Request

if TYPE_CHECKING:
    from hedgerow.agent.attach import Attachments
    from hedgerow.agent.state import State

log = logging.getLogger(__name__)

ENGINE = "cni"
QUEUE = Path("/run/hedgerow/cni-queue")
QUEUE_INTERVAL_S = 5.0
LIMIT_S = 20.0
"""Of one call: below the shim's own 30 s, so that the engine hears what went wrong."""


class Plugin:
    def __init__(self, attachments: Attachments, state: State, queue: Path = QUEUE) -> None:
        self._attachments = attachments
        self._state = state
        self._queue = queue
        self._in_turn = asyncio.Lock()

    def routes(self) -> list[Route]:
        return [Route("/cni", self._serve, methods=["POST"])]

    async def keep_queue(self) -> None:
        """A task: attachments whose DEL nobody answered do not wait for the next container to start."""
        async with self._in_turn:
            await self._forget_earlier_boots()
        while True:
            async with self._in_turn:
                await self._work_off_queue()
            await asyncio.sleep(QUEUE_INTERVAL_S)

    async def _serve(self, http: HttpRequest) -> Response:
        message = await http.body()
        async with self._in_turn:
            deadline_ms = int(http.headers.get("hedgerow-deadline", "0"))
            if deadline_ms and time.clock_gettime(time.CLOCK_MONOTONIC) * 1000 >= deadline_ms:
                log.info("a call whose shim had given up was left alone")
                return Response(status_code=408)
            status, body = await self._answer(message)
        return Response(body, status, media_type="application/json")

    async def _answer(self, message: bytes) -> tuple[int, bytes]:
        start = time.perf_counter()
        try:
            request = cni_protocol.parse(message)
            body = await self._act(request)
        except Exception as error:  # the engine must get an answer
            found = cni_protocol.error_object(error)
            level = log.exception if found["code"] == Code.INTERNAL else log.warning
            level("refused, code %d: %s", found["code"], found["msg"])
            return 500, msgspec.json.encode(found)
        took_ms = (time.perf_counter() - start) * 1000
        log.info("%s %s %s %.1f ms", request.command, request.container[:12], request.ifname, took_ms)
        return 200, body

    async def _act(self, request: Request) -> bytes:
        try:
            async with asyncio.timeout(LIMIT_S):
                match request.command:
                    case "ADD":
                        await self._work_off_queue()
                        return await self._add(request)
                    case "CHECK":
                        return await self._check(request)
                    case _:
                        return await self._delete(request)
        except TimeoutError as error:
            raise CniError(
                Code.TRY_AGAIN, f"{request.command} took longer than {LIMIT_S:.0f} s: see the Hedgerow agent's log"
            ) from error

    async def _add(self, request: Request) -> bytes:
        """Repeatable: the shim sends it again when an agent dies over it, and Nomad when it failed."""
        if self._state.snapshot is None:
            raise CniError(Code.TRY_AGAIN, "this agent has not heard of any network yet: it waits for a controller")
        network = self._attachments.network(request.config.network or request.config.name)
        self._attachments.passes.admit(network, request.args.get("K8S_POD_NAME", ""))
        asked, mac, key = cni_protocol.addresses_asked_for(request), cni_protocol.mac_asked_for(request), _key(request)
        ports, known = cni_protocol.ports_asked_for(request), self._endpoint(key)
        if known and known.network != network.id:
            raise CniError(Code.CONFLICT, f"{request.ifname} of {request.container} is on another network already")
        if strange := [str(address) for version, address in asked.items() if version not in network.versions]:
            raise CniError(Code.REFUSED, f"static address {strange[0]}: {network.name} has no addresses of this family")
        try:
            taken = [
                await self._attachments.reserve(network, str(key), asked.get(version), version)
                for version in network.versions
            ]
            await self._attachments.create(key, network, taken, mac, request.args.get("K8S_POD_NAME", ""))
            endpoint = await self._attachments.attach(key, request.netns, request.ifname)
            if ports or endpoint.published:
                endpoint = await self._attachments.publish(key, ports)
        except Exception:
            if not known:
                await self._forget(key)
            raise
        return msgspec.json.encode(cni_protocol.result(request, endpoint, network))

    async def _check(self, request: Request) -> bytes:
        key = _key(request)
        endpoint = self._endpoint(key)
        if not endpoint:
            raise CniError(Code.NOT_AS_ADDED, f"{request.ifname} of {request.container} is not attached")
        cni_protocol.check_previous(request, endpoint)
        cni_protocol.check_ports(request, endpoint)
        try:
            await self._attachments.check(key, request.netns, request.ifname)
        except HedgerowError as error:
            raise CniError(Code.NOT_AS_ADDED, str(error)) from error
        return b""

    async def _delete(self, request: Request) -> bytes:
        await self._forget(_key(request))
        return b""

    async def _forget(self, key: EndpointKey) -> None:
        await self._attachments.delete(key)
        await self._attachments.release_owner(str(key))

    async def _forget_earlier_boots(self) -> None:
        """Their containers ended with the host, and engines do not send a DEL for those afterwards."""
        for endpoint in self._attachments.endpoints():
            if endpoint.key.engine == ENGINE and endpoint.boot_id not in ("", self._state.boot_id):
                log.info("%s %s is of an earlier boot: removed", endpoint.key, endpoint.first_address)
                await self._forget(endpoint.key)

    def _endpoint(self, key: EndpointKey) -> Endpoint | None:
        return next((row for row in self._attachments.endpoints() if row.key == key), None)

    async def _work_off_queue(self) -> None:
        """Only in turn. A file goes when its DEL is done, or can never be."""
        for path in self._queue.glob("*.delete"):
            try:
                await self._delete(cni_protocol.parse(path.read_bytes()))
                log.info("DEL from the queue: %s", path.name)
            except CniError as error:
                log.warning("DEL from the queue: %s: %s", path.name, error)
            except Exception:
                log.exception("DEL from the queue: %s: tried again later", path.name)
                continue
            path.unlink()


def _key(request: Request) -> EndpointKey:
    return EndpointKey(ENGINE, request.container, request.ifname)
