"""Brings a lab up.

Everything is started at once and waited for at the end: supervisors first (they make their namespaces), then the
underlay between them, then one line to each: go. Until a supervisor has that line it ends with this process, so a kill
at any point leaves nothing, or whole nodes that `down` finds by what they are.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from hedgerow.config.load import load
from hedgerow.errors import BadInput, Conflict, HedgerowError, NotFound
from hedgerow.model.network import ClusterSpec
from hedgerow.wire import pki

from . import cgroups, images, processes, ready
from .down import locked, remove
from .members import Programs, links, members
from .state import Record, check_name, read, write
from .topology import ENGINES, MAX_NODES, UNDERLAY, UNDERLAY6, Lab, Node, address_of

API_PORT = 8080
Say = Callable[[str], None]


@dataclass(slots=True)
class Starting:
    """A supervisor on its way: the process that forks it, then the pid of the node itself."""

    node: Node
    process: subprocess.Popen[str]
    pid: int = 0


@dataclass(slots=True)
class Clock:
    """How long each part took, in seconds."""

    took_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, what: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.took_s[what] = round(time.monotonic() - start, 3)


def up(lab: Lab, config: str, say: Say = lambda line: None) -> Record:
    """Returns the lab when it is ready. A healthy one with the same settings is taken as it is.

    Raises BadInput for impossible settings, Conflict while another command works on it or when it is up with other
    settings, HedgerowError naming what did not come up (then all that was started has been ended again).
    """
    check(lab, load(config))
    programs = find_programs(lab)
    with locked(lab.name):
        known = read(lab.name)
        if known and known.complete and not ready.troubles(known):
            if not fits(known, lab, config):
                raise Conflict(f"lab {lab.name} is up with other settings", "end it (lab down), or use another --name")
            say(f"lab {lab.name} is up and healthy already")
            return known
        remove(lab.name)
        try:
            return _bring_up(lab, config, programs, say)
        except BaseException:
            remove(lab.name)
            raise


def check(lab: Lab, cluster: ClusterSpec) -> None:
    if not 1 <= lab.nodes <= MAX_NODES:
        raise BadInput(f"{lab.nodes} nodes are not possible", f"1 to {MAX_NODES}")
    if unknown := set(lab.engines) - set(ENGINES):
        raise BadInput(f"no engine {', '.join(sorted(unknown))}", f"there are {', '.join(ENGINES)}")
    check_name(lab.name)
    for network in cluster.networks:
        if network.subnet and network.subnet.overlaps(UNDERLAY):
            raise BadInput(f"{network.name} ({network.subnet}) overlaps the lab's own {UNDERLAY}", "use another subnet")
        if network.subnet6 and network.subnet6.overlaps(UNDERLAY6):
            raise BadInput(
                f"{network.name} ({network.subnet6}) overlaps the lab's own {UNDERLAY6}", "use another subnet6"
            )
    if os.geteuid() != 0:
        raise BadInput("the lab needs root: it makes namespaces and runs engines in them", "run the command with sudo")


def fits(record: Record, lab: Lab, config: str) -> bool:
    return (set(record.members), record.engines, record.config) == (set(lab.members), lab.engines, config)


def find_programs(lab: Lab) -> Programs:
    """Raises NotFound naming all that is missing at once."""
    top = images.checkout()
    wanted = {"dockerd": "docker" in lab.engines, "podman": "podman" in lab.engines}
    found = {name: shutil.which(name) or "" for name, needed in wanted.items() if needed}
    files = [top / "build" / name for name in ("hedgerow-relay", "hedgerow-cni", "hedgerow.bpf.o")]
    missing = [name for name, path in found.items() if not path] + [str(file) for file in files if not file.exists()]
    if missing:
        raise NotFound(f"not there: {', '.join(missing)}", "make setup build")
    python = (sys.executable, "-m")
    return Programs(
        hedgerow=(*python, "hedgerow.cli.main"),
        outside=(*python, "hedgerow.lab.outside"),
        dockerd=found.get("dockerd", ""),
        docker=docker_client(found["dockerd"]) if "dockerd" in found else "",
        podman=found.get("podman", ""),
        relay=files[0],
        shim=files[1],
    )


def docker_client(dockerd: str) -> str:
    """The client that belongs to this engine: another version may lie earlier on the PATH. Raises NotFound."""
    places = [Path(place) / "docker" for place in os.environ.get("PATH", os.defpath).split(":")]
    clients = [str(path) for path in dict.fromkeys(place.resolve() for place in places) if os.access(path, os.X_OK)]
    if not clients:
        raise NotFound("there is dockerd, and no docker client", "apt-get install docker.io")
    if len(clients) == 1:
        return clients[0]
    wanted = _version(dockerd)
    return next((client for client in clients if _version(client) == wanted), clients[0])


def _version(program: str) -> str:
    """`Docker version 20.10.24+dfsg1, build 297e128` -> `20.10.24+dfsg1`."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return said.partition("version ")[2].partition(",")[0].strip()


def _bring_up(lab: Lab, config: str, programs: Programs, say: Say) -> Record:
    clock = Clock()
    groups = [cgroups.group_of(hierarchy, lab.name) for hierarchy in cgroups.mounted()]
    record = Record(
        name=lab.name,
        token=secrets.token_hex(16),
        members={name: str(address_of(name)) for name in lab.members},
        engines=lab.engines,
        groups=tuple(map(str, groups)),
        config=config,
    )
    lab.directory.mkdir(mode=0o700)
    write(record)
    with clock.time("all"), api_socket() as api:
        record = replace(record, api=f"http://127.0.0.1:{api.getsockname()[1]}")
        (lab.directory / "token").write_text(record.token + "\n")  # for --token-file; the directory is root's alone
        top = images.checkout()
        with ThreadPoolExecutor(1) as background:
            making = background.submit(images.make_missing, top)
            with clock.time("certificates"):
                certificates(lab)
            say(f"starting {', '.join(lab.members)}")
            with clock.time("namespaces and underlay"):
                pids = start(lab, members(lab, programs, config, record.token), links(programs), api)
            with clock.time("images made"):
                making.result()
        say("waiting for the controller, the agents and their engines")
        with clock.time("engines, agents, images"):
            ready.wait(record, lab, pids, {image: images.tar_of(image, top) for image in images.IMAGES})
    record = replace(record, complete=True, took_s=clock.took_s)
    write(record)
    return record


@contextmanager
def api_socket() -> Iterator[socket.socket]:
    """The controller's API, heard on the machine's own loopback: on 8080, or on a free port when that is taken."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind(("127.0.0.1", API_PORT))
        except OSError:
            held.bind(("127.0.0.1", 0))
        held.listen(128)
        yield held


def certificates(lab: Lab) -> None:
    """An authority of the lab's own, a certificate for the controller and one with a new id for each agent."""
    directory = lab.directory / "certificates"
    directory.mkdir(mode=0o700)
    authority = pki.make_authority(directory)
    pki.issue(directory / "controller", authority, "controller", [str(address_of("controller"))])
    for name in lab.node_names:
        pki.issue(directory / name, authority, secrets.token_hex(16))


def start(lab: Lab, nodes: list[Node], names: dict[str, str], api: socket.socket) -> dict[str, int]:
    """Starts all supervisors, joins them by the underlay and lets them go. Returns member -> pid."""
    started = [_supervisor(lab, node, names, api) for node in nodes]
    for starting in started:
        _await_ready(starting, lab)
    pids = {starting.node.name: starting.pid for starting in started}
    underlay(pids)
    for starting in started:
        assert starting.process.stdin
        starting.process.stdin.write("go\n")
        starting.process.stdin.close()
    return pids


def _supervisor(lab: Lab, node: Node, names: dict[str, str], api: socket.socket) -> Starting:
    directory = lab.directory / node.name
    (directory / "logs").mkdir(parents=True)
    sockets = {"api": api.fileno()} if node.name == "controller" else {}
    plan = {"lab": lab.name, "node": asdict(node) | {"address": str(node.address)}, "links": names, "sockets": sockets}
    with (directory / "logs" / "supervisor.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", processes.MODULE, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            bufsize=1,
            pass_fds=list(sockets.values()),
            start_new_session=True,
        )
    assert process.stdin
    process.stdin.write(json.dumps(plan) + "\n")
    process.stdin.flush()
    return Starting(node, process)


def _await_ready(starting: Starting, lab: Lab) -> None:
    """Reads `pid N` and `ready`, which two processes say, in any order. Raises HedgerowError with the supervisor's log
    when it ends before.
    """
    assert starting.process.stdout
    is_ready = False
    for line in starting.process.stdout:
        word, _, value = line.strip().partition(" ")
        if word == "pid":
            starting.pid = int(value)
            starting.process.wait()
        is_ready |= word == "ready"
        if is_ready and starting.pid:
            return
    log = lab.directory / starting.node.name / "logs" / "supervisor.log"
    raise HedgerowError(f"node {starting.node.name} did not start: {log.read_text().strip()[-2000:]}")


def underlay(pids: dict[str, int]) -> None:
    """The bridge in `lan` and a veth pair to every other member, made in `lan`: the machine's namespace sees none."""
    lines = ["link add underlay up type bridge"]
    for name, pid in pids.items():
        if name != "lan":
            lines.append(f"link add {name} master underlay up type veth peer name eth0 netns {pid}")
    command = ["nsenter", "--target", str(pids["lan"]), "--net", "ip", "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", text=True, capture_output=True, check=False)
    if done.returncode:
        raise HedgerowError(
            f"the underlay cannot be made: {done.stderr.strip()}", "packaging/preflight says what lacks"
        )
