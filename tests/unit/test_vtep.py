from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.addressing.vtep import allot, lowest_free_host
from hedgerow.model.agent import Vtep
from hedgerow.model.network import VtepSpec

DCOS = VtepSpec(subnet=IPv4Network("44.128.0.0/20"), subnet6=IPv6Network("fd01:a::/64"))


def test_the_first_two_agents_get_what_dcos_gives_them() -> None:
    """DC/OS: 44.128.0.1 with OUI 70:b3:d5 is 70:b3:d5:80:00:01."""
    first = allot(DCOS, [])
    assert first == Vtep(ip=IPv4Address("44.128.0.1"), mac=bytes.fromhex("70b3d5800001"), ip6=IPv6Address("fd01:a::1"))
    second = allot(DCOS, [first])
    assert second == Vtep(ip=IPv4Address("44.128.0.2"), mac=bytes.fromhex("70b3d5800002"), ip6=IPv6Address("fd01:a::2"))


def test_without_an_ipv4_subnet_the_mac_comes_from_the_ipv6_address() -> None:
    spec = VtepSpec(subnet=None, subnet6=IPv6Network("fd01:a::/64"))
    assert allot(spec, []) == Vtep(ip=None, mac=bytes.fromhex("70b3d5000001"), ip6=IPv6Address("fd01:a::1"))


def test_a_full_subnet_of_either_family_gives_nothing() -> None:
    spec = VtepSpec(subnet=IPv4Network("44.0.0.0/30"), subnet6=IPv6Network("fd01:a::/64"))
    taken = [Vtep(ip=IPv4Address(f"44.0.0.{n}"), mac=bytes(6), ip6=IPv6Address(n)) for n in (1, 2)]
    assert allot(spec, taken) is None
    assert allot(VtepSpec(subnet=IPv4Network("44.0.0.0/8"), subnet6=IPv6Network("fd01::/126")), []) is not None
    both = [Vtep(ip=None, mac=bytes(6), ip6=IPv6Network("fd01::/126")[n]) for n in (1, 2)]
    assert allot(VtepSpec(subnet=IPv4Network("44.0.0.0/8"), subnet6=IPv6Network("fd01::/126")), both) is None


@given(st.integers(22, 30), st.sets(st.integers(0, 1100)))
def test_it_is_the_lowest_host_address_that_nobody_has(length: int, offsets: set[int]) -> None:
    subnet = IPv4Network((0x0A000000, length))
    taken = {0x0A000000 + offset for offset in offsets}
    slow = next((int(host) for host in subnet.hosts() if int(host) not in taken), None)
    assert lowest_free_host(subnet, taken) == slow


@given(st.integers(8, 24), st.integers(1, 200))
def test_no_two_agents_have_one_mac(length: int, agents: int) -> None:
    spec = VtepSpec(subnet=IPv4Network((0x2C800000, length), strict=False))
    taken: list[Vtep] = []
    for _ in range(agents):
        vtep = allot(spec, taken)
        assert vtep is not None
        taken.append(vtep)
    assert len({vtep.mac for vtep in taken}) == len({vtep.ip for vtep in taken}) == agents
