"""From records to what `/v1` answers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hedgerow.controller.sessions import Session
from hedgerow.model.agent import Agent
from hedgerow.model.dcos import mac_text
from hedgerow.model.endpoint import Endpoint
from hedgerow.model.network import Allow, Network, NetworkId, NetworkSpec, PortRange, Rule, Selector
from hedgerow.policy.reach import may_reach
from hedgerow.why.case import Answer, Case, End, Problem
from hedgerow.why.facts import Step

from . import shapes


def network_shape(
    network: Network, agents: Iterable[Agent], endpoints: int, others: Iterable[NetworkSpec]
) -> shapes.NetworkShape:
    spec = network.spec
    return shapes.NetworkShape(
        name=network.name,
        id=network.id,
        vni=network.vni,
        gateway=network.gateway if spec.subnet else None,
        gateway6=network.gateway6 if spec.subnet6 else None,
        subnet=spec.subnet,
        prefix=spec.prefix,
        subnet6=spec.subnet6,
        prefix6=spec.prefix6,
        enabled=spec.enabled,
        internal=spec.internal,
        allow=[entry.to if entry.both_ways else _allow(entry) for entry in spec.allow],
        isolated=spec.isolated,
        rules=None if spec.rules is None else [_rule(rule) for rule in spec.rules],
        attach=spec.attach,
        agents=None if spec.agents is None else list(spec.agents),
        hosts=spec.hosts,
        host_services=[str(service) for service in spec.host_services],
        reaches=[other.name for other in others if other.name != spec.name and may_reach(spec, other)],
        prefixes=[
            shapes.AgentBlock(agent=agent.name, block=prefix.block)
            for agent in agents
            for prefix in agent.all_prefixes
            if prefix.network == network.id
        ],
        endpoints=endpoints,
    )


def _allow(entry: Allow) -> shapes.AllowShape:
    return shapes.AllowShape(to=entry.to, ports=_ports(entry.ports))


def _rule(rule: Rule) -> shapes.RuleShape:
    return shapes.RuleShape(
        name=rule.name, from_=_selector(rule.from_), to=_selector(rule.to), ports=_ports(rule.ports)
    )


def _selector(selector: Selector) -> shapes.SelectorShape:
    return shapes.SelectorShape(app=selector.app, label=dict(selector.labels), network=selector.network)


def _ports(ports: tuple[PortRange, ...] | None) -> list[str] | None:
    return None if ports is None else [str(one) for one in ports]


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
        addresses=list(agent.host_addresses),
        incarnation=agent.incarnation,
        connected=session is not None,
        applied=str(applied) if applied else None,
        way=session.reports.way if session else "",
        vtep=shapes.VtepShape(ip=agent.vtep.ip, mac=mac_text(agent.vtep.mac), ip6=agent.vtep.ip6),
        prefixes=[
            shapes.NetworkBlock(network=networks[prefix.network].name, block=prefix.block)
            for prefix in agent.all_prefixes
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
        address6=endpoint.address6,
        mac=mac_text(endpoint.mac),
        engine=endpoint.key.engine,
        container=endpoint.key.container,
        ifname=endpoint.key.ifname,
        name=endpoint.name,
        published=[
            shapes.PublishedShape(
                protocol=port.protocol, bind=port.bind, host_port=port.host_port, container_port=port.container_port
            )
            for port in endpoint.published
        ],
    )


def why_shape(revision: str, case: Case, answer: Answer) -> shapes.Why:
    cause, probe, there = answer.cause, case.probe, case.destination.agent
    return shapes.Why(
        revision=revision,
        works=answer.works,
        port=case.port,
        source=_why_end(case.source),
        destination=_why_end(case.destination),
        stages=[shapes.WhyStage(state=one.state, where=one.where, what=one.what) for one in answer.stages],
        cause=None if cause is None else _why_cause(cause),
        notes=list(answer.notes),
        probe=None
        if probe is None
        else shapes.WhyProbe(outcome=probe.outcome, error=probe.error, took_ms=probe.took_ms),
        trace=[*_why_steps(case.source.agent, probe.steps if probe else ()), *_why_steps(there, case.arrived)],
    )


def _why_steps(agent: str, steps: Iterable[Step]) -> list[shapes.WhyStep]:
    return [
        shapes.WhyStep(agent=agent, program=one.program, stage=one.stage, reason=one.reason, back=one.back)
        for one in steps
    ]


def _why_end(end: End) -> shapes.WhyEnd:
    return shapes.WhyEnd(called=end.called, address=end.address, network=end.network, agent=end.agent)


def _why_cause(cause: Problem) -> shapes.WhyCause:
    return shapes.WhyCause(
        place=cause.place.name.lower(),
        cause=cause.cause,
        thing=cause.thing,
        line=cause.line,
        change=cause.change,
        by_policy=cause.by_policy,
    )
