"""Eyes: `hedgerow why` names the one thing that is wrong, and nothing where nothing is; `hedgerow drops` shows packets.

W1  of single faults, injected one at a time, the right cause of each, in less than three seconds
W2  no cause for pairs that are well
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator

import labkit
import pytest
from cluster.faults import FAULTS, OUTSIDE, Fault, Scene
from cluster.pairs import PORT, pairs
from conftest import Proof

SLOWEST_S = 3.0 * float(os.environ.get("HEDGEROW_SLOWNESS", "1"))


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with pairs() as world:
        a, b = world.container("n1", "blue"), world.container("n2", "blue")
        c, d = world.container("n1", "green"), world.container("n2", "red")
        yield Scene(world, {node: world.maps(node) for node in ("n1", "n2")}, a, b, c, d)


def told(scene: Scene, fault: Fault) -> str:
    """What is not as it should be, in words; empty when the answer is right."""
    source, target = (getattr(scene, one) for one in fault.who)
    with contextlib.ExitStack() as stack:
        if fault.serves:
            stack.enter_context(scene.b.serving())
        made = stack.enter_context(fault.make(scene))
        began_s = time.monotonic()
        code, answer = scene.pairs.ask(source.address, (made if isinstance(made, str) else target.address) + fault.port)
        took_s = time.monotonic() - began_s
    cause = answer["cause"] or {"place": "", "cause": ""}
    if (code, cause["place"]) != (fault.code, fault.place) or not re.search(fault.says, cause["cause"]):
        return f"{fault.name}: {code}, {cause['place']}: {cause['cause']}"
    return f"{fault.name}: {took_s:.1f} s" if took_s > SLOWEST_S else ""


def test_the_cause_of_every_fault_is_named(scene: Scene, proof: Proof) -> None:
    count = proof.count("W1", small=9, full=len(FAULTS))
    some = FAULTS[:: -(-len(FAULTS) // count)]
    wrong = [words for fault in some if (words := told(scene, fault))]
    assert not wrong, "\n".join(wrong)


def test_pairs_that_are_well_have_no_cause(scene: Scene, proof: Proof) -> None:
    count = proof.count("W2", small=9, full=100)
    a, b, c = scene.a, scene.b, scene.c
    every = list(itertools.permutations((a, b, c), 2))
    ways = [(one.address, f"{other.address}:{PORT}") for one, other in every]
    ways += [(scene.d.address, f"{c.address}:9000"), (a.address6, f"[{b.address6}]:9006"), (b.address6, a.address6)]
    ways += [(one.address, other.address) for one, other in every] + [
        (a.address, OUTSIDE),
        (b.address, f"{OUTSIDE}:80"),
    ]
    with a.serving(), b.serving(), c.serving(), c.serving(9000), b.serving(9006, "::"):
        asked = [(way, *scene.pairs.ask(*way)) for way in itertools.islice(itertools.cycle(ways), count)]
    wrong = [f"{' to '.join(way)}: {code}, {answer['cause']}" for way, code, answer in asked if code]
    assert not wrong, "\n".join(wrong)


def test_a_line_of_config_yaml_is_named_where_it_refuses(scene: Scene) -> None:
    code, answer = scene.pairs.ask(scene.d.address, f"{scene.c.address}:{PORT}")
    lines = scene.pairs.lab.record.config.splitlines()
    assert code == 5
    assert lines[answer["cause"]["line"] - 1].strip() == "allow: [{to: green, ports: [9000/tcp]}]"


@contextlib.contextmanager
def following(scene: Scene, *options: str) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {
        "HEDGEROW_API": scene.pairs.lab.record.api,
        "HEDGEROW_TOKEN": scene.pairs.lab.record.token,
    }
    words = [*labkit.HEDGEROW, "drops", "-f", *options, "-o", "json"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as command:
        try:
            yield command
        finally:
            command.kill()


def test_dropped_packets_can_be_followed(scene: Scene) -> None:
    """They come with names, only those that were asked for, and Ctrl-C ends it without a word."""
    with following(scene, "--from", scene.a.address, "--reason", "isolated", "--since", "30s") as command:
        assert command.stdout is not None
        scene.c.run("ping", "-c", "1", "-W", "1", scene.d.address, check=False)
        scene.a.run("ping", "-c", "1", "-W", "1", scene.d.address, check=False)
        sample = next(one for one in map(json.loads, command.stdout) if one["protocol"] == "icmp")
        command.send_signal(signal.SIGINT)
        assert (command.wait(), command.stdout.read()) == (130, "")
    ends = [(sample[end]["address"], sample[end]["network"], sample[end]["agent"]) for end in ("source", "destination")]
    assert ends == [(scene.a.address, "blue", "n1"), (scene.d.address, "red", "n2")]
    assert (sample["reason"], sample["protocol"], sample["network"], sample["agent"]) == (
        "isolated",
        "icmp",
        "blue",
        "n1",
    )


def test_dropped_packets_can_be_looked_up_for_a_while(scene: Scene) -> None:
    scene.a.run("ping", "-c", "1", "-W", "1", scene.d.address, check=False)

    def found(*options: str) -> list[str]:
        lines = scene.pairs.lab.command("drops", "--since", "1m", *options, "-o", "json").splitlines()
        return [json.loads(line)["destination"]["address"] for line in lines]

    labkit.wait_for("the sample is there", lambda: scene.d.address in found("--to", "red"))
    assert found("--to", "10.99.0.0/16") == []
