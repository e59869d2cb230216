"""Kills at random moments, under attach and detach: no packet is lost, no address leaks or is given twice."""

from __future__ import annotations

import random
import re
import signal
import socket
import threading
import time
from dataclasses import dataclass, field

from conftest import Proof
from kernel.hosts import Container, Host, eventually

from hedgerow.kernel import netns

PORT = 7007


def _answered(host: Host, command: str, container: Container) -> str:
    """As the shim does: the whole request again until somebody answers it."""
    while True:
        try:
            status, body = host.cni(command, container)
        except (OSError, IndexError):
            continue
        assert status == 200, body
        return body


@dataclass
class Stream:
    """Numbered datagrams, one a millisecond."""

    source: Container
    target: Container
    sent: int = 0
    received: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._inlet = netns.open_socket(self.target.netns, socket.AF_INET, socket.SOCK_DGRAM)
        self._inlet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._inlet.bind((self.target.address, PORT))
        self._inlet.settimeout(1.0)
        self._outlet = netns.open_socket(self.source.netns, socket.AF_INET, socket.SOCK_DGRAM)
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._ended.wait(0.001):
            self._outlet.sendto(self.sent.to_bytes(4), (self.target.address, PORT))
            self.sent += 1

    def _receive(self) -> None:
        while True:
            try:
                self.received.add(int.from_bytes(self._inlet.recv(16)))
            except TimeoutError:
                if self._ended.is_set():
                    return

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._inlet.close()
        self._outlet.close()


class Churn:
    """Containers that come and go, one after the other; `twice` are the addresses that two had at once."""

    def __init__(self, host: Host, taken: list[str]) -> None:
        self.rounds = 0
        self.twice: list[str] = []
        self.faults: list[BaseException] = []
        self._host = host
        self._containers = [host.container() for _ in range(3)]
        self._attached = dict.fromkeys(taken, "steady")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                for container in self._containers:
                    _answered(self._host, "ADD", container)
                    shown = container.run("ip -oneline -4 address show eth0").split()[3].partition("/")[0]
                    if shown in self._attached:
                        self.twice.append(shown)
                    self._attached[shown] = container.id
                for container in self._containers:
                    self._attached = {a: id for a, id in self._attached.items() if id != container.id}
                    _answered(self._host, "DEL", container)
                self.rounds += 1
        except BaseException as fault:
            self.faults.append(fault)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def test_kills_under_attach_and_detach_lose_no_packet_and_no_address(own_host: Host, proof: Proof) -> None:
    host, seed = own_host, random.randrange(1 << 32)
    kills, moments = proof.count("agent kills under attach", small=6, full=100, seed=seed), random.Random(seed)
    one, other = host.container(), host.container()
    steady = [one.add(), other.add()]
    stream, churn = Stream(one, other), Churn(host, steady)
    try:
        for _ in range(kills):
            time.sleep(moments.uniform(0.0, 0.3))  # the moment is what is tried, not waited for
            host.stop_agent(signal.SIGKILL)
            host.start_agent()
    finally:
        churn.end()
        stream.end()
    assert churn.faults == []
    assert churn.rounds > 0
    assert churn.twice == []
    assert len(stream.received) == stream.sent
    assert re.search(r"^hedgerow_addresses_taken 2\.0$", host.http("/metrics")[1], re.MULTILINE)
    assert sorted(str(address) for address, _ in host.maps.endpoints.items()) == sorted(steady)
    links = re.compile(r"\bhr-[0-9a-f]{11}\b")
    eventually(lambda: len(set(links.findall(host.run("ip link show")))) == 2, "only the steady links are left")
