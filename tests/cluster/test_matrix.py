"""Who reaches whom in a real lab: 3 nodes x {Docker, Podman} x {dcos-1, dev, prod}, as `make demo` measures it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import labkit
import pytest
from labkit import RunningLab

from hedgerow.lab import matrix, places, ready
from hedgerow.lab.matrix import Matrix
from hedgerow.lab.places import Place

TOO_LONG_MS = 500.0
"""Refusals are meant to take less than matrix.AT_ONCE_MS; on a busy machine they fail the test only here."""


def remove(lab: RunningLab, found: list[Place]) -> None:
    for place in found:
        places.remove(lab.pid(place.node), place.engine, places.name_of(place.network))


@pytest.fixture(scope="module")
def found(lab: RunningLab) -> Iterator[list[Place]]:
    found = places.occupy(lab.record, sorted(ready.networks(lab.record)))
    yield found
    remove(lab, found)


@pytest.fixture(scope="module")
def measured(found: list[Place]) -> Matrix:
    return matrix.measure(found)


def test_every_container_has_an_address_of_its_own(found: list[Place]) -> None:
    assert len(found) == len({place.address for place in found}) == 18


def test_inside_a_network_all_are_reached_and_between_networks_none(measured: Matrix) -> None:
    wrong = [
        f"{source} -> {target}: {cell}"
        for (source, target), cell in measured.items()
        if not (cell.reached if source.network == target.network else cell.refused)
    ]
    assert wrong == []


def test_every_refusal_comes_at_once(measured: Matrix) -> None:
    refused = [cell for cell in measured.values() if cell.refused]
    assert len(refused) == 18 * 12
    assert max(max(cell.ping.ms, cell.tcp.ms) for cell in refused) < TOO_LONG_MS


PLAIN = """
for target in {targets}; do
    ping -q -c 1 -W 1 $target >/dev/null 2>&1 && ping=yes || ping=no
    nc -w 2 $target 80 </dev/null >/dev/null 2>&1 && tcp=yes || tcp=no
    echo $target $ping $tcp
done
"""


def plain(lab: RunningLab, source: Place, targets: list[Place]) -> dict[Place, bool]:
    """Who is reached, by `hedgerow lab exec` and the container's own ping and nc."""
    script = PLAIN.format(targets=" ".join(str(target.address) for target in targets))
    inside = [source.engine, "exec", places.name_of(source.network), "sh", "-c", script]
    said = lab.command("lab", "exec", "--name", lab.record.name, source.node, "--", *inside)
    rows = {row.split()[0]: row.split()[1:] for row in said.splitlines()}
    answers = {target: rows[str(target.address)] for target in targets}
    assert all(ping == tcp for ping, tcp in answers.values()), said
    return {target: ping == "yes" for target, (ping, _) in answers.items()}


def test_plain_ping_and_nc_say_the_same(lab: RunningLab, found: list[Place], measured: Matrix) -> None:
    with ThreadPoolExecutor(len(found)) as pool:
        rows = list(pool.map(lambda source: plain(lab, source, [each for each in found if each != source]), found))
    said = {(source, target): yes for source, row in zip(found, rows, strict=True) for target, yes in row.items()}
    assert said == {pair: cell.reached for pair, cell in measured.items()}


def by_name(measured: Matrix) -> dict[tuple[str, str], bool]:
    return {(str(source), str(target)): cell.reached for (source, target), cell in measured.items()}


def test_one_allow_added_opens_exactly_those_cells(measured: Matrix) -> None:
    config = labkit.DEFAULT_CONFIG.read_text().replace("- name: dev\n", "- name: dev\n      allow: [prod]\n")
    with labkit.lab(nodes=2, config=config) as other:
        opened = by_name(matrix.measure(places.occupy(other.record, sorted(ready.networks(other.record)))))
    before = {pair: reached for pair, reached in by_name(measured).items() if pair in opened}
    assert len(before) == len(opened) == 12 * 11
    changed = {pair for pair in opened if opened[pair] != before[pair]}
    named = {pair: {name.split()[-1] for name in pair} for pair in opened}
    assert changed == {pair for pair, networks in named.items() if networks == {"dev", "prod"}}


def test_the_demo_shows_what_it_measured(lab: RunningLab, measured: Matrix) -> None:
    from hedgerow.lab import show

    console = show.console(record=True)
    console.file = io.StringIO()
    console.print(show.grid(measured))
    text = console.export_text()
    reached = sum(cell.reached for cell in measured.values())
    refused = sum(cell.refused for cell in measured.values())
    assert text.count("■") == reached + 1
    assert text.count("·") == refused + 1
