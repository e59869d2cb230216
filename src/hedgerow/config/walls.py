"""The keys of a network that say who may talk to whom: what they take, and how each is read, entry by entry.

Nothing written, nothing in the list, and no list are three things, and never taken for each other: a key without a
value is refused with what to write instead. Every entry is read by itself, so that each problem has its own line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from hedgerow.model.network import Allow, HostService, NetworkName, PortRange, Rule, Selector

from . import yaml
from .ports import port_range, ports_of
from .problem import Wrong, nearest
from .settings import Notes, Section, Setting, given, read_section, text
from .yaml import Node, Scalar

T = TypeVar("T")

LONGEST_WORD = 255
TUNNEL_PORT = 64000
_WORD = re.compile(r"[a-z0-9]([-a-z0-9_.]*[a-z0-9])?")
_APP = re.compile(r"(/[a-z0-9]([-a-z0-9.]*[a-z0-9])?)+")
_GLOB = re.compile(r"[-A-Za-z0-9._*?!\[\]]+")


def list_of(cure: str) -> Callable[[Node], yaml.Sequence]:
    """A list, its entries unread. `cure` is for a key without a value, which could mean two things."""

    def read(node: Node) -> yaml.Sequence:
        if isinstance(node, Scalar) and node.kind == "null":
            raise Wrong("nothing is written here", cure)
        given(node)
        if isinstance(node, yaml.Mapping):
            raise Wrong("a list is needed, this is a mapping", "begin each entry with - ")
        if isinstance(node, Scalar):
            raise Wrong("a list is needed", f"write [{node}]")
        return node

    return read


def one_of(*known: str) -> Callable[[Node], str]:
    def read(node: Node) -> str:
        written = text(node)
        if written not in known:
            near = nearest(written, known)
            raise Wrong(f"there is no {written} here", f"write {near or ' or '.join(known)}")
        return written

    return read


def _rule_name(node: Node) -> str:
    name = text(node)
    if not _WORD.fullmatch(name) or len(name) > LONGEST_WORD:
        raise Wrong("a name is made of a-z, 0-9, -, _ and .", "choose another, or take it out")
    return name


def _app_id(node: Node) -> str:
    app = text(node)
    if not app.startswith("/"):
        raise Wrong("an app is named by its whole path", f"write /{app}")
    if not _APP.fullmatch(app) or len(app) > LONGEST_WORD:
        raise Wrong("not the id of an app", "write a path of a-z, 0-9, - and ., as /group/web")
    return app


def _labels(node: Node) -> tuple[tuple[str, str], ...]:
    given(node)
    if not isinstance(node, yaml.Mapping):
        raise Wrong("labels are keys and values", "write {tier: front}")
    if not node.entries:
        raise Wrong("no label is given, and that is everyone", "write one, or take label out")
    return tuple(sorted((key, text(value)) for key, value in node.entries.items()))


def _selector(node: Node) -> Node:
    given(node)
    if isinstance(node, yaml.Sequence):
        raise Wrong("one app, label or network is needed, this is a list", "write a rule for each")
    if isinstance(node, Scalar) and node.text != "any":
        raise Wrong("neither any nor keys and values", "write any, {app: /web} or {label: {tier: front}}")
    if isinstance(node, yaml.Mapping) and not node.entries:
        raise Wrong("nobody is named", "write any if everyone is meant")
    return node


_NO_LIST: yaml.Sequence | None = None
_NO_NODE: Node | None = None
_NO_PORTS: tuple[PortRange, ...] | None = None
_NO_WORD: str | None = None
_NO_LABELS: tuple[tuple[str, str], ...] = ()

ALLOW = Setting(
    "allow",
    list_of("write [] for nobody, or take the line out, which means the same"),
    _NO_LIST,
    "a list of network names, and of mappings",
    "A name: the two networks may talk, both ways; one mention suffices. A mapping: one way, from this network's "
    "containers to those of `to`. Absent and `[]` mean nobody.",
)
RULES = Setting(
    "rules",
    list_of("write [] to let nothing pass inside, or take the line out to let everything pass"),
    _NO_LIST,
    "a list of rules",
    "What may pass inside the network, and into it. Present, and also as `[]`: nothing else passes inside. Absent: "
    "everything does.",
)
AGENTS = Setting(
    "agents",
    list_of("write [] for no agent, or take the line out for all of them"),
    _NO_LIST,
    "a list of agents' names and of shell patterns",
    "Agents that have the network, as `[n1, 'rack2-*']`. Absent: all of them. `[]`: none.",
)
HOST_SERVICES = Setting(
    "host_services",
    list_of("write [] for nothing, or take the line out, which means the same"),
    _NO_LIST,
    "a list of `api`, `metadata` and ports",
    "What its containers may reach of their own host, beside DNS and ping: `9100/tcp` a port of it, `api` the "
    "controllers' TLS API (8443), `metadata` a cloud's 169.254.169.254 and fd00:ec2::254. With `internal` only what is "
    "on their own host: no `metadata`, and no `api` of another one. Absent and `[]`: nothing.",
)

TO = Setting("to", text, _NO_WORD, "the name of a network", "Whose containers may be reached. Needed.")
PORTS = Setting(
    "ports",
    ports_of,
    _NO_PORTS,
    "a list, as `[5432/tcp, 8000-8100/udp, icmp]`",
    "Destination ports. Absent: every port and protocol. `[]` is refused: nothing would be allowed.",
)
ALLOW_ENTRY: tuple[Setting[Any], ...] = (TO, PORTS)

RULE_NAME = Setting(
    "name", _rule_name, _NO_WORD, "a word, unique in the network", "Names the rule in events. Absent: `rule 3`."
)
FROM = Setting("from", _selector, _NO_NODE, "`any`, or a mapping as below", "Who may open it. Needed.")
RULE_TO = Setting("to", _selector, _NO_NODE, "`any`, or a mapping as below", "Who may be reached. Needed.")
RULE: tuple[Setting[Any], ...] = (RULE_NAME, FROM, RULE_TO, PORTS)

APP = Setting("app", _app_id, _NO_WORD, "the id of an app", "Its instances, as `/front`.")
LABEL = Setting("label", _labels, _NO_LABELS, "a mapping", "Instances of apps that have all of the labels.")
NETWORK_OF = Setting(
    "network",
    text,
    _NO_WORD,
    "the name of a network",
    "Only in `from`: containers of that network, in place of this one's. With `app` or `label` beside it, that network "
    "needs `rules` or `isolated`, too: elsewhere nobody tells containers apart.",
)
SELECTOR: tuple[Setting[Any], ...] = (APP, LABEL, NETWORK_OF)


@dataclass(frozen=True, slots=True)
class Walls:
    """What was read of one network, without what is wrong."""

    allow: tuple[Allow, ...]
    rules: tuple[Rule, ...] | None
    agents: tuple[str, ...] | None
    host_services: tuple[HostService, ...]


@dataclass(frozen=True, slots=True)
class Cluster:
    """What entries may name: every network, with the line of its name, and which of them have walls inside."""

    lines: Mapping[str, int]
    closed: frozenset[str]


def read_walls(overlay: Section, name: str, cluster: Cluster, notes: Notes) -> Walls:
    """Of an overlay with that name. A list that is not there is None, where that is not the empty one."""
    rules = tuple(_rules(overlay, name, cluster, notes))
    agents = tuple(_each(overlay, AGENTS, _glob, notes))
    return Walls(
        allow=tuple(_allow(overlay, name, cluster, notes)),
        rules=None if overlay.get(RULES) is None else rules,
        agents=None if overlay.get(AGENTS) is None else agents,
        host_services=tuple(_each(overlay, HOST_SERVICES, _host_service, notes)),
    )


def _items(section: Section, setting: Setting[Any]) -> Iterator[tuple[Node, str]]:
    """Each entry of a list, with its path."""
    node = section.get(setting)
    _, path, _ = section.place(setting)
    for number, item in enumerate(node.items if isinstance(node, yaml.Sequence) else ()):
        yield item, f"{path}[{number}]"


def _each(section: Section, setting: Setting[Any], read: Callable[[Node], T], notes: Notes) -> Iterator[T]:
    """Words, none twice."""
    seen: set[T] = set()
    for item, path in _items(section, setting):
        try:
            found = read(item)
            if found in seen:
                raise Wrong("it is named twice", "name it once")
        except Wrong as wrong:
            notes.wrong(item.line, path, item, wrong.message, wrong.cure)
            continue
        seen.add(found)
        yield found


def _allow(overlay: Section, name: str, cluster: Cluster, notes: Notes) -> Iterator[Allow]:
    seen: set[str] = set()
    for item, path in _items(overlay, ALLOW):
        entry = None
        if isinstance(item, yaml.Mapping):
            entry = read_section(item, path, ALLOW_ENTRY, notes)
            if not entry.has(TO):
                notes.wrong(item.line, path, item, "to is missing", "write to: and the name of a network")
        place = entry.place(TO) if entry is not None else (item.line, path, str(item))
        try:
            to = entry.get(TO) if entry is not None else text(item)
            if to is None:
                continue
            _check_other(to, name, cluster)
            if to in seen:
                raise Wrong(f"{to} is named twice", "name it once, with all of its ports")
        except Wrong as wrong:
            notes.wrong(*place, wrong.message, wrong.cure)
            continue
        seen.add(to)
        yield Allow(NetworkName(to), entry.get(PORTS) if entry is not None else None, both_ways=entry is None)


def _check_other(name: str, own: str, cluster: Cluster) -> None:
    """Raises Wrong when there is no other network of that name."""
    if name == own:
        raise Wrong("a network reaches itself as it is", "take the name out")
    if name not in cluster.lines:
        near = nearest(name, cluster.lines)
        cure = f"did you mean {near}?" if near else f"the networks are {', '.join(cluster.lines)}"
        raise Wrong("there is no network of this name", cure)


def _rules(overlay: Section, name: str, cluster: Cluster, notes: Notes) -> Iterator[Rule]:
    lines: dict[str, int] = {}
    for number, (item, path) in enumerate(_items(overlay, RULES), 1):
        if not isinstance(item, yaml.Mapping):
            notes.wrong(item.line, path, item, "a rule is made of keys and values", "write - {from: any, to: any}")
            continue
        section = read_section(item, path, RULE, notes)
        for needed in (FROM, RULE_TO):
            if not section.has(needed):
                notes.wrong(
                    item.line, path, "", f"{needed.key} is missing", f"write {needed.key}: any, or who is meant"
                )
        from_ = _select(section, FROM, name, cluster, notes)
        to = _select(section, RULE_TO, name, cluster, notes)
        called = section.get(RULE_NAME)
        if called is not None and called in lines:
            told = f"the rule in line {lines[called]} has this name"
            notes.wrong(*section.place(RULE_NAME), told, "choose another")
        elif called is not None:
            lines[called] = section.place(RULE_NAME)[0]
        yield Rule(called or f"rule {number}", from_, to, section.get(PORTS))


def _select(rule: Section, setting: Setting[Node | None], own: str, cluster: Cluster, notes: Notes) -> Selector:
    node = rule.get(setting)
    if not isinstance(node, yaml.Mapping):
        return Selector()
    section = read_section(node, rule.place(setting)[1], SELECTOR, notes)
    network = section.get(NETWORK_OF)
    if section.has(NETWORK_OF) and setting is RULE_TO:
        notes.wrong(*section.place(NETWORK_OF), f"a rule of {own} opens {own} only", "take network out")
    elif network is not None and network != own:
        _check_opener(section, network, own, cluster, notes)
    other = NetworkName(network) if network is not None and network != own else None
    return Selector(section.get(APP), section.get(LABEL), other)


def _check_opener(section: Section, network: str, own: str, cluster: Cluster, notes: Notes) -> None:
    try:
        _check_other(network, own, cluster)
    except Wrong as wrong:
        notes.wrong(*section.place(NETWORK_OF), wrong.message, wrong.cure)
        return
    for setting in (APP, LABEL):
        if section.has(setting) and network not in cluster.closed:
            told = f"containers of {network} are not told apart: it has neither rules nor isolated"
            cure = f"give {network} rules, or take {setting.key} out and open it to all of {network}"
            notes.wrong(*section.place(setting), told, cure)


def _glob(node: Node) -> str:
    written = text(node)
    if not _GLOB.fullmatch(written) or len(written) > LONGEST_WORD:
        raise Wrong("neither a name of an agent nor a pattern", "write n1, 'rack2-*' or 'n[1-3]'")
    return written


def _host_service(node: Node) -> HostService:
    if isinstance(node, Scalar) and node.text in ("api", "metadata"):
        return HostService(node.text)
    try:
        one = port_range(node)
    except Wrong as wrong:
        raise Wrong(wrong.message, "write api, metadata, or a port as 9100/tcp") from None
    if one.protocol == "icmp":
        raise Wrong("ping passes anyway", "take it out")
    if one.low != one.high:
        raise Wrong("each port is named by itself", "write 9100/tcp")
    if one == PortRange("udp", TUNNEL_PORT, TUNNEL_PORT):
        raise Wrong("the tunnels' own port, by which a container could speak for its host", "take it out")
    return HostService("port", one.protocol, one.low)
