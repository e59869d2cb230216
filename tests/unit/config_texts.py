"""config.yaml as text, for tests of what is read from it."""

from __future__ import annotations

from hedgerow.config.load import check

HEAD = """\
dcos_overlay_network:
  vtep_subnet: 44.128.0.0/20
  vtep_subnet6: fd01:a::/64
  vtep_mac_oui: 70:B3:D5:00:00:00
  overlays:
"""


def told(text: str) -> list[str]:
    return [str(problem) for problem in check(text, "config.yaml").problems]


def network(**keys: str) -> str:
    """One network, a key a line from line 6 on: name, subnet and prefix as given or good ones."""
    merged = {"name": "dev", "subnet": "10.64.0.0/12", "prefix": "24"} | keys
    lines = [f"{key}: {value}" for key, value in merged.items() if value != "-"]
    return HEAD + "  - " + "\n    ".join(lines) + "\n"
