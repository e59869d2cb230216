/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who may send what to whom. Groups that are one open network pass without a look; for all others there is a row in
 * `allowed`, for each direction its own.
 *
 * A row names what an opener may send. What a row does not name passes only as a reply to a flow that the other side
 * began, and only as long as that flow might still begin: so a change of the rules judges what is open anew.
 */
#ifndef HEDGEROW_RULES_H
#define HEDGEROW_RULES_H

#include "flow.h"

static __always_inline const struct allow *find_allow(__u32 from, __u32 to)
{
	struct allow_key key = { .from = from, .to = to };

	return bpf_map_lookup_elem(&allowed, &key);
}

/* The protocol by which rules call it. A protocol of one family in packets of the other has no name. */
static __always_inline __u8 protocol_in_rules(const struct packet *p, __u8 proto)
{
	if (proto == (p->is6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		return IPPROTO_ICMP;
	return proto == IPPROTO_ICMP ? IPPROTO_RAW : proto;
}

/* The rule of the first range that names it, or NO_RULE. A number, not the range: to the verifier one is like another,
 * and it need not follow what happens after each.
 */
#define NO_RULE (-1LL)

static __noinline __s64 find_rule(const struct allow *row, __u8 proto, __u16 port)
{
	for (__u32 i = 0; i < MAX_RANGES; i++) {
		const struct range *range = &row->ranges[i];

		if (i >= row->count)
			break;
		if ((!range->protocol || range->protocol == proto) && port >= range->low && port <= range->high)
			return range->rule;
	}
	return NO_RULE;
}

/* Whether a flow may begin that runs to this port. */
static __always_inline int may_begin(const struct packet *p, const struct allow *row, __u8 proto, __be16 port)
{
	return row && (row->flags & ALLOW_BOTH || find_rule(row, protocol_in_rules(p, proto), bpf_ntohs(port)) >= 0);
}

/* A change of the rules has ended the flow: its agent finds the mark, and makes an event of it. */
static __always_inline int cut(struct packet *p, struct connection *c)
{
	if (!(c->flags & CONNECTION_CUT))
		c->flags |= CONNECTION_CUT;
	p->rule = c->rule;
	return REASON_RULE_CHANGED;
}

/* What no rule lets begin: `there` and `back` are the rows of both directions, if any. Returns 0 or a reason. */
static __noinline int judge_reply(struct __sk_buff *skb, struct packet *p, const struct allow *there,
				  const struct allow *back)
{
	struct connection_key key;
	struct connection *c = find_connection(p, 0);

	if (c && is_answering(p)) {
		if (!may_begin(p, back, p->proto, p->sport))
			return cut(p, c);
		see(c, p, 0);
		return 0;
	}
	c = find_quoted(skb, p, &key);
	if (c)
		return may_begin(p, same(&key.src, &p->src) ? there : back, key.proto, key.dport) ? 0 : cut(p, c);
	c = find_connection(p, 1);
	if (c)
		return cut(p, c);
	return there ? REASON_NO_RULE : back ? REASON_UNSOLICITED : REASON_ISOLATED;
}

/* Between groups that have no row. */
static __always_inline int refusal(__u32 from, __u32 to)
{
	return (from | to) & GROUP_CLOSED ? REASON_NO_RULE : REASON_ISOLATED;
}

/* Returns 0 or a reason. `is_known`: there is somebody who could answer, so that a flow may begin. */
static __noinline int judge_by_rules(struct __sk_buff *skb, struct packet *p, __u32 from, __u32 to, int is_known)
{
	const struct allow *there = find_allow(from, to);
	__s64 rule = NO_RULE;
	int reason;

	if (there && there->flags & ALLOW_BOTH)
		return 0;
	reason = read_flow(skb, p);
	if (reason)
		return there || find_allow(to, from) ? reason : refusal(from, to);
	if (there)
		rule = find_rule(there, protocol_in_rules(p, p->proto), bpf_ntohs(p->dport));
	if (rule >= 0)
		return is_known ? remember(p, from, to, rule) : 0;
	reason = judge_reply(skb, p, there, find_allow(to, from));
	return reason == REASON_ISOLATED ? refusal(from, to) : reason;
}

static __always_inline int judge(struct __sk_buff *skb, struct packet *p, __u32 from, __u32 to, int is_known)
{
	return from == to && !(from & GROUP_CLOSED) ? 0 : judge_by_rules(skb, p, from, to, is_known);
}

/* Of an address in `prefix`. */
static __always_inline __u32 group_of(const struct prefix *prefix, const union addr *addr)
{
	const struct member *member = NULL;

	if (prefix->group & GROUP_CLOSED)
		member = bpf_map_lookup_elem(&members, addr);
	return member ? member->group : prefix->group;
}

#endif
