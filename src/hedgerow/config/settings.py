"""Settings: one record for each key that people write, from which it is read, checked and documented.

Reading a section goes through its settings one by one and notes every problem on the way, so that one bad value hides
no other: what can be read is read, and the checks between values see it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Generic, TypeVar

from . import yaml
from .problem import Problem, Wrong, nearest
from .yaml import Node, Scalar, join

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """`takes` and `meaning` are for the reference page; `read` raises Wrong."""

    key: str
    read: Callable[[Node], T]
    default: T
    takes: str
    meaning: str


@dataclass(slots=True)
class Notes:
    """Where problems are written down while a file is read."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def wrong(self, line: int, path: str, value: object, message: str, cure: str = "") -> None:
        self.problems.append(Problem(self.file, line, path, str(value), message, cure))

    def warn(self, line: int, path: str, value: object, message: str, cure: str = "") -> None:
        self.warnings.append(Problem(self.file, line, path, str(value), message, cure))


@dataclass(frozen=True, slots=True)
class Section:
    """What was read of one mapping. A key that is wrong is absent here, and was noted."""

    path: str
    line: int
    values: Mapping[str, Any]
    lines: Mapping[str, int]
    nodes: Mapping[str, Node]

    def get(self, setting: Setting[T]) -> T:
        value: T = self.values.get(setting.key, setting.default)
        return value

    def has(self, setting: Setting[Any]) -> bool:
        """Whether it is written there, right or wrong."""
        return setting.key in self.nodes

    def place(self, setting: Setting[Any]) -> tuple[int, str, str]:
        """Line, path and source text, as a problem needs them."""
        node = self.nodes.get(setting.key)
        text = "" if node is None else str(node)
        return self.lines.get(setting.key, self.line), join(self.path, setting.key), text


def read_section(
    node: yaml.Mapping,
    path: str,
    settings: Sequence[Setting[Any]],
    notes: Notes,
    *,
    not_yet: Mapping[str, str] | None = None,
    foreign: bool = False,
) -> Section:
    """Every setting of `node` that can be read. Unknown keys are wrong, unless `foreign` ones are expected."""
    known = {setting.key: setting for setting in settings}
    values: dict[str, Any] = {}
    for key, value in node.entries.items():
        line, place = node.key_lines[key], join(path, key)
        setting = known.get(key)
        if setting is None:
            _unknown(key, notes, (line, place, value), list(known), not_yet or {}, foreign=foreign)
            continue
        try:
            values[key] = setting.read(value)
        except Wrong as wrong:
            notes.wrong(line, place, value, wrong.message, wrong.cure)
    return Section(path, node.line, values, node.key_lines, node.entries)


def _unknown(
    key: str,
    notes: Notes,
    place: tuple[int, str, Node],
    known: Sequence[str],
    not_yet: Mapping[str, str],
    *,
    foreign: bool,
) -> None:
    line, path, value = place
    near = nearest(key, known, 0.9 if foreign else 0.6)
    cure = f"did you mean {near}?" if near else f"the keys here are {', '.join(known)}"
    if key == "<<":
        notes.wrong(line, path, value, "merge keys are not followed", "write the keys out")
    elif key in not_yet:
        notes.wrong(line, path, value, f"not yet: {not_yet[key]}", "take the key out until it is built")
    elif not foreign:
        notes.wrong(line, path, value, "no such key", cure)
    elif near:
        notes.warn(line, path, value, "not a key of ours, so it is not read", cure)


def text(node: Node) -> str:
    """A word. What YAML reads as something else is refused: 010 is eight there, and `on` is true."""
    scalar = _scalar(node, "a word")
    if scalar.kind != "str":
        read_as = {"bool": "true or false", "int": "a number", "float": "a number", "timestamp": "a date"}
        raise Wrong(
            f"YAML reads this as {read_as.get(scalar.kind, scalar.kind)}, a word is needed",
            f"write '{scalar.text}' in quotes",
        )
    return scalar.text


def whole_number(low: int, high: int) -> Callable[[Node], int]:
    """Decimal only, also in quotes, as DC/OS's templates write it."""

    def read(node: Node) -> int:
        scalar = _scalar(node, "a whole number")
        digits = scalar.text
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 19:
            raise Wrong("a whole number is needed", f"write a number from {low} to {high}")
        if digits != str(int(digits)):
            raise Wrong("a number that begins with 0 can be read in two ways", f"write {int(digits)}")
        if not low <= int(digits) <= high:
            raise Wrong("out of range", f"write a number from {low} to {high}")
        return int(digits)

    return read


def boolean(node: Node) -> bool:
    """`true` or `false`, also in quotes, as DC/OS's templates write it."""
    scalar = _scalar(node, "true or false")
    word = scalar.text.lower()
    if word in ("true", "false"):
        return word == "true"
    meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(word)
    raise Wrong("true or false is needed", f"write {meant}" if meant else "write true or false")


def address(node: Node) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text(node))
    except ValueError:
        raise Wrong("not an IP address", "write one, as 192.168.0.7 or fd00::7") from None


def network4(node: Node) -> IPv4Network:
    """Raises Wrong for host bits, naming the network they lie in."""
    written = text(node)
    try:
        found = IPv4Network(written, strict=False)
    except ValueError:
        if ":" in written:
            raise Wrong("an IPv4 network is needed, this is IPv6", "write it under the key that ends in 6") from None
        raise Wrong("not an IPv4 network", "write address and prefix length, as 9.0.0.0/8") from None
    return _exact(written, found)


def network6(node: Node) -> IPv6Network:
    written = text(node)
    try:
        found = IPv6Network(written, strict=False)
    except ValueError:
        if ":" not in written:
            raise Wrong("an IPv6 network is needed, this is not", "write it under the key without the 6") from None
        raise Wrong("not an IPv6 network", "write address and prefix length, as fd01:b::/64") from None
    return _exact(written, found)


N = TypeVar("N", IPv4Network, IPv6Network)


def _exact(written: str, found: N) -> N:
    address, slash, length = written.partition("/")
    if not slash or "%" in address:
        example = 24 if found.version == 4 else 64
        raise Wrong("address and prefix length are needed", f"write it as {found.network_address}/{example}")
    if not length.isdigit() or length != str(int(length)):
        raise Wrong("the prefix length must be a number", f"write {found}")
    if found.network_address != type(found.network_address)(address):
        raise Wrong("host bits are set", f"write {found}")
    return found


def words(node: Node) -> tuple[str, ...]:
    """A list of words, none twice."""
    given(node)
    if not isinstance(node, yaml.Sequence):
        raise Wrong("a list is needed", f"write [{node if isinstance(node, Scalar) else 'name'}]")
    found = tuple(text(item) for item in node.items)
    seen: set[str] = set()
    for word in found:
        if word in seen:
            raise Wrong(f"{word} is named twice", "name it once")
        seen.add(word)
    return found


def given(node: Node) -> Node:
    """The node itself. Raises Wrong when there is nothing, or only the name of something elsewhere."""
    if isinstance(node, Scalar) and node.kind == "null":
        raise Wrong("nothing is written here", "give it a value, or take the line out")
    if isinstance(node, Scalar) and node.kind == "alias":
        raise Wrong("aliases are not followed", "write the value out")
    return node


def _scalar(node: Node, needed: str) -> Scalar:
    given(node)
    if not isinstance(node, Scalar):
        raise Wrong(f"{needed} is needed, this is a {'list' if isinstance(node, yaml.Sequence) else 'mapping'}")
    return node
