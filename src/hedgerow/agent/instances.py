"""What an agent does about the instances that name it, and what it says of them. Pure.

An instance is started once: a container that has ended, could not be started or was taken away by somebody is reported
and left; whether another takes its place is the scheduler's to say, with a new instance. A container of ours without
an instance is removed, but only when the wanted state is live.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from hedgerow.model.agent import Agent
from hedgerow.model.app import Engine, Instance, InstanceId, InstanceState, InstanceStatus
from hedgerow.model.snapshot import Snapshot


class Phase(Enum):
    CREATED = "created"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container of ours, as its engine sees it. `engine` is DOCKER or PODMAN. Times in seconds since the epoch."""

    engine: Engine
    id: str
    instance: InstanceId
    incarnation: int
    phase: Phase
    exit_code: int = 0
    reason: str = ""
    addresses: tuple[IPv4Address, ...] = ()
    addresses6: tuple[IPv6Address, ...] = ()
    started_s: float | None = None
    ended_s: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an instance could not be started, or is gone."""

    message: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Launch:
    instance: Instance

    def __str__(self) -> str:
        return f"+ container of {self.instance.id}"


@dataclass(frozen=True, slots=True)
class Remove:
    """Ends it first, if it runs: SIGTERM, and SIGKILL after `grace_s`."""

    container: Container
    grace_s: float = 0.0

    def __str__(self) -> str:
        return f"- container {self.container.id[:12]} of {self.container.instance}"


Step = Launch | Remove


def engine_of(instance: Instance) -> Engine:
    """Which engine's API it takes: Podman runs those on the host's root file system too."""
    return Engine.DOCKER if instance.launch.engine is Engine.DOCKER else Engine.PODMAN


def own_instances(snapshot: Snapshot, own: Agent) -> dict[InstanceId, Instance]:
    """Those that name this agent as it is now; one of an earlier incarnation is not ours to start."""
    return {
        each.id: each
        for each in snapshot.instances.values()
        if each.agent == own.id and each.agent_incarnation == own.incarnation
    }


def steps(
    wanted: Mapping[InstanceId, Instance],
    containers: Mapping[InstanceId, Container],
    faults: Mapping[InstanceId, Fault],
    *,
    may_remove: bool,
) -> Iterator[Step]:
    """At most one step an instance. Doing them all and asking again gives none."""
    for container in containers.values():
        instance = wanted.get(container.instance)
        strange = instance is None or instance.incarnation != container.incarnation
        if strange and may_remove:
            yield Remove(container)
    for id, instance in wanted.items():
        found = containers.get(id)
        if found and found.incarnation != instance.incarnation:
            continue
        if instance.kill:
            if found:
                yield Remove(found, instance.launch.grace_s)
        elif id not in faults and (found is None or found.phase is Phase.CREATED):
            yield Launch(instance)


def status_of(instance: Instance, container: Container | None, fault: Fault | None, now_s: float) -> InstanceStatus:
    """What is so. `changed_s` is the engine's time where it has one."""
    said = InstanceStatus(
        id=instance.id,
        incarnation=instance.incarnation,
        agent=instance.agent,
        state=InstanceState.STAGING,
        started_s=container.started_s if container else None,
        changed_s=now_s,
    )
    if instance.kill:
        # Killed is what has left nothing: neither a process nor an address.
        return replace(said, state=InstanceState.KILLING if container else InstanceState.KILLED)
    if container is None or container.phase is Phase.CREATED:
        if fault:
            return replace(said, state=InstanceState.FAILED, message=fault.message, changed_s=fault.at_s)
        return said
    if container.phase is Phase.RUNNING:
        since_s = now_s if container.started_s is None else container.started_s
        return replace(
            said,
            state=InstanceState.RUNNING,
            addresses=container.addresses,
            addresses6=container.addresses6,
            changed_s=since_s,
        )
    ended_s = now_s if container.ended_s is None else container.ended_s
    if container.exit_code == 0 and not container.reason:
        return replace(said, state=InstanceState.FINISHED, changed_s=ended_s)
    message = f"exit code {container.exit_code}" + (f": {container.reason}" if container.reason else "")
    return replace(said, state=InstanceState.FAILED, message=message, changed_s=ended_s)


def say_the_same(old: InstanceStatus, new: InstanceStatus) -> bool:
    """But for the time."""
    return replace(old, changed_s=0.0) == replace(new, changed_s=0.0)
