"""What may be in the repository, and what its pages may say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from project.conftest import ROOT, files, name

LARGEST_BYTES = 100_000
LOCKS = {"requirements.lock", "requirements-dev.lock"}
"""Hashes of every dependency: long by nature."""


def text_of(path: Path) -> str:
    return path.read_text(errors="replace")


def test_no_file_is_larger_than_100_kb() -> None:
    sizes = {name(path): path.stat().st_size for path in files() if name(path) not in LOCKS}
    assert {path: size for path, size in sizes.items() if size > LARGEST_BYTES} == {}


FOREIGN = {
    "a path of some machine": rf"/{'work'}/(main|shared)\b|/home/[a-z]+/",
    "a page outside the repository": rf"\.\./{'shared'}|{'CONTRACT'}\.md|/tmp/{'hedgerow'}/",
    "a registry's host": r"\b(pypi\.org|pythonhosted\.org|deb\.debian\.org|registry-1\.docker\.io|crates\.io)\b",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_no_file_names(what: str) -> None:
    pattern = re.compile(FOREIGN[what])
    found = [name(path) for path in files() if path != Path(__file__) and pattern.search(text_of(path))]
    assert found == []


def test_every_dependency_has_its_reason_beside_it() -> None:
    path = ROOT / "pyproject.toml"
    project = tomllib.loads(path.read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    reasons = dict(re.findall(r'^    "([^"]+)", +# (.+)$', path.read_text(), re.MULTILINE))
    assert [dependency for dependency in wanted if not reasons.get(dependency)] == []


def test_every_file_that_the_walk_names_exists() -> None:
    """docs/architecture.md: one network from config.yaml to a packet, in sixteen stations, none twice."""
    rows = re.findall(r"^\| *(\d+) *\| *([^|]+)\|", text_of(ROOT / "docs" / "architecture.md"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 17))
    named = [word for _, where in rows for word in re.findall(r"`([^`]+\.(?:py|c|h))`", where)]
    places = (ROOT, ROOT / "src" / "hedgerow", ROOT / "bpf")
    stations = [re.findall(r"`([^`]+)`", where)[0] for _, where in rows]
    assert len(set(stations)) == 16
    assert [file for file in named if not any((place / file).is_file() for place in places)] == []


def links(path: Path) -> list[str]:
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(path))
    return [link for link in found if "://" not in link]


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = [path for path in files() if path.suffix == ".md"]
    assert [
        f"{name(page)}: {link}" for page in pages for link in links(page) if not (page.parent / link).exists()
    ] == []
