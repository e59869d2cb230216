"""Gateways: which link-local address a network's containers use as their next hop. Pure.

The index is stored with the network: two networks in one container must not share a gateway, so it never moves.
"""

from __future__ import annotations

from collections.abc import Collection

from hedgerow.model.network import GATEWAYS, UNUSED_GATEWAYS


def lowest_free_index(taken: Collection[int]) -> int | None:
    """The lowest index into GATEWAYS from 1 that no network has, or None when all are taken.

    >>> lowest_free_index([1, 2, 4])
    3
    """
    known = frozenset(taken)
    for index in range(1, GATEWAYS.num_addresses - 1):
        if index not in known and not any(GATEWAYS[index] in unused for unused in UNUSED_GATEWAYS):
            return index
    return None
