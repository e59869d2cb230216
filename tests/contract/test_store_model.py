"""Any sequence of commits, lists and watches: each store against a list of dictionaries, one for every revision."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from contract.store_cases import STORES, events_until
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hedgerow.errors import Conflict
from hedgerow.store.base import Compare, Delete, Put

KEYS = st.sampled_from(["/a", "/a/1", "/a/2", "/a/21", "/b/1", "/b", "/c"])
PREFIXES = st.sampled_from(["/", "/a", "/a/", "/a/2", "/b/", "/none/"])
OPERATIONS = st.lists(
    st.one_of(st.builds(Put, KEYS, st.binary(max_size=3)), st.builds(Delete, KEYS)),
    min_size=1,
    max_size=4,
    unique_by=lambda operation: operation.key,
)


class StoreMachine(RuleBasedStateMachine):
    kind = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.opened: Any = None
        self.past: list[dict[str, tuple[bytes, int, int]]] = [{}]
        self.events: list[tuple[str, bytes | None, int]] = []

    def do(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    @initialize()
    def open(self) -> None:
        self.opened = STORES[self.kind](Path(self.directory.name))
        self.store = self.do(self.opened.__aenter__())

    @property
    def now(self) -> dict[str, tuple[bytes, int, int]]:
        return self.past[-1]

    @rule(operations=OPERATIONS, compared=st.lists(KEYS, max_size=2), off=st.integers(0, 3))
    def commit(self, operations: list[Put | Delete], compared: list[str], off: int) -> None:
        compares = [Compare(key, self.now[key][2] if key in self.now else 0) for key in compared]
        if off == 1 and compares:
            compares[-1] = Compare(compares[-1].key, compares[-1].modified + 1)
            try:
                self.do(self.store.commit(compares, operations))
            except Conflict:
                return
            raise AssertionError("a compare that does not hold passed")
        revision = self.do(self.store.commit(compares, operations))
        assert revision == len(self.past)
        after = dict(self.now)
        for operation in operations:
            if isinstance(operation, Put):
                created = after[operation.key][1] if operation.key in after else revision
                after[operation.key] = (operation.value, created, revision)
                self.events.append((operation.key, operation.value, revision))
            elif after.pop(operation.key, None):
                self.events.append((operation.key, None, revision))
        self.past.append(after)

    @rule(prefix=PREFIXES, back=st.integers(0, 8), limit=st.integers(1, 8))
    def list_as_of(self, prefix: str, back: int, limit: int) -> None:
        at = max(0, len(self.past) - 1 - back)
        entries: list[Any] = []
        more = True
        while more:
            after = entries[-1].key if entries else ""
            page = self.do(self.store.list(prefix, at=at, after=after, limit=limit))
            entries += page.entries
            more = page.more
            assert page.revision == at
        expected = [(k, *v) for k, v in sorted(self.past[at].items()) if k.startswith(prefix)]
        assert [(e.key, e.value, e.created, e.modified) for e in entries] == expected

    @precondition(lambda self: len(self.past) > 1)
    @rule(prefix=PREFIXES, back=st.integers(1, 8))
    def watch_from(self, prefix: str, back: int) -> None:
        newest = len(self.past) - 1
        after = max(0, newest - back)
        seen = self.do(events_until(self.store, prefix, after, newest))
        expected = [e for e in self.events if e[2] > after and e[0].startswith(prefix)]
        assert [(e.key, e.value, e.revision) for e in seen] == expected

    @invariant()
    def the_present_is_what_was_written(self) -> None:
        if self.opened is not None:
            page = self.do(self.store.list("/"))
            assert {e.key: (e.value, e.created, e.modified) for e in page.entries} == self.now
            assert page.revision == len(self.past) - 1

    def teardown(self) -> None:
        if self.opened is not None:
            self.do(self.opened.__aexit__(None, None, None))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        self.directory.cleanup()


class MemoryMachine(StoreMachine):
    kind = "memory"


class SqliteMachine(StoreMachine):
    kind = "sqlite"


TestMemoryStore = MemoryMachine.TestCase
TestSqliteStore = SqliteMachine.TestCase
TestMemoryStore.settings = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TestSqliteStore.settings = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
