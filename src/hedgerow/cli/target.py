"""What verbs ask about: `NAME`, `NAME:PORT` or `NAME:PORT/PROTOCOL`. An IPv6 address with a port stands in brackets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from hedgerow.errors import BadInput

_WITH_PORT = re.compile(r"(?P<name>.+):(?P<port>\d{1,5})(?:/(?P<protocol>[a-z]+))?")
_PROTOCOLS = ("tcp", "udp")


@dataclass(frozen=True, slots=True)
class Target:
    """Without a port `port` is 0 and `protocol` empty."""

    name: str
    port: int = 0
    protocol: str = ""


def read_target(text: str) -> Target:
    """Raises BadInput."""
    if _is_address(text):
        return Target(text.strip("[]"))
    match = _WITH_PORT.fullmatch(text)
    if match is None:
        if not text:
            raise BadInput("an empty name", "name an endpoint: hedgerow endpoint ls")
        return Target(text)
    port, protocol = int(match["port"]), match["protocol"] or "tcp"
    if not 1 <= port <= 65535:
        raise BadInput(f"{text}: there is no port {port}", "ports are 1 to 65535; without one, it is about ping")
    if protocol not in _PROTOCOLS:
        raise BadInput(f"{text}: {protocol} has no ports", "write /tcp or /udp, or no port for ping")
    return Target(match["name"].strip("[]"), port, protocol)


def _is_address(text: str) -> bool:
    """`fd00::1:80` is an address whole, not one with a port."""
    try:
        ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True
