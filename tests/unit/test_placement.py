from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from unit.marathon_client import NETWORKS

from hedgerow.apps import hostports
from hedgerow.apps.marathon import read_app
from hedgerow.apps.placement import (
    STEADY_S,
    UNREACHABLE_S,
    Dice,
    Forget,
    Kill,
    Rest,
    Settle,
    Start,
    Step,
    World,
    decide,
    next_moment_s,
)
from hedgerow.apps.records import App
from hedgerow.model.agent import Agent, AgentId, Vtep
from hedgerow.model.app import AppId, Instance, InstanceState, InstanceStatus
from hedgerow.model.network import NetworkSpec

NOW_S = 1000.0
WEB = AppId("/web")


def agent(name: str, incarnation: int = 1) -> Agent:
    vtep = Vtep(ip=IPv4Address("44.128.0.1"), mac=b"\x70\xb3\xd5\x80\x00\x01")
    return Agent(id=AgentId(name), name=name, underlay=IPv4Address("10.0.0.1"), incarnation=incarnation, vtep=vtep)


def app(instances: int = 1, **more: Any) -> App:
    body = {"id": "web", "cmd": "x", "networks": NETWORKS, "instances": instances} | more
    return read_app(json.dumps(body).encode(), "v1").app


def status(instance: Instance, state: InstanceState, **more: Any) -> InstanceStatus:
    words = {"changed_s": NOW_S, "started_s": NOW_S - 1} | more
    return InstanceStatus(id=instance.id, incarnation=1, agent=instance.agent, state=state, **words)


def dice(first_run: int = 1) -> Dice:
    runs, ports = count(first_run), count(2000)
    return Dice(run=lambda: f"{next(runs):04}", port=lambda: next(ports))


def do(world: World, steps: list[Step]) -> World:
    """The world after the steps, as the store would have it."""
    apps, instances, backoffs = dict(world.apps), dict(world.instances), dict(world.backoffs)
    for step in steps:
        match step:
            case Start(instance):
                instances[instance.id] = instance
            case Kill(instance):
                instances[instance.id] = replace(instance, kill=True)
            case Forget(id):
                del instances[id]
            case Rest(id, None):
                del backoffs[id]
            case Rest(id, backoff):
                backoffs[id] = backoff
            case Settle(app):
                apps[app.id] = replace(app, deployment=None)
    statuses = {id: each for id, each in world.statuses.items() if id in instances}
    return replace(world, apps=apps, instances=instances, statuses=statuses, backoffs=backoffs)


def steps_of(world: World, now_s: float = NOW_S, drawn: Dice | None = None) -> list[Step]:
    return [step for steps in decide(world, now_s, drawn or dice()).values() for step in steps]


def say(world: World, state: InstanceState, **more: Any) -> World:
    """All agents say the same of all their instances."""
    said = {each.id: status(each, state, **more) for each in world.instances.values()}
    return replace(world, statuses=said)


def started(instances: int = 1, agents: tuple[str, ...] = ("n1", "n2"), **more: Any) -> World:
    world = World(apps={WEB: app(instances, **more)}, agents={AgentId(name): agent(name) for name in agents})
    return say(do(world, steps_of(world)), InstanceState.RUNNING)


def test_instances_are_spread_where_the_app_has_the_fewest() -> None:
    world = started(5, ("n1", "n2", "n3"))
    assert sorted(each.agent for each in world.instances.values()) == ["n1", "n1", "n2", "n2", "n3"]


def test_nothing_is_placed_on_an_agent_without_a_connection() -> None:
    agents = {AgentId(name): agent(name) for name in ("n1", "n2")}
    world = World(apps={WEB: app(3)}, agents=agents, silent_s={AgentId("n1"): 0.0})
    assert {step.instance.agent for step in steps_of(world) if isinstance(step, Start)} == {"n2"}
    assert steps_of(replace(world, silent_s=dict.fromkeys(agents, 0.0))) == []


def test_the_id_of_a_run_and_its_incarnations_are_marathons_and_the_agents() -> None:
    world = World(apps={WEB: app()}, agents={AgentId("n1"): agent("n1", incarnation=7)})
    [step] = steps_of(world)
    assert isinstance(step, Start)
    assert (step.instance.id, step.instance.agent_incarnation) == ("web.instance-0001._app.1", 7)


def test_when_as_many_run_as_are_wanted_there_is_nothing_to_do() -> None:
    assert steps_of(started(3)) == []


def test_a_deployment_is_done_once_all_run() -> None:
    world = started(2)
    world = replace(world, apps={WEB: replace(world.apps[WEB], deployment="d")})
    assert steps_of(say(world, InstanceState.STARTING)) == []
    assert [str(step) for step in steps_of(world)] == ["~ app /web deployed"]


def test_one_that_ended_is_counted_kept_and_replaced_after_the_back_off() -> None:
    world = say(started(1, backoffSeconds=5, backoffFactor=2), InstanceState.FAILED, message="exit 1")
    [old] = world.instances
    [rest] = steps_of(world)
    assert isinstance(rest, Rest)
    assert rest.backoff is not None
    assert (rest.backoff.failures, rest.backoff.until_s) == (1, NOW_S + 5)
    assert (rest.backoff.last.instance, rest.backoff.last.message) == (old, "exit 1")
    resting = do(world, [rest])
    assert steps_of(resting, NOW_S + 4.9) == []
    assert next_moment_s(resting, NOW_S) == NOW_S + 5
    [start] = steps_of(resting, NOW_S + 5)
    assert isinstance(start, Start)
    assert old in do(resting, [start]).instances


def test_the_delay_grows_by_the_factor_up_to_the_longest() -> None:
    world, delays = started(1, ("n1",), backoffSeconds=1, backoffFactor=3, maxLaunchDelaySeconds=20), []
    now_s, dies = NOW_S, dice(100)
    for _ in range(5):
        world = say(world, InstanceState.FAILED, changed_s=now_s, started_s=now_s)
        world = do(world, steps_of(world, now_s, dies))
        delays.append(world.backoffs[WEB].until_s - now_s)
        now_s = world.backoffs[WEB].until_s
        world = do(world, steps_of(world, now_s, dies))
    assert delays == [1, 3, 9, 20, 20]


def test_one_that_ran_for_a_while_begins_the_back_off_anew() -> None:
    world = say(started(1, backoffSeconds=4, backoffFactor=2), InstanceState.FAILED)
    world = do(world, steps_of(world))
    world = do(world, steps_of(world, NOW_S + 4))
    late_s = NOW_S + 4 + STEADY_S
    world = say(world, InstanceState.FINISHED, started_s=NOW_S + 4, changed_s=late_s)
    world = do(world, steps_of(world, late_s))
    assert world.backoffs[WEB].failures == 1


def test_only_the_last_that_ended_is_kept() -> None:
    world, now_s, dies = started(1, ("n1",)), NOW_S, dice(100)
    for _ in range(3):
        world = say(world, InstanceState.FAILED, changed_s=now_s)
        world = do(world, steps_of(world, now_s, dies))
        now_s = world.backoffs[WEB].until_s
        world = do(world, steps_of(world, now_s, dies))
    assert len(world.instances) == 2


def test_after_a_failure_another_agent_is_tried_first() -> None:
    world = say(started(1, ("n1", "n2")), InstanceState.FAILED)
    failed_on = next(iter(world.instances.values())).agent
    world = do(world, steps_of(world))
    [start] = steps_of(world, NOW_S + 100)
    assert isinstance(start, Start)
    assert start.instance.agent != failed_on


def test_an_app_that_is_gone_has_its_instances_killed_and_is_forgotten_once_they_are() -> None:
    world = replace(started(2), apps={})
    kills = steps_of(world)
    assert all(isinstance(step, Kill) for step in kills)
    world = do(world, kills)
    assert steps_of(world) == []
    world = say(world, InstanceState.KILLED)
    assert do(world, steps_of(world)).instances == {}


def test_an_app_that_failed_leaves_nothing_when_it_goes() -> None:
    world = say(started(1), InstanceState.FAILED)
    world = replace(do(world, steps_of(world)), apps={})
    world = do(world, steps_of(world))
    assert (world.instances, world.backoffs) == ({}, {})


def test_too_many_are_killed_the_youngest_first() -> None:
    world = started(1)
    [first] = world.instances.values()
    younger = replace(first, id=first.id + "x", staged_s=NOW_S + 1)
    world = replace(world, instances={**world.instances, younger.id: younger})
    assert steps_of(say(world, InstanceState.RUNNING)) == [Kill(younger)]


def test_an_instance_of_an_earlier_incarnation_of_its_agent_is_lost_and_replaced() -> None:
    world = started(1, ("n1",))
    [old] = world.instances
    world = replace(world, agents={AgentId("n1"): agent("n1", incarnation=2)})
    forget, start = steps_of(world, drawn=Dice(run=lambda: "new", port=lambda: 2000))
    assert forget == Forget(old)
    assert isinstance(start, Start)
    assert start.instance.agent_incarnation == 2


def test_an_agent_that_is_silent_for_too_long_loses_its_instances_to_another() -> None:
    world = started(1)
    [instance] = world.instances.values()
    silent = replace(world, silent_s={instance.agent: UNREACHABLE_S})
    assert steps_of(silent) == []
    assert silent.state(instance) is InstanceState.UNREACHABLE
    later = replace(world, silent_s={instance.agent: UNREACHABLE_S + 1})
    forget, start = steps_of(later, drawn=Dice(run=lambda: "new", port=lambda: 2000))
    assert forget == Forget(instance.id)
    assert isinstance(start, Start)
    assert start.instance.agent != instance.agent


def test_what_is_said_of_an_earlier_run_does_not_count() -> None:
    world = started(1)
    [instance] = world.instances.values()
    said = replace(status(instance, InstanceState.FAILED), incarnation=0)
    assert steps_of(replace(world, statuses={instance.id: said})) == []


STATES = st.sampled_from([*InstanceState, None])


@given(st.integers(0, 6), st.lists(STATES, max_size=8), st.sets(st.sampled_from(["n1", "n2", "n3"])), st.booleans())
def test_from_any_state_it_comes_to_rest_with_as_many_as_are_wanted(
    wanted: int, said: list[InstanceState | None], silent: set[str], gone: bool
) -> None:
    dies, now_s = dice(100), NOW_S
    world = started(len(said), ("n1", "n2", "n3"), backoffSeconds=1)
    states = dict(zip(world.instances, said, strict=True))
    statuses = {id: status(world.instances[id], state) for id, state in states.items() if state}
    world = replace(
        world,
        apps={} if gone else {WEB: app(wanted, backoffSeconds=1)},
        statuses=statuses,
        silent_s={AgentId(each): UNREACHABLE_S + 1 for each in silent},
    )
    for _ in range(30):
        steps = steps_of(world, now_s, dies)
        world = do(world, steps)
        killed = {each.id: status(each, InstanceState.KILLED) for each in world.instances.values() if each.kill}
        world = replace(world, statuses={**world.statuses, **killed})
        now_s += 400
    assert steps_of(world, now_s, dies) == []
    live = [each for each in world.instances.values() if not world.state(each).is_final]
    assert len(live) == (0 if gone or len(silent) == 3 else wanted)


def test_what_an_app_of_the_same_id_left_is_killed_and_does_not_count_for_the_next() -> None:
    old = started(2)
    world = replace(old, apps={WEB: replace(app(1), version="v2")})
    steps = steps_of(world, drawn=dice(10))
    assert {step.instance.id for step in steps if isinstance(step, Kill)} == set(old.instances)
    assert [step.instance.version for step in steps if isinstance(step, Start)] == ["v2"]


def ports(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"container": {"docker": {"image": "i"}, "portMappings": list(rows)}}


def test_a_host_port_is_on_one_agent_once_and_what_finds_no_place_waits() -> None:
    world = started(3, ("n1", "n2"), **ports({"containerPort": 80, "hostPort": 8080}))
    assert sorted(each.agent for each in world.instances.values()) == ["n1", "n2"]
    assert steps_of(world) == []
    over = next(iter(world.instances.values()))
    ended = replace(world, statuses={**world.statuses, over.id: status(over, InstanceState.FINISHED)})
    later = do(ended, steps_of(ended))
    assert [step.instance.agent for step in steps_of(later, NOW_S + 400) if isinstance(step, Start)] == [over.agent]
    udp = app(1, **ports({"containerPort": 80, "hostPort": 8080, "protocol": "udp"}))
    second = replace(world, apps={AppId("/second"): replace(udp, id=AppId("/second")), **world.apps})
    assert [step.instance.app for step in steps_of(second) if isinstance(step, Start)] == ["/second"]


def test_drawn_host_ports_are_each_others_neighbours_never_each_other() -> None:
    world = started(5, ("n1",), **ports({"hostPort": 0}, {"hostPort": 31000}, {"hostPort": 0, "protocol": "udp"}))
    [only] = world.instances.values()
    assert only.launch.host_ports[1] == 31000
    assert len(set(only.launch.host_ports)) == 3
    many = started(5, ("n1",), **ports({"hostPort": 0}, {"hostPort": 0, "protocol": "udp,tcp"}))
    found = [port for each in many.instances.values() for port in each.launch.host_ports]
    assert len(set(found)) == len(found) == 10
    assert all(port in hostports.DRAWN for port in found)


def test_an_app_runs_only_on_agents_that_have_its_network() -> None:
    agents = {AgentId(name): agent(name) for name in ("n1", "n2", "n3")}
    wanted = app(instances=4)
    spec = NetworkSpec(name=wanted.network.name, agents=("n[23]",))
    world = World(apps={WEB: wanted}, agents=agents, networks={spec.name: spec})
    starts = [step for step in decide(world, NOW_S, dice())[WEB] if isinstance(step, Start)]
    assert sorted(step.instance.agent for step in starts) == ["n2", "n2", "n3", "n3"]
    nowhere = replace(world, networks={spec.name: replace(spec, agents=())})
    assert decide(nowhere, NOW_S, dice()) == {}


def test_an_app_whose_record_cannot_be_read_is_left_as_it_is_and_so_is_what_runs_on_such_an_agent() -> None:
    agents = {AgentId("n1"): agent("n1")}
    world = World(apps={WEB: app()}, agents=agents)
    running = do(world, decide(world, NOW_S, dice())[WEB])
    damaged = replace(running, apps={}, damaged=["/apps/web"])
    assert decide(damaged, NOW_S, dice()) == {}
    lost = replace(running, agents={}, damaged=["/agents/n1"])
    assert not any(lost.is_lost(instance) for instance in lost.instances.values())


def test_the_labels_of_an_app_go_with_its_instances() -> None:
    world = World(apps={WEB: app(labels={"tier": "front", "a": "1"})}, agents={AgentId("n1"): agent("n1")})
    (start,) = [step for step in decide(world, NOW_S, dice())[WEB] if isinstance(step, Start)]
    assert start.instance.labels == (("a", "1"), ("tier", "front"))
