"""The keeper of Docker networks against a Docker API in memory, and the leftovers of a dockerd that was killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

import pytest
import uvicorn
from contract.fakes import DCOS, DEV, VAULT, FakeAttachments, FakeState
from contract.programs import short_directory
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from hedgerow.agent.engines import docker_networks
from hedgerow.agent.engines.docker import key_of, owner_of
from hedgerow.agent.engines.docker_leftovers import GRACE_S, Leftovers
from hedgerow.model.endpoint import EndpointKey


def ours(name: str, subnet: str, *, id: str = "", internal: bool = False) -> dict[str, Any]:
    option = {"network": name}
    ipam = {"Driver": "hedgerow", "Options": option, "Config": [{"Subnet": subnet}]}
    labels = {"hedgerow.network": "x"}
    row = {"Name": name, "Driver": "hedgerow", "Internal": internal, "Options": option, "Labels": labels, "IPAM": ipam}
    return {"Id": id or name, "Containers": {}, **row}


@dataclass
class Docker:
    """What of Docker's API the keeper uses. `refuses`: ids that have containers."""

    networks: list[dict[str, Any]] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    created: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _event: asyncio.Event = field(default_factory=asyncio.Event)

    def definitions(self) -> dict[str, tuple[str, bool]]:
        return {row["Name"]: (row["IPAM"]["Config"][0]["Subnet"], row["Internal"]) for row in self.networks}

    async def until(self, so: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(so)

    async def prune(self) -> None:
        self.networks.clear()
        self._event.set()

    async def _list(self, _: Request) -> Response:
        return JSONResponse(self.networks)

    async def _inspect(self, http: Request) -> Response:
        return JSONResponse(next(row for row in self.networks if row["Id"] == http.path_params["id"]))

    async def _create(self, http: Request) -> Response:
        body = await http.json()
        assert body["CheckDuplicate"]
        if body["Name"] in self.definitions():
            return JSONResponse({"message": f"network with name {body['Name']} already exists"}, 409)
        self.created += 1
        self.networks.append({"Id": f"id-{self.created}", "Containers": {}, **body})
        await self._tell()
        return JSONResponse({"Id": "x"}, 201)

    async def _delete(self, http: Request) -> Response:
        id = http.path_params["id"]
        if id in self.refuses:
            return JSONResponse({"message": "network has active endpoints"}, 403)
        self.networks = [row for row in self.networks if row["Id"] != id]
        await self._tell()
        return Response(status_code=204)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _events(self, http: Request) -> Response:
        assert "destroy" in json.loads(http.query_params["filters"])["event"]

        async def lines() -> AsyncIterator[bytes]:
            while True:
                await self._event.wait()
                self._event.clear()
                yield b'{"Action":"destroy"}\n'

        return StreamingResponse(lines())

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/networks", self._list),
                Route("/networks/create", self._create, methods=["POST"]),
                Route("/networks/{id}", self._inspect, methods=["GET"]),
                Route("/networks/{id}", self._delete, methods=["DELETE"]),
                Route("/events", self._events),
            ]
        )


def play(
    docker: Docker,
    state: FakeState,
    story: Callable[[], Awaitable[None]],
    attachments: FakeAttachments | None = None,
) -> None:
    """The keeper runs while the story is told."""
    agents = attachments or FakeAttachments(state)

    async def run() -> None:
        with short_directory() as directory:
            path = str(directory / "docker.sock")
            config = uvicorn.Config(docker.app(), uds=path, lifespan="off", log_level="critical")
            config.timeout_graceful_shutdown = 0
            server = uvicorn.Server(config)
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(server._serve(), name="docker")
                keeping = group.create_task(docker_networks.keep(agents, state, path), name="keeper")
                await story()
                keeping.cancel()
                await asyncio.wait([keeping])
                server.should_exit = True
                await serving

    asyncio.run(run())


def test_each_network_has_a_docker_network_with_its_subnet() -> None:
    docker, state = Docker(), FakeState(DCOS, DEV, VAULT)

    async def story() -> None:
        await docker.until(lambda: len(docker.networks) == 3)
        assert docker.definitions() == {
            "dcos-1": ("9.0.0.0/8", False),
            "dev": ("10.64.0.0/12", False),
            "vault": ("10.80.0.0/14", True),
        }
        assert {row["IPAM"]["Driver"] for row in docker.networks} == {"hedgerow"}
        assert {row["IPAM"]["Options"]["network"] for row in docker.networks} == {"dcos-1", "dev", "vault"}

    play(docker, state, story)


def test_endpoints_have_the_names_of_their_containers() -> None:
    network = ours("dcos-1", "9.0.0.0/8") | {"Containers": {"c" * 64: {"Name": "web", "EndpointID": "e1"}}}
    docker, state = Docker([network]), FakeState(DCOS, DEV)
    attachments = FakeAttachments(state)
    attach(attachments, "e1")

    async def story() -> None:
        await docker.until(lambda: len(docker.networks) == 2)
        async with asyncio.timeout(20):
            await attachments.renamed.wait()
        assert attachments.rows[key_of("e1")].name == "web"

    play(docker, state, story, attachments)


def test_they_come_back_after_a_prune_and_go_with_their_network() -> None:
    docker, state = Docker(), FakeState(DCOS, DEV)

    async def story() -> None:
        await docker.until(lambda: len(docker.networks) == 2)
        await docker.prune()
        await docker.until(lambda: len(docker.networks) == 2)
        state.set(DEV)
        await docker.until(lambda: len(docker.networks) == 1)
        assert docker.definitions().keys() == {"dev"}

    play(docker, state, story)


def test_a_saved_snapshot_adds_and_removes_nothing() -> None:
    docker, state = Docker([ours("old", "10.0.0.0/16")]), FakeState(DCOS, is_live=False)

    async def story() -> None:
        await docker.until(lambda: docker.created == 1)
        state.set(DCOS, DEV, is_live=False)
        await docker.until(lambda: docker.created == 2)
        assert docker.definitions().keys() == {"old", "dcos-1", "dev"}

    play(docker, state, story)


def test_a_changed_one_is_made_anew_and_a_second_of_one_name_removed() -> None:
    """Two of a name: an agent died while dockerd was making the first."""
    docker = Docker(
        [ours("dev", "10.0.0.0/16"), ours("dcos-1", "9.0.0.0/8", id="a"), ours("dcos-1", "9.0.0.0/8", id="b")]
    )

    async def story() -> None:
        await docker.until(lambda: docker.created == 1 and len(docker.networks) == 2)
        assert docker.definitions() == {"dev": ("10.64.0.0/12", False), "dcos-1": ("9.0.0.0/8", False)}

    play(docker, FakeState(DCOS, DEV), story)


def test_one_of_a_users_own_will_do(caplog: pytest.LogCaptureFixture) -> None:
    own = ours("dcos-1", "9.0.0.0/8")
    own["Labels"] = None
    docker = Docker([own])

    async def story() -> None:
        await docker.until(lambda: docker.created == 1)
        assert [row["Name"] for row in docker.networks] == ["dcos-1", "dev"]

    play(docker, FakeState(DCOS, DEV), story)
    assert caplog.messages == []


def test_one_that_cannot_be_had_is_said_once_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    bridge = ours("dcos-1", "172.20.0.0/16")
    bridge["Driver"] = "bridge"
    docker, state = Docker([bridge, ours("busy", "10.9.0.0/16")], refuses={"busy"}), FakeState(DCOS, DEV)

    async def story() -> None:
        await docker.until(lambda: "dev" in docker.definitions())
        state.set(DCOS, DEV, VAULT)
        await docker.until(lambda: "vault" in docker.definitions())
        state.set(DCOS, VAULT)
        await docker.until(lambda: "dev" not in docker.definitions())

    play(docker, state, story)
    assert len([text for text in caplog.messages if "already exists" in text]) == 1
    assert len([text for text in caplog.messages if "active endpoints" in text]) == 1


@pytest.fixture
def attachments() -> FakeAttachments:
    return FakeAttachments(FakeState())


def forget(attachments: FakeAttachments, *rounds: tuple[set[str], float]) -> None:
    async def run() -> None:
        leftovers = Leftovers(attachments)  # type: ignore[arg-type]
        for known, now_s in rounds:
            await leftovers.forget(known, now_s)

    asyncio.run(run())


def attach(attachments: FakeAttachments, endpoint: str) -> IPv4Address:
    async def run() -> IPv4Address:
        address = await attachments.reserve(DCOS, owner_of(f"call of {endpoint}"), None)
        await attachments.create(key_of(endpoint), DCOS, [address], None)
        return address

    return asyncio.run(run())


def test_an_endpoint_that_docker_does_not_know_for_a_while_is_removed_with_its_address(
    attachments: FakeAttachments,
) -> None:
    attach(attachments, "stays")
    attach(attachments, "goes")
    forget(attachments, ({"stays"}, 0), ({"stays"}, GRACE_S))
    assert attachments.rows.keys() == {key_of("stays")}
    assert len(attachments.reservations()) == 1


def test_an_endpoint_whose_call_is_still_on_its_way_stays(attachments: FakeAttachments) -> None:
    attach(attachments, "new")
    forget(attachments, (set(), 0), (set(), GRACE_S - 1), ({"new"}, GRACE_S), (set(), GRACE_S + 1))
    assert attachments.rows.keys() == {key_of("new")}


def test_an_address_that_docker_took_and_never_used_is_freed_and_no_other(attachments: FakeAttachments) -> None:
    attach(attachments, "in use")
    asyncio.run(attachments.reserve(DCOS, owner_of("of a dockerd that died"), None))
    asyncio.run(attachments.reserve(DCOS, "cni/c1/eth0", None))
    forget(attachments, ({"in use"}, 0), ({"in use"}, GRACE_S))
    assert {owner for owner, _ in attachments.reservations()} == {owner_of("call of in use"), "cni/c1/eth0"}


def test_attachments_of_other_engines_are_not_dockers_to_know(attachments: FakeAttachments) -> None:
    asyncio.run(attachments.create(EndpointKey("cni", "c1", "eth0"), DCOS, [IPv4Address("9.0.0.9")], None))
    forget(attachments, (set(), 0), (set(), GRACE_S))
    assert len(attachments.rows) == 1
