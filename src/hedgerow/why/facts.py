"""What two hosts say of one flow: records only, as an agent writes them and a controller reads them.

They are what is there, in maps, links, routes and namespaces, and no opinion on it. Addresses, MACs and names are text.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hedgerow.kernel.listeners import Listener
from hedgerow.kernel.lookups import LinkState, RouteTo

CURRENT, OTHER, NONE = "current", "other", "none"
"""What is attached to a link: the program that the agent loaded, that of an earlier agent, nothing of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """May `source` talk to `destination`? Both are addresses. `protocol` is tcp, udp or icmp, which has port 0.
    `source_port` is the probe's, of an ICMP echo its identifier. `peer` is the underlay address of the other end's
    host; empty where both are on one host, or the other end is none.
    """

    source: str
    destination: str
    protocol: str
    port: int = 0
    source_port: int = 0
    peer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRows:
    """What a host's maps say of an address. `link`, `mac` and `vni` are those of its row in `endpoints`, empty without
    one. `kind` is the prefix's: network, local, remote, host or closed, empty without one; a remote one has its
    `agent`, and `outer` are source, destination and port of the tunnel headers to it.
    """

    link: str = ""
    mac: str = ""
    vni: int = 0
    kind: str = ""
    prefix_vni: int = 0
    agent: str = ""
    outer: tuple[str, str, int] | None = None
    group: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRow:
    """Who may send on a link."""

    vni: int
    mac: str
    addresses: tuple[str, ...]
    is_internal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """A container's side. `place` is a path of its network namespace. `firewall` names the chains of its own that drop;
    `listeners` are all of the protocol, None where they cannot be known.
    """

    place: str
    link: LinkState | None
    addresses: tuple[str, ...]
    route: RouteTo
    firewall: tuple[str, ...] = ()
    listeners: tuple[Listener, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """An endpoint on its host. `inside` is None when no namespace of it can be found. `before` are others' filters that
    stand before our program.
    """

    name: str
    link: LinkState | None
    program: str = NONE
    before: tuple[str, ...] = ()
    port: PortRow | None = None
    inside: Inside | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The row of the map `host`."""

    tunnel_link: str
    underlay_link: str
    underlay: str
    inner_mtu_bytes: int
    port: int
    fast: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlay:
    """The way to the other host, which `route` and `neighbour` (state and MAC of the next hop) are of. `knows_peer`:
    the other host has a row in the map `agents`. `before` are others' filters that stand before our program, `chains`
    those of others' firewalls that drop something on the way in or out.
    """

    link: LinkState | None
    route: RouteTo | None = None
    neighbour: tuple[str, str] = ("", "")
    knows_peer: bool = True
    before: tuple[str, ...] = ()
    chains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The host's own stack, which leads outside: `route` to there, and others' chains in its way that drop.

    `forwarding_off` is the kernel parameter that keeps it from forwarding, with slashes.
    """

    has_table: bool
    route: RouteTo
    forwarding_off: str = ""
    chains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """`programs` by link: CURRENT, OTHER or NONE. `rows` by address. `opens`: whether its maps let the flow begin.
    `faults` are rows that the agent could not write, with the reason. `source` and `destination` are the ends that are
    here.
    """

    agent: str
    underlay: Underlay
    settings: Settings | None
    programs: dict[str, str] = field(default_factory=dict)
    rows: dict[str, AddressRows] = field(default_factory=dict)
    opens: bool = False
    faults: tuple[str, ...] = ()
    source: Attachment | None = None
    destination: Attachment | None = None
    stack: Stack | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a program did with a packet of the probe. `back`: of an answer. `reason` is empty but for a drop."""

    program: str
    stage: str
    reason: str = ""
    back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A packet that was really sent from the source. `outcome`: answered, refused, silent, or unsent; `error` is the
    kernel's word for it. `steps` are those of the source's host. `reaches_host` and `carries_full`: whether the other
    host answered a small ping, and one as large as the tunnel's largest packet; None: not tried.
    """

    outcome: str
    error: str = ""
    took_ms: float = 0.0
    steps: tuple[Step, ...] = ()
    reaches_host: bool | None = None
    carries_full: bool | None = None
