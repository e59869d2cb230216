"""DC/OS's JSON of networks and agents, for tools that read `/overlay-master/state` and `/overlay-agent/overlay`. Pure.

DC/OS gives an agent one subnet a network and splits it between two bridges. Ours has neither limit nor bridges: the
first block stands for all, and the bridges are nominal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .agent import Agent
from .network import ClusterSpec, Network, NetworkSpec, VtepSpec

VTEP_NAME = "hedge0"


def network_json(cluster: ClusterSpec) -> dict[str, Any]:
    """`network` of `/overlay-master/state`."""
    vtep = cluster.vtep
    return _present(
        vtep_subnet=vtep.subnet,
        vtep_subnet6=vtep.subnet6,
        vtep_mac_oui=mac_text(vtep.mac_oui + bytes(3)),
        vtep_mtu=vtep.mtu_bytes,
        overlays=[_info(spec) for spec in cluster.networks],
    )


def agent_json(
    agent: Agent, networks: Iterable[Network], vtep: VtepSpec, state: dict[str, str] | None
) -> dict[str, Any]:
    """One element of `agents`, and the whole of `/overlay-agent/overlay`. `state` as from `overlay_state`, None until
    the agent has applied what it was given.
    """
    known = {network.id: network for network in networks}
    overlays = [
        _overlay(agent, known[identity], vtep, state)
        for identity in dict.fromkeys([p.network for p in agent.prefixes] + [p.network for p in agent.prefixes6])
        if identity in known
    ]
    return {"ip": str(agent.underlay), "configuration_attempts": 0, "overlays": overlays}


def overlay_state(faults: Iterable[str]) -> dict[str, str]:
    """Mesos' status of a network on an agent that has applied it, or has failed to in the ways named."""
    error = "; ".join(faults)
    return {"status": "STATUS_FAILED", "error": error} if error else {"status": "STATUS_OK"}


def mac_text(mac: bytes) -> str:
    return mac.hex(":")


def _overlay(agent: Agent, network: Network, vtep: VtepSpec, state: dict[str, str] | None) -> dict[str, Any]:
    block = next((prefix.block for prefix in agent.prefixes if prefix.network == network.id), None)
    block6 = next((prefix.block for prefix in agent.prefixes6 if prefix.network == network.id), None)
    halves = list(block.subnets()) if block else [None, None]
    halves6 = list(block6.subnets()) if block6 else [None, None]
    mesos, docker = (
        _present(name=f"{mark}-{network.name}", ip=half, ip6=half6)
        for mark, half, half6 in zip("md", halves, halves6, strict=True)
    )
    vxlan = _present(
        vni=network.vni,
        vtep_name=VTEP_NAME,
        vtep_ip=f"{agent.vtep.ip}/{vtep.subnet.prefixlen}" if agent.vtep.ip and vtep.subnet else None,
        vtep_ip6=f"{agent.vtep.ip6}/{vtep.subnet6.prefixlen}" if agent.vtep.ip6 and vtep.subnet6 else None,
        vtep_mac=mac_text(agent.vtep.mac),
        vtep_mtu=vtep.mtu_bytes,
    )
    overlay = {"info": _info(network.spec), "mesos_bridge": mesos, "docker_bridge": docker, "backend": {"vxlan": vxlan}}
    return overlay | _present(subnet=block, subnet6=block6, state=state)


def _info(spec: NetworkSpec) -> dict[str, Any]:
    return _present(
        name=spec.name,
        subnet=spec.subnet,
        prefix=spec.prefix,
        subnet6=spec.subnet6,
        prefix6=spec.prefix6,
        enabled=spec.enabled,
    )


def _present(**fields: object) -> dict[str, Any]:
    plain = (bool, int, list, dict)
    return {k: v if isinstance(v, plain) else str(v) for k, v in fields.items() if v is not None}
