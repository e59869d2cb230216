"""What attachments leave in a node: the agent's records on disk, and links. Tests compare before and after."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from labkit import RunningLab, wait_for

RECORDS = """
import json, sqlite3
disk = sqlite3.connect("file:/var/lib/hedgerow/agent/state.db?mode=ro", uri=True)
addresses = disk.execute("SELECT address, owner FROM address WHERE owner IS NOT NULL").fetchall()
print(json.dumps([addresses, [tag for (tag,) in disk.execute("SELECT tag FROM endpoint")]]))
"""
LASTING = {"hr-host", "hr-peer"}


@dataclass(frozen=True, slots=True)
class Traces:
    addresses: frozenset[tuple[str, str]]
    endpoints: frozenset[str]
    links: frozenset[str]


def of(lab: RunningLab, node: str) -> Traces:
    addresses, endpoints = json.loads(lab.run(node, "/usr/bin/python3", "-c", RECORDS))
    links = {row["ifname"] for row in json.loads(lab.run(node, "ip", "-j", "link"))}
    ours = {name for name in links if name.startswith(("hr-", "hp-"))} - LASTING
    return Traces(frozenset(map(tuple, addresses)), frozenset(endpoints), frozenset(ours))


def gone(lab: RunningLab, node: str, before: Traces) -> None:
    """Waits until everything is as before: links go in the background."""
    seen: list[Traces] = []

    def as_before() -> bool:
        seen[:] = [of(lab, node)]
        return seen[0] == before

    def what() -> str:
        return f"{node} as before: {before}, last seen: {seen[0]}"

    _wait(what, as_before)


def _wait(what: Callable[[], str], is_so: Callable[[], bool]) -> None:
    try:
        wait_for("as before", is_so)
    except AssertionError as error:
        raise AssertionError(what()) from error
