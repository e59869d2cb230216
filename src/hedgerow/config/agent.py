"""agent.yaml: what an agent must be told of its own host, to a record, or to every problem with its line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from . import yaml
from .file import read_file
from .problem import Wrong
from .settings import Setting, address, boolean, text, whole_number, words
from .yaml import Node

ENGINES: tuple[str, ...] = ("docker", "podman")
WAYS = ("auto", "device")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """`http` is where the local HTTP listens; `host_rootfs` lets apps without an image run on the host's own root."""

    name: str
    underlay: IPv4Address | IPv6Address
    controllers: tuple[str, ...]
    certificates: Path
    state: Path
    engines: tuple[str, ...]
    host_rootfs: bool
    http: str
    vxlan_port: int
    way: str


def _path(node: Node) -> Path:
    written = Path(text(node))
    if not written.is_absolute():
        raise Wrong("an absolute path is needed", f"write /{written}")
    return written


def _host_and_port(node: Node) -> str:
    written = text(node)
    host, colon, port = written.rpartition(":")
    if not colon or not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise Wrong(f"{written} is no address", "write host:port, as 192.168.0.250:8081")
    return written


def _controllers(node: Node) -> tuple[str, ...]:
    if not isinstance(node, yaml.Sequence) or not node.items:
        raise Wrong("a list of at least one controller is needed", "write [192.168.0.250:8081]")
    return tuple(_host_and_port(item) for item in node.items)


def _engines(node: Node) -> tuple[str, ...]:
    named = words(node)
    for name in named:
        if name not in ENGINES:
            raise Wrong(f"there is no engine {name}", f"the engines are {', '.join(ENGINES)}")
    return named


def _way(node: Node) -> str:
    written = text(node)
    if written not in WAYS:
        raise Wrong(f"there is no way {written}", f"write {' or '.join(WAYS)}")
    return written


_NO_NAME: str | None = None
_NO_ADDRESS: IPv4Address | IPv6Address | None = None
_NO_CONTROLLERS: tuple[str, ...] = ()

NAME = Setting("name", text, _NO_NAME, "a word", "What people call this host; no two agents may have one name.")
UNDERLAY = Setting(
    "underlay",
    address,
    _NO_ADDRESS,
    "an IP address",
    "Of this host, where the other hosts' tunnels end; of one IP version on every host.",
)
CONTROLLERS = Setting(
    "controllers", _controllers, _NO_CONTROLLERS, "a list of host:port", "Any of them will do; port 8081 as a rule."
)
CERTIFICATES = Setting(
    "certificates",
    _path,
    Path("/etc/hedgerow/certificates"),
    "a directory",
    "It holds ca.pem, agent.pem and agent.key.",
)
STATE = Setting(
    "state", _path, Path("/var/lib/hedgerow/agent"), "a directory", "What the agent must not forget: keep it."
)
ENGINES_HERE = Setting("engines", _engines, ENGINES, "a list of engines", "Which engines this host runs.")
HOST_ROOTFS = Setting(
    "host_rootfs",
    boolean,
    False,
    "true or false",
    "With true, apps without an image run on this host's root file system, under an overlay that is thrown away.",
)
HTTP = Setting(
    "http", _host_and_port, "127.0.0.1:9642", "host:port", "Of /healthz, /metrics and DC/OS's /overlay-agent/overlay."
)
VXLAN_PORT = Setting(
    "vxlan_port", whole_number(1024, 65535), 64000, "a UDP port", "Of the tunnels; the same on every host."
)
WAY = Setting(
    "way",
    _way,
    "auto",
    "auto or device",
    "With device, tunnels go through the VXLAN device even where eBPF could do it.",
)

ALL: tuple[Setting[Any], ...] = (
    *(NAME, UNDERLAY, CONTROLLERS, CERTIFICATES, STATE),
    *(ENGINES_HERE, HOST_ROOTFS, HTTP, VXLAN_PORT, WAY),
)


def load(path: Path) -> AgentSettings:
    """Raises ConfigProblems, BadInput when the file cannot be read at all."""
    section = read_file(path, ALL, needed=(NAME, UNDERLAY, CONTROLLERS))
    name, underlay = section.get(NAME), section.get(UNDERLAY)
    assert name is not None
    assert underlay is not None
    return AgentSettings(
        name=name,
        underlay=underlay,
        controllers=section.get(CONTROLLERS),
        certificates=section.get(CERTIFICATES),
        state=section.get(STATE),
        engines=section.get(ENGINES_HERE),
        host_rootfs=section.get(HOST_ROOTFS),
        http=section.get(HTTP),
        vxlan_port=section.get(VXLAN_PORT),
        way=section.get(WAY),
    )
