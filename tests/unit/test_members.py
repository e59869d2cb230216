"""Members: whom the controller vouches for, in the store and on their way to every agent."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from random import Random
from typing import Any

import pytest
from unit.controller_cases import (
    LAUNCH,
    PROD,
    TWO,
    Agent1,
    cluster,
    controller,
    hello,
    network,
    new_store,
    run,
    stored,
    until,
)

from hedgerow.controller.allotment import registered
from hedgerow.controller.members import vouched_for
from hedgerow.controller.networks import draw_networks
from hedgerow.model.agent import Prefix
from hedgerow.model.app import AppId, Instance, InstanceId, InstanceState, InstanceStatus, Launch
from hedgerow.model.member import Member
from hedgerow.model.network import NetworkName, Rule, Selector
from hedgerow.policy.groups import selectors
from hedgerow.store.base import Delete, Put
from hedgerow.store.memory import MemoryStore
from hedgerow.wire.codec import to_json

RULE = Rule("front", Selector("/front"), Selector(labels=(("tier", "front"),)))
CLOSED = cluster(network("dev", "10.64.0.0/24", rules=(RULE,)), network("prod", "10.80.0.0/16"))


async def assign(store: MemoryStore, name: str, agent: Agent1, network: str = "dev", **rest: Any) -> Instance:
    launch: Launch = replace(LAUNCH, network=NetworkName(network))
    fields: dict[str, Any] = {"app": AppId("/web"), "incarnation": 1, "labels": (("owner", "ops"), ("tier", "front"))}
    instance = Instance(id=InstanceId(name), agent=agent.id, agent_incarnation=1, launch=launch, **(fields | rest))
    await store.commit([], [Put(f"/instances/{name}", to_json(instance))])
    return instance


def running_at(agent: Agent1, name: str, *addresses: IPv4Address, **rest: Any) -> InstanceStatus:
    fields: dict[str, Any] = {"incarnation": 1, "state": InstanceState.RUNNING}
    return InstanceStatus(id=InstanceId(name), agent=agent.id, addresses=addresses, **(fields | rest))


def members(store: MemoryStore) -> list[Member]:
    return list(stored(store, "/members/", Member).values())


def block(agent: Agent1, number: int, place: int) -> IPv4Address:
    return agent.own.prefixes[number].block[place]


def test_an_instance_of_a_closed_network_is_a_member_with_its_app_and_labels_on_every_agent() -> None:
    async def case() -> None:
        store = await new_store(CLOSED)
        async with controller(store) as running:
            one, other = await running.join(1), await running.join(2)
            await one.told()
            await assign(store, "a", one)
            await running.core.watch.reached(store.revision)
            dev = one.own.prefixes[0].network
            at = block(one, 0, 3)
            await one.report(instances=(running_at(one, "a", at),))
            member = Member(network=dev, address=at, app=AppId("/web"), labels=(("tier", "front"),))
            told: dict[Any, Any] = {}
            while not told:
                told = (await other.told()).members
            assert told == {member.key: member}
            assert members(store) == [member]
            other.cut()
            state = await (await running.dial(2)).greet()
            assert state.snapshot.members == {member.key: member}

    run(case())


def test_a_member_goes_with_its_instance_and_with_what_made_it_one() -> None:
    async def case() -> None:
        store = await new_store(CLOSED)
        async with controller(store) as running:
            agent = await running.join(1)
            for name, place in (("a", 3), ("b", 4), ("c", 5)):
                await assign(store, name, agent)
                await running.core.watch.reached(store.revision)
                await agent.report(instances=(running_at(agent, name, block(agent, 0, place)),))
            await until(lambda: len(members(store)) == 3)
            await agent.report(instances=(running_at(agent, "a", block(agent, 0, 3), state=InstanceState.FINISHED),))
            await until(lambda: len(members(store)) == 2)
            await store.commit([], [Delete("/instances/b"), Delete("/status/b")])
            await until(lambda: [one.address for one in members(store)] == [block(agent, 0, 5)])
            await assign(store, "c", agent, incarnation=2)
            await until(lambda: members(store) == [])

    run(case())


def test_what_an_agent_says_of_others_addresses_apps_and_open_networks_makes_no_member() -> None:
    async def case() -> None:
        store = await new_store(CLOSED)
        async with controller(store) as running:
            rogue, other = await running.join(1), await running.join(2)
            await assign(store, "theirs", other)
            await assign(store, "mine", rogue)
            await assign(store, "open", rogue, network="prod")
            await running.core.watch.reached(store.revision)
            said = (
                running_at(rogue, "theirs", block(rogue, 0, 3)),
                running_at(rogue, "mine", block(other, 0, 3), IPv4Address("192.0.2.9"), block(rogue, 1, 3)),
                running_at(rogue, "open", block(rogue, 1, 4), block(rogue, 0, 4)),
            )
            await rogue.report(instances=said)
            await until(lambda: len(stored(store, "/status/", InstanceStatus)) == 2)
            await assign(store, "last", rogue)
            await running.core.watch.reached(store.revision)
            await rogue.report(instances=(running_at(rogue, "last", block(rogue, 0, 9)),))
            await until(lambda: [one.address for one in members(store)] == [block(rogue, 0, 9)])

    run(case())


def test_an_address_that_two_instances_have_is_nobodys_until_one_ends() -> None:
    async def case() -> None:
        store = await new_store(CLOSED)
        async with controller(store) as running:
            agent = await running.join(1)
            await assign(store, "a", agent)
            await assign(store, "b", agent, app=AppId("/db"))
            await running.core.watch.reached(store.revision)
            at = block(agent, 0, 3)
            await agent.report(instances=(running_at(agent, "a", at),))
            await until(lambda: [one.app for one in members(store)] == ["/web"])
            await agent.report(instances=(running_at(agent, "b", at),))
            await until(lambda: members(store) == [])
            await agent.report(instances=(running_at(agent, "a", at, state=InstanceState.FAILED),))
            await until(lambda: [one.app for one in members(store)] == ["/db"])

    run(case())


def test_hundreds_of_members_come_and_go_in_few_commits() -> None:
    async def case() -> None:
        store = await new_store(cluster(network("dev", "10.64.0.0/16", prefix=20, rules=(RULE,))))
        async with controller(store) as running:
            agent = await running.join(1)
            for number in range(300):
                await assign(store, f"i{number}", agent)
            await running.core.watch.reached(store.revision)
            before = store.revision
            said = tuple(running_at(agent, f"i{number}", block(agent, 0, number + 1)) for number in range(300))
            await agent.report(instances=said)
            await until(lambda: len(members(store)) == 300)
            assert store.revision - before <= 20

    run(case())


def test_members_are_kept_by_the_next_controller_and_what_ended_meanwhile_is_swept() -> None:
    async def case() -> None:
        store = await new_store(CLOSED)
        async with controller(store) as running:
            agent = await running.join(1)
            await assign(store, "a", agent)
            await running.core.watch.reached(store.revision)
            await agent.report(instances=(running_at(agent, "a", block(agent, 0, 3)),))
            await until(lambda: len(members(store)) == 1)
        await store.commit([], [Delete("/instances/a"), Delete("/status/a")])
        async with controller(store) as running:
            await until(lambda: members(store) == [])

    run(case())


@pytest.mark.parametrize(
    ("walls", "kept"),
    [
        ({}, False),
        ({"isolated": True}, False),
        ({"rules": ()}, False),
        ({"rules": (Rule("any", Selector(), Selector()),)}, False),
        ({"rules": (Rule("app", Selector("/web"), Selector()),)}, True),
        ({"isolated": True, "enabled": False, "rules": (RULE,)}, False),
    ],
)
def test_members_are_kept_where_a_rule_tells_containers_apart_and_nowhere_else(
    walls: dict[str, Any], kept: bool
) -> None:
    dev, prod = draw_networks([network("dev", "10.64.0.0/24", **walls), PROD], [], Random(1).getrandbits)
    networks = {dev.id: dev, prod.id: prod}
    block = Prefix(network=dev.id, block=IPv4Network("10.64.0.0/26"))
    agent = replace(registered(hello(1), None, [], [], TWO), prefixes=(block,))
    launch = replace(LAUNCH, network=dev.name)
    instance = Instance(
        id=InstanceId("a"), app=AppId("/web"), incarnation=1, agent=agent.id, agent_incarnation=1, launch=launch
    )
    status = InstanceStatus(
        id=instance.id, incarnation=1, agent=agent.id, state=InstanceState.RUNNING, addresses=(block.block[3],)
    )
    found = vouched_for(networks, {agent.id: agent}, {instance.id: instance}, [status])
    assert bool(found) == kept


def test_a_network_that_another_ones_rule_asks_about_has_members_too() -> None:
    asks = Rule("from-dev", Selector("/web", (), NetworkName("dev")), Selector())
    specs = [network("dev", "10.64.0.0/24", isolated=True), network("prod", "10.80.0.0/16", rules=(asks,))]
    dev, _ = networks = draw_networks(specs, [], Random(1).getrandbits)
    assert selectors(networks) == {dev.id: (Selector("/web"),)}
