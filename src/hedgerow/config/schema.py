"""The keys of config.yaml: DC/OS's as they are, and ours. The reference page is made from these records.

DC/OS's generator (1.8 to 2.2) takes numbers and truth values also in quotes, and `dcos_overlay_network` also as JSON
text; so does this.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from .problem import Wrong
from .settings import Setting, boolean, given, network4, network6, text, whole_number
from .walls import AGENTS, ALLOW, HOST_SERVICES, RULES, one_of
from .yaml import Node

LONGEST_NAME = 63
LONGEST_PREFIX = 30
LONGEST_PREFIX6 = 126
SMALLEST_MTU = 552
SMALLEST_MTU6 = 1280
"""RFC 8200, 5: IPv6 needs a link that carries this much."""

NAME = re.compile(r"[a-z0-9]([-a-z0-9_]*[a-z0-9])?")
MAC = re.compile(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}")

RESERVED_NAMES = frozenset(
    [
        *("host", "bridge", "default", "none", "private", "container"),
        *("podman", "slirp4netns", "pasta"),
        *("ingress", "docker_gwbridge"),
        "all",
    ]
)
"""Words that Docker, Podman, DC/OS or our own commands take for something else."""


def network_name(node: Node) -> str:
    name = text(node)
    if name in RESERVED_NAMES:
        raise Wrong("a reserved name: an engine or a command means something else by it", "choose another")
    if not NAME.fullmatch(name):
        meant = re.sub(r"[^-a-z0-9_]", "-", name.lower()).strip("-_")
        raise Wrong(
            "a name is made of a-z, 0-9, - and _, and begins and ends with a letter or digit",
            f"write {meant}" if NAME.fullmatch(meant) else "choose another",
        )
    if len(name) > LONGEST_NAME:
        raise Wrong(f"{len(name)} characters are too many", f"shorten it to {LONGEST_NAME}")
    return name


def mac_oui(node: Node) -> bytes:
    """The first three octets; DC/OS writes all six, the last three zero."""
    written = text(node)
    if not MAC.fullmatch(written):
        raise Wrong("not a MAC address", "write six octets, the last three 00, as 70:B3:D5:00:00:00")
    octets = bytes.fromhex(written.replace(":", ""))
    if octets[3:] != bytes(3):
        raise Wrong("the last three octets must be 00", f"write {octets[:3].hex(':')}:00:00:00")
    if octets[0] & 1:
        raise Wrong("this is a multicast address", f"write {octets[0] & 0xFE:02x}:{octets[1:].hex(':')}")
    return octets[:3]


_MTU = whole_number(SMALLEST_MTU, 65535)
_ABSENT4: IPv4Network | None = None
_ABSENT6: IPv6Network | None = None
_NO_NUMBER: int | None = None
_NO_NODE: Node | None = None

ENABLE = Setting(
    "dcos_overlay_enable", boolean, True, "true or false", "With false nothing is allotted; the file is still checked."
)
MTU = Setting(
    "dcos_overlay_mtu",
    _MTU,
    1420,
    "552 to 65535, bytes",
    "Of the containers' interfaces; an agent whose underlay carries less takes 50 bytes less than that.",
)
ATTEMPTS = Setting(
    "dcos_overlay_config_attempts",
    whole_number(0, 10),
    4,
    "0 to 10",
    "Accepted for DC/OS's sake, and not used: an agent tries until it succeeds.",
)
NETWORK = Setting(
    "dcos_overlay_network",
    given,
    _NO_NODE,
    "a mapping, or the same as JSON text",
    "The networks and the tunnels that carry "
    "them. Without it there are DC/OS's two: `dcos` (9.0.0.0/8, /24) and `dcos6` (fd01:b::/64, /80).",
)
TOP: tuple[Setting[Any], ...] = (ENABLE, MTU, ATTEMPTS, NETWORK)

VTEP_SUBNET = Setting(
    "vtep_subnet",
    network4,
    _ABSENT4,
    "IPv4 network, /8 to /30",
    "Each agent's VTEP has its address here, lowest free first. Needed when a network has `subnet`.",
)
VTEP_SUBNET6 = Setting(
    "vtep_subnet6",
    network6,
    _ABSENT6,
    "IPv6 network, /126 or shorter",
    "The same for IPv6. Needed when a network has `subnet6`.",
)
VTEP_MAC_OUI = Setting(
    "vtep_mac_oui",
    mac_oui,
    b"",
    "MAC address, last three octets 00",
    "Begins every VTEP's MAC; the rest are the last three octets of its address. Needed.",
)
VTEP_MTU = Setting("vtep_mtu", _MTU, _NO_NUMBER, "552 to 65535, bytes", "Of the VXLAN device.")
OVERLAYS = Setting("overlays", given, _NO_NODE, "a list of networks", "At least one.")
TUNNELS: tuple[Setting[Any], ...] = (VTEP_SUBNET, VTEP_SUBNET6, VTEP_MAC_OUI, VTEP_MTU, OVERLAYS)

NAME_OF = Setting(
    "name", network_name, "", "a-z, 0-9, - and _, at most 63", "What users write: `docker run --network NAME`. Needed."
)
SUBNET = Setting("subnet", network4, _ABSENT4, "IPv4 network", "All addresses of the network.")
PREFIX = Setting(
    "prefix",
    whole_number(0, 32),
    _NO_NUMBER,
    "length of `subnet` to 30",
    "Length of the block of `subnet` that each agent gets.",
)
SUBNET6 = Setting(
    "subnet6",
    network6,
    _ABSENT6,
    "IPv6 network",
    "The same for IPv6; a network has one of them, or both.",
)
PREFIX6 = Setting(
    "prefix6",
    whole_number(0, 128),
    _NO_NUMBER,
    "length of `subnet6` to 126",
    "Length of the block of `subnet6` that each agent gets.",
)
ENABLED = Setting("enabled", boolean, True, "true or false", "A network that is off has no blocks and no endpoints.")
INTERNAL = Setting(
    "internal",
    boolean,
    False,
    "true or false",
    "With true nothing goes out of the networks: no internet, no masquerade.",
)
ISOLATED = Setting(
    "isolated",
    boolean,
    False,
    "true or false",
    "With true its containers do not reach each other, but for what `rules` say.",
)
ATTACH = Setting(
    "attach",
    one_of("anyone", "apps"),
    "anyone",
    "anyone or apps",
    "Who may join: any container of an agent's engines, or only instances of apps that the controller assigned to it.",
)
HOSTS = Setting(
    "hosts",
    one_of("allow", "deny"),
    "allow",
    "allow or deny",
    "Whether hosts reach their own containers of the network. No host reaches another one's.",
)
OVERLAY: tuple[Setting[Any], ...] = (
    *(NAME_OF, SUBNET, PREFIX, SUBNET6, PREFIX6, ENABLED),
    *(ALLOW, ISOLATED, RULES, INTERNAL, ATTACH, AGENTS, HOSTS, HOST_SERVICES),
)

NOT_YET = {
    "renamed_from": "renaming a network",
    "encryption": "encrypted tunnels",
}
"""Keys of a network that are decided and not built. They are refused, never ignored."""
