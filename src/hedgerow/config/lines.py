"""Where config.yaml says something: the line of a network, of a key of it, of an entry of that key. Pure."""

from __future__ import annotations

import re

from . import schema, yaml

_WHERE = re.compile(r"(?P<network>[^.\[]+)(?:\.(?P<key>\w+)(?:\[(?P<number>\d+)\])?)?")


def line_of(text: str, where: str) -> int:
    """Of `db.rules[1]`, `db.allow` or `db`; what is not written there has the line of what should have it. 0 when the
    text has no such network.
    """
    match = _WHERE.fullmatch(where)
    overlay = _overlay(text, match["network"]) if match else None
    if match is None or overlay is None:
        return 0
    node, line = overlay, overlay.key_lines["name"]
    if match["key"] in node.entries:
        found, line = node.entries[match["key"]], node.key_lines[match["key"]]
        if match["number"] and isinstance(found, yaml.Sequence) and int(match["number"]) < len(found.items):
            line = found.items[int(match["number"])].line
    return line


def _overlay(text: str, name: str) -> yaml.Mapping | None:
    root = yaml.parse(text).root
    section = root.entries.get(schema.NETWORK.key) if isinstance(root, yaml.Mapping) else None
    if isinstance(section, yaml.Scalar):  # as DC/OS takes it, too
        first = section.text_line or section.line
        section = yaml.parse(section.text, first_line=first, one_line=section.text_line is None).root
    overlays = section.entries.get(schema.OVERLAYS.key) if isinstance(section, yaml.Mapping) else None
    for item in overlays.items if isinstance(overlays, yaml.Sequence) else ():
        if isinstance(item, yaml.Mapping) and str(item.entries.get("name")) == name:
            return item
    return None
