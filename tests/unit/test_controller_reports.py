"""Reports: what an agent says is in the store soon, its own only, and what it no longer says is gone."""

from __future__ import annotations

import logging
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from unit.controller_cases import Agent1, agent_id, controller, new_store, put_instance, run, stored, until

from hedgerow.controller.reports import owns
from hedgerow.model.agent import Agent, AgentId, Prefix, Prefix6, Vtep
from hedgerow.model.app import InstanceId, InstanceState, InstanceStatus
from hedgerow.model.endpoint import Endpoint, EndpointKey
from hedgerow.model.network import NetworkId
from hedgerow.store.base import Delete
from hedgerow.store.memory import MemoryStore
from hedgerow.wire.messages import Report


def endpoints(store: MemoryStore, agent: Agent1) -> list[Endpoint]:
    return sorted(stored(store, f"/endpoints/{agent.id}/", Endpoint).values(), key=lambda one: one.key)


def status(name: str, agent: AgentId, state: InstanceState = InstanceState.RUNNING, **rest: Any) -> InstanceStatus:
    return InstanceStatus(id=InstanceId(name), agent=agent, state=state, **({"incarnation": 1} | rest))


def statuses(store: MemoryStore) -> dict[str, InstanceState]:
    return {key: one.state for key, one in stored(store, "/status/", InstanceStatus).items()}


def test_endpoints_come_and_go_in_the_store() -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            agent = await running.join(1)
            one, two, three = (agent.endpoint(number) for number in (1, 2, 3))
            await agent.report(one, two)
            await until(lambda: endpoints(store, agent) == [one, two])
            await agent.report(three, endpoints_gone=(one.key,))
            await until(lambda: endpoints(store, agent) == [two, three])

    run(case())


def test_a_thousand_endpoints_are_written_in_few_transactions() -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            agent = await running.join(1)
            many = [agent.endpoint(number % 62 + 1) for number in range(1000)]
            before = store.revision
            await agent.report(*many)
            await until(lambda: len(endpoints(store, agent)) == 62)
            assert store.revision - before == 1

    run(case())


def test_what_a_whole_report_does_not_name_is_gone_and_other_agents_keep_theirs() -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            one, other = await running.join(1), await running.join(2)
            await one.report(one.endpoint(1), one.endpoint(2))
            await other.report(other.endpoint(1))
            await until(lambda: len(stored(store, "/endpoints/", Endpoint)) == 3)
        async with controller(store) as running:
            again = await running.join(1)
            await again.report(again.endpoint(2))
            await until(lambda: endpoints(store, again) == [again.endpoint(2)])
            assert len(endpoints(store, other)) == 1

    run(case())


def test_an_address_of_somebody_else_is_not_taken_over(caplog: pytest.LogCaptureFixture) -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            one, other = await running.join(1), await running.join(2)
            foreign = one.endpoint(1, other.own.prefixes[0].block[5])
            nowhere = one.endpoint(2, IPv4Address("192.0.2.1"))
            wrong_network = one.endpoint(3)
            wrong_network = Endpoint(
                key=wrong_network.key, network=NetworkId("0" * 32), address=wrong_network.address, mac=b"123456"
            )
            await one.report(foreign, nowhere, wrong_network, one.endpoint(4))
            await until(lambda: endpoints(store, one) == [one.endpoint(4)])

    with caplog.at_level(logging.WARNING):
        run(case())
    assert caplog.text.count("has no right to") == 3


def test_an_endpoint_is_an_agents_own_only_with_each_of_its_addresses() -> None:
    net = NetworkId("1" * 32)
    agent = Agent(
        id=AgentId("a" * 32),
        name="n1",
        underlay=IPv4Address("192.0.2.1"),
        incarnation=1,
        vtep=Vtep(ip=None, mac=bytes(6)),
        prefixes=(Prefix(network=net, block=IPv4Network("10.64.1.0/24")),),
        prefixes6=(Prefix6(network=net, block=IPv6Network("fd00:1::/64")),),
    )
    ours, theirs = IPv4Address("10.64.1.1"), IPv4Address("10.64.2.1")
    ours6, theirs6 = IPv6Address("fd00:1::1"), IPv6Address("fd00:1:0:1::1")
    for address, address6, is_own in (
        (ours, ours6, True),
        (None, ours6, True),
        (ours, theirs6, False),
        (theirs, ours6, False),
        (None, theirs6, False),
    ):
        endpoint = Endpoint(
            key=EndpointKey("cni", "c1", "eth0"), network=net, address=address, address6=address6, mac=bytes(6)
        )
        assert owns(agent, endpoint) is is_own, (address, address6)


def test_a_first_report_that_is_not_whole_ends_the_connection() -> None:
    async def case() -> None:
        async with controller(await new_store()) as running:
            agent = await running.join(1)
            await agent.report(agent.endpoint(1), whole=False)
            await until(lambda: not running.core.sessions.connected)

    run(case())


def test_only_ones_own_instances_have_a_status() -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            agent = await running.join(1)
            await put_instance(store, "mine", agent.id)
            await put_instance(store, "theirs", agent_id(2))
            await running.core.watch.reached(store.revision)
            said = (
                status("mine", agent.id),
                status("theirs", agent.id),
                status("theirs", agent_id(2)),
                status("unknown", agent.id),
            )
            await agent.report(instances=said)
            await until(lambda: statuses(store) == {"mine": InstanceState.RUNNING})

    run(case())


def test_a_status_of_an_earlier_incarnation_is_late_and_dropped() -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            agent = await running.join(1)
            await put_instance(store, "a", agent.id)
            await put_instance(store, "b", agent.id)
            await running.core.watch.reached(store.revision)
            await agent.report(instances=(status("a", agent.id, incarnation=0), status("b", agent.id)))
            await until(lambda: statuses(store) == {"b": InstanceState.RUNNING})

    run(case())


def test_a_status_does_not_outlive_its_instance() -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            agent = await running.join(1)
            await put_instance(store, "a", agent.id)
            await running.core.watch.reached(store.revision)
            await agent.report(instances=(status("a", agent.id),))
            await until(lambda: statuses(store) == {"a": InstanceState.RUNNING})
            await store.commit([], [Delete("/instances/a"), Delete("/status/a")])
            await put_instance(store, "b", agent.id)
            await agent.report(instances=(status("a", agent.id, InstanceState.KILLED), status("b", agent.id)))
            await until(lambda: statuses(store) == {"b": InstanceState.RUNNING})

    run(case())


def test_a_whole_report_forgets_running_instances_and_keeps_finished_ones() -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            agent = await running.join(1)
            for name in ("a", "b"):
                await put_instance(store, name, agent.id)
            await running.core.watch.reached(store.revision)
            await agent.report(instances=(status("a", agent.id), status("b", agent.id, InstanceState.FINISHED)))
            await until(lambda: len(statuses(store)) == 2)
        async with controller(store) as running:
            await (await running.join(1)).report()
            await until(lambda: statuses(store) == {"b": InstanceState.FINISHED})

    run(case())


def test_faults_and_the_way_are_known_while_the_agent_is_connected() -> None:
    async def case() -> None:
        async with controller(await new_store()) as running:
            agent = await running.join(1)
            await agent.stream.send(0, Report(whole=True, way="device", applied=agent.revision))
            session = running.core.sessions.connected[agent.id]
            await until(lambda: session.reports.way == "device")
            agent.cut()
            await until(lambda: running.core.sessions.applied(agent.id) is None)

    run(case())


def test_a_status_bears_no_address_of_another_agents_container() -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            agent, other = await running.join(1), await running.join(2)
            await put_instance(store, "a", agent.id)
            await running.core.watch.reached(store.revision)
            own, foreign = agent.own.prefixes[0].block[3], other.own.prefixes[0].block[3]
            outside = IPv4Address("172.17.0.2")
            await agent.report(instances=(status("a", agent.id, addresses=(own, foreign, outside)),))
            await until(lambda: statuses(store))
            assert stored(store, "/status/", InstanceStatus)["a"].addresses == (own, outside)

    run(case())


@pytest.mark.parametrize("time", [{"changed_s": float("nan")}, {"started_s": float("inf")}])
def test_a_time_that_is_no_number_ends_the_connection_and_is_not_stored(time: dict[str, float]) -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            agent = await running.join(1)
            await put_instance(store, "a", agent.id)
            await running.core.watch.reached(store.revision)
            await agent.report(instances=(status("a", agent.id, **time),))
            await until(lambda: not running.core.sessions.connected)
            assert not statuses(store)

    run(case())


def test_more_endpoints_than_a_host_can_have_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hedgerow.controller.reports.MAX_ENDPOINTS", 3)

    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            agent = await running.join(1)
            await agent.report(*(agent.endpoint(number) for number in range(1, 5)))
            await until(lambda: not running.core.sessions.connected)
            assert not endpoints(store, agent)

    run(case())


def test_an_instance_with_more_addresses_than_any_can_have_ends_the_connection() -> None:
    async def case() -> None:
        async with controller(await new_store()) as running:
            agent = await running.join(1)
            addresses = tuple(IPv4Address("10.64.0.0") + number for number in range(17))
            await agent.report(instances=(status("a", agent.id, addresses=addresses),))
            await until(lambda: not running.core.sessions.connected)

    run(case())
