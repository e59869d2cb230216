"""Walls inside a network, towards the host and towards the outside, as a real agent builds and changes them."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import Proof
from kernel import probes
from kernel.hosts import DCOS, OTHER, UNDERLAY, Container, Host, eventually
from kernel.probes import Probe
from kernel.shop import API, FRONT, HTTP, METRICS, RULES, SHOP, changed, say, vouched

from hedgerow.kernel import netns
from hedgerow.model.app import AppId
from hedgerow.model.network import HostService, Network, Rule
from hedgerow.wire.messages import State

SLOWNESS = float(os.environ.get("HEDGEROW_SLOWNESS", "1"))
SOON_S = 0.1 * SLOWNESS
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
METADATA, OUTSIDE = "169.254.169.254", "203.0.113.1"
REFUSED = (ConnectionRefusedError, PermissionError, OSError)


@dataclass
class Shop:
    """A front and an API that the controller vouches for, one of the network that it does not, one of dcos-1."""

    host: Host
    front: Container
    api: Container
    nobody: Container
    scraper: Container

    @property
    def apps(self) -> list[tuple[str, AppId]]:
        return [(self.front.address, FRONT), (self.api.address, API)]

    def say(self, network: Network) -> None:
        say(self.host, changed(self.host.snapshot, network))


@pytest.fixture(scope="module")
def _shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Host(tmp_path_factory.mktemp("host")) as host:
        host.snapshot = changed(host.snapshot, SHOP)
        host.start_controller()
        host.start_agent()
        host.applied()
        found = Shop(host, *(host.container() for _ in range(4)))
        for container in (found.front, found.api, found.nobody):
            container.add("shop")
        found.scraper.add()
        host.lan.run("ip link set lo up")
        host.lan.run(f"ip address add {OUTSIDE}/32 dev lo")
        host.run(f"ip route add {OUTSIDE}/32 via {OTHER}")
        yield found


@pytest.fixture
def shop(_shop: Shop) -> Shop:
    """As SHOP has it, whatever the last test made of it."""
    as_it_was = changed(_shop.host.snapshot, SHOP, DCOS)
    say(_shop.host, vouched(as_it_was, SHOP, _shop.apps))
    return _shop


@contextlib.contextmanager
def listening(where: Path | str, port: int, kind: int = TCP, address: str = "") -> Iterator[socket.socket]:
    with netns.open_socket(where, socket.AF_INET, kind) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.settimeout(3 * SLOWNESS)
        if kind == TCP:
            server.listen()
        yield server


def caller(where: Path | str, kind: int = TCP) -> socket.socket:
    opened = netns.open_socket(where, socket.AF_INET, kind)
    opened.settimeout(3 * SLOWNESS)
    return opened


def answers(source: Path | str, target: Path | str, to: str, port: int) -> bool:
    """Whether TCP gets there; a refusal must come at once."""
    with listening(target, port), caller(source) as client:
        begun_s = time.monotonic()
        try:
            client.connect((to, port))
        except TimeoutError:
            raise AssertionError(f"{to}:{port}: neither answer nor refusal") from None
        except OSError:
            assert time.monotonic() - begun_s < SOON_S, "a refusal must come at once"
            return False
        return True


def test_a_rule_opens_one_port_one_way_for_those_whom_it_means(shop: Shop) -> None:
    front, api, nobody = shop.front, shop.api, shop.nobody
    assert answers(front.netns, api.netns, api.address, HTTP)
    assert not answers(front.netns, api.netns, api.address, HTTP + 1)
    assert not answers(api.netns, front.netns, front.address, HTTP)
    assert not answers(nobody.netns, api.netns, api.address, HTTP)
    assert not answers(front.netns, nobody.netns, nobody.address, HTTP)
    assert front.reaches(api.address)
    assert not api.reaches(front.address)
    assert not answers(shop.scraper.netns, api.netns, api.address, HTTP)


def test_another_network_may_open_what_a_rule_says_and_hears_only_replies(shop: Shop) -> None:
    scraper, api = shop.scraper, shop.api
    with listening(api.netns, METRICS, UDP) as server, caller(scraper.netns, UDP) as client:
        client.sendto(b"ask", (api.address, METRICS))
        data, back = server.recvfrom(100)
        server.sendto(b"answer", back)
        assert (data, client.recv(100)) == (b"ask", b"answer")
    with listening(scraper.netns, METRICS, UDP) as server, caller(api.netns, UDP) as client:
        client.connect((scraper.address, METRICS))
        client.send(b"unasked")
        with pytest.raises(REFUSED):
            client.recv(100)
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.recv(100)


@contextlib.contextmanager
def connected(shop: Shop) -> Iterator[tuple[socket.socket, socket.socket]]:
    with listening(shop.api.netns, HTTP) as server, caller(shop.front.netns) as client:
        client.connect((shop.api.address, HTTP))
        connection, _ = server.accept()
        connection.settimeout(3 * SLOWNESS)
        with connection:
            client.sendall(b"hello")
            assert connection.recv(100) == b"hello"
            yield client, connection


def test_a_rule_that_goes_cuts_the_flow_that_it_let_begin_and_the_log_names_it(shop: Shop) -> None:
    cut = f"cut: {shop.front.address}:"
    with connected(shop) as (client, connection):
        begun_s = time.monotonic()
        shop.say(_with_rules(RULES[1:]))
        assert time.monotonic() - begun_s < 1.0 * SLOWNESS
        connection.sendall(b"more")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(100)
        with contextlib.suppress(OSError):
            client.sendall(b"and more")
        eventually(lambda: cut in shop.host.log.read_text(), "the log has it")
    line = next(line for line in shop.host.log.read_text().splitlines() if cut in line)
    assert f"to {shop.api.address}:{HTTP}, protocol 6, which shop/front-to-api had let begin" in line
    eventually(lambda: 'hedgerow_cut_flows_total{rule="shop/front-to-api"} ' in shop.host.http("/metrics")[1])


def test_replies_of_an_open_flow_pass_while_another_rule_changes(shop: Shop) -> None:
    with connected(shop) as (client, connection):
        shop.say(_with_rules((*RULES, Rule("more", RULES[0].to, RULES[0].from_))))
        for end, other in ((client, connection), (connection, client)):
            end.sendall(b"still here")
            assert other.recv(100) == b"still here"
        assert answers(shop.api.netns, shop.front.netns, shop.front.address, HTTP + 1)


def test_a_network_that_gets_walls_and_loses_them_again(shop: Shop) -> None:
    one, other = shop.scraper, shop.host.container()
    other.add()
    assert answers(one.netns, other.netns, other.address, HTTP)
    shop.say(replace(DCOS, spec=replace(DCOS.spec, isolated=True)))
    assert not answers(one.netns, other.netns, other.address, HTTP)
    assert not one.reaches(other.address)
    shop.say(DCOS)
    assert answers(one.netns, other.netns, other.address, HTTP)
    shop.host.cni("DEL", other)


def _with_rules(rules: tuple[Rule, ...]) -> Network:
    return replace(SHOP, spec=replace(SHOP.spec, rules=rules))


def test_flows_are_forgotten_when_their_endpoint_goes(shop: Shop) -> None:
    host, api = shop.host, shop.host.container()
    api.add("shop")
    say(host, vouched(host.snapshot, SHOP, [*shop.apps, (api.address, API)]))
    assert answers(shop.front.netns, api.netns, api.address, HTTP)
    assert [flow for flow, _ in host.maps.connections.items() if str(flow.destination) == api.address]
    host.cni("DEL", api)
    eventually(
        lambda: api.address not in {str(flow.destination) for flow, _ in host.maps.connections.items()},
        "its flows are gone",
        1.0 * SLOWNESS,
    )


def test_the_new_owner_of_an_address_hears_nothing_of_the_old_ones_flows(shop: Shop, proof: Proof) -> None:
    """S9: from outside, over what the kernel tracked, and from inside, over what a rule had let begin."""
    times = proof.count("S9", small=1, full=20)
    host = shop.host
    for _ in range(times):
        old, new = host.container(), host.container()
        address = old.add()
        with listening(host.lan.netns, HTTP, UDP, OUTSIDE) as server, caller(old.netns, UDP) as client:
            client.bind(("", HTTP))
            client.sendto(b"hello", (OUTSIDE, HTTP))
            _, back = server.recvfrom(100)
            server.sendto(b"first", back)
            assert client.recv(100) == b"first"
            host.cni("DEL", old)
            old.end()
            new.add(ips=[f"{address}/24"])
            assert new.address == address
            with listening(new.netns, HTTP, UDP) as heard:
                time.sleep(1.0 * SLOWNESS)  # what the promise allows
                for _ in range(50):
                    server.sendto(b"late", back)
                heard.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    heard.recv(100)
        host.cni("DEL", new)


def test_a_host_that_may_not_call_its_containers_still_answers_them(shop: Shop) -> None:
    host, api = shop.host, shop.api
    assert answers(host.namespace, api.netns, api.address, HTTP)
    shop.say(replace(SHOP, spec=replace(SHOP.spec, hosts="deny")))
    assert not answers(host.namespace, api.netns, api.address, HTTP)
    assert api.reaches("169.254.64.3")
    with listening(host.namespace, 53, UDP, "169.254.1.1") as server, caller(api.netns, UDP) as client:
        client.sendto(b"who", ("169.254.1.1", 53))
        _, back = server.recvfrom(100)
        server.sendto(b"that one", back)
        assert client.recv(100) == b"that one"


def test_only_the_named_port_of_the_host_is_open(shop: Shop) -> None:
    host, front = shop.host, shop.front
    for address in (str(UNDERLAY), "169.254.64.3", "44.128.0.1"):
        assert answers(front.netns, host.namespace, address, METRICS)
        assert not answers(front.netns, host.namespace, address, METRICS + 1)
        assert not answers(shop.scraper.netns, host.namespace, address, METRICS)
    assert not answers(front.netns, host.lan.netns, str(OTHER), METRICS)
    shop.say(replace(SHOP, spec=replace(SHOP.spec, host_services=())))
    assert not answers(front.netns, host.namespace, str(UNDERLAY), METRICS)


def test_no_socket_of_the_host_is_open_at_any_of_its_addresses(shop: Shop, proof: Proof) -> None:
    """S10: every listening socket of the host and some more, at every address that it has."""
    extra = proof.count("S10", small=8, full=400)
    host, scraper = shop.host, shop.scraper
    addresses = re.findall(r"inet ([0-9.]+)", host.run("ip -4 address show"))
    listed = host.run("ss -Htln").splitlines()
    ports = {int(line.split()[3].rpartition(":")[2]) for line in listed} | set(range(20000, 20000 + extra))
    assert {9642, 8081} <= ports
    assert {"127.0.0.1", str(UNDERLAY), "169.254.64.1", "169.254.1.1", "44.128.0.1"} <= set(addresses)
    opened, heard = [], []
    with contextlib.ExitStack() as undo:
        for port in range(20000, 20000 + extra):
            undo.enter_context(listening(host.namespace, port))
            heard.append(undo.enter_context(listening(host.namespace, port, UDP)))
        talker = undo.enter_context(caller(scraper.netns, UDP))
        for address in addresses:
            for port in sorted(ports):
                talker.sendto(b"anybody there?", (address, port))
                with caller(scraper.netns) as client:
                    if client.connect_ex((address, port)) == 0:
                        opened.append((address, port))
        for server in heard:
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.recv(100)
    assert opened == []


def test_a_neighbour_with_a_route_to_the_containers_reaches_none(shop: Shop, proof: Proof) -> None:
    """S11."""
    count = proof.count("S11", small=100, full=10_000)
    host, scraper = shop.host, shop.scraper
    host.lan.run(f"ip route replace 9.0.0.0/8 via {UNDERLAY}")
    probe = Probe("a neighbour", host.lan.netns, scraper.address, scraper.netns)
    with probes.running(probe):
        eventually(lambda: probe.sent > count, "enough of them", 60 * SLOWNESS)
    assert len(probe.got) == 0
    assert not answers(host.lan.netns, scraper.netns, scraper.address, HTTP)
    host.lan.run("ip route delete 9.0.0.0/8")


def test_metadata_is_open_to_those_networks_alone_that_name_it(shop: Shop, proof: Proof) -> None:
    """S13: a metadata service in the underlay, and its neighbours in the link-local range."""
    times = proof.count("S13", small=2, full=30)  # a sender is told of 100 refusals a second
    host, front, scraper = shop.host, shop.front, shop.scraper
    for address in (METADATA, "169.254.169.253"):
        host.lan.run(f"ip address replace {address}/32 dev lo")
        host.run(f"ip route replace {address}/32 via {OTHER}")
    for _ in range(times):
        assert not answers(front.netns, host.lan.netns, METADATA, 80)
    shop.say(replace(SHOP, spec=replace(SHOP.spec, host_services=(HostService("metadata"),))))
    for _ in range(times):
        assert answers(front.netns, host.lan.netns, METADATA, 80)
        assert not answers(front.netns, host.lan.netns, "169.254.169.253", 80)
        assert not answers(scraper.netns, host.lan.netns, METADATA, 80)


def test_members_survive_a_restart_of_the_agent_without_its_controller(shop: Shop) -> None:
    host = shop.host
    assert host.controller is not None
    before = dict(host.maps.members.items())
    assert len(before) == 2
    host.stop_agent()
    host.controller.stop()
    for address in before:
        host.maps.members.delete(address)
    host.start_agent()
    eventually(lambda: dict(host.maps.members.items()) == before, "the members are back")
    assert answers(shop.front.netns, shop.api.netns, shop.api.address, HTTP)
    host.start_controller()
    host.controller.say(State(host.snapshot))
    host.applied()
