/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where packets go: into a container of this host, back to their sender, through the VXLAN device to another agent. */
#ifndef HEDGEROW_DELIVER_H
#define HEDGEROW_DELIVER_H

#include "drop.h"

#define PACKET_HOST 0
/* The size that 5.10 knows; local_ipv4 came with 6.0, and a larger size is refused before that. */
#define TUNNEL_KEY_BYTES offsetof(struct bpf_tunnel_key, local_ipv4)
#define TUNNEL_TTL 64

/* Into the container's namespace, without a second pass through a queue. */
static __always_inline int deliver(struct __sk_buff *skb, const struct packet *p, const struct endpoint *endpoint)
{
	if (bpf_skb_store_bytes(skb, 0, endpoint->macs, sizeof(endpoint->macs), 0))
		return drop(skb, p, REASON_HELPER);
	/* The VXLAN device or the veth judged by its own MAC; before 6.15 redirect_peer keeps that judgement. */
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	/* Before 6.15 it would leak into the container. */
	skb->mark = 0;
	trace(skb, p, STAGE_DELIVERED, 0);
	return bpf_redirect_peer(endpoint->ifindex, 0);
}

static __always_inline int address_to(struct __sk_buff *skb, const struct packet *p, const struct port *port)
{
	__u8 macs[12];

	__builtin_memcpy(macs, port->mac, 6);
	__builtin_memcpy(macs + 6, p->config->gateway_mac, 6);
	return bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0);
}

/* To the host's own stack, out of hr-peer and into hr-host. Straight from the container's link it would be a stranger
 * to rp_filter: that link has no address, and the way back is hr-host. And so nothing but what passed here comes from a
 * container: what comes by its link itself met no program.
 */
static __always_inline int send_to_host(struct __sk_buff *skb, const struct packet *p)
{
	const struct port *peer = bpf_map_lookup_elem(&ports, &p->config->peer_ifindex);

	if (!peer || !(peer->flags & PORT_HOST))
		return drop(skb, p, REASON_NOT_SET_UP);
	if (address_to(skb, p, peer))
		return drop(skb, p, REASON_HELPER);
	trace(skb, p, STAGE_HOST, 0);
	return bpf_redirect(p->config->peer_ifindex, 0);
}

/* Back to who sent it: a container, or the host's own stack. */
static __always_inline int bounce(struct __sk_buff *skb, const struct packet *p)
{
	if (p->port->flags & PORT_HOST)
		return send_to_host(skb, p);
	if (address_to(skb, p, p->port))
		return drop(skb, p, REASON_HELPER);
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	skb->mark = 0;
	return bpf_redirect_peer(skb->ifindex, 0);
}

/* Through the VXLAN device, which puts the headers on. IPv6 wants a checksum of UDP (RFC 8200 8.1). */
static __noinline int send_through_device(struct __sk_buff *skb, const struct packet *p, const union addr *agent,
					  __u32 vni)
{
	struct bpf_tunnel_key key = { .tunnel_id = vni, .tunnel_ttl = TUNNEL_TTL };
	__u64 flags = BPF_F_ZERO_CSUM_TX;

	if (is_mapped(agent)) {
		key.remote_ipv4 = bpf_ntohl(agent->words[3]);
	} else {
		__builtin_memcpy(key.remote_ipv6, agent, sizeof(*agent));
		flags = BPF_F_TUNINFO_IPV6;
	}
	if (bpf_skb_set_tunnel_key(skb, &key, TUNNEL_KEY_BYTES, flags))
		return drop(skb, p, REASON_HELPER);
	trace(skb, p, STAGE_DEVICE, 0);
	return bpf_redirect(p->config->tunnel_ifindex, 0);
}

#endif
