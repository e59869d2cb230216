/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The records that the agent (src/hedgerow/kernel/maps.py) and the data path share, and the maps that hold them.
 *
 * Addresses are always 16 bytes; an IPv4 address is written v4-mapped (::ffff:a.b.c.d, RFC 4291 2.5.5.2), so every map
 * and every check serves both families. Ports and addresses are in network byte order, all else in host byte order.
 * Every record is padded by hand: the agent packs it with struct.pack, and the kernel compares whole keys.
 *
 * Maps are pinned by name under a directory that carries LAYOUT: a record that changes its shape needs a new number.
 */
#ifndef HEDGEROW_MAPS_H
#define HEDGEROW_MAPS_H

#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

#define LAYOUT 1

union addr {
	__u8 bytes[16];
	__be32 words[4];
	__u64 halves[2];
};

/* ---- records ----------------------------------------------------------------------------------------------------- */

/* One per host. */
struct config {
	__u32 tunnel_ifindex;     /* the VXLAN device */
	__u32 underlay_ifindex;
	__u32 peer_ifindex;       /* hr-peer: behind it is the host's own stack */
	__u32 inner_mtu;          /* largest inner IP packet that fits the underlay in one piece */
	__u32 flags;
	__u8 gateway_mac[6];      /* of every veth's host end and of the VXLAN device, on every host */
	__be16 tunnel_port;       /* UDP, of every host */
	__u8 pad[4];
	union addr underlay;      /* ours: where tunnels to this host end */
};
#define CONFIG_FAST 1             /* put headers on and take them off here; else the VXLAN device does */

/* A container's attachment, looked up by its address. Only this host's endpoints. */
struct endpoint {
	__u32 ifindex;            /* host end of the veth */
	__u32 vni;
	__u8 macs[12];            /* container's MAC, then the gateway's: the first 12 bytes of a frame to it */
	__u32 flags;              /* as in struct port */
};

/* The same attachment, looked up by the interface that a packet came in on. */
struct port {
	__u32 vni;
	__u32 flags;
	__u8 mac[6];
	__u8 pad[2];
	union addr addr4;         /* zero: none */
	union addr addr6;
};
#define PORT_HOST 1               /* the host's own stack behind hr-peer, no container */
#define PORT_INTERNAL 2           /* its network has no way out */

/* Packed: an LPM trie compares the bytes that follow the length. */
struct prefix_key {
	__u32 bits;               /* 96 + the IPv4 length */
	union addr addr;
} __attribute__((packed, aligned(4)));

enum prefix_kind {
	PREFIX_NETWORK = 1,       /* part of a network that no agent owns: unreachable */
	PREFIX_LOCAL,             /* owned by this host */
	PREFIX_REMOTE,            /* owned by `agent` */
	PREFIX_HOST,              /* an address of this host; `vni` (0: every network) reaches it through the stack */
	PREFIX_CLOSED,            /* nobody may: the VTEPs' subnet, metadata services */
};

/* IPv4, UDP, VXLAN and inner Ethernet header. */
#define TEMPLATE_BYTES 50

struct prefix {
	union addr agent;         /* underlay address */
	__u32 vni;
	__u32 kind;
	/* What precedes a packet to `agent`: lengths, source port, VNI and source MAC are filled in, and the IPv4
	 * checksum counts a length of 0. */
	__u8 template[TEMPLATE_BYTES];
	__u8 pad[2];
	__be32 next_hop;          /* on the underlay's link, on the way to `agent`; 0: the routes are asked */
};

/* A host of the cluster, ours included, looked up by its underlay address. */
struct agent {
	__u32 flags;              /* none yet */
};

/* Two networks that may talk; entered in both orders. The value says nothing. */
struct allow_key {
	__u32 from, to;
};

/* Why a packet was dropped: docs/reference/drop-reasons.md explains each. */
enum reason {
	REASON_MALFORMED = 1,
	REASON_NOT_IP,
	REASON_VLAN,
	REASON_SOURCE_MAC,
	REASON_SOURCE_ADDRESS,
	REASON_DESTINATION_ADDRESS,
	REASON_MULTICAST,
	REASON_LINK_LOCAL,
	REASON_ISOLATED,
	REASON_INTERNAL,
	REASON_NO_ENDPOINT,
	REASON_CLOSED,
	REASON_TUNNEL_PORT,
	REASON_TOO_BIG,
	REASON_UNKNOWN_AGENT,
	REASON_FOREIGN_TUNNEL,
	REASON_NOT_OWNER,
	REASON_WRONG_VNI,
	REASON_NOT_SET_UP,
	REASON_HELPER,
	REASON_UNANSWERED,
	REASON_COUNT,
};

/* VNI 0: the network is not known, or the packet is the host's own. Never a VNI that only a stranger claimed. */
struct counter_key {
	__u32 vni;
	__u32 reason;
};

struct counter {
	__u64 packets, bytes;
};

struct drop_event {
	__u64 time_ns;            /* CLOCK_MONOTONIC */
	union addr src, dst;
	__u32 vni, ifindex;
	__be16 sport, dport;
	__u8 reason, proto;
	__u8 pad[2];
};

/* ---- maps -------------------------------------------------------------------------------------------------------- */

/* Sizes. A hash without preallocation costs 16 bytes an entry at once and the record when there is one; a trie costs
 * nothing before it is filled; an LRU hash is allocated whole. */
#define MAX_PORTS 8192            /* several times the containers that anybody runs on one host */
#define MAX_ENDPOINTS 16384       /* an IPv4 and an IPv6 address each */
#define MAX_PREFIXES (1 << 20)    /* 5,000 agents in 100 networks, both families */
#define MAX_ALLOWED 16384         /* 128 networks that all may talk to each other */
#define MAX_AGENTS 16384          /* three times what one controller is measured with */
#define MAX_COUNTERS 8192         /* 300 networks with every reason */
#define MAX_REFUSED 8192          /* askers whose refusals are limited; an evicted one starts anew */
#define DROP_RING_BYTES (1 << 17) /* 1,800 events: 9 s of 2 CPUs at their limit */

#define MAP(name_, type_, key_, value_, max_, flags_)   \
	struct {                                        \
		__uint(type, type_);                    \
		__type(key, key_);                      \
		__type(value, value_);                  \
		__uint(max_entries, max_);              \
		__uint(map_flags, flags_);              \
		__uint(pinning, LIBBPF_PIN_BY_NAME);    \
	} name_ SEC(".maps")

MAP(host, BPF_MAP_TYPE_ARRAY, __u32, struct config, 1, 0);
MAP(ports, BPF_MAP_TYPE_HASH, __u32, struct port, MAX_PORTS, BPF_F_NO_PREALLOC);
MAP(endpoints, BPF_MAP_TYPE_HASH, union addr, struct endpoint, MAX_ENDPOINTS, BPF_F_NO_PREALLOC);
MAP(prefixes, BPF_MAP_TYPE_LPM_TRIE, struct prefix_key, struct prefix, MAX_PREFIXES, BPF_F_NO_PREALLOC);
MAP(agents, BPF_MAP_TYPE_HASH, union addr, struct agent, MAX_AGENTS, BPF_F_NO_PREALLOC);
MAP(allowed, BPF_MAP_TYPE_HASH, struct allow_key, __u32, MAX_ALLOWED, BPF_F_NO_PREALLOC);
MAP(counters, BPF_MAP_TYPE_PERCPU_HASH, struct counter_key, struct counter, MAX_COUNTERS, BPF_F_NO_PREALLOC);
MAP(refusals, BPF_MAP_TYPE_LRU_HASH, union addr, __u64, MAX_REFUSED, 0);
MAP(sampling, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, 2, 0);
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, DROP_RING_BYTES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} drops SEC(".maps");

#endif
