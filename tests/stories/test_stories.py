"""Stories: text in, text out. What an agent does to the kernel, told in the words of its log.

A story gives lines, then `plan`, then `----`, and below it what the agent does; the kernel is then as the plan left it.

    own n1 10.0.0.1 dcos-1=9.0.1.0/24       the agent, its underlay address and its blocks
    agent n2 10.0.0.2 dcos-1=9.0.2.0/24     another agent
    gone n2                                 it is removed from the cluster
    network dcos-1 9.0.0.0/8 5001 [internal] [allow=dev] [isolated] [rule=/front>/api:80/tcp] [serves=9100/tcp]
    member 9.0.1.1 dcos-1 /front            the controller vouches for an instance of this app at the address
    no-network dcos-1
    endpoint c1 dcos-1 9.0.1.1              a container is attached (detached, again, by `detach c1`)
    publish c1 tcp 80 8080 [192.0.2.1]      its port 80 is published at 8080 of the host, or of one address of it
    lost prefix 9.0.2.0/24                  somebody took it out of the kernel
    foreign prefix 10.9.0.0/16 5999         somebody put it there
    saved | live                            where the snapshot comes from
    broken firewall                         it cannot be set (until `mended firewall`)

With STORIES_ACCEPT=1 in the environment the answers are written into the files; read the difference.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from hedgerow.agent.desired import Wanted
from hedgerow.agent.objects import FIREWALL, Kind, Local, Placed, PrefixOf, PrefixRecord, Ruleset
from hedgerow.model.agent import Agent, AgentId, Prefix, Vtep
from hedgerow.model.app import AppId
from hedgerow.model.endpoint import Endpoint, EndpointKey, mac_of
from hedgerow.model.member import Member
from hedgerow.model.network import (
    Allow,
    ClusterSpec,
    HostService,
    Network,
    NetworkId,
    NetworkName,
    NetworkSpec,
    PortRange,
    Rule,
    Selector,
    Vni,
    VtepSpec,
)
from hedgerow.model.published import PublishedPort
from hedgerow.model.snapshot import Revision, Snapshot
from hedgerow.reconcile.loop import Loop
from hedgerow.reconcile.plan import Key, Op, Set

HERE = Path(__file__).parent
LOCAL = Local(
    underlay=IPv4Address("10.0.0.1"), subnet=IPv4Network("10.0.0.0/24"), link="eth0", mtu_bytes=1500, tunnel_port=64000
)
CLUSTER = ClusterSpec(enable=True, mtu_bytes=1420, vtep=VtepSpec(subnet=IPv4Network("44.128.0.0/20")), networks=())


@dataclass
class Kernel:
    """One kind of it."""

    kind: Kind
    story: Story
    rows: dict[Key, object] = field(default_factory=dict)

    async def read(self) -> Mapping[Key, object]:
        return dict(self.rows)

    async def apply(self, ops: Sequence[Op]) -> Mapping[Key, Exception]:
        faults: dict[Key, Exception] = {}
        for op in ops:
            if self.kind.name.lower() in self.story.broken:
                faults[op.key] = OSError("broken")
                continue
            self.story.done.append(_line(op))
            if isinstance(op, Set):
                self.rows[op.key] = op.new
            else:
                self.rows.pop(op.key, None)
        return faults


def _line(op: Op) -> str:
    """As the log has it; but of the firewall's text only that there is one."""
    return f"{str(op)[0]} {op.key}" if op.key == FIREWALL else str(op)


@dataclass
class Story:
    is_live: bool = True
    networks: dict[str, Network] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    endpoints: dict[str, Placed] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kernel = {kind: Kernel(kind, self) for kind in Kind}
        self.loop = Loop(self.kernel.values(), Wanted(self, LOCAL))

    @property
    def snapshot(self) -> Snapshot:
        agents = {agent.id: agent for agent in self.agents.values()}
        networks = {network.id: network for network in self.networks.values()}
        members = {member.key: member for member in self.members.values()}
        return Snapshot(
            revision=Revision(1, 1),
            own=AgentId("n1"),
            cluster=CLUSTER,
            networks=networks,
            agents=agents,
            members=members,
        )

    def placed(self) -> list[Placed]:
        return list(self.endpoints.values())

    def tell(self, line: str) -> list[str]:
        """What comes of one line: for `plan` the agent's doings, else nothing."""
        word, *words = line.split()
        if word == "plan":
            self.done.clear()
            asyncio.run(self.loop.round())
            waiting = [f"! {key}: {failed.reason}" for key, failed in sorted(self.loop.failed.items())]
            return [*self.done, *waiting] or ["nothing to do"]
        _WORDS[word](self, *words)
        return []

    def agent(self, name: str, underlay: str, *blocks: str) -> None:
        number = int(name[1:])
        prefixes = [block.split("=") for block in blocks]
        self.agents[name] = Agent(
            id=AgentId(name),
            name=name,
            underlay=IPv4Address(underlay),
            incarnation=1,
            vtep=Vtep(ip=IPv4Address(f"44.128.0.{number}"), mac=bytes.fromhex(f"70b3d58000{number:02x}")),
            prefixes=tuple(Prefix(network=NetworkId(name), block=IPv4Network(block)) for name, block in prefixes),
        )

    def network(self, name: str, subnet: str, vni: str, *options: str) -> None:
        given = {
            word: [option.partition("=")[2] for option in options if option.startswith(f"{word}=")] for word in _MANY
        }
        spec = NetworkSpec(
            name=NetworkName(name),
            subnet=IPv4Network(subnet),
            prefix=24,
            allow=tuple(Allow(NetworkName(name)) for name in given["allow"]),
            internal="internal" in options,
            isolated="isolated" in options,
            rules=tuple(map(_rule, given["rule"])) or None,
            host_services=tuple(HostService("port", one.protocol, one.low) for one in map(_port, given["serves"])),
        )
        self.networks[name] = Network(id=NetworkId(name), vni=Vni(int(vni)), gateway_index=int(vni) % 100, spec=spec)

    def endpoint(self, container: str, network: str, address: str) -> None:
        key, ip = EndpointKey("cni", container, "eth0"), IPv4Address(address)
        endpoint = Endpoint(key=key, network=NetworkId(network), address=ip, mac=mac_of(ip), link_index=1)
        self.endpoints[container] = Placed(endpoint, netns=f"/run/netns/{container}", ifname="eth0", attached=True)

    def member(self, address: str, network: str, app: str) -> None:
        self.members[address] = Member(network=NetworkId(network), address=IPv4Address(address), app=AppId(app))

    def publish(self, container: str, protocol: str, inside: str, outside: str, bind: str = "") -> None:
        placed = self.endpoints[container]
        port = PublishedPort(protocol=protocol, host_port=int(outside), container_port=int(inside), bind=bind)
        endpoint = replace(placed.endpoint, published=(*placed.endpoint.published, port))
        self.endpoints[container] = replace(placed, endpoint=endpoint)

    def detach(self, container: str) -> None:
        self.endpoints[container] = replace(self.endpoints[container], attached=False)

    def lost(self, kind: str, *name: str) -> None:
        del self.kernel[Kind[kind.upper()]].rows[Key(Kind[kind.upper()], " ".join(name))]

    def foreign(self, kind: str, prefix: str, vni: str) -> None:
        row = PrefixRecord(PrefixOf.NETWORK, int(vni))
        self.kernel[Kind.PREFIX].rows[Key(Kind.PREFIX, prefix)] = row

    def set_live(self, live: bool) -> None:
        self.is_live = live
        if not live:
            self.kernel[Kind.FIREWALL].rows = {FIREWALL: Ruleset("")} if self.kernel[Kind.FIREWALL].rows else {}


_MANY = ("allow", "rule", "serves")
"""Options of a network that may be given more than once."""


def _port(text: str) -> PortRange:
    port, _, protocol = text.partition("/")
    return PortRange(protocol, int(port), int(port))


def _rule(text: str) -> Rule:
    parties, _, port = text.partition(":")
    one, _, other = parties.partition(">")
    return Rule(f"{one} to {other}", Selector(app=one), Selector(app=other), (_port(port),))


_WORDS: dict[str, Callable[..., object]] = {
    "own": Story.agent,
    "agent": Story.agent,
    "gone": lambda story, name: story.agents.pop(name),
    "network": Story.network,
    "no-network": lambda story, name: story.networks.pop(name),
    "endpoint": Story.endpoint,
    "member": Story.member,
    "no-member": lambda story, address: story.members.pop(address),
    "publish": Story.publish,
    "detach": Story.detach,
    "lost": Story.lost,
    "foreign": Story.foreign,
    "saved": lambda story: story.set_live(False),
    "live": lambda story: story.set_live(True),
    "broken": lambda story, kind: story.broken.add(kind),
    "mended": lambda story, kind: story.broken.discard(kind),
}


def _played(text: str) -> str:
    """The story with the answers that were given."""
    story, told, in_answer = Story(), [], False
    answers: list[str] = []
    for line in text.splitlines():
        if in_answer:
            in_answer = bool(line)
            if in_answer:
                continue
        told.append(line)
        if line == "----":
            in_answer = True
            told += answers
        elif line and not line.startswith("#"):
            answers = story.tell(line)
    return "\n".join(told) + "\n"


@pytest.mark.parametrize("path", sorted(HERE.glob("*.txt")), ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    text = path.read_text()
    told = _played(text)
    if os.environ.get("STORIES_ACCEPT"):
        path.write_text(told)
    else:
        assert told == text
