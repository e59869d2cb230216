"""What a lab consists of: names, addresses, directories, and what runs in each node. Pure.

The underlay is one subnet: nodes from .1 on, the controller on .250, `lan` on .254; each has an address of IPv6 too,
with the same last number. `lan` has the bridge that joins all of them; it is the way out of every node, the outside
world (a service on 203.0.113.1) and, in tests, the attacker.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

STATE = Path("/var/lib/hedgerow-lab")
UNDERLAY = IPv4Network("192.168.78.0/24")
UNDERLAY6 = IPv6Network("fd78::/64")
CONTROLLER = IPv4Address("192.168.78.250")
LAN = IPv4Address("192.168.78.254")
OUTSIDE_SERVICE = IPv4Address("203.0.113.1")
MAX_NODES = 200
AGENTS_PORT = 8081
RUN = Path("/run/hedgerow")
LAB_RUN = Path("/run/hedgerow-lab")
ENGINES = ("docker", "podman")


@dataclass(frozen=True, slots=True)
class Child:
    """A process that a supervisor keeps running. `sockets` are handed over in this order, from descriptor 3 on
    (sd_listen_fds(3)). `pause_s` passes between its end and its next start.
    """

    name: str
    command: tuple[str, ...]
    sockets: tuple[str, ...] = ()
    pause_s: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A member of the lab: a node with engines, the controller, or `lan`.

    `copies` are files put into the node (path there -> path on the machine), `texts` are written there; both are
    readable by root only. `own` are directories of /var/lib that are kept in the node's directory. `held` are the
    sockets that the supervisor listens on for its children: a path, or `address:port`.
    """

    name: str
    address: IPv4Address
    own: tuple[str, ...] = ()
    copies: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    children: tuple[Child, ...] = ()
    forward: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    name: str
    nodes: int = 3
    engines: tuple[str, ...] = ENGINES

    @property
    def directory(self) -> Path:
        return STATE / self.name

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(f"n{number}" for number in range(1, self.nodes + 1))

    @property
    def members(self) -> tuple[str, ...]:
        return ("lan", "controller", *self.node_names)


def beside(address: IPv4Address) -> IPv6Address:
    """The address of IPv6 of the member that has this one on the underlay."""
    return UNDERLAY6[address.packed[-1]]


def address_of(member: str) -> IPv4Address:
    """On the underlay."""
    match member:
        case "lan":
            return LAN
        case "controller":
            return CONTROLLER
        case _:
            return UNDERLAY[int(member.removeprefix("n"))]
