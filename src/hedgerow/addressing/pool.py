"""The pool of one agent for one network: which address the next container gets. No I/O; the agent keeps the record.

Addresses never given out come first, in order; then those that were freed, the longest free one first, so that what is
still in somebody's cache is reused as late as possible. The first address of each block is never given out. An owner
has at most one address and gets the same one each time it asks, which makes every call repeatable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hedgerow.errors import Conflict, Exhausted, Refused

Address = IPv4Address | IPv6Address
Block = IPv4Network | IPv6Network

FREED_KEPT = 65_536
"""Freed addresses whose order is remembered. Beyond that the longest free one counts as never given out."""


class Pool:
    """The addresses of `blocks`, which are of one IP version. `taken` and `freed` (longest free first) are what was
    recorded before a restart.
    """

    __slots__ = ("_addresses", "_blocks", "_freed", "_next", "_owners", "network", "size")

    def __init__(
        self,
        network: str,
        blocks: Sequence[Block],
        *,
        taken: Mapping[Address, str] | None = None,
        freed: Iterable[Address] = (),
    ) -> None:
        self.network = network
        self._blocks = tuple(blocks)
        self._owners = dict(taken or {})
        self._addresses = {owner: address for address, owner in self._owners.items()}
        self._freed = dict.fromkeys(a for a in freed if a not in self._owners and self._place(a) is not None)
        self._next = 0
        self.size = sum(block.num_addresses - 1 for block in self._blocks)

    @property
    def free(self) -> int:
        """How many addresses can still be given out."""
        return self.size - sum(1 for address in self._owners if self._place(address) is not None)

    @property
    def freed(self) -> tuple[Address, ...]:
        return tuple(self._freed)

    def owner_of(self, address: Address) -> str | None:
        return self._owners.get(address)

    def address_of(self, owner: str) -> Address | None:
        return self._addresses.get(owner)

    def take(self, owner: str, asked: Address | None = None) -> Address:
        """The owner's address from now on.

        Raises Exhausted when nothing is free, Conflict when `asked` is another's or the owner has a different one,
        Refused when `asked` is none of ours to give.
        """
        had = self._addresses.get(owner)
        if had is not None and asked in (None, had):
            return had
        if had is not None:
            raise Conflict(f"{owner} has {had} on {self.network}, not {asked}", f"ask for {had}, or for no address")
        address = self._check(owner, asked) if asked is not None else self._choose()
        self._freed.pop(address, None)
        self._owners[address] = owner
        self._addresses[owner] = address
        return address

    def give_back(self, address: Address) -> None:
        """Nobody's from now on. An address that nobody has is fine."""
        owner = self._owners.pop(address, None)
        if owner is None:
            return
        del self._addresses[owner]
        if self._place(address) is None:
            return
        self._freed[address] = None
        if len(self._freed) > FREED_KEPT:
            longest = next(iter(self._freed))
            del self._freed[longest]
            place = self._place(longest)
            self._next = min(self._next, place if place is not None else 0)

    def _check(self, owner: str, asked: Address) -> Address:
        if self._place(asked) is None:
            mine = ", ".join(f"{block[1]}-{block[-1]}" for block in self._blocks if block.num_addresses > 1)
            raise Refused(
                f"{asked} is not this host's to give on {self.network}",
                f"ask for one of {mine}" if mine else "wait until this host has a block of the network",
            )
        other = self._owners.get(asked)
        if other is not None:
            raise Conflict(f"{asked} on {self.network} belongs to {other}, {owner} cannot have it", "ask for another")
        return asked

    def _choose(self) -> Address:
        while self._next < self.size:
            address = self._at(self._next)
            if address not in self._owners and address not in self._freed:
                return address
            self._next += 1
        if self._freed:
            return next(iter(self._freed))
        raise Exhausted(
            f"all {self.size} addresses that this host has of {self.network} are taken",
            f"stop a container on {self.network}, or start this one on another host",
        )

    def _at(self, place: int) -> Address:
        for block in self._blocks:
            if place < block.num_addresses - 1:
                return block.network_address + (place + 1)
            place -= block.num_addresses - 1
        raise IndexError(place)

    def _place(self, address: Address) -> int | None:
        """Where the address stands in the order of giving out; None when it is not to be given."""
        before = 0
        for block in self._blocks:
            if address in block:
                return before + int(address) - int(block.network_address) - 1 if address != block[0] else None
            before += block.num_addresses - 1
        return None
