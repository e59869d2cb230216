"""Registration: who gets which blocks, who is refused and why, and that nothing is ever given twice."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.controller_cases import (
    DEV,
    PROD,
    TWO,
    VTEPS,
    cluster,
    controller,
    hello,
    network,
    new_store,
    refused,
    run,
    stored,
    until,
)

from hedgerow.controller.allotment import MOST_ADDRESSES, NO_VTEP, Rejected, lacking, registered
from hedgerow.controller.networks import draw_networks
from hedgerow.model.agent import Agent, Vtep
from hedgerow.model.network import Network, VtepSpec
from hedgerow.store.base import Compare, Delete, Put
from hedgerow.wire.codec import from_json, pack, to_json, unpack

NETWORKS = draw_networks([DEV, PROD], [], Random(1).getrandbits)


def blocks(agent: Agent) -> list[str]:
    return [str(prefix.block) for prefix in agent.prefixes]


def test_blocks_and_tunnel_addresses_are_allotted_lowest_first_as_dcos_does() -> None:
    first = registered(hello(1), None, [], NETWORKS, TWO)
    second = registered(hello(2), None, [first], NETWORKS, TWO)
    assert blocks(first) == ["10.64.0.0/26", "10.80.0.0/26"]
    assert blocks(second) == ["10.64.0.64/26", "10.80.0.64/26"]
    assert first.vtep == Vtep(ip=IPv4Address("44.128.0.1"), mac=bytes.fromhex("70b3d5800001"))
    assert second.vtep == Vtep(ip=IPv4Address("44.128.0.2"), mac=bytes.fromhex("70b3d5800002"))


def test_ipv6_blocks_are_allotted_beside_ipv4() -> None:
    six = network("six", "10.0.0.0/24", subnet6=IPv6Network("fd00::/64"), prefix6=80)
    networks = draw_networks([six], [], Random(1).getrandbits)
    first = registered(hello(1), None, [], networks, cluster(six))
    second = registered(hello(2), None, [first], networks, cluster(six))
    assert [str(one.prefixes6[0].block) for one in (first, second)] == ["fd00::/80", "fd00::1:0:0:0/80"]


def test_a_disabled_network_and_a_disabled_cluster_allot_nothing() -> None:
    off = draw_networks([network("off", "10.0.0.0/24", enabled=False)], [], Random(1).getrandbits)
    assert registered(hello(1), None, [], off, TWO).prefixes == ()
    nothing = registered(hello(1), None, [], NETWORKS, cluster(DEV, enable=False))
    assert (nothing.prefixes, nothing.vtep) == ((), NO_VTEP)


def test_an_agent_that_comes_back_keeps_what_it_had() -> None:
    first = registered(hello(1), None, [], NETWORKS, TWO)
    other = registered(hello(2), None, [first], NETWORKS, TWO)
    assert registered(hello(1), first, [other], NETWORKS, TWO) == first
    moved = registered(hello(1, name="new", underlay=IPv4Address("192.0.2.99")), first, [other], NETWORKS, TWO)
    assert (moved.name, str(moved.underlay)) == ("new", "192.0.2.99")
    assert (moved.prefixes, moved.vtep) == (first.prefixes, first.vtep)


def test_a_full_network_takes_nothing_but_itself_from_an_agent() -> None:
    one = network("one", "10.0.0.0/26")
    networks = draw_networks([one, PROD], [], Random(1).getrandbits)
    first = registered(hello(1), None, [], networks, cluster(one, PROD))
    second = registered(hello(2), None, [first], networks, cluster(one, PROD))
    assert (blocks(first), blocks(second)) == (["10.0.0.0/26", "10.80.0.0/26"], ["10.80.0.64/26"])
    assert [lack.name for lack in lacking(second, networks, cluster(one, PROD))] == ["one"]


def test_a_name_or_an_address_that_another_has_is_refused_with_both_named() -> None:
    first = registered(hello(1), None, [], NETWORKS, TWO)
    with pytest.raises(Rejected, match=f"n1 is taken by agent {first.id} at 192.0.2.1") as told:
        registered(hello(2, name="n1"), None, [first], NETWORKS, TWO)
    assert told.value.code == "name"
    assert hello(2).agent in told.value.message
    with pytest.raises(Rejected, match=r"192\.0\.2\.1 is the underlay address of agent n1") as told:
        registered(hello(2, underlay=IPv4Address("192.0.2.1")), None, [first], NETWORKS, TWO)
    assert told.value.code == "underlay"
    assert "n2" in told.value.message


OUR_NETWORKS = ("10.64.0.9", "10.80.9.9", "44.128.0.1")
NO_HOSTS = ("127.0.0.1", "224.0.0.1", "0.0.0.0", "169.254.64.1", "255.255.255.255")


@pytest.mark.parametrize("address", [*OUR_NETWORKS, *NO_HOSTS])
def test_an_underlay_address_that_no_host_can_have_is_refused(address: str) -> None:
    with pytest.raises(Rejected, match=address) as told:
        registered(hello(1, underlay=IPv4Address(address)), None, [], NETWORKS, TWO)
    assert told.value.code == "underlay"


@pytest.mark.parametrize("address", ["fd00:6::7", "fd01:a::7", "fe80::7", "::1", "::", "ff02::1"])
def test_an_ipv6_underlay_address_that_no_host_can_have_is_refused(address: str) -> None:
    six = network("six", "10.9.0.0/16", subnet6=IPv6Network("fd00:6::/48"), prefix6=64)
    spec = cluster(six, vtep=VtepSpec(subnet=VTEPS.subnet, subnet6=IPv6Network("fd01:a::/64")))
    known = draw_networks(spec.networks, [], lambda width: 3)
    with pytest.raises(Rejected, match=address) as told:
        registered(hello(1, underlay=IPv6Address(address)), None, [], known, spec)
    assert told.value.code == "underlay"
    assert registered(hello(1, underlay=IPv6Address("fd99::7")), None, [], known, spec).underlay.version == 6


def test_tunnels_are_of_one_ip_version() -> None:
    first = registered(hello(1), None, [], NETWORKS, TWO)
    with pytest.raises(Rejected, match="of another IP version") as told:
        registered(hello(2, underlay=IPv6Address("fd99::2")), None, [first], NETWORKS, TWO)
    assert told.value.code == "underlay"


@pytest.mark.parametrize("address", [IPv4Address("192.0.2.7"), IPv6Address("fd99::7")])
def test_an_underlay_address_of_either_version_travels_and_is_kept(address: IPv4Address | IPv6Address) -> None:
    said = hello(1, underlay=address)
    assert unpack(pack(0, said)) == (0, said)
    record = registered(said, None, [], NETWORKS, TWO)
    assert from_json(to_json(record), Agent) == record


@pytest.mark.parametrize("name", ["", "a/b", "a b", "..", "-a", "n\n1", "x" * 254, "é"])
def test_a_name_that_would_break_a_path_or_a_log_line_is_refused(name: str) -> None:
    with pytest.raises(Rejected, match="is no name for an agent") as told:
        registered(hello(1, name=name), None, [], NETWORKS, TWO)
    assert told.value.code == "name"


def test_an_older_incarnation_is_fenced_and_a_newer_one_believed() -> None:
    known = registered(hello(1, incarnation=3), None, [], NETWORKS, TWO)
    with pytest.raises(Rejected, match="incarnation 3, this is 2") as told:
        registered(hello(1, incarnation=2), known, [], NETWORKS, TWO)
    assert told.value.code == "fenced"
    assert registered(hello(1), known, [], NETWORKS, TWO).incarnation == 3
    assert registered(hello(1, incarnation=4), known, [], NETWORKS, TWO).incarnation == 4


def test_when_no_tunnel_address_is_left_the_agent_is_refused_with_the_pool_named() -> None:
    tiny = cluster(DEV, vtep=VtepSpec(subnet=IPv4Network("44.128.0.0/30")))
    known: list[Agent] = []
    for number in (1, 2):
        known.append(registered(hello(number), None, known, NETWORKS, tiny))
    with pytest.raises(Rejected, match=r"44\.128\.0\.0/30") as told:
        registered(hello(3), None, known, NETWORKS, tiny)
    assert told.value.code == "exhausted"
    assert VTEPS.subnet != tiny.vtep.subnet


@given(st.permutations(range(1, 9)))
def test_in_whatever_order_agents_come_no_block_is_given_twice(order: list[int]) -> None:
    known: list[Agent] = []
    for number in order:
        known.append(registered(hello(number), None, known, NETWORKS, TWO))
    owned = [block for agent in known for block in blocks(agent)]
    assert len(set(owned)) == len(owned)
    assert len({agent.vtep.ip for agent in known}) == len(known)


def test_the_record_is_in_the_store_before_the_agent_is_welcomed() -> None:
    async def case() -> None:
        async with controller(await new_store()) as running:
            agent = await running.join(1)
            assert stored(running.store, "/agents/", Agent) == {agent.id: agent.own}
            again = await running.join(1)
            assert again.own == agent.own

    run(case())


def test_who_is_refused_hears_why_and_gets_nothing() -> None:
    async def case() -> None:
        async with controller(await new_store()) as running:
            await running.join(1)
            for changed, code in (
                ({"name": "n1"}, "name"),
                ({"underlay": IPv4Address("192.0.2.1")}, "underlay"),
                ({"agent": hello(1).agent}, "certificate"),
                ({"protocol_min": 2, "protocol_max": 3}, "protocol"),
            ):
                answer = refused(await (await running.dial(2)).ask(**changed))
                assert (answer.code, bool(answer.cure)) == (code, True)
            assert len(stored(running.store, "/agents/", Agent)) == 1

    run(case())


def test_two_controllers_that_register_at_once_give_nothing_twice() -> None:
    async def case() -> None:
        store = await new_store(cluster(network("wide", "10.0.0.0/16"), PROD))
        async with controller(store) as one, controller(store) as other:
            joined = await asyncio.gather(*((one if n % 2 else other).join(n) for n in range(1, 41)))
        agents = [agent.own for agent in joined]
        assert stored(store, "/agents/", Agent) == {agent.id: agent for agent in agents}
        owned = [block for agent in agents for block in blocks(agent)]
        assert len(set(owned)) == len(owned) == 80
        assert len({agent.vtep.ip for agent in agents}) == 40

    run(case())


def test_a_network_that_comes_later_is_allotted_to_agents_that_are_known() -> None:
    async def case() -> None:
        async with controller(await new_store()) as running:
            agents = [await running.join(number) for number in range(1, 4)]
            later = network("later", "10.9.0.0/25")
            guard = await running.store.get("/allotment")
            drawn = draw_networks([later], list(running.core.watch.networks.values()), Random(2).getrandbits)[0]
            writes = [Put(f"/networks/{drawn.id}", to_json(drawn)), Put("/allotment", b"{}")]
            await running.store.commit([Compare("/allotment", guard.modified)], writes)
            await until(lambda: sum(len(a.prefixes) for a in running.core.watch.agents.values()) == 8)
            owned = [str(p.block) for a in running.core.watch.agents.values() for p in a.prefixes[2:]]
            assert owned == ["10.9.0.0/26", "10.9.0.64/26"]
            told = await agents[0].told()
            while not told.networks:
                told = await agents[0].told()
            assert told.networks[drawn.id].name == "later"

    run(case())


def test_a_network_that_goes_and_an_agent_that_goes_reach_everybody() -> None:
    async def case() -> None:
        async with controller(await new_store()) as running:
            first = await running.join(1)
            await running.join(2)
            joined = await first.told()
            assert [agent.name for agent in joined.agents.values()] == ["n2"]
            gone = next(iter(running.core.watch.networks))
            await running.store.commit([], [Delete(f"/networks/{gone}"), Delete(f"/agents/{hello(2).agent}")])
            told = await first.told()
            assert (told.networks, told.agents) == ({gone: None}, {hello(2).agent: None})
            assert isinstance(stored(running.store, "/networks/", Network), dict)

    run(case())


@pytest.mark.parametrize(
    ("agents", "have"),
    [(None, "n1 n2 n10"), ((), ""), (("n1",), "n1"), (("n1*",), "n1 n10"), (("n[12]",), "n1 n2"), (("N1", "x"), "")],
)
def test_only_agents_that_a_network_names_get_a_part_of_it(agents: tuple[str, ...] | None, have: str) -> None:
    chosen = network("chosen", "10.0.0.0/24", agents=agents)
    networks = draw_networks([chosen], [], Random(1).getrandbits)
    known: list[Agent] = []
    for number in (1, 2, 10):
        known.append(registered(hello(number), None, known, networks, cluster(chosen)))
    assert " ".join(agent.name for agent in known if agent.prefixes) == have
    assert [lacking(agent, networks, cluster(chosen)) for agent in known] == [[], [], []]


def test_a_hosts_addresses_are_kept_sorted_without_those_that_are_nobody_elses_business() -> None:
    told = ["10.0.0.9", "10.0.0.7", "127.0.0.1", "169.254.0.1", "0.0.0.0", "224.0.0.1", "10.0.0.9"]
    said = hello(
        1, addresses4=tuple(map(IPv4Address, told)), addresses6=(IPv6Address("fe80::1"), IPv6Address("fd00::7"))
    )
    own = registered(said, None, [], NETWORKS, TWO)
    assert [str(each) for each in own.host_addresses] == ["10.0.0.7", "10.0.0.9", "fd00::7"]
    assert registered(hello(1), own, [], NETWORKS, TWO).host_addresses == ()


def test_one_agent_cannot_name_addresses_without_end() -> None:
    many = tuple(IPv4Address("203.0.113.0") + number for number in range(100))
    assert len(registered(hello(1, addresses4=many), None, [], NETWORKS, TWO).host_addresses) == MOST_ADDRESSES
