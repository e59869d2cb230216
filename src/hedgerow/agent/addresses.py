"""Which address is whose: the pools of all networks, and their record on disk.

Each IP version of a network has a pool of its own, made from the record when it is first needed, and anew when our
blocks change. Every method runs in the thread that writes the disk, so a call that is repeated while the first is under
way waits for it and gets the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hedgerow.addressing.pool import Address, Block, Pool
from hedgerow.errors import Exhausted
from hedgerow.model.network import Network, NetworkId

from .disk import Disk

Blocks = tuple[Block, ...]


class Addresses:
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._pools: dict[tuple[NetworkId, int], tuple[Blocks, Pool]] = {}
        self._owners: dict[tuple[NetworkId, Address], str] = {
            (NetworkId(row.network), row.address): row.owner for row in disk.addresses() if row.owner is not None
        }

    def take(self, network: Network, blocks: Sequence[Block], owner: str, asked: Address | None) -> Address:
        """On disk when it returns. `blocks` are of one IP version.

        Raises what `Pool.take` raises, and Exhausted without any block.
        """
        if not blocks:
            raise Exhausted(
                f"this host has no part of {network.name}",
                "it gets one when it registers: see in hedgerow status whether the controller is reachable",
            )
        pool = self._pool(network, tuple(blocks))
        had = pool.address_of(owner)
        address = pool.take(owner, asked)
        if had is None:
            try:
                self._disk.put_address(address, network.id, owner)
            except BaseException:
                pool.give_back(address)
                raise
            self._owners[network.id, address] = owner
        return address

    def give_back(self, unwanted: Callable[[str, Address], bool]) -> None:
        """Frees every address of which `unwanted(owner, address)` says so; none at all is fine."""
        for (network, address), owner in list(self._owners.items()):
            if unwanted(owner, address):
                self._disk.free_address(address)
                del self._owners[network, address]
                pool = self._pools.get((network, address.version))
                if pool is not None:
                    pool[1].give_back(address)

    def reservations(self) -> list[tuple[str, Address]]:
        """May be called from any thread."""
        return [(owner, address) for (_, address), owner in list(self._owners.items())]

    def _pool(self, network: Network, blocks: Blocks) -> Pool:
        version = blocks[0].version
        known = self._pools.get((network.id, version))
        if known is not None and known[0] == blocks:
            return known[1]
        rows = [row for row in self._disk.addresses() if row.network == network.id and row.address.version == version]
        taken = {row.address: row.owner for row in rows if row.owner is not None}
        freed = [row.address for row in rows if row.owner is None]
        pool = Pool(network.name, blocks, taken=taken, freed=freed)
        self._pools[network.id, version] = blocks, pool
        return pool
