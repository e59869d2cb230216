/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The wall between containers and hosts. nftables has one as well, and judges more; but its rules can be flushed by
 * whoever administers the host, and this one must hold then.
 *
 * A container asks its host for DNS and echoes, and for what its network's `host_services` name; other hosts of the
 * cluster for echoes. What else it sends there is a reply to what a host began. What leaves for the outside is none of
 * this wall's business, except by other engines' bridges.
 */
#ifndef HEDGEROW_HOST_H
#define HEDGEROW_HOST_H

#include "flow.h"
#include "guard.h"

#define DNS_ADDRESS bpf_htonl(0xa9fe0101)       /* 169.254.1.1 */
#define METADATA_ADDRESS bpf_htonl(0xa9fea9fe)  /* 169.254.169.254 */
#define METADATA_ADDRESS6_HIGH bpf_cpu_to_be64(0xfd000ec200000000) /* fd00:ec2::254 */
#define METADATA_ADDRESS6_LOW bpf_cpu_to_be64(0x254)

#define AF_INET 2                 /* <sys/socket.h> is the C library's */
#define AF_INET6 10

static __always_inline int is_metadata(const struct packet *p)
{
	if (p->is6)
		return p->dst.halves[0] == METADATA_ADDRESS6_HIGH && p->dst.halves[1] == METADATA_ADDRESS6_LOW;
	return p->dst.words[3] == METADATA_ADDRESS;
}

/* Whether the host's stack would keep a packet for itself that comes by hr-host; if not, `link` is where it leaves by.
 * An address to which there is no route cannot be told from the host's own, and neither can be any while forwarding is
 * off.
 */
static __noinline int is_of_host(struct __sk_buff *skb, const struct packet *p, const union addr *addr, __u32 *link)
{
	struct bpf_fib_lookup ask = { .family = p->is6 ? AF_INET6 : AF_INET, .ifindex = p->config->host_ifindex };
	long found;

	if (p->is6)
		__builtin_memcpy(ask.ipv6_dst, addr, sizeof(*addr));
	else
		ask.ipv4_dst = addr->words[3];
	found = bpf_fib_lookup(skb, &ask, sizeof(ask), 0);
	*link = ask.ifindex;
	return found < 0 || found == BPF_FIB_LKUP_RET_NOT_FWDED || found == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

/* Whether `host_services` of the network opens a port of the address, which is this host's own or a cluster host's. */
static __always_inline int is_open(__u32 vni, __u8 proto, __be16 port, const struct agent *host, int is_own)
{
	struct host_service_key key = { .vni = vni, .proto = proto, .port = port };
	const struct host_service *service = bpf_map_lookup_elem(&host_services, &key);

	if (!service)
		return 0;
	return (is_own && service->where & SERVICE_OWN_HOST) ||
	       (host && host->flags & AGENT_CONTROLLER && service->where & SERVICE_CONTROLLERS);
}

/* DNS, and what is_open says, of the host at `addr` to the port which the packet goes to or comes from. */
static __always_inline int is_service(const struct packet *p, __u32 vni, const union addr *addr, __be16 port,
				      const struct agent *host, int is_own)
{
	if (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP)
		return 0;
	if (port == bpf_htons(53) && is_mapped(addr) && addr->words[3] == DNS_ADDRESS)
		return 1;
	return is_open(vni, p->proto, port, host, is_own);
}

/* Whether it is a reply to what a host began, or an error about it. */
static __noinline int is_reply(struct __sk_buff *skb, const struct packet *p)
{
	struct connection *c = find_connection(p, 0);
	struct connection_key key;

	if (c && is_answering(p)) {
		see(c, p, 0);
		return 1;
	}
	return find_quoted(skb, p, &key) != NULL;
}

/* What a container sends to its own host, or to another one of the cluster. Returns 0 or a reason. */
static __noinline int check_call_to_host(struct __sk_buff *skb, struct packet *p, const struct agent *host, int is_own)
{
	int reason = read_flow(skb, p);

	if (reason)
		return reason;
	if (is_service(p, p->vni, &p->dst, p->dport, host, is_own))
		return 0;
	if (!(is_own && p->port->flags & PORT_NO_HOSTS) && is_reply(skb, p))
		return 0;
	if (p->port->flags & PORT_INTERNAL && !p->prefix)
		return REASON_INTERNAL;
	return is_echo(p) ? 0 : REASON_TO_HOST;
}

/* What leaves the data path for the host's stack. Returns 0 or a reason. */
static __noinline int check_leaving(struct __sk_buff *skb, struct packet *p)
{
	const struct agent *host;
	__u32 link = 0;
	int is_own, reason;

	if (is_metadata(p))
		return is_open(p->vni, 0, 0, NULL, 1) ? 0 : REASON_LINK_LOCAL;
	if (!p->prefix && is_link_local(p, &p->dst))
		return REASON_LINK_LOCAL;
	host = bpf_map_lookup_elem(&agents, &p->dst);
	if (host) {
		reason = check_tunnel_port(skb, p);
		if (reason)
			return reason;
	}
	is_own = p->prefix || is_of_host(skb, p, &p->dst, &link);
	if (is_own || host)
		return check_call_to_host(skb, p, host, is_own);
	if (p->port->flags & PORT_INTERNAL)
		return REASON_INTERNAL;
	if (!bpf_map_lookup_elem(&barred, &link))
		return 0;
	reason = read_flow(skb, p);
	return reason ? reason : is_reply(skb, p) ? 0 : REASON_BARRED;
}

/* What the host's stack sends to a container of this host: its own, or what comes from elsewhere and its firewall let
 * pass. Remembered is what begins where containers may not call, for their replies. Returns 0 or a reason.
 */
static __noinline int check_entering(struct __sk_buff *skb, struct packet *p)
{
	const struct agent *host = bpf_map_lookup_elem(&agents, &p->src);
	int is_own, reason;
	__u32 link = 0;

	is_own = p->is_own_source || is_of_host(skb, p, &p->src, &link);
	/* An internal network has no way out, so nothing of outside comes in as an answer. */
	if (!is_own && p->endpoint->flags & PORT_INTERNAL)
		return REASON_INTERNAL;
	if (!is_own && !host && !bpf_map_lookup_elem(&barred, &link))
		return 0;
	reason = read_flow(skb, p);
	if (reason)
		return reason;
	if (!is_opening(p))
		return 0;
	if (is_answering(p) && is_service(p, p->endpoint->vni, &p->src, p->sport, host, is_own))
		return 0;
	if (is_own && p->endpoint->flags & PORT_NO_HOSTS)
		return REASON_FROM_HOST;
	return remember(p, 0, p->endpoint->group, 0);
}

#endif
