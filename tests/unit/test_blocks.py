"""Blocks against a second implementation that tries every one."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.addressing.blocks import block_count, lowest_free_block


def try_every_block(subnet: IPv4Network, length: int, taken: list[IPv4Network]) -> IPv4Network | None:
    for block in subnet.subnets(new_prefix=length):
        if not any(block.overlaps(other) for other in taken):
            return block
    return None


@st.composite
def questions(draw: st.DrawFn) -> tuple[IPv4Network, int, list[IPv4Network]]:
    """A subnet of up to 256 blocks, and blocks of any length around it that are taken."""
    bits = draw(st.integers(0, 8))
    subnet_length = draw(st.integers(8, 30 - bits))
    subnet = IPv4Network((draw(st.integers(0, 2**32 - 1)), subnet_length), strict=False)
    near = st.integers(int(subnet.network_address) - 300, int(subnet.broadcast_address) + 300)
    numbers = near.map(lambda number: min(max(number, 0), 2**32 - 1))
    networks = st.builds(
        lambda number, length: IPv4Network((number, length), strict=False), numbers, st.integers(subnet_length, 32)
    )
    return subnet, subnet_length + bits, draw(st.lists(networks, max_size=40))


@given(questions())
def test_it_is_the_first_block_that_overlaps_none(question: tuple[IPv4Network, int, list[IPv4Network]]) -> None:
    subnet, length, taken = question
    assert lowest_free_block(subnet, length, taken) == try_every_block(subnet, length, taken)


@given(st.integers(0, 6))
def test_agents_fill_a_subnet_from_its_lowest_block_on(bits: int) -> None:
    subnet, length = IPv4Network("10.64.0.0/12"), 12 + bits
    given_out: list[IPv4Network] = []
    for expected in subnet.subnets(new_prefix=length):
        block = lowest_free_block(subnet, length, given_out)
        assert block == expected
        given_out.append(block)
    assert lowest_free_block(subnet, length, given_out) is None
    assert len(given_out) == block_count(subnet, length)


def test_a_block_that_was_given_back_is_the_next_to_go() -> None:
    subnet = IPv4Network("9.0.0.0/8")
    taken = [IPv4Network("9.0.0.0/24"), IPv4Network("9.0.2.0/24")]
    assert lowest_free_block(subnet, 24, taken) == IPv4Network("9.0.1.0/24")


def test_a_prefix_as_long_as_the_subnets_is_room_for_one_agent() -> None:
    subnet = IPv4Network("9.0.0.0/8")
    assert lowest_free_block(subnet, 8, []) == subnet
    assert lowest_free_block(subnet, 8, [subnet]) is None


@pytest.mark.parametrize("taken_length", [79, 80, 81, 128])
def test_ipv6_blocks_are_found_the_same_way(taken_length: int) -> None:
    subnet = IPv6Network("fd01:b::/64")
    taken = [IPv6Network((int(subnet.network_address), taken_length))]
    expected = "fd01:b:0:0:2::/80" if taken_length == 79 else "fd01:b:0:0:1::/80"
    assert lowest_free_block(subnet, 80, taken) == IPv6Network(expected)
