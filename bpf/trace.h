/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Traces: packets of chosen flows tell what becomes of them. While nobody traces, a packet pays one test at each step
 * that could be told of.
 */
#ifndef HEDGEROW_TRACE_H
#define HEDGEROW_TRACE_H

#include "packet.h"

static __noinline void tell(struct __sk_buff *skb, const struct packet *p, __u32 stage, __u32 reason)
{
	struct trace_event *event = bpf_ringbuf_reserve(&traces, sizeof(*event), 0);

	if (!event)
		return;
	event->time_ns = bpf_ktime_get_ns();
	event->id = p->trace;
	event->ifindex = skb->ifindex;
	event->program = p->program;
	event->stage = stage;
	event->reason = reason;
	__builtin_memset(event->pad, 0, sizeof(event->pad));
	bpf_ringbuf_submit(event, 0);
}

static __always_inline void trace(struct __sk_buff *skb, const struct packet *p, __u32 stage, __u32 reason)
{
	if (p->trace)
		tell(skb, p, stage, reason);
}

/* Whether the packet's flow is traced: as it is, from any port, or between any ports. */
static __noinline void find_trace(struct __sk_buff *skb, struct packet *p, __u32 program)
{
	struct connection_key key = {};
	__u32 *id;

	read_ports(skb, p);
	key.src = p->src;
	key.dst = p->dst;
	key.sport = p->sport;
	key.dport = p->dport;
	key.proto = p->proto;
	id = bpf_map_lookup_elem(&traced, &key);
	if (!id) {
		key.sport = 0;
		id = bpf_map_lookup_elem(&traced, &key);
	}
	if (!id) {
		key.dport = 0;
		id = bpf_map_lookup_elem(&traced, &key);
	}
	if (!id)
		return;
	p->trace = *id;
	p->program = program;
	tell(skb, p, STAGE_SEEN, 0);
}

#endif
