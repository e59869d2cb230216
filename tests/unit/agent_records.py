"""A small cluster for tests of the agent: two agents, three networks, one of them internal."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hedgerow.agent.objects import Local, Placed
from hedgerow.model.agent import Agent, AgentId, Prefix, Vtep
from hedgerow.model.endpoint import Endpoint, EndpointKey, mac_of
from hedgerow.model.network import Allow, ClusterSpec, Network, NetworkId, NetworkName, NetworkSpec, Vni, VtepSpec
from hedgerow.model.snapshot import Revision, Snapshot

OWN, OTHER = AgentId("a" * 32), AgentId("b" * 32)
LOCAL = Local(
    underlay=IPv4Address("10.0.0.1"), subnet=IPv4Network("10.0.0.0/24"), link="eth0", mtu_bytes=1500, tunnel_port=64000
)


def network(number: int, name: str, subnet: str, *, allow: tuple[str, ...] = (), internal: bool = False) -> Network:
    spec = NetworkSpec(
        name=NetworkName(name),
        subnet=IPv4Network(subnet),
        prefix=24,
        allow=tuple(Allow(NetworkName(name)) for name in allow),
        internal=internal,
    )
    return Network(id=NetworkId(str(number) * 32), vni=Vni(5000 + number), gateway_index=number, spec=spec)


DCOS = network(1, "dcos-1", "9.0.0.0/8")
DEV = network(2, "dev", "10.64.0.0/12", allow=("dcos-1",))
VAULT = network(3, "vault", "10.80.0.0/16", internal=True)
NETWORKS = (DCOS, DEV, VAULT)


def agent(id: AgentId, number: int) -> Agent:
    blocks = (f"9.0.{number}.0/24", f"10.64.{number}.0/24", f"10.80.{number}.0/24")
    return Agent(
        id=id,
        name=f"n{number}",
        underlay=IPv4Address(f"10.0.0.{number}"),
        incarnation=1,
        vtep=Vtep(ip=IPv4Address(f"44.128.0.{number}"), mac=bytes.fromhex(f"70b3d58000{number:02x}")),
        prefixes=tuple(
            Prefix(network=each.id, block=IPv4Network(block)) for each, block in zip(NETWORKS, blocks, strict=True)
        ),
    )


CLUSTER = ClusterSpec(
    enable=True,
    mtu_bytes=1420,
    vtep=VtepSpec(subnet=IPv4Network("44.128.0.0/20")),
    networks=tuple(each.spec for each in NETWORKS),
)

SNAPSHOT = Snapshot(
    revision=Revision(1, 7),
    own=OWN,
    cluster=CLUSTER,
    networks={each.id: each for each in NETWORKS},
    agents={OWN: agent(OWN, 1), OTHER: agent(OTHER, 2)},
)


def placed(container: str, network: Network, address: str, *, attached: bool = True, ifname: str = "eth0") -> Placed:
    endpoint = Endpoint(
        key=EndpointKey("cni", container, ifname),
        network=network.id,
        address=IPv4Address(address),
        mac=mac_of(IPv4Address(address)),
        link_index=7,
    )
    return Placed(endpoint, netns=f"/run/netns/{container}", ifname=ifname, attached=attached)
