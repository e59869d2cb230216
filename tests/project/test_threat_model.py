"""Every claim of the threat model has tests that exist, and every id that a test proves is a claim there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from project.conftest import ROOT, modules, tree

PAGE = ROOT / "docs" / "threat-model.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
PROVEN = re.compile(r"[SR]\d+(?![\w.])")


def claims(heading: str) -> dict[str, str]:
    """Id -> what is said of it, in the list under a heading. Asserts that no id comes twice."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^- \*\*([SR]\d+)\*\* (.*?)(?=^- |\Z)", section, re.MULTILINE | re.DOTALL)
    assert len(dict(found)) == len(found), f"an id stands twice under {heading}"
    return dict(found)


def names_in(path: str) -> set[str]:
    return {node.name for node in ast.walk(tree(ROOT / path)) if isinstance(node, ast.FunctionDef)}


def test_every_claim_names_a_test_and_every_named_test_exists() -> None:
    made = claims("Claims")
    assert made
    assert [id for id, said in made.items() if not TEST.search(said)] == []
    named = set(TEST.findall(PAGE.read_text()))
    missing = [f"{file}::{test}" for file, test in named if not (ROOT / file).is_file() or test not in names_in(file)]
    assert missing == []


def ids_proven() -> Iterator[tuple[str, str]]:
    """(id, file) of every `proof.count("S1 ...")`, the words after the id apart."""
    for path in modules(ROOT / "tests"):
        for node in ast.walk(tree(path)):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "proof.count" and node.args):
                continue
            text = node.args[0]
            first = text.values[0] if isinstance(text, ast.JoinedStr) else text
            if isinstance(first, ast.Constant) and (found := PROVEN.match(str(first.value))):
                yield found[0], str(path.relative_to(ROOT))


def test_every_id_that_a_test_proves_is_a_claim() -> None:
    known = {*claims("Claims"), *claims("Not promised")}
    assert {(id, file) for id, file in ids_proven() if id not in known} == set()
