"""Probes: datagrams that go all the while, some of which must arrive and some never."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hedgerow.kernel import netns

PORT = 9999
INTERVAL_S = 0.002


@dataclass
class Probe:
    """From one namespace to an address of another, which listens at `at` (all its addresses unless said)."""

    name: str
    source: Path | str
    to: str
    listens: Path | str
    at: str = ""
    port: int = PORT
    sent: int = 0
    got: set[int] = field(default_factory=set)

    def open(self, undo: contextlib.ExitStack) -> None:
        family = socket.AF_INET6 if ":" in self.to else socket.AF_INET
        self._out = undo.enter_context(netns.open_socket(self.source, family, socket.SOCK_DGRAM))
        self._in = undo.enter_context(netns.open_socket(self.listens, family, socket.SOCK_DGRAM))
        self._in.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._in.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._in.bind((self.at, self.port))
        self._in.settimeout(5)
        with netns.open_socket(self.listens, family, socket.SOCK_DGRAM) as near:
            near.sendto(b"control", (self.to, self.port))
        assert self._in.recv(100) == b"control", f"{self.name}: nobody would hear it"
        for end in (self._in, self._out):
            end.setblocking(False)

    def send(self) -> None:
        self.sent += 1
        with contextlib.suppress(OSError):  # a refusal is as good as silence
            self._out.sendto(f"{self.name} {self.sent}".encode(), (self.to, self.port))
        with contextlib.suppress(BlockingIOError):
            while True:
                name, _, number = self._in.recv(100).decode().rpartition(" ")
                if name == self.name:
                    self.got.add(int(number))

    @property
    def lost(self) -> int:
        return self.sent - len(self.got)


@contextlib.contextmanager
def running(*probes: Probe) -> Iterator[None]:
    """Sends them all, over and over, until the block ends; then waits for what is under way."""
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(INTERVAL_S):
            for probe in probes:
                probe.send()

    with contextlib.ExitStack() as undo:
        for probe in probes:
            probe.open(undo)
        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            for probe in probes:
                probe.sent -= 1
                probe.send()
