"""Connections that are tracked, and which of them are forgotten: in a namespace of its own."""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from hedgerow.kernel import conntrack, netns

TRACKING = "table inet t { chain c { type filter hook output priority 0; ct state new counter; }; }"
PAIRS = {4: ("10.9.0.1", "10.9.0.2"), 6: ("fd09::1", "fd09::2")}


@dataclass(frozen=True)
class Place:
    path: Path

    def call(self, source: str, to: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        with netns.open_socket(self.path, family, socket.SOCK_DGRAM) as client:
            client.bind((source, 0))
            client.sendto(b"x", (to, port))

    def tracked(self) -> set[int]:
        """The ports that were called."""
        shown = subprocess.run(
            ["ip", "netns", "exec", self.path.name, "cat", "/proc/net/nf_conntrack"],
            capture_output=True,
            text=True,
            check=True,
        )
        return {int(row.split("dport=")[1].split()[0]) for row in shown.stdout.splitlines() if "dport=" in row}

    def forget(self, address: str) -> None:
        with netns.inside(self.path):
            conntrack.forget(ip_address(address))


@pytest.fixture
def place() -> Iterator[Place]:
    name = f"t{secrets.token_hex(4)}"
    with contextlib.ExitStack() as undo:
        subprocess.run(["ip", "netns", "add", name], check=True)
        undo.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
        lines = ["link set lo up"]
        lines += [
            f"address add {each}/{32 if version == 4 else 128} dev lo" for version in PAIRS for each in PAIRS[version]
        ]
        subprocess.run(["ip", "-n", name, "-b", "-"], input="\n".join(lines), text=True, check=True)
        subprocess.run(["ip", "netns", "exec", name, "nft", "-f", "-"], input=TRACKING, text=True, check=True)
        yield Place(netns.named(name))


@pytest.mark.parametrize("version", [4, 6])
def test_what_an_address_opened_and_what_was_opened_to_it_is_forgotten_and_nothing_else(
    place: Place, version: int
) -> None:
    """S9. Of IPv6 the kernel's own filter would take the others."""
    one, other = PAIRS[version]
    place.call(one, other, 1)
    place.call(other, one, 2)
    place.call(other, other, 3)
    for foreign in PAIRS[10 - version]:
        place.call(foreign, foreign, 4)
    assert place.tracked() == {1, 2, 3, 4}
    place.forget(one)
    assert place.tracked() == {3, 4}


@pytest.mark.parametrize("version", [4, 6])
def test_of_udp_only_what_called_the_port_is_forgotten(place: Place, version: int) -> None:
    one, other = PAIRS[version]
    place.call(one, other, 53)
    place.call(one, other, 54)
    for foreign in PAIRS[10 - version]:
        place.call(foreign, foreign, 55)
    with netns.inside(place.path):
        conntrack.forget_udp(version, 53)
    assert place.tracked() == {54, 55}
