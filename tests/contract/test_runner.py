"""The runner against an engine in memory that speaks Docker's protocol over a unix socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from contract.engine_fake import FakeEngine

from hedgerow.agent import runner as runners
from hedgerow.agent import seccomp
from hedgerow.agent.runner import Runner
from hedgerow.errors import BadInput, NotFound
from hedgerow.model.agent import Agent, AgentId, Vtep
from hedgerow.model.app import AppId, Engine, Instance, InstanceId, InstanceState, Launch
from hedgerow.model.network import ClusterSpec, NetworkName, VtepSpec
from hedgerow.model.snapshot import Revision, Snapshot

OWN = Agent(
    id=AgentId("n1"), name="n1", underlay=IPv4Address("10.0.0.1"), incarnation=1, vtep=Vtep(ip=None, mac=bytes(6))
)
CLUSTER = ClusterSpec(enable=True, mtu_bytes=1420, vtep=VtepSpec(subnet=None), networks=())


@dataclass
class Settings:
    name: str = "n1"
    engines: tuple[str, ...] = ("docker", "podman")
    host_rootfs: bool = False
    state: Path = Path("/var/lib/hedgerow/agent")
    certificates: Path = Path("/etc/hedgerow")


@dataclass
class State:
    """The wanted state, as a test sets it."""

    instances: dict[InstanceId, Instance] = field(default_factory=dict)
    is_live: bool = True
    own: Agent = OWN
    generation: int = 0
    changes: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot(revision=Revision(1, 1), own=OWN.id, cluster=CLUSTER, agents={}, instances=self.instances)

    def want(self, *instances: Instance) -> None:
        self.instances = {each.id: each for each in instances}
        self.generation += 1
        self.changes.set()
        self.changes = asyncio.Event()

    async def changed(self, generation: int) -> int:
        while self.generation == generation:
            await self.changes.wait()
        return self.generation


class Networks:
    def network(self, name: str) -> Any:
        if name != "dcos-1":
            raise NotFound(f"no network is named {name!r}", "there are: dcos-1")


def instance(number: int = 1, **launch: Any) -> Instance:
    words = {"engine": Engine.DOCKER, "network": NetworkName("dcos-1"), "image": "nginx", "command": ("x",)} | launch
    return Instance(
        id=InstanceId(f"web.{number}"), app=AppId("/web"), incarnation=1, agent=OWN.id, agent_incarnation=1,
        launch=Launch(**words),
    )  # fmt: skip


@dataclass
class World:
    docker: FakeEngine
    podman: FakeEngine
    state: State
    settings: Settings
    runner: Runner
    changes: asyncio.Event

    def says(self) -> dict[str, InstanceState]:
        return {each.id: each.state for each in self.runner.statuses()}

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.005)

    async def until_said(self, **states: InstanceState) -> None:
        wanted = {id.replace("_", "."): state for id, state in states.items()}
        await self.until(lambda: self.says() == wanted)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Runner]:
        """An agent's life: a runner that knows nothing of the one before."""
        self.runner = Runner(Networks(), self.state, self.settings, self.changes.set)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.runner.run())
            try:
                yield self.runner
            finally:
                task.cancel()


Story = Callable[[World], Coroutine[Any, Any, None]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Story], None]:
    sockets = {engine: tmp_path / f"{engine.value}.sock" for engine in (Engine.DOCKER, Engine.PODMAN)}
    monkeypatch.setattr(runners, "SOCKETS", {engine: str(socket) for engine, socket in sockets.items()})
    monkeypatch.setattr(runners, "RETRY_S", 0.02)

    async def whole(story: Story) -> None:
        docker, podman, changes = FakeEngine(), FakeEngine(), asyncio.Event()
        state, settings = State(), Settings()
        async with docker.served(sockets[Engine.DOCKER]), podman.served(sockets[Engine.PODMAN]):
            world = World(docker, podman, state, settings, Runner(Networks(), state, settings, changes.set), changes)
            await story(world)

    return lambda story: asyncio.run(whole(story))


def test_an_instance_is_started_reported_and_taken_away(play: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        async with world.running():
            world.state.want(instance())
            await world.until_said(web_1=InstanceState.RUNNING)
            [said] = world.runner.statuses()
            assert said.addresses == (IPv4Address("9.0.0.2"),)
            world.state.want(replace(instance(), kill=True))
            await world.until_said(web_1=InstanceState.KILLED)
            assert world.docker.states() == {}
            world.state.want()
            await world.until_said()
        assert [call.split()[0] for call in world.docker.calls] == ["POST", "POST", "POST", "DELETE"]

    play(story)


def test_one_that_ends_is_reported_with_its_exit_code_and_not_started_again(play: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        async with world.running():
            world.state.want(instance(1), instance(2))
            await world.until_said(web_1=InstanceState.RUNNING, web_2=InstanceState.RUNNING)
            calls = len(world.docker.calls)
            world.docker.end("web.1", 0)
            world.docker.end("web.2", 3)
            await world.until_said(web_1=InstanceState.FINISHED, web_2=InstanceState.FAILED)
            assert [each.message for each in world.runner.statuses()] == ["", "exit code 3"]
            assert len(world.docker.calls) == calls

    play(story)


def test_a_new_agent_goes_on_with_the_containers_of_the_one_before(play: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        async with world.running():
            world.state.want(instance())
            await world.until_said(web_1=InstanceState.RUNNING)
        calls = list(world.docker.calls)
        async with world.running():
            await world.until_said(web_1=InstanceState.RUNNING)
        assert world.docker.calls == calls

    play(story)


def test_a_container_that_was_made_and_not_started_is_started_by_the_next_agent(play: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        world.docker.starts_held.clear()
        async with world.running():
            world.state.want(instance())
            await world.until(lambda: world.docker.states() == {"web.1": "created"})
        world.docker.starts_held.set()
        async with world.running():
            await world.until_said(web_1=InstanceState.RUNNING)
        assert len(world.docker.containers) == 1

    play(story)


def test_containers_without_an_instance_stay_until_the_wanted_state_is_live(play: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        async with world.running():
            world.state.want(instance(1))
            await world.until_said(web_1=InstanceState.RUNNING)
            world.state.is_live = False
            world.state.want(instance(2))
            await world.until_said(web_2=InstanceState.RUNNING)
            assert world.docker.states()["web.1"] == "running"
            world.state.is_live = True
            world.state.want(instance(2))
            await world.until(lambda: list(world.docker.states()) == ["web.2"])

    play(story)


def test_an_unknown_network_fails_the_instance_with_the_names_that_there_are(play: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        async with world.running():
            world.state.want(instance(network=NetworkName("nope")))
            await world.until_said(web_1=InstanceState.FAILED)
            assert world.runner.statuses()[0].message == "no network is named 'nope': there are: dcos-1"
            assert world.docker.containers == {}

    play(story)


def test_what_an_engine_says_at_start_is_the_reason_and_the_rest_goes_with_the_record(
    play: Callable[[Story], None],
) -> None:
    async def story(world: World) -> None:
        world.docker.fails_at_start = "no address is free in dcos-1"
        async with world.running():
            world.state.want(instance())
            await world.until_said(web_1=InstanceState.FAILED)
            assert world.runner.statuses()[0].message == "no address is free in dcos-1"
            world.state.want()
            await world.until(lambda: world.docker.states() == {})

    play(story)


def test_a_missing_image_is_pulled_once_and_one_that_cannot_be_is_the_reason(play: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        async with world.running():
            world.state.want(instance(1, image="other"), instance(2, image="nowhere"))
            await world.until_said(web_1=InstanceState.RUNNING, web_2=InstanceState.FAILED)
            assert world.runner.statuses()[1].message.startswith("image nowhere cannot be pulled: denied")

    play(story)


def test_a_container_that_somebody_else_removed_is_a_failure_and_no_reason_to_start_again(
    play: Callable[[Story], None],
) -> None:
    async def story(world: World) -> None:
        async with world.running():
            world.state.want(instance())
            await world.until_said(web_1=InstanceState.RUNNING)
            world.docker.forget("web.1")
            await world.until_said(web_1=InstanceState.FAILED)
            assert world.docker.containers == {}

    play(story)


def test_one_that_is_killed_while_it_starts_is_taken_away(play: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        world.docker.starts_held.clear()
        async with world.running():
            world.state.want(instance())
            await world.until(lambda: world.docker.states() == {"web.1": "created"})
            world.state.want(replace(instance(), kill=True))
            world.docker.starts_held.set()
            await world.until_said(web_1=InstanceState.KILLED)
            assert world.docker.states() == {}

    play(story)


def test_an_engine_that_is_away_delays_and_fails_nothing(play: Callable[[Story], None], tmp_path: Path) -> None:
    async def story(world: World) -> None:
        socket = tmp_path / "docker.sock"
        away = tmp_path / "away"
        socket.rename(away)
        async with world.running():
            world.state.want(instance())
            await world.until_said(web_1=InstanceState.STAGING)
            away.rename(socket)
            await world.until_said(web_1=InstanceState.RUNNING)

    play(story)


def test_an_app_without_an_image_is_refused_unless_the_host_allows_it(
    play: Callable[[Story], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "installed.json"
    installed.write_text('{"syscalls": []}')
    monkeypatch.setattr(seccomp, "INSTALLED", installed)

    async def story(world: World) -> None:
        bare = instance(engine=Engine.HOST, image=None)
        async with world.running():
            world.state.want(bare)
            await world.until_said(web_1=InstanceState.FAILED)
            assert "host_rootfs: true" in world.runner.statuses()[0].message
            world.settings.host_rootfs, world.settings.state = True, tmp_path
            world.state.want(replace(bare, id=InstanceId("web.2")))
            await world.until_said(web_2=InstanceState.RUNNING)
            [row] = world.podman.containers.values()
            assert row["Body"]["rootfs_overlay"] is True

    play(story)


def test_an_engine_that_the_host_does_not_have_fails_its_instances(play: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        world.settings.engines = ("docker",)
        async with world.running():
            world.state.want(instance(engine=Engine.PODMAN))
            await world.until_said(web_1=InstanceState.FAILED)
            assert world.runner.statuses()[0].message == "n1 has no Podman"

    play(story)


def test_logs_are_the_engines_without_its_framing(play: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        async with world.running() as runner:
            world.state.want(instance())
            await world.until_said(web_1=InstanceState.RUNNING)
            asked = {"instance": "web.1", "follow": True, "tail": 5}
            text = b"".join([piece async for piece in runner.logs(asked)])
            assert json.loads(text) == {"stdout": "true", "stderr": "true", "follow": "true", "tail": "5"}
            with pytest.raises(NotFound):
                await anext(runner.logs(asked | {"instance": "web.9"}))
            with pytest.raises(BadInput):
                await anext(runner.logs({"instance": "web.1"}))

    play(story)


def test_whoever_reports_is_told_of_every_change(play: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        async with world.running():
            world.state.want(instance())
            await world.until_said(web_1=InstanceState.RUNNING)
            world.changes.clear()
            world.docker.end("web.1", 1)
            async with asyncio.timeout(10):
                await world.changes.wait()

    play(story)


def test_a_runner_that_was_ended_by_a_fault_goes_on_when_it_is_started_again(play: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        world.state.want(instance())
        async with world.running() as runner:
            await world.until_said(web_1=InstanceState.RUNNING)
        async with asyncio.TaskGroup() as group:
            again = group.create_task(runner.run())
            world.state.want(instance(2))
            await world.until_said(web_2=InstanceState.RUNNING)
            again.cancel()

    play(story)
