"""The firewall: what passes between containers and everything that is no network of ours. Pure: rules as text.

Between endpoints the data path judges, in eBPF, before any of this. The table is for the host's own stack: what
containers may say to their host and to other hosts, what leaves and how it is masqueraded, who may speak VXLAN. What a
container may not is answered at once (a reset, or ICMP admin-prohibited); what strangers send is dropped. The hooks
stand ten before the usual ones, so that our answer comes before another table's silence.

Containers' packets come in by `hr-host`, to which the data path hands what it lets pass, and by it the host reaches its
containers. On any other link of ours only packets come in that met no program: they are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from hedgerow.errors import BadInput
from hedgerow.model.endpoint import LINK_MARK
from hedgerow.model.network import DNS_ADDRESS, Network

TABLE = "hedgerow"
HOST_LINK = f"{LINK_MARK}host"

COUNTERS = {
    "no_program": "A container's packet met no program on its link; the agent puts it back within seconds.",
    "host_service": "A container called a service of its host; DNS and ping are all that it may.",
    "cluster_host": "A container called another host of the cluster; ping is all that it may.",
    "other_engine": "A container called into a bridge of its host, such as Docker's own network.",
    "no_way_out": "A container called an address that no route of its network leads to: link-local, or of another one.",
    "internal_out": "A container of an internal network called the outside.",
    "ipv6_out": "A container sent IPv6 out of its network.",
    "unpublished": "Something outside called a container that is not published.",
    "borrowed_source": "A packet from outside bore the address of a container.",
    "tunnel_stranger": "VXLAN from a host that is no agent, or on a wrong link, or to a wrong address.",
    "tunnel_local": "A process of this host tried to speak VXLAN.",
    "tunnel_forwarded": "Something behind this host, such as another engine's container, sent VXLAN to an agent.",
}
"""Named counters of the table: why a packet was dropped."""


def ruleset(
    *,
    networks: Iterable[Network],
    agents: Iterable[IPv4Address],
    underlay: IPv4Address,
    link: str,
    tunnel_port: int,
    controllers: Iterable[IPv4Address] = (),
) -> str:
    """The whole table `inet hedgerow` for `nft -f -`; one transaction, which replaces the one that is there.

    `agents` are the underlay addresses of all agents, this one's (`underlay`, on `link`) among them; `controllers`
    are hosts of the cluster that send no tunnel packets. Raises BadInput for a link whose name no rule can hold.
    """
    known = set(agents)
    every = sorted((n.spec.subnet, n.spec.internal) for n in networks if n.spec.enabled and n.spec.subnet is not None)
    parts = [
        *(f"counter {name} {{ }}" for name in COUNTERS),
        _set("agents", "ipv4_addr", sorted(known)),
        _set("hosts", "ipv4_addr", sorted({*known, *controllers})),
        _set("networks", "ipv4_addr; flags interval", [subnet for subnet, _ in every]),
        _set("internal", "ipv4_addr; flags interval", [subnet for subnet, internal in every if internal]),
        _tunnel(underlay, _quoted(link), tunnel_port),
        _FROM_CONTAINERS,
        _forward(_quoted(link), tunnel_port),
        _masquerade(tunnel_port),
    ]
    body = "\n".join(parts).replace("\n", "\n\t")
    return f"table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n\t{body}\n}}\n"


def masquerade_ports(tunnel_port: int) -> tuple[int, int]:
    """Source ports for masqueraded UDP: the wider side of the tunnel's port.

    From the tunnel's own port a container's packet would look like an agent's, and the answer would go to the VXLAN
    device.
    """
    below, above = (1024, tunnel_port - 1), (tunnel_port + 1, 65535)
    return below if below[1] - below[0] >= above[1] - above[0] else above


def _set(name: str, kind: str, elements: list[IPv4Address] | list[IPv4Network]) -> str:
    filled = f"; elements = {{ {', '.join(map(str, elements))} }}" if elements else ""
    return f"set {name} {{ type {kind}{filled}; }}"


def _quoted(link: str) -> str:
    if '"' in link or "*" in link:
        raise BadInput(f"a link called {link} cannot be named in a firewall rule", "rename the link")
    return f'"{link}"'


def _tunnel(underlay: IPv4Address, link: str, port: int) -> str:
    """The tunnel is kept out of connection tracking, which would cost two look-ups a packet and tell nothing.

    The sender's socket tells the kernel's VXLAN (no owner) from a local process, that of a host-network container too.
    """
    return f"""
chain untracked_in {{
	type filter hook prerouting priority raw; policy accept;
	iifname {link} udp dport {port} ip saddr @agents ip daddr {underlay} notrack
}}
chain untracked_out {{
	type filter hook output priority raw; policy accept;
	udp dport {port} ip daddr @agents notrack
}}
chain input {{
	type filter hook input priority filter - 10; policy accept;
	udp dport {port} goto tunnel
}}
chain tunnel {{
	iifname {link} ip saddr @agents ip daddr {underlay} accept
	counter name tunnel_stranger drop
}}
chain output {{
	type filter hook output priority filter - 10; policy accept;
	udp dport {port} meta skuid 0-4294967294 counter name tunnel_local drop
}}"""


# Judged before anybody's DNAT, so that a port which Docker publishes on this host is a service of the host as well.
_FROM_CONTAINERS = f"""
chain unjudged {{
	type filter hook prerouting priority raw - 10; policy accept;
	iifname "{LINK_MARK}*" iifname != "{HOST_LINK}" counter name no_program drop
}}
chain from_containers {{
	type filter hook prerouting priority mangle - 10; policy accept;
	iifname != "{HOST_LINK}" ip saddr @networks fib saddr oifname "{HOST_LINK}" counter name borrowed_source drop
	iifname "{HOST_LINK}" fib daddr type != unicast goto to_host
}}
chain to_host {{
	ct state established,related accept
	icmp type echo-request accept
	ip daddr {DNS_ADDRESS} meta l4proto {{ tcp, udp }} th dport 53 accept
	counter name host_service goto refuse
}}
chain refuse {{
	meta l4proto tcp reject with tcp reset
	reject with icmpx admin-prohibited
}}"""


def _forward(link: str, port: int) -> str:
    """A bridge is some other engine's network, unless it is the underlay's link."""
    return f"""
chain forward {{
	type filter hook forward priority filter - 10; policy accept;
	udp dport {port} ip daddr @agents counter name tunnel_forwarded drop
	iifname "{HOST_LINK}" goto leaving
	oifname "{HOST_LINK}" goto entering
}}
chain leaving {{
	ip saddr @internal counter name internal_out goto refuse
	meta nfproto ipv6 counter name ipv6_out goto refuse
	ip daddr @hosts icmp type {{ echo-request, echo-reply }} accept
	ip daddr @hosts counter name cluster_host goto refuse
	meta oifkind "bridge" oifname != {link} counter name other_engine goto refuse
	ct state established,related accept
	ip daddr @networks counter name no_way_out goto refuse
	ip daddr 169.254.0.0/16 counter name no_way_out goto refuse
}}
chain entering {{
	ct state established,related accept
	counter name unpublished goto refuse
}}"""


def _masquerade(tunnel_port: int) -> str:
    low, high = masquerade_ports(tunnel_port)
    leaves = f'ip saddr @networks ip daddr != @networks oifname != "{HOST_LINK}"'
    return f"""
chain source_nat {{
	type nat hook postrouting priority srcnat; policy accept;
	{leaves} meta l4proto udp masquerade to :{low}-{high}
	{leaves} masquerade
}}"""
