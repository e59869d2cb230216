"""The SQLite file of the store: entries, and a log of changes with what was there before.

Everything here runs in one thread on one connection that holds the file exclusively: a second controller on the same
file is refused, and the bug that can corrupt a WAL with two connections (SQLite before 3.51.3) cannot occur.
`synchronous=FULL`: what is acknowledged survives a power cut. The log gives watches their events and lists the past: an
entry as of revision R is what the first change after R replaced, else what is there now.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from hedgerow.errors import BadInput, Conflict, HedgerowError, NotFound

from .base import Compacted, Compare, Delete, Entry, Event, Operation, Page, Put
from .check import check_commit, check_key, end_of

SCHEMA = 1
COMPACT_EVERY = 256
"""Revisions between two deletions of old history."""

_TABLES = """
CREATE TABLE meta (schema INTEGER, epoch INTEGER, revision INTEGER, oldest INTEGER);
CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB, created INTEGER, modified INTEGER, lease INTEGER) WITHOUT ROWID;
CREATE INDEX entries_lease ON entries (lease) WHERE lease IS NOT NULL;
CREATE TABLE log (id INTEGER PRIMARY KEY, revision INTEGER, key TEXT, value BLOB,
    old_value BLOB, old_created INTEGER, old_modified INTEGER);
CREATE INDEX log_revision ON log (revision);
CREATE INDEX log_key ON log (key, revision);
CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_s REAL);
"""
_NOW = """
SELECT key, value, created, modified FROM entries WHERE key >= ? AND key < ? AND key > ? ORDER BY key LIMIT ?
"""
_AS_OF = """
SELECT key, value, created, modified FROM entries WHERE key >= ?1 AND key < ?2 AND key > ?3 AND modified <= ?5
UNION ALL
SELECT key, old_value, old_created, old_modified FROM log
    WHERE key >= ?1 AND key < ?2 AND key > ?3 AND revision > ?5 AND old_modified <= ?5
ORDER BY key LIMIT ?4
"""
_EVENTS = """
SELECT id, revision, key, value FROM log WHERE revision > ? AND id > ? AND key >= ? AND key < ? ORDER BY id LIMIT ?
"""
_PUT = """
INSERT INTO entries VALUES (?1, ?2, ?3, ?3, ?4)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, modified = excluded.modified, lease = excluded.lease
"""

Write = Callable[["Database"], int]
"""One transaction: raises HedgerowError before it has changed anything, else returns its number."""


class Database:
    """`epoch`, `revision` and `oldest` (the oldest revision that can be watched from) as in the file."""

    def __init__(self, path: Path, *, new_epoch: int, keep_revisions: int) -> None:
        """Raises Conflict when somebody has the file, BadInput when it is damaged or of a newer release."""
        self.epoch = new_epoch
        self.revision = 0
        self.oldest = 0
        self._path = path
        self._keep = keep_revisions
        self._sql = sqlite3.connect(path, isolation_level=None, timeout=1.0)
        try:
            self._open(new_epoch)
        except sqlite3.Error as error:
            self._sql.close()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise Conflict(f"{path} is in use", "end the controller that runs on it") from error
            raise BadInput(f"{path} cannot be used: {error}", "restore it from a backup") from error
        except HedgerowError:
            self._sql.close()
            raise

    def get(self, key: str) -> Entry | None:
        check_key(key)
        row = self._sql.execute("SELECT key, value, created, modified FROM entries WHERE key = ?", (key,)).fetchone()
        return Entry(*row) if row else None

    def page(self, prefix: str, at: int | None, after: str, limit: int) -> Page:
        bounds = prefix, end_of(prefix), after, limit + 1
        if at is None or at == self.revision:
            rows = self._sql.execute(_NOW, bounds).fetchall()
            at = self.revision
        elif at < self.oldest:
            raise Compacted(at, self.oldest)
        elif at > self.revision:
            raise BadInput(f"revision {at} is yet to come, the newest is {self.revision}", "list at a known revision")
        else:
            rows = self._sql.execute(_AS_OF, (*bounds, at)).fetchall()
        return Page(tuple(Entry(*row) for row in rows[:limit]), at, len(rows) > limit)

    def events(self, prefix: str, after: int, after_id: int, limit: int) -> list[tuple[int, Event]]:
        """Changes above revision `after` and log id `after_id`, each with its id. Raises Compacted."""
        if after < self.oldest:
            raise Compacted(after, self.oldest)
        rows = self._sql.execute(_EVENTS, (after, after_id, prefix, end_of(prefix), limit))
        return [(number, Event(key, value, revision)) for number, revision, key, value in rows]

    def write(self, batch: Sequence[Write]) -> list[int | HedgerowError]:
        """Group commit: one fsync for all that wait. Raises sqlite3.Error when nothing of it is durable."""
        results: list[int | HedgerowError] = []
        began = self.revision, self.oldest
        try:
            self._sql.execute("BEGIN IMMEDIATE")
            for transaction in batch:
                try:
                    results.append(transaction(self))
                except HedgerowError as refused:
                    results.append(refused)
            self._sql.execute("UPDATE meta SET revision = ?", (self.revision,))
            if began[0] // COMPACT_EVERY != self.revision // COMPACT_EVERY:
                self._compact()
            self._sql.execute("COMMIT")
        except sqlite3.Error:
            self.revision, self.oldest = began
            if self._sql.in_transaction:
                self._sql.execute("ROLLBACK")
            raise
        return results

    def commit(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> int:
        check_commit(compares, operations)
        for compare in compares:
            entry = self.get(compare.key)
            if (entry.modified if entry else 0) != compare.modified:
                raise Conflict(f"{compare.key} has changed since revision {compare.modified}", "read it again")
        for operation in operations:
            if isinstance(operation, Put) and operation.lease is not None:
                self.check_lease(operation.lease)
        return self._apply(operations)

    def grant(self, ttl_s: float) -> int:
        return int(self._sql.execute("INSERT INTO leases (ttl_s) VALUES (?)", (ttl_s,)).lastrowid or 0)

    def check_lease(self, lease: int) -> None:
        if self._sql.execute("SELECT 1 FROM leases WHERE id = ?", (lease,)).fetchone() is None:
            raise NotFound(f"lease {lease} has ended", "grant a new one")

    def end_lease(self, lease: int) -> int:
        """Deletes what leans on it. A lease that has ended is fine."""
        self._sql.execute("DELETE FROM leases WHERE id = ?", (lease,))
        keys = self._sql.execute("SELECT key FROM entries WHERE lease = ?", (lease,)).fetchall()
        return self._apply([Delete(key) for (key,) in keys]) if keys else self.revision

    def leases(self) -> dict[int, float]:
        return dict(self._sql.execute("SELECT id, ttl_s FROM leases").fetchall())

    def close(self) -> None:
        self._sql.close()

    def _open(self, new_epoch: int) -> None:
        self._sql.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._sql.execute("PRAGMA journal_mode = WAL")
        self._sql.execute("PRAGMA synchronous = FULL")
        self._sql.execute("BEGIN EXCLUSIVE")
        if not self._sql.execute("SELECT 1 FROM sqlite_master").fetchone():
            for statement in _TABLES.split(";")[:-1]:
                self._sql.execute(statement)
            self._sql.execute("INSERT INTO meta VALUES (?, ?, 0, 0)", (SCHEMA, new_epoch))
        self._sql.execute("COMMIT")
        (verdict,) = self._sql.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise BadInput(f"{self._path} is damaged: {verdict}", "restore it from a backup")
        schema, self.epoch, self.revision, self.oldest = self._sql.execute("SELECT * FROM meta").fetchone()
        if schema != SCHEMA:
            raise BadInput(f"{self._path} has layout {schema}, this release reads {SCHEMA}", "use the release it is of")

    def _apply(self, operations: Sequence[Operation]) -> int:
        self.revision += 1
        for operation in operations:
            before = self.get(operation.key)
            old = (before.value, before.created, before.modified) if before else (None, None, None)
            if isinstance(operation, Put):
                value: bytes | None = operation.value
                self._sql.execute(_PUT, (operation.key, value, self.revision, operation.lease))
            elif before is None:
                continue
            else:
                value = None
                self._sql.execute("DELETE FROM entries WHERE key = ?", (operation.key,))
            self._sql.execute(
                "INSERT INTO log VALUES (NULL, ?, ?, ?, ?, ?, ?)", (self.revision, operation.key, value, *old)
            )
        return self.revision

    def _compact(self) -> None:
        self.oldest = max(self.oldest, self.revision - self._keep)
        self._sql.execute("DELETE FROM log WHERE revision <= ?", (self.oldest,))
        self._sql.execute("UPDATE meta SET oldest = ?", (self.oldest,))
