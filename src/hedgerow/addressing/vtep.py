"""VTEPs: the tunnel address and MAC of the next agent. Pure.

As DC/OS does it: the lowest free host address of the VTEP subnet, and a MAC made of the OUI and the last three octets
of that address. A VTEP subnet of /8 or longer therefore never gives two agents one MAC.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hedgerow.model.agent import Vtep
from hedgerow.model.network import VtepSpec


def allot(spec: VtepSpec, taken: Collection[Vtep]) -> Vtep | None:
    """The next agent's VTEP, or None when a subnet is full.

    >>> allot(VtepSpec(subnet=IPv4Network("44.128.0.0/20")), [])
    Vtep(ip=IPv4Address('44.128.0.1'), mac=b'p\\xb3\\xd5\\x80\\x00\\x01', ip6=None)
    """
    ip = ip6 = None
    if spec.subnet is not None:
        number = lowest_free_host(spec.subnet, (int(vtep.ip) for vtep in taken if vtep.ip is not None))
        if number is None:
            return None
        ip = IPv4Address(number)
    if spec.subnet6 is not None:
        number = lowest_free_host(spec.subnet6, (int(vtep.ip6) for vtep in taken if vtep.ip6 is not None))
        if number is None:
            return None
        ip6 = IPv6Address(number)
    source = ip or ip6
    if source is None:
        return None
    return Vtep(ip=ip, mac=spec.mac_oui + source.packed[-3:], ip6=ip6)


def lowest_free_host(subnet: IPv4Network | IPv6Network, taken: Iterable[int]) -> int | None:
    """The lowest address of the subnet, its first and last left out, that is not taken."""
    low, high = int(subnet.network_address) + 1, int(subnet.broadcast_address)
    for number in sorted(set(taken)):
        if number > low:
            break
        if number == low:
            low += 1
    return low if low < high else None
