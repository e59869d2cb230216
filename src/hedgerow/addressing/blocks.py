"""Blocks: which part of a network's subnet the next agent gets. Pure.

One walk over the blocks that are taken, in order of address: whatever their lengths, the first gap wide enough is the
answer. Nothing is remembered, so the store's records are the only truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import TypeVar

N = TypeVar("N", IPv4Network, IPv6Network)


def lowest_free_block(subnet: N, length: int, taken: Iterable[N]) -> N | None:
    """The first block of this length that overlaps none of those taken, or None when the subnet is full.

    Lowest index first, as DC/OS 1.8's overlay master did it, so that the same agents get the same blocks on a new
    cluster. Blocks outside the subnet are ignored.

    >>> lowest_free_block(IPv4Network("9.0.0.0/24"), 26, [IPv4Network("9.0.0.0/26")])
    IPv4Network('9.0.0.64/26')
    """
    size = 1 << (subnet.max_prefixlen - length)
    first = int(subnet.network_address)
    end = first + subnet.num_addresses
    start = first
    for low, high in sorted((int(block.network_address), block.num_addresses) for block in taken):
        if low >= start + size:
            break
        beyond = low + high
        if beyond > start:
            start = first + -(-(beyond - first) // size) * size
    if start + size > end:
        return None
    return type(subnet)((start, length))


def block_count(subnet: IPv4Network | IPv6Network, length: int) -> int:
    """How many blocks of this length the subnet holds: room for as many agents."""
    return 1 << (length - subnet.prefixlen)
