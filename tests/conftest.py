"""What all kinds of test share: one lab for the whole run, and the record of what was proven.

With HEDGEROW_PROVE=1 tests take their full counts. Each that has one writes a row of build/proof.json; a later run at
the same commit leaves those out that passed, so that `make prove` goes on where it was stopped.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from labkit import RunningLab

TOP = Path(__file__).resolve().parents[1]
PROOF = TOP / "build" / "proof.json"
PROVING = os.environ.get("HEDGEROW_PROVE") == "1"


@pytest.fixture(scope="session")
def lab() -> Iterator[RunningLab]:
    """Three nodes with both engines, examples/lab.yaml, a name of its own. Tests remove what they start in it."""
    import labkit

    with labkit.lab() as running:
        yield running


@dataclass(slots=True)
class Proof:
    """`proof.count("S1", small=100, full=10_000)` is how often to do it now, and names what the test shows."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def count(self, id: str, *, small: int, full: int, seed: int = 0) -> int:
        count = full if PROVING else small
        self.rows.append({"id": id, "count": count, "seed": seed})
        return count


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> Proof:
    request.node.stash[ROWS] = proof = Proof()
    return proof


ROWS = pytest.StashKey[Proof]()


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=TOP, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def recorded() -> list[dict[str, Any]]:
    return list(json.loads(PROOF.read_text())) if PROOF.exists() else []


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    shown = item.stash.get(ROWS, None)
    if PROVING and shown is not None and call.when == "call":
        result, here = report.outcome, {"test": item.nodeid, "commit": commit()}
        kept = [row for row in recorded() if row["test"] != item.nodeid]
        fresh = PROOF.with_suffix(".new")
        fresh.write_text(json.dumps([*kept, *(row | here | {"result": result} for row in shown.rows)], indent=1))
        os.chown(fresh, TOP.stat().st_uid, TOP.stat().st_gid)
        fresh.replace(PROOF)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not PROVING:
        return
    now = commit()
    done = {row["test"] for row in recorded() if row["commit"] == now and row["result"] == "passed"}
    left_out = [item for item in items if item.nodeid in done]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item.nodeid not in done]
