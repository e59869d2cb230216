"""Thousands of probes at once: each place sends by sockets of its own kernel, and at each place a packet socket sees
what arrives, whatever the kernel there makes of it.

A probe is answered when a handshake, a datagram or an echo came back; it has arrived when its first packet was seen at
the other end. What is allowed does both, what is not does neither. Refusals are limited to 100 a second for a sender,
so a place sends few at a time.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import struct
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from hedgerow.kernel import netns

Address = IPv4Address | IPv6Address
TCP, UDP, ICMP, ICMP6, SCTP = 6, 17, 1, 58, 132
AT_ONCE = 60
"""Probes of one place in a round."""
AT_LEAST_S, AT_MOST_S = 0.2, 4.0
"""How long a round listens: shorter when all that should be answered is."""
_ALL, _OUTGOING = 3, 4
_ECHO = {4: 8, 6: 128}
_ECHO_REPLY = {4: 0, 6: 129}
_BUFFER_BYTES = 8 << 20
SO_RCVBUFFORCE = 33


@dataclass(frozen=True, order=True)
class Place:
    """`link`: where alone it is listened for what arrives. At a host's others one hears what was not judged yet."""

    name: str
    namespace: Path = field(compare=False)
    addresses: tuple[Address, ...] = field(compare=False)
    link: str = field(default="", compare=False)

    def of(self, version: int) -> Address | None:
        return next((address for address in self.addresses if address.version == version), None)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Probe:
    """`known_as` is the source that its target sees, where that is another. `is_seen`: its arrival can be told;
    `is_answered`: an answer to it can.
    """

    source: Place
    target: Address
    protocol: int
    port: int = 0
    known_as: Address | None = None
    is_seen: bool = True
    is_answered: bool = True

    @property
    def key(self) -> tuple[Address | None, Address, int, int]:
        """As a packet shows it: source, destination, protocol, port."""
        return self.known_as or self.source.of(self.target.version), self.target, self.protocol, self.port

    def __str__(self) -> str:
        return f"{self.source} -> {self.target} {self.protocol}/{self.port}"


@dataclass
class Seen:
    """What happened: `refused` that somebody said no."""

    arrived: bool = False
    answered: bool = False
    refused: bool = False


class Ears:
    """Packet sockets at places; what they hear is read when it is asked for."""

    def __init__(self, places: Collection[Place]) -> None:
        self._sockets = []
        for place in places:
            protocol = 0 if place.link else socket.htons(_ALL)
            ear = netns.open_socket(place.namespace, socket.AF_PACKET, socket.SOCK_DGRAM, protocol)
            ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER_BYTES)
            ear.setblocking(False)
            if place.link:
                ear.bind((place.link, _ALL))
            self._sockets.append(ear)

    def heard(self) -> set[tuple[Address | None, Address, int, int]]:
        """Openings that came in since: keys as of probes."""
        found = set()
        for each in self._sockets:
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet, (_, _, direction, *_) = each.recvfrom(2048)
                    if direction != _OUTGOING and (key := _opening(packet)):
                        found.add(key)
        return found

    def close(self) -> None:
        for each in self._sockets:
            each.close()


def _opening(packet: bytes) -> tuple[Address | None, Address, int, int] | None:
    """Of a SYN, a datagram, an echo request or anything else that is no answer."""
    version = packet[0] >> 4
    if version == 4:
        source, target, protocol, rest = packet[12:16], packet[16:20], packet[9], packet[(packet[0] & 15) * 4 :]
    elif version == 6:
        source, target, protocol, rest = packet[8:24], packet[24:40], packet[6], packet[40:]
    else:
        return None
    port = 0
    match protocol:
        case 6:
            if rest[13] & 0x12 != 2:
                return None
            port = int.from_bytes(rest[2:4])
        case 17:
            port = int.from_bytes(rest[2:4])
        case 1 | 58:
            if rest[0] != _ECHO[version]:
                return None
    return ip_address(source), ip_address(target), protocol, port


@contextlib.contextmanager
def servers(places: Collection[Place], ports: Collection[int]) -> Iterator[None]:
    """At every place: who connects is taken in, who sends a datagram gets it back."""
    chosen = selectors.DefaultSelector()
    stop_reading, stop = os.pipe()
    chosen.register(stop_reading, selectors.EVENT_READ)
    opened = [_server(place, port, kind) for place in places for port in ports for kind in (1, 2)]
    for each in opened:
        chosen.register(each, selectors.EVENT_READ)

    def serve() -> None:
        while True:
            for key, _ in chosen.select():
                if key.fileobj == stop_reading:
                    return
                assert isinstance(key.fileobj, socket.socket)
                _serve(key.fileobj)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        os.write(stop, b"x")
        thread.join()
        chosen.close()
        for each in opened:
            each.close()
        os.close(stop)
        os.close(stop_reading)


def _server(place: Place, port: int, kind: int) -> socket.socket:
    """Of both families."""
    opened = netns.open_socket(place.namespace, socket.AF_INET6, kind)
    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind(("::", port))
    if kind == socket.SOCK_STREAM:
        opened.listen(1024)
    opened.setblocking(False)
    return opened


def _serve(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        if opened.type == socket.SOCK_STREAM:
            opened.accept()[0].close()
        else:
            data, peer = opened.recvfrom(2048)
            opened.sendto(data, peer)


class _Sender:
    """One probe under way."""

    def __init__(self, probe: Probe, seen: Seen, mark: int) -> None:
        self.probe, self.seen, self.mark = probe, seen, mark
        family = socket.AF_INET if probe.target.version == 4 else socket.AF_INET6
        kind = {TCP: (socket.SOCK_STREAM, 0), UDP: (socket.SOCK_DGRAM, 0)}.get(
            probe.protocol, (socket.SOCK_RAW, probe.protocol)
        )
        self.socket = netns.open_socket(probe.source.namespace, family, *kind)
        self.socket.setblocking(False)

    @property
    def events(self) -> int:
        return select.POLLOUT if self.probe.protocol == TCP else select.POLLIN

    def send(self) -> None:
        try:
            self.socket.connect((str(self.probe.target), self.probe.port))
            if self.probe.protocol != TCP:
                self.socket.send(self._data())
        except BlockingIOError:
            pass
        except OSError:
            self.seen.refused = True

    def _data(self) -> bytes:
        if self.probe.protocol not in (ICMP, ICMP6):
            return b"hedge" * 4
        head = struct.pack("!BBHI", _ECHO[self.probe.target.version], 0, 0, self.mark)
        if self.probe.protocol == ICMP6:  # its checksum is the kernel's work
            return head
        total = sum(struct.unpack("!4H", head))
        total = (total & 0xFFFF) + (total >> 16)
        return head[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[4:]

    def look(self) -> bool:
        """Whether it is over."""
        try:
            if self.probe.protocol == TCP:
                if fault := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(fault, os.strerror(fault))
                self.seen.answered = True
                return True
            data = self.socket.recv(2048)
        except BlockingIOError:
            return False
        except OSError:
            self.seen.refused = True
            return True
        self.seen.answered = self._is_answer(data)
        return self.seen.answered

    def _is_answer(self, data: bytes) -> bool:
        match self.probe.protocol:
            case 17:
                return True
            case 1 | 58:
                icmp = data[(data[0] & 15) * 4 :] if self.probe.protocol == ICMP else data
                return icmp[0] == _ECHO_REPLY[self.probe.target.version] and icmp[4:8] == struct.pack("!I", self.mark)
            case _:
                return False


def measure(probes: Sequence[Probe], expected: Collection[Probe], ears: Ears) -> dict[Probe, Seen]:
    """Sends all, few of each place at a time. `expected` are those that should be answered: they are waited for."""
    found: dict[Probe, Seen] = {}
    waiting = list(probes)
    while waiting:
        turn, rest, counts = [], [], dict.fromkeys((probe.source for probe in waiting), 0)
        for probe in waiting:
            counts[probe.source] += 1
            (turn if counts[probe.source] <= AT_ONCE else rest).append(probe)
        found |= _round(turn, expected, ears)
        waiting = rest
    return found


def _round(probes: Sequence[Probe], expected: Collection[Probe], ears: Ears) -> dict[Probe, Seen]:
    found = {probe: Seen() for probe in probes}
    senders = {sender.socket.fileno(): sender for sender in (_Sender(p, found[p], n + 1) for n, p in enumerate(probes))}
    poll = select.poll()
    begun = time.monotonic()
    ears.heard()
    for fd, sender in senders.items():
        sender.send()
        if not sender.seen.refused:
            poll.register(fd, sender.events)
    open_ones = {fd for fd, sender in senders.items() if not sender.seen.refused}
    missing = {probe for probe in probes if probe in expected and probe.is_answered}
    while open_ones and time.monotonic() - begun < (AT_MOST_S if missing else AT_LEAST_S):
        for fd, _ in poll.poll(20):
            if senders[fd].look():
                poll.unregister(fd)
                open_ones.discard(fd)
        missing = {probe for probe in missing if not (found[probe].answered or found[probe].refused)}
    heard = ears.heard()
    for sender in senders.values():
        sender.socket.close()
        sender.seen.arrived = sender.probe.key in heard
    return found
