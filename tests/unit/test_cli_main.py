"""The command line as a whole: what it imports, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from hedgerow import errors
from hedgerow.cli import main as command_line
from hedgerow.cli.main import VERBS, VERSION, main

ROOT = Path(__file__).parents[2]


def run(*words: str, code: str = "") -> subprocess.CompletedProcess[str]:
    program = ["-c", code] if code else ["-m", "hedgerow.cli.main"]
    return subprocess.run([sys.executable, *program, *words], text=True, capture_output=True, check=False)


@pytest.mark.parametrize("words", ["--help", "--version", "config check --help"])
def test_help_and_version_import_nothing_heavy(words: str) -> None:
    code = (
        "import sys\nfrom hedgerow.cli.main import main\nmain(sys.argv[1:])\n"
        "heavy = {'fastapi', 'starlette', 'uvicorn', 'pydantic', 'pyroute2', 'aiohttp', 'rich', 'asyncio', 'msgspec'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    assert run(*words.split(), code=code).stderr == "[]\n"


def test_help_lists_every_verb_with_its_sentence() -> None:
    told = run("--help").stdout
    for name, verb in VERBS.items():
        assert f"  {name} " in told
        assert verb.help.split(",")[0][:30] in told


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert run("--version").stdout == f"hedgerow {VERSION}\n"
    assert project["version"] == VERSION


@pytest.mark.parametrize("plural", ["networks", "agents", "endpoints"])
def test_plural_and_singular_are_one_verb(plural: str) -> None:
    assert run(plural, "--help").stdout.replace(plural, plural[:-1]) == run(plural[:-1], "--help").stdout.replace(
        plural, plural[:-1]
    )


def test_a_verb_that_does_not_exist_is_wrong_use() -> None:
    done = run("netwrok")
    assert done.returncode == 2
    assert "netwrok" in done.stderr


KINDS = [errors.HedgerowError, errors.BadInput, errors.NotFound, errors.Unreachable, errors.Refused, errors.Exhausted]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_is_told_on_stderr_with_its_cure_and_ends_with_the_code_of_its_kind(
    kind: type[errors.HedgerowError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def fails() -> None:
        raise kind("9.0.0.1 is taken", "ask for another")

    monkeypatch.setattr(command_line, "hedgerow", fails)
    assert main([]) == kind.exit_code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "hedgerow: 9.0.0.1 is taken\n  ask for another\n"


def test_found_trouble_ends_with_3(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def looks() -> None:
        raise click.exceptions.Exit(3)

    monkeypatch.setattr(command_line, "hedgerow", looks)
    assert main([]) == 3


def test_an_interrupt_ends_with_130_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def waits() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()

    monkeypatch.setattr(command_line, "hedgerow", waits)
    assert main([]) == 130
    assert capsys.readouterr().err.strip() == ""


def test_a_reader_that_has_gone_ends_it_without_a_word() -> None:
    code = (
        "import sys\nfrom hedgerow.cli import main as m\nimport click\n"
        "m.hedgerow = click.Command('x', callback=lambda: [click.echo('line' * 100) for _ in range(10000)])\n"
        "sys.exit(m.main([]))"
    )
    done = subprocess.run(
        ["sh", "-c", '{ "$0" -c "$1"; echo "ended with $?" >&2; } | head -n 1', sys.executable, code],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.stderr == "ended with 1\n"
