"""The record of what was proven: what counts as done, and for which commit."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import commit, proven, record, recorded

ROW = {"id": "S0", "count": 7, "seed": 3}
GIT = {f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "proof.json"


def test_a_row_says_what_was_done_how_often_and_at_which_commit(file: Path) -> None:
    record("t.py::one", "passed", [ROW], now="abc", file=file)
    assert recorded(file) == [ROW | {"result": "passed", "commit": "abc", "test": "t.py::one"}]


def test_a_later_run_takes_the_place_of_an_earlier_one_and_leaves_others(file: Path) -> None:
    for test, result in (("t.py::one", "passed"), ("t.py::two", "passed"), ("t.py::one", "failed")):
        record(test, result, [ROW], now="abc", file=file)
    assert [(row["test"], row["result"]) for row in recorded(file)] == [
        ("t.py::two", "passed"),
        ("t.py::one", "failed"),
    ]
    assert proven("abc", file) == {"t.py::two"}


def test_what_was_proven_at_another_commit_is_done_again(file: Path) -> None:
    record("t.py::one", "passed", [ROW], now="abc", file=file)
    assert proven("def", file) == set()


@pytest.mark.parametrize("now", ["", "abc+changes"])
def test_without_a_commit_that_holds_it_nothing_counts_as_proven(file: Path, now: str) -> None:
    record("t.py::one", "passed", [ROW], now=now, file=file)
    assert proven(now, file) == set()


def test_files_that_are_in_no_commit_are_told(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=tmp_path, env=os.environ | GIT, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    assert commit(tmp_path) == ""
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "one")
    assert commit(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "new").touch()
    assert commit(tmp_path) == git("rev-parse", "HEAD") + "+changes"
