/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What the stages know of one packet: parsed once, into a per-CPU record. No pointer into the packet outlives a stage. */
#pragma once

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <stddef.h>

#include "layouts.h"

#define barrier() asm volatile("" ::: "memory")
#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

enum fragment { FRAGMENT_NONE, FRAGMENT_FIRST, FRAGMENT_LATER };

/* How the packet came to the programs. */
enum packet_path { PATH_POD, PATH_HOST, PATH_INGRESS_PROXY, PATH_EGRESS_PROXY };

/* What an ICMP message is to conntrack. */
enum icmp_kind { ICMP_NONE, ICMP_REQUEST, ICMP_REPLY, ICMP_ERROR, ICMP_OTHER };

struct tuple {
	union address source;
	union address destination;
	__be16 source_port;      /* ICMP echo: the identifier, at the requester's end only */
	__be16 destination_port;
	__u32 pad;
};

#define FIND_ENDPOINT 0xffffffffU

/* What `judge` is asked: always of a flow's original direction. An endpoint that is not to be looked for is named. */
struct question {
	union address source;
	union address destination;
	__u32 source_endpoint;
	__u32 destination_endpoint;
	__u32 fallback[2]; /* identities of source and destination where the ipcache has no answer any more; 0: none */
	__u32 source_identity; /* given by a proxy's mark; 0: looked up */
	__be16 port;
	__u8 protocol;
	__u8 path; /* how the packet came that has it asked */
};

#define SOURCE 0
#define DESTINATION 1
#define EGRESS_VERDICT 0
#define INGRESS_VERDICT 1

/* What `judge` answers. `endpoint`, `generation` and `identity` are by SOURCE and DESTINATION of the flow. */
struct verdict {
	__u64 word; /* as in struct conntrack_entry */
	__u32 endpoint[2];
	__u32 generation[2];
	__u32 identity[2];
	__u32 rule_set[2];
	__u32 destination_stamp; /* the destination endpoint's share of the stamp */
	__u8 match_type[2];
	__u8 direction;    /* of the verdict that denied */
	__u8 source_local; /* the source is an endpoint's address, though the packet came from the host */
	__u8 lasting;      /* may be kept in the flow-class cache */
	__u8 pad[7];
};

struct packet {
	/* zeroed for each packet, up to `key`; what a plain packet of an established flow needs ends with it */
	__u32 length;
	__u32 endpoint; /* whose interface it came in by; 0: the host's */
	__u32 generation;
	__u32 destination_endpoint;
	__u32 destination_generation;
	__u32 identity[2]; /* of this packet's source and destination */
	__u32 rule_set[2];
	__u32 event_packets;
	__u32 proxy_identity;
	__u32 switches;
	__u16 ether_type;
	__u16 transport; /* offset of the transport header */
	__u16 line;
	__u16 service; /* the original direction's: it was translated */
	__u16 proxy_port;
	__be16 original_port;
	__u8 file;
	__u8 protocol;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 icmp_kind;
	__u8 fragment;
	__u8 path;
	__u8 side; /* which end of the key is this packet's source: 0 a, 1 b */
	__u8 ct_state;
	__u8 kind; /* of the event; 0: none is due */
	__u8 direction;
	__u8 verdicts;
	__u8 match_type[2];
	__u8 loopback;
	__u8 translated;
	__u8 to_proxy;
	__u8 moved; /* its flow was answered just now */
	__u8 missed; /* a slot of an extension point had no program */
	__u8 plugin_slot; /* as in struct event */
	__u16 reverse; /* service whose address the reply is to get */
	__u32 fragment_id;

	struct tuple now;      /* what conntrack and policy see */
	struct conntrack_key key;
	__u32 events_sent; /* by this CPU, ever */
	__u32 events_pad;

	struct tuple original; /* what came in */
	struct tuple inner;    /* what an ICMP error quotes, as its sender sent it */
	__u8 inner_protocol;
	__u8 inner_icmp_kind;
	__u16 inner_transport; /* offset of the quoted transport header */
	__u8 inner_pad[4];
	struct conntrack_key other_key; /* of a service's flow, before translation */
	struct conntrack_entry fresh;
	struct service_flow_entry service_flow;
	struct question question;
	struct verdict verdict;
	__u8 frame[96]; /* an answer that is being made */
};

/* One record a CPU: a program is not interrupted by another one of its kind. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct packet);
	__uint(max_entries, 1);
} scratch SEC(".maps");

static __always_inline struct packet *packet_scratch(void)
{
	__u32 zero = 0;
	struct packet *packet = bpf_map_lookup_elem(&scratch, &zero);

	if (packet)
		__builtin_memset(packet, 0, offsetof(struct packet, key));
	return packet;
}

static __always_inline int drop_at(struct packet *packet, __u8 file, __u16 line, int reason)
{
	packet->file = file;
	packet->line = line;
	return reason;
}

/* The reason of a drop, remembered with the place in the source that decided. */
#define DROP(packet, file, reason) drop_at(packet, FILE_##file, __LINE__, DROP_##reason)

static __always_inline int address_equal(const union address *x, const union address *y)
{
	return x->halves[0] == y->halves[0] && x->halves[1] == y->halves[1];
}

static __always_inline int address_is_zero(const union address *x)
{
	return !(x->halves[0] | x->halves[1]);
}

static __always_inline int address_is_ipv4(const union address *x)
{
	return !x->halves[0] && x->words[2] == bpf_htonl(0xffff);
}

/* Whole halves are stored, as they are loaded after: a load that spans two stores waits for both to be in the cache. */
static __always_inline void address_from_ipv4(union address *address, __be32 ipv4)
{
	address->halves[0] = 0;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	address->halves[1] = (__u64)ipv4 << 32 | bpf_htonl(0xffff);
#else
	address->halves[1] = (__u64)bpf_htonl(0xffff) << 32 | ipv4;
#endif
}

/* From a header, which is aligned to its words at best. */
static __always_inline void address_from_ipv6(union address *address, const void *ipv6)
{
	const __u64 *halves = ipv6;

	address->halves[0] = halves[0];
	address->halves[1] = halves[1];
}

/* MACs are aligned to two bytes, wherever they stand; clang would copy and compare them byte by byte. */
static __always_inline void mac_copy(void *to, const void *from)
{
	const __u16 *in = from;
	__u16 *out = to;

	out[0] = in[0];
	out[1] = in[1];
	out[2] = in[2];
}

static __always_inline int mac_equal(const void *x, const void *y)
{
	const __u16 *a = x, *b = y;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]));
}

/* Multicast, or IPv4's broadcast. */
static __always_inline int address_is_group(const union address *x)
{
	return address_is_ipv4(x) ? x->bytes[12] >= 224 : x->bytes[0] == 0xff;
}
