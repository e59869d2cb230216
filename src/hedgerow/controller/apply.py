"""Applying a configuration to a running cluster: in one commit what may change, or nothing and every reason why not.

Who may talk to whom can change while containers run; what addresses, tunnels and routes are made of cannot yet. So a
text is compared key by key with what the cluster runs, and a key that differs is either taken over or refused with its
line. The commit compares the configuration and what is given out: a text that was judged by an older state is judged
again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

from hedgerow.config.load import Checked, check
from hedgerow.config.problem import ConfigProblems, Problem
from hedgerow.config.schema import NETWORK
from hedgerow.errors import Conflict, Exhausted, Refused
from hedgerow.model.agent import Agent
from hedgerow.model.network import ClusterSpec, Network, NetworkName, NetworkSpec
from hedgerow.store.base import MAX_OPERATIONS, Compare, Put, Store
from hedgerow.wire.codec import to_json

from .keys import ALLOTMENT, CLUSTER, NETWORKS, Applied, network_key
from .members import settled
from .networks import digest
from .watch import Watch

log = logging.getLogger(__name__)

LIVE = frozenset(["allow", "rules", "isolated", "internal", "attach", "agents", "hosts", "host_services"])
"""Keys of a network that may change while it has containers."""

NOT_YET = "not in a running cluster yet"
MAX_NETWORKS = MAX_OPERATIONS - 2
"""That can change at once, beside the record of the configuration and the guard of what is given out."""


@dataclass(frozen=True, slots=True)
class Changed:
    network: NetworkName
    key: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """`revision` has the change, and whom its rules mean; the one before it when there was none."""

    revision: int
    changed: tuple[Changed, ...]
    warnings: tuple[Problem, ...]


async def apply(store: Store, watch: Watch, text: str, file: str) -> Outcome:
    """`file` names the text in messages.

    Raises ConfigProblems for a text that is wrong or asks for what cannot change, Exhausted when too many networks
    change, Refused while a network's record cannot be read.
    """
    checked = await asyncio.to_thread(check, text, file)
    if checked.spec is None:
        raise ConfigProblems(checked.problems)
    while True:
        entry = await store.get(CLUSTER)
        assert entry is not None, "a controller that serves has its configuration in the store"
        await watch.reached(entry.modified)
        _check_readable(watch)
        now = watch.cluster
        refused = [*_fixed(now, checked, file), *_taken_back(checked, watch, file)]
        if refused:
            raise ConfigProblems(refused)
        if checked.spec == now and CLUSTER not in watch.unreadable:
            return Outcome(entry.modified, (), checked.warnings)
        changed = tuple(_changed(now, checked.spec))
        try:
            number = await _commit(store, watch, checked.spec, entry.modified)
        except Conflict:
            newest = await store.list(ALLOTMENT)
            await watch.reached(newest.revision)
            continue
        for change in changed:
            log.info("%s applied: %s of %s has changed", file, change.key, change.network)
        return Outcome(await settled(watch, number), changed, checked.warnings)


def _check_readable(watch: Watch) -> None:
    damaged = next((key for key in watch.unreadable if key.startswith(NETWORKS)), None)
    if damaged is not None:
        raise Refused(f"{damaged} cannot be read, and would not change with the rest", "see: hedgerow status")


async def _commit(store: Store, watch: Watch, spec: ClusterSpec, modified: int) -> int:
    """Raises Conflict when something has changed since it was looked at."""
    wanted = {one.name: one for one in spec.networks}
    # An import that was interrupted, and taken up with another file, may have left a network that no file names.
    known = [network for network in watch.networks.values() if network.name in wanted]
    fresh = [replace(one, spec=wanted[one.name]) for one in known if one.spec != wanted[one.name]]
    if len(fresh) > MAX_NETWORKS:
        raise Exhausted(f"{len(fresh)} networks change", f"change at most {MAX_NETWORKS} at once")
    compares = [Compare(CLUSTER, modified), Compare(ALLOTMENT, watch.modified(ALLOTMENT))]
    puts = [Put(network_key(network.id), to_json(network)) for network in fresh]
    record = Applied(spec=spec, digest=digest(spec))
    return await store.commit(compares, [*puts, Put(CLUSTER, to_json(record)), Put(ALLOTMENT, b"{}")])


def _changed(old: ClusterSpec, new: ClusterSpec) -> Iterator[Changed]:
    known = {spec.name: spec for spec in old.networks}
    for spec in new.networks:
        for key in _differing(known[spec.name], spec):
            yield Changed(spec.name, key)


def _differing(old: NetworkSpec, new: NetworkSpec) -> list[str]:
    return [field.name for field in fields(NetworkSpec) if getattr(old, field.name) != getattr(new, field.name)]


def _fixed(old: ClusterSpec, checked: Checked, file: str) -> Iterator[Problem]:
    """What differs and must not: keys of the cluster, networks that come or go, their addresses."""
    new = checked.spec
    assert new is not None
    for path, was, now in _cluster_keys(old, new):
        if was != now:
            yield checked.problem(file, path, NOT_YET, _put_back(was))
    known = {spec.name: spec for spec in old.networks}
    for number, spec in enumerate(new.networks):
        path = f"{NETWORK.key}.overlays[{number}]"
        if spec.name not in known:
            yield checked.problem(file, f"{path}.name", f"a new network: {NOT_YET}", "take it out")
            continue
        for key in _differing(known[spec.name], spec):
            was = getattr(known[spec.name], key)
            if key not in LIVE:
                yield checked.problem(file, f"{path}.{key}", NOT_YET, _put_back(was))
    for name in sorted(known.keys() - {spec.name for spec in new.networks}):
        path = f"{NETWORK.key}.overlays"
        yield checked.problem(file, path, f"{name} is missing, and removing it is {NOT_YET}", "put it back")


def _cluster_keys(old: ClusterSpec, new: ClusterSpec) -> Iterable[tuple[str, object, object]]:
    section = NETWORK.key
    return (
        ("dcos_overlay_enable", old.enable, new.enable),
        ("dcos_overlay_mtu", old.mtu_bytes, new.mtu_bytes),
        (f"{section}.vtep_subnet", old.vtep.subnet, new.vtep.subnet),
        (f"{section}.vtep_subnet6", old.vtep.subnet6, new.vtep.subnet6),
        (f"{section}.vtep_mac_oui", _mac(old.vtep.mac_oui), _mac(new.vtep.mac_oui)),
        (f"{section}.vtep_mtu", old.vtep.mtu_bytes, new.vtep.mtu_bytes),
    )


def _put_back(was: object) -> str:
    if was is None:
        return "take it out"
    return f"write {str(was).lower() if isinstance(was, bool) else was}, as it is now"


def _mac(oui: bytes) -> str:
    return f"{oui.hex(':')}:00:00:00"


def _taken_back(checked: Checked, watch: Watch, file: str) -> Iterator[Problem]:
    """Agents that have a block of a network and are not among its `agents` any more."""
    assert checked.spec is not None
    places = {spec.name: (number, spec) for number, spec in enumerate(checked.spec.networks)}
    for network in watch.networks.values():
        number, spec = places.get(network.name, (0, network.spec))
        left_out = sorted(
            agent.name for agent in _owners(network, watch.agents.values()) if not spec.is_for(agent.name)
        )
        if spec.enabled and left_out:
            told = f"{', '.join(left_out)} {'has' if len(left_out) == 1 else 'have'} addresses of it: {NOT_YET}"
            path = f"{NETWORK.key}.overlays[{number}].agents"
            yield checked.problem(file, path, told, f"name {'it' if len(left_out) == 1 else 'them'}, too")


def _owners(network: Network, agents: Iterable[Agent]) -> Iterator[Agent]:
    for agent in agents:
        if any(prefix.network == network.id for prefix in agent.all_prefixes):
            yield agent
