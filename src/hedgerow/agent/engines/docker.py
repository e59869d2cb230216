"""Docker: a remote network driver and IPAM driver, one HTTP call a step, as the relay passes them on.

RequestAddress takes an address, CreateEndpoint notes whose it is, Join makes the veth pair (dockerd moves the inner end
and configures it), ProgramExternalConnectivity publishes ports, Leave stops the packets, DeleteEndpoint removes the
pair, ReleaseAddress is the last word. Nothing but endpoints is remembered: a pool's id is our network's, and an address
lies in one network's subnet only, so Docker's own ids of networks mean nothing here. The relay names each call, and a
repeated one must have the same outcome.

No call waits for Docker's API (it is not served while dockerd starts), a controller or a name.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from hedgerow.errors import BadInput, Conflict, HedgerowError, NotFound, Refused
from hedgerow.model.endpoint import Address, Endpoint, EndpointKey, parse_mac
from hedgerow.model.network import Network, NetworkId

from . import docker_pools
from . import docker_protocol as protocol
from .docker_pools import DockerPool
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
            "NetworkDriver.ProgramExternalConnectivity": (protocol.EndpointCall, self.publish),
            "NetworkDriver.RevokeExternalConnectivity": (protocol.EndpointCall, self.unpublish),
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
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadInput(f"{method} cannot be read: {error}") from error
        return await act(asked, call)

    async def request_pool(self, asked: protocol.PoolRequest, call: str) -> Answer:
        """Always with a subnet: without one dockerd would ask for other pools for ever when ours overlaps a route."""
        network = self._network((asked.options or {}).get("network"))
        pool = docker_pools.pools(network).get(6 if asked.v6 else 4)
        if pool is None:
            raise Refused(f"network {network.name} has no IPv6 subnet", "leave out --ipv6")
        if asked.pool != pool.subnet:
            said = f"subnet {asked.pool}" if asked.pool else "no --subnet"
            raise BadInput(f"{said}, and network {network.name} has {pool.subnet}", command(network))
        if asked.sub_pool:
            raise Refused(f"--ip-range {asked.sub_pool}", "leave it out: each host gives addresses of its own block")
        return {"PoolID": pool.id, "Pool": pool.subnet, "Data": {protocol.GATEWAY: pool.gateway}}

    async def create_network(self, asked: protocol.NetworkCreation, call: str) -> Answer:
        """IPv6 may be left out of a network that has both."""
        options = asked.options or {}
        network = self._network((options.get(protocol.GENERIC) or {}).get("network"))
        ipv6 = bool(options.get(protocol.ENABLE_IPV6)) or network.spec.subnet is None
        pools = docker_pools.pools(network)
        if ipv6 and 6 not in pools:
            raise Refused(f"network {network.name} has no IPv6 subnet", "leave out --ipv6")
        given = [(row.address_space, row.pool) for row in [*(asked.ipv4 or []), *(asked.ipv6 or [])]]
        if given != [(protocol.ADDRESS_SPACE, pool.subnet) for pool in pools.values() if pool.version == 4 or ipv6]:
            raise BadInput("addresses of another IPAM driver or of another network", command(network))
        if options.get(protocol.INTERNAL) and not network.spec.internal:
            raise Refused(f"network {network.name} is not internal", "say so in config.yaml, not by --internal")
        return {}

    async def request_address(self, asked: protocol.AddressRequest, call: str) -> Answer:
        network, pool = self._pool(asked.pool)
        address = _address(asked.address) if asked.address else None
        is_gateway = (asked.options or {}).get(protocol.ADDRESS_TYPE) == protocol.GATEWAY
        if is_gateway or pool.stands_in:
            only = pool.gateway.partition("/")[0]
            if str(address or only) != only:
                word, option = ("gateway", "--gateway") if is_gateway else ("address", "--ip")
                raise Refused(f"{word} {address}", f"leave out {option}: network {network.name} has {only}")
            return {"Address": pool.gateway, "Data": {}}
        if not call:  # all such calls would be one owner, with one address
            raise BadInput(
                "RequestAddress came without Hedgerow-Call", "let dockerd call hedgerow-relay, not the agent"
            )
        try:
            taken = await self._attachments.reserve(network, owner_of(call), address, pool.version)
        except Conflict as error:  # whose it is would say nothing here: a call's name
            raise Conflict(f"{address} on network {network.name} is taken", "ask for another, or for none") from error
        return {"Address": f"{taken}/{taken.max_prefixlen}", "Data": {}}

    async def release_address(self, asked: protocol.AddressRelease, call: str) -> Answer:
        """The last word on an endpoint too: nothing else follows a CreateEndpoint that failed."""
        address = _address(asked.address)
        for endpoint in self._attachments.endpoints():
            if address in endpoint.addresses and endpoint.key.engine == ENGINE:
                await self._attachments.delete(endpoint.key)
        owners = [owner for owner, taken in self._attachments.reservations() if taken == address]
        if owners and owners[0].startswith(owner_of("")):
            await self._attachments.release(address)
        return {}

    async def create_endpoint(self, asked: protocol.EndpointCreation, call: str) -> Answer:
        given, mac = (asked.interface.address, asked.interface.address6), asked.interface.mac_address
        network, addresses = self._places([_address(text) for text in given if text])
        self._attachments.passes.admit_with_options(network, asked.options or {})
        wanted = parse_mac(mac) if mac else None
        endpoint = await self._attachments.create(key_of(asked.endpoint), network, addresses, wanted)
        return {"Interface": {} if mac else {"MacAddress": endpoint.mac.hex(":")}}

    async def join(self, asked: protocol.EndpointCall, call: str) -> Answer:
        """Without a gateway (IPv6 only) the gateway service is refused too: dockerd would add a bridge of its own, and
        with it a way around the walls.
        """
        key = key_of(asked.endpoint)
        if not self._endpoint(key):
            raise NotFound(
                f"endpoint {asked.endpoint[:12]} is not known to this agent", "remove and create the container"
            )
        endpoint = await self._attachments.attach(key, None, key.ifname, asked.sandbox)
        network = self._network_by_id(endpoint.network)
        answer: Answer = {
            "InterfaceName": {"SrcName": endpoint.peer, "DstPrefix": key.ifname},
            "StaticRoutes": [
                {"Destination": str(to), "RouteType": 1}
                if via is None
                else {"Destination": str(to), "RouteType": 0, "NextHop": str(via)}
                for to, via in docker_pools.routes(network, key.ifname, endpoint.addresses)
            ],
        }
        if endpoint.address is None:
            if not self._is_second(endpoint):
                await self.publish(asked, call)  # nothing else will be asked for an endpoint without a gateway
            return answer | {"DisableGatewayService": True}
        gateway6 = {"GatewayIPv6": str(network.gateway6)} if endpoint.address6 else {}
        return answer | {"Gateway": str(network.gateway)} | gateway6

    async def publish(self, asked: protocol.EndpointCall, call: str) -> Answer:
        """Docker says so of the one endpoint by which a container leaves, so answers take the way that calls came."""
        key, ports = key_of(asked.endpoint), asked.published
        endpoint = self._endpoint(key)
        if ports or (endpoint and endpoint.published):
            await self._attachments.publish(key, ports)
        return {}

    async def unpublish(self, asked: protocol.EndpointCall, call: str) -> Answer:
        """Not always said before Leave: a dockerd that was started anew has forgotten whose the ports were."""
        await self._attachments.unpublish(key_of(asked.endpoint))
        return {}

    async def leave(self, asked: protocol.EndpointCall, call: str) -> Answer:
        if self._endpoint(key_of(asked.endpoint)):
            await self._attachments.detach(key_of(asked.endpoint))
        return {}

    async def delete_endpoint(self, asked: protocol.EndpointCall, call: str) -> Answer:
        await self._attachments.delete(key_of(asked.endpoint))
        return {}

    def _is_second(self, endpoint: Endpoint) -> bool:
        """Whether its container is on another network already."""
        others = (row for row in self._attachments.endpoints() if row.key != endpoint.key)
        return any(row.netns_inode == endpoint.netns_inode != 0 for row in others)

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

    def _pool(self, pool: str) -> tuple[Network, DockerPool]:
        identity, version = docker_pools.named(pool)
        network = self._network_by_id(identity)
        found = docker_pools.pools(network).get(version)
        if not found:
            raise NotFound(f"pool {pool} is gone", "docker network rm it: the agent makes those that exist")
        return network, found

    def _places(self, given: list[Address]) -> tuple[Network, list[Address]]:
        """The one network in which all of these addresses lie, and those of them that are real."""
        for network in self._networks().values():
            real = [address for address in given if address != docker_pools.stand_in(network)]
            known = [subnet for subnet in (network.spec.subnet, network.spec.subnet6) if subnet is not None]
            if real and all(any(address in subnet for subnet in known) for address in real):
                return network, real
        named = " and ".join(map(str, given)) or "of none at all"
        raise NotFound(f"address {named} lies in no network", "docker network rm: the agent makes those that exist")

    def _networks(self) -> dict[NetworkId, Network]:
        return dict(self._state.snapshot.networks) if self._state.snapshot else {}


def command(network: Network) -> str:
    """The right command line for a Docker network of somebody's own on `network`."""
    options = ["--internal"] if network.spec.internal else []
    options += ["--ipv6"] if network.spec.subnet6 else []
    options += [f"--subnet {subnet}" for subnet in docker_pools.subnets(network)]
    return (
        f"docker network create -d hedgerow --ipam-driver hedgerow {' '.join(options)} "
        f"--ipam-opt network={network.name} -o network={network.name} NAME"
    )


def _address(text: str) -> Address:
    try:
        return ip_address(text.partition("/")[0])
    except ValueError as error:
        raise BadInput(f"{text!r} is no IP address", "name one of the network's own") from error
