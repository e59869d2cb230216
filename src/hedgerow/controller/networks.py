"""Networks: from config.yaml into an empty store, once.

A network's id, VNI and gateway index are drawn when it first appears and never change. The configuration's own record
is written last, so an import that was interrupted is taken up where it stopped. Once it is there a controller only
compares: a file changes a running cluster when somebody applies it (`apply`), and not by lying there.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hedgerow.addressing import gateway, vni
from hedgerow.config.load import load
from hedgerow.errors import BadInput, Exhausted, HedgerowError
from hedgerow.model.network import ClusterSpec, Network, NetworkId, NetworkSpec
from hedgerow.store.base import MAX_OPERATIONS, Compare, Put, Store
from hedgerow.wire.codec import from_json, to_json

from .keys import ALLOTMENT, CLUSTER, NETWORKS, Applied, network_key, read_all

log = logging.getLogger(__name__)

RandomBits = Callable[[int], int]
"""`secrets.randbits`, or a seeded one."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How a controller's config.yaml stands to what the cluster runs."""

    message: str
    cure: str


async def open_cluster(store: Store, config: Path, random_bits: RandomBits) -> ClusterSpec:
    """What the cluster runs, imported from the file if the store is empty.

    Raises ConfigProblems for a file that must be imported and cannot, BadInput when the store's record cannot be read:
    the one record without which there is no cluster.
    """
    entry = await store.get(CLUSTER)
    if entry is None:
        spec = load(config)
        await import_spec(store, spec, random_bits)
        entry = await store.get(CLUSTER)
        assert entry is not None
        log.info("%s imported: %d networks", config, len(spec.networks))
    try:
        return from_json(entry.value, Applied).spec
    except BadInput as error:
        cure = "restore the store from a backup, or start the release that wrote it"
        raise BadInput(f"{CLUSTER} in the store cannot be read: {error.message}", cure) from error


async def import_spec(store: Store, spec: ClusterSpec, random_bits: RandomBits) -> None:
    """All networks, then the record that says so. Repeatable; raises Conflict when another controller imports."""
    while True:
        guard = await store.get(ALLOTMENT)
        found, _ = await read_all(store, NETWORKS)
        known = [from_json(value, Network) for value, _ in found.values()]
        names = {network.name for network in known}
        missing = [network for network in spec.networks if spec.enable and network.name not in names]
        compares = [Compare(CLUSTER, 0), Compare(ALLOTMENT, guard.modified if guard else 0)]
        if not missing:
            await store.commit(compares, [Put(CLUSTER, to_json(Applied(spec=spec, digest=digest(spec))))])
            return
        drawn = draw_networks(missing[: MAX_OPERATIONS - 1], known, random_bits)
        await store.commit(compares, [*(Put(network_key(n.id), to_json(n)) for n in drawn), Put(ALLOTMENT, b"{}")])


def draw_networks(specs: Sequence[NetworkSpec], known: Sequence[Network], random_bits: RandomBits) -> list[Network]:
    """Ids, VNIs and gateways for networks that are new. Raises Exhausted."""
    drawn: list[Network] = []
    for spec in specs:
        others = [*known, *drawn]
        number = vni.draw(random_bits, {network.vni for network in others})
        index = gateway.lowest_free_index({network.gateway_index for network in others})
        if number is None or index is None:
            raise Exhausted(f"no {'VNI' if number is None else 'gateway'} is left for {spec.name}", "remove networks")
        identity = NetworkId(f"{random_bits(128):032x}")
        drawn.append(Network(id=identity, vni=number, gateway_index=index, spec=spec))
    return drawn


def digest(spec: ClusterSpec) -> str:
    return hashlib.sha256(to_json(spec)).hexdigest()


async def drift(store: Store, config: Path) -> Drift | None:
    """None when the file says what the cluster runs."""
    entry = await store.get(CLUSTER)
    if entry is None:
        return Drift("the store holds no configuration", "start the controller again")
    try:
        spec = await asyncio.to_thread(load, config)
    except HedgerowError as error:
        return Drift(f"{config} cannot be used: {error.message}", f"hedgerow config check {config}")
    try:
        if digest(spec) == from_json(entry.value, Applied).digest:
            return None
    except BadInput as error:
        return Drift(f"{CLUSTER} in the store cannot be read: {error.message}", f"hedgerow apply {config}")
    return Drift(
        f"{config} differs from what the cluster runs since revision {store.epoch}.{entry.modified}",
        f"hedgerow apply {config}, or put the old file back",
    )
