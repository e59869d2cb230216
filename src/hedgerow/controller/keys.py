"""Where the controller's records are in the store, and what they look like there."""

from __future__ import annotations

from dataclasses import dataclass

from hedgerow.model.agent import AgentId
from hedgerow.model.app import InstanceId
from hedgerow.model.endpoint import Endpoint, EndpointKey
from hedgerow.model.member import MemberKey
from hedgerow.model.network import ClusterSpec, NetworkId
from hedgerow.store.base import Store
from hedgerow.wire.codec import readable

CLUSTER = "/cluster"
NETWORKS = "/networks/"
AGENTS = "/agents/"
ENDPOINTS = "/endpoints/"
INSTANCES = "/instances/"
STATUSES = "/status/"
MEMBERS = "/members/"

ALLOTMENT = "/allotment"
"""Compared and written by each commit that gives something out: of two that saw the same free block, one passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The record at CLUSTER: what was imported, or applied last. `digest` is of the spec, not of the text."""

    spec: ClusterSpec
    digest: str


def network_key(network: NetworkId) -> str:
    return NETWORKS + network


def agent_key(agent: AgentId) -> str:
    return AGENTS + agent


def endpoint_key(agent: AgentId, key: EndpointKey) -> str:
    return f"{ENDPOINTS}{agent}/{key.tag}"


def instance_key(instance: InstanceId) -> str:
    return INSTANCES + instance


def status_key(instance: InstanceId) -> str:
    return STATUSES + instance


def member_key(member: MemberKey) -> str:
    return MEMBERS + member


async def read_endpoints(store: Store, prefix: str) -> tuple[dict[str, Endpoint], dict[str, str]]:
    """Endpoints under their keys; and for each record that cannot be read, why."""
    found, _ = await read_all(store, prefix)
    return readable({key: value for key, (value, _) in found.items()}, Endpoint)


async def read_all(store: Store, prefix: str) -> tuple[dict[str, tuple[bytes, int]], int]:
    """`{key: (value, modified)}` of all that begins with `prefix`, as of one revision, and that revision."""
    page = await store.list(prefix)
    found = {entry.key: (entry.value, entry.modified) for entry in page.entries}
    while page.more:
        page = await store.list(prefix, at=page.revision, after=page.entries[-1].key)
        found |= {entry.key: (entry.value, entry.modified) for entry in page.entries}
    return found, page.revision
