/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Conntrack's tables, keys, life of an entry. What a packet makes of them is in flow.h.
 *
 * A tuple that crosses the node once has one entry, leg BOTH, whichever of its ends are local; the verdict bits say what was
 * judged. Where one tuple crosses twice (a proxy between the ends; a pod's packet that the host's stack translated and sent
 * back), each crossing has a leg of its own. An entry names the local endpoints of its leg: 0 stands for whoever is reached
 * through the host. So a packet belongs to an entry only if it came in where the entry says its sender is.
 */
#pragma once

#include "config.h"
#include "parse.h"

/* Tuple and leg of an answered flow to its entry. Never evicted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct conntrack_key);
	__type(value, struct conntrack_entry);
	__uint(max_entries, 524288);
} conntrack SEC(".maps");

/* Tuple and leg of a flow that nobody has answered yet. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct conntrack_key);
	__type(value, struct conntrack_entry);
	__uint(max_entries, 65536);
} conntrack_new SEC(".maps");

/* Whether (address, port) x comes after y, as bytes on the wire are compared. */
static __always_inline int end_is_after(const union address *x, __be16 port_x, const union address *y, __be16 port_y)
{
	if (x->halves[0] != y->halves[0])
		return bpf_be64_to_cpu(x->halves[0]) > bpf_be64_to_cpu(y->halves[0]);
	if (x->halves[1] != y->halves[1])
		return bpf_be64_to_cpu(x->halves[1]) > bpf_be64_to_cpu(y->halves[1]);
	return bpf_ntohs(port_x) > bpf_ntohs(port_y);
}

/* Makes the key of a tuple; returns which end its source is: 0 a, 1 b. */
static __always_inline __u8 conntrack_key_of(struct conntrack_key *key, const struct tuple *tuple, __u8 protocol, __u8 leg)
{
	__u8 side = end_is_after(&tuple->source, tuple->source_port, &tuple->destination, tuple->destination_port);

	key->a = side ? tuple->destination : tuple->source;
	key->b = side ? tuple->source : tuple->destination;
	key->port_a = side ? tuple->destination_port : tuple->source_port;
	key->port_b = side ? tuple->source_port : tuple->destination_port;
	key->protocol = protocol;
	key->leg = leg;
	key->pad = 0;
	return side;
}

static __always_inline __u64 conntrack_timeout(__u8 protocol, __u8 state)
{
	if (protocol != IPPROTO_TCP)
		return timeout_any;
	switch (state) {
	case STATE_NEW:
		return timeout_syn;
	case STATE_CLOSING:
		return timeout_fin;
	default:
		return timeout_tcp;
	}
}

static __always_inline int conntrack_is_over(const struct conntrack_entry *entry, __u8 protocol, __u64 now)
{
	return (__s64)(now - entry->seen) > (__s64)conntrack_timeout(protocol, entry->state);
}

/* Flags that are worth an event and decide the state. */
#define TCP_FLAGS_NOTED (TCP_SYN | TCP_FIN | TCP_RST)

static __always_inline void conntrack_note_flags(struct conntrack_entry *entry, __u8 flags, int reply)
{
	entry->tcp_flags[reply] |= flags;
	if ((flags & TCP_RST) || (entry->tcp_flags[0] & entry->tcp_flags[1] & TCP_FIN))
		entry->state = STATE_CLOSING;
}
