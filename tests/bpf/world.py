"""Three hosts, three networks, and what an agent does for each endpoint, with nothing but the data path's own code.

A host is a network namespace with an `eth0` on a common bridge (the underlay; the bridge's namespace is the outside
world). A container is a namespace with one interface, `eth0`, as an engine would make it. dev and prod are walled off
from each other; lone is internal.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2 import netns as namespaces

from hedgerow.kernel import bpf, netns
from hedgerow.kernel.flows import ALLOW_BOTH, AllowKey
from hedgerow.kernel.maps import (
    GATEWAY_MAC,
    TUNNEL_OVERHEAD_BYTES,
    AgentRow,
    ConfigFlag,
    EndpointRow,
    HostConfig,
    IPAddress,
    IPPrefix,
    Maps,
    Port,
    PortFlag,
    PrefixKind,
    PrefixRow,
    Reason,
    tunnel_template,
)
from hedgerow.model.endpoint import LINK_MARK, mac_of
from hedgerow.model.network import DNS_ADDRESS, GATEWAYS

TUNNEL_PORT = 64000
JUDGED_MARK = 0x00480000
UNDERLAY_MTU = 1500
VTEPS, VTEPS6 = IPv4Network("44.128.0.0/20"), IPv6Network("fd01:a::/64")
NEXT_HOP = "169.254.0.1"
"""Any address will do: ARP on hr-host is answered for all of them."""
OUTSIDE = IPv4Address("192.168.77.200")
GATEWAY6 = IPv6Address("fe80::1")


def mac_text(mac: bytes) -> str:
    return mac.hex(":")


def run(*words: object) -> str:
    return subprocess.run([str(word) for word in words], check=True, text=True, stdout=subprocess.PIPE).stdout


@dataclass(frozen=True)
class Network:
    name: str
    vni: int
    subnet: IPv4Network
    subnet6: IPv6Network
    flags: PortFlag = PortFlag.NONE

    @property
    def gateway(self) -> IPv4Address:
        return GATEWAYS[self.vni - 4095]

    def prefixes(self, host: int) -> tuple[IPv4Network, IPv6Network]:
        """The part of the network that a host (1, 2, 3) owns."""
        return (
            next(itertools.islice(self.subnet.subnets(new_prefix=24), host, None)),
            next(itertools.islice(self.subnet6.subnets(new_prefix=64), host, None)),
        )


DEV = Network("dev", 4096, IPv4Network("10.1.0.0/16"), IPv6Network("fd00:1::/48"))
PROD = Network("prod", 4097, IPv4Network("10.2.0.0/16"), IPv6Network("fd00:2::/48"))
LONE = Network("lone", 4098, IPv4Network("10.3.0.0/16"), IPv6Network("fd00:3::/48"), PortFlag.INTERNAL)
NETWORKS = (DEV, PROD, LONE)


@dataclass(frozen=True)
class Endpoint:
    container: Path
    network: Network
    address: IPv4Address
    address6: IPv6Address
    link: str
    ifindex: int

    @property
    def mac(self) -> bytes:
        return mac_of(self.address)

    def of(self, version: int) -> IPAddress:
        return self.address if version == 4 else self.address6


@dataclass
class Host:
    """A host and its agent's hands. `fast`: the wanted way."""

    number: int
    mark: str
    pins: Path
    fast: bool
    object: bpf.Object = field(init=False)
    maps: Maps = field(init=False)
    ip: IPRoute = field(init=False)
    index: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.mark}-h{self.number}"

    @property
    def namespace(self) -> Path:
        return netns.named(self.name)

    @property
    def underlay(self) -> IPv4Address:
        return IPv4Address(f"192.168.77.{self.number}")

    @property
    def vtep(self) -> IPv4Address:
        return VTEPS[self.number]

    @property
    def vtep6(self) -> IPv6Address:
        return VTEPS6[self.number]

    @property
    def vtep_mac(self) -> bytes:
        return b"\x70\xb3\xd5" + self.vtep.packed[1:]

    @property
    def mac(self) -> bytes:
        """Of its underlay link."""
        (link,) = self.ip.get_links(self.index["eth0"])
        return bytes.fromhex(link.get("address").replace(":", ""))

    @property
    def mtu(self) -> int:
        return UNDERLAY_MTU - TUNNEL_OVERHEAD_BYTES

    def sysctl(self, key: str, value: str) -> None:
        """/proc/sys/net shows the namespace of the thread that opens it."""
        with netns.inside(self.namespace):
            Path("/proc/sys/net", key).write_text(value)

    def start(self) -> None:
        """What an agent does once: programs, maps, VXLAN device, host endpoint."""
        for key, value in (
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/all/rp_filter", "1"),
        ):
            self.sysctl(key, value)
        with netns.inside(self.namespace):
            self.object = bpf.Object(bpf.object_file(), self.pins)
            self.maps = Maps.open(self.object)
            self.ip = IPRoute()
        self._make_devices()
        self.judge()
        self._write_maps()
        self.attach_programs()

    def _make_devices(self) -> None:
        # The MAC is every host's gateway MAC: a container's frame goes through the tunnel unchanged and is taken for
        # this host's own at the other end.
        self.ip.link("add", ifname="hedge0", kind="vxlan", vxlan_collect_metadata=True, vxlan_port=TUNNEL_PORT,
                     vxlan_learning=False, address=mac_text(GATEWAY_MAC), mtu=self.mtu)  # fmt: skip
        self.ip.link("add", ifname="hr-host", kind="veth", address=mac_text(self.vtep_mac), mtu=self.mtu,
                     peer={"ifname": "hr-peer", "address": mac_text(GATEWAY_MAC), "mtu": self.mtu})  # fmt: skip
        for name in ("eth0", "hedge0", "hr-host", "hr-peer"):
            (self.index[name],) = self.ip.link_lookup(ifname=name)
        self.sysctl("ipv6/conf/hr-peer/disable_ipv6", "1")
        self.sysctl("ipv6/conf/hedge0/disable_ipv6", "1")
        self.sysctl("ipv6/conf/hr-host/accept_dad", "0")
        for name in ("hedge0", "hr-host", "hr-peer"):
            self.ip.link("set", index=self.index[name], state="up")
        link = self.index["hr-host"]
        for address in (self.vtep, DNS_ADDRESS, *(network.gateway for network in NETWORKS)):
            self.ip.addr("add", index=link, address=str(address), prefixlen=32)
        self.ip.addr("add", index=link, address=str(self.vtep6), prefixlen=128, family=socket.AF_INET6, flags=2)
        for network in NETWORKS:
            self.ip.route("add", dst=str(network.subnet), gateway=NEXT_HOP, oif=link, prefsrc=str(self.vtep), flags=4)
            self.ip.route("add", dst=str(network.subnet6), gateway=str(GATEWAY6), oif=link, family=socket.AF_INET6,
                          prefsrc=str(self.vtep6))  # fmt: skip

    def judge(self) -> None:
        """What an agent's firewall does: marks what the host's stack may send to a container. Here that is all."""
        chain = "chain {0} {{ type filter hook {0} priority 0; oifname hr-host meta mark set mark or 0x480000; }};"
        rules = " ".join(chain.format(hook) for hook in ("output", "forward"))
        run("ip", "netns", "exec", self.name, "nft", f"table inet judge {{ {rules} }}")

    def _write_maps(self) -> None:
        self.maps.host.put(0, HostConfig(
            tunnel_ifindex=self.index["hedge0"],
            underlay_ifindex=self.index["eth0"],
            peer_ifindex=self.index["hr-peer"],
            host_ifindex=self.index["hr-host"],
            underlay=self.underlay,
            inner_mtu_bytes=self.mtu,
            tunnel_port=TUNNEL_PORT,
            flags=ConfigFlag.FAST if self.fast else ConfigFlag.NONE,
        ))  # fmt: skip
        rows: dict[IPPrefix, PrefixRow] = {
            VTEPS: PrefixRow(PrefixKind.CLOSED, 0),
            VTEPS6: PrefixRow(PrefixKind.CLOSED, 0),
            IPv4Network(self.vtep): PrefixRow(PrefixKind.HOST, 0),
            IPv6Network(self.vtep6): PrefixRow(PrefixKind.HOST, 0),
            IPv4Network(DNS_ADDRESS): PrefixRow(PrefixKind.HOST, 0),
        }
        for network in NETWORKS:
            rows[network.subnet] = rows[network.subnet6] = PrefixRow(PrefixKind.NETWORK, network.vni)
            rows[IPv4Network(network.gateway)] = PrefixRow(PrefixKind.HOST, network.vni)
            rows |= {prefix: PrefixRow(PrefixKind.LOCAL, network.vni) for prefix in network.prefixes(self.number)}
        self.maps.prefixes.put_many(rows)
        self.maps.agents.put(self.underlay, AgentRow())
        self.maps.ports.put(self.index["hr-peer"], Port(0, PortFlag.HOST, self.vtep_mac, None, self.vtep6))

    def attach_programs(self) -> None:
        """Attaches, or replaces in one step what an earlier call attached."""
        with netns.inside(self.namespace):
            for name, program in (("hedge0", "from_tunnel"), ("eth0", "from_underlay"), ("hr-peer", "from_container")):
                bpf.attach_clsact(self.object.program(program), self.index[name])

    def meet(self, other: Host) -> None:
        """Learns another agent: that it is one, and what it owns."""
        template = tunnel_template(self.underlay, other.underlay, TUNNEL_PORT)
        next_hop = other.underlay if self.number == 1 else None  # the others ask their routes
        self.maps.agents.put(other.underlay, AgentRow())
        self.maps.prefixes.put_many({
            prefix: PrefixRow(PrefixKind.REMOTE, network.vni, other.underlay, template, next_hop)
            for network in NETWORKS
            for prefix in network.prefixes(other.number)
        })  # fmt: skip

    def attach(self, container: str, network: Network, number: int) -> Endpoint:
        """Gives a namespace its interface on a network. The maps come last: only then does a packet pass."""
        prefix, prefix6 = network.prefixes(self.number)
        address, address6 = prefix[number], prefix6[number]
        link = f"{LINK_MARK}{network.name}-{number}"
        inside = netns.named(container)
        with inside.open() as there:
            self.ip.link("add", ifname=link, kind="veth", address=mac_text(GATEWAY_MAC), mtu=self.mtu,
                         peer={"ifname": "eth0", "net_ns_fd": there.fileno(), "address": mac_text(mac_of(address)),
                               "mtu": self.mtu})  # fmt: skip
        (ifindex,) = self.ip.link_lookup(ifname=link)
        endpoint = Endpoint(inside, network, address, address6, link, ifindex)
        with netns.inside(self.namespace):
            bpf.attach_clsact(self.object.program("from_container"), ifindex)
        self.ip.link("set", index=ifindex, state="up")
        configure(endpoint)
        self.maps.ports.put(ifindex, Port(network.vni, network.flags, endpoint.mac, address, address6))
        row = EndpointRow(ifindex, network.vni, endpoint.mac, network.flags)
        self.maps.endpoints.put_many({address: row, address6: row})
        return endpoint

    def packets(self, vni: int, reason: Reason) -> int:
        return self.maps.counters().get((vni, reason), (0, 0))[0]


def configure(endpoint: Endpoint) -> None:
    """Inside the container: its addresses, and everything through the gateway."""
    with netns.inside(endpoint.container):
        ip = IPRoute()
    with ip:
        (eth0,) = ip.link_lookup(ifname="eth0")
        ip.link("set", index=1, state="up")
        ip.addr("add", index=eth0, address=str(endpoint.address), prefixlen=32)
        ip.addr("add", index=eth0, address=str(endpoint.address6), prefixlen=128, flags=2)  # no DAD
        ip.link("set", index=eth0, state="up")
        for gateway, family in ((endpoint.network.gateway, socket.AF_INET), (GATEWAY6, socket.AF_INET6)):
            scope = "link" if family == socket.AF_INET else "universe"
            ip.route("add", dst=f"{gateway}/{gateway.max_prefixlen}", oif=eth0, family=family, scope=scope)
            ip.route("add", dst="default", gateway=str(gateway), oif=eth0, family=family)


class World:
    """Endpoints a, b (host 1), c (host 2), d (host 3) on dev; p (host 1), q (host 2) on prod; l (host 1), m (host 2) on
    lone. A context manager: leaves nothing behind.
    """

    def __init__(self, *, fast: bool, hosts: int = 3) -> None:
        self.mark = f"hrt{random.randrange(16**6):06x}"
        self.bpffs = Path("/run") / f"{self.mark}-bpf"
        self.outside = netns.named(f"{self.mark}-lan")
        self.fast = fast
        self._names: list[str] = []
        self._spare = iter(range(100, 250))
        self._undo = contextlib.ExitStack()
        self.hosts = [Host(number, self.mark, self.bpffs / f"h{number}" / "v1", fast) for number in range(1, hosts + 1)]

    def __enter__(self) -> World:
        with contextlib.ExitStack() as undo:
            self._start(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _start(self, undo: contextlib.ExitStack) -> None:
        self.bpffs.mkdir()
        undo.callback(self.bpffs.rmdir)
        run("mount", "-t", "bpf", "bpf", self.bpffs)
        undo.callback(run, "umount", self.bpffs)
        undo.callback(self._remove_namespaces)
        self._make_underlay()
        for host in self.hosts:
            host.start()
            undo.callback(host.ip.close)
            undo.callback(lambda host=host: host.object.close())
        for host, other in itertools.permutations(self.hosts, 2):
            host.meet(other)
        self.one = self.hosts[0]
        if len(self.hosts) == 3:
            self._add_endpoints()

    def _add_endpoints(self) -> None:
        self.one, self.two, self.three = self.hosts
        self.a, self.b = self.endpoint(self.one, DEV, 10), self.endpoint(self.one, DEV, 11)
        self.c, self.d = self.endpoint(self.two, DEV, 10), self.endpoint(self.three, DEV, 10)
        self.p, self.q = self.endpoint(self.one, PROD, 10), self.endpoint(self.two, PROD, 10)
        self.l, self.m = self.endpoint(self.one, LONE, 10), self.endpoint(self.two, LONE, 10)

    def _make_underlay(self) -> None:
        self.namespace(self.outside.name)
        with netns.inside(self.outside):
            ip = IPRoute()
        with ip:
            ip.link("add", ifname="bridge", kind="bridge", state="up", mtu=UNDERLAY_MTU)
            (bridge,) = ip.link_lookup(ifname="bridge")
            ip.addr("add", index=bridge, address=str(OUTSIDE), prefixlen=24)
            for host in self.hosts:
                self.namespace(host.name)
                self._plug(ip, host, bridge)

    def _plug(self, ip: IPRoute, host: Host, bridge: int) -> None:
        with host.namespace.open() as there:
            ip.link("add", ifname=f"to-h{host.number}", kind="veth", mtu=UNDERLAY_MTU,
                    peer={"ifname": "eth0", "net_ns_fd": there.fileno(), "mtu": UNDERLAY_MTU})  # fmt: skip
        (index,) = ip.link_lookup(ifname=f"to-h{host.number}")
        ip.link("set", index=index, master=bridge, state="up")
        with netns.inside(host.namespace):
            inner = IPRoute()
        with inner:
            inner.link("set", index=1, state="up")
            (eth0,) = inner.link_lookup(ifname="eth0")
            inner.addr("add", index=eth0, address=str(host.underlay), prefixlen=24)
            inner.link("set", index=eth0, state="up")

    def namespace(self, name: str) -> str:
        self._names.append(name)
        namespaces.create(name)
        return name

    def _remove_namespaces(self) -> None:
        for name in reversed(self._names):
            with contextlib.suppress(FileNotFoundError):
                namespaces.remove(name)

    def spare(self) -> int:
        """The number of an endpoint that no other test uses."""
        return next(self._spare)

    def endpoint(self, host: Host, network: Network, number: int) -> Endpoint:
        return host.attach(self.namespace(f"{host.name}-{network.name}{number}"), network, number)

    @contextlib.contextmanager
    def allowed(self, one: Network, other: Network) -> Iterator[None]:
        pairs = [AllowKey(one.vni, other.vni), AllowKey(other.vni, one.vni)]
        for host in self.hosts:
            host.maps.allowed.put_many(dict.fromkeys(pairs, ALLOW_BOTH))
        try:
            yield
        finally:
            for host in self.hosts:
                host.maps.allowed.delete_many(pairs)


def slowness() -> float:
    """Of this machine, against one with KVM: scales the tests' time limits."""
    return float(os.environ.get("HEDGEROW_SLOWNESS", "1"))
