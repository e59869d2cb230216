"""Host ports of apps: which are in use on an agent, whether an app's own are free there, and which are drawn. Pure.

A port is in use until the agent says that the instance is over, for its container has it that long. What else listens
on a host the agent knows alone: it refuses to start an instance on a taken port, and names who has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hedgerow.model.agent import AgentId
from hedgerow.model.app import Instance

from .records import App, PortMapping

DRAWN = range(31000, 32001)
"""For the host port 0, as Mesos' agents offer them."""

Taken = set[tuple[str, int]]
"""Protocol and port, on one agent."""


def protocols(mapping: PortMapping) -> list[str]:
    """
    >>> protocols(PortMapping(protocol="udp,tcp"))
    ['tcp', 'udp']
    """
    return sorted(mapping.protocol.split(","))


def taken_by(instances: Sequence[Instance]) -> dict[AgentId, Taken]:
    """`instances`: those that are not over."""
    found: dict[AgentId, Taken] = {}
    for instance in instances:
        ports = {(port.protocol, port.host_port) for port in instance.launch.ports}
        found.setdefault(instance.agent, set()).update(ports)
    return found


def fits(app: App, taken: Taken) -> bool:
    """Whether an instance can have all its host ports, the named ones and enough to draw."""
    mappings = [each for each in app.container.port_mappings if each.host_port is not None]
    named = {(protocol, each.host_port) for each in mappings if each.host_port for protocol in protocols(each)}
    drawn = sum(each.host_port == 0 for each in mappings)
    used = {port for _, port in taken | named if port in DRAWN} if drawn else ()
    return not named & taken and len(DRAWN) - len(used) >= drawn


def assign(app: App, taken: Taken, draw: Callable[[], int]) -> list[int | None]:
    """For each port mapping its host port, None where it has none. What is drawn is nobody else's, of either protocol.

    `draw` gives any number: the search begins there, so that a port is not used again soon.
    """
    mappings = app.container.port_mappings
    used = {port for _, port in taken} | {each.host_port for each in mappings if each.host_port}
    found: list[int | None] = []
    for mapping in mappings:
        port = mapping.host_port
        if port == 0:
            start = draw()
            port = next(each for step in range(len(DRAWN)) if (each := DRAWN[(start + step) % len(DRAWN)]) not in used)
            used.add(port)
        found.append(port)
    return found
