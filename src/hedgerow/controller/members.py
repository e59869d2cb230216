"""Members: who has which address in a network whose rules tell containers apart, from what the controller itself knows.

An agent says which addresses an instance has; that the instance is that agent's, of which app and with which labels is
the scheduler's word. So what a container may claim of itself picks no verdict, and an agent can give an app's rights to
nobody but addresses of its own blocks, of apps that it runs anyway. Every agent hears of every member, so what no rule
asks for is left out: other networks' members, and labels that no rule names.

Level-triggered: what should be in the store is worked out anew whenever something changes, and the difference is
written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address

from hedgerow.errors import Conflict
from hedgerow.model.agent import Agent, AgentId
from hedgerow.model.app import Instance, InstanceId, InstanceStatus
from hedgerow.model.endpoint import Address
from hedgerow.model.member import Member, MemberKey
from hedgerow.model.network import Network, NetworkId
from hedgerow.policy.groups import selectors
from hedgerow.store.base import MAX_OPERATIONS, Compare, Delete, Operation, Put, Store
from hedgerow.wire.codec import to_json

from .keys import instance_key, member_key, network_key
from .watch import Watch

PAUSE_S = 0.05
"""Between two looks: what changes meanwhile goes into the next commit."""
AT_ONCE = MAX_OPERATIONS // 2
"""A change has two compares."""


def vouched_for(
    networks: Mapping[NetworkId, Network],
    agents: Mapping[AgentId, Agent],
    instances: Mapping[InstanceId, Instance],
    statuses: Iterable[InstanceStatus],
) -> dict[MemberKey, tuple[Member, InstanceId]]:
    """Every member, and whose it is. An address that two instances have at once is nobody's until one of them ends."""
    asked = selectors(networks.values())
    walled = {networks[id].name: networks[id] for id in asked if networks[id].spec.is_closed}
    labels = {id: {key for selector in found for key, _ in selector.labels} for id, found in asked.items()}
    found: dict[MemberKey, tuple[Member, InstanceId]] = {}
    claimed_twice: set[MemberKey] = set()
    for status in statuses if walled else ():
        instance, agent = instances.get(status.id), agents.get(status.agent)
        if instance is None or agent is None or not _is_of(status, instance):
            continue
        network = walled.get(instance.launch.network) if instance.launch.network else None
        if network is None:
            continue
        for address in status.all_addresses:
            if not any(prefix.network == network.id and address in prefix.block for prefix in agent.all_prefixes):
                continue
            member = _member(network, address, instance, labels[network.id])
            if member.key in found:
                claimed_twice.add(member.key)
            found[member.key] = member, instance.id
    return {key: one for key, one in found.items() if key not in claimed_twice}


def _is_of(status: InstanceStatus, instance: Instance) -> bool:
    same = status.incarnation == instance.incarnation and status.agent == instance.agent
    return same and not status.state.is_final


def _member(network: Network, address: Address, instance: Instance, keys: Collection[str]) -> Member:
    return Member(
        network=network.id,
        address=address if isinstance(address, IPv4Address) else None,
        address6=address if isinstance(address, IPv6Address) else None,
        app=instance.app,
        labels=tuple((key, value) for key, value in instance.labels if key in keys),
    )


async def settled(watch: Watch, number: int) -> int:
    """Waits until the members are in the store whom revision `number` asks for; the revision that has them all."""
    await watch.reached(number)
    while any(watch.members.get(key) != member for key, (member, _) in _wanted(watch).items()):
        await watch.touched(watch.number)
    return max([number, *(watch.modified(member_key(key)) for key in watch.members)])


def _wanted(watch: Watch) -> dict[MemberKey, tuple[Member, InstanceId]]:
    return vouched_for(watch.networks, watch.agents, watch.instances, watch.statuses.values())


_Change = tuple[Operation, tuple[Compare, Compare]]
"""What is to be written, and that nothing it rests on has changed meanwhile."""


class Members:
    """Keeps the store's members as they should be."""

    def __init__(self, store: Store, watch: Watch) -> None:
        self._store = store
        self._watch = watch

    async def keep(self) -> None:
        """Until cancelled; raises what the store raises."""
        while True:
            seen = self._watch.number
            due = self._due()
            while due and await self._commit(due[:AT_ONCE]):
                due = due[AT_ONCE:]
            await self._watch.touched(seen)
            await asyncio.sleep(PAUSE_S)

    def _due(self) -> list[_Change]:
        watch, wanted = self._watch, _wanted(self._watch)
        gone = {key: member.network for key, member in watch.members.items() if key not in wanted}
        due: list[_Change] = [
            (Delete(member_key(key)), self._compares(member_key(key), network_key(network)))
            for key, network in gone.items()
        ]
        for key, (member, instance) in wanted.items():
            if watch.members.get(key) != member:
                put = Put(member_key(key), to_json(member))
                due.append((put, self._compares(member_key(key), instance_key(instance))))
        return due

    def _compares(self, one: str, other: str) -> tuple[Compare, Compare]:
        return Compare(one, self._watch.modified(one)), Compare(other, self._watch.modified(other))

    async def _commit(self, changes: list[_Change]) -> bool:
        """False when something has changed since it was looked at; once the watch has seen it, all is done anew."""
        compares = {compare.key: compare for _, each in changes for compare in each}
        try:
            number = await self._store.commit(list(compares.values()), [operation for operation, _ in changes])
        except Conflict:
            return False
        await self._watch.reached(number)
        return True
