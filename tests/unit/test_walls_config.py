"""allow, rules, agents, hosts and their like in config.yaml: what they mean, and what is said of everything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from conftest import Proof
from hypothesis import given, settings
from unit.config_texts import network, told
from unit.wall_worlds import specs

from hedgerow.config.load import load
from hedgerow.config.written import written_walls
from hedgerow.model.network import (
    Allow,
    HostService,
    Network,
    NetworkId,
    NetworkName,
    NetworkSpec,
    PortRange,
    Rule,
    Selector,
    Vni,
)
from hedgerow.model.snapshot import Revision
from hedgerow.wire.codec import from_json, pack, to_json, unpack
from hedgerow.wire.messages import Delta

WEB = "  - {name: web, subnet: 10.80.0.0/16, prefix: 24}\n"
CLOSED = "  - {name: web, subnet: 10.80.0.0/16, prefix: 24, isolated: true}\n"


def written_network(spec: NetworkSpec) -> dict[str, Any]:
    """An entry of `overlays`; reading it again gives the same record."""
    found: dict[str, Any] = {"name": str(spec.name)}
    if spec.subnet is not None:
        found |= {"subnet": str(spec.subnet), "prefix": spec.prefix}
    if spec.subnet6 is not None:
        found |= {"subnet6": str(spec.subnet6), "prefix6": spec.prefix6}
    if not spec.enabled:
        found["enabled"] = False
    return found | written_walls(spec)


def dev(**keys: str) -> NetworkSpec:
    return load(network(**keys) + WEB).networks[0]


def test_a_name_under_allow_is_both_ways_and_a_mapping_one_way() -> None:
    web = NetworkName("web")
    assert dev(allow="[web]").allow == (Allow(web),)
    assert dev(allow="[{to: web}]").allow == (Allow(web, None, both_ways=False),)
    ports = (PortRange("tcp", 5432, 5432), PortRange("udp", 8000, 8100), PortRange("icmp"))
    assert dev(allow="[{to: web, ports: [5432/tcp, 8000-8100/udp, icmp]}]").allow == (Allow(web, ports, False),)


def test_rules_are_read_with_their_names_selectors_and_ports() -> None:
    text = """
      - {name: front-to-api, from: {app: /front}, to: {app: /api}, ports: [8080/tcp]}
      - {from: {network: web}, to: any}
      - {from: {label: {tier: front, owner: 'on'}}, to: {network: , label: {tier: back}}}
    """
    spec = dev(rules=text.replace("network: , ", ""))
    assert spec.rules == (
        Rule("front-to-api", Selector("/front"), Selector("/api"), (PortRange("tcp", 8080, 8080),)),
        Rule("rule 2", Selector(network=NetworkName("web")), Selector()),
        Rule("rule 3", Selector(labels=(("owner", "on"), ("tier", "front"))), Selector(labels=(("tier", "back"),))),
    )
    assert spec.is_closed


def test_a_rule_that_names_its_own_network_means_what_it_means_without() -> None:
    assert dev(rules="[{from: {network: dev, app: /a}, to: any}]").rules == (
        Rule("rule 1", Selector("/a"), Selector()),
    )


def test_a_rule_may_tell_apart_containers_of_another_network_that_has_walls_inside() -> None:
    text = network(rules="[{from: {network: web, app: /a}, to: any}]")
    assert load(text + CLOSED).networks[0].rules == (
        Rule("rule 1", Selector("/a", (), NetworkName("web")), Selector()),
    )


def test_hosts_and_their_services() -> None:
    spec = dev(host_services="[api, 9100/tcp, 53/udp, metadata]", hosts="deny", attach="apps", agents="[n1, 'rack2-*']")
    services = (HostService("api"), HostService("port", "tcp", 9100), HostService("port", "udp", 53))
    assert spec.host_services == (*services, HostService("metadata"))
    assert (spec.hosts, spec.attach, spec.agents) == ("deny", "apps", ("n1", "rack2-*"))


def test_without_the_keys_nothing_is_walled_and_every_agent_has_the_network() -> None:
    spec = dev()
    assert (spec.rules, spec.isolated, spec.agents, spec.allow, spec.host_services) == (None, False, None, (), ())
    assert (spec.attach, spec.hosts, spec.is_closed) == ("anyone", "allow", False)


@pytest.mark.parametrize(("key", "empty"), [("rules", ()), ("agents", ())])
def test_empty_is_not_absent(key: str, empty: object) -> None:
    assert getattr(dev(**{key: "[]"}), key) == empty
    assert getattr(dev(), key) is None


def test_s22_none_absent_and_empty_stay_three_things_through_every_encoding(proof: Proof) -> None:
    @settings(max_examples=proof.count("S22", small=60, full=2_000))
    @given(specs())
    def holds(drawn: tuple[NetworkSpec, ...]) -> None:
        section = {
            "vtep_subnet": "44.128.0.0/20",
            "vtep_subnet6": "fd01:a::/64",
            "vtep_mac_oui": "70:B3:D5:00:00:00",
            "overlays": [written_network(spec) for spec in drawn],
        }
        assert load(yaml.safe_dump({"dcos_overlay_network": section})).networks == drawn
        assert load(yaml.safe_dump({"dcos_overlay_network": json.dumps(section)})).networks == drawn
        networks = {
            NetworkId(f"{number:032x}"): Network(
                id=NetworkId(f"{number:032x}"), vni=Vni(5000 + number), gateway_index=number + 1, spec=spec
            )
            for number, spec in enumerate(drawn)
        }
        assert [from_json(to_json(one), Network) for one in networks.values()] == list(networks.values())
        _, told = unpack(pack(0, Delta(Revision(1, 2), networks={**networks})))
        assert isinstance(told, Delta)
        assert told.networks == networks

    holds()


FAULTS = {
    "allow without a value": (
        {"allow": ""},
        "9: .allow: nothing is written here; write [] for nobody, or take the line out, which means the same",
    ),
    "rules without a value": (
        {"rules": "~"},
        "9: .rules: ~: nothing is written here; write [] to let nothing pass inside, or take the line out to let "
        "everything pass",
    ),
    "agents without a value": (
        {"agents": "null"},
        "9: .agents: null: nothing is written here; write [] for no agent, or take the line out for all of them",
    ),
    "host_services without a value": (
        {"host_services": ""},
        "9: .host_services: nothing is written here; write [] for nothing, or take the line out, which means the same",
    ),
    "a mapping for a list": (
        {"rules": "{from: any}"},
        "9: .rules: {from}: a list is needed, this is a mapping; begin each entry with - ",
    ),
    "no ports": (
        {"allow": "[{to: web, ports: []}]"},
        "9: .allow[0].ports: []: nothing would be allowed; take the entry out, or ports for every port",
    ),
    "ports without a value": (
        {"allow": "[{to: web, ports: }]"},
        "9: .allow[0].ports: nothing is written here; give it a value, or take the line out",
    ),
    "an entry of nobody": (
        {"allow": "[{ports: [80/tcp]}]"},
        "9: .allow[0]: {ports}: to is missing; write to: and the name of a network",
    ),
    "an entry of no name": (
        {"allow": "[{to: ''}]"},
        "9: .allow[0].to: there is no network of this name; the networks are dev, web",
    ),
    "an entry of an unknown network": (
        {"allow": "[{to: wep}]"},
        "9: .allow[0].to: wep: there is no network of this name; did you mean web?",
    ),
    "one name and one mapping": (
        {"allow": "[web, {to: web, ports: [80/tcp]}]"},
        "9: .allow[1].to: web: web is named twice; name it once, with all of its ports",
    ),
    "a port without a protocol": (
        {"allow": "[{to: web, ports: [80]}]"},
        "9: .allow[0].ports: [80]: 80 is a port of which protocol?; write 80/tcp",
    ),
    "a protocol without ports": (
        {"allow": "[{to: web, ports: [tcp]}]"},
        "9: .allow[0].ports: [tcp]: tcp is given without ports; write 1-65535/tcp",
    ),
    "a protocol that has no ports here": (
        {"allow": "[{to: web, ports: [80/sctp]}]"},
        "9: .allow[0].ports: [80/sctp]: there are no ports of sctp here; write tcp or udp, or icmp without a port",
    ),
    "a port that is none": (
        {"allow": "[{to: web, ports: [70000/tcp]}]"},
        "9: .allow[0].ports: [70000/tcp]: 70000 is no port; write a number from 1 to 65535",
    ),
    "a range that ends before it begins": (
        {"allow": "[{to: web, ports: [90-80/tcp]}]"},
        "9: .allow[0].ports: [90-80/tcp]: 90-80/tcp ends before it begins; write 80-90/tcp",
    ),
    "ports that overlap": (
        {"allow": "[{to: web, ports: [80-90/tcp, 85/tcp]}]"},
        "9: .allow[0].ports: [80-90/tcp, 85/tcp]: 85/tcp and 80-90/tcp overlap; write each port once",
    ),
    "isolated beside rules": (
        {"rules": "[]", "isolated": "false"},
        "10: .isolated: false: rules let nothing else pass inside the network, and this says that everything does; "
        "take isolated out, or rules",
    ),
    "a rule without from": (
        {"rules": "[{to: any}]"},
        "9: .rules[0]: from is missing; write from: any, or who is meant",
    ),
    "a rule that is a word": (
        {"rules": "[front]"},
        "9: .rules[0]: front: a rule is made of keys and values; write - {from: any, to: any}",
    ),
    "two rules of one name": (
        {"rules": "[{name: a, from: any, to: any}, {name: a, from: any, to: any}]"},
        "9: .rules[1].name: a: the rule in line 9 has this name; choose another",
    ),
    "a name with a space, as only unnamed rules have": (
        {"rules": "[{name: rule 2, from: any, to: any}]"},
        "9: .rules[0].name: rule 2: a name is made of a-z, 0-9, -, _ and .; choose another, or take it out",
    ),
    "from nobody": (
        {"rules": "[{from: {}, to: any}]"},
        "9: .rules[0].from: {}: nobody is named; write any if everyone is meant",
    ),
    "from no label": (
        {"rules": "[{from: {label: {}}, to: any}]"},
        "9: .rules[0].from.label: {}: no label is given, and that is everyone; write one, or take label out",
    ),
    "from a word": (
        {"rules": "[{from: /front, to: any}]"},
        "9: .rules[0].from: /front: neither any nor keys and values; write any, {app: /web} or {label: {tier: front}}",
    ),
    "a label that YAML takes for something else": (
        {"rules": "[{from: {label: {tier: on}}, to: any}]"},
        "9: .rules[0].from.label: {tier}: YAML reads this as true or false, a word is needed; write 'on' in quotes",
    ),
    "an app without its path": (
        {"rules": "[{from: {app: front}, to: any}]"},
        "9: .rules[0].from.app: front: an app is named by its whole path; write /front",
    ),
    "into another network": (
        {"rules": "[{from: any, to: {network: web}}]"},
        "9: .rules[0].to.network: web: a rule of dev opens dev only; take network out",
    ),
    "from a network that is not there": (
        {"rules": "[{from: {network: wep}, to: any}]"},
        "9: .rules[0].from.network: wep: there is no network of this name; did you mean web?",
    ),
    "from an app of a network where nobody tells containers apart": (
        {"rules": "[{from: {network: web, app: /a}, to: any}]"},
        "9: .rules[0].from.app: /a: containers of web are not told apart: it has neither rules nor isolated; give web "
        "rules, or take app out and open it to all of web",
    ),
    "attach of somebody else": (
        {"attach": "app"},
        "9: .attach: app: there is no app here; write apps",
    ),
    "hosts of yes": ({"hosts": "accept"}, "9: .hosts: accept: there is no accept here; write allow or deny"),
    "a service that is none": (
        {"host_services": "[ssh]"},
        "9: .host_services[0]: ssh: ssh is no port; write api, metadata, or a port as 9100/tcp",
    ),
    "the tunnels' port": (
        {"host_services": "[64000/udp]"},
        "9: .host_services[0]: 64000/udp: the tunnels' own port, by which a container could speak for its host; "
        "take it out",
    ),
    "a range of services": (
        {"host_services": "[1-100/tcp]"},
        "9: .host_services[0]: 1-100/tcp: each port is named by itself; write 9100/tcp",
    ),
    "a service twice": ({"host_services": "[api, api]"}, "9: .host_services[1]: api: it is named twice; name it once"),
    "an agent that is none": (
        {"agents": "[n 1]"},
        "9: .agents[0]: n 1: neither a name of an agent nor a pattern; write n1, 'rack2-*' or 'n[1-3]'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_is_named_with_its_line_and_its_cure(fault: str) -> None:
    keys, expected = FAULTS[fault]
    line, _, rest = expected.partition(": .")
    assert told(network(**keys) + WEB) == [f"config.yaml:{line}: dcos_overlay_network.overlays[0].{rest}"]


def test_every_fault_of_a_list_is_told_at_once() -> None:
    rules = (
        "\n      - {from: {app: a}, to: any}\n      - {from: any, to: any, ports: [1]}\n      - {form: any, to: any}"
    )
    lines = told(network(rules=rules) + WEB)
    assert [line.partition(" ")[0] for line in lines] == [f"config.yaml:{n}:" for n in (10, 11, 12, 12)]
