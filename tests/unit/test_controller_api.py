"""The controller's API: who may call it, what `/v1` says, and what DC/OS's and Marathon's tools find."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from unit.controller_cases import Agent1, Answer, Cluster, controller, get, new_store, run, until

from hedgerow.controller.api import app as api
from hedgerow.controller.api.guard import MAX_BODY_BYTES
from hedgerow.controller.api.view import View
from hedgerow.controller.networks import digest, drift
from hedgerow.wire.messages import Call, Chunk, End, Report, RowFault

TOKEN = "a-token-of-32-characters-or-more"
BEARER = ("authorization", f"Bearer {TOKEN}")
CONFIG = """
dcos_overlay_network:
  vtep_subnet: 44.128.0.0/20
  vtep_mac_oui: 70:B3:D5:00:00:00
  overlays:
    - {name: dev, subnet: 10.64.0.0/24, prefix: 26}
    - {name: prod, subnet: 10.80.0.0/16, prefix: 26}
"""


@dataclass
class Api:
    running: Cluster
    app: Any

    async def get(self, path: str, *headers: tuple[str, str], method: str = "GET") -> Answer:
        return await get(self.app, path, [BEARER, *headers], method)

    async def bare(self, path: str, *headers: tuple[str, str]) -> Answer:
        return await get(self.app, path, headers)


@asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[Api]:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    store = await new_store()
    async with controller(store) as running:
        view = View(store, running.core.watch, running.core.sessions, config)

        async def extra(_: Any) -> PlainTextResponse:
            return PlainTextResponse("apps")

        yield Api(running, api.build(view, "0.0", [Route("/v2/apps", extra)], TOKEN, ["cluster.example"]))


async def two_agents(running: Cluster) -> tuple[Agent1, Agent1]:
    """Both have reported; the first has two endpoints and a fault."""
    one, other = await running.join(1), await running.join(2)
    await one.told()
    fault = RowFault(row="device hedge0", reason="busy", since_s=1.5)
    await one.report(one.endpoint(1), one.endpoint(2), faults=(fault,))
    await other.report(other.endpoint(1))
    await until(lambda: sum(key.startswith("/endpoints/") for key in running.store._entries) == 3)
    return one, other


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (f"token={TOKEN}", 200),
        (basic("marathon", TOKEN), 200),
        (basic("", TOKEN), 200),
        ("", 401),
        ("Bearer", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"token={TOKEN[:-1]}", 401),
        (basic(TOKEN, ""), 401),
        (basic("x", "wrong"), 401),
        ("Basic %%%", 401),
        ("Basic " + base64.b64encode(TOKEN.encode()).decode(), 401),
        (f"Digest {TOKEN}", 401),
        ("Bearer \u00e9", 401),
    ],
)
def test_the_token_opens_the_api_in_any_of_its_three_forms(tmp_path: Path, authorization: str, status: int) -> None:
    async def case() -> None:
        async with served(tmp_path) as served_api:
            headers = [("authorization", authorization)] if authorization else []
            for path in ("/v1/networks", "/overlay-master/state", "/metrics", "/v2/apps", "/v1/openapi.json"):
                answer = await served_api.bare(path, *headers)
                assert answer.status == status, path
                if status == 401:
                    assert answer.json["cure"]
                    assert "Basic" in answer.headers["www-authenticate"]

    run(case())


def test_no_path_but_ping_is_open_whether_it_exists_or_not(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as served_api:
            assert (await served_api.bare("/ping")).body == b"pong"
            for path in ("/", "/ping/", "/ping/x", "/v1", "/v1/status", "/none", "//ping", "/docs", "/PING"):
                assert (await served_api.bare(path)).status == 401, path

    run(case())


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1", None, 200),
        ("127.0.0.1:8080", None, 200),
        ("localhost:1", None, 200),
        ("[::1]:8080", None, 200),
        ("Cluster.Example:8080", None, 200),
        ("", None, 421),
        ("evil.example", None, 421),
        ("127.0.0.1.evil.example:8080", None, 421),
        ("[::2]:8080", None, 421),
        ("localhost", "http://localhost:8080", 200),
        ("localhost", "http://evil.example", 403),
        ("localhost", "null", 403),
        ("localhost", "http://localhost.evil.example", 403),
    ],
)
def test_foreign_names_and_foreign_pages_are_refused(
    tmp_path: Path, host: str, origin: str | None, status: int
) -> None:
    async def case() -> None:
        async with served(tmp_path) as served_api:
            headers = [("host", host)] + ([("origin", origin)] if origin else [])
            for path in ("/v1/networks", "/ping"):
                assert (await served_api.get(path, *headers)).status == status, path

    run(case())


def test_bodies_have_a_length_and_a_limit(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as served_api:
            for header, status in (
                (("content-length", str(MAX_BODY_BYTES + 1)), 413),
                (("content-length", "-1"), 413),
                (("transfer-encoding", "chunked"), 411),
            ):
                assert (await served_api.get("/v2/apps", header)).status == status

    run(case())


def test_networks_are_shown_with_their_blocks_and_how_many_are_on_them(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as served_api:
            await two_agents(served_api.running)
            answer = (await served_api.get("/v1/networks")).json
            assert answer["revision"] == str(served_api.running.core.watch.revision)
            dev, prod = answer["networks"]
            assert (dev["name"], dev["subnet"], dev["prefix"], dev["endpoints"]) == ("dev", "10.64.0.0/24", 26, 3)
            assert dev["prefixes"] == [
                {"agent": "n1", "block": "10.64.0.0/26"},
                {"agent": "n2", "block": "10.64.0.64/26"},
            ]
            assert (prod["endpoints"], prod["allow"], prod["gateway"]) == (0, [], "169.254.64.2")
            assert (await served_api.get("/v1/networks/prod")).json == prod
            missing = await served_api.get("/v1/networks/prd")
            assert (missing.status, missing.json["cure"]) == (404, "did you mean prod?")

    run(case())


def test_agents_are_shown_with_what_they_have_applied_and_what_failed(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as served_api:
            _, other = await two_agents(served_api.running)
            one, two = (await served_api.get("/v1/agents")).json["agents"]
            assert one["faults"] == [{"row": "device hedge0", "reason": "busy", "since_s": 1.5}]
            assert (one["connected"], one["endpoints"], one["way"]) == (True, 2, "wire")
            assert one["vtep"] == {"ip": "44.128.0.1", "mac": "70:b3:d5:80:00:01", "ip6": None}
            assert one["applied"] == str(served_api.running.core.watch.revision)
            assert two["prefixes"][1] == {"network": "prod", "block": "10.80.0.64/26"}
            other.cut()
            await until(lambda: len(served_api.running.core.sessions.connected) == 1)
            silent = (await served_api.get(f"/v1/agents/{other.id}")).json
            assert (silent["connected"], silent["applied"], silent["endpoints"]) == (False, None, 1)

    run(case())


def test_one_can_wait_until_a_revision_is_applied(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as served_api:
            one = await served_api.running.join(1)
            number = served_api.running.core.watch.number
            early = await served_api.get(f"/v1/agents?applied={number}&wait=50ms")
            assert early.json["agents"][0]["applied"] is None
            waiting = asyncio.ensure_future(served_api.get(f"/v1/agents/n1?applied=1.{number}&wait=10s"))
            done, _ = await asyncio.wait([waiting], timeout=0.1)
            assert not done
            await one.report()
            assert (await waiting).json["applied"] == f"1.{number}"
            for query in ("applied=x", "applied=1&wait=10", "applied=1&wait=x", "applied=1.&wait=1s"):
                assert (await served_api.get(f"/v1/agents?{query}")).status == 400, query

    run(case())


def test_an_endpoint_is_found_by_whatever_one_has_of_it(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as served_api:
            one, _ = await two_agents(served_api.running)
            wanted = one.endpoint(2)
            shown = (await served_api.get("/v1/endpoints")).json["endpoints"]
            assert [each["address"] for each in shown] == ["10.64.0.1", "10.64.0.2", "10.64.0.65"]
            for which in (str(wanted.address), str(wanted.key), wanted.key.tag, wanted.link, "c2", "container-2"):
                found = (await served_api.get(f"/v1/endpoints/{which}")).json
                assert (found["agent"], found["network"], found["address"]) == ("n1", "dev", "10.64.0.2"), which
            for which in ("10.64.0.9", "192.0.2.1", "con", "fe80::1", ".."):
                assert (await served_api.get(f"/v1/endpoints/{which}")).status == 404, which
            several = await served_api.get("/v1/endpoints/container")
            assert (several.status, several.json["message"]) == (404, "container has 3 endpoints")

    run(case())


def test_drops_are_asked_of_every_agent_and_the_silent_are_named(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as served_api:
            one = await served_api.running.join(1)
            (await served_api.running.join(2)).cut()
            await until(lambda: len(served_api.running.core.sessions.connected) == 1)
            asking = asyncio.ensure_future(served_api.get("/v1/drops"))
            channel, message = await one.stream.receive()
            while not isinstance(message, Call):
                channel, message = await one.stream.receive()
            assert message.method == "drops"
            row = {"network": "dev", "reason": "spoofed", "packets": 3, "bytes": 180}
            await one.stream.send(channel, Chunk(json.dumps([row]).encode()))
            await one.stream.send(channel, End())
            answer = (await asking).json
            assert (answer["drops"], answer["silent"]) == ([{"agent": "n1", **row}], ["n2"])

    run(case())


@pytest.mark.parametrize("said", ["[1]", "7", '[{"agent": "n2"}]', "[" * 100_000, "x"])
def test_an_agent_that_answers_nonsense_is_silent_and_spoils_nothing(tmp_path: Path, said: str) -> None:
    async def case() -> None:
        async with served(tmp_path) as served_api:
            one = await served_api.running.join(1)
            asking = asyncio.ensure_future(served_api.get("/v1/drops"))
            channel, message = await one.stream.receive()
            while not isinstance(message, Call):
                channel, message = await one.stream.receive()
            await one.stream.send(channel, Chunk(said.encode()))
            await one.stream.send(channel, End())
            answer = await asking
            assert (answer.status, answer.json["drops"], answer.json["silent"]) == (200, [], ["n1"])

    run(case())


def test_status_names_every_trouble_and_what_to_do(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as served_api:
            fine = (await served_api.get("/v1/status")).json
            assert (fine["ok"], fine["troubles"], fine["networks"]) == (True, [], 2)
            _, other = await two_agents(served_api.running)
            other.cut()
            for number in (3, 4):
                await served_api.running.join(number)
            five = await served_api.running.join(5)
            assert len(five.own.prefixes) == 1
            (tmp_path / "config.yaml").write_text(CONFIG.replace("10.64", "10.65"))
            answer = (await served_api.get("/v1/status")).json
            told = {trouble["subject"]: trouble["message"] for trouble in answer["troubles"]}
            assert told.keys() == {"config", "agent n1", "agent n2", "network dev"}
            assert "differs" in told["config"]
            assert told["agent n1"] == "device hedge0: busy"
            assert told["agent n2"] == "is not connected"
            assert told["network dev"].endswith("without addresses: n5")
            assert "10.64.0.0/24 holds 4 blocks of /26" in told["network dev"]
            assert all(trouble["next"] for trouble in answer["troubles"])
            assert (answer["ok"], answer["agents"], answer["connected"], answer["endpoints"]) == (False, 5, 4, 3)

    run(case())


def test_dcos_tools_find_its_json_under_both_paths(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as served_api:
            one = await served_api.running.join(1)
            before = (await served_api.get("/mesos/overlay-master/state")).json
            assert "state" not in before["agents"][0]["overlays"][0]
            await one.report()
            await until(lambda: served_api.running.core.sessions.applied(one.id) is not None)
            answer = (await served_api.get("/overlay-master/state")).json
            assert answer["network"] == {
                "vtep_subnet": "44.128.0.0/20",
                "vtep_mac_oui": "70:b3:d5:00:00:00",
                "overlays": [
                    {"name": "dev", "subnet": "10.64.0.0/24", "prefix": 26, "enabled": True},
                    {"name": "prod", "subnet": "10.80.0.0/16", "prefix": 26, "enabled": True},
                ],
            }
            (agent,) = answer["agents"]
            vni = served_api.running.core.watch.networks[one.own.prefixes[0].network].vni
            assert (agent["ip"], len(agent["overlays"])) == ("192.0.2.1", 2)
            assert agent["overlays"][0] == {
                "info": {"name": "dev", "subnet": "10.64.0.0/24", "prefix": 26, "enabled": True},
                "subnet": "10.64.0.0/26",
                "mesos_bridge": {"name": "m-dev", "ip": "10.64.0.0/27"},
                "docker_bridge": {"name": "d-dev", "ip": "10.64.0.32/27"},
                "backend": {
                    "vxlan": {
                        "vni": vni,
                        "vtep_name": "hedge0",
                        "vtep_ip": "44.128.0.1/20",
                        "vtep_mac": "70:b3:d5:80:00:01",
                    }
                },
                "state": {"status": "STATUS_OK"},
            }

    run(case())


def test_an_agent_that_could_not_program_says_so_to_dcos_tools(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as served_api:
            one = await served_api.running.join(1)
            fault = RowFault(row="firewall inet hedgerow", reason="no nft", since_s=0.0)
            await one.stream.send(0, Report(whole=True, applied=one.revision, faults=(fault,)))
            await until(lambda: served_api.running.core.sessions.applied(one.id) is not None)
            state = (await served_api.get("/overlay-master/state")).json["agents"][0]["overlays"][0]["state"]
            assert state == {"status": "STATUS_FAILED", "error": "firewall inet hedgerow: no nft"}

    run(case())


def test_pings_metrics_apps_and_the_description_are_there(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as served_api:
            await two_agents(served_api.running)
            assert (await served_api.get("/ping", ("accept", "application/json"))).body == b'"pong"'
            assert (await served_api.get("/v2/apps")).body == b"apps"
            metrics = (await served_api.get("/metrics")).body.decode()
            assert 'hedgerow_agents{state="connected"} 2.0' in metrics
            assert 'hedgerow_agent_endpoints{agent="n1"} 2.0' in metrics
            assert 'hedgerow_network_blocks{network="dev"} 4.0' in metrics
            assert 'hedgerow_network_blocks_allotted{network="dev"} 2.0' in metrics
            description = (await served_api.get("/v1/openapi.json")).json
            paths = {"/v1/networks", "/v1/agents", "/v1/endpoints", "/v1/drops", "/v1/status"}
            assert paths <= description["paths"].keys()
            for path, method, status in (("/v1/none", "GET", 404), ("/v1/networks", "DELETE", 405), ("/x", "GET", 404)):
                answer = await served_api.get(path, method=method)
                assert (answer.status, answer.json.keys()) == (status, {"message", "cure"})

    run(case())


def test_the_digest_is_of_what_a_file_means() -> None:
    async def case() -> None:
        store = await new_store()
        async with controller(store) as running:
            assert len(digest(running.core.watch.cluster)) == 64
            assert (await drift(store, Path("/nowhere/config.yaml"))) is not None

    run(case())
