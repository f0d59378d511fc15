/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What a plugin's program at a point of a packet's path sees, and what it may answer. The one public header of this folder:
 * it needs no other of them, and what is in it stays. docs/architecture.md, "Extension points", says how to ship a program.
 *
 *	#include <ciliate/plugin.h>
 *
 *	SEC("tc")
 *	int no_telnet(struct __sk_buff *skb)
 *	{
 *		const struct ciliate_packet *packet = ciliate_packet();
 *
 *		return packet && packet->destination_port == 23 ? CILIATE_DROP : CILIATE_CONTINUE;
 *	}
 */
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* Grows when fields are added. They are added in place of `reserved` only, so a program that was compiled with an older
 * header goes on working.
 */
#define CILIATE_PACKET_VERSION 1

/* Answers. Any other number counts as CONTINUE, and is counted as invalid. */
#define CILIATE_CONTINUE 0
#define CILIATE_DROP 2

#define CILIATE_INGRESS 0
#define CILIATE_EGRESS 1

/* What `fragment` says. A later fragment has the ports of its first one. */
#define CILIATE_WHOLE 0
#define CILIATE_FIRST_FRAGMENT 1
#define CILIATE_LATER_FRAGMENT 2

/* A packet, parsed and found to come from whom it says. Numbers are in the machine's order. */
struct ciliate_packet {
	__u16 version;
	__u16 transport; /* offset of the transport header from the frame's start */
	__u8 family;     /* 4 or 6 */
	__u8 protocol;   /* of the transport header */
	__u8 direction;  /* as the endpoint sees it */
	__u8 fragment;
	__u8 tcp_flags;
	__u8 icmp_type; /* ICMP has no ports: both are 0, or an echo's identifier at the requester's end */
	__u8 icmp_code;
	__u8 pad;
	__u32 length; /* of the frame, in bytes */
	__u32 endpoint;
	__u32 identity; /* of the endpoint */
	__u16 source_port;
	__u16 destination_port;
	__u32 reserved_word;
	__u8 source[16]; /* IPv4 is ::ffff:a.b.c.d */
	__u8 destination[16];
	__u8 reserved[32];
};

_Static_assert(sizeof(struct ciliate_packet) == 96, "struct ciliate_packet never changes its size");

/* The packet that this CPU works on. Ciliate writes it; programs read it, through the function below. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct ciliate_packet);
	__uint(max_entries, 1);
} point_packet SEC(".maps");

static __always_inline const struct ciliate_packet *ciliate_packet(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&point_packet, &zero);
}
