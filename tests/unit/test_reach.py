"""Who may reach whom, against a loop over all pairs."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.model.network import Network, NetworkId, NetworkName, NetworkSpec, Vni
from hedgerow.policy.reach import may_reach, pairs

NAMES = [NetworkName(name) for name in ("dcos-1", "dev", "prod", "web", "db")]


def network(number: int, name: NetworkName, *, allow: tuple[NetworkName, ...] = (), enabled: bool = True) -> Network:
    spec = NetworkSpec(name=name, subnet=IPv4Network(f"10.{number}.0.0/16"), prefix=24, allow=allow, enabled=enabled)
    return Network(id=NetworkId(f"{number:032x}"), vni=Vni(4096 + number), gateway_index=number + 1, spec=spec)


worlds = st.lists(
    st.tuples(st.lists(st.sampled_from([*NAMES, NetworkName("gone")]), max_size=4), st.booleans()),
    min_size=1,
    max_size=len(NAMES),
).map(
    lambda drawn: [
        network(number, NAMES[number], allow=tuple(allow), enabled=enabled)
        for number, (allow, enabled) in enumerate(drawn)
    ]
)


@given(worlds)
def test_pairs_are_exactly_those_that_one_of_the_two_names(networks: list[Network]) -> None:
    slow = set()
    for one, other in product(networks, repeat=2):
        named = other.name in one.spec.allow or one.name in other.spec.allow
        if one.spec.enabled and other.spec.enabled and (one is other or named):
            slow.add((one.vni, other.vni))
    assert pairs(networks) == slow


@given(worlds)
def test_what_may_pass_may_pass_both_ways_and_both_functions_agree(networks: list[Network]) -> None:
    found = pairs(networks)
    assert found == {(to, frm) for frm, to in found}
    for one, other in product(networks, repeat=2):
        assert may_reach(one.spec, other.spec) == ((one.vni, other.vni) in found)


def test_one_mention_opens_exactly_one_pair() -> None:
    walled = [network(0, NAMES[0]), network(1, NAMES[1]), network(2, NAMES[2])]
    opened = [walled[0], network(1, NAMES[1], allow=(NAMES[2],)), walled[2]]
    assert pairs(opened) - pairs(walled) == {(4097, 4098), (4098, 4097)}


def test_absent_and_empty_allow_nobody() -> None:
    networks = [network(0, NAMES[0], allow=()), network(1, NAMES[1])]
    assert pairs(networks) == {(4096, 4096), (4097, 4097)}
