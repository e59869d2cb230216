"""What an agent must not forget, in one SQLite file.

Two strengths. Addresses and what the controller said are on the disk before anybody hears of them (synchronous=FULL).
Endpoint records describe links, which a power cut takes as well: they only have to outlive this process, so their
commits do not wait for the disk. Every method is called from one thread at a time. What cannot be written is undone and
raises HedgerowError; the next call tries anew.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from hedgerow.errors import BadInput, HedgerowError

_LAYOUT = 1
_TABLES = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE wanted (path TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE address (address TEXT PRIMARY KEY, network TEXT NOT NULL, owner TEXT, freed INTEGER) WITHOUT ROWID;
CREATE TABLE endpoint (tag TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class SavedAddress:
    """`owner` None: freed, and reused last; rows come with the longest free first."""

    address: IPv4Address | IPv6Address
    network: str
    owner: str | None


class Disk:
    def __init__(self, path: Path | None) -> None:
        """None: in memory. Raises BadInput for a file of another release."""
        self._path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._database = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        (layout,) = self._database.execute("PRAGMA user_version").fetchone()
        if layout == 0:
            self._database.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_LAYOUT}; COMMIT;")
        elif layout != _LAYOUT:
            raise BadInput(f"{path} has layout {layout}, this agent knows {_LAYOUT}", "start the release that wrote it")
        (last,) = self._database.execute("SELECT coalesce(max(freed), 0) FROM address").fetchone()
        self._freed = int(last)

    def close(self) -> None:
        self._database.close()

    def facts(self) -> dict[str, bytes]:
        return dict(self._database.execute("SELECT name, value FROM fact"))

    def wanted(self) -> dict[str, bytes]:
        return dict(self._database.execute("SELECT path, record FROM wanted"))

    def addresses(self) -> list[SavedAddress]:
        rows = self._database.execute("SELECT address, network, owner FROM address ORDER BY freed")
        return [SavedAddress(ip_address(address), network, owner) for address, network, owner in rows]

    def endpoints(self) -> list[bytes]:
        return [record for (record,) in self._database.execute("SELECT record FROM endpoint")]

    def put_facts(self, facts: Mapping[str, bytes]) -> None:
        with self._transaction():
            self._put_facts(facts)

    def put_wanted(
        self, records: Mapping[str, bytes | None], facts: Mapping[str, bytes], *, whole: bool = False
    ) -> None:
        """What the controller said, and up to where. None: the record is gone. `whole`: there are no others."""
        with self._transaction():
            if whole:
                self._database.execute("DELETE FROM wanted")
            gone = [(path,) for path, record in records.items() if record is None]
            kept = [(path, record) for path, record in records.items() if record is not None]
            self._database.executemany("DELETE FROM wanted WHERE path = ?", gone)
            self._database.executemany("INSERT OR REPLACE INTO wanted VALUES (?, ?)", kept)
            self._put_facts(facts)

    def put_address(self, address: IPv4Address | IPv6Address, network: str, owner: str) -> None:
        with self._transaction():
            self._database.execute(
                "INSERT OR REPLACE INTO address VALUES (?, ?, ?, NULL)", (str(address), network, owner)
            )

    def free_address(self, address: IPv4Address | IPv6Address) -> None:
        self._freed += 1
        with self._transaction():
            self._database.execute(
                "UPDATE address SET owner = NULL, freed = ? WHERE address = ?", (self._freed, str(address))
            )

    def put_endpoint(self, tag: str, record: bytes) -> None:
        with self._transaction(durable=False):
            self._database.execute("INSERT OR REPLACE INTO endpoint VALUES (?, ?)", (tag, record))

    def delete_endpoint(self, tag: str) -> None:
        with self._transaction(durable=False):
            self._database.execute("DELETE FROM endpoint WHERE tag = ?", (tag,))

    def _put_facts(self, facts: Mapping[str, bytes]) -> None:
        self._database.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?)", facts.items())

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[None]:
        if not durable:
            self._database.execute("PRAGMA synchronous = NORMAL")
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # a full disk may have ended it already
                    self._database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise HedgerowError(
                f"{self._path} cannot be written: {error}", "see that its disk has room and works"
            ) from error
        finally:
            if not durable:
                self._database.execute("PRAGMA synchronous = FULL")
