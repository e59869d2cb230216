"""A running lab as tests use it, and the machine's state as they compare it before and after."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hedgerow.lab import engines, enter, images, places, processes, ready
from hedgerow.lab.down import down
from hedgerow.lab.state import Record
from hedgerow.lab.topology import LAB_RUN, STATE, Lab
from hedgerow.lab.up import up

HEDGEROW = [sys.executable, "-m", "hedgerow.cli.main"]
DEFAULT_CONFIG = images.checkout() / "examples" / "lab.yaml"


def mark() -> str:
    """A name that no other run has."""
    return f"t{secrets.token_hex(4)}"


def wait_for(what: str, is_so: Callable[[], Any], seconds: float = 30) -> Any:
    """The first true answer. Fails with `what` when there is none in time."""
    end = time.monotonic() + seconds
    while not (answer := is_so()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)
    return answer


@dataclass(frozen=True, slots=True)
class RunningLab:
    record: Record

    @property
    def directory(self) -> Path:
        return STATE / self.record.name

    @property
    def nodes(self) -> list[str]:
        return [name for name in self.record.members if name not in ("lan", "controller")]

    def pid(self, node: str) -> int:
        """Of the node's supervisor, as the machine sees it."""
        return processes.supervisor(self.directory, node)

    def run(self, node: str, *words: str, check: bool = True, timeout_s: float = 60, text: str | None = None) -> str:
        """Both outputs of a command in a node; asserts that it succeeds unless `check` is false."""
        done = enter.run(self.pid(node), *words, timeout_s=timeout_s, text=text)
        assert not check or done.returncode == 0, f"{node}: {' '.join(words)}: {done.returncode}: {done.stderr}"
        return done.stdout + done.stderr

    def command(self, *words: str, check: bool = True, timeout_s: float = 60) -> str:
        """A `hedgerow` command on the machine, directed to this lab."""
        environment = os.environ | {"HEDGEROW_API": self.record.api, "HEDGEROW_TOKEN": self.record.token}
        done = subprocess.run(
            [*HEDGEROW, *words], capture_output=True, text=True, timeout=timeout_s, env=environment, check=False
        )
        assert not check or done.returncode == 0, f"hedgerow {' '.join(words)}: {done.returncode}: {done.stderr}"
        return done.stdout

    def engine(self, node: str, engine: str, method: str, path: str, body: Any = None) -> Any:
        """A call of an engine's API; of Podman's below /libpod."""
        return engines.ask(self.pid(node), engine, method, path, body=body)

    def api(self, path: str) -> Any:
        return ready.api(self.record, path)

    def file(self, node: str, path: str) -> Path:
        """A file of the node, as the machine reaches it."""
        return Path(f"/proc/{self.pid(node)}/root{path}")

    def log(self, node: str, child: str) -> str:
        return (self.directory / node / "logs" / f"{child}.log").read_text(errors="replace")

    def child(self, node: str, child: str) -> int:
        """The pid of a supervised process, as the node sees it."""
        return processes.children(self.pid(node))[child]

    def kill(self, node: str, child: str) -> None:
        """SIGKILL. The supervisor starts it again, after its pause."""
        self.run(node, "kill", "-KILL", str(self.child(node, child)), check=False)

    @contextlib.contextmanager
    def without(self, node: str, child: str) -> Iterator[None]:
        """Within the block the process is dead and stays so."""
        hold = self.file(node, str(LAB_RUN / "hold" / child))
        hold.touch()
        pid = self.child(node, child)
        self.kill(node, child)
        wait_for(f"the end of {child}", lambda: not processes.alive(self.pid(node), pid))
        try:
            yield
        finally:
            hold.unlink()
            wait_for(f"{child} again", lambda: self.child(node, child) != pid)

    def namespace(self, node: str, engine: str, name: str) -> Path:
        """The network namespace of a container, as the machine reaches it."""
        seen = places.inspect(self.pid(node), engine, name)
        return Path(f"/proc/{self.pid(node)}/root/proc/{seen['State']['Pid']}/ns/net")

    @contextlib.contextmanager
    def container(self, node: str, engine: str, network: str) -> Iterator[str]:
        """A web server's name; removed afterwards."""
        name = mark()
        try:
            places.start(self.pid(node), engine, name, network)
            yield name
        finally:
            places.remove(self.pid(node), engine, name)

    def address(self, node: str, engine: str, name: str, network: str) -> str:
        seen = places.inspect(self.pid(node), engine, name)
        return str(seen["NetworkSettings"]["Networks"][network]["IPAddress"])


@contextlib.contextmanager
def lab(
    nodes: int = 3, config: str | None = None, engines: tuple[str, ...] = ("docker", "podman")
) -> Iterator[RunningLab]:
    """A lab with a name of its own; ended whatever happens."""
    name = mark()
    try:
        yield RunningLab(up(Lab(name=name, nodes=nodes, engines=engines), config or DEFAULT_CONFIG.read_text()))
    finally:
        down(name)


# ---- the machine --------------------------------------------------------------------------------------------------


def _said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def _sysctls() -> dict[str, str]:
    """Those that engines and agents would change."""
    places = [
        "/proc/sys/net/ipv4",
        "/proc/sys/net/ipv6",
        "/proc/sys/net/core",
        "/proc/sys/kernel",
        "/proc/sys/net/netfilter",
    ]
    found = {}
    for place in places:
        for path in Path(place).rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file():
                    found[str(path)] = path.read_text()
    return {path: text for path, text in found.items() if not any(word in path for word in MOVING)}


NAMED = "/run/netns"
"""Where `ip netns` keeps names: the lab gives none, other tests that run at the same time do."""

OTHERS = ("/run/hrt", "/dev/shm/tmp")
"""What other tests keep while they run at the same time: tests/bpf its pins, tests/simulation its disks."""

MOVING = ("random/", "/pty/nr", "ns_last_pid", "tainted", "nf_conntrack_count", "route/flush", "keys/gc", "perf_")
"""Settings that change by themselves."""


def _files() -> set[str]:
    """Wherever an engine or the lab could leave something; in places that everybody uses only names like ours."""
    found: set[str] = set()
    for place in ("/etc", "/run", "/var/lib", "/opt", "/dev/shm", "/dev/mqueue", "/var/cache", "/var/log"):
        for directory, folders, names in os.walk(place):
            paths = (f"{directory}/{name}" for name in (*folders, *names) if directory != NAMED)
            found |= {path for path in paths if not path.startswith(OTHERS)}
    ours = ("hedgerow-lab", "docker", "podman", "containers", "storage", "buildah", "image")
    return found | {
        str(path) for place in ("/tmp", "/var/tmp") for path in Path(place).iterdir() if path.name.startswith(ours)
    }


def _is_others(mount: str) -> bool:
    return any(place in mount for place in (NAMED, *OTHERS))


def _groups() -> set[str]:
    """Control groups of the names that engines and the lab give; the machine makes and ends others all the time."""
    ours = ("hedgerow", "docker", "libpod", "podman", "conmon")
    return {directory for directory, _, _ in os.walk("/sys/fs/cgroup") if any(word in directory for word in ours)}


def _processes() -> set[str]:
    """Command lines that belong to engines or to the project."""
    ours = ("dockerd", "containerd", "podman", "conmon", "hedgerow.lab", "hedgerow-relay", "hedgerow.cli")
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if any(word in words for word in ours) and "pytest" not in words:
                found.add(f"{entry.name} {words}")
    return found


def machine(name: str) -> dict[str, Any]:
    """All that must be as before when the lab `name` is gone; what other labs have at the same time is left out."""
    links = {row["ifname"] for row in json.loads(_said("ip", "-j", "link"))}
    return {
        "links": links,
        "routes": _said("ip", "route", "show", "table", "all") + _said("ip", "-6", "route", "show", "table", "all"),
        "rules": _said("ip", "rule"),
        "nft": _said("nft", "-s", "list", "ruleset"),
        "sysctls": _sysctls(),
        "mounts": [row for row in Path("/proc/self/mounts").read_text().splitlines() if not _is_others(row)],
        "processes": {row for row in _processes() if name in row},
        "files": {path for path in _files() if "hedgerow-lab" not in path or name in path},
        "groups": {path for path in _groups() if "hedgerow-lab" not in path or name in path},
    }
