"""One world for all tests of a way: wire puts headers on in eBPF, device leaves them to the VXLAN device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bpf.traffic import close_raw_sockets
from bpf.world import World


@pytest.fixture(scope="session", params=["wire", "device"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with World(fast=request.param == "wire") as running:
        yield running
        close_raw_sockets()
