"""What people write and where files say it: targets with ports, and the lines of config.yaml."""

from __future__ import annotations

import pytest

from hedgerow.cli.target import Target, read_target
from hedgerow.config.lines import line_of
from hedgerow.errors import BadInput

CONFIG = """\
dcos_overlay_network:
  vtep_subnet: 44.128.0.0/20
  overlays:
    - name: dev
      subnet: 10.64.0.0/12
    - subnet: 10.80.0.0/14
      name: prod
      allow:
        - dev
        - {to: test,
           ports: [80/tcp]}
      rules:
        - {from: any, to: any}
"""


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("dev", 4),
        ("prod", 7),
        ("prod.allow", 8),
        ("prod.allow[0]", 9),
        ("prod.allow[1]", 10),
        ("prod.rules[0]", 13),
        ("prod.rules[7]", 12),
        ("dev.allow", 4),
        ("none.allow", 0),
        ("overlays", 0),
    ],
)
def test_the_line_of_what_decides(where: str, line: int) -> None:
    assert line_of(CONFIG, where) == line


def test_the_section_may_be_json() -> None:
    text = 'dcos_overlay_network: |\n  {"overlays": [\n    {"name": "dev",\n     "allow": ["prod"]}]}\n'
    assert line_of(text, "dev.allow") == 4
    assert line_of("no: {yaml", "dev") == 0


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("db", Target("db")),
        ("db:5432", Target("db", 5432, "tcp")),
        ("/group/db:53/udp", Target("/group/db", 53, "udp")),
        ("cni/0123/eth0", Target("cni/0123/eth0")),
        ("cni/0123/eth0:80", Target("cni/0123/eth0", 80, "tcp")),
        ("10.64.0.2:80", Target("10.64.0.2", 80, "tcp")),
        ("fd00::1:80", Target("fd00::1:80")),
        ("[fd00::1]:80", Target("fd00::1", 80, "tcp")),
        ("[fd00::1]", Target("fd00::1")),
    ],
)
def test_a_target_is_a_name_and_perhaps_a_port(written: str, target: Target) -> None:
    assert read_target(written) == target


@pytest.mark.parametrize(
    ("written", "told"), [("db:0", "no port 0"), ("db:70000", "no port 70000"), ("db:1/sctp", "sctp"), ("", "empty")]
)
def test_a_port_that_is_none_is_refused(written: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        read_target(written)
