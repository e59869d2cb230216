"""What `/v1/drops/samples` and `/v1/why` make of what agents say, and of agents that say nothing or nonsense."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from unit.controller_cases import Agent1, Answer, Cluster, controller, get, new_store, run, until

from hedgerow.controller.api import app as api
from hedgerow.controller.api import names
from hedgerow.controller.api.asked import Asked, make_case
from hedgerow.controller.api.samples import Samples, Wanted
from hedgerow.controller.api.view import View
from hedgerow.wire.messages import Call, Chunk, End

TOKEN = "a-token-of-32-characters-or-more"
CONFIG = """
dcos_overlay_network:
  overlays:
    - {name: dev, subnet: 10.64.0.0/24, prefix: 26}
    - name: prod
      subnet: 10.80.0.0/16
      prefix: 26
"""

Say = Callable[[Call], list[bytes]]


@dataclass
class Cased:
    running: Cluster
    view: View
    app: Any

    async def ask(self, path: str) -> Answer:
        return await get(self.app, path, [("authorization", f"Bearer {TOKEN}")])


@asynccontextmanager
async def cased(tmp_path: Path) -> AsyncIterator[Cased]:
    """Two agents, each with an endpoint in dev."""
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    store = await new_store()
    async with controller(store) as running:
        view = View(store, running.core.watch, running.core.sessions, config)
        yield Cased(running, view, api.build(view, "0.0", [], TOKEN))


async def two(running: Cluster) -> tuple[Agent1, Agent1]:
    one, other = await running.join(1), await running.join(2)
    await one.told()
    for agent in (one, other):
        await agent.report(agent.endpoint(1))
    await until(lambda: sum(key.startswith("/endpoints/") for key in running.store._entries) == 2)
    return one, other


async def answering(agent: Agent1, say: Say, *, ends: bool = True) -> None:
    """Plays the agent: answers each call with some pieces. A call that is given up is of no interest."""
    while True:
        channel, message = await agent.stream.receive()
        if isinstance(message, Call):
            for piece in say(message):
                await agent.stream.send(channel, Chunk(piece))
            if ends and message.method != "why.watch":
                await agent.stream.send(channel, End())


async def asked(case: Cased, path: str, *players: Awaitable[None]) -> Answer:
    playing = [asyncio.ensure_future(player) for player in players]
    try:
        return await case.ask(path)
    finally:
        for player in playing:
            player.cancel()


def sample(source: str, destination: str, time_s: float = 5.0, **changed: Any) -> bytes:
    row = {
        "time_s": time_s,
        "reason": "isolated",
        "network": "dev",
        "source": source,
        "destination": destination,
        "source_port": 40000,
        "destination_port": 80,
        "protocol": 6,
        "packets": 1,
    }
    return json.dumps(row | changed).encode() + b"\n"


def lines(answer: Answer) -> list[Any]:
    assert answer.status == 200, answer.body
    return [json.loads(line) for line in answer.body.splitlines()]


def test_samples_of_all_agents_come_in_order_and_with_names(tmp_path: Path) -> None:
    async def case() -> None:
        async with cased(tmp_path) as world:
            one, other = await two(world.running)
            web, outside = str(one.own.prefixes[0].block[1]), "192.0.2.9"
            late, early = sample(web, outside, 9.5), sample(outside, web, 2.5)
            answer = await asked(
                world,
                "/v1/drops/samples",
                answering(one, lambda call: [late[:20], late[20:]]),
                answering(other, lambda call: [early]),
            )
            found = lines(answer)
            assert [(each["agent"], each["time_s"], each["protocol"]) for each in found] == [
                ("n2", 2.5, "tcp"),
                ("n1", 9.5, "tcp"),
            ]
            assert found[1]["source"] == {"address": web, "port": 40000, "name": "c1", "network": "dev", "agent": "n1"}
            assert found[1]["destination"]["network"] == ""

    run(case())


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 2),
        ("from=c1", 1),
        ("from=192.0.2.0/24", 1),
        ("from=dev", 1),
        ("to=n1", 1),
        ("reason=isolated", 1),
        ("network=prod", 0),
        ("agent=n1", 2),
        ("agent=n2", 0),
    ],
)
def test_samples_are_filtered(tmp_path: Path, query: str, count: int) -> None:
    async def case() -> None:
        async with cased(tmp_path) as world:
            one, other = await two(world.running)
            web = str(one.own.prefixes[0].block[1])
            both = [sample(web, "192.0.2.9"), sample("192.0.2.9", web, reason="closed")]
            players = answering(one, lambda call: both), answering(other, lambda call: [])
            assert len(lines(await asked(world, f"/v1/drops/samples?{query}", *players))) == count

    run(case())


@pytest.mark.parametrize("said", [b"x\n", b"[]\n", b'{"source": 7}\n', b"{}\n", b"[" * 100_000 + b"\n", bytes(1 << 17)])
def test_an_agent_that_says_nonsense_spoils_nothing(tmp_path: Path, said: bytes) -> None:
    async def case() -> None:
        async with cased(tmp_path) as world:
            one, other = await two(world.running)
            good = sample("192.0.2.1", "192.0.2.2")
            players = answering(one, lambda call: [said]), answering(other, lambda call: [good])
            assert [each["agent"] for each in lines(await asked(world, "/v1/drops/samples", *players))] == ["n2"]

    run(case())


def test_who_follows_hears_of_agents_that_come_later_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def case() -> None:
        async with cased(tmp_path) as world:
            one, other = await two(world.running)
            other.cut()
            await until(lambda: len(world.running.core.sessions.connected) == 1)
            heard = Samples(world.view).lines(Wanted(since_s=60, follow=True))
            first = asyncio.ensure_future(answering(one, lambda call: [sample("192.0.2.1", "192.0.2.2")], ends=False))
            assert json.loads(await anext(heard))["agent"] == "n1"
            later = await world.running.join(2)
            second = asyncio.ensure_future(
                answering(later, lambda call: [sample("192.0.2.3", "192.0.2.4")], ends=False)
            )
            assert json.loads(await anext(heard))["agent"] == "n2"
            await heard.aclose()
            for task in (first, second):
                task.cancel()
            await until(lambda: not [task for task in asyncio.all_tasks() if task.get_name().startswith("samples of")])

    run(case())


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    async def case() -> None:
        async with cased(tmp_path) as world:
            assert (await world.ask("/v1/drops/samples?since=soon")).status == 400

    run(case())


PROBE = {"outcome": "silent", "steps": [{"program": "from_container", "stage": "answered", "reason": "isolated"}]}


def facts(agent: str) -> dict[str, Any]:
    return {"agent": agent, "underlay": {"link": None}, "settings": None}


def test_why_asks_both_hosts_and_judges_what_they_say(tmp_path: Path) -> None:
    async def case() -> None:
        async with cased(tmp_path) as world:
            one, other = await two(world.running)
            calls: list[tuple[str, str, dict[str, Any]]] = []

            def say(name: str) -> Say:
                def answer(call: Call) -> list[bytes]:
                    calls.append((name, call.method, json.loads(call.arguments)))
                    said = {"why.look": facts(name), "why.probe": PROBE}.get(call.method)
                    return [json.dumps(said).encode() if said else b"\n"]

                return answer

            addresses = [str(agent.own.prefixes[0].block[1]) for agent in (one, other)]
            path = f"/v1/why?from={addresses[0]}&to={addresses[1]}&protocol=tcp&port=80"
            answer = await asked(world, path, answering(one, say("n1")), answering(other, say("n2")))
            assert answer.status == 200, answer.body
            told = answer.json
            assert sorted({(name, method) for name, method, _ in calls}) == [
                ("n1", "why.look"),
                ("n1", "why.probe"),
                ("n2", "why.look"),
                ("n2", "why.watch"),
            ]
            questions = {(each["source"], each["destination"], each["port"]) for _, _, each in calls}
            assert questions == {(*addresses, 80)}
            peers = {name: each["peer"] for name, method, each in calls if method == "why.look"}
            assert peers == {"n1": "192.0.2.2", "n2": "192.0.2.1"}
            assert (told["works"], told["port"], told["trace"][0]["reason"]) == (False, "80/tcp", "isolated")

    run(case())


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("198.51.100.1", "containers of dev reach nothing of its own host but ping and DNS"),
        ("198.51.100.2", "containers of dev reach nothing of another host of the cluster but ping"),
        ("198.51.100.3", "dev may reach the outside"),
    ],
)
def test_every_address_that_an_agent_names_is_its_hosts(tmp_path: Path, address: str, told: str) -> None:
    async def case() -> None:
        async with cased(tmp_path) as world:
            for number in (1, 2):
                agent = await world.running.join(number, addresses4=(IPv4Address(f"198.51.100.{number}"),))
                await agent.report(agent.endpoint(1))
            await until(lambda: sum(key.startswith("/endpoints/") for key in world.running.store._entries) == 2)
            known = await names.read(world.view.store, world.view.watch)
            source = str(known.find("c1")[0].endpoint.first_address)
            policy = make_case(world.view, known, Asked(source, address, "tcp", 80)).policy
            assert policy.reason == told

    run(case())


def test_why_names_an_agent_that_is_away(tmp_path: Path) -> None:
    async def case() -> None:
        async with cased(tmp_path) as world:
            one, other = await two(world.running)
            addresses = [str(agent.own.prefixes[0].block[1]) for agent in (one, other)]
            other.cut()
            one.cut()
            await until(lambda: not world.running.core.sessions.connected)
            told = (await world.ask(f"/v1/why?from={addresses[0]}&to={addresses[1]}")).json
            assert told["cause"]["cause"] == "the agent of n1 does not answer: agent n1 is not connected"

    run(case())


@pytest.mark.parametrize(
    ("query", "status", "told"),
    [
        ("from=nobody&to=c1", 404, "no endpoint is nobody"),
        ("from=c1&to=10.64.0.60", 404, "no endpoint of dev has 10.64.0.60"),
        ("from=c1", 400, "to"),
        ("from=c1&to=c1&protocol=sctp", 400, "protocol"),
        ("from=c1&to=c1&port=70000", 400, "port"),
    ],
)
def test_what_nobody_can_be_asked_is_refused(tmp_path: Path, query: str, status: int, told: str) -> None:
    async def case() -> None:
        async with cased(tmp_path) as world:
            await two(world.running)
            answer = await world.ask(f"/v1/why?{query}")
            assert (answer.status, told in answer.json["message"]) == (status, True), answer.body

    run(case())
