/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A refused packet is answered at once, where the protocol allows: TCP's SYN with a reset, the rest with an ICMP error.
 *
 * The answer claims to come from the address that was asked for: it thus passes the source check of the asker's own
 * host. Answers are limited per asker.
 */
#ifndef HEDGEROW_REFUSE_H
#define HEDGEROW_REFUSE_H

#include "deliver.h"
#include "guard.h"

#include <linux/icmpv6.h>
#include <linux/tcp.h>

/* <linux/icmp.h> pulls in the C library. */
struct icmphdr {
	__u8 type, code;
	__be16 checksum;
	__be16 unused, mtu;
};
#define ICMP_DEST_UNREACH 3
#define ICMP_HOST_UNREACH 1
#define ICMP_FRAG_NEEDED 4
#define ICMP_PKT_FILTERED 13

#define QUOTE_MAX 60
/* Answers to one asker's refused packets. */
#define REFUSALS_BURST 100
#define REFUSALS_PER_SECOND 100

/* Whether this asker's packet, refused, gets an answer. One time says it all (GCRA): CPUs that race answer a few too
 * many, an evicted asker starts anew.
 */
static __noinline int may_answer(struct __sk_buff *skb, const struct packet *p)
{
	const __u64 each = SECOND_NS / REFUSALS_PER_SECOND;
	__u64 now = bpf_ktime_get_ns(), next = now + each, *due = bpf_map_lookup_elem(&refusals, &p->src);

	if (!due) {
		bpf_map_update_elem(&refusals, &p->src, &next, BPF_ANY);
		return 1;
	}
	if (*due > now)
		next = *due + each;
	if (next > now + each * REFUSALS_BURST) {
		count(skb, p->vni, REASON_UNANSWERED);
		return 0;
	}
	*due = next;
	return 1;
}

/* The refused packet as far as its answer must know it. */
struct asked {
	union addr src, dst;
	__u16 l4;
	__u8 proto;
	__u8 is6;
};

static __always_inline __u8 icmp_code(__u32 reason)
{
	return reason == REASON_TOO_BIG	    ? ICMP_FRAG_NEEDED :
	       reason == REASON_NO_ENDPOINT ? ICMP_HOST_UNREACH : ICMP_PKT_FILTERED;
}

static __always_inline __u8 icmp6_code(__u32 reason)
{
	return reason == REASON_TOO_BIG	    ? 0 :
	       reason == REASON_NO_ENDPOINT ? ICMPV6_ADDR_UNREACH : ICMPV6_ADM_PROHIBITED;
}

/* The two below finish what `answer_with_icmp` began: `length` bytes of the packet are left, and in `quote`. */
static __always_inline int put_icmp(struct __sk_buff *skb, const struct asked *p, __u32 reason, __u32 mtu,
				    const __u8 *quote, __u32 length)
{
	struct { struct iphdr ip; struct icmphdr icmp; } out = {};
	__u32 sum;

	if (bpf_skb_adjust_room(skb, sizeof(out), BPF_ADJ_ROOM_MAC, 0))
		return -1;
	out.ip.version = 4;
	out.ip.ihl = 5;
	out.ip.tot_len = bpf_htons(sizeof(out) + length);
	out.ip.ttl = 64;
	out.ip.protocol = IPPROTO_ICMP;
	out.ip.saddr = p->dst.words[3];
	out.ip.daddr = p->src.words[3];
	out.ip.check = fold(bpf_csum_diff(0, 0, (void *)&out.ip, sizeof(out.ip), 0));
	out.icmp.type = ICMP_DEST_UNREACH;
	out.icmp.code = icmp_code(reason);
	if (reason == REASON_TOO_BIG)
		out.icmp.mtu = bpf_htons(mtu);
	sum = bpf_csum_diff(0, 0, (void *)quote, QUOTE_MAX, 0);
	sum = bpf_csum_diff(0, 0, (void *)&out.icmp, sizeof(out.icmp), sum);
	out.icmp.checksum = fold(sum);
	return bpf_skb_store_bytes(skb, L3, &out, sizeof(out), 0);
}

static __always_inline int put_icmp6(struct __sk_buff *skb, const struct asked *p, __u32 reason, __u32 mtu,
				     const __u8 *quote, __u32 length)
{
	struct { struct ipv6hdr ip; struct icmp6hdr icmp; } out = {};
	struct { union addr src, dst; __be32 length, next; } pseudo = { .src = p->dst, .dst = p->src };
	__u32 sum;

	if (bpf_skb_adjust_room(skb, sizeof(out), BPF_ADJ_ROOM_MAC, 0))
		return -1;
	out.ip.version = 6;
	out.ip.payload_len = bpf_htons(sizeof(out.icmp) + length);
	out.ip.nexthdr = IPPROTO_ICMPV6;
	out.ip.hop_limit = 64;
	__builtin_memcpy(&out.ip.saddr, &p->dst, 16);
	__builtin_memcpy(&out.ip.daddr, &p->src, 16);
	out.icmp.icmp6_type = reason == REASON_TOO_BIG ? ICMPV6_PKT_TOOBIG : ICMPV6_DEST_UNREACH;
	out.icmp.icmp6_code = icmp6_code(reason);
	if (reason == REASON_TOO_BIG)
		out.icmp.icmp6_mtu = bpf_htonl(mtu);
	pseudo.length = bpf_htonl(sizeof(out.icmp) + length);
	pseudo.next = bpf_htonl(IPPROTO_ICMPV6);
	sum = bpf_csum_diff(0, 0, (void *)quote, QUOTE_MAX, 0);
	sum = bpf_csum_diff(0, 0, (void *)&pseudo, sizeof(pseudo), sum);
	sum = bpf_csum_diff(0, 0, (void *)&out.icmp, sizeof(out.icmp), sum);
	out.icmp.icmp6_cksum = fold(sum);
	return bpf_skb_store_bytes(skb, L3, &out, sizeof(out), 0);
}

/* Turns the packet into the ICMP error that answers it (RFC 792, RFC 1812 5.2.7.1, RFC 4443). Returns 0 when it now is
 * one. No errors about errors (RFC 1122 3.2.2) or IPv4 options.
 */
static __noinline int answer_with_icmp(struct __sk_buff *skb, const struct asked *p, __u32 reason, __u32 mtu)
{
	__u8 quote[QUOTE_MAX] = {};
	__u32 header = p->is6 ? 40 : 20, length;
	__u8 type;

	if (!p->is6 && p->l4 != L3 + 20)
		return -1;
	if (p->proto == IPPROTO_ICMP || p->proto == IPPROTO_ICMPV6) {
		if (bpf_skb_load_bytes(skb, p->l4, &type, 1))
			return -1;
		if (p->is6 ? type < ICMPV6_ERRORS : type != ECHO)
			return -1;
	}
	/* A TCP packet of a local container still has its checksum to be computed (CHECKSUM_PARTIAL), and
	 * change_tail() does not cut before that field. */
	length = header + (p->proto == IPPROTO_TCP ? 20 : 8);
	if (length > QUOTE_MAX || bpf_skb_load_bytes(skb, L3, quote, length & 63))
		return -1;
	if (bpf_skb_change_tail(skb, L3 + length, 0))
		return -1;
	return p->is6 ? put_icmp6(skb, p, reason, mtu, quote, length) : put_icmp(skb, p, reason, mtu, quote, length);
}

static __always_inline int swap_addresses(struct __sk_buff *skb, const struct asked *p, __u32 payload)
{
	if (p->is6) {
		__be16 length = bpf_htons(payload);

		return bpf_skb_store_bytes(skb, L3 + 4, &length, 2, 0) ||
		       bpf_skb_store_bytes(skb, L3 + 8, &p->dst, 16, 0) ||
		       bpf_skb_store_bytes(skb, L3 + 24, &p->src, 16, 0);
	}
	struct iphdr ip = {};

	ip.version = 4;
	ip.ihl = 5;
	ip.ttl = 64;
	ip.protocol = IPPROTO_TCP;
	ip.tot_len = bpf_htons(sizeof(ip) + payload);
	ip.frag_off = bpf_htons(0x4000);
	ip.saddr = p->dst.words[3];
	ip.daddr = p->src.words[3];
	ip.check = fold(bpf_csum_diff(0, 0, (void *)&ip, sizeof(ip), 0));
	return bpf_skb_store_bytes(skb, L3, &ip, sizeof(ip), 0);
}

/* Turns a SYN into the reset that answers it (RFC 9293 3.10.7.1). Returns 0 when it now is one.
 *
 * An ICMP error would not do: on one host it comes back while connect() still holds the socket (LockDroppedIcmps), and
 * over IPv6 Linux then tries again after a second. A reset waits in the socket's backlog.
 */
static __noinline int answer_with_reset(struct __sk_buff *skb, const struct asked *p)
{
	__u32 header = p->is6 ? 40 : 20, length, words;
	struct { struct tcphdr tcp; __u8 options[64]; } old = {};
	struct tcphdr new = {};
	__s64 diff;

	if (p->proto != IPPROTO_TCP || p->l4 != L3 + header)
		return -1;
	if (bpf_skb_load_bytes(skb, p->l4, &old.tcp, sizeof(old.tcp)))
		return -1;
	length = old.tcp.doff * 4;
	if (!old.tcp.syn || old.tcp.ack || length < 20 || skb->len != p->l4 + length)
		return -1;
	if (length > 20) {
		/* At most 40 bytes. 6.1's verifier must see that it is never 0, which a test against zero does not
		 * teach it: a mask and an addition do, 4 to 64. The compiler must not take them away. */
		words = old.tcp.doff - 6;
		asm volatile("" : "+r"(words));
		if (bpf_skb_load_bytes(skb, p->l4 + 20, old.options, (words & 15) * 4 + 4))
			return -1;
	}
	new.source = old.tcp.dest;
	new.dest = old.tcp.source;
	new.ack_seq = bpf_htonl(bpf_ntohl(old.tcp.seq) + 1);
	new.doff = 5;
	new.rst = 1;
	new.ack = 1;
	new.check = old.tcp.check;
	diff = bpf_csum_diff((void *)&old, sizeof(old), (void *)&new, sizeof(new), 0);
	if (bpf_skb_change_tail(skb, p->l4 + sizeof(new), 0) || swap_addresses(skb, p, sizeof(new)))
		return -1;
	/* The helper knows whether the checksum is complete or left to be computed; swapped addresses do not
	 * change it. */
	return bpf_skb_store_bytes(skb, p->l4, &new, sizeof(new), 0) ||
	       bpf_l4_csum_replace(skb, p->l4 + 16, 0, diff, 0) ||
	       bpf_l4_csum_replace(skb, p->l4 + 16, bpf_htons(length), bpf_htons(sizeof(new)),
				   BPF_F_PSEUDO_HDR | 2);
}

/* Stands for itself, like find_transport: `transport` is the union of that name. Returns 0 when the packet has become
 * the answer to itself.
 */
__noinline int put_answer(struct __sk_buff *skb, __u64 transport, __u32 reason, __u32 mtu)
{
	union transport at = { .all = transport };
	struct asked p = { .l4 = at.at, .proto = at.proto, .is6 = skb->protocol == bpf_htons(ETH_P_IPV6) };
	__be32 v4[2];

	if (p.is6) {
		if (bpf_skb_load_bytes(skb, L3 + offsetof(struct ipv6hdr, saddr), &p, 2 * sizeof(union addr)))
			return -1;
	} else {
		if (bpf_skb_load_bytes(skb, L3 + offsetof(struct iphdr, saddr), v4, sizeof(v4)))
			return -1;
		map_v4(&p.src, v4[0]);
		map_v4(&p.dst, v4[1]);
	}
	if (!at.fragment && !answer_with_reset(skb, &p))
		return 0;
	return answer_with_icmp(skb, &p, reason, mtu);
}

/* Returns 0 when the packet has become the answer to itself. A later fragment has none. */
static __always_inline int answer(struct __sk_buff *skb, const struct packet *p, __u32 reason)
{
	union transport at = { .at = p->l4, .proto = p->proto, .fragment = p->fragment };

	if (p->fragment == LATER_FRAGMENT || !may_answer(skb, p))
		return -1;
	return put_answer(skb, at.all, reason, p->config->inner_mtu);
}

/* Refuses what a container or the host sent: counted, and answered. The ports are for whoever reads the event. */
static __noinline int reject(struct __sk_buff *skb, struct packet *p, __u32 reason)
{
	read_ports(skb, p);
	drop(skb, p, reason);
	if (answer(skb, p, reason))
		return TC_ACT_SHOT;
	trace(skb, p, STAGE_ANSWERED, reason);
	return bounce(skb, p);
}

/* Refuses what came out of a tunnel. Only an address that nobody has is worth an answer: walls are kept, and answered,
 * by the sender's host. The answer speaks for the network of the address that was asked for.
 */
static __noinline int reject_arrival(struct __sk_buff *skb, struct packet *p, const union addr *agent, __u32 reason)
{
	const struct prefix *asked;

	drop(skb, p, reason);
	if (reason != REASON_NO_ENDPOINT)
		return TC_ACT_SHOT;
	asked = find_prefix(&p->dst);
	if (!asked || asked->kind != PREFIX_LOCAL || answer(skb, p, reason))
		return TC_ACT_SHOT;
	return send_through_device(skb, p, agent, asked->vni);
}

#endif
