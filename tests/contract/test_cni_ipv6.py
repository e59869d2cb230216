"""CNI with networks of both families, and of IPv6 only: what an engine is told in each version's shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from contract.fakes import BOTH, DCOS, SIX
from contract.programs import short_directory
from contract.test_cni import KEY, VERSIONS, Engine, config


@pytest.fixture
def engine() -> Iterator[Engine]:
    with short_directory() as directory:
        found = Engine(directory)
        found.state.set(DCOS, BOTH, SIX)
        yield found


def test_both_addresses_are_named_each_with_its_gateway(engine: Engine) -> None:
    _, answer = engine.call("ADD", config(network="both"))
    assert answer["ips"] == [
        {"address": "10.96.0.1/32", "gateway": "169.254.64.4", "interface": 1},
        {"address": "fd00:b::1/128", "gateway": "fe80::4", "interface": 1},
    ]
    assert answer["routes"][3:] == [
        {"dst": "fe80::4/128"},
        {"dst": "fd00:b::/64", "gw": "fe80::4"},
        {"dst": "::/0", "gw": "fe80::4"},
    ]
    assert engine.call("CHECK", config(network="both", prevResult=answer)) == (200, None)
    engine.call("DEL")
    assert engine.attachments.is_empty


@pytest.mark.parametrize("version", VERSIONS[2:5])
def test_before_1_0_each_address_says_its_family(engine: Engine, version: str) -> None:
    _, answer = engine.call("ADD", config(version, network="both"))
    assert [row["version"] for row in answer["ips"]] == ["4", "6"]


@pytest.mark.parametrize("version", VERSIONS[:2])
def test_the_oldest_shape_has_a_place_for_each_family(engine: Engine, version: str) -> None:
    _, answer = engine.call("ADD", config(version, network="both"))
    assert (answer["ip4"]["ip"], answer["ip6"]["ip"]) == ("10.96.0.1/32", "fd00:b::1/128")
    assert {row["dst"] for row in answer["ip6"]["routes"]} == {"fe80::4/128", "fd00:b::/64", "::/0"}
    _, answer = engine.call("ADD", config(version, network="six"), CNI_IFNAME="eth1")
    assert "ip4" not in answer


def test_an_ipv6_only_network_gives_one_address(engine: Engine) -> None:
    _, answer = engine.call("ADD", config(network="six"))
    assert [row["address"] for row in answer["ips"]] == ["fd00:6::1/128"]
    assert answer["interfaces"][1]["mac"].startswith("02:49:")


def test_a_static_address_may_be_asked_for_of_each_family(engine: Engine) -> None:
    ips = ["10.96.0.9/14", "fd00:b::9/64"]
    _, answer = engine.call("ADD", config(network="both", runtimeConfig={"ips": ips}))
    assert [row["address"] for row in answer["ips"]] == ["10.96.0.9/32", "fd00:b::9/128"]


def test_a_static_address_of_one_family_leaves_the_other_to_the_pool(engine: Engine) -> None:
    _, answer = engine.call("ADD", config(network="both"), CNI_ARGS="IP=fd00:b::9")
    assert [row["address"] for row in answer["ips"]] == ["10.96.0.1/32", "fd00:b::9/128"]


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"runtimeConfig": {"ips": ["fd00:b::8", "fd00:b::9"]}}, 7, "one address of a family"),
        ({"runtimeConfig": {"ips": ["fd00:6::9"]}}, 100, "fd00:6::9"),
    ],
    ids=["two of a family", "another network's"],
)
def test_a_static_address_that_cannot_be_leaves_none_taken(
    engine: Engine, more: dict[str, Any], code: int, words: str
) -> None:
    found, text = engine.refusal("ADD", config(network="both", **more))
    assert (found, words in text) == (code, True)
    assert engine.attachments.is_empty


def test_check_misses_the_address_of_either_family(engine: Engine) -> None:
    engine.call("ADD", config(network="both"))
    only = {"ips": [{"address": "10.96.0.1/32"}]}
    code, text = engine.refusal("CHECK", config(network="both", prevResult=only))
    assert (code, "fd00:b::1" in text) == (103, True)
    assert KEY in engine.attachments.passing
