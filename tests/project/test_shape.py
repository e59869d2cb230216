"""Sizes, names and what source must not hold. Every list here is empty; what stands in it is to be put right."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from project.conftest import ROOT, files, modules, name, tree

LONGEST_MODULE = 400
LONGEST_FUNCTION = 40
MOST_PARAMETERS = 7
"""Six and `self`."""

BANNED = ("manager", "handler", "helper", "utils", "slave")

THE_FIELDS_OWN = {"HELPER"}
"""The kernel's word for what BPF programs call."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def lines_of(function: Function) -> int:
    """From `def` to the end, without the docstring."""
    first = function.body[0]
    docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    without = (first.end_lineno or 0) - first.lineno + 1 if docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - without


def parameters_of(function: Function) -> int:
    arguments = function.args
    return len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)


def defined(path: Path) -> Iterator[str]:
    """Names that the file gives to something."""
    yield from path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(tree(path)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.arg():
                yield node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr
            case _:
                pass


def test_no_module_is_longer_than_400_lines() -> None:
    sources = [path for path in files() if path.suffix in (".py", ".c", ".h")]
    lengths = {name(path): len(path.read_text().splitlines()) for path in sources}
    assert {path: length for path, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_no_function_is_longer_than_40_lines() -> None:
    long = {
        f"{name(path)}:{function.lineno} {function.name}": lines
        for path in modules()
        for function in functions(path)
        if (lines := lines_of(function)) > LONGEST_FUNCTION
    }
    assert long == {}


def test_no_function_takes_more_than_six_parameters() -> None:
    wide = {
        f"{name(path)}:{function.lineno} {function.name}": count
        for path in modules()
        for function in functions(path)
        if (count := parameters_of(function)) > MOST_PARAMETERS
    }
    assert wide == {}


def words_of(named: str) -> list[str]:
    """`EventHandler_of2` is event, handler, of."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", named)]


@pytest.mark.parametrize("word", BANNED)
def test_nothing_is_called_by_a_word_that_says_nothing(word: str) -> None:
    found = {f"{name(path)}: {named}" for path in modules() for named in defined(path) if word in words_of(named)}
    assert {one for one in found if one.partition(": ")[2] not in THE_FIELDS_OWN} == set()


def test_every_init_file_is_empty() -> None:
    assert [name(path) for path in modules() if path.name == "__init__.py" and path.read_text()] == []


def test_every_module_says_at_its_head_what_it_is() -> None:
    silent = [name(path) for path in modules() if path.name != "__init__.py" and not ast.get_docstring(tree(path))]
    assert silent == []


def calls(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def test_source_prints_nothing() -> None:
    found = [f"{name(path)}:{line}" for path in modules() for line, called in calls(path) if called == "print"]
    assert found == []


def test_every_task_belongs_to_a_group_and_has_a_name() -> None:
    """A task without a group dies unseen; one without a name cannot be told in a log."""
    found = []
    for path in modules():
        for node in ast.walk(tree(path)):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("create_task")):
                continue
            outside = ast.unparse(node.func) in ("asyncio.create_task", "loop.create_task")
            named = any(keyword.arg == "name" for keyword in node.keywords)
            if outside or not named:
                found.append(f"{name(path)}:{node.lineno}")
    assert found == []


def test_nothing_is_left_to_do() -> None:
    mark = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    sources = [path for path in files() if path.suffix in (".py", ".c", ".h", ".sh", ".mk", ".md", ".yaml")]
    found = [name(path) for path in sources if path != Path(__file__) and mark.search(path.read_text())]
    assert found == []


def test_no_test_is_left_out() -> None:
    found = []
    for path in modules(ROOT / "tests"):
        marks = {ast.unparse(node) for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}
        words = {"pytest.skip", "pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail", "pytest.importorskip"}
        found += [f"{name(path)}: {mark}" for mark in sorted(marks & words)]
    assert found == []
