"""What an endpoint is: its addresses, its MAC, and the routes inside its container."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import BadInput
from hedgerow.model.endpoint import Address, Endpoint, EndpointKey, mac_of, of_each_family, routes_inside
from hedgerow.model.network import Network, NetworkId, NetworkName, NetworkSpec, Vni
from hedgerow.wire.codec import from_json, to_json

KEY = EndpointKey("cni", "c1", "eth0")
IP, IP6 = IPv4Address("10.96.0.1"), IPv6Address("fd00:b::1")


def network(*, internal: bool = False) -> Network:
    spec = NetworkSpec(
        name=NetworkName("both"),
        subnet=IPv4Network("10.96.0.0/14"),
        prefix=24,
        subnet6=IPv6Network("fd00:b::/64"),
        prefix6=80,
        internal=internal,
    )
    return Network(id=NetworkId("1" * 32), vni=Vni(5001), gateway_index=9, spec=spec)


def endpoint(*addresses: Address) -> Endpoint:
    ip, ip6 = of_each_family(addresses)
    return Endpoint(key=KEY, network=NetworkId("1" * 32), address=ip, address6=ip6, mac=bytes(6))


def test_an_endpoint_has_an_address_of_either_family_or_of_both() -> None:
    assert endpoint(IP).addresses == (IP,)
    assert endpoint(IP6).addresses == (IP6,)
    assert endpoint(IP6, IP).addresses == (IP, IP6)
    assert endpoint(IP6, IP).first_address == IP


def test_an_endpoint_without_any_address_is_none_also_on_the_wire() -> None:
    with pytest.raises(ValueError, match="no address"):
        endpoint()
    empty = to_json(endpoint(IP)).replace(b'"10.96.0.1"', b"null")
    with pytest.raises(BadInput, match="no address"):
        from_json(empty, Endpoint)


@pytest.mark.parametrize("addresses", [(IP,), (IP6,), (IP, IP6)])
def test_an_endpoint_is_read_as_it_was_written(addresses: tuple[Address, ...]) -> None:
    assert from_json(to_json(endpoint(*addresses)), Endpoint) == endpoint(*addresses)


@given(st.ip_addresses())
def test_a_mac_of_ours_is_one_interfaces_own_and_always_the_same(address: Address) -> None:
    mac = mac_of(address)
    assert len(mac) == 6
    assert mac[0] & 3 == 2, "locally administered, of one interface (IEEE 802c)"
    assert mac == mac_of(address)


def test_neighbouring_blocks_of_ipv6_do_not_share_macs() -> None:
    blocks = [IPv6Network((f"fd01:b:0:0:{n:x}::", 80)) for n in range(64)]
    assert len({mac_of(block[number]) for block in blocks for number in range(1, 65)}) == 64 * 64


ROUTES4 = ["169.254.64.9/32", "10.96.0.0/14 169.254.64.9", "0.0.0.0/0 169.254.64.9"]
ROUTES6 = ["fe80::9/128", "fd00:b::/64 fe80::9", "::/0 fe80::9"]


@pytest.mark.parametrize(
    ("ifname", "internal", "addresses", "expected"),
    [
        ("eth0", False, (IP, IP6), ROUTES4 + ROUTES6),
        ("eth0", False, (IP,), ROUTES4),
        ("eth0", False, (IP6,), ROUTES6),
        ("eth1", False, (IP, IP6), ROUTES4[:2] + ROUTES6[:2]),
        ("eth0", True, (IP, IP6), ROUTES4 + ROUTES6),
    ],
    ids=["both", "IPv4 alone", "IPv6 alone", "a second interface", "internal"],
)
def test_routes_inside_are_of_the_families_that_the_interface_has(
    ifname: str, internal: bool, addresses: tuple[Address, ...], expected: list[str]
) -> None:
    found = routes_inside(network(internal=internal), ifname, addresses)
    assert [f"{to} {via or ''}".strip() for to, via in found] == expected
