"""YAML to a tree of which every part knows its line, made so that no file can hurt.

PyYAML's loaders swallow duplicate keys, follow aliases into a thousand million nodes and recurse until the stack ends.
So only its event stream is used (libyaml, no recursion), and the tree is built here, on a list, with limits. Scalars
keep their source text beside what YAML 1.1 reads them as: `on` is a boolean there, 010 is eight, 12:30 a number, and
whoever reads a value can say so instead of taking it. An alias is a scalar, too, and never followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml
from yaml._yaml import Mark as CMark

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 20_000
"""2,000 networks, each with name, subnet and prefix, are 14,000; reading so many takes a tenth of a second."""

MAX_FAULTS = 100

_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Scalar:
    """`kind` is what YAML 1.1 reads: str, int, bool, float, null, timestamp, merge or value; or alias. `text_line` is
    where a literal block's text begins, None when its lines cannot be told apart.
    """

    text: str
    kind: str
    line: int
    text_line: int | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class Mapping:
    """`key_lines` has the line of each key."""

    line: int
    entries: dict[str, Node] = field(default_factory=dict)
    key_lines: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return "{" + ", ".join(self.entries) + "}"


@dataclass(slots=True)
class Sequence:
    line: int
    items: list[Node] = field(default_factory=list)

    def __str__(self) -> str:
        return "[" + ", ".join(str(item) for item in self.items[:10]) + "]"


Node = Scalar | Mapping | Sequence


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with the text itself. `path` as in `overlays[0].name`."""

    line: int
    path: str
    value: str
    message: str
    cure: str


@dataclass(frozen=True, slots=True)
class Document:
    """`root` is None when the text cannot be read at all, or is empty; `faults` say why."""

    root: Node | None
    faults: tuple[Fault, ...]


def parse(text: str, *, first_line: int = 1, one_line: bool = False) -> Document:
    """Never raises for what is in the text. Lines count from `first_line`; with `one_line` all of it stands there."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        fault = Fault(0, "", "", f"{size} bytes are too many", f"a file may have {MAX_BYTES}")
        return Document(None, (fault,))
    builder = _Builder(first_line, one_line)
    try:
        for event in _events(text):
            builder.take(event)
    except _Stop as stop:
        return Document(None, (*builder.faults, stop.fault))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = builder.line(mark)
        fault = Fault(line, "", "", f"not YAML: {error.problem or error.context}", "mend the line or the one above it")
        return Document(None, (*builder.faults, fault))
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        reason = str(error).splitlines()[0]
        return Document(None, (Fault(0, "", "", f"not YAML: {reason}", "save the file as plain UTF-8 text"),))
    return Document(builder.root, tuple(builder.faults))


def _events(text: str) -> Iterator[yaml.Event]:
    loader = yaml.CSafeLoader(text)
    try:
        while (event := loader.get_event()) is not None:
            yield event
    finally:
        loader.dispose()


class _Stop(Exception):
    """Reading on would be of no use, or would hurt."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet; `key` waits for its value."""

    node: Mapping | Sequence
    path: str
    key: tuple[str, int] | None = None


@dataclass(slots=True)
class _Builder:
    first_line: int
    one_line: bool
    root: Node | None = None
    faults: list[Fault] = field(default_factory=list)
    stack: list[_Open] = field(default_factory=list)
    nodes: int = 0
    documents: int = 0

    def take(self, event: yaml.Event) -> None:
        line = self.line(event.start_mark)
        match event:
            case yaml.ScalarEvent():
                self.count(line)
                text_line = line + 1 if event.style == "|" else line if "\n" not in event.value else None
                self.scalar(Scalar(event.value, _kind(event), line, text_line))
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self.count(line)
                self.open(event, line)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self.stack.pop()
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    raise _Stop(Fault(line, "", "---", "a second document begins", "keep one document a file"))
            case yaml.AliasEvent():
                self.count(line)
                self.scalar(Scalar(f"*{event.anchor}", "alias", line))
            case _:
                pass

    def line(self, mark: yaml.Mark | CMark | None) -> int:
        return self.first_line + (mark.line if mark and not self.one_line else 0)

    def count(self, line: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _Stop(Fault(line, "", "", f"more than {MAX_NODES} values", "split the file"))

    def path(self) -> str:
        """Of the value that comes next."""
        if not self.stack:
            return ""
        top = self.stack[-1]
        if isinstance(top.node, Sequence):
            return f"{top.path}[{len(top.node.items)}]"
        return join(top.path, top.key[0]) if top.key else top.path

    def scalar(self, scalar: Scalar) -> None:
        top = self.stack[-1] if self.stack else None
        if top is not None and isinstance(top.node, Mapping) and top.key is None:
            top.key = (scalar.text, scalar.line)
        else:
            self.place(scalar)

    def open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent, line: int) -> None:
        path = self.path()
        if len(self.stack) >= MAX_DEPTH:
            raise _Stop(Fault(line, "", "", f"nested more than {MAX_DEPTH} deep", "flatten it"))
        top = self.stack[-1] if self.stack else None
        if top is not None and isinstance(top.node, Mapping) and top.key is None:
            raise _Stop(Fault(line, path, "", "a key must be a word", "quote it, or end the line before with a value"))
        node: Mapping | Sequence = Mapping(line) if isinstance(event, yaml.MappingStartEvent) else Sequence(line)
        self.place(node)
        self.stack.append(_Open(node, path))

    def place(self, node: Node) -> None:
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        if isinstance(top.node, Sequence):
            top.node.items.append(node)
            return
        assert top.key is not None, "in a mapping a value follows its key"
        key, line = top.key
        first = top.node.key_lines.get(key)
        if first is None:
            top.node.entries[key] = node
            top.node.key_lines[key] = line
        else:
            path = join(top.path, key)
            if len(self.faults) >= MAX_FAULTS:
                raise _Stop(Fault(line, path, "", f"more than {MAX_FAULTS} faults", "mend those first"))
            self.faults.append(Fault(line, path, str(node), f"given twice, first in line {first}", "keep one of them"))
        top.key = None


def join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _kind(event: yaml.ScalarEvent) -> str:
    """What PyYAML's safe loader would make of it, without making it."""
    if event.tag is not None and event.tag != "!":
        return event.tag.removeprefix(_TAG)
    if not event.implicit[0]:
        return "str"
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers
    for tag, pattern in resolvers.get(event.value[:1], ()):
        if pattern.match(event.value):
            return str(tag).removeprefix(_TAG)
    return "str"
