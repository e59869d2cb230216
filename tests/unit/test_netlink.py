"""What we pack by hand, read by a decoder that is not ours."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from hedgerow.kernel import bpf, links, netlink
from hedgerow.kernel.netlink import Channel, Peer, Request, Route

MAC, PEER_MAC = bytes.fromhex("024800000001"), bytes.fromhex("024809000002")


def decoded(kind: Any, request: Request) -> Any:
    message = kind(frame(request.kind, request.body))
    message.decode()
    return message


def frame(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", len(body) + 16, kind, 0, 1, 0) + body


def test_a_veth_pair_has_both_ends_as_asked() -> None:
    with Path("/proc/self/ns/net").open() as namespace:
        message = decoded(ifinfmsg, netlink.new_veth("hr-1", MAC, 1420, Peer("eth0", PEER_MAC, namespace.fileno())))
        info = message.get_attr("IFLA_LINKINFO")
        peer = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
        assert peer.get_attr("IFLA_NET_NS_FD") == namespace.fileno()
    assert (message.get_attr("IFLA_IFNAME"), message.get_attr("IFLA_MTU")) == ("hr-1", 1420)
    assert message.get_attr("IFLA_ADDRESS") == "02:48:00:00:00:01"
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    assert (peer.get_attr("IFLA_IFNAME"), peer.get_attr("IFLA_MTU")) == ("eth0", 1420)
    assert peer.get_attr("IFLA_ADDRESS") == "02:48:09:00:00:02"
    assert message["flags"] == peer["flags"] == 0, "both are born down"


def test_a_peer_without_a_namespace_stays_here() -> None:
    message = decoded(ifinfmsg, netlink.new_veth("hr-1", MAC, 1420, Peer("hp-1", PEER_MAC)))
    peer = message.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert peer.get_attr("IFLA_NET_NS_FD") is None


def test_the_tunnel_device_is_in_external_mode() -> None:
    message = decoded(ifinfmsg, links.new_tunnel("hedge0", mac=MAC, mtu=1450, port=64000))
    info = message.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_DATA")
    assert info.get_attr("IFLA_INFO_KIND") == "vxlan"
    assert data.get_attr("IFLA_VXLAN_COLLECT_METADATA") == 1
    assert data.get_attr("IFLA_VXLAN_LEARNING") == 0
    assert data.get_attr("IFLA_VXLAN_PORT") == 64000


@given(st.integers(1, 2**31 - 1), st.integers(552, 65535))
def test_links_are_set_up_and_sized(index: int, mtu: int) -> None:
    up, sized = decoded(ifinfmsg, netlink.set_up(index)), decoded(ifinfmsg, netlink.set_mtu(index, mtu))
    assert (up["index"], up["flags"], up["change"]) == (index, 1, 1)
    assert (sized["index"], sized["flags"], sized["change"], sized.get_attr("IFLA_MTU")) == (index, 0, 0, mtu)


def test_a_host_end_gets_no_link_local_address() -> None:
    family = decoded(ifinfmsg, netlink.without_link_local(7)).get_attr("IFLA_AF_SPEC").get_attr("AF_INET6")
    assert family.get_attr("IFLA_INET6_ADDR_GEN_MODE") == 1


@given(st.ip_addresses(v=4), st.integers(1, 2**31 - 1))
def test_an_address_is_alone_on_its_link(address: IPv4Address, index: int) -> None:
    message = decoded(ifaddrmsg, netlink.replace_address(index, address))
    assert (message["prefixlen"], message["index"]) == (32, index)
    assert message.get_attr("IFA_LOCAL") == message.get_attr("IFA_ADDRESS") == str(address)


@given(st.ip_addresses(v=6), st.integers(1, 2**31 - 1))
def test_an_ipv6_address_is_not_looked_for_at_others(address: IPv6Address, index: int) -> None:
    message = decoded(ifaddrmsg, netlink.replace_address(index, address))
    assert (message["family"], message["prefixlen"], message["index"]) == (socket.AF_INET6, 128, index)
    assert message["flags"] == 2, "IFA_F_NODAD"
    assert IPv6Address(message.get_attr("IFA_LOCAL")) == address


def routes_of(version: int) -> st.SearchStrategy[Route]:
    kind, bits = (IPv4Network, 32) if version == 4 else (IPv6Network, 128)
    own = st.ip_addresses(v=version)
    return st.builds(
        Route,
        to=st.builds(lambda a, n: kind((a, n), strict=False), own, st.integers(0, bits)),
        index=st.integers(1, 1000),
        via=st.none() | own,
        source=st.none() | own,
        onlink=st.booleans(),
        protocol=st.just(72),
    )


@given(routes_of(4) | routes_of(6))
def test_a_route_says_what_it_was_made_from(route: Route) -> None:
    message = decoded(rtmsg, netlink.replace_route(route))
    to = message.get_attr("RTA_DST") or ("0.0.0.0" if route.to.version == 4 else "::")
    assert ip_network(f"{to}/{message['dst_len']}") == route.to
    assert message["family"] == netlink.family_of(route.to.version)
    for name, address in (("RTA_GATEWAY", route.via), ("RTA_PREFSRC", route.source)):
        said = message.get_attr(name)
        assert (ip_address(said) if said else None) == address
    assert message.get_attr("RTA_OIF") == route.index
    assert bool(message["flags"] & 4) == route.onlink
    assert (message["proto"], message["table"]) == (72, 254)


def test_a_program_is_taken_off_by_its_handle_and_priority() -> None:
    message = decoded(tcmsg, netlink.delete_program(5))
    assert (message["index"], message["handle"], message["parent"]) == (5, bpf.HANDLE, 0xFFFFFFF2)
    assert message["info"] >> 16 == bpf.PRIORITY
    assert message.get_attr("TCA_KIND") == "bpf"


def test_a_program_is_put_on_where_it_is_taken_off() -> None:
    clsact, program = (decoded(tcmsg, request) for request in netlink.attach_program(5, 9))
    assert (clsact["index"], clsact["handle"], clsact["parent"]) == (5, 0xFFFF0000, 0xFFFFFFF1)
    assert clsact.get_attr("TCA_KIND") == "clsact"
    assert (program["index"], program["handle"], program["parent"]) == (5, bpf.HANDLE, 0xFFFFFFF2)
    assert program["info"] == decoded(tcmsg, netlink.delete_program(5))["info"]
    options = program.get_attr("TCA_OPTIONS")
    assert (options.get_attr("TCA_BPF_FD"), options.get_attr("TCA_BPF_FLAGS")) == (9, 1)


@given(st.lists(st.tuples(st.integers(1, 100), st.binary(max_size=20)), unique_by=lambda pair: pair[0]))
def test_attributes_are_read_as_they_were_written(pairs: list[tuple[int, bytes]]) -> None:
    written = b"".join(netlink.attribute(kind, data) for kind, data in pairs)
    assert netlink.attributes(written) == dict(pairs)


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_read_to_their_end(data: bytes) -> None:
    netlink.attributes(data)


def test_an_error_names_the_command_and_the_kernels_reason() -> None:
    with Channel() as channel, pytest.raises(OSError, match="ip link set 999999 up"):
        channel.send(netlink.set_up(999999))


def test_a_request_after_a_failed_one_gets_its_own_answer() -> None:
    with Channel() as channel:
        with pytest.raises(OSError, match="ip link set 999999 up"):
            channel.send(netlink.set_up(999999), netlink.set_up(999998))
        assert links.dump(channel)[1].name == "lo"


@pytest.mark.parametrize("interrupted", [2, 1000])
def test_a_list_that_changed_on_its_way_is_asked_for_again(monkeypatch: pytest.MonkeyPatch, interrupted: int) -> None:
    receive, lists = Channel._receive, iter(range(interrupted))

    def receive_interrupted(channel: Channel) -> Any:
        mark = 0x10 if next(lists, None) is not None else 0  # NLM_F_DUMP_INTR
        return ((kind, flags | mark, sequence, body) for kind, flags, sequence, body in receive(channel))

    monkeypatch.setattr(Channel, "_receive", receive_interrupted)
    with Channel() as channel:
        if interrupted == 2:
            assert links.dump(channel)[1].name == "lo"
        else:
            with pytest.raises(InterruptedError, match="changed while it was read"):
                links.dump(channel)


def test_links_and_addresses_are_those_of_the_system() -> None:
    with Channel() as channel:
        shown = {link.index: link.name for link in links.dump(channel).values()}
        assert shown == dict(socket.if_nameindex())
        loopback = links.find(channel, "lo")
        assert loopback is not None
        assert (loopback.index, loopback.mtu_bytes) == (1, 65536)
        assert links.find(channel, "none-such") is None
        for version in (4, 6):
            assert set(links.addresses(channel, 1, version)) <= set(links.addresses(channel, version=version))
            assert all(address.version == version for address in links.addresses(channel, version=version))
            assert all(route.to.version == version for route in links.routes(channel, version))


def test_events_tell_which_link_went_and_whether_a_route_was_ours() -> None:
    link = netlink.link_head(7, netlink.IFF_UP) + netlink.text(netlink.IFLA_IFNAME, "hr-1")
    route = netlink.delete_route(Route(IPv4Network("9.0.0.0/8"), 3, protocol=netlink.PROTO_OURS)).body
    both = frame(netlink.DELLINK, link) + frame(netlink.DELROUTE, route)
    first, second = netlink.messages(both)
    assert (first.kind, first.index, first.link, first.is_up) == (netlink.DELLINK, 7, "hr-1", True)
    assert (second.kind, second.protocol) == (netlink.DELROUTE, 72)


@pytest.mark.parametrize(("forwards", "is_up"), [(0, False), (1, True)])
@pytest.mark.parametrize("index", [7, netlink.ALL_LINKS])
def test_events_tell_which_link_stopped_forwarding(index: int, forwards: int, is_up: bool) -> None:
    body = bytes(4) + netlink.attribute(1, struct.pack("=i", index)) + netlink.number(2, forwards)
    (event,) = netlink.messages(frame(netlink.NEWNETCONF, body))
    assert (event.kind, event.index, event.is_up) == (netlink.NEWNETCONF, index, is_up)


def test_a_change_that_says_nothing_of_forwarding_takes_nothing_away() -> None:
    (event,) = netlink.messages(frame(netlink.NEWNETCONF, bytes(4) + netlink.attribute(1, struct.pack("=i", 7))))
    assert event.is_up


@pytest.mark.parametrize(("kind", "is_bridge"), [("bridge", True), ("veth", False), ("bridge_slave", False)])
def test_events_tell_a_bridge(kind: str, is_bridge: bool) -> None:
    info = netlink.attribute(netlink.IFLA_LINKINFO, netlink.text(netlink.IFLA_INFO_KIND, kind))
    (event,) = netlink.messages(frame(netlink.NEWLINK, netlink.link_head(7) + info))
    assert event.is_bridge is is_bridge


def test_the_words_of_a_request_can_be_typed() -> None:
    route = Route(IPv4Network("9.0.0.0/8"), 3, IPv4Address("169.254.0.1"), IPv4Address("44.128.0.1"), onlink=True)
    assert netlink.replace_route(route).words == (
        "ip route replace 9.0.0.0/8 via 169.254.0.1 dev 3 onlink src 44.128.0.1 proto 4"
    )


def test_events_of_addresses_tell_the_link_and_the_version() -> None:
    for address, is_ipv6 in ((IPv4Address("44.128.0.1"), False), (IPv6Address("fd01:a::1"), True)):
        (event,) = netlink.messages(frame(netlink.DELADDR, netlink.delete_address(7, address).body))
        assert (event.kind, event.index, event.is_ipv6) == (netlink.DELADDR, 7, is_ipv6)
