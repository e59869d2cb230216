"""`make demo`: the lab up, the example of DC/OS's documentation run, the matrix measured and shown."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from hedgerow.config.load import load
from hedgerow.errors import HedgerowError
from hedgerow.policy.reach import may_reach

from . import images, matrix, places, ready, show
from .state import DEFAULT_NAME, Record, running
from .topology import Lab
from .up import up

EXAMPLE = "my-networking"
WORD_S = 60.0
"""How long the example may take until its log has an address."""
SETTLE_S = 10.0
"""How long the containers' web servers may take until they listen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """`began_s`: when installing began (seconds since the epoch), None when nobody says."""

    lab: Lab
    config: str
    began_s: float | None = None
    svg: Path | None = None


def run(demo: Demo) -> None:
    """Raises HedgerowError when the lab or the example does not come up, when the matrix is not what the configuration
    says, or when a refusal is slow.
    """
    console = show.console(record=demo.svg is not None)
    started_s = time.time()
    known = running(demo.lab.name)
    record = up(demo.lab, demo.config, console.print)
    example(console, record)
    begin = time.monotonic()
    found = places.occupy(record, sorted(ready.networks(record)))
    started = time.monotonic() - begin
    begin = time.monotonic()
    measured = matrix.settled(found, is_open(record), SETTLE_S)
    took = time.monotonic() - begin
    console.print(
        f"\n{len(found)} containers run after {started:.1f} s, {len(measured)} pairs probed in {took:.1f} s:\n"
    )
    console.print(show.grid(measured), "", show.by_networks(measured), sep="\n")
    console.print("\n" + times(record, demo, started_s, reused=record == known))
    console.print(*commands(record, found), sep="\n")
    if demo.svg:
        demo.svg.write_text(show.picture(console, "make demo"))
    if wrong := matrix.unexpected(measured, is_open(record)):
        pairs = ", ".join(f"{source} to {target}" for source, target in wrong[:5])
        raise HedgerowError(f"{len(wrong)} pairs are not as the configuration says: {pairs}", "hedgerow lab status")
    if slow := matrix.slow_refusals(measured):
        raise HedgerowError(f"{len(slow)} refusals took longer than {matrix.AT_ONCE_MS:.0f} ms", "see the table above")


def is_open(record: Record) -> Callable[[str, str], bool]:
    """Whether two networks may talk, by their names, as the lab's config.yaml says."""
    specs = {str(spec.name): spec for spec in load(record.config).networks}
    return lambda source, target: may_reach(specs[source], specs[target])


def command(record: Record, *words: str) -> str:
    """Runs a `hedgerow` command as a user would. Returns what it printed; raises HedgerowError with its complaint."""
    whole = [sys.executable, "-m", "hedgerow.cli.main", *words]
    environment = os.environ | {"HEDGEROW_API": record.api, "HEDGEROW_TOKEN": record.token}
    done = subprocess.run(whole, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise HedgerowError(f"hedgerow {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def example(console: Console, record: Record) -> None:
    """DC/OS's own example: an app that prints its addresses."""
    file = images.checkout() / "examples" / f"{EXAMPLE}.json"
    if f"/{EXAMPLE}" in command(record, "app", "ls", "-o", "name").split():
        console.print("\n$ hedgerow app ls", command(record, "app", "ls").strip(), sep="\n")
    else:
        console.print(f"\n$ hedgerow app run examples/{file.name}")
        console.print(command(record, "app", "run", str(file)).strip())
    deadline = time.monotonic() + WORD_S
    while not (rows := [row for row in _log(record) if "eth0" in row and "inet " in row]):
        if time.monotonic() > deadline:
            raise HedgerowError(f"{EXAMPLE} printed no address in {WORD_S:.0f} s", f"hedgerow app show {EXAMPLE}")
        time.sleep(0.2)
    console.print(f"$ hedgerow app logs {EXAMPLE} | grep eth0", *rows, sep="\n")


def _log(record: Record) -> list[str]:
    try:
        return command(record, "app", "logs", EXAMPLE).splitlines()
    except HedgerowError:
        return []


def times(record: Record, demo: Demo, started_s: float, *, reused: bool) -> str:
    """How long the parts took."""
    before = "" if demo.began_s is None else f"installing and building {started_s - demo.began_s:.0f} s, "
    lab = "lab was up already" if reused else f"lab up {record.took_s['all']:.1f} s"
    return (
        f"{before}{lab}, from there to the matrix {time.time() - started_s - (not reused) * record.took_s['all']:.1f} s"
    )


def commands(record: Record, found: list[places.Place]) -> list[str]:
    """What to try next, as it can be pasted, and how to end it."""
    named = "" if record.name == DEFAULT_NAME else f" --name {record.name}"
    near, far = found[0], next((place for place in found if place.node != found[0].node), found[-1])
    inside = f"lab exec{named} {near.node} -- {near.engine} exec {places.name_of(near.network)}"
    return [f"try:  {images.command()} {inside} ping -c 3 {far.address}", f"end:  {images.command()} lab down{named}"]
