"""Who gets what: the record of an agent that registers. Pure.

As DC/OS allots: one VTEP an agent, one block of every enabled network that is for it, the lowest free first. A network
that is full leaves the agent without a block there and takes nothing else from it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from hedgerow.addressing import vtep
from hedgerow.addressing.blocks import block_count, lowest_free_block
from hedgerow.errors import Refused
from hedgerow.model.agent import Agent, Prefix, Prefix6, Vtep
from hedgerow.model.network import ClusterSpec, Network
from hedgerow.wire.messages import Hello

NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]{0,251}[A-Za-z0-9])?")
"""A host's name, mostly. It stands in paths and log lines."""

MOST_ADDRESSES = 16
"""Of one host and family; each is a row on every other."""

NO_VTEP = Vtep(ip=None, mac=b"")
"""Of agents of a cluster whose networks are switched off."""


class Rejected(Refused):
    """An agent that cannot be taken. `code` as in `wire.messages.Refusal`."""

    def __init__(self, code: str, message: str, cure: str) -> None:
        super().__init__(message, cure)
        self.code = code


def registered(
    hello: Hello, known: Agent | None, others: Collection[Agent], networks: Collection[Network], cluster: ClusterSpec
) -> Agent:
    """The agent's record, equal to `known` when nothing is new.

    Raises Rejected: `fenced` for an older incarnation, `name` and `underlay` for what another agent has, `exhausted`
    when no VTEP is left.
    """
    incarnation = hello.incarnation or 1
    if known is not None:
        if hello.incarnation is not None and hello.incarnation < known.incarnation:
            raise Rejected(
                "fenced",
                f"agent {known.name} is at incarnation {known.incarnation}, this is {hello.incarnation}",
                "another machine has taken its place: end this agent, or join it anew",
            )
        incarnation = max(known.incarnation, incarnation)
    _check_name(hello)
    _check_underlay(hello, networks, cluster)
    _check_clashes(hello, others)
    if known is None:
        tunnel = _vtep(cluster, others)
        known = Agent(id=hello.agent, name=hello.name, underlay=hello.underlay, incarnation=incarnation, vtep=tunnel)
    fresh = replace(
        known,
        name=hello.name,
        underlay=hello.underlay,
        incarnation=incarnation,
        addresses4=_of_a_host(hello.addresses4),
        addresses6=_of_a_host(hello.addresses6),
    )
    return with_prefixes(fresh, others, networks) if cluster.enable else fresh


T = TypeVar("T", IPv4Address, IPv6Address)


def _of_a_host(addresses: Iterable[T]) -> tuple[T, ...]:
    """Those by which others may call it, MOST_ADDRESSES of a family: every agent gets them."""
    others = (one for one in addresses if not (one.is_loopback or one.is_link_local or one.is_multicast))
    return tuple(sorted(one for one in set(others) if not one.is_unspecified))[:MOST_ADDRESSES]


def with_prefixes(agent: Agent, others: Collection[Agent], networks: Iterable[Network]) -> Agent:
    """The agent with a block of each network for it that still has one. Others' blocks and its own never move."""
    prefixes, prefixes6 = list(agent.prefixes), list(agent.prefixes6)
    for network in sorted(networks, key=lambda network: network.gateway_index):
        spec = network.spec
        if not spec.is_for(agent.name):
            continue
        if spec.subnet and spec.prefix and not any(prefix.network == network.id for prefix in prefixes):
            taken = [p.block for other in others for p in other.prefixes if p.network == network.id]
            block = lowest_free_block(spec.subnet, spec.prefix, taken)
            prefixes += [Prefix(network=network.id, block=block)] if block else []
        if spec.subnet6 and spec.prefix6 and not any(prefix.network == network.id for prefix in prefixes6):
            taken6 = [p.block for other in others for p in other.prefixes6 if p.network == network.id]
            block6 = lowest_free_block(spec.subnet6, spec.prefix6, taken6)
            prefixes6 += [Prefix6(network=network.id, block=block6)] if block6 else []
    return replace(agent, prefixes=tuple(prefixes), prefixes6=tuple(prefixes6))


def lacking(agent: Agent, networks: Iterable[Network], cluster: ClusterSpec) -> list[Network]:
    """Networks that had no block left for this agent."""
    have = {prefix.network for prefix in agent.prefixes}
    have6 = {prefix.network for prefix in agent.prefixes6}
    return [
        network
        for network in networks
        if cluster.enable
        and network.spec.is_for(agent.name)
        and ((network.spec.subnet and network.id not in have) or (network.spec.subnet6 and network.id not in have6))
    ]


def is_full(network: Network) -> str:
    """The sentence for a network whose blocks are all given out."""
    spec = network.spec
    sizes = [
        f"{subnet} holds {block_count(subnet, length)} blocks of /{length}"
        for subnet, length in ((spec.subnet, spec.prefix), (spec.subnet6, spec.prefix6))
        if subnet is not None and length is not None
    ]
    return f"network {network.name} is full: {', '.join(sizes)}, all are given out"


def _check_name(hello: Hello) -> None:
    if not NAME.fullmatch(hello.name):
        raise Rejected(
            "name",
            f"{hello.name[:300]!r} is no name for an agent",
            "use letters, digits, dots, dashes and underscores, as in n1.example",
        )


def _check_underlay(hello: Hello, networks: Iterable[Network], cluster: ClusterSpec) -> None:
    """An agent inside a network of ours would draw the others' tunnel packets into that network."""
    address = hello.underlay
    subnets = [cluster.vtep.subnet, cluster.vtep.subnet6]
    subnets += [subnet for network in networks for subnet in (network.spec.subnet, network.spec.subnet6)]
    inside = [str(subnet) for subnet in subnets if subnet is not None and address in subnet]
    if inside or _is_no_host(address):
        what = f"lies in {inside[0]}, which is for containers" if inside else "is no address of a host"
        raise Rejected(
            "underlay",
            f"the underlay address {address} of agent {hello.name} {what}",
            "set underlay in agent.yaml to an address by which the other agents reach this host",
        )


def _is_no_host(address: IPv4Address | IPv6Address) -> bool:
    """The gateways inside containers are link-local; the broadcast address is a reserved one."""
    if address.is_loopback or address.is_link_local or address.is_unspecified:
        return True
    return address.is_multicast or address.is_reserved


def _check_clashes(hello: Hello, others: Iterable[Agent]) -> None:
    for other in others:
        if other.name == hello.name:
            raise Rejected(
                "name",
                f"the name {hello.name} is taken by agent {other.id} at {other.underlay}, agent {hello.agent} at"
                f" {hello.underlay} cannot have it",
                "give each agent a name of its own in agent.yaml",
            )
        if other.underlay == hello.underlay:
            raise Rejected(
                "underlay",
                f"{hello.underlay} is the underlay address of agent {other.name} ({other.id}), agent {hello.name}"
                f" ({hello.agent}) cannot have it",
                "set underlay in agent.yaml to an address of this host",
            )
        if other.underlay.version != hello.underlay.version:
            raise Rejected(
                "underlay",
                f"the underlay address {hello.underlay} of agent {hello.name} is of another IP version than"
                f" {other.underlay} of agent {other.name}: tunnels between the two cannot be",
                "give all agents underlay addresses of one IP version",
            )


def _vtep(cluster: ClusterSpec, others: Iterable[Agent]) -> Vtep:
    if not cluster.enable:
        return NO_VTEP
    allotted = vtep.allot(cluster.vtep, [other.vtep for other in others])
    if allotted is None:
        subnets = [str(subnet) for subnet in (cluster.vtep.subnet, cluster.vtep.subnet6) if subnet]
        raise Rejected("exhausted", f"all VTEP addresses of {' and '.join(subnets)} are given out", "remove an agent")
    return allotted
