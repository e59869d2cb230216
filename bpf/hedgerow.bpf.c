/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The data path of one host: three tc programs over shared, pinned maps.
 *
 * from_container  at tc ingress of each endpoint's host end, and of hr-peer, behind which is the host's own stack
 * from_underlay   at tc ingress of the underlay's link: tunnels, the fast way; everything else passes
 * from_tunnel     at tc ingress of the VXLAN device (external mode): tunnels, the slow way
 *
 * Each program is a list of steps; a step decides, or says GO_ON. Runs on kernel 5.10 and newer: no CO-RE, no kfuncs,
 * no loops that need bpf_loop().
 */
#include "maps.h"
#include "packet.h"
#include "drop.h"
#include "guard.h"
#include "deliver.h"
#include "refuse.h"
#include "neighbour.h"
#include "wire.h"

static __always_inline int find_config(struct packet *p)
{
	__u32 zero = 0;

	p->config = bpf_map_lookup_elem(&host, &zero);
	return p->config && p->config->tunnel_ifindex;
}

/* ---- steps of from_container ------------------------------------------------------------------------------------- */

static __always_inline int find_port(struct __sk_buff *skb, struct packet *p)
{
	__u32 ifindex = skb->ifindex;

	p->port = bpf_map_lookup_elem(&ports, &ifindex);
	if (!p->port || !find_config(p))
		return drop(skb, p, REASON_NOT_SET_UP);
	p->vni = p->port->vni;
	return GO_ON;
}

/* Own MAC on an untagged frame that can be read; ARP and neighbour discovery end here. */
static __always_inline int read_sent(struct __sk_buff *skb, struct packet *p)
{
	int reason = read_frame(skb, p, 0), verdict;

	if (skb->vlan_present)
		return drop(skb, p, REASON_VLAN);
	if (reason != REASON_VLAN && !same_mac(p->mac, p->port->mac))
		return drop(skb, p, REASON_SOURCE_MAC);
	verdict = answer_neighbours(skb, p, reason);
	if (verdict != GO_ON)
		return verdict;
	return reason ? drop(skb, p, reason) : GO_ON;
}

static __always_inline int deliver_here(struct __sk_buff *skb, struct packet *p)
{
	p->endpoint = bpf_map_lookup_elem(&endpoints, &p->dst);
	if (!p->endpoint)
		return GO_ON;
	if (p->port->flags & PORT_HOST) {
		/* An internal network has no way out, so nothing of outside comes in as an answer. */
		if (p->endpoint->flags & PORT_INTERNAL && !find_prefix(&p->src))
			return reject(skb, p, REASON_INTERNAL);
	} else if (!may_talk(p->vni, p->endpoint->vni)) {
		return reject(skb, p, REASON_ISOLATED);
	}
	return deliver(skb, p, p->endpoint);
}

/* A host speaks to its own endpoints only: others would take its packets for a container's. */
static __always_inline int stop_host(struct __sk_buff *skb, struct packet *p)
{
	if (!(p->port->flags & PORT_HOST))
		return GO_ON;
	p->prefix = find_prefix(&p->dst);
	return reject(skb, p, p->prefix && p->prefix->kind == PREFIX_LOCAL ? REASON_NO_ENDPOINT : REASON_CLOSED);
}

/* A GSO packet is cut to gso_size payload bytes each; its TCP options are not counted. */
static __always_inline int fits(struct __sk_buff *skb, const struct packet *p)
{
	__u32 size = skb->gso_size;

	size = size ? size + p->l4 - L3 + (p->proto == IPPROTO_TCP ? 20 : 8) : skb->len - L3;
	return size <= p->config->inner_mtu;
}

/* Everything that has a prefix and is no endpoint of this host; what is meant for the host itself goes on. */
static __always_inline int deliver_to_agent(struct __sk_buff *skb, struct packet *p)
{
	const struct prefix *prefix = find_prefix(&p->dst);
	int verdict;

	p->prefix = prefix;
	if (!prefix)
		return GO_ON;
	if (prefix->kind == PREFIX_CLOSED)
		return reject(skb, p, REASON_CLOSED);
	if (prefix->vni ? !may_talk(p->vni, prefix->vni) : prefix->kind != PREFIX_HOST)
		return reject(skb, p, REASON_ISOLATED);
	if (prefix->kind == PREFIX_HOST)
		return GO_ON;
	if (prefix->kind != PREFIX_REMOTE)
		return reject(skb, p, REASON_NO_ENDPOINT);
	if (!fits(skb, p))
		return reject(skb, p, REASON_TOO_BIG);
	verdict = send_on_wire(skb, p, prefix);
	return verdict != GO_ON ? verdict : send_through_device(skb, p, &prefix->agent, p->vni);
}

/* Outside all networks, or this host: its stack and nftables decide. */
static __always_inline int leave(struct __sk_buff *skb, struct packet *p)
{
	int reason;

	if (!p->prefix && p->port->flags & PORT_INTERNAL)
		return reject(skb, p, REASON_INTERNAL);
	if (!p->prefix && is_link_local(p, &p->dst))
		return reject(skb, p, REASON_LINK_LOCAL);
	reason = check_tunnel_port(skb, p);
	return reason ? reject(skb, p, reason) : send_to_host(skb, p);
}

SEC("tc")
int from_container(struct __sk_buff *skb)
{
	struct packet p = {};
	int verdict;

	if ((verdict = find_port(skb, &p)) != GO_ON)
		return verdict;
	if ((verdict = read_sent(skb, &p)) != GO_ON)
		return verdict;
	if ((verdict = check_destination(skb, &p)) != GO_ON)
		return verdict;
	if ((verdict = check_source(skb, &p)) != GO_ON)
		return verdict;
	if ((verdict = deliver_here(skb, &p)) != GO_ON)
		return verdict;
	if ((verdict = stop_host(skb, &p)) != GO_ON)
		return verdict;
	if ((verdict = deliver_to_agent(skb, &p)) != GO_ON)
		return verdict;
	return leave(skb, &p);
}

/* ---- the receiving side ------------------------------------------------------------------------------------------ */

SEC("tc")
int from_underlay(struct __sk_buff *skb)
{
	struct tunnel_headers outer;
	struct packet p = {};
	union addr agent;
	int verdict, reason;

	if (!find_config(&p))
		return LEAVE_ALONE;
	if ((verdict = find_tunnel(skb, &p, &outer)) != GO_ON)
		return verdict;
	agent = p.src;
	reason = read_frame(skb, &p, sizeof(outer));
	if (!reason) {
		p.sport = p.dport = 0;
		reason = check_arrival(&p, &agent, bpf_ntohl(outer.vni) >> 8);
	}
	/* A packet whose headers were taken off here keeps its marks of a tunnel (skb->encapsulation, gso_type). So the
	 * device must have what is to be answered, for bpf_skb_change_tail() fails with ENOTSUPP then, and what its
	 * receiver has to cut (UDP_SEGMENT): it would look for the headers. TCP takes super-packets as they are. */
	if (reason == REASON_NO_ENDPOINT || (!reason && skb->gso_size && p.proto != IPPROTO_TCP))
		return LEAVE_ALONE;
	if (reason)
		return drop(skb, &p, reason);
	if ((verdict = take_headers_off(skb, &p, &outer)) != GO_ON)
		return verdict;
	return deliver(skb, &p, p.endpoint);
}

SEC("tc")
int from_tunnel(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = {};
	struct packet p = {};
	union addr agent;
	int reason;

	if (!find_config(&p) || bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_BYTES, 0))
		return drop(skb, &p, REASON_NOT_SET_UP);
	map_v4(&agent, bpf_htonl(key.remote_ipv4));
	reason = skb->vlan_present ? REASON_VLAN : read_frame(skb, &p, 0);
	if (!reason)
		reason = check_arrival(&p, &agent, key.tunnel_id);
	if (reason)
		return reject_arrival(skb, &p, &agent, reason);
	return deliver(skb, &p, p.endpoint);
}

/* What of the fast way this kernel can do: test run by the agent on a packet of its own, never attached. */
SEC("tc")
int probe_fast_way(struct __sk_buff *skb)
{
	int able = bpf_skb_adjust_room(skb, TEMPLATE_BYTES, BPF_ADJ_ROOM_MAC, PUT_ON) ? 0 : CAN_SEND;

	if (!able && bpf_skb_adjust_room(skb, TEMPLATE_BYTES, BPF_ADJ_ROOM_MAC, TAKE_OFF))
		return able;
	if (!bpf_skb_adjust_room(skb, -TEMPLATE_BYTES, BPF_ADJ_ROOM_MAC, TAKE_OFF | DECAP_L3_IPV6))
		return able | CAN_RECEIVE | CAN_RECEIVE6;
	return bpf_skb_adjust_room(skb, -TEMPLATE_BYTES, BPF_ADJ_ROOM_MAC, TAKE_OFF) ? able : able | CAN_RECEIVE;
}

char _license[] SEC("license") = "Dual BSD/GPL";
