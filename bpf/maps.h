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
	__u32 host_ifindex;       /* hr-host, its other end: where containers' packets enter that stack */
	__u32 inner_mtu;          /* largest inner IP packet that fits the underlay in one piece */
	__u32 flags;
	__u32 connections_each;   /* how many entries of `connections` one endpoint may open */
	__u8 gateway_mac[6];      /* of every veth's host end and of the VXLAN device, on every host */
	__be16 tunnel_port;       /* UDP, of every host */
	__u8 pad[4];
	union addr underlay;      /* ours: where tunnels to this host end */
};
#define CONFIG_FAST 1             /* put headers on and take them off here; else the VXLAN device does */
#define CONFIG_TRACING 2          /* look every packet up in `traced` */

/* Who is judged alike, numbered by each host for itself. Members of an open network have its VNI for a group; those of
 * a network with rules have one with this bit, and reach nobody, not even their like, without a row in `allowed`. */
#define GROUP_CLOSED 0x80000000

/* A container's attachment, looked up by its address. Only this host's endpoints. */
struct endpoint {
	__u32 ifindex;            /* host end of the veth */
	__u32 vni;
	__u32 group;
	__u8 macs[12];            /* container's MAC, then the gateway's: the first 12 bytes of a frame to it */
	__u32 flags;              /* as in struct port */
	__u32 container;
};

/* The same attachment, looked up by the interface that a packet came in on. */
struct port {
	__u32 vni;
	__u32 flags;
	__u32 group;
	__u8 mac[6];
	__u8 pad[2];
	__u32 container;          /* numbers those that are on several networks; 0: it is on one, or nobody knows */
	union addr addr4;         /* zero: none */
	union addr addr6;
};
#define PORT_HOST 1               /* the host's own stack behind hr-peer, no container */
#define PORT_INTERNAL 2           /* its network has no way out */
#define PORT_NO_HOSTS 4           /* its host may not call it */

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
	PREFIX_CLOSED,            /* nobody may: the VTEPs' subnet */
};

/* IPv4, UDP, VXLAN and inner Ethernet header. */
#define TEMPLATE_BYTES 50

struct prefix {
	union addr agent;         /* underlay address */
	__u32 vni;
	__u32 kind;
	__u32 group;              /* of an address in it; GROUP_CLOSED: of one that `members` does not name */
	/* What precedes a packet to `agent`: lengths, source port, VNI and source MAC are filled in, and the IPv4
	 * checksum counts a length of 0. */
	__u8 template[TEMPLATE_BYTES];
	__u8 pad[2];
	__be32 next_hop;          /* on the underlay's link, on the way to `agent`; 0: the routes are asked */
	__u8 pad2[4];
};

/* An endpoint of a network with rules, on whatever host, looked up by its address. */
struct member {
	__u32 group;
};

/* A host of the cluster, ours included, looked up by its underlay address. */
struct agent {
	__u32 flags;
};
#define AGENT_CONTROLLER 1        /* a controller runs there */
#define AGENT_NO_TUNNEL 2         /* no agent does: nothing comes out of a tunnel from there */

/* What the first group may send to the second, each packet by itself. */
struct allow_key {
	__u32 from, to;
};

/* Host byte order. A protocol without ports has the one port 0. */
struct range {
	__u16 low, high;
	__u8 protocol;            /* 0: any; IPPROTO_ICMP: ICMPv6 too */
	__u8 pad[3];
	__u32 rule;               /* the agent's number of the line in config.yaml; 0: an `allow` */
};
#define MAX_RANGES 16

struct allow {
	__u32 flags;
	__u32 count;              /* of the ranges in use */
	struct range ranges[MAX_RANGES];
};
#define ALLOW_BOTH 1              /* everything, and the row for the way back says so too: nothing is remembered */

/* A flow as its opener sees it. An ICMP echo has its identifier for both ports, what has no ports 0. */
struct connection_key {
	union addr src, dst;
	__be16 sport, dport;
	__u8 proto;
	__u8 pad[3];
};

struct connection {
	__u64 seen_ns;            /* CLOCK_MONOTONIC, at most some seconds old while packets come */
	__u32 rule;               /* that let it begin */
	__u32 flags;
	__u32 from, to;           /* groups of opener and replier at the last packet; 0: a host */
	__u32 tick;               /* when the time was taken last */
	__u8 pad[4];
};
#define CONNECTION_REPLIED 1
#define CONNECTION_OPENER_DONE 2  /* TCP: sent its FIN */
#define CONNECTION_REPLIER_DONE 4
#define CONNECTION_RESET 8
#define CONNECTION_CUT 16         /* a change of the rules ended it */

/* What the first fragment of a packet said, for the later ones. */
struct fragment_key {
	union addr src, dst;
	__be32 id;
	__u8 proto;               /* as in the IPv4 header, or the IPv6 fragment header */
	__u8 pad[3];
};

struct first_fragment {
	__be16 sport, dport;
	__u8 said;                /* as in struct packet */
	__u8 pad[3];
};

/* What a network's containers may ask of hosts beside DNS and ping. Protocol and port 0: the metadata services. */
struct host_service_key {
	__u32 vni;
	__u8 proto;
	__u8 pad;
	__be16 port;
};

struct host_service {
	__u32 where;
};
#define SERVICE_OWN_HOST 1
#define SERVICE_CONTROLLERS 2     /* of a host where a controller runs, this one or another */

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
	REASON_NO_RULE,
	REASON_UNSOLICITED,
	REASON_RULE_CHANGED,
	REASON_CONNECTIONS_FULL,
	REASON_LOST_FRAGMENT,
	REASON_TO_HOST,
	REASON_FROM_HOST,
	REASON_BARRED,
	REASON_UNJUDGED,
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
	__u32 rule;               /* REASON_RULE_CHANGED: which one had let the flow begin */
	__u8 pad2[4];
};

/* What became of a packet whose flow is in `traced`, step by step. */
struct trace_event {
	__u64 time_ns;            /* CLOCK_MONOTONIC */
	__u32 id;                 /* the value in `traced` */
	__u32 ifindex;            /* where it came in */
	__u8 program, stage;
	__u8 reason;              /* STAGE_DROPPED, STAGE_ANSWERED */
	__u8 pad[5];
};

enum program { PROGRAM_CONTAINER = 1, PROGRAM_UNDERLAY, PROGRAM_TUNNEL };

enum stage {
	STAGE_SEEN = 1,           /* the program read it */
	STAGE_DELIVERED,          /* into a container of this host */
	STAGE_WIRE,               /* to another agent, the fast way */
	STAGE_DEVICE,             /* to the VXLAN device, either way */
	STAGE_HOST,               /* to the host's own stack */
	STAGE_DROPPED,
	STAGE_ANSWERED,           /* dropped, and its sender told */
};

/* ---- maps -------------------------------------------------------------------------------------------------------- */

/* Sizes. A hash without preallocation costs 16 bytes an entry at once and the record when there is one; a trie costs
 * nothing before it is filled; an LRU hash is allocated whole. */
#define MAX_PORTS 8192            /* several times the containers that anybody runs on one host */
#define MAX_ENDPOINTS 16384       /* an IPv4 and an IPv6 address each */
#define MAX_PREFIXES (1 << 20)    /* 5,000 agents in 100 networks, both families */
#define MAX_MEMBERS (1 << 17)     /* 65,000 endpoints in networks with rules, both families */
#define MAX_ALLOWED 65536         /* 256 groups that all may talk to each other */
#define MAX_AGENTS 65536          /* 16,000 hosts of four addresses each: three times what one controller is measured with */
#define MAX_CONNECTIONS (1 << 18) /* sixteen endpoints at their limit; 130 bytes each */
#define MAX_OPENERS 32768         /* endpoints of any host that opened some of them */
#define MAX_FRAGMENTS 8192        /* an evicted packet loses its later fragments */
#define MAX_HOST_SERVICES 16384
#define MAX_BARRED 4096
#define MAX_COUNTERS 16384        /* 500 networks with every reason */
#define MAX_REFUSED 8192          /* askers whose refusals are limited; an evicted one starts anew */
#define MAX_TRACED 64
#define DROP_RING_BYTES (1 << 17) /* 1,600 events: 8 s of 2 CPUs at their limit */
#define TRACE_RING_BYTES (1 << 16)

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
MAP(members, BPF_MAP_TYPE_HASH, union addr, struct member, MAX_MEMBERS, BPF_F_NO_PREALLOC);
MAP(allowed, BPF_MAP_TYPE_HASH, struct allow_key, struct allow, MAX_ALLOWED, BPF_F_NO_PREALLOC);
MAP(connections, BPF_MAP_TYPE_HASH, struct connection_key, struct connection, MAX_CONNECTIONS, BPF_F_NO_PREALLOC);
/* By opener: how many entries the data path ever made in `connections`, and how many of them the agent took out. Each
 * has one writer, so none loses a count; the difference, modulo 2^64, is what is there. */
MAP(opened, BPF_MAP_TYPE_HASH, union addr, __u64, MAX_OPENERS, BPF_F_NO_PREALLOC);
MAP(closed, BPF_MAP_TYPE_HASH, union addr, __u64, MAX_OPENERS, BPF_F_NO_PREALLOC);
MAP(fragments, BPF_MAP_TYPE_LRU_HASH, struct fragment_key, struct first_fragment, MAX_FRAGMENTS, 0);
MAP(host_services, BPF_MAP_TYPE_HASH, struct host_service_key, struct host_service, MAX_HOST_SERVICES,
    BPF_F_NO_PREALLOC);
/* Links of this host that no container's packet may leave by: other engines' bridges. The value says nothing. */
MAP(barred, BPF_MAP_TYPE_HASH, __u32, __u32, MAX_BARRED, BPF_F_NO_PREALLOC);
MAP(counters, BPF_MAP_TYPE_PERCPU_HASH, struct counter_key, struct counter, MAX_COUNTERS, BPF_F_NO_PREALLOC);
MAP(refusals, BPF_MAP_TYPE_LRU_HASH, union addr, __u64, MAX_REFUSED, 0);
MAP(sampling, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, 2, 0);
/* A port that is 0 stands for any; the value is the id of the trace. */
MAP(traced, BPF_MAP_TYPE_HASH, struct connection_key, __u32, MAX_TRACED, BPF_F_NO_PREALLOC);

#define RING(name_, bytes_)                             \
	struct {                                        \
		__uint(type, BPF_MAP_TYPE_RINGBUF);     \
		__uint(max_entries, bytes_);            \
		__uint(pinning, LIBBPF_PIN_BY_NAME);    \
	} name_ SEC(".maps")

RING(drops, DROP_RING_BYTES);
RING(traces, TRACE_RING_BYTES);

#endif
