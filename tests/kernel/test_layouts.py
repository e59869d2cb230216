"""A release with other records takes over what its forerunner left, under traffic, and so does one that is put back."""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bpf.packets import TCP, UDP
from bpf.rules import one_way
from bpf.traffic import dial, server
from bpf.world import World
from kernel.hosts import Host, eventually

from hedgerow.kernel import bpf, layouts, netns, pins
from hedgerow.kernel.flows import FlowKey, Range
from hedgerow.kernel.maps import Maps

if TYPE_CHECKING:
    from conftest import Proof

ROOT = Path(__file__).parents[2]
GROWN = ("struct endpoint {", "struct connection {", "struct config {")
"""Records that the artificial release lets grow."""


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data path of a release with layout 2."""
    directory = tmp_path_factory.mktemp("layout")
    shutil.copytree(ROOT / "bpf", directory, dirs_exist_ok=True)
    header = (directory / "maps.h").read_text().replace("#define LAYOUT 1\n", "#define LAYOUT 2\n")
    for head in GROWN:
        before, after = header.split(head, 1)
        body, rest = after.split("\n};", 1)
        header = f"{before}{head}{body}\n\t__u64 grown;\n}};{rest}"
    (directory / "maps.h").write_text(header)
    built = directory / "hedgerow.bpf.o"
    include = f"-I/usr/include/{platform.machine()}-linux-gnu"
    command = [
        "clang",
        "-O2",
        "-g",
        "-target",
        "bpf",
        "-mcpu=v3",
        include,
        "-c",
        directory / "hedgerow.bpf.c",
        "-o",
        built,
    ]
    subprocess.run(command, check=True)
    return built


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(fast=True) as running:
        yield running


def swap(world: World, source: Path, number: int) -> bpf.Object:
    """What an agent of the release does at its start: maps first, then programs, then the old names."""
    host = world.one
    mount, old = host.pins.parent, host.object
    before, host.pins = host.pins, mount / f"v{number}"
    layouts.adopt(mount, host.pins, source)
    host.object = bpf.Object(source, host.pins)
    host.attach_programs()
    with netns.inside(host.namespace):
        for end in (world.a, world.b, world.p, world.l):
            bpf.attach_clsact(host.object.program("from_container"), end.ifindex)
    layouts.follow(host.object.pinned_maps(), before)
    layouts.remove(before)
    old.close()
    return host.object


def traffic(world: World, during: Callable[[], None]) -> tuple[int, int]:
    """Round trips of a datagram between two hosts while something happens: (sent, answered)."""
    counts, done = [0, 0], threading.Event()
    with server(world.c.container, 7, UDP), dial(world.a.container, world.c.address, 7, UDP) as client:

        def send() -> None:
            while not done.is_set():
                client.send(b"x")
                counts[0] += 1
                try:
                    counts[1] += bool(client.recv(8))
                except TimeoutError:
                    continue

        thread = threading.Thread(target=send)
        thread.start()
        try:
            during()
        finally:
            done.set()
            thread.join()
    return counts[0], counts[1]


def test_a_layout_changes_under_traffic_and_back(world: World, grown: Path, proof: Proof) -> None:
    """Open flows go on where only replies may come back; no datagram is lost in an open network."""
    rounds, host = proof.count("S8 layout", small=1, full=10), world.one
    served, ways = server(world.q.container, 80), one_way(world, Range(TCP, 80, 80, rule=3))
    with ways, served, dial(world.a.container, world.q.address, 80) as client:

        def there_and_back() -> None:
            for _ in range(rounds):
                before = look(host.object)
                after = look(swap(world, grown, 2))
                assert {name for name, map in after.items() if map.size != before[name].size} == {
                    "endpoints", "connections", "host"}  # fmt: skip
                assert {name for name, map in after.items() if map.id == before[name].id} >= {
                    "prefixes", "ports", "allowed", "agents", "counters", "drops"}  # fmt: skip
                exchange(client)
                swap(world, bpf.object_file(), 1)
                exchange(client)
                assert look(host.object)["endpoints"].rows == before["endpoints"].rows

        sent, answered = traffic(world, there_and_back)
        host.maps = Maps.open(host.object)
        flow = FlowKey(world.a.address, world.q.address, client.getsockname()[1], 80, TCP)
        assert host.maps.connections.get(flow) is not None
    assert sent == answered > 10
    assert [path.name for path in host.pins.parent.iterdir()] == ["v1"]


@dataclass(frozen=True)
class Shown:
    """A map: its number in the kernel, the size of its records, and the endpoints' rows."""

    id: int
    size: int
    rows: dict[bytes, bytes]


def look(loaded: bpf.Object) -> dict[str, Shown]:
    return {
        name: Shown(pins.map_id(map.fd), map.value_size, dict(map.items()) if name == "endpoints" else {})
        for name, map in loaded.pinned_maps().items()
    }


def exchange(client: socket.socket) -> None:
    client.sendall(b"x")
    assert client.recv(1) == b"x"


def test_an_unfinished_change_is_begun_anew(world: World, grown: Path) -> None:
    host = world.one
    unfinished = host.pins.parent / "v2-new"
    half = bpf.Object(grown, unfinished)
    half.close()
    for name in ("endpoints", "prefixes"):
        (unfinished / name).unlink()
    swap(world, grown, 2)
    assert not unfinished.exists()
    assert look(host.object)["endpoints"].rows
    swap(world, bpf.object_file(), 1)
    host.maps = Maps.open(host.object)
    assert host.maps.endpoints.get(world.a.address).ifindex == world.a.ifindex


def test_an_agent_takes_another_layouts_maps_over_and_removes_its_names(own_host: Host) -> None:
    """What the release before this one left: here it is this one's, under another number."""
    host = own_host
    one, other = host.container(), host.container()
    for container in (one, other):
        container.add()
    id_before = pins.map_id(host.maps.endpoints.raw.fd)
    host.stop_agent()
    host.run("mv /run/hedgerow/bpf/v1 /run/hedgerow/bpf/v9")
    host.start_agent()
    host.applied()
    eventually(lambda: "v9" not in host.run("ls /run/hedgerow/bpf").split(), "the old names are gone")
    assert one.reaches(other.address)
    root = host.namespace.parents[1] / "root"
    assert pins.pinned_id(root / "run/hedgerow/bpf/v1/endpoints") == id_before
