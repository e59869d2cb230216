"""Marathon's app definition: what comes in, in either form, to an `App`, and an `App` to what GET gives. Pure.

Reading has three steps: the shape (shape.py), the old form turned into the new one (oldform.py), and the rules here.
Every fault of a step is named at once, at the path and in the words that Marathon's clients know. What Marathon has and
Hedgerow does not do yet is refused where the app would run otherwise than written, and else kept, given back and warned
of. Given back is the new form only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hedgerow.model.app import AppId
from hedgerow.model.network import NetworkName

from . import oldform
from .records import App, AppContainer, AppNetwork, ContainerType, PortMapping
from .shape import App as Shape
from .shape import BadApp, Fault, Mapping, Network, read_shape, unknown_keys

RESERVED_SEGMENTS = ("restart", "tasks", "versions", ".", "..")
ECHOED = (
    "accepted_resource_roles",
    "check",
    "constraints",
    "dependencies",
    "executor",
    "health_checks",
    "kill_selection",
    "readiness_checks",
    "require_ports",
    "residency",
    "resource_limits",
    "role",
    "tty",
    "unreachable_strategy",
    "upgrade_strategy",
)
"""Fields that are kept and given back as they came, when something was said."""

_NO_EFFECT = ("check", "constraints", "dependencies", "health_checks", "readiness_checks", "resource_limits")
_ALWAYS = {
    "executor": "",
    "killSelection": "YOUNGEST_FIRST",
    "requirePorts": False,
    "unreachableStrategy": {"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0},
    "upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 1},
}
_EMPTY = "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."


@dataclass(frozen=True, slots=True)
class Reading:
    """`warnings` name what was ignored, or kept without effect."""

    app: App
    warnings: tuple[str, ...]


def timestamp(seconds: float) -> str:
    """Marathon's form of a moment, given in seconds since the epoch.

    >>> timestamp(1443194028.343)
    '2015-09-25T15:13:48.343Z'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def absolute(path: str) -> AppId:
    """The absolute form of an id: one slash before each segment, `..` taken away with the segment before it.

    >>> absolute("web//../db/")
    '/db'
    """
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            kept = kept[:-1]
        elif segment:
            kept.append(segment)
    return AppId("/" + "/".join(kept))


def read_app(body: bytes, version: str) -> Reading:
    """Raises NotJson or BadApp, the latter with every fault of the step that found some."""
    shape = read_shape(body)
    faults = list(oldform.conflicts(shape))
    if not faults:
        networks = oldform.networks(shape)
        faults = [*_rules(shape, networks), *_not_yet(shape, networks)]
    if faults:
        raise BadApp("Object is not valid", tuple(faults))
    return Reading(_app(shape, networks[0], version), tuple(_warnings(shape)))


def _rules(shape: Shape, networks: list[Network]) -> Iterator[Fault]:
    """What Marathon itself refuses."""
    segments = absolute(shape.id).split("/")
    if segments == ["", ""]:
        yield Fault("/id", "must not be root")
    elif segments[-1] in RESERVED_SEGMENTS:
        words = ", ".join(RESERVED_SEGMENTS)
        yield Fault("/id", f"must not end with any of the following reserved keywords: {words}")
    container, image = oldform.container(shape), _image(shape)
    if container.type == "DOCKER" and image is None:
        missing = "/container/docker/image" if container.docker else "/container/docker"
        yield Fault(missing, "not defined")
    elif (shape.cmd and shape.args) or not (shape.cmd or shape.args or image):
        yield Fault("/", _EMPTY)
    if shape.fetch and shape.uris:
        yield Fault("/uris", "may not be set in conjunction with fetch")
    for key, value in shape.env.items():
        if not key or "=" in key:
            yield Fault("/env", f"{key!r} cannot be the name of a variable")
        elif not isinstance(value, str | dict):
            yield Fault(f"/env/{key}", "error.expected.jsstring")
    yield from _network_rules(networks, container.type)
    yield from _mapping_rules(shape, networks)


def _network_rules(networks: list[Network], container: str) -> Iterator[Fault]:
    modes, names = [each.mode for each in networks], [each.name for each in networks if each.mode == "container"]
    if any(each.mode == "host" and (each.name or each.labels) for each in networks):
        yield Fault("/networks", "Host networks may not have names or labels")
    if any(each.mode == "container/bridge" and each.name for each in networks):
        yield Fault("/networks", "Bridge networks may not have names")
    if len(set(names)) < len(names):
        yield Fault("/networks", "Duplicate networks are not allowed")
    if len(modes) > 1 and set(modes) != {"container"}:
        word = "May specify a single host network, single bridge network, or else 1-to-n container networks"
        yield Fault("/networks", word)
    if None in names:
        yield Fault("/networks", "Network name must be specified when container network is selected.")
    if container == "DOCKER" and len(names) > 1:
        yield Fault("/", "may only specify a single container network when using the Docker container engine")


def _mapping_rules(shape: Shape, networks: list[Network]) -> Iterator[Fault]:
    if networks[0].mode == "host":
        return
    mappings, known = oldform.mappings(shape), [each.name for each in networks]
    hosts = [(each.host_port, word) for each in mappings if each.host_port for word in each.protocol.split(",")]
    if len(set(hosts)) < len(hosts):
        yield Fault("/container/portMappings", "Host ports must be unique.")
    named = [each.name for each in mappings if each.name]
    if len(set(named)) < len(named):
        yield Fault("/container/portMappings", "Port names must be unique.")
    for index, mapping in enumerate(mappings):
        for position, name in enumerate(mapping.network_names):
            if name not in known:
                options = ",".join(filter(None, known))
                yield Fault(f"/container/portMappings({index})/networkNames({position})", f"is not one of ({options})")


def _not_yet(shape: Shape, networks: list[Network]) -> Iterator[Fault]:
    """What would run otherwise than written, if it were let in."""
    container = oldform.container(shape)
    docker = container.docker
    if networks[0].mode != "container":
        cure = 'name a network, as "networks": [{"mode": "container", "name": "dcos-1"}]'
        yield Fault("/networks", f"{networks[0].mode} networking is not supported yet: {cure}")
    elif len(networks) > 1 and container.type == "MESOS":
        yield Fault("/networks", "several networks in one app are not supported yet: name one")
    wanted = {
        "/container/volumes": container.volumes,
        "/container/linuxInfo": container.linux_info,
        "/container/docker/privileged": docker and docker.privileged,
        "/container/docker/parameters": docker and docker.parameters,
        "/container/docker/pullConfig": docker and docker.pull_config,
        "/fetch": shape.fetch or shape.uris,
        "/secrets": shape.secrets or any(isinstance(value, dict) for value in shape.env.values()),
        "/gpus": shape.gpus,
    }
    yield from (Fault(path, "is not supported yet: leave it out") for path, value in wanted.items() if value)
    if docker and docker.credential:
        yield Fault("/container/docker/credential", "must be empty")


def _warnings(shape: Shape) -> Iterator[str]:
    for path in unknown_keys(shape):
        yield f"{path} is not a key of Marathon: ignored"
    if shape.ip_address and shape.ip_address.network:
        yield "/ipAddress/network is not a key of Marathon: taken for networkName"
    for name in _NO_EFFECT:
        if getattr(shape, name):
            yield f"/{Shape.model_fields[name].alias} is kept and has no effect yet"
    if shape.container and shape.container.docker and shape.container.docker.force_pull_image:
        yield "/container/docker/forcePullImage is kept and has no effect yet"


def _image(shape: Shape) -> str | None:
    return shape.container.docker.image if shape.container and shape.container.docker else None


def _app(shape: Shape, network: Network, version: str) -> App:
    container = oldform.container(shape)
    fields = {str(Shape.model_fields[name].alias): (name, Shape.model_fields[name].default) for name in ECHOED}
    echoed = {
        alias: getattr(shape, name)
        for alias, (name, nothing) in fields.items()
        if getattr(shape, name) not in (nothing, _ALWAYS.get(alias))
    }
    return App(
        id=absolute(shape.id),
        version=version,
        cmd=shape.cmd,
        args=tuple(shape.args),
        container=AppContainer(
            type=ContainerType(container.type),
            image=_image(shape),
            force_pull=bool(container.docker and container.docker.force_pull_image),
            port_mappings=tuple(_port_mapping(each) for each in oldform.mappings(shape)),
        ),
        network=AppNetwork(name=NetworkName(network.name or ""), labels=network.labels),
        env=shape.env,
        labels=shape.labels,
        user=shape.user,
        instances=shape.instances,
        cpus=shape.cpus,
        mem_mib=shape.mem,
        disk_mib=shape.disk,
        backoff_s=shape.backoff_seconds,
        backoff_factor=shape.backoff_factor,
        max_launch_delay_s=shape.max_launch_delay_seconds,
        grace_s=shape.task_kill_grace_period_seconds,
        echoed=echoed,
    )


def _port_mapping(mapping: Mapping) -> PortMapping:
    return PortMapping(
        container_port=mapping.container_port,
        host_port=mapping.host_port,
        service_port=mapping.service_port,
        protocol=mapping.protocol,
        name=mapping.name,
        labels=mapping.labels,
        network_names=tuple(NetworkName(name) for name in mapping.network_names),
    )


def number(value: float) -> float | int:
    """Marathon writes whole numbers without a point."""
    return int(value) if value == int(value) else value


def definition(app: App) -> dict[str, Any]:
    """The app in the new form, defaults filled in; what is absent or empty is left out where Marathon does."""
    optional = {
        "cmd": app.cmd,
        "args": list(app.args),
        "env": app.env,
        "user": app.user,
        "taskKillGracePeriodSeconds": None if app.grace_s is None else int(app.grace_s),
    }
    network: dict[str, Any] = {"mode": "container", "name": app.network.name}
    if app.network.labels:
        network["labels"] = app.network.labels
    return {
        "id": app.id,
        **{key: value for key, value in optional.items() if value is not None and value not in ([], {})},
        "container": _container(app.container),
        "networks": [network],
        "labels": app.labels,
        "instances": app.instances,
        "cpus": number(app.cpus),
        "mem": number(app.mem_mib),
        "disk": number(app.disk_mib),
        "gpus": 0,
        "backoffSeconds": int(app.backoff_s),
        "backoffFactor": number(app.backoff_factor),
        "maxLaunchDelaySeconds": int(app.max_launch_delay_s),
        **_ALWAYS,
        **app.echoed,
        "version": app.version,
    }


def _container(container: AppContainer) -> dict[str, Any]:
    found: dict[str, Any] = {"type": container.type.value, "volumes": []}
    if container.image is not None:
        found["docker"] = {
            "image": container.image,
            "forcePullImage": container.force_pull,
            "parameters": [],
            "privileged": False,
        }
    found["portMappings"] = [_mapping(each) for each in container.port_mappings]
    return found


def _mapping(mapping: PortMapping) -> dict[str, Any]:
    found: dict[str, Any] = {
        "containerPort": mapping.container_port,
        "labels": mapping.labels,
        "protocol": mapping.protocol,
        "servicePort": mapping.service_port,
    }
    if mapping.name is not None:
        found["name"] = mapping.name
    if mapping.host_port is not None:
        found["hostPort"] = mapping.host_port
    if mapping.network_names:
        found["networkNames"] = list(mapping.network_names)
    return found
