"""A network's walls as config.yaml has them: the way back from records to keys, for whoever shows them.

A key that would say what holds without it is left out, so absent and empty stay what they are.
"""

from __future__ import annotations

from typing import Any

from hedgerow.model.network import Allow, NetworkSpec, PortRange, Rule, Selector


def written_walls(spec: NetworkSpec) -> dict[str, Any]:
    """The keys of it that can change while the cluster runs, those of them that are needed."""
    found: dict[str, Any] = {}
    if spec.allow:
        found["allow"] = [written_allow(entry) for entry in spec.allow]
    if spec.isolated:
        found["isolated"] = True
    if spec.rules is not None:
        found["rules"] = [written_rule(rule) for rule in spec.rules]
    if spec.internal:
        found["internal"] = True
    if spec.attach != "anyone":
        found["attach"] = spec.attach
    if spec.agents is not None:
        found["agents"] = list(spec.agents)
    if spec.hosts != "allow":
        found["hosts"] = spec.hosts
    if spec.host_services:
        found["host_services"] = [str(service) for service in spec.host_services]
    return found


def written_allow(entry: Allow) -> str | dict[str, Any]:
    return str(entry.to) if entry.both_ways else {"to": str(entry.to), **_ports(entry.ports)}


def written_rule(rule: Rule) -> dict[str, Any]:
    """A name that was given to it for want of one is left out: no written one has a space."""
    name = {} if " " in rule.name else {"name": rule.name}
    return {**name, "from": _selector(rule.from_), "to": _selector(rule.to), **_ports(rule.ports)}


def _ports(ports: tuple[PortRange, ...] | None) -> dict[str, Any]:
    return {} if ports is None else {"ports": [str(one) for one in ports]}


def _selector(selector: Selector) -> str | dict[str, Any]:
    found: dict[str, Any] = {}
    if selector.network is not None:
        found["network"] = str(selector.network)
    if selector.app is not None:
        found["app"] = selector.app
    if selector.labels:
        found["label"] = dict(selector.labels)
    return found or "any"
