"""VNIs: one a network, drawn at random once and stored. Pure: the randomness is an argument.

Random, so that a stranger who can send VXLAN must guess; never below 4096, where others count from one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from hedgerow.model.network import Vni

FIRST = 4096
LAST = (1 << 24) - 1


def draw(random_bits: Callable[[int], int], taken: Collection[Vni]) -> Vni | None:
    """A VNI that is not taken, or None when all 16,773,120 are. `random_bits(n)` gives n bits: `secrets.randbits`.

    When the drawn one is taken it is the next free one, so a draw always ends.
    """
    count = LAST - FIRST + 1
    start = random_bits(48) % count
    known = frozenset(taken)
    for step in range(min(count, len(known) + 1)):
        vni = Vni(FIRST + (start + step) % count)
        if vni not in known:
            return vni
    return None
