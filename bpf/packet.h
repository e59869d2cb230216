/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a program knows of the packet in its hands, and how it is read.
 *
 * Only the fixed headers are read for every packet. Extension headers and ports are read where a decision needs them;
 * inside an open network none does.
 */
#ifndef HEDGEROW_PACKET_H
#define HEDGEROW_PACKET_H

#include "maps.h"

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>

/* What a step returns when the next one shall decide. No verdict of tc has this number. */
#define GO_ON (-2)

#define SECOND_NS 1000000000ULL
#define L3 ETH_HLEN
#define PREFIX_BITS (8 * sizeof(union addr))
#define MAX_EXTENSIONS 4          /* IPv6 extension headers, where a port must be found behind them */
#define IPV4_OFFSET 0x1fff
#define IPV4_FRAGMENT 0x3fff      /* offset and "more fragments" */

enum fragment { NO_FRAGMENT, FIRST_FRAGMENT, LATER_FRAGMENT };

/* Types of ICMP and ICMPv6. */
#define ECHO_REPLY 0
#define ECHO 8
#define ECHO6 128
#define ECHO_REPLY6 129

struct packet {
	const struct config *config;
	const struct port *port;          /* who sent it, on this host */
	const struct endpoint *endpoint;  /* who gets it, on this host */
	const struct prefix *prefix;      /* else: where its destination lies */
	union addr src, dst;
	__u32 vni;                        /* of the sender's network */
	__u32 rule;                       /* that had let a flow begin which is cut now */
	__u32 trace;                      /* its number, where the packet's flow is traced */
	__be32 fragment_id;
	__u16 l4;                         /* offset of the transport header */
	__u8 mac[6] __attribute__((aligned(4))); /* source */
	__be16 sport, dport;
	__u8 proto;
	__u8 is6;
	__u8 is_own_source;               /* of hr-peer's: certainly the host's own */
	__u8 fragment;
	__u8 said;                        /* TCP: its flags; ICMP: its type */
	__u8 program;                     /* for traces */
};

static __always_inline void map_v4(union addr *addr, __be32 v4)
{
	addr->halves[0] = 0;
	addr->words[2] = bpf_htonl(0xffff);
	addr->words[3] = v4;
}

static __always_inline int is_mapped(const union addr *addr)
{
	return !addr->halves[0] && addr->words[2] == bpf_htonl(0xffff);
}

static __always_inline int same(const union addr *a, const union addr *b)
{
	return a->halves[0] == b->halves[0] && a->halves[1] == b->halves[1];
}

static __always_inline int is_zero(const union addr *addr)
{
	return !(addr->halves[0] | addr->halves[1]);
}

/* clang turns a short memcmp into a call, which eBPF has not. */
static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	return *(__u32 *)a == *(__u32 *)b && *(__u16 *)(a + 4) == *(__u16 *)(b + 4);
}

/* Folds a 32-bit sum into the value of an IP checksum field. */
static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline int is_vlan(__be16 protocol)
{
	return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

static __always_inline int read_ipv4(struct packet *p, const struct iphdr *ip, __u32 at, __u32 room)
{
	__u16 offset = bpf_ntohs(ip->frag_off) & IPV4_FRAGMENT, length = bpf_ntohs(ip->tot_len);

	if (ip->version != 4 || ip->ihl < 5 || length < ip->ihl * 4 || length > room)
		return REASON_MALFORMED;
	map_v4(&p->src, ip->saddr);
	map_v4(&p->dst, ip->daddr);
	p->proto = ip->protocol;
	p->l4 = at + L3 + ip->ihl * 4;
	if (offset) {
		p->fragment = offset & IPV4_OFFSET ? LATER_FRAGMENT : FIRST_FRAGMENT;
		p->fragment_id = ip->id;
	}
	return 0;
}

static __always_inline int read_ipv6(struct packet *p, const struct ipv6hdr *ip, __u32 at, __u32 room)
{
	if (ip->version != 6 || sizeof(*ip) + bpf_ntohs(ip->payload_len) > room)
		return REASON_MALFORMED;
	__builtin_memcpy(&p->src, &ip->saddr, sizeof(union addr));
	__builtin_memcpy(&p->dst, &ip->daddr, sizeof(union addr));
	/* Never on a wire (RFC 4942 2.2), and in our maps it would stand for the IPv4 address. */
	if (is_mapped(&p->src) || is_mapped(&p->dst))
		return REASON_MALFORMED;
	p->proto = ip->nexthdr;
	p->l4 = at + L3 + sizeof(*ip);
	p->is6 = 1;
	return 0;
}

/* Makes `bytes` of the packet readable in one piece. */
#define READABLE(skb, data, end, bytes)                                                         \
	({                                                                                      \
		data = (void *)(long)(skb)->data;                                               \
		end = (void *)(long)(skb)->data_end;                                            \
		if (data + (bytes) > end) {                                                     \
			bpf_skb_pull_data(skb, bytes); /* pointers are void, also if it fails */ \
			data = (void *)(long)(skb)->data;                                       \
			end = (void *)(long)(skb)->data_end;                                    \
		}                                                                               \
		data + (bytes) <= end;                                                          \
	})

/* Reads the frame whose Ethernet header stands at `at`, a constant. Returns 0 or a reason. */
static __always_inline int read_frame(struct __sk_buff *skb, struct packet *p, const __u32 at)
{
	__u32 room = skb->len - at - L3;
	void *data, *end;
	struct ethhdr *eth;

	if (!READABLE(skb, data, end, at + L3))
		return REASON_MALFORMED;
	eth = data + at;
	__builtin_memcpy(p->mac, eth->h_source, 6);
	if (is_vlan(eth->h_proto))
		return REASON_VLAN;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		if (!READABLE(skb, data, end, at + L3 + sizeof(struct iphdr)))
			return REASON_MALFORMED;
		return read_ipv4(p, data + at + L3, at, room);
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		if (!READABLE(skb, data, end, at + L3 + sizeof(struct ipv6hdr)))
			return REASON_MALFORMED;
		return read_ipv6(p, data + at + L3, at, room);
	}
	return REASON_NOT_IP;
}

/* What follows is asked of two functions that stand for themselves (global ones): the verifier looks into them once,
 * not at every call with whatever is known there, and takes their answer for any number. So all of it must fit in one.
 */
union transport {
	__u64 all;
	struct {
		__u16 at;         /* 0: there is none that can be read */
		__u8 proto;
		__u8 fragment;
		__be32 id;
	};
};

union ports {
	__u64 all;
	struct {
		__be16 sport, dport;
		__u8 said;
		__u8 readable;
	};
};

static __always_inline int is_extension(__u8 proto)
{
	return proto == IPPROTO_HOPOPTS || proto == IPPROTO_ROUTING || proto == IPPROTO_DSTOPTS ||
	       proto == IPPROTO_FRAGMENT;
}

/* IPv6: steps over extension headers to the transport header. What stands behind a later fragment's is anything. */
__noinline __u64 find_transport(struct __sk_buff *skb, __u32 at, __u32 proto)
{
	struct { __u8 next, len; __be16 offset; __be32 id; } ext;
	union transport found = { .proto = proto };

#pragma unroll
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		if (!is_extension(found.proto) || found.fragment == LATER_FRAGMENT)
			break;
		if (bpf_skb_load_bytes(skb, at, &ext, sizeof(ext)))
			return 0;
		if (found.proto == IPPROTO_FRAGMENT) {
			found.fragment = ext.offset & bpf_htons(0xfff8) ? LATER_FRAGMENT : FIRST_FRAGMENT;
			found.id = ext.id;
			at += 8;
		} else {
			at += (ext.len + 1) * 8;
		}
		found.proto = ext.next;
	}
	if (is_extension(found.proto) && found.fragment != LATER_FRAGMENT)
		return 0;
	found.at = at;
	return found.all;
}

/* Of TCP ports and flags, of UDP ports, of ICMP type and an echo's identifier; of all else nothing. */
__noinline __u64 read_transport(struct __sk_buff *skb, __u32 at, __u32 proto)
{
	union ports found = { .readable = 1 };
	__u8 head[14] = {};

	if (proto == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, at, head, 14))
			return 0;
		found.said = head[13];
	} else if (proto == IPPROTO_UDP) {
		if (bpf_skb_load_bytes(skb, at, head, 4))
			return 0;
	} else if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) {
		if (bpf_skb_load_bytes(skb, at, head, 8))
			return 0;
		found.said = head[0];
		if (proto == IPPROTO_ICMP ? head[0] == ECHO || head[0] == ECHO_REPLY :
					    head[0] == ECHO6 || head[0] == ECHO_REPLY6)
			found.sport = found.dport = *(__be16 *)(head + 4);
		return found.all;
	} else {
		return found.all;
	}
	found.sport = *(__be16 *)head;
	found.dport = *(__be16 *)(head + 2);
	return found.all;
}

/* Extension headers may hide the transport header: finds it, where that was not done yet. Returns 0 or a reason. */
static __always_inline int skip_extensions(struct __sk_buff *skb, struct packet *p)
{
	union transport found;

	if (!p->is6 || p->fragment == LATER_FRAGMENT)
		return 0;
	found.all = find_transport(skb, p->l4, p->proto);
	if (!found.at)
		return REASON_MALFORMED;
	p->l4 = found.at;
	p->proto = found.proto;
	if (found.fragment) {
		p->fragment = found.fragment;
		p->fragment_id = found.id;
	}
	return 0;
}

/* Finds protocol, ports and what the packet says of itself; a later fragment tells only the first. Returns 0 or a
 * reason.
 */
static __noinline int read_ports(struct __sk_buff *skb, struct packet *p)
{
	union ports found;
	int reason = skip_extensions(skb, p);

	if (reason || p->fragment == LATER_FRAGMENT)
		return reason;
	found.all = read_transport(skb, p->l4, p->proto);
	if (!found.readable)
		return REASON_MALFORMED;
	p->sport = found.sport;
	p->dport = found.dport;
	p->said = found.said;
	return 0;
}

static __always_inline const struct prefix *find_prefix(const union addr *addr)
{
	struct prefix_key key = { .bits = PREFIX_BITS, .addr = *addr };

	return bpf_map_lookup_elem(&prefixes, &key);
}

#endif
