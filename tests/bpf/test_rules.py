"""Groups, ports and flows: what one side may begin, and what comes back to it. Both hosts judge."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from bpf.packets import ICMP, ICMP6, TCP, UDP
from bpf.rules import API, FRONT, OTHER, allow, closed, configured, dropping, one_way
from bpf.traffic import counted, dial, echo, inject, listening, server, wait_until
from bpf.world import DEV, PROD, Endpoint, World

from bpf import packets as p
from hedgerow.kernel.flows import AllowKey, ConnectionFlag, FlowKey, Range
from hedgerow.kernel.maps import Reason

if TYPE_CHECKING:
    from conftest import Proof

families = pytest.mark.parametrize("version", [4, 6])
WEB, NAMES, ECHO = Range(TCP, 80, 80, rule=7), Range(UDP, 53, 60, rule=8), Range(ICMP, rule=9)
THERE = ["p", "q"]
"""On the asker's host, and on another one."""


def refused(source: Endpoint, target: Endpoint, version: int, port: int = 80) -> None:
    with pytest.raises(ConnectionRefusedError):
        dial(source.container, target.of(version), port)


@families
@pytest.mark.parametrize("there", THERE)
def test_what_one_side_may_begin_is_answered_and_the_other_may_begin_nothing(
    world: World, version: int, there: str
) -> None:
    target = getattr(world, there)
    with one_way(world, WEB, NAMES), server(target.container, 80, version=version):
        assert echo(world.a.container, target.of(version), 80, b"x" * 100_000) == b"x" * 100_000
        refused(world.a, target, version, 81)
        refused(target, world.a, version)
        with server(target.container, 55, UDP, version=version):
            assert echo(world.a.container, target.of(version), 55, b"x", UDP) == b"x"
    refused(world.a, target, version)


@families
@pytest.mark.parametrize("there", THERE)
def test_an_echo_is_answered_one_way(world: World, version: int, there: str) -> None:
    target, protocol = getattr(world, there), ICMP if version == 4 else ICMP6
    heard, heard_there = listening(world.a.container), listening(target.container)
    with one_way(world, ECHO):
        inject(world.a.container, p.ping(world.a.mac, world.a.of(version), target.of(version)))
        wait_until(lambda: len(heard()) == 1, "the reply")
        flow = FlowKey(world.a.of(version), target.of(version), 7, 7, protocol)
        row = world.one.maps.connections.get(flow)
        assert (row.rule, row.flags) == (9, ConnectionFlag.REPLIED)
        heard_there()
        host = world.one if there == "p" else world.two
        with counted(host, PROD.vni, Reason.UNSOLICITED):  # not even with the same identifier
            inject(target.container, p.ping(target.mac, target.of(version), world.a.of(version)))
        assert not [frame for frame in heard() if frame[6:12] == target.mac]


UNASKED: dict[str, Callable[[Endpoint, Endpoint], bytes]] = {
    "a lone ACK": lambda e, to: p.segment(e, to, 80, 4321, flags=p.ACK),
    "a SYN with an ACK": lambda e, to: p.segment(e, to, 80, 4321, flags=p.SYN | p.ACK),
    "a SYN": lambda e, to: p.segment(e, to, 80, 4321, flags=p.SYN),
    "a FIN": lambda e, to: p.segment(e, to, 80, 4321, flags=p.FIN | p.ACK),
    "a reset": lambda e, to: p.segment(e, to, 80, 4321, flags=p.RST),
    "no flags at all": lambda e, to: p.segment(e, to, 80, 4321, flags=0),
    "every flag": lambda e, to: p.segment(e, to, 80, 4321, flags=0xFF),
    "a datagram from the service's port": lambda e, to: p.frame(
        e.mac, p.ip(e.address, to.address, UDP, p.udp(e.address, to.address, 4321, sport=53))),
    "an echo reply": lambda e, to: p.frame(e.mac, p.ip(e.address, to.address, ICMP, p.icmp(0, 0))),
    "an unreachable about nothing": lambda e, to: p.frame(
        e.mac, p.ip(e.address, to.address, ICMP, p.icmp(3, 3, p.ipv4(to.address, e.address, UDP, p.udp(
            to.address, e.address, 53))))),
    "SCTP": lambda e, to: p.frame(e.mac, p.ip(e.address, to.address, 132, p.sctp(80, 4321))),
}  # fmt: skip
"""From the side that may begin nothing, as if it answered."""


@pytest.mark.parametrize("name", UNASKED)
def test_what_nobody_asked_for_does_not_come_back(world: World, name: str) -> None:
    heard = listening(world.a.container)
    with one_way(world, WEB, NAMES, ECHO):
        for source, host in ((world.p, world.one), (world.q, world.two)):
            with counted(host, PROD.vni, Reason.UNSOLICITED):
                inject(source.container, UNASKED[name](source, world.a))
    assert not heard()


def test_none_of_a_flood_of_lone_acks_and_unasked_replies_comes_back(world: World, proof: Proof) -> None:
    """From and to every port, beside flows that are open."""
    count, chosen = proof.count("S7 one way", small=2000, full=100_000, seed=5), random.Random(5)
    with (
        one_way(world, WEB, NAMES),
        server(world.q.container, 80),
        dial(world.a.container, world.q.address, 80) as open_,
    ):
        heard, frames = listening(world.a.container), []
        for source in (world.p, world.q):
            for _ in range(count // 4):
                mine, theirs = chosen.choice((80, 53, chosen.randrange(65536))), chosen.randrange(65536)
                reply = p.udp(source.address, world.a.address, theirs, sport=mine)
                frames.append(
                    (source, p.segment(source, world.a, mine, theirs, flags=chosen.choice((p.ACK, p.SYN | p.ACK))))
                )
                frames.append((source, p.frame(source.mac, p.ip(source.address, world.a.address, UDP, reply))))
        used = struct.pack("!HH", 80, open_.getsockname()[1])
        for source, frame in frames:
            if frame[34:38] != used:
                inject(source.container, frame)
        open_.sendall(b"x")
        assert open_.recv(1) == b"x"
        assert not heard()


@pytest.mark.parametrize("there", THERE)
def test_a_connection_asks_for_segments_not_for_a_connection_back(world: World, there: str) -> None:
    target = getattr(world, there)
    host = world.one if there == "p" else world.two
    with one_way(world, WEB), server(target.container, 80), dial(world.a.container, target.address, 80) as client:
        port = client.getsockname()[1]
        heard = listening(world.a.container)
        with counted(host, PROD.vni, Reason.UNSOLICITED):
            inject(target.container, p.segment(target, world.a, 80, port, flags=p.SYN))
        assert not heard()
        client.sendall(b"x")
        assert client.recv(1) == b"x"


@families
def test_a_flow_is_remembered_on_both_hosts_until_it_ends(world: World, version: int) -> None:
    with one_way(world, WEB), server(world.q.container, 80, version=version):
        with dial(world.a.container, world.q.of(version), 80) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            flow = FlowKey(world.a.of(version), world.q.of(version), client.getsockname()[1], 80, TCP)
            for host in (world.one, world.two):
                row = host.maps.connections.get(flow)
                assert (row.rule, row.flags) == (7, ConnectionFlag.REPLIED)
                assert (row.from_group, row.to_group) == (DEV.vni, PROD.vni)
                assert not row.is_closed
        for host in (world.one, world.two):
            wait_until(lambda host=host: host.maps.connections.get(flow).is_closed, "both sides are done")


@pytest.mark.parametrize("there", THERE)
def test_a_change_of_the_rules_judges_open_flows_anew(world: World, there: str) -> None:
    target = getattr(world, there)
    served = server(target.container, 53, UDP)
    with one_way(world, NAMES), served, dial(world.a.container, target.address, 53, UDP) as client:
        client.send(b"x")
        assert client.recv(1) == b"x"
        flow = FlowKey(world.a.address, target.address, client.getsockname()[1], 53, UDP)
        allow(world, WEB)
        with counted(world.one, DEV.vni, Reason.RULE_CHANGED):
            client.send(b"x")
        assert ConnectionFlag.CUT in world.one.maps.connections.get(flow).flags
        with pytest.raises(OSError, match=r"No route|unreachable"):
            client.recv(1)
        allow(world, NAMES)
        client.send(b"y")
        assert client.recv(1) == b"y"
        assert ConnectionFlag.CUT not in world.one.maps.connections.get(flow).flags


def test_the_event_of_a_cut_flow_names_its_rule(world: World) -> None:
    """A sample of them: where many are dropped, this one may have to be sent again."""
    frame = p.datagram(world.a.mac, world.a.address, world.p.address, 53)
    heard = listening(world.p.container)
    with one_way(world, NAMES), dropping(world.one) as dropped:
        inject(world.a.container, frame)
        wait_until(lambda: len(heard()) == 1)
        allow(world, WEB)

        def rules() -> set[int]:
            inject(world.a.container, frame)
            return {event.rule for event in dropped() if event.reason == Reason.RULE_CHANGED}

        wait_until(lambda: rules() == {8})


@pytest.mark.parametrize("there", THERE)
def test_a_reply_does_not_pass_when_its_flow_might_no_longer_begin(world: World, there: str) -> None:
    target = getattr(world, there)
    host = world.one if there == "p" else world.two
    heard, heard_there = listening(world.a.container), listening(target.container)
    with one_way(world, NAMES):
        inject(world.a.container, p.datagram(world.a.mac, world.a.address, target.address, 53))
        wait_until(lambda: len(heard_there()) == 1 and len(heard()) == 1, "and nobody listens")
        for each in world.hosts:
            each.maps.allowed.delete(AllowKey(DEV.vni, PROD.vni))
        with counted(host, PROD.vni, Reason.RULE_CHANGED):
            reply = p.udp(target.address, world.a.address, 4321, sport=53)
            inject(target.container, p.frame(target.mac, p.ip(target.address, world.a.address, UDP, reply)))
    assert not heard()


@families
@pytest.mark.parametrize("there", THERE)
def test_an_error_about_a_flow_comes_back(world: World, version: int, there: str) -> None:
    """Nobody listens at the port: the container's own kernel says so."""
    target = getattr(world, there)
    with one_way(world, NAMES), dial(world.a.container, target.of(version), 53, UDP) as client:
        client.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)


@families
def test_an_error_about_a_reply_reaches_who_replied(world: World, version: int) -> None:
    """The asker is gone when the answer comes."""
    with one_way(world, NAMES), server(world.q.container, 53, UDP, version=version):
        with dial(world.a.container, world.q.of(version), 53, UDP) as client:
            client.send(b"x")
            client.recv(1)
            port = client.getsockname()[1]
        heard = listening(world.q.container)
        body = p.udp(world.q.of(version), world.a.of(version), port, sport=53)
        inject(world.q.container, p.frame(world.q.mac, p.ip(world.q.of(version), world.a.of(version), UDP, body)))
        wait_until(lambda: len(heard()) == 1, "unreachable, with the reply quoted")


def test_an_error_that_quotes_another_flow_than_it_came_by_is_none(world: World) -> None:
    heard, heard_there = listening(world.a.container), listening(world.q.container)
    with one_way(world, NAMES):
        inject(world.a.container, p.datagram(world.a.mac, world.a.address, world.q.address, 53))
        wait_until(lambda: len(heard_there()) == 1 and len(heard()) == 1, "and nobody listens")
        asked = p.ipv4(world.a.address, world.p.address, UDP, p.udp(world.a.address, world.p.address, 53))
        with counted(world.two, PROD.vni, Reason.UNSOLICITED):
            inject(world.q.container, p.frame(world.q.mac, p.ipv4(world.q.address, world.a.address, ICMP,
                                                                 p.icmp(3, 3, asked))))  # fmt: skip
    assert not heard()


@families
@pytest.mark.parametrize("there", THERE)
def test_fragments_go_by_what_their_first_one_said(world: World, version: int, there: str) -> None:
    """Eight of them a datagram, each way."""
    target = getattr(world, there)
    data = bytes(range(256)) * 40
    with one_way(world, NAMES), server(target.container, 53, UDP, version=version):
        assert echo(world.a.container, target.of(version), 53, data, UDP) == data


@families
def test_a_fragment_whose_first_one_nobody_saw_is_lost(world: World, version: int) -> None:
    source, to = world.a.of(version), world.q.of(version)
    if version == 4:
        lost = p.frame(world.a.mac, p.ipv4(source, to, UDP, p.MARK, fragment=100))
    else:
        lost = p.frame(world.a.mac, p.ipv6(source, to, 44, p.fragment_header(UDP, offset=100) + p.MARK))
    heard = listening(world.q.container)
    with one_way(world, NAMES), counted(world.one, DEV.vni, Reason.LOST_FRAGMENT):
        inject(world.a.container, lost)
    with counted(world.one, DEV.vni, Reason.ISOLATED):
        inject(world.a.container, lost)
    assert not heard()


def test_a_segment_too_short_for_its_flags_is_malformed_where_they_count(world: World) -> None:
    short = struct.pack("!HHII", 4321, 80, 1, 1)
    heard = listening(world.p.container)
    with one_way(world, WEB), counted(world.one, DEV.vni, Reason.MALFORMED):
        inject(world.a.container, p.frame(world.a.mac, p.ipv4(world.a.address, world.p.address, TCP, short)))
    assert not heard()


def test_a_protocol_without_ports_passes_where_everything_may(world: World) -> None:
    heard, back = listening(world.q.container), listening(world.a.container)
    there = p.frame(world.a.mac, p.ip(world.a.address, world.q.address, 132, p.sctp(1, 2)))
    with one_way(world, WEB, NAMES, ECHO), counted(world.one, DEV.vni, Reason.NO_RULE):
        inject(world.a.container, there)
    assert not heard()
    with one_way(world, Range()):
        inject(world.a.container, there)
        wait_until(lambda: len(heard()) == 1)
        inject(world.q.container, p.frame(world.q.mac, p.ip(world.q.address, world.a.address, 132, p.sctp(2, 1))))
        wait_until(lambda: any(frame[23] == 132 for frame in back()))


def test_icmp_of_the_other_family_is_no_icmp(world: World) -> None:
    heard = listening(world.p.container)
    with one_way(world, ECHO):
        for version, protocol in ((4, ICMP6), (6, ICMP)):
            source, to = world.a.of(version), world.p.of(version)
            with counted(world.one, DEV.vni, Reason.NO_RULE):
                inject(world.a.container, p.frame(world.a.mac, p.ip(source, to, protocol, p.icmp(8, 0))))
    assert not heard()


# ---- networks with rules


@pytest.fixture
def ends(world: World) -> Iterator[dict[str, Endpoint]]:
    with closed(world, PROD) as found:
        yield found


@families
def test_members_of_a_network_with_rules_reach_only_whom_a_rule_names(
    world: World, ends: dict[str, Endpoint], version: int
) -> None:
    with one_way(world, WEB, source=FRONT, target=API):
        for there in ("api", "near"):
            target = ends[there]
            with server(target.container, 80, version=version):
                assert echo(ends["front"].container, target.of(version), 80, b"x") == b"x"
                refused(ends["other"], target, version)
            refused(target, ends["front"], version)
        with counted(world.two, PROD.vni, Reason.NO_RULE):
            refused(ends["other"], ends["front"], version)
        refused(ends["api"], ends["near"], version)


def test_a_rule_within_a_group_is_needed_by_its_own_members(world: World, ends: dict[str, Endpoint]) -> None:
    api, near = ends["api"], ends["near"]
    with server(near.container, 80):
        refused(api, near, 4)
        with one_way(world, WEB, source=API, target=API):
            assert echo(api.container, near.address, 80, b"x") == b"x"


def test_who_is_no_member_is_of_its_networks_own_group(world: World, ends: dict[str, Endpoint]) -> None:
    with server(ends["api"].container, 80):
        with one_way(world, WEB, source=OTHER, target=API):
            assert echo(ends["other"].container, ends["api"].address, 80, b"x") == b"x"
        refused(ends["other"], ends["api"], 4)


def test_another_network_reaches_a_closed_one_by_a_rule_alone(world: World, ends: dict[str, Endpoint]) -> None:
    with server(ends["api"].container, 80):
        refused(world.a, ends["api"], 4)
        with one_way(world, WEB, target=API):
            assert echo(world.a.container, ends["api"].address, 80, b"x") == b"x"
            refused(world.a, ends["front"], 4)


def test_an_address_that_nobody_has_is_told_only_to_who_may_ask(world: World, ends: dict[str, Endpoint]) -> None:
    nobody = PROD.prefixes(2)[0][99]
    with one_way(world, WEB, source=FRONT, target=OTHER), pytest.raises(OSError, match=r"No route|refused"):
        dial(ends["front"].container, nobody, 80)
    with counted(world.one, PROD.vni, Reason.NO_RULE), pytest.raises(ConnectionRefusedError):
        dial(ends["front"].container, nobody, 80)


# ---- limits


def test_who_has_its_share_of_flows_is_refused_new_ones_and_keeps_the_old(world: World) -> None:
    asker = world.endpoint(world.one, DEV, world.spare())
    target = world.q
    with one_way(world, NAMES), configured(world.one, connections_each=5):
        heard = listening(target.container)
        for port in range(1000, 1005):
            body = p.udp(asker.address, target.address, 53, sport=port)
            inject(asker.container, p.frame(asker.mac, p.ip(asker.address, target.address, UDP, body)))
        wait_until(lambda: len(heard()) == 5)
        with counted(world.one, DEV.vni, Reason.CONNECTIONS_FULL):
            inject(asker.container, p.datagram(asker.mac, asker.address, target.address, 53))
        body = p.udp(asker.address, target.address, 53, sport=1002)
        inject(asker.container, p.frame(asker.mac, p.ip(asker.address, target.address, UDP, body)))
        wait_until(lambda: len(heard()) == 1, "an old one")
        with server(target.container, 54, UDP):  # others have a share of their own
            assert echo(world.a.container, target.address, 54, b"x", UDP) == b"x"
        assert world.one.maps.opened.get(asker.address) == 5
        flow = FlowKey(asker.address, target.address, 1000, 53, UDP)
        assert world.one.maps.connections.delete(flow)
        world.one.maps.closed.put(asker.address, 1)
        heard()
        inject(asker.container, p.datagram(asker.mac, asker.address, target.address, 53))
        wait_until(lambda: len(heard()) == 1, "the place of the one that was taken out")
