"""An engine's own command on one node of the lab, as its users type it. Whatever a test starts is gone after it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from engines import traces
from labkit import RunningLab, mark

from hedgerow.lab import probe
from hedgerow.lab.probe import Answer

IMAGE = "busybox"
IDLE = "sleep 1000"


@dataclass
class Engine:
    """`word` is the command; `options` come with each `run`, `remove` asks for no grace. Names of containers have a
    mark; `end` removes them.
    """

    lab: RunningLab
    node: str
    word: str
    options: str = ""
    remove: str = "rm -f"
    started: list[str] = field(default_factory=list)

    def __call__(self, words: str, *, check: bool = True, timeout_s: float = 60) -> str:
        return self.lab.run(self.node, self.word, *shlex.split(words), check=check, timeout_s=timeout_s).strip()

    def start(self, options: str, command: str = IDLE) -> str:
        name = mark()
        self.started.append(name)
        self(f"run -d {self.options} --name {name} {options} {IMAGE} {command}")
        return name

    def network(self, name: str, network: str = "dcos-1") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self(f"inspect {name}"))[0]["NetworkSettings"]["Networks"][network]
        return found

    def address(self, name: str, network: str = "dcos-1") -> IPv4Address:
        return IPv4Address(self.network(name, network)["IPAddress"])

    def inside(self, name: str, words: str) -> str:
        return self(f"exec {name} {words}")

    def ping(self, name: str, target: IPv4Address) -> Answer:
        return probe.ping(self.lab.namespace(self.node, self.word, name), target).answer

    def end(self) -> None:
        if self.started:
            self(f"{self.remove} {' '.join(self.started)}", check=False, timeout_s=120)
            self.started.clear()


@contextmanager
def tidy(engine: Engine) -> Iterator[Engine]:
    """Afterwards nothing is left of its containers."""
    before = traces.of(engine.lab, engine.node)
    yield engine
    engine.end()
    traces.gone(engine.lab, engine.node, before)
