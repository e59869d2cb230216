"""The pool of an agent against a model of lists."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hedgerow.addressing import pool as pool_module
from hedgerow.addressing.pool import Pool
from hedgerow.errors import Conflict, Exhausted, Refused

SMALL = IPv4Network("9.0.0.0/29")
BLOCKS = (IPv4Network("9.0.0.0/30"), IPv4Network("9.0.0.8/29"))
EVERY = [address for block in BLOCKS for address in list(block)[1:]]
A, B = IPv4Address("9.0.0.1"), IPv4Address("9.0.0.2")


def fill(pool: Pool) -> list[IPv4Address]:
    return [pool.take(f"c{number}") for number in range(pool.free)]


def test_the_first_address_of_each_block_is_never_given_out() -> None:
    pool = Pool("dev", [SMALL, IPv4Network("9.0.1.0/30")])
    given = [str(address) for address in fill(pool)]
    assert given == [*(f"9.0.0.{n}" for n in range(1, 8)), "9.0.1.1", "9.0.1.2", "9.0.1.3"]
    with pytest.raises(Refused):
        pool.take("asks", IPv4Address("9.0.1.0"))


def test_an_owner_gets_the_same_address_each_time_it_asks() -> None:
    pool = Pool("dev", [SMALL])
    assert pool.take("c1") == pool.take("c1") == pool.take("c1", A) == A
    assert pool.address_of("c1") == A
    assert pool.owner_of(A) == "c1"


def test_a_block_of_ipv6_is_given_out_from_its_first_host_on_however_large() -> None:
    block = IPv6Network("fd01:b::1:0:0:0/80")
    pool = Pool("dcos6", [block])
    assert [pool.take(f"c{number}") for number in range(3)] == [block[1], block[2], block[3]]
    assert pool.free == 2**48 - 4
    pool.give_back(block[2])
    assert pool.take("c9") == block[4]
    assert pool.take("last", block[-1]) == block[-1]
    for strange in (block[0], IPv6Address("fd01:b::2:0:0:1"), A):
        with pytest.raises(Refused):
            pool.take("asks", strange)


def test_a_freed_address_is_reused_last_and_the_longest_free_one_first() -> None:
    pool = Pool("dev", [SMALL])
    first, second = pool.take("c1"), pool.take("c2")
    pool.give_back(second)
    pool.give_back(first)
    never_used = [pool.take(f"n{number}") for number in range(5)]
    assert second not in never_used
    assert first not in never_used
    assert pool.take("last but one") == second
    assert pool.take("last") == first


def test_the_order_of_freed_addresses_survives_a_restart() -> None:
    before = Pool("dev", [SMALL])
    addresses = fill(before)
    for address in (addresses[3], addresses[1]):
        before.give_back(address)
    taken = {address: f"c{number}" for number, address in enumerate(addresses) if number not in (1, 3)}
    after = Pool("dev", [SMALL], taken=taken, freed=before.freed)
    assert after.take("new") == addresses[3]
    assert after.take("newer") == addresses[1]


def test_an_address_that_is_asked_for_is_given_when_it_is_free() -> None:
    pool = Pool("dev", [SMALL])
    assert pool.take("c1", IPv4Address("9.0.0.5")) == IPv4Address("9.0.0.5")
    assert pool.take("c2") == A


@pytest.mark.parametrize(
    ("asked", "kind", "named"),
    [("9.0.0.1", Conflict, "c1"), ("9.0.0.8", Refused, "9.0.0.8"), ("10.0.0.1", Refused, "9.0.0.1-9.0.0.7")],
)
def test_what_cannot_be_given_is_refused_by_name(asked: str, kind: type[Exception], named: str) -> None:
    pool = Pool("dev", [SMALL])
    pool.take("c1")
    with pytest.raises(kind, match=named):
        pool.take("c2", IPv4Address(asked))


def test_an_owner_that_has_an_address_cannot_ask_for_another() -> None:
    pool = Pool("dev", [SMALL])
    pool.take("c1")
    with pytest.raises(Conflict, match=r"c1 has 9\.0\.0\.1"):
        pool.take("c1", B)


def test_an_empty_pool_says_how_large_it_is() -> None:
    pool = Pool("dev", [SMALL])
    fill(pool)
    with pytest.raises(Exhausted, match="all 7 addresses that this host has of dev are taken"):
        pool.take("one more")


def test_giving_back_what_nobody_has_is_fine() -> None:
    pool = Pool("dev", [SMALL])
    pool.give_back(A)
    pool.give_back(IPv4Address("192.0.2.1"))
    assert pool.take("c1") == A


def test_a_block_that_is_gone_leaves_its_endpoints_their_addresses() -> None:
    old = IPv4Address("9.0.7.2")
    pool = Pool("dev", [SMALL], taken={old: "c1"}, freed=[IPv4Address("9.0.7.3")])
    assert pool.take("c1") == old
    assert pool.free == 7
    pool.give_back(old)
    assert old not in pool.freed
    assert old not in fill(pool)


def test_with_more_freed_addresses_than_are_remembered_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "FREED_KEPT", 2)
    pool = Pool("dev", [SMALL])
    addresses = fill(pool)
    for address in addresses:
        pool.give_back(address)
    assert sorted(fill(pool)) == addresses


class PoolMachine(RuleBasedStateMachine):
    """Takes and gives back at random; beside it, two lists that do the same slowly."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool("dev", BLOCKS)
        self.owners: dict[IPv4Address, str] = {}
        self.freed: list[IPv4Address] = []

    @rule(owner=st.sampled_from([f"c{n}" for n in range(14)]))
    def take(self, owner: str) -> None:
        had = [address for address, other in self.owners.items() if other == owner]
        unused = [a for a in EVERY if a not in self.owners and a not in self.freed]
        expected = (had or unused or self.freed or [None])[0]
        if expected is None:
            with pytest.raises(Exhausted):
                self.pool.take(owner)
            return
        assert self.pool.take(owner) == expected
        self.owners[expected] = owner
        if expected in self.freed:
            self.freed.remove(expected)

    @rule(owner=st.sampled_from([f"c{n}" for n in range(14)]), asked=st.sampled_from(EVERY))
    def ask(self, owner: str, asked: IPv4Address) -> None:
        fits = self.owners.get(asked, owner) == owner and self.pool.address_of(owner) in (None, asked)
        if not fits:
            with pytest.raises(Conflict):
                self.pool.take(owner, asked)
            return
        assert self.pool.take(owner, asked) == asked
        self.owners[asked] = owner
        if asked in self.freed:
            self.freed.remove(asked)

    @rule(address=st.sampled_from(EVERY))
    def give_back(self, address: IPv4Address) -> None:
        self.pool.give_back(address)
        if self.owners.pop(address, None):
            self.freed.append(address)

    @rule()
    def restart(self) -> None:
        self.pool = Pool("dev", BLOCKS, taken=self.owners, freed=self.pool.freed)

    @invariant()
    def counts_agree(self) -> None:
        assert self.pool.free == len(EVERY) - len(self.owners)
        assert list(self.pool.freed) == self.freed


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60, stateful_step_count=40)
