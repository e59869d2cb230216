"""Apps and their instances, as the schedulers and the runner speak of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import NewType

from .agent import AgentId
from .network import NetworkName
from .published import PublishedPort

AppId = NewType("AppId", str)
"""Absolute path, as `/group/web`."""

InstanceId = NewType("InstanceId", str)
"""Marathon's task id; opaque to everybody but `apps/`."""


SANDBOX = "/mnt/mesos/sandbox"
"""A directory of its own inside every instance's container, where Mesos has it."""


class Engine(StrEnum):
    """Which engine runs an instance. HOST is Podman on the host's root file system under a throw-away overlay."""

    DOCKER = "docker"
    PODMAN = "podman"
    HOST = "host"


class InstanceState(StrEnum):
    """Mesos' task states that can occur here."""

    STAGING = "TASK_STAGING"
    STARTING = "TASK_STARTING"
    RUNNING = "TASK_RUNNING"
    KILLING = "TASK_KILLING"
    FINISHED = "TASK_FINISHED"
    FAILED = "TASK_FAILED"
    KILLED = "TASK_KILLED"
    GONE = "TASK_GONE"
    UNREACHABLE = "TASK_UNREACHABLE"

    @property
    def is_final(self) -> bool:
        return self in (InstanceState.FINISHED, InstanceState.FAILED, InstanceState.KILLED, InstanceState.GONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What the runner must start. `image` is None for HOST.

    `command` runs as given, in place of the image's entry point; `arguments` are handed to the entry point. `ports` are
    published on the host; `host_ports` names each once for each mapping of the app. `grace_s`: from SIGTERM to SIGKILL.
    """

    engine: Engine
    network: NetworkName | None
    image: str | None
    command: tuple[str, ...] | None
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    user: str | None = None
    cpus: float = 1.0
    memory_bytes: int = 128 << 20
    grace_s: float = 3.0
    ports: tuple[PublishedPort, ...] = ()
    host_ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One wanted run of an app on one agent. An agent starts it only for a record that names it and its incarnation.

    `version` is that of the app's definition and `labels` are of it, in the order of their keys; `staged_s` is when it
    was decided, in seconds since the epoch.
    """

    id: InstanceId
    app: AppId
    incarnation: int
    agent: AgentId
    agent_incarnation: int
    launch: Launch
    kill: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    version: str = ""
    staged_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStatus:
    """What an agent says of an instance. Times in seconds since the epoch."""

    id: InstanceId
    incarnation: int
    agent: AgentId
    state: InstanceState
    addresses: tuple[IPv4Address, ...] = ()
    addresses6: tuple[IPv6Address, ...] = ()
    message: str = ""
    started_s: float | None = None
    changed_s: float = 0.0

    @property
    def all_addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        return (*self.addresses, *self.addresses6)
