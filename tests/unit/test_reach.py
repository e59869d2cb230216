"""Who may open what to whom: against a plain reading of the rules in words, and the data path's rows against both."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import product

import pytest
from conftest import Proof
from hypothesis import given, settings
from unit.slow_reach import slowly
from unit.wall_worlds import PORTS, World, worlds

from hedgerow.model.app import AppId
from hedgerow.model.member import Member, MemberKey
from hedgerow.model.network import Allow, Network, NetworkId, NetworkName, NetworkSpec, PortRange, Rule, Selector, Vni
from hedgerow.policy.groups import GROUP_CLOSED, MAX_RANGES, Groups, Row, groups
from hedgerow.policy.reach import ICMP, ICMPV6, TCP, UDP, Address, Verdict, may_reach, verdict

SCTP = 132
CALLS = [*product((TCP, UDP), PORTS), (ICMP, 0), (ICMPV6, 0), (SCTP, 0)]


def network(number: int, name: str, **rest: object) -> Network:
    spec = NetworkSpec(
        name=NetworkName(name),
        subnet=IPv4Network(f"10.{number}.0.0/16"),
        prefix=24,
        subnet6=IPv6Network(f"fd00:{number}::/64"),
        prefix6=80,
        **rest,  # type: ignore[arg-type]
    )
    return Network(id=NetworkId(f"{number:032x}"), vni=Vni(4096 + number), gateway_index=number + 1, spec=spec)


def member(network: Network, address: str, app: str, **labels: str) -> Member:
    at = IPv4Address(address) if "." in address else None
    at6 = IPv6Address(address) if at is None else None
    return Member(network=network.id, address=at, address6=at6, app=AppId(app), labels=tuple(sorted(labels.items())))


def keyed(*members: Member) -> dict[MemberKey, Member]:
    return {one.key: one for one in members}


def number_of(found: Groups, network: Network, address: Address) -> int:
    return found.members.get(address, found.networks[network.id])


def by_rows(found: Groups, world: World, source: Address, destination: Address, protocol: int, port: int) -> Verdict:
    """As the data path looks it up."""

    def group_of(address: Address) -> int | None:
        for one in world.networks:
            if one.spec.enabled and one.spec.subnet is not None and address in one.spec.subnet:
                return number_of(found, one, address)
        return None

    one, other = group_of(source), group_of(destination)
    if one is None or other is None:
        return Verdict(False, "", "", "")
    if one == other and not one & GROUP_CLOSED:
        return Verdict(True, "", "", "")
    row = found.allowed.get((one, other), Row(both=False))
    if row.both:
        return Verdict(True, "", "", "")
    for each in row.ranges:
        if each.protocol in (0, ICMP if protocol == ICMPV6 else protocol) and each.low <= port <= each.high:
            return Verdict(True, found.rules[each.rule], "", "")
    return Verdict(False, "", "", "")


def test_what_may_pass_is_what_the_rules_say_and_the_rows_agree(proof: Proof) -> None:
    @settings(max_examples=proof.count("policy model", small=20, full=600))
    @given(worlds())
    def holds(world: World) -> None:
        found = groups(world.networks, world.members)
        for source, destination in product(world.addresses, repeat=2):
            for call in CALLS:
                judged = verdict(world.networks, world.members, source, destination, *call)
                looked_up = by_rows(found, world, source, destination, *call)
                assert judged.allowed == slowly(world, source, destination, *call), (source, destination, call, judged)
                if looked_up.allowed:
                    assert (judged.allowed, judged.rule) == (True, looked_up.rule)
                else:
                    assert not judged.allowed or judged.rule in found.crowded

    holds()


@settings(max_examples=25)
@given(worlds())
def test_a_way_back_for_everything_is_there_whenever_a_way_there_is(world: World) -> None:
    found = groups(world.networks, world.members)
    for (one, other), row in found.allowed.items():
        if row.both:
            assert found.allowed[other, one].both


@settings(max_examples=25)
@given(worlds())
def test_no_row_has_more_ranges_than_the_data_path_holds_and_none_is_empty(world: World) -> None:
    for row in groups(world.networks, world.members).allowed.values():
        assert row.both or 0 < len(row.ranges) <= MAX_RANGES


@settings(max_examples=25)
@given(worlds(), worlds())
def test_rows_of_yesterday_beside_groups_of_today_let_nothing_new_pass(before: World, after: World) -> None:
    """Members and rows are replaced one by one: whatever is mixed, old or new rules must have let it pass."""
    old, new = groups(before.networks, before.members), groups(after.networks, before.members)
    mixed = (
        Groups(old.networks, old.members, new.allowed, {**old.rules, **new.rules}),
        Groups(new.networks, new.members, old.allowed, {**old.rules, **new.rules}),
    )
    worlds_ = (before, replace(after, members=before.members))
    for source, destination in product(before.addresses[:9], repeat=2):
        for call in CALLS[::3]:
            allowed = any(verdict(w.networks, w.members, source, destination, *call).allowed for w in worlds_)
            for seen, world in zip(mixed, worlds_, strict=True):
                if not all(one.spec.enabled for w in worlds_ for one in w.networks):
                    continue
                assert allowed or not by_rows(seen, world, source, destination, *call).allowed


@settings(max_examples=25)
@given(worlds())
def test_between_networks_without_a_word_in_common_nothing_passes(world: World) -> None:
    walled = [replace(one, spec=replace(one.spec, allow=(), rules=None, isolated=False)) for one in world.networks]
    for one, other in product(walled, repeat=2):
        assert may_reach(one.spec, other.spec) == (one is other and one.spec.enabled)
    own = {(one.vni, one.vni) for one in walled if one.spec.enabled}
    assert groups(walled, world.members).allowed == dict.fromkeys(own, Row(both=True))


def test_one_mention_opens_exactly_one_pair() -> None:
    walled = [network(0, "dev"), network(1, "prod"), network(2, "web")]
    opened = [walled[0], network(1, "prod", allow=(Allow(NetworkName("web")),)), walled[2]]
    added = groups(opened, {}).allowed.keys() - groups(walled, {}).allowed.keys()
    assert added == {(4097, 4098), (4098, 4097)}


def test_a_one_way_allow_opens_its_ports_and_nothing_back() -> None:
    dev = network(0, "dev", allow=(Allow(NetworkName("db"), (PortRange("tcp", 5432, 5432),), both_ways=False),))
    networks = (dev, network(1, "db"))
    there, back = (IPv4Address("10.0.0.2"), IPv4Address("10.1.0.2")), (IPv4Address("10.1.0.2"), IPv4Address("10.0.0.2"))
    assert verdict(networks, {}, *there, TCP, 5432) == Verdict(
        True, "dev/allow db", "dev/allow db opens 5432/tcp", "dev.allow[0]"
    )
    assert verdict(networks, {}, *there, TCP, 5433) == Verdict(
        False, "", "dev/allow db opens 5432/tcp only", "dev.allow[0]"
    )
    assert verdict(networks, {}, *back, TCP, 5432) == Verdict(False, "", "neither db nor dev allows it", "dev.allow")


FRONT_TO_API = Rule("front-to-api", Selector("/front"), Selector("/api"), (PortRange("tcp", 8080, 8080),))


@pytest.mark.parametrize("family", ["10.0.0.", "fd00:0::"])
def test_a_rule_opens_an_app_to_an_app_and_to_nobody_else(family: str) -> None:
    dev = network(0, "dev", rules=(FRONT_TO_API,))
    members = keyed(
        member(dev, family + "2", "/front"), member(dev, family + "3", "/api"), member(dev, family + "4", "/other")
    )
    at = {number: type(next(iter(members.values())).at)(f"{family}{number}") for number in (2, 3, 4, 5)}
    passing = {
        (one, other)
        for one, other in product(at, repeat=2)
        if verdict([dev], members, at[one], at[other], TCP, 8080).allowed
    }
    assert passing == {(2, 3)}
    assert not verdict([dev], members, at[2], at[3], TCP, 80).allowed
    assert verdict([dev], members, at[5], at[3], TCP, 8080).where == "dev.rules"


@pytest.mark.parametrize("walls", [{"isolated": True}, {"rules": ()}, {"rules": (), "isolated": True}])
def test_a_network_without_a_rule_lets_nothing_pass_inside(walls: dict[str, object]) -> None:
    dev = network(0, "dev", **walls)
    one, other = IPv4Address("10.0.0.2"), IPv4Address("10.0.0.3")
    found = verdict([dev], {}, one, other, ICMP, 0)
    assert (found.allowed, found.where) == (False, "dev.isolated" if walls.get("rules") is None else "dev.rules")
    assert groups([dev], {}).allowed == {}


def test_a_rule_opens_its_network_to_another_one_and_not_the_other_way() -> None:
    scrape = Rule("scrape", Selector(network=NetworkName("mon")), Selector(), (PortRange("tcp", 9100, 9100),))
    networks = (network(0, "dev", rules=(scrape,)), network(1, "mon"))
    dev, mon = IPv4Address("10.0.0.2"), IPv4Address("10.1.0.2")
    assert verdict(networks, {}, mon, dev, TCP, 9100).rule == "dev/scrape"
    assert not verdict(networks, {}, dev, mon, TCP, 9100).allowed
    assert not verdict(networks, {}, dev, dev + 1, TCP, 9100).allowed


def test_who_is_no_member_is_nobody_whatever_it_says_of_itself() -> None:
    dev = network(0, "dev", rules=(FRONT_TO_API, Rule("all", Selector(), Selector(labels=(("public", "yes"),)))))
    members = keyed(member(dev, "10.0.0.3", "/api", public="yes"))
    stranger, api = IPv4Address("10.0.0.2"), IPv4Address("10.0.0.3")
    assert verdict([dev], members, stranger, api, TCP, 1).rule == "dev/all"
    assert not verdict([dev], members, api, stranger, TCP, 8080).allowed


def test_an_address_that_somebody_else_has_by_now_is_nobodys() -> None:
    dev = network(0, "dev", rules=(FRONT_TO_API,))
    front = member(dev, "10.0.0.2", "/front")
    assert groups([dev], keyed(front)).members.keys() == {front.at}
    found = groups([dev], keyed(front), strangers={front.at})
    assert number_of(found, dev, front.at) == found.networks[dev.id]


def test_members_whom_no_rule_tells_apart_cost_no_row() -> None:
    dev = network(0, "dev", rules=(FRONT_TO_API,))
    others = keyed(*(member(dev, f"10.0.1.{host}", f"/app{host}") for host in range(200)))
    found = groups([dev], others | keyed(member(dev, "10.0.0.2", "/front"), member(dev, "10.0.0.3", "/api")))
    assert (len(found.members), len(found.allowed)) == (2, 1)


def test_what_finds_no_room_in_a_row_stays_refused_and_is_named() -> None:
    rules = tuple(
        Rule(
            f"r{n}", Selector(), Selector(), tuple(PortRange("tcp", 100 * n + k, 100 * n + k) for k in range(0, 12, 2))
        )
        for n in range(1, 5)
    )
    found = groups([network(0, "dev", rules=rules)], {})
    (row,) = found.allowed.values()
    assert len(row.ranges) == MAX_RANGES
    assert found.crowded == ("dev/r3", "dev/r4")


def test_numbers_of_groups_and_rules_are_the_same_whatever_else_there_is() -> None:
    dev, other = network(0, "dev", rules=(FRONT_TO_API,)), network(1, "other", isolated=True)
    front = member(dev, "10.0.0.2", "/front")
    alone, together = groups([dev], keyed(front)), groups([other, dev], keyed(front))
    assert alone.networks.items() <= together.networks.items()
    assert (alone.members, alone.rules) == (together.members, together.rules)
    assert all(number & GROUP_CLOSED for number in (*together.networks.values(), *together.members.values()))
    assert not any(number & GROUP_CLOSED or number == 0 for number in together.rules)
