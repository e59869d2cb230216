"""Names: who has an address, and which endpoints a person means. As of one reading of the store.

An endpoint is meant by its address, its id, its name, its link, the container's id or its beginning, or the id of the
app whose instance has the address.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hedgerow.controller.keys import ENDPOINTS, read_endpoints
from hedgerow.controller.watch import Watch
from hedgerow.errors import NotFound
from hedgerow.model.agent import Agent, AgentId
from hedgerow.model.app import InstanceId
from hedgerow.model.endpoint import Endpoint
from hedgerow.model.network import Network
from hedgerow.store.base import Store

Address = IPv4Address | IPv6Address

SHORT_ID_CHARACTERS = 8
"""Of a container's id: fewer could be of another."""


@dataclass(frozen=True, slots=True)
class Party:
    """An endpoint with what is known of it. `app` is empty for one that no app's instance has."""

    endpoint: Endpoint
    agent: Agent
    network: Network
    app: str = ""

    @property
    def name(self) -> str:
        """For people: what its engine calls it, or its app; empty where neither does."""
        return self.endpoint.name or self.app

    def is_called(self, which: str) -> bool:
        endpoint, key = self.endpoint, self.endpoint.key
        if which in {str(key), key.tag, endpoint.link, *map(str, endpoint.addresses)}:
            return True
        if which and which in (endpoint.name, self.app, f"{self.name}.{self.network.name}"):
            return True
        return len(which) >= SHORT_ID_CHARACTERS and key.container.startswith(which)


class Names:
    def __init__(self, parties: list[Party], watch: Watch) -> None:
        self._by_address = {address: party for party in parties for address in party.endpoint.addresses}
        self._parties = parties
        self._watch = watch

    def at(self, address: Address) -> Party | None:
        return self._by_address.get(address)

    def network_of(self, address: Address) -> Network | None:
        """The network whose subnet the address lies in."""
        for network in self._watch.networks.values():
            subnets = (network.spec.subnet, network.spec.subnet6)
            if any(subnet is not None and address in subnet for subnet in subnets):
                return network
        return None

    def find(self, which: str) -> list[Party]:
        """All endpoints that are called so, in the order of their addresses."""
        found = [party for party in self._parties if party.is_called(which)]
        return sorted(found, key=lambda party: (party.network.name, party.endpoint.addresses[0].packed))

    def one(self, which: str, *, near: Party | None = None) -> Party:
        """The endpoint; of several, an app's for instance, the first on the network of `near`, else the first.

        Raises NotFound.
        """
        found = self.find(which)
        if not found:
            raise NotFound(f"no endpoint is {which}", "hedgerow endpoint ls")
        beside = [party for party in found if near is not None and party.network.id == near.network.id]
        return (beside or found)[0]


async def read(store: Store, watch: Watch) -> Names:
    """All endpoints of agents and networks that are known."""
    endpoints, _ = await read_endpoints(store, ENDPOINTS)
    apps: dict[tuple[AgentId, Address], str] = {}
    for status in watch.statuses.values():
        instance = watch.instances.get(InstanceId(status.id))
        if instance is not None:
            apps |= {(status.agent, address): instance.app for address in status.all_addresses}
    parties: list[Party] = []
    for key, endpoint in endpoints.items():
        agent = watch.agents.get(AgentId(key.split("/")[2]))
        network = watch.networks.get(endpoint.network)
        if agent is not None and network is not None:
            app = next((apps[agent.id, one] for one in endpoint.addresses if (agent.id, one) in apps), "")
            parties.append(Party(endpoint, agent, network, app))
    return Names(parties, watch)


def is_meant(which: str, address: str, party: Party | None, network: str) -> bool:
    """Whether a filter as `--from web` or `--to 10.64.0.0/16` means this end of a packet."""
    if which in (address, network) or (party is not None and (party.is_called(which) or which == party.agent.name)):
        return True
    try:
        return ip_address(address) in ip_network(which, strict=False)
    except ValueError:
        return False
