from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.hosts import Host


def _running(directory: Path) -> Iterator[Host]:
    with Host(directory) as host:
        host.start_controller()
        host.start_agent()
        host.applied()
        yield host


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """An agent's host with a controller; the agent runs and has applied what the controller said. A test takes its own
    containers, and leaves agent and controller running.
    """
    yield from _running(tmp_path_factory.mktemp("host"))


@pytest.fixture
def own_host(tmp_path: Path) -> Iterator[Host]:
    """The same for one test, which may do with it what it likes."""
    yield from _running(tmp_path)
