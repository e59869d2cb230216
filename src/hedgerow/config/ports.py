"""Ports as people write them: `5432/tcp`, `8000-8100/udp`, `icmp`."""

from __future__ import annotations

import re

from hedgerow.model.network import LAST_PORT, PortRange

from . import yaml
from .problem import Wrong
from .settings import given
from .yaml import Node, Scalar

MAX_RANGES = 16
"""Of one entry: what the data path holds for a pair of groups."""

_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?/([a-z0-9]+)")


def ports_of(node: Node) -> tuple[PortRange, ...]:
    """A list of them, none inside another. Raises Wrong."""
    given(node)
    if not isinstance(node, yaml.Sequence):
        raise Wrong("a list of ports is needed", "write [80/tcp], or take ports out for every port")
    if not node.items:
        raise Wrong("nothing would be allowed", "take the entry out, or ports for every port")
    found: list[PortRange] = []
    for item in node.items:
        one = port_range(item)
        for other in found:
            if one.protocol == other.protocol and one.low <= other.high and other.low <= one.high:
                raise Wrong(f"{one} and {other} overlap", "write each port once")
        found.append(one)
    if len(found) > MAX_RANGES:
        raise Wrong(f"more than {MAX_RANGES} ranges", "write fewer and wider ones, or take ports out for every port")
    return tuple(found)


def port_range(node: Node) -> PortRange:
    """Raises Wrong."""
    given(node)
    written = node.text if isinstance(node, Scalar) else str(node)
    if written == "icmp":
        return PortRange("icmp")
    if written in ("tcp", "udp"):
        raise Wrong(f"{written} is given without ports", f"write 1-{LAST_PORT}/{written}")
    if written.isascii() and written.isdigit():
        raise Wrong(f"{written} is a port of which protocol?", f"write {written}/tcp")
    match = _PORTS.fullmatch(written)
    if match is None:
        raise Wrong(f"{written} is no port", "write 5432/tcp, 8000-8100/udp or icmp")
    low, high, protocol = match[1], match[2] or match[1], match[3]
    if protocol not in ("tcp", "udp"):
        raise Wrong(f"there are no ports of {protocol} here", "write tcp or udp, or icmp without a port")
    for digits in (low, high):
        if digits != str(int(digits)) or not 1 <= int(digits) <= LAST_PORT:
            raise Wrong(f"{digits} is no port", f"write a number from 1 to {LAST_PORT}")
    if int(low) > int(high):
        raise Wrong(f"{written} ends before it begins", f"write {high}-{low}/{protocol}")
    return PortRange(protocol, int(low), int(high))
