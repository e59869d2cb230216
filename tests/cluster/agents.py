"""Three hosts with a real agent each, in namespaces on one underlay, with an outside world; no engine, and controllers
that say what they are told. A container is a namespace that a CNI call attached, so a whole cluster is there in seconds
and takes another configuration in one.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface
from itertools import islice
from pathlib import Path

from kernel.hosts import Container, Host

from hedgerow.model.agent import Agent, AgentId, Prefix, Prefix6, Vtep
from hedgerow.model.member import Member
from hedgerow.model.network import ClusterSpec, Network, NetworkId, Vni
from hedgerow.model.snapshot import Revision, Snapshot
from hedgerow.wire.messages import State

Address = IPv4Address | IPv6Address
UNDERLAY, UNDERLAY6 = IPv4Network("10.99.0.0/24"), IPv6Network("fd99::/64")
VTEPS, VTEPS6 = IPv4Network("44.128.0.0/20"), IPv6Network("fd01:a::/64")
OUTSIDE, OUTSIDE6 = UNDERLAY[200], UNDERLAY6[200]
WAYS = ("auto", "auto", "device")
"""Of the three hosts' data paths: the last one's tunnels go through the VXLAN device."""


class Node(Host):
    """A host of the cluster, by its number from 1."""

    def __init__(self, directory: Path, number: int, lan: subprocess.Popen[bytes]) -> None:
        self.number, self.name, self._lan = number, f"n{number}", lan
        self.underlay, self.underlay6 = UNDERLAY[number], UNDERLAY6[number]
        directory.mkdir()
        super().__init__(directory)

    def _plug(self) -> None:
        self.run(f"ip link add eth0 type veth peer name {self.name} netns {self._lan.pid}")
        self.run(f"ip address add {self.underlay}/24 dev eth0")
        self.run(f"ip address add {self.underlay6}/64 dev eth0 nodad")
        self.run("ip link set eth0 up")
        self.lan = Container(self, self._lan)
        self.lan.run(f"ip link set {self.name} master lan up")

    def record(self, networks: Iterable[Network]) -> Agent:
        """As a controller would have allotted: block `number` of each network that this host has."""
        mine = [each for each in networks if has(each, self.name)]
        pairs4 = [(each.id, _block(each.spec.subnet, each.spec.prefix, self.number)) for each in mine]
        pairs6 = [(each.id, _block(each.spec.subnet6, each.spec.prefix6, self.number)) for each in mine]
        return Agent(
            id=self.id,
            name=self.name,
            underlay=self.underlay,
            incarnation=1,
            vtep=Vtep(
                ip=VTEPS[self.number], ip6=VTEPS6[self.number], mac=b"\x70\xb3\xd5\x80\x00" + bytes([self.number])
            ),
            prefixes=tuple(Prefix(network=id, block=block) for id, block in pairs4 if isinstance(block, IPv4Network)),
            addresses4=(self.underlay,),
            addresses6=(self.underlay6,),
            prefixes6=tuple(Prefix6(network=id, block=block) for id, block in pairs6 if isinstance(block, IPv6Network)),
        )


def has(network: Network, name: str) -> bool:
    """Whether an agent has the network; no shell globs here."""
    spec = network.spec
    return spec.enabled and (spec.agents is None or name in spec.agents)


def _block(
    subnet: IPv4Network | IPv6Network | None, length: int | None, number: int
) -> IPv4Network | IPv6Network | None:
    return None if subnet is None else next(islice(subnet.subnets(new_prefix=length), number, None))


@dataclass
class Cluster:
    """`networks` as they were said last."""

    nodes: list[Node]
    outside: Container
    networks: list[Network] = field(default_factory=list)
    revision: int = 10
    ids: dict[str, int] = field(default_factory=dict)

    def say(self, spec: ClusterSpec, members: Iterable[Member] = ()) -> None:
        """The next configuration, to every agent, until all have applied it. A network keeps its id by its name."""
        self.revision += 1
        self.networks = []
        for each in spec.networks:
            number = self.ids.setdefault(each.name, len(self.ids) + 1)
            id = NetworkId(f"{number:032x}")
            self.networks.append(Network(id=id, vni=Vni(70000 + number), gateway_index=number, spec=each))
        agents = {node.id: node.record(self.networks) for node in self.nodes}
        vouched = {member.key: member for member in members}
        for node in self.nodes:
            self._tell(node, spec, agents, vouched)
        for node in self.nodes:
            node.applied()

    def _tell(self, node: Node, spec: ClusterSpec, agents: dict[AgentId, Agent], members: Mapping[str, Member]) -> None:
        snapshot = Snapshot(
            revision=Revision(1, self.revision),
            own=node.id,
            cluster=spec,
            networks={network.id: network for network in self.networks},
            agents=agents,
            members=dict(members),  # type: ignore[arg-type]
        )
        if node.controller is None:
            node.start_controller(snapshot)
            node.start_agent()
        else:
            node.controller.snapshot = snapshot
            node.controller.say(State(snapshot))


@contextlib.contextmanager
def cluster(directory: Path, kind: type[Node] = Node) -> Iterator[Cluster]:
    """Up to the hosts' links; the first configuration starts the agents."""
    with contextlib.ExitStack() as undo:
        lan = undo.enter_context(_namespace())
        nodes: list[Node] = []
        _in(lan, "ip link add lan type bridge mcast_snooping 0")
        _in(lan, f"ip address add {OUTSIDE}/24 dev lan")
        _in(lan, f"ip address add {OUTSIDE6}/64 dev lan nodad")
        _in(lan, "ip link set lan up")
        _in(lan, "ip link set lo up")
        for number, way in enumerate(WAYS, 1):
            node = undo.enter_context(kind(directory / f"n{number}", number, lan))
            with (node.directory / "agent.yaml").open("a") as file:
                file.write(f"way: {way}\n")
            nodes.append(node)
        yield Cluster(nodes, nodes[0].lan)


@contextlib.contextmanager
def _namespace() -> Iterator[subprocess.Popen[bytes]]:
    command = ["unshare", "--net", "sh", "-c", "echo; exec sleep 1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        try:
            yield holder
        finally:
            holder.kill()


def _in(holder: subprocess.Popen[bytes], command: str) -> None:
    subprocess.run(["nsenter", "-t", str(holder.pid), "-n", *command.split()], check=True, capture_output=True)


def addresses(container: Container) -> tuple[Address, ...]:
    """That its attachment gave it."""
    rows = container.result["ips"]
    assert isinstance(rows, list)
    return tuple(ip_interface(row["address"]).ip for row in rows)


def attached(container: Container, network: str, **runtime: object) -> tuple[Address, ...]:
    status, body = container.host.cni("ADD", container, network, **runtime)
    assert status == 200, body
    container.result = json.loads(body)
    return addresses(container)
