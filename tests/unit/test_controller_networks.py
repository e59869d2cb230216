"""config.yaml and the store: imported once, drawn once, compared ever after."""

from __future__ import annotations

import itertools
from pathlib import Path
from random import Random

import pytest
from unit.controller_cases import DEV, PROD, TWO, cluster, network, new_store, run, stored

from hedgerow.config.problem import ConfigProblems
from hedgerow.controller.keys import Applied
from hedgerow.controller.networks import draw_networks, drift, import_spec, open_cluster
from hedgerow.errors import BadInput
from hedgerow.model.network import Network
from hedgerow.store.base import Put
from hedgerow.store.memory import MemoryStore

TEXT = """
dcos_overlay_network:
  vtep_subnet: 44.128.0.0/20
  vtep_mac_oui: 70:B3:D5:00:00:00
  overlays:
    - {name: dev, subnet: 10.64.0.0/24, prefix: 26}
"""


def bits(seed: int = 1) -> object:
    return Random(seed).getrandbits


class Dies(MemoryStore):
    """Fails after so many commits: a controller that is killed in the middle of an import."""

    commits_left = 0

    async def commit(self, compares, operations):  # type: ignore[no-untyped-def]
        if self.commits_left == 0:
            raise InterruptedError
        self.commits_left -= 1
        return await super().commit(compares, operations)


def test_each_network_has_an_id_a_vni_and_a_gateway_of_its_own() -> None:
    async def case() -> None:
        networks = stored(await new_store(), "/networks/", Network)
        assert {one.name for one in networks.values()} == {"dev", "prod"}
        assert [one.gateway_index for one in sorted(networks.values(), key=lambda one: one.name)] == [1, 2]
        assert len({one.vni for one in networks.values()}) == 2
        assert all(key == one.id and len(key) == 32 for key, one in networks.items())

    run(case())


def test_an_import_that_was_interrupted_is_taken_up_where_it_stopped() -> None:
    spec = cluster(*(network(f"net-{n}", f"10.{n}.0.0/16") for n in range(230)))

    async def case() -> None:
        store, drawn, random_bits = Dies(), {}, bits()
        for left in (0, 1, 1, 1, 0, 5):
            store.commits_left = left
            try:
                await import_spec(store, spec, random_bits)
            except InterruptedError:
                assert await store.get("/cluster") is None
            now = stored(store, "/networks/", Network)
            assert drawn.items() <= now.items()
            drawn = now
        assert len(drawn) == 230
        assert stored(store, "/cluster", Applied)[""].spec == spec

    run(case())


def test_networks_that_are_switched_off_are_not_made() -> None:
    async def case() -> None:
        store = await new_store(cluster(DEV, enable=False))
        assert stored(store, "/networks/", Network) == {}

    run(case())


def test_a_running_cluster_is_compared_and_never_changed(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"

    async def case() -> None:
        store = MemoryStore(epoch=5)
        config.write_text(TEXT)
        spec = await open_cluster(store, config, bits())
        before = store.revision
        config.write_text("# a comment\n" + TEXT)
        assert await drift(store, config) is None
        config.write_text(TEXT.replace("10.64", "10.65"))
        assert await open_cluster(store, config, bits()) == spec
        assert "differs from what the cluster runs since revision 5.2" in (await drift(store, config)).message
        config.write_text("overlays: [")
        assert await open_cluster(store, config, bits()) == spec
        assert "cannot be used" in (await drift(store, config)).message
        config.unlink()
        assert await open_cluster(store, config, bits()) == spec
        assert (await drift(store, config)).cure == f"hedgerow config check {config}"
        assert store.revision == before

    run(case())


def test_an_empty_store_needs_a_file_without_faults(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(TEXT.replace("26", "20"))

    async def case() -> None:
        store = MemoryStore()
        with pytest.raises(ConfigProblems):
            await open_cluster(store, config, bits())
        assert store.revision == 0

    run(case())


def test_the_shortest_configuration_has_the_two_networks_of_dcos(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"

    async def case() -> None:
        config.write_text("dcos_overlay_enable: true\n")
        spec = await open_cluster(MemoryStore(), config, bits())
        assert [(str(one.subnet), str(one.subnet6)) for one in spec.networks] == [
            ("9.0.0.0/8", "None"),
            ("None", "fd01:b::/64"),
        ]

    run(case())


def test_vnis_and_gateways_are_never_drawn_twice() -> None:
    known: list[Network] = []
    for n in range(300):
        known += draw_networks([network(f"net-{n}", "10.0.0.0/16")], known, lambda width: 3)
    assert len({one.vni for one in known}) == 300
    assert [one.gateway_index for one in known] == list(range(1, 301))
    assert all(one.gateway != other.gateway for one, other in itertools.pairwise(known))
    assert {one.name for one in (*TWO.networks,)} == {DEV.name, PROD.name}


def test_a_store_whose_configuration_cannot_be_read_is_named_at_start(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(TEXT)

    async def case() -> None:
        store = MemoryStore()
        await open_cluster(store, config, bits())
        await store.commit([], [Put("/cluster", b"[]")])
        with pytest.raises(BadInput, match="/cluster in the store cannot be read"):
            await open_cluster(store, config, bits())
        assert (await drift(store, config)).cure == f"hedgerow apply {config}"

    run(case())
