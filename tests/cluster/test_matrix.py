"""Who reaches whom in a real lab: 3 nodes x {Docker, Podman} x {dcos-1, dev, prod}, as `make demo` measures it."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import labkit
import pytest
from conftest import Proof
from labkit import RunningLab

from hedgerow.lab import images, matrix, places, ready
from hedgerow.lab.matrix import Matrix
from hedgerow.lab.places import Place

TRIES = 5
"""How often a slow refusal is tried again: the machine may have had other things to do."""


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


def test_inside_a_network_all_are_reached_and_between_networks_none(measured: Matrix, proof: Proof) -> None:
    proof.count("matrix", small=len(measured), full=len(measured))
    wrong = [
        f"{source} -> {target}: {cell}"
        for (source, target), cell in measured.items()
        if not (cell.reached if source.network == target.network else cell.refused)
    ]
    assert wrong == []


def test_every_refusal_comes_at_once(measured: Matrix, proof: Proof) -> None:
    refused = {pair: cell for pair, cell in measured.items() if cell.refused}
    assert proof.count("refused at once", small=len(refused), full=len(refused)) == 18 * 12
    for _ in range(TRIES):
        slow = matrix.slow_refusals(refused)
        refused = {pair: matrix.cell(*pair) for pair in slow}
        assert all(cell.refused for cell in refused.values())
    assert not slow, f"never within {matrix.AT_ONCE_MS} ms: {slow}"


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


def test_plain_ping_and_nc_say_the_same(lab: RunningLab, found: list[Place], measured: Matrix, proof: Proof) -> None:
    proof.count("matrix as ping and nc have it", small=len(measured), full=len(measured))
    with ThreadPoolExecutor(len(found)) as pool:
        rows = list(pool.map(lambda source: plain(lab, source, [each for each in found if each != source]), found))
    said = {(source, target): yes for source, row in zip(found, rows, strict=True) for target, yes in row.items()}
    assert said == {pair: cell.reached for pair, cell in measured.items()}


def by_name(measured: Matrix) -> dict[tuple[str, str], bool]:
    return {(str(source), str(target)): cell.reached for (source, target), cell in measured.items()}


def test_one_allow_added_opens_exactly_those_cells(measured: Matrix, proof: Proof) -> None:
    proof.count("one allow", small=12 * 11, full=12 * 11)
    config = labkit.DEFAULT_CONFIG.read_text().replace("- name: dev\n", "- name: dev\n      allow: [prod]\n")
    with labkit.lab(nodes=2, config=config) as other:
        opened = by_name(matrix.measure(places.occupy(other.record, sorted(ready.networks(other.record)))))
    before = {pair: reached for pair, reached in by_name(measured).items() if pair in opened}
    assert len(before) == len(opened) == 12 * 11
    changed = {pair for pair in opened if opened[pair] != before[pair]}
    named = {pair: {name.split()[-1] for name in pair} for pair in opened}
    assert changed == {pair for pair, networks in named.items() if networks == {"dev", "prod"}}


def test_the_demo_of_a_healthy_lab_reuses_it_and_what_it_says_to_try_works_as_pasted(
    lab: RunningLab, found: list[Place], proof: Proof
) -> None:
    for _ in range(proof.count("demo again", small=1, full=3)):
        try:
            said = lab.command("lab", "demo", "--name", lab.record.name, timeout_s=180)
        finally:
            lab.command("app", "rm", "my-networking", check=False)
        assert "lab was up already" in said
        assert re.search(r"^eth0\b|eth0\s+inet 9\.0\.", said, re.MULTILINE)
        [line] = re.findall(r"^try: +(.*)$", said, re.MULTILINE)
        done = subprocess.run(line, shell=True, cwd=images.checkout(), capture_output=True, text=True, check=False)
        assert " 0% packet loss" in done.stdout, (line, done.stderr)
        assert f"lab down --name {lab.record.name}" in said


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
