/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every dropped packet is counted by network and reason; a sample of them goes to a ring buffer. */
#ifndef HEDGEROW_DROP_H
#define HEDGEROW_DROP_H

#include "trace.h"

#define EVENTS_PER_SECOND 100     /* per CPU: a flood of refused packets must not become a flood of events */

static __always_inline void count(struct __sk_buff *skb, __u32 vni, __u32 reason)
{
	struct counter_key key = { .vni = vni, .reason = reason };
	struct counter *counter = bpf_map_lookup_elem(&counters, &key);

	if (!counter) {
		struct counter zero = {};

		bpf_map_update_elem(&counters, &key, &zero, BPF_NOEXIST);
		counter = bpf_map_lookup_elem(&counters, &key);
		if (!counter)
			return;
	}
	counter->packets++;
	counter->bytes += skb->len;
}

static __always_inline int may_sample(__u64 now)
{
	__u32 zero = 0, one = 1;
	__u64 *window = bpf_map_lookup_elem(&sampling, &zero);
	__u64 *used = bpf_map_lookup_elem(&sampling, &one);

	if (!window || !used)
		return 0;
	if (now - *window > SECOND_NS) {
		*window = now;
		*used = 0;
	}
	return (*used)++ < EVENTS_PER_SECOND;
}

/* Drops the packet under the sender's network. Returns the verdict. */
static __noinline int drop(struct __sk_buff *skb, const struct packet *p, __u32 reason)
{
	__u64 now = bpf_ktime_get_ns();
	struct drop_event *event;

	count(skb, p->vni, reason);
	trace(skb, p, STAGE_DROPPED, reason);
	if (!may_sample(now))
		return TC_ACT_SHOT;
	event = bpf_ringbuf_reserve(&drops, sizeof(*event), 0);
	if (!event)
		return TC_ACT_SHOT;
	event->time_ns = now;
	event->src = p->src;
	event->dst = p->dst;
	event->vni = p->vni;
	event->ifindex = skb->ifindex;
	if (p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP) {
		event->sport = p->sport;
		event->dport = p->dport;
	} else {
		event->sport = event->dport = 0; /* an echo's identifier is none */
	}
	event->reason = reason;
	event->proto = p->proto;
	__builtin_memset(event->pad, 0, sizeof(event->pad));
	event->rule = p->rule;
	__builtin_memset(event->pad2, 0, sizeof(event->pad2));
	bpf_ringbuf_submit(event, 0);
	return TC_ACT_SHOT;
}

#endif
