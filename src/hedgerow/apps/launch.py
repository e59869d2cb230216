"""What an instance of an app is started with: the command and the environment that Marathon gives a task. Pure.

The variables come in three layers, and a later one wins: what the app is, its ports and host, and the app's own `env`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from hedgerow.model.app import SANDBOX, Engine, InstanceId, Launch
from hedgerow.model.published import PublishedPort

from .hostports import protocols
from .records import App, ContainerType

MAX_LABEL_NAME = 493
MAX_LABEL_VALUE = 512
DEFAULT_GRACE_S = 3.0
"""From SIGTERM to SIGKILL, as Mesos' executor has it."""


def engine_of(app: App) -> Engine:
    match app.container.type, app.container.image:
        case ContainerType.DOCKER, _:
            return Engine.DOCKER
        case _, None:
            return Engine.HOST
        case _:
            return Engine.PODMAN


def launch_of(
    app: App,
    instance: InstanceId,
    host: str,
    draw_port: Callable[[], int],
    host_ports: Sequence[int | None] = (),
) -> Launch:
    """`host` is the agent's name. `draw_port` gives numbers from 1025 to 65535 for ports that the app leaves open.
    `host_ports`: of each port mapping, None where it has none; empty when none has one.
    """
    numbers = host_ports or [None] * len(app.container.port_mappings)
    variables = {
        **_context(app, instance),
        **_ports(app, numbers, draw_port),
        "HOST": host,
        "MESOS_SANDBOX": SANDBOX,
        **app.env,
    }
    engine = engine_of(app)
    program: tuple[str, ...] | None = ("/bin/sh", "-c", app.cmd) if app.cmd is not None else None
    if program is None and engine is Engine.HOST:
        program = app.args
    return Launch(
        engine=engine,
        network=app.network.name,
        image=app.container.image,
        command=program,
        arguments=() if program else app.args,
        environment=tuple(variables.items()),
        user=app.user,
        cpus=app.cpus,
        memory_bytes=int(app.mem_mib * (1 << 20)),
        grace_s=DEFAULT_GRACE_S if app.grace_s is None else app.grace_s,
        ports=tuple(_published(app, numbers)),
        host_ports=tuple(port for port in numbers if port is not None),
    )


def _context(app: App, instance: InstanceId) -> dict[str, str]:
    found = {
        "MESOS_TASK_ID": str(instance),
        "MARATHON_APP_ID": str(app.id),
        "MARATHON_APP_VERSION": app.version,
        "MARATHON_APP_RESOURCE_CPUS": str(float(app.cpus)),
        "MARATHON_APP_RESOURCE_MEM": str(float(app.mem_mib)),
        "MARATHON_APP_RESOURCE_DISK": str(float(app.disk_mib)),
        "MARATHON_APP_RESOURCE_GPUS": "0",
    }
    if app.container.type is ContainerType.DOCKER and app.container.image:
        found["MARATHON_APP_DOCKER_IMAGE"] = app.container.image
    short = {
        re.sub(r"[^A-Za-z0-9_]+", "_", name).upper(): value
        for name, value in app.labels.items()
        if len(name) < MAX_LABEL_NAME and len(value) < MAX_LABEL_VALUE
    }
    found["MARATHON_APP_LABELS"] = " ".join(short)
    return found | {f"MARATHON_APP_LABEL_{name}": value for name, value in short.items()}


def _published(app: App, numbers: Sequence[int | None]) -> Iterator[PublishedPort]:
    for mapping, port in zip(app.container.port_mappings, numbers, strict=True):
        if port is not None:
            for protocol in protocols(mapping):
                yield PublishedPort(protocol=protocol, host_port=port, container_port=mapping.container_port or port)


def _ports(app: App, numbers: Sequence[int | None], draw_port: Callable[[], int]) -> dict[str, str]:
    """A port with a number is known to the app by index, number and name: by its host port where it has one. One
    without is drawn, and is in PORTS too: Marathon lists there what it allocated (first those of the host), never what
    the app itself fixed.
    """
    found: dict[str, str] = {}
    drawn: list[str] = []
    hosts = [str(port) for port in numbers if port is not None]
    taken = {mapping.container_port for mapping in app.container.port_mappings}
    for index, (mapping, number) in enumerate(zip(app.container.port_mappings, numbers, strict=True)):
        port = mapping.container_port if number is None else number
        if port == 0:
            while (port := draw_port()) in taken:
                pass
            taken.add(port)
            drawn.append(str(port))
        found |= {f"PORT{index}": str(port), f"PORT_{mapping.container_port or port}": str(port)}
        if mapping.name:
            # Marathon keeps dashes, which no shell can read; so both.
            upper = mapping.name.upper()
            found |= {f"PORT_{upper}": str(port), f"PORT_{upper.replace('-', '_')}": str(port)}
    if app.container.port_mappings:
        found["PORTS"] = ",".join(hosts + drawn)
    if hosts + drawn:
        found["PORT"] = (hosts + drawn)[0]
    return found
