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
#include "trace.h"
#include "guard.h"
#include "host.h"
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
	if (reason)
		return drop(skb, p, reason);
	if (p->config->flags & CONFIG_TRACING)
		find_trace(skb, p, PROGRAM_CONTAINER);
	return GO_ON;
}

/* Whom it is meant for: an endpoint of this host, else whatever is behind the prefix, else the outside. Nobody sends
 * packets to itself by a link.
 */
static __always_inline int find_target(struct __sk_buff *skb, struct packet *p)
{
	p->endpoint = bpf_map_lookup_elem(&endpoints, &p->dst);
	if (!p->endpoint)
		p->prefix = find_prefix(&p->dst);
	else if (p->endpoint->ifindex == skb->ifindex)
		return drop(skb, p, REASON_DESTINATION_ADDRESS);
	return GO_ON;
}

/* A host speaks to its own endpoints only: others would take its packets for a container's. */
static __always_inline int check_call_of_host(struct __sk_buff *skb, struct packet *p)
{
	if (p->endpoint)
		return check_entering(skb, p);
	return p->prefix && p->prefix->kind == PREFIX_LOCAL ? REASON_NO_ENDPOINT : REASON_CLOSED;
}

/* A GSO packet is cut to gso_size payload bytes each; its TCP options are not counted. */
static __always_inline int fits(struct __sk_buff *skb, const struct packet *p)
{
	__u32 size = skb->gso_size;

	size = size ? size + p->l4 - L3 + (p->proto == IPPROTO_TCP ? 20 : 8) : skb->len - L3;
	return size <= p->config->inner_mtu;
}

/* What a container sends to another one, or to where one could be. */
static __always_inline int check_call_of_container(struct __sk_buff *skb, struct packet *p)
{
	__u32 to = p->endpoint ? p->endpoint->group : group_of(p->prefix, &p->dst);
	int is_known = p->endpoint || p->prefix->kind == PREFIX_REMOTE;
	int reason = judge(skb, p, p->port->group, to, is_known);

	if (reason || p->endpoint)
		return reason;
	if (!is_known)
		return REASON_NO_ENDPOINT;
	return fits(skb, p) ? 0 : REASON_TOO_BIG;
}

/* Whether it may go there. What is for the host itself, or for the outside, its stack and nftables judge as well. */
static __always_inline int check_reach(struct __sk_buff *skb, struct packet *p)
{
	if (p->port->flags & PORT_HOST)
		return check_call_of_host(skb, p);
	if (p->endpoint)
		return check_call_of_container(skb, p);
	if (!p->prefix)
		return check_leaving(skb, p);
	switch (p->prefix->kind) {
	case PREFIX_CLOSED:
		return REASON_CLOSED;
	case PREFIX_HOST:
		return p->prefix->vni && p->prefix->vni != p->vni ? REASON_ISOLATED : check_leaving(skb, p);
	default:
		return check_call_of_container(skb, p);
	}
}

static __always_inline int send_on(struct __sk_buff *skb, struct packet *p)
{
	int verdict;

	if (p->endpoint)
		return deliver(skb, p, p->endpoint);
	if (!p->prefix || p->prefix->kind != PREFIX_REMOTE)
		return send_to_host(skb, p);
	verdict = send_on_wire(skb, p, p->prefix);
	return verdict != GO_ON ? verdict : send_through_device(skb, p, &p->prefix->agent, p->vni);
}

SEC("tc")
int from_container(struct __sk_buff *skb)
{
	struct packet p = {};
	int verdict, reason;

	if ((verdict = find_port(skb, &p)) != GO_ON)
		return verdict;
	if ((verdict = read_sent(skb, &p)) != GO_ON)
		return verdict;
	if ((verdict = check_destination(skb, &p)) != GO_ON)
		return verdict;
	if ((verdict = check_source(skb, &p)) != GO_ON)
		return verdict;
	if ((verdict = find_target(skb, &p)) != GO_ON)
		return verdict;
	reason = check_reach(skb, &p);
	return reason ? reject(skb, &p, reason) : send_on(skb, &p);
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
		if (p.config->flags & CONFIG_TRACING)
			find_trace(skb, &p, PROGRAM_UNDERLAY);
		reason = check_arrival(skb, &p, &agent, bpf_ntohl(outer.vni) >> 8);
	}
	/* A packet whose headers were taken off here keeps its marks of a tunnel (skb->encapsulation, gso_type). So the
	 * device must have what is to be answered, for bpf_skb_change_tail() fails with ENOTSUPP then, and what its
	 * receiver has to cut (UDP_SEGMENT): it would look for the headers. TCP takes super-packets as they are. */
	if (reason == REASON_NO_ENDPOINT || (!reason && skb->gso_size && p.proto != IPPROTO_TCP)) {
		trace(skb, &p, STAGE_DEVICE, 0);
		return LEAVE_ALONE;
	}
	if (reason)
		return drop(skb, &p, reason);
	if ((verdict = take_headers_off(skb, &p, &outer)) != GO_ON)
		return verdict;
	return deliver(skb, &p, p.endpoint);
}

/* Who sent it, and under which VNI, as the VXLAN device read it. Returns 0 when it cannot tell. */
static __noinline int read_tunnel(struct __sk_buff *skb, union addr *agent, __u32 *vni)
{
	struct bpf_tunnel_key key = {};

	if (!bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_BYTES, 0))
		map_v4(agent, bpf_htonl(key.remote_ipv4));
	else if (!bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_BYTES, BPF_F_TUNINFO_IPV6))
		__builtin_memcpy(agent, key.remote_ipv6, sizeof(*agent));
	else
		return 0;
	*vni = key.tunnel_id;
	return 1;
}

SEC("tc")
int from_tunnel(struct __sk_buff *skb)
{
	struct packet p = {};
	union addr agent;
	__u32 vni;
	int reason;

	if (!find_config(&p) || !read_tunnel(skb, &agent, &vni))
		return drop(skb, &p, REASON_NOT_SET_UP);
	reason = skb->vlan_present ? REASON_VLAN : read_frame(skb, &p, 0);
	if (!reason) {
		if (p.config->flags & CONFIG_TRACING)
			find_trace(skb, &p, PROGRAM_TUNNEL);
		reason = check_arrival(skb, &p, &agent, vni);
	}
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
