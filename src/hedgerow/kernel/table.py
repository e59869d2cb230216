"""A map in the words of its records: keys and values are objects, packed and unpacked on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from .bpf import Map

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Table(Generic[K, V]):
    """One map, in the words of its records."""

    raw: Map
    pack_key: Callable[[K], bytes]
    unpack_key: Callable[[bytes], K]
    pack_value: Callable[[V], bytes]
    unpack_value: Callable[[bytes], V]

    def put(self, key: K, value: V) -> None:
        """Inserts or replaces in one step. Raises OSError (E2BIG, ENOSPC: the map is full)."""
        self.raw.put(self.pack_key(key), self.pack_value(value))

    def put_many(self, rows: Mapping[K, V]) -> None:
        """As `put`, one system call where the kernel can. On an error some rows may be there already."""
        self.raw.put_many({self.pack_key(key): self.pack_value(value) for key, value in rows.items()})

    def get(self, key: K) -> V | None:
        data = self.raw.get(self.pack_key(key))
        return None if data is None else self.unpack_value(data)

    def delete(self, key: K) -> bool:
        """Whether it was there; missing is fine."""
        return self.raw.delete(self.pack_key(key))

    def delete_many(self, keys: Iterable[K]) -> None:
        for key in keys:
            self.delete(key)

    def items(self) -> Iterator[tuple[K, V]]:
        """All rows; those written or deleted meanwhile may be missed or seen."""
        for key, value in self.raw.items():
            yield self.unpack_key(key), self.unpack_value(value)
