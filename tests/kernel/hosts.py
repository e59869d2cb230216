"""A host for one real agent: namespaces of its own, an underlay, held sockets, and a controller that says what it is
told to say.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from kernel.controller import Controller

from hedgerow.kernel import bpf, netns
from hedgerow.kernel.maps import LAYOUT, Maps
from hedgerow.model.agent import Agent, AgentId, Prefix, Vtep
from hedgerow.model.endpoint import EndpointKey
from hedgerow.model.network import ClusterSpec, Network, NetworkId, NetworkName, NetworkSpec, Vni, VtepSpec
from hedgerow.model.snapshot import Revision, Snapshot
from hedgerow.wire import pki

UNDERLAY = IPv4Address("10.99.0.1")
OTHER = IPv4Address("10.99.0.2")
PORT = 8081
WAIT_S = 15.0 * float(os.environ.get("HEDGEROW_SLOWNESS", "1"))
CONFLISTS = Path("/etc/cni/net.d")
_NSENTER = shutil.which("nsenter") or "nsenter"

DCOS = Network(
    id=NetworkId("1" * 32),
    vni=Vni(70001),
    gateway_index=1,
    spec=NetworkSpec(name=NetworkName("dcos-1"), subnet=IPv4Network("9.0.0.0/8"), prefix=24),
)
DEV = Network(
    id=NetworkId("2" * 32),
    vni=Vni(70002),
    gateway_index=2,
    spec=NetworkSpec(name=NetworkName("dev"), subnet=IPv4Network("10.64.0.0/12"), prefix=24),
)
CLUSTER = ClusterSpec(
    enable=True,
    mtu_bytes=1420,
    vtep=VtepSpec(subnet=IPv4Network("44.128.0.0/20")),
    networks=(DCOS.spec, DEV.spec),
)


def eventually(condition: Callable[[], object], what: str = "", wait_s: float = WAIT_S) -> None:
    """Looks until it is so. What raises is not so yet."""
    end, fault = time.monotonic() + wait_s, ""
    while time.monotonic() < end:
        try:
            if condition():
                return
        except Exception as error:
            fault = f": {error!r}"
        time.sleep(0.02)
    raise AssertionError(f"not within {wait_s:g} s: {what or condition}{fault}")


def _agent(id: AgentId, name: str, number: int, underlay: IPv4Address) -> Agent:
    blocks = (Prefix(network=DCOS.id, block=IPv4Network(f"9.0.{number}.0/24")),)
    blocks += (Prefix(network=DEV.id, block=IPv4Network(f"10.64.{number}.0/24")),)
    vtep = Vtep(ip=IPv4Address(f"44.128.0.{number}"), mac=bytes.fromhex(f"70b3d58000{number:02x}"))
    return Agent(id=id, name=name, underlay=underlay, incarnation=1, vtep=vtep, prefixes=blocks)


class Host:
    """Enter it; leaving ends every process and with them the namespaces."""

    name, underlay = "n1", UNDERLAY

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.id = AgentId(secrets.token_hex(16))
        other = AgentId(secrets.token_hex(16))
        agents = {
            self.id: _agent(self.id, "n1", 1, UNDERLAY),
            other: _agent(other, "n2", 2, OTHER),
        }
        self.snapshot = Snapshot(
            revision=Revision(1, 10), own=self.id, cluster=CLUSTER, networks={DCOS.id: DCOS, DEV.id: DEV}, agents=agents
        )
        self.controller: Controller | None = None
        self.agent: subprocess.Popen[bytes] | None = None
        self._containers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Host:
        self._undo = contextlib.ExitStack()
        try:
            self._set_up()
        except BaseException:
            self._undo.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_agent()
        if self.controller:
            self.controller.stop()
        self._undo.close()

    def _set_up(self) -> None:
        self._root = self._start(["unshare", "--mount", "--net", "--uts", "--propagation", "private"])
        self.run("mount -t tmpfs tmpfs /run")
        self.run("mkdir -m 700 /run/hedgerow")
        if CONFLISTS.is_dir():  # else the agent has nowhere to write
            self.run(f"mount -t tmpfs tmpfs {CONFLISTS}")
        self.run("ip link set lo up")
        self._plug()
        self.keys = self.directory / "keys"
        authority = pki.make_authority(self.directory / "ca")
        pki.issue(self.keys, authority, self.id)
        pki.issue(self.directory / "controller", authority, "controller", names=["127.0.0.1"])
        self.sockets = {name: self._listener(name) for name in ("agent", "calls")}
        (self.directory / "agent.yaml").write_text(
            f"name: {self.name}\nunderlay: {self.underlay}\ncontrollers: ['127.0.0.1:{PORT}']\n"
            f"certificates: {self.keys}\nstate: {self.directory / 'state'}\nengines: [docker]\n"
        )

    def _plug(self) -> None:
        """The underlay's link; at its other end is the LAN, with the other agent's address."""
        self.lan = Container(self, self._start(["unshare", "--net"]))
        self.run(f"ip link add eth0 type veth peer name eth0 netns {self.lan.holder.pid}")
        self.run(f"ip address add {self.underlay}/24 dev eth0")
        self.run("ip link set eth0 up")
        self.lan.run(f"ip address add {OTHER}/24 dev eth0")
        self.lan.run("ip link set eth0 up")

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """A process that does nothing but hold its namespaces."""
        holder = subprocess.Popen([*command, "sh", "-c", "echo; exec sleep 1000000"], stdout=subprocess.PIPE)
        self._undo.callback(_end, holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        return holder

    def _listener(self, name: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"/proc/{self._root.pid}/root/run/hedgerow/{name}.sock")
        listener.listen(512)
        self._undo.callback(listener.close)
        return listener

    @property
    def namespace(self) -> Path:
        return Path(f"/proc/{self._root.pid}/ns/net")

    @cached_property
    def maps(self) -> Maps:
        """What the agent pinned."""
        pins = Path(f"/proc/{self._root.pid}/root/run/hedgerow/bpf/v{LAYOUT}")
        loaded = bpf.Object(bpf.object_file(), pins)
        self._undo.callback(loaded.close)
        return Maps.open(loaded)

    def run(self, command: str, **environment: str) -> str:
        """On this host. Raises when it fails."""
        done = subprocess.run(
            ["nsenter", "-t", str(self._root.pid), "-m", "-n", *command.split()],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | environment,
        )
        if done.returncode:
            raise AssertionError(f"{command}: {done.stderr}{done.stdout}")
        return done.stdout

    def table(self) -> str:
        """Our rules, without what packets have put into them."""
        listed = self.run("nft --stateless list table inet hedgerow")
        return re.sub(r"\n\t\telements = \{[^}]* (?:limit rate|ct count) [^}]*\}", "", listed)

    def sysctl(self, name: str) -> str:
        return self.run(f"cat /proc/sys/net/{name}").strip()

    def start_controller(self, snapshot: Snapshot | None = None) -> Controller:
        listener = netns.open_socket(self.namespace, socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", PORT))
        listener.listen()
        listener.setblocking(False)
        self.controller = Controller(snapshot or self.snapshot)
        self.controller.start(listener, self.directory / "controller")
        return self.controller

    def start_agent(self, **environment: str) -> None:
        """And waits until it is ready."""
        names, fds = ":".join(self.sockets), [listener.fileno() for listener in self.sockets.values()]
        # The shell moves them to 3 and on, by way of high numbers.
        moves = [f"exec {30 + n}<&{fd}" for n, fd in enumerate(fds)]
        moves += [f"exec {3 + n}<&{30 + n} {30 + n}<&-" for n in range(len(fds))]
        script = "; ".join(moves) + (
            f"; LISTEN_PID=$$ LISTEN_FDS={len(fds)} LISTEN_FDNAMES={names} exec {sys.executable} -m "
            f"hedgerow.cli.main agent --config {self.directory / 'agent.yaml'}"
        )
        self.log = self.directory / "agent.log"
        before = self.log.read_text().count("ready after") if self.log.exists() else 0

        with self.log.open("ab") as log:
            self.agent = subprocess.Popen(
                [_NSENTER, "-t", str(self._root.pid), "-m", "-n", "/bin/bash", "-c", script],
                stderr=log,
                stdout=log,
                pass_fds=fds,
                env=os.environ | environment,
            )
        try:
            eventually(lambda: self.log.read_text().count("ready after") > before, "the agent is ready")
        except AssertionError:
            raise AssertionError(self.log.read_text()) from None

    def stop_agent(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.agent is not None:
            self.agent.send_signal(number)
            self.agent.wait(WAIT_S)
            self.agent = None

    def applied(self) -> None:
        """Waits until the controller has heard that its revision is applied."""
        assert self.controller is not None
        controller = self.controller
        eventually(
            lambda: controller.reports and controller.reports[-1].applied == controller.snapshot.revision,
            "the revision is applied",
        )

    def wake(self) -> None:
        """By an event that the agent looks at and finds nothing."""
        self.run("ip address add 127.9.9.9/32 dev lo")
        self.run("ip address delete 127.9.9.9/32 dev lo")

    def wait_for_a_round(self) -> None:
        """Until the agent's loop has gone from the routes to the links; it has a route to bring back on the way."""
        self.run("ip route delete 10.64.0.0/12")
        eventually(lambda: "10.64.0.0/12" in self.run("ip route show"), "the route is back")
        rounds = self._rounds()
        self.wake()
        eventually(lambda: self._rounds() > rounds, "a whole round")

    def _rounds(self) -> float:
        found = re.search(r"^hedgerow_rounds_total (\S+)$", self.http("/metrics")[1], re.MULTILINE)
        assert found is not None
        return float(found[1])

    def container(self) -> Container:
        return Container(self, self._start(["unshare", "--net"]))

    def cni(
        self, command: str, container: Container, network: str = "dcos-1", ifname: str = "eth0", **runtime: object
    ) -> tuple[int, str]:
        """As the shim speaks, with `runtime` as the capabilities' values: (HTTP status, body)."""
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container.id,
            "CNI_NETNS": container.netns,
            "CNI_IFNAME": ifname,
            "CNI_PATH": "/opt/cni/bin",
        }
        config: dict[str, object] = {"cniVersion": "1.0.0", "name": network, "type": "hedgerow-cni"}
        if runtime:
            config["runtimeConfig"] = runtime
        if command == "CHECK":
            config["prevResult"] = container.result
        body = b"".join(f"{key}={value}\0".encode() for key, value in variables.items())
        body += b"\0" + json.dumps(config).encode()
        return self._post("agent", "/cni", body)

    def docker(self, method: str, **arguments: object) -> dict[str, object]:
        """As the relay passes dockerd's calls on."""
        status, text = self._post("calls", f"/{method}", json.dumps(arguments).encode(), f"Hedgerow-Call: {method}\r\n")
        assert status == 200, text
        answer: dict[str, object] = json.loads(text)
        return answer

    def _post(self, name: str, path: str, body: bytes, headers: str = "") -> tuple[int, str]:
        with socket.socket(socket.AF_UNIX) as call:
            call.settimeout(WAIT_S)
            call.connect(f"/proc/{self._root.pid}/root/run/hedgerow/{name}.sock")
            head = f"POST {path} HTTP/1.0\r\nHost: h\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
            call.sendall(head.encode() + body)
            answer = b"".join(iter(lambda: call.recv(65536), b"")).decode()
        head, _, text = answer.partition("\r\n\r\n")
        return int(head.split()[1]), text

    def http(self, path: str) -> tuple[int, str]:
        with netns.open_socket(self.namespace, socket.AF_INET, socket.SOCK_STREAM) as call:
            call.settimeout(WAIT_S)
            call.connect(("127.0.0.1", 9642))
            call.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            answer = b"".join(iter(lambda: call.recv(65536), b"")).decode()
        head, _, text = answer.partition("\r\n\r\n")
        return int(head.split()[1]), text


@dataclass
class Container:
    """A network namespace, and what its attachment answered."""

    host: Host
    holder: subprocess.Popen[bytes]
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    result: dict[str, object] = field(default_factory=dict)

    @property
    def netns(self) -> str:
        return f"/proc/{self.holder.pid}/ns/net"

    def add(self, network: str = "dcos-1", **runtime: object) -> str:
        """Attaches it; its address."""
        status, body = self.host.cni("ADD", self, network, **runtime)
        assert status == 200, body
        self.result = json.loads(body)
        return self.address

    @property
    def address(self) -> str:
        ips = self.result["ips"]
        assert isinstance(ips, list)
        return str(ips[0]["address"]).partition("/")[0]

    @property
    def link(self) -> str:
        return "hr-" + EndpointKey("cni", self.id, "eth0").tag

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["nsenter", "-t", str(self.holder.pid), "-n", *command.split()], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise AssertionError(f"{command}: {done.stderr}{done.stdout}")
        return done.stdout

    def reaches(self, address: str) -> bool:
        try:
            self.run(f"ping -c 1 -W 2 {address}")
        except AssertionError:
            return False
        return True

    def end(self) -> None:
        """The container is gone, and nobody told the agent."""
        _end(self.holder)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(WAIT_S)
    if process.stdout:
        process.stdout.close()


def without(snapshot: Snapshot, network: Network) -> Snapshot:
    """The next revision, with the network gone."""
    return replace(
        snapshot,
        revision=Revision(snapshot.revision.epoch, snapshot.revision.number + 1),
        networks={id: known for id, known in snapshot.networks.items() if id != network.id},
    )
