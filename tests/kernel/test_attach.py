"""An endpoint on a real kernel, made by a real agent."""

from __future__ import annotations

import json
import os
import secrets
import socket
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from kernel.hosts import DCOS, DEV, OTHER, UNDERLAY, Container, Host, eventually

from hedgerow.kernel import netns


def test_containers_of_one_network_reach_each_other_and_those_of_another_do_not(host: Host) -> None:
    one, other, stranger = host.container(), host.container(), host.container()
    one.add()
    other.add()
    stranger.add("dev")
    assert one.reaches(other.address)
    assert not one.reaches(stranger.address)


def test_a_container_has_its_address_alone_the_gateway_and_a_way_out(host: Host) -> None:
    container = host.container()
    address = container.add()
    shown = json.loads(container.run("ip -json address show eth0"))[0]
    assert [(a["local"], a["prefixlen"]) for a in shown["addr_info"] if a["family"] == "inet"] == [(address, 32)]
    assert shown["mtu"] == 1420
    routes = {(route["dst"], route.get("gateway")) for route in json.loads(container.run("ip -json route show"))}
    assert routes == {("169.254.64.1", None), ("9.0.0.0/8", "169.254.64.1"), ("default", "169.254.64.1")}


def test_a_container_goes_out_by_its_hosts_address(host: Host) -> None:
    container = host.container()
    container.add()
    assert container.reaches(str(OTHER))


def test_a_host_reaches_its_own_containers_from_its_vtep_address(host: Host) -> None:
    container = host.container()
    address = container.add()
    host.run(f"ping -c 1 -W 2 {address}")
    assert "src 44.128.0.1" in host.run(f"ip route get {address}")


def test_the_gateway_answers(host: Host) -> None:
    container = host.container()
    container.add()
    assert container.reaches("169.254.64.1")


def test_a_repeated_add_gives_the_same_address_and_a_new_link(host: Host) -> None:
    container, other = host.container(), host.container()
    address = container.add()
    other.add()
    link = host.run(f"ip -oneline link show {container.link}")
    assert container.add() == address
    assert host.run(f"ip -oneline link show {container.link}").split()[0] != link.split()[0]
    assert container.reaches(other.address)


def test_a_container_that_starts_again_in_another_namespace_keeps_its_address(host: Host) -> None:
    container, other = host.container(), host.container()
    address = container.add()
    other.add()
    container.end()
    again = Container(host, host.container().holder, id=container.id)
    assert again.add() == address
    assert again.reaches(other.address)


def test_a_deleted_endpoint_leaves_nothing(host: Host) -> None:
    container = host.container()
    container.add()
    assert host.cni("DEL", container) == (200, "")
    assert host.maps.endpoints.get(IPv4Address(container.address)) is None
    eventually(lambda: container.link not in host.run("ip link"), "the link goes")
    assert host.cni("DEL", container) == (200, "")


def test_a_freed_address_is_not_the_next_to_be_given(host: Host) -> None:
    one, other = host.container(), host.container()
    first = one.add()
    host.cni("DEL", one)
    assert other.add() != first


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("ip address delete {address}/32 dev eth0", "address 9.0.1."),
        ("ip route delete 9.0.0.0/8", "route 9.0.0.0/8"),
        ("ip route delete default", "route 0.0.0.0/0"),
        ("ip link set eth0 down", "eth0 up"),
        ("ip link set eth0 address 02:00:00:00:00:77", "MAC address"),
    ],
    ids=["address", "route to the network", "default route", "interface", "mac"],
)
def test_check_names_what_the_container_lacks(host: Host, command: str, named: str) -> None:
    container = host.container()
    container.add()
    assert host.cni("CHECK", container) == (200, "")
    container.run(command.format(address=container.address))
    status, body = host.cni("CHECK", container)
    assert status == 500
    assert named in body


@pytest.mark.parametrize("row", ["ports", "endpoints"])
def test_check_names_a_lost_row_of_the_data_path(host: Host, row: str) -> None:
    container = host.container()
    container.add()
    row_of = host.maps.endpoints.get(IPv4Address(container.address))
    assert row_of is not None
    host.maps.ports.delete(row_of.ifindex) if row == "ports" else host.maps.endpoints.delete(
        IPv4Address(container.address)
    )
    status, body = host.cni("CHECK", container)
    assert status == 500
    assert {"ports": "row of hr-", "endpoints": "no endpoint row"}[row] in body


def _path_cases(tmp_path: Path) -> list[tuple[str, str]]:
    (tmp_path / "file").write_text("")
    return [
        (f"/proc/{os.getpid()}/ns/uts", "is no network namespace"),
        (str(tmp_path / "file"), "is no network namespace"),
        (str(tmp_path / "nothing"), "there is no network namespace"),
    ]


def test_only_a_containers_network_namespace_is_taken(host: Host, tmp_path: Path) -> None:
    for path, said in [*_path_cases(tmp_path), (str(host.namespace), "the host's own")]:
        container = Elsewhere(host, host.container().holder, path=path)
        status, body = host.cni("ADD", container)
        assert status == 500, path
        assert said in body
        assert container.link not in host.run("ip link")


class Elsewhere(Container):
    """A container that says another path is its namespace's."""

    def __init__(self, host: Host, holder: object, *, path: str) -> None:
        super().__init__(host, holder, id=secrets.token_hex(16))  # type: ignore[arg-type]
        self.path = path

    @property
    def netns(self) -> str:
        return self.path


def test_an_attach_that_fails_half_way_leaves_nothing(host: Host) -> None:
    container = host.container()
    container.run("ip link add eth0 type veth peer name other")
    status, body = host.cni("ADD", container)
    assert status == 500
    assert "File exists" in body
    eventually(lambda: container.link not in host.run("ip link"), "the half of it goes")
    container.run("ip link delete eth0")
    assert container.add().startswith("9.0.1.")


def test_the_same_container_may_be_on_two_networks(host: Host) -> None:
    container, other = host.container(), host.container()
    container.add()
    status, _ = host.cni("ADD", container, "dev", "eth1")
    assert status == 200
    other.add("dev")
    assert container.reaches(other.address)
    routes = container.run("ip route show")
    assert f"{DEV.spec.subnet} via {DEV.gateway} dev eth1" in routes
    assert routes.count("default") == 1


def test_a_container_on_two_networks_answers_whoever_calls_it_on_either(host: Host) -> None:
    """To an address that only the first link leads to, it answers by that link with the second one's address."""
    container, liar = host.container(), host.container()
    container.add()
    liar.add()
    status, body = host.cni("ADD", container, "dev", "eth1")
    assert status == 200
    second = json.loads(body)["ips"][0]["address"].partition("/")[0]
    container.run("sysctl -q -w net.ipv4.conf.all.rp_filter=0")
    assert "dev eth0" in container.run(f"ip route get 44.128.0.1 from {second}")
    host.run(f"ping -c 1 -W 2 -I 44.128.0.1 {second}")
    liar.run(f"ip address add {second}/32 dev eth0")
    with pytest.raises(AssertionError, match="100% packet loss"):
        liar.run(f"ping -c 1 -W 0.3 -I {second} 169.254.64.1")


def test_nobody_but_the_host_itself_speaks_the_tunnels_port(host: Host) -> None:
    container = host.container()
    container.add()
    with netns.open_socket(container.netns, socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x" * 60, (str(OTHER), 64000))
    counted = 'hedgerow_dropped_packets_total{network="dcos-1",reason="tunnel_port"}'
    eventually(lambda: counted in host.http("/metrics")[1], "the packet is dropped, and counted")


def test_the_local_http_tells_what_dcos_agents_told(host: Host) -> None:
    container = host.container()
    container.add()
    status, text = host.http("/overlay-agent/overlay")
    told = json.loads(text)
    assert status == 200
    assert told["ip"] == str(UNDERLAY)
    overlay = next(each for each in told["overlays"] if each["info"]["name"] == "dcos-1")
    assert overlay["subnet"] == "9.0.1.0/24"
    assert overlay["backend"]["vxlan"]["vtep_ip"] == "44.128.0.1/20"
    assert overlay["state"] == {"status": "STATUS_OK"}
    status, text = host.http("/healthz")
    assert status == 200
    assert json.loads(text)["applied"] == "1.10"


def test_the_controller_hears_of_endpoints(host: Host) -> None:
    controller, container = host.controller, host.container()
    assert controller is not None
    address = container.add()
    eventually(lambda: address in [str(e.address) for r in controller.reports for e in r.endpoints])
    host.cni("DEL", container)
    eventually(lambda: container.id in [key.container for r in controller.reports for key in r.endpoints_gone])


def test_a_link_that_docker_moves_is_left_alone_between_leave_and_delete(host: Host) -> None:
    other, container = host.container(), host.container()
    other.add()
    taken = host.docker("IpamDriver.RequestAddress", PoolID=DCOS.id, Options={})
    address = str(taken["Address"]).removesuffix("/32")
    endpoint = secrets.token_hex(32)
    host.docker("NetworkDriver.CreateEndpoint", EndpointID=endpoint, Interface={"Address": f"{address}/32"})
    joined = host.docker("NetworkDriver.Join", EndpointID=endpoint)
    names = joined["InterfaceName"]
    assert isinstance(names, dict)
    peer = names["SrcName"]
    host.run(f"ip link set {peer} netns {container.holder.pid} name eth0")
    container.run(f"ip address add {address}/32 dev eth0")
    container.run("ip link set eth0 up")
    container.run("ip route add 169.254.64.1 dev eth0")
    container.run("ip route add 9.0.0.0/8 via 169.254.64.1")
    assert container.reaches(other.address)
    host.docker("NetworkDriver.Leave", EndpointID=endpoint)
    assert not container.reaches(other.address)
    link = str(peer).replace("hp-", "hr-")
    host.wait_for_a_round()
    assert link in host.run("ip link show")
    host.docker("NetworkDriver.DeleteEndpoint", EndpointID=endpoint)
    host.docker("IpamDriver.ReleaseAddress", PoolID=DCOS.id, Address=address)
    eventually(lambda: link not in host.run("ip link show"), "the link goes")
    host.docker("NetworkDriver.DeleteEndpoint", EndpointID=endpoint)
