/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ARP and neighbour discovery, answered here for every address but the asker's own: no container needs a neighbour
 * entry written, no host a proxy_arp, and a container may think that its subnet is on the link (RFC 1027).
 */
#ifndef HEDGEROW_NEIGHBOUR_H
#define HEDGEROW_NEIGHBOUR_H

#include "deliver.h"
#include "guard.h"

#define ARP_ETHERNET bpf_htons(1)
#define ARP_REQUEST bpf_htons(1)
#define ARP_REPLY bpf_htons(2)
#define NEIGHBOUR_SOLICITATION 135
#define NEIGHBOUR_ADVERTISEMENT 136
#define ROUTER_SOLICITED_OVERRIDE bpf_htonl(0xe0000000)
#define TARGET_LINK_LAYER_ADDRESS 2

struct arp {
	__be16 hardware, protocol;
	__u8 hardware_len, protocol_len;
	__be16 operation;
	__u8 sender_mac[6], sender[4], target_mac[6], target[4];
};

static __noinline int answer_arp(struct __sk_buff *skb, const struct packet *p)
{
	struct arp arp, reply;

	if (bpf_skb_load_bytes(skb, L3, &arp, sizeof(arp)) || arp.hardware != ARP_ETHERNET ||
	    arp.protocol != bpf_htons(ETH_P_IP) || arp.operation != ARP_REQUEST)
		return drop(skb, p, REASON_NOT_IP);
	/* Duplicate address detection, which has no sender (RFC 5227 2.1.1), or an announcement. */
	if (!*(__u32 *)arp.sender || *(__u32 *)arp.target == p->port->addr4.words[3])
		return TC_ACT_SHOT;
	reply = arp;
	reply.operation = ARP_REPLY;
	__builtin_memcpy(reply.sender_mac, p->config->gateway_mac, 6);
	__builtin_memcpy(reply.sender, arp.target, 4);
	__builtin_memcpy(reply.target_mac, arp.sender_mac, 6);
	__builtin_memcpy(reply.target, arp.sender, 4);
	if (bpf_skb_store_bytes(skb, L3, &reply, sizeof(reply), 0))
		return drop(skb, p, REASON_HELPER);
	return bounce(skb, p);
}

struct neighbour_message {
	struct icmp6hdr icmp;
	union addr target;
	__u8 option, option_len, mac[6];
};

/* RFC 4861 7.2.4. */
static __always_inline int put_advertisement(struct __sk_buff *skb, const struct packet *p,
					     struct neighbour_message *nd)
{
	struct { union addr src, dst; __be32 length, next; } pseudo = { .src = nd->target, .dst = p->src };
	struct ipv6hdr ip = { .version = 6, .nexthdr = IPPROTO_ICMPV6, .hop_limit = ND_HOP_LIMIT };
	__u32 sum;

	ip.payload_len = bpf_htons(sizeof(*nd));
	__builtin_memcpy(&ip.saddr, &nd->target, 16);
	__builtin_memcpy(&ip.daddr, &p->src, 16);
	__builtin_memset(&nd->icmp, 0, sizeof(nd->icmp));
	nd->icmp.icmp6_type = NEIGHBOUR_ADVERTISEMENT;
	nd->icmp.icmp6_dataun.un_data32[0] = ROUTER_SOLICITED_OVERRIDE;
	nd->option = TARGET_LINK_LAYER_ADDRESS;
	nd->option_len = 1;
	__builtin_memcpy(nd->mac, p->config->gateway_mac, 6);
	pseudo.length = bpf_htonl(sizeof(*nd));
	pseudo.next = bpf_htonl(IPPROTO_ICMPV6);
	sum = bpf_csum_diff(0, 0, (void *)&pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(0, 0, (void *)nd, sizeof(*nd), sum);
	nd->icmp.icmp6_cksum = fold(sum);
	return bpf_skb_store_bytes(skb, L3, &ip, sizeof(ip), 0) ||
	       bpf_skb_store_bytes(skb, L3 + sizeof(ip), nd, sizeof(*nd), 0);
}

static __noinline int answer_solicitation(struct __sk_buff *skb, const struct packet *p)
{
	struct neighbour_message nd = {};

	if (bpf_skb_load_bytes(skb, p->l4, &nd, offsetof(struct neighbour_message, option)))
		return drop(skb, p, REASON_MALFORMED);
	if (is_zero(&p->src) || same(&nd.target, &p->port->addr6) || same(&nd.target, &p->src))
		return TC_ACT_SHOT; /* duplicate address detection */
	/* Not for another's address, which a container could claim by asking. */
	if (!is_link_local(p, &p->src) && !same(&p->src, &p->port->addr6))
		return drop(skb, p, REASON_SOURCE_ADDRESS);
	if (bpf_skb_change_tail(skb, L3 + sizeof(struct ipv6hdr) + sizeof(nd), 0) || put_advertisement(skb, p, &nd))
		return drop(skb, p, REASON_HELPER);
	return bounce(skb, p);
}

/* `reason` is what reading the frame came to. Returns GO_ON for all that asks for no neighbour. */
static __always_inline int answer_neighbours(struct __sk_buff *skb, const struct packet *p, int reason)
{
	__u8 type;

	if (reason == REASON_NOT_IP && skb->protocol == bpf_htons(ETH_P_ARP))
		return answer_arp(skb, p);
	if (!reason && p->is6 && p->proto == IPPROTO_ICMPV6 && !bpf_skb_load_bytes(skb, p->l4, &type, 1) &&
	    type == NEIGHBOUR_SOLICITATION)
		return answer_solicitation(skb, p);
	return GO_ON;
}

#endif
