"""The containers of one engine that are ours: list, launch, stop, remove, logs, and a sign when something changes.

Podman serves Docker's API too, and all but making a container goes by that. Everything is repeatable: a container's
name is its instance's id, so a second launch finds the first one's container.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from hedgerow.errors import HedgerowError
from hedgerow.model.app import Engine, Instance, InstanceId

from .engine_http import EngineError, EngineHttp
from .instances import Container, Phase
from .launches import INCARNATION_LABEL, INSTANCE_LABEL, full_reference

PULL_S = 1800.0
"""A large image over a slow line. A registry that never ends would keep others from being launched."""
END_S = 600.0
"""To end a container, beyond its grace, or to remove it: with a slow disk and a large file system."""
API = "/v1.40"
LIBPOD = "/v4.0.0/libpod"
STREAM_HEADER_BYTES = 8

Body = Callable[[Instance], dict[str, Any]]
"""The request for an instance; raises HedgerowError for one that may not run here."""


class Containers:
    """`body` is Docker's or Podman's, as the engine is."""

    def __init__(self, engine: Engine, http: EngineHttp, body: Body) -> None:
        self.engine = engine
        self._http = http
        self._body = body
        self._known: dict[tuple[str, str], Container] = {}

    async def all(self) -> dict[InstanceId, Container]:
        filters = json.dumps({"label": [INSTANCE_LABEL]})
        rows = await self._http.json("GET", f"{API}/containers/json", all="true", filters=filters)
        known, self._known = self._known, {}
        for row in rows:
            seen = row["Id"], row["State"]
            # What a container says of itself changes only with its state, and looking closely costs milliseconds.
            if container := known.get(seen) or await self._inspect(row["Id"]):
                self._known[seen] = container
        return {each.instance: each for each in self._known.values()}

    async def launch(self, instance: Instance) -> None:
        """Makes and starts its container; pulls the image when it is not here."""
        try:
            await self._create(instance)
        except EngineError as error:
            image = instance.launch.image
            if image is None or not _is_missing_image(error):
                raise
            await self._pull(image)
            await self._create(instance)
        await self._http.json("POST", f"{API}/containers/{instance.id}/start")

    async def stop(self, container: Container, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after the grace. One that is gone is stopped."""
        within_s = grace_s + END_S
        await self._gone_is_fine("POST", f"{container.id}/stop", within_s=within_s, t=str(round(grace_s)))

    async def remove(self, container: Container) -> None:
        """With its file system and its log. One that is gone is removed."""
        await self._gone_is_fine("DELETE", container.id, within_s=END_S, force="true", v="true")

    async def logs(self, container: Container, *, follow: bool, tail: int | None) -> AsyncGenerator[bytes, None]:
        """What it wrote to both streams, in order. With `follow`, until it ends."""
        query = {"stdout": "true", "stderr": "true", "follow": str(follow).lower()}
        if tail is not None:
            query["tail"] = str(tail)
        pieces = self._http.stream("GET", f"{API}/containers/{container.id}/logs", **query)
        async with aclosing(pieces), aclosing(without_headers(pieces)) as texts:
            async for text in texts:
                yield text

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Something for each change of a container; what it says does not matter."""
        filters = json.dumps({"type": ["container"]})
        async with aclosing(self._http.stream("GET", f"{API}/events", filters=filters)) as pieces:
            async for piece in pieces:
                yield piece

    async def close(self) -> None:
        await self._http.close()

    async def _create(self, instance: Instance) -> None:
        try:
            body = self._body(instance)
            if self.engine is Engine.DOCKER:
                await self._http.json("POST", f"{API}/containers/create", body, name=str(instance.id))
            else:
                await self._http.json("POST", f"{LIBPOD}/containers/create", body)
        except EngineError:
            # An agent that ended between making and starting it: the container is there.
            if await self._inspect(str(instance.id)) is None:
                raise

    async def _inspect(self, id: str) -> Container | None:
        try:
            row = await self._http.json("GET", f"{API}/containers/{id}/json")
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        return container_of(self.engine, row)

    async def _pull(self, image: str) -> None:
        """Both engines answer 200 and say in the stream what went wrong."""
        if self.engine is Engine.DOCKER:
            tag = {} if "@" in image or ":" in image.rpartition("/")[2] else {"tag": "latest"}
            pieces = self._http.stream("POST", f"{API}/images/create", fromImage=image, **tag)
        else:
            pieces = self._http.stream("POST", f"{LIBPOD}/images/pull", reference=full_reference(image))
        cure, text = "is its name right, and does its registry answer?", b""
        try:
            async with asyncio.timeout(PULL_S), aclosing(pieces):
                async for piece in pieces:
                    text = (text + piece)[-65536:]
        except EngineError as error:
            raise HedgerowError(f"image {image} cannot be pulled: {error}", cure) from error
        except TimeoutError as error:
            raise HedgerowError(f"image {image} was not pulled within {PULL_S:.0f} s", cure) from error
        for reason in filter(None, map(_error_in, text.splitlines())):
            raise HedgerowError(f"image {image} cannot be pulled: {reason}", cure)

    async def _gone_is_fine(self, method: str, path: str, *, within_s: float, **query: str) -> None:
        try:
            await self._http.json(method, f"{API}/containers/{path}", within_s=within_s, **query)
        except EngineError as error:
            if error.status != 404:
                raise


def container_of(engine: Engine, row: dict[str, Any]) -> Container | None:
    """One `inspect`; None for a container that is not ours."""
    labels, state = row["Config"]["Labels"] or {}, row["State"]
    if INSTANCE_LABEL not in labels:
        return None
    networks = [each for each in ((row.get("NetworkSettings") or {}).get("Networks") or {}).values() if each]
    addresses = [IPv4Address(network["IPAddress"]) for network in networks if network.get("IPAddress")]
    addresses6 = [network["GlobalIPv6Address"] for network in networks if network.get("GlobalIPv6Address")]
    incarnation = labels.get(INCARNATION_LABEL, "")  # an image of anybody's may carry these labels too
    reasons = ["out of memory"] if state.get("OOMKilled") else []
    reasons += [state["Error"]] if state.get("Error") else []
    return Container(
        engine=engine,
        id=row["Id"],
        instance=InstanceId(labels[INSTANCE_LABEL]),
        incarnation=int(incarnation) if incarnation.isdecimal() else 0,
        phase=_phase(state["Status"]),
        exit_code=int(state.get("ExitCode") or 0),
        reason=", ".join(reasons),
        # Docker gives each container of an IPv6 network an address that stands for none: link-local.
        addresses=tuple(each for each in addresses if not each.is_link_local),
        addresses6=tuple(IPv6Address(each) for each in addresses6),
        started_s=_seconds(state.get("StartedAt")),
        ended_s=_seconds(state.get("FinishedAt")),
    )


def _phase(status: str) -> Phase:
    match status:
        case "created" | "configured" | "initialized":
            return Phase.CREATED
        case "exited" | "dead" | "removing" | "stopped":
            return Phase.ENDED
        case _:
            return Phase.RUNNING


def _seconds(text: str | None) -> float | None:
    """An engine's moment: RFC 3339 with nanoseconds, the year 1 for never."""
    if not text or text.startswith("0001-"):
        return None
    short = re.sub(r"(\.\d{6})\d+", r"\1", text)
    return datetime.fromisoformat(short).timestamp()


def _is_missing_image(error: EngineError) -> bool:
    text = error.message.lower()
    return "no such image" in text or "image not known" in text


def _error_in(line: bytes) -> str:
    try:
        return str(json.loads(line).get("error") or "")
    except (ValueError, AttributeError):
        return ""


async def without_headers(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Docker's multiplexed stream (API, "attach"): before each piece its stream, three zeros and a 32-bit length."""
    held, left = b"", 0
    async for piece in pieces:
        held += piece
        while held:
            if left == 0:
                if len(held) < STREAM_HEADER_BYTES:
                    break
                left = int.from_bytes(held[4:STREAM_HEADER_BYTES], "big")
                held = held[STREAM_HEADER_BYTES:]
                continue
            text, held = held[:left], held[left:]
            left -= len(text)
            yield text
