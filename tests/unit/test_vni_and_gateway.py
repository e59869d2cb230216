from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.addressing import gateway, vni
from hedgerow.model.network import GATEWAYS, UNUSED_GATEWAYS, Vni


@given(st.randoms(use_true_random=False), st.integers(0, 300))
def test_no_network_gets_a_vni_that_another_has(random: object, count: int) -> None:
    taken: set[Vni] = set()
    for _ in range(count):
        drawn = vni.draw(random.getrandbits, taken)  # type: ignore[attr-defined]
        assert drawn is not None
        assert vni.FIRST <= drawn <= vni.LAST
        assert drawn not in taken
        taken.add(drawn)


@given(st.integers(0, 2**48 - 1))
def test_the_draw_ends_even_when_the_randomness_never_changes(bits: int) -> None:
    taken: set[Vni] = set()
    for _ in range(50):
        drawn = vni.draw(lambda _: bits, taken)
        assert drawn is not None
        taken.add(drawn)
    assert len(taken) == 50


def test_when_every_vni_is_taken_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vni, "LAST", vni.FIRST + 9)
    every = {Vni(number) for number in range(vni.FIRST, vni.LAST + 1)}
    assert vni.draw(lambda _: 7, every) is None
    assert vni.draw(lambda _: 7, every - {Vni(vni.FIRST + 2)}) == vni.FIRST + 2


@given(st.sets(st.integers(1, 60)))
def test_the_gateway_is_the_lowest_index_that_no_network_has(taken: set[int]) -> None:
    slow = min(set(range(1, 100)) - taken)
    assert gateway.lowest_free_index(taken) == slow


def test_gateways_end_before_the_last_address_and_never_touch_the_clouds_metadata() -> None:
    last = GATEWAYS.num_addresses - 2
    assert gateway.lowest_free_index(range(1, last)) == last
    assert gateway.lowest_free_index(range(1, last + 1)) is None
    assert not any(GATEWAYS.overlaps(unused) for unused in UNUSED_GATEWAYS)
