"""Applying a configuration: all that may change in one revision, and nothing of a text that asks for more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from unit.controller_cases import Cluster, controller, network, run, stored, until
from unit.test_members import assign, block, members, running_at

from hedgerow.config.load import load
from hedgerow.config.problem import ConfigProblems
from hedgerow.controller.apply import Changed, Outcome, apply
from hedgerow.controller.keys import Applied, member_key
from hedgerow.controller.networks import draw_networks, import_spec
from hedgerow.errors import Exhausted, Refused
from hedgerow.model.network import Network
from hedgerow.store.base import Put
from hedgerow.store.memory import MemoryStore
from hedgerow.wire.codec import to_json

BEFORE = """\
dcos_overlay_network:
  vtep_subnet: 44.128.0.0/20
  vtep_mac_oui: 70:B3:D5:00:00:00
  overlays:
    - name: dev
      subnet: 10.64.0.0/16
      prefix: 26
    - name: prod
      subnet: 10.80.0.0/16
      prefix: 26
      agents: [n1]
"""
AFTER = BEFORE.replace("prefix: 26\n    - name: prod", "prefix: 26\n      rules: []\n    - name: prod").replace(
    "agents: [n1]", "agents: [n1, n2]\n      allow: [{to: dev, ports: [80/tcp]}]\n      internal: true"
)


async def store_of(text: str) -> MemoryStore:
    store = MemoryStore()
    numbers = iter(range(5000, 10_000))
    await import_spec(store, load(text), lambda width: next(numbers))
    return store


async def applied(running: Cluster, text: str) -> Outcome:
    return await apply(running.store, running.core.watch, text, "new.yaml")


async def refused(running: Cluster, text: str) -> list[str]:
    before = running.store.revision
    with pytest.raises(ConfigProblems) as raised:
        await applied(running, text)
    assert running.store.revision == before
    return [str(problem) for problem in raised.value.problems]


def test_what_changed_is_in_one_revision_in_the_store_and_on_its_way() -> None:
    async def case() -> None:
        store = await store_of(BEFORE)
        async with controller(store) as running:
            agent = await running.join(1)
            before = store.revision
            outcome = await applied(running, AFTER)
            keys = ("dev", "rules"), ("prod", "allow"), ("prod", "internal"), ("prod", "agents")
            assert set(outcome.changed) == {Changed(name, key) for name, key in keys}  # type: ignore[arg-type]
            assert outcome.revision == before + 1
            spec = load(AFTER)
            assert stored(store, "/cluster", Applied)[""].spec == spec
            networks = stored(store, "/networks/", Network)
            assert {one.name: one.spec for one in networks.values()} == {one.name: one for one in spec.networks}
            told = await agent.told()
            assert (told.revision.number, told.cluster, told.networks) == (outcome.revision, spec, networks)

    run(case())


def test_a_second_apply_changes_nothing() -> None:
    async def case() -> None:
        async with controller(await store_of(BEFORE)) as running:
            first = await applied(running, AFTER)
            again = await applied(running, "# a comment\n" + AFTER)
            assert (again.revision, again.changed) == (first.revision, ())
            assert running.store.revision == first.revision

    run(case())


def test_the_revision_that_is_told_has_the_members_whom_the_new_rules_mean() -> None:
    async def case() -> None:
        async with controller(await store_of(BEFORE)) as running:
            agent = await running.join(1)
            await assign(running.store, "a", agent)
            await running.core.watch.reached(running.store.revision)
            await agent.report(instances=(running_at(agent, "a", block(agent, 0, 3)),))
            await until(lambda: "a" in running.core.watch.statuses)
            text = BEFORE.replace("prefix: 26\n    - name: prod", "prefix: 26\n      rules: [RULE]\n    - name: prod")
            outcome = await applied(running, text.replace("RULE", "{from: any, to: {app: /web}}"))
            [member] = members(running.store)
            assert (member.address, member.app) == (block(agent, 0, 3), "/web")
            assert outcome.revision == running.core.watch.modified(member_key(member.key))

    run(case())


def test_agents_of_a_network_that_is_widened_get_their_blocks() -> None:
    async def case() -> None:
        async with controller(await store_of(BEFORE)) as running:
            one, other = await running.join(1), await running.join(2)
            assert [len(agent.own.prefixes) for agent in (one, other)] == [2, 1]
            await applied(running, AFTER)
            await until(lambda: len(running.core.watch.agents[other.id].prefixes) == 2)

    run(case())


FIXED = {
    "subnet": (
        BEFORE.replace("10.64.0.0/16", "10.65.0.0/16"),
        "new.yaml:6: NET.overlays[0].subnet: 10.65.0.0/16: not in a running cluster yet; write 10.64.0.0/16, "
        "as it is now",
    ),
    "prefix": (
        BEFORE.replace("prefix: 26\n    - name: prod", "prefix: 27\n    - name: prod"),
        "new.yaml:7: NET.overlays[0].prefix: 27: not in a running cluster yet; write 26, as it is now",
    ),
    "disabled": (
        BEFORE + "      enabled: false\n",
        "new.yaml:12: NET.overlays[1].enabled: false: not in a running cluster yet; write true, as it is now",
    ),
    "a network gone": (
        BEFORE.partition("    - name: prod")[0],
        "new.yaml:4: NET.overlays: [{name, subnet, prefix}]: prod is missing, and removing it is not in a running "
        "cluster yet; put it back",
    ),
    "a network new": (
        BEFORE + "    - {name: web, subnet: 10.90.0.0/16, prefix: 26}\n",
        "new.yaml:12: NET.overlays[2].name: web: a new network: not in a running cluster yet; take it out",
    ),
    "mtu": (
        "dcos_overlay_mtu: 1400\n" + BEFORE,
        "new.yaml:1: dcos_overlay_mtu: 1400: not in a running cluster yet; write 1420, as it is now",
    ),
    "tunnels": (
        BEFORE.replace("44.128.0.0/20", "44.129.0.0/20"),
        "new.yaml:2: NET.vtep_subnet: 44.129.0.0/20: not in a running cluster yet; write 44.128.0.0/20, as it is now",
    ),
    "switched off": (
        "dcos_overlay_enable: false\n" + BEFORE,
        "new.yaml:1: dcos_overlay_enable: false: not in a running cluster yet; write true, as it is now",
    ),
    "what is wrong by itself": (
        BEFORE + "      rules:\n",
        "new.yaml:12: NET.overlays[1].rules: nothing is written here; write [] to let nothing pass inside, or take the "
        "line out to let everything pass",
    ),
}


@pytest.mark.parametrize("what", FIXED)
def test_what_cannot_change_in_a_running_cluster_is_refused_with_its_line(what: str) -> None:
    text, told = FIXED[what]

    async def case() -> None:
        async with controller(await store_of(BEFORE)) as running:
            assert await refused(running, text) == [told.replace("NET", "dcos_overlay_network")]

    run(case())


def test_one_key_that_cannot_change_holds_back_all_the_others() -> None:
    async def case() -> None:
        async with controller(await store_of(BEFORE)) as running:
            lines = await refused(running, AFTER.replace("10.64.0.0/16", "10.65.0.0/16").replace("/20", "/21"))
            assert len(lines) == 2

    run(case())


def test_an_agent_that_has_a_block_cannot_be_left_out() -> None:
    async def case() -> None:
        async with controller(await store_of(BEFORE)) as running:
            await running.join(1)
            (line,) = await refused(running, BEFORE.replace("[n1]", "['n[2-9]']"))
            assert line == (
                "new.yaml:11: dcos_overlay_network.overlays[1].agents: [n[2-9]]: n1 has addresses of it: "
                "not in a running cluster yet; name it, too"
            )
            assert (await applied(running, BEFORE.replace("[n1]", "['n*']"))).changed
            assert (await applied(running, BEFORE.replace("      agents: [n1]\n", ""))).changed

    run(case())


def test_two_who_apply_at_once_are_done_one_after_the_other() -> None:
    async def case() -> None:
        async with controller(await store_of(BEFORE)) as running:
            texts = [BEFORE + f"      allow: [{{to: dev, ports: [{port}/tcp]}}]\n" for port in range(1, 9)]
            outcomes = await asyncio.gather(*(applied(running, text) for text in texts))
            last = max(outcomes, key=lambda outcome: outcome.revision)
            assert len({outcome.revision for outcome in outcomes}) == len(texts)
            assert stored(running.store, "/cluster", Applied)[""].spec == load(texts[outcomes.index(last)])

    run(case())


def test_more_networks_than_one_commit_holds_are_refused() -> None:
    lines = [f"    - {{name: n{n}, subnet: 10.{n}.0.0/16, prefix: 26, internal: OLD}}\n" for n in range(99)]
    text = BEFORE.partition("    - name: dev")[0] + "".join(lines)

    async def case() -> None:
        async with controller(await store_of(text.replace("OLD", "false"))) as running:
            with pytest.raises(Exhausted, match="99 networks change: change at most 98 at once"):
                await applied(running, text.replace("OLD", "true"))

    run(case())


def test_a_configuration_that_cannot_be_read_is_written_anew() -> None:
    async def case() -> None:
        store = await store_of(BEFORE)
        async with controller(store) as running:
            await store.commit([], [Put("/cluster", b"{}")])
            await until(lambda: running.core.watch.unreadable)
            assert (await applied(running, BEFORE)).changed == ()
            assert stored(store, "/cluster", Applied)[""].spec == load(BEFORE)
            await until(lambda: not running.core.watch.unreadable)

    run(case())


def test_a_network_that_an_interrupted_import_left_behind_is_in_nobodys_way() -> None:
    async def case() -> None:
        store = await store_of(BEFORE)
        (left,) = draw_networks([network("left", "10.99.0.0/16")], [], lambda width: 77)
        await store.commit([], [Put(f"/networks/{left.id}", to_json(left))])
        async with controller(store) as running:
            assert len((await applied(running, AFTER)).changed) == 4
            assert stored(store, f"/networks/{left.id}", Network)[""] == left

    run(case())


def test_nothing_is_applied_while_a_network_cannot_be_read() -> None:
    async def case() -> None:
        store = await store_of(BEFORE)
        async with controller(store) as running:
            key: Any = next(key for key in store._entries if key.startswith("/networks/"))
            await store.commit([], [Put(key, b"{}")])
            await until(lambda: running.core.watch.unreadable)
            with pytest.raises(Refused, match=f"{key} cannot be read"):
                await applied(running, AFTER)

    run(case())
