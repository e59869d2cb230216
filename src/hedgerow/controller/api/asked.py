"""The case that a person asks about: who the two ends are, by which addresses, and what config.yaml says of them.

B may be no endpoint: an address outside all networks, or one of a host. What may be reached there is not a matter of
`rules` and `allow`, but of `internal` and `host_services`.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from hedgerow.config.file import read_text
from hedgerow.config.lines import line_of
from hedgerow.errors import BadInput, NotFound
from hedgerow.model.network import DNS_ADDRESS, NetworkSpec
from hedgerow.policy import reach
from hedgerow.why.case import Case, End, Policy
from hedgerow.why.facts import Question

from .names import Names, Party
from .view import View

Address = IPv4Address | IPv6Address

EPHEMERAL = range(32768, 60999)
"""Source ports of probes, as of any program (ip_local_port_range)."""
_NUMBERS = {("tcp", 4): 6, ("tcp", 6): 6, ("udp", 4): 17, ("udp", 6): 17, ("icmp", 4): 1, ("icmp", 6): 58}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person wrote; `port` 0 asks for a ping."""

    source: str
    destination: str
    protocol: str = "tcp"
    port: int = 0


def make_case(view: View, known: Names, asked: Asked) -> Case:
    """Raises NotFound for who is nobody, BadInput for two that share no IP version."""
    source = known.one(asked.source)
    try:
        destination = known.one(asked.destination, near=source)
    except NotFound:
        return _toward(view, source, _outside(known, asked.destination), asked)
    one, other = _addresses(source, destination, asked)
    peer = "" if source.agent.id == destination.agent.id else str(destination.agent.underlay)
    protocol = _NUMBERS[asked.protocol, one.version]
    found = reach.verdict(view.watch.networks.values(), view.watch.members, one, other, protocol, asked.port)
    change = "" if found.allowed else _change(source, destination, asked)
    policy = Policy(found.allowed, found.reason, found.where, _line(view, found.where), change)
    return Case(
        question=_question(one, other, asked, peer),
        source=_end(source, one),
        destination=_end(destination, other),
        policy=policy,
    )


def _question(one: Address, other: Address, asked: Asked, peer: str) -> Question:
    return Question(
        source=str(one),
        destination=str(other),
        protocol=asked.protocol,
        port=asked.port,
        source_port=secrets.choice(EPHEMERAL),
        peer=peer,
    )


def _line(view: View, where: str) -> int:
    try:
        return line_of(read_text(view.config), where)
    except BadInput:
        return 0


def _outside(known: Names, which: str) -> Address:
    """An address that is in no network. Raises NotFound, saying whose the address would be."""
    try:
        address = ip_address(which)
    except ValueError:
        raise NotFound(f"no endpoint is {which}", "hedgerow endpoint ls") from None
    network = known.network_of(address)
    if network is not None:
        cure = f"hedgerow endpoint ls --network {network.name}"
        raise NotFound(f"no endpoint of {network.name} has {which}: it has ended, or never was", cure)
    return address


def _toward(view: View, source: Party, address: Address, asked: Asked) -> Case:
    """To an address that is no endpoint's."""
    one = next((own for own in source.endpoint.addresses if own.version == address.version), None)
    if one is None:
        raise BadInput(f"{_called(source)} has no IPv{address.version} address", "ask about an address of its own kind")
    return Case(
        question=_question(one, address, asked, ""),
        source=_end(source, one),
        destination=End(called=str(address), address=str(address)),
        policy=_leaving(view, source, address, asked),
    )


def _leaving(view: View, source: Party, address: Address, asked: Asked) -> Policy:
    """What holds for hosts and for the outside."""
    spec, agent = source.network.spec, source.agent
    own = {agent.underlay, *agent.host_addresses, agent.vtep.ip, agent.vtep.ip6, source.network.gateway, DNS_ADDRESS}
    if address in own:
        return _of_hosts(view, spec, asked, where="its own host", dns=address == DNS_ADDRESS)
    if any(address in (other.underlay, *other.host_addresses) for other in view.watch.agents.values()):
        return _of_hosts(view, spec, asked, where="another host of the cluster", dns=False)
    where = f"{spec.name}.internal"
    if spec.internal:
        change = f"take `internal: true` out of {spec.name}, then: hedgerow apply FILE"
        return Policy(False, f"{spec.name} is internal: nothing of it leaves", where, _line(view, where), change)
    if address.is_link_local and "metadata" not in map(str, spec.host_services):
        told = f"containers of {spec.name} reach no link-local address"
        change = f"for the cloud's metadata add to {spec.name}: host_services: [metadata], then: hedgerow apply FILE"
        return Policy(False, told, f"{spec.name}.host_services", _line(view, f"{spec.name}.host_services"), change)
    return Policy(True, f"{spec.name} may reach the outside", spec.name, _line(view, spec.name))


def _of_hosts(view: View, spec: NetworkSpec, asked: Asked, *, where: str, dns: bool) -> Policy:
    """DNS and ping always; else what `host_services` names, other hosts only as controllers."""
    port, key = f"{asked.port}/{asked.protocol}", f"{spec.name}.host_services"
    services = {str(service) for service in spec.host_services}
    is_own = where == "its own host"
    opened = (is_own and port in services) or (port == "8443/tcp" and "api" in services)
    if asked.protocol == "icmp" or (dns and asked.port == 53) or opened:
        return Policy(True, f"{spec.name} may ask that of {where}", key, _line(view, key))
    change = f"add to {spec.name}: host_services: [{port}], then: hedgerow apply FILE"
    if not is_own:
        change = "run the service in a container on a network: what a host offers is for hosts"
    told = f"containers of {spec.name} reach nothing of {where} but ping{' and DNS' if is_own else ''}"
    return Policy(False, told, key, _line(view, key), change)


def _change(source: Party, destination: Party, asked: Asked) -> str:
    one, other = source.network.name, destination.network.name
    port = "" if not asked.port else f", ports: [{asked.port}/{asked.protocol}]"
    if not source.network.spec.enabled or not destination.network.spec.enabled:
        return "take `enabled: false` out of the network"
    if one == other:
        selects = (f"{{app: {party.app}}}" if party.app else "any" for party in (source, destination))
        from_, to = selects
        return f"add to {one}: rules: [{{from: {from_}, to: {to}{port}}}], then: hedgerow apply FILE"
    return f"add to {one}: allow: [{{to: {other}{port}}}], then: hedgerow apply FILE"


def _addresses(source: Party, destination: Party, asked: Asked) -> tuple[Address, Address]:
    """One of each, of one IP version: those that were asked about by address, else IPv4 where both have it. Raises
    BadInput.
    """
    pairs = [
        (one, other)
        for one in source.endpoint.addresses
        for other in destination.endpoint.addresses
        if one.version == other.version
    ]
    for one, other in sorted(pairs, key=lambda pair: not _is_asked(pair, asked)):
        return one, other
    raise BadInput(
        f"{_called(source)} and {_called(destination)} share no IP version",
        "give both networks a subnet of one version",
    )


def _is_asked(pair: tuple[Address, Address], asked: Asked) -> bool:
    """Whether the pair has the address that somebody wrote."""
    written = set()
    for which in (asked.source, asked.destination):
        with contextlib.suppress(ValueError):
            written.add(ip_address(which))
    return bool(written) and written <= set(pair)


def _end(party: Party, address: Address) -> End:
    return End(
        called=party.name or str(address),
        address=str(address),
        network=party.network.name,
        vni=party.network.vni,
        agent=party.agent.name,
        underlay=str(party.agent.underlay),
        mac=party.endpoint.mac.hex(":"),
    )


def _called(party: Party) -> str:
    return party.name or str(party.endpoint.addresses[0])
