"""Pages and code say the same: keys, drop reasons, commands and their examples."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from project.conftest import ROOT

from hedgerow.cli.main import hedgerow
from hedgerow.config.load import check_file
from hedgerow.config.reference import agent_page, config_page

README = ROOT / "README.md"


def commands(group: click.Group = hedgerow, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command of the command line, by its words."""
    with click.Context(group) as context:
        for word in group.list_commands(context):
            command = group.get_command(context, word)
            assert command is not None
            yield " ".join((*words, word)), command
            if isinstance(command, click.Group):
                yield from commands(command, (*words, word))


def parse(line: str) -> None:
    """Reads a command line as the command would, and runs nothing. Raises what click would tell."""
    words = shlex.split(re.split(r" [|#]", line)[0])
    command: click.Command = hedgerow
    arguments = words[words.index("hedgerow") + 1 :]
    context = click.Context(hedgerow)
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        _, found, arguments = command.resolve_command(context, arguments)
        assert found is not None
        command, context = found, click.Context(found)
    with command.make_context(command.name, list(arguments)):
        pass


def examples(help_text: str) -> list[str]:
    """The indented lines under Example or Examples."""
    found: list[str] = []
    inside = False
    for line in help_text.splitlines():
        if re.fullmatch(r"\s*Examples?:", line):
            inside = True
        elif inside and line.strip().startswith("hedgerow"):
            found.append(line.strip())
        elif inside and not line.strip():
            inside = False
    return found


EVERY = dict(commands())


@pytest.mark.parametrize(("file", "page"), [("config", config_page), ("agent", agent_page)])
def test_the_page_of_a_configuration_file_is_fresh(file: str, page: Callable[[], str]) -> None:
    """When it is not: build/hedgerow config keys FILE.yaml >docs/reference/FILE.md"""
    assert (ROOT / "docs" / "reference" / f"{file}.md").read_text() == page()


@pytest.mark.parametrize("words", [words for words, command in EVERY.items() if not isinstance(command, click.Group)])
def test_every_command_shows_at_least_one_example_and_all_of_them_parse(words: str) -> None:
    shown = examples(EVERY[words].help or "")
    assert shown, f"hedgerow {words} --help has no example"
    for line in shown:
        parse(line)


def test_the_examples_of_the_command_line_itself_parse() -> None:
    for line in examples(hedgerow.help or ""):
        parse(line)


@pytest.mark.parametrize("words", EVERY)
def test_every_option_says_what_it_is_for(words: str) -> None:
    options = [option for option in EVERY[words].params if isinstance(option, click.Option)]
    assert [option.name for option in options if not option.help] == []


def shell_lines(path: Path) -> list[str]:
    """Commands in the shell blocks of a page, without prompts."""
    blocks = re.findall(r"^```(?:sh|shell|bash|console)\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [line.strip() for line in lines]


def pages() -> list[Path]:
    return [README, *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_every_make_target_on_a_page_exists(path: Path) -> None:
    rules = "\n".join(file.read_text() for file in [ROOT / "Makefile", *(ROOT / "mk").glob("*.mk")])
    targets = set(re.findall(r"^([a-z][a-z-]*):", rules, re.MULTILINE))
    named = {word for line in shell_lines(path) for word in re.findall(r"\bmake ([a-z][a-z-]*)", line)}
    named |= set(re.findall(r"`make ([a-z][a-z-]*)[^`]*`", path.read_text()))
    assert named - targets == set()


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_every_hedgerow_command_on_a_page_parses(path: Path) -> None:
    for line in shell_lines(path):
        if re.match(r"(sudo )?(\S*/)?hedgerow ", line):
            parse(re.sub(r"^(sudo )?(\S*/)?hedgerow ", "hedgerow ", line))


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_every_config_yaml_on_a_page_is_a_good_one(path: Path, tmp_path: Path) -> None:
    for block in re.findall(r"^```yaml\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
        if "dcos_overlay_network:" in block:
            written = tmp_path / "config.yaml"
            written.write_text(block)
            checked = check_file(written)
            assert (checked.problems, checked.warnings) == ((), ())
