"""Programs, maps and attachments outlive the agent; the next one replaces programs under running traffic."""

from __future__ import annotations

import select
import subprocess
import threading
import time
from collections.abc import Callable

import pytest
from bpf.packets import UDP
from bpf.traffic import SLOWNESS, dial, echo, server, wait_until
from bpf.world import DEV, World, run

from bpf import packets
from hedgerow.errors import HedgerowError, NotFound
from hedgerow.kernel import bpf, netns
from hedgerow.kernel.flows import ALLOW_BOTH, AllowKey
from hedgerow.kernel.maps import EndpointRow, Maps, PrefixKind, Reason


def flood(world: World, during: Callable[[], None]) -> tuple[int, int]:
    """Datagrams from a to c and back while something happens: (sent, answered)."""
    with server(world.c.container, 7, UDP), dial(world.a.container, world.c.address, 7, UDP) as client:
        done = threading.Event()
        counts = [0, 0]

        def send() -> None:
            while not done.is_set():
                client.send(b"x" * 18)
                counts[0] += 1
                if select.select([client], [], [], SLOWNESS)[0]:
                    client.recv(64)
                    counts[1] += 1

        thread = threading.Thread(target=send)
        thread.start()
        during()
        done.set()
        thread.join()
    return counts[0], counts[1]


def test_replacing_programs_loses_no_packet(world: World) -> None:
    host, first = world.one, world.one.object
    second = bpf.Object(bpf.object_file(), host.pins)  # takes over the pinned maps
    before = host.packets(0, Reason.NOT_SET_UP)

    def swap() -> None:
        for turn in range(400 if SLOWNESS <= 1 else 40):
            host.object = (second, first)[turn % 2]
            host.attach_programs()
            with netns.inside(host.namespace):
                bpf.attach_clsact(host.object.program("from_container"), world.a.ifindex)
            time.sleep(0.001)

    try:
        sent, answered = flood(world, swap)
    finally:
        host.object = first
        host.attach_programs()
        second.close()
    assert answered == sent
    assert sent > 500 / SLOWNESS**3
    assert host.packets(0, Reason.NOT_SET_UP) == before


def test_replacing_leaves_one_program_on_a_link(world: World) -> None:
    program = world.one.object.program("from_container")
    with netns.inside(world.one.namespace):
        bpf.attach_clsact(program, world.a.ifindex)
        bpf.attach_clsact(program, world.a.ifindex)
        assert bpf.attached_id(world.a.ifindex) == program.id
    command = ["tc", "-n", world.one.name, "filter", "show", "dev", world.a.link, "ingress"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.count("direct-action") == 1


def test_filters_of_others_on_the_underlays_link_stay(world: World) -> None:
    tc = ("ip", "netns", "exec", world.one.name, "tc")
    never = ("bpf", "bytecode", "1,6 0 0 0,")
    run(*tc, "filter", "add", "dev", "eth0", "ingress", "prio", 1, "handle", 1, *never, "flowid", "1:1")
    try:
        world.one.attach_programs()
        shown = run(*tc, "filter", "show", "dev", "eth0", "ingress")
        assert "pref 1 bpf" in shown
        assert "from_underlay" in shown
    finally:
        run(*tc, "filter", "del", "dev", "eth0", "ingress", "prio", 1)


def test_filters_behind_ours_on_the_underlays_link_see_what_is_not_for_us(world: World) -> None:
    """Its verdict on such a packet is none (TC_ACT_UNSPEC)."""
    packet = packets.datagram(world.two.vtep_mac, world.two.underlay, world.one.underlay, 53)
    with netns.inside(world.one.namespace):
        verdict, after, _ = world.one.object.program("from_underlay").run(packet, ifindex=world.one.index["eth0"])
    assert verdict == 2**32 - 1
    assert after == packet


def test_a_link_without_a_program_has_the_id_zero(world: World) -> None:
    with netns.inside(world.one.namespace):
        assert bpf.attached_id(1) == 0
        assert bpf.attached_id(world.one.index["hr-host"]) == 0
        assert bpf.attached_id(999_999) == 0


def test_packets_flow_without_an_agent_and_the_next_one_finds_every_row(world: World) -> None:
    """Every descriptor of the agent is closed: pins and attachments alone keep maps and programs."""
    host = world.one
    rows = dict(host.maps.prefixes.items())
    host.object.close()
    with server(world.c.container, 80):
        assert echo(world.a.container, world.c.address, 80, b"x") == b"x"
    host.object = bpf.Object(bpf.object_file(), host.pins)
    host.maps = Maps.open(host.object)
    assert dict(host.maps.prefixes.items()) == rows
    assert host.maps.host.get(0).underlay == host.underlay
    assert host.maps.ports.get(world.a.ifindex).address == world.a.address
    assert host.maps.endpoints.get(world.a.address6).ifindex == world.a.ifindex
    assert rows[DEV.prefixes(2)[0]].kind == PrefixKind.REMOTE
    assert rows[DEV.prefixes(2)[0]].agent == world.two.underlay


def test_a_detached_endpoint_hears_nothing_more(world: World) -> None:
    """The rows go first, the link may take its time."""
    gone = world.endpoint(world.one, DEV, world.spare())
    with server(gone.container, 80, UDP):
        assert echo(world.a.container, gone.address, 80, b"x", UDP) == b"x"
        for address in (gone.address, gone.address6):
            assert world.one.maps.endpoints.delete(address)
        assert world.one.maps.ports.delete(gone.ifindex)
        assert not world.one.maps.ports.delete(gone.ifindex)
        with pytest.raises(ConnectionRefusedError):
            dial(world.a.container, gone.address, 80)


def test_many_rows_are_written_and_read_in_batches(world: World) -> None:
    maps = world.three.maps
    keys = [AllowKey(5000 + number // 128, 9000 + number % 128) for number in range(6000)]
    maps.allowed.put_many(dict.fromkeys(keys, ALLOW_BOTH))
    try:
        assert {key for key, _ in maps.allowed.items()} >= set(keys)
    finally:
        maps.allowed.delete_many(keys)
    assert not {key for key, _ in maps.allowed.items()} & set(keys)
    maps.allowed.put_many({})


def test_a_full_map_says_so(world: World) -> None:
    with pytest.raises(OSError, match="map"):
        world.three.maps.agents.raw.put_many({number.to_bytes(16): bytes(4) for number in range(70_000)})
    for key in list(world.three.maps.agents.raw.all_keys()):
        if key < bytes(10) + b"\xff\xff":
            world.three.maps.agents.raw.delete(key)
    assert len(dict(world.three.maps.agents.items())) == 3


def test_rows_of_the_wrong_size_are_refused_before_the_kernel_reads_them(world: World) -> None:
    row = EndpointRow(1, 2, bytes(6)).pack()
    with pytest.raises(ValueError, match="bytes for a map"):
        world.one.maps.endpoints.raw.put(bytes(4), row)


def test_an_object_that_is_none_and_names_that_it_lacks_are_told(world: World, tmp_path) -> None:
    broken = tmp_path / "broken.o"
    broken.write_bytes(b"no ELF")
    with pytest.raises(HedgerowError, match="is no eBPF object"):
        bpf.Object(broken, world.one.pins)
    with pytest.raises(NotFound, match="no program from_nowhere"):
        world.one.object.program("from_nowhere")
    with pytest.raises(NotFound, match="no map nothing"):
        world.one.object.map("nothing")


def test_bytes_are_counted_with_the_packets(world: World) -> None:
    before = world.one.maps.counters().get((DEV.vni, Reason.ISOLATED), (0, 0))
    with dial(world.a.container, world.p.address, 53, UDP) as client:
        client.send(b"x" * 100)
    wait_until(lambda: world.one.packets(DEV.vni, Reason.ISOLATED) > before[0])
    after = world.one.maps.counters()[DEV.vni, Reason.ISOLATED]
    assert (after[0] - before[0], after[1] - before[1]) == (1, 14 + 20 + 8 + 100)
