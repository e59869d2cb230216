from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from hedgerow.config import agent
from hedgerow.config.problem import ConfigProblems
from hedgerow.errors import BadInput

WHOLE = """\
name: n1
underlay: 192.168.78.1
controllers: ['192.168.78.250:8081']
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "agent.yaml"
    path.write_text(text)
    return path


def problems(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigProblems) as caught:
        agent.load(written(tmp_path, text))
    return str(caught.value)


def test_three_lines_are_enough(tmp_path: Path) -> None:
    settings = agent.load(written(tmp_path, WHOLE))
    assert settings.underlay == IPv4Address("192.168.78.1")
    assert settings.controllers == ("192.168.78.250:8081",)
    assert (settings.vxlan_port, settings.way, settings.http) == (64000, "auto", "127.0.0.1:9642")
    assert (settings.engines, settings.host_rootfs) == (("docker", "podman"), False)


def test_all_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    text = "name: n1\nunderlay: 10.0.0.300\nengines: [dokcer]\nway: fast\nstate: here\nvxlan_port: 80\ncontroller: x\n"
    said = problems(tmp_path, text)
    for words in (
        ":2: underlay: 10.0.0.300: not an IP address",
        "there is no engine dokcer",
        "there is no way fast",
        "an absolute path is needed; write /here",
        "write a number from 1024 to 65535",
        "did you mean controllers?",
        "controllers is missing",
    ):
        assert words in said


@pytest.mark.parametrize("address", ["10.0.0.1", "10.0.0.1:", ":8081", "10.0.0.1:0", "10.0.0.1:70000", "a:b"])
def test_a_controller_is_host_and_port(tmp_path: Path, address: str) -> None:
    said = problems(tmp_path, f"name: n1\nunderlay: 10.0.0.1\ncontrollers: ['{address}']\n")
    assert "write host:port" in said


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.yaml"):
        agent.load(tmp_path / "none.yaml")
