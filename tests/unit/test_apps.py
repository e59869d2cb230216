"""The API and the scheduler together, on a store in memory, with an agent that only says what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import Any

import pytest
from starlette.applications import Starlette
from unit.marathon_client import FORMS, NETWORKS, PRINTED, Answer, call

from hedgerow.apps.records import AGENTS, INSTANCES, status_key
from hedgerow.apps.wiring import Apps, build
from hedgerow.errors import Unreachable
from hedgerow.model.agent import Agent, AgentId, Vtep
from hedgerow.model.app import Instance, InstanceState, InstanceStatus
from hedgerow.store.base import Put
from hedgerow.store.memory import MemoryStore
from hedgerow.wire.codec import from_json, to_json

FAST = {"backoffSeconds": 0, "networks": NETWORKS, "cmd": "x"}


class Cluster:
    def __init__(self, clock: Callable[[], float] = lambda: 1000.0) -> None:
        self.store = MemoryStore()
        self.connected: set[AgentId] = set()
        self.log: list[bytes] = [b"one\n", b"two\n"]
        self.asked: list[dict[str, Any]] = []
        self.apps: Apps = build(self.store, self._call, lambda: self.connected, clock)
        self.app = Starlette(routes=self.apps.routes)

    async def _call(
        self, agent: AgentId, method: str, arguments: dict[str, Any], *, deadline_s: float
    ) -> AsyncGenerator[bytes, None]:
        if agent not in self.connected:
            raise Unreachable(f"agent {agent} is not connected")
        self.asked.append({"agent": agent, "method": method, **arguments})
        for line in self.log:
            yield line

    async def add_agent(self, name: str) -> None:
        vtep = Vtep(ip=None, mac=bytes(6))
        record = Agent(id=AgentId(name), name=name, underlay=IPv4Address("10.0.0.1"), incarnation=1, vtep=vtep)
        self.connected.add(record.id)
        await self.store.commit([], [Put(AGENTS + name, to_json(record))])
        self.apps.wake()

    async def ask(self, method: str, path: str, body: object = None) -> Answer:
        return await call(self.app, method, path, body)

    async def instances(self) -> list[Instance]:
        return [from_json(entry.value, Instance) for entry in (await self.store.list(INSTANCES)).entries]

    async def say(self, instance: Instance, state: InstanceState, *addresses: str, message: str = "") -> None:
        said = InstanceStatus(
            id=instance.id, incarnation=instance.incarnation, agent=instance.agent, state=state, message=message,
            addresses=tuple(IPv4Address(each) for each in addresses), started_s=999.0, changed_s=1000.0,
        )  # fmt: skip
        await self.store.commit([], [Put(status_key(instance.id), to_json(said))])

    async def until(self, count: int, kill: bool = False) -> list[Instance]:
        """Waits for so many instances that are wanted, or that are to be killed."""
        while True:
            found = [each for each in await self.instances() if each.kill is kill]
            if len(found) == count:
                return found
            await asyncio.sleep(0.01)

    async def until_gone(self, what: Callable[[], Awaitable[object]]) -> None:
        while True:
            if not await what():
                return
            await asyncio.sleep(0.01)


async def _deployments(cluster: Cluster) -> list[Any]:
    return (await cluster.ask("GET", "/v2/deployments")).json


@asynccontextmanager
async def running(*agents: str) -> AsyncIterator[Cluster]:
    cluster = Cluster()
    for agent in agents:
        await cluster.add_agent(agent)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(cluster.apps.run())
        yield cluster
        task.cancel()


def test_an_app_is_run_looked_at_and_taken_away_and_leaves_nothing() -> None:
    async def story() -> None:
        async with running("n1") as cluster:
            answer = await cluster.ask("POST", "/v2/apps", PRINTED)
            assert (answer.status, answer.json["id"], answer.all("Location")) == (
                201,
                "/my-networking",
                ["/my-networking"],
            )
            [instance] = await cluster.until(1)
            await cluster.say(instance, InstanceState.RUNNING, "9.0.0.2")
            [task] = (await cluster.ask("GET", "/v2/apps/my-networking/tasks")).json["tasks"]
            assert task["ipAddresses"] == [{"ipAddress": "9.0.0.2", "protocol": "IPv4"}]
            assert (task["state"], task["host"], task["ports"]) == ("TASK_RUNNING", "n1", [])
            app = (await cluster.ask("GET", "/v2/apps//my-networking/")).json["app"]
            assert (app["tasksRunning"], app["tasksStaged"], app["tasks"]) == (1, 0, [task])
            assert (await cluster.ask("GET", "/v2/tasks")).json["tasks"] == [task]
            assert (await cluster.ask("DELETE", "/v2/apps/my-networking")).status == 200
            assert (await cluster.ask("GET", "/v2/apps/my-networking")).status == 404
            [killed] = await cluster.until(1, kill=True)
            assert (await cluster.ask("GET", "/v2/tasks")).json["tasks"][0]["state"] == "TASK_KILLING"
            await cluster.say(killed, InstanceState.KILLED)
            await cluster.until(0, kill=True)
            assert [each.key for each in (await cluster.store.list("/")).entries] == [AGENTS + "n1"]

    asyncio.run(story())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_example_is_accepted(form: str) -> None:
    async def story() -> None:
        cluster = Cluster()
        answer = await cluster.ask("POST", "/v2/apps", FORMS[form])
        assert answer.status == 201
        assert answer.json["networks"] == NETWORKS
        assert "versionInfo" not in answer.json
        assert answer.all("Marathon-Deployment-Id") == [answer.json["deployments"][0]["id"]]

    asyncio.run(story())


def test_ignored_keys_are_named_in_a_warning_header() -> None:
    async def story() -> None:
        cluster = Cluster()
        answer = await cluster.ask("POST", "/v2/apps", PRINTED | {'odd"\n\u20ac': 1})
        [warning] = answer.all("Warning")
        assert warning.split(", ") == [
            r'299 - "/odd\"\n\u20ac is not a key of Marathon: ignored"',
            '299 - "/container/docker/portMappings(0)/host_port is not a key of Marathon: ignored"',
            '299 - "/container/docker/portMappings(0)/container_port is not a key of Marathon: ignored"',
        ]

    asyncio.run(story())


def test_what_cannot_be_taken_is_answered_with_marathons_bodies() -> None:
    async def story() -> None:
        cluster = Cluster()
        answers = [
            await cluster.ask("POST", "/v2/apps", body) for body in (b"{", {"id": 1}, {"id": "a"}, b"x" * (2 << 20))
        ]
        assert [answer.status for answer in answers] == [400, 422, 422, 400]
        assert answers[1].json == {
            "message": "Invalid JSON",
            "details": [{"path": "/id", "errors": ["error.expected.jsstring"]}],
        }
        assert answers[2].json["message"] == "Object is not valid"
        assert (await cluster.ask("GET", "/v2/apps/a")).json == {"message": "App '/a' does not exist"}
        assert (await cluster.ask("GET", "/v2/apps/a/tasks")).status == 404
        assert (await cluster.ask("DELETE", "/v2/apps/a")).status == 404
        assert (await cluster.ask("POST", "/v2/apps/a")).status == 405

    asyncio.run(story())


def test_an_id_is_taken_once_and_an_app_is_no_group() -> None:
    async def story() -> None:
        cluster = Cluster()
        assert (await cluster.ask("POST", "/v2/apps", FAST | {"id": "/a/b"})).status == 201
        answer = await cluster.ask("POST", "/v2/apps", FAST | {"id": "a/b"})
        assert (answer.status, answer.json) == (409, {"message": "An app with id [/a/b] already exists."})
        assert (await cluster.ask("POST", "/v2/apps", FAST | {"id": "/a"})).status == 422
        assert (await cluster.ask("POST", "/v2/apps", FAST | {"id": "/a/b/c"})).status == 422
        assert [each["id"] for each in (await cluster.ask("GET", "/v2/apps/a/*")).json["*"]] == ["/a/b"]

    asyncio.run(story())


def test_apps_are_found_by_a_part_of_their_id_or_command() -> None:
    async def story() -> None:
        cluster = Cluster()
        for name, command in (("web", "nginx"), ("db", "postgres")):
            await cluster.ask("POST", "/v2/apps", FAST | {"id": name, "cmd": command})
        for query, wanted in (("", ["/db", "/web"]), ("?id=WE", ["/web"]), ("?cmd=gre", ["/db"])):
            found = (await cluster.ask("GET", "/v2/apps" + query)).json["apps"]
            assert [each["id"] for each in found] == wanted
            assert "tasks" not in found[0]
        assert "tasks" in (await cluster.ask("GET", "/v2/apps?embed=apps.tasks")).json["apps"][0]

    asyncio.run(story())


def test_a_deployment_is_listed_until_all_run() -> None:
    async def story() -> None:
        async with running("n1") as cluster:
            answer = await cluster.ask("POST", "/v2/apps", FAST | {"id": "a", "instances": 2})
            [deployment] = (await cluster.ask("GET", "/v2/deployments")).json
            assert deployment["id"] == answer.json["deployments"][0]["id"]
            for instance in await cluster.until(2):
                await cluster.say(instance, InstanceState.RUNNING)
            await cluster.until_gone(lambda: _deployments(cluster))

    asyncio.run(story())


def test_a_hundred_instances_are_started_though_no_transaction_can_hold_them() -> None:
    async def story() -> None:
        async with running("n1", "n2") as cluster:
            await cluster.ask("POST", "/v2/apps", FAST | {"id": "a", "instances": 100})
            found = await cluster.until(100)
            assert len({each.id for each in found}) == 100
            await cluster.ask("DELETE", "/v2/apps/a")
            await cluster.until(100, kill=True)

    asyncio.run(story())


def test_one_that_failed_is_reported_with_its_reason_and_replaced() -> None:
    async def story() -> None:
        async with running("n1") as cluster:
            await cluster.ask("POST", "/v2/apps", FAST | {"id": "a"})
            [first] = await cluster.until(1)
            await cluster.say(first, InstanceState.FAILED, message="no network is named nope")
            await cluster.until(2)
            app = (await cluster.ask("GET", "/v2/apps/a")).json["app"]
            assert app["lastTaskFailure"]["message"] == "no network is named nope"
            assert [each["id"] for each in app["tasks"]] != [first.id]

    asyncio.run(story())


def test_a_write_on_what_has_changed_meanwhile_is_decided_anew() -> None:
    class Rival(MemoryStore):
        """Changes the app once, between the scheduler's look and its write."""

        async def commit(self, compares: Any, operations: Any) -> int:
            if any(isinstance(each, Put) and each.key.startswith(INSTANCES) for each in operations):
                entry = await self.get("/apps/a")
                if entry and entry.created == entry.modified:
                    await super().commit([], [Put(entry.key, entry.value)])
            return await super().commit(compares, operations)

    async def story() -> None:
        async with running("n1") as cluster:
            cluster.store.__class__ = Rival
            await cluster.ask("POST", "/v2/apps", FAST | {"id": "a"})
            await cluster.until(1)

    asyncio.run(story())


def test_a_late_report_of_an_instance_that_is_gone_is_swept() -> None:
    async def story() -> None:
        async with running("n1") as cluster:
            await cluster.ask("POST", "/v2/apps", FAST | {"id": "a"})
            await cluster.until(1)
            await cluster.ask("DELETE", "/v2/apps/a")
            [killed] = await cluster.until(1, kill=True)
            await cluster.say(killed, InstanceState.KILLED)
            await cluster.until(0, kill=True)
            await cluster.say(killed, InstanceState.KILLED)
            await cluster.until_gone(lambda: cluster.store.get(status_key(killed.id)))

    asyncio.run(story())


def test_the_log_of_the_newest_instance_comes_from_its_agent() -> None:
    async def story() -> None:
        async with running("n1") as cluster:
            await cluster.ask("POST", "/v2/apps", FAST | {"id": "a"})
            [instance] = await cluster.until(1)
            answer = await cluster.ask("GET", "/v1/apps/a/logs?tail=5&follow=true")
            assert (answer.status, answer.body) == (200, b"one\ntwo\n")
            assert answer.all("Hedgerow-Task") == [instance.id]
            [asked] = cluster.asked
            assert asked == {"agent": "n1", "method": "logs", "instance": instance.id, "follow": True, "tail": 5}

    asyncio.run(story())


def test_a_log_that_cannot_be_had_is_answered_with_the_reason() -> None:
    async def story() -> None:
        async with running("n1") as cluster:
            assert (await cluster.ask("GET", "/v1/apps/a/logs")).status == 404
            await cluster.ask("POST", "/v2/apps", FAST | {"id": "a"})
            await cluster.until(1)
            assert (await cluster.ask("GET", "/v1/apps/a/logs?task=x")).status == 404
            assert (await cluster.ask("GET", "/v1/apps/a/logs?tail=x")).status == 422
            cluster.connected.clear()
            answer = await cluster.ask("GET", "/v1/apps/a/logs")
            assert (answer.status, answer.json["message"]) == (503, "agent n1 is not connected")

    asyncio.run(story())
