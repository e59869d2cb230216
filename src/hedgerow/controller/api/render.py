"""From records to what `/v1` answers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hedgerow.controller.sessions import Session
from hedgerow.model.agent import Agent, Prefix, Prefix6
from hedgerow.model.dcos import mac_text
from hedgerow.model.endpoint import Endpoint
from hedgerow.model.network import Network, NetworkId

from . import shapes


def network_shape(network: Network, agents: Iterable[Agent], endpoints: int) -> shapes.NetworkShape:
    spec = network.spec
    return shapes.NetworkShape(
        name=network.name,
        id=network.id,
        vni=network.vni,
        gateway=network.gateway,
        subnet=spec.subnet,
        prefix=spec.prefix,
        subnet6=spec.subnet6,
        prefix6=spec.prefix6,
        enabled=spec.enabled,
        internal=spec.internal,
        allow=list(spec.allow),
        prefixes=[
            shapes.AgentBlock(agent=agent.name, block=prefix.block)
            for agent in agents
            for prefix in _prefixes(agent)
            if prefix.network == network.id
        ],
        endpoints=endpoints,
    )


def agent_shape(
    agent: Agent, networks: Mapping[NetworkId, Network], session: Session | None, endpoints: int
) -> shapes.AgentShape:
    """`session` is None for an agent that is not connected."""
    applied = session.applied if session else None
    faults = session.reports.faults if session else ()
    return shapes.AgentShape(
        name=agent.name,
        id=agent.id,
        underlay=agent.underlay,
        incarnation=agent.incarnation,
        connected=session is not None,
        applied=str(applied) if applied else None,
        way=session.reports.way if session else "",
        vtep=shapes.VtepShape(ip=agent.vtep.ip, mac=mac_text(agent.vtep.mac), ip6=agent.vtep.ip6),
        prefixes=[
            shapes.NetworkBlock(network=networks[prefix.network].name, block=prefix.block)
            for prefix in _prefixes(agent)
            if prefix.network in networks
        ],
        faults=[shapes.Fault(row=fault.row, reason=fault.reason, since_s=fault.since_s) for fault in faults],
        endpoints=endpoints,
    )


def endpoint_shape(endpoint: Endpoint, agent: Agent, network: Network) -> shapes.EndpointShape:
    return shapes.EndpointShape(
        id=str(endpoint.key),
        agent=agent.name,
        network=network.name,
        address=endpoint.address,
        mac=mac_text(endpoint.mac),
        engine=endpoint.key.engine,
        container=endpoint.key.container,
        ifname=endpoint.key.ifname,
        name=endpoint.name,
    )


def _prefixes(agent: Agent) -> list[Prefix | Prefix6]:
    return [*agent.prefixes, *agent.prefixes6]
