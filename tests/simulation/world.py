"""A cluster in one loop: the controller and the agents as they are, on a store, a network and kernels that are not.

What is real: registration, watch, sessions, reports, wire messages and calls; the agents' session, state on disk,
wanted rows, loop and addresses. What is made up: the store is the memory store behind delays (it survives the
controller), the cables have delays and can be cut, the kernels are dictionaries that now and then refuse a row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from random import Random
from typing import Any

from simulation.loop import Thread

from hedgerow.agent.desired import Wanted
from hedgerow.agent.objects import Kind, Local, Placed
from hedgerow.agent.reports import Reports
from hedgerow.agent.session import Session
from hedgerow.agent.state import State
from hedgerow.config.agent import AgentSettings
from hedgerow.controller.core import Core
from hedgerow.controller.networks import import_spec
from hedgerow.errors import Unreachable
from hedgerow.model.agent import Agent, AgentId
from hedgerow.model.app import Instance, InstanceState, InstanceStatus
from hedgerow.model.endpoint import Address, Endpoint, EndpointKey, mac_of, of_each_family
from hedgerow.model.network import Allow, ClusterSpec, NetworkId, NetworkName, NetworkSpec, Rule, Selector, VtepSpec
from hedgerow.model.snapshot import Snapshot
from hedgerow.reconcile.loop import Loop
from hedgerow.reconcile.plan import Key, Op, Remove, Set
from hedgerow.store.memory import MemoryStore
from hedgerow.wire.codec import from_json
from hedgerow.wire.memory import memory_pair
from hedgerow.wire.messages import Delta, Welcome
from hedgerow.wire.messages import State as Whole
from hedgerow.wire.stream import Stream, attend

OWN_AFFAIRS = (Kind.LINK, Kind.PUBLISHED, Kind.BARRED)
"""Its endpoints, their ports and its host's own links: for these an agent needs nobody's word."""

UNDERLAYS = IPv4Network("192.0.2.0/24")
SUBNETS = [IPv4Network(text) for text in ("10.0.0.0/22", "10.1.0.0/24", "10.2.0.0/16", "10.3.0.0/23", "10.4.0.0/20")]


FRONT_TO_BACK = Rule("front-to-back", Selector(labels=(("tier", "front"),)), Selector(labels=(("tier", "back"),)))
WALLS: tuple[tuple[Rule, ...] | None, ...] = (None, (), (FRONT_TO_BACK,))


def network_spec(
    number: int, allow: Sequence[str] = (), rules: tuple[Rule, ...] | None = WALLS[2], *, isolated: bool = False
) -> NetworkSpec:
    """net-1 has room for two agents only, every second one has IPv6 too. All have walls inside unless it is said."""
    subnet = SUBNETS[number]
    names = tuple(Allow(NetworkName(name)) for name in allow)
    return NetworkSpec(
        name=NetworkName(f"net-{number}"),
        subnet=subnet,
        prefix=max(25, subnet.prefixlen),
        subnet6=IPv6Network(f"fd00:{number}::/64") if number % 2 == 0 else None,
        prefix6=80 if number % 2 == 0 else None,
        allow=names,
        rules=rules,
        isolated=isolated,
    )


async def end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """A process that is killed is not asked whether it wants to end. Raises what a task had ended with before."""
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        done, waiting = await asyncio.wait(waiting, timeout=0.001)
        for task in done:
            if not task.cancelled():
                task.result()


class DelayedStore:
    """A commit takes time before and after it is done: who is killed in between does not know whether it was."""

    def __init__(self, store: MemoryStore, delay: Callable[[], float], check: Callable[[], None]) -> None:
        self._store = store
        self._delay = delay
        self._check = check
        self.epoch = store.epoch
        self.get, self.list, self.watch = store.get, store.list, store.watch
        self.grant, self.keep_alive, self.revoke = store.grant, store.keep_alive, store.revoke

    async def commit(self, compares: Any, operations: Any) -> int:
        await asyncio.sleep(self._delay())
        revision = await self._store.commit(compares, operations)
        self._check()
        await asyncio.sleep(self._delay())
        return revision

    async def close(self) -> None:
        pass


class FakeTarget:
    """All objects of one kind on a host: `rows` outlive the agent."""

    def __init__(self, kind: IntEnum, rows: dict[Key, object], host: Host) -> None:
        self.kind = kind
        self._rows = rows
        self._host = host
        self._random = host.world.random

    async def read(self) -> Mapping[Key, object]:
        await asyncio.sleep(self._random.uniform(0, 0.002))
        return dict(self._rows)

    async def apply(self, ops: Sequence[Op]) -> Mapping[Key, Exception]:
        await asyncio.sleep(self._random.uniform(0, 0.005))
        faults: dict[Key, Exception] = {}
        for op in ops:
            if self._host.world.faulty and self._random.random() < 0.03:
                faults[op.key] = OSError(16, "busy")
            elif isinstance(op, Set):
                self._rows[op.key] = op.new
            elif isinstance(op, Remove):
                if not self._host.heard and self.kind not in OWN_AFFAIRS:
                    self._host.world.broken.append(f"{self._host.name} removed {op.key} before it heard a controller")
                self._rows.pop(op.key, None)
        return faults


class Host:
    """A host with its disk and kernel, and the agent on it while one runs."""

    def __init__(self, world: World, number: int, directory: Path) -> None:
        self.world = world
        self.number = number
        self.name = f"n{number}"
        self.id = AgentId(f"{number:032x}")
        self.kernels: dict[Kind, dict[Key, object]] = {kind: {} for kind in Kind}
        self.acknowledged: dict[EndpointKey, Endpoint] = {}
        self.welcomed: Agent | None = None
        self.heard = False
        self.revision = (0, 0)
        self.cut: Callable[[], None] = lambda: None
        self.clogged = False
        self._path = directory / f"{self.name}.db"
        self._underlay = IPv4Address(f"192.0.2.{number}")
        self._made = 0
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def is_up(self) -> bool:
        return bool(self.tasks)

    def start(self) -> None:
        self.thread = Thread()
        self.heard = False
        self.state = State(self._path, self.thread)
        forgotten = self.acknowledged.keys() - {endpoint.key for endpoint in self._endpoints()}
        if forgotten:
            self.world.broken.append(f"{self.name} has forgotten {sorted(forgotten)}")
        local = Local(underlay=self._underlay, subnet=UNDERLAYS, link="eth0", mtu_bytes=1500, tunnel_port=64000)
        self.wanted = Wanted(self.state, local)
        targets = [FakeTarget(kind, rows, self) for kind, rows in self.kernels.items()]
        reports = Reports(self.state, way=lambda: "wire", instances=self._instances)

        async def before_round() -> None:
            reports.round_begins()

        clock = asyncio.get_running_loop().time
        self.loop = Loop(targets, self.wanted, clock=clock, before_round=before_round, after_round=reports.round_done)
        session = Session(self._settings(), self.id, self.state, reports, dial=self._dial, random=self.world.random)
        self.tasks = [asyncio.ensure_future(each) for each in (session.run(), self.loop.run(), self._wake())]

    async def kill(self) -> None:
        """As kill -9: what waits is not done, what was written stays."""
        self.thread.is_dead = True
        self.cut()
        await end(self.tasks)
        self.tasks = []
        self.state.close()

    async def create_endpoint(self) -> None:
        """One more container, if there is a network with addresses here."""
        own, snapshot = self.state.own, self.state.snapshot
        if own is None or snapshot is None:
            return
        prefixes = [prefix for prefix in own.prefixes if prefix.network in snapshot.networks]
        if not prefixes:
            return
        state, prefix = self.state, self.world.random.choice(prefixes)
        self._made += 1
        key = EndpointKey("cni", f"{self.name}-{self._made}", "eth0")
        network = snapshot.networks[prefix.network]
        taken = [await state.run(lambda: state.addresses.take(network, [prefix.block], str(key), None))]
        for prefix6 in state.prefixes(network.id, 6):
            taken.append(await state.run(lambda: state.addresses.take(network, [prefix6.block], str(key), None)))  # noqa: B023
        placed = await state.place(lambda: self._placed(key, network.id, taken))
        self.acknowledged[key] = placed.endpoint

    async def delete_endpoint(self) -> None:
        if not self.acknowledged:
            return
        state, key = self.state, self.world.random.choice(sorted(self.acknowledged))
        del self.acknowledged[key]
        await state.forget(key, lambda: None)
        await state.run(lambda: state.addresses.give_back(lambda owner, _: owner == str(key)))

    def damage(self) -> None:
        """Somebody deletes a row of a kernel, or puts one there that looks like ours."""
        kind = self.world.random.choice(list(Kind))
        rows = self.kernels[kind]
        if rows and self.world.random.random() < 0.5:
            del rows[self.world.random.choice(sorted(rows))]
        else:
            rows[Key(kind, "stray")] = "stray"

    def _placed(self, key: EndpointKey, network: NetworkId, taken: Sequence[Address]) -> Placed:
        ip, ip6 = of_each_family(taken)
        return Placed(Endpoint(key=key, network=network, address=ip, address6=ip6, mac=mac_of(taken[0])))

    def _endpoints(self) -> list[Endpoint]:
        return [placed.endpoint for placed in self.state.placed()]

    def _settings(self) -> AgentSettings:
        nowhere = Path("/nowhere")
        return AgentSettings(
            name=self.name,
            underlay=self._underlay,
            controllers=("controller:8081",),
            certificates=nowhere,
            state=nowhere,
            engines=(),
            host_rootfs=False,
            http="127.0.0.1:0",
            vxlan_port=64000,
            way="auto",
        )

    async def _wake(self) -> None:
        seen = -1
        while True:
            seen = await self.state.changed(seen)
            self.loop.wake()

    async def _dial(self, address: str) -> Stream:
        await asyncio.sleep(self.world.random.uniform(0, 0.01))
        if self.clogged:
            raise Unreachable(f"{address} does not answer")
        ours, self.cut = self.world.connect(self.id)
        receive = ours.receive

        async def watched() -> Any:
            channel, message = await receive()
            self._hear(message)
            return channel, message

        ours.receive = watched  # type: ignore[method-assign]
        return ours

    def _hear(self, message: object) -> None:
        match message:
            case Welcome(_, own):
                old = self.welcomed or own
                if not set(old.prefixes) <= set(own.prefixes) or own.vtep != old.vtep:
                    self.world.broken.append(f"{self.name} was given {old}, and now {own}")
                self.welcomed = own
            case Whole(snapshot):
                self._advance(snapshot.revision)
            case Delta(revision):
                self._advance(revision)

    def _advance(self, revision: Any) -> None:
        self.heard = True
        now = (revision.epoch, revision.number)
        if now < self.revision:
            self.world.broken.append(f"{self.name} went back from {self.revision} to {now}")
        self.revision = now

    def _addresses(self, instance: Instance, snapshot: Snapshot) -> Iterator[IPv4Address]:
        """One of ten of our part of its network, so that some instances have the same one."""
        for network in snapshot.networks.values():
            for prefix in self.state.prefixes(network.id):
                if network.name == instance.launch.network and isinstance(prefix.block, IPv4Network):
                    yield prefix.block[10 + int(instance.id.removeprefix("i")) % 10]

    def _instances(self) -> Sequence[InstanceStatus]:
        snapshot = self.state.snapshot
        if snapshot is None or not self.state.is_live:
            return ()
        return [
            InstanceStatus(
                id=one.id,
                incarnation=one.incarnation,
                agent=self.id,
                state=InstanceState.RUNNING,
                addresses=tuple(self._addresses(one, snapshot)),
            )
            for one in sorted(snapshot.instances.values(), key=lambda one: one.id)
        ]


class World:
    def __init__(self, random: Random, hosts: int, directory: Path) -> None:
        self.random = random
        self.faulty = True
        self.broken: list[str] = []
        self.store = MemoryStore(keep_revisions=random.choice([5, 50, 10_000]))
        self.delayed = DelayedStore(self.store, lambda: random.uniform(0, 0.01), self.check_allotment)
        self.hosts = [Host(self, number, directory) for number in range(1, hosts + 1)]
        self.core: Core | None = None
        self._group: asyncio.TaskGroup | None = None
        self._running: asyncio.Task[None] | None = None
        self._cables: list[Callable[[], None]] = []

    async def start_controller(self) -> None:
        spec = ClusterSpec(
            enable=True,
            mtu_bytes=1420,
            vtep=VtepSpec(subnet=IPv4Network("44.128.0.0/20"), subnet6=IPv6Network("fd01:a::/64")),
            networks=(network_spec(0), network_spec(1)),
        )
        started = asyncio.Event()

        async def run() -> None:
            if await self.store.get("/cluster") is None:
                await import_spec(self.delayed, spec, self.random.getrandbits)
            async with asyncio.TaskGroup() as group:
                core = Core(self.delayed)
                await core.start(group)
                self.core, self._group = core, group
                started.set()
                await asyncio.get_running_loop().create_future()

        self._running = asyncio.ensure_future(run())
        waiting = asyncio.ensure_future(started.wait())
        await asyncio.wait([self._running, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._running.done():
            self._running.result()

    async def kill_controller(self) -> None:
        self.core = self._group = None
        for cut in self._cables:
            cut()
        self._cables.clear()
        if self._running is not None:
            await end([self._running])
            self._running = None

    def connect(self, agent: AgentId) -> tuple[Stream, Callable[[], None]]:
        """A cable from an agent to the controller."""
        if self.core is None or self._group is None:
            raise Unreachable("connection refused")
        ours, theirs, cut = memory_pair(agent, lambda: self.random.expovariate(200))
        self._group.create_task(attend(theirs, self.core.sessions.accept), name=f"connection of {agent}")
        self._cables.append(cut)
        return ours, cut

    def records(self, prefix: str, kind: Any) -> dict[str, Any]:
        entries = self.store._entries.items()
        return {key: from_json(entry.value, kind) for key, entry in entries if key.startswith(prefix)}

    def check_allotment(self) -> None:
        """After each commit: nothing is given twice."""
        agents: list[Agent] = list(self.records("/agents/", Agent).values())
        owned = [(prefix.network, prefix.block) for agent in agents for prefix in agent.all_prefixes]
        if len(set(owned)) != len(owned):
            self.broken.append(f"a block was given twice: {sorted(map(str, owned))}")
        if {len({agent.vtep.ip for agent in agents}), len({agent.vtep.ip6 for agent in agents})} - {len(agents)}:
            self.broken.append("a tunnel address was given twice")
