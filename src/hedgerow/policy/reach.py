"""Who may open what to whom: the one page that decides it, and the first to read in a review. Pure.

All that may pass between containers is an *opening*. What no opening covers is refused. There are four kinds:

1. A network without walls inside (neither `rules` nor `isolated`): everything, among its own containers.
2. A name under `allow` of either of two networks: everything, both ways.
3. A mapping under `allow`: one way, its ports, from every container of that network to every one of `to`.
4. An entry of `rules`: one way, its ports, into the network that has it, from containers of its own or, with `network`,
   of another one. It cannot open anything into a network that did not write it.

One way means who begins: replies to what was opened come back. Openings add up, and nothing takes one back: what two of
them say together is what either says. A disabled network opens nothing, and nothing opens it. `internal`, `attach`,
`hosts` and `host_services` have no say here: they are about the outside, about joining and about hosts.

What a container is, its app and labels, is taken from the members that the controller vouches for. Of one that is not
among them nothing is known but its network: it fits the selectors that select everyone, and no other.

`groups` turns openings into rows of the data path, and a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from hedgerow.model.member import Labels, Member, MemberKey
from hedgerow.model.network import Network, NetworkSpec, PortRange, Rule, Selector

Address = IPv4Address | IPv6Address

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
PROTOCOLS: Mapping[str, tuple[int, ...]] = {"tcp": (TCP,), "udp": (UDP,), "icmp": (ICMP, ICMPV6)}
"""Numbers of IANA's protocol registry for the words of config.yaml."""

EVERYONE = Selector()


@dataclass(frozen=True, slots=True)
class Party:
    """One side of a conversation: a container of `network`. `app` None: the controller does not vouch for it."""

    network: NetworkSpec
    app: str | None = None
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Opening:
    """`ports` None: everything. `rule` names it in events, empty for what is open both ways; `where` in config.yaml."""

    where: str
    rule: str = ""
    from_: Selector = EVERYONE
    to: Selector = EVERYONE
    ports: tuple[PortRange, ...] | None = None
    both_ways: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """`where`: the place in config.yaml that decides, as `db.rules[1]`. `rule` as in Opening, empty when refused."""

    allowed: bool
    rule: str
    reason: str
    where: str


def openings(source: NetworkSpec, destination: NetworkSpec) -> Iterator[Opening]:
    """Everything that containers of `source` may open to containers of `destination`, what is both ways first."""
    if not (source.enabled and destination.enabled):
        return
    if source.name == destination.name:
        if not source.is_closed:
            yield Opening(source.name, both_ways=True)
    else:
        yield from _allowed_both_ways(source, destination)
        yield from _allowed_both_ways(destination, source)
        yield from _allowed_one_way(source, destination)
    for number, rule in enumerate(destination.rules or ()):
        if (rule.from_.network or destination.name) == source.name:
            yield _opening(rule, f"{destination.name}.rules[{number}]", destination)


def _allowed_both_ways(writer: NetworkSpec, other: NetworkSpec) -> Iterator[Opening]:
    for number, entry in enumerate(writer.allow):
        if entry.both_ways and entry.to == other.name:
            yield Opening(f"{writer.name}.allow[{number}]", both_ways=True)


def _allowed_one_way(writer: NetworkSpec, other: NetworkSpec) -> Iterator[Opening]:
    for number, entry in enumerate(writer.allow):
        if not entry.both_ways and entry.to == other.name:
            yield Opening(f"{writer.name}.allow[{number}]", f"{writer.name}/allow {other.name}", ports=entry.ports)


def _opening(rule: Rule, where: str, network: NetworkSpec) -> Opening:
    from_ = Selector(app=rule.from_.app, labels=rule.from_.labels)
    return Opening(where, f"{network.name}/{rule.name}", from_, rule.to, rule.ports)


def fits(selector: Selector, app: str | None, labels: Labels) -> bool:
    """Whether the selector means a container of this app with these labels; of which network is asked elsewhere."""
    return (selector.app is None or selector.app == app) and set(selector.labels) <= set(labels)


def covers(ports: tuple[PortRange, ...] | None, protocol: int, port: int) -> bool:
    """Whether `ports` hold the destination port of an IP protocol. What has no ports has port 0."""
    if ports is None:
        return True
    return any(protocol in PROTOCOLS[one.protocol] and one.low <= port <= one.high for one in ports)


def judge(source: Party, destination: Party, protocol: int, port: int) -> Verdict:
    """Whether the source may begin to talk to that port of the destination, and what in config.yaml says so."""
    found = openings_between(source, destination)
    for opening in found:
        if covers(opening.ports, protocol, port):
            return Verdict(True, opening.rule, _why_open(source.network, destination.network, opening), opening.where)
    return _refused(source.network, destination.network, found[0] if found else None)


def judge_any(source: Party, destination: Party) -> Verdict:
    """Whether the source may begin to talk to any port of the destination at all."""
    for opening in openings_between(source, destination):
        return Verdict(True, opening.rule, _why_open(source.network, destination.network, opening), opening.where)
    return _refused(source.network, destination.network, None)


def openings_between(source: Party, destination: Party) -> tuple[Opening, ...]:
    """The openings that mean both of them."""
    return tuple(
        opening
        for opening in openings(source.network, destination.network)
        if fits(opening.from_, source.app, source.labels) and fits(opening.to, destination.app, destination.labels)
    )


def verdict(
    networks: Iterable[Network],
    members: Mapping[MemberKey, Member],
    source: Address,
    destination: Address,
    protocol: int,
    port: int,
) -> Verdict:
    """The same by addresses. Between addresses of which one is of no network nothing passes."""
    known = list(networks)
    one, other = party_at(source, known, members), party_at(destination, known, members)
    if one is None or other is None:
        stranger = source if one is None else destination
        return Verdict(False, "", f"{stranger} is in no network", "overlays")
    return judge(one, other, protocol, port)


def party_at(address: Address, networks: Iterable[Network], members: Mapping[MemberKey, Member]) -> Party | None:
    """Who is known to have the address; None when it is of no network. Subnets never overlap."""
    for network in networks:
        subnets = (network.spec.subnet, network.spec.subnet6)
        if any(subnet is not None and address in subnet for subnet in subnets):
            member = members.get(MemberKey(f"{network.id}/{address}"))
            if member is None or not network.spec.is_closed:
                return Party(network.spec)
            return Party(network.spec, member.app, member.labels)
    return None


def may_reach(one: NetworkSpec, other: NetworkSpec) -> bool:
    """Whether any container of `one` may open anything at all to any of `other`."""
    return next(openings(one, other), None) is not None


def _why_open(source: NetworkSpec, destination: NetworkSpec, opening: Opening) -> str:
    if opening.both_ways and source.name == destination.name:
        return f"inside {source.name} everything may pass"
    if opening.both_ways:
        return f"{source.name} and {destination.name} may talk"
    return f"{opening.rule} opens {written_ports(opening.ports)}"


def written_ports(ports: tuple[PortRange, ...] | None) -> str:
    return "everything" if ports is None else ", ".join(map(str, ports))


def _refused(source: NetworkSpec, destination: NetworkSpec, near: Opening | None) -> Verdict:
    """`near`: what would open it, but for the port."""
    for spec in (source, destination):
        if not spec.enabled:
            return Verdict(False, "", f"{spec.name} is disabled", f"{spec.name}.enabled")
    if near is not None:
        return Verdict(False, "", f"{near.rule} opens {written_ports(near.ports)} only", near.where)
    if source.name == destination.name:
        key = "isolated" if source.rules is None else "rules"
        return Verdict(False, "", f"no rule of {source.name} opens it", f"{source.name}.{key}")
    told = f"neither {source.name} nor {destination.name} allows it"
    return Verdict(False, "", told, f"{destination.name}.allow")
