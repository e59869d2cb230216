"""The rules of who may open what to whom as one would say them, each looked at every time: what `policy` is held to."""

from __future__ import annotations

from unit.wall_worlds import World

from hedgerow.model.network import Network, PortRange, Selector
from hedgerow.policy.reach import Address


def slowly(world: World, source: Address, destination: Address, protocol: int, port: int) -> bool:
    """Whether the source may begin to talk to that port of the destination."""
    one, other = network_of(world, source), network_of(world, destination)
    if one is None or other is None or not one.spec.enabled or not other.spec.enabled:
        return False
    if one is other:
        if not has_walls(one):
            return True
    elif allows(one, other, protocol, port) or allows_both_ways(other, one):
        return True
    for rule in other.spec.rules or ():
        if (rule.from_.network or other.name) != one.name:
            continue
        if not (is_meant(world, rule.from_, one, source) and is_meant(world, rule.to, other, destination)):
            continue
        if port_is_among(rule.ports, protocol, port):
            return True
    return False


def network_of(world: World, address: Address) -> Network | None:
    for network in world.networks:
        for subnet in (network.spec.subnet, network.spec.subnet6):
            if subnet is not None and address in subnet:
                return network
    return None


def has_walls(network: Network) -> bool:
    return network.spec.rules is not None or network.spec.isolated


def allows(one: Network, other: Network, protocol: int, port: int) -> bool:
    """By an entry of the first for the second, in whichever form."""
    for entry in one.spec.allow:
        if entry.to == other.name and (entry.both_ways or port_is_among(entry.ports, protocol, port)):
            return True
    return False


def allows_both_ways(one: Network, other: Network) -> bool:
    return any(entry.to == other.name and entry.both_ways for entry in one.spec.allow)


def port_is_among(ports: tuple[PortRange, ...] | None, protocol: int, port: int) -> bool:
    if ports is None:
        return True
    for each in ports:
        if each.protocol == "tcp" and protocol == 6 and port in range(each.low, each.high + 1):
            return True
        if each.protocol == "udp" and protocol == 17 and port in range(each.low, each.high + 1):
            return True
        if each.protocol == "icmp" and protocol in (1, 58):
            return True
    return False


def is_meant(world: World, selector: Selector, network: Network, address: Address) -> bool:
    if selector.app is None and not selector.labels:
        return True
    who = next((member for member in world.members.values() if member.at == address), None)
    if who is None or not has_walls(network):
        return False
    if selector.app is not None and selector.app != who.app:
        return False
    return all(dict(who.labels).get(key) == value for key, value in selector.labels)
