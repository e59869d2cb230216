"""What others' tools read: DC/OS's `/overlay-master/state`, Marathon's `/ping`, Prometheus' `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from hedgerow.addressing.blocks import block_count
from hedgerow.model.agent import Agent
from hedgerow.model.dcos import agent_json, network_json, overlay_state

from .view import View


def routes(view: View) -> list[Route]:
    registry = CollectorRegistry()
    registry.register(_Figures(view))

    async def state(_: Request) -> Response:
        watch = view.watch
        agents = [
            agent_json(agent, watch.networks.values(), watch.cluster.vtep, _state(view, agent))
            for agent in sorted(watch.agents.values(), key=lambda agent: (agent.underlay.version, int(agent.underlay)))
        ]
        return JSONResponse({"network": network_json(watch.cluster), "agents": agents})

    async def ping(request: Request) -> Response:
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse("pong")
        return PlainTextResponse("pong")

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return [
        Route("/overlay-master/state", state),
        Route("/mesos/overlay-master/state", state),
        Route("/ping", ping),
        Route("/metrics", metrics),
    ]


def _state(view: View, agent: Agent) -> dict[str, str] | None:
    session = view.sessions.connected.get(agent.id)
    if session is None or session.applied is None:
        return None
    return overlay_state(f"{fault.row}: {fault.reason}" for fault in session.reports.faults)


class _Figures(Collector):
    """Read when asked for; nothing is counted twice."""

    def __init__(self, view: View) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        watch, connected = self._view.watch, self._view.sessions.connected
        yield GaugeMetricFamily("hedgerow_revision", "Newest revision of the store.", watch.number)
        agents = GaugeMetricFamily("hedgerow_agents", "Agents by whether they are connected.", labels=["state"])
        agents.add_metric(["connected"], len(connected))
        agents.add_metric(["silent"], len(watch.agents) - len(connected))
        yield agents
        applied = GaugeMetricFamily("hedgerow_agent_applied_revision", "Revision applied there.", labels=["agent"])
        faults = GaugeMetricFamily("hedgerow_agent_faults", "Rows that could not be programmed.", labels=["agent"])
        ends = GaugeMetricFamily("hedgerow_agent_endpoints", "Endpoints that it reports.", labels=["agent"])
        for identity, session in connected.items():
            if identity in watch.agents:
                name, revision = watch.agents[identity].name, session.applied
                applied.add_metric([name], revision.number if revision else 0)
                faults.add_metric([name], len(session.reports.faults))
                ends.add_metric([name], session.reports.endpoints)
        yield from (applied, faults, ends)
        yield from self._blocks()

    def _blocks(self) -> Iterator[Metric]:
        given = GaugeMetricFamily("hedgerow_network_blocks_allotted", "Blocks that agents have.", labels=["network"])
        total = GaugeMetricFamily("hedgerow_network_blocks", "Blocks that the subnet holds.", labels=["network"])
        for network in self._view.watch.networks.values():
            spec = network.spec
            if spec.subnet is not None and spec.prefix is not None:
                total.add_metric([network.name], block_count(spec.subnet, spec.prefix))
                owned = [p for agent in self._view.watch.agents.values() for p in agent.prefixes]
                given.add_metric([network.name], sum(1 for prefix in owned if prefix.network == network.id))
        yield from (given, total)
