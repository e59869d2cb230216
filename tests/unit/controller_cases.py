"""A controller without sockets on a memory store, scripted agents that talk to it, and a client for its API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from random import Random
from typing import Any

from hedgerow.controller.core import Core
from hedgerow.controller.networks import import_spec
from hedgerow.model.agent import Agent, AgentId
from hedgerow.model.app import AppId, Engine, Instance, InstanceId, Launch
from hedgerow.model.endpoint import Endpoint, EndpointKey, mac_of
from hedgerow.model.network import ClusterSpec, NetworkName, NetworkSpec, VtepSpec
from hedgerow.model.snapshot import Revision
from hedgerow.store.base import Put
from hedgerow.store.memory import MemoryStore
from hedgerow.wire.codec import from_json, to_json
from hedgerow.wire.memory import memory_pair
from hedgerow.wire.messages import Delta, Hello, Refusal, Report, State, Welcome
from hedgerow.wire.stream import Stream, attend

LAUNCH = Launch(engine=Engine.DOCKER, network=NetworkName("dev"), image="busybox", command=("true",))
VTEPS = VtepSpec(subnet=IPv4Network("44.128.0.0/20"))
WAIT_S = 20.0


def network(name: str, subnet: str, prefix: int = 26, **rest: Any) -> NetworkSpec:
    return NetworkSpec(name=NetworkName(name), subnet=IPv4Network(subnet), prefix=prefix, **rest)


def cluster(*networks: NetworkSpec, **rest: Any) -> ClusterSpec:
    spec = ClusterSpec(enable=True, mtu_bytes=1420, vtep=VTEPS, networks=networks)
    return replace(spec, **rest)


DEV = network("dev", "10.64.0.0/24")
PROD = network("prod", "10.80.0.0/16")
TWO = cluster(DEV, PROD)


def agent_id(number: int) -> AgentId:
    return AgentId(f"{number:032x}")


def hello(number: int, **changed: Any) -> Hello:
    fields: dict[str, Any] = {
        "protocol_min": 1,
        "protocol_max": 1,
        "agent": agent_id(number),
        "name": f"n{number}",
        "underlay": IPv4Address("192.0.2.0") + number,
        "boot_id": "boot",
        "incarnation": None,
        "revision": None,
        "map_layout": 1,
    }
    return Hello(**(fields | changed))


def run(case: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(WAIT_S):
            await case

    asyncio.run(limited())


async def new_store(spec: ClusterSpec = TWO, **options: Any) -> MemoryStore:
    store = MemoryStore(**options)
    await import_spec(store, spec, Random(1).getrandbits)
    return store


async def put_instance(store: MemoryStore, name: str, agent: AgentId, **rest: Any) -> Instance:
    instance = Instance(
        id=InstanceId(name), app=AppId("/a"), incarnation=1, agent=agent, agent_incarnation=1, launch=LAUNCH, **rest
    )
    await store.commit([], [Put(f"/instances/{name}", to_json(instance))])
    return instance


def stored(store: MemoryStore, prefix: str, kind: Any) -> dict[str, Any]:
    """What the store holds now, by the rest of the key."""
    entries = [entry for key, entry in store._entries.items() if key.startswith(prefix)]
    return {entry.key.removeprefix(prefix): from_json(entry.value, kind) for entry in entries}


@dataclass
class Cluster:
    core: Core
    store: MemoryStore
    group: asyncio.TaskGroup

    async def dial(self, number: int) -> Agent1:
        ours, theirs, cut = memory_pair(agent_id(number))
        self.group.create_task(attend(theirs, self.core.sessions.accept))
        return Agent1(number, ours, cut)

    async def join(self, number: int, **changed: Any) -> Agent1:
        """An agent that was welcomed and has its state."""
        agent = await self.dial(number)
        await agent.greet(**changed)
        return agent


@asynccontextmanager
async def controller(store: MemoryStore) -> AsyncIterator[Cluster]:
    started: asyncio.Future[Cluster] = asyncio.get_running_loop().create_future()

    async def live() -> None:
        async with asyncio.TaskGroup() as group:
            core = Core(store)
            await core.start(group)
            started.set_result(Cluster(core, store, group))

    task = asyncio.ensure_future(live())
    await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield started.result()
    finally:
        task.cancel()
        await asyncio.wait([task])


class Agent1:
    """One scripted agent: `own` as it was welcomed, `revision` as it was told last."""

    def __init__(self, number: int, stream: Stream, cut: Any) -> None:
        self.id = agent_id(number)
        self.stream = stream
        self.cut = cut
        self.own: Agent
        self.revision: Revision
        self._number = number
        self._reported = False

    async def ask(self, **changed: Any) -> Any:
        """The answer to a hello."""
        await self.stream.send(0, hello(self._number, **changed))
        return (await self.stream.receive())[1]

    async def greet(self, **changed: Any) -> State | Delta:
        answer = await self.ask(**changed)
        assert isinstance(answer, Welcome), answer
        self.own = answer.own
        return await self.told()

    async def told(self) -> Any:
        """The next state or delta."""
        _, message = await self.stream.receive()
        if isinstance(message, State):
            self.revision = message.snapshot.revision
        elif isinstance(message, Delta):
            self.revision = message.revision
        return message

    async def report(self, *endpoints: Endpoint, **rest: Any) -> None:
        """The first one is whole."""
        whole = not self._reported
        self._reported = True
        fields: dict[str, Any] = {"whole": whole, "endpoints": endpoints, "applied": self.revision, "way": "wire"}
        await self.stream.send(0, Report(**(fields | rest)))

    def endpoint(self, number: int, address: IPv4Address | None = None) -> Endpoint:
        """On the first network of ours."""
        prefix = self.own.prefixes[0]
        at = address or prefix.block[number]
        key = EndpointKey("cni", f"container-{number}", "eth0")
        return Endpoint(key=key, network=prefix.network, address=at, mac=mac_of(at), name=f"c{number}")


def refused(answer: object) -> Refusal:
    assert isinstance(answer, Refusal), answer
    return answer


async def until(condition: Any) -> None:
    """Waits for what tasks of the same loop will make true."""
    while not condition():  # noqa: ASYNC110  (a state of many records has no event)
        await asyncio.sleep(0.005)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def get(
    app: Any, path: str, headers: Sequence[tuple[str, str]] = (), method: str = "GET", body: bytes = b""
) -> Answer:
    """One request of ASGI 3, as 127.0.0.1 unless a host is given."""
    path, _, query = path.partition("?")
    given = [(name.encode(), value.encode()) for name, value in headers]
    if "host" not in dict(headers):
        given.append((b"host", b"127.0.0.1:8080"))
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": given, "server": ("127.0.0.1", 8080), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    requests = iter([{"type": "http.request", "body": body, "more_body": False}])
    sent: list[Any] = []

    async def receive() -> Any:
        if request := next(requests, None):
            return request
        await asyncio.Event().wait()
        return None

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    names = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], names, b"".join(each.get("body", b"") for each in sent))
