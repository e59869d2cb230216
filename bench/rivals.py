"""The ways that ours is measured against and that need no engine, each on two hosts of its own (network namespaces,
192.168.77.1 and .2) over a bridge.

bare     two hosts that talk to each other, and two namespaces on one veth pair: the limit
routed   containers with plain routes on both hosts and nothing else: no overlay, no firewall, no connection tracking
flannel  its own steps: bridge, routes over one VXLAN device, static entries, masquerade rules
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Candidate, Pair


def run(*commands: str, text: str | None = None) -> None:
    """Raises CalledProcessError. `text` is the standard input of each command."""
    for command in commands:
        subprocess.run(shlex.split(command), check=True, text=True, input=text)


def place(name: str) -> Path:
    return Path("/run/netns") / name


class Hosts:
    """Namespaces under one random mark, all removed at the end of the context."""

    def __init__(self, mtu: int = 1500) -> None:
        self.mark = f"hb{secrets.token_hex(3)}"
        self.mtu = mtu
        self._made: list[str] = []

    def __enter__(self) -> Hosts:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(self._made):
            subprocess.run(["ip", "netns", "del", name], check=False)

    def namespace(self, suffix: str) -> str:
        name = f"{self.mark}-{suffix}"
        run(f"ip netns add {name}")
        self._made.append(name)
        run(f"ip -n {name} link set lo up")
        return name

    def host(self, number: int) -> str:
        return f"{self.mark}-h{number}"

    def _start(self) -> None:
        underlay = self.namespace("u")
        run(f"ip -n {underlay} link add bridge type bridge", f"ip -n {underlay} link set bridge up")
        for number in (1, 2):
            host = self.namespace(f"h{number}")
            run(
                f"ip -n {underlay} link add to-h{number} mtu {self.mtu} type veth "
                f"peer name eth0 mtu {self.mtu} netns {host}",
                f"ip -n {underlay} link set to-h{number} master bridge up",
                f"ip -n {host} addr add 192.168.77.{number}/24 dev eth0",
                f"ip -n {host} link set eth0 up",
                f"ip netns exec {host} sysctl -qw net.ipv4.ip_forward=1",
            )

    def pairs(self, client: str, near: tuple[str, str], far: tuple[str, str]) -> dict[str, Pair]:
        """From one client to a server here and one there, each by namespace and address."""
        return {
            "same": Pair(place(client), place(near[0]), near[1]),
            "cross": Pair(place(client), place(far[0]), far[1]),
        }


@contextlib.contextmanager
def bare() -> Iterator[Candidate]:
    with Hosts() as hosts:
        left, right = hosts.namespace("left"), hosts.namespace("right")
        run(
            f"ip -n {left} link add eth0 type veth peer name eth0 netns {right}",
            f"ip -n {left} addr add 10.9.0.1/24 dev eth0",
            f"ip -n {right} addr add 10.9.0.2/24 dev eth0",
            f"ip -n {left} link set eth0 up",
            f"ip -n {right} link set eth0 up",
        )
        yield Candidate(
            "bare",
            "bare veth; host to host",
            {
                "same": Pair(place(left), place(right), "10.9.0.2"),
                "cross": Pair(place(hosts.host(1)), place(hosts.host(2)), "192.168.77.2"),
            },
        )


@contextlib.contextmanager
def routed() -> Iterator[Candidate]:
    with Hosts() as hosts:
        containers = {}
        for number, index in ((1, 2), (1, 3), (2, 2)):
            host, name = hosts.host(number), hosts.namespace(f"c{number}{index}")
            containers[number, index] = (name, f"10.9.{number}.{index}")
            run(
                f"ip -n {host} link add v{index} type veth peer name eth0 netns {name}",
                f"ip -n {host} addr add 169.254.1.1/32 dev v{index}",
                f"ip -n {host} link set v{index} up",
                f"ip -n {name} addr add 10.9.{number}.{index}/32 dev eth0",
                f"ip -n {name} link set eth0 up",
                f"ip -n {name} route add 169.254.1.1 dev eth0",
                f"ip -n {name} route add default via 169.254.1.1",
                f"ip -n {host} route add 10.9.{number}.{index} dev v{index}",
            )
        for number in (1, 2):
            run(f"ip -n {hosts.host(number)} route add 10.9.{3 - number}.0/24 via 192.168.77.{3 - number}")
        pairs = hosts.pairs(containers[1, 2][0], containers[1, 3], containers[2, 2])
        yield Candidate("routed", "routed, no overlay", pairs)


FLANNEL_RULES = """*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT
-A FLANNEL-FWD -d 10.244.0.0/16 -j ACCEPT
COMMIT
*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.0.0/16 -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE --random-fully
COMMIT
"""


@contextlib.contextmanager
def flannel() -> Iterator[Candidate]:
    with Hosts() as hosts:
        containers = {}
        for number in (1, 2):
            host, other = hosts.host(number), 3 - number
            run(
                f"ip -n {host} link add flannel.1 mtu 1450 address 02:00:00:00:00:0{number} type vxlan id 1 "
                f"dstport 8472 local 192.168.77.{number} dev eth0 nolearning",
                f"ip -n {host} addr add 10.244.{number}.0/32 dev flannel.1",
                f"ip -n {host} link set flannel.1 up",
                f"ip -n {host} route add 10.244.{other}.0/24 via 10.244.{other}.0 dev flannel.1 onlink",
                f"ip -n {host} neigh add 10.244.{other}.0 lladdr 02:00:00:00:00:0{other} dev flannel.1 nud permanent",
                f"bridge -n {host} fdb append 02:00:00:00:00:0{other} dev flannel.1 dst 192.168.77.{other}",
                f"ip -n {host} link add cni0 mtu 1450 type bridge",
                f"ip -n {host} addr add 10.244.{number}.1/24 dev cni0",
                f"ip -n {host} link set cni0 up",
            )
            run(f"ip netns exec {host} iptables-restore", text=FLANNEL_RULES)
            for index in (2, 3):
                name = hosts.namespace(f"c{number}{index}")
                containers[number, index] = (name, f"10.244.{number}.{index}")
                run(
                    f"ip -n {host} link add v{index} mtu 1450 type veth peer name eth0 mtu 1450 netns {name}",
                    f"ip -n {host} link set v{index} master cni0 up",
                    f"ip -n {name} addr add 10.244.{number}.{index}/24 dev eth0",
                    f"ip -n {name} link set eth0 up",
                    f"ip -n {name} route add default via 10.244.{number}.1",
                )
        pairs = hosts.pairs(containers[1, 2][0], containers[1, 3], containers[2, 2])
        yield Candidate("flannel", "flannel's way", pairs)
