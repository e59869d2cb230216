"""What reading verbs print: data on stdout in the form that -o asks for, talk on stderr.

A table for people, columns wide enough and no more; JSON with a version for programs; names for shell loops. What is
shown in a column is computed from the same record that JSON prints whole.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from hedgerow.config.problem import printable

VERSION = 1
"""Of the JSON and YAML forms: goes up when a key changes its meaning or goes."""

FORMATS = ("table", "wide", "json", "yaml", "name")

F = TypeVar("F", bound=Callable[..., Any])
Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """`value` is a key of the record, or a function of it. Wide ones are left out of `-o table`."""

    title: str
    value: str | Callable[[Record], object]
    wide: bool = False

    def of(self, record: Record) -> str:
        found = record.get(self.value) if isinstance(self.value, str) else self.value(record)
        if found is None or found in ("", [], ()):
            return "-"
        if isinstance(found, bool):
            return "yes" if found else "no"
        if isinstance(found, (list, tuple)):
            found = ",".join(str(item) for item in found)
        return printable(str(found))


def output_option(function: F) -> F:
    """Gives the verb `output`."""
    option = click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="Form of the answer. json and yaml carry a version; name prints one name a line.",
    )
    return option(function)


def show(
    rows: Sequence[Record], columns: Sequence[Column], output: str, *, kind: str, name: str = "name", **more: Any
) -> None:
    """Rows of one `kind` (a plural: "networks"). `name` is the key that identifies a row, `more` goes beside them."""
    match output:
        case "json" | "yaml":
            write({"version": VERSION, **more, kind: list(rows)}, output)
        case "name":
            for row in rows:
                click.echo(row[name])
        case _:
            if rows:
                for line in table(rows, [c for c in columns if output == "wide" or not c.wide]):
                    click.echo(line)
            else:
                click.echo(f"no {kind}", err=True)


def show_one(record: Record, columns: Sequence[Column], output: str, *, kind: str, name: str = "name") -> None:
    """One record of a `kind` (a singular: "network"): for people one line for each column, wide ones included."""
    match output:
        case "json" | "yaml":
            write({"version": VERSION, kind: dict(record)}, output)
        case "name":
            click.echo(record[name])
        case _:
            width = max(len(column.title) for column in columns)
            for column in columns:
                click.echo(f"{column.title.lower():<{width}}  {column.of(record)}")


def write(value: object, output: str) -> None:
    """JSON or YAML, on stdout."""
    if output == "json":
        json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
        return
    import yaml

    yaml.safe_dump(value, sys.stdout, sort_keys=False, allow_unicode=True)


def table(rows: Sequence[Record], columns: Sequence[Column]) -> list[str]:
    """Lines of equal columns; the last one is not padded."""
    cells = [[column.title for column in columns], *([column.of(row) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
