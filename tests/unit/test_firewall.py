"""The firewall's text: what it holds, and that nft takes it. What it does to packets is shown in tests/kernel."""

from __future__ import annotations

import os
import re
import subprocess
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import BadInput
from hedgerow.model.network import Network, NetworkId, NetworkName, NetworkSpec, Vni
from hedgerow.policy.firewall import COUNTERS, masquerade_ports, ruleset

OWN, OTHER = IPv4Address("192.168.78.1"), IPv4Address("192.168.78.2")


def network(number: int, *, internal: bool = False, enabled: bool = True, subnet: bool = True) -> Network:
    spec = NetworkSpec(
        name=NetworkName(f"n{number}"),
        subnet=IPv4Network(f"10.{number}.0.0/16") if subnet else None,
        prefix=24 if subnet else None,
        internal=internal,
        enabled=enabled,
    )
    return Network(id=NetworkId(f"{number:032x}"), vni=Vni(5000 + number), gateway_index=number + 1, spec=spec)


def rules(
    *networks: Network, link: str = "eth0", port: int = 64000, agents: tuple[IPv4Address, ...] = (OWN, OTHER)
) -> str:
    return ruleset(networks=networks, agents=agents, underlay=OWN, link=link, tunnel_port=port)


def elements(text: str, name: str) -> set[str]:
    found = re.search(rf"set {name} {{[^}}]*elements = {{([^}}]*)}}", text)
    return {part.strip() for part in found[1].split(",")} if found else set()


def nft_takes(text: str) -> str:
    """What nft says of it, in a network namespace of its own; empty when nothing is wrong."""
    own_namespace = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]
    done = subprocess.run(
        [*own_namespace, "nft", "-c", "-f", "-"], input=text, text=True, capture_output=True, check=False
    )
    return done.stderr


def test_nft_takes_the_table_of_a_cluster() -> None:
    assert nft_takes(rules(network(1), network(2, internal=True), network(3))) == ""


@pytest.mark.parametrize("port", [4789, 64000, 65535, 1024])
def test_nft_takes_the_table_of_an_agent_that_knows_nobody_yet(port: int) -> None:
    assert nft_takes(rules(port=port, agents=())) == ""


def test_the_text_replaces_the_table_that_is_there_in_one_transaction() -> None:
    text = rules(network(1))
    assert text.startswith("table inet hedgerow\ndelete table inet hedgerow\ntable inet hedgerow {\n")
    assert nft_takes(text + text) == ""


def test_only_enabled_networks_with_ipv4_are_in_it() -> None:
    text = rules(network(1), network(2, enabled=False), network(3, subnet=False), network(4, internal=True))
    assert elements(text, "networks") == {"10.1.0.0/16", "10.4.0.0/16"}
    assert elements(text, "internal") == {"10.4.0.0/16"}
    assert elements(text, "agents") == elements(text, "hosts") == {str(OWN), str(OTHER)}


def test_the_same_cluster_in_another_order_is_the_same_text() -> None:
    one, other = network(1), network(2, internal=True)
    assert rules(one, other) == rules(other, one, agents=(OTHER, OWN, OTHER))


@given(st.integers(1, 65535))
def test_masqueraded_udp_never_leaves_by_the_tunnels_port(port: int) -> None:
    low, high = masquerade_ports(port)
    assert 1 <= low <= high <= 65535
    assert high - low >= 30_000
    assert not low <= port <= high
    assert f"udp masquerade to :{low}-{high}\n" in rules(port=port)


def test_every_counter_is_used_and_no_packet_is_dropped_without_one() -> None:
    text = rules(network(1))
    for name in COUNTERS:
        assert f"counter name {name} " in text
    for line in text.splitlines():
        if line.endswith((" drop", "goto refuse")):
            assert " counter name " in line or line.strip().startswith("counter name")


@pytest.mark.parametrize("link", ['eth0" accept', "eth*"])
def test_a_link_whose_name_would_be_read_as_a_rule_is_refused(link: str) -> None:
    with pytest.raises(BadInput, match="cannot be named"):
        rules(link=link)
