/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The walls: what a container may send, and what a tunnel may bring. Nothing here changes a packet.
 *
 * tc runs before nftables, so every check that counts is made here.
 */
#ifndef HEDGEROW_GUARD_H
#define HEDGEROW_GUARD_H

#include "drop.h"

#include <linux/icmpv6.h>

#define ROUTER_SOLICITATION 133 /* the first of five kinds of neighbour discovery (RFC 4861 4) */
#define REDIRECT 137            /* the last */
#define ND_HOP_LIMIT 255

static __always_inline int may_talk(__u32 from, __u32 to)
{
	struct allow_key key = { .from = from, .to = to };

	return from == to || bpf_map_lookup_elem(&allowed, &key);
}

static __always_inline int is_agent(const union addr *addr)
{
	return bpf_map_lookup_elem(&agents, addr) != NULL;
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
 * address: containers do not send through the host's stack to each other, so that would be a stranger's packet.
 */
static __always_inline int is_source_of_host(const struct packet *p)
{
	const struct prefix *prefix = find_prefix(&p->src);

	return !prefix || prefix->kind == PREFIX_HOST;
}

/* Who has no IPv6 address must not be taken for `::`. */
static __always_inline int is_own_source(const struct packet *p)
{
	if (p->is6)
		return same(&p->src, &p->port->addr6) && !is_zero(&p->src);
	return same(&p->src, &p->port->addr4);
}

/* Own MAC was checked; now the address. */
static __always_inline int check_source(struct __sk_buff *skb, struct packet *p)
{
	int honest = p->port->flags & PORT_HOST ? is_source_of_host(p) : is_own_source(p);

	return honest ? GO_ON : drop(skb, p, REASON_SOURCE_ADDRESS);
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

/* Multicast has no group here; the host's side of a link-local address is looked up later. */
static __always_inline int check_destination(struct __sk_buff *skb, struct packet *p)
{
	int reason;

	if (is_multicast(p))
		return drop(skb, p, REASON_MULTICAST);
	if (is_never_asked(p))
		return drop(skb, p, REASON_DESTINATION_ADDRESS);
	if (p->is6 && (is_link_local(p, &p->src) || is_link_local(p, &p->dst)))
		return drop(skb, p, REASON_LINK_LOCAL);
	if (p->is6 && p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP) {
		reason = check_discovery(skb, p);
		if (reason)
			return drop(skb, p, reason);
	}
	return GO_ON;
}

/* What leaves the data path for the host's stack must not reach a tunnel port: masqueraded, it would come from this
 * host, which the others take for the agent of all its endpoints. A later fragment shows no port: no datagram to a host
 * is that long. Returns 0 or a reason.
 */
static __noinline int check_tunnel_port(struct __sk_buff *skb, struct packet *p)
{
	int reason = 0;

	if (!is_agent(&p->dst))
		return 0;
	reason = read_ports(skb, p);
	if (reason)
		return reason;
	if (p->proto == IPPROTO_UDP && (p->fragment == LATER_FRAGMENT || p->dport == p->config->tunnel_port))
		return REASON_TUNNEL_PORT;
	return 0;
}

/* The one check of what comes out of a tunnel, whichever way its headers were taken off: `agent` is the outer source,
 * `vni` what the tunnel header says. Only an address of a known agent owns a remote prefix. Returns 0 and sets
 * p->endpoint and p->vni, or returns a reason.
 */
static __noinline int check_arrival(struct packet *p, const union addr *agent, __u32 vni)
{
	const struct prefix *source = find_prefix(&p->src);

	if (!source || source->kind != PREFIX_REMOTE || !same(&source->agent, agent))
		return is_agent(agent) ? REASON_NOT_OWNER : REASON_UNKNOWN_AGENT;
	p->vni = source->vni;
	if (source->vni != vni)
		return REASON_WRONG_VNI;
	p->endpoint = bpf_map_lookup_elem(&endpoints, &p->dst);
	if (!p->endpoint)
		return REASON_NO_ENDPOINT;
	return may_talk(vni, p->endpoint->vni) ? 0 : REASON_ISOLATED;
}

#endif
