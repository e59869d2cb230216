"""config.yaml to a ClusterSpec, or to every problem with its line.

First each key by itself (`schema`), then what lies between them: names, ranges, who is allowed. A key that is wrong
by itself takes no part in the second, and hides nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from hedgerow.model.network import ClusterSpec, NetworkName, NetworkSpec, VtepSpec

from . import schema, yaml
from .between import check_between, is_closed
from .file import read_text
from .problem import ConfigProblems, Problem
from .settings import Notes, Section, read_section
from .walls import Cluster, Walls, read_walls
from .yaml import Node, Scalar

DEFAULT_VTEP = VtepSpec(subnet=IPv4Network("44.128.0.0/20"), subnet6=IPv6Network("fd01:a::/64"))
DEFAULT_NETWORKS = (
    NetworkSpec(name=NetworkName("dcos"), subnet=IPv4Network("9.0.0.0/8"), prefix=24),
    NetworkSpec(name=NetworkName("dcos6"), subnet6=IPv6Network("fd01:b::/64"), prefix6=80),
)
"""What DC/OS 1.11 to 2.2 have when config.yaml says nothing about networks."""


@dataclass(frozen=True, slots=True)
class Checked:
    """`spec` is None when there are problems. Warnings stop nothing. `places`: line and text of each path."""

    spec: ClusterSpec | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    places: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    def problem(self, file: str, path: str, message: str, cure: str) -> Problem:
        """What somebody else finds wrong with a key; of one that is not there, in the line of what should have it."""
        around = path
        while around and around not in self.places:
            around = around.rpartition(".")[0]
        line, value = self.places.get(around, (0, ""))
        return Problem(file, line, path, value if around == path else "", message, cure)


def load(source: Path | str, file: str = "config.yaml") -> ClusterSpec:
    """Of a path, or of text that is called `file` in messages. Raises ConfigProblems, BadInput when unreadable."""
    checked = check_file(source) if isinstance(source, Path) else check(source, file)
    if checked.spec is None:
        raise ConfigProblems(checked.problems)
    return checked.spec


def check_file(path: Path) -> Checked:
    """Raises BadInput for a file that cannot be read as text."""
    return check(read_text(path), str(path))


def check(text: str, file: str) -> Checked:
    """Everything that is wrong with the text."""
    notes = Notes(file)
    document = yaml.parse(text)
    _note_faults(document, "", notes)
    spec = None
    sections: list[Section] = []
    if isinstance(document.root, yaml.Mapping):
        spec = _read_top(document.root, notes, sections)
    elif document.root is not None:
        notes.wrong(document.root.line, "", document.root, "keys and values are needed", "write dcos_overlay_network:")
    elif not notes.problems:
        notes.wrong(1, "", "", "the file is empty", "write dcos_overlay_network: and the networks under it")
    problems = tuple(sorted(notes.problems))
    return Checked(None if problems else spec, problems, tuple(sorted(notes.warnings)), _places(sections))


def _places(sections: Iterable[Section]) -> dict[str, tuple[int, str]]:
    found: dict[str, tuple[int, str]] = {}
    for section in sections:
        found.setdefault(section.path, (section.line, ""))
        for key, node in section.nodes.items():
            found[yaml.join(section.path, key)] = section.lines[key], str(node)
    return found


def _note_faults(document: yaml.Document, prefix: str, notes: Notes) -> None:
    for fault in document.faults:
        path = f"{prefix}.{fault.path}" if prefix and fault.path else prefix or fault.path
        notes.wrong(fault.line, path, fault.value, fault.message, fault.cure)


def _read_top(root: yaml.Mapping, notes: Notes, sections: list[Section]) -> ClusterSpec:
    """What was read of each mapping is left in `sections`."""
    top = read_section(root, "", schema.TOP, notes, foreign=True)
    sections.append(top)
    written = top.get(schema.NETWORK)
    if written is None:
        return ClusterSpec(
            enable=top.get(schema.ENABLE),
            mtu_bytes=top.get(schema.MTU),
            vtep=DEFAULT_VTEP,
            networks=DEFAULT_NETWORKS,
        )
    node = _from_json(written, notes) if isinstance(written, Scalar) else written
    line, path, value = top.place(schema.NETWORK)
    if isinstance(node, yaml.Mapping):
        tunnels = read_section(node, path, schema.TUNNELS, notes)
        overlays = _read_overlays(tunnels, notes)
        sections += [tunnels, *overlays]
        names = check_between(top, tunnels, overlays, notes)
        closed = frozenset(overlay.get(schema.NAME_OF) for overlay in overlays if is_closed(overlay))
        cluster = Cluster(names, closed)
        walls = [read_walls(overlay, overlay.get(schema.NAME_OF), cluster, notes) for overlay in overlays]
        return _spec(top, tunnels, list(zip(overlays, walls, strict=True)))
    if node is not None:
        notes.wrong(line, path, value, "keys and values are needed, this is a list", "write overlays: above it")
    return ClusterSpec(enable=False, mtu_bytes=top.get(schema.MTU), vtep=DEFAULT_VTEP, networks=())


def _from_json(scalar: Scalar, notes: Notes) -> Node | None:
    """DC/OS takes the section as JSON text, too. JSON is read as such for its rules, then as YAML for its lines."""
    path, line = schema.NETWORK.key, scalar.text_line or scalar.line
    try:
        json.loads(scalar.text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        wrong = line + error.lineno - 1 if scalar.text_line else line
        notes.wrong(wrong, path, scalar, f"neither keys and values nor JSON: {error.msg}", "write it as a mapping")
        return None
    except (ValueError, RecursionError) as error:
        notes.wrong(line, path, scalar, f"not JSON that can be used: {error}", "write it as a mapping")
        return None
    document = yaml.parse(scalar.text, first_line=line, one_line=scalar.text_line is None)
    _note_faults(document, path, notes)
    if isinstance(document.root, Scalar):
        notes.wrong(line, path, scalar, "keys and values are needed", "write overlays: and the networks under it")
        return None
    return document.root


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _read_overlays(tunnels: Section, notes: Notes) -> list[Section]:
    node = tunnels.get(schema.OVERLAYS)
    line, path, value = tunnels.place(schema.OVERLAYS)
    if not isinstance(node, yaml.Sequence):
        if node is not None or not tunnels.has(schema.OVERLAYS):
            message = "a list of networks is needed" if node else "overlays are missing"
            notes.wrong(line, path, value, message, "write overlays: and below it - name: dcos-1")
        return []
    if not node.items:
        notes.wrong(line, path, "[]", "there is no network", "write at least one, or dcos_overlay_enable: false")
    sections = []
    for number, item in enumerate(node.items):
        place = f"{path}[{number}]"
        if isinstance(item, yaml.Mapping):
            sections.append(read_section(item, place, schema.OVERLAY, notes, not_yet=schema.NOT_YET))
        else:
            notes.wrong(item.line, place, item, "a network is made of keys and values", "write - name: and the others")
    return sections


def _spec(top: Section, tunnels: Section, overlays: Sequence[tuple[Section, Walls]]) -> ClusterSpec:
    return ClusterSpec(
        enable=top.get(schema.ENABLE),
        mtu_bytes=top.get(schema.MTU),
        vtep=VtepSpec(
            subnet=tunnels.get(schema.VTEP_SUBNET),
            subnet6=tunnels.get(schema.VTEP_SUBNET6),
            mac_oui=tunnels.get(schema.VTEP_MAC_OUI),
            mtu_bytes=tunnels.get(schema.VTEP_MTU),
        ),
        networks=tuple(_network(overlay, walls) for overlay, walls in overlays),
    )


def _network(overlay: Section, walls: Walls) -> NetworkSpec:
    return NetworkSpec(
        name=NetworkName(overlay.get(schema.NAME_OF)),
        subnet=overlay.get(schema.SUBNET),
        prefix=overlay.get(schema.PREFIX),
        subnet6=overlay.get(schema.SUBNET6),
        prefix6=overlay.get(schema.PREFIX6),
        enabled=overlay.get(schema.ENABLED),
        allow=walls.allow,
        rules=walls.rules,
        isolated=overlay.get(schema.ISOLATED),
        internal=overlay.get(schema.INTERNAL),
        attach=overlay.get(schema.ATTACH),
        agents=walls.agents,
        hosts=overlay.get(schema.HOSTS),
        host_services=walls.host_services,
    )
