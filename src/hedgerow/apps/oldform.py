"""From the form before Marathon 1.5 to the one of today: networks and port mappings. Pure.

An old definition says `ipAddress` (the container gets its own address) and `container.docker.network` (USER, BRIDGE,
HOST); a new one says `networks`. Everything behind this module knows only the new form.
"""

from __future__ import annotations

from collections.abc import Iterator

from .shape import App, Container, Fault, Mapping, Network

BRIDGE_NAME = "mesos-bridge"
"""Marathon's flag `mesos_bridge_name`: an old definition on this network means the bridge."""


def conflicts(app: App) -> Iterator[Fault]:
    """Old and new said at once, or old parts that do not go together."""
    container, docker = app.container, app.container and app.container.docker
    if app.networks and docker and docker.network:
        yield Fault("/", "must not specify both container.docker.network and networks")
    if app.networks and app.ip_address:
        yield Fault("/", "must not specify both networks and ipAddress")
    if app.ip_address and (app.ports or app.port_definitions):
        yield Fault("/", "cannot specify both an IP address and port")
    if app.ports and app.port_definitions and app.ports != [each.port for each in app.port_definitions]:
        yield Fault("/", "cannot specify both ports and port definitions")
    if docker and docker.network == "NONE":
        yield Fault("/container/docker/network", "unsupported docker network type NONE")
    if container and docker and docker.port_mappings and container.port_mappings is not None:
        yield Fault("/container", "cannot specify both portMappings and docker.portMappings")
    if container and container.type == "MESOS" and docker:
        for name in ("network", "port_mappings", "parameters"):
            if getattr(docker, name):
                alias = type(docker).model_fields[name].alias
                yield Fault(f"/container/docker/{alias}", "must be empty")
    yield from _discovery_conflicts(app)


def _discovery_conflicts(app: App) -> Iterator[Fault]:
    discovery = app.ip_address and app.ip_address.discovery
    if discovery and app.container:
        if app.container.type == "DOCKER":
            yield Fault("/", "ipAddress/discovery is not allowed for Docker containers")
        elif app.container.port_mappings and discovery.ports:
            yield Fault("/", "container.portMappings and ipAddress.discovery.ports must not both be set")


def networks(app: App) -> list[Network]:
    """What the app is attached to, in the new form; one host network when it says nothing."""
    docker = app.container.docker if app.container else None
    old, address = docker.network if docker else None, app.ip_address
    if old is None and address is None:
        return app.networks or [Network(mode="host")]
    name = (address.network_name or address.network) if address else None
    labels = address.labels if address else {}
    if old == "HOST":
        return [Network(mode="host")]
    if old == "BRIDGE" or (old is None and name == BRIDGE_NAME):
        return [Network(mode="container/bridge", labels=labels)]
    return [Network.model_construct(name=name, mode="container", labels=labels)]


def container(app: App) -> Container:
    """Without a container, an app with an address of its own gets an empty one of Mesos."""
    return app.container or Container(type="MESOS")


def mappings(app: App) -> list[Mapping]:
    """The ports of an app that is on a container network; one named `default` when it says nothing."""
    given = _given_mappings(app)
    if given is None:
        given = [Mapping(name="default")]
    wanted = len(app.port_definitions or app.ports or [])
    return given + [Mapping() for _ in range(wanted - len(given))]


def _given_mappings(app: App) -> list[Mapping] | None:
    docker = app.container.docker if app.container else None
    own = app.container.port_mappings if app.container else None
    discovery = app.ip_address.discovery if app.ip_address else None
    if discovery and discovery.ports:
        return [
            Mapping.model_validate(
                {"containerPort": port.number, "name": port.name, "protocol": port.protocol, "labels": port.labels}
            )
            for port in discovery.ports
        ]
    if docker and docker.port_mappings is not None and (docker.port_mappings or own is None):
        return docker.port_mappings
    return own
