/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flows that were let begin. An opener's packets are judged by the rules, each by itself; what comes back passes only
 * as a reply to a flow that is remembered here. Where everything may pass both ways nothing is remembered.
 *
 * An entry is never pushed out by another: who has too many is refused new ones. The agent takes out the idle ones.
 */
#ifndef HEDGEROW_FLOW_H
#define HEDGEROW_FLOW_H

#include "packet.h"

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define ICMPV6_ERRORS 128         /* types below are errors */

static __always_inline int is_icmp(const struct packet *p)
{
	return p->proto == (p->is6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
}

static __always_inline int is_echo(const struct packet *p)
{
	return is_icmp(p) && p->said == (p->is6 ? ECHO6 : ECHO);
}

static __always_inline int is_error(const struct packet *p)
{
	if (!is_icmp(p))
		return 0;
	/* unreachable, source quench, time exceeded, parameter problem: no redirect */
	return p->is6 ? p->said < ICMPV6_ERRORS : p->said == 3 || p->said == 4 || p->said == 11 || p->said == 12;
}

/* Whether a packet, if it may pass, begins something that is answered. Of ICMP only an echo is. */
static __always_inline int is_opening(const struct packet *p)
{
	if (p->proto == IPPROTO_TCP)
		return !(p->said & TCP_RST);
	return !is_icmp(p) || is_echo(p);
}

/* Whether it can be a reply: who sends a SYN or an echo request of its own asks for something new. */
static __always_inline int is_answering(const struct packet *p)
{
	if (p->proto == IPPROTO_TCP)
		return (p->said & (TCP_SYN | TCP_ACK)) != TCP_SYN;
	return !is_icmp(p) || p->said == (p->is6 ? ECHO_REPLY6 : ECHO_REPLY);
}

/* What read_ports finds, for every fragment: the first one's word is kept for the later ones, which without it are
 * lost. Returns 0 or a reason.
 */
static __noinline int read_flow(struct __sk_buff *skb, struct packet *p)
{
	struct fragment_key key = {};
	struct first_fragment first = {}, *told;
	int reason = read_ports(skb, p);

	if (reason || !p->fragment)
		return reason;
	key.src = p->src;
	key.dst = p->dst;
	key.id = p->fragment_id;
	key.proto = p->proto;
	if (p->fragment == LATER_FRAGMENT) {
		told = bpf_map_lookup_elem(&fragments, &key);
		if (!told)
			return REASON_LOST_FRAGMENT;
		p->sport = told->sport;
		p->dport = told->dport;
		p->said = told->said;
		return 0;
	}
	first.sport = p->sport;
	first.dport = p->dport;
	first.said = p->said;
	bpf_map_update_elem(&fragments, &key, &first, BPF_ANY);
	return 0;
}

/* As its opener sees it, if that is who sent the packet, or not. */
static __always_inline void put_flow(struct connection_key *key, const struct packet *p, int is_openers)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->src = is_openers ? p->src : p->dst;
	key->dst = is_openers ? p->dst : p->src;
	key->sport = is_openers ? p->sport : p->dport;
	key->dport = is_openers ? p->dport : p->sport;
	key->proto = p->proto;
}

static __always_inline struct connection *find_connection(const struct packet *p, int is_openers)
{
	struct connection_key key;

	put_flow(&key, p, is_openers);
	return bpf_map_lookup_elem(&connections, &key);
}

/* A packet of the flow passes. The time is taken once in a while, 256 jiffies: a clock costs a packet more than the
 * count of jiffies, and memory that every packet writes would travel between CPUs.
 */
static __always_inline void see(struct connection *c, const struct packet *p, int is_openers)
{
	__u32 flags = is_openers ? c->flags & ~CONNECTION_CUT : c->flags | CONNECTION_REPLIED;
	__u32 tick = bpf_jiffies64() >> 8;

	if (p->proto == IPPROTO_TCP) {
		if (is_openers && (p->said & (TCP_SYN | TCP_ACK)) == TCP_SYN)
			flags = 0; /* the ports are used anew */
		if (p->said & TCP_FIN)
			flags |= is_openers ? CONNECTION_OPENER_DONE : CONNECTION_REPLIER_DONE;
		if (p->said & TCP_RST)
			flags |= CONNECTION_RESET;
	}
	if (flags != c->flags)
		c->flags = flags;
	if (tick != c->tick || !c->seen_ns) {
		c->tick = tick;
		c->seen_ns = bpf_ktime_get_ns();
	}
}

/* Counts one more flow of an opener. Returns 0 when it has its share already. */
static __always_inline int take_share(const struct packet *p, __u32 share)
{
	__u64 *made = bpf_map_lookup_elem(&opened, &p->src), *gone, none = 0;

	if (!made) {
		bpf_map_update_elem(&opened, &p->src, &none, BPF_NOEXIST);
		made = bpf_map_lookup_elem(&opened, &p->src);
		if (!made)
			return 0;
	}
	gone = bpf_map_lookup_elem(&closed, &p->src);
	if (*made - (gone ? *gone : 0) >= share)
		return 0;
	__sync_fetch_and_add(made, 1);
	return 1;
}

/* An opener's packet may pass, by `rule`, between these groups: keeps in mind that it did. Returns 0 or a reason. */
static __noinline int remember(const struct packet *p, __u32 from, __u32 to, __u32 rule)
{
	struct connection fresh = { .rule = rule, .from = from, .to = to };
	struct connection_key key;
	struct connection *known;

	put_flow(&key, p, 1);
	known = bpf_map_lookup_elem(&connections, &key);
	if (known) {
		if (known->rule != rule || known->from != from || known->to != to) {
			known->rule = rule;
			known->from = from;
			known->to = to;
		}
		see(known, p, 1);
		return 0;
	}
	if (!is_opening(p))
		return 0;
	/* A host, group 0, has no share like an endpoint: it speaks for all its programs. */
	if (!take_share(p, from ? p->config->connections_each : MAX_CONNECTIONS / 2))
		return REASON_CONNECTIONS_FULL;
	see(&fresh, p, 1);
	if (!bpf_map_update_elem(&connections, &key, &fresh, BPF_NOEXIST))
		return 0;
	/* Another CPU was faster, or the map is full. */
	return bpf_map_lookup_elem(&connections, &key) ? 0 : REASON_CONNECTIONS_FULL;
}

/* Reads the flow that an ICMP error is about: its receiver sent the packet which it quotes (RFC 792, RFC 4443), and of
 * which there may be no more than the ports. Returns 0 when none is quoted that went from here to there.
 */
static __always_inline int read_quoted(struct __sk_buff *skb, const struct packet *p, struct connection_key *key)
{
	__u32 at = p->l4 + 8;
	union ports found;

	__builtin_memset(key, 0, sizeof(*key));
	if (p->is6) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
			return 0;
		__builtin_memcpy(&key->src, &ip.saddr, sizeof(union addr));
		__builtin_memcpy(&key->dst, &ip.daddr, sizeof(union addr));
		key->proto = ip.nexthdr;
		at += sizeof(ip);
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.frag_off & bpf_htons(IPV4_OFFSET))
			return 0;
		map_v4(&key->src, ip.saddr);
		map_v4(&key->dst, ip.daddr);
		key->proto = ip.protocol;
		at += ip.ihl * 4;
	}
	if (!same(&key->src, &p->dst) || !same(&key->dst, &p->src))
		return 0;
	found.all = read_transport(skb, at, key->proto == IPPROTO_TCP ? IPPROTO_UDP : key->proto);
	key->sport = found.sport;
	key->dport = found.dport;
	return found.readable;
}

/* The flow that an ICMP error is about, with `key` as its opener sees it, whichever of both that is. */
static __noinline struct connection *find_quoted(struct __sk_buff *skb, const struct packet *p,
						 struct connection_key *key)
{
	struct connection *found;
	__be16 port;

	if (!is_error(p) || !read_quoted(skb, p, key))
		return NULL;
	found = bpf_map_lookup_elem(&connections, key);
	if (found)
		return found;
	key->src = p->src;
	key->dst = p->dst;
	port = key->sport;
	key->sport = key->dport;
	key->dport = port;
	return bpf_map_lookup_elem(&connections, key);
}

#endif
