from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from unit.agent_records import DCOS, DEV, LOCAL, OTHER, OWN, SNAPSHOT, VAULT, placed

from hedgerow.agent import desired
from hedgerow.agent.desired import Wanted
from hedgerow.agent.objects import Kind, KnownAgent, LinkRecord, Placed
from hedgerow.model.agent import Prefix
from hedgerow.model.snapshot import Snapshot
from hedgerow.reconcile.plan import Key


class Known:
    def __init__(self, snapshot: Snapshot | None, *placed: Placed, is_live: bool = True) -> None:
        self.snapshot = snapshot
        self.is_live = is_live
        self._placed = placed

    def placed(self) -> tuple[Placed, ...]:
        return self._placed


def shown(snapshot: Snapshot, kind: Kind, *placed: Placed) -> list[str]:
    rows = Wanted(Known(snapshot, *placed), LOCAL).rows(kind)
    return sorted(f"{key.name} {record}".rstrip() for key, record in rows.items())


def test_each_block_says_whose_it_is() -> None:
    assert shown(SNAPSHOT, Kind.PREFIX) == [
        "10.64.0.0/12 network vni 5002",
        "10.64.1.0/24 local vni 5002",
        "10.64.2.0/24 remote via 10.0.0.2 on the link vni 5002",
        "10.80.0.0/16 network vni 5003",
        "10.80.1.0/24 local vni 5003",
        "10.80.2.0/24 remote via 10.0.0.2 on the link vni 5003",
        "169.254.1.1/32 host vni 0",
        "169.254.64.1/32 host vni 5001",
        "169.254.64.2/32 host vni 5002",
        "169.254.64.3/32 host vni 5003",
        "44.128.0.0/20 closed vni 0",
        "44.128.0.1/32 host vni 0",
        "9.0.0.0/8 network vni 5001",
        "9.0.1.0/24 local vni 5001",
        "9.0.2.0/24 remote via 10.0.0.2 on the link vni 5001",
    ]


def test_an_agent_beyond_a_router_is_not_on_the_link() -> None:
    local = replace(LOCAL, subnet=IPv4Network("10.0.0.1/32"))
    rows = Wanted(Known(SNAPSHOT), local).rows(Kind.PREFIX)
    assert str(rows[Key(Kind.PREFIX, "9.0.2.0/24")]) == "remote via 10.0.0.2 vni 5001"


def test_a_block_as_large_as_its_network_hides_the_network() -> None:
    whole = replace(DCOS, spec=replace(DCOS.spec, subnet=IPv4Network("9.0.1.0/24")))
    snapshot = replace(SNAPSHOT, networks={DCOS.id: whole})
    assert "9.0.1.0/24 local vni 5001" in shown(snapshot, Kind.PREFIX)


def test_networks_talk_to_themselves_and_to_those_they_allow_both_ways() -> None:
    assert shown(SNAPSHOT, Kind.ALLOW) == ["5001 5001", "5001 5002", "5002 5001", "5002 5002", "5003 5003"]


def test_every_agent_is_known_ourselves_included() -> None:
    assert shown(SNAPSHOT, Kind.AGENT) == ["10.0.0.1", "10.0.0.2"]


def test_hosts_are_walled_off_at_every_address_that_their_agents_name() -> None:
    other = replace(
        SNAPSHOT.agents[OTHER], addresses4=(IPv4Address("192.0.2.7"),), addresses6=(IPv6Address("fd99::7"),)
    )
    snapshot = replace(SNAPSHOT, agents={OWN: SNAPSHOT.agents[OWN], OTHER: other})
    rows = Wanted(Known(snapshot), LOCAL).rows(Kind.AGENT)
    assert {key.name for key, row in rows.items() if row == KnownAgent(True)} == {"10.0.0.1", "10.0.0.2"}
    assert {key.name for key, row in rows.items() if row == KnownAgent(False)} == {"192.0.2.7", "fd99::7"}
    (text,) = shown(snapshot, Kind.FIREWALL)
    assert text != shown(SNAPSHOT, Kind.FIREWALL)[0]


def test_the_host_has_the_gateways_dns_and_its_vtep_address() -> None:
    assert shown(SNAPSHOT, Kind.ADDRESS) == [
        "169.254.1.1",
        "169.254.64.1",
        "169.254.64.2",
        "169.254.64.3",
        "44.128.0.1",
    ]
    assert shown(SNAPSHOT, Kind.ROUTE)[0] == "10.64.0.0/12 src 44.128.0.1"


@pytest.mark.parametrize(
    ("underlay", "cluster", "vtep", "tunnel", "overlay"),
    [
        (1500, 1420, None, 1450, 1420),
        (1450, 1420, None, 1400, 1400),
        (9000, 1420, None, 8950, 1420),
        (9000, 8900, 1300, 1300, 1300),
    ],
)
def test_the_mtu_is_the_smallest_that_counts(
    underlay: int, cluster: int, vtep: int | None, tunnel: int, overlay: int
) -> None:
    spec = replace(SNAPSHOT.cluster, mtu_bytes=cluster, vtep=replace(SNAPSHOT.cluster.vtep, mtu_bytes=vtep))
    snapshot, local = replace(SNAPSHOT, cluster=spec), replace(LOCAL, mtu_bytes=underlay)
    assert desired.tunnel_mtu(snapshot, local) == tunnel
    assert desired.overlay_mtu(snapshot, local) == overlay


def test_only_attached_endpoints_are_links() -> None:
    there, created = placed("c1", DCOS, "9.0.1.1"), placed("c2", DCOS, "9.0.1.2", attached=False)
    assert shown(SNAPSHOT, Kind.LINK, there, created) == [f"{there.endpoint.link} 9.0.1.1 02:48:09:00:01:01 vni 5001"]


def test_an_endpoint_on_a_network_that_is_gone_is_no_link() -> None:
    snapshot = replace(SNAPSHOT, networks={DEV.id: DEV})
    assert shown(snapshot, Kind.LINK, placed("c1", DCOS, "9.0.1.1")) == []


def test_a_disabled_network_is_nothing_at_all() -> None:
    disabled = replace(DCOS, spec=replace(DCOS.spec, enabled=False))
    snapshot = replace(SNAPSHOT, networks={DCOS.id: disabled})
    rows = [line for kind in (Kind.PREFIX, Kind.ALLOW, Kind.ROUTE) for line in shown(snapshot, kind)]
    assert not [line for line in rows if line.startswith(("9.", "5001"))]
    assert shown(snapshot, Kind.LINK, placed("c1", DCOS, "9.0.1.1")) == []


def test_only_eth0_has_a_default_route_also_on_an_internal_network() -> None:
    def routes(each: Placed) -> list[str]:
        rows = Wanted(Known(SNAPSHOT, each), LOCAL).rows(Kind.LINK)
        record = rows[desired.link_key(each)]
        assert isinstance(record, LinkRecord)
        assert record.inside is not None
        return [str(to) for to, _ in record.inside.routes]

    assert "0.0.0.0/0" in routes(placed("c1", DCOS, "9.0.1.1"))
    assert "0.0.0.0/0" not in routes(placed("c1", DCOS, "9.0.1.1", ifname="eth1"))
    assert "0.0.0.0/0" in routes(placed("c1", VAULT, "10.80.1.1"))


def test_before_it_is_registered_an_agent_wants_nothing() -> None:
    strangers = replace(SNAPSHOT, agents={OTHER: SNAPSHOT.agents[OTHER]})
    for snapshot in (None, strangers):
        assert all(Wanted(Known(snapshot), LOCAL).rows(kind) == {} for kind in Kind)


def test_of_a_saved_snapshot_only_what_the_agent_knows_by_itself_may_be_removed() -> None:
    saved, live = Wanted(Known(SNAPSHOT, is_live=False), LOCAL), Wanted(Known(SNAPSHOT), LOCAL)
    assert [kind for kind in Kind if saved.may_remove(kind)] == [Kind.BARRED, Kind.LINK, Kind.PUBLISHED]
    assert all(live.may_remove(kind) for kind in Kind)
    assert not Wanted(Known(None), LOCAL).may_remove(Kind.LINK)


def test_a_network_without_a_block_of_ours_is_reached_all_the_same() -> None:
    own = replace(SNAPSHOT.agents[OWN], prefixes=(Prefix(network=DEV.id, block=IPv4Network("10.64.1.0/24")),))
    snapshot = replace(SNAPSHOT, agents={OWN: own, OTHER: SNAPSHOT.agents[OTHER]})
    rows = shown(snapshot, Kind.PREFIX)
    assert "9.0.2.0/24 remote via 10.0.0.2 on the link vni 5001" in rows
    assert not [line for line in rows if line.startswith("9.0.1.")]
