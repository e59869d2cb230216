"""When a lab is ready, and what is wrong with one that is not."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hedgerow.errors import HedgerowError, Unreachable

from . import engines, processes
from .images import Image
from .state import Record
from .topology import STATE, Lab

PATIENCE_S = 60.0
POLL_S = 0.05
CHILD = {"docker": "dockerd", "podman": "podman"}
"""Which supervised process an engine is."""


def api(record: Record, path: str, *, timeout_s: float = 15) -> Any:
    """GET from the lab's controller. Raises Unreachable when it does not answer, HedgerowError when it refuses."""
    address = urlsplit(record.api)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {record.token}"})
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"the controller at {record.api} does not answer: {error}", "hedgerow lab status") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise HedgerowError(f"GET {path} was answered {answer.status}: {body.decode(errors='replace')[:200]}")
    return json.loads(body)


def wait(record: Record, lab: Lab, pids: dict[str, int], tars: dict[Image, Path]) -> None:
    """Until every node has its engines, images and networks. Raises HedgerowError naming what does not come, with the
    last lines of its log.
    """
    patience = Patience(lab, time.monotonic() + PATIENCE_S)
    with ThreadPoolExecutor(max_workers=2 * lab.nodes) as pool:
        filled = [
            pool.submit(_fill, pids[name], name, engine, tars, patience)
            for name in lab.node_names
            for engine in lab.engines
        ]
        patience.until("controller", "controller", lambda: _agents(record) is not None)
        for name in lab.node_names:
            patience.until(name, "agent", lambda: name in applied(record))  # noqa: B023
        for each in filled:
            each.result()
    names = networks(record)
    for name in lab.node_names:
        for engine in lab.engines:
            patience.until(name, "agent", lambda: names <= seen(pids[name], engine))  # noqa: B023


def _fill(pid: int, name: str, engine: str, tars: dict[Image, Path], patience: Patience) -> None:
    patience.until(name, CHILD[engine], lambda: engines.answers(pid, engine))
    for image, tar in tars.items():
        engines.import_image(pid, engine, image, tar)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a lab may take to come up; what it waits for is the work of a child of a member."""

    lab: Lab
    deadline: float

    def until(self, member: str, child: str, is_so: Callable[[], bool]) -> None:
        while not is_so():
            if time.monotonic() > self.deadline:
                raise HedgerowError(
                    f"{child} on {member} is not ready after {PATIENCE_S:.0f} s; its log ends with:\n"
                    + tail(self.lab.directory / member / "logs" / f"{child}.log"),
                    "hedgerow lab up once more; packaging/preflight says what this machine lacks",
                )
            time.sleep(POLL_S)


def tail(log: Path, lines: int = 12) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) or "(it is empty)"
    except OSError as error:
        return f"(it cannot be read: {error.strerror})"


def _agents(record: Record) -> list[dict[str, Any]] | None:
    try:
        return list(api(record, "/v1/agents")["agents"])
    except HedgerowError:
        return None


def applied(record: Record) -> set[str]:
    """Names of the agents that are connected and have programmed a revision of what the controller wants."""
    return {row["name"] for row in _agents(record) or [] if row["connected"] and row["applied"]}


def networks(record: Record) -> set[str]:
    """Names of the networks that engines should offer."""
    return {
        row["name"]
        for row in api(record, "/v1/networks")["networks"]
        if row["enabled"] and (row["subnet"] or row["subnet6"])
    }


def seen(pid: int, engine: str) -> set[str]:
    """Names of all networks that an engine of a node offers; empty while it does not answer."""
    try:
        if engine == "docker":
            return {row["Name"] for row in engines.ask(pid, engine, "GET", "/networks")}
        return {row["name"] for row in engines.ask(pid, engine, "GET", f"{engines.API}/networks/json")}
    except HedgerowError:
        return set()


def troubles(record: Record) -> list[str]:
    """What is not as it should be, each in one sentence; empty for a healthy lab."""
    alive = processes.supervisors(STATE / record.name)
    found = [f"{name} is not running" for name in record.members if name not in alive]
    for name, pid in alive.items():
        ended = [child for child, own in processes.children(pid).items() if not processes.alive(pid, own)]
        found += [f"{child} on {name} does not run" for child in ended]
    if found:
        return found
    nodes = [name for name in record.members if name not in ("lan", "controller")]
    if _agents(record) is None:
        return [f"the controller at {record.api} does not answer"]
    fine = applied(record)
    found += [f"agent {name} is not connected or has applied nothing yet" for name in nodes if name not in fine]
    for name in nodes:
        found += [
            f"{engine} on {name} does not answer"
            for engine in record.engines
            if not engines.answers(alive[name], engine)
        ]
    return found
