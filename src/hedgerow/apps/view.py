"""What Marathon's clients see: an app with its counts, a task, a deployment. Pure.

No key of ours is among them: old client libraries fall over keys that they do not know.
"""

from __future__ import annotations

from typing import Any

from hedgerow.model.app import Instance, InstanceState

from .marathon import definition, timestamp
from .placement import World
from .records import App, Failure

_STAGED = (InstanceState.STAGING, InstanceState.STARTING)
_RUNNING = (InstanceState.RUNNING, InstanceState.KILLING)


def tasks_of(world: World, app: App | None = None) -> list[Instance]:
    """The instances that are not over, the oldest first; of one app or of all."""
    found = [
        each
        for each in world.instances.values()
        if (app is None or each.app == app.id) and not world.state(each).is_final
    ]
    return sorted(found, key=lambda each: (each.app, each.staged_s, each.id))


def task(world: World, instance: Instance) -> dict[str, Any]:
    """`ports` are host ports, one for each mapping that has one; `servicePorts` only stand in the list of all tasks."""
    status, agent = world.status(instance), world.agents.get(instance.agent)
    found: dict[str, Any] = {
        "id": instance.id,
        "appId": instance.app,
        "host": agent.name if agent else instance.agent,
        "ipAddresses": [
            {"ipAddress": str(address), "protocol": f"IPv{address.version}"}
            for address in (status.all_addresses if status else ())
        ],
        "ports": list(instance.launch.host_ports),
        "servicePorts": [],
        "state": world.state(instance).value,
        "stagedAt": timestamp(instance.staged_s),
        "version": instance.version,
        "slaveId": instance.agent,
        "localVolumes": [],
        "healthCheckResults": [],
    }
    if status and status.started_s is not None:
        found["startedAt"] = timestamp(status.started_s)
    return found


def listed_task(world: World, instance: Instance) -> dict[str, Any]:
    """As `GET /v2/tasks` gives it."""
    app = world.apps.get(instance.app)
    ports = [each.service_port for each in app.container.port_mappings] if app else []
    return task(world, instance) | {"servicePorts": [port for port in ports if port]}


def app_info(world: World, app: App) -> dict[str, Any]:
    states = [world.state(each) for each in tasks_of(world, app)]
    return {
        **definition(app),
        "versionInfo": {"lastScalingAt": app.version, "lastConfigChangeAt": app.version},
        "tasksStaged": sum(state in _STAGED for state in states),
        "tasksRunning": sum(state in _RUNNING for state in states),
        "tasksHealthy": 0,
        "tasksUnhealthy": 0,
        "deployments": [{"id": app.deployment}] if app.deployment else [],
    }


def app_with_tasks(world: World, app: App) -> dict[str, Any]:
    found = app_info(world, app) | {"tasks": [task(world, each) for each in tasks_of(world, app)]}
    if backoff := world.backoffs.get(app.id):
        found["lastTaskFailure"] = failure(app, backoff.last)
    return found


def failure(app: App, last: Failure) -> dict[str, Any]:
    return {
        "appId": app.id,
        "host": last.host,
        "message": last.message,
        "state": last.state.value,
        "taskId": last.instance,
        "timestamp": timestamp(last.at_s),
        "version": last.version,
        "slaveId": last.agent,
    }


def deployment(app: App) -> dict[str, Any]:
    """A change that is not done: as many as wanted have not run yet."""
    action = {"action": "ScaleApplication", "app": app.id}
    return {
        "id": app.deployment,
        "version": app.version,
        "affectedApps": [app.id],
        "affectedPods": [],
        "steps": [{"actions": [action]}],
        "currentActions": [action | {"readinessCheckResults": []}],
        "currentStep": 1,
        "totalSteps": 1,
    }
