"""The firewall: what passes between containers and everything that is no network of ours. Pure: rules as text.

Between endpoints the data path judges, in eBPF, before any of this. The table is for the host's own stack: what
containers may say to their host and to other hosts, what leaves and how it is masqueraded, who may speak VXLAN. What a
container may not is answered at once (a reset, or ICMP admin-prohibited); what strangers send is dropped. The hooks
stand ten before the usual ones, so that our answer comes before another table's silence.

Containers' packets come in by `hr-host`, to which the data path hands what it lets pass, and by it the host reaches its
containers. On any other link of ours only packets come in that met no program: they are dropped.

What the table lets pass to a container, or out of one, carries JUDGED_MARK from then on. The data path takes nothing
for a container from its host's stack without it: while somebody has flushed all rules, nothing comes in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hedgerow.errors import BadInput
from hedgerow.model.endpoint import LINK_MARK, Address
from hedgerow.model.network import DNS_ADDRESS, Network

TABLE = "hedgerow"
HOST_LINK = f"{LINK_MARK}host"
JUDGED_MARK = 0x00480000
"""Bits of a packet's mark. Others' bits stay as they are."""
_MARKED = f"meta mark set meta mark or {JUDGED_MARK:#010x}"

API_PORT = 8443
"""Where controllers serve their API to other machines, by TLS."""

METADATA4, METADATA6 = IPv4Address("169.254.169.254"), IPv6Address("fd00:ec2::254")
"""Where clouds tell a machine who it is, and give it its keys."""

COUNTERS = {
    "no_program": "A container's packet met no program on its link; the agent puts it back within seconds.",
    "host_service": "A container called a service of its host; it may DNS, ping and what host_services names.",
    "cluster_host": "A container called another host of the cluster; ping is all that it may.",
    "other_engine": "A container called into a bridge of its host, such as Docker's own network.",
    "no_way_out": "A container called an address that no route of its network leads to: link-local, or of another one, "
    "or a cloud's metadata.",
    "internal_out": "A container of an internal network called the outside.",
    "unpublished": "Something outside called a container that is not published.",
    "too_many_flows": "A container began more new connections than its share of its host's table of them.",
    "borrowed_source": "A packet from outside bore the address of a container.",
    "tunnel_stranger": "VXLAN from a host that is no agent, or on a wrong link, or to a wrong address.",
    "tunnel_local": "A process of this host tried to speak VXLAN.",
    "tunnel_forwarded": "Something behind this host, such as another engine's container, sent VXLAN to an agent.",
}
"""Named counters of the table: why a packet was dropped."""


def ruleset(
    *,
    networks: Iterable[Network],
    agents: Iterable[Address],
    underlay: Address,
    link: str,
    tunnel_port: int,
    controllers: Iterable[Address] = (),
    hosts: Iterable[Address] = (),
) -> str:
    """The whole table `inet hedgerow` for `nft -f -`; one transaction, which replaces the one that is there.

    `agents` are the underlay addresses of all agents, this one's (`underlay`, on `link`) among them; `controllers`
    are hosts of the cluster that send no tunnel packets, `hosts` further addresses of the cluster's hosts. Raises
    BadInput for a link whose name no rule can hold.
    """
    known, controlling = set(agents), set(controllers)
    every = [network for network in networks if network.spec.enabled]
    parts = [
        *(f"counter {name} {{ }}" for name in COUNTERS),
        *_addresses("agents", known),
        *_addresses("hosts", {*known, *controlling, *hosts}),
        *_addresses("controllers", controlling),
        *_subnets("networks", every),
        *_subnets("internal", [network for network in every if network.spec.internal]),
        *_subnets("api", [network for network in every if _offers(network, "api")]),
        *_subnets("metadata", [network for network in every if _offers(network, "metadata")]),
        *_services(every),
        _tunnel(underlay, _quoted(link), tunnel_port),
        _LIMITED,
        _FROM_CONTAINERS,
        _forward(_quoted(link), tunnel_port),
        _PUBLISHED,
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


def _set(name: str, kind: str, elements: Iterable[str]) -> str:
    listed = ", ".join(elements)
    filled = f"; elements = {{ {listed} }}" if listed else ""
    return f"set {name} {{ type {kind}{filled}; }}"


def _addresses(name: str, addresses: Iterable[Address]) -> Iterator[str]:
    """A set for each IP version; that of IPv6 has the name with a 6."""
    ordered = sorted(addresses, key=lambda each: (each.version, each))
    yield _set(name, "ipv4_addr", [str(each) for each in ordered if each.version == 4])
    yield _set(f"{name}6", "ipv6_addr", [str(each) for each in ordered if each.version == 6])


def _subnets(name: str, networks: Iterable[Network]) -> Iterator[str]:
    known = list(networks)
    for suffix, subnets in (("", _of4(known)), ("6", _of6(known))):
        kind = f"ipv{suffix or 4}_addr; flags interval"
        yield _set(f"{name}{suffix}", kind, map(str, sorted(subnets)))


def _of4(networks: Iterable[Network]) -> list[IPv4Network]:
    return [network.spec.subnet for network in networks if network.spec.subnet is not None]


def _of6(networks: Iterable[Network]) -> list[IPv6Network]:
    return [network.spec.subnet6 for network in networks if network.spec.subnet6 is not None]


def _offers(network: Network, service: str) -> bool:
    return any(each.service == service for each in network.spec.host_services)


def _services(networks: Iterable[Network]) -> Iterator[str]:
    """Ports of their own host that a network's containers may reach."""
    found4, found6 = set(), set()
    for network in networks:
        for service in network.spec.host_services:
            if service.service == "port":
                found4 |= {f"{subnet} . {service.protocol} . {service.port}" for subnet in _of4([network])}
                found6 |= {f"{subnet} . {service.protocol} . {service.port}" for subnet in _of6([network])}
    for suffix, found in (("", found4), ("6", found6)):
        kind = f"ipv{suffix or 4}_addr . inet_proto . inet_service; flags interval"
        yield _set(f"host_services{suffix}", kind, sorted(found))


def _quoted(link: str) -> str:
    if '"' in link or "*" in link:
        raise BadInput(f"a link called {link} cannot be named in a firewall rule", "rename the link")
    return f'"{link}"'


def _tunnel(underlay: Address, link: str, port: int) -> str:
    """The tunnel is kept out of connection tracking, which would cost two look-ups a packet and tell nothing.

    The sender's socket tells the kernel's VXLAN (no owner) from a local process, that of a host-network container too.
    """
    ip, agents = ("ip", "@agents") if underlay.version == 4 else ("ip6", "@agents6")
    return f"""
chain untracked_in {{
	type filter hook prerouting priority raw; policy accept;
	iifname {link} udp dport {port} {ip} saddr {agents} {ip} daddr {underlay} notrack
}}
chain untracked_out {{
	type filter hook output priority raw; policy accept;
	udp dport {port} {ip} daddr {agents} notrack
}}
chain input {{
	type filter hook input priority filter - 10; policy accept;
	udp dport {port} goto tunnel
}}
chain tunnel {{
	iifname {link} {ip} saddr {agents} {ip} daddr {underlay} accept
	counter name tunnel_stranger drop
}}
chain output {{
	type filter hook output priority filter - 10; policy accept;
	udp dport {port} meta skuid 0-4294967294 counter name tunnel_local drop
	ip daddr @networks {_MARKED}
	ip6 daddr @networks6 {_MARKED}
}}"""


# Judged before anybody's DNAT, so that a port which Docker publishes on this host is a service of the host as well.
# Advertisements of neighbours are the data path's own answers: it lets none of a container's pass.
_FROM_CONTAINERS = f"""
chain unjudged {{
	type filter hook prerouting priority raw - 10; policy accept;
	iifname "{LINK_MARK}*" iifname != "{HOST_LINK}" counter name no_program drop
}}
chain from_containers {{
	type filter hook prerouting priority mangle - 10; policy accept;
	iifname != "{HOST_LINK}" ip saddr @networks fib saddr oifname "{HOST_LINK}" counter name borrowed_source drop
	iifname != "{HOST_LINK}" ip6 saddr @networks6 fib saddr oifname "{HOST_LINK}" counter name borrowed_source drop
	iifname "{HOST_LINK}" fib daddr type != unicast goto to_host
}}
chain to_host {{
	ct state established,related accept
	jump limited
	icmp type echo-request accept
	icmpv6 type {{ echo-request, nd-neighbor-advert }} accept
	ip daddr {DNS_ADDRESS} meta l4proto {{ tcp, udp }} th dport 53 accept
	ip saddr . meta l4proto . th dport @host_services accept
	ip6 saddr . meta l4proto . th dport @host_services6 accept
	ip saddr @api ip daddr @controllers tcp dport {API_PORT} accept
	ip6 saddr @api6 ip6 daddr @controllers6 tcp dport {API_PORT} accept
	counter name host_service goto refuse
}}
chain refuse {{
	meta l4proto tcp reject with tcp reset
	reject with icmpx admin-prohibited
}}"""


def _limit(ip: str, version: int) -> str:
    fast = f"{ip} saddr limit rate over {FLOWS_A_SECOND}/second burst {FLOWS_AT_ONCE} packets"
    many = f"{ip} saddr ct count over {FLOWS_MORE}"
    return (
        f"\tct state new update @{FLOWS}_rate{version} {{ {fast} }} add @{FLOWS}{version} {{ {many} }} "
        "counter name too_many_flows goto refuse"
    )


PUBLISHED, PUBLISHED_AT, PUBLISHED_TO = "published", "published_at", "published_to"
"""Names of maps and sets, to which the IP version is added. Their elements are rows of their own, written by whoever
publishes: a container that starts does not wait for the whole table.
"""

FLOWS = "flows"
"""Begins the names of sets that packets fill."""

NOT_OF_THE_TEXT = (PUBLISHED, FLOWS)
"""How the names of sets and maps begin whose elements the table's text does not have."""

FLOWS_A_SECOND, FLOWS_AT_ONCE, FLOWS_MORE = 500, 5000, 8192

# A source's new flows are counted only above a rate, since counting goes over all of them, and an honest proxy has many
# that have just ended. Without a limit one container could fill the host's table of connections.
_LIMITED = f"""
set {FLOWS}_rate4 {{ type ipv4_addr; size 16384; flags dynamic, timeout; timeout 1m; }}
set {FLOWS}_rate6 {{ type ipv6_addr; size 16384; flags dynamic, timeout; timeout 1m; }}
set {FLOWS}4 {{ type ipv4_addr; size 16384; flags dynamic; }}
set {FLOWS}6 {{ type ipv6_addr; size 16384; flags dynamic; }}
chain limited {{
{_limit("ip", 4)}
{_limit("ip6", 6)}
}}"""

# Of what comes from outside only: a container that calls a port of its host calls a service of the host. And only what
# is for this host: the port alone says nothing about whose packet it is (CVE-2025-67499). Behind others' rules, which
# so are never shadowed. Not at 127.0.0.0/8, where no answer would find back.
_PUBLISHED = f"""
map {PUBLISHED}4 {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
map {PUBLISHED}6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
map {PUBLISHED_AT}4 {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
map {PUBLISHED_AT}6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
set {PUBLISHED_TO}4 {{ type ipv4_addr . inet_proto . inet_service; }}
set {PUBLISHED_TO}6 {{ type ipv6_addr . inet_proto . inet_service; }}
chain published_from_outside {{
	type nat hook prerouting priority dstnat + 10; policy accept;
	iifname != "{LINK_MARK}*" fib daddr type local goto to_published
}}
chain published_from_host {{
	type nat hook output priority -90; policy accept;
	ip daddr != 127.0.0.0/8 oifname "lo" goto to_published
	ip6 daddr != ::1 oifname "lo" goto to_published
}}
chain to_published {{
	dnat ip to ip daddr . meta l4proto . th dport map @{PUBLISHED_AT}4
	dnat ip to meta l4proto . th dport map @{PUBLISHED}4
	dnat ip6 to ip6 daddr . meta l4proto . th dport map @{PUBLISHED_AT}6
	dnat ip6 to meta l4proto . th dport map @{PUBLISHED}6
}}"""


def _forward(link: str, port: int) -> str:
    """A bridge is some other engine's network, unless it is the underlay's link."""
    return f"""
chain forward {{
	type filter hook forward priority filter - 10; policy accept;
	udp dport {port} ip daddr @agents counter name tunnel_forwarded drop
	udp dport {port} ip6 daddr @agents6 counter name tunnel_forwarded drop
	iifname "{HOST_LINK}" goto leaving
	oifname "{HOST_LINK}" goto entering
}}
chain leaving {{
	ip saddr @internal counter name internal_out goto refuse
	ip6 saddr @internal6 counter name internal_out goto refuse
	ct state established ct direction reply ct status dnat goto judged
	ip daddr @hosts icmp type {{ echo-request, echo-reply }} goto judged
	ip6 daddr @hosts6 icmpv6 type {{ echo-request, echo-reply }} goto judged
	ip saddr @api ip daddr @controllers tcp dport {API_PORT} goto judged
	ip6 saddr @api6 ip6 daddr @controllers6 tcp dport {API_PORT} goto judged
	ip daddr @hosts counter name cluster_host goto refuse
	ip6 daddr @hosts6 counter name cluster_host goto refuse
	meta oifkind "bridge" oifname != {link} counter name other_engine goto refuse
	ct state established,related goto judged
	ip daddr @networks counter name no_way_out goto refuse
	ip6 daddr @networks6 counter name no_way_out goto refuse
	ip saddr @metadata ip daddr {METADATA4} goto judged
	ip6 saddr @metadata6 ip6 daddr {METADATA6} goto judged
	ip daddr 169.254.0.0/16 counter name no_way_out goto refuse
	ip6 daddr {{ fe80::/10, {METADATA6} }} counter name no_way_out goto refuse
	jump limited
	goto judged
}}
chain entering {{
	ct state established,related goto judged
	ct status dnat ip daddr . meta l4proto . th dport @{PUBLISHED_TO}4 goto judged
	ct status dnat ip6 daddr . meta l4proto . th dport @{PUBLISHED_TO}6 goto judged
	counter name unpublished goto refuse
}}
chain judged {{
	{_MARKED} accept
}}"""


def _masquerade(tunnel_port: int) -> str:
    low, high = masquerade_ports(tunnel_port)
    leaves = f'oifname != "{HOST_LINK}" ip saddr @networks ip daddr != @networks'
    leaves6 = f'oifname != "{HOST_LINK}" ip6 saddr @networks6 ip6 daddr != @networks6'
    return f"""
chain source_nat {{
	type nat hook postrouting priority srcnat; policy accept;
	{leaves} meta l4proto udp masquerade to :{low}-{high}
	{leaves} masquerade
	{leaves6} meta l4proto udp masquerade to :{low}-{high}
	{leaves6} masquerade
}}"""
