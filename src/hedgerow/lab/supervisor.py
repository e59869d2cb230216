"""Holds what outlives an agent: a node's namespaces, its mounts, its listening sockets; keeps its processes running.

On a real host this is systemd. Here a node *is* the namespaces of its supervisor, which is the first process in a PID
namespace: whatever ends the supervisor ends the node, and nothing of it stays on the machine.

Started by `lab up` as `python -m hedgerow.lab.supervisor DIRECTORY`, with the plan as the first line of stdin. Says
`pid N`, then `ready` when the namespaces stand, and waits for the line `go`: the underlay is there. End of file instead
(`lab up` was killed) ends the node. Standard library only.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from . import cgroups
from .mounts import STATE, make_private
from .syscalls import Clone, unshare
from .topology import LAB_RUN, LAN, OUTSIDE_SERVICE, UNDERLAY, UNDERLAY6, Child, Node, beside

log = logging.getLogger("hedgerow.lab")

PATH = f"{LAB_RUN}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {
    "PATH": PATH,
    "HOME": str(LAB_RUN / "home"),
    "TMPDIR": str(LAB_RUN / "tmp"),
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""Of all that runs in a node. Engines' temporary files go with the node's /run when they are killed over them."""
BACKLOG = 1024
FIRST_HELD = 200
"""Held sockets have descriptors from here on, so that handing them over as 3, 4, ... never overwrites one."""


@dataclass(slots=True)
class Kept:
    """A child's present state: its pid, or when it is to be started."""

    child: Child
    pid: int = 0
    due_s: float = 0.0


@dataclass(slots=True)
class Supervisor:
    children: dict[str, Kept]
    sockets: dict[str, int]
    ending: bool = False
    signals: set[int] = field(default_factory=lambda: {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT})

    def run(self) -> None:
        """Until SIGTERM: starts what is due, waits for what ends (orphans of the node too: it is their parent now)."""
        signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)
        while not self.ending:
            wait = self.start_what_is_due()
            caught = signal.sigtimedwait(self.signals, wait)
            if caught and caught.si_signo != signal.SIGCHLD:
                self.ending = True
            self.reap()

    def start_what_is_due(self) -> float:
        """Returns the seconds until there is something to do."""
        now = time.monotonic()
        wait = 3600.0
        for kept in self.children.values():
            if kept.pid:
                continue
            if kept.due_s > now:
                wait = min(wait, kept.due_s - now)
            elif (LAB_RUN / "hold" / kept.child.name).exists():
                wait = min(wait, 0.05)
            else:
                kept.pid = self.spawn(kept.child)
        return wait

    def spawn(self, child: Child) -> int:
        """Starts one child with its sockets as descriptors 3, 4, ... (sd_listen_fds(3))."""
        output = os.open(
            STATE / "logs" / f"{child.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
        actions += [(os.POSIX_SPAWN_DUP2, self.sockets[name], 3 + at) for at, name in enumerate(child.sockets)]
        words = ["sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh", *child.command]
        environment = dict(ENVIRONMENT)
        if child.sockets:
            environment |= {"LISTEN_FDS": str(len(child.sockets)), "LISTEN_FDNAMES": ":".join(child.sockets)}
        try:
            pid = os.posix_spawn(
                "/bin/sh", words, environment, file_actions=actions, setsigmask=[], setsigdef=[signal.SIGPIPE]
            )
        finally:
            os.close(output)
        (LAB_RUN / "pids" / child.name).write_text(f"{pid}\n")
        return pid

    def reap(self) -> None:
        by_pid = {kept.pid: kept for kept in self.children.values() if kept.pid}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if kept := by_pid.get(pid):
                log.warning("%s ended: %s", kept.child.name, os.waitstatus_to_exitcode(status))
                kept.pid, kept.due_s = 0, time.monotonic() + kept.child.pause_s


def hold(descriptor: int) -> int:
    """A copy of a socket's descriptor, high enough to be out of the way."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_HELD)


def listen(where: str) -> int:
    """On a unix socket for root only, or on `address:port`."""
    if where.startswith("/"):
        held = socket.socket(socket.AF_UNIX)
        held.bind(where)
        Path(where).chmod(0o600)
    else:
        host, _, port = where.rpartition(":")
        held = socket.create_server((host, int(port)))
    held.listen(BACKLOG)
    return hold(held.detach())


def connect_underlay(node: Node) -> None:
    """Addresses and the way out. `lan` has the bridge `underlay`; the others an `eth0` that `lab up` put here."""
    lan = node.address == LAN
    link = "underlay" if lan else "eth0"
    lines = ["link set lo up", f"addr add {node.address}/{UNDERLAY.prefixlen} dev {link}", f"link set {link} up"]
    lines.append(f"addr add {OUTSIDE_SERVICE}/32 dev lo" if lan else f"route add default via {LAN}")
    if Path("/proc/sys/net/ipv6").is_dir():
        lines.append(f"addr add {beside(node.address)}/{UNDERLAY6.prefixlen} dev {link} nodad")
        lines += [] if lan else [f"route add ::/0 via {beside(LAN)}"]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True, env=ENVIRONMENT)
    if node.forward:
        # Before dockerd: it sets policy DROP on FORWARD if it is the one that turns this on.
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def inside(node: Node, links: dict[str, str], inherited: dict[str, int], directory: Path) -> None:
    """The first process of the node."""
    sockets = {name: hold(descriptor) for name, descriptor in inherited.items()}
    make_private(node, directory)
    (STATE / "logs").mkdir(exist_ok=True)
    for path, target in links.items():
        Path(path).symlink_to(target)
    socket.sethostname(node.name)
    os.chdir("/")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if sys.stdin.readline() != "go\n":
        return
    connect_underlay(node)
    sockets |= {name: listen(path) for name, path in node.held.items()}
    quiet = os.open("/dev/null", os.O_RDWR)
    os.dup2(quiet, 0)
    os.dup2(quiet, 1)
    sys.stdout.flush()
    Supervisor({child.name: Kept(child) for child in node.children}, sockets).run()


def main(directory: Path) -> None:
    """Makes the namespaces and forks: only a child is inside a new PID namespace."""
    plan = json.loads(sys.stdin.readline())
    node = node_from(plan["node"])
    cgroups.enter(plan["lab"], node.name)
    unshare(Clone.MOUNT | Clone.NET | Clone.UTS | Clone.PID | Clone.CGROUP)
    pid = os.fork()
    if pid:
        sys.stdout.write(f"pid {pid}\n")
        sys.stdout.flush()
        os._exit(0)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", level=logging.INFO)
    try:
        inside(node, plan["links"], plan["sockets"], directory)
    except Exception:
        log.exception("node %s ends", node.name)
        os._exit(1)


def node_from(plan: dict[str, Any]) -> Node:
    """A node back from its plan (`dataclasses.asdict`, as JSON)."""
    children = tuple(
        Child(row["name"], tuple(row["command"]), tuple(row["sockets"]), row["pause_s"]) for row in plan["children"]
    )
    typed = {"address": IPv4Address(plan["address"]), "own": tuple(plan["own"]), "children": children}
    return Node(**(plan | typed))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
