"""The conflists: one a network, whole files only, and only what a controller said to be gone goes."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from contract.fakes import DCOS, DEV, FakeState

from hedgerow.agent.engines import conflists


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_each_network_has_a_conflist_that_names_it_and_the_shim(tmp_path: Path) -> None:
    conflists.write(FakeState(DCOS, DEV), tmp_path / "net.d")
    assert names(tmp_path / "net.d") == {"95-hedgerow-dcos-1.conflist", "95-hedgerow-dev.conflist"}
    found = json.loads((tmp_path / "net.d" / "95-hedgerow-dev.conflist").read_text())
    assert (found["name"], found["cniVersion"]) == ("dev", "1.0.0")
    assert [plugin["type"] for plugin in found["plugins"]] == ["hedgerow-cni"]


def test_what_is_right_already_is_not_written_again(tmp_path: Path) -> None:
    conflists.write(FakeState(DCOS), tmp_path)
    before = tmp_path.stat().st_mtime_ns
    conflists.write(FakeState(DCOS), tmp_path)
    assert tmp_path.stat().st_mtime_ns == before


def test_a_file_that_somebody_changed_is_put_right(tmp_path: Path) -> None:
    conflists.write(FakeState(DCOS), tmp_path)
    (tmp_path / "95-hedgerow-dcos-1.conflist").write_text("{")
    conflists.write(FakeState(DCOS), tmp_path)
    assert json.loads((tmp_path / "95-hedgerow-dcos-1.conflist").read_text())["name"] == "dcos-1"


@pytest.mark.parametrize("is_live", [True, False])
def test_a_conflist_goes_only_when_a_controller_says_that_its_network_is_gone(tmp_path: Path, is_live: bool) -> None:
    (tmp_path / "87-podman.conflist").touch()
    conflists.write(FakeState(DCOS, DEV), tmp_path)
    conflists.write(FakeState(DCOS, is_live=is_live), tmp_path)
    assert ("95-hedgerow-dev.conflist" in names(tmp_path)) is not is_live
    assert "87-podman.conflist" in names(tmp_path)


def test_without_a_snapshot_nothing_is_touched(tmp_path: Path) -> None:
    conflists.write(FakeState(DCOS), tmp_path)
    unknowing = FakeState()
    unknowing.snapshot = None
    conflists.write(unknowing, tmp_path)
    assert names(tmp_path) == {"95-hedgerow-dcos-1.conflist"}


def test_a_new_network_and_a_removed_file_are_seen_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watched as Podman does: by the directory."""
    monkeypatch.setattr(conflists, "INTERVAL_S", 0.05)
    path = tmp_path / "95-hedgerow-dev.conflist"

    async def until(there: bool) -> None:
        async with asyncio.timeout(20):
            while path.exists() is not there:
                await asyncio.to_thread(os.sched_yield)

    async def play() -> None:
        state = FakeState(DCOS)
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(conflists.keep(state, tmp_path), name="conflists")
            state.set(DCOS, DEV)
            await until(True)
            path.unlink()
            await until(True)
            state.set(DCOS)
            await until(False)
            keeping.cancel()

    asyncio.run(play())
