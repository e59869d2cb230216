"""YAML as a tree with lines, and what tries to hurt the reader."""

from __future__ import annotations

import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.config.yaml import MAX_BYTES, MAX_DEPTH, MAX_NODES, Mapping, Scalar, Sequence, parse


def test_every_key_and_value_knows_its_line() -> None:
    document = parse("a: 1\nb:\n  - x\n  - c: |\n      two\n      lines\n")
    root = document.root
    assert isinstance(root, Mapping)
    assert root.key_lines == {"a": 1, "b": 2}
    items = root.entries["b"]
    assert isinstance(items, Sequence)
    assert items.items[0] == Scalar("x", "str", 3, 3)
    inner = items.items[1]
    assert isinstance(inner, Mapping)
    assert inner.entries["c"] == Scalar("two\nlines\n", "str", 4, 5)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("on", "bool"),
        ("no", "bool"),
        ("010", "int"),
        ("12:30:45", "int"),
        ("70:42:10:00:00:00", "int"),
        ("08", "str"),
        ("1.5", "float"),
        (".nan", "float"),
        ("2026-11-24", "timestamp"),
        ("~", "null"),
        ("", "null"),
        ("dcos-1", "str"),
        ("'on'", "str"),
        ('"12"', "str"),
        ("!!str 12", "str"),
    ],
)
def test_a_scalar_keeps_its_text_and_what_yaml_1_1_makes_of_it(text: str, kind: str) -> None:
    root = parse(f"a: {text}").root
    assert isinstance(root, Mapping)
    scalar = root.entries["a"]
    assert isinstance(scalar, Scalar)
    assert scalar.kind == kind
    assert scalar.text == text.removeprefix("!!str ").strip("'\"")


def test_a_key_given_twice_is_a_fault_that_names_both_lines() -> None:
    document = parse("a: 1\nb: {c: 1, c: [2]}\na: 3\n")
    assert [(fault.line, fault.path, fault.message) for fault in document.faults] == [
        (2, "b.c", "given twice, first in line 2"),
        (3, "a", "given twice, first in line 1"),
    ]


BOMB = "a: &a [x, x, x]\n" + "".join(f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]\n" for p, c in pairwise("abcdefghi"))


def test_an_alias_is_a_scalar_that_is_not_followed() -> None:
    root = parse(BOMB + "self: &s [*s]\n").root
    assert isinstance(root, Mapping)
    last, itself = root.entries["i"], root.entries["self"]
    assert isinstance(last, Sequence)
    assert isinstance(itself, Sequence)
    assert last.items == [Scalar("*h", "alias", 9)] * 9
    assert itself.items == [Scalar("*s", "alias", 10)]


HURTFUL = {
    "4,000 brackets": ("[" * 4000, "nest"),
    "a million brackets": ("[" * 1_000_000, "nest"),
    "a million braces": ("{a: " * 250_000, "nest"),
    "deep but legal": ("\n".join("  " * n + "a:" for n in range(80)), "nested more than"),
    "too many keys": ("".join(f"k{n}: 1\n" for n in range(90_000)), "more than 20000 values"),
    "one key again and again": ("a: 1\n" * 200_000, "more than 100 faults"),
    "too long": ("a" * (MAX_BYTES + 1), "bytes are too many"),
    "an open quote": ('a: "' + "x" * 1_000_000, "not YAML"),
    "a zero byte": ("a: \0", "not YAML"),
    "half a surrogate": ("a: \ud800", "not YAML"),
    "two documents": ("a: 1\n---\nb: 1\n", "second document"),
    "a tab": ("a:\n\t- b\n", "not YAML"),
    "a list for a key": ("? [a]\n: b\n", "a key must be a word"),
    "a mapping for a key": ("{{a: b}: c}", "a key must be a word"),
}


def seconds_to_parse(text: str) -> float:
    """Of this process, so that a busy machine does not count."""
    begun = time.process_time()
    parse(text)
    return time.process_time() - begun


@pytest.mark.parametrize("name", HURTFUL)
def test_what_would_hurt_is_a_fault_at_once(name: str) -> None:
    text, told = HURTFUL[name]
    assert told in parse(text).faults[-1].message
    assert min(seconds_to_parse(text) for _ in range(3)) < 0.25


@pytest.mark.parametrize("name", HURTFUL)
def test_what_would_hurt_takes_less_than_50_mb(name: str) -> None:
    tracemalloc.start()
    try:
        parse(HURTFUL[name][0])
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


def test_as_deep_and_as_large_as_allowed_is_read() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse(deep).faults == ()
    many = "[" + "a, " * (MAX_NODES - 2) + "a]"
    assert parse(many).faults[-1:] == ()


@given(st.text(max_size=200))
def test_no_text_raises(text: str) -> None:
    parse(text)


@given(st.text(alphabet="ab:-[]{},'\"&*!|>#\n \t?%@`", max_size=80))
def test_no_nonsense_raises(text: str) -> None:
    parse(text)
