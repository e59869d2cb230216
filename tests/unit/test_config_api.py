"""PUT /v1/config and GET /v1/can: what they answer, and what of the store cannot be read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from unit.controller_cases import LAUNCH, Answer, Cluster, controller, get, run, stored, until

from hedgerow.config.load import load
from hedgerow.controller.api import app as api
from hedgerow.controller.api.can import split
from hedgerow.controller.api.view import View
from hedgerow.controller.networks import import_spec
from hedgerow.errors import BadInput
from hedgerow.model.agent import Agent
from hedgerow.model.app import AppId, Instance, InstanceId, InstanceState, InstanceStatus
from hedgerow.model.member import Member
from hedgerow.model.network import Network, NetworkName
from hedgerow.store.base import Put
from hedgerow.store.memory import MemoryStore
from hedgerow.wire.codec import to_json

TOKEN = "a-token-of-32-characters-or-more"
CONFIG = """\
dcos_overlay_network:
  vtep_subnet: 44.128.0.0/20
  vtep_mac_oui: 70:B3:D5:00:00:00
  overlays:
    - name: dev
      subnet: 10.64.0.0/24
      prefix: 26
      rules:
        - {name: front-to-api, from: {app: /front}, to: {app: /api}, ports: [8080/tcp]}
        - {from: {network: prod}, to: any, ports: [53/udp, icmp]}
    - name: prod
      subnet: 10.80.0.0/16
      prefix: 26
    - name: db
      subnet: 10.90.0.0/16
      prefix: 26
      allow: [prod, {to: dev, ports: [1-100/tcp]}]
"""


@dataclass
class Api:
    running: Cluster
    app: Any

    async def get(self, path: str) -> Answer:
        return await get(self.app, path, [("authorization", f"Bearer {TOKEN}")])

    async def put(self, path: str, text: bytes) -> Answer:
        headers = [("authorization", f"Bearer {TOKEN}"), ("content-length", str(len(text)))]
        return await get(self.app, path, headers, "PUT", text)


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[Api]:
    (path / "config.yaml").write_text(CONFIG)
    store = MemoryStore()
    numbers = iter(range(5000, 10_000))
    await import_spec(store, load(CONFIG), lambda width: next(numbers))
    async with controller(store) as running:
        view = View(store, running.core.watch, running.core.sessions, path / "config.yaml")
        yield Api(running, api.build(view, "0.0", [], TOKEN))


async def run_app(running: Cluster, agent: Any, app: str, place: int) -> None:
    """An instance of the app on dev, with an endpoint of that name."""
    name = app.strip("/")
    instance = Instance(
        id=InstanceId(name),
        app=AppId(app),
        incarnation=1,
        agent=agent.id,
        agent_incarnation=1,
        launch=replace(LAUNCH, network=NetworkName("dev")),
    )
    await running.store.commit([], [Put(f"/instances/{name}", to_json(instance))])
    await running.core.watch.reached(running.store.revision)
    endpoint = agent.endpoint(place)
    status = InstanceStatus(
        id=instance.id, incarnation=1, agent=agent.id, state=InstanceState.RUNNING, addresses=(endpoint.address,)
    )
    await agent.report(endpoint, instances=(status,))
    await until(lambda: app in {member.app for member in stored(running.store, "/members/", Member).values()})
    await running.core.watch.reached(running.store.revision)


def test_a_config_is_applied_and_the_answer_names_the_revision_and_the_keys(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as given:
            text = CONFIG.replace("[prod, ", "[").encode()
            answer = (await given.put("/v1/config?file=new.yaml", text)).json
            assert answer == {
                "revision": f"1.{given.running.store.revision}",
                "changed": [{"network": "db", "key": "allow"}],
                "warnings": [],
            }
            assert (await given.put("/v1/config", text)).json == {**answer, "changed": []}
            (trouble,) = (await given.get("/v1/status")).json["troubles"]
            assert trouble["next"] == f"hedgerow apply {tmp_path}/config.yaml, or put the old file back"

    run(case())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            CONFIG.replace("10.80", "10.81").encode(),
            "new.yaml:12: dcos_overlay_network.overlays[1].subnet: 10.81.0.0/16",
        ),
        (b"overlays: [", "new.yaml:2: not YAML"),
        (b"\xff", "byte 0 of the body is no UTF-8"),
    ],
)
def test_what_cannot_be_applied_is_told_with_its_line_and_changes_nothing(
    tmp_path: Path, text: bytes, told: str
) -> None:
    async def case() -> None:
        async with served(tmp_path) as given:
            before = given.running.store.revision
            answer = await given.put("/v1/config?file=new.yaml", text)
            assert (answer.status, answer.json["message"][: len(told)]) == (400, told)
            assert given.running.store.revision == before

    run(case())


def test_a_config_needs_the_token(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as given:
            before = given.running.store.revision
            for headers in ([], [("authorization", "Bearer x")]):
                assert (await get(given.app, "/v1/config", headers, "PUT", b"")).status == 401
            assert given.running.store.revision == before

    run(case())


CAN = [
    ("prod", "db:5432", True, "", "db.allow[0]"),
    ("db", "prod", True, "", "db.allow[0]"),
    ("db", "dev:80", True, "db/allow dev", "db.allow[1]"),
    ("db", "dev:101", False, "", "db.allow[1]"),
    ("db", "dev", True, "db/allow dev", "db.allow[1]"),
    ("dev", "db", False, "", "db.allow"),
    ("/front", "/api:8080", True, "dev/front-to-api", "dev.rules[0]"),
    ("front", "10.64.0.2:8080", True, "dev/front-to-api", "dev.rules[0]"),
    ("/front:34567", "[10.64.0.2]:8080", True, "dev/front-to-api", "dev.rules[0]"),
    ("c1", "c2:8080/tcp", True, "dev/front-to-api", "dev.rules[0]"),
    ("/front", "/api:8080/udp", False, "", "dev.rules[0]"),
    ("/api", "/front", False, "", "dev.rules"),
    ("dev", "dev", False, "", "dev.rules"),
    ("prod", "/api:icmp", True, "dev/rule 2", "dev.rules[1]"),
    ("10.80.3.4", "10.64.0.9:53/udp", True, "dev/rule 2", "dev.rules[1]"),
]


def test_can_says_yes_or_no_and_which_place_in_the_configuration_decides(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as given:
            agent = await given.running.join(1)
            await run_app(given.running, agent, "/front", 1)
            await run_app(given.running, agent, "/api", 2)
            for source, destination, *expected in CAN:
                answer = (await given.get(f"/v1/can?from={source}&to={destination}")).json
                assert [answer["allowed"], answer["rule"], answer["where"]] == expected, (source, destination)
                assert answer["reason"]
            for query in ("from=nobody&to=dev", "from=dev&to=192.0.2.1"):
                assert (await given.get(f"/v1/can?{query}")).status == 404
            assert (await given.get("/v1/can?from=dev&to=db:70000")).status == 400

    run(case())


def test_who_and_port_are_taken_apart_also_with_ipv6_addresses() -> None:
    assert split("fd00::2") == ("fd00::2", None, None)
    assert split("[fd00::2]:53/udp") == ("fd00::2", "udp", 53)
    assert split("cni/0123/eth0:80") == ("cni/0123/eth0", "tcp", 80)
    assert split("web") == ("web", None, None)
    assert split("db:icmp") == ("db", "icmp", None)
    with pytest.raises(BadInput, match="0 is no port"):
        split("db:0")


def test_networks_are_shown_with_their_walls(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as given:
            db, dev, prod = (await given.get("/v1/networks")).json["networks"]
            assert db["allow"] == ["prod", {"to": "dev", "ports": ["1-100/tcp"]}]
            assert (db["reaches"], dev["reaches"], prod["reaches"]) == (["dev", "prod"], [], ["db", "dev"])
            assert (db["rules"], prod["agents"], prod["hosts"]) == (None, None, "allow")
            assert dev["rules"][0] == {
                "name": "front-to-api",
                "from": {"app": "/front", "label": {}, "network": None},
                "to": {"app": "/api", "label": {}, "network": None},
                "ports": ["8080/tcp"],
            }

    run(case())


def test_a_record_that_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as given:
            store = given.running.store
            agent = await given.running.join(1)
            await agent.report(agent.endpoint(1))
            await until(lambda: any(key.startswith("/endpoints/") for key in store._entries))
            keys = [f"/endpoints/{agent.id}/0123456789a", "/instances/x", "/members/x", "/status/x", "/networks/x"]
            await store.commit([], [Put(key, b"[]") for key in keys])
            await given.running.core.watch.reached(store.revision)
            status = (await given.get("/v1/status")).json
            assert {one["subject"] for one in status["troubles"]} == {f"store {key}" for key in keys}
            assert all("cannot be read" in one["message"] and one["next"] for one in status["troubles"])
            assert (status["endpoints"], status["networks"], status["connected"]) == (1, 3, 1)
            assert len((await given.get("/v1/endpoints")).json["endpoints"]) == 1

    run(case())


def test_a_record_that_becomes_unreadable_stays_as_it_was_and_heals_with_the_next_write(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as given:
            store, watch = given.running.store, given.running.core.watch
            key, network = next(iter(stored(store, "/networks/", Network).items()))
            await store.commit([], [Put(f"/networks/{key}", json.dumps({"id": key}).encode())])
            await until(lambda: watch.unreadable)
            assert watch.networks[network.id] == network
            await store.commit([], [Put(f"/networks/{key}", to_json(network))])
            await until(lambda: not watch.unreadable)

    run(case())


def test_nothing_is_given_out_while_what_is_given_out_cannot_be_read(tmp_path: Path) -> None:
    async def case() -> None:
        async with served(tmp_path) as given:
            store = given.running.store
            known = await given.running.join(1)
            other = await given.running.join(2)
            for agent in (known, other):
                agent.cut()
        await store.commit([], [Put(f"/agents/{other.id}", b"{}")])
        async with controller(store) as running:
            again = await running.join(1)
            assert again.own == known.own
            for number in (2, 3):
                answer = await (await running.dial(number)).ask()
                assert (answer.code, f"/agents/{other.id} cannot be read" in answer.message) == ("damaged", True)
            assert stored(store, f"/agents/{known.id}", Agent)[""] == known.own

    run(case())
