"""What an agent knows: everything at one revision, and the steps from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .agent import Agent, AgentId
from .app import Instance, InstanceId
from .member import Member, MemberKey
from .network import ClusterSpec, Network, NetworkId


@dataclass(frozen=True, slots=True, order=True)
class Revision:
    """A point in the store's history. A restore or a migration begins a new epoch; revisions of another epoch cannot be
    compared with ours, and ordering says only which is newer.
    """

    epoch: int
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The wanted state at `revision`, as one agent (`own`) needs it: all networks, all agents, its own instances, and
    the members of every network whose rules tell containers apart.
    """

    revision: Revision
    own: AgentId
    cluster: ClusterSpec
    networks: Mapping[NetworkId, Network] = field(default_factory=dict)
    agents: Mapping[AgentId, Agent] = field(default_factory=dict)
    instances: Mapping[InstanceId, Instance] = field(default_factory=dict)
    members: Mapping[MemberKey, Member] = field(default_factory=dict)
