/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The walls: what a container may send, and what a tunnel may bring. Nothing here changes a packet.
 *
 * tc runs before nftables, so every check that counts is made here.
 */
#ifndef HEDGEROW_GUARD_H
#define HEDGEROW_GUARD_H

#include "drop.h"
#include "rules.h"

#include <linux/icmpv6.h>

/* What the host's firewall has judged and let pass to a container bears this. Only that table puts it on, or a program
 * that may set marks (CAP_NET_ADMIN). */
#define JUDGED_MARK 0x00480000

#define GROUP_REPORT 131
#define GROUP_LEFT 132
#define GROUP_REPORT_2 143
#define ROUTER_SOLICITATION 133 /* the first of five kinds of neighbour discovery (RFC 4861 4) */
#define REDIRECT 137            /* the last */
#define ND_HOP_LIMIT 255

/* Whether tunnel packets may come from there. */
static __always_inline int is_agent(const union addr *addr)
{
	const struct agent *host = bpf_map_lookup_elem(&agents, addr);

	return host && !(host->flags & AGENT_NO_TUNNEL);
}

static __always_inline int is_multicast(const struct packet *p)
{
	if (p->is6)
		return p->dst.bytes[0] == 0xff;
	return (p->dst.bytes[12] & 0xf0) == 224 || p->dst.words[3] == bpf_htonl(INADDR_BROADCAST);
}

static __always_inline int is_link_local(const struct packet *p, const union addr *addr)
{
	if (p->is6)
		return (addr->words[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
	return (addr->words[3] & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000);
}

/* 0.0.0.0/8, 127.0.0.0/8 and 240.0.0.0/4 (RFC 6890); the unspecified address and loopback of IPv6. */
static __always_inline int is_never_asked(const struct packet *p)
{
	if (p->is6)
		return !p->dst.halves[0] && !p->dst.words[2] && !(p->dst.words[3] & ~bpf_htonl(1));
	return p->dst.bytes[12] == 0 || p->dst.bytes[12] == 127 || p->dst.bytes[12] >= 240;
}

/* The host speaks with its VTEP's address or a gateway's; forwarded answers come from outside. Never from a cluster
 * address: containers do not send through the host's stack to each other, so that would be a stranger's packet. A
 * gateway alone has a link-local IPv6 address that counts anywhere.
 */
static __always_inline int is_source_of_host(struct packet *p)
{
	const struct prefix *prefix = find_prefix(&p->src);

	p->is_own_source = prefix != NULL;
	return prefix ? prefix->kind == PREFIX_HOST : !p->is6 || !is_link_local(p, &p->src);
}

/* Who has no IPv6 address must not be taken for `::`. */
static __always_inline int is_own_source(const struct packet *p)
{
	if (p->is6)
		return same(&p->src, &p->port->addr6) && !is_zero(&p->src);
	return same(&p->src, &p->port->addr4);
}

/* A container on several networks answers with the address that it was called at, by whichever link its routes name. It
 * is then judged as if it had sent by the other one.
 */
static __noinline int is_of_same_container(struct packet *p)
{
	const struct endpoint *other = bpf_map_lookup_elem(&endpoints, &p->src);
	const struct port *port;

	if (!other || !other->container || other->container != p->port->container)
		return 0;
	port = bpf_map_lookup_elem(&ports, &other->ifindex);
	if (!port)
		return 0;
	p->port = port;
	p->vni = port->vni;
	return 1;
}

/* Own MAC was checked; now the address, and that a firewall which somebody flushed does not let everything in. */
static __always_inline int check_source(struct __sk_buff *skb, struct packet *p)
{
	int is_host = p->port->flags & PORT_HOST;

	if (!(is_host ? is_source_of_host(p) : is_own_source(p) || is_of_same_container(p)))
		return drop(skb, p, REASON_SOURCE_ADDRESS);
	return is_host && (skb->mark & JUDGED_MARK) != JUDGED_MARK ? drop(skb, p, REASON_UNJUDGED) : GO_ON;
}

/* Neighbours and routers are answered for by neighbour.h. Who says more of them than to ask would change what others
 * know, though it speaks under its own address: an advertisement may name any. Kernels believe only what came without
 * a hop (RFC 4861 7.1), and no fragment (RFC 6980). Returns 0 or a reason.
 */
static __noinline int check_discovery(struct __sk_buff *skb, struct packet *p)
{
	__u8 hops, type;
	int reason;

	if (bpf_skb_load_bytes(skb, L3 + offsetof(struct ipv6hdr, hop_limit), &hops, 1))
		return REASON_MALFORMED;
	if (hops != ND_HOP_LIMIT)
		return 0;
	reason = skip_extensions(skb, p);
	if (reason || p->proto != IPPROTO_ICMPV6 || p->fragment)
		return reason;
	if (bpf_skb_load_bytes(skb, p->l4, &type, 1))
		return REASON_MALFORMED;
	return type >= ROUTER_SOLICITATION && type <= REDIRECT ? REASON_LINK_LOCAL : 0;
}

/* What a kernel says of itself on every link that comes up: group reports (RFC 2710, RFC 3810) and the question for
 * routers. It harms nobody and would hide what does among the counts.
 */
static __noinline int is_chatter(struct __sk_buff *skb, struct packet *p)
{
	if (!p->is6 || p->dst.bytes[1] != 2 || read_ports(skb, p) || !is_icmp(p))
		return 0;
	return p->said == GROUP_REPORT || p->said == GROUP_LEFT || p->said == GROUP_REPORT_2 ||
	       p->said == ROUTER_SOLICITATION;
}

/* A link-local IPv6 address belongs to a link, but for a gateway's, which hosts have and their containers reach. */
static __noinline int is_on_link(const struct packet *p)
{
	const struct prefix *prefix;

	if (p->port->flags & PORT_HOST)
		return is_link_local(p, &p->dst); /* the source is judged by is_source_of_host */
	if (is_link_local(p, &p->src))
		return 1;
	if (!is_link_local(p, &p->dst))
		return 0;
	prefix = find_prefix(&p->dst);
	return !prefix || prefix->kind != PREFIX_HOST;
}

/* Multicast has no group here; the host's side of a link-local IPv4 address is looked up later. */
static __always_inline int check_destination(struct __sk_buff *skb, struct packet *p)
{
	int reason;

	if (is_multicast(p))
		return is_chatter(skb, p) ? TC_ACT_SHOT : drop(skb, p, REASON_MULTICAST);
	if (is_never_asked(p))
		return drop(skb, p, REASON_DESTINATION_ADDRESS);
	if (p->is6 && is_on_link(p))
		return drop(skb, p, REASON_LINK_LOCAL);
	if (p->is6 && p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP) {
		reason = check_discovery(skb, p);
		if (reason)
			return drop(skb, p, reason);
	}
	return GO_ON;
}

/* What a container sends to a host of the cluster must not reach its tunnel port: masqueraded, it would come from this
 * host, which the others take for the agent of all its endpoints. A later fragment shows no port: no datagram to a host
 * is that long. Returns 0 or a reason.
 */
static __noinline int check_tunnel_port(struct __sk_buff *skb, struct packet *p)
{
	int reason = read_ports(skb, p);

	if (reason)
		return reason;
	if (p->proto == IPPROTO_UDP && (p->fragment == LATER_FRAGMENT || p->dport == p->config->tunnel_port))
		return REASON_TUNNEL_PORT;
	return 0;
}

/* The one check of what comes out of a tunnel, whichever way its headers were taken off: `agent` is the outer source,
 * `vni` what the tunnel header says. Only an address of a known agent owns a remote prefix. Returns 0 and sets
 * p->endpoint and p->vni, or returns a reason: REASON_NO_ENDPOINT only to who may ask.
 */
static __noinline int check_arrival(struct __sk_buff *skb, struct packet *p, const union addr *agent, __u32 vni)
{
	const struct prefix *source = find_prefix(&p->src), *asked;
	__u32 to;
	int reason;

	if (!source || source->kind != PREFIX_REMOTE || !same(&source->agent, agent))
		return is_agent(agent) ? REASON_NOT_OWNER : REASON_UNKNOWN_AGENT;
	p->vni = source->vni;
	if (source->vni != vni)
		return REASON_WRONG_VNI;
	p->endpoint = bpf_map_lookup_elem(&endpoints, &p->dst);
	if (p->endpoint) {
		to = p->endpoint->group;
	} else {
		asked = find_prefix(&p->dst);
		if (!asked || asked->kind != PREFIX_LOCAL)
			return REASON_NO_ENDPOINT;
		to = asked->group;
	}
	reason = judge(skb, p, group_of(source, &p->src), to, p->endpoint != NULL);
	return reason || p->endpoint ? reason : REASON_NO_ENDPOINT;
}

#endif
