"""A network with rules, beside the two open ones, and what a controller says of who its containers are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from kernel.hosts import Host

from hedgerow.model.agent import Prefix
from hedgerow.model.app import AppId
from hedgerow.model.member import Member
from hedgerow.model.network import (
    HostService,
    Network,
    NetworkId,
    NetworkName,
    NetworkSpec,
    PortRange,
    Rule,
    Selector,
    Vni,
)
from hedgerow.model.snapshot import Revision, Snapshot
from hedgerow.wire.messages import State

HTTP, METRICS = 8080, 9100
FRONT, API = AppId("/front"), AppId("/api")

RULES = (
    Rule("front-to-api", Selector(app=FRONT), Selector(app=API), (PortRange("tcp", HTTP, HTTP), PortRange("icmp"))),
    Rule("scrape", Selector(network=NetworkName("dcos-1")), Selector(), (PortRange("udp", METRICS, METRICS),)),
)
SHOP = Network(
    id=NetworkId("3" * 32),
    vni=Vni(70003),
    gateway_index=3,
    spec=NetworkSpec(
        name=NetworkName("shop"),
        subnet=IPv4Network("10.128.0.0/12"),
        prefix=24,
        rules=RULES,
        host_services=(HostService("port", "tcp", METRICS),),
    ),
)


def changed(snapshot: Snapshot, *networks: Network) -> Snapshot:
    """The next revision, with these networks as they are given; a new one has a block on every agent."""
    revision = Revision(snapshot.revision.epoch, snapshot.revision.number + 1)
    agents = dict(snapshot.agents)
    for network in networks:
        assert network.spec.subnet is not None
        for number, (id, agent) in enumerate(agents.items(), 1):
            if network.id not in {prefix.network for prefix in agent.prefixes}:
                base = network.spec.subnet.network_address + (number << 8)
                prefix = Prefix(network=network.id, block=IPv4Network(f"{base}/24"))
                agents[id] = replace(agent, prefixes=(*agent.prefixes, prefix))
    known = snapshot.networks | {network.id: network for network in networks}
    return replace(snapshot, revision=revision, networks=known, agents=agents)


def vouched(snapshot: Snapshot, network: Network, apps: Iterable[tuple[str, AppId]]) -> Snapshot:
    """The next revision, with these as the members: address and app of each."""
    members = [Member(network=network.id, address=IPv4Address(address), app=app) for address, app in apps]
    revision = Revision(snapshot.revision.epoch, snapshot.revision.number + 1)
    return replace(snapshot, revision=revision, members={member.key: member for member in members})


def say(host: Host, snapshot: Snapshot) -> None:
    """From the controller to the agent; waits until it is applied."""
    assert host.controller is not None
    host.snapshot = host.controller.snapshot = snapshot
    host.controller.say(State(snapshot))
    host.applied()
