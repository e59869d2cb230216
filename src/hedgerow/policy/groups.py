"""Groups: openings as rows that the data path can look up. Pure.

The data path knows no app, no label and no rule. It knows the group of either side, and a row for each pair of groups
between which something may pass. An open network is one group, its VNI. In a closed one (`rules`, `isolated`) a group
is everyone whom the same selectors mean; whom none means, announced or not, is in the network's own.

Rows are replaced one by one while packets flow, so a number must never come to mean somebody else. It is therefore no
count but a digest of what it means, the network's id and the selectors: an agent that starts anew, and one that got
another rule first, come to the same number, and a row that is still of yesterday lets pass what yesterday's rules or
today's do, never more. Rules have their numbers in the same way. Neither goes over the wire. Who can choose a digest
writes config.yaml; two that are the same (one in a million, of a hundred groups) are told apart by their order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from hedgerow.model.member import Labels, Member, MemberKey
from hedgerow.model.network import LAST_PORT, Network, NetworkId, NetworkName, PortRange, Selector

from .reach import EVERYONE, PROTOCOLS, Address, Opening, fits, openings

GROUP_CLOSED = 1 << 31
"""Set in groups of closed networks. VNIs have 24 bits."""

MAX_RANGES = 16
"""Of one row, as the data path holds it."""

ANY_PROTOCOL = 0


@dataclass(frozen=True, slots=True)
class Range:
    """`protocol` 0: all of them; 1, ICMP: ICMPv6 as well. `rule`: the number of the one that opens it."""

    protocol: int
    low: int
    high: int
    rule: int


@dataclass(frozen=True, slots=True)
class Row:
    """What may pass from one group to another. `both`: everything, and there is a row for the way back."""

    both: bool
    ranges: tuple[Range, ...] = ()


@dataclass(frozen=True, slots=True)
class Groups:
    """`members` are those whose group is another than their network's; `allowed` has a row for each (from, to).

    `rules`: the name of each number in a row. `crowded`: rules for which a row had no room left; what they open there
    stays refused.
    """

    networks: Mapping[NetworkId, int] = field(default_factory=dict)
    members: Mapping[Address, int] = field(default_factory=dict)
    allowed: Mapping[tuple[int, int], Row] = field(default_factory=dict)
    rules: Mapping[int, str] = field(default_factory=dict)
    crowded: tuple[str, ...] = ()


_Pair = tuple[Network, Network, tuple[Opening, ...]]
_Meant = frozenset[Selector]
"""The selectors that mean a container: what makes a group."""


def groups(
    networks: Iterable[Network], members: Mapping[MemberKey, Member], strangers: Collection[Address] = ()
) -> Groups:
    """Of enabled networks. `strangers` are addresses at which somebody else is than who the members say."""
    by_name = _enabled(networks)
    by_id = {network.id: network for network in by_name.values()}
    closed = {network.id for network in by_name.values() if network.spec.is_closed}
    pairs = list(_pairs(by_name))
    used = _selectors(pairs)
    known = [one for one in members.values() if one.network in closed and one.at not in strangers]
    alike = {(one.network, one.app, one.labels) for one in known}
    kind_of = {each: _meant(used.get(each[0], ()), each[1], each[2]) for each in alike}
    meant = {one.at: (one.network, kind_of[one.network, one.app, one.labels]) for one in known}
    kinds = {network.id: {frozenset[Selector]()} for network in by_name.values()}
    for identity, kind in meant.values():
        kinds[identity].add(kind)
    numbers = _group_numbers(by_id, kinds)
    rules = _numbers({opening.rule for _, _, found in pairs for opening in found if opening.rule})
    allowed, crowded = _rows(pairs, kinds, numbers, rules)
    return Groups(
        networks={identity: numbers[identity, frozenset()] for identity in by_id},
        members={address: numbers[key] for address, key in meant.items() if key[1]},
        allowed=allowed,
        rules={number: rule for rule, number in rules.items()},
        crowded=tuple(sorted(crowded)),
    )


def selectors(networks: Iterable[Network]) -> dict[NetworkId, tuple[Selector, ...]]:
    """Those that tell containers of a network apart. Of the other networks nobody needs to know the members."""
    return {network: found for network, found in _selectors(_pairs(_enabled(networks))).items() if found}


def _enabled(networks: Iterable[Network]) -> dict[NetworkName, Network]:
    return {network.name: network for network in networks if network.spec.enabled}


def _pairs(by_name: Mapping[NetworkName, Network]) -> Iterable[_Pair]:
    """Pairs of networks with their openings. Only what some entry names is looked at: there are too many pairs."""
    named = {(name, name) for name in by_name}
    for name, network in by_name.items():
        for entry in network.spec.allow:
            named |= {(name, entry.to), (entry.to, name)}
        named |= {(rule.from_.network or name, name) for rule in network.spec.rules or ()}
    for one, other in sorted(named):
        if one in by_name and other in by_name:
            found = tuple(openings(by_name[one].spec, by_name[other].spec))
            if found:
                yield by_name[one], by_name[other], found


def _selectors(pairs: Iterable[_Pair]) -> dict[NetworkId, tuple[Selector, ...]]:
    used: dict[NetworkId, dict[Selector, None]] = {}
    for source, destination, found in pairs:
        for opening in found:
            used.setdefault(source.id, {})[opening.from_] = None
            used.setdefault(destination.id, {})[opening.to] = None
    return {network: tuple(one for one in found if one != EVERYONE) for network, found in used.items()}


def _meant(used: Iterable[Selector], app: str, labels: Labels) -> _Meant:
    return frozenset(selector for selector in used if fits(selector, app, labels))


def _group_numbers(
    networks: Mapping[NetworkId, Network], kinds: Mapping[NetworkId, Iterable[_Meant]]
) -> dict[tuple[NetworkId, _Meant], int]:
    found: dict[tuple[NetworkId, _Meant], int] = {}
    names: dict[str, tuple[NetworkId, _Meant]] = {}
    for identity, every in kinds.items():
        for meant in every:
            if networks[identity].spec.is_closed:
                names[f"{identity} {sorted((one.app or '', one.labels) for one in meant)}"] = identity, meant
            else:
                found[identity, meant] = networks[identity].vni
    return found | {names[name]: GROUP_CLOSED | number for name, number in _numbers(names).items()}


def _numbers(names: Iterable[str]) -> dict[str, int]:
    """31 bits of each name's digest, never zero. Of two names with the same one, the later in order has the next."""
    found: dict[str, int] = {}
    taken: set[int] = set()
    for name in sorted(names):
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % (GROUP_CLOSED - 1) + 1
        while number in taken:
            number = number % (GROUP_CLOSED - 1) + 1
        taken.add(number)
        found[name] = number
    return found


def _rows(
    pairs: Iterable[_Pair],
    kinds: Mapping[NetworkId, Iterable[_Meant]],
    numbers: Mapping[tuple[NetworkId, _Meant], int],
    rules: Mapping[str, int],
) -> tuple[dict[tuple[int, int], Row], set[str]]:
    rows: dict[tuple[int, int], Row] = {}
    crowded: set[str] = set()
    for source, destination, found in pairs:
        for one, other in product(kinds[source.id], kinds[destination.id]):
            here = [opening for opening in found if _is_for(opening, one, other)]
            row = _row(here, rules, crowded)
            if row is not None:
                rows[numbers[source.id, one], numbers[destination.id, other]] = row
    return rows, crowded


def _is_for(opening: Opening, source: _Meant, destination: _Meant) -> bool:
    return _means(opening.from_, source) and _means(opening.to, destination)


def _means(selector: Selector, kind: _Meant) -> bool:
    return selector == EVERYONE or selector in kind


def _row(found: Sequence[Opening], rules: Mapping[str, int], crowded: set[str]) -> Row | None:
    """As `judge` decides: what is both ways comes first, and of two openings for one port the first."""
    if any(opening.both_ways for opening in found):
        return Row(both=True)
    ranges: list[Range] = []
    for opening in found:
        for fresh in _ranges(opening.ports, rules[opening.rule]):
            if any(_holds(one, fresh) for one in ranges):
                continue
            if len(ranges) == MAX_RANGES:
                crowded.add(opening.rule)
                break
            ranges.append(fresh)
    return Row(both=False, ranges=tuple(ranges)) if ranges else None


def _ranges(ports: tuple[PortRange, ...] | None, rule: int) -> Iterable[Range]:
    if ports is None:
        yield Range(ANY_PROTOCOL, 0, LAST_PORT, rule)
        return
    for one in ports:
        yield Range(PROTOCOLS[one.protocol][0], one.low, one.high, rule)


def _holds(one: Range, other: Range) -> bool:
    return one.protocol in (ANY_PROTOCOL, other.protocol) and one.low <= other.low and other.high <= one.high
