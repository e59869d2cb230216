"""What the eyes see of a namespace: routes, neighbours, links, filters, listeners, and chains that drop."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from hedgerow.kernel import bpf, chains, links, listeners, lookups, netns
from hedgerow.kernel.lookups import RouteTo
from hedgerow.kernel.netlink import Channel

OTHER = ip_address("192.0.2.2")


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace with a veth pair into another one: 192.0.2.1 on `one`, and `two` there."""

    path: Path
    beyond: Path

    def run(self, command: str) -> None:
        with netns.inside(self.path):
            subprocess.run(command.split(), check=True, capture_output=True)


def _namespace(life: ExitStack) -> Path:
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 1000000"], stdout=subprocess.PIPE)

    def end() -> None:
        holder.kill()
        holder.communicate()

    life.callback(end)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"\n"
    return Path(f"/proc/{holder.pid}/ns/net")


@pytest.fixture
def place() -> Iterator[Place]:
    with ExitStack() as life:
        found = Place(_namespace(life), _namespace(life))
        beyond = os.open(found.beyond, os.O_RDONLY)
        life.callback(os.close, beyond)
        with netns.inside(found.path):
            words = f"ip link add one mtu 1400 type veth peer name two netns /proc/{os.getpid()}/fd/{beyond}"
            subprocess.run(words.split(), check=True, pass_fds=(beyond,))
        for command in ("ip link set lo up", "ip address add 192.0.2.1/24 dev one", "ip link set one up"):
            found.run(command)
        yield found


@pytest.mark.parametrize(
    ("route", "to", "found"),
    [
        ("", "192.0.2.2", RouteTo("unicast", "one")),
        ("", "198.51.100.1", RouteTo("none")),
        (
            "198.51.100.0/24 via 192.0.2.2 dev one mtu 1300",
            "198.51.100.1",
            RouteTo("unicast", "one", "192.0.2.2", 1300),
        ),
        ("blackhole 198.51.100.0/24", "198.51.100.1", RouteTo("blackhole")),
        ("unreachable 198.51.100.0/24", "198.51.100.1", RouteTo("unreachable")),
        ("prohibit 198.51.100.0/24", "198.51.100.1", RouteTo("prohibit")),
        ("", "192.0.2.1", RouteTo("local", "lo")),
        ("", "2001:db8::1", RouteTo("none")),
    ],
)
def test_a_route_is_found_as_a_packet_would_find_it(place: Place, route: str, to: str, found: RouteTo) -> None:
    if route:
        place.run(f"ip route add {route}")
    with netns.inside(place.path), Channel() as channel:
        assert lookups.route_to(channel, ip_address(to)) == found


def test_a_link_tells_of_its_other_end(place: Place) -> None:
    with netns.inside(place.path), Channel() as channel:
        state = lookups.link_state(channel, links.index_of("one"))
        assert state is not None
        assert (state.name, state.mtu_bytes, state.is_up, state.has_carrier) == ("one", 1400, True, False)
        fd = os.open(place.beyond, os.O_RDONLY)
        try:
            assert lookups.namespace_number(channel, fd) == state.peer_namespace
        finally:
            os.close(fd)
        assert lookups.link_state(channel, 99) is None
    with netns.inside(place.beyond), Channel() as channel:
        assert lookups.link_state(channel, state.peer_index) is not None


def test_a_neighbour_has_a_state_and_a_mac(place: Place) -> None:
    with netns.inside(place.path), Channel() as channel:
        index = links.index_of("one")
        assert lookups.neighbour(channel, index, OTHER) == ("", "")
        place.run("ip neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev one nud permanent")
        assert lookups.neighbour(channel, index, OTHER) == ("permanent", "02:00:00:00:00:02")


def test_filters_are_told_with_their_priority(place: Place) -> None:
    with netns.inside(place.path), Channel() as channel:
        index = links.index_of("one")
        assert lookups.filters(channel, index) == []
        place.run("tc qdisc add dev one clsact")
        subprocess.run(
            ["tc", "filter", "add", "dev", "one", "ingress", "prio", "3", "bpf", "da", "bytecode", "1,6 0 0 2,"],
            check=True,
        )
        assert (3, "bpf") in [(order, name.partition(" ")[0]) for order, name in lookups.filters(channel, index)]
        assert bpf.attached_id(index) == 0


def test_listeners_are_found_with_their_process(place: Place) -> None:
    with ExitStack() as life:
        with netns.inside(place.path):
            life.enter_context(socket.create_server(("192.0.2.1", 80), backlog=5))
            life.enter_context(socket.create_server(("::", 81), family=socket.AF_INET6, dualstack_ipv6=True))
            life.enter_context(socket.create_server(("::", 82), family=socket.AF_INET6))
            udp = life.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            udp.bind(("0.0.0.0", 53))
            found = {each.port: each for each in (*listeners.listeners("tcp"), *listeners.listeners("udp"))}
        assert sorted(found) == [53, 80, 81, 82]
        mine, other = ip_address("192.0.2.1"), ip_address("192.0.2.9")
        heard = {port: (each.hears(mine), each.hears(other)) for port, each in found.items()}
        assert heard == {53: (True, True), 80: (True, False), 81: (True, True), 82: (False, False)}
        assert found[82].hears(ip_address("fd00::1"))
        assert (found[80].backlog, found[80].waiting) == (5, 0)
        own = netns.OWN.stat().st_ino
        (known,) = listeners.with_processes([found[80]], own)
        assert (known.pid, known.state) == (os.getpid(), "")


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("", ()),
        ("add chain inet x a { type filter hook input priority 0; }", ()),
        (
            "add chain inet x a { type filter hook input priority 0; policy drop; }",
            ("inet x, chain a: policy drop",),
        ),
        (
            "add chain inet x a { type filter hook input priority 0; }; add chain inet x b;"
            "add rule inet x b tcp dport 80 drop; add rule inet x a jump b",
            ("inet x, chain a: has a rule that drops",),
        ),
        ("add chain inet x a { type filter hook output priority 0; policy drop; }", ()),
    ],
)
def test_chains_that_drop_are_named(place: Place, rules: str, told: tuple[str, ...]) -> None:
    with netns.inside(place.path):
        subprocess.run(["nft", f"add table inet x; {rules}"], check=True)
        assert chains.dropping(("input",)) == told
        assert chains.dropping(("input",), but="x") == ()
        assert (chains.has_table("inet", "x"), chains.has_table("inet", "y")) == (True, False)
