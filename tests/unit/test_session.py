"""The agent's side of a connection, over memory, against a controller that is a script."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from simulation.loop import SimulatedLoop
from unit.agent_records import DCOS, OWN, SNAPSHOT, placed

from hedgerow.agent.reports import Reports
from hedgerow.agent.session import Session
from hedgerow.agent.state import State
from hedgerow.config.agent import AgentSettings
from hedgerow.errors import Unreachable
from hedgerow.model.snapshot import Revision
from hedgerow.wire import messages
from hedgerow.wire.memory import memory_pair
from hedgerow.wire.messages import Call, Chunk, Delta, End, Hello, Refusal, Report, Welcome
from hedgerow.wire.stream import Closed, Stream

SETTINGS = AgentSettings(
    name="n1",
    underlay=IPv4Address("10.0.0.1"),
    controllers=("10.0.0.250:8081", "10.0.0.251:8081"),
    certificates=Path("/none"),
    state=Path("/none"),
    engines=(),
    host_rootfs=False,
    http="127.0.0.1:9642",
    vxlan_port=64000,
    way="auto",
)

Script = Callable[[Stream], Coroutine[Any, Any, None]]


class World:
    """`scripts` are the controllers' parts, one a connection; after the last nobody answers."""

    def __init__(self, *scripts: Script) -> None:
        self.state = State(None)
        self.reports = Reports(self.state, way=lambda: "wire")
        self.session = Session(SETTINGS, OWN, self.state, self.reports, dial=self.dial, random=Random(1))
        self.dialled: list[tuple[float, str]] = []
        self._scripts = list(scripts)
        self._parts: list[asyncio.Future[None]] = []

    async def dial(self, address: str) -> Stream:
        self.dialled.append((asyncio.get_running_loop().time(), address))
        if not self._scripts:
            raise Unreachable(f"{address} is not there")
        agents, controllers, _ = memory_pair(OWN)
        self._parts.append(asyncio.ensure_future(self._scripts.pop(0)(controllers)))
        return agents

    async def play(self, seconds: float = 60.0) -> None:
        running = asyncio.ensure_future(self.session.run())
        await asyncio.wait([running], timeout=seconds)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await asyncio.gather(*self._parts)


def simulated(test: Coroutine[Any, Any, None]) -> None:
    loop = SimulatedLoop(Random(1))
    try:
        loop.run_until_complete(test)
    finally:
        loop.close()


async def welcome(stream: Stream) -> Hello:
    _, hello = await stream.receive()
    assert isinstance(hello, Hello)
    await stream.send(0, Welcome(1, SNAPSHOT.agents[OWN]))
    return hello


def test_the_first_report_says_all_and_the_next_what_is_new() -> None:
    heard: list[Report] = []

    async def controller(stream: Stream) -> None:
        hello = await welcome(stream)
        assert (hello.name, hello.incarnation, hello.revision) == ("n1", None, None)
        await stream.send(0, messages.State(SNAPSHOT))
        for _ in range(3):
            _, report = await stream.receive()
            assert isinstance(report, Report)
            heard.append(report)
            if len(heard) == 1:
                await world.state.place(lambda: placed("c1", DCOS, "9.0.1.1"))
            if len(heard) == 2:
                await world.state.forget(placed("c1", DCOS, "9.0.1.1").endpoint.key, lambda: None)
        await stream.close()

    world = World(controller)
    simulated(world.play())
    assert [report.whole for report in heard] == [True, False, False]
    assert [[str(each.address) for each in report.endpoints] for report in heard] == [[], ["9.0.1.1"], []]
    assert [key.container for key in heard[2].endpoints_gone] == ["c1"]
    assert world.state.snapshot == SNAPSHOT


def test_a_second_hello_says_what_is_remembered_and_a_delta_suffices() -> None:
    async def first(stream: Stream) -> None:
        await welcome(stream)
        await stream.send(0, messages.State(SNAPSHOT))
        await stream.receive()
        await stream.close()

    async def second(stream: Stream) -> None:
        hello = await welcome(stream)
        assert (hello.incarnation, hello.revision) == (1, Revision(1, 7))
        await stream.send(0, Delta(Revision(1, 8), networks={DCOS.id: None}))
        await stream.receive()

    world = World(first, second)
    simulated(world.play(20.0))
    assert world.state.snapshot is not None
    assert world.state.snapshot.revision == Revision(1, 8)
    assert DCOS.id not in world.state.snapshot.networks


def test_hello_is_said_again_when_the_host_has_other_addresses() -> None:
    heard: list[Hello] = []

    async def controller(stream: Stream) -> None:
        heard.append(await welcome(stream))
        world.session.addresses = lambda: (IPv4Address("10.0.0.1"), IPv6Address("fd99::1"))
        world.state.reportable.change()
        with contextlib.suppress(Closed):
            while True:
                await stream.receive()

    world = World(controller, controller)
    world.session.addresses = lambda: (IPv4Address("10.0.0.1"),)
    simulated(world.play(5.0))
    assert [(each.addresses4, each.addresses6) for each in heard] == [
        ((IPv4Address("10.0.0.1"),), ()),
        ((IPv4Address("10.0.0.1"),), (IPv6Address("fd99::1"),)),
    ]


def test_a_refusal_is_told_and_the_next_controller_asked() -> None:
    async def refuse(stream: Stream) -> None:
        await stream.receive()
        await stream.send(0, Refusal("name", "n1 is another agent's name", "rename one"))
        await stream.close()

    async def next_one(stream: Stream) -> None:
        troubles.append(world.session.trouble)
        await stream.close()

    world = World(refuse, next_one)
    troubles: list[str] = []
    simulated(world.play(5.0))
    assert troubles == ["refused (name): n1 is another agent's name: rename one"]
    assert [address for _, address in world.dialled[:2]] == list(SETTINGS.controllers)


def test_pauses_grow_and_stay_bounded() -> None:
    world = World()
    simulated(world.play(120.0))
    times = [when for when, _ in world.dialled]
    pauses = [later - sooner for sooner, later in pairwise(times)]
    assert pauses[0] < 0.5
    assert 4.0 < pauses[-1] <= 15.0
    assert len(times) < 30


def test_calls_are_answered_beside_the_state() -> None:
    answers: list[object] = []

    async def echo(arguments: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        yield str(arguments["word"]).encode()

    async def controller(stream: Stream) -> None:
        await welcome(stream)
        await stream.send(0, messages.State(SNAPSHOT))
        await stream.send(1, Call("echo", b'{"word": "hedge"}', 5.0))
        while len(answers) < 2:
            channel, message = await stream.receive()
            if channel == 1:
                answers.append(message)
        await stream.close()

    world = World(controller)
    world.session.served = {"echo": echo}
    simulated(world.play(5.0))
    assert answers == [Chunk(b"hedge"), End()]


def test_a_controller_that_goes_silent_is_left() -> None:
    async def silent(stream: Stream) -> None:
        await stream.receive()

    world = World(silent)
    simulated(world.play(40.0))
    assert len(world.dialled) > 1
