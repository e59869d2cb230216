"""What controller and agent say to each other.

One connection, dialled by the agent. Channel 0 is state: the agent says hello, the controller welcomes or refuses it,
then sends a snapshot and deltas; the agent reports. Every other channel is one call, opened by either side. A frame is
a 32-bit length (network byte order) and a msgpack array `[channel, message]`.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from hedgerow.model.agent import Agent, AgentId, UnderlayAddress
from hedgerow.model.app import Instance, InstanceId, InstanceStatus
from hedgerow.model.endpoint import Endpoint, EndpointKey
from hedgerow.model.member import Member, MemberKey
from hedgerow.model.network import ClusterSpec, Network, NetworkId
from hedgerow.model.snapshot import Revision, Snapshot

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
STATE_CHANNEL = 0
MAX_FRAME_BYTES = 64 << 20
"""A snapshot of 5,000 agents and 50 networks is 20 MiB; anything larger is not ours."""


class Hello(Struct, frozen=True, tag="hello"):
    """An agent's first frame. `incarnation` and `revision` are what it remembers, None on its first start; `addresses4`
    and `addresses6` are all that its host has.
    """

    protocol_min: int
    protocol_max: int
    agent: AgentId
    name: str
    underlay: UnderlayAddress
    boot_id: str
    incarnation: int | None
    revision: Revision | None
    map_layout: int
    addresses4: tuple[IPv4Address, ...] = ()
    addresses6: tuple[IPv6Address, ...] = ()


class Welcome(Struct, frozen=True, tag="welcome"):
    """The agent is registered, its prefixes are in the store. `own` is its record."""

    protocol: int
    own: Agent


class Refusal(Struct, frozen=True, tag="refusal"):
    """The connection ends here. `code`: protocol, certificate, fenced, name, underlay, exhausted, damaged."""

    code: str
    message: str
    cure: str


class State(Struct, frozen=True, tag="state"):
    """Everything, at one revision."""

    snapshot: Snapshot


class Delta(Struct, frozen=True, tag="delta"):
    """From the revision sent before to `revision`. None in a mapping: the record is gone."""

    revision: Revision
    cluster: ClusterSpec | None = None
    networks: dict[NetworkId, Network | None] = {}
    agents: dict[AgentId, Agent | None] = {}
    instances: dict[InstanceId, Instance | None] = {}
    members: dict[MemberKey, Member | None] = {}


class RowFault(Struct, frozen=True):
    """A row that could not be programmed: which, why, since when (seconds since the epoch)."""

    row: str
    reason: str
    since_s: float


class Report(Struct, frozen=True, tag="report"):
    """What is so on the agent. With `whole`, `endpoints` and `instances` replace all that the controller had of it."""

    applied: Revision | None = None
    faults: tuple[RowFault, ...] = ()
    whole: bool = False
    endpoints: tuple[Endpoint, ...] = ()
    endpoints_gone: tuple[EndpointKey, ...] = ()
    instances: tuple[InstanceStatus, ...] = ()
    way: str = ""
    """Of the data path: `wire` or `device`."""


class Call(Struct, frozen=True, tag="call"):
    """Opens a channel. `arguments` is JSON; the answer comes in chunks, as many bytes as there is credit for."""

    method: str
    arguments: bytes
    deadline_s: float
    credit_bytes: int = 256 << 10


class Chunk(Struct, frozen=True, tag="chunk"):
    data: bytes


class Credit(Struct, frozen=True, tag="credit"):
    more_bytes: int


class End(Struct, frozen=True, tag="end"):
    """Closes a channel, from either side. An empty `fault` is success."""

    fault: str = ""
    cure: str = ""


class Ping(Struct, frozen=True, tag="ping"):
    pass


class Pong(Struct, frozen=True, tag="pong"):
    pass


Message = Hello | Welcome | Refusal | State | Delta | Report | Call | Chunk | Credit | End | Ping | Pong
