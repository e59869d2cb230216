"""Rows of who may reach whom, from the openings of `policy.groups` to what the data path looks up. Pure.

Protocols are the numbers of IANA's registry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from hedgerow.model.endpoint import Address, Endpoint
from hedgerow.model.network import Network
from hedgerow.model.snapshot import Snapshot
from hedgerow.policy.firewall import API_PORT
from hedgerow.policy.groups import Groups
from hedgerow.policy.reach import PROTOCOLS, TCP
from hedgerow.reconcile.plan import Key

from .objects import Allowed, Crowded, Grouped, Kind, Service

Rows = dict[Key, object]


def group_of(groups: Groups, network: Network, endpoint: Endpoint) -> int:
    """An endpoint's addresses are of one instance, and so of one group."""
    known = [groups.members[address] for address in endpoint.addresses if address in groups.members]
    return known[0] if known else groups.networks[network.id]


def strangers(snapshot: Snapshot, claimed: Collection[Address]) -> frozenset[Address]:
    """Addresses of ours for which the controller vouches, and which none of our instances has: it will hear of it."""
    own = snapshot.agents.get(snapshot.own)
    blocks = [prefix.block for prefix in own.all_prefixes] if own is not None else []
    ours = (member.at for member in snapshot.members.values() if any(member.at in block for block in blocks))
    return frozenset(address for address in ours if address not in claimed)


def members(groups: Groups) -> Rows:
    return {Key(Kind.MEMBER, str(address)): Grouped(group) for address, group in groups.members.items()}


def allowed(groups: Groups) -> Rows:
    """A rule that finds no room in a row is a row that cannot be set, so that it is heard of."""
    found: Rows = {Key(Kind.ALLOW, f"{one} {other}"): Allowed(row) for (one, other), row in groups.allowed.items()}
    return found | {Key(Kind.ALLOW, f"of rule {rule}"): Crowded() for rule in groups.crowded}


def host_services(networks: Iterable[Network]) -> Rows:
    """The API may be on the port that is opened as well; then both hold."""
    found: dict[Key, Service] = {}
    for network in networks:
        for service in network.spec.host_services:
            protocol, port, on_controllers = 0, 0, False
            if service.service == "api":
                protocol, port, on_controllers = TCP, API_PORT, True
            elif service.service == "port":
                protocol, port = PROTOCOLS[service.protocol][0], service.port
            key = Key(Kind.HOST_SERVICE, f"{network.vni} {protocol} {port}")
            old = found.get(key, Service())
            found[key] = Service(old.own_host or not on_controllers, old.controllers or on_controllers)
    return dict(found)
