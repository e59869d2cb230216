"""The lab and the machine under it: nothing changes, whatever happens to `lab up`, and labs do not know each other."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import labkit
import pytest
from conftest import Proof
from labkit import HEDGEROW, RunningLab, machine, mark, wait_for

from hedgerow.errors import BadInput
from hedgerow.lab import processes, ready, state
from hedgerow.lab.topology import STATE


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What is new or gone, by kind; empty when all is as before."""
    found = {}
    for kind, old in before.items():
        new = after[kind]
        if old != new:
            found[kind] = set(old) ^ set(new) if isinstance(old, set | list) else (old, new)
            if isinstance(old, dict):
                found[kind] = {key for key in {*old, *new} if old.get(key) != new.get(key)}
    return found


def assert_as_before(name: str, before: dict[str, Any]) -> None:
    """Waits: the kernel takes namespaces down behind our back, and other tests may run on this machine."""
    seen: dict[str, Any] = {}

    def same() -> bool:
        seen.clear()
        seen.update(differences(before, machine(name)))
        return not seen

    try:
        wait_for("the machine as it was", same, 20)
    except AssertionError:
        assert not seen


@pytest.fixture
def name() -> Iterator[str]:
    name = mark()
    yield name
    subprocess.run([*HEDGEROW, "lab", "down", "--name", name], check=True, capture_output=True)


def lab_up(name: str) -> subprocess.Popen[str]:
    words = [*HEDGEROW, "lab", "up", "--name", name, "--nodes", "1"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def down(name: str) -> None:
    subprocess.run([*HEDGEROW, "lab", "down", "--name", name], check=True, capture_output=True)


def test_up_and_down_leave_the_machine_as_it_was(name: str, proof: Proof) -> None:
    before = machine(name)
    for _ in range(proof.count("nothing left", small=1, full=5)):
        with labkit.lab(nodes=1) as lab, lab.container("n1", "docker", "dev"), lab.container("n1", "podman", "prod"):
            during = machine(name)
            assert not (differences(before, during).keys() & {"links", "routes", "rules", "nft", "sysctls", "mounts"})
        assert_as_before(lab.record.name, before)


def node_log(name: str, child: str) -> Path:
    return STATE / name / "n1" / "logs" / f"{child}.log"


POINTS: dict[str, Callable[[str], Any]] = {
    "its directory is made": lambda name: (STATE / name).exists(),
    "a supervisor starts": lambda name: (STATE / name / "lan").exists(),
    "namespaces stand": lambda name: len(processes.supervisors(STATE / name)) == 3,
    "the first engine starts": lambda name: node_log(name, "dockerd").exists(),
    "the engine has started": lambda name: "API listen" in ready.tail(node_log(name, "dockerd")),
}


@pytest.mark.parametrize("point", POINTS)
def test_up_killed_at_any_point_is_cleaned_by_down(name: str, point: str, proof: Proof) -> None:
    before = machine(name)
    for _ in range(proof.count(f"lab up killed when {point}", small=1, full=5)):
        with lab_up(name) as up:
            wait_for(point, lambda up=up: POINTS[point](name) or up.poll() is not None)
            up.kill()
        down(name)
        assert_as_before(name, before)


def test_up_works_after_a_killed_up_without_a_down_in_between(name: str) -> None:
    with lab_up(name) as up:
        wait_for("an engine", lambda: POINTS["the first engine starts"](name))
        up.kill()
    again = lab_up(name)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert f"lab {name} is up" in out


def test_ctrl_c_ends_all_that_up_had_started(name: str) -> None:
    before = machine(name)
    with lab_up(name) as up:
        wait_for("an engine", lambda: POINTS["the first engine starts"](name))
        up.send_signal(signal.SIGINT)
        assert up.wait(30) != 0
    assert_as_before(name, before)


def test_down_of_a_lab_that_is_not_there_is_fine(name: str) -> None:
    done = subprocess.run([*HEDGEROW, "lab", "down", "--name", name], capture_output=True, text=True, check=True)
    assert "no lab" in done.stdout


def test_two_labs_live_beside_each_other(lab: RunningLab) -> None:
    with labkit.lab(nodes=1) as other:
        assert other.record.api != lab.record.api
        with other.container("n1", "docker", "dev") as mine, lab.container("n1", "docker", "dev") as theirs:
            assert other.address("n1", "docker", mine, "dev") != ""
            assert mine not in lab.run("n1", "docker", "ps", "--format", "{{.Names}}")
            assert theirs in lab.run("n1", "docker", "ps", "--format", "{{.Names}}")
    assert ready.troubles(lab.record) == []


def test_a_second_command_on_the_same_lab_is_refused_while_the_first_works(name: str) -> None:
    with lab_up(name) as first:
        wait_for("its directory", (STATE / name).exists)
        second = subprocess.run([*HEDGEROW, "lab", "down", "--name", name], capture_output=True, text=True, check=False)
        assert second.returncode == 5
        assert "another command" in second.stderr
        first.kill()


def test_status_names_a_dead_node_and_the_next_up_mends_it(name: str) -> None:
    with lab_up(name) as up:
        assert up.wait(120) == 0
    os.kill(processes.supervisor(STATE / name, "n1"), signal.SIGKILL)
    wait_for("its end", lambda: "n1" not in processes.supervisors(STATE / name))
    status = subprocess.run([*HEDGEROW, "lab", "status", "--name", name], capture_output=True, text=True, check=False)
    assert status.returncode == 3
    assert "n1 is not running" in status.stdout
    with lab_up(name) as up:
        assert up.wait(120) == 0
    status = subprocess.run([*HEDGEROW, "lab", "status", "--name", name], capture_output=True, text=True, check=False)
    assert status.returncode == 0, status.stdout


def test_a_healthy_lab_is_taken_as_it_is(lab: RunningLab) -> None:
    pids = processes.supervisors(lab.directory)
    said = lab.command("lab", "up", "--name", lab.record.name)
    assert f"lab {lab.record.name} is up" in said
    assert processes.supervisors(lab.directory) == pids


def test_a_lab_that_is_up_with_other_settings_is_not_replaced(lab: RunningLab) -> None:
    pids = processes.supervisors(lab.directory)
    words = [*HEDGEROW, "lab", "up", "--name", lab.record.name, "--nodes", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert "other settings" in done.stderr
    assert processes.supervisors(lab.directory) == pids


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--nodes", "0"], "0 nodes"),
        (["--engines", "docker,crio"], "crio"),
        (["--name", "a/b"], "a/b"),
        (["--config", "/nowhere/config.yaml"], "/nowhere/config.yaml"),
    ],
)
def test_wrong_settings_are_refused_by_name_before_anything_starts(words: list[str], says: str) -> None:
    done = subprocess.run([*HEDGEROW, "lab", "up", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_lab_whose_record_a_power_cut_emptied_can_still_be_ended() -> None:
    name = mark()
    (STATE / name).mkdir(parents=True, mode=0o700)
    (STATE / name / "lab.json").write_text("")
    with pytest.raises(BadInput, match="no record of this version"):
        state.read(name)
    down(name)
    assert not (STATE / name).exists()
