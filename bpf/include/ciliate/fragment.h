/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Fragments: only the first has ports. It leaves them here for the others, which so get the verdict of their flow. */
#pragma once

#include "parse.h"

struct fragment_key {
	union address source;
	union address destination;
	__u32 id;
	__u8 protocol;
	__u8 pad[3];
};

struct fragment_entry {
	__be16 source_port;
	__be16 destination_port;
	__u8 icmp_type;
	__u8 icmp_kind;
	__u8 pad[2];
};

/* Datagram to what its first fragment says. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct fragment_key);
	__type(value, struct fragment_entry);
	__uint(max_entries, 8192);
} fragments SEC(".maps");

static __always_inline void fragment_key_of(struct fragment_key *key, const struct packet *packet)
{
	key->source = packet->now.source;
	key->destination = packet->now.destination;
	key->id = packet->fragment_id;
	key->protocol = packet->protocol;
}

static __noinline int fragment_later(struct packet *packet)
{
	struct fragment_key key = {};
	struct fragment_entry *first;

	fragment_key_of(&key, packet);
	first = bpf_map_lookup_elem(&fragments, &key);
	if (!first)
		return DROP(packet, FRAGMENT, FRAGMENT_NOT_FOUND);
	packet->now.source_port = first->source_port;
	packet->now.destination_port = first->destination_port;
	packet->icmp_type = first->icmp_type;
	packet->icmp_kind = first->icmp_kind;
	if (packet->protocol == IPPROTO_TCP)
		packet->tcp_flags = TCP_ACK;
	return 0;
}

static __noinline int fragment_first(struct packet *packet)
{
	struct fragment_key key = {};
	struct fragment_entry entry = {
		.source_port = packet->now.source_port,
		.destination_port = packet->now.destination_port,
		.icmp_type = packet->icmp_type,
		.icmp_kind = packet->icmp_kind,
	};

	fragment_key_of(&key, packet);
	if (bpf_map_update_elem(&fragments, &key, &entry, BPF_ANY))
		return DROP(packet, FRAGMENT, FRAGMENTATION_NOT_SUPPORTED);
	return 0;
}

/* The transport header of any packet: its own, or that of its first fragment. */
static __always_inline int parse_ports(struct __sk_buff *skb, struct packet *packet)
{
	int reason;

	if (unlikely(packet->fragment == FRAGMENT_LATER))
		return fragment_later(packet);
	reason = parse_transport(skb, packet);
	if (unlikely(!reason && packet->fragment == FRAGMENT_FIRST))
		return fragment_first(packet);
	return reason;
}
