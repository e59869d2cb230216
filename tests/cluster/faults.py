"""Single faults, one at a time: how each is made and taken back, and what `hedgerow why` must say of it.

What an agent would mend within moments is made again and again for as long as it must last.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from cluster.pairs import PORT, Container, Pairs
from labkit import wait_for

from hedgerow.kernel import netlink, netns
from hedgerow.kernel.flows import AllowKey
from hedgerow.kernel.maps import Maps, tunnel_template
from hedgerow.kernel.netlink import Channel, Request
from hedgerow.kernel.table import Table

AGAIN_S = 0.002
STRANGER = IPv4Address("192.168.78.77")
OUTSIDE = "203.0.113.1"
OTHER_MAC = bytes.fromhex("024800000099")
WAITING = 4
"""Connections that nobody takes: more than the backlog of 1."""

CALLER = f"""
import os, socket, sys, time
held = [socket.socket() for _ in range({WAITING})]
for one in held:
    one.setblocking(False)
    one.connect_ex((sys.argv[1], {PORT}))
print(os.getpid(), flush=True)
time.sleep(1000)
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """`a` on n1 and `b` on n2, both in blue; `c` on n1 in green, `d` on n2 in red; `e` on n2 in blue comes and goes."""

    pairs: Pairs
    maps: dict[str, Maps]
    a: Container
    b: Container
    c: Container
    d: Container

    def on(self, node: str, *words: str) -> str:
        return self.pairs.lab.run(node, *words)


Made = contextlib.AbstractContextManager[Any]
Make = Callable[[Scene], Made]


@dataclass(frozen=True, slots=True)
class Fault:
    """`says` is a pattern of the cause, `place` where it is. `who` are the two that it is asked of, `port` what is
    asked for, `code` what the command ends with. `serves`: `b` listens on PORT meanwhile. With `make` yielding an
    address it is that of the destination.
    """

    name: str
    make: Make
    place: str
    says: str
    port: str = f":{PORT}"
    who: str = "ab"
    code: int = 3
    serves: bool = True


@contextlib.contextmanager
def held(make: Callable[[], object], undo: Callable[[], object]) -> Iterator[None]:
    """Made again at once whenever it is mended."""
    ended = threading.Event()

    def again() -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # of this thread: sooner than who mends it
        while not ended.wait(AGAIN_S):
            with contextlib.suppress(OSError):
                make()

    make()
    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        undo()


def row_gone(table: Table[Any, Any], key: object) -> Made:
    old = table.get(key)
    assert old is not None
    return held(lambda: table.delete(key), lambda: table.put(key, old))


def row_wrong(table: Table[Any, Any], key: object, **changed: object) -> Made:
    old = table.get(key)
    assert old is not None
    return held(lambda: table.put(key, replace(old, **changed)), lambda: table.put(key, old))


@contextlib.contextmanager
def commands(scene: Scene, node: str, make: str, undo: str) -> Iterator[None]:
    """Two shell lines."""
    scene.on(node, "sh", "-ec", make)
    try:
        yield
    finally:
        scene.on(node, "sh", "-ec", undo)


@contextlib.contextmanager
def inside(container: Container, make: str, undo: str) -> Iterator[None]:
    container.run("sh", "-ec", make)
    try:
        yield
    finally:
        container.run("sh", "-ec", undo)


def channel(scene: Scene, node: str) -> Channel:
    with netns.inside(f"/proc/{scene.pairs.lab.pid(node)}/ns/net"):
        return Channel()


def index(scene: Scene, container: Container) -> int:
    return int(json.loads(scene.on(container.node, "ip", "-j", "link", "show", container.link))[0]["ifindex"])


def address(container: Container) -> IPv4Address:
    return IPv4Address(container.address)


# ---- means --------------------------------------------------------------------------------------------------------


def blocked(source: str, target: str) -> Make:
    """The switch between the hosts swallows tunnel packets of one direction."""

    def make(scene: Scene) -> Made:
        match = f"ip saddr {scene.pairs.underlay(source)} ip daddr {scene.pairs.underlay(target)} udp dport 64000 drop"
        chain = "{ type filter hook forward priority 0; }"
        rule = f"nft 'add table bridge fault; add chain bridge fault f {chain}; add rule bridge fault f {match}'"
        return commands(scene, "lan", rule, "nft delete table bridge fault")

    return make


def filtered(scene: Scene) -> Made:
    """Somebody's own filter: a program of one instruction, which returns 2, TC_ACT_SHOT."""
    place = f"dev {scene.a.link} ingress priority 1 protocol all"
    return commands(scene, "n1", f"tc filter add {place} bpf da bytecode '1,6 0 0 2,'", f"tc filter delete {place}")


def narrow(scene: Scene) -> Made:
    return commands(scene, "lan", "ip link set n2 mtu 1300", "ip link set n2 mtu 1500")


@contextlib.contextmanager
def underlay_down(scene: Scene) -> Iterator[None]:
    gateway = scene.on("n2", "ip", "route", "show", "default").strip()
    up = f"ip link set eth0 up; ip route replace {gateway}"
    with commands(scene, "n2", "ip link set eth0 down", up):
        yield
    wait_for("n2 answers again", lambda: not scene.pairs.lab.api("/v1/drops")["silent"])


def wrong_neighbour(scene: Scene) -> Made:
    """The controller's MAC: a switch takes the packet there."""
    other = scene.pairs.underlay("n2")
    mac = json.loads(scene.on("controller", "ip", "-j", "link", "show", "eth0"))[0]["address"]
    bad = f"ip neighbour replace {other} lladdr {mac} dev eth0 nud permanent"
    return commands(scene, "n1", bad, f"ip neighbour delete {other} dev eth0")


def no_route_out(scene: Scene) -> Made:
    gateway = scene.on("n1", "ip", "route", "show", "default").strip()
    return asked_of(OUTSIDE, commands(scene, "n1", "ip route delete default", f"ip route replace {gateway}"))


def not_forwarding(scene: Scene) -> Made:
    """The agent would turn it on again at once, so it is kept from it: no write passes the mount."""
    file = "/proc/sys/net/ipv4/conf/hr-host/forwarding"
    made = commands(scene, "n1", f"echo 0 >{file}; mount --bind -o ro {file} {file}", f"umount {file}; echo 1 >{file}")
    return asked_of(OUTSIDE, made)


@contextlib.contextmanager
def asked_of(address: str, made: Made) -> Iterator[str]:
    """The fault, and whom it is asked about instead of the usual one."""
    with made:
        yield address


def toward(address: str) -> Make:
    """Nothing is broken: it is asked about somebody else."""
    return lambda scene: contextlib.nullcontext(address)


def not_accepting(scene: Scene) -> Made:
    stack = contextlib.ExitStack()
    stack.enter_context(scene.b.serving(accept=False))
    words = ["nsenter", f"--net={scene.a.netns}", sys.executable, "-c", CALLER, scene.b.address]
    stack.enter_context(scene.pairs.process("n1", words))
    return stack


@contextlib.contextmanager
def stopped(scene: Scene) -> Iterator[None]:
    with scene.b.serving() as pid:
        scene.on("n2", "kill", "-STOP", str(pid))
        yield


def nothing(scene: Scene) -> Made:
    return contextlib.nullcontext()


def on_loopback(scene: Scene) -> Made:
    return scene.b.serving(PORT + 1, "127.0.0.1")


@contextlib.contextmanager
def ended(scene: Scene) -> Iterator[str]:
    """A container that is gone, and whose engine has not said so."""
    with contextlib.ExitStack() as life:
        gone = scene.pairs.container("n2", "blue", life)
        scene.on("n2", "kill", "-KILL", str(gone.pid))
        wait_for("its link is gone", lambda: gone.link not in scene.on("n2", "ip", "-br", "link"))
        yield gone.address


def firewall(which: str, hook: str, verdict: str = "drop") -> Make:
    chain = f"{{ type filter hook {hook} priority 0; }}"
    words = f"add table inet own; add chain inet own x {chain}; add rule inet own x tcp dport {PORT} {verdict}"
    return lambda scene: inside(getattr(scene, which), f"nft '{words}'", "nft delete table inet own")


def broken(which: str, command: str) -> Make:
    """`command` is a shell line inside a container, in which ADDRESS stands for its address."""

    def make(scene: Scene) -> Made:
        container: Container = getattr(scene, which)
        shown = container.run("sh", "-ec", "ip route show; ip -6 route show").splitlines()
        lines = [line for line in shown if "proto kernel" not in line]
        mac = json.loads(container.run("ip", "-j", "link", "show", "eth0"))[0]["address"]
        whole = [f"ip link set eth0 address {mac} up", f"ip address replace {container.address}/32 dev eth0"]
        whole += [f"ip address replace {container.address6}/128 dev eth0 nodad"] if container.address6 else []
        # The gateway's own route comes before those that lead by it.
        whole += [f"ip route replace {line}" for line in sorted(lines, key=lambda line: " via " in line)]
        return inside(container, command.replace("ADDRESS", container.address), "; ".join(whole))

    return make


def link_down(scene: Scene) -> Made:
    way, link = channel(scene, "n1"), index(scene, scene.a)
    down = Request("down", netlink.SETLINK, 0, netlink.link_head(link, 0, netlink.IFF_UP))
    return held(lambda: way.send(down), lambda: way.send(netlink.set_up(link)))


def program_gone(scene: Scene) -> Made:
    way, link = channel(scene, "n1"), index(scene, scene.a)
    return held(lambda: way.send(netlink.delete_program(link)), lambda: None)


def prefix(scene: Scene, node: str, container: Container, **changed: object) -> Made:
    """The row that leads to a container's block from the other host; without changes it is taken away."""
    table, block = scene.maps[node].prefixes, IPv4Network(f"{container.address}/24", strict=False)
    return row_wrong(table, block, **changed) if changed else row_gone(table, block)


def elsewhere(scene: Scene) -> Made:
    template = tunnel_template(scene.pairs.underlay("n1"), STRANGER, 64000)
    return prefix(scene, "n1", scene.b, agent=STRANGER, template=template, next_hop=STRANGER)


def settings_gone(node: str) -> Make:
    def make(scene: Scene) -> Made:
        raw = scene.maps[node].host.raw
        old = raw.get(bytes(4))
        assert old is not None
        return held(lambda: raw.put(bytes(4), bytes(raw.value_size)), lambda: raw.put(bytes(4), old))

    return make


def allowed_gone(node: str) -> Make:
    """From green to blue."""

    def make(scene: Scene) -> Made:
        vnis = {row["name"]: row["vni"] for row in scene.pairs.lab.api("/v1/networks")["networks"]}
        return row_gone(scene.maps[node].allowed, AllowKey(vnis["green"], vnis["blue"]))

    return make


def port_row(**changed: object) -> Make:
    def make(scene: Scene) -> Made:
        table, key = scene.maps["n1"].ports, index(scene, scene.a)
        return row_wrong(table, key, **changed) if changed else row_gone(table, key)

    return make


def endpoint_row(which: str, **changed: object) -> Make:
    def make(scene: Scene) -> Made:
        container: Container = getattr(scene, which)
        table, key = scene.maps[container.node].endpoints, address(container)
        return row_wrong(table, key, **changed) if changed else row_gone(table, key)

    return make


# ---- the table ----------------------------------------------------------------------------------------------------

FAULTS = (
    Fault("nothing listens", nothing, "port", "nothing listens on 8000/tcp", serves=False),
    Fault("listens on loopback only", on_loopback, "port", "listens on 127.0.0.1:8001 only", ":8001", serves=False),
    Fault("the program is stopped", stopped, "port", "is stopped", serves=False),
    Fault("the program takes no connections", not_accepting, "port", "does not take its connections", serves=False),
    Fault("the container has ended", ended, "receiver", "is gone from n2", serves=False),
    Fault("its firewall drops", firewall("b", "input"), "inside", r"own firewall drops it \(inet own, chain x"),
    Fault("its firewall refuses", firewall("b", "input", "reject"), "inside", "which refuses it"),
    Fault("the source's firewall drops", firewall("a", "output"), "sender", "does not let the packet out"),
    Fault("its interface is down", broken("b", "ip link set eth0 down"), "inside", "is down"),
    Fault(
        "its address is gone", broken("b", "ip address delete ADDRESS/32 dev eth0"), "inside", "not have the address"
    ),
    Fault("it has no way back", broken("b", "ip route flush table main"), "inside", "has no route"),
    Fault("the source's address is gone", broken("a", "ip address delete ADDRESS/32 dev eth0"), "sender", "address"),
    Fault("the source has no route", broken("a", "ip route flush table main"), "sender", "has no route"),
    Fault("a blackhole in the source", broken("a", "ip route replace blackhole 10.64.0.0/16"), "sender", "blackhole"),
    Fault("the source's MAC is another", broken("a", "ip link set eth0 address 02:00:00:00:00:77"), "sender", "MAC"),
    Fault("the link is down", link_down, "link", "is down on n1"),
    Fault("the program is detached", program_gone, "link", "no program"),
    Fault("another filter drops", filtered, "link", r"another filter \(bpf, priority 1\)"),
    Fault("no row lets it send", port_row(), "link", "lacks the row that lets"),
    Fault("its row has another MAC", port_row(mac=OTHER_MAC), "link", "should have MAC"),
    Fault("its row has another network", port_row(vni=4097, group=4097), "link", "should have network blue"),
    Fault("no settings", settings_gone("n1"), "link", "no settings"),
    Fault("no settings there", settings_gone("n2"), "arrival", "no settings"),
    Fault("no prefix leads there", lambda s: prefix(s, "n1", s.b), "way", "does not lead"),
    Fault("the prefix leads elsewhere", elsewhere, "way", "to 192.168.78.77"),
    Fault("the prefix has another VNI", lambda s: prefix(s, "n1", s.b, vni=4097), "back", "into VNI 4097"),
    Fault("no prefix leads back", lambda s: prefix(s, "n2", s.a), "arrival", "n2 does not lead"),
    Fault("no row leads to it", endpoint_row("b"), "receiver", "lacks the row"),
    Fault("its row leads elsewhere", endpoint_row("b", ifindex=1), "receiver", "n2 leads"),
    Fault("no row leads to the source", endpoint_row("a"), "back", "n1 lacks"),
    Fault("the tunnel's port is blocked", blocked("n1", "n2"), "underlay", "from n1 to n2 is blocked"),
    Fault("it is blocked on the way back", blocked("n2", "n1"), "back", "from n2 to n1 is blocked"),
    Fault("the path is too narrow", narrow, "underlay", "large packets"),
    Fault(
        "the other host's link is down",
        underlay_down,
        "underlay",
        "n1 (gets no answer from 192.168.78.2|does not reach n2)",
    ),
    Fault("the neighbour's MAC is another", wrong_neighbour, "underlay", "to the MAC"),
    Fault("networks that may not talk", nothing, "wall", "neither blue nor red", who="ad", code=5),
    Fault("a port that nothing opens", nothing, "wall", "opens 9000/tcp", who="dc", code=5),
    Fault("a service of its host", toward("192.168.78.1"), "wall", "nothing of its own host", ":22", code=5),
    Fault("a service of another host", toward("192.168.78.2"), "wall", "nothing of another host", ":22", code=5),
    Fault("no route out", no_route_out, "way", "n1 has no route to 203.0.113.1", ":80"),
    Fault("the host does not forward", not_forwarding, "way", "does not forward", ":80"),
    Fault("nobody is there outside", toward("203.0.113.99"), "back", "no answer comes from 203.0.113.99", ""),
    Fault("no row allows it", allowed_gone("n1"), "wall", "the map of n1 does not", who="cb"),
    Fault("no row allows it there", allowed_gone("n2"), "arrival", "the map of n2 does not", who="cb"),
)
