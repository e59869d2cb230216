"""Every option of a network that has a say in what may pass, and tables in which every two values of different options
meet. `attach` is about who joins, and has tests of its own.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence

Row = dict[str, str]

OPTIONS: Mapping[str, Sequence[str]] = {
    "allow": ("none", "both ways", "one way", "one way, ports", "both ways and one way to another"),
    "walls": ("absent", "empty", "isolated", "by app", "by label", "from another network", "any to any"),
    "internal": ("false", "true"),
    "hosts": ("allow", "deny"),
    "host_services": ("none", "port", "api and metadata"),
    "agents": ("absent", "two of three", "empty"),
    "family": ("4", "6", "both"),
    "enabled": ("true", "false"),
}


def pairwise(options: Mapping[str, Sequence[str]], seed: int) -> list[Row]:
    """Greedy: each row takes in as many pairs that have not met as can be found."""
    chance, names = random.Random(seed), list(options)
    missing = set(pairs(options))
    rows = []
    while missing:
        best: Row = {}
        most = 0
        for _ in range(60):
            row = _candidate(options, names, missing, chance)
            met = len(missing & set(pairs_of(row, names)))
            if met > most:
                best, most = row, met
        rows.append(best)
        missing -= set(pairs_of(best, names))
    return rows


Pair = tuple[tuple[str, str], tuple[str, str]]


def pairs(options: Mapping[str, Sequence[str]]) -> list[Pair]:
    names = list(options)
    return [
        ((one, a), (other, b))
        for one, other in itertools.combinations(names, 2)
        for a in options[one]
        for b in options[other]
    ]


def pairs_of(row: Row, names: Sequence[str]) -> list[Pair]:
    return [((one, row[one]), (other, row[other])) for one, other in itertools.combinations(names, 2)]


def _candidate(
    options: Mapping[str, Sequence[str]], names: list[str], missing: set[Pair], chance: random.Random
) -> Row:
    """Begins with a pair that is missing; the rest by chance."""
    row = dict(chance.choice(sorted(missing)))
    return {name: row.get(name) or chance.choice(options[name]) for name in names}


def overlay(number: int, row: Row, names: Sequence[str]) -> list[str]:
    """The lines of config.yaml for network `number`; the two after it are the others that its options name."""
    name, next_one, third = (names[(number + step) % len(names)] for step in range(3))
    lines = [f"name: {name}"]
    if row["family"] != "6":
        lines += [f"subnet: 10.{number + 1}.0.0/16", "prefix: 24"]
    if row["family"] != "4":
        lines += [f"subnet6: fd00:{number + 1}::/48", "prefix6: 64"]
    ports = "[80/tcp, 5000-5100/udp]"
    lines += {
        "none": [],
        "both ways": [f"allow: [{next_one}]"],
        "one way": [f"allow: [{{to: {next_one}}}]"],
        "one way, ports": [f"allow: [{{to: {next_one}, ports: {ports}}}]"],
        "both ways and one way to another": [f"allow: [{next_one}, {{to: {third}, ports: [icmp]}}]"],
    }[row["allow"]]
    lines += {
        "absent": [],
        "empty": ["rules: []"],
        "isolated": ["isolated: true"],
        "by app": [f"rules: [{{from: {{app: /front}}, to: {{app: /back}}, ports: {ports}}}]"],
        "by label": ["rules: [{name: r, from: {label: {tier: front}}, to: {label: {tier: back}}}]"],
        "from another network": [f"rules: [{{name: r, from: {{network: {third}}}, to: any, ports: [icmp, 9100/tcp]}}]"],
        "any to any": [f"rules: [{{name: all, from: any, to: any, ports: {ports}}}]"],
    }[row["walls"]]
    lines += ["enabled: false"] if row["enabled"] == "false" else []
    lines += ["internal: true"] if row["internal"] == "true" else []
    lines += ["hosts: deny"] if row["hosts"] == "deny" else []
    services = {"port": "[9100/tcp]", "api and metadata": "[api, metadata]"}
    lines += [f"host_services: {services[row['host_services']]}"] if row["host_services"] in services else []
    agents = {"two of three": "[n1, n3]", "empty": "[]"}
    lines += [f"agents: {agents[row['agents']]}"] if row["agents"] in agents else []
    return lines


def config(rows: Sequence[Row]) -> str:
    """config.yaml with a network for each row."""
    names = [f"net{number}" for number in range(len(rows))]
    head = [
        "dcos_overlay_network:",
        "  vtep_subnet: 44.128.0.0/20",
        "  vtep_subnet6: fd01:a::/64",
        "  vtep_mac_oui: 70:B3:D5:00:00:00",
        "  overlays:",
    ]
    for number, row in enumerate(rows):
        first, *more = overlay(number, row, names)
        head += [f"    - {first}", *(f"      {line}" for line in more)]
    return "\n".join(head) + "\n"
