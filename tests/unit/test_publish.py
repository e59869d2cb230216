"""Which ports of a host are given to whom: the choice itself, without a kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.agent_records import DCOS, SNAPSHOT, VAULT, placed

from hedgerow.agent.desired import published
from hedgerow.agent.forwards import Forwarded, LetIn, rows_of
from hedgerow.agent.publish import DRAWN, choose
from hedgerow.errors import BadInput, Conflict, Exhausted, HedgerowError, Refused
from hedgerow.model.endpoint import Endpoint, EndpointKey
from hedgerow.model.published import PortRequest, PublishedPort, request
from hedgerow.wire.codec import from_json, to_json


def port(host_port: int, container_port: int = 80, protocol: str = "tcp", bind: str = "") -> PublishedPort:
    return PublishedPort(protocol=protocol, host_port=host_port, container_port=container_port, bind=bind)


def taken(*ports: PublishedPort) -> Callable[[PublishedPort], HedgerowError | None]:
    def objection(asked: PublishedPort) -> HedgerowError | None:
        return Conflict(f"{asked.at} is taken by web") if any(asked.overlaps(each) for each in ports) else None

    return objection


def chosen(*requests: PortRequest, had: tuple[PublishedPort, ...] = (), others: tuple[PublishedPort, ...] = ()) -> str:
    return ", ".join(map(str, choose(requests, had, taken(*others), Random(1))))


def test_a_port_that_is_named_is_given_or_refused_with_its_owner() -> None:
    assert chosen(request("tcp", 80, 8080)) == "8080->80/tcp"
    with pytest.raises(Conflict, match="8080 is taken by web"):
        chosen(request("tcp", 80, 8080), others=(port(8080, 1),))
    assert chosen(request("udp", 80, 8080), others=(port(8080, 1),)) == "8080->80/udp"


def test_of_a_range_the_first_free_one_is_given() -> None:
    assert chosen(request("tcp", 80, 8000, 8002), others=(port(8000), port(8001))) == "8002->80/tcp"
    with pytest.raises(Exhausted, match=r"8000 to 8001 .* 8001 is taken by web"):
        chosen(request("tcp", 80, 8000, 8001), others=(port(8000), port(8001)))


def test_what_is_drawn_is_nobodys_and_stays_when_it_is_asked_again() -> None:
    requests = (request("tcp", 80), request("tcp", 81), request("udp", 80))
    first = choose(requests, (), taken(), Random(1))
    assert len({each.host_port for each in first if each.protocol == "tcp"}) == 2
    assert all(each.host_port in DRAWN for each in first)
    assert choose(requests, first, taken(*first), Random(2)) == first


def test_what_is_named_comes_before_what_is_drawn_in_the_order_that_was_asked() -> None:
    numbers = [port(number) for number in DRAWN if number != DRAWN[0]]
    requests = (request("tcp", 80), request("tcp", 81, DRAWN[0]))
    with pytest.raises(Exhausted):
        choose(requests, (), taken(*numbers), Random(1))
    assert chosen(request("tcp", 80, 8000, 8001), request("tcp", 81, 8000)) == "8001->80/tcp, 8000->81/tcp"


def test_one_port_for_two_is_refused() -> None:
    with pytest.raises(Conflict, match="asked for twice"):
        chosen(request("tcp", 80, 8080), request("tcp", 81, 8080))


BINDS = st.sampled_from(["", "0.0.0.0", "::", "192.0.2.1", "192.0.2.2", "2001:db8::1"])
PORTS = st.builds(port, st.sampled_from([80, 81]), st.just(1), st.sampled_from(["tcp", "udp"]), BINDS)


@given(PORTS, PORTS)
def test_two_ports_overlap_exactly_when_some_packet_is_for_both(one: PublishedPort, other: PublishedPort) -> None:
    places = [IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), IPv6Address("2001:db8::1"), IPv6Address("fd00::1")]

    def takes(each: PublishedPort) -> set[object]:
        return {
            (each.protocol, each.host_port, place)
            for place in places
            for bind in each.binds()
            if bind.version == place.version and (bind.is_unspecified or bind == place)
        }

    assert one.overlaps(other) == other.overlaps(one) == bool(takes(one) & takes(other))


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        (("sctp", 80), Refused, "tcp and udp"),
        (("tcp", 0), BadInput, "container port 0"),
        (("tcp", 80, 65536), BadInput, "65536"),
        (("tcp", 80, 9, 8), BadInput, "9 to 8"),
        (("tcp", 80, -1), BadInput, "-1"),
        (("tcp", 80, 1, 1, "127.1.2.3"), Refused, "127.1.2.3"),
        (("tcp", 80, 1, 1, "::ffff:127.0.0.1"), Refused, "127.0.0.1"),
        (("tcp", 80, 1, 1, "224.0.0.1"), Refused, "224.0.0.1"),
        (("tcp", 80, 1, 1, "2001:db8::1%eth0"), BadInput, "leave out %eth0"),
        (("tcp", 80, 1, 1, "10.0.0.0/8"), BadInput, "10.0.0.0/8"),
    ],
)
def test_what_cannot_be_published_is_refused(asked: tuple[object, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        request(*asked)  # type: ignore[arg-type]


def endpoint(*ports: PublishedPort, address6: IPv6Address | None = None) -> Endpoint:
    return Endpoint(
        key=EndpointKey("cni", "c1", "eth0"),
        network=DCOS.id,
        address=IPv4Address("9.0.1.2"),
        address6=address6,
        mac=bytes(6),
        published=ports,
    )


def test_a_port_is_a_row_for_each_family_that_the_container_has() -> None:
    both = endpoint(port(8080), address6=IPv6Address("fd09::2"))
    assert [f"{key.name} {row}".strip() for key, row in rows_of(both).items()] == [
        "0.0.0.0:8080/tcp to 9.0.1.2:80",
        "to 9.0.1.2:80/tcp",
        "[::]:8080/tcp to [fd09::2]:80",
        "to [fd09::2]:80/tcp",
    ]
    assert set(rows_of(endpoint(port(8080), port(8081))).values()) == {
        Forwarded("tcp", IPv4Address("0.0.0.0"), 8080, IPv4Address("9.0.1.2"), 80),
        Forwarded("tcp", IPv4Address("0.0.0.0"), 8081, IPv4Address("9.0.1.2"), 80),
        LetIn("tcp", IPv4Address("9.0.1.2"), 80),
    }


def test_what_is_not_attached_or_on_an_internal_network_has_no_ports() -> None:
    one = placed("c1", DCOS, "9.0.1.2")
    with_port = replace(one, endpoint=replace(one.endpoint, published=(port(8080),)))
    internal = replace(with_port, endpoint=replace(with_port.endpoint, network=VAULT.id))
    assert len(published(SNAPSHOT, [with_port])) == 2
    assert published(SNAPSHOT, [replace(with_port, attached=False), internal]) == {}


def test_a_record_of_an_agent_holds_nothing_else_than_ports() -> None:
    good = endpoint(port(8080, bind="2001:db8::1"))
    assert from_json(to_json(good), Endpoint) == good
    for wrong in ('"bind":"x"', '"host_port":0', '"protocol":"sctp"', '"container_port":70000'):
        name = wrong.partition(":")[0]
        text = to_json(good).decode()
        start = text.index(name, text.index("published"))
        end = min(place for place in (text.find(",", start), text.find("}", start)) if place > 0)
        with pytest.raises(BadInput):
            from_json((text[:start] + wrong + text[end:]).encode(), Endpoint)
