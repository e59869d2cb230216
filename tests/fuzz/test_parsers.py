"""Whatever comes in is read, or refused in words: nothing raises what nobody expects, hangs, or grows without bound."""

from __future__ import annotations

import pytest
from conftest import Proof
from fuzz.evolve import evolve
from fuzz.targets import TARGETS, Target

SEED = 5


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_whatever_comes_in_is_read_or_refused_in_words(target: Target, proof: Proof) -> None:
    count = proof.count(f"S18 {target}", small=400, full=100_000, seed=SEED)
    evolve(target.read, target.seeds, target.words, count, SEED)
