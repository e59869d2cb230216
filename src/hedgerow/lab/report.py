"""What `lab status` tells."""

from __future__ import annotations

from typing import Any

from hedgerow.errors import HedgerowError

from . import processes
from .engines import socket_of
from .ready import api, troubles
from .state import Record
from .topology import STATE


def describe(record: Record) -> dict[str, Any]:
    """All that a program needs to use the lab; plain JSON values."""
    alive, ways = processes.supervisors(STATE / record.name), _ways(record)
    return {
        "name": record.name,
        "api": record.api,
        "token": record.token,
        "directory": str(STATE / record.name),
        "nodes": [_member(record, name, alive.get(name), ways) for name in record.members],
        "took_s": record.took_s,
        "troubles": troubles(record),
    }


def _member(record: Record, name: str, pid: int | None, ways: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "underlay": record.members[name], "pid": pid}
    if name not in ("lan", "controller"):
        sockets = {engine: str(socket_of(pid, engine)) for engine in record.engines if pid}
        row |= {"engines": sockets, "way": ways.get(name, "")}
    return row


def _ways(record: Record) -> dict[str, str]:
    try:
        return {row["name"]: row["way"] for row in api(record, "/v1/agents")["agents"]}
    except HedgerowError:
        return {}


def table(described: dict[str, Any]) -> str:
    lines = [f"lab {described['name']}, API {described['api']}, token in {described['directory']}/token"]
    for row in described["nodes"]:
        more = f"  {', '.join(row['engines'])}  data path: {row['way'] or '-'}" if "engines" in row else ""
        lines.append(f"  {row['name']:<11}{row['underlay']:<16}pid {row['pid'] or '-'}{more}")
    lines += [f"trouble: {trouble}" for trouble in described["troubles"]]
    return "\n".join(lines)
