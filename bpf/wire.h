/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The fast way: VXLAN (RFC 7348) without the VXLAN device, headers put on and taken off at the underlay's own link.
 *
 * The same packets on the wire as the device's. Saved: the device, its UDP socket, a routing look-up, netfilter, and
 * one softirq turn of the receiver (gro_cells). What a kernel cannot do it refuses before the packet is touched, and
 * that packet takes the device: sending needs 5.13 (ENCAP_L2_ETH), receiving inner IPv6 6.3 (DECAP_L3_IPV6).
 */
#ifndef HEDGEROW_WIRE_H
#define HEDGEROW_WIRE_H

#include "deliver.h"
#include "guard.h"
#include "host.h"

#include <linux/udp.h>

#define VXLAN_FLAGS bpf_htonl(0x08000000) /* a VNI is there, nothing else */

/* The link is not ours alone: filters of others behind this one, and then the stack, see what is not for us. */
#define LEAVE_ALONE TC_ACT_UNSPEC

struct tunnel_headers {
	struct iphdr ip;
	struct udphdr udp;
	__be32 flags, vni;
	struct ethhdr inner;
} __attribute__((packed));
_Static_assert(sizeof(struct tunnel_headers) == TEMPLATE_BYTES, "the template is the tunnel's headers");

/* newer than Debian 12's headers */
#define DECAP_L3_IPV6 (1 << 8)

/* Without FIXED_GSO segments would grow or shrink by the headers, and TCP would stall or spoil. */
#define PUT_ON (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | \
		BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH)
#define TAKE_OFF BPF_F_ADJ_ROOM_FIXED_GSO

/* Sum returned by probe_fast_way. */
#define CAN_SEND 1
#define CAN_RECEIVE 2
#define CAN_RECEIVE6 4

/* A container's packet to another agent. Returns a verdict, or GO_ON: the packet, untouched, must take the device. */
static __noinline int send_on_wire(struct __sk_buff *skb, const struct packet *p, const struct prefix *remote)
{
	struct bpf_redir_neigh next = { .nh_family = AF_INET, .ipv4_nh = remote->next_hop };
	struct tunnel_headers out;
	__u32 length = skb->len, hash;

	if (!(p->config->flags & CONFIG_FAST))
		return GO_ON;
	__builtin_memcpy(&out, remote->template, sizeof(out));
	if (!out.udp.dest)
		return GO_ON; /* an agent over IPv6 has no template */
	/* Not the gateway's MAC: a VXLAN device drops, uncounted, what seems to come from itself. */
	__builtin_memcpy(out.inner.h_source, p->port->mac, ETH_ALEN);
	out.inner.h_proto = skb->protocol;
	if (bpf_skb_adjust_room(skb, sizeof(out), BPF_ADJ_ROOM_MAC, PUT_ON))
		return GO_ON;
	out.ip.tot_len = bpf_htons(sizeof(out) - ETH_HLEN + length);
	out.ip.check = fold((__u16)~out.ip.check + out.ip.tot_len);
	/* The flow's hash spreads flows over paths and queues (RFC 7348 5). */
	hash = bpf_get_hash_recalc(skb);
	out.udp.source = bpf_htons(0x8000 | ((hash ^ hash >> 16) & 0x7fff));
	out.udp.len = bpf_htons(sizeof(out) - ETH_HLEN - sizeof(out.ip) + length);
	out.vni = bpf_htonl(p->vni << 8);
	if (bpf_skb_store_bytes(skb, L3, &out, sizeof(out), 0))
		return drop(skb, p, REASON_HELPER);
	trace(skb, p, STAGE_WIRE, 0);
	/* A routing look-up is one round trip in twenty. */
	if (!next.ipv4_nh)
		return bpf_redirect_neigh(p->config->underlay_ifindex, 0, 0, 0);
	return bpf_redirect_neigh(p->config->underlay_ifindex, &next, sizeof(next), 0);
}

/* Reads the headers of a packet to the tunnel's port. Returns how many bytes of them there are: 0 when it is none, not
 * all when it cannot have been an agent's.
 */
static __always_inline __u32 read_outer(struct __sk_buff *skb, const struct packet *p, struct tunnel_headers *outer)
{
	__u32 length = sizeof(*outer);

	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->vlan_present)
		return 0;
	if (bpf_skb_load_bytes(skb, L3, outer, sizeof(*outer))) {
		length = offsetof(struct tunnel_headers, flags);
		if (bpf_skb_load_bytes(skb, L3, outer, offsetof(struct tunnel_headers, flags)))
			return 0;
	}
	if (outer->ip.protocol != IPPROTO_UDP || outer->ip.frag_off & bpf_htons(IPV4_OFFSET))
		return 0;
	if (outer->ip.ihl != 5) {
		length = sizeof(outer->ip);
		if (bpf_skb_load_bytes(skb, L3 + outer->ip.ihl * 4, &outer->udp, sizeof(outer->udp)))
			return 0;
	}
	return outer->udp.dest == p->config->tunnel_port ? length : 0;
}

/* Tunnels over IPv6 are the device's; only what an agent sends to this host goes on to it. */
static __always_inline int check_tunnel6(struct __sk_buff *skb, struct packet *p)
{
	struct { struct ipv6hdr ip; struct udphdr udp; } outer;

	if (bpf_skb_load_bytes(skb, L3, &outer, sizeof(outer)) || outer.ip.nexthdr != IPPROTO_UDP ||
	    outer.udp.dest != p->config->tunnel_port)
		return LEAVE_ALONE;
	__builtin_memcpy(&p->src, &outer.ip.saddr, sizeof(union addr));
	__builtin_memcpy(&p->dst, &outer.ip.daddr, sizeof(union addr));
	p->proto = IPPROTO_UDP;
	p->sport = outer.udp.source;
	p->dport = outer.udp.dest;
	if (!same(&p->dst, &p->config->underlay))
		return drop(skb, p, REASON_FOREIGN_TUNNEL);
	return is_agent(&p->src) ? LEAVE_ALONE : drop(skb, p, REASON_UNKNOWN_AGENT);
}

/* Looks at what came in on the underlay's link. Returns GO_ON with `outer` filled in when it is a tunnel packet to this
 * host in the form that agents send: who sent it is for check_arrival to judge. Else a verdict: what is none goes to
 * the host's stack, what no agent sends is dropped before the VXLAN device sees it.
 */
static __always_inline int find_tunnel(struct __sk_buff *skb, struct packet *p, struct tunnel_headers *outer)
{
	__u32 length;

	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return check_tunnel6(skb, p);
	length = read_outer(skb, p, outer);
	if (!length)
		return LEAVE_ALONE;
	map_v4(&p->src, outer->ip.saddr);
	map_v4(&p->dst, outer->ip.daddr);
	p->proto = IPPROTO_UDP;
	p->sport = outer->udp.source;
	p->dport = outer->udp.dest;
	if (!same(&p->dst, &p->config->underlay))
		return drop(skb, p, REASON_FOREIGN_TUNNEL);
	if (length < sizeof(*outer) || outer->ip.frag_off & bpf_htons(IPV4_FRAGMENT) || outer->flags != VXLAN_FLAGS)
		return drop(skb, p, is_agent(&p->src) ? REASON_MALFORMED : REASON_UNKNOWN_AGENT);
	/* A checksum, if somebody made one, is for the device to check. */
	if (p->config->flags & CONFIG_FAST && !outer->udp.check)
		return GO_ON;
	return is_agent(&p->src) ? LEAVE_ALONE : drop(skb, p, REASON_UNKNOWN_AGENT);
}

/* Takes the headers off. Returns GO_ON, or LEAVE_ALONE when the packet must take the device. */
static __always_inline int take_headers_off(struct __sk_buff *skb, const struct packet *p,
					    const struct tunnel_headers *outer)
{
	__be16 protocol = outer->inner.h_proto;

	if (bpf_skb_adjust_room(skb, -(__s32)sizeof(*outer), BPF_ADJ_ROOM_MAC,
				p->is6 ? TAKE_OFF | DECAP_L3_IPV6 : TAKE_OFF))
		return LEAVE_ALONE;
	/* The Ethernet header left is the outer one, which says IPv4. */
	if (p->is6 && bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &protocol, sizeof(protocol), 0))
		return drop(skb, p, REASON_HELPER);
	return GO_ON;
}

#endif
