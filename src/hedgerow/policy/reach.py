"""Who may talk to whom: the one page that decides it. Pure.

Inside a network everything may pass, between networks nothing, unless one of the two names the other under `allow`; one
mention opens both ways. Absent, empty and nobody are the same. A disabled network reaches nobody and is reached by
nobody. Whether a network is `internal` does not matter here: that is about the outside.
"""

from __future__ import annotations

from collections.abc import Iterable

from hedgerow.model.network import Network, NetworkSpec, Vni


def may_reach(one: NetworkSpec, other: NetworkSpec) -> bool:
    """Both ways: may_reach(a, b) == may_reach(b, a)."""
    if not (one.enabled and other.enabled):
        return False
    return one.name == other.name or other.name in one.allow or one.name in other.allow


def pairs(networks: Iterable[Network]) -> frozenset[tuple[Vni, Vni]]:
    """Every (from, to) that may pass, each network's own VNI to itself among them. Anything else is refused."""
    by_name = {network.name: network for network in networks if network.spec.enabled}
    found: set[tuple[Vni, Vni]] = {(network.vni, network.vni) for network in by_name.values()}
    for network in by_name.values():
        for name in network.spec.allow:
            other = by_name.get(name)
            if other is not None:
                found.add((network.vni, other.vni))
                found.add((other.vni, network.vni))
    return frozenset(found)
