"""What the built-in scheduler does next. Pure: the world, the time and the dice are arguments.

Level-triggered: it looks at all apps, all instances and what the agents say of them, and names the steps from there.
An app that is gone has its instances killed; an instance that ended is counted, its record kept until the next one of
its app ends (so its log can be read), and another takes its place after the app's back-off. An instance is lost when
its agent is gone, has a new incarnation, or has not been heard from for UNREACHABLE_S.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from hedgerow.model.agent import Agent, AgentId
from hedgerow.model.app import AppId, Instance, InstanceId, InstanceState, InstanceStatus
from hedgerow.model.network import NetworkName, NetworkSpec

from . import hostports
from .launch import launch_of
from .records import AGENTS, App, Backoff, Failure, app_key, backoff_key

UNREACHABLE_S = 75.0
"""As long as Mesos waits for an agent before it calls its tasks unreachable."""

STEADY_S = 60.0
"""An instance that ran this long did not fail to start: the back-off begins anew."""


ENDED_AT_ONCE = 40
"""So many are counted in one look, so that their steps and the count fit in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything the scheduler looks at, as of one revision of the store.

    `silent_s`: for each agent without a connection, for how long. `damaged`: keys of records that cannot be read; what
    hangs on them is left as it is.
    """

    apps: Mapping[AppId, App] = field(default_factory=dict)
    instances: Mapping[InstanceId, Instance] = field(default_factory=dict)
    statuses: Mapping[InstanceId, InstanceStatus] = field(default_factory=dict)
    backoffs: Mapping[AppId, Backoff] = field(default_factory=dict)
    agents: Mapping[AgentId, Agent] = field(default_factory=dict)
    networks: Mapping[NetworkName, NetworkSpec] = field(default_factory=dict)
    silent_s: Mapping[AgentId, float] = field(default_factory=dict)
    damaged: Collection[str] = ()

    def status(self, instance: Instance) -> InstanceStatus | None:
        """What its agent says of it; None while it has said nothing, or speaks of an earlier run."""
        found = self.statuses.get(instance.id)
        return found if found and found.incarnation == instance.incarnation else None

    def state(self, instance: Instance) -> InstanceState:
        found = self.status(instance)
        if found and found.state.is_final:
            return found.state
        if instance.agent in self.silent_s:
            return InstanceState.UNREACHABLE
        if instance.kill:
            return InstanceState.KILLING
        return found.state if found else InstanceState.STAGING

    def is_lost(self, instance: Instance) -> bool:
        agent = self.agents.get(instance.agent)
        if agent is None and AGENTS + instance.agent in self.damaged:
            return False
        fenced = agent is None or agent.incarnation != instance.agent_incarnation
        return fenced or self.silent_s.get(instance.agent, 0.0) > UNREACHABLE_S


@dataclass(frozen=True, slots=True)
class Start:
    instance: Instance

    def __str__(self) -> str:
        return f"+ instance {self.instance.id} on {self.instance.agent}"


@dataclass(frozen=True, slots=True)
class Kill:
    instance: Instance

    def __str__(self) -> str:
        return f"~ instance {self.instance.id} kill"


@dataclass(frozen=True, slots=True)
class Forget:
    """The record and the status go; an agent that still has the container removes it."""

    instance: InstanceId

    def __str__(self) -> str:
        return f"- instance {self.instance}"


@dataclass(frozen=True, slots=True)
class Rest:
    """The app has failed once more; None: it is gone and so is the count."""

    app: AppId
    backoff: Backoff | None

    def __str__(self) -> str:
        return f"~ backoff {self.app} {self.backoff}" if self.backoff else f"- backoff {self.app}"


@dataclass(frozen=True, slots=True)
class Settle:
    """As many run as are wanted: the deployment is done."""

    app: App

    def __str__(self) -> str:
        return f"~ app {self.app.id} deployed"


Step = Start | Kill | Forget | Rest | Settle


@dataclass(frozen=True, slots=True)
class Dice:
    """What is drawn: the id of a run (a UUID's text) and a port from 1025 to 65535."""

    run: Callable[[], str]
    port: Callable[[], int]


def decide(world: World, now_s: float, dice: Dice) -> dict[AppId, list[Step]]:
    """The steps for each app that needs some. Doing them and asking again gives none but for what agents say."""
    of_app: dict[AppId, list[Instance]] = {app: [] for app in [*world.apps, *world.backoffs]}
    for instance in world.instances.values():
        of_app.setdefault(instance.app, []).append(instance)
    load = Counter(each.agent for each in world.instances.values() if _counts(world, each))
    taken = hostports.taken_by([each for each in world.instances.values() if not world.state(each).is_final])
    plans: dict[AppId, list[Step]] = {}
    for id, instances in sorted(of_app.items()):
        if app_key(id) in world.damaged or backoff_key(id) in world.damaged:
            continue
        app, backoff = world.apps.get(id), world.backoffs.get(id)
        # An app of another version that had this id and was taken away is not this one: what it left must go.
        own = [each for each in instances if app and each.version == app.version]
        steps = list(_clear(world, [each for each in instances if each not in own]))
        if app is None:
            steps += [Rest(id, None)] if backoff else []
        else:
            ended = list(_ended(world, app, own, backoff))
            backoff = next((step.backoff for step in ended if isinstance(step, Rest)), backoff)
            live = [each for each in own if _counts(world, each)]
            steps += ended + list(_adjust(_Wish(world, app, live, load, taken), backoff, now_s, dice))
        if steps:
            plans[id] = steps
    return plans


def next_moment_s(world: World, now_s: float) -> float | None:
    """When something is due although nobody will say so: an app has rested, or an agent is silent for too long."""
    rests = [each.until_s for each in world.backoffs.values() if each.until_s > now_s]
    silent = [now_s + UNREACHABLE_S - each for each in world.silent_s.values() if each <= UNREACHABLE_S]
    return min([*rests, *silent], default=None)


def _counts(world: World, instance: Instance) -> bool:
    """Whether it is one of those wanted: not on its way out, and not over."""
    status = world.status(instance)
    return not instance.kill and not world.is_lost(instance) and not (status and status.state.is_final)


def _clear(world: World, instances: list[Instance]) -> Iterator[Step]:
    for instance in instances:
        status = world.status(instance)
        if world.is_lost(instance) or (status and status.state.is_final):
            yield Forget(instance.id)
        elif not instance.kill:
            yield Kill(instance)


def _ended(world: World, app: App, instances: list[Instance], backoff: Backoff | None) -> Iterator[Step]:
    """Counts those that ended by themselves, oldest first, and keeps the record of the last."""
    over: list[tuple[float, InstanceId, Instance, InstanceStatus]] = []
    others: list[Step] = []
    for instance in instances:
        status = world.status(instance)
        if world.is_lost(instance) or (instance.kill and status and status.state.is_final):
            others.append(Forget(instance.id))
        elif status and status.state.is_final and not (backoff and backoff.last.instance == instance.id):
            over.append((status.changed_s, instance.id, instance, status))
    for _, _, instance, status in sorted(over, key=lambda each: each[:2])[:ENDED_AT_ONCE]:
        if backoff and backoff.last.instance in world.instances:
            yield Forget(backoff.last.instance)
        backoff = _failed(world, app, instance, status, backoff)
    if over and backoff:
        yield Rest(app.id, backoff)
    yield from others


def _failed(world: World, app: App, instance: Instance, status: InstanceStatus, before: Backoff | None) -> Backoff:
    """One failure more. Marathon's rule: the delay is backoff x factor^(failures - 1), at most maxLaunchDelay."""
    steady = status.started_s is not None and status.changed_s - status.started_s >= STEADY_S
    failures = 1 if before is None or steady else before.failures + 1
    delay_s = _delay_s(app, failures)
    agent = world.agents.get(instance.agent)
    last = Failure(
        instance=instance.id,
        agent=instance.agent,
        host=agent.name if agent else str(instance.agent),
        state=status.state,
        message=status.message,
        version=instance.version,
        at_s=status.changed_s,
    )
    return Backoff(failures=failures, until_s=status.changed_s + delay_s, last=last)


def _delay_s(app: App, failures: int) -> float:
    try:
        return min(app.backoff_s * app.backoff_factor ** (failures - 1), app.max_launch_delay_s)
    except OverflowError:
        return app.max_launch_delay_s


@dataclass(frozen=True, slots=True)
class _Wish:
    """`load` counts the instances of all apps by agent, `taken` are the host ports in use on each; both are kept true
    while some are added.
    """

    world: World
    app: App
    live: list[Instance]
    load: Counter[AgentId]
    taken: dict[AgentId, hostports.Taken]


def _adjust(wish: _Wish, backoff: Backoff | None, now_s: float, dice: Dice) -> Iterator[Step]:
    world, app, live = wish.world, wish.app, wish.live
    if len(live) > app.instances:
        youngest = sorted(live, key=lambda each: (each.staged_s, each.id), reverse=True)
        yield from (Kill(each) for each in youngest[: len(live) - app.instances])
    elif len(live) < app.instances and (backoff is None or backoff.until_s <= now_s):
        last = backoff.last.agent if backoff else None
        for agent in _places(wish, app.instances - len(live), avoid=last):
            instance = _instance(wish, agent, now_s, dice)
            wish.taken.setdefault(agent.id, set()).update(
                (port.protocol, port.host_port) for port in instance.launch.ports
            )
            yield Start(instance)
    running = sum(world.state(each) is InstanceState.RUNNING for each in live)
    if app.deployment and running >= app.instances:
        yield Settle(app)


def _places(wish: _Wish, count: int, avoid: AgentId | None) -> Iterator[Agent]:
    """Where the app has the fewest instances; then not where it failed last; then where all apps have the fewest. Never
    where its network is not, or a host port of its own is taken: then it waits.
    """
    network = wish.world.networks.get(wish.app.network.name)
    every = [
        each
        for each in wish.world.agents.values()
        if each.id not in wish.world.silent_s and (network is None or network.is_for(each.name))
    ]
    own = Counter(each.agent for each in wish.live)
    for _ in range(count):
        agents = [each for each in every if hostports.fits(wish.app, wish.taken.get(each.id, set()))]
        if not agents:
            return
        best = min(agents, key=lambda each: (own[each.id], each.id == avoid, wish.load[each.id], each.name))
        own[best.id] += 1
        wish.load[best.id] += 1
        yield best


def _instance(wish: _Wish, agent: Agent, now_s: float, dice: Dice) -> Instance:
    app = wish.app
    ports = hostports.assign(app, wish.taken.get(agent.id, set()), dice.port)
    safe = app.id.strip("/").replace("/", "_")
    id = InstanceId(f"{safe}.instance-{dice.run()}._app.1")
    return Instance(
        id=id,
        app=app.id,
        incarnation=1,
        agent=agent.id,
        agent_incarnation=agent.incarnation,
        launch=launch_of(app, id, agent.name, dice.port, ports),
        labels=tuple(sorted(app.labels.items())),
        version=app.version,
        staged_s=now_s,
    )
