"""A small cluster for questions about two containers: two agents, no engines, containers that are bare namespaces.

A lab without engines is up in three seconds. Its containers come in by CNI, as any engine's would.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import labkit
from labkit import RunningLab, wait_for

from hedgerow.kernel import bpf
from hedgerow.kernel.maps import LAYOUT, Maps
from hedgerow.lab import enter
from hedgerow.model.endpoint import EndpointKey

PORT = 8000
CONFIG = """\
dcos_overlay_enable: true
dcos_overlay_mtu: 1420
dcos_overlay_network:
  vtep_subnet: 44.128.0.0/20
  vtep_subnet6: fd01:a::/64
  vtep_mac_oui: 70:B3:D5:00:00:00
  overlays:
    - name: blue
      subnet: 10.64.0.0/16
      prefix: 24
      subnet6: fd00:64::/64
      prefix6: 80
      allow: [green]
    - name: green
      subnet: 10.65.0.0/16
      prefix: 24
    - name: red
      subnet: 10.66.0.0/16
      prefix: 24
      allow: [{to: green, ports: [9000/tcp]}]
    - name: closed
      subnet: 10.67.0.0/16
      prefix: 24
      isolated: true
"""

SERVER = """
import os, signal, socket, sys
address, family = sys.argv[1], socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
heard = socket.create_server((address, int(sys.argv[2])), family=family, backlog=1, dualstack_ipv6=address == "::")
print(os.getpid(), flush=True)
while True:
    if sys.argv[3] == "True":
        heard.accept()[0].close()
    else:
        signal.pause()
"""


@dataclass
class Container:
    """`pid` is its holder's, as its node counts."""

    pairs: Pairs
    node: str
    network: str
    pid: int
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    address: str = ""
    address6: str = ""

    @property
    def netns(self) -> str:
        """As its node reaches it."""
        return f"/proc/{self.pid}/ns/net"

    @property
    def link(self) -> str:
        return "hr-" + EndpointKey("cni", self.id, "eth0").tag

    def run(self, *words: str, check: bool = True) -> str:
        return self.pairs.lab.run(self.node, "nsenter", f"--net={self.netns}", *words, check=check)

    def cni(self, command: str) -> str:
        config = {"cniVersion": "1.0.0", "name": self.network, "type": "hedgerow-cni"}
        variables = {"CNI_COMMAND": command, "CNI_CONTAINERID": self.id, "CNI_NETNS": self.netns, "CNI_IFNAME": "eth0"}
        words = [f"{key}={value}" for key, value in (variables | {"CNI_PATH": "/opt/cni/bin"}).items()]
        return self.pairs.lab.run(self.node, "env", *words, "/opt/cni/bin/hedgerow-cni", text=json.dumps(config))

    @contextlib.contextmanager
    def serving(self, port: int = PORT, address: str = "", *, accept: bool = True) -> Iterator[int]:
        """Something listens there, by default on its own address; its pid, as its node counts."""
        words = ["nsenter", f"--net={self.netns}", sys.executable, "-c", SERVER, address or self.address, str(port)]
        with self.pairs.process(self.node, [*words, str(accept)]) as pid:
            yield pid


@dataclass
class Pairs:
    lab: RunningLab
    undo: contextlib.ExitStack

    @contextlib.contextmanager
    def process(self, node: str, words: list[str]) -> Iterator[int]:
        """In a node, for the block. What it prints first is its pid there, by which it is ended: what we start is only
        its parent.
        """
        command = enter.words(self.lab.pid(node), words)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=enter.environment()) as process:
            assert process.stdout is not None
            pid = int(process.stdout.readline())
            try:
                yield pid
            finally:
                self.lab.run(node, "kill", "-KILL", str(pid), check=False)
                process.send_signal(signal.SIGCONT)  # it stops when its child is stopped

    def container(self, node: str, network: str, life: contextlib.ExitStack | None = None) -> Container:
        """Lives as long as `life`, else as the whole."""
        undo = life or self.undo
        words = ["unshare", "--net", "sh", "-c", "echo $$; exec sleep 1000000"]
        container = Container(self, node, network, undo.enter_context(self.process(node, words)))
        answer = json.loads(container.cni("ADD"))
        undo.callback(container.cni, "DEL")
        container.address, container.address6 = ([ip["address"].partition("/")[0] for ip in answer["ips"]] + [""])[:2]
        wait_for("the controller knows it", lambda: self._known(container.address))
        return container

    def _known(self, address: str) -> bool:
        return address in {row["address"] for row in self.lab.api("/v1/endpoints")["endpoints"]}

    def maps(self, node: str) -> Maps:
        """What its agent pinned."""
        pins = Path(f"/proc/{self.lab.pid(node)}/root/run/hedgerow/bpf/v{LAYOUT}")
        loaded = bpf.Object(bpf.object_file(), pins)
        self.undo.callback(loaded.close)
        return Maps.open(loaded)

    def underlay(self, node: str) -> IPv4Address:
        return IPv4Address(self.lab.record.members[node])

    def ask(self, source: str, target: str) -> tuple[int, dict[str, Any]]:
        """Exit code and answer of `hedgerow why`."""
        record = self.lab.record
        done = subprocess.run(
            [*labkit.HEDGEROW, "why", source, target, "-o", "json"],
            capture_output=True,
            text=True,
            check=False,
            env=enter.environment() | {"HEDGEROW_API": record.api, "HEDGEROW_TOKEN": record.token},
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)


@contextlib.contextmanager
def pairs() -> Iterator[Pairs]:
    with labkit.lab(nodes=2, config=CONFIG, engines=()) as lab, contextlib.ExitStack() as undo:
        yield Pairs(lab, undo)
