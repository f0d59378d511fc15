/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Layouts that user space shares: the C twins of the numpy dtypes in core/ciliate/model. Nothing else belongs here.
 * Field names, offsets and sizes are compared through BTF when a program set is loaded. Big-endian fields say so.
 */
#pragma once

#include <linux/types.h>

/* A 16-byte address; IPv4 is ::ffff:a.b.c.d. */
union address {
	__u8 bytes[16];
	__be32 words[4];
	__be64 halves[2];
};

/* model/endpoint.py */

#define IFINDEX_BASE 0x10000
#define ENDPOINTS_MAX 16384
#define PEER_STAMPS 65536

#define ENDPOINT_VALID (1U << 0)

struct endpoint_entry {
	__u32 ifindex;
	__u32 generation;
	union address ipv4;
	union address ipv6;
	__u8 mac[6];
	__u8 host_mac[6];
	__u32 flags;
};

struct endpoint_ip_key {
	union address address;
};

#define POLICY_NOT_READY 0
#define POLICY_AUDIT (1U << 0)

struct endpoint_policy_entry {
	__u32 identity;
	__u32 ingress;
	__u32 egress;
	__u32 flags;
};

/* model/ipcache.py */

#define IPCACHE_UNRESOLVED (1U << 0)

/* model/identity.py */

#define IDENTITY_HOST 1

struct ipcache_key {
	__u32 prefixlen;
	__u8 address[16];
};

struct ipcache_entry {
	__u32 identity;
	__u32 flags;
	__u8 tunnel[16];
};

/* model/policy.py */

#define DIRECTION_INGRESS 0
#define DIRECTION_EGRESS 1
#define DIRECTION_UNKNOWN 2

#define POLICY_PREFIX_FULL 96
#define POLICY_DENY (1U << 0)
#define POLICY_AUTH_EXPLICIT (1U << 2)

struct policy_key {
	__u32 prefixlen;
	__u32 policy;
	__u32 identity;
	__u8 direction;
	__u8 protocol;
	__be16 port;
};

struct policy_entry {
	__u32 precedence;
	__u32 rule_set;
	__be16 proxy_port;
	__u8 flags;
	__u8 auth_type;
	__u8 prefixlen;
	__u8 pad[3];
};

/* model/conntrack.py */

#define LEG_BOTH 0
#define LEG_EGRESS 1
#define LEG_INGRESS 2

#define STATE_NEW 0
#define STATE_ESTABLISHED 1
#define STATE_CLOSING 2

#define VERDICT_EGRESS (1ULL << 32)
#define VERDICT_INGRESS (1ULL << 33)
#define VERDICT_AUDIT (1ULL << 34)
#define VERDICT_PROXY_SHIFT 48

#define CONNTRACK_LOOPBACK (1U << 0)
#define CONNTRACK_FROM_PROXY (1U << 1)

struct conntrack_key {
	union address a;
	union address b;
	__be16 port_a;
	__be16 port_b;
	__u8 protocol;
	__u8 leg;
	__u16 pad;
};

struct conntrack_entry {
	__u64 word;
	__u32 endpoint[2];
	__u32 generation[2];
	__u32 identity[2];
	__u32 rule_set[2];
	__u64 seen;
	__u64 event_seen;
	__u32 packets[2];
	__u64 bytes[2];
	__u32 event_packets;
	__u16 service;
	__u8 state;
	__u8 origin;
	__u8 tcp_flags[2];
	__u16 flags;
	__u8 match_type[2];
	__be16 original_port;
};

struct endpoint_flows_entry {
	__s32 flows;
	__u32 limit;
};

/* Context of the program conntrack_recount. */
struct recount_context {
	__u32 endpoint;
	__s32 change;
};

#define COLLECT_MAX 1024
#define COLLECT_MAIN 0
#define COLLECT_NEW 1
#define COLLECT_SERVICE 2

/* Context of the program conntrack_collect: `count` and `table` go in, the rest comes out. */
struct collect_context {
	__u32 count;
	__u32 table;
	__u32 deleted;
	__u32 kept;
	__u64 now;
};

/* model/service.py */

/* Not the number of a service: a flow whose source port alone was changed, because a service's flow had its tuple. */
#define SERVICE_DIRECT 0xffff

struct service_key {
	__u8 address[16];
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

struct service_entry {
	__u16 service;
	__u16 count;
	__u32 flags;
};

struct backend_key {
	__u16 service;
	__u16 slot;
};

struct backend_entry {
	__u8 address[16];
	__be16 port;
	__u16 pad;
};

struct service_flow_entry {
	union address backend;
	__u64 seen;
	__be16 port;
	__be16 source_port;
	__u16 service;
	__u8 loopback;
	__u8 pad;
};

/* model/points.py */

#define POINTS_MAX 8
#define PLUGIN_POINT_FROM_POD 0

struct point_entry {
	__u64 packets;
	__u64 drops;
	__u64 invalid;
	__u64 missed;
	__u64 samples;
	__u64 time;
};

/* model/event.py */

#define EVENT_DROP 1
#define EVENT_TRACE 4
#define EVENT_VERDICT 5

#define POINT_TO_ENDPOINT 0
#define POINT_TO_PROXY 1
#define POINT_TO_HOST 2
#define POINT_TO_STACK 3
#define POINT_FROM_ENDPOINT 5
#define POINT_FROM_HOST 7

#define MATCH_NONE 0
#define MATCH_L3_ONLY 1
#define MATCH_L3_L4 2
#define MATCH_L4_ONLY 3
#define MATCH_ALL 4
#define MATCH_L3_PROTO 5
#define MATCH_PROTO_ONLY 6

#define TRACE_NEW 0
#define TRACE_ESTABLISHED 1
#define TRACE_REPLY 2
#define TRACE_RELATED 3
#define TRACE_REOPENED 4
#define TRACE_UNKNOWN 5

#define EVENT_JUDGED_EGRESS (1U << 0)
#define EVENT_JUDGED_INGRESS (1U << 1)
#define EVENT_AUDITED (1U << 2)
#define EVENT_REPLY (1U << 4)

enum source_file {
	FILE_NONE,
	FILE_NODE,
	FILE_PARSE,
	FILE_NEIGHBOUR,
	FILE_FRAGMENT,
	FILE_SERVICE,
	FILE_JUDGE,
	FILE_FLOW,
	FILE_ICMP,
	FILE_DELIVER,
	FILE_TRANSLATE,
	FILE_POINT,
};

struct event {
	__u64 time;
	__u8 kind;
	__u8 point;
	__u8 reason;
	__u8 verdicts;
	__u8 protocol;
	__u8 tcp_flags;
	__u8 ct_state;
	__u8 file;
	__u16 line;
	__u8 match_egress;
	__u8 match_ingress;
	__u32 source_endpoint;
	__u32 destination_endpoint;
	__u32 source_identity;
	__u32 destination_identity;
	__u8 source[16];
	__u8 destination[16];
	__u8 original_source[16];
	__u8 original_destination[16];
	__u16 source_port;
	__u16 destination_port;
	__u16 original_source_port;
	__u16 original_destination_port;
	__u32 rule_set_egress;
	__u32 rule_set_ingress;
	__u16 proxy_port;
	__u16 ether_type;
	__u32 ifindex;
	__u8 source_mac[6];
	__u8 destination_mac[6];
	__u32 tunnel_id;
	__u32 length;
	__u32 packets;
	__u8 direction;
	__u8 plugin_slot;
	__u8 pad[2];
	__u64 socket_cookie;
	__u64 cgroup_id;
};

struct packets_entry {
	__u64 packets;
	__u64 bytes;
};

_Static_assert(sizeof(struct endpoint_entry) == 56, "endpoint_entry");
_Static_assert(sizeof(struct conntrack_key) == 40, "conntrack_key");
_Static_assert(sizeof(struct conntrack_entry) == 96, "conntrack_entry");
_Static_assert(sizeof(struct policy_entry) == 16, "policy_entry");
_Static_assert(sizeof(struct service_key) == 20, "service_key");
_Static_assert(sizeof(struct service_flow_entry) == 32, "service_flow_entry");
_Static_assert(sizeof(struct event) == 168, "event");
