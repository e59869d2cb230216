"""Whether one container may begin to talk to another, judged by the configuration and what the controller vouches for.

No host is asked: what is told is what should be. `hedgerow why` looks at what is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from hedgerow.controller.watch import Watch
from hedgerow.errors import BadInput, NotFound
from hedgerow.model.app import Instance
from hedgerow.model.network import Network
from hedgerow.policy.reach import PROTOCOLS, Party, judge, judge_any, party_at
from hedgerow.store.base import Store

from . import shapes
from .names import Names, read

_PORT = re.compile(r"(?P<who>.+?):(?:(?P<port>[0-9]{1,5})(?:/(?P<protocol>tcp|udp))?|(?P<icmp>icmp))")


@dataclass(frozen=True, slots=True)
class _Side:
    name: str
    party: Party
    network: Network


async def judged(store: Store, watch: Watch, source: str, destination: str) -> shapes.CanShape:
    """Raises NotFound for who is nobody, BadInput for a port that is none."""
    names = await read(store, watch)
    who, _, _ = split(source)
    one = _side(names, watch, who, None)
    who, protocol, port = split(destination)
    other = _side(names, watch, who, one.network)
    if protocol is None:
        verdict = judge_any(one.party, other.party)
    else:
        verdict = judge(one.party, other.party, PROTOCOLS[protocol][0], port or 0)
    return shapes.CanShape(
        allowed=verdict.allowed,
        source=one.name,
        destination=other.name,
        protocol=protocol or "",
        port=port,
        rule=verdict.rule,
        reason=verdict.reason,
        where=verdict.where,
    )


def split(written: str) -> tuple[str, str | None, int | None]:
    """`db:5432`, `[fd00::2]:53/udp`, `db:icmp` or no port: who, protocol, port. Raises BadInput."""
    if _is_address(written):
        return written, None, None
    match = _PORT.fullmatch(written)
    who = (match["who"] if match else written).strip()
    who = who[1:-1] if who.startswith("[") and who.endswith("]") else who
    if match is None:
        return who, None, None
    if match["icmp"]:
        return who, "icmp", None
    if not 0 < int(match["port"]) < 65536:
        raise BadInput(f"{match['port']} is no port", "write a number from 1 to 65535")
    return who, match["protocol"] or "tcp", int(match["port"])


def _side(names: Names, watch: Watch, who: str, near: Network | None) -> _Side:
    """A network, an address, an endpoint or an app; of several the first, on the network `near` if there is one."""
    networks = list(watch.networks.values())
    network = next((one for one in networks if one.name == who), None)
    if network is not None:
        return _Side(f"any container of {who}", Party(network.spec), network)
    if _is_address(who):
        party, network = party_at(ip_address(who), networks, watch.members), names.network_of(ip_address(who))
        if party is None or network is None:
            raise NotFound(f"{who} is in no network", "hedgerow network ls")
        return _Side(f"{who} of {network.name}", party, network)
    found = sorted(names.find(who), key=lambda one: near is not None and one.network.id != near.id)
    for endpoint in found:
        party = party_at(endpoint.endpoint.first_address, networks, watch.members)
        if party is not None:
            return _Side(f"{endpoint.name or who} of {endpoint.network.name}", party, endpoint.network)
    return _of_app(watch, who)


def _of_app(watch: Watch, who: str) -> _Side:
    """An app that has an instance, if only one without an address yet."""
    app = who if who.startswith("/") else f"/{who}"
    for instance in watch.instances.values():
        network = _network_of(watch, instance)
        if instance.app == app and network is not None:
            known = network.spec.is_closed
            party = Party(network.spec, app, instance.labels) if known else Party(network.spec)
            return _Side(f"{app} of {network.name}", party, network)
    raise NotFound(f"{who} is no network, endpoint, address or app that runs", "hedgerow endpoint ls")


def _network_of(watch: Watch, instance: Instance) -> Network | None:
    return next((one for one in watch.networks.values() if one.name == instance.launch.network), None)


def _is_address(written: str) -> bool:
    try:
        ip_address(written)
    except ValueError:
        return False
    return True
