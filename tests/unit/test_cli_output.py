from __future__ import annotations

import json

import pytest
import yaml

from hedgerow.cli.output import Column, show, show_one

ROWS = [
    {"name": "dcos-1", "endpoints": 12, "allow": [], "internal": False},
    {"name": "db", "endpoints": 0, "allow": ["web", "dev"], "internal": True},
]
COLUMNS = (
    Column("NETWORK", "name"),
    Column("ENDPOINTS", "endpoints"),
    Column("ALLOW", "allow"),
    Column("INTERNAL", lambda row: row["internal"]),
    Column("GATEWAY", "gateway", wide=True),
)


def shown(output: str, capsys: pytest.CaptureFixture[str]) -> str:
    show(ROWS, COLUMNS, output, kind="networks", revision="1.7")
    told = capsys.readouterr()
    assert told.err == ""
    return told.out


def test_a_table_has_columns_as_wide_as_their_words_and_no_trailing_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("table", capsys) == (
        "NETWORK  ENDPOINTS  ALLOW    INTERNAL\ndcos-1   12         -        no\ndb       0          web,dev  yes\n"
    )


def test_wide_has_the_wide_columns_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("wide", capsys).splitlines()[0].endswith("INTERNAL  GATEWAY")


def test_json_and_yaml_hold_the_whole_records_and_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    whole = {"version": 1, "revision": "1.7", "networks": ROWS}
    assert json.loads(shown("json", capsys)) == whole
    assert yaml.safe_load(shown("yaml", capsys)) == whole


def test_what_would_colour_the_terminal_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    show([{"name": "\x1b[31mred\n"}], [Column("NAME", "name")], "table", kind="networks")
    assert capsys.readouterr().out == "NAME\n\\x1b[31mred\\n\n"


def test_names_come_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("name", capsys) == "dcos-1\ndb\n"


def test_nothing_to_list_is_said_on_stderr_and_is_an_empty_list_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    show([], COLUMNS, "table", kind="networks")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "no networks\n")
    show([], COLUMNS, "json", kind="networks")
    assert json.loads(capsys.readouterr().out) == {"version": 1, "networks": []}


def test_one_record_is_a_line_for_each_column(capsys: pytest.CaptureFixture[str]) -> None:
    show_one(ROWS[1], COLUMNS, "table", kind="network")
    assert capsys.readouterr().out == (
        "network    db\nendpoints  0\nallow      web,dev\ninternal   yes\ngateway    -\n"
    )
    show_one(ROWS[1], COLUMNS, "json", kind="network")
    assert json.loads(capsys.readouterr().out) == {"version": 1, "network": ROWS[1]}
