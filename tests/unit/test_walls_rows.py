"""From a network with rules to the rows that an agent wants for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address

from unit.agent_records import DCOS, DEV, LOCAL, SNAPSHOT, VAULT, placed
from unit.test_desired import Known

from hedgerow.agent.desired import Wanted
from hedgerow.agent.objects import Allowed, Crowded, Grouped, Kind, LinkRecord, Service
from hedgerow.model.app import AppId
from hedgerow.model.member import Member, MemberKey
from hedgerow.model.network import Allow, HostService, Network, PortRange, Rule, Selector
from hedgerow.model.snapshot import Snapshot
from hedgerow.policy.groups import GROUP_CLOSED, MAX_RANGES, Range
from hedgerow.reconcile.plan import Key

FRONT, API = AppId("/front"), AppId("/api")
WEB = PortRange("tcp", 80, 80)
OURS, ALSO_OURS, ELSEWHERE = (IPv4Address(f"10.64.{block}") for block in ("1.1", "1.2", "2.1"))


def member(address: IPv4Address, app: AppId, network: Network = DEV) -> Member:
    return Member(network=network.id, address=address, app=app)


def walled(*rules: Rule, members: Iterable[Member] = ()) -> Snapshot:
    dev = replace(DEV, spec=replace(DEV.spec, allow=(), rules=rules))
    known = {MemberKey(one.key): one for one in members}
    return replace(SNAPSHOT, networks=SNAPSHOT.networks | {DEV.id: dev}, members=known)


RULE = Rule("web", Selector(app=FRONT), Selector(app=API), (WEB, PortRange("icmp")))
WALLED = walled(RULE, members=[member(OURS, FRONT), member(ALSO_OURS, API), member(ELSEWHERE, FRONT)])


def allowed(snapshot: Snapshot) -> dict[tuple[int, int], Allowed]:
    rows = Wanted(Known(snapshot), LOCAL).rows(Kind.ALLOW)
    return {tuple(map(int, key.name.split())): row for key, row in rows.items() if isinstance(row, Allowed)}  # type: ignore[misc]


def groups(snapshot: Snapshot, wanted: Wanted | None = None) -> dict[str, int]:
    rows = (wanted or Wanted(Known(snapshot), LOCAL)).rows(Kind.MEMBER)
    return {key.name: row.group for key, row in rows.items() if isinstance(row, Grouped)}


def test_members_of_one_app_are_one_group_on_whatever_host() -> None:
    found = groups(WALLED)
    assert found[str(OURS)] == found[str(ELSEWHERE)] != found[str(ALSO_OURS)]
    assert all(group & GROUP_CLOSED for group in found.values())


def test_a_rule_is_a_row_one_way_with_its_ports_and_one_range_for_both_icmps() -> None:
    found, rows = groups(WALLED), allowed(WALLED)
    row = rows[found[str(OURS)], found[str(ALSO_OURS)]].row
    assert not row.both
    assert [(one.protocol, one.low, one.high) for one in row.ranges] == [(6, 80, 80), (1, 0, 65535)]
    assert (found[str(ALSO_OURS)], found[str(OURS)]) not in rows


def test_an_open_network_is_a_group_of_its_own_and_has_a_row_with_itself() -> None:
    assert allowed(WALLED)[DCOS.vni, DCOS.vni].row.both
    assert (DEV.vni, DEV.vni) not in allowed(WALLED)


def test_prefixes_and_links_of_a_closed_network_have_its_group() -> None:
    wanted = Wanted(Known(WALLED, placed("c1", DEV, str(OURS)), placed("c2", DEV, "10.64.1.9")), LOCAL)
    prefix = wanted.rows(Kind.PREFIX)[Key(Kind.PREFIX, "10.64.2.0/24")]
    links = {record.addresses[0]: record for record in _links(wanted)}
    assert str(prefix) == f"remote via 10.0.0.2 on the link vni 5002 group {links[IPv4Address('10.64.1.9')].group}"
    assert links[OURS].group == groups(WALLED)[str(OURS)]
    assert links[OURS].group != links[IPv4Address("10.64.1.9")].group


def _links(wanted: Wanted) -> list[LinkRecord]:
    return [row for row in wanted.rows(Kind.LINK).values() if isinstance(row, LinkRecord)]


def test_an_address_of_ours_that_no_instance_has_any_more_is_no_members() -> None:
    wanted = Wanted(Known(WALLED), LOCAL)
    assert set(groups(WALLED, wanted)) == {str(OURS), str(ALSO_OURS), str(ELSEWHERE)}
    wanted.claimed = lambda: frozenset({OURS})
    assert set(groups(WALLED, wanted)) == {str(OURS), str(ELSEWHERE)}


def test_a_network_that_lets_one_way_is_told_from_one_that_talks_both_ways() -> None:
    one_way = replace(VAULT, spec=replace(VAULT.spec, allow=(Allow(DCOS.name, (WEB,), both_ways=False),)))
    rows = allowed(replace(SNAPSHOT, networks=SNAPSHOT.networks | {VAULT.id: one_way}))
    assert rows[VAULT.vni, DCOS.vni].row.ranges[0] == Range(6, 80, 80, rows[VAULT.vni, DCOS.vni].row.ranges[0].rule)
    assert (DCOS.vni, VAULT.vni) not in rows
    assert rows[DCOS.vni, DEV.vni].row.both
    assert rows[DEV.vni, DCOS.vni].row.both


def test_a_rule_that_finds_no_room_is_a_row_of_its_own() -> None:
    many = tuple(PortRange("tcp", port, port) for port in range(1, 2 * MAX_RANGES, 2))
    rules = (
        Rule("first", Selector(), Selector(), many),
        Rule("second", Selector(), Selector(), (PortRange("udp", 1, 1),)),
    )
    rows = Wanted(Known(walled(*rules)), LOCAL).rows(Kind.ALLOW)
    assert [key.name for key, row in rows.items() if isinstance(row, Crowded)] == ["of rule dev/second"]


def test_services_of_the_host_are_rows_of_the_networks_that_name_them() -> None:
    services = (
        HostService("api"),
        HostService("port", "tcp", 8443),
        HostService("port", "udp", 53),
        HostService("metadata"),
    )
    dev = replace(DEV, spec=replace(DEV.spec, host_services=services))
    rows = Wanted(Known(replace(SNAPSHOT, networks=SNAPSHOT.networks | {DEV.id: dev})), LOCAL).rows(Kind.HOST_SERVICE)
    assert {key.name: row for key, row in rows.items()} == {
        f"{DEV.vni} 6 8443": Service(own_host=True, controllers=True),
        f"{DEV.vni} 17 53": Service(own_host=True),
        f"{DEV.vni} 0 0": Service(own_host=True),
    }


def test_a_controllers_host_is_known_and_sends_no_tunnel_packets() -> None:
    local = replace(LOCAL, controllers=(IPv4Address("10.0.0.8"), IPv4Address("10.0.0.2")))
    rows = {key.name: str(row) for key, row in Wanted(Known(SNAPSHOT), local).rows(Kind.AGENT).items()}
    assert rows == {"10.0.0.1": "", "10.0.0.2": "controller", "10.0.0.8": "controller without tunnel"}


def test_bridges_are_barred() -> None:
    rows = Wanted(Known(SNAPSHOT), replace(LOCAL, bridges=frozenset({7, 9}))).rows(Kind.BARRED)
    assert {key.name for key in rows} == {"7", "9"}
