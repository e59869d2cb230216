"""Sockets in namespaces: echo servers, connections, raw frames, and waiting for what the data path counted."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bpf.packets import MARK, TCP, UDP
from bpf.world import JUDGED_MARK, Host, run, slowness

from hedgerow.kernel import netns
from hedgerow.kernel.maps import IPAddress, Reason

SLOWNESS = slowness()
SOON_S = 0.1 if SLOWNESS <= 1 else 0.8
"""Within which a refusal must be heard. What is refused only at TCP's first retransmit takes a second."""
ETH_P_ALL = 3


def wait_until(true: Callable[[], bool], what: object = "") -> None:
    deadline = time.monotonic() + 3 * SLOWNESS
    while not true():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.002)


def soon(action: Callable[[], object]) -> None:
    """Does it until it took no longer than SOON_S, five times at most: the machine may have other things to do."""
    took = []
    while not took or (min(took) > SOON_S and len(took) < 5):
        started = time.monotonic()
        action()
        took.append(time.monotonic() - started)
    assert min(took) <= SOON_S, took


@contextlib.contextmanager
def server(where: Path, port: int, kind: int = TCP, version: int = 4, *, at: str = "") -> Iterator[None]:
    """Echoes what it gets, until the block ends. UDP answers with the address it was asked at only when bound to it."""
    stream = socket.SOCK_STREAM if kind == TCP else socket.SOCK_DGRAM
    listener = netns.open_socket(where, socket.AF_INET if version == 4 else socket.AF_INET6, stream)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((at, port))
    if kind == TCP:
        listener.listen(64)
    stop_reading, stop = os.pipe()
    connections: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data)

    def loop() -> None:
        while stop_reading not in select.select([listener.fileno(), stop_reading], [], [])[0]:
            if kind == TCP:
                connections.append(threading.Thread(target=serve, args=(listener.accept()[0],)))
                connections[-1].start()
            else:
                data, peer = listener.recvfrom(65536)
                listener.sendto(data, peer)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        os.write(stop, b"x")
        for each in (thread, *connections):
            each.join()
        listener.close()
        os.close(stop)
        os.close(stop_reading)


def dial(where: Path, to: IPAddress, port: int, kind: int = TCP, *, timeout_s: float = 3 * SLOWNESS) -> socket.socket:
    stream = socket.SOCK_STREAM if kind == TCP else socket.SOCK_DGRAM
    client = netns.open_socket(where, socket.AF_INET6 if to.version == 6 else socket.AF_INET, stream)
    client.settimeout(timeout_s)
    try:
        client.connect((str(to), port))
    except OSError:
        client.close()
        raise
    return client


def echo(where: Path, to: IPAddress, port: int, data: bytes, kind: int = TCP) -> bytes:
    """What comes back."""
    with dial(where, to, port, kind) as client:
        if kind == UDP:
            client.send(data)
            return client.recv(65536)
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        got = bytearray()
        while len(got) < len(data):
            got += client.recv(65536)
        sender.join()
        return bytes(got)


SIOCETHTOOL = 0x8946
OFFLOADS = {"segments": (0x1E, 0x1F), "late segments": (0x23, 0x24), "checksums": (0x16, 0x17)}
"""ETHTOOL_GTSO and STSO, GGSO and SGSO, GTXCSUM and STXCSUM of linux/ethtool.h."""


def ethtool(control: socket.socket, link: str, command: int, value: int = 0) -> int:
    held = array.array("I", [command, value])
    request = struct.pack("16sP16x", link.encode(), held.buffer_info()[0])
    fcntl.ioctl(control, SIOCETHTOOL, request)
    return held[1]


@contextlib.contextmanager
def without_offloads(where: Path, link: str = "eth0") -> Iterator[None]:
    """The link leaves all work to the kernel, for the block."""
    with netns.open_socket(where, socket.AF_INET, socket.SOCK_DGRAM) as control:
        before = {name: ethtool(control, link, get) for name, (get, _) in OFFLOADS.items()}
        try:
            for _, change in OFFLOADS.values():
                ethtool(control, link, change, 0)
            yield
        finally:
            for name in reversed(OFFLOADS):
                ethtool(control, link, OFFLOADS[name][1], before[name])


MASQUERADE = 'table inet rules { chain c { type nat hook postrouting priority srcnat; oifname "eth0" masquerade; }; }'


@contextlib.contextmanager
def nft(where: str, rules: str, *, family: str = "inet") -> Iterator[Callable[[], str]]:
    """A table `rules` for the block; gives a function that lists it."""
    run("ip", "netns", "exec", where, "nft", rules)
    try:
        yield lambda: run("ip", "netns", "exec", where, "nft", f"list table {family} rules")
    finally:
        run("ip", "netns", "exec", where, "nft", f"delete table {family} rules")


@contextlib.contextmanager
def counted(host: Host, vni: int, reason: Reason, *, packets: int = 1) -> Iterator[None]:
    """The block makes the host drop so many packets of the network for this reason, and none for another one.

    Kernels in containers solicit routers and report groups whenever they like.
    """
    before = host.maps.counters()
    yield

    def new() -> dict[tuple[int, Reason], int]:
        grown = ((key, total - before.get(key, (0, 0))[0]) for key, (total, _) in host.maps.counters().items())
        return {(net, why): many for (net, why), many in grown if many and why != Reason.UNANSWERED}

    wait_until(lambda: new().get((vni, reason), 0) >= packets, (vni, reason, new()))
    others = {why for net, why in new() if net == vni} - {reason, Reason.MULTICAST, Reason.NOT_SET_UP}
    assert not others, new()


_raw: dict[tuple[Path, str, int], socket.socket] = {}


def raw_socket(where: Path, interface: str, protocol: int) -> socket.socket:
    """Sends frames as they are; hears those of the protocol. Kept for the next test: closing one waits for RCU."""
    key = where, interface, protocol
    if key not in _raw:
        _raw[key] = netns.open_socket(where, socket.AF_PACKET, socket.SOCK_RAW, 0)
        _raw[key].bind((interface, protocol))
        _raw[key].setblocking(False)
        if interface == "hr-host":  # as if its host's firewall had seen it
            _raw[key].setsockopt(socket.SOL_SOCKET, socket.SO_MARK, JUDGED_MARK)
    return _raw[key]


def close_raw_sockets() -> None:
    while _raw:
        _raw.popitem()[1].close()


def inject(where: Path, *frames: bytes, interface: str = "eth0") -> None:
    raw = raw_socket(where, interface, 0)
    for frame in frames:
        raw.send(frame)


def listening(where: Path, interface: str = "eth0") -> Callable[[], list[bytes]]:
    """A function that returns the frames which came in since: those with MARK, the kernel's own talk is no matter."""
    raw = raw_socket(where, interface, ETH_P_ALL)

    def heard() -> list[bytes]:
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, (_, _, direction, *_) = raw.recvfrom(65536)
                if direction != socket.PACKET_OUTGOING and MARK in frame:
                    found.append(frame)
        return found

    heard()
    return heard
