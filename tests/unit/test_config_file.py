"""agent.yaml and cli.yaml: flat files of ours."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from hedgerow.config.file import read_file
from hedgerow.config.problem import ConfigProblems
from hedgerow.config.settings import Setting, address, text, whole_number
from hedgerow.errors import BadInput

NAME = Setting("name", text, "", "a word", "Of this host.")
UNDERLAY = Setting("underlay", address, IPv4Address(0), "an IP address", "Of this host.")
PORT = Setting("port", whole_number(1, 65535), 64000, "a port", "Of the tunnels.")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.yaml"


def faults(path: Path) -> list[str]:
    with pytest.raises(ConfigProblems) as raised:
        read_file(path, (NAME, UNDERLAY, PORT), needed=(NAME, UNDERLAY))
    return [str(problem).removeprefix(f"{path}:") for problem in raised.value.problems]


def test_what_is_written_is_read_and_what_is_not_has_its_default(path: Path) -> None:
    path.write_text("name: n1\nunderlay: 192.168.78.1\n")
    section = read_file(path, (NAME, UNDERLAY, PORT), needed=(NAME, UNDERLAY))
    assert (section.get(NAME), section.get(UNDERLAY), section.get(PORT)) == ("n1", IPv4Address("192.168.78.1"), 64000)


def test_every_fault_is_told_at_once(path: Path) -> None:
    path.write_text("underlay: 192.168.78.300\nprot: 1\nport: 70000\nport: 2\n")
    assert faults(path) == [
        "1: name is missing; write name: and a word",
        "1: underlay: 192.168.78.300: not an IP address; write one, as 192.168.0.7 or fd00::7",
        "2: prot: 1: no such key; did you mean port?",
        "3: port: 70000: out of range; write a number from 1 to 65535",
        "4: port: 2: given twice, first in line 3; keep one of them",
    ]


@pytest.mark.parametrize("written", ["", "- n1\n", "n1\n"])
def test_what_has_no_keys_is_told_to_have_some(path: Path, written: str) -> None:
    path.write_text(written)
    assert faults(path) == ["1: keys and values are needed; write name: at least"]


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigProblems, match="bytes are too many"):
        read_file(Path("/dev/zero"), (NAME,), needed=(NAME,))


def test_a_directory_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="Is a directory"):
        read_file(tmp_path, (NAME,), needed=(NAME,))
