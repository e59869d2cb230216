"""Docker: a remote network driver and IPAM driver, one HTTP call a step, as the relay passes them on.

RequestAddress takes an address, CreateEndpoint notes whose it is, Join makes the veth pair (dockerd moves the inner end
and configures it), Leave stops the packets, DeleteEndpoint removes the pair, ReleaseAddress is the last word. Nothing
but endpoints is remembered: a pool's id is our network's, and an address lies in one network's subnet only, so Docker's
own ids of networks mean nothing here. The relay names each call, and a repeated one must have the same outcome.

No call waits for Docker's API (it is not served while dockerd starts), a controller or a name.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from hedgerow.errors import BadInput, Conflict, HedgerowError, NotFound, Refused
from hedgerow.model.endpoint import Endpoint, EndpointKey, parse_mac, routes_inside
from hedgerow.model.network import Network, NetworkId

from . import docker_protocol as protocol
from .docker_protocol import Answer

if TYPE_CHECKING:
    from hedgerow.agent.attach import Attachments
    from hedgerow.agent.state import State

log = logging.getLogger(__name__)

ENGINE = "docker"
LIMIT_S = 20.0
"""Of one call: dockerd itself would wait for ever."""


def owner_of(call: str) -> str:
    """Who has an address between RequestAddress and CreateEndpoint: the call, for nothing else identifies it."""
    return f"{ENGINE}/{call}"


def key_of(endpoint: str) -> EndpointKey:
    """dockerd chooses the interface's name, and says neither it nor the container's."""
    return EndpointKey(ENGINE, endpoint, "eth")


def app(attachments: Attachments, state: State) -> ASGIApp:
    server = Server(Driver(attachments, state))
    return Starlette(routes=[Route("/{method}", server.serve, methods=["POST"])])


class Server:
    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def serve(self, http: Request) -> Response:
        """Status 200 also for an error: dockerd then shows `Err` (network driver) or `Error` (IPAM driver)."""
        method, call, start = http.path_params["method"], http.headers.get("hedgerow-call", ""), time.perf_counter()
        if not self._driver.knows(method):
            return _json(_fault(f"no call {method}"), status=404)
        try:
            async with asyncio.timeout(LIMIT_S):
                answer = await self._driver.answer(method, await http.body(), call)
        except HedgerowError as error:
            log.warning("%s refused: %s", method, error)
            answer = _fault(str(error))
        except TimeoutError:
            log.error("%s took longer than %.0f s", method, LIMIT_S)
            answer = _fault(f"{method} took longer than {LIMIT_S:.0f} s: see the Hedgerow agent's log")
        except Exception as error:  # the engine must get an answer
            log.exception("%s failed", method)
            answer = _fault(f"the Hedgerow agent failed over {method}: {error!r}")
        log.info("%s %.1f ms", method, (time.perf_counter() - start) * 1000)
        return _json(answer)


def _fault(text: str) -> Answer:
    return {"Err": text, "Error": text}


def _json(answer: Answer, status: int = 200) -> Response:
    return Response(msgspec.json.encode(answer), status, media_type=protocol.CONTENT_TYPE)


class Driver:
    """Docker's calls, one method each."""

    def __init__(self, attachments: Attachments, state: State) -> None:
        self._attachments = attachments
        self._state = state
        self._calls: dict[str, tuple[type[Any], Callable[[Any, str], Awaitable[Answer]]]] = {
            "IpamDriver.RequestPool": (protocol.PoolRequest, self.request_pool),
            "IpamDriver.RequestAddress": (protocol.AddressRequest, self.request_address),
            "IpamDriver.ReleaseAddress": (protocol.AddressRelease, self.release_address),
            "NetworkDriver.CreateNetwork": (protocol.NetworkCreation, self.create_network),
            "NetworkDriver.CreateEndpoint": (protocol.EndpointCreation, self.create_endpoint),
            "NetworkDriver.Join": (protocol.EndpointCall, self.join),
            "NetworkDriver.Leave": (protocol.EndpointCall, self.leave),
            "NetworkDriver.DeleteEndpoint": (protocol.EndpointCall, self.delete_endpoint),
        }

    def knows(self, method: str) -> bool:
        return method in protocol.CONSTANT or method in self._calls

    async def answer(self, method: str, body: bytes, call: str) -> Answer:
        """Raises HedgerowError for what cannot be done."""
        if method in protocol.CONSTANT:
            return protocol.CONSTANT[method]
        kind, act = self._calls[method]
        if not body:
            raise BadInput(f"{method} came without its body", "dockerd repeated a broken call: try again")
        try:
            asked = msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadInput(f"{method} cannot be read: {error}") from error
        return await act(asked, call)

    async def request_pool(self, asked: protocol.PoolRequest, call: str) -> Answer:
        """Always with a subnet: without one dockerd would ask for other pools for ever when ours overlaps a route."""
        network = self._network((asked.options or {}).get("network"))
        if asked.v6:
            raise Refused(f"network {network.name} has no IPv6 subnet", "leave out --ipv6 (IPv6 networks: not yet)")
        if asked.pool != str(network.spec.subnet):
            pool = f"subnet {asked.pool}" if asked.pool else "no --subnet"
            raise BadInput(f"{pool}, and network {network.name} has {network.spec.subnet}", command(network))
        if asked.sub_pool:
            raise Refused(f"--ip-range {asked.sub_pool}", "leave it out: each host gives addresses of its own block")
        gateway = {protocol.GATEWAY: f"{network.gateway}/32"}
        return {"PoolID": network.id, "Pool": str(network.spec.subnet), "Data": gateway}

    async def create_network(self, asked: protocol.NetworkCreation, call: str) -> Answer:
        options = asked.options or {}
        network = self._network((options.get(protocol.GENERIC) or {}).get("network"))
        pools = [(row.address_space, row.pool) for row in asked.ipv4 or []]
        if pools != [(protocol.ADDRESS_SPACE, str(network.spec.subnet))]:
            raise BadInput("addresses of another IPAM driver or of another network", command(network))
        if options.get(protocol.ENABLE_IPV6) or asked.ipv6:
            raise Refused(f"network {network.name} has no IPv6 subnet", "leave out --ipv6 (IPv6 networks: not yet)")
        if options.get(protocol.INTERNAL) and not network.spec.internal:
            raise Refused(f"network {network.name} is not internal", "say so in config.yaml, not by --internal")
        return {}

    async def request_address(self, asked: protocol.AddressRequest, call: str) -> Answer:
        network = self._network_by_id(asked.pool)
        address = _address(asked.address) if asked.address else None
        if (asked.options or {}).get(protocol.ADDRESS_TYPE) == protocol.GATEWAY:
            if address not in (None, network.gateway):
                raise Refused(
                    f"gateway {address}", f"leave out --gateway: network {network.name} has {network.gateway}"
                )
            return {"Address": f"{network.gateway}/32", "Data": {}}
        if not call:  # all such calls would be one owner, with one address
            raise BadInput(
                "RequestAddress came without Hedgerow-Call", "let dockerd call hedgerow-relay, not the agent"
            )
        try:
            taken = await self._attachments.reserve(network, owner_of(call), address)
        except Conflict as error:  # whose it is would say nothing here: a call's name
            raise Conflict(f"{address} on network {network.name} is taken", "ask for another, or for none") from error
        return {"Address": f"{taken}/32", "Data": {}}

    async def release_address(self, asked: protocol.AddressRelease, call: str) -> Answer:
        """The last word on an endpoint too: nothing else follows a CreateEndpoint that failed."""
        address = _address(asked.address)
        for endpoint in self._attachments.endpoints():
            if endpoint.address == address and endpoint.key.engine == ENGINE:
                await self._attachments.delete(endpoint.key)
        owners = [owner for owner, taken in self._attachments.reservations() if taken == address]
        if owners and owners[0].startswith(owner_of("")):
            await self._attachments.release(address)
        return {}

    async def create_endpoint(self, asked: protocol.EndpointCreation, call: str) -> Answer:
        if (asked.options or {}).get(protocol.PORTMAP):
            raise Refused("published ports: not yet", "leave out -p: every container is reached at its own address")
        address, mac = _address(asked.interface.address), asked.interface.mac_address
        network = self._network_of(address)
        wanted = parse_mac(mac) if mac else None
        endpoint = await self._attachments.create(key_of(asked.endpoint), network, address, wanted)
        return {"Interface": {} if mac else {"MacAddress": endpoint.mac.hex(":")}}

    async def join(self, asked: protocol.EndpointCall, call: str) -> Answer:
        """Without a gateway (internal) the gateway service is refused too: dockerd would add a bridge of its own, and
        with it a way around the walls.
        """
        key = key_of(asked.endpoint)
        if not self._endpoint(key):
            raise NotFound(
                f"endpoint {asked.endpoint[:12]} is not known to this agent", "remove and create the container"
            )
        endpoint = await self._attachments.attach(key, None, key.ifname)
        network = self._network_by_id(endpoint.network)
        answer: Answer = {
            "InterfaceName": {"SrcName": endpoint.peer, "DstPrefix": key.ifname},
            "StaticRoutes": [
                {"Destination": str(to), "RouteType": 1}
                if via is None
                else {"Destination": str(to), "RouteType": 0, "NextHop": str(via)}
                for to, via in routes_inside(network, key.ifname)
            ],
        }
        exit_by = {"DisableGatewayService": True} if network.spec.internal else {"Gateway": str(network.gateway)}
        return answer | exit_by

    async def leave(self, asked: protocol.EndpointCall, call: str) -> Answer:
        if self._endpoint(key_of(asked.endpoint)):
            await self._attachments.detach(key_of(asked.endpoint))
        return {}

    async def delete_endpoint(self, asked: protocol.EndpointCall, call: str) -> Answer:
        await self._attachments.delete(key_of(asked.endpoint))
        return {}

    def _endpoint(self, key: EndpointKey) -> Endpoint | None:
        return next((row for row in self._attachments.endpoints() if row.key == key), None)

    def _network(self, name: str | None) -> Network:
        if not name:
            raise BadInput(
                "no network is named: Docker does not pass on its own name of it",
                "docker network create -d hedgerow --ipam-driver hedgerow --subnet SUBNET "
                "--ipam-opt network=NAME -o network=NAME NAME",
            )
        return self._attachments.network(name)

    def _network_by_id(self, network: str) -> Network:
        found = self._networks().get(NetworkId(network))
        if not found:
            raise NotFound(f"network {network} is gone", "docker network rm it: the agent makes those that exist")
        return found

    def _network_of(self, address: IPv4Address) -> Network:
        for network in self._networks().values():
            if network.spec.subnet is not None and address in network.spec.subnet:
                return network
        raise NotFound(f"address {address} lies in no network", "docker network rm: the agent makes those that exist")

    def _networks(self) -> dict[NetworkId, Network]:
        return dict(self._state.snapshot.networks) if self._state.snapshot else {}


def command(network: Network) -> str:
    """The right command line for a Docker network of somebody's own on `network`."""
    internal = "--internal " if network.spec.internal else ""
    return (
        f"docker network create -d hedgerow --ipam-driver hedgerow --subnet {network.spec.subnet} {internal}"
        f"--ipam-opt network={network.name} -o network={network.name} NAME"
    )


def _address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text.partition("/")[0])
    except ValueError as error:
        raise BadInput(f"{text!r} is no IPv4 address", "IPv6 networks: not yet") from error
