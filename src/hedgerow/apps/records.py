"""Apps as the store keeps them: what a person asked for, in the one form that the API gives back.

`App` holds what is acted on as typed fields; `echoed` are the other fields of Marathon's definition, checked, kept and
given back as they came. `Backoff` is how often an app has failed of late, and until when it rests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hedgerow.model.agent import AgentId
from hedgerow.model.app import AppId, InstanceId, InstanceState
from hedgerow.model.network import NetworkName

APPS = "/apps"
INSTANCES = "/instances/"
STATUSES = "/status/"
AGENTS = "/agents/"
NETWORKS = "/networks/"
BACKOFFS = "/backoff"


def app_key(app: AppId) -> str:
    """An app's id begins with a slash."""
    return APPS + app


def backoff_key(app: AppId) -> str:
    return BACKOFFS + app


def instance_key(instance: InstanceId) -> str:
    return INSTANCES + instance


def status_key(instance: InstanceId) -> str:
    return STATUSES + instance


class ContainerType(StrEnum):
    """Marathon's names: DOCKER runs on Docker, MESOS on Podman."""

    DOCKER = "DOCKER"
    MESOS = "MESOS"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppNetwork:
    name: NetworkName
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMapping:
    """One port of a container. `container_port` 0: the host port, or without one a port that is drawn at launch and
    named in the environment only. `host_port` None: not published; 0: published at one that is drawn.
    """

    container_port: int = 0
    host_port: int | None = None
    service_port: int = 0
    protocol: str = "tcp"
    name: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    network_names: tuple[NetworkName, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AppContainer:
    """Without an image, an app runs on the host's root file system (MESOS only)."""

    type: ContainerType
    image: str | None = None
    force_pull: bool = False
    port_mappings: tuple[PortMapping, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """One app at one version. Times in seconds, memory in MiB as Marathon counts it.

    `version` is the moment of the change, ISO 8601 in UTC with milliseconds. `deployment` names the change until the
    wanted number of instances has run.
    """

    id: AppId
    version: str
    cmd: str | None = None
    args: tuple[str, ...] = ()
    container: AppContainer
    network: AppNetwork
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    instances: int = 1
    cpus: float = 1.0
    mem_mib: float = 128.0
    disk_mib: float = 0.0
    backoff_s: float = 1.0
    backoff_factor: float = 1.15
    max_launch_delay_s: float = 300.0
    grace_s: float | None = None
    deployment: str | None = None
    echoed: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The last run of an app that ended by itself. Its record, and so its container and log, is kept until the next."""

    instance: InstanceId
    agent: AgentId
    host: str
    state: InstanceState
    message: str
    version: str
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """`failures` in a row, and nothing is launched before `until_s` (seconds since the epoch)."""

    failures: int
    until_s: float
    last: Failure
