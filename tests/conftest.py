"""What all kinds of test share: one lab for the whole run, and the record of what was proven.

With HEDGEROW_PROVE=1 only the tests that prove something run, with their full counts. Each writes its rows of
build/proof.json, `{id, count, seed, result, commit, test}`; a later run at the same commit leaves out those that
passed, so that `make prove` goes on where it was stopped. With changes that are in no commit nothing is left out.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from labkit import RunningLab

# A shell's background job ignores Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TOP = Path(__file__).resolve().parents[1]
PROOF = TOP / "build" / "proof.json"
PROVING = os.environ.get("HEDGEROW_PROVE") == "1"
CHANGED = "+changes"


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


def commit(top: Path = TOP) -> str:
    """What is tested: a commit, with `+changes` when the files differ from it; empty where there is no repository."""
    git = ["git", "-c", f"safe.directory={top}", "-C", str(top)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return ""
    changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + (CHANGED if changes.stdout or changes.returncode else "")


def recorded(file: Path = PROOF) -> list[dict[str, Any]]:
    return list(json.loads(file.read_text())) if file.exists() else []


def proven(now: str, file: Path = PROOF) -> set[str]:
    """The tests whose last run was at this commit and passed."""
    if not now or now.endswith(CHANGED):
        return set()
    rows = [row for row in recorded(file) if row["commit"] == now]
    return {row["test"] for row in rows} - {row["test"] for row in rows if row["result"] != "passed"}


def record(test: str, result: str, rows: list[dict[str, Any]], *, now: str, file: Path = PROOF) -> None:
    """Puts the rows in place of what the test had. Several runs may do so at once, root's and a user's."""
    owner = file.parent.stat()
    with file.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = [row for row in recorded(file) if row["test"] != test]
        added = [row | {"result": result, "commit": now, "test": test} for row in rows]
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps([*kept, *added], indent=1) + "\n")
        for each in (fresh, file.with_suffix(".lock")):
            if os.geteuid() == 0:
                os.chown(each, owner.st_uid, owner.st_gid)
        fresh.replace(file)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    shown = item.stash.get(ROWS, None)
    if PROVING and shown is not None and call.when == "call":
        record(item.nodeid, report.outcome, shown.rows, now=commit())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not PROVING:
        return
    done = proven(commit())
    wanted = [item for item in items if "proof" in getattr(item, "fixturenames", ()) and item.nodeid not in done]
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = wanted


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where all is proven already there is nothing to run, and that is no failure."""
    if PROVING and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and not session.config.option.collectonly:
        session.exitstatus = pytest.ExitCode.OK
